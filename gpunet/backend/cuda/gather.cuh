// Batches out of a data set that lies on the device, and the counters that move on from step to step.

// out[i] = scale · dataset[order[cursor + i]]: rows of `width` elements, blocks of (lanes along a row, rows).
// Places outside the order or the data set are taken at its ends, as the NumPy twin does.
template <typename S, typename T>
__device__ void gather(
    const S* dataset, const i64* order, const i64* cursor, T scale, T* out, i64 rows, i64 width, i64 samples,
    i64 ordered) {
    constexpr int N = 4;
    const bool aligned = aligned_to_packs<S, N>(dataset) && aligned_to_packs<T, N>(out) && width % N == 0;
    const i64 start = cursor[0];
    for (i64 row = i64(blockIdx.x) * blockDim.y + threadIdx.y; row < rows; row += i64(gridDim.x) * blockDim.y) {
        const i64 place = min(max(start + row, i64(0)), ordered - 1);
        const i64 sample = min(max(order[place], i64(0)), samples - 1);
        const S* from = dataset + sample * width;
        T* to = out + row * width;
        for (i64 i = i64(threadIdx.x) * N; i < width; i += i64(blockDim.x) * N) {
            const int count = at_most(width - i, N);
            const Pack<S, N> values = load<S, N>(from + i, count, aligned);
            Pack<T, N> pack;
            for (int j = 0; j < N; ++j) pack.at[j] = T(values.at[j]) * scale;
            store(to + i, pack, count, aligned);
        }
    }
}

#define GATHER(S, T, source, suffix)                                                                                \
    KERNEL gather_##source##_##suffix(                                                                              \
        const S* dataset, const i64* order, const i64* cursor, T scale, T* out, i64 rows, i64 width, i64 samples,   \
        i64 ordered) {                                                                                              \
        gather(dataset, order, cursor, scale, out, rows, width, samples, ordered);                                  \
    }
#define GATHER_FLOATS(S, source)       \
    GATHER(S, float, source, f32)      \
    GATHER(S, double, source, f64)

GATHER_FLOATS(u8, u8)
GATHER_FLOATS(signed char, i8)
GATHER_FLOATS(unsigned short, u16)
GATHER_FLOATS(short, i16)
GATHER_FLOATS(unsigned, u32)
GATHER_FLOATS(int, i32)
GATHER_FLOATS(unsigned long long, u64)
GATHER_FLOATS(i64, i64)
GATHER_FLOATS(float, f32)
GATHER_FLOATS(double, f64)
GATHER(i64, i64, i64, i64)

KERNEL advance(i64* cursor, i64 by) {
    if (threadIdx.x == 0) cursor[0] += by;
}

KERNEL tick(double* scalars) {
    if (threadIdx.x < 2) scalars[STEP + threadIdx.x] += 1;
}
