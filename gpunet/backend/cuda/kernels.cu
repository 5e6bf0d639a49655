// The GPU's operations. What each means stands in base.py, its NumPy twin in numpy_backend.py.
//
// Rules that all kernels keep:
// - No sum depends on the order in which threads run: no atomics on floats, and block counts follow from the arrays'
//   shapes alone. The same arrays give the same bits on every run and on every GPU.
// - A kernel writes every element of its outputs, and reads and writes nothing beyond them.
// - NaN survives, since a NaN loss is how divergence is noticed.
// - A sum over many blocks is finished by the block that arrives last, which saves a launch.
//
// The file is compiled by NVRTC through CuPy, where no standard header is at hand, by nvcc in the tests, and by g++
// behind tests/cuda/host/shim.h. cupy_backend.py puts the included files in their places.
#include "common.cuh"
#include "bfloat16.cuh"
#include "elementwise.cuh"
#include "dropout.cuh"
#include "gather.cuh"
#include "narrow.cuh"
#include "losses.cuh"
#include "optimisers.cuh"
#include "pool.cuh"
#include "conv.cuh"
#include "conv_backward.cuh"
#include "conv_average.cuh"
#include "batchnorm.cuh"
#include "gelu.cuh"
