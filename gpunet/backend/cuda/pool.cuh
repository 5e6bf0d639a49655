// Max-pooling: planes of height × width, windows of size × size side by side, rows × columns of them.
// Blocks of (threads along a plane, planes).

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

#define POOL(T, suffix)                                                                                               \
    KERNEL maxpool_##suffix(                                                                                          \
        const T* x, T* out, u8* place, i64 planes, int height, int width, int rows, int columns, int size) {          \
        maxpool(x, out, place, planes, height, width, rows, columns, size);                                           \
    }                                                                                                                 \
    KERNEL maxpool_backward_##suffix(                                                                                 \
        const T* dy, const u8* place, T* dx, i64 planes, int height, int width, int rows, int columns, int size) {    \
        maxpool_backward(dy, place, dx, planes, height, width, rows, columns, size);                                  \
    }

POOL(float, f32)
POOL(double, f64)
