// The temporal link's step, forwards and backwards, in one pass each over the matrix of one write head:
// L[i, j] = (1 - w(i) - w(j)) L'[i, j] + w(i) p(j) with nothing on the diagonal, f = L r and b = L^T r for every read
// head's r. The equations are those of memnet/functional_dnc.py.
#pragma once
#include <algorithm>
#include <type_traits>

#include "simd.h"

struct LinkStep {
  int64_t slots, reads;
  int64_t stride;  // from one read head's numbers to the next one's
  const float *link, *precedence, *write, *read;
};

// A few rows at once: their sums do not wait for each other, and what belongs to columns is loaded once for all. As
// many read heads at once as the registers hold.
constexpr int LINK_READS = 2;
constexpr int link_rows(int reads) { return LANES == 16 ? 4 : reads > 1 ? 1 : 2; }

// Calls act(column, how many there are, whether the diagonal of `row` and the few after it is among them); the number
// is a constant but for the last ones.
template <typename Act>
static INLINE void by_columns(int64_t slots, int64_t row, Act act) {
  const int64_t whole = slots / LANES * LANES, diagonal = row / LANES * LANES;
  for (int64_t j = 0; j < whole; j += LANES) act(j, std::integral_constant<int64_t, LANES>{}, j == diagonal);
  if (whole < slots) act(whole, slots - whole, whole == diagonal);
}
// x without lane i.
static INLINE vec without(vec x, int64_t i) {
  ivec lanes;
  for (int k = 0; k < LANES; ++k) lanes[k] = k;
  return (vec)((ivec)x & (lanes != (int32_t)i - ivec{}));
}

constexpr int at_least_one(int count) { return count ? count : 1; }

// Rows [row, row + ROWS) for READS read heads from `first` on; FIRST: L is made and stored, else it is there already.
template <int ROWS, int READS, bool FIRST>
static INLINE void link_rows_forward(const LinkStep s, int64_t row, int64_t first, float* next, float* back,
                                     float* forth) {
  const int64_t n = s.slots;
  const float *read[at_least_one(READS)], *link = s.link + row * n;
  float* against_at[at_least_one(READS)];
  for (int r = 0; r < READS; ++r) {
    read[r] = s.read + (first + r) * s.stride;
    against_at[r] = back + (first + r) * s.stride;
  }
  next += row * n;
  vec to[ROWS], left[ROWS], along[at_least_one(READS)][ROWS] = {};
  for (int k = 0; k < ROWS; ++k) {
    to[k] = splat(s.write[row + k]);
    left[k] = splat(1.0f - s.write[row + k]);
  }
  by_columns(n, row, [&](int64_t j, auto lanes, bool diagonal) {
    const vec w = load_part(s.write + j, lanes), p = load_part(s.precedence + j, lanes);
    vec reading[at_least_one(READS)], against[at_least_one(READS)];
    for (int r = 0; r < READS; ++r) {
      reading[r] = load_part(read[r] + j, lanes);
      against[r] = load_part(against_at[r] + j, lanes);
    }
    for (int k = 0; k < ROWS; ++k) {
      float* at = next + k * n + j;
      vec x;
      if (FIRST) {
        x = (left[k] - w) * load_part(link + k * n + j, lanes) + to[k] * p;
        if (diagonal) x = without(x, row + k - j);
        store_part(at, x, lanes);
      } else {
        x = load_part(at, lanes);
      }
      for (int r = 0; r < READS; ++r) {
        along[r][k] += x * reading[r];
        against[r] += x * read[r][row + k];
      }
    }
    for (int r = 0; r < READS; ++r) store_part(against_at[r] + j, against[r], lanes);
  });
  for (int r = 0; r < READS; ++r)
    for (int k = 0; k < ROWS; ++k) forth[(first + r) * s.stride + row + k] = sum(along[r][k]);
}

template <int READS, bool FIRST>
static void link_forward_some(const LinkStep& s, int64_t first, float* next, float* back, float* forth) {
  constexpr int ROWS = link_rows(READS);
  int64_t row = 0;
  for (; row + ROWS <= s.slots; row += ROWS) link_rows_forward<ROWS, READS, FIRST>(s, row, first, next, back, forth);
  for (; row < s.slots; ++row) link_rows_forward<1, READS, FIRST>(s, row, first, next, back, forth);
}

// `next` may be the link itself. Without `back` and `forth` there is only the link.
static void link_forward(const LinkStep& s, float* next, float* back, float* forth) {
  if (!back) return link_forward_some<0, true>(s, 0, next, back, forth);
  for (int64_t r = 0; r < s.reads; ++r) std::fill(back + r * s.stride, back + r * s.stride + s.slots, 0.0f);
  for (int64_t first = 0; first < s.reads; first += LINK_READS) {
    switch (std::min<int64_t>(LINK_READS, s.reads - first)) {
#define CASE(READS)                                                 \
  case READS:                                                       \
    first ? link_forward_some<READS, false>(s, first, next, back, forth) \
          : link_forward_some<READS, true>(s, first, next, back, forth); \
    break;
      CASE(1) CASE(2)
#undef CASE
    }
  }
  auto at_least_zero = [&](float* x) {
    for (int64_t r = 0; r < s.reads; ++r)
      for (int64_t j = 0; j < s.slots; ++j) x[r * s.stride + j] = x[r * s.stride + j] < 0 ? 0 : x[r * s.stride + j];
  };
  at_least_zero(back);
  at_least_zero(forth);
}

