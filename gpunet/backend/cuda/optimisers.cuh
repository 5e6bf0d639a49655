// The optimisers: one pass over flat arrays. Their scalars lie on the device, so that a recorded step may be repeated.

// g + 2λw for the first `decayed` parameters, g for the others.
template <typename T, int N>
__device__ inline Pack<T, N> with_l2(
    Pack<T, N> gradient, const Pack<T, N>& params, T penalty, i64 start, i64 decayed) {
    for (int j = 0; j < N; ++j)
        if (start + j < decayed) gradient.at[j] += penalty * params.at[j];
    return gradient;
}

template <typename T>
__device__ void sgd(T* params, const T* grads, const double* scalars, i64 size, i64 decayed) {
    constexpr int N = WIDTH<T>;
    const T rate = T(scalars[LEARNING_RATE]), penalty = T(2 * scalars[L2]);
    const bool aligned = aligned_to_packs<T, N>(params) && aligned_to_packs<T, N>(grads);
    for (i64 i = thread_of_grid() * N; i < size; i += threads_of_grid() * N) {
        const int count = at_most(size - i, N);
        Pack<T, N> p = load<T, N>(params + i, count, aligned);
        const Pack<T, N> g = with_l2(load<T, N>(grads + i, count, aligned), p, penalty, i, decayed);
        for (int j = 0; j < N; ++j) p.at[j] -= rate * g.at[j];
        store(params + i, p, count, aligned);
    }
}

template <typename T>
__device__ void momentum(T* params, const T* grads, T* velocity, const double* scalars, i64 size, i64 decayed) {
    constexpr int N = WIDTH<T>;
    const T rate = T(scalars[LEARNING_RATE]), beta = T(scalars[BETA1]), penalty = T(2 * scalars[L2]);
    const bool aligned =
        aligned_to_packs<T, N>(params) && aligned_to_packs<T, N>(grads) && aligned_to_packs<T, N>(velocity);
    for (i64 i = thread_of_grid() * N; i < size; i += threads_of_grid() * N) {
        const int count = at_most(size - i, N);
        Pack<T, N> p = load<T, N>(params + i, count, aligned), v = load<T, N>(velocity + i, count, aligned);
        const Pack<T, N> g = with_l2(load<T, N>(grads + i, count, aligned), p, penalty, i, decayed);
        for (int j = 0; j < N; ++j) {
            v.at[j] = beta * v.at[j] + g.at[j];
            p.at[j] -= rate * v.at[j];
        }
        store(velocity + i, v, count, aligned);
        store(params + i, p, count, aligned);
    }
}

// η·m̂/(√v̂ + ε) = c·M/(√V + ε'), as `adam_factors` in numpy_optimisers.py
template <typename T>
struct AdamFactors {
    T beta1, beta2, rate, epsilon, penalty;
};

template <typename T>
__device__ AdamFactors<T> adam_factors(const double* scalars) {
    __shared__ double corrections[2];
    __shared__ AdamFactors<T> factors;
    const int which = threadIdx.x;
    if (which < 2) corrections[which] = 1 - pow(scalars[BETA1 + which], scalars[STEP + which]);  // both in one go
    __syncthreads();
    if (which == 0) {
        const double spread = sqrt((1 - scalars[BETA2]) / corrections[1]);
        factors.beta1 = T(scalars[BETA1]);
        factors.beta2 = T(scalars[BETA2]);
        factors.rate = T(scalars[LEARNING_RATE] * (1 - scalars[BETA1]) / (corrections[0] * spread));
        factors.epsilon = T(scalars[EPSILON] / spread);
        factors.penalty = T(2 * scalars[L2]);
    }
    __syncthreads();
    return factors;
}

template <typename T>
__device__ void adam(
    T* params, const T* grads, T* first, T* second, const double* scalars, i64 size, i64 decayed) {
    constexpr int N = WIDTH<T>;
    const AdamFactors<T> f = adam_factors<T>(scalars);
    const bool aligned = aligned_to_packs<T, N>(params) && aligned_to_packs<T, N>(grads) &&
                         aligned_to_packs<T, N>(first) && aligned_to_packs<T, N>(second);
    for (i64 i = thread_of_grid() * N; i < size; i += threads_of_grid() * N) {
        const int count = at_most(size - i, N);
        Pack<T, N> p = load<T, N>(params + i, count, aligned);
        Pack<T, N> m = load<T, N>(first + i, count, aligned), v = load<T, N>(second + i, count, aligned);
        const Pack<T, N> g = with_l2(load<T, N>(grads + i, count, aligned), p, f.penalty, i, decayed);
        for (int j = 0; j < N; ++j) {
            m.at[j] = f.beta1 * m.at[j] + g.at[j];
            v.at[j] = f.beta2 * v.at[j] + g.at[j] * g.at[j];
            p.at[j] -= f.rate * (m.at[j] / (sqrt(v.at[j]) + f.epsilon));
        }
        store(first + i, m, count, aligned);
        store(second + i, v, count, aligned);
        store(params + i, p, count, aligned);
    }
}

#define OPTIMISERS(T, suffix)                                                                                   \
    KERNEL sgd_##suffix(T* params, const T* grads, const double* scalars, i64 size, i64 decayed) {              \
        sgd(params, grads, scalars, size, decayed);                                                             \
    }                                                                                                           \
    KERNEL momentum_##suffix(                                                                                   \
        T* params, const T* grads, T* velocity, const double* scalars, i64 size, i64 decayed) {                 \
        momentum(params, grads, velocity, scalars, size, decayed);                                              \
    }                                                                                                           \
    KERNEL adam_##suffix(                                                                                       \
        T* params, const T* grads, T* first, T* second, const double* scalars, i64 size, i64 decayed) {         \
        adam(params, grads, first, second, scalars, size, decayed);                                             \
    }

OPTIMISERS(float, f32)
OPTIMISERS(double, f64)
