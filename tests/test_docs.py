"""The pages under docs/ speak of things that exist, and their examples run."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import shlex
import sys
import types
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from markdown_it import MarkdownIt
from safetensors.numpy import save_file

from .cli.runner import run
from .experiments.schema import is_png
from .snippets import IMAGE, PROGRAM, alike, blocks, snippets
from .snippets import run as run_snippet

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [*sorted((ROOT / "docs").rglob("*.md")), README, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
IN_HTML = re.compile(r"(?:src|href)=['\"]([^'\"]+)")
page = pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)


def prose(path):
    """The page without its blocks of code."""
    return re.sub(r"^ *```.*?```|^    .*?$", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)


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


def links(path):
    """(target, text) of the page's links and pictures, in Markdown, by reference or in HTML."""
    for token in MarkdownIt("commonmark").enable("table").parse(path.read_text()):
        if token.type == "html_block":
            yield from ((target, "") for target in IN_HTML.findall(token.content))
        opened = None
        for part in token.children or ():
            if part.type == "link_open":
                opened, text = part.attrs["href"], ""
            elif part.type == "link_close":
                yield opened, text
                opened = None
            elif part.type == "image":
                yield part.attrs["src"], part.content
            elif part.type == "html_inline":
                yield from ((target, "") for target in IN_HTML.findall(part.content))
            elif opened is not None:
                text += f"`{part.content}`" if part.type == "code_inline" else part.content


@cache
def anchors(path):
    """What a browser finds in a page by its headings, as GitHub and the site spell them."""
    tokens = MarkdownIt("commonmark").parse(path.read_text())
    headings = [after.content for token, after in pairwise(tokens) if token.type == "heading_open"]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@page
def test_links_lead_to_what_they_name(page):
    broken = []
    for link, text in links(page):
        target, _, anchor = unquote(link).partition("#")
        if re.match(r"https?:", target):
            continue
        path = (page.parent / target).resolve() if target else page
        if not path.exists():
            broken.append(f"{target} does not exist")
        elif path.suffix == ".py" and (name := re.fullmatch(r"`([\w.]+)`", text)) and name[1] not in defined(path):
            broken.append(f"{target} does not define {name[1]}")
        elif anchor and path.suffix == ".md" and "api" not in path.parts and anchor not in anchors(path):
            broken.append(f"{link} has no such heading")  # those of api/ are names, which the site's build looks for
    assert broken == []


def test_every_kind_of_link_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "# A `b`, c\n\n[![p](a.png)](b.md#x) <img src='c.png'> [d][ref] [`n`](e.py)\n\n"
        '    [no](code.md)\n\n[ref]: f.md\n\n<p align=center><a href="g.md">g</a></p>\n'
    )
    found = [("a.png", "p"), ("b.md#x", ""), ("c.png", ""), ("f.md", "d"), ("e.py", "`n`"), ("g.md", "")]
    assert list(links(page)) == found
    assert anchors(page) == {"a-b-c"}


@page
def test_named_files_exist(page):
    named = re.findall(
        r"`((?:gpunet|cli|datasets|tests|benchmarks|docs)/[\w./-]+\.(?:py|md|cu|cuh|sh|json))`", prose(page)
    )
    assert [name for name in named if "NAME" not in name and not (ROOT / name).exists()] == []


