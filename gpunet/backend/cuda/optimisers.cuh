// The optimisers: one pass over flat arrays. Their scalars lie on the device, so that a recorded step may be repeated.
// The new parameters, of float32, are written to `rounded` in bfloat16 too, unless that is null.

template <typename T, int N>
__device__ inline void store_both(T* to, bfloat16* rounded, const Pack<T, N>& params, i64 at, int count, bool aligned) {
    store(to + at, params, count, aligned);
    if constexpr (sizeof(T) == sizeof(float))
        if (rounded) store(rounded + at, params, count, aligned && aligned_to_packs<bfloat16, N>(rounded));
}

// g + 2λw for the first `decayed` parameters, g for the others.
template <typename T, int N>
__device__ inline Pack<T, N> with_l2(
    Pack<T, N> gradient, const Pack<T, N>& params, T penalty, i64 start, i64 decayed) {
    for (int j = 0; j < N; ++j)
        if (start + j < decayed) gradient.at[j] += penalty * params.at[j];
    return gradient;
}

template <typename T>
__device__ void sgd(T* params, const T* grads, bfloat16* rounded, const double* scalars, i64 size, i64 decayed) {
    constexpr int N = WIDTH<T>;
    const T rate = T(scalars[LEARNING_RATE]), penalty = T(2 * scalars[L2]);
    const bool aligned = aligned_to_packs<T, N>(params) && aligned_to_packs<T, N>(grads);
    for (i64 i = thread_of_grid() * N; i < size; i += threads_of_grid() * N) {
        const int count = at_most(size - i, N);
        Pack<T, N> p = load<T, N>(params + i, count, aligned);
        const Pack<T, N> g = with_l2(load<T, N>(grads + i, count, aligned), p, penalty, i, decayed);
        for (int j = 0; j < N; ++j) p.at[j] -= rate * g.at[j];
        store_both(params, rounded, p, i, count, aligned);
    }
}

template <typename T>
__device__ void momentum(
    T* params, const T* grads, T* velocity, bfloat16* rounded, const double* scalars, i64 size, i64 decayed) {
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
        store_both(params, rounded, p, i, count, aligned);
    }
}

template <typename T>
constexpr T SMALLEST = 2.2250738585072014e-308;  // normal number
template <>
constexpr float SMALLEST<float> = 1.17549435e-38f;  // not a cast of the other: newer compilers refuse what is too small

// DECOUPLED: AdamW, whose decay is no part of the gradient.
template <bool DECOUPLED, typename T>
__device__ void adam(
    T* params, const T* grads, T* first, T* second, bfloat16* rounded, const double* scalars, i64 size, i64 decayed) {
    constexpr int N = WIDTH<T>;
    const T rate = T(scalars[ADAM_RATE]), penalty = DECOUPLED ? T(0) : T(2 * scalars[L2]);
    const T kept = T(1 - scalars[LEARNING_RATE] * scalars[L2]);
    const T epsilon = max(T(scalars[ADAM_EPSILON]), SMALLEST<T>);  // a denormal ε would be 0 here: 0/0 without a gradient
    const T beta1 = T(scalars[BETA1]), beta2 = T(scalars[BETA2]);
    const bool aligned = aligned_to_packs<T, N>(params) && aligned_to_packs<T, N>(grads) &&
                         aligned_to_packs<T, N>(first) && aligned_to_packs<T, N>(second);
    for (i64 i = thread_of_grid() * N; i < size; i += threads_of_grid() * N) {
        const int count = at_most(size - i, N);
        Pack<T, N> p = load<T, N>(params + i, count, aligned);
        Pack<T, N> m = load<T, N>(first + i, count, aligned), v = load<T, N>(second + i, count, aligned);
        const i64 under_l2 = DECOUPLED ? 0 : decayed;
        const Pack<T, N> g = with_l2(load<T, N>(grads + i, count, aligned), p, penalty, i, under_l2);
        for (int j = 0; j < N; ++j) {
            if (DECOUPLED && i + j < decayed) p.at[j] *= kept;
            m.at[j] = beta1 * m.at[j] + g.at[j];
            v.at[j] = beta2 * v.at[j] + g.at[j] * g.at[j];
            p.at[j] -= rate * (m.at[j] / (sqrt(v.at[j]) + epsilon));
        }
        store(first + i, m, count, aligned);
        store(second + i, v, count, aligned);
        store_both(params, rounded, p, i, count, aligned);
    }
}

#define OPTIMISERS(T, suffix)                                                                                         \
    KERNEL sgd_##suffix(                                                                                              \
        T* params, const T* grads, bfloat16* rounded, const double* scalars, i64 size, i64 decayed) {                 \
        sgd(params, grads, rounded, scalars, size, decayed);                                                          \
    }                                                                                                                 \
    KERNEL momentum_##suffix(                                                                                         \
        T* params, const T* grads, T* velocity, bfloat16* rounded, const double* scalars, i64 size, i64 decayed) {    \
        momentum(params, grads, velocity, rounded, scalars, size, decayed);                                           \
    }                                                                                                                 \
    KERNEL adam_##suffix(                                                                                             \
        T* params, const T* grads, T* first, T* second, bfloat16* rounded, const double* scalars, i64 size,           \
        i64 decayed) {                                                                                                \
        adam<false>(params, grads, first, second, rounded, scalars, size, decayed);                                   \
    }                                                                                                                 \
    KERNEL adamw_##suffix(                                                                                            \
        T* params, const T* grads, T* first, T* second, bfloat16* rounded, const double* scalars, i64 size,           \
        i64 decayed) {                                                                                                \
        adam<true>(params, grads, first, second, rounded, scalars, size, decayed);                                    \
    }

OPTIMISERS(float, f32)
OPTIMISERS(double, f64)
