// Passes over one item's memory: scores, reading, writing and their gradients.
//
// The memory lies in blocks of LANES slots, (block, width, lane); a weighting is one number per slot. Lanes beyond the
// last slot hold zeros in both.
#pragma once
#include "cell_layout.h"

// Blocks worked on together: their sums do not wait for each other.
constexpr int TILE = 4;

template <int WIDE = TILE, typename Body>
static INLINE void for_tiles(int64_t blocks, Body body) {
  int64_t b = 0;
  for (; b + WIDE <= blocks; b += WIDE) body(Constant<WIDE>{}, b);
  for (; b < blocks; ++b) body(Constant<1>{}, b);
}

// out[n] = <query, M_n>, or added to what is there.
static void dot_slots(const Cell& p, const float* memory, const float* query, float* out, bool add) {
  for_tiles(p.blocks(), [&](auto tile, int64_t b) {
    constexpr int T = decltype(tile)::value;
    vec total[T];
    for (int i = 0; i < T; ++i) total[i] = add ? load(out + (b + i) * LANES) : vec{};
    const float* m = memory + b * p.width * LANES;
    for (int64_t w = 0; w < p.width; ++w) {
      vec q = splat(query[w]);
      for (int i = 0; i < T; ++i) total[i] += q * load(m + (i * p.width + w) * LANES);
    }
    for (int i = 0; i < T; ++i) store(out + (b + i) * LANES, total[i]);
  });
}

// The same for two queries in one pass; the first one's is added to what is there.
static void dot_slots_of_two(const Cell& p, const float* memory, const float* first, float* first_out,
                             const float* second, float* second_out) {
  for_tiles(p.blocks(), [&](auto tile, int64_t b) {
    constexpr int T = decltype(tile)::value;
    vec one[T], other[T] = {};
    for (int i = 0; i < T; ++i) one[i] = load(first_out + (b + i) * LANES);
    const float* m = memory + b * p.width * LANES;
    for (int64_t w = 0; w < p.width; ++w) {
      const vec q = splat(first[w]), r = splat(second[w]);
      for (int i = 0; i < T; ++i) {
        const vec x = load(m + (i * p.width + w) * LANES);
        one[i] += q * x;
        other[i] += r * x;
      }
    }
    for (int i = 0; i < T; ++i) {
      store(first_out + (b + i) * LANES, one[i]);
      store(second_out + (b + i) * LANES, other[i]);
    }
  });
}

template <int COUNT>
static INLINE void weigh_columns(const Cell& p, const float* memory, const float* weights, int64_t w, float* sums) {
  vec total[COUNT] = {};
  for (int64_t b = 0; b < p.blocks(); ++b) {
    vec weight = load(weights + b * LANES);
    const float* m = memory + (b * p.width + w) * LANES;
    for (int c = 0; c < COUNT; ++c) total[c] += weight * load(m + c * LANES);
  }
  for (int c = 0; c < COUNT; ++c) store(sums + (w + c) * LANES, total[c]);
}

// sums[w] = sum_n weights_n M_n,w, lane by lane; `add_lanes` makes numbers of them.
static void weigh_slots(const Cell& p, const float* memory, const float* weights, float* sums) {
  int64_t w = 0;
  for (; w + 8 <= p.width; w += 8) weigh_columns<8>(p, memory, weights, w, sums);
  for (; w + 4 <= p.width; w += 4) weigh_columns<4>(p, memory, weights, w, sums);
  for (; w < p.width; ++w) weigh_columns<1>(p, memory, weights, w, sums);
}

// out[i] = the sum of the lanes of sums[i]. Whole groups of LANES sums are read, so there must be room for them.
static void add_lanes(const float* sums, int64_t count, float* out) {
  for (int64_t i = 0; i < count; i += LANES) {
    vec rows[LANES];
    for (int k = 0; k < LANES; ++k) rows[k] = load(sums + (i + k) * LANES);
    store_part(out + i, sums_of(rows), count - i);
  }
}

