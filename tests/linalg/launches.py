"""What an SVD asks of a GPU: kernels by kind, products and reductions by operand, and numbers read back.

Kinds are told apart by function and dtypes, which is what CuPy compiles a kernel of its own for, on first use; it
compiles more than one of a kind where operands are broadcast or lie apart.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from tests.cuda.pretend_array import DeviceArray, plain
from tests.cuda.pretend_cuda import Machine

LIBRARY = ("matmul", "eigh", "svd", "qr")  # cuBLAS and cuSOLVER


@dataclass
class Asked:
    """Of the pretend GPU, while `watched` by a test's monkeypatch."""

    kinds: set = field(default_factory=set)
    launches: int = 0
    reads: list = field(default_factory=list)
    copied: int = 0  # bytes of operands that CuPy's matmul would copy first
    narrow: list = field(default_factory=list)  # reductions of much into little, by axis
    largest_eigh: int = 0

    def call(self, function, method, args, options, found):
        name = getattr(function, "__name__", str(function))
        arrays = [plain(each) for each in flat(args) if isinstance(each, np.ndarray)]
        if name == "matmul":
            self.copied += sum(each.nbytes for each in arrays if not as_it_lies(each))
        if name == "eigh":
            self.largest_eigh = max(self.largest_eigh, arrays[0].shape[-1])
        reduces = name in ("sum", "max", "min", "all", "any") and options.get("axis") is not None
        if reduces and arrays[0].size > 4096 * found.size:
            self.narrow.append((name, arrays[0].shape, options["axis"]))
        views = isinstance(found, np.ndarray) and any(np.may_share_memory(plain(found), each) for each in arrays)
        if not views and name not in LIBRARY:
            self.launches += 1
            self.kinds.add((name, method, bool(options.get("axis") is None), tuple(map(kind, flat(args)))))


def flat(args):
    for each in args:
        yield from flat(each) if isinstance(each, (tuple, list)) else [each]


def kind(arg):
    return arg.dtype.name if isinstance(arg, np.ndarray) else getattr(arg, "__name__", type(arg).__name__)


def as_it_lies(a):
    """Whether CuPy hands an operand of a product to cuBLAS without a copy (CuPy 14.2, `matmul` and `dot`)."""
    return a.flags.c_contiguous or (a.ndim == 2 and a.flags.f_contiguous)


def watched(monkeypatch) -> Asked:
    """Counts from here on."""
    asked, ufunc, call, read = Asked(), DeviceArray.__array_ufunc__, Machine.call, Machine.host_read

    def on_ufunc(self, function, method, *inputs, **options):
        found = ufunc(self, function, method, *inputs, **options)
        asked.call(function, method, inputs, options, found)
        return found

    def on_call(self, function, args, options):
        found = call(self, function, args, options)
        asked.call(function, "call", args, options, found)
        return found

    def on_read(self, what):
        asked.reads.append(what)
        read(self, what)

    monkeypatch.setattr(DeviceArray, "__array_ufunc__", on_ufunc)
    monkeypatch.setattr(Machine, "call", on_call)
    monkeypatch.setattr(Machine, "host_read", on_read)
    return asked
