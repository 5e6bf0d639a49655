// Losses: value, gradient, its sum over the rows and the count of correct answers in one launch. A row is read by `lanes`
// neighbouring threads, a power of two that fits the number of outputs; sums over rows are kept in float64.

// The largest score of a row and its column, the first of several equal ones; NaN is larger than any number.
template <typename T>
struct Best {
    T score;
    int column;
};

template <typename T>
__device__ inline Best<T> better(Best<T> a, Best<T> b) {
    const bool a_nan = a.score != a.score, b_nan = b.score != b.score;
    const bool equal = a.score == b.score || (a_nan && b_nan);
    const bool take_b = equal ? b.column < a.column : b_nan || (!a_nan && b.score > a.score);
    return take_b ? b : a;
}

template <typename T>
__device__ inline Best<T> group_best(Best<T> mine, int lanes) {
    for (int distance = lanes / 2; distance > 0; distance /= 2) {
        Best<T> other;
        other.score = __shfl_xor_sync(EVERY_LANE, mine.score, distance);
        other.column = __shfl_xor_sync(EVERY_LANE, mine.column, distance);
        mine = better(mine, other);
    }
    return mine;
}

// Sum of the threads that have one lane; the first `lanes` threads get theirs.
__device__ inline double lane_sum(double value, int lanes) {
    __shared__ double room[BLOCK];
    __syncthreads();  // nobody may still be reading the sums of an earlier call
    room[threadIdx.x] = value;
    __syncthreads();
    double sum = 0;
    if (threadIdx.x < lanes)
        for (int i = threadIdx.x; i < BLOCK; i += lanes) sum += room[i];
    return sum;
}

// totals += the sums over all threads of the grid; bias_grad (k,), where it is wanted, the sums of `slope` over those of
// one lane, k ≤ lanes. parts (2 + lanes, gridDim.x), unused where there is one block.
template <typename T>
__device__ void add_to_totals(
    double* totals, T* bias_grad, double* parts, unsigned* ticket, double loss, double correct, double slope, int n,
    int k, int lanes) {
    constexpr int AHEAD = 16;  // parts on their way at once
    loss = block_sum(loss);
    correct = block_sum(correct);
    if (bias_grad) slope = lane_sum(slope, lanes);
    const unsigned blocks = gridDim.x, group = threadIdx.x / lanes, lane = threadIdx.x % lanes;
    if (blocks > 1) {
        double* slopes = parts + 2 * blocks;
        if (threadIdx.x == 0) {
            parts[blockIdx.x] = loss;
            parts[blocks + blockIdx.x] = correct;
        }
        if (bias_grad && threadIdx.x < k) slopes[blockIdx.x * lanes + threadIdx.x] = slope;
        if (!last_to_arrive(ticket, blocks)) return;
        loss = correct = slope = 0;
        for (unsigned block = threadIdx.x; block < blocks; block += BLOCK) {
            loss += parts[block];
            correct += parts[blocks + block];
        }
        loss = block_sum(loss);
        correct = block_sum(correct);
        if (bias_grad) {
            const unsigned end = lane < k ? blocks : 0, step = BLOCK / lanes;
            for (unsigned first = group; first < end; first += AHEAD * step) {
                double part[AHEAD];
                UNROLLED for (int a = 0; a < AHEAD; ++a)
                    part[a] = first + a * step < end ? slopes[(first + a * step) * lanes + lane] : 0;
                UNROLLED for (int a = 0; a < AHEAD; ++a) slope += part[a];
            }
            slope = lane_sum(slope, lanes);
        }
    }
    if (bias_grad && threadIdx.x < k) bias_grad[threadIdx.x] = T(slope);
    if (threadIdx.x > 0) return;
    const bool finite = loss - loss == 0;
    if (!finite && totals[FIRST_BAD] < 0) totals[FIRST_BAD] = totals[SAMPLES];
    totals[LOSS_SUM] += loss;
    totals[CORRECT] += correct;
    totals[SAMPLES] += n;
}

