"""The door to cublasLt: every combination of operands through its C interface, against NumPy in float64."""

from __future__ import annotations

import ctypes
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpunet.backend import cublaslt as api
from gpunet.backend.cublaslt import CublasLt, CupyProducts, Planner, Product, products
from gpunet.errors import CaptureError, DeviceError, MemoryFullError, RunError, ShapeError

from ..conftest import RTOL
from .halves import bits, half_even, numbers
from .pretend import pretend

HEURISTIC = "cublasLtMatmulAlgoGetHeuristic"
BOTH = list(itertools.product([False, True], repeat=2))
SHARED = pretend()
LT = CublasLt(SHARED)


@pytest.fixture
def cp():
    return pretend()


@pytest.fixture
def lt(cp):
    return CublasLt(cp)


def operands(cp, rng, dtype, m, k, n, transpose_a=False, transpose_b=False, bias=True):
    host = [
        rng.normal(size=(k, m) if transpose_a else (m, k)),
        rng.normal(size=(n, k) if transpose_b else (k, n)),
        rng.normal(size=n),
    ]
    a, b, c = (cp.asarray(each.astype(dtype)) for each in host)
    return a, b, cp.empty((m, n), dtype), c if bias else None


def expected(cp, a, b, bias, transpose_a, transpose_b, relu):
    a, b = (cp.asnumpy(each).astype(np.float64) for each in (a, b))
    z = (a.T if transpose_a else a) @ (b.T if transpose_b else b)
    z = z + (0 if bias is None else cp.asnumpy(bias).astype(np.float64))
    return np.maximum(z, 0) if relu else z


def close(cp, out, right, k):
    scale = np.abs(right).max(initial=1.0)
    return np.abs(cp.asnumpy(out) - right).max(initial=0) <= RTOL[out.dtype.name] * np.sqrt(k) * scale


@pytest.mark.parametrize("door", [CublasLt, lambda cp: CupyProducts(cp, "tried")], ids=["cublasLt", "cupy.matmul"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("transpose_a", "transpose_b"), BOTH)
@pytest.mark.parametrize(("bias", "relu"), BOTH)
def test_products(cp, rng, door, dtype, transpose_a, transpose_b, bias, relu):
    lt = door(cp)
    for m, k, n in ((5, 7, 3), (1, 1, 1), (1, 33, 2), (31, 2, 64), (4, 0, 3), (0, 4, 3), (3, 4, 0)):
        a, b, out, c = operands(cp, rng, dtype, m, k, n, transpose_a, transpose_b, bias)
        for _ in range(2):  # with a plan that is made, and with one that is kept
            out.fill(np.nan)
            lt.matmul(a, b, out, transpose_a, transpose_b, c, relu)
            assert close(cp, out, expected(cp, a, b, c, transpose_a, transpose_b, relu), max(1, k)), (m, k, n)
    cp.machine.check_guards()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.tuples(*[st.integers(0, 40)] * 3),
    st.tuples(*[st.booleans()] * 4),
    st.sampled_from(["float32", "float64"]),
    st.tuples(*[st.integers(0, 5)] * 4),
)
def test_any_shape_at_any_place(sizes, options, dtype, offsets):
    """Operands are slices of larger buffers, as parameters are: aligned to an element only."""
    cp, rng = SHARED, np.random.default_rng(sum(sizes))
    (m, k, n), (transpose_a, transpose_b, bias, relu) = sizes, options
    made = []
    for array, offset in zip(operands(cp, rng, dtype, m, k, n, transpose_a, transpose_b), offsets, strict=True):
        buffer = cp.zeros(array.size + offset, dtype)
        view = buffer[offset:].reshape(array.shape)
        view[...] = array
        made.append(view)
    a, b, out, c = made
    out.fill(np.nan)
    c = c if bias else None
    LT.matmul(a, b, out, transpose_a, transpose_b, c, relu)
    assert close(cp, out, expected(cp, a, b, c, transpose_a, transpose_b, relu), max(1, k))


