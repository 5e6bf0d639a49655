// GELU, x Φ(x), and its slope, Φ(x) + x φ(x); with tanh in place of Φ where asked.

constexpr double ROOT_HALF = 0.70710678118654752440;     // √½
constexpr double DENSITY = 0.39894228040143267794;       // 1/√(2π)
constexpr double STEEP = 0.79788456080286535588;         // √(2/π)
constexpr double CUBIC = 0.044715;
constexpr double GELU_END = 40;                          // from there on Φ is 0 or 1 and φ is 0, in float64

template <typename T>
__device__ inline T clipped(T x) {  // NaN stays
    return x < T(-GELU_END) ? T(-GELU_END) : x > T(GELU_END) ? T(GELU_END) : x;
}

template <typename T>
__device__ inline T gelu(bool by_tanh, T x) {
    if (!by_tanh) return x * (T(0.5) * erfc(-x * T(ROOT_HALF)));
    const T c = clipped(x);
    return x * (T(0.5) + T(0.5) * tanh(T(STEEP) * (c + T(CUBIC) * c * c * c)));
}

template <typename T>
__device__ inline T gelu_slope(bool by_tanh, T x) {
    const T c = clipped(x);
    if (!by_tanh) return T(0.5) * erfc(-x * T(ROOT_HALF)) + c * T(DENSITY) * exp(T(-0.5) * c * c);
    const T t = tanh(T(STEEP) * (c + T(CUBIC) * c * c * c));
    return T(0.5) + T(0.5) * t + T(0.5) * c * (T(1) - t * t) * (T(STEEP) * (T(1) + T(3 * CUBIC) * c * c));
}

#define GELU(T, suffix)                                                                                           \
    KERNEL gelu_##suffix(const T* x, T* out, int by_tanh, i64 size) {                                             \
        for (i64 i = thread_of_grid(); i < size; i += threads_of_grid()) out[i] = gelu<T>(by_tanh, x[i]);         \
    }                                                                                                             \
    KERNEL gelu_backward_##suffix(const T* x, const T* dy, T* dx, int by_tanh, i64 size) {                        \
        for (i64 i = thread_of_grid(); i < size; i += threads_of_grid()) dx[i] = dy[i] * gelu_slope<T>(by_tanh, x[i]); \
    }

GELU(float, f32)
GELU(double, f64)
