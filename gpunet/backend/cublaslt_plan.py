"""How cublasLt is asked for one kind of product: descriptors made once, the algorithms it advises, its epilogue."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import Any

import numpy as np

from gpunet.backend import cublaslt_api as api

CANDIDATES = 16  # algorithms to ask for: the first should be the fastest, but may want more workspace than there is
# What the heuristic answers where it has no algorithm: for a plain product the first alone, since the others then say
# that something in the question is wrong; for an epilogue any of them, as versions of the library differ in that.
NONE_PLAIN = (api.NOT_SUPPORTED,)
NONE_WITH_EPILOGUE = (api.NOT_SUPPORTED, api.INVALID_VALUE, api.ARCH_MISMATCH)


class Plan:
    """One kind of product: what to pass to cublasLtMatmul, and which part of the epilogue it does itself.

    candidates: the algorithms that the workspace suffices for, by their places in the heuristic's order; the first of
    them is taken unless `take` takes another.
    """

    __slots__ = ("algo", "alpha", "beta", "bias", "bias_place", "candidates", "desc", "layouts", "relu", "workspace")

    def __init__(self, dtype: np.dtype[Any], bias: bool, relu: bool) -> None:
        number = ctypes.c_double if dtype.itemsize == 8 else ctypes.c_float
        self.alpha, self.beta = number(1), number(0)
        self.bias, self.relu, self.bias_place = bias, relu, 0
        self.desc = ctypes.c_void_p()
        self.layouts: tuple[ctypes.c_void_p, ...] = ()
        self.algo, self.workspace = api.Algorithm(), 0
        self.candidates: dict[int, api.Algorithm] = {}

    def take(self, number: int) -> None:
        """The candidate of that number from now on."""
        self.algo = self.candidates[number]

    @property
    def epilogue(self) -> int:
        """As cublasLt counts them."""
        return (api.EPILOGUE_BIAS if self.bias else 0) | (api.EPILOGUE_RELU if self.relu else 0) or api.EPILOGUE_DEFAULT


class Planner:
    """Makes plans; `library` and `handle` as from cublasLtCreate, `workspace` in bytes."""

    def __init__(self, library: Any, handle: ctypes.c_void_p, workspace: int, tf32: bool) -> None:
        self.library, self.handle, self.workspace, self.tf32 = library, handle, workspace, tf32

    def plan(
        self,
        dtype: np.dtype[Any],
        shapes: tuple[tuple[int, int], ...],
        transposed: tuple[bool, bool],
        places: tuple[int, ...],
        bias_place: int,
        relu: bool,
    ) -> Plan | None:
        """A plan for out = f(op(a) op(b) + bias), or None where cublasLt has no algorithm.

        shapes, places: of a, b and out, row-major, and the powers of two that divide their addresses.
        bias_place: the bias's address, 0 for none.
        """
        plan = Plan(dtype, bias_place != 0, relu)
        self._describe(plan, dtype, shapes, transposed)
        if bias_place:  # before the choice of an algorithm, which looks at its alignment
            self.place_bias(plan, bias_place)
        plan.candidates = self._candidates(plan, places)
        if not plan.candidates:
            self._destroy(plan)
            return None
        plan.workspace = self.workspace
        plan.take(min(plan.candidates))
        return plan

    def place_bias(self, plan: Plan, place: int) -> None:
        """Where the bias lies: a part of the descriptor, not an argument of the product."""
        plan.bias_place = place
        self._set(plan, api.DESC_BIAS_POINTER, ctypes.c_void_p(place))

    def _describe(self, plan: Plan, dtype: np.dtype[Any], shapes: Any, transposed: tuple[bool, bool]) -> None:
        double = dtype.itemsize == 8
        kind = api.R_64F if double else api.R_32F
        compute = api.COMPUTE_64F if double else api.COMPUTE_32F_FAST_TF32 if self.tf32 else api.COMPUTE_32F
        status = self.library.cublasLtMatmulDescCreate(ctypes.byref(plan.desc), compute, kind)
        api.check(status, "cublasLtMatmulDescCreate")
        transpose_a, transpose_b = transposed
        # Row-major a, b and out are aᵀ, bᵀ and outᵀ in column-major order: outᵀ = op(b)ᵀ op(a)ᵀ, each with its own op.
        self._set(plan, api.DESC_TRANSA, ctypes.c_int32(api.OP_T if transpose_b else api.OP_N))
        self._set(plan, api.DESC_TRANSB, ctypes.c_int32(api.OP_T if transpose_a else api.OP_N))
        self._set(plan, api.DESC_EPILOGUE, ctypes.c_uint32(plan.epilogue))
        of_a, of_b, of_out = (self._layout(kind, rows, columns) for rows, columns in shapes)
        plan.layouts = (of_b, of_a, of_out)

    def _layout(self, kind: int, rows: int, columns: int) -> ctypes.c_void_p:
        """The column-major matrix (columns, rows) that a row-major array (rows, columns) is."""
        made = ctypes.c_void_p()
        status = self.library.cublasLtMatrixLayoutCreate(ctypes.byref(made), kind, columns, rows, columns)
        api.check(status, "cublasLtMatrixLayoutCreate")
        return made

    def _set(self, plan: Plan, attribute: int, value: Any) -> None:
        status = self.library.cublasLtMatmulDescSetAttribute(
            plan.desc, attribute, ctypes.byref(value), ctypes.sizeof(value)
        )
        api.check(status, "cublasLtMatmulDescSetAttribute")

    def _destroy(self, plan: Plan) -> None:
        for layout in plan.layouts:
            self.library.cublasLtMatrixLayoutDestroy(layout)
        self.library.cublasLtMatmulDescDestroy(plan.desc)

    def _candidates(self, plan: Plan, places: tuple[int, ...]) -> dict[int, api.Algorithm]:
        library, preference = self.library, ctypes.c_void_p()
        found, count = (api.HeuristicResult * CANDIDATES)(), ctypes.c_int()
        of_b, of_a, of_out = plan.layouts
        api.check(library.cublasLtMatmulPreferenceCreate(ctypes.byref(preference)), "cublasLtMatmulPreferenceCreate")
        try:
            for attribute, value in self._wishes(places):
                status = library.cublasLtMatmulPreferenceSetAttribute(
                    preference, attribute, ctypes.byref(value), ctypes.sizeof(value)
                )
                api.check(status, "cublasLtMatmulPreferenceSetAttribute")
            status = library.cublasLtMatmulAlgoGetHeuristic(
                self.handle, plan.desc, of_b, of_a, of_out, of_out, preference, CANDIDATES, found, ctypes.byref(count)
            )
        finally:
            library.cublasLtMatmulPreferenceDestroy(preference)
        if status in (NONE_PLAIN if plan.epilogue == api.EPILOGUE_DEFAULT else NONE_WITH_EPILOGUE):
            return {}
        api.check(status, "cublasLtMatmulAlgoGetHeuristic")
        return {
            number: api.Algorithm.from_buffer_copy(each.algo)
            for number, each in enumerate(found[: count.value])
            if each.state == api.SUCCESS and each.workspace <= self.workspace
        }

    def _wishes(self, places: tuple[int, ...]) -> Iterator[tuple[int, Any]]:
        of_a, of_b, of_out = places
        yield api.PREF_MAX_WORKSPACE_BYTES, ctypes.c_uint64(self.workspace)
        for attribute, place in zip(api.PREF_ALIGNMENTS, (of_b, of_a, of_out, of_out), strict=True):
            yield attribute, ctypes.c_uint32(place)
