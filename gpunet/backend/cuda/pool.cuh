// Pooling: planes of height × width, windows of size × size, rows × columns of them: maxima of windows side by side,
// averages of windows `stride` apart. Blocks of (threads along a plane, planes).

template <typename T>
__device__ void maxpool(
    const T* x, T* out, u8* place, i64 planes, int height, int width, int rows, int columns, int size) {
    const int area = rows * columns;
    for (i64 plane = i64(blockIdx.x) * blockDim.y + threadIdx.y; plane < planes; plane += i64(gridDim.x) * blockDim.y) {
        const T* from = x + plane * height * width;
        for (int i = threadIdx.x; i < area; i += blockDim.x) {
            const T* corner = from + i64(i / columns) * size * width + i % columns * size;
            T best = corner[0];
            int where = 0;
            for (int row = 0; row < size; ++row)
                for (int column = 0; column < size; ++column) {
                    const T value = corner[i64(row) * width + column];
                    if (value > best || value != value) {
                        best = value;
                        where = row * size + column;
                    }
                }
            out[plane * area + i] = best;
            if (place) place[plane * area + i] = u8(where);
        }
    }
}

// Every element of dx looks up whether its window's maximum stood there: no zeros to be filled in before.
template <typename T>
__device__ void maxpool_backward(
    const T* dy, const u8* place, T* dx, i64 planes, int height, int width, int rows, int columns, int size) {
    const int area = height * width;
    for (i64 plane = i64(blockIdx.x) * blockDim.y + threadIdx.y; plane < planes; plane += i64(gridDim.x) * blockDim.y) {
        for (int i = threadIdx.x; i < area; i += blockDim.x) {
            const int y = i / width, x = i % width, row = y / size, column = x / size;
            T slope = 0;
            if (row < rows && column < columns) {
                const i64 window = (plane * rows + row) * columns + column;
                if (place[window] == (y - row * size) * size + x - column * size) slope = dy[window];
            }
            dx[plane * area + i] = slope;
        }
    }
}

template <typename T>
__device__ void avgpool(
    const T* x, T* out, i64 planes, int height, int width, int rows, int columns, int size, int stride) {
    const int area = rows * columns;
    for (i64 plane = i64(blockIdx.x) * blockDim.y + threadIdx.y; plane < planes; plane += i64(gridDim.x) * blockDim.y) {
        const T* from = x + plane * height * width;
        for (int i = threadIdx.x; i < area; i += blockDim.x) {
            const T* corner = from + i64(i / columns) * stride * width + i % columns * stride;
            T sum = 0;
            for (int row = 0; row < size; ++row)
                for (int column = 0; column < size; ++column) sum += corner[i64(row) * width + column];
            out[plane * area + i] = sum * T(1.0 / (double(size) * size));
        }
    }
}

// Every element of dx adds up its windows: those that begin after place − size, and no later than there.
template <typename T>
__device__ void avgpool_backward(
    const T* dy, T* dx, i64 planes, int height, int width, int rows, int columns, int size, int stride) {
    const int area = height * width;
    for (i64 plane = i64(blockIdx.x) * blockDim.y + threadIdx.y; plane < planes; plane += i64(gridDim.x) * blockDim.y) {
        const T* slopes = dy + plane * rows * columns;
        for (int i = threadIdx.x; i < area; i += blockDim.x) {
            const int y = i / width, x = i % width;
            const int top = y < size ? 0 : (y - size) / stride + 1, left = x < size ? 0 : (x - size) / stride + 1;
            T sum = 0;
            for (int row = top; row < rows && row * stride <= y; ++row)
                for (int column = left; column < columns && column * stride <= x; ++column)
                    sum += slopes[row * columns + column];
            dx[plane * area + i] = sum * T(1.0 / (double(size) * size));
        }
    }
}

#define POOL(T, suffix)                                                                                               \
    KERNEL maxpool_##suffix(                                                                                          \
        const T* x, T* out, u8* place, i64 planes, int height, int width, int rows, int columns, int size) {          \
        maxpool(x, out, place, planes, height, width, rows, columns, size);                                           \
    }                                                                                                                 \
    KERNEL maxpool_backward_##suffix(                                                                                 \
        const T* dy, const u8* place, T* dx, i64 planes, int height, int width, int rows, int columns, int size) {    \
        maxpool_backward(dy, place, dx, planes, height, width, rows, columns, size);                                  \
    }                                                                                                                 \
    KERNEL avgpool_##suffix(                                                                                          \
        const T* x, T* out, i64 planes, int height, int width, int rows, int columns, int size, int stride) {         \
        avgpool(x, out, planes, height, width, rows, columns, size, stride);                                          \
    }                                                                                                                 \
    KERNEL avgpool_backward_##suffix(                                                                                 \
        const T* dy, T* dx, i64 planes, int height, int width, int rows, int columns, int size, int stride) {         \
        avgpool_backward(dy, dx, planes, height, width, rows, columns, size, stride);                                 \
    }

POOL(float, f32)
POOL(double, f64)
