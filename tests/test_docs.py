"""The pages under docs/ speak of things that exist, and their examples run."""

from __future__ import annotations

import ast
import re
import shlex
from functools import cache
from pathlib import Path

import pytest

from .cli.runner import run

ROOT = Path(__file__).parents[1]
PAGES = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
LINK = re.compile(r"!?\[(?P<text>[^\]]+)\]\((?P<target>[^)\s]+)\)")
page = pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)


def prose(path):
    """The page without its blocks of code."""
    return re.sub(r"```.*?```|^    .*?$", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)


@cache
def defined(path):
    """Names that a Python file defines at its top level, and `Class.method`."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
            found |= {
                f"{node.name}.{sub.name}" for sub in getattr(node, "body", []) if isinstance(sub, ast.FunctionDef)
            }
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}
    return found


@page
def test_links_lead_to_what_they_name(page):
    broken = []
    for link in LINK.finditer(prose(page)):
        target, text = link["target"].partition("#")[0], link["text"]
        if re.match(r"https?:", target) or not target:
            continue
        path = (page.parent / target).resolve()
        if not path.exists():
            broken.append(f"{target} does not exist")
        elif path.suffix == ".py" and (name := re.fullmatch(r"`([\w.]+)`", text)) and name[1] not in defined(path):
            broken.append(f"{target} does not define {name[1]}")
    assert broken == []


@page
def test_named_files_exist(page):
    named = re.findall(
        r"`((?:gpunet|cli|datasets|tests|benchmarks|docs)/[\w./-]+\.(?:py|md|cu|cuh|sh|json))`", prose(page)
    )
    assert [name for name in named if "NAME" not in name and not (ROOT / name).exists()] == []


@pytest.mark.filterwarnings("ignore:The feature will be removed")  # of torch's exporter
@pytest.mark.filterwarnings("ignore:You are using the legacy TorchScript")
@pytest.mark.parametrize("page", [p for p in PAGES if "```python" in p.read_text()], ids=lambda p: p.name)
def test_examples_run(page, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    if "dask.distributed" in page.read_text():
        pytest.importorskip("distributed", reason="dask.distributed is not installed: pip install 'gpunet[dask]'")
    if "import torch" in page.read_text():
        pytest.importorskip("torch", reason="torch is not installed: pip install torch")
    if "import onnx" in page.read_text():
        pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install 'gpunet[onnx]'")
    names: dict[str, object] = {"__name__": page.stem}
    for number, code in enumerate(
        re.findall(r"^```python\n(.*?)^```", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    ):
        where = f"{page.name}, example {number + 1}"
        exec(compile(code, where, "exec", dont_inherit=True), names)  # our own text, not input


def commands(path):
    """The commands shown on the page: lines of indented blocks and code in backticks that begin with gpunet."""
    text = path.read_text()
    lines = re.findall(r"^ {4}(?:\$ )?(gpunet [a-z].*)$", text, flags=re.MULTILINE) + re.findall(
        r"`(gpunet [a-z][^`]*)`", text
    )
    return [line.partition("  #")[0].strip() for line in lines]


GROUPS = ("run", "bench", "data", "sweep")


@page
def test_commands_and_their_options_exist(page, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    unknown = []
    for line in commands(page):
        words = shlex.split(line.replace("EXPERIMENT", "svd-init"))[1:]
        shown = run(capsys, *words[: 2 if words[0] in GROUPS and words[1:] and words[1].islower() else 1], "--help")
        if shown.code:
            unknown.append(f"{line}: {shown.err.strip()}")
        options = [word.partition("=")[0].rstrip(",") for word in words if word.startswith("--")]
        unknown += [f"{line}: {option}" for option in options if option not in shown.out]
    assert unknown == []
