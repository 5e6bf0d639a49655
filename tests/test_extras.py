"""What a plain install lacks is one line that names the extra; and what the extras bring is what the code asks for."""

from __future__ import annotations

import ast
import importlib
import importlib.machinery
import importlib.util
import os
import platform
import pydoc
import subprocess
import sys
import tomllib
import types

import pytest

from gpunet import extras
from gpunet.backend import onednn
from gpunet.errors import InputError, MissingError
from tests.backend.test_contract import FOLDERS, ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PLAIN = {"numpy", "safetensors", "rich", "typer"}
# What is used where somebody has it, and no extra brings: a notebook's display, a rival, a GPU's.
OTHERS = {
    "cupy",
    "cupy_backends",
    "cuda",
    "markupsafe",
    "IPython",
    "jax",
    "google",
    "urllib3",
    "pandas",
    "transformers",
    "peft",
    "click",
}
HIDE = f"""
import sys

class Hidden:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        hidden = name.partition(".")[0] in {sorted({*extras.KNOWN, *OTHERS} - {"click"})!r}
        return None if hidden else self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = map(Hidden, sys.meta_path)
"""
BREAK = f"""
import importlib.machinery
import sys

class Broken:
    def find_spec(self, name, path=None, target=None):
        if name in {sorted(extras.KNOWN)!r}:
            return importlib.machinery.ModuleSpec(name, self, origin="broken", is_package=True)

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        exec(r"raise OSError('a library is missing\\nand more lines')", vars(module))

sys.meta_path.insert(0, Broken())
"""


def named(requirement):
    """The name of a package, as it is compared."""
    return requirement.partition(";")[0].strip().split("[")[0].split(">")[0].split("<")[0].split("=")[0].strip().lower()


def brought(extra):
    """The packages of an extra, those of the extras that it names included."""
    found = set()
    for each in PROJECT["optional-dependencies"][extra]:
        if named(each) == "gpunet":
            for other in each[each.index("[") + 1 : each.index("]")].split(","):
                found |= brought(other)
        else:
            found.add(named(each))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("way", ["hidden", "broken"])
