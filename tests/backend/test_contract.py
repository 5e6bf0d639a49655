"""All backends keep one contract; nobody else touches the GPU; the choice of a device explains itself."""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import inspect
import sys
import types
from graphlib import TopologicalSorter
from pathlib import Path

import numpy as np
import pytest

import gpunet
from gpunet.backend import Backend, get_backend, why_no_gpu
from gpunet.backend.cupy_backend import CupyBackend
from gpunet.backend.device import smoke_test
from gpunet.backend.numpy_backend import NumpyBackend
from gpunet.errors import DeviceError
from gpunet.testing import CaptureError, StrictBackend, operations

ROOT = Path(gpunet.__file__).parents[1]
FOLDERS = [ROOT / name for name in ("gpunet", "cli", "datasets")]
NO_GPU = why_no_gpu()


def classes():
    found = [NumpyBackend, CupyBackend, StrictBackend]
    if importlib.util.find_spec("numba"):
        from gpunet.backend.numba_backend import NumbaBackend

        found.append(NumbaBackend)
    return found


@pytest.mark.parametrize("backend_class", classes(), ids=lambda c: c.__name__)
def test_signatures_are_the_contracts(backend_class):
    for name, method in inspect.getmembers(Backend, inspect.isfunction):
        if name.startswith("__"):
            continue
        own = inspect.signature(getattr(backend_class, name))
        assert list(own.parameters) == list(inspect.signature(method).parameters), name
        for parameter, declared in inspect.signature(method).parameters.items():
            assert own.parameters[parameter].default == declared.default, (name, parameter)
    assert not inspect.isabstract(backend_class)


def test_the_reference_is_one_class_that_reads_in_the_contracts_order():
    asked = [name for name, method in vars(Backend).items() if getattr(method, "__isabstractmethod__", False)]
    assert [name for name in vars(NumpyBackend) if name in asked] == asked
    assert NumpyBackend.__bases__ == (Backend,)


def imported_modules(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in (
            "import_module",
            "need",
            "load",
            "optional",
            "find_spec",
            "__import__",
        ):
            yield from (arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str))


def test_only_the_backend_imports_cupy_and_numkong():
    guilty = [
        str(path.relative_to(ROOT))
        for folder in FOLDERS
        for path in folder.rglob("*.py")
        if any(m and m.split(".")[0] in ("cupy", "cupyx", "cupy_backends", "numkong") for m in imported_modules(path))
        and path.parent != ROOT / "gpunet" / "backend"
    ]
    assert guilty == []


def test_there_is_one_contextmanager():
    """That of gpunet.interrupts: with contextlib's a Ctrl-C just before the block leaves set what is set for it."""
    guilty = [
        str(path.relative_to(ROOT))
        for folder in FOLDERS
        for path in folder.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if (isinstance(node, ast.ImportFrom) and node.module == "contextlib" and path.name != "interrupts.py"
            and any(each.name in ("contextmanager", "asynccontextmanager") for each in node.names))
        or (isinstance(node, ast.Attribute) and node.attr in ("contextmanager", "asynccontextmanager"))
    ]  # fmt: skip
    assert guilty == []


# Who may import whom, lowest first: a module may import its own rank and lower ones. `__init__` and `__main__` aside.
RANKS = [
    {"errors", "interrupts"},
    {"reprs", "extras"},
    {"addresses", "limits", "backend", "rng", "files", "progress", "streams", "checks", "timing", "fingerprint",
     "tensorfile"},
    {"linalg", "nn", "testing"},
    {"spectral"},
    {"compression", "estimators"},
    {"experiments", "report", "bench", "sweep"},
    {"reproduce", "decompose"},
    {"cli", "__main__"},
]  # fmt: skip
DATASETS_MAY = {
    "errors",
    "extras",
    "reprs",
    "interrupts",
    "addresses",
    "limits",
    "files",
    "progress",
    "checks",
    "datasets",
    "rng",
}


def package_of(module):
    parts = module.split(".")
    return parts[1] if parts[0] == "gpunet" and len(parts) > 1 else None