def test_plans_are_kept_by_shape_and_epilogue_and_the_bias_may_move(cp, lt, rng):
    a, b, out, c = operands(cp, rng, "float32", 8, 4, 4)
    other = cp.asarray(cp.asnumpy(c) + 1)
    for bias in (c, other, c, other, None, None):
        lt.matmul(a, b, out, bias=bias)
        assert close(cp, out, expected(cp, a, b, bias, False, False, False), 4)
    assert lt.library.calls.count(HEURISTIC) == 2
    lt.matmul(a, b, cp.empty((8, 4), "float32"), bias=c, relu=True)
    assert lt.library.calls.count(HEURISTIC) == 4  # one for the relu, one for whether it keeps NaN


def test_alignments_are_told_to_the_heuristic(cp, lt):
    buffer = cp.zeros(1000, "float32")
    a, b, out = buffer[1:10].reshape(3, 3), buffer[64:73].reshape(3, 3), cp.empty((3, 3), "float32")
    lt.matmul(a, b, out)
    wish = lt.library.wishes[-1]  # A of cublasLt is our b
    assert (wish[5], wish[6], wish[7], wish[8]) == (256, 4, 256, 256)
    assert wish[1] == 32 << 20


@pytest.mark.parametrize(("offset", "calls"), [(0, ["cublasLtMatmul"]), (1, ["cublasLtMatmul", "add"])])
def test_a_bias_that_is_not_aligned_is_added_apart(cp, lt, rng, offset, calls):
    """cublasLt's epilogues read four floats at once, and the heuristic does not always know."""
    a, b, out, c = operands(cp, rng, "float32", 8, 4, 4)
    buffer = cp.zeros(5, "float32")
    bias = buffer[offset : offset + 4]
    bias[...] = c
    lt.matmul(a, b, out, bias=bias)
    del cp.machine.launched[:]
    lt.matmul(a, b, out, bias=bias)
    assert cp.machine.launched == calls
    assert close(cp, out, expected(cp, a, b, c, False, False, False), 4)


def test_what_the_library_has_no_epilogue_for_is_done_apart(cp, lt, rng):
    lt.library.refuse = lambda compute, epilogue: epilogue != 1
    a, b, out, c = operands(cp, rng, "float64", 6, 5, 4)
    lt.matmul(a, b, out, bias=c, relu=True)
    assert close(cp, out, expected(cp, a, b, c, False, False, True), 5)
    assert cp.machine.launched[-3:] == ["cublasLtMatmul", "add", "maximum"]


@pytest.mark.parametrize("status", [7, 8, 15])
def test_an_epilogue_that_the_heuristic_does_not_know_is_done_apart(cp, lt, rng, status):
    """Versions of the library differ in what they answer: not supported, invalid, or not of this architecture."""
    lt.library.refuse, lt.library.refusal = lambda compute, epilogue: epilogue & 2, status
    a, b, out, c = operands(cp, rng, "float32", 6, 5, 4)
    lt.matmul(a, b, out, bias=c, relu=True)
    assert close(cp, out, expected(cp, a, b, c, False, False, True), 5)
    assert cp.machine.launched[-2:] == ["cublasLtMatmul", "maximum"]
    lt.library.refuse = lambda compute, epilogue: True
    with pytest.raises(RunError, match="no float32 product" if status == 15 else f"{HEURISTIC} failed with CUBLAS_"):
        lt.matmul(out, b, a, transpose_b=True)  # without an epilogue only "not supported" means that there is none


def test_what_no_plan_is_made_of_is_given_back(cp, lt, rng):
    a, b, out, c = operands(cp, rng, "float32", 6, 5, 4)
    lt.matmul(a, b, out)
    before = len(lt.library.objects)
    lt.library.refuse = lambda compute, epilogue: epilogue != 1
    lt.matmul(a, b, out, bias=c, relu=True)
    assert len(lt.library.objects) == before + 4  # a descriptor and three layouts: those of the plan that was made


@pytest.mark.parametrize("keeps", [True, False])
def test_relu_keeps_nan(cp, lt, rng, keeps):
    lt.library.relu_keeps_nan = keeps
    a, b, out, c = operands(cp, rng, "float32", 6, 5, 4)
    a[2] = np.nan
    lt.matmul(a, b, out, bias=c, relu=True)
    assert np.isnan(cp.asnumpy(out)).any(axis=1).tolist() == [False, False, True, False, False, False]
    assert ("maximum" in cp.machine.launched) is not keeps


