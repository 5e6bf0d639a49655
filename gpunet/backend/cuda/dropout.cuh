// Dropout: the mask follows from a counter, see base.py, and is computed anew on the way back.

typedef unsigned long long u64;

constexpr u64 GOLDEN = 0x9E3779B97F4A7C15, MIX_1 = 0xBF58476D1CE4E5B9, MIX_2 = 0x94D049BB133111EB;

__device__ inline u64 mixed(u64 z) {
    z = (z ^ (z >> 30)) * MIX_1;
    z = (z ^ (z >> 27)) * MIX_2;
    return z ^ (z >> 31);
}

// out = 0 where an element's 32 bits are below the threshold, else scale · x; draw is (key, pass).
template <typename T>
__device__ void dropout(const T* x, T* out, const i64* draw, unsigned threshold, T scale, i64 size) {
    constexpr int N = WIDTH<T>;  // even: a word serves two neighbours
    const u64 start = mixed(u64(draw[0]) + GOLDEN * u64(draw[1]));
    const bool aligned = aligned_to_packs<T, N>(x) && aligned_to_packs<T, N>(out);
    for (i64 i = thread_of_grid() * N; i < size; i += threads_of_grid() * N) {
        const int count = at_most(size - i, N);
        Pack<T, N> pack = load<T, N>(x + i, count, aligned);
        UNROLLED for (int j = 0; j < N; j += 2) {
            const u64 word = mixed(start + GOLDEN * u64((i + j) / 2 + 1));
            pack.at[j] = unsigned(word) < threshold ? T(0) : scale * pack.at[j];
            pack.at[j + 1] = unsigned(word >> 32) < threshold ? T(0) : scale * pack.at[j + 1];
        }
        store(out + i, pack, count, aligned);
    }
}

#define DROPOUT(T, suffix)                                                                            \
    KERNEL dropout_##suffix(                                                                          \
        const T* x, T* out, const i64* draw, unsigned threshold, T scale, i64 size) {                 \
        dropout(x, out, draw, threshold, scale, size);                                                \
    }

DROPOUT(float, f32)
DROPOUT(double, f64)

// The next pass of each draw; draws (count, 2).
KERNEL redraw(i64* draws, int count) {
    for (int i = threadIdx.x; i < count; i += blockDim.x) draws[2 * i + 1] += 1;
}