// 1 / |M_n|, and <query, M_n> unless `query` is null.
static void invert_norms(const Cell& p, const float* memory, float* inverse_norm, const float* query = nullptr,
                         float* dots = nullptr) {
  for_tiles(p.blocks(), [&](auto tile, int64_t b) {
    constexpr int T = decltype(tile)::value;
    vec norm[T] = {}, total[T] = {};
    const float* m = memory + b * p.width * LANES;
    for (int64_t w = 0; w < p.width; ++w) {
      const vec q = query ? splat(query[w]) : vec{};
      for (int i = 0; i < T; ++i) {
        const vec x = load(m + (i * p.width + w) * LANES);
        norm[i] += x * x;
        total[i] += q * x;
      }
    }
    for (int i = 0; i < T; ++i) {
      store(inverse_norm + (b + i) * LANES, 1.0f / square_root(norm[i] + p.norm_epsilon));
      if (query) store(dots + (b + i) * LANES, total[i]);
    }
  });
}

// M_t = M_{t-1} prod_h (1 - w_h e_h^T) + sum_h w_h a_h^T (equations 3 and 4), and 1 / |M_t,n| where it is asked for.
// `before` and `after` may be the same. HEADS is the number of write heads, 0 for any number.
template <int HEADS, bool NORMS>
static void write_slots(const Cell& p, const float* before, float* after, const float* weights, const float* erase,
                        const float* add, float* inverse_norm) {
  const int64_t lanes = p.lanes(), width = p.width;
  for_tiles(p.blocks(), [&](auto tile, int64_t b) {
    constexpr int T = decltype(tile)::value;
    vec norm[T] = {}, weight[T];
    if (HEADS == 1)
      for (int i = 0; i < T; ++i) weight[i] = load(weights + (b + i) * LANES);
    for (int64_t w = 0; w < width; ++w) {
      const vec erased = splat(erase[w]), new_part = splat(add[w]);
      for (int i = 0; i < T; ++i) {
        const int64_t at = ((b + i) * width + w) * LANES;
        vec m = load(before + at);
        if (HEADS == 1) {
          m += weight[i] * (new_part - erased * m);
        } else {
          vec kept = splat(1.0f), added = {};
          for (int64_t h = 0; h < p.write_heads; ++h) {
            vec head_weight = load(weights + h * lanes + (b + i) * LANES);
            kept *= 1.0f - head_weight * erase[h * width + w];
            added += head_weight * add[h * width + w];
          }
          m = m * kept + added;
        }
        store(after + at, m);
        if (NORMS) norm[i] += m * m;
      }
    }
    if (NORMS)
      for (int i = 0; i < T; ++i) store(inverse_norm + (b + i) * LANES, 1.0f / square_root(norm[i] + p.norm_epsilon));
  });
}

static void write_any(const Cell& p, const float* before, float* after, const float* weights, const float* erase,
                      const float* add, float* inverse_norm) {
  const bool one = p.write_heads == 1;
  auto write = inverse_norm ? (one ? write_slots<1, true> : write_slots<0, true>)
                            : (one ? write_slots<1, false> : write_slots<0, false>);
  write(p, before, after, weights, erase, add, inverse_norm);
}

// What heads of one kind hand to the gradients of the memory that they addressed.
struct MemoryGradient {
  const float* dot;   // (head, slot): gradient of <key, M_n>
  const float* norm;  // (slot): factor of M_n, from the norms in all heads' cosines
  const float* key;   // (head, width) with stride `key_stride`
  int64_t key_stride;
};

// dM += the gradient through the cosines of `heads` heads that addressed M, and sums[h, w] = sum_n dot_n M_n,w.
static void score_gradient(const Cell& p, int64_t heads, const MemoryGradient& from, const float* memory,
                           float* d_memory, float* sums) {
  const int64_t width = p.width, lanes = p.lanes();
  for (int64_t h = 0; h < heads; ++h)
    for_tiles(p.blocks(), [&](auto tile, int64_t b) {
      constexpr int T = decltype(tile)::value;
      vec dot[T], norm[T];
      for (int i = 0; i < T; ++i) {
        dot[i] = load(from.dot + h * lanes + (b + i) * LANES);
        norm[i] = h ? vec{} : load(from.norm + (b + i) * LANES);
      }
      for (int64_t w = 0; w < width; ++w) {
        vec key = splat(from.key[h * from.key_stride + w]);
        float* sum_at = sums + (h * width + w) * LANES;
        vec total = b ? load(sum_at) : vec{};
        for (int i = 0; i < T; ++i) {
          const int64_t at = ((b + i) * width + w) * LANES;
          vec m = load(memory + at);
          vec d = load(d_memory + at) + dot[i] * key;
          if (h == 0) d += norm[i] * m;
          store(d_memory + at, d);
          total += dot[i] * m;
        }
        store(sum_at, total);
      }
    });
}