@pytest.mark.parametrize(
    ("variable", "tf32", "compute"), [("", None, 68), ("1", None, 77), ("1", False, 68), ("", True, 77)]
)
def test_tf32_only_when_asked(cp, monkeypatch, variable, tf32, compute):
    monkeypatch.setenv("GPUNET_TF32", variable)
    lt = CublasLt(cp, tf32=tf32)
    asked = []
    lt.library.refuse = lambda kind, epilogue: bool(asked.append(kind))
    for dtype in ("float32", "float64"):
        x = cp.zeros((2, 2), dtype)
        lt.matmul(x, x, cp.empty((2, 2), dtype))
    assert asked == [compute, 70]


def test_tf32_of_single_products(cp, lt, rng):
    """Asked for product by product: each has a plan of its own, and float64 and bfloat16 know nothing of it."""
    asked = []
    lt.library.refuse = lambda kind, epilogue: bool(asked.append(kind))
    a, b, out, _ = operands(cp, rng, "float32", 16, 33, 8)
    found = []
    for tf32 in (False, True, False, True):
        lt.matmul(a, b, out, tf32=tf32)
        found.append(cp.asnumpy(out))
    assert asked == [68, 77]
    right = expected(cp, a, b, None, False, False, False)
    assert found[0].tobytes() == found[2].tobytes()
    assert found[1].tobytes() == found[3].tobytes()
    errors = [np.abs(each - right).max() for each in found[:2]]
    coarse = np.abs(half_even(cp.asnumpy(a), 11) @ half_even(cp.asnumpy(b), 11) - right).max()
    assert errors[0] < 1e-5 < coarse / 2 < errors[1] < 2 * coarse
    for dtype, compute in (("float64", 70), ("uint16", 68)):
        x = cp.zeros((16, 16), dtype)
        lt.matmul(x, x, cp.empty((16, 16), dtype), tf32=True)
        assert asked[-1] == compute


# -- bfloat16 ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("door", [CublasLt, lambda cp: CupyProducts(cp, "tried")], ids=["cublasLt", "cupy.matmul"])
@pytest.mark.parametrize(("transpose_a", "transpose_b"), BOTH)
@pytest.mark.parametrize(("bias", "relu", "rounds"), [*((*both, False) for both in BOTH), (False, False, True)])
def test_products_of_bfloat16(cp, rng, door, transpose_a, transpose_b, bias, relu, rounds):
    lt = door(cp)
    for m, k, n in ((5, 7, 3), (1, 1, 1), (1, 33, 2), (31, 2, 64), (4, 0, 3), (0, 4, 3), (3, 4, 0)):
        *wide, _, c = operands(cp, rng, "float32", m, k, n, transpose_a, transpose_b, bias)
        a, b = (cp.asarray(bits(cp.asnumpy(each))) for each in wide)
        exact = [cp.asarray(numbers(cp.asnumpy(each))) for each in (a, b)]
        right, tolerance = expected(cp, *exact, c, transpose_a, transpose_b, relu), RTOL["float32"] * np.sqrt(max(1, k))
        for _ in range(2):
            out = cp.full((m, n), 0x7FC0 if rounds else np.nan, "uint16" if rounds else "float32")
            lt.matmul(a, b, out, transpose_a, transpose_b, c, relu)
            if rounds:
                slack = tolerance * np.abs(right).max(initial=1.0)
                found = numbers(cp.asnumpy(out))
                assert ((half_even(right - slack) <= found) & (found <= half_even(right + slack))).all(), (m, k, n)
            else:
                assert close(cp, out, right, max(1, k)), (m, k, n)
    cp.machine.check_guards()


@pytest.mark.parametrize("door", [CublasLt, lambda cp: CupyProducts(cp, "tried")], ids=["cublasLt", "cupy.matmul"])
def test_sums_that_float32_holds_are_rounded_once_and_ties_to_even(cp, rng, door):
    a, b = rng.integers(-200, 200, (17, 40)), rng.integers(-200, 200, (40, 23))  # sums below 2²⁴
    given, out = [cp.asarray(bits(each)) for each in (a, b)], cp.empty((17, 23), "uint16")
    door(cp).matmul(*given, out)
    np.testing.assert_array_equal(cp.asnumpy(out), bits(a @ b))
    ties = cp.asarray(bits(np.array([[256.0, 1.0], [256, 3], [-256, -1], [np.nan, 1], [3e38, 2e38], [np.inf, 1]])))
    out = cp.empty((6, 1), "uint16")
    door(cp).matmul(ties, cp.asarray(bits(np.ones((2, 1)))), out)
    np.testing.assert_array_equal(numbers(cp.asnumpy(out))[:, 0], [256, 260, -256, np.nan, np.inf, np.inf])


