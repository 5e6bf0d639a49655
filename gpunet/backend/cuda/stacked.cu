// Many small nets trained side by side, a block each: document 003's nets, see stacked.py and stacked_cuda.py.
//
// A net stays with its block for as many steps as one launch makes: its weights, activations and deltas lie in shared
// memory, or where they are too many in the global memory that `room` gives it. Threads share the samples, for which
// the forward pass and the recursion backwards need nobody else, and then the weights, whose gradients they sum over
// the samples in order: so the same net gives the same bits in any company and on any GPU.
//
// Compiled by NVRTC through CuPy, by nvcc and by g++ behind tests/cuda/host/shim.h in the tests.

typedef long long i64;

constexpr int THREADS = 256;  // of a block, at most
constexpr int SHARED_BYTES = 16384;  // of a block, so that a dozen blocks fit a multiprocessor
constexpr int LAYERS = 16;

#define KERNEL extern "C" __global__ void __launch_bounds__(THREADS)

// Where a net's layers lie: `sizes` are its inputs, hidden units and outputs, layers + 1 in all. In shared memory,
// since what is indexed by a layer has no place in registers.
struct Shape {
    int layers, samples, units, parameters;
    int size[LAYERS + 1], unit[LAYERS + 1], weight[LAYERS + 1];  // unit, weight: where a layer's begin

    __device__ void fill(const int* sizes, int n_layers, int n_samples) {
        layers = n_layers, samples = n_samples, units = parameters = 0;
        size[0] = sizes[0];
        for (int l = 1; l <= layers; ++l) {
            size[l] = sizes[l];
            unit[l] = units;
            weight[l] = parameters;
            units += sizes[l];
            parameters += sizes[l] * sizes[l - 1];
        }
    }
};

// One net: its data, and what a step works in. Rows are units, samples lie side by side.
template <typename T>
struct Net {
    const Shape& shape;
    T* weights;
    T* outputs;
    T* deltas;
    const T* x;
    const T* targets;

    __device__ const T* below(int layer) const {  // the inputs of a layer
        return layer == 1 ? x : outputs + shape.unit[layer - 1] * shape.samples;
    }

    // Y = σ(W Z) layer by layer, σ(z) = ½ tanh(z/2) + ½; y − t of the sample.
    __device__ T forward(int s) const {
        for (int l = 1; l <= shape.layers; ++l) {
            const T* z = below(l);
            const T* w = weights + shape.weight[l];
            T* y = outputs + shape.unit[l] * shape.samples;
            for (int o = 0; o < shape.size[l]; ++o, w += shape.size[l - 1]) {
                T sum = 0;
                for (int i = 0; i < shape.size[l - 1]; ++i) sum += T(0.5) * w[i] * z[i * shape.samples + s];
                y[o * shape.samples + s] = T(0.5) * tanh(sum) + T(0.5);
            }
        }
        return outputs[shape.unit[shape.layers] * shape.samples + s] - targets[s];
    }

    // Equation 5: ∂L/∂Ỹ = ∂L/∂Y ∘ y(1 − y), ∂L/∂Z = Wᵀ ∂L/∂Ỹ.
    __device__ void backward(int s, T difference) const {
        for (int l = shape.layers; l >= 1; --l)
            for (int o = 0; o < shape.size[l]; ++o) {
                const int place = (shape.unit[l] + o) * shape.samples + s;
                T slope = difference;
                if (l < shape.layers) {
                    const T* w = weights + shape.weight[l + 1] + o;
                    const T* above = deltas + shape.unit[l + 1] * shape.samples + s;
                    slope = 0;
                    for (int j = 0; j < shape.size[l + 1]; ++j)
                        slope += w[j * shape.size[l]] * above[j * shape.samples];
                }
                deltas[place] = slope * outputs[place] * (1 - outputs[place]);
            }
    }

    // W −= rate · ∂L/∂Ỹ Zᵀ, for one weight.
    __device__ void descend(int place, T rate) const {
        int l = 1;
        while (l < shape.layers && place >= shape.weight[l + 1]) ++l;
        const int o = (place - shape.weight[l]) / shape.size[l - 1], i = (place - shape.weight[l]) % shape.size[l - 1];
        const T* delta = deltas + (shape.unit[l] + o) * shape.samples;
        const T* z = below(l) + i * shape.samples;
        T sum = 0;
        for (int s = 0; s < shape.samples; ++s) sum += delta[s] * z[s];
        weights[place] -= rate * sum;
    }
};

// The block's net, in shared memory or in its part of `room`; its weights still lie in `weights`.
template <typename T>
__device__ Net<T> placed(
    const Shape& shape, T* weights, T* shared, T* room, int in_shared, const T* x, const T* targets, int own_data) {
    const i64 net = blockIdx.x, work = i64(shape.units) * shape.samples, data = own_data ? net : 0;
    T* start = in_shared ? shared : room + net * 2 * work;
    T* own = in_shared ? start + 2 * work : weights + net * shape.parameters;
    return {shape, own, start, start + work, x + data * shape.size[0] * shape.samples, targets + data * shape.samples};
}