// dM_t += sum_h w_h dr_h^T for the read heads r_h = w_h^T M_t.
static void read_gradient(const Cell& p, const float* weights, const float* d_reads, float* d_memory) {
  for (int64_t h = 0; h < p.read_heads; ++h)
    for (int64_t b = 0; b < p.blocks(); ++b) {
      vec weight = load(weights + h * p.lanes() + b * LANES);
      for (int64_t w = 0; w < p.width; ++w) {
        float* d = d_memory + (b * p.width + w) * LANES;
        store(d, load(d) + weight * d_reads[h * p.width + w]);
      }
    }
}

// Backwards through `write_slots` for any number of heads.
static void write_gradient_of_several(const Cell& p, const float* before, const float* weights, const float* erase,
                           const float* add, float* d_memory, float* d_weights, float* d_erase, float* d_add,
                           float* scratch) {
  const int64_t lanes = p.lanes(), width = p.width, heads = p.write_heads;
  // kept[h] = 1 - w_h e_h; later[h] is the product of kept[h], kept[h + 1], ...
  float *kept = scratch, *later = scratch + heads * LANES;
  store(later + heads * LANES, splat(1.0f));
  std::fill(d_erase, d_erase + heads * width * LANES, 0.0f);
  std::fill(d_add, d_add + heads * width * LANES, 0.0f);
  for (int64_t b = 0; b < p.blocks(); ++b)
    for (int64_t w = 0; w < width; ++w) {
      const int64_t at = (b * width + w) * LANES;
      vec product = splat(1.0f);
      for (int64_t h = heads - 1; h >= 0; --h) {
        vec own = 1.0f - load(weights + h * lanes + b * LANES) * erase[h * width + w];
        product *= own;
        store(kept + h * LANES, own);
        store(later + h * LANES, product);
      }
      const vec m = load(before + at), d = load(d_memory + at);
      store(d_memory + at, d * product);
      vec earlier = splat(1.0f);
      for (int64_t h = 0; h < heads; ++h) {
        const vec kept_by_others = earlier * load(later + (h + 1) * LANES) * m;
        earlier *= load(kept + h * LANES);
        float* d_weight = d_weights + h * lanes + b * LANES;
        store(d_weight, load(d_weight) + d * (add[h * width + w] - erase[h * width + w] * kept_by_others));
        const vec through = d * load(weights + h * lanes + b * LANES);
        const int64_t sum_at = (h * width + w) * LANES;
        store(d_add + sum_at, load(d_add + sum_at) + through);
        store(d_erase + sum_at, load(d_erase + sum_at) - through * kept_by_others);
      }
    }
}

// The same for one head.
static void write_gradient_of_one(const Cell& p, const float* before, const float* weights, const float* erase,
                                  const float* add, float* d_memory, float* d_weights, float* d_erase, float* d_add) {
  const int64_t width = p.width;
  for_tiles(p.blocks(), [&](auto tile, int64_t b) {
    constexpr int T = decltype(tile)::value;
    vec weight[T], d_weight[T];
    for (int i = 0; i < T; ++i) {
      weight[i] = load(weights + (b + i) * LANES);
      d_weight[i] = load(d_weights + (b + i) * LANES);
    }
    for (int64_t w = 0; w < width; ++w) {
      const vec erased = splat(erase[w]), added = splat(add[w]);
      vec sum_erase = b ? load(d_erase + w * LANES) : vec{}, sum_add = b ? load(d_add + w * LANES) : vec{};
      for (int i = 0; i < T; ++i) {
        const int64_t at = ((b + i) * width + w) * LANES;
        const vec old = load(before + at), d = load(d_memory + at), through = weight[i] * d;
        d_weight[i] += d * (added - erased * old);
        sum_add += through;
        sum_erase -= through * old;
        store(d_memory + at, d - erased * through);
      }
      store(d_erase + w * LANES, sum_erase);
      store(d_add + w * LANES, sum_add);
    }
    for (int i = 0; i < T; ++i) store(d_weights + (b + i) * LANES, d_weight[i]);
  });
}

