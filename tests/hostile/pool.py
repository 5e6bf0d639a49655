"""Values that nobody should have to expect: every one is made afresh, by name, so that a seed can bring it back."""

from __future__ import annotations

import array
import decimal
import fractions
import importlib.util
import types
from collections import OrderedDict, UserList
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np

import gpunet as gn


class Raising:
    """Whatever is asked of it raises."""

    def _raise(self, *args: Any, **kwargs: Any) -> Any:
        raise KeyError("nasty\n\x1b[31m")

    __repr__ = __len__ = __iter__ = __getitem__ = __eq__ = __bool__ = __float__ = __int__ = __index__ = _raise
    __array__ = __call__ = __lt__ = __le__ = __gt__ = __ge__ = __contains__ = __enter__ = __fspath__ = _raise
    __hash__ = None  # type: ignore[assignment]


class Lying:
    """Answers, and wrongly."""

    shape, dtype, ndim, size, nnz = (60, 5), "float32", 2, -1, 3

    def __repr__(self) -> str:
        return "lies\n" * 10**5

    def __len__(self) -> int:
        return 60

    def __iter__(self) -> Any:
        yield self
        raise RuntimeError("no more\nof this")

    def __getitem__(self, key: Any) -> Any:
        return self

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return "no array"

    def __float__(self) -> float:
        return float("nan")

    def __index__(self) -> int:
        return -5


class Late:
    """An array, but only when it is asked the second time."""

    def __init__(self) -> None:
        self.asked = 0

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        self.asked += 1
        if self.asked % 2:
            raise BufferError("not yet")
        return np.ones((60, 5))


class Text(str):
    """A string whose methods fail."""

    def __eq__(self, other: object) -> bool:
        raise TypeError("not comparable\n")

    __hash__ = str.__hash__

    def endswith(self, *args: Any) -> bool:
        raise ValueError


class Number(int):
    """An integer that cannot be shown."""

    def __repr__(self) -> str:
        raise AttributeError("x")


def raises(*args: Any, **kwargs: Any) -> Any:
    raise LookupError("raised\nby a function of the user's")


def generator() -> Any:
    yield 1
    yield "two"
    raise ZeroDivisionError


def endless() -> Any:
    while True:
        yield 0


def itself() -> Any:
    found: list[Any] = [1]
    found.append(found)
    return found


def objects() -> Any:
    found = np.empty(60, object)
    found.fill(Raising())
    return found


def structured() -> Any:
    return np.zeros(60, [("a", "f4"), ("b", "i4")])


def torch_tensors() -> dict[str, Callable[[], Any]]:
    """Made where PyTorch is; imported with the first of them, since that takes a second."""
    if importlib.util.find_spec("torch") is None:
        return {}

    class Torch:
        def __getattr__(self, name: str) -> Any:
            import torch

            return getattr(torch, name)

    torch = Torch()
    return {
        "a tensor": lambda: torch.ones(60, 5),
        "a 0-d tensor": lambda: torch.tensor(2.0),
        "a tensor with a gradient": lambda: torch.ones(60, 5, requires_grad=True),
        "a bfloat16 tensor": lambda: torch.ones(60, 5, dtype=torch.bfloat16),
        "a sparse tensor": lambda: torch.eye(5).to_sparse(),
        "an int tensor": lambda: torch.arange(60) % 3,
        "a complex tensor": lambda: torch.ones(60, 5, dtype=torch.complex64),
        "a meta tensor": lambda: torch.ones(60, 5, device="meta"),
        "a torch dtype": lambda: torch.float32,
        "a torch module": lambda: torch.nn.Linear(5, 3),
        "a torch device": lambda: torch.device("cpu"),
    }


def sparse() -> dict[str, Callable[[], Any]]:
    try:
        import scipy.sparse
    except ImportError:
        return {}
    return {
        "a csr matrix": lambda: scipy.sparse.csr_matrix(np.eye(60, 5)),
        "a coo array": lambda: scipy.sparse.coo_array(np.eye(60, 5)),
    }


