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

template <typename T>
__device__ void activation_backward(int activation, const T* y, const T* dy, T* dz, i64 size) {
    constexpr int N = WIDTH<T>;
    const bool aligned = aligned_to_packs<T, N>(y) && aligned_to_packs<T, N>(dy) && aligned_to_packs<T, N>(dz);
    for (i64 i = thread_of_grid() * N; i < size; i += threads_of_grid() * N) {
        const int count = at_most(size - i, N);
        const Pack<T, N> outputs = load<T, N>(y + i, count, aligned);
        Pack<T, N> pack = load<T, N>(dy + i, count, aligned);
        for (int j = 0; j < N; ++j) pack.at[j] = chained(activation, outputs.at[j], pack.at[j]);
        store(dz + i, pack, count, aligned);
    }
}

// out = f(out + bias), out (rows, columns). A thread keeps its column and goes down the rows.
template <typename T>
__device__ void bias_activation(int activation, T* out, const T* bias, int rows, int columns) {
    constexpr int N = WIDTH<T>;
    const bool aligned = aligned_to_packs<T, N>(out) && columns % N == 0;
    for (int column = threadIdx.x * N; column < columns; column += blockDim.x * N) {
        const int count = at_most(columns - column, N);
        const Pack<T, N> shift = load<T, N>(bias + column, count, false);
        for (int row = blockIdx.x * blockDim.y + threadIdx.y; row < rows; row += gridDim.x * blockDim.y) {
            T* place = out + i64(row) * columns + column;
            Pack<T, N> pack = load<T, N>(place, count, aligned);
            for (int j = 0; j < N; ++j) pack.at[j] = activated(activation, pack.at[j] + shift.at[j]);
            store(place, pack, count, aligned);
        }
    }
}

// dz = dy ∘ f'(z) and sums = Σ over rows of dz; all (rows, columns), columns a multiple of N.
// Blocks: x over columns, y over rows. parts (gridDim.y, columns), tickets (gridDim.x), unused where gridDim.y is 1.
template <typename T, int N>
__device__ void chain_and_sum(
    int activation, const T* y, const T* dy, T* dz, T* sums, T* parts, unsigned* tickets, int rows, int columns) {
    constexpr int AHEAD = 4;  // rows on their way at once: a store may not be overtaken by the next row's loads
    __shared__ Pack<T, N> room[BLOCK];
    const bool aligned = aligned_to_packs<T, N>(y) && aligned_to_packs<T, N>(dy) && aligned_to_packs<T, N>(dz);
    const bool changes = activation != IDENTITY, writes = changes || dz != dy;
    const int column = (blockIdx.x * blockDim.x + threadIdx.x) * N;
    const int share = (rows + gridDim.y - 1) / gridDim.y, start = blockIdx.y * share;
    const int end = column < columns ? min(start + share, rows) : start;
    Pack<T, N> sum = {};
    for (int first = start + threadIdx.y; first < end; first += AHEAD * blockDim.y) {
        Pack<T, N> outputs[AHEAD], slopes[AHEAD];
        for (int a = 0; a < AHEAD; ++a) {
            const int row = min(first + a * int(blockDim.y), end - 1);
            slopes[a] = load<T, N>(dy + i64(row) * columns + column, N, aligned);
            if (changes) outputs[a] = load<T, N>(y + i64(row) * columns + column, N, aligned);
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

#define ELEMENTWISE(T, suffix)                                                                                         \
    KERNEL activate_##suffix(int activation, const T* z, T* out, i64 size) { activate(activation, z, out, size); }     \
    KERNEL activation_backward_##suffix(int activation, const T* y, const T* dy, T* dz, i64 size) {                    \
        activation_backward(activation, y, dy, dz, size);                                                              \
    }                                                                                                                  \
    KERNEL bias_activation_##suffix(int activation, T* out, const T* bias, int rows, int columns) {                    \
        bias_activation(activation, out, bias, rows, columns);                                                         \
    }                                                                                                                  \
    KERNEL chain_and_sum_##suffix(                                                                                     \
        int activation, const T* y, const T* dy, T* dz, T* sums, T* parts, unsigned* tickets, int rows, int columns) { \
        chain_and_sum<T, 1>(activation, y, dy, dz, sums, parts, tickets, rows, columns);                               \
    }                                                                                                                  \
    KERNEL chain_and_sum_wide_##suffix(                                                                                \
        int activation, const T* y, const T* dy, T* dz, T* sums, T* parts, unsigned* tickets, int rows, int columns) { \
        chain_and_sum<T, WIDTH<T>>(activation, y, dy, dz, sums, parts, tickets, rows, columns);                        \
    }

ELEMENTWISE(float, f32)
ELEMENTWISE(double, f64)
