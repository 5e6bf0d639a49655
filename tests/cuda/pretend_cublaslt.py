"""cublasLt at its C interface, in NumPy: column-major matrices read at their addresses, from ctypes arguments alone.

Written from cublasLt.h, not from gpunet's use of it: descriptors, layouts and preferences are handles with attributes
of the sizes that the header gives, what is unknown or of another size is CUBLAS_STATUS_INVALID_VALUE.
"""

from __future__ import annotations

import ctypes
import itertools
from typing import Any

import numpy as np

from tests.cuda.halves import bits, half_even, numbers

INVALID, FAILED, UNSUPPORTED, OK = 7, 13, 15, 0
DEFAULT = (1 << 32) - 1  # of the bias's data type, −1: D's
DESC_SIZES = {0: 4, 1: 4, 2: 4, 3: 4, 4: 4, 5: 4, 6: 4, 7: 4, 8: 8, 26: 4}
PREF_SIZES = {0: 4, 1: 8, 3: 4, 5: 4, 6: 4, 7: 4, 8: 4, 9: 4, 12: 8}
TYPES = {0: np.float32, 1: np.float64, 14: np.uint16}  # 14: CUDA_R_16BF
SCALES = {68: 0, 77: 0, 70: 1}  # by compute type
MATRICES = {
    68: {(0, 0), (14, 0), (14, 14)},
    77: {(0, 0)},
    70: {(1, 1)},
}  # by compute type: those of A and B, of C and D
TF32_DIGITS = 11
REDUCTIONS = 7  # CUBLASLT_REDUCTION_SCHEME_MASK: those that round the parts of a split sum included


def _address(pointer: Any) -> int:
    """The address that a ctypes argument carries: c_void_p, byref(…), an array, an int or None."""
    if pointer is None:
        return 0
    if isinstance(pointer, int):
        return pointer
    return ctypes.cast(pointer, ctypes.c_void_p).value or 0


def _fill(pointer: Any, kind: Any, value: Any) -> None:
    ctypes.cast(pointer, ctypes.POINTER(kind))[0] = value


def _numbers(matrix: Any) -> Any:
    """A matrix of bfloat16 as float32, another as it is."""
    return matrix if matrix.dtype != np.uint16 else numbers(matrix).astype(np.float32)


