// Gradients of the convolution, from dz in the shape of its pooled output and the places of the maxima.

// dx: one thread, one pixel, FILTERS channels of it. Each tap of each filter hands back its dz where the filter, laid
// so that this tap covers the pixel, stood on a position whose value went through the pool. POOL 0: any size.
template <typename T, int POOL>
__device__ void conv_inputs(
    Pack<T, FILTERS>* staged, const T* dz, const u8* place, const T* weight, T* dx, const Sizes& s) {
    const i64 pixels = i64(s.height) * s.width, position = thread_of_grid();
    const bool active = position < s.images * pixels;
    const i64 image = active ? position / pixels : 0, inside = active ? position % pixels : 0;
    const int bottom = int(inside / s.width) + s.padding, right = int(inside % s.width) + s.padding;
    const int channel = blockIdx.y * FILTERS, taps_of_plane = s.kernel * s.kernel, pool = POOL ? POOL : s.pool;
    const int area = s.rows * s.columns;
    const T* slopes = dz + image * s.filters * area;
    const u8* places = place + image * s.filters * area;
    const auto read = [&](int, int filter, int row, int column) {
        const int r = bottom - row, c = right - column;
        if (r < 0 || c < 0) return T(0);
        const int window_row = r / pool, window_column = c / pool;
        if (window_row >= s.rows || window_column >= s.columns) return T(0);
        const int window = filter * area + window_row * s.columns + window_column;
        if (POOL == 1) return slopes[window];
        const int cell = (r - window_row * pool) * pool + c - window_column * pool;
        return places[window] == cell ? slopes[window] : T(0);
    };
    T sums[1][FILTERS] = {};
    accumulate(sums, staged, weight, s.filters, s.kernel, channel, s.channels, taps_of_plane,
               i64(s.channels) * taps_of_plane, active, read);
    if (!active) return;
    for (int f = 0; f < FILTERS && channel + f < s.channels; ++f)
        dx[(image * s.channels + channel + f) * pixels + inside] = sums[0][f];
}

// A position of the output that takes part in the filters' gradients: its dz, and the corner of the patch it saw.
template <typename T>
struct Seen {
    T slope;
    int row, column;
    i64 image;
};

// Gradients of filter blockIdx.y. Blocks: x over taps, the last of which is the bias (a pixel that is always 1), z over
// shares of the images; within a block y over positions. parts (gridDim.z, filters, taps + 1), tickets one a block of
// x and y, both unused where gridDim.z is 1.
template <typename T>
__device__ void conv_filters(
    const T* x, const T* dz, const u8* place, T* weight_grad, T* bias_grad, T* parts, unsigned* tickets,
    const Sizes& s) {
    __shared__ Seen<T> seen[BLOCK];
    __shared__ Pack<T, 1> room[BLOCK];
    const int taps_of_plane = s.kernel * s.kernel, taps = s.channels * taps_of_plane, filter = blockIdx.y;
    const int tap = blockIdx.x * blockDim.x + threadIdx.x, thread = threadIdx.y * blockDim.x + threadIdx.x;
    const int row = tap % taps_of_plane / s.kernel, column = tap % s.kernel, pixels = s.height * s.width;
    const int plane = tap / taps_of_plane * pixels;
    const int area = s.rows * s.columns, share = (s.images + gridDim.z - 1) / gridDim.z;
    const i64 end = i64(min(int(blockIdx.z + 1) * share, s.images)) * area;
    Pack<T, 1> sum = {};
    for (i64 first = i64(blockIdx.z) * share * area; first < end; first += BLOCK) {
        const int count = at_most(end - first, BLOCK);
        __syncthreads();
        if (thread < count) {
            const i64 image = (first + thread) / area;
            const int inside = int((first + thread) % area);
            const i64 from = (image * s.filters + filter) * area + inside;
            const int cell = place ? place[from] : 0;
            seen[thread].slope = dz[from];
            seen[thread].row = inside / s.columns * s.pool + cell / s.pool - s.padding;
            seen[thread].column = inside % s.columns * s.pool + cell % s.pool - s.padding;
            seen[thread].image = image * s.channels * pixels;
        }
        __syncthreads();
        for (int i = threadIdx.y; i < count && tap <= taps; i += blockDim.y) {
            const int r = seen[i].row + row, c = seen[i].column + column;
            const bool image_has_it = r >= 0 && r < s.height && c >= 0 && c < s.width;
            T pixel = T(tap == taps);
            if (tap < taps && image_has_it) pixel = x[seen[i].image + plane + r * s.width + c];
            sum.at[0] += seen[i].slope * pixel;
        }
    }
    sum = column_sum(sum, room);
    const bool mine = threadIdx.y == 0 && tap <= taps;
    if (gridDim.z > 1) {
        const i64 stride = i64(s.filters) * (taps + 1), own = i64(filter) * (taps + 1) + tap;
        if (mine) parts[blockIdx.z * stride + own] = sum.at[0];
        if (!last_to_arrive(&tickets[filter * gridDim.x + blockIdx.x], gridDim.z)) return;
        sum.at[0] = 0;
        for (int part = threadIdx.y; part < gridDim.z && tap <= taps; part += blockDim.y)
            sum.at[0] += parts[part * stride + own];
        sum = column_sum(sum, room);
    }
    if (!mine) return;
    if (tap == taps)
        bias_grad[filter] = sum.at[0];
    else
        weight_grad[i64(filter) * taps + tap] = sum.at[0];
}

#define CONV_SIZES                                                                                                  \
    int images, int channels, int height, int width, int filters, int kernel, int padding, int pool, int rows,      \
        int columns
#define CONV_BACKWARD(T, suffix)                                                                                    \
    KERNEL conv_inputs_##suffix(const T* dz, const u8* place, const T* weight, T* dx, CONV_SIZES) {                 \
        const Sizes s{images, channels, height, width, filters, kernel, padding, pool, rows, columns};              \
        __shared__ Pack<T, FILTERS> staged[TAPS];                                                                   \
        if (pool == 1)                                                                                              \
            conv_inputs<T, 1>(staged, dz, place, weight, dx, s);                                                    \
        else if (pool == 2)                                                                                         \
            conv_inputs<T, 2>(staged, dz, place, weight, dx, s);                                                    \
        else                                                                                                        \
            conv_inputs<T, 0>(staged, dz, place, weight, dx, s);                                                    \
    }                                                                                                               \
    KERNEL conv_filters_##suffix(                                                                                   \
        const T* x, const T* dz, const u8* place, T* weight_grad, T* bias_grad, T* parts, unsigned* tickets,        \
        CONV_SIZES) {                                                                                               \
        const Sizes s{images, channels, height, width, filters, kernel, padding, pool, rows, columns};              \
        conv_filters(x, dz, place, weight_grad, bias_grad, parts, tickets, s);                                      \
    }

CONV_BACKWARD(float, f32)
CONV_BACKWARD(double, f64)
