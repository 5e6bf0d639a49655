// Convolution, computed directly: im2col would write and read nine times the images, and with the few channels and
// filters of our nets a step is bound by memory and launches. Activation and pooling are part of the same launch, and
// the maps between are never written.

constexpr int FILTERS = 8;  // outputs that a thread keeps in registers: one element of x is then used eight times
constexpr int TAPS = 256;   // taps that a block stages in shared memory at a time

struct Sizes {
    int images, channels, height, width, filters, kernel, padding, pool, rows, columns;
};

// staged[t].at[f] = the weight of tap first + t for output `output` + f, 0 where there is no such output; `count` taps.
// Tap t is (plane, row, column) of the filter; by_output and by_plane are the weights' strides.
template <typename T>
__device__ inline void stage(
    Pack<T, FILTERS>* staged, const T* weight, int first, int count, int output, int outputs, int area, i64 by_output,
    i64 by_plane) {
    __syncthreads();  // nobody may still be reading the taps before these
    for (int i = threadIdx.x; i < count * FILTERS; i += BLOCK) {
        const int tap = first + i / FILTERS, own = output + i % FILTERS;
        staged[i / FILTERS].at[i % FILTERS] =
            own < outputs ? weight[own * by_output + tap / area * by_plane + tap % area] : T(0);
    }
    __syncthreads();
}

// z[cell][f] += Σ over taps of read(cell, plane, row, column) · weight
template <typename T, int CELLS, typename Read>
__device__ inline void accumulate(
    T (&z)[CELLS][FILTERS], Pack<T, FILTERS>* staged, const T* weight, int planes, int kernel, int output, int outputs,
    i64 by_output, i64 by_plane, bool active, Read read) {
    const int area = kernel * kernel, taps = planes * area;
    int plane = 0, row = 0, column = 0;
    for (int first = 0; first < taps; first += TAPS) {
        const int count = min(TAPS, taps - first);
        stage(staged, weight, first, count, output, outputs, area, by_output, by_plane);
        for (int tap = 0; tap < count && active; ++tap) {
            const Pack<T, FILTERS> weights = staged[tap];
            for (int cell = 0; cell < CELLS; ++cell) {
                const T value = read(cell, plane, row, column);
                for (int f = 0; f < FILTERS; ++f) z[cell][f] += value * weights.at[f];
            }
            if (++column < kernel) continue;
            column = 0;
            if (++row < kernel) continue;
            row = 0;
            ++plane;
        }
    }
}

// One thread: one position of the output, FILTERS filters, the cells of its pool CELLS at a time.
// Blocks: x over positions of all images, y over groups of filters.
template <typename T, int CELLS>
__device__ void conv(
    Pack<T, FILTERS>* staged, const T* x, const T* weight, const T* bias, int activation, T* out, u8* place, Sizes s) {
    const i64 area = i64(s.rows) * s.columns, position = thread_of_grid();
    const bool active = position < s.images * area;
    const i64 image = active ? position / area : 0, inside = active ? position % area : 0;
    const int top = int(inside / s.columns) * s.pool - s.padding, left = int(inside % s.columns) * s.pool - s.padding;
    const int output = blockIdx.y * FILTERS, pixels = s.height * s.width;
    const T* pixel = x + image * s.channels * pixels;  // one image has less than 2³¹ elements
    T best[FILTERS];
    int where[FILTERS];
    for (int start = 0; start < s.pool * s.pool; start += CELLS) {
        T z[CELLS][FILTERS];
        for (int cell = 0; cell < CELLS; ++cell)
            for (int f = 0; f < FILTERS; ++f) z[cell][f] = bias && output + f < s.filters ? bias[output + f] : T(0);
        int down[CELLS], right[CELLS];
        for (int cell = 0; cell < CELLS; ++cell) {
            down[cell] = top + (start + cell) / s.pool;
            right[cell] = left + (start + cell) % s.pool;
        }
        const auto read = [&](int cell, int plane, int row, int column) {
            const int r = down[cell] + row, c = right[cell] + column;
            const bool image_has_it = r >= 0 && r < s.height && c >= 0 && c < s.width;
            return image_has_it ? pixel[plane * pixels + r * s.width + c] : T(0);
        };
        const int taps_of_plane = s.kernel * s.kernel;
        accumulate(z, staged, weight, s.channels, s.kernel, output, s.filters, i64(s.channels) * taps_of_plane,
                   taps_of_plane, active, read);
        for (int cell = 0; cell < CELLS; ++cell)
            for (int f = 0; f < FILTERS; ++f)
                if (start + cell == 0 || z[cell][f] > best[f] || z[cell][f] != z[cell][f]) {
                    best[f] = z[cell][f];
                    where[f] = start + cell;
                }
    }
    if (!active) return;
    for (int f = 0; f < FILTERS && output + f < s.filters; ++f) {
        const i64 to = (image * s.filters + output + f) * area + inside;
        out[to] = activated(activation, best[f]);
        if (place) place[to] = u8(where[f]);
    }
}

#define CONV(T, suffix)                                                                                               \
    KERNEL conv_##suffix(                                                                                             \
        const T* x, const T* weight, const T* bias, int activation, T* out, u8* place, int images, int channels,      \
        int height, int width, int filters, int kernel, int padding, int pool, int rows, int columns) {               \
        const Sizes s{images, channels, height, width, filters, kernel, padding, pool, rows, columns};                \
        __shared__ Pack<T, FILTERS> staged[TAPS];                                                                     \
        if (pool % 2 == 0)                                                                                            \
            conv<T, 4>(staged, x, weight, bias, activation, out, place, s);                                           \
        else                                                                                                          \
            conv<T, 1>(staged, x, weight, bias, activation, out, place, s);                                           \
    }

CONV(float, f32)
CONV(double, f64)
