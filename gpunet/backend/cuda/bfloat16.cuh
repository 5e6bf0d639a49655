// bfloat16, the upper half of a float32's bits. Nothing is computed in it, only loaded as float32 and stored from it, by
// plain bit operations: NVRTC has no cuda_bf16.h at hand, and -ftz=true does not reach them.

struct bfloat16 {
    unsigned short bits;
};

template <typename T>
__device__ inline T widened(T x) {
    return x;
}
__device__ inline float widened(bfloat16 x) { return __uint_as_float(unsigned(x.bits) << 16); }

template <typename T, int N>
__device__ inline Pack<T, N> widened(const Pack<T, N>& pack) {
    return pack;
}
template <int N>
__device__ inline Pack<float, N> widened(const Pack<bfloat16, N>& pack) {
    Pack<float, N> wide;
    if constexpr (N == 1) {
        wide.at[0] = widened(pack.at[0]);
    } else {  // by twos: each number in a register of its own, the sixteen packs of narrow.cuh would spill
        const unsigned* pairs = reinterpret_cast<const unsigned*>(&pack);
        UNROLLED for (int j = 0; j < N; j += 2) {
            wide.at[j] = __uint_as_float(pairs[j / 2] << 16);
            wide.at[j + 1] = __uint_as_float(pairs[j / 2] & 0xffff0000u);
        }
    }
    return wide;
}

// To nearest, ties to even; any NaN becomes the quiet one, as in numpy_backend.py.
__device__ inline bfloat16 rounded(float x) {
    const unsigned bits = __float_as_uint(x);
    const bool missing = (bits & 0x7FFFFFFFu) > 0x7F800000u;
    return {(unsigned short)(missing ? 0x7FC0u : (bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16)};
}

template <typename T>
__device__ inline void put(T* to, T value) {
    *to = value;
}
__device__ inline void put(bfloat16* to, float value) { *to = rounded(value); }

template <int N>
__device__ inline void store(bfloat16* to, const Pack<float, N>& pack, int count, bool aligned) {
    Pack<bfloat16, N> narrow;
    UNROLLED for (int j = 0; j < N; ++j) narrow.at[j] = rounded(pack.at[j]);
    store(to, narrow, count, aligned);
}

__device__ inline void round_to_bfloat16(const float* x, bfloat16* out, i64 size) {
    constexpr int N = WIDTH<float>;
    const bool aligned = aligned_to_packs<float, N>(x) && aligned_to_packs<bfloat16, N>(out);
    for (i64 i = thread_of_grid() * N; i < size; i += threads_of_grid() * N) {
        const int count = at_most(size - i, N);
        store(out + i, load<float, N>(x + i, count, aligned), count, aligned);
    }
}

KERNEL to_bfloat16(const float* x, bfloat16* out, i64 size) { round_to_bfloat16(x, out, size); }