@pytest.mark.slow
def test_imports_run_one_way():
    rank = {name: i for i, names in enumerate(RANKS) for name in names}
    wrong = []
    for folder in FOLDERS:
        for path in folder.rglob("*.py"):
            own = path.relative_to(ROOT).parts
            name = own[0] if own[0] != "gpunet" else own[1].removesuffix(".py")
            if name == "__init__":
                continue
            known = {"datasets", *rank}
            assert name in known, f"{path} belongs to no rank: give {name!r} a place in RANKS"
            body = ast.parse(path.read_text())
            hidden = {
                id(n)
                for i in ast.walk(body)
                if isinstance(i, ast.If) and "TYPE_CHECKING" in ast.unparse(i.test)
                for n in ast.walk(i)
            }
            for node in ast.walk(body):
                if id(node) in hidden or not isinstance(node, (ast.Import, ast.ImportFrom)):
                    continue
                modules = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""]
                for other in filter(None, map(package_of, modules)):
                    if name == "datasets":
                        bad = other not in DATASETS_MAY
                    elif other == "datasets":
                        bad = rank[name] < rank["experiments"]
                    else:
                        bad = rank[other] > rank[name]
                    if bad:
                        wrong.append(f"{path.relative_to(ROOT)} imports {other}")
    assert wrong == []


def test_no_module_imports_in_a_circle():
    """Over all of the tree, imports for types alone included; what an import does to its packages aside."""
    paths = {}
    for folder in FOLDERS:
        for path in folder.rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            name = ".".join(parts if parts[0] == "gpunet" else ("gpunet", *parts))
            paths[name.removesuffix(".__init__")] = path
    graph = {}
    for name, path in paths.items():
        modules = [m for m in imported_modules(path) if m in paths]
        # `from gpunet.linalg import svd` names a package and a module in it, or one of the package's own names
        graph[name] = {m for m in modules if not any(other.startswith(f"{m}.") for other in modules)} - {name}
    tuple(TopologicalSorter(graph).static_order())  # CycleError names the circle


APART = [("nn", "linalg"), ("linalg", "nn"), ("nn/layers", "nn.optim")]


@pytest.mark.parametrize(("folder", "module"), APART, ids=str)
def test_rooms_that_know_nothing_of_each_other(folder, module):
    for path in (ROOT / "gpunet" / folder).rglob("*.py"):
        assert not any(m and f"{m}.".startswith(f"gpunet.{module}.") for m in imported_modules(path)), path


# -- choosing a device ---------------------------------------------------------------------------------------------


def test_cpu_and_numpy():
    assert get_backend("numpy").kernels == "numpy"
    assert get_backend("cpu").name == "cpu"
    assert get_backend("cpu").kernels == ("numba" if importlib.util.find_spec("numba") else "numpy")
    assert get_backend("CPU ").name == "cpu"
    same = get_backend("numpy")
    assert get_backend(same) is same
    assert get_backend("numpy") is not same, "scratch memory must not be shared between trainers"


@pytest.mark.skipif(NO_GPU is None, reason="this machine has a GPU")
def test_auto_takes_the_cpu_without_a_gpu():
    assert get_backend("auto").name == "cpu"
    assert get_backend(None).name == "cpu"


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "cuda:-1", "", "cpu:0", "tpu"])
def test_unknown_devices(name):
    with pytest.raises(DeviceError, match="expected auto, cpu, numpy, cuda or cuda:N"):
        get_backend(name)


@pytest.mark.skipif(NO_GPU is None, reason="this machine has a GPU")
def test_cuda_without_a_gpu_says_why_and_what_to_do():
    with pytest.raises(DeviceError, match=r"device 'cuda:1' cannot be used: .*; without a GPU use device=.cpu"):
        get_backend("cuda:1")
    if importlib.util.find_spec("cupy") is None:
        with pytest.raises(DeviceError, match=r"pip install 'gpunet\[cuda13\]'"):
            get_backend("cuda")


class FakeDriverError(Exception):
    pass


def fake_cupy(devices=1, product=8.0, fails=None):
    """Enough of CuPy for the smoke test."""

    class Device:
        def __init__(self, index):
            self.index = index

        def __enter__(self):
            if fails == "device":
                raise FakeDriverError("cudaErrorInsufficientDriver: driver too old\nmore lines")
            return self

        def __exit__(self, *exc):
            return None

        def synchronize(self):
            pass

    class Stream(contextlib.nullcontext):
        def __init__(self, non_blocking=False):
            assert non_blocking, "the legacy stream would stop a recording of another thread's"
            super().__init__(types.SimpleNamespace(synchronize=lambda: None))

    def count():
        if fails == "count":
            raise FakeDriverError("cudaErrorNoDevice: no CUDA-capable device is detected")
        return devices

    def raw_kernel(code, name):
        def launch(grid, block, args):
            args[0][...] = np.sqrt(product / 2)

        return launch

    module = types.ModuleType("cupy")
    module.cuda = types.SimpleNamespace(
        Device=Device, Stream=Stream, runtime=types.SimpleNamespace(getDeviceCount=count)
    )
    module.empty, module.asnumpy, module.float32, module.RawKernel = np.empty, np.asarray, np.float32, raw_kernel
    return module


