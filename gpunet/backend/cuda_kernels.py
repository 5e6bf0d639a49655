"""The CUDA kernels of `cuda/`: their source as one text, their compilation, and how they are launched.

CuPy compiles the text once for a GPU, at the first launch, and keeps the result in its cache on disk. No fast-math: NaN
and infinity must survive, and a division is rounded as NumPy rounds it. But CuPy adds `-ftz=true` to every compilation:
denormal float32, below 1.2e-38, are 0 to the kernels, as operands and as results; those of float64 stay. g++, which
compiles the same text for the tests, keeps both.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from gpunet.backend.base import ACTIVATIONS, Array

FOLDER = Path(__file__).with_name("cuda")
OPTIONS = ("--std=c++17",)
ADDED = ("-ftz=true",)  # by CuPy (cupy/cuda/compiler.py), which nobody can keep from it
BLOCK = 256  # threads of a block, as in common.cuh
NARROW = 16  # outputs, at most, of a product that is computed inside another kernel; as in common.cuh
WAVES = 8  # blocks a multiprocessor, at most: one that is resident goes on to the next rows instead of ending
NULL = np.uint64(0)  # in place of an array that nobody wants: CuPy hands None over as something else
SUFFIXES = {"float32": "f32", "float64": "f64", "int64": "i64"}
SOURCES = SUFFIXES | {
    "uint8": "u8", "bool": "u8", "int8": "i8", "uint16": "u16", "int16": "i16", "uint32": "u32", "int32": "i32",
    "uint64": "u64",
}  # fmt: skip
_modules: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()
CODES = {name: np.int32(place) for place, name in enumerate(ACTIVATIONS)}  # enum Activation in common.cuh


@cache
def source() -> str:
    """kernels.cu with the files that it includes in their places: NVRTC then needs no folder to search."""

    def included(match: re.Match[str]) -> str:
        return (FOLDER / match[1]).read_text()

    return re.sub(r'^#include "(.+)"$', included, (FOLDER / "kernels.cu").read_text(), flags=re.M)


def module(cp: Any) -> Any:
    """The kernels as one RawModule for each cupy module (there is one, but for tests)."""
    found = _modules.get(cp)
    if found is None:
        found = _modules[cp] = cp.RawModule(code=source(), options=OPTIONS)
    return found


def ceil_div(a: int, b: int) -> int:
    """⌈a / b⌉."""
    return -(-a // b)


def lanes_for(width: int, most: int = BLOCK) -> int:
    """The smallest power of two that is not below `width`, up to `most`: threads that work side by side on a row."""
    return min(most, 1 << max(0, width - 1).bit_length())


class Kernels:
    """The kernels on one device: each call launches one on the current stream.

    Arrays are handed over by address, so they must be C-contiguous; every number as the numpy scalar of exactly the
    kernel's type.
    """

    def __init__(self, cp: Any, index: int) -> None:
        self._module = module(cp)
        self._functions: dict[str, Any] = {}
        properties = cp.cuda.runtime.getDeviceProperties(index)
        self._most_blocks = WAVES * int(properties["multiProcessorCount"])

    def launch(self, name: str, grid: tuple[int, ...], block: tuple[int, ...], *args: Any) -> None:
        """Launch kernel `name`."""
        function = self._functions.get(name)
        if function is None:
            function = self._functions[name] = self._module.get_function(name)
        function(grid, block, args)

    def flat(self, name: str, array: Array, *args: Any) -> None:
        """Launch a kernel that goes through arrays of `array`'s size and dtype, 16 bytes a thread at a time."""
        packs = ceil_div(array.size * array.dtype.itemsize, 16)
        grid = min(ceil_div(packs, BLOCK), self._most_blocks)
        self.launch(f"{name}_{SUFFIXES[array.dtype.name]}", (grid,), (BLOCK,), *args)

    def by_row(self, name: str, rows: int, items: int, *args: Any, more: int = 0) -> None:
        """Launch a kernel whose blocks take whole rows, as many as have room: `items` threads work on one.

        more: blocks beyond those, which have something else to do.
        """
        lanes = lanes_for(items)
        height = BLOCK // lanes
        blocks = min(max(1, ceil_div(rows, height)), self._most_blocks)
        self.launch(name, (blocks + more,), (lanes, height), *args)
