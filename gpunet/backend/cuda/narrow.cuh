// Products with few outputs, as a net's last layer has: they are computed where their results are used.

// z[j] = Σ x[i] weight[j, i] + bias[j] for one row x, by the 32 threads of a warp, k ≤ NARROW of them; bias may be null.
template <typename T>
__device__ void scores_of_row(const T* x, const T* weight, const T* bias, T* z, int inputs, int k, int lane) {
    constexpr int N = WIDTH<T>;
    const bool aligned = aligned_to_packs<T, N>(x) && aligned_to_packs<T, N>(weight) && inputs % N == 0;
    T sums[NARROW] = {};
    for (int i = lane * N; i < inputs; i += WARP * N) {
        const int count = at_most(inputs - i, N);
        const Pack<T, N> own = load<T, N>(x + i, count, aligned);
        UNROLLED for (int j = 0; j < NARROW; ++j) {
            if (j >= k) continue;
            const Pack<T, N> weights = load<T, N>(weight + i64(j) * inputs + i, count, aligned);
            for (int e = 0; e < N; ++e) sums[j] += own.at[e] * weights.at[e];
        }
    }
    UNROLLED for (int j = 0; j < NARROW; ++j) {
        if (j >= k) continue;
        const T sum = group_sum(sums[j], WARP);
        if (lane == j) z[j] = bias ? sum + bias[j] : sum;
    }
    __syncwarp();  // the other lanes read them
}

// From dz (rows, k), k ≤ NARROW, x = f(z') (rows, columns) and weight (k, columns), in one pass over x:
// weight_grad = dzᵀ x, dx = (dz W) ∘ f'(z') and bias_grad = Σ over rows of dx; each may be null.
// Blocks: x over columns, y over rows. parts (gridDim.y, k + 1, columns), tickets (gridDim.x), unused where gridDim.y is 1.
template <typename T>
__device__ void narrow_backward(
    int activation, const T* dz, const T* x, const T* weight, T* weight_grad, T* dx, T* bias_grad, T* parts,
    unsigned* tickets, int rows, int columns, int k) {
    __shared__ T room[(NARROW + 1) * BLOCK];
    const int own = threadIdx.y * blockDim.x + threadIdx.x, column = blockIdx.x * blockDim.x + threadIdx.x;
    const int share = (rows + gridDim.y - 1) / gridDim.y, start = blockIdx.y * share;
    const int end = column < columns ? min(start + share, rows) : start;
    T weights[NARROW], sums[NARROW + 1] = {};
    UNROLLED for (int j = 0; j < NARROW; ++j) weights[j] = j < k && start < end ? weight[i64(j) * columns + column] : T(0);
    for (int row = start + threadIdx.y; row < end; row += blockDim.y) {
        const i64 place = i64(row) * columns + column;
        const T output = x[place];
        T slope = 0;
        UNROLLED for (int j = 0; j < NARROW; ++j) {
            if (j >= k) continue;
            const T of_output = dz[i64(row) * k + j];
            sums[j] += of_output * output;
            slope += of_output * weights[j];
        }
        if (!dx) continue;
        slope = chained(activation, output, slope);
        dx[place] = slope;
        sums[NARROW] += slope;
    }
    UNROLLED for (int j = 0; j <= NARROW; ++j) room[j * BLOCK + own] = sums[j];
    __syncthreads();
    // Sum number k is the bias's. A thread adds up one column of one sum over the rows of threads, then of blocks.
    const int lanes = blockDim.x, found = (k + 1) * lanes;
    for (int i = own; i < found; i += BLOCK) {
        const int j = i / lanes, at = blockIdx.x * lanes + i % lanes;
        T sum = 0;
        for (int y = 0; y < blockDim.y; ++y) sum += room[(j < k ? j : NARROW) * BLOCK + y * lanes + i % lanes];
        if (at >= columns) continue;
        T* to = j < k ? weight_grad + (weight_grad ? i64(j) * columns : 0) : bias_grad;
        if (gridDim.y > 1) parts[(i64(blockIdx.y) * (k + 1) + j) * columns + at] = sum;
        else if (to) to[at] = sum;
    }
    if (gridDim.y == 1 || !last_to_arrive(&tickets[blockIdx.x], gridDim.y)) return;
    for (int i = own; i < found; i += BLOCK) {
        const int j = i / lanes, at = blockIdx.x * lanes + i % lanes;
        T* to = j < k ? weight_grad + (weight_grad ? i64(j) * columns : 0) : bias_grad;
        if (at >= columns || !to) continue;
        T sum = 0;
        for (int part = 0; part < gridDim.y; ++part) sum += parts[(i64(part) * (k + 1) + j) * columns + at];
        to[at] = sum;
    }
}

#define NARROW_BACKWARD(T, suffix)                                                                                     \
    KERNEL narrow_backward_##suffix(                                                                                   \
        int activation, const T* dz, const T* x, const T* weight, T* weight_grad, T* dx, T* bias_grad, T* parts,       \
        unsigned* tickets, int rows, int columns, int k) {                                                             \
        narrow_backward(activation, dz, x, weight, weight_grad, dx, bias_grad, parts, tickets, rows, columns, k);      \
    }

NARROW_BACKWARD(float, f32)
NARROW_BACKWARD(double, f64)