// Each loss is a struct: `score` is what the answer is taken from, `prepare` sums up a row where that is needed,
// `answers` says whether the row has an answer, which it has not where scores are NaN, and `element` writes one element
// of the gradient, before the scale, and returns its share of the loss.

template <typename T>
struct Softmax {
    T largest, mass;
    __device__ T score(T z) const { return z; }
    __device__ T threshold() const { return T(0); }
    __device__ void prepare(const T* z, int k, T top, int lane, int lanes) {
        largest = top;
        mass = 0;
        ROLLED for (int j = lane; j < k; j += lanes) mass += exp(z[j] - top);
        mass = group_sum(mass, lanes);
    }
    __device__ bool answers(T) const { return mass == mass; }
    __device__ T element(T z, T target, T& dz) const {
        const T below = z - largest;
        dz = exp(below) / mass - target;
        return target == T(0) ? T(0) : log(mass) - below;
    }
};

// −t log σ(z) − (1−t) log(1−σ(z)) = max(z, 0) + log(1 + e^−|z|) − t z
template <typename T>
struct Binary {
    __device__ T score(T z) const { return z; }
    __device__ T threshold() const { return T(0); }
    __device__ void prepare(const T*, int, T, int, int) {}
    __device__ bool answers(T best) const { return best == best; }
    __device__ T element(T z, T target, T& dz) const {
        dz = activated(SIGMOID, z) - target;
        const T linear = target == T(0) ? T(0) : target * z;
        return (z < T(0) ? T(0) : z) + log1p(exp(-fabs(z))) - linear;
    }
};

template <typename T>
struct Squared {
    int activation;
    __device__ T score(T z) const { return activated(activation, z); }
    __device__ T threshold() const { return T(0.5); }
    __device__ void prepare(const T*, int, T, int, int) {}
    __device__ bool answers(T best) const { return best == best; }
    __device__ T element(T z, T target, T& dz) const {
        const T y = score(z), difference = y - target;
        dz = chained(activation, y, difference);
        return T(0.5) * difference * difference;
    }
};

// What a loss is of: scores (n, k) that are there, or those of a narrow product that is computed first, by whole warps.
template <typename T>
struct Scores {
    const T* z;
    __device__ const T* of_row(i64 row, int k, int) const { return z + row * k; }
};

template <typename T, typename X>
struct Products {
    const X *x, *weight;
    const T* bias;
    int inputs;
    T* z;
    __device__ const T* of_row(i64 row, int k, int lane) const {
        scores_of_row(x + row * inputs, weight, bias, z + row * k, inputs, k, lane);
        return z + row * k;
    }
};

template <typename T, typename Loss, typename From>
__device__ void rows_of_loss(
    Loss loss, From from, const i64* labels, T scale, T* dz, double* totals, T* bias_grad, double* parts,
    unsigned* ticket, int n, int k, int lanes) {
    const int lane = threadIdx.x % lanes, rows = BLOCK / lanes;
    double sum = 0, correct = 0, column = 0;
    for (i64 first = i64(blockIdx.x) * rows; first < n; first += i64(gridDim.x) * rows) {
        const i64 row = first + threadIdx.x / lanes;
        const int end = row < n ? k : 0;  // threads beyond the last row only take part in the shuffles
        const T* scores = end ? from.of_row(row, k, lane) : nullptr;
        const i64 label = end ? labels[row] : 0;
        Best<T> best = {end ? loss.score(scores[0]) : T(0), 0};
        ROLLED for (int j = lane; j < end; j += lanes) best = better(best, Best<T>{loss.score(scores[j]), j});
        best = group_best(best, lanes);
        loss.prepare(scores, end, best.score, lane, lanes);
        ROLLED for (int j = lane; j < end; j += lanes) {
            const T target = k == 1 ? T(label) : T(j == label);
            T slope;
            sum += loss.element(scores[j], target, slope);
            dz[row * k + j] = slope *= scale;
            column += slope;
        }
        const i64 answer = k == 1 ? best.score > loss.threshold() : best.column;
        if (end && lane == 0) {
            correct += answer == label && loss.answers(best.score);
            if (label < 0 || label >= (k == 1 ? 2 : k)) sum = nan("");  // no class: nothing was read, and it shows
        }
    }
    add_to_totals(totals, bias_grad, parts, ticket, sum, correct, column, n, k, lanes);
}

