// Matrix products of the sizes that one step of a controller needs: few rows, a few hundred columns.
//
// A sum always runs over its index in order, one number after the other, whatever the number of rows: an item's results
// do not depend on how many other items are in its group, so they are the same for every number of threads.
#pragma once
#include <algorithm>

#include "simd.h"

// Register block: ROW_BLOCK rows by COLUMN_VECTORS vectors, as many accumulators as the registers hold; rather high
// than wide, so that a step's rows need few passes over the right-hand matrix.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int ROW_BLOCK = 8, COLUMN_VECTORS = 3;
#else
constexpr int ROW_BLOCK = 6, COLUMN_VECTORS = 2;
#endif
constexpr int64_t PANEL = COLUMN_VECTORS * LANES;

// A right-hand matrix (inner x columns) in panels of PANEL columns, row after row within a panel. The columns are
// padded with zeros to whole vectors, so the last panel may be narrower.
struct Packed {
  float* data;
  int64_t inner, columns;

  static int64_t size(int64_t inner, int64_t columns) { return inner * round_up(columns, LANES); }
  int64_t width(int64_t panel_start) const { return std::min(PANEL, round_up(columns, LANES) - panel_start); }
  void clear() { std::fill(data, data + size(inner, columns), 0.0f); }

  // (first_row + k, n) = source[k, n] for `rows` rows of `stride` numbers.
  void put(int64_t first_row, int64_t rows, const float* source, int64_t stride) const {
    for (int64_t start = 0; start < columns; start += PANEL) {
      float* target = data + start * inner + first_row * width(start);
      int64_t taken = std::min(PANEL, columns - start);
      for (int64_t k = 0; k < rows; ++k)
        std::copy(source + k * stride + start, source + k * stride + start + taken, target + k * width(start));
    }
  }
  // (k, first_column + n) = source[k, n] for all rows of `inner`, columns at a place that need not begin a panel.
  void put_columns(int64_t first_column, int64_t count, const float* source, int64_t stride) {
    for (int64_t n = 0, taken; n < count; n += taken) {
      const int64_t column = first_column + n, start = column / PANEL * PANEL;
      taken = std::min(start + PANEL - column, count - n);
      float* target = data + start * inner + (column - start);
      for (int64_t k = 0; k < inner; ++k)
        std::copy(source + k * stride + n, source + k * stride + n + taken, target + k * width(start));
    }
  }
  // (first_row + k, n) = source[n, k]: the weight of a Linear, which is stored (output, input).
  void put_transposed(int64_t first_row, int64_t rows, const float* source, int64_t stride) {
    for (int64_t start = 0; start < columns; start += PANEL) {
      const int64_t taken = std::min(PANEL, columns - start);
      const float* from = source + start * stride;
      float* target = data + start * inner + first_row * width(start);
      for (int64_t k = 0; k < rows; ++k, target += width(start))
        for (int64_t n = 0; n < taken; ++n) target[n] = from[n * stride + k];
    }
  }
};

enum class Start { zero, bias, add };

// C[i, :] = start + sum_k A(i, k) B[k, :] for ROWS rows and PANELS panels of VECTORS vectors, where A(i, k) = a[i *
// row_step + k * inner_step].
template <int ROWS, int VECTORS, int PANELS = 1>
static void block(int64_t inner, const float* a, int64_t row_step, int64_t inner_step, const float* b,
                  const float* bias, Start start, float* c, int64_t c_stride) {
  constexpr int ALL = PANELS * VECTORS;
  vec total[ROWS][ALL];
#pragma GCC unroll 8
  for (int i = 0; i < ROWS; ++i)
#pragma GCC unroll 8
    for (int v = 0; v < ALL; ++v)
      total[i][v] =
          start == Start::zero ? vec{} : load(start == Start::bias ? bias + v * LANES : c + i * c_stride + v * LANES);
  for (int64_t k = 0; k < inner; ++k) {
    vec right[ALL];
#pragma GCC unroll 8
    for (int v = 0; v < ALL; ++v)
      right[v] = load(b + ((v / VECTORS * inner + k) * VECTORS + v % VECTORS) * LANES);
#pragma GCC unroll 8
    for (int i = 0; i < ROWS; ++i) {
      vec left = splat(a[i * row_step + k * inner_step]);
#pragma GCC unroll 8
      for (int v = 0; v < ALL; ++v) total[i][v] = multiply_add(left, right[v], total[i][v]);
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < ROWS; ++i)
#pragma GCC unroll 8
    for (int v = 0; v < ALL; ++v) store(c + i * c_stride + v * LANES, total[i][v]);
}

// body(Constant<vectors>) for the width of a panel.
template <int MOST = COLUMN_VECTORS, typename Body>
static INLINE void with_vectors(int64_t vectors, Body body) {
  if constexpr (MOST > 1)
    if (vectors < MOST) return with_vectors<MOST - 1>(vectors, body);
  body(Constant<MOST>{});
}

template <int VECTORS>
static void rows_of(int64_t rows, int64_t inner, const float* a, int64_t row_step, const float* b, const float* bias,
                    Start start, float* c, int64_t c_stride) {
  while (rows > 0) {
    // One row more than a block holds goes as two halves: a block of one row waits for its own sums.
    int64_t taken = rows >= 2 * ROW_BLOCK || rows == ROW_BLOCK ? ROW_BLOCK : rows > ROW_BLOCK ? (rows + 1) / 2 : rows;
    switch (taken) {
#define CASE(ROWS)                                                            \
  case ROWS:                                                                  \
    block<ROWS, VECTORS>(inner, a, row_step, 1, b, bias, start, c, c_stride); \
    break;
      CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8)
#undef CASE
    }
    rows -= taken;
    a += taken * row_step;
    c += taken * c_stride;
  }
}

