// Location addressing, forwards and backwards: what the controller emits, made into a weighting (Graves, Wayne and
// Danihelka 2014, equations 5 to 9).
#pragma once
#include "ntm_interface.h"
#include "weighting.h"

// Items that go through the stages of a head together. A stage ends in sums over all slots that the next one begins
// with: while one item waits for its sum, the others' work goes on.
constexpr int64_t ABREAST = 2;

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

// One head of one item at one step: from the dot products <key, M_n> to the weighting. Its functions are the stages.
struct Head {
  Emission y;
  float inverse_key;                                // 1 / |key|
  const float *inverse_norm, *previous;             // 1 / |M_n|; the weighting of the step before
  float *dots, *cosine, *content, *ring, *weights;  // `ring` has ring_size numbers
  float share;                                      // 1 / the sum of what the last softmax has left

  // Softmax(strength * cosine), equations 5 and 6, but for its share. A cosine is at most 1.
  void find_content(const Problem& p) {
    const float strength = y.strength();
    const Head own = *this;
    share = softmax(p, strength, content, [&](int64_t n) {
      vec c = load(own.dots + n) * own.inverse_key * load(own.inverse_norm + n);
      store(own.cosine + n, c);
      return strength * c;
    });
  }
  // Equation 7.
  void interpolate(const Problem& p) const {
    const float gate = y.gate();
    const Head own = *this;
    float* middle = ring + (p.shifts - 1) / 2;
    for_blocks(p, [&](int64_t n, ivec) {
      vec c = load(own.content + n) * own.share;
      store(own.content + n, c);
      store(middle + n, gate * c + (1.0f - gate) * load(own.previous + n));
    });
    close_ring(p, ring);
  }
  // Equation 8, then (9) in log space: softmax(sharpening * log(w + epsilon)) does not underflow to 0 / 0. Weights are
  // at most 1.
  void sharpen(const Problem& p) {
    const float sharpening = y.sharpening();
    const Emission emitted = y;
    const float* last = ring + (p.shifts - 1);
    share = softmax(p, 0.0f, weights, [&](int64_t n) {
      return sharpening * logarithm(shifted(p, emitted, last + n, -1) + p.weight_epsilon);
    });
  }
  void normalize(const Problem& p) const {
    const Head own = *this;
    for_blocks(p, [&](int64_t n, ivec) { store(own.weights + n, load(own.weights + n) * own.share); });
  }
};

// The same head backwards, once `find_content` has been there again: from the gradient of its weighting to that of the
// previous weighting, which takes its place, and to those of the dot products and the interface.
struct HeadGradient : Head {
  HeadScalars scalars;
  float *d_weights, *d_dots;
  float* d_norm;  // is added the factor of M_n in its own gradient
  float* d_raw;   // the head's part of the interface's gradient, before the activations; everything but the key is set
  float* d_ring;
  float mean;      // of what goes through the softmax at hand
  float key_norm;  // the sum that the key's own norm needs

  void begin(const Problem& p) {
    interpolate(p);
    const HeadGradient own = *this;
    vec total = {};
    for_blocks(p, [&](int64_t n, ivec) { total += load(own.d_weights + n) * load(own.weights + n); });
    mean = sum(total);
  }
  void through_sharpening(const Problem& p) const {
    const HeadGradient own = *this;
    const int64_t half = (p.shifts - 1) / 2;
    const float sharpening = y.sharpening();
    vec d_sharpening = {};
    for_blocks(p, [&](int64_t n, ivec lanes) {
      vec d_power = load(own.weights + n) * (load(own.d_weights + n) - own.mean);
      vec s = shifted(p, own.y, own.ring + 2 * half + n, -1) + p.weight_epsilon;
      d_sharpening += only(lanes, d_power * logarithm(s));
      store(own.d_ring + half + n, sharpening * d_power / s);
    });
    d_raw[p.width + 2 + p.shifts] = sum(d_sharpening) * scalars.sharpen_slope;
  }
  void through_shift(const Problem& p) const {
    const HeadGradient own = *this;
    const int64_t half = (p.shifts - 1) / 2;
    float mean_shift = 0.0f;
    float* d_shift = d_raw + p.width + 2;
    for (int64_t j = 0; j < p.shifts; ++j) {
      vec total = {};
      for_blocks(p, [&](int64_t n, ivec lanes) {
        total += only(lanes, load(own.d_ring + half + n) * load(own.ring + 2 * half + n - j));
      });
      d_shift[j] = sum(total);
      mean_shift += d_shift[j] * y.shift()[j];
    }
    for (int64_t j = 0; j < p.shifts; ++j) d_shift[j] = y.shift()[j] * (d_shift[j] - mean_shift);
    close_ring(p, d_ring);
  }
  void through_gate(const Problem& p) {
    const HeadGradient own = *this;
    const float gate = y.gate();
    vec d_gate = {}, total = {};
    for_blocks(p, [&](int64_t n, ivec lanes) {
      vec d = only(lanes, shifted(p, own.y, own.d_ring + n, 1));
      vec c = load(own.content + n);
      d_gate += d * (c - load(own.previous + n));
      total += d * c;
      store(own.d_dots + n, d);
      store(own.d_weights + n, (1.0f - gate) * d);
    });
    mean = gate * sum(total);
    d_raw[p.width + 1] = sum(d_gate) * gate * (1.0f - gate);
  }
  void through_content(const Problem& p) {
    const HeadGradient own = *this;
    const float gate = y.gate(), strength = y.strength();
    vec d_strength = {}, total = {};
    for_blocks(p, [&](int64_t n, ivec) {
      vec d_score = load(own.content + n) * (gate * load(own.d_dots + n) - own.mean);
      vec c = load(own.cosine + n), inverse = load(own.inverse_norm + n);
      d_strength += d_score * c;
      vec d_cosine = strength * d_score;
      store(own.d_dots + n, d_cosine * inverse * own.inverse_key);
      vec through_norm = d_cosine * c;
      total += through_norm;
      store(own.d_norm + n, load(own.d_norm + n) - through_norm * inverse * inverse);
    });
    d_raw[p.width] = sum(d_strength) * scalars.strength_slope;
    key_norm = sum(total);
  }
};
