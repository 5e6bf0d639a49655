// Blocks one after the other, and which of a block's threads goes on when.
#pragma once

#include <signal.h>

#include "fibers.h"

// The linker names the ends of the section where all shared memory lies.
extern unsigned char __start_gpu_shared[] __attribute__((weak));
extern unsigned char __stop_gpu_shared[] __attribute__((weak));

namespace host {

enum Order { FORWARD, REVERSED, SHUFFLED };

constexpr int WARP_SIZE = 32, LARGEST = 16;

struct Shuffled {
    unsigned char values[2][WARP_SIZE][LARGEST];
};

struct Scheduler : Fibers {
    std::vector<Shuffled> warps;
    std::vector<char> fenced;
    int order = FORWARD;
    uint64_t random = 0;

    uint64_t draw() {  // splitmix64
        uint64_t z = (random += 0x9e3779b97f4a7c15ull);
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
        return z ^ (z >> 31);
    }

    template <typename T>
    void arrange(std::vector<T>& items) {
        if (order == REVERSED) std::reverse(items.begin(), items.end());
        if (order == SHUFFLED)
            for (size_t i = items.size(); i > 1; --i) std::swap(items[i - 1], items[draw() % i]);
    }

    // An access to memory that is none ends the launch, not the process.
    static void caught(int, siginfo_t* info, void*);

    // Let the lanes that thread `first` shuffles with go on where all of them have come; gives those it waits for.
    unsigned release_shuffle(int first) {
        const Thread own = threads[first];
        const int warp = first - first % WARP_SIZE;
        bool complete = true;
        for (int lane = 0; lane < WARP_SIZE; ++lane) {
            if (!(own.lanes >> lane & 1)) continue;
            if (warp + lane >= int(threads.size()) || threads[warp + lane].state == ENDED) {
                fail("a shuffle in line " + std::to_string(own.line) + " waits for a lane that has ended");
                return own.lanes;
            }
            const Thread& peer = threads[warp + lane];
            complete &= peer.state == AT_SHUFFLE && peer.line == own.line && peer.phase == own.phase;
        }
        for (int lane = 0; lane < WARP_SIZE && complete; ++lane)
            if (own.lanes >> lane & 1) threads[warp + lane].state = READY;
        return own.lanes;
    }

    void release_shuffles(int warp) {
        unsigned seen = 0;
        for (int lane = 0; lane < WARP_SIZE && warp * WARP_SIZE + lane < int(threads.size()); ++lane)
            if (threads[warp * WARP_SIZE + lane].state == AT_SHUFFLE && !(seen >> lane & 1))
                seen |= release_shuffle(warp * WARP_SIZE + lane);
    }

    // Let the whole block go on; false when it has ended, or when somebody will never come.
    bool release_barrier() {
        size_t ended = 0;
        for (const Thread& thread : threads) ended += thread.state == ENDED;
        if (ended == threads.size() || !error.empty()) return false;
        for (Thread& thread : threads) {
            if (thread.state != AT_BARRIER || thread.line != threads[0].line) {
                fail("threads of a block wait at different places, one of them in line " +
                     std::to_string(std::max(thread.line, threads[0].line)) + " of the source");
                return false;
            }
        }
        for (Thread& thread : threads) thread.state = READY;
        return true;
    }

    void queue_ready(int warp) {
        for (int i = warp * WARP_SIZE; i < std::min((warp + 1) * WARP_SIZE, int(threads.size())); ++i)
            if (threads[i].state == READY) queue.push_back(i);
    }

    // Who goes on: forward, whoever can, so that warps keep pace; otherwise one warp as far as it gets, or one at
    // random, so that it overtakes the others wherever no barrier stops it.
    void choose() {
        const int count = int(warps.size());
        std::vector<int> able;
        queue.clear();
        for (int warp = 0; warp < count; ++warp) {
            release_shuffles(warp);
            const size_t before = queue.size();
            queue_ready(warp);
            if (queue.size() > before) able.push_back(warp);
        }
        if (order == FORWARD || able.empty()) return;
        queue.clear();
        queue_ready(order == REVERSED ? able.back() : able[draw() % able.size()]);
    }

    void run_block() {
        const int count = int(block_size.x * block_size.y * block_size.z);
        memset(__start_gpu_shared, 0xff, __stop_gpu_shared - __start_gpu_shared);  // NaN: nobody clears it on a GPU
        threads.assign(count, Thread{READY, 0, 0, -1, 0});
        fenced.assign(count, 0);
        warps.assign((count + WARP_SIZE - 1) / WARP_SIZE, Shuffled{});
        do {
            for (choose(); !queue.empty() && error.empty(); choose()) {
                arrange(queue);
                run_queue();
            }
        } while (release_barrier());
        if (!error.empty()) end_fibers();
    }

    void run(
        void (*kernel)(void*), void* with, const unsigned* grid, const unsigned* block, int in_order, uint64_t seed) {
        body = kernel;
        arguments = with;
        order = in_order;
        random = seed;
        error.clear();
        grid_size = {grid[0], grid[1], grid[2]};
        block_size = {block[0], block[1], block[2]};
        std::vector<Index> blocks;
        for (unsigned z = 0; z < grid[2]; ++z)
            for (unsigned y = 0; y < grid[1]; ++y)
                for (unsigned x = 0; x < grid[0]; ++x) blocks.push_back({x, y, z});
        arrange(blocks);
        struct sigaction handler = {}, before;
        handler.sa_sigaction = caught;
        handler.sa_flags = SA_SIGINFO | SA_NODEFER;
        sigaction(SIGSEGV, &handler, &before);
        for (const Index& index : blocks) {
            block_index = index;
            if (error.empty()) run_block();
        }
        sigaction(SIGSEGV, &before, nullptr);
    }
};

Scheduler scheduler;

void Scheduler::caught(int, siginfo_t*, void*) {
    scheduler.faulted = true;
    _longjmp(scheduler.home, 1);
}

void wait_for_block(int line) { scheduler.wait(AT_BARRIER, line, 0, scheduler.threads[scheduler.current].phase); }

void wait_for_warp(int line, unsigned lanes, int phase) { scheduler.wait(AT_SHUFFLE, line, lanes, phase); }

// Two sets of slots take turns: the other one is still being read by lanes that have not gone on.
unsigned char* slot_of_lane(int lane, int phase) {
    return scheduler.warps[scheduler.current / WARP_SIZE].values[phase % 2][lane];
}

int own_lane() { return scheduler.current % WARP_SIZE; }

void fenced() { scheduler.fenced[scheduler.current] = 1; }

void check_fenced(int line) {
    for (char each : scheduler.fenced)
        if (!each)
            return scheduler.fail(
                "a block counts itself in line " + std::to_string(line) + " before the writes of all its threads show");
}

int next_phase() { return ++scheduler.threads[scheduler.current].phase; }

}  // namespace host
