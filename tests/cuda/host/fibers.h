// Threads of one block as fibers: each runs until it waits or ends.
#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <memory>

#include "shim.h"

namespace host {

Index thread_index, block_index, block_size, grid_size;

enum State { READY, AT_BARRIER, AT_SHUFFLE, ENDED };

constexpr int STACK = 1 << 16;

struct Fiber {
    ucontext_t start;
    jmp_buf place;
    std::unique_ptr<char[]> stack{new char[STACK]};
};

struct Thread {
    State state;
    int line, phase, fiber;  // fiber: the one that it waits on
    unsigned lanes;
};

// Fibers take threads of the queue that have not started; one whose thread must wait is kept for it. What was made once
// by makecontext is switched by _setjmp and _longjmp, which need no system call.
struct Fibers {
    std::vector<Thread> threads;
    std::vector<std::unique_ptr<Fiber>> fibers;
    std::vector<int> idle, queue;
    std::string error;
    void (*body)(void*) = nullptr;
    void* arguments = nullptr;
    jmp_buf home;
    size_t next = 0;
    int current = -1, fiber = -1;
    volatile bool faulted = false;

    void fail(const std::string& what) {
        if (error.empty()) error = what;
    }

    void become(int thread) {
        current = thread;
        const unsigned t = thread;
        thread_index = {t % block_size.x, t / block_size.x % block_size.y, t / (block_size.x * block_size.y)};
    }

    // A fiber's life: threads of the queue that have not started, one after the other.
    void live() {
        for (;;) {
            while (next < queue.size() && threads[queue[next]].fiber < 0) {
                become(queue[next++]);
                body(arguments);
                threads[current].state = ENDED;
            }
            idle.push_back(fiber);
            pause();
        }
    }

    static void enter(unsigned low, unsigned high) {
        reinterpret_cast<Fibers*>(uintptr_t(low) | uintptr_t(high) << 32)->live();
    }

    void pause() {
        if (_setjmp(fibers[fiber]->place) == 0) _longjmp(home, 1);
    }

    void wait(State state, int line, unsigned lanes, int phase) {
        threads[current] = {state, line, phase, fiber, lanes};
        const int own = current;
        pause();
        become(own);
        threads[own].fiber = -1;
    }

    void go_on(int with) {
        if (_setjmp(home) != 0) return;
        fiber = with;
        _longjmp(fibers[with]->place, 1);
    }

    void start_fiber() {
        if (!idle.empty()) {
            const int found = idle.back();
            idle.pop_back();
            go_on(found);
            return;
        }
        fibers.emplace_back(new Fiber);
        fiber = int(fibers.size()) - 1;
        Fiber& made = *fibers.back();
        if (_setjmp(home) != 0) return;
        getcontext(&made.start);
        made.start.uc_stack.ss_sp = made.stack.get();
        made.start.uc_stack.ss_size = STACK;
        made.start.uc_link = nullptr;
        const uintptr_t self = reinterpret_cast<uintptr_t>(this);
        makecontext(&made.start, reinterpret_cast<void (*)()>(enter), 2, unsigned(self), unsigned(self >> 32));
        setcontext(&made.start);
    }

    void end_fibers() {  // those that wait can never end
        fibers.clear();
        idle.clear();
    }

    // Every thread of the queue runs until it waits or ends.
    void run_queue() {
        next = 0;
        while (next < queue.size()) {
            const Thread& first = threads[queue[next]];
            if (first.fiber < 0)
                start_fiber();
            else
                go_on(threads[queue[next++]].fiber);
            if (faulted) {
                faulted = false;
                next = queue.size();
                fail("thread " + std::to_string(current) + " of a block went outside of all arrays");
            }
        }
    }
};

}  // namespace host
