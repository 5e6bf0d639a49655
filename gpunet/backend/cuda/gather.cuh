// Batches out of a data set that lies on the device, and what moves on from step to step.

// One step more; Adam's factors for it, as `adam_factors` in numpy_backend.py: η·m̂/(√v̂ + ε) = c·M/(√V + ε').
__device__ inline void count_step(double* clock) {
    clock[STEP] += 1;
    clock[SECOND_STEP] += 1;
    const double first = 1 - pow(clock[BETA1], clock[STEP]), second = 1 - pow(clock[BETA2], clock[SECOND_STEP]);
    const double spread = sqrt((1 - clock[BETA2]) / second);
    clock[ADAM_RATE] = clock[LEARNING_RATE] * (1 - clock[BETA1]) / (first * spread);
    clock[ADAM_EPSILON] = clock[EPSILON] / spread;
}

KERNEL tick(double* clocks, int count) {
    for (int i = threadIdx.x; i < count; i += blockDim.x) count_step(clocks + i * N_SCALARS);
}

// out[i] = scale · dataset[order[cursor + i]], products of T, written as O: rows of `width` elements, blocks of (lanes along a row, rows); and the
// labels of the same samples. Places outside the order or the data set are taken at its ends, as the NumPy twin does.
// Then cursor += by, by the block that comes last, since all read it. A block more than the rows need counts a step of
// the clocks. labels and clocks may be null.
template <typename S, typename T, typename O>
__device__ void gather(
    const S* dataset, const i64* labels, const i64* order, i64* cursor, T scale, O* out, i64* labels_out, double* clocks,
    unsigned* ticket, i64 rows, i64 width, i64 samples, i64 ordered, i64 by, int count) {
    constexpr int N = 4;
    const unsigned blocks = gridDim.x - (count > 0);
    if (blockIdx.x == blocks) {
        for (int i = threadIdx.y * blockDim.x + threadIdx.x; i < count; i += BLOCK) count_step(clocks + i * N_SCALARS);
        return;
    }
    const bool aligned = aligned_to_packs<S, N>(dataset) && aligned_to_packs<O, N>(out) && width % N == 0;
    const i64 start = cursor[0];
    for (i64 row = i64(blockIdx.x) * blockDim.y + threadIdx.y; row < rows; row += i64(blocks) * blockDim.y) {
        const i64 place = min(max(start + row, i64(0)), ordered - 1);
        const i64 sample = min(max(order[place], i64(0)), samples - 1);
        if (labels && threadIdx.x == 0) labels_out[row] = labels[sample];
        const S* from = dataset + sample * width;
        O* to = out + row * width;
        for (i64 i = i64(threadIdx.x) * N; i < width; i += i64(blockDim.x) * N) {
            const int count = at_most(width - i, N);
            const Pack<S, N> values = load<S, N>(from + i, count, aligned);
            Pack<T, N> pack;
            for (int j = 0; j < N; ++j) pack.at[j] = T(values.at[j]) * scale;
            store(to + i, pack, count, aligned);
        }
    }
    if (by == 0 || !last_to_arrive(ticket, blocks)) return;
    if (threadIdx.x == 0 && threadIdx.y == 0) cursor[0] = start + by;
}

#define GATHER(S, T, O, source, suffix)                                                                               \
    KERNEL gather_##source##_##suffix(                                                                                \
        const S* dataset, const i64* labels, const i64* order, i64* cursor, T scale, O* out, i64* labels_out,         \
        double* clocks, unsigned* ticket, i64 rows, i64 width, i64 samples, i64 ordered, i64 by, int count) {         \
        gather(                                                                                                       \
            dataset, labels, order, cursor, scale, out, labels_out, clocks, ticket, rows, width, samples, ordered, by, \
            count);                                                                                                   \
    }
#define GATHER_FLOATS(S, source)              \
    GATHER(S, float, float, source, f32)      \
    GATHER(S, double, double, source, f64)    \
    GATHER(S, float, bfloat16, source, bf16)

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
GATHER(i64, i64, i64, i64, i64)
