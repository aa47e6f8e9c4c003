// Work shared out among threads.
#pragma once
#include <dlfcn.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <thread>
#include <vector>

#include "simd.h"

// Subnormal numbers count as 0 while this lives: far slots' weights reach them, and some processors take a hundred
// times as long for one. Nothing else in the process notices.
class WithoutSubnormals {
#if defined(__SSE2__)
  const unsigned before_ = _mm_getcsr();

 public:
  WithoutSubnormals() { _mm_setcsr(before_ | 0x8040); }  // flush to zero, denormals are zero
  ~WithoutSubnormals() { _mm_setcsr(before_); }
#endif
};

// How to have a function called by so many threads of the process's OpenMP, which are the ones that torch computes
// with; null if there is none. Threads of one's own would have to share the processors with those, which go on spinning
// for some milliseconds after each of torch's operations: at batch 256 a training step on two of two cores took a third
// longer.
using Parallel = void (*)(void (*function)(void*), void* data, unsigned threads, unsigned flags);

inline Parallel torch_threads() {
#ifdef MEMNET_OWN_THREADS  // as if there were none, for tests
  return nullptr;
#endif
  static const Parallel found = reinterpret_cast<Parallel>(dlsym(RTLD_DEFAULT, "GOMP_parallel"));
  return found;
}

// Calls work(thread) on several threads, with a number of its own each.
template <typename Work>
void on_threads(int64_t threads, Work& work) {
  struct Team {
    Work& work;
    std::atomic<int64_t> joined{0};
    static void run(void* team) {
      Team& t = *static_cast<Team*>(team);
      t.work(t.joined++);
    }
  } team{work};
  if (threads == 1) return Team::run(&team);
  if (Parallel parallel = torch_threads()) return parallel(Team::run, &team, threads, 0);
  std::vector<std::thread> others;
  try {
    while ((int64_t)others.size() + 1 < threads) others.emplace_back(Team::run, &team);
  } catch (const std::exception&) {
    // No more threads to be had: those that there are do all the work.
  }
  Team::run(&team);
  for (std::thread& other : others) other.join();
}

// Runs task(index, thread) for all indices; a thread takes the next index when it is done with one.
template <typename Task>
void share_out(int64_t count, int64_t threads, Task task) {
  std::atomic<int64_t> next{0};
  auto work = [&](int64_t thread) {
    WithoutSubnormals scope;
    for (int64_t i = next++; i < count; i = next++) task(i, thread);
  };
  on_threads(std::max<int64_t>(1, std::min(threads, count)), work);
}
