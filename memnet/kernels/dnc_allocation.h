// Where there is room: the slots by usage, what is allocated of them, and what the free gates leave (DNC, "Dynamic
// memory allocation").
#pragma once
#include "dnc_layout.h"
#include "weighting.h"

// order[k] is the slot with the k-th smallest usage; of equals the lower slot comes first, and NaN comes last. `keys`
// is scratch of one weighting.
//
// A slot's place is the number of those before it, counted for LANES slots at once: that is slots^2 comparisons, few
// beside the link's passes, without a branch.
static void sort_slots(const Problem& p, const float* usage, int32_t* order, int32_t* keys) {
  const int32_t highest = 0x7ffffffe;
  for (int64_t n = 0; n < p.lanes(); ++n) {
    // As integers, numbers are in order but for the negative ones, whose other bits are turned round. -0 becomes 0.
    const float u = usage[n] + 0.0f;
    int32_t bits;
    std::memcpy(&bits, &u, sizeof bits);
    bits = bits < 0 ? bits ^ 0x7fffffff : bits;
    keys[n] = u == u && n < p.slots ? bits : highest;
  }
  for (int64_t n = 0; n < p.slots; n += LANES) {
    ivec own, place = {};
    std::memcpy(&own, keys + n, sizeof own);
    const ivec or_equal = own + 1;
    for (int64_t j = 0; j < n; ++j) place -= keys[j] - ivec{} < or_equal;
    for (int64_t j = 0; j < LANES; ++j) place -= keys[n + j] - ivec{} < (lanes_below(j + 1) ? own : or_equal);
    for (int64_t j = n + LANES; j < p.lanes(); ++j) place -= keys[j] - ivec{} < own;
    for (int64_t i = 0; i < LANES && n + i < p.slots; ++i) order[place[i]] = n + i;
  }
}

static INLINE float within_unit(float x) { return x < 0.0f ? 0.0f : x > 1.0f ? 1.0f : x; }

// a[phi_k] = (1 - u[phi_k]) prod_{i < k} u[phi_i] with the slots phi in order.
static void allocate(const Problem& p, const float* usage, const int32_t* order, float* allocated) {
  float before = 1.0f;
  for (int64_t k = 0; k < p.slots; ++k) {
    const float used = within_unit(usage[order[k]]);
    allocated[order[k]] = before * (1.0f - used);
    before *= used;
  }
  std::fill(allocated + p.slots, allocated + p.lanes(), 0.0f);
}

// Backwards, for a fixed order; d_usage is added to. Sums of products take the place of the division by a usage, which
// may be 0: later = sum_{m > k} d_m (1 - u_m) prod_{k < i < m} u_i. `products` is scratch of one weighting.
static void allocation_gradient(const Problem& p, const float* usage, const int32_t* order, const float* d_allocated,
                                float* d_usage, float* products) {
  float before = 1.0f;
  for (int64_t k = 0; k < p.slots; ++k) {
    products[k] = before;
    before *= within_unit(usage[order[k]]);
  }
  float later = 0.0f;
  for (int64_t k = p.slots - 1; k >= 0; --k) {
    const float used = within_unit(usage[order[k]]), d = d_allocated[order[k]];
    d_usage[order[k]] += products[k] * (later - d);
    later = d * (1.0f - used) + used * later;
  }
}

// a + w (b - a), from the end that is nearer: where b is 1 and w a weight, no rounding leads beyond.
static INLINE vec between(vec a, vec b, vec w) { return w < 0.5f ? a + w * (b - a) : b - (b - a) * (1.0f - w); }
static INLINE vec not_negative(vec x) { return x < 0.0f ? vec{} : x; }

// u + w - u w.
static void use(const Problem& p, const float* usage, const float* written, float* after) {
  for (int64_t n = 0; n < p.lanes(); n += LANES)
    store(after + n, only(lanes_below(p.slots - n), between(load(usage + n), splat(1.0f), load(written + n))));
}

// prod_h (1 - c_h w_h) over weightings w (head, slot); c may be null and is 1 then.
static void left_over(const Problem& p, int64_t heads, const float* gates, const float* weights, float* product) {
  for (int64_t n = 0; n < p.lanes(); n += LANES) {
    vec x = splat(1.0f);
    for (int64_t h = 0; h < heads; ++h) {
      const vec w = load(weights + h * p.lanes() + n);
      x *= not_negative(1.0f - (gates ? gates[h] * w : w));
    }
    store(product + n, x);
  }
}

// Backwards: d_weights is added to, and so is d_gates where there are any.
static void left_over_gradient(const Problem& p, int64_t heads, const float* gates, const float* weights,
                               const float* d_product, float* d_weights, float* d_gates) {
  for (int64_t h = 0; h < heads; ++h) {
    const float gate = gates ? gates[h] : 1.0f;
    vec d_gate = {};
    for_blocks(p, [&](int64_t n, ivec lanes) {
      vec others = load(d_product + n);
      for (int64_t k = 0; k < heads; ++k)
        if (k != h) others *= not_negative(1.0f - (gates ? gates[k] : 1.0f) * load(weights + k * p.lanes() + n));
      const vec w = load(weights + h * p.lanes() + n);
      const vec d = 1.0f - gate * w < 0.0f ? vec{} : -others;
      float* d_weight = d_weights + h * p.lanes() + n;
      store(d_weight, load(d_weight) + only(lanes, gate * d));
      d_gate += only(lanes, d * w);
    });
    if (gates) d_gates[h] += sum(d_gate);
  }
}
