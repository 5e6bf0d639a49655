// Losses: value, gradient and count of correct answers in one launch. A row is read by `lanes` neighbouring threads, a
// power of two that fits the number of outputs; the rows' sums are kept in float64.

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

// totals += the sums over all threads of the grid. parts (2, gridDim.x), unused where there is one block.
__device__ inline void add_to_totals(
    double* totals, double* parts, unsigned* ticket, double loss, double correct, int n) {
    loss = block_sum(loss);
    correct = block_sum(correct);
    const unsigned blocks = gridDim.x;
    if (blocks > 1) {
        if (threadIdx.x == 0) {
            parts[blockIdx.x] = loss;
            parts[blocks + blockIdx.x] = correct;
        }
        if (!last_to_arrive(ticket, blocks)) return;
        loss = correct = 0;
        for (unsigned block = threadIdx.x; block < blocks; block += BLOCK) {
            loss += parts[block];
            correct += parts[blocks + block];
        }
        loss = block_sum(loss);
        correct = block_sum(correct);
    }
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
        for (int j = lane; j < k; j += lanes) mass += exp(z[j] - top);
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

template <typename T, typename Loss>
__device__ void rows_of_loss(
    Loss loss, const T* z, const i64* labels, T scale, T* dz, double* totals, double* parts, unsigned* ticket, int n,
    int k, int lanes) {
    const int lane = threadIdx.x % lanes, rows = BLOCK / lanes;
    double sum = 0, correct = 0;
    for (i64 first = i64(blockIdx.x) * rows; first < n; first += i64(gridDim.x) * rows) {
        const i64 row = first + threadIdx.x / lanes;
        const int end = row < n ? k : 0;  // threads beyond the last row only take part in the shuffles
        const T* scores = z + row * k;
        const i64 label = end ? labels[row] : 0;
        Best<T> best = {end ? loss.score(scores[0]) : T(0), 0};
        for (int j = lane; j < end; j += lanes) best = better(best, Best<T>{loss.score(scores[j]), j});
        best = group_best(best, lanes);
        loss.prepare(scores, end, best.score, lane, lanes);
        for (int j = lane; j < end; j += lanes) {
            const T target = k == 1 ? T(label) : T(j == label);
            T slope;
            sum += loss.element(scores[j], target, slope);
            dz[row * k + j] = slope * scale;
        }
        const i64 answer = k == 1 ? best.score > loss.threshold() : best.column;
        if (end && lane == 0) {
            correct += answer == label && loss.answers(best.score);
            if (label < 0 || label >= (k == 1 ? 2 : k)) sum = nan("");  // no class: nothing was read, and it shows
        }
    }
    add_to_totals(totals, parts, ticket, sum, correct, n);
}

#define LOSS(T, name, suffix, loss, ...)                                                                              \
    KERNEL name##_##suffix(                                                                                           \
        __VA_ARGS__ const T* z, const i64* labels, T scale, T* dz, double* totals, double* parts, unsigned* ticket,   \
        int n, int k, int lanes) {                                                                                    \
        rows_of_loss(loss, z, labels, scale, dz, totals, parts, ticket, n, k, lanes);                                 \
    }
#define COMMA ,
#define LOSSES(T, suffix)                                                          \
    LOSS(T, softmax_cross_entropy, suffix, Softmax<T>{}, )                         \
    LOSS(T, binary_cross_entropy, suffix, Binary<T>{}, )                           \
    LOSS(T, squared_error, suffix, Squared<T>{activation}, int activation COMMA)

LOSSES(float, f32)
LOSSES(double, f64)
