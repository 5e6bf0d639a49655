"""A GPU as strict about implicit copies as CuPy is: arrays that NumPy cannot reach, and that do not mix with NumPy's.

`np.asarray` of them raises, host arrays as operands or indices raise, and every number or array that is read back is
counted. The work is NumPy's.
"""

from __future__ import annotations

import operator
import types

import numpy as np
import pytest

from gpunet.backend.numpy_backend import NumpyBackend


def near(value):
    """What NumPy computes with; TypeError where CuPy would raise one."""
    if isinstance(value, Far):
        return value.host
    if isinstance(value, np.ndarray):
        raise TypeError(f"Unsupported type {type(value)}: a host array beside arrays on the device")
    if isinstance(value, (tuple, list)):
        return type(value)(near(each) for each in value)
    return value


def away(value):
    if isinstance(value, (np.ndarray, np.generic)):
        return Far(np.asarray(value))
    if isinstance(value, tuple):
        return tuple(away(each) for each in value)
    return value


class Far:
    """An array on the pretend device."""

    reads = 0  # bytes that came back
    __cuda_array_interface__ = types.MappingProxyType({"version": 3})
    device = types.SimpleNamespace(id=0)

    def __init__(self, host):
        self.host = host

    def __array__(self, *args, **kwargs):
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`")

    def __array_ufunc__(self, ufunc, method, *inputs, **options):
        options = {key: near(each) for key, each in options.items()}
        return away(getattr(ufunc, method)(*near(inputs), **options))

    def get(self):
        Far.reads += self.host.nbytes
        return self.host.copy()

    def __getattr__(self, name):
        if name.startswith("__"):  # nor by the array interface
            raise AttributeError(name)
        found = getattr(self.host, name)
        if callable(found):
            return lambda *args, **kwargs: away(found(*near(args), **{k: near(v) for k, v in kwargs.items()}))
        return away(found) if isinstance(found, np.ndarray) else found

    def __getitem__(self, key):
        return away(self.host[near(key)])

    def __setitem__(self, key, value):
        self.host[near(key)] = near(value)

    def __len__(self):
        return len(self.host)

    def _read(self, kind):
        Far.reads += self.host.nbytes
        return kind(self.host)


def _operator(name):
    def apply(self, other):
        return away(getattr(operator, name)(self.host, near(other)))

    def reflected(self, other):
        return away(getattr(operator, name)(near(other), self.host))

    return apply, reflected


for _name in ("add", "sub", "mul", "truediv", "pow", "matmul", "and_", "or_", "xor"):
    _apply, _reflected = _operator(_name)
    setattr(Far, f"__{_name.strip('_')}__", _apply)
    setattr(Far, f"__r{_name.strip('_')}__", _reflected)
for _name in ("lt", "le", "gt", "ge", "eq", "ne"):
    setattr(Far, f"__{_name}__", _operator(_name)[0])
for _name in ("neg", "abs", "invert"):
    setattr(Far, f"__{_name}__", lambda self, name=_name: away(getattr(operator, name)(self.host)))
for _kind in (float, int, bool):
    setattr(Far, f"__{_kind.__name__}__", lambda self, kind=_kind: self._read(kind))
Far.__hash__ = None


class Namespace:
    """`numpy` as seen from the device."""

    __name__ = "far"

    def __init__(self, module):
        self._module = module

    def __getattr__(self, name):
        found = getattr(self._module, name)
        if isinstance(found, types.ModuleType):
            return Namespace(found)
        if isinstance(found, type) or not callable(found):
            return found
        if name in ("asarray", "ascontiguousarray", "array"):
            return lambda a, **kwargs: Far(found(a.host if isinstance(a, Far) else a, **kwargs).copy())
        return lambda *args, **kwargs: away(found(*near(args), **{k: near(v) for k, v in kwargs.items()}))


class FarBackend(NumpyBackend):
    """A GPU by name; only its memory and namespace, for cold paths."""

    name = "cuda:0"
    xp = Namespace(np)

    def session(self):
        return np.errstate(all="ignore")  # a GPU never warns

    def asarray(self, host, dtype=None):
        return host if isinstance(host, Far) and dtype is None else self.xp.ascontiguousarray(host, dtype=dtype)

    def to_host(self, array):
        return array.get()

    def empty(self, shape, dtype="float32"):
        return Far(np.full(shape, 77, dtype))

    def copy(self, source, out):
        out[...] = Far(source) if isinstance(source, np.ndarray) else source


@pytest.fixture
def far(monkeypatch):
    """get_backend("cuda") gives this GPU, and so does every array on it."""
    from gpunet.backend import cusolver, get_backend
    from gpunet.linalg import device

    backend = FarBackend()
    known = lambda name="auto": backend if "cuda" in str(name) or name is backend else get_backend(name)  # noqa: E731
    monkeypatch.setattr(device, "get_backend", known)
    monkeypatch.setattr(device, "gpu", lambda index: backend)

    def gesvda(a, rank):
        u, s, vt = np.linalg.svd(a.host, full_matrices=False)
        return Far(u[..., :rank]), Far(s[..., :rank]), Far(np.swapaxes(vt, 1, 2)[..., :rank])

    monkeypatch.setattr(cusolver, "gesvda", gesvda)
    Far.reads = 0
    return backend
