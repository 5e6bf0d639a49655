"""Arrays of the pretend GPU: NumPy arrays that behave as CuPy's do where the difference is a usual mistake.

Indexing gives 0-d arrays instead of scalars; host arrays are not accepted as operands; float(), bool(), item() and
their like are reads of the host; results are new allocations; and what is issued while a stream captures is recorded
instead of run. Whatever leaves this class for NumPy's own code is a plain numpy.ndarray of the same memory.
"""

from __future__ import annotations

import types
from typing import Any

import numpy as np

HOST_READS = ("__float__", "__int__", "__bool__", "__index__", "__complex__", "item", "tolist", "tobytes", "__repr__")
ALLOCATING = (
    "argmax", "argmin", "argsort", "astype", "clip", "conj", "copy", "cumprod", "cumsum", "diagonal", "dot", "flatten",
    "mean", "nonzero", "round", "std", "take", "trace", "var",
)  # fmt: skip
IN_PLACE = ("fill", "sort", "put", "partition")


def plain(value: Any) -> Any:
    """`value` with every device array, however deep in tuples, lists and dicts, as numpy.ndarray of the same memory."""
    if isinstance(value, DeviceArray):
        return value.view(np.ndarray)
    if isinstance(value, (tuple, list)):
        return type(value)(plain(each) for each in value)
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    return value


def refuse_host(*values: Any) -> None:
    """TypeError for host arrays among operands; 0-d ones are passed by value, as CuPy does."""
    for value in values:
        if isinstance(value, np.ndarray) and not isinstance(value, DeviceArray) and value.ndim:
            raise TypeError(f"Unsupported type {type(value)}")
        if isinstance(value, (tuple, list)):
            refuse_host(*value)


class DeviceArray(np.ndarray):
    """A numpy.ndarray on a pretend device: `machine` runs its operations, `memory` is freed with its last view."""

    machine: Any = None
    memory: Any = None

    def __array_finalize__(self, parent: Any) -> None:
        if isinstance(parent, DeviceArray):
            self.machine, self.memory = parent.machine, parent.memory

    # -- as cupy.ndarray has them --------------------------------------------------------------------------------

    @property
    def data(self) -> Any:
        return types.SimpleNamespace(ptr=self.ctypes.data, device_id=self.memory.device_id, mem=self.memory)

    @property
    def device(self) -> Any:
        return self.machine.device(self.memory.device_id)

    def get(self, stream: Any = None, order: str = "C", out: Any = None, blocking: bool = True) -> Any:
        self.machine.host_read("ndarray.get")
        host = plain(self).copy(order)
        if out is None:
            return host
        out[...] = host
        return out

    def set(self, arr: Any, stream: Any = None) -> None:
        self.machine.host_copy("ndarray.set")
        plain(self)[...] = np.asarray(arr, dtype=self.dtype).reshape(self.shape)

    # -- indexing ------------------------------------------------------------------------------------------------

    def __getitem__(self, key: Any) -> Any:
        refuse_host(key)
        found = plain(self)[plain(key)]
        if not isinstance(found, np.ndarray):  # NumPy would give a scalar, which on a GPU is a read
            key = key if isinstance(key, tuple) else (key,)
            return super().__getitem__((*plain(key), ...))
        if np.may_share_memory(found, plain(self)) or not found.size:
            return super().__getitem__(plain(key))
        self.machine.refuse_others(self, key)
        return self.machine.result(found)

    def __setitem__(self, key: Any, value: Any) -> None:
        if isinstance(value, np.ndarray) and not isinstance(value, DeviceArray) and value.ndim:
            raise ValueError("non-scalar numpy.ndarray cannot be used for fill")
        self.machine.refuse_others(self, key, value)
        key, value, target = plain(key), plain(value), plain(self)
        if not isinstance(value, np.ndarray):
            value = np.array(value)
        self.machine.issue("assignment", lambda: target.__setitem__(key, value))

    # -- operations ----------------------------------------------------------------------------------------------

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, out: Any = None, **options: Any) -> Any:
        refuse_host(*inputs, *(out or ()))
        self.machine.refuse_others(inputs, out, options)
        work = getattr(ufunc, method)
        operands, options = plain(inputs), plain(options)
        if ufunc is np.matmul:
            self.machine.refuse_library("cuBLAS (matmul)")
        if out is not None:
            targets = plain(out)
            self.machine.issue(ufunc.__name__, lambda: work(*operands, out=targets, **options))
            return out[0]
        return self.machine.result(work(*operands, **options))

    def __array_function__(self, function: Any, kinds: Any, args: Any, options: Any) -> Any:
        return self.machine.call(function, args, options)


def _reading(name: str) -> Any:
    def read(self: DeviceArray, *args: Any, **options: Any) -> Any:
        self.machine.host_read(f"ndarray.{name}")
        return getattr(plain(self), name)(*args, **options)

    return read


def _allocating(name: str) -> Any:
    def allocate(self: DeviceArray, *args: Any, **options: Any) -> Any:
        refuse_host(*args)
        if name == "astype" and not options.get("copy", True) and self.dtype == np.dtype(args[0]):
            return self
        return self.machine.call(getattr(np.ndarray, name), (self, *args), options)

    return allocate


def _in_place(name: str) -> Any:
    def change(self: DeviceArray, *args: Any, **options: Any) -> None:
        refuse_host(*args)
        self.machine.refuse_others(self, args)
        target, args = plain(self), plain(args)
        self.machine.issue(name, lambda: getattr(target, name)(*args, **options))

    return change


for _names, _maker in ((HOST_READS, _reading), (ALLOCATING, _allocating), (IN_PLACE, _in_place)):
    for _name in _names:
        setattr(DeviceArray, _name, _maker(_name))
