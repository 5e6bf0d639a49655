"""The documentation site: every public name has its place; built without a warning, it loads nothing from elsewhere."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import gpunet as gn
from gpunet import datasets, linalg
from gpunet.compression import lora

ROOT = Path(__file__).parents[1]
API = ROOT / "docs" / "api"
ENTRY = re.compile(
    r'^::: (?P<path>[\w.]+)\n    options:\n      heading: "(?P<heading>.+)"\n      toc_label: "(?P<toc>.+)"', re.M
)
ENTRIES = [
    (page.name, *found.groups()) for page in sorted(API.glob("*.md")) for found in ENTRY.finditer(page.read_text())
]


def module(name):
    """A module of docs/site/, which no package holds."""
    spec = importlib.util.spec_from_file_location(f"site_{name}", ROOT / "docs" / "site" / f"{name}.py")
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def target(path):
    """What a path of the reference names; datasets/ is read from its folder."""
    path = f"gpunet.{path}" if path.startswith("datasets") else path
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError:
        home, _, name = path.rpartition(".")
        return getattr(importlib.import_module(home), name)


@pytest.mark.parametrize(
    ("prefix", "home"), [("gn", gn), ("gn.linalg", linalg), ("gn.lora", lora), ("gn.datasets", datasets)]
)
def test_every_public_name_has_its_place(prefix, home):
    shown = {heading: path for _, path, heading, _ in ENTRIES}
    everywhere = {id(target(path)) for path in shown.values()}
    assert [name for name in home.__all__ if id(getattr(home, name)) not in everywhere and name != "REGISTRY"] == []
    assert [heading for heading, path in shown.items() if not names(heading, path)] == []
    if home is gn:
        assert [name for name in gn.__all__ if f"gn.{name}" not in shown] == []


def names(heading, path):
    """Whether a heading says the name by which a user finds what stands below it."""
    if not heading.startswith("gn."):
        return heading in (path.rpartition(".")[2], "Rules for claims")
    found = gn
    for part in heading.split(".")[1:]:
        found = getattr(found, part)
    return found is target(path)


def test_every_error_is_shown():
    (listed,) = re.findall(r"members: \[(GpunetError.*)\]", (API / "backend.md").read_text())
    raised = [name for name, each in vars(gn.errors).items() if isinstance(each, type) and issubclass(each, Exception)]
    assert sorted(listed.split(", ")) == sorted(raised)


def test_each_stands_once_and_in_the_list():
    assert len({path for _, path, _, _ in ENTRIES}) == len(ENTRIES)
    listed = re.findall(r"\[([\w.]+)\]\((\w+\.md)#([\w.]+)\)", (API / "README.md").read_text())
    wanted = [
        (heading.removeprefix("gn."), page, path) for page, path, heading, _ in ENTRIES if heading.startswith("gn.")
    ]
    assert sorted(listed) == sorted(wanted)


def test_every_page_is_in_the_navigation():
    nav = re.findall(r"([\w./-]+\.md)$", (ROOT / "mkdocs.yml").read_text().partition("\nnav:")[2], flags=re.M)
    pages = [str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")]
    assert sorted(nav) == sorted([*pages, *module("hooks").TOP])


def test_search_finds_words_of_code_and_of_prose():
    (given,) = re.findall(r"separator: '(.*)'", (ROOT / "mkdocs.yml").read_text())
    separator = re.compile(given.replace("''", "'"))
    text = '`*.csv`, gn.save(net.model_) &lt;PATH&gt; loss="cross_entropy", scikit-learn\'s PCA(0.95)…'
    words = "csv gn save net model path loss cross entropy scikit learn s pca 0.95"
    assert [word for word in separator.split(text.lower()) if word] == words.split()
    hooks = module("hooks")
    assert [name for name in hooks.SEARCH if not (name in hooks.TOP or (ROOT / "docs" / name).exists())] == []


def test_links_that_leave_the_pages():
    links, source = module("hooks").links, "https://github.com/gpunet/gpunet/blob/main/"
    assert links("[`x`](../gpunet/a.py), [y](b.md#c)", "toy.md") == f"[`x`]({source}gpunet/a.py), [y](b.md#c)"
    assert links("[y](../adding.md) [z](../../CHANGELOG.md)", "api/x.md") == "[y](../adding.md) [z](../CHANGELOG.md)"
    assert links("[y](docs/adding.md#a) [z](LICENSE)", "CONTRIBUTING.md") == f"[y](adding.md#a) [z]({source}LICENSE)"
    for kept in ("[a](https://x.org/y)", "[a](#b)", "`[a](../b.py)`", "```python\n[a](../b.py)\n```", "![a](b.png)"):
        assert links(kept, "toy.md") == kept


def test_docstrings_become_markdown():
    pytest.importorskip("griffe", reason="griffe is not installed: pip install 'gpunet[docs]'")
    made = module("docstrings").as_markdown(
        "What ‖W‖_F[0] < 1 is.\n\nx: (n, 2), `a_b`;\nlater. one: first. two:\nboth.\nk, l: two\nlines.\n"
        "Raises InputError.\n\n>>> 1\n1",
        ["two"],
    )
    assert made == (
        "What ‖W‖\\_F\\[0] &lt; 1 is.\n\n- `x`: (n, 2), `a_b`;\n  later. one: first.\n- `two`: \n  both.\n"
        "- `k`, `l`: two\n  lines.\n\nRaises InputError.\n\n```pycon\n>>> 1\n1\n```"
    )


def test_what_is_cited_is_this_version():
    text = (ROOT / "CITATION.cff").read_text()
    assert re.findall(r"^version: (.*)$", text, flags=re.MULTILINE) == [gn.__version__]
    assert all(f"he experiment {name}." in text for name in gn.experiments.experiments())


FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))


def test_issue_forms_ask_for_what_there_is():
    yaml = pytest.importorskip("yaml")
    forms = {path.stem: yaml.safe_load(path.read_text()) for path in FORMS}
    assert sorted(forms) == ["bug", "claim", "config", "decomposition", "feature"]
    for name, form in forms.items():
        if name != "config":
            assert set(form) == {"name", "description", "labels", "body"}
            assert form["body"][-1]["attributes"]["label"] == "Output of `gpunet info`", name
            ids = [part["id"] for part in form["body"] if part["type"] != "markdown"]
            assert len(set(ids)) == len(ids)
    named = re.search(r"such as ([\w-]+)/([\w-]+),", (FORMS[0].parent / "claim.yml").read_text())
    folder = Path(importlib.import_module(gn.experiments.experiment(named[1]).package).__file__).parent
    assert f'@x.claim("{named[2]}"' in (folder / "claims.py").read_text()


@pytest.mark.slow
def test_the_site_is_built_without_a_warning_and_loads_nothing_from_elsewhere(tmp_path):
    pytest.importorskip("mkdocs", reason="mkdocs is not installed: pip install 'gpunet[docs]'")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)], cwd=ROOT,
        capture_output=True, text=True, check=False, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    pages = sorted(tmp_path.rglob("*.html"))
    assert len(pages) > 30
    for page in pages:
        text = page.read_text()
        fetched = re.findall(r'<(?:script|img|iframe|source)[^>]* src="?(\w+:)?//', text)
        fetched += re.findall(r'<link(?![^>]*rel="?canonical)[^>]* href="?(https?://[^" >]*)', text)
        assert [link for link in fetched if not link.startswith("https://gpunet.github.io/")] == [], page
        assert 'data-md-component="source"' not in text  # whose script asks another host for stars
    for sheet in tmp_path.rglob("*.css"):
        assert not re.search(r"@import|url\(['\"]?(https?:)?//", sheet.read_text()), sheet