def test_a_sum_that_is_split_is_not_rounded_in_its_parts(cp, lt):
    """CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK: results in bfloat16 allow sums of parts in float32 alone."""
    a = cp.zeros((4, 4), "uint16")
    for dtype, mask in (("float32", 7), ("uint16", 2)):
        lt.matmul(a, a, cp.empty((4, 4), dtype))
        assert lt.library.wishes[-1][3] == mask


def test_a_plan_knows_the_dtypes_of_operands_and_result(cp, lt, rng):
    half, wide = cp.asarray(bits(np.eye(4))), cp.asarray(np.eye(4, dtype="float32"))
    for a, out in ((half, "float32"), (half, "uint16"), (wide, "float32")) * 2:
        given = cp.empty((4, 4), out)
        lt.matmul(a, a, given)
        found = cp.asnumpy(given)
        np.testing.assert_array_equal(numbers(found) if out == "uint16" else found, np.eye(4))
    assert lt.library.calls.count(HEURISTIC) == 3


@pytest.mark.parametrize("keeps", [True, False])
def test_the_relu_of_bfloat16_products_is_tried_by_itself(cp, lt, rng, keeps):
    lt.library.relu_keeps_nan = keeps
    a, b, bias = cp.asarray(bits(rng.normal(size=(6, 5)))), cp.asarray(bits(rng.normal(size=(5, 4)))), cp.zeros(4, "f4")
    a[2], out = 0x7FC0, cp.empty((6, 4), "float32")
    for _ in range(2):
        lt.matmul(a, b, out, bias=bias, relu=True)
    assert np.isnan(cp.asnumpy(out)).any(axis=1).tolist() == [False, False, True, False, False, False]
    assert ("maximum" in cp.machine.launched) is not keeps
    assert lt.library.calls.count(HEURISTIC) == 2
    assert lt.keeps_nan(np.dtype("uint16")) is lt.keeps_nan(np.dtype("float32")) is keeps
    assert lt.library.calls.count(HEURISTIC) == 3


def test_bfloat16_is_checked_where_somebody_asks(cp, lt):
    lt.check("bfloat16")
    lt.library.refuse = lambda compute, epilogue: True
    fresh = CublasLt(cp)
    with pytest.raises(RunError, match=r"has no bfloat16 to float32 product for shapes \(2, 3\) and \(4, 3\)"):
        fresh.check("bfloat16")


@pytest.mark.parametrize(
    ("dtypes", "bias", "relu", "words"),
    [
        (("uint16", "float32", "float32"), None, False, "two factors of bfloat16"),
        (("float32", "uint16", "float32"), None, False, "two factors of bfloat16"),
        (("float32", "float32", "uint16"), None, False, "two factors of bfloat16"),
        (("uint16", "uint16", "float64"), None, False, "two factors of bfloat16"),
        (("uint16", "uint16", "float32"), "uint16", False, "two factors of bfloat16"),
        (("uint16", "uint16", "uint16"), "float32", False, "takes no bias and no relu"),
        (("uint16", "uint16", "uint16"), None, True, "takes no bias and no relu"),
        (("int16", "int16", "float32"), None, False, "two factors of bfloat16"),
    ],
)  # fmt: skip
def test_what_bfloat16_does_not_go_with(cp, lt, dtypes, bias, relu, words):
    a, b, out = (cp.zeros((4, 4), dtype) for dtype in dtypes)
    with pytest.raises(ShapeError, match=words):
        lt.matmul(a, b, out, bias=None if bias is None else cp.zeros(4, bias), relu=relu)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda cp, a: (a, a, a), "inner sizes"),
        (lambda cp, a: (a, a[:, :3], cp.empty((4, 3), "float32")), "C-contiguous"),
        (lambda cp, a: (a, cp.zeros((6, 4), "float64"), cp.empty((4, 4), "float32")), "one for all operands"),
        (lambda cp, a: (a, a[0], a), "matrices"),
        (lambda cp, a: (a, cp.zeros((6, 5), "float32"), cp.empty((4, 4), "float32")), r"out \(4, 5\)"),
    ],
)
def test_operands_that_do_not_fit(cp, lt, make, words):
    with pytest.raises(ShapeError, match=words):
        lt.matmul(*make(cp, cp.zeros((4, 6), "float32")))
    a, b = cp.zeros((4, 6), "float32"), cp.zeros((6, 5), "float32")
    with pytest.raises(ShapeError, match="bias"):
        lt.matmul(a, b, cp.empty((4, 5), "float32"), bias=cp.zeros(4, "float32"))


