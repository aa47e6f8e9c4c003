// Addressing by content: strength times cosine, of all of a slot or of the part that a mask asks for, through a softmax
// (DNC, "Content-based addressing"; Csordas and Schmidhuber 2019, "Masking").
#pragma once
#include "dnc_layout.h"
#include "memory_passes.h"
#include "weighting.h"

// One head's part of an activated interface.
struct Emission {
  const float* y;
  int64_t width;
  const float* key() const { return y; }
  float strength() const { return y[width]; }
  const float* mask() const { return y + width + 1; }
};

// What a head compares with: the key times the squared mask, and the squared mask (nothing without one).
struct Query {
  float *key, *mask;
  float inverse_key;  // 1 / |key|

  Query(const Problem& p, const Emission& y, float* scratch) : key(scratch), mask(scratch + p.width) {
    float norm = 0.0f;
    for (int64_t w = 0; w < p.width; ++w) {
      const float square = p.masked ? y.mask()[w] * y.mask()[w] : 1.0f;
      mask[w] = square;
      key[w] = y.key()[w] * square;
      norm += key[w] * y.key()[w];
    }
    inverse_key = 1.0f / std::sqrt(norm + p.norm_epsilon);
  }
};

// dots[n] = <query, M_n> and inverse_norm[n] = 1 / |M_n|.
static void compare(const Problem& p, const float* memory, const Query& query, float* dots, float* inverse_norm) {
  for_tiles(p.blocks(), [&](auto tile, int64_t b) {
    constexpr int T = decltype(tile)::value;
    vec total[T] = {}, norm[T] = {};
    const float* m = memory + b * p.width * LANES;
    for (int64_t w = 0; w < p.width; ++w) {
      const vec key = splat(query.key[w]), mask = splat(query.mask[w]);
      for (int i = 0; i < T; ++i) {
        const vec x = load(m + (i * p.width + w) * LANES);
        total[i] += key * x;
        norm[i] += mask * x * x;
      }
    }
    for (int i = 0; i < T; ++i) {
      store(dots + (b + i) * LANES, total[i]);
      store(inverse_norm + (b + i) * LANES, 1.0f / square_root(norm[i] + p.norm_epsilon));
    }
  });
}

// `dots` is scratch of one weighting, `scratch` of two keys.
static void address_content(const Problem& p, const float* emission, const float* memory, float* cosine,
                            float* inverse_norm, float* content, float* dots, float* scratch) {
  const Emission y{emission, p.width};
  const Query query(p, y, scratch);
  compare(p, memory, query, dots, inverse_norm);
  const float strength = y.strength();
  // A cosine is at most 1.
  const float share = softmax(p, strength, content, [&](int64_t n) {
    const vec c = load(dots + n) * query.inverse_key * load(inverse_norm + n);
    store(cosine + n, c);
    return strength * c;
  });
  for_blocks(p, [&](int64_t n, ivec) { store(content + n, load(content + n) * share); });
}

// Backwards through `compare`: dM += d_dot q + d_norm m^2 M, and the lanes of sum_n d_dot_n M_n and sum_n d_norm_n
// M_n^2.
static void compare_gradient(const Problem& p, const float* memory, const Query& query, const float* d_dots,
                             const float* d_norm, float* d_memory, float* sums) {
  const int64_t width = p.width;
  for_tiles(p.blocks(), [&](auto tile, int64_t b) {
    constexpr int T = decltype(tile)::value;
    vec dot[T], norm[T];
    for (int i = 0; i < T; ++i) {
      dot[i] = load(d_dots + (b + i) * LANES);
      norm[i] = load(d_norm + (b + i) * LANES);
    }
    for (int64_t w = 0; w < width; ++w) {
      const vec key = splat(query.key[w]), mask = splat(query.mask[w]);
      float *keys = sums + w * LANES, *masks = sums + (width + w) * LANES;
      vec of_key = b ? load(keys) : vec{}, of_mask = b ? load(masks) : vec{};
      for (int i = 0; i < T; ++i) {
        const int64_t at = ((b + i) * width + w) * LANES;
        const vec m = load(memory + at), scaled = norm[i] * m;
        store(d_memory + at, load(d_memory + at) + dot[i] * key + mask * scaled);
        of_key += dot[i] * m;
        of_mask += scaled * m;
      }
      store(keys, of_key);
      store(masks, of_mask);
    }
  });
}

// Scratch of `content_gradient`.
struct ContentScratch {
  float *query, *d_dots, *d_norm, *sums, *numbers;
  ContentScratch(const Problem& p, Arena& arena)
      : query(arena.take(2 * p.width)),
        d_dots(arena.take(p.lanes())),
        d_norm(arena.take(p.lanes())),
        sums(arena.take(round_up(2 * p.width, LANES) * LANES)),
        numbers(arena.take(round_up(2 * p.width, LANES))) {}
};

// Backwards through `address_content`: from the gradient of the weights by content to that of the memory, which is
// added to, and to the head's part of the interface's gradient, before the activations.
static void content_gradient(const Problem& p, const float* emission, const float* memory, const float* cosine,
                             const float* inverse_norm, const float* content, const float* d_content, float* d_memory,
                             float* d_raw, const ContentScratch& s) {
  const Emission y{emission, p.width};
  const Query query(p, y, s.query);
  vec total = {};
  for_blocks(p, [&](int64_t n, ivec) { total += load(d_content + n) * load(content + n); });
  const float mean = sum(total), strength = y.strength();
  vec d_strength = {}, key_norm = {};
  for_blocks(p, [&](int64_t n, ivec lanes) {
    const vec c = load(cosine + n), inverse = load(inverse_norm + n);
    const vec d_score = only(lanes, load(content + n) * (load(d_content + n) - mean));
    d_strength += only(lanes, d_score * c);
    const vec d_cosine = strength * d_score, through_norm = only(lanes, d_cosine * c);
    key_norm += through_norm;
    store(s.d_dots + n, d_cosine * inverse * query.inverse_key);
    store(s.d_norm + n, -through_norm * inverse * inverse);
  });
  compare_gradient(p, memory, query, s.d_dots, s.d_norm, d_memory, s.sums);
  add_lanes(s.sums, 2 * p.width, s.numbers);
  const float norm = sum(key_norm) * query.inverse_key * query.inverse_key;
  for (int64_t w = 0; w < p.width; ++w) {
    const float key = y.key()[w], d_query = s.numbers[w];
    d_raw[w] = (d_query * query.mask[w] - norm * query.key[w]) * (1.0f - key * key);
    if (!p.masked) continue;
    const float mask = y.mask()[w], d_square = d_query * key + 0.5f * (s.numbers[p.width + w] - norm * key * key);
    d_raw[p.width + 1 + w] = 2.0f * mask * d_square * mask * (1.0f - mask);
  }
  // d softplus(x) / d x = 1 - exp(-softplus(x)).
  d_raw[p.width] = -sum(d_strength) * std::expm1(-strength);
}
