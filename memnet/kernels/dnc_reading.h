// What a Differentiable Neural Computer emits, made into gates and modes; and where it reads: backward, by content or
// forward in the order of writing (DNC, "Read weighting"), perhaps with sharpened links (Csordas and Schmidhuber 2019).
#pragma once
#include "cell_forward.h"
#include "dnc_layout.h"
#include "weighting.h"

// The interface as the Linear gives it -> key through tanh, strength through softplus, mask and gates through sigmoid,
// modes through softmax, sharpness through 1 + softplus; erase and free gates through sigmoid, add through tanh.
static void activate_interface(const Problem& p, const float* raw, float* active) {
  auto to_sigmoid = [&](int64_t start, int64_t count) {
    apply(count, raw + start, active + start, [](vec x) { return sigmoid(x); });
  };
  auto to_tanh = [&](int64_t start, int64_t count) {
    apply(count, raw + start, active + start, [](vec x) { return hyperbolic_tangent(x); });
  };
  auto to_softplus = [&](int64_t start, int64_t count, float least) {
    apply(count, raw + start, active + start, [&](vec x) { return least + softplus(x); });
  };
  for (int64_t h = 0; h < p.heads(); ++h) {
    const int64_t start = p.emission_start(h), end = start + p.score();
    to_tanh(start, p.width);
    to_softplus(start + p.width, 1, 0.0f);
    to_sigmoid(start + p.width + 1, p.masked * p.width);
    if (h < p.write_heads) {
      to_sigmoid(end, 2);
      continue;
    }
    float top = raw[end], total = 0.0f;
    for (int64_t m = 1; m < p.modes(); ++m) top = raw[end + m] > top ? raw[end + m] : top;
    apply(p.modes(), raw + end, active + end, [&](vec x) { return exponential(x - top); });
    for (int64_t m = 0; m < p.modes(); ++m) total += active[end + m];
    for (int64_t m = 0; m < p.modes(); ++m) active[end + m] /= total;
    to_softplus(end + p.modes(), 2 * p.sharpen, 1.0f);
  }
  to_sigmoid(p.erase_start(), p.write_heads * p.width);
  to_tanh(p.add_start(), p.write_heads * p.width);
  to_sigmoid(p.free_start(), p.read_heads);
}

// The modes of a read head: backward for each write head, content, forward for each write head; then the sharpnesses of
// backward and forward.
struct Modes {
  const float* y;
  int64_t writes;
  float back(int64_t write) const { return y[write]; }
  float content() const { return y[writes]; }
  float forth(int64_t write) const { return y[writes + 1 + write]; }
  float sharpness(bool forth) const { return y[2 * writes + 1 + forth]; }
};

// S(d, s) = sum(d) softmax(s log(d + epsilon)). Returns the sum; `share` is the softmax. Weights are at most 1.
static float sharpen(const Problem& p, const float* weights, float power, float* share) {
  vec total = {};
  for_blocks(p, [&](int64_t n, ivec lanes) { total += only(lanes, load(weights + n)); });
  const float scale =
      softmax(p, 0.0f, share, [&](int64_t n) { return power * logarithm(load(weights + n) + p.weight_epsilon); });
  for_blocks(p, [&](int64_t n, ivec) { store(share + n, load(share + n) * scale); });
  return sum(total);
}

// w = sum over write heads (pi_b b + pi_f f) + pi_c c. `back` and `forth` are the head's of the first write head,
// `stride` leads to those of the next. `share` is scratch of one weighting.
static void mix_modes(const Problem& p, const Modes& modes, const float* back, const float* forth, int64_t stride,
                      const float* content, float* weights, float* share) {
  for_blocks(p, [&](int64_t n, ivec) { store(weights + n, modes.content() * load(content + n)); });
  auto add = [&](const float* linked, float mode, bool of_forth) {
    float scale = mode;
    if (p.sharpen) {
      scale *= sharpen(p, linked, modes.sharpness(of_forth), share);
      linked = share;
    }
    for_blocks(p, [&](int64_t n, ivec) { store(weights + n, load(weights + n) + scale * load(linked + n)); });
  };
  for (int64_t w = 0; w < p.write_heads; ++w) {
    add(back + w * stride, modes.back(w), false);
    add(forth + w * stride, modes.forth(w), true);
  }
}

// Backwards through `sharpen` times `mode`: d_linked is added to, `d_mode` is set, and the gradient of the power is
// returned.
static float sharpen_gradient(const Problem& p, const float* linked, float power, float mode, const float* d_weights,
                              float* d_linked, float* d_mode, float* share) {
  const float all = sharpen(p, linked, power, share);
  vec along = {}, d_power = {};
  for_blocks(p, [&](int64_t n, ivec lanes) { along += only(lanes, load(d_weights + n) * load(share + n)); });
  const float mean = sum(along);
  *d_mode = all * mean;
  for_blocks(p, [&](int64_t n, ivec lanes) {
    const vec lifted = load(linked + n) + p.weight_epsilon;
    const vec d = mode * all * load(share + n) * (load(d_weights + n) - mean);
    d_power += only(lanes, d * logarithm(lifted));
    store(d_linked + n, load(d_linked + n) + only(lanes, d * power / lifted + mode * mean));
  });
  return sum(d_power);
}

// Backwards through `mix_modes`: d_back and d_forth are added to, d_content is set, and so is `d_raw`, the part of the
// interface's gradient, before the activations, for modes and sharpnesses.
static void mix_gradient(const Problem& p, const Modes& modes, const float* back, const float* forth, int64_t stride,
                         const float* content, const float* d_weights, float* d_back, float* d_forth, float* d_content,
                         float* d_raw, float* share) {
  float* d_powers = d_raw + p.modes();
  if (p.sharpen) d_powers[0] = d_powers[1] = 0.0f;
  auto linked_gradient = [&](const float* linked, float mode, bool of_forth, float* d_linked) {
    float d_mode = 0.0f;
    if (p.sharpen) {
      d_powers[of_forth] +=
          sharpen_gradient(p, linked, modes.sharpness(of_forth), mode, d_weights, d_linked, &d_mode, share);
      return d_mode;
    }
    vec along = {};
    for_blocks(p, [&](int64_t n, ivec lanes) {
      const vec d = load(d_weights + n);
      along += only(lanes, d * load(linked + n));
      store(d_linked + n, load(d_linked + n) + only(lanes, mode * d));
    });
    return sum(along);
  };
  for (int64_t w = 0; w < p.write_heads; ++w) {
    d_raw[w] = linked_gradient(back + w * stride, modes.back(w), false, d_back + w * stride);
    d_raw[p.write_heads + 1 + w] = linked_gradient(forth + w * stride, modes.forth(w), true, d_forth + w * stride);
  }
  vec along = {};
  for_blocks(p, [&](int64_t n, ivec lanes) {
    const vec d = load(d_weights + n);
    along += only(lanes, d * load(content + n));
    store(d_content + n, modes.content() * d);
  });
  d_raw[p.write_heads] = sum(along);
  float mean = 0.0f;
  for (int64_t m = 0; m < p.modes(); ++m) mean += d_raw[m] * modes.y[m];
  for (int64_t m = 0; m < p.modes(); ++m) d_raw[m] = modes.y[m] * (d_raw[m] - mean);
  // d softplus(x) / d x = 1 - exp(-softplus(x)), and a sharpness is 1 more than that.
  for (int64_t both = 0; both < 2 * p.sharpen; ++both) d_powers[both] *= -std::expm1(1.0f - modes.sharpness(both));
}
