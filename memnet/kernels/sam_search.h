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

// The best so far, the best first. K is small: a new one is put in its place number by number.
struct Nearest {
  Found* best;
  int64_t wanted, count;

  float bound() const { return best[count - 1].score; }
  void offer(const Found& found) {
    if (count < wanted)
      ++count;
    else if (!better(found, best[count - 1]))
      return;
    int64_t k = count - 1;
    for (; k > 0 && better(found, best[k - 1]); --k) best[k] = best[k - 1];
    best[k] = found;
  }
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

// The scores of LANES rows, of which the last ones may not be there: they are like the last one that is. VECTORS: how
// many fill a row, 0 for any width.
template <int VECTORS>
static INLINE vec scores(int64_t width, const float* row, int64_t there, const float* inverse_norms,
                         const float* query) {
  vec total[LANES] = {};
#pragma GCC unroll 16
  for (int i = 0; i < LANES; ++i) {
    for (int v = 0; v < VECTORS; ++v) total[i] += load(query + v * LANES) * load(row + v * LANES);
    for (int64_t w = 0; !VECTORS && w < width; w += LANES)
      total[i] += load_part(query + w, width - w) * load_part(row + w, width - w);
    if (i + 1 < there) row += VECTORS ? VECTORS * LANES : width;
  }
  return sums_of(total) * load_part(inverse_norms, there);
}

template <int VECTORS>
static void find_in(const Problem& p, const float* memory, const float* inverse_norms, int64_t in_use,
                    const float* interface, Nearest* nearest) {
  for (int64_t first = 0; first < in_use; first += LANES) {
    const int64_t there = std::min<int64_t>(LANES, in_use - first);
    const float* rows = memory + first * p.width;
    for (int64_t h = 0; h < p.read_heads; ++h) {
      const float* query = Emission{interface + h * p.emission(), p.width}.query();
      const vec score = there == LANES ? scores<VECTORS>(p.width, rows, LANES, inverse_norms + first, query)
                                       : scores<VECTORS>(p.width, rows, there, inverse_norms + first, query);
      Nearest& best = nearest[h];
      ivec lanes = lanes_below(there);
      if (best.count == best.wanted) lanes &= (score > best.bound()) | (score != score);
      for (uint32_t bits = set_lanes(lanes); bits; bits &= bits - 1) {
        const int i = __builtin_ctz(bits);
        best.offer({score[i], static_cast<int32_t>(first + i)});
      }
    }
  }
}

// Leaves the K slots in use that are nearest to each head's query in `nearest`, the best first.
static void find_nearest(const Problem& p, const float* memory, const float* inverse_norms, int64_t in_use,
                         const float* interface, Nearest* nearest) {
  auto find = find_in<0>;
  if (p.width == LANES) find = find_in<1>;
  if (p.width == 2 * LANES) find = find_in<2>;
  if (p.width == 4 * LANES) find = find_in<4>;
  find(p, memory, inverse_norms, in_use, interface, nearest);
}