def test_an_out_of_another_shape_never_meets_a_kept_plan(cp, lt):
    a = cp.zeros((4, 4), "float32")
    lt.matmul(a, a, cp.empty((4, 4), "float32"))
    with pytest.raises(ShapeError):
        lt.matmul(a, a, cp.empty((2, 4), "float32"))


def test_the_first_product_of_its_kind_is_refused_in_a_capture(cp, lt):
    a, out = cp.zeros((4, 4), "float32"), cp.empty((4, 4), "float32")
    lt.matmul(a, a, out)
    stream = cp.cuda.Stream()
    with stream:
        stream.begin_capture()
        lt.matmul(a, a, out)
        assert [what for what, _ in stream.nodes] == ["cublasLtMatmul"]
        with pytest.raises(CaptureError, match="run the step once before"):
            lt.matmul(a, a, out, transpose_a=True)
        stream.end_capture()


def test_a_branch_has_a_workspace_of_its_own_and_shares_the_plans(cp, lt, rng):
    a, b, out, c = operands(cp, rng, "float32", 8, 4, 4)
    other, more = cp.asarray(cp.asnumpy(c) + 1), cp.empty((8, 4), "float32")
    lt.matmul(a, b, out, bias=c)
    held = cp.get_default_memory_pool().used_bytes()
    lt.matmul(a, b, out, bias=c, branch=1)
    assert cp.get_default_memory_pool().used_bytes() - held == 32 << 20
    streams = [cp.cuda.Stream() for _ in range(2)]
    for stream in streams:
        stream.begin_capture()
    for branch, (stream, into, bias) in enumerate(zip(streams, (out, more), (c, other), strict=True)):
        with stream:
            lt.matmul(a, b, into, bias=bias, branch=branch)
    graphs = [stream.end_capture() for stream in streams]
    assert lt.library.calls.count(HEURISTIC) == 1
    places = [place for _, place in lt.library.used]
    assert places[:2] == places[2:]
    assert abs(places[0] - places[1]) >= 32 << 20
    for graph in reversed(graphs):  # the bias of each is that of its capture
        graph.launch()
    for into, bias in ((out, c), (more, other)):
        assert close(cp, into, expected(cp, a, b, bias, False, False, False), 4)
    assert cp.get_default_memory_pool().used_bytes() - held == 32 << 20


def test_the_first_product_of_a_branch_is_refused_in_a_capture(cp, lt):
    a, out = cp.zeros((4, 4), "float32"), cp.empty((4, 4), "float32")
    lt.matmul(a, a, out)
    stream = cp.cuda.Stream()
    with stream:
        stream.begin_capture()
        with pytest.raises(CaptureError, match=r"branch 1 inside a recorded step: run the step once before"):
            lt.matmul(a, a, out, branch=1)
        lt.matmul(a, a, out)
        assert len(stream.end_capture().nodes) == 1
    CupyProducts(cp, "tried").matmul(a, a, out, branch=1)


def test_no_room_for_another_branchs_workspace(rng):
    cp = pretend(total=48 << 20)
    lt = CublasLt(cp)
    a, b, out, c = operands(cp, rng, "float32", 8, 4, 4)
    with pytest.raises(MemoryFullError, match=r"no room for a workspace of 32 MiB.* branch 1: take a smaller batch"):
        lt.matmul(a, b, out, bias=c, branch=1)
    lt.matmul(a, b, out, bias=c)
    assert close(cp, out, expected(cp, a, b, c, False, False, False), 4)