# Of what a page takes for granted that is long, the same on small data: everything else runs as it stands.
TINY = "--epochs 1 --seeds 1 --device numpy"
SWEEP = (
    "gpunet sweep train --dataset digits --param learning_rate=log:1e-4..1e-1 --param hidden=int:16..256 --workers 2"
)
INSTEAD = {
    "gpunet run svd-init": f"gpunet run svd-init --dataset digits {TINY}",
    "gpunet run svd-init --dataset digits": f"gpunet run svd-init --dataset digits {TINY}",
    "gpunet run svd-init --dataset trees.npz": f"gpunet run svd-init --dataset trees.npz --hidden 6 {TINY}",
    "gpunet run svd-dnn": f"gpunet run svd-dnn --dataset digits --alpha 0.5 --no-speed {TINY}",
    "gpunet run svd-dnn --task cats": f"gpunet run svd-dnn --task cats --dataset two.npz --no-speed {TINY}",
    "gpunet run svd-dnn --task xor": f"gpunet run svd-dnn --task xor --no-speed {TINY}",
    "gpunet run dmn": f"gpunet run dmn --dataset digits --no-sweeps --no-dynamics {TINY}",
    "gpunet run dmn --dataset cifar10": f"gpunet run dmn --dataset digits --no-sweeps --no-dynamics {TINY}",
    "gpunet run dmn --dataset cifar10 --rivals 50 --variance 0.998,0.99 --no-sweeps --no-dynamics": (
        f"gpunet run dmn --dataset digits --rivals 2 --variance 0.95,0.9 --no-sweeps --no-dynamics {TINY}"
    ),
    "gpunet run toy": "gpunet run toy --quick --limit 50 --device numpy",
    "gpunet run toy --hidden 8,8 --dataset my.npz": "gpunet run toy --hidden 8 --dataset two.npz --quick --limit 9",
    "gpunet run cifar-mlp": f"gpunet run cifar-mlp --dataset digits --part final {TINY}",
    "gpunet run cifar-mlp --part search --trials 200": "gpunet run cifar-mlp --part search --trials 2 --quick",
    SWEEP: f"{SWEEP} --trials 2 --stages 1 --epochs 1",
    "gpunet run patches": "gpunet run patches -p 8 --dataset digits --seeds 1 --sweep-samples 100 --device numpy",
    "gpunet run patches --quick": "gpunet run patches --quick -p 8 --sweep-samples 100 --device numpy",
    "gpunet run patches -p 4096 --no-sweeps --seeds 1": "gpunet run patches -p 8 --no-sweeps --quick --head-epochs 0",
    "gpunet run patches -d mnist -p 448 --no-sweeps": "gpunet run patches -d digits -p 8 --no-sweeps --seeds 1",
}
# What is not run here, and why.
NOT_RUN = {
    r"python3 -m venv .*": "installs from a network; README's are what .ci/run runs",
    r"git clone .*": "fetches from a network",
    r"cd gpunet": "what that fetches",
    r"pip install .*": "installs from a network",
    r"gpunet reproduce( --quick)?": "a minute and more; tests/reproduce runs it on small plans",
}


@pytest.fixture
def taken_for_granted(tmp_path, monkeypatch):
    """What pages have at hand: some files, and MPI's pool, for which threads stand where it is not installed."""
    monkeypatch.chdir(tmp_path)
    for name, value in (("COLUMNS", "100"), ("MPLBACKEND", "agg"), ("NO_COLOR", "1")):
        monkeypatch.setenv(name, value)
    rng = np.random.default_rng(0)
    np.savez("two.npz", X=rng.normal(size=(60, 2)), y=np.arange(60) % 2)
    shards = {"0.weight": rng.normal(size=(256, 64)), "2.weight": rng.normal(size=(10, 256))}
    shards |= {"0.bias": np.zeros(256), "2.bias": np.zeros(10)}
    Path("llama").mkdir()
    for number, layer in enumerate("02"):
        part = {name: each.astype("float32") for name, each in shards.items() if name.startswith(layer)}
        save_file(part, f"llama/model-{number}.safetensors")
    index = {"weight_map": {name: f"model-{'02'.index(name[0])}.safetensors" for name in shards}}
    Path("llama/model.safetensors.index.json").write_text(json.dumps(index))
    if importlib.util.find_spec("mpi4py") is None:
        monkeypatch.setitem(sys.modules, "mpi4py", types.ModuleType("mpi4py"))
        pool = types.SimpleNamespace(MPIPoolExecutor=ThreadPoolExecutor)
        monkeypatch.setitem(sys.modules, "mpi4py.futures", pool)


def code_of(page):
    """The page's snippets, each of a kind that is known."""
    return snippets(page.read_text())


def in_place_of(command):
    """What is run for a command: itself, the same on small data, or None where it is not run."""
    if any(re.fullmatch(pattern, command) for pattern in NOT_RUN):
        return None
    return INSTEAD.get(command, command)


def long(page):
    return any(each.code in INSTEAD for each in code_of(page) if each.kind == "command")


