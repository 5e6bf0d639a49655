// What the kernels share: packs of 16 bytes, activations, sums over a block, and the block that arrives last.

typedef long long i64;
typedef unsigned char u8;

constexpr int BLOCK = 256;  // threads of every block but those that count
constexpr int WARP = 32;
constexpr int NARROW = 16;  // outputs of a product that takes no kernel of its own
constexpr double LEAK = 0.01;  // slope of LEAKY_RELU below zero
constexpr unsigned EVERY_LANE = 0xffffffffu;

#define UNROLLED _Pragma("unroll")  // so that an array that a loop goes through stays in registers
#define ROLLED _Pragma("unroll 1")  // of a loop that seldom goes round twice: code that has to be fetched takes time
#define KERNEL extern "C" __global__ void __launch_bounds__(BLOCK)
#define KERNEL_OF_MANY_REGISTERS extern "C" __global__ void __launch_bounds__(BLOCK, 2)  // up to 128 a thread

// Codes and places as in cupy_backend.py and base.py.
enum Activation { IDENTITY, RELU, SIGMOID, TANH, LEAKY_RELU };
enum Scalar { LEARNING_RATE, BETA1, BETA2, EPSILON, L2, STEP, SECOND_STEP, ADAM_RATE, ADAM_EPSILON, N_SCALARS };
enum Total { LOSS_SUM, CORRECT, SAMPLES, FIRST_BAD };

// -- packs: several elements in one load or store ------------------------------------------------------------------

template <typename T>
constexpr int WIDTH = 16 / sizeof(T);

template <typename T, int N>
struct alignas(N * sizeof(T)) Pack {
    T at[N];
};

template <typename T, int N>
__device__ inline bool aligned_to_packs(const T* start) {
    return reinterpret_cast<unsigned long long>(start) % sizeof(Pack<T, N>) == 0;
}

template <typename T, int N>
__device__ inline Pack<T, N> load(const T* from, int count, bool aligned) {
    if (aligned && count >= N) return *reinterpret_cast<const Pack<T, N>*>(from);
    Pack<T, N> pack;
    for (int j = 0; j < N; ++j) pack.at[j] = j < count ? from[j] : T{};
    return pack;
}

template <typename T, int N>
__device__ inline void store(T* to, const Pack<T, N>& pack, int count, bool aligned) {
    if (aligned && count >= N) {
        *reinterpret_cast<Pack<T, N>*>(to) = pack;
        return;
    }
    for (int j = 0; j < N; ++j)
        if (j < count) to[j] = pack.at[j];
}

__device__ inline int at_most(i64 count, int bound) { return count < bound ? int(count) : bound; }
__device__ inline i64 thread_of_grid() { return i64(blockIdx.x) * blockDim.x + threadIdx.x; }
__device__ inline i64 threads_of_grid() { return i64(gridDim.x) * blockDim.x; }

// -- activations ---------------------------------------------------------------------------------------------------

template <typename T>
__device__ inline T activated(int activation, T z) {
    if (activation == RELU) return z < T(0) ? T(0) : z;
    if (activation == SIGMOID) return T(1) / (T(1) + exp(-z));
    if (activation == TANH) return tanh(z);
    if (activation == LEAKY_RELU) return z > T(0) ? z : T(LEAK) * z;
    return z;
}

// dy · f'(z), from y = f(z)
template <typename T>
__device__ inline T chained(int activation, T y, T dy) {
    if (activation == RELU) return y > T(0) ? dy : T(0);
    if (activation == SIGMOID) return dy * (y * (T(1) - y));
    if (activation == TANH) return dy * (T(1) - y * y);
    if (activation == LEAKY_RELU) return y > T(0) ? dy : T(LEAK) * dy;
    return dy;
}

// -- sums ----------------------------------------------------------------------------------------------------------

// Sum over groups of `lanes` neighbouring threads (a power of two up to 32); every thread gets its group's.
template <typename T>
__device__ inline T group_sum(T value, int lanes) {
    for (int distance = lanes / 2; distance > 0; distance /= 2) value += __shfl_xor_sync(EVERY_LANE, value, distance);
    return value;
}

// Sum over the threads of a one-dimensional block; every thread gets it.
__device__ inline double block_sum(double value) {
    __shared__ double of_warp[BLOCK / WARP];
    value = group_sum(value, WARP);
    __syncthreads();  // nobody may still be reading the sums of an earlier call
    if (threadIdx.x % WARP == 0) of_warp[threadIdx.x / WARP] = value;
    __syncthreads();
    double total = 0;
    for (int warp = 0; warp < BLOCK / WARP; ++warp) total += of_warp[warp];
    return total;
}

// Sum over threadIdx.y, a power of two; the threads of the first row get it. `room` holds one pack a thread.
template <typename T, int N>
__device__ inline Pack<T, N> column_sum(Pack<T, N> value, Pack<T, N>* room) {
    const int own = threadIdx.y * blockDim.x + threadIdx.x;
    __syncthreads();  // nobody may still be reading the sums of an earlier call
    room[own] = value;
    for (int rows = blockDim.y / 2; rows > 0; rows /= 2) {
        __syncthreads();
        if (threadIdx.y >= rows) continue;
        const Pack<T, N>& other = room[own + rows * blockDim.x];
        for (int j = 0; j < N; ++j) value.at[j] += other.at[j];
        room[own] = value;
    }
    return value;
}

// Whether this is the last of `count` blocks to come here: it then sees what the others wrote before they came.
// The ticket is 0 before and after: atomicInc wraps around.
__device__ inline bool last_to_arrive(unsigned* ticket, unsigned count) {
    __shared__ bool last;
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0 && threadIdx.y == 0) last = atomicInc(ticket, count - 1) == count - 1;
    __syncthreads();
    __threadfence();
    return last;
}