class PretendCublasLt:
    """The library's functions; `calls` counts them, `refuse(compute, epilogue)` says for what there is no algorithm.

    `algorithms`: those that the heuristic gives, best first, by number, with the workspace that each needs. `used`
    lists the (algorithm, workspace's address) of every product, and `milliseconds` says how long it takes with each:
    `clock` counts that.
    """

    def __init__(self, machine: Any) -> None:
        self.machine, self.objects, self.calls = machine, {}, []
        self._numbers = itertools.count(0x5000, 16)
        self.refuse = lambda compute, epilogue: False
        self.fails: dict[str, int] = {}  # by function, the status that it answers
        self.relu_keeps_nan = True
        self.refusal = UNSUPPORTED  # what the heuristic answers then
        self.algorithms = {1: 1 << 40, 2: 4 << 20}  # the first wants more than anyone has
        self.broken: dict[int, int] = {}  # by algorithm, the status that a product with it answers
        self.milliseconds: dict[int, float] = {}  # 1 where it is not said
        self.elapsed = 0.0
        self.used: list[tuple[int, int]] = []
        self.wishes: list[dict[int, int]] = []

    def clock(self, spare: Any) -> Any:
        """A clock as `CublasLt` takes one."""

        def milliseconds(run: Any, times: int) -> float:
            before = self.elapsed
            for _ in range(times):
                run()
            return (self.elapsed - before) / times

        return milliseconds

    def _new(self, pointer: Any, what: Any) -> int:
        number = next(self._numbers)
        self.objects[number] = what
        _fill(pointer, ctypes.c_void_p, number)
        return OK

    def _called(self, name: str) -> int:
        self.calls.append(name)
        return self.fails.get(name, OK)

    def cublasLtGetVersion(self) -> int:
        return 131000

    def cublasLtCreate(self, handle: Any) -> int:
        return self._called("cublasLtCreate") or self._new(handle, "handle")

    def cublasLtMatmulDescCreate(self, desc: Any, compute: int, scale: int) -> int:
        if SCALES.get(compute) != scale:
            return INVALID
        return self._new(desc, {"compute": compute, 3: 0, 4: 0, 7: 1, 8: 0, 26: DEFAULT})

    def cublasLtMatmulDescSetAttribute(self, desc: Any, attribute: int, value: Any, size: int) -> int:
        return self._set(self.objects.get(_address(desc)), DESC_SIZES, attribute, value, size)

    def cublasLtMatrixLayoutCreate(self, layout: Any, kind: int, rows: int, columns: int, ld: int) -> int:
        if kind not in TYPES or ld < rows or min(rows, columns) < 1:
            return INVALID
        return self._new(layout, (kind, rows, columns, ld))

    def cublasLtMatmulDescDestroy(self, desc: Any) -> int:
        return self._destroy(desc)

    def cublasLtMatrixLayoutDestroy(self, layout: Any) -> int:
        return self._destroy(layout)

    def cublasLtMatmulPreferenceCreate(self, preference: Any) -> int:
        return self._new(preference, {1: 0, 3: REDUCTIONS, 5: 256, 6: 256, 7: 256, 8: 256})

    def cublasLtMatmulPreferenceSetAttribute(self, preference: Any, attribute: int, value: Any, size: int) -> int:
        return self._set(self.objects.get(_address(preference)), PREF_SIZES, attribute, value, size)

    def cublasLtMatmulPreferenceDestroy(self, preference: Any) -> int:
        return self._destroy(preference)

    def _destroy(self, what: Any) -> int:
        del self.objects[_address(what)]
        return OK

    @staticmethod
    def _set(found: Any, sizes: dict[int, int], attribute: int, value: Any, size: int) -> int:
        if not isinstance(found, dict) or sizes.get(attribute) != size:
            return INVALID
        found[attribute] = int.from_bytes(ctypes.string_at(_address(value), size), "little")
        return OK

    def cublasLtMatmulAlgoGetHeuristic(
        self, handle: Any, desc: Any, a: Any, b: Any, c: Any, d: Any, preference: Any, wanted: int, results: Any,
        count: Any,
    ) -> int:  # fmt: skip
        status = self._called("cublasLtMatmulAlgoGetHeuristic")
        desc, preference = self.objects[_address(desc)], self.objects[_address(preference)]
        self.wishes.append(dict(preference))
        _fill(count, ctypes.c_int, 0)
        if status or not self._shapes_fit(desc, *(self.objects[_address(each)] for each in (a, b, c, d))):
            return status or INVALID
        kind = self.objects[_address(d)][0]
        if self.refuse(desc["compute"], desc[7]) or (desc[7] & 4 and desc[26] not in (DEFAULT, kind)):
            return self.refusal
        algorithms = list(self.algorithms.items())[:wanted]
        for place, (number, workspace) in enumerate(algorithms):
            at = _address(results) + 96 * place  # cublasLtMatmulHeuristicResult_t: algo 64, size_t, int, float, int[4]
            _fill(at, ctypes.c_uint64, number)
            _fill(at + 64, ctypes.c_size_t, workspace)
            _fill(at + 72, ctypes.c_int, OK)
        _fill(count, ctypes.c_int, len(algorithms))
        return OK

    @staticmethod
    def _shapes_fit(desc: Any, a: Any, b: Any, c: Any, d: Any) -> bool:
        (m, k), (k_of_b, n) = ((x[2], x[1]) if desc[op] else (x[1], x[2]) for x, op in ((a, 3), (b, 4)))
        of_operands, of_results = {a[0], b[0]}, {c[0], d[0]}
        known = len(of_operands) == len(of_results) == 1
        known = known and (*of_operands, *of_results) in MATRICES[desc["compute"]]
        return known and k == k_of_b and c[1:3] == d[1:3] == (m, n)

    def cublasLtMatmul(
        self, handle: Any, desc: Any, alpha: Any, a: Any, of_a: Any, b: Any, of_b: Any, beta: Any, c: Any, of_c: Any,
        d: Any, of_d: Any, algo: Any, workspace: Any, workspace_bytes: int, stream: int,
    ) -> int:  # fmt: skip
        status = self._called("cublasLtMatmul")
        facts = dict(self.objects[_address(desc)])  # the descriptor may be changed before a recording is replayed
        of_a, of_b, of_c, of_d = (self.objects[_address(each)] for each in (of_a, of_b, of_c, of_d))
        current = self.machine.stream()
        number = ctypes.c_uint64.from_address(_address(algo)).value if _address(algo) else 0
        if status or workspace_bytes < self.algorithms.get(number, 1 << 62) or stream != current.ptr:
            return status or INVALID
        if number in self.broken:
            return self.broken[number]
        if current.capture is not None and current.capture.invalid:  # of the launch inside it gives its status alone
            return FAILED
        if facts[7] & 4 and (not facts[8] or facts[8] % 16):
            return INVALID
        kind = ctypes.c_double if facts["compute"] == 70 else ctypes.c_float
        if (ctypes.cast(alpha, ctypes.POINTER(kind))[0], ctypes.cast(beta, ctypes.POINTER(kind))[0]) != (1, 0):
            return INVALID
        places = tuple(_address(each) for each in (a, b, d))
        self.used.append((number, _address(workspace)))
        self.elapsed += self.milliseconds.get(number, 1.0)

        def work() -> None:
            left, right, out = (self._matrix(p, each) for p, each in zip(places, (of_a, of_b, of_d), strict=True))
            left, right = (_numbers(each) for each in (left, right))
            if facts["compute"] == 77:
                left, right = (half_even(each, TF32_DIGITS).astype(np.float32) for each in (left, right))
            found = np.matmul(left.T if facts[3] else left, right.T if facts[4] else right)
            if facts[7] & 4:
                found = found + _numbers(self._matrix(facts[8], (of_d[0], of_d[1], 1, of_d[1])))
            if facts[7] & 2:
                found = (np.maximum if self.relu_keeps_nan else np.fmax)(found, 0)
            out[...] = found if out.dtype != np.uint16 else bits(found)

        self.machine.issue("cublasLtMatmul", work, current)
        return OK

    @staticmethod
    def _matrix(place: int, layout: tuple[int, int, int, int]) -> Any:
        """The column-major matrix at an address, as a NumPy array that shares its memory."""
        kind, rows, columns, ld = layout
        dtype = np.dtype(TYPES[kind])
        memory = (ctypes.c_char * (ld * columns * dtype.itemsize)).from_address(place)
        return np.frombuffer(memory, dtype).reshape(columns, ld)[:, :rows].T