// The squared error of scores (n, k) and targets (n, k), which have no answers to count.
template <typename T>
__device__ void rows_of_values(
    Squared<T> loss, const T* z, const T* targets, T scale, T* dz, double* totals, T* bias_grad, double* parts,
    unsigned* ticket, int n, int k, int lanes) {
    const int lane = threadIdx.x % lanes, rows = BLOCK / lanes;
    double sum = 0, column = 0;
    for (i64 row = i64(blockIdx.x) * rows + threadIdx.x / lanes; row < n; row += i64(gridDim.x) * rows) {
        ROLLED for (int j = lane; j < k; j += lanes) {
            T slope;
            sum += loss.element(z[row * k + j], targets[row * k + j], slope);
            dz[row * k + j] = slope *= scale;
            column += slope;
        }
    }
    add_to_totals(totals, bias_grad, parts, ticket, sum, 0, column, n, k, lanes);
}

#define VALUES(T, suffix)                                                                                             \
    KERNEL_OF_MANY_REGISTERS squared_error_of_values_##suffix(                                                        \
        int activation, const T* z, const T* targets, T scale, T* dz, double* totals, T* bias_grad, double* parts,    \
        unsigned* ticket, int n, int k, int lanes) {                                                                  \
        rows_of_values(                                                                                               \
            Squared<T>{activation}, z, targets, scale, dz, totals, bias_grad, parts, ticket, n, k, lanes);            \
    }

VALUES(float, f32)
VALUES(double, f64)

#define LOSS(T, name, suffix, loss, ...)                                                                              \
    KERNEL_OF_MANY_REGISTERS name##_##suffix(                                                                         \
        __VA_ARGS__ const T* z, const i64* labels, T scale, T* dz, double* totals, T* bias_grad, double* parts,       \
        unsigned* ticket, int n, int k, int lanes) {                                                                  \
        rows_of_loss(                                                                                                 \
            loss, Scores<T>{z}, labels, scale, dz, totals, bias_grad, parts, ticket, n, k, lanes);                    \
    }
#define AFFINE_LOSS(T, X, name, suffix, loss, ...)                                                                    \
    KERNEL_OF_MANY_REGISTERS affine_##name##_##suffix(                                                                \
        __VA_ARGS__ const X* x, const X* weight, const T* bias, int inputs, T* z, const i64* labels, T scale, T* dz,  \
        double* totals, T* bias_grad, double* parts, unsigned* ticket, int n, int k) {                                \
        rows_of_loss(                                                                                                 \
            loss, Products<T, X>{x, weight, bias, inputs, z}, labels, scale, dz, totals, bias_grad, parts, ticket, n, \
            k, WARP);                                                                                                 \
    }
#define COMMA ,
#define LOSSES(T, suffix)                                                          \
    LOSS(T, softmax_cross_entropy, suffix, Softmax<T>{}, )                         \
    LOSS(T, binary_cross_entropy, suffix, Binary<T>{}, )                           \
    LOSS(T, squared_error, suffix, Squared<T>{activation}, int activation COMMA)
#define AFFINE_LOSSES(T, X, suffix)                                                       \
    AFFINE_LOSS(T, X, softmax_cross_entropy, suffix, Softmax<T>{}, )                      \
    AFFINE_LOSS(T, X, binary_cross_entropy, suffix, Binary<T>{}, )                        \
    AFFINE_LOSS(T, X, squared_error, suffix, Squared<T>{activation}, int activation COMMA)

LOSSES(float, f32)
LOSSES(double, f64)
AFFINE_LOSSES(float, float, f32)
AFFINE_LOSSES(double, double, f64)
AFFINE_LOSSES(float, bfloat16, bf16)