// Up to `steps` updates of every net that is on its way (stopped < 0); it stops before the update at which every
// sample's (y − t)² is below `bound`, and `stopped` says how many it had made, `first` before this launch.
template <typename T>
__device__ void train(
    T* weights, const T* x, const T* targets, int own_data, const int* sizes, int layers, int samples, T rate, T bound,
    i64 first, i64 steps, i64* stopped, T* room, int in_shared) {
    __shared__ double shared[SHARED_BYTES / sizeof(double)];
    __shared__ int above[2];  // whether a sample's loss is not below the bound; of this step and the next
    if (stopped[blockIdx.x] >= 0) return;
    __shared__ Shape shape;
    if (threadIdx.x == 0) shape.fill(sizes, layers, samples);
    __syncthreads();
    T* kept = weights + i64(blockIdx.x) * shape.parameters;
    const Net<T> net = placed(shape, weights, reinterpret_cast<T*>(shared), room, in_shared, x, targets, own_data);
    const int me = threadIdx.x, threads = blockDim.x;
    if (in_shared)
        for (int p = me; p < shape.parameters; p += threads) net.weights[p] = kept[p];
    if (me < 2) above[me] = 0;
    __syncthreads();
    i64 step = 0;
    for (; step < steps; ++step) {
        for (int s = me; s < samples; s += threads) {
            const T difference = net.forward(s);
            if (!(difference * difference < bound)) above[step % 2] = 1;  // NaN is not below either
            net.backward(s, difference);
        }
        __syncthreads();
        if (!above[step % 2]) break;
        if (me == 0) above[(step + 1) % 2] = 0;
        for (int p = me; p < shape.parameters; p += threads) net.descend(p, rate);
        __syncthreads();
    }
    if (in_shared)
        for (int p = me; p < shape.parameters; p += threads) kept[p] = net.weights[p];
    if (me == 0 && step < steps) stopped[blockIdx.x] = first + step;
}

// report (nets, 4): mean and largest ½(y − t)² over the samples, the share on the right side of ½, and `stopped`.
template <typename T>
__device__ void look(
    T* weights, const T* x, const T* targets, int own_data, const int* sizes, int layers, int samples,
    const i64* stopped, T* room, int in_shared, double* report) {
    __shared__ double shared[SHARED_BYTES / sizeof(double)];
    __shared__ Shape shape;
    if (threadIdx.x == 0) shape.fill(sizes, layers, samples);
    __syncthreads();
    T* kept = weights + i64(blockIdx.x) * shape.parameters;
    const Net<T> net = placed(shape, weights, reinterpret_cast<T*>(shared), room, in_shared, x, targets, own_data);
    const int me = threadIdx.x, threads = blockDim.x;
    if (in_shared)
        for (int p = me; p < shape.parameters; p += threads) net.weights[p] = kept[p];
    __syncthreads();
    for (int s = me; s < samples; s += threads) {
        const T difference = net.forward(s);
        net.deltas[s] = difference * difference;
    }
    __syncthreads();
    if (me > 0) return;
    const T* y = net.outputs + shape.unit[shape.layers] * samples;
    double sum = 0, right = 0;
    T largest = 0;
    for (int s = 0; s < samples; ++s) {
        sum += net.deltas[s];
        if (net.deltas[s] > largest || net.deltas[s] != net.deltas[s]) largest = net.deltas[s];  // NaN stays
        right += (y[s] > T(0.5)) == (net.targets[s] > T(0.5));
    }
    double* own = report + 4 * i64(blockIdx.x);
    own[0] = 0.5 * sum / samples;
    own[1] = T(0.5) * largest;
    own[2] = right / samples;
    own[3] = double(stopped[blockIdx.x]);
}

#define STACKED(T, suffix)                                                                                         \
    KERNEL stacked_train_##suffix(                                                                                 \
        T* weights, const T* x, const T* targets, int own_data, const int* sizes, int layers, int samples, T rate, \
        T bound, i64 first, i64 steps, i64* stopped, T* room, int in_shared) {                                     \
        train(weights, x, targets, own_data, sizes, layers, samples, rate, bound, first, steps, stopped, room,     \
              in_shared);                                                                                          \
    }                                                                                                              \
    KERNEL stacked_look_##suffix(                                                                                  \
        T* weights, const T* x, const T* targets, int own_data, const int* sizes, int layers, int samples,         \
        const i64* stopped, T* room, int in_shared, double* report) {                                              \
        look(weights, x, targets, own_data, sizes, layers, samples, stopped, room, in_shared, report);             \
    }

STACKED(float, f32)
STACKED(double, f64)