def test_without_extras_all_that_is_plain_works_and_the_rest_is_named(tmp_path, way):
    (tmp_path / "sitecustomize.py").write_text({"hidden": HIDE, "broken": BREAK}[way])
    path = os.pathsep.join((str(tmp_path), str(ROOT)))
    done = subprocess.run(
        [sys.executable, ROOT / "tests" / "smoke.py", f"--{way}"], cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": path, "COLUMNS": "100"}, timeout=500,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "command_doors" in done.stdout


def test_the_plain_install_is_four_packages():
    assert {named(each) for each in PROJECT["dependencies"]} == PLAIN


@pytest.mark.parametrize("module", extras.KNOWN)
def test_an_extra_that_is_named_brings_the_module(module):
    package = {"PIL": "pillow", "sklearn": "scikit-learn"}.get(module, module)
    for extra in extras.KNOWN[module][1].split():
        assert package in brought(extra)


def test_a_library_that_is_no_module_is_brought_by_the_extra_that_its_line_names(monkeypatch):
    """oneDNN, which `extras.KNOWN` cannot hold, by a wheel of one system."""
    monkeypatch.setattr(onednn, "_load", lambda: None)
    for system, machine, how in (
        ("linux", "x86_64", ": pip install 'gpunet[fast]'"), ("darwin", "arm64", ""), ("linux", "aarch64", ""),
    ):  # fmt: skip
        monkeypatch.setattr(sys, "platform", system)
        monkeypatch.setattr(platform, "machine", lambda machine=machine: machine)
        library, why = onednn.engine.__wrapped__()
        assert library is None
        assert why == f"products of bfloat16 on a CPU need oneDNN 3, which is not installed{how}"
    (line,) = [each for each in PROJECT["optional-dependencies"]["fast"] if named(each) == onednn.WHEEL]
    assert line.partition("; ")[2] == "sys_platform == 'linux' and platform_machine == 'x86_64'"


def test_all_are_brought_by_all_but_a_gpus():
    every = PROJECT["optional-dependencies"]
    of_users = set(every) - {"all", "test", "docs", "cuda12", "cuda13"}
    assert brought("all") == set().union(*map(brought, of_users))
    assert {*extras.EXTRAS} == of_users | {"cuda12", "cuda13"}


@pytest.mark.slow
def test_whatever_is_imported_is_plain_or_some_extras():
    """Modules of the plain path import nothing else at their top; what others import is known."""
    known, at_top, unknown = {*PLAIN, *extras.KNOWN, *OTHERS, "gpunet"} | {*sys.stdlib_module_names}, {}, []
    for folder in FOLDERS:
        for path in folder.rglob("*.py"):
            body = ast.parse(path.read_text())
            for node in ast.walk(body):
                modules = (
                    [each.name for each in node.names] if isinstance(node, ast.Import)
                    else [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
                )  # fmt: skip
                for name in {each.partition(".")[0] for each in modules} - {*PLAIN, "gpunet"}:
                    if name not in known:
                        unknown.append(f"{path.relative_to(ROOT)}: {name}")
                    if node in body.body and name in extras.KNOWN:
                        at_top.setdefault(str(path.relative_to(ROOT)), set()).add(name)
    assert sorted({*unknown}) == []
    rooms = {path.split("/")[1] if path.startswith("gpunet/") else path for path in at_top}
    # numba's backend, its cache and its threads are imported where numba is; other rooms say at once what they need.
    assert rooms <= {"backend", "estimators", "sweep", "bench", "report", "experiments"}, at_top
    assert {path for path in at_top if path.startswith("gpunet/backend")} == {
        "gpunet/backend/numba_backend.py", "gpunet/backend/numba_cache.py", "gpunet/backend/shares.py",
    }  # fmt: skip


def test_the_line_names_all_that_is_missing_once(monkeypatch):
    for name in ("sklearn", "scipy", "optuna", "matplotlib", "distributed", "dask"):
        monkeypatch.setitem(sys.modules, name, None)
    extras.need("this", "numpy", "json")
    with pytest.raises(MissingError) as caught:
        extras.need("a figure", "matplotlib", "scipy")
    assert str(caught.value) == (
        "a figure needs matplotlib and SciPy, which are not installed: pip install 'gpunet[report]'"
    )
    with pytest.raises(
        MissingError, match=r"needs Optuna, scikit-learn, SciPy and Dask, .*'gpunet\[data,sweep,dask\]'"
    ):
        extras.need("this", "optuna", "sklearn", "scipy", "dask", "distributed")
    with pytest.raises(InputError, match=r"this needs Dask, which is not installed: pip install 'gpunet\[dask\]'"):
        extras.load("this", "dask.array")
    assert extras.how("jax") == "pip install jax"
    assert extras.load("this", "json.decoder").JSONDecoder
    assert issubclass(MissingError, ImportError)  # `try: from gpunet import Classifier` as of any package


def test_a_package_that_is_broken_says_why(tmp_path, monkeypatch):
    (tmp_path / "msgspec.py").write_text("import something_else_entirely")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "msgspec", raising=False)
    with pytest.raises(MissingError, match=r"needs msgspec, which cannot be imported: No module named 'something_"):
        extras.load("this", "msgspec")


def test_whatever_is_broken_is_told_by_its_own_name(tmp_path, monkeypatch):
    """A library that is missing, another NumPy's package; within a package that is sound, in a module further down."""
    harness = pytest.importorskip("gpunet.bench.harness", exc_type=ImportError)
    monkeypatch.syspath_prepend(tmp_path)
    files = {
        "gn_lib": "raise OSError('libx.so: cannot open shared object file.\\nand more')",
        "gn_numpy": "raise ValueError('numpy.dtype size changed')",
        "gn_outer": "import gn_lib", "gn_wants": "import gn_gone", "gn_other": "import something_else_entirely",
        "gn_full": "raise MemoryError",
    }  # fmt: skip
    for name, text in files.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(text)
        monkeypatch.setitem(extras.KNOWN, name, (name.upper(), "data"))
    (tmp_path / "gn_sound").mkdir()
    (tmp_path / "gn_sound" / "__init__.py").write_text("")
    (tmp_path / "gn_sound" / "part.py").write_text("from json import that_is_not_there")
    monkeypatch.setitem(extras.KNOWN, "gn_sound", ("GN_SOUND", "data"))
    monkeypatch.setitem(extras.KNOWN, "gn_gone", ("GN_GONE", "fast"))
    says = {
        "gn_lib": "this needs GN_LIB, which cannot be imported: libx.so: cannot open shared object file; reinstall it: "
        "pip install --force-reinstall gn_lib",
        "gn_numpy": "this needs GN_NUMPY, which cannot be imported: numpy.dtype size changed; reinstall it",
        "gn_outer": "this needs GN_LIB, which cannot be imported: libx.so",
        "gn_wants": "this needs GN_GONE, which is not installed: pip install 'gpunet[fast]'",
        "gn_other": "this needs GN_OTHER, which cannot be imported: No module named 'something_else_entirely'; reinst",
        "gn_sound.part": "this needs GN_SOUND, which cannot be imported: cannot import name 'that_is_not_there'",
    }
    for name, said in says.items():
        for door in (extras.need, extras.load):
            with pytest.raises(MissingError) as caught:
                door("this", name)
            assert str(caught.value).startswith(said)
        with pytest.raises(Exception) as raw:
            importlib.import_module(name)
        assert extras.told(raw.value).startswith(said)
        assert extras.optional(name) is None
    assert harness.lacking("gn_outer").startswith("a rival needs GN_LIB, which cannot be imported: libx.so")
    assert harness.lacking("gn_gone") == "gn_gone is not installed; pip install 'gpunet[fast]'"
    assert harness.lacking("json") == "" == harness.lacking("gn_sound")
    assert extras.optional("gn_sound").__name__ == "gn_sound"
    with pytest.raises(MemoryError):  # no fault of the package
        extras.need("this", "gn_full")


def test_a_folder_of_that_name_and_an_empty_module_count_as_missing(tmp_path, monkeypatch):
    from gpunet.backend import device
    from gpunet.bench.harness import lacking

    for name in ("onnx", "cupy", "numba", "torch"):
        (tmp_path / name).mkdir()
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *(path for path in sys.path if not path.endswith("-packages"))])
    monkeypatch.setattr(sys, "meta_path", [each for each in sys.meta_path if each is importlib.machinery.PathFinder])
    importlib.invalidate_caches()
    assert importlib.util.find_spec("onnx").origin is None
    assert extras.lacking("onnx", "cupy", "numba", "torch") == ["onnx", "cupy", "numba", "torch"]
    for imported in (False, True):  # by a script that took it for the package
        with pytest.raises(MissingError, match=r"this needs onnx, which is not installed: .*'gpunet\[onnx\]'"):
            extras.load("this", "onnx")
        if not imported:
            monkeypatch.setitem(sys.modules, "onnx", importlib.util.module_from_spec(importlib.util.find_spec("onnx")))
    assert "CuPy is not installed" in device.why_no_gpu()
    assert "numba is not installed" in device.why_no_numba()
    assert "torch is not installed" in lacking("torch")
    for mock in (types.ModuleType("torch"), None):
        monkeypatch.setitem(sys.modules, "torch", mock)
        assert extras.lacking("torch") == ["torch"]