// Backwards through `write_slots`: turns dM_t into dM_{t-1}, adds to the gradients of the weights (head, slot) and
// leaves the lanes of the gradients of erase and add in d_erase and d_add (head, width). `scratch` holds 2 * heads + 1
// vectors.
static void write_gradient(const Cell& p, const float* before, const float* weights, const float* erase,
                           const float* add, float* d_memory, float* d_weights, float* d_erase, float* d_add,
                           float* scratch) {
  if (p.write_heads == 1)
    write_gradient_of_one(p, before, weights, erase, add, d_memory, d_weights, d_erase, d_add);
  else
    write_gradient_of_several(p, before, weights, erase, add, d_memory, d_weights, d_erase, d_add, scratch);
}

// `read_gradient`, `score_gradient` of the read head and `write_gradient` in one pass, for one head of each kind: the
// memories are loaded once.
static void step_gradient(const Cell& p, const float* before, const float* after, const float* read_weights,
                          const float* d_reads, const MemoryGradient& read, float* read_sums, const float* weights,
                          const float* erase, const float* add, float* d_memory, float* d_weights, float* d_erase,
                          float* d_add) {
  const int64_t width = p.width;
  for_tiles<2>(p.blocks(), [&](auto tile, int64_t b) {
    constexpr int T = decltype(tile)::value;
    vec dot[T], norm[T], read_weight[T], weight[T], d_weight[T];
    for (int i = 0; i < T; ++i) {
      dot[i] = load(read.dot + (b + i) * LANES);
      norm[i] = load(read.norm + (b + i) * LANES);
      read_weight[i] = load(read_weights + (b + i) * LANES);
      weight[i] = load(weights + (b + i) * LANES);
      d_weight[i] = load(d_weights + (b + i) * LANES);
    }
    for (int64_t w = 0; w < width; ++w) {
      vec d_read = splat(d_reads[w]), key = splat(read.key[w]), erased = splat(erase[w]), added = splat(add[w]);
      vec sum_key = {}, sum_erase = {}, sum_add = {};
      if (b) {
        sum_key = load(read_sums + w * LANES);
        sum_erase = load(d_erase + w * LANES);
        sum_add = load(d_add + w * LANES);
      }
      for (int i = 0; i < T; ++i) {
        const int64_t at = ((b + i) * width + w) * LANES;
        vec now = load(after + at), old = load(before + at);
        vec d = load(d_memory + at) + read_weight[i] * d_read + dot[i] * key + norm[i] * now;
        sum_key += dot[i] * now;
        d_weight[i] += d * (added - erased * old);
        vec through = weight[i] * d;
        sum_add += through;
        sum_erase -= through * old;
        store(d_memory + at, d - erased * through);
      }
      store(read_sums + w * LANES, sum_key);
      store(d_erase + w * LANES, sum_erase);
      store(d_add + w * LANES, sum_add);
    }
    for (int i = 0; i < T; ++i) store(d_weights + (b + i) * LANES, d_weight[i]);
  });
}

// (slot, width) as the caller has it <-> (block, width, lane).
static void blocked(const Cell& p, const float* rows, float* memory) {
  for (int64_t b = 0; b < p.blocks(); ++b)
    for (int64_t i = 0; i < LANES; ++i)
      for (int64_t w = 0; w < p.width; ++w)
        memory[(b * p.width + w) * LANES + i] = b * LANES + i < p.slots ? rows[(b * LANES + i) * p.width + w] : 0.0f;
}
static void unblocked(const Cell& p, const float* memory, float* rows) {
  for (int64_t n = 0; n < p.slots; ++n)
    for (int64_t w = 0; w < p.width; ++w) rows[n * p.width + w] = memory[(n / LANES * p.width + w) * LANES + n % LANES];
}