// What goes in and comes out of a step's way back. dL is of the new link at first and of the old one at the end; the
// others are added to. d_back and d_forth are those of b and f.
struct LinkGradient {
  float *d_link, *d_precedence, *d_write, *d_read;
  const float *d_back, *d_forth;
};

// LAST: these are the last read heads, so that dL is all there.
template <int ROWS, int READS, bool LAST>
static INLINE void link_rows_backward(const LinkStep s, const LinkGradient g, int64_t row, int64_t first) {
  const int64_t n = s.slots;
  const float *read[READS], *d_back[READS], *d_forth[READS], *links = s.link + row * n;
  float *d_read[READS], *d_links = g.d_link + row * n;
  for (int r = 0; r < READS; ++r) {
    const int64_t start = (first + r) * s.stride;
    read[r] = s.read + start;
    d_back[r] = g.d_back + start;
    d_forth[r] = g.d_forth + start;
    d_read[r] = g.d_read + start;
  }
  vec to[ROWS], left[ROWS], by_row[ROWS] = {}, by_read[READS][ROWS] = {};
  for (int k = 0; k < ROWS; ++k) {
    to[k] = splat(s.write[row + k]);
    left[k] = splat(1.0f - s.write[row + k]);
  }
  by_columns(n, row, [&](int64_t j, auto lanes, bool diagonal) {
    const vec w = load_part(s.write + j, lanes), p = load_part(s.precedence + j, lanes);
    vec reading[READS], against[READS], d_reading[READS];
    for (int r = 0; r < READS; ++r) {
      reading[r] = load_part(read[r] + j, lanes);
      against[r] = load_part(d_back[r] + j, lanes);
      d_reading[r] = load_part(d_read[r] + j, lanes);
    }
    vec d_w = {}, d_p = {};
    for (int k = 0; k < ROWS; ++k) {
      const vec link = load_part(links + k * n + j, lanes), kept = left[k] - w;
      vec next = kept * link + to[k] * p, d = load_part(d_links + k * n + j, lanes);
      if (diagonal) next = without(next, row + k - j);
      for (int r = 0; r < READS; ++r) {
        const float forth = d_forth[r][row + k];
        d += forth * reading[r];
        d += read[r][row + k] * against[r];
        d_reading[r] += forth * next;
        by_read[r][k] += next * against[r];
      }
      if (diagonal) d = without(d, row + k - j);
      if (LAST) {
        const vec product = d * link;
        by_row[k] += d * p;
        by_row[k] -= product;
        d_w -= product;
        d_p += to[k] * d;
        d *= kept;
      }
      store_part(d_links + k * n + j, d, lanes);
    }
    for (int r = 0; r < READS; ++r) store_part(d_read[r] + j, d_reading[r], lanes);
    if (LAST) {
      store_part(g.d_write + j, load_part(g.d_write + j, lanes) + d_w, lanes);
      store_part(g.d_precedence + j, load_part(g.d_precedence + j, lanes) + d_p, lanes);
    }
  });
  for (int k = 0; k < ROWS; ++k) {
    if (LAST) g.d_write[row + k] += sum(by_row[k]);
    for (int r = 0; r < READS; ++r) d_read[r][row + k] += sum(by_read[r][k]);
  }
}

template <int READS, bool LAST>
static void link_backward_some(const LinkStep& s, const LinkGradient& g, int64_t first) {
  constexpr int ROWS = link_rows(READS);
  int64_t row = 0;
  for (; row + ROWS <= s.slots; row += ROWS) link_rows_backward<ROWS, READS, LAST>(s, g, row, first);
  for (; row < s.slots; ++row) link_rows_backward<1, READS, LAST>(s, g, row, first);
}

static void link_backward(const LinkStep& s, const LinkGradient& g) {
  for (int64_t first = 0; first < s.reads; first += LINK_READS) {
    const bool last = first + LINK_READS >= s.reads;
    switch (std::min<int64_t>(LINK_READS, s.reads - first)) {
#define CASE(READS)                                                                                  \
  case READS:                                                                                        \
    last ? link_backward_some<READS, true>(s, g, first) : link_backward_some<READS, false>(s, g, first); \
    break;
      CASE(1) CASE(2)
#undef CASE
    }
  }
}

static INLINE float sum_of(const float* x, int64_t n) {
  vec total = {};
  for (int64_t j = 0; j < n; j += LANES) total += load_part(x + j, n - j);
  return sum(total);
}
// p = (1 - sum_i w(i)) p' + w.
static void precedence_forward(const LinkStep& s, float* next) {
  const float unwritten = 1.0f - sum_of(s.write, s.slots);
  for (int64_t j = 0; j < s.slots; j += LANES) {
    const int64_t n = s.slots - j;
    store_part(next + j, unwritten * load_part(s.precedence + j, n) + load_part(s.write + j, n), n);
  }
}
// d is of the new precedence at first and of the old one at the end; d_write is added to.
static void precedence_backward(const LinkStep& s, float* d, float* d_write) {
  const float unwritten = 1.0f - sum_of(s.write, s.slots);
  vec total = {};
  for (int64_t j = 0; j < s.slots; j += LANES)
    total += load_part(d + j, s.slots - j) * load_part(s.precedence + j, s.slots - j);
  const float along = sum(total);
  for (int64_t j = 0; j < s.slots; j += LANES) {
    const int64_t n = s.slots - j;
    const vec each = load_part(d + j, n);
    store_part(d_write + j, load_part(d_write + j, n) + (each - along), n);
    store_part(d + j, unwritten * each, n);
  }
}
