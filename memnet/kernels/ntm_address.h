// What the controller emits, made into a weighting: the activations of the interface and location addressing, forwards
// and backwards (Graves, Wayne and Danihelka 2014, equations 5 to 9).
#pragma once
#include "cell_forward.h"
#include "ntm_layout.h"
#include "weighting.h"

// The interface as the Linear gives it -> key through tanh, strength through softplus, gate through sigmoid, shift
// through softmax, sharpening through 1 + softplus; erase through sigmoid, add through tanh.
static void activate_interface(const Problem& p, const float* raw, float* active, HeadScalars* scalars) {
  for (int64_t h = 0; h < p.heads(); ++h) {
    const float* x = raw + h * p.emission();
    float* y = active + h * p.emission();
    vec norm = {};
    apply(p.width, x, y, [&](vec part) {
      vec key = hyperbolic_tangent(part);
      norm += key * key;
      return key;
    });
    x += p.width;
    y += p.width;
    vec three = {x[0], x[1], x[2 + p.shifts]};
    vec plus = softplus(three), slope = sigmoid(three);
    scalars[h] = {1.0f / std::sqrt(sum(norm) + p.norm_epsilon), slope[0], slope[2], 0.0f};
    y[0] = plus[0];
    y[1] = slope[1];
    y[2 + p.shifts] = 1.0f + plus[2];
    float top = x[2];
    for (int64_t j = 1; j < p.shifts; ++j) top = x[2 + j] > top ? x[2 + j] : top;
    vec total = {};
    for (int64_t j = 0; j < p.shifts; j += LANES) {
      int64_t n = p.shifts - j;
      vec e = exponential(load_part(x + 2 + j, n) - top);
      e = (vec)((ivec)e & lanes_below(n));
      total += e;
      store_part(y + 2 + j, e, n);
    }
    float scale = 1.0f / sum(total);
    for (int64_t j = 0; j < p.shifts; ++j) y[2 + j] *= scale;
  }
  apply(p.write_heads * p.width, raw + p.erase_start(), active + p.erase_start(), [](vec x) { return sigmoid(x); });
  apply(p.write_heads * p.width, raw + p.add_start(), active + p.add_start(),
        [](vec x) { return hyperbolic_tangent(x); });
}

// One head's part of an activated interface and of its gradient.
struct Emission {
  const float* y;
  int64_t width, shifts;
  const float* key() const { return y; }
  float strength() const { return y[width]; }
  float gate() const { return y[width + 1]; }
  const float* shift() const { return y + width + 2; }
  float sharpening() const { return y[width + 2 + shifts]; }
};

// Numbers on both sides of a ring of slots, repeated so that a shifted ring is a load at another place.
static INLINE int64_t ring_size(const Problem& p) { return p.lanes() + 2 * p.shifts + 2 * LANES; }
static INLINE void close_ring(const Problem& p, float* ring) {
  const int64_t half = (p.shifts - 1) / 2, n = p.slots;
  float* first = ring + half;
  for (int64_t k = 0; k < half; ++k) {
    first[n + k] = first[k % n];
    first[-1 - k] = first[n - 1 - k % n];
  }
}

// sum_j s_j w(n - offset_j) from the closed ring of w, with offsets -half to half. `first` is where the ring holds n +
// half, `step` -1; or, for the sum over w(n + offset_j), where it holds n - half, and 1.
static INLINE vec shifted(const Problem& p, const Emission& y, const float* first, int64_t step) {
  const float* s = y.shift();
  if (p.shifts == 3) return s[0] * load(first) + s[1] * load(first + step) + s[2] * load(first + 2 * step);
  vec total = {};
  for (int64_t j = 0; j < p.shifts; ++j) total += s[j] * load(first + j * step);
  return total;
}