@pytest.mark.parametrize(
    ("options", "index", "reason"),
    [
        ({}, 0, None),
        ({}, 1, "there is no GPU 1: this machine has 1"),
        ({"fails": "count"}, 0, "no CUDA-capable device"),
        ({"fails": "device"}, 0, "driver too old"),
        ({"product": 7.0}, 0, "computes wrong results"),
    ],
)
def test_smoke_test(monkeypatch, options, index, reason):
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy(**options))
    found = smoke_test(index)
    assert found is None if reason is None else reason in found
    assert found is None or "\n" not in found


# -- the strict backend ---------------------------------------------------------------------------------------------


def test_strict_backend_fills_memory_and_refuses_work_while_capturing(rng):
    strict = StrictBackend()
    assert np.isnan(strict.empty(3)).all()
    x = strict.asarray(rng.normal(size=(4, 4)))
    with strict.capture():
        for work in (
            lambda: strict.empty(3), lambda: strict.zeros(3), lambda: strict.asarray(x), lambda: strict.to_host(x),
            strict.synchronize, lambda: strict.copy(0, x), lambda: np.linalg.svd(x), lambda: np.random.default_rng(0),
            lambda: strict.scratch("new", 9, "float32"),
        ):  # fmt: skip
            with pytest.raises(CaptureError):
                work()
        strict.activate("relu", x, x)
    assert np.linalg.svd(x, compute_uv=False).shape == (4,)


def test_strict_backend_hands_inputs_over_read_only(rng):
    class Careless(NumpyBackend):
        def activate(self, activation, z, out):
            z *= 2

    import gpunet.testing as module

    marks = operations()["activate"]
    assert marks == {"z": "in", "out": "out"}
    original = NumpyBackend.activate
    try:
        NumpyBackend.activate = Careless.activate
        operation = module._checked("activate", marks)
    finally:
        NumpyBackend.activate = original
    with pytest.raises(ValueError, match="read-only"):
        operation(StrictBackend(), "relu", np.ones(3), np.ones(3))
    with pytest.raises(ValueError, match="not C-contiguous"):
        StrictBackend().activate("relu", np.ones((4, 2)), np.ones((4, 4))[:, ::2])


def test_strict_backend_refuses_bfloat16_where_the_contract_has_none():
    strict, wide, half = StrictBackend(), np.ones((4, 4), "float32"), np.full((4, 4), 0x3F80, "uint16")
    out, low, line = strict.empty((4, 4)), strict.empty((4, 4), "uint16"), np.ones(4, "float32")
    strict.gemm(half, half, out)
    assert (out == 4).all()
    strict.gemm(half, half, low)
    assert (low == 0x4080).all()
    strict.activation_backward("relu", half, wide, low, line)
    strict.affine_backward(half, half, half, out, low, "relu", line)
    for work, words in (
        (lambda: strict.gemm(half, wide, out), "all of a, b are bfloat16, or none, got a"),
        (lambda: strict.gemm(wide, half, out), "all of a, b are bfloat16, or none, got b"),
        (lambda: strict.gemm(wide, wide, low), "out may not be"),
        (lambda: strict.affine(half, half, half[0], "relu", low), "bias may not be"),
        (lambda: strict.affine_backward(wide, half, half, out, None, "identity", None), "all of dz, x, weight"),
        (lambda: strict.affine_backward(half, half, half, out, low, "relu", low[0]), "bias_grad may not be"),
        (lambda: strict.activate("relu", half, out), "z may not be"),
        (lambda: strict.activation_backward("relu", wide, half, out, None), "dy may not be"),
        (lambda: strict.to_bfloat16(half, low), "x may not be"),
        (lambda: strict.sgd(line, half[0], np.zeros(9), 0), "grads may not be"),
    ):
        with pytest.raises(ValueError, match=words):
            work()


def test_every_hot_operation_is_checked():
    assert set(operations()) >= {
        "gemm", "affine", "activate", "activation_backward", "gather", "take_batch", "affine_loss", "affine_backward",
        "softmax_cross_entropy", "binary_cross_entropy", "squared_error", "tick", "sgd", "momentum", "adam", "copy",
        "dropout", "redraw", "batch_statistics", "normalise", "normalise_backward", "gelu", "gelu_backward",
        "to_bfloat16",
    }  # fmt: skip
