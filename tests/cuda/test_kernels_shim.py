"""The host shim finds the mistakes that it is there to find: races, missing barriers, hangs, writes beyond arrays."""

from __future__ import annotations

import numpy as np
import pytest

from .host_module import HostKernelError, HostModule, running, why_not

pytestmark = pytest.mark.skipif(why_not() is not None, reason=why_not() or "")

KERNELS = """
constexpr int SIZE = 64;

template <bool FIRST, bool SECOND>
__device__ void shift(const float* x, float* out, int rounds) {
    __shared__ float room[SIZE];
    float value = x[threadIdx.x];
    for (int i = 0; i < rounds; ++i) {
        if (FIRST) __syncthreads();
        room[threadIdx.x] = value;
        if (SECOND) __syncthreads();
        value = room[(threadIdx.x + 33) % SIZE] + 1;
    }
    out[threadIdx.x] = value;
}

extern "C" __global__ void right(const float* x, float* out, int n) { shift<true, true>(x, out, n); }
extern "C" __global__ void overwrites(const float* x, float* out, int n) { shift<false, true>(x, out, n); }
extern "C" __global__ void reads_early(const float* x, float* out, int n) { shift<true, false>(x, out, n); }

extern "C" __global__ void race(float* out) { out[0] = out[0] * 2 + float(threadIdx.x + blockIdx.x * blockDim.x); }

extern "C" __global__ void unwritten(float* out) {
    __shared__ float room[SIZE];
    out[threadIdx.x] = room[threadIdx.x];
}

extern "C" __global__ void warp_sums(const float* x, float* out) {
    float sum = x[threadIdx.x];
    for (int mask = 16; mask > 0; mask /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, mask);
    out[threadIdx.x] = sum;
}

extern "C" __global__ void some_wait(float* out) {
    if (threadIdx.x < 3) __syncthreads();
    out[threadIdx.x] = 1;
}

extern "C" __global__ void wait_apart(float* out) {
    if (threadIdx.x < 3)
        __syncthreads();
    else
        __syncthreads();
    out[threadIdx.x] = 1;
}

extern "C" __global__ void some_shuffle(float* out) {
    if (threadIdx.x < 3) return;
    out[threadIdx.x] = __shfl_xor_sync(0xffffffffu, 1.0f, 1);
}

extern "C" __global__ void reads_on(const float* x, float* out) {
    float sum = 0;
    for (int i = 0; i <= SIZE; ++i) sum += x[i];
    out[threadIdx.x] = sum;
}

template <bool FENCE, bool BARRIER>
__device__ void arrive(int* out, unsigned* ticket) {
    __shared__ bool last;
    if (FENCE) __threadfence();
    if (BARRIER) __syncthreads();
    if (threadIdx.x == 0) last = atomicInc(ticket, gridDim.x - 1) == gridDim.x - 1;
    __syncthreads();
    if (last && threadIdx.x == 0) out[0] += 1;
}

extern "C" __global__ void last_block(int* out, unsigned* ticket) { arrive<true, true>(out, ticket); }
extern "C" __global__ void without_fence(int* out, unsigned* ticket) { arrive<false, true>(out, ticket); }
extern "C" __global__ void without_barrier(int* out, unsigned* ticket) { arrive<true, false>(out, ticket); }

extern "C" __global__ void indices(int* out) {
    const int block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    const int thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
    out[block * blockDim.x * blockDim.y * blockDim.z + thread] += block * 1000 + thread;
}
"""
ORDERS = [("forward", 0), ("reversed", 0), *(("shuffled", seed) for seed in range(4))]


@pytest.fixture(scope="module")
def module():
    return HostModule(code=KERNELS)


def outcomes(module, name, *args, blocks=1, threads=64, size=64):
    """The different results, as bytes, over all orders."""
    found = set()
    for order in ORDERS:
        out = np.zeros(size, "float32")
        with running(*order):
            module.get_function(name)((blocks,), (threads,), tuple(out if a is Ellipsis else a for a in args))
        found.add(out.tobytes())
    return found


@pytest.mark.slow
def test_barriers_make_the_order_irrelevant(module, rng):
    x = rng.normal(size=64).astype("float32")
    (found,) = outcomes(module, "right", x, ..., np.int32(5))
    want = x[(np.arange(64) + 5 * 33) % 64] + np.float32(5)
    np.testing.assert_allclose(np.frombuffer(found, "float32"), want, rtol=1e-6)


@pytest.mark.parametrize("name", ["overwrites", "reads_early"])
def test_a_missing_barrier_shows(module, rng, name):
    x = rng.normal(size=64).astype("float32")
    assert len(outcomes(module, name, x, ..., np.int32(5))) > 1