// From the dot products <key, M_n> to the weighting. `ring` is scratch of ring_size numbers.
static void address(const Problem& p, const Emission& y, float inverse_key, const float* inverse_norm,
                    const float* previous, const float* dots, float* cosine, float* content, float* weights,
                    float* ring) {
  const float strength = y.strength(), gate = y.gate(), sharpening = y.sharpening();
  const int64_t half = (p.shifts - 1) / 2;
  // Content: softmax(strength * cosine), equations 5 and 6. A cosine is at most 1.
  float share = softmax(p, strength, content, [&](int64_t n) {
    vec c = load(dots + n) * inverse_key * load(inverse_norm + n);
    store(cosine + n, c);
    return strength * c;
  });
  // Gate (7) and circular shift (8).
  for_blocks(p, [&](int64_t n, ivec) {
    vec c = load(content + n) * share;
    store(content + n, c);
    store(ring + half + n, gate * c + (1.0f - gate) * load(previous + n));
  });
  close_ring(p, ring);
  // Sharpening in log space: softmax(sharpening * log(w + epsilon)) is (9) without the underflow to 0 / 0. Weights are
  // at most 1.
  share = softmax(p, 0.0f, weights, [&](int64_t n) {
    return sharpening * logarithm(shifted(p, y, ring + 2 * half + n, -1) + p.weight_epsilon);
  });
  for_blocks(p, [&](int64_t n, ivec) { store(weights + n, load(weights + n) * share); });
}

// Backwards through `address`. d_weights becomes the gradient of the previous weighting; `d_dots` gets the gradient of
// the dot products, `d_norm` is added the factor of M_n in its own gradient, d_raw (the head's part of the interface's
// gradient, before the activations) everything but the key. Returns the sum that the key's own norm needs. `ring` is
// scratch for two.
static float address_gradient(const Problem& p, const Emission& y, const HeadScalars& scalars,
                              const float* inverse_norm, const float* previous, const float* cosine,
                              const float* content, const float* weights, float* d_weights, float* d_dots,
                              float* d_norm, float* d_raw, float* ring) {
  const float gate = y.gate(), sharpening = y.sharpening(), strength = y.strength();
  const int64_t half = (p.shifts - 1) / 2;
  float* d_ring = ring + ring_size(p);
  vec total = {};
  for_blocks(p, [&](int64_t n, ivec) {
    total += load(d_weights + n) * load(weights + n);
    store(ring + half + n, gate * load(content + n) + (1.0f - gate) * load(previous + n));
  });
  const float mean = sum(total);
  close_ring(p, ring);
  vec d_sharpening = {};
  for_blocks(p, [&](int64_t n, ivec lanes) {
    vec d_power = load(weights + n) * (load(d_weights + n) - mean);
    vec s = shifted(p, y, ring + 2 * half + n, -1) + p.weight_epsilon;
    d_sharpening += only(lanes, d_power * logarithm(s));
    store(d_ring + half + n, sharpening * d_power / s);
  });
  float mean_shift = 0.0f;
  float* d_shift = d_raw + p.width + 2;
  for (int64_t j = 0; j < p.shifts; ++j) {
    vec sum_j = {};
    for_blocks(p, [&](int64_t n, ivec lanes) {
      sum_j += only(lanes, load(d_ring + half + n) * load(ring + 2 * half + n - j));
    });
    d_shift[j] = sum(sum_j);
    mean_shift += d_shift[j] * y.shift()[j];
  }
  for (int64_t j = 0; j < p.shifts; ++j) d_shift[j] = y.shift()[j] * (d_shift[j] - mean_shift);
  close_ring(p, d_ring);
  vec d_gate = {};
  total = vec{};
  for_blocks(p, [&](int64_t n, ivec lanes) {
    vec d = only(lanes, shifted(p, y, d_ring + n, 1));
    vec c = load(content + n);
    d_gate += d * (c - load(previous + n));
    total += d * c;
    store(d_dots + n, d);
    store(d_weights + n, (1.0f - gate) * d);
  });
  const float mean_content = gate * sum(total);
  vec d_strength = {}, key_norm = {};
  for_blocks(p, [&](int64_t n, ivec) {
    vec d_score = load(content + n) * (gate * load(d_dots + n) - mean_content);
    vec c = load(cosine + n), inverse = load(inverse_norm + n);
    d_strength += d_score * c;
    vec d_cosine = strength * d_score;
    store(d_dots + n, d_cosine * inverse * scalars.inverse_key);
    vec through_norm = d_cosine * c;
    key_norm += through_norm;
    store(d_norm + n, load(d_norm + n) - through_norm * inverse * inverse);
  });
  d_raw[p.width] = sum(d_strength) * scalars.strength_slope;
  d_raw[p.width + 1] = sum(d_gate) * gate * (1.0f - gate);
  d_raw[p.width + 2 + p.shifts] = sum(d_sharpening) * scalars.sharpen_slope;
  return sum(key_norm);
}