def test_a_status_is_one_readable_line(cp, lt):
    a = cp.zeros((4, 4), "float32")
    lt.library.fails["cublasLtMatmul"] = 13
    with pytest.raises(RunError, match=r"^cublasLt: cublasLtMatmul failed with CUBLAS_STATUS_EXECUTION_FAILED$"):
        lt.matmul(a, a, cp.empty((4, 4), "float32"))
    lt.library.fails[HEURISTIC] = 99
    with pytest.raises(RunError, match="status 99"):
        lt.matmul(a, a, cp.empty((4, 4), "float32"), transpose_a=True)


def test_no_algorithm_at_all(cp, lt):
    lt.library.refuse = lambda compute, epilogue: True
    a = cp.zeros((4, 4), "float32")
    with pytest.raises(RunError, match=r"no float32 product for shapes \(4, 4\)"):
        lt.matmul(a, a, cp.empty((4, 4), "float32"))


def test_cupy_takes_over_where_cublaslt_fails(cp, monkeypatch):
    assert products(cp).reason is None
    cp.cublaslt.fails["cublasLtMatmul"] = 8
    assert "ARCH_MISMATCH" in products(cp).reason
    cp.cublaslt = None
    monkeypatch.setattr(api, "load", missing)
    assert products(cp).reason == "no library here"


def missing(major):
    raise DeviceError("no library here")


def test_wrong_results_are_found(cp, monkeypatch):
    monkeypatch.setattr(api, "OP_T", 0)
    assert products(cp).reason  # refused by the shapes
    monkeypatch.undo()
    monkeypatch.setattr(api, "EPILOGUE_BIAS", 1)
    assert "wrong results" in products(cp).reason


# -- the real library, as far as it goes without a driver -----------------------------------------------------------


@pytest.fixture
def library():
    try:
        return api.load()
    except DeviceError as error:
        pytest.skip(str(error))


def test_structures_are_as_large_as_the_headers():
    assert ctypes.sizeof(api.Algorithm) == 64
    assert ctypes.sizeof(api.HeuristicResult) == 96
    assert [getattr(api.HeuristicResult, name).offset for name in ("workspace", "state", "waves", "reserved")] == [
        64, 72, 76, 80,
    ]  # fmt: skip


def test_the_real_library_takes_our_descriptors(library):
    """Descriptors, layouts and preferences are host objects; only the choice of an algorithm needs a GPU."""
    handle = ctypes.c_void_p()
    status = library.cublasLtCreate(ctypes.byref(handle))
    planner = Planner(library, handle, 32 << 20)
    product = Product(np.dtype("float32"), ((64, 784), (512, 784), (64, 512)), (False, True), (256,) * 4)
    if status == api.SUCCESS:
        assert planner.plan(product, 0x10000, True) is not None
    else:
        with pytest.raises(RunError, match=f"{HEURISTIC} failed with CUBLAS_STATUS_NOT_INITIALIZED"):
            planner.plan(product, 0x10000, True)


def test_the_real_library_keeps_what_we_set(library):
    desc, written = ctypes.c_void_p(), ctypes.c_size_t()
    assert library.cublasLtMatmulDescCreate(ctypes.byref(desc), api.COMPUTE_32F, api.R_32F) == api.SUCCESS
    for attribute, value in (
        (api.DESC_TRANSA, ctypes.c_int32(api.OP_T)),
        (api.DESC_EPILOGUE, ctypes.c_uint32(api.EPILOGUE_BIAS | api.EPILOGUE_RELU)),
        (api.DESC_BIAS_POINTER, ctypes.c_void_p(0x4000)),
    ):
        size, back = ctypes.sizeof(value), type(value)()
        assert library.cublasLtMatmulDescSetAttribute(desc, attribute, ctypes.byref(value), size) == api.SUCCESS
        assert library.cublasLtMatmulDescSetAttribute(desc, attribute, ctypes.byref(value), size - 1) == 7
        status = library.cublasLtMatmulDescGetAttribute(
            desc, attribute, ctypes.byref(back), size, ctypes.byref(written)
        )
        assert (status, back.value, written.value) == (api.SUCCESS, value.value, size)
    assert library.cublasLtMatmulDescDestroy(desc) == api.SUCCESS