def test_a_race_between_threads_or_blocks_shows(module):
    assert len(outcomes(module, "race", ..., threads=2)) > 1
    assert len(outcomes(module, "race", ..., blocks=8, threads=1)) > 1


def test_shared_memory_that_nobody_wrote_is_nan(module):
    for _ in range(2):
        (found,) = outcomes(module, "unwritten", ...)
        assert np.isnan(np.frombuffer(found, "float32")).all()


def test_shuffles_sum_over_warps(module, rng):
    x = rng.integers(0, 9, 64).astype("float32")
    (found,) = outcomes(module, "warp_sums", x, ...)
    np.testing.assert_array_equal(np.frombuffer(found, "float32"), np.repeat(x.reshape(2, 32).sum(axis=1), 32))


@pytest.mark.parametrize(
    ("name", "message"),
    [("some_wait", "wait at different places"), ("wait_apart", "wait at different places"),
     ("some_shuffle", "waits for a lane that has ended")],
)  # fmt: skip
def test_what_would_hang_is_an_error_and_the_next_launch_works(module, name, message):
    for order in ORDERS:
        with running(*order), pytest.raises(HostKernelError, match=message):
            module.get_function(name)((1,), (64,), (np.zeros(64, "float32"),))
    assert len(outcomes(module, "warp_sums", np.ones(64, "float32"), ...)) == 1


def test_a_read_beyond_the_end_of_an_array_is_an_error_and_the_next_launch_works(module):
    x, out = np.ones(64, "float32"), np.zeros(64, "float32")
    for _ in range(2):
        with running("forward", edges=True), pytest.raises(HostKernelError, match="went outside of all arrays"):
            module.get_function("reads_on")((1,), (64,), (x, out))
    with running("forward", edges=True):
        module.get_function("warp_sums")((1,), (64,), (x, out))
    assert (out == 32).all()


def test_one_block_is_the_last_and_its_ticket_is_new_again(module):
    ticket, out = np.zeros(1, "uint32"), np.zeros(1, "int32")
    for launch in range(3):
        module.get_function("last_block")((5,), (64,), (out, ticket))
        assert (out[0], ticket[0]) == (launch + 1, 0)


@pytest.mark.parametrize("name", ["without_fence", "without_barrier"])
def test_a_block_that_says_too_early_that_it_has_come_is_an_error(module, name):
    ticket, out = np.zeros(1, "uint32"), np.zeros(1, "int32")
    with running("forward"), pytest.raises(HostKernelError, match="before the writes of all its threads"):
        module.get_function(name)((5,), (64,), (out, ticket))


@pytest.mark.parametrize("order", ORDERS)
def test_every_thread_of_every_block_runs_once(module, order):
    out = np.zeros(2 * 3 * 2 * 8 * 4 * 2, "int32")
    with running(*order):
        module.get_function("indices")((2, 3, 2), (8, 4, 2), (out,))
    np.testing.assert_array_equal(out.reshape(12, 64), np.arange(12)[:, None] * 1000 + np.arange(64))


FLOATS = np.zeros(64, "float32")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((FLOATS, FLOATS, np.int64(1)), "argument 2 is int64, the kernel takes i4"),
        ((FLOATS, FLOATS, np.float32(1)), "argument 2 is float32, the kernel takes i4"),
        ((FLOATS, FLOATS, 1), "argument 2 is a int, expected i4"),
        ((FLOATS.astype("float64"), FLOATS, np.int32(1)), "argument 0 is float64, the kernel takes f4"),
        ((None, FLOATS, np.int32(1)), "argument 0 is a NoneType"),
        ((FLOATS[::2], FLOATS, np.int32(1)), "argument 0 has strides"),
        ((FLOATS, FLOATS), "takes 3 arguments, got 2"),
    ],
)
def test_arguments_of_another_type_are_refused(module, args, message):
    with pytest.raises(HostKernelError, match=message):
        module.get_function("right")((1,), (64,), args)


def test_outputs_that_are_read_only_and_launches_that_cuda_refuses(module):
    frozen = FLOATS.copy()
    frozen.flags.writeable = False
    kernel = module.get_function("right")
    with pytest.raises(HostKernelError, match="argument 1 is read-only"):
        kernel((1,), (64,), (frozen, frozen, np.int32(1)))
    for grid, block in (((0,), (64,)), ((1,), (2048,)), ((1, 70000), (64,))):
        with pytest.raises(HostKernelError, match="CUDA refuses"):
            kernel(grid, block, (FLOATS, FLOATS.copy(), np.int32(1)))
    with pytest.raises(HostKernelError, match="no kernel 'wrong'"):
        module.get_function("wrong")