def test_errors_of_imports_that_nobody_foresaw_are_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert extras.told(ModuleNotFoundError("No", name="optuna.storages"), "it").startswith("it needs Optuna, which is")
    assert extras.told(ModuleNotFoundError("No", name="elsewhere")) == extras.told(ValueError("No")) == ""
    assert extras.told(ImportError("broken", name="optuna")) == (
        "this needs Optuna, which cannot be imported: broken; reinstall it: pip install --force-reinstall optuna"
    )
    assert extras.told(ModuleNotFoundError()) == ""


def test_a_class_that_cannot_be_had_is_there_and_says_so_when_one_is_made():
    absent = extras.absent("PCA", MissingError("an estimator needs scikit-learn"))
    assert (absent.__name__, absent.__doc__) == ("PCA", "Not to be had here: an estimator needs scikit-learn.")
    for kind in (absent, type("Mine", (absent,), {})):
        with pytest.raises(MissingError, match="an estimator needs scikit-learn"):
            kind(3, center=True)
    for use in ("fit", "n_components"):
        with pytest.raises(MissingError, match="an estimator needs scikit-learn"):
            getattr(absent, use)
    assert not hasattr(absent, "__wrapped__")  # which help() asks of any class
    assert "Not to be had here" in pydoc.render_doc(absent)
    assert extras.absent("PCA", MissingError("an estimator needs scikit-learn")) is absent
    for error in (ImportError("of another kind"), OSError("of another kind")):
        with pytest.raises(type(error), match="of another kind"):
            extras.absent("PCA", error)


def test_a_public_name_that_cannot_be_had_is_the_same_each_time(monkeypatch):
    import gpunet as gn

    monkeypatch.delitem(vars(gn), "PCA", raising=False)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    for name in [each for each in sys.modules if each.startswith("gpunet.estimators")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr(gn, "estimators", raising=False)
    assert gn.PCA is gn.PCA
    with pytest.raises(MissingError, match=r"an estimator needs scikit-learn, .*'gpunet\[data\]'"):
        gn.PCA.fit([[1.0]])
