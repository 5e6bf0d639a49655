// Convolution with averages over large windows, by products: with thousands of filters the direct way has too few
// registers for reuse. The columns of a block of images, their product with a block of filters, then f and the averages.

// columns (images · rows · columns, channels · kernel²); one thread an element, the taps of a position side by side.
template <typename T>
__device__ void im2col(const T* x, T* out, Sizes s) {
    const int taps_of_plane = s.kernel * s.kernel, taps = s.channels * taps_of_plane;
    const i64 area = i64(s.rows) * s.columns, total = s.images * area * taps;
    for (i64 i = thread_of_grid(); i < total; i += threads_of_grid()) {
        const i64 position = i / taps, image = position / area, inside = position % area;
        const int tap = int(i % taps), channel = tap / taps_of_plane, cell = tap % taps_of_plane;
        const int row = int(inside / s.columns) + cell / s.kernel - s.padding;
        const int column = int(inside % s.columns) + cell % s.kernel - s.padding;
        const bool image_has_it = row >= 0 && row < s.height && column >= 0 && column < s.width;
        out[i] = image_has_it ? x[((image * s.channels + channel) * s.height + row) * s.width + column] : T(0);
    }
}

// maps (images · rows · columns, filters) -> out (images, outputs, high · wide), outputs from `first` on; one thread a
// window of a filter, filters side by side.
template <typename T>
__device__ void average_maps(
    const T* maps, const T* bias, int activation, T* out, int images, int rows, int columns, int filters, int outputs,
    int first, int size, int stride, int high, int wide) {
    const i64 windows = i64(high) * wide, total = images * windows * filters;
    for (i64 i = thread_of_grid(); i < total; i += threads_of_grid()) {
        const int f = int(i % filters);
        const i64 window = i / filters % windows, image = i / filters / windows;
        const i64 corner = (image * rows + window / wide * stride) * columns + window % wide * stride;
        const T* from = maps + corner * filters + f;
        const T shift = bias ? bias[first + f] : T(0);
        T sum = 0;
        for (int row = 0; row < size; ++row)
            for (int column = 0; column < size; ++column)
                sum += activated(activation, from[(i64(row) * columns + column) * filters] + shift);
        out[(image * outputs + first + f) * windows + window] = sum * T(1.0 / (double(size) * size));
    }
}

#define CONV_AVERAGE(T, suffix)                                                                                        \
    KERNEL im2col_##suffix(const T* x, T* out, CONV_SIZES) {                                                           \
        im2col(x, out, Sizes{images, channels, height, width, filters, kernel, padding, pool, rows, columns});         \
    }                                                                                                                  \
    KERNEL average_maps_##suffix(                                                                                      \
        const T* maps, const T* bias, int activation, T* out, int images, int rows, int columns, int filters,          \
        int outputs, int first, int size, int stride, int high, int wide) {                                            \
        average_maps(maps, bias, activation, out, images, rows, columns, filters, outputs, first, size, stride, high,  \
                     wide);                                                                                            \
    }

CONV_AVERAGE(float, f32)
CONV_AVERAGE(double, f64)
