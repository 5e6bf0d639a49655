// CUDA's words for g++, so that kernels run on the CPU: one block after the other, its threads as fibers.
//
// A thread runs until it has to wait for others, at a barrier or a shuffle; a kernel that never waits costs no switch.
// Threads and blocks start and go on in an order that the caller chooses: a kernel whose result depends on it has a
// race, or lacks a barrier. What a thread waits for is checked, too: threads of a block that wait at different lines,
// or for threads that have ended, are errors, and so is a block that counts itself (atomicInc) before each of its threads
// has passed a fence. Blocks do not overlap: memory order on real hardware is not found here.
#pragma once

#include <math.h>
#include <stdint.h>
#include <string.h>

#include <algorithm>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace host {

struct Index {
    unsigned x, y, z;
};

extern Index thread_index, block_index, block_size, grid_size;

void wait_for_block(int line);                            // all threads of the block
void wait_for_warp(int line, unsigned lanes, int phase);  // those of the own warp that `lanes` names
unsigned char* slot_of_lane(int lane, int phase);         // where a lane of the own warp leaves what it shuffles
int own_lane();
int next_phase();
void fenced();                // this thread's writes show to other blocks
void check_fenced(int line);  // fails unless those of all threads of the block do

template <typename T>
T shuffle(unsigned lanes, T value, int from, int line) {
    const int phase = next_phase();
    memcpy(slot_of_lane(own_lane(), phase), &value, sizeof value);
    wait_for_warp(line, lanes, phase);
    memcpy(&value, slot_of_lane(from, phase), sizeof value);
    return value;
}

}  // namespace host

#define __global__
#define __device__
#define __launch_bounds__(...)
#define __shared__ static __attribute__((section("gpu_shared")))

#define threadIdx host::thread_index
#define blockIdx host::block_index
#define blockDim host::block_size
#define gridDim host::grid_size

inline unsigned __float_as_uint(float x) {
    unsigned bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}
inline float __uint_as_float(unsigned bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

using std::max;
using std::min;

inline void __syncthreads(int line = __builtin_LINE()) { host::wait_for_block(line); }
inline void __threadfence() { host::fenced(); }
inline void __syncwarp(unsigned lanes = 0xffffffffu, int line = __builtin_LINE()) {
    host::shuffle(lanes, 0, host::own_lane(), line);
}

template <typename T>
T __shfl_xor_sync(unsigned lanes, T value, int mask, int line = __builtin_LINE()) {
    return host::shuffle(lanes, value, host::own_lane() ^ mask, line);
}

inline unsigned atomicInc(unsigned* address, unsigned limit, int line = __builtin_LINE()) {
    host::check_fenced(line);
    const unsigned old = *address;
    *address = old >= limit ? 0 : old + 1;
    return old;
}
