// Products with few outputs, as a net's last layer has: they are computed where their results are used. Operands are of
// type X, T itself or bfloat16; a thread takes as many of either at a time, so that both sum in one order.

// sums[j] += Σ x[i] weight[j, i] for this lane's part of one row x. As many loads as registers take are on their way
// before the first is waited for.
template <bool ALIGNED, typename T, typename X>
__device__ inline void add_products(const X* x, const X* weight, T (&sums)[NARROW], int inputs, int k, int lane) {
    constexpr int N = WIDTH<T>, AHEAD = 4 * N;
    for (int i = lane * N; i < inputs; i += WARP * N) {
        const int count = ALIGNED ? N : at_most(inputs - i, N);
        const Pack<T, N> own = widened(load<X, N>(x + i, count, ALIGNED));
        UNROLLED for (int first = 0; first < NARROW; first += AHEAD) {
            Pack<X, N> weights[AHEAD];
            UNROLLED for (int j = 0; j < AHEAD; ++j)
                if (first + j < k) weights[j] = load<X, N>(weight + i64(first + j) * inputs + i, count, ALIGNED);
            UNROLLED for (int j = 0; j < AHEAD; ++j) {
                const Pack<T, N> factors = widened(weights[j]);
                for (int e = 0; e < N; ++e)
                    if (first + j < k) sums[first + j] += own.at[e] * factors.at[e];
            }
        }
    }
}

// Number lane / 2 of NARROW = WARP / 2 sums over a warp, each added up as group_sum does: at every distance a lane hands
// over half of the sums that it has left, 2 · HALF.
template <int HALF = NARROW / 2, typename T>
__device__ inline T own_sum(T (&sums)[NARROW], int lane) {
    const bool upper = lane & 2 * HALF;
    UNROLLED for (int j = 0; j < HALF; ++j) {
        const T low = sums[j], high = sums[j + HALF];
        sums[j] = (upper ? high : low) + __shfl_xor_sync(EVERY_LANE, upper ? low : high, 2 * HALF);
    }
    if constexpr (HALF > 1) return own_sum<HALF / 2>(sums, lane);
    return sums[0] + __shfl_xor_sync(EVERY_LANE, sums[0], 1);
}

// z[j] = Σ x[i] weight[j, i] + bias[j] for one row x, by the 32 threads of a warp; k ≤ NARROW; bias may be null.
template <typename T, typename X>
__device__ void scores_of_row(const X* x, const X* weight, const T* bias, T* z, int inputs, int k, int lane) {
    constexpr int N = WIDTH<T>;
    T sums[NARROW] = {};
    if (inputs % N == 0 && aligned_to_packs<X, N>(x) && aligned_to_packs<X, N>(weight))
        add_products<true>(x, weight, sums, inputs, k, lane);
    else
        add_products<false>(x, weight, sums, inputs, k, lane);
    const T sum = own_sum(sums, lane);
    const int j = lane / 2;
    if (lane % 2 == 0 && j < k) z[j] = bias ? sum + bias[j] : sum;
    __syncwarp();  // the other lanes read them
}

// From dz (rows, k), k ≤ NARROW, x = f(z') (rows, columns) and weight (k, columns), in one pass over x:
// weight_grad = dzᵀ x, dx = (dz W) ∘ f'(z') and bias_grad = Σ over rows of dx, before it is rounded to D; each may be null.
// Blocks: x over columns, y over rows. parts (gridDim.y, k + 1, columns), tickets (gridDim.x): unused where gridDim.y
// is 1.
template <typename T, typename X, typename D>
__device__ void narrow_backward(
    int activation, const X* dz, const X* x, const X* weight, T* weight_grad, D* dx, T* bias_grad, T* parts,
    unsigned* tickets, int rows, int columns, int k) {
    constexpr int AHEAD = WIDTH<T> / 2;  // rows on their way at once, as in chain_and_sum
    __shared__ T room[(NARROW + 1) * BLOCK];
    const int own = threadIdx.y * blockDim.x + threadIdx.x, column = blockIdx.x * blockDim.x + threadIdx.x;
    const int share = (rows + gridDim.y - 1) / gridDim.y, start = blockIdx.y * share;
    const int end = column < columns ? min(start + share, rows) : start;
    T weights[NARROW], sums[NARROW + 1] = {};
    UNROLLED for (int j = 0; j < NARROW; ++j)
        weights[j] = j < k && start < end ? widened(weight[i64(j) * columns + column]) : T(0);
    for (int first = start + threadIdx.y; first < end; first += AHEAD * blockDim.y) {
        T outputs[AHEAD], of_output[AHEAD][NARROW];
        UNROLLED for (int a = 0; a < AHEAD; ++a) {
            const int row = min(first + a * int(blockDim.y), end - 1);
            outputs[a] = widened(x[i64(row) * columns + column]);
            UNROLLED for (int j = 0; j < NARROW; ++j)
                if (j < k) of_output[a][j] = widened(dz[i64(row) * k + j]);
        }
        UNROLLED for (int a = 0; a < AHEAD; ++a) {
            const int row = first + a * int(blockDim.y);
            if (row >= end) break;
            T slope = 0;
            UNROLLED for (int j = 0; j < NARROW; ++j) {
                if (j >= k) continue;
                sums[j] += of_output[a][j] * outputs[a];
                slope += of_output[a][j] * weights[j];
            }
            if (!dx) continue;
            slope = chained(activation, outputs[a], slope);
            put(dx + i64(row) * columns + column, slope);
            sums[NARROW] += slope;
        }
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

#define NARROW_BACKWARD(T, X, D, suffix)                                                                               \
    KERNEL_OF_MANY_REGISTERS narrow_backward_##suffix(                                                                 \
        int activation, const X* dz, const X* x, const X* weight, T* weight_grad, D* dx, T* bias_grad, T* parts,       \
        unsigned* tickets, int rows, int columns, int k) {                                                             \
        narrow_backward(activation, dz, x, weight, weight_grad, dx, bias_grad, parts, tickets, rows, columns, k);      \
    }

NARROW_BACKWARD(float, float, float, f32)
NARROW_BACKWARD(double, double, double, f64)
NARROW_BACKWARD(float, bfloat16, bfloat16, bf16)
NARROW_BACKWARD(float, bfloat16, float, bf16_f32)