// C = start + A B for `rows` rows. Writes whole vectors: a row of C (and the bias) has room for the padded columns.
static void multiply(int64_t rows, const float* a, int64_t row_step, const Packed& right, const float* bias,
                     Start start, float* c, int64_t c_stride) {
  for (int64_t first = 0; first < right.columns; first += PANEL) {
    const float* b = right.data + first * right.inner;
    const float* panel_bias = bias ? bias + first : nullptr;
    // A row or two take two panels together, so as not to wait for their own sums.
    if (rows <= 2 && first + 2 * PANEL <= round_up(right.columns, LANES)) {
      auto both = rows == 1 ? block<1, COLUMN_VECTORS, 2> : block<2, COLUMN_VECTORS, 2>;
      both(right.inner, a, row_step, 1, b, panel_bias, start, c + first, c_stride);
      first += PANEL;
      continue;
    }
    with_vectors(right.width(first) / LANES, [&](auto vectors) {
      rows_of<decltype(vectors)::value>(rows, right.inner, a, row_step, b, panel_bias, start, c + first, c_stride);
    });
  }
}

// Rows that an `OuterSum` takes at most: they stay in the caches. No power of two, which would put what is packed side
// by side in the same places of a cache.
constexpr int64_t SUM_ROWS = 120;

// C[i, j] += sum_r A[r, i] B[r, j] and sums[i] += sum_r A[r, i] for i < count, over rows that come in several pieces:
// the gradients of a weight (output, input) and its bias. `scratch` holds `size` numbers.
struct OuterSum {
  int64_t rows, count;
  Packed right;
  float* left;  // ROW_BLOCK columns of all rows, then the next ones

  static int64_t size(int64_t count, int64_t columns) {
    return SUM_ROWS * (round_up(columns, LANES) + round_up(count, ROW_BLOCK));
  }
  OuterSum(int64_t rows, int64_t count, int64_t columns, float* scratch)
      : rows(rows), count(count), right{scratch, rows, columns}, left(scratch + rows * round_up(columns, LANES)) {}

  // Rows [first, first + taken) are these.
  void take(int64_t first, int64_t taken, const float* a, const float* b, int64_t b_stride, float* sums) const {
    // Columns of padding stay as they are: they only ever meet sums that nobody reads.
    right.put(first, taken, b, b_stride);
    const int64_t whole = count / ROW_BLOCK * ROW_BLOCK;
    for (int64_t r = first; r < first + taken; ++r, a += count) {
      float* block = left + r * ROW_BLOCK;
      for (int64_t i = 0; i < whole; i += ROW_BLOCK)
        std::memcpy(block + i * rows, a + i, ROW_BLOCK * sizeof(float));
      if (whole < count) {
        std::fill(block + whole * rows, block + whole * rows + ROW_BLOCK, 0.0f);
        std::copy(a + whole, a + count, block + whole * rows);
      }
      for (int64_t i = 0; i < count; i += LANES)
        store_part(sums + i, load_part(sums + i, count - i) + load_part(a + i, count - i), count - i);
    }
  }
  // `c` has rows of round_up(columns, LANES) numbers, and a multiple of ROW_BLOCK of them.
  void add_to(float* c) const {
    const int64_t width = round_up(right.columns, LANES);
    for (int64_t j = 0; j < right.columns; j += PANEL)
      for (int64_t i = 0; i < count; i += ROW_BLOCK)
        with_vectors(right.width(j) / LANES, [&](auto vectors) {
          block<ROW_BLOCK, decltype(vectors)::value>(rows, left + i * rows, 1, ROW_BLOCK, right.data + j * rows,
                                                     nullptr, Start::add, c + i * width + j, width);
        });
  }
};
