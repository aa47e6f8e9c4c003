// The K rows of a memory that are nearest to each head's query, found by looking at every row in use.
#pragma once
#include "sam_layout.h"

// Passes over single rows.
static INLINE float dot(int64_t width, const float* a, const float* b) {
  vec total = {};
  for (int64_t w = 0; w < width; w += LANES) total += load_part(a + w, width - w) * load_part(b + w, width - w);
  return sum(total);
}
// y += factor x
static INLINE void add_scaled(int64_t width, float factor, const float* x, float* y) {
  for (int64_t w = 0; w < width; w += LANES)
    store_part(y + w, load_part(y + w, width - w) + factor * load_part(x + w, width - w), width - w);
}
static INLINE float inverse_norm(int64_t width, const float* x, float epsilon) {
  return 1.0f / std::sqrt(dot(width, x, x) + epsilon);
}

// A slot that was found, and q M(s) / |M(s)|: the query's own norm and the key strength change no order.
struct Found {
  float score;
  int32_t slot;
};
// Of equal scores the first slot comes first. NaN is the highest score, as it is for torch.topk.
static INLINE bool better(const Found& a, const Found& b) {
  const bool a_nan = a.score != a.score, b_nan = b.score != b.score;
  if (a_nan != b_nan) return a_nan;
  return a.score > b.score || (!(a.score < b.score) && a.slot < b.slot);
}

// The best so far, a heap whose front is the worst of them.
struct Nearest {
  Found* heap;
  int64_t wanted, count;

  void offer(const Found& found) {
    if (count < wanted) {
      heap[count++] = found;
      std::push_heap(heap, heap + count, better);
    } else if (better(found, heap[0])) {
      std::pop_heap(heap, heap + count, better);
      heap[count - 1] = found;
      std::push_heap(heap, heap + count, better);
    }
  }
  void sort() { std::sort_heap(heap, heap + count, better); }
};

// Bit i is set where lane i is: lanes are all ones or zeros.
static INLINE uint32_t set_lanes(ivec lanes) {
#if defined(__AVX512F__)
  return _mm512_cmplt_epi32_mask((__m512i)lanes, _mm512_setzero_si512());
#else
  uint32_t bits = 0;
  for (int i = 0; i < LANES; ++i) bits |= (lanes[i] ? 1u : 0u) << i;
  return bits;
#endif
}

// The scores of rows first ... first + LANES - 1, of which the last ones may not be there: they have the score of the
// last one that is.
static INLINE vec scores(int64_t width, const float* rows, int64_t there, const float* inverse_norms,
                         const float* query) {
  vec total[LANES] = {};
  int64_t at[LANES];
  for (int64_t i = 0; i < LANES; ++i) at[i] = (i < there ? i : there - 1) * width;
  int64_t w = 0;
  for (; w + LANES <= width; w += LANES) {
    const vec q = load(query + w);
    for (int i = 0; i < LANES; ++i) total[i] += q * load(rows + at[i] + w);
  }
  if (w < width) {
    const vec q = load_part(query + w, width - w);
    for (int i = 0; i < LANES; ++i) total[i] += q * load_part(rows + at[i] + w, width - w);
  }
  return sums_of(total) * load_part(inverse_norms, there);
}

// Leaves the K slots in use that are nearest to each head's query in `nearest`, the best first.
static void find_nearest(const Problem& p, const float* memory, const float* inverse_norms, int64_t in_use,
                         const float* interface, Nearest* nearest) {
  for (int64_t first = 0; first < in_use; first += LANES) {
    const int64_t there = std::min<int64_t>(LANES, in_use - first);
    const float* rows = memory + first * p.width;
    for (int64_t h = 0; h < p.read_heads; ++h) {
      const Emission y{interface + h * p.emission(), p.width};
      const vec score = there == LANES ? scores(p.width, rows, LANES, inverse_norms + first, y.query())
                                       : scores(p.width, rows, there, inverse_norms + first, y.query());
      Nearest& best = nearest[h];
      ivec lanes = lanes_below(there);
      if (best.count == best.wanted) lanes &= (score > best.heap[0].score) | (score != score);
      for (uint32_t bits = set_lanes(lanes); bits; bits &= bits - 1) {
        const int i = __builtin_ctz(bits);
        best.offer({score[i], static_cast<int32_t>(first + i)});
      }
    }
  }
  for (int64_t h = 0; h < p.read_heads; ++h) nearest[h].sort();
}
