// Activations, forward and backward, and the sums over rows that are the biases' gradients.

template <typename T>
__device__ void activate(int activation, const T* z, T* out, i64 size) {
    constexpr int N = WIDTH<T>;
    const bool aligned = aligned_to_packs<T, N>(z) && aligned_to_packs<T, N>(out);
    for (i64 i = thread_of_grid() * N; i < size; i += threads_of_grid() * N) {
        const int count = at_most(size - i, N);
        Pack<T, N> pack = load<T, N>(z + i, count, aligned);
        for (int j = 0; j < N; ++j) pack.at[j] = activated(activation, pack.at[j]);
        store(out + i, pack, count, aligned);
    }
}

// y and dz may each be bfloat16: Y and Z.
template <typename T, typename Y, typename Z>
__device__ void activation_backward(int activation, const Y* y, const T* dy, Z* dz, i64 size) {
    constexpr int N = WIDTH<T>;
    const bool aligned = aligned_to_packs<Y, N>(y) && aligned_to_packs<T, N>(dy) && aligned_to_packs<Z, N>(dz);
    for (i64 i = thread_of_grid() * N; i < size; i += threads_of_grid() * N) {
        const int count = at_most(size - i, N);
        const Pack<T, N> outputs = widened(load<Y, N>(y + i, count, aligned));
        Pack<T, N> pack = load<T, N>(dy + i, count, aligned);
        for (int j = 0; j < N; ++j) pack.at[j] = chained(activation, outputs.at[j], pack.at[j]);
        store(dz + i, pack, count, aligned);
    }
}

// out = f(z + bias), both (rows, columns) and out z itself or bfloat16; bias may be null. A thread keeps its column and
// goes down the rows.
template <typename T, typename O>
__device__ void bias_activation(int activation, const T* z, O* out, const T* bias, int rows, int columns) {
    constexpr int N = WIDTH<T>;
    const bool aligned = aligned_to_packs<T, N>(z) && aligned_to_packs<O, N>(out) && columns % N == 0;
    for (int column = threadIdx.x * N; column < columns; column += blockDim.x * N) {
        const int count = at_most(columns - column, N);
        Pack<T, N> shift = {};
        if (bias) shift = load<T, N>(bias + column, count, false);
        for (int row = blockIdx.x * blockDim.y + threadIdx.y; row < rows; row += gridDim.x * blockDim.y) {
            const i64 place = i64(row) * columns + column;
            Pack<T, N> pack = load<T, N>(z + place, count, aligned);
            for (int j = 0; j < N; ++j) pack.at[j] = activated(activation, pack.at[j] + shift.at[j]);
            store(out + place, pack, count, aligned);
        }
    }
}

// dz = dy ∘ f'(z) and sums = Σ over rows of dz before it is rounded; all (rows, columns), columns a multiple of N.
// Blocks: x over columns, y over rows. parts (gridDim.y, columns), tickets (gridDim.x), unused where gridDim.y is 1.
template <int N, typename T, typename Y, typename Z>
__device__ void chain_and_sum(
    int activation, const Y* y, const T* dy, Z* dz, T* sums, T* parts, unsigned* tickets, int rows, int columns) {
    constexpr int AHEAD = 4;  // rows on their way at once: a store may not be overtaken by the next row's loads
    __shared__ Pack<T, N> room[BLOCK];
    const bool aligned = aligned_to_packs<Y, N>(y) && aligned_to_packs<T, N>(dy) && aligned_to_packs<Z, N>(dz);
    const bool changes = activation != IDENTITY, writes = changes || (const void*)dz != (const void*)dy;
    const int column = (blockIdx.x * blockDim.x + threadIdx.x) * N;
    const int share = (rows + gridDim.y - 1) / gridDim.y, start = blockIdx.y * share;
    const int end = column < columns ? min(start + share, rows) : start;
    Pack<T, N> sum = {};
    for (int first = start + threadIdx.y; first < end; first += AHEAD * blockDim.y) {
        Pack<T, N> outputs[AHEAD], slopes[AHEAD];
        for (int a = 0; a < AHEAD; ++a) {
            const int row = min(first + a * int(blockDim.y), end - 1);
            slopes[a] = load<T, N>(dy + i64(row) * columns + column, N, aligned);
            if (changes) outputs[a] = widened(load<Y, N>(y + i64(row) * columns + column, N, aligned));
        }
        for (int a = 0; a < AHEAD; ++a) {
            const int row = first + a * blockDim.y;
            if (row >= end) break;
            for (int j = 0; j < N; ++j) {
                if (changes) slopes[a].at[j] = chained(activation, outputs[a].at[j], slopes[a].at[j]);
                sum.at[j] += slopes[a].at[j];
            }
            if (writes) store(dz + i64(row) * columns + column, slopes[a], N, aligned);
        }
    }
    sum = column_sum(sum, room);
    const bool mine = threadIdx.y == 0 && column < columns;
    if (gridDim.y > 1) {
        if (mine) store(parts + i64(blockIdx.y) * columns + column, sum, N, false);
        if (!last_to_arrive(&tickets[blockIdx.x], gridDim.y)) return;
        sum = {};
        for (int part = threadIdx.y; part < gridDim.y && column < columns; part += blockDim.y) {
            const Pack<T, N> other = load<T, N>(parts + i64(part) * columns + column, N, false);
            for (int j = 0; j < N; ++j) sum.at[j] += other.at[j];
        }
        sum = column_sum(sum, room);
    }
    if (mine) store(sums + column, sum, N, false);
}

#define CHAIN(T, Y, Z, suffix)                                                                                         \
    KERNEL activation_backward_##suffix(int activation, const Y* y, const T* dy, Z* dz, i64 size) {                    \
        activation_backward(activation, y, dy, dz, size);                                                              \
    }                                                                                                                  \
    KERNEL chain_and_sum_##suffix(                                                                                     \
        int activation, const Y* y, const T* dy, Z* dz, T* sums, T* parts, unsigned* tickets, int rows, int columns) { \
        chain_and_sum<1>(activation, y, dy, dz, sums, parts, tickets, rows, columns);                                  \
    }                                                                                                                  \
    KERNEL chain_and_sum_wide_##suffix(                                                                                \
        int activation, const Y* y, const T* dy, Z* dz, T* sums, T* parts, unsigned* tickets, int rows, int columns) { \
        chain_and_sum<WIDTH<T>>(activation, y, dy, dz, sums, parts, tickets, rows, columns);                           \
    }

CHAIN(float, float, float, f32)
CHAIN(double, double, double, f64)
CHAIN(float, bfloat16, bfloat16, bf16)
CHAIN(float, bfloat16, float, bf16_f32)
CHAIN(float, float, bfloat16, f32_bf16)

#define BIAS_ACTIVATION(T, O, suffix)                                                                                  \
    KERNEL bias_activation_##suffix(int activation, const T* z, O* out, const T* bias, int rows, int columns) {        \
        bias_activation(activation, z, out, bias, rows, columns);                                                      \
    }

BIAS_ACTIVATION(float, float, f32)
BIAS_ACTIVATION(double, double, f64)
BIAS_ACTIVATION(float, bfloat16, bf16)

#define ACTIVATE(T, suffix)                                                                                            \
    KERNEL activate_##suffix(int activation, const T* z, T* out, i64 size) { activate(activation, z, out, size); }

ACTIVATE(float, f32)
ACTIVATE(double, f64)