WITH_CODE = [page for page in PAGES if code_of(page)]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The feature will be removed")  # of torch's exporter
@pytest.mark.filterwarnings("ignore:training in float32, not mixed")  # on a CPU without units for bfloat16
@pytest.mark.filterwarnings("ignore:You are using the legacy TorchScript")
@pytest.mark.parametrize(
    "page", [pytest.param(p, marks=[pytest.mark.slow] * long(p), id=str(p.relative_to(ROOT))) for p in WITH_CODE]
)
def test_snippets_run(page, taken_for_granted, monkeypatch):
    """All of a page in order, as a reader would; what a block of text after one shows is what it prints."""
    text = page.read_text()
    if "dask.distributed" in text:
        pytest.importorskip("distributed", reason="dask.distributed is not installed: pip install 'gpunet[dask]'")
    if "import torch" in text:
        pytest.importorskip("torch", reason="torch is not installed: pip install torch")
    if "import onnx" in text:
        pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install 'gpunet[onnx]'")
    monkeypatch.setitem(sys.modules, page.stem, types.ModuleType(page.stem))
    names, wrong = vars(sys.modules[page.stem]), []
    for snippet in code_of(page):
        command = in_place_of(snippet.code) if snippet.kind == "command" else ""
        if snippet.kind == "text" or command is None:
            continue
        printed = run_snippet(page, snippet, names, command)
        same = alike if page != README else same_words
        if snippet.output is not None and not same(snippet.output, printed):
            wrong.append(f"{snippet}: the page shows\n{snippet.output}\nand it printed\n{printed}")
    assert wrong == [], f"python -m tests.snippets {page.relative_to(ROOT)} writes it anew"
    for picture in IMAGE.findall(text):
        if (page.parent / picture).name not in KEPT_PICTURES:
            assert is_png(Path(picture).read_bytes()), f"no snippet saves {picture}"
    if page == README:
        told = names["small"].compression
        assert told["parameters"][1] < 0.12 * told["parameters"][0]
        assert told["metric"][1] > told["metric"][0] - 0.02


KEPT_PICTURES = {"report.png", "speed.png"}  # made by hours of computing, and from benchmarks/results


def same_words(shown, printed):
    """But for their numbers, which of a net that PyTorch trained are others on another machine, as its times are."""
    one, other = (re.sub(r"[\d.,]+", "#", re.sub(r" +", " ", text)).strip() for text in (shown, printed))
    return one == other


def test_nothing_is_excused_that_is_not_there():
    shown = [each.code for page in WITH_CODE for each in code_of(page) if each.kind == "command"]
    assert [command for command in INSTEAD if command not in shown] == []
    assert [pattern for pattern in NOT_RUN if not any(re.fullmatch(pattern, each) for each in shown)] == []
    assert 'sed -n "s/^    \\(python3 -m venv' in (ROOT / ".ci" / "run").read_text()


@pytest.mark.parametrize("page", WITH_CODE, ids=lambda p: p.name)
def test_text_is_no_code(page):
    """A block of text that nothing printed is an equation, or a list of folders: no Python, and no command."""
    for each in code_of(page):
        if each.kind == "text":
            assert not any(map(PROGRAM.match, each.code.split("\n"))), str(each)
            with pytest.raises(SyntaxError):
                ast.parse(each.code)


def test_pages_are_fenced():
    """An indented block has no colours, and looks like a part of a list: only the README's two commands need them."""
    for page in (ROOT / "docs").rglob("*.md"):
        assert [
            first + 1 for language, first, _ in blocks(page.read_text().split("\n")) if language == "indented"
        ] == []


def test_snippets_are_found():
    indented = "a\n\n    x = 1\n    gpunet info  # all\n    y = 2\n\n"
    found = snippets(indented + "```python\nprint(x)\n```\n\n```text\n1.50\n```\n\n```text\nσ\n```\n")
    assert [(each.kind, each.code, each.line) for each in found] == [
        ("python", "x = 1", 3), ("command", "gpunet info", 4), ("python", "y = 2", 5),
        ("python", "print(x)", 8), ("text", "σ", 16),
    ]  # fmt: skip
    assert found[3].output == "1.50"
    assert alike("a 1.50, 12 of 1e-3", "a 1.52, 12 of 1e-3")
    assert not alike("a 1.50", "a 1.53")
    assert not alike("12 of 20", "13 of 20")
    assert not alike("12 of 20", "12 in 20")
    with pytest.raises(ValueError, match="not 'toml'"):
        snippets("```toml\n```")


def commands(path):
    """The commands shown on the page: in blocks, and code in backticks that begins with gpunet."""
    text = path.read_text()
    shown = [each.code for each in snippets(text) if each.code.startswith("gpunet ")]
    return shown + re.findall(r"`(gpunet [a-z][^`]*)`", text)


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
