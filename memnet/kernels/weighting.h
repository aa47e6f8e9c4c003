// Passes over weightings, one number for each slot: lanes beyond the last slot hold zeros.
#pragma once
#include "cell_layout.h"

template <typename Body>
static INLINE void for_blocks(const Cell& p, Body body) {
  const int64_t whole = p.slots / LANES * LANES;
  const ivec every = ivec{} - 1;
  for (int64_t n = 0; n < whole; n += LANES) body(n, every);
  if (whole < p.slots) body(whole, lanes_below(p.slots - whole));
}
static INLINE vec only(ivec lanes, vec x) { return (vec)((ivec)x & lanes); }

// to[n] = exp(score_of(n) - bound); returns 1 / their sum. The bound only has to be near the highest score: a guess of
// the caller's nearly always is, and the highest score itself is looked for only when it is not.
template <typename Score>
static INLINE float softmax(const Cell& p, float guess, float* to, Score score_of) {
  auto exponentials = [&](float bound) {
    vec total = {};
    for_blocks(p, [&](int64_t n, ivec lanes) {
      vec e = only(lanes, exponential(score_of(n) - bound));
      store(to + n, e);
      total += e;
    });
    return sum(total);
  };
  const float total = exponentials(guess);
  // Far from where float32 ends. NaN takes the other way, and stays NaN.
  if (total > 1e-20f && total < 1e20f) return 1.0f / total;
  const vec lowest = splat(-__builtin_inff());
  vec top = lowest;
  for_blocks(p, [&](int64_t n, ivec lanes) { top = max_of(lanes ? score_of(n) : lowest, top); });
  return 1.0f / exponentials(highest(top));
}
