// Work shared out among threads.
#pragma once
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

// Runs task(index, thread) for all indices; a thread takes the next index when it is done with one.
template <typename Task>
void share_out(int64_t count, int64_t threads, Task task) {
  std::atomic<int64_t> next{0};
  auto work = [&](int64_t thread) {
    WithoutSubnormals scope;
    for (int64_t i = next++; i < count; i = next++) task(i, thread);
  };
  std::vector<std::thread> others;
  try {
    for (int64_t t = 1; t < std::min(threads, count); ++t) others.emplace_back(work, t);
  } catch (const std::exception&) {
    // No more threads to be had: those that there are do all the work.
  }
  work(0);
  for (std::thread& other : others) other.join();
}