TENSORS = torch_tensors()
X = np.linspace(-1, 1, 300).reshape(60, 5)
VALUES: dict[str, Callable[[], Any]] = {
    **{
        repr(value): lambda value=value: value
        for value in (
            None,
            True,
            False,
            0,
            1,
            -1,
            2,
            3,
            60,
            255,
            2**31,
            2**63,
            10**30,
            -(10**30),
            0.0,
            0.5,
            -0.5,
            1.0,
            2.0,
            1e-320,
            1e300,
            -1e300,
            float("nan"),
            float("inf"),
            -float("inf"),
            3 + 4j,
            ...,
            NotImplemented,
            "",
            "x",
            "0",
            "1",
            "-1",
            "nan",
            "auto",
            "adam",
            "relu",
            "zeros",
            "mean",
            "float32",
            "float64",
            "cpu",
            "cuda",
            "cuda:99",
            "restart",
            "digits",
            "a\nb\x1b[31m",
            "\ud800",
            "nul\0",
            "../..",
            b"",
            b"abc",
            b"\xff\x00",
            (),
            [],
            {},
            set(),
            (1,),
            (5,),
            [5, 5],
            (-1, 5),
            (2.0,),
            (None,),
            ("a",),
            (True,),
            (10**30,),
            (5, 10**30),
            [None],
            [[]],
            [[1, 2], [3]],
            ["a", "b"],
            [[1, "a"]],
            {"a": 1},
            {1: 2},
            {"0": 1},
            frozenset({1}),
            range(5),
            range(0),
            slice(1, 2),
        )
    },
    "10**400": lambda: 10**400,
    "-10**5000": lambda: -(10**5000),
    "a long text": lambda: "x" * 10**6,
    "a list that holds itself": itself,
    "a deep list": lambda: eval("[" * 80 + "]" * 80),  # noqa: S307
    "a million Nones": lambda: [None] * 10**6,
    "a generator": generator,
    "an endless generator": endless,
    "a zip": lambda: zip("ab", "cd", strict=True),
    "a map": lambda: map(raises, [1, 2]),
    "a decimal": lambda: decimal.Decimal("0.5"),
    "a signalling decimal": lambda: decimal.Decimal("sNaN"),
    "a fraction": lambda: fractions.Fraction(1, 3),
    "a path": lambda: Path("no/such/file"),
    "a folder": lambda: Path(),
    "a long path": lambda: Path("x" * 5000),
    "bytes": lambda: bytearray(b"ab"),
    "a memoryview": lambda: memoryview(b"abc"),
    "an array.array": lambda: array.array("d", [1, 2, 3]),
    "an ordered dict": OrderedDict,
    "a user list": lambda: UserList([1]),
    "an object": object,
    "what raises": Raising,
    "what lies": Lying,
    "what is late": Late,
    "a mock": MagicMock,
    "a namespace": types.SimpleNamespace,
    "a text that raises": lambda: Text("relu"),
    "a number that raises": lambda: Number(3),
    "a big number that raises": lambda: Number(-3),
    "a list of what raises": lambda: [Raising()],
    "a dict of what raises": lambda: {"a": Raising()},
    "an exception": lambda: ValueError("x\ny"),
    **{
        f"the class {kind.__name__}": lambda kind=kind: kind
        for kind in (
            int,
            str,
            dict,
            type,
            object,
            np.ndarray,
            np.float32,
            gn.Dense,
            gn.Adam,
            gn.SquaredError,
            gn.Trainer,
            gn.EarlyStopping,
            gn.FixedRank,
            gn.StreamingGram,
        )
    },
    "a function": lambda: lambda: None,
    "a function that raises": lambda: raises,
    "len": lambda: len,
    "a module": lambda: np,
    "a function of the wrong shape": lambda: lambda *args: np.zeros((2, 2)),
    "a function of text": lambda: lambda *args: "text",
    "a function of NaN": lambda: lambda *args: np.full(args[0], np.nan),
    "a function of itself": lambda: lambda *args: args,
    "np.int8": lambda: np.int8(3),
    "np.int64": lambda: np.int64(3),
    "a negative np.int64": lambda: np.int64(-1),
    "np.uint8": lambda: np.uint8(255),
    "np.uint64": lambda: np.uint64(2**64 - 1),
    "np.float16": lambda: np.float16(0.5),
    "np.float32 NaN": lambda: np.float32("nan"),
    "np.longdouble": lambda: np.longdouble("1e4000"),
    "np.bool": lambda: np.True_,
    "a date": lambda: np.datetime64("2020-01-01"),
    "no time": lambda: np.datetime64("NaT"),
    "a span": lambda: np.timedelta64(1, "s"),
    "np.str": lambda: np.str_("relu"),
    "np.bytes": lambda: np.bytes_(b"a"),
    "a void": lambda: np.void(b"ab"),
    "np.complex": lambda: np.complex64(1j),
    "a dtype": lambda: np.dtype("float32"),
    "masked": lambda: np.ma.masked,
    **{
        f"zeros {shape}": lambda shape=shape: np.zeros(shape)
        for shape in ((), 0, 1, 5, 60, (0, 5), (60, 0), (1, 1), (5, 60), (60, 1), (60, 5, 1), (2, 3, 4, 5), (1,) * 32)
    },
    **{
        f"x as {kind}": lambda kind=kind: X.astype(kind)
        for kind in (
            "bool",
            "int8",
            "uint8",
            "int64",
            "uint64",
            "float16",
            "float32",
            ">f4",
            ">f8",
            "longdouble",
            "complex64",
            "U5",
            "S5",
            "O",
            "M8[s]",
            "m8[s]",
        )
    },
    "x with NaN": lambda: np.where(X > 0.9, np.nan, X),
    "x with infinity": lambda: np.where(X > 0.9, np.inf, X),
    "x beyond float32": lambda: X * 1e300,
    "x transposed": lambda: X.T,
    "every second x": lambda: np.repeat(X, 2, axis=0)[::2],
    "x backwards": lambda: X[::-1, ::-1],
    "read-only x": lambda: np.broadcast_to(X[0], (60, 5)),
    "x in Fortran's order": lambda: np.asfortranarray(X),
    "a matrix": lambda: X.view(np.matrix),
    "masked x": lambda: np.ma.masked_less(X, 0),
    "x as a list": X.tolist,
    "objects that raise": objects,
    "structured": structured,
    "a record": lambda: structured()[0],
    "strings": lambda: np.array(["a", "b"]),
    "labels": lambda: np.arange(60) % 3,
    "float labels": lambda: (np.arange(60) % 3).astype(float),
    "labels too large": lambda: np.arange(60),
    "negative labels": lambda: np.arange(60) - 30,
    "one-hot labels": lambda: np.eye(3)[np.arange(60) % 3],
    "labels that are half": lambda: np.arange(60) / 2,
    "huge integers": lambda: np.full((60, 5), 2**62),
    "denormals": lambda: np.full((60, 5), 5e-324),
    "an iterator over rows": lambda: iter(X),
    "a layer": lambda: gn.Dense(3),
    "a model": lambda: gn.Sequential([gn.Dense(3)]),
    "an optimizer": gn.Adam,
    "a loss": gn.SquaredError,
    "a callback": gn.DivergenceGuard,
    "a rank": lambda: gn.FixedRank(2),
    "sums": gn.StreamingGram,
    "a backend": lambda: gn.get_backend("numpy"),
    "a trainer": lambda: gn.Trainer(gn.Sequential([gn.Dense(3)]), device="numpy"),
    "samples": lambda: gn.Trainer(gn.Sequential([gn.Dense(3)]), device="numpy").samples(X, np.arange(60) % 3),
    "samples of more classes": lambda: gn.Trainer(gn.Sequential([gn.Dense(99)]), device="numpy").samples(
        X, np.arange(60)
    ),
    "samples without labels": lambda: gn.Trainer(gn.Sequential([gn.Dense(3)]), device="numpy").samples(X),
    **TENSORS,
    **sparse(),
}
