// What the controller emits, and what becomes of it before it is used.
#pragma once
#include "cell_forward.h"
#include "ntm_layout.h"

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
