// Batch normalisation: statistics of each channel, what they make of x, and the gradients. All sums are in double, of
// differences from the mean. Elements are x (images, channels, area); a row of features has an area of 1.
//
// Blocks: x over channels; within a block x over channels and y over the channel's elements, which lie side by side
// where there is an area (then a block has one channel), or else in the neighbouring threads' channels.

// The elements of one channel, from number `start` on, `step` apart.
struct Walk {
    int image, position, images_of_step, rest, channel, channels, area;
    __device__ Walk(int start, int step, int channel, int channels, int area)
        : image(start / area), position(start % area), images_of_step(step / area), rest(step % area),
          channel(channel), channels(channels), area(area) {}
    __device__ i64 place() const { return (i64(image) * channels + channel) * area + position; }
    __device__ void next() {
        image += images_of_step;
        position += rest;
        if (position < area) return;
        position -= area;
        ++image;
    }
};

// Two sums over threadIdx.y, for all threads of a channel.
__device__ inline Pack<double, 2> sums_of_channel(Pack<double, 2> sums) {
    __shared__ Pack<double, 2> room[BLOCK];
    __shared__ Pack<double, 2> found[WARP];
    sums = column_sum(sums, room);
    __syncthreads();  // nobody may still be reading those of an earlier call
    if (threadIdx.y == 0) found[threadIdx.x] = sums;
    __syncthreads();
    return found[threadIdx.x];
}

template <typename T>
__device__ void batch_statistics(
    const T* x, int of_batch, double momentum, double epsilon, T* running_mean, T* running_var, double* statistics,
    int images, int channels, int area) {
    const int channel = blockIdx.x * blockDim.x + threadIdx.x, end = channel < channels ? images : 0;
    const double count = double(images) * area;
    double mean = 0, variance = 0;
    if (of_batch) {
        const double near = end ? double(x[i64(channel) * area]) : 0;  // a shift to one of the numbers keeps digits
        Pack<double, 2> sums = {};
        for (Walk w(threadIdx.y, blockDim.y, channel, channels, area); w.image < end; w.next()) {
            const double apart = double(x[w.place()]) - near;
            sums.at[0] += apart;
            sums.at[1] += apart * apart;
        }
        sums = sums_of_channel(sums);
        const double off = sums.at[0] / count;
        mean = near + off;
        variance = sums.at[1] / count - off * off;
        if (variance < 0) variance = 0;  // by rounding; NaN stays
    }
    if (threadIdx.y != 0 || channel >= channels) return;
    if (of_batch) {
        const double unbiased = variance * (count / max(count - 1, 1.0));
        running_mean[channel] = T(double(running_mean[channel]) + momentum * (mean - double(running_mean[channel])));
        running_var[channel] = T(double(running_var[channel]) + momentum * (unbiased - double(running_var[channel])));
    } else {
        mean = double(running_mean[channel]);
        variance = double(running_var[channel]);
    }
    statistics[channel] = mean;
    statistics[channels + channel] = 1 / sqrt(variance + epsilon);
}

// Blocks also: y over shares of a channel's elements.
template <typename T>
__device__ void normalise(
    const T* x, const double* statistics, const T* weight, const T* bias, T* out, int images, int channels, int area) {
    const int channel = blockIdx.x * blockDim.x + threadIdx.x;
    if (channel >= channels) return;
    const double mean = statistics[channel], slope = statistics[channels + channel] * double(weight[channel]);
    const double shift = double(bias[channel]);
    Walk w(blockIdx.y * blockDim.y + threadIdx.y, gridDim.y * blockDim.y, channel, channels, area);
    for (; w.image < images; w.next()) out[w.place()] = T((double(x[w.place()]) - mean) * slope + shift);
}

template <typename T>
__device__ void normalise_backward(
    const T* x, const double* statistics, const T* weight, const T* dy, int of_batch, T* weight_grad, T* bias_grad,
    T* dx, int images, int channels, int area) {
    const int channel = blockIdx.x * blockDim.x + threadIdx.x, end = channel < channels ? images : 0;
    const double mean = end ? statistics[channel] : 0, scale = end ? statistics[channels + channel] : 0;
    Pack<double, 2> sums = {};
    for (Walk w(threadIdx.y, blockDim.y, channel, channels, area); w.image < end; w.next()) {
        const double slope = double(dy[w.place()]);
        sums.at[0] += slope;
        sums.at[1] += slope * ((double(x[w.place()]) - mean) * scale);
    }
    sums = sums_of_channel(sums);
    if (threadIdx.y == 0 && channel < channels && weight_grad) {
        bias_grad[channel] = T(sums.at[0]);
        weight_grad[channel] = T(sums.at[1]);
    }
    if (!dx) return;
    const double count = double(images) * area, factor = end ? scale * double(weight[channel]) : 0;
    const double level = of_batch ? sums.at[0] / count : 0, tilt = of_batch ? sums.at[1] / count : 0;
    for (Walk w(threadIdx.y, blockDim.y, channel, channels, area); w.image < end; w.next()) {
        const double unit = (double(x[w.place()]) - mean) * scale;
        dx[w.place()] = T(factor * (double(dy[w.place()]) - level - tilt * unit));
    }
}

#define BATCH_NORM(T, suffix)                                                                                        \
    KERNEL batch_statistics_##suffix(                                                                                \
        const T* x, int of_batch, double momentum, double epsilon, T* running_mean, T* running_var,                  \
        double* statistics, int images, int channels, int area) {                                                    \
        batch_statistics(                                                                                            \
            x, of_batch, momentum, epsilon, running_mean, running_var, statistics, images, channels, area);          \
    }                                                                                                                \
    KERNEL normalise_##suffix(                                                                                       \
        const T* x, const double* statistics, const T* weight, const T* bias, T* out, int images, int channels,      \
        int area) {                                                                                                  \
        normalise(x, statistics, weight, bias, out, images, channels, area);                                         \
    }                                                                                                                \
    KERNEL normalise_backward_##suffix(                                                                              \
        const T* x, const double* statistics, const T* weight, const T* dy, int of_batch, T* weight_grad,            \
        T* bias_grad, T* dx, int images, int channels, int area) {                                                   \
        normalise_backward(                                                                                          \
            x, statistics, weight, dy, of_batch, weight_grad, bias_grad, dx, images, channels, area);                \
    }

BATCH_NORM(float, f32)
BATCH_NORM(double, f64)
