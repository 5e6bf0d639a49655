"""Which files make a run stale: those that measure, none that judge, draw or run, and none that measures is missing."""

from __future__ import annotations

import ast
import functools
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import gpunet
from gpunet import experiments as package
from gpunet.reproduce import plan
from gpunet.reproduce.plan import code, folders, sources

from .paper import x

PAPERS = list(package.experiments().values())
ROOT = Path(gpunet.__file__).parent
OWN = PAPERS[0].package
MEASURES = """
import json, sys
from importlib import import_module
x = import_module(sys.argv[1]).x
short = {name: few for name, few in (("epochs", 1), ("trials", 2), ("limit", 5)) if hasattr(x.Settings, name)}
x.asked(short, quick=True, seeds=1).load().compute("numpy")
print(json.dumps([name for name in sys.modules if name.startswith("gpunet")]))
"""


@pytest.fixture(scope="module")
def copied(tmp_path_factory) -> Path:
    """A copy of the library."""
    return shutil.copytree(ROOT, tmp_path_factory.mktemp("copy") / "gpunet", ignore=shutil.ignore_patterns("*.pyc"))


@pytest.fixture
def edited(copied, monkeypatch):
    """Whether an edit of a file of the library changes what stands for the code of a paper."""
    found = folders(OWN)
    moved = {name: copied / each.relative_to(ROOT) for name, each in found.items() if name != plan.DATA}
    monkeypatch.setattr(plan, "folders", lambda package: found | moved)

    def edit(name: str) -> bool:
        before, content = code.__wrapped__(OWN), (copied / name).read_bytes()
        (copied / name).write_bytes(content + b"\n")
        after = code.__wrapped__(OWN)
        (copied / name).write_bytes(content)
        assert code.__wrapped__(OWN) == before
        return after != before

    return edit


def own(name: str) -> str:
    return f"{OWN.removeprefix('gpunet.').replace('.', '/')}/{name}"


@pytest.mark.parametrize(
    "name",
    [own("body.py"), own("data.py"), own("__init__.py"), "backend/numpy_backend.py", "backend/base.py", "nn/trainer.py",
     "nn/layers/dense.py", "linalg/svd.py", "rng.py", "experiments/framework.py", "backend/cuda/kernels.cu",
     "backend/cuda/common.cuh"],
)  # fmt: skip
def test_an_edit_of_what_measures_makes_a_run_stale(edited, name):
    assert edited(name)


@pytest.mark.parametrize(
    "name",
    [own("claims.py"), own("tables.py"), own("figures.py"), "experiments/claims.py", "report/drawing.py",
     "report/style.py", "report/page/__init__.py", "reproduce/plan.py", "reproduce/runner.py", "bench/train.py",
     "report/claims_json.py"],
)  # fmt: skip
def test_an_edit_of_what_judges_or_shows_makes_nothing_stale(edited, name):
    assert not edited(name)


@pytest.mark.slow
@pytest.mark.parametrize(
    "paper", [pytest.param(each, id=each.name, marks=[pytest.mark.slow] * (place > 0))
              for place, each in enumerate(PAPERS)],
)  # fmt: skip
def test_no_module_that_a_run_imports_is_missing(paper):
    done = subprocess.run(
        [sys.executable, "-c", MEASURES, paper.package], capture_output=True, text=True, timeout=300, check=True
    )
    imported = {name for name in json.loads(done.stdout) if not name.startswith("gpunet.datasets")}
    assert {"gpunet.backend.numpy_backend", f"{paper.package}.body"} <= imported
    assert imported <= set(sources(paper.package, folders(paper.package)))


@functools.cache
def loaded(name: str, path: Path) -> frozenset[str]:
    """What a module imports as it is imported."""
    imports = [node for node in ast.parse(path.read_text()).body if isinstance(node, (ast.Import, ast.ImportFrom))]
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    return plan._named("\n".join(map(ast.unparse, imports)).encode(), package, path.name)


@pytest.mark.parametrize("paper", PAPERS, ids=lambda each: each.name)
def test_what_measures_does_not_depend_on_what_judges_or_shows(paper):
    """Else an edit there could change a result, and nobody would see that it is of other code."""
    found = sources(paper.package, folders(paper.package))
    assert f"{paper.package}.body" in found
    others = [f"{each.package}." for each in PAPERS if each is not paper]
    assert not [name for name in found if name.startswith(tuple(others))]
    wrong = [
        f"{name} imports {each}"
        for name, path in found.items() if path.suffix == ".py"
        for each in loaded(name, path)
        if each.startswith(plan.ROOMS_APART)
        or (each.startswith("gpunet") and each.rpartition(".")[2] in plan.FILES_APART)
    ]  # fmt: skip
    assert wrong == []


def test_the_kernels_count_where_their_launcher_does():
    found = sources(OWN, folders(OWN))
    assert {path.name for path in (ROOT / "backend" / "cuda").glob("*.cu*")} <= set(found)
    assert "gpunet.backend.cupy_backend" in found


def test_a_paper_elsewhere_is_looked_through_as_well():
    found = sources(x.package, folders(x.package))
    assert {x.package, f"{x.package}.body", "gpunet.nn.trainer", "gpunet.nn.layers.dense"} <= set(found)
    assert f"{x.package}.claims" not in found


FILES = {
    "gpunet/__init__.py": "_HOMES = {'Net': 'nets'}\n",
    "gpunet/nets.py": "from gpunet import rng as numbers\n",
    "gpunet/rng.py": "def late():\n    from .deep import inner\n    return inner.thing\n",
    "gpunet/deep/__init__.py": "",
    "gpunet/deep/inner.py": "import numpy\nTOLD = 'gpunet.named:function'\n",
    "gpunet/named.py": "from .deep.other import thing\n",
    "gpunet/deep/other.py": "",
    "gpunet/spare.py": "",
    "gpunet/lazy.py": "",
    "gpunet/report/__init__.py": "",
    "gpunet/report/draw.py": "import gpunet.spare\n",
    "gpunet/p/__init__.py": "",
    "gpunet/p/body.py": "import gpunet as gn, gpunet.report.draw\nfrom gpunet.data import made\nnet = gn.Net(1)\n",
    "gpunet/p/claims.py": "import gpunet.spare\n",
    "data/__init__.py": "_LAZY = {'made': 'making', 'load': 'loading'}\n",
    "data/making.py": "from .arrays import check\n",
    "data/arrays.py": "",
    "data/loading.py": "",
}


def test_every_way_to_import_is_followed_and_no_more(tmp_path, monkeypatch):
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(plan, "DATA", "gpunet.data")
    places = {"gpunet.p": tmp_path / "gpunet" / "p", "gpunet.data": tmp_path / "data", "gpunet": tmp_path / "gpunet"}
    found = sources("gpunet.p", places)
    assert sorted(found) == sorted([
        "gpunet", "gpunet.p", "gpunet.p.body", "gpunet.nets", "gpunet.rng", "gpunet.deep", "gpunet.deep.inner",
        "gpunet.named", "gpunet.deep.other", "gpunet.data", "gpunet.data.making", "gpunet.data.arrays",
        "gpunet.data.loading",
    ])  # fmt: skip
    (tmp_path / "gpunet" / "nets.py").write_text("from gpunet.data import load\n")
    (tmp_path / "gpunet" / "p" / "body.py").write_text("import gpunet as gn\n")
    assert sorted(sources("gpunet.p", places)) == ["gpunet", "gpunet.nets", "gpunet.p", "gpunet.p.body"]
