// Matrix products of the sizes that one step of a controller needs: few rows, a few hundred columns.
//
// A sum always runs over its index in order, one number after the other, whatever the number of rows: an item's results
// do not depend on how many other items are in its group, so they are the same for every number of threads.
#pragma once
#include <algorithm>

#include "simd.h"

// Register block: ROW_BLOCK rows by COLUMN_VECTORS vectors, as many accumulators as the registers hold.
constexpr int ROW_BLOCK = 6;
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int COLUMN_VECTORS = 4;
#else
constexpr int COLUMN_VECTORS = 2;
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
  void put(int64_t first_row, int64_t rows, const float* source, int64_t stride) {
    for (int64_t start = 0; start < columns; start += PANEL) {
      float* target = data + start * inner + first_row * width(start);
      int64_t taken = std::min(PANEL, columns - start);
      for (int64_t k = 0; k < rows; ++k)
        std::copy(source + k * stride + start, source + k * stride + start + taken, target + k * width(start));
    }
  }
  // (k, first_column + n) = source[k, n] for all rows of `inner`, columns at a place that need not begin a panel.
  void put_columns(int64_t first_column, int64_t count, const float* source, int64_t stride) {
    for (int64_t n = 0; n < count; ++n) {
      int64_t start = (first_column + n) / PANEL * PANEL;
      float* target = data + start * inner + (first_column + n - start);
      for (int64_t k = 0; k < inner; ++k) target[k * width(start)] = source[k * stride + n];
    }
  }
  // (first_row + k, n) = source[n, k]: the weight of a Linear, which is stored (output, input).
  void put_transposed(int64_t first_row, int64_t rows, const float* source, int64_t stride) {
    for (int64_t n = 0; n < columns; ++n) {
      int64_t start = n / PANEL * PANEL;
      float* target = data + start * inner + first_row * width(start) + (n - start);
      for (int64_t k = 0; k < rows; ++k) target[k * width(start)] = source[n * stride + k];
    }
  }
};

enum class Start { zero, bias, add };

// C[i, :] = start + sum_k A(i, k) B[k, :] for ROWS rows and VECTORS vectors, A(i, k) = a[i * row_step + k *
// inner_step].
template <int ROWS, int VECTORS>
static void block(int64_t inner, const float* a, int64_t row_step, int64_t inner_step, const float* b,
                  const float* bias, Start start, float* c, int64_t c_stride) {
  vec total[ROWS][VECTORS];
#pragma GCC unroll 8
  for (int i = 0; i < ROWS; ++i)
#pragma GCC unroll 8
    for (int v = 0; v < VECTORS; ++v)
      total[i][v] =
          start == Start::zero ? vec{} : load(start == Start::bias ? bias + v * LANES : c + i * c_stride + v * LANES);
  for (int64_t k = 0; k < inner; ++k) {
    vec right[VECTORS];
#pragma GCC unroll 8
    for (int v = 0; v < VECTORS; ++v) right[v] = load(b + (k * VECTORS + v) * LANES);
#pragma GCC unroll 8
    for (int i = 0; i < ROWS; ++i) {
      vec left = splat(a[i * row_step + k * inner_step]);
#pragma GCC unroll 8
      for (int v = 0; v < VECTORS; ++v) total[i][v] += left * right[v];
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < ROWS; ++i)
#pragma GCC unroll 8
    for (int v = 0; v < VECTORS; ++v) store(c + i * c_stride + v * LANES, total[i][v]);
}

template <int VECTORS>
static void rows_of(int64_t rows, int64_t inner, const float* a, int64_t row_step, const float* b, const float* bias,
                    Start start, float* c, int64_t c_stride) {
  while (rows > 0) {
    // 7 rows go as 4 + 3 and not as 6 + 1: a block of one row waits for its own sums.
    int64_t taken = rows >= 2 * ROW_BLOCK || rows == ROW_BLOCK ? ROW_BLOCK : rows > ROW_BLOCK ? (rows + 1) / 2 : rows;
    switch (taken) {
#define CASE(ROWS)                                                            \
  case ROWS:                                                                  \
    block<ROWS, VECTORS>(inner, a, row_step, 1, b, bias, start, c, c_stride); \
    break;
      CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6)
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
    switch (right.width(first) / LANES) {
      case 1:
        rows_of<1>(rows, right.inner, a, row_step, b, panel_bias, start, c + first, c_stride);
        break;
      case 2:
        rows_of<2>(rows, right.inner, a, row_step, b, panel_bias, start, c + first, c_stride);
        break;
      case 3:
        rows_of<3>(rows, right.inner, a, row_step, b, panel_bias, start, c + first, c_stride);
        break;
      case 4:
        rows_of<4>(rows, right.inner, a, row_step, b, panel_bias, start, c + first, c_stride);
        break;
    }
  }
}

// Rows of A and B taken into the caches at a time by `outer_sum`.
constexpr int64_t SUM_ROWS = 128;

// C[i, j] += sum_r A[r, first + i] B[r, j] for i < count: the gradient of a weight (output, input) as one product over
// all rows. `c` has rows of round_up(columns, LANES) numbers and room for a multiple of ROW_BLOCK rows, zero at first;
// `scratch` holds SUM_ROWS * (round_up(columns, LANES) + round_up(count, ROW_BLOCK)) numbers.
static void outer_sum(int64_t rows, const float* a, int64_t a_stride, int64_t first, int64_t count, const float* b,
                      int64_t b_stride, int64_t columns, float* c, float* scratch) {
  int64_t width = round_up(columns, LANES);
  float* left = scratch + SUM_ROWS * width;
  for (int64_t r = 0; r < rows; r += SUM_ROWS) {
    int64_t taken = std::min(SUM_ROWS, rows - r);
    // Columns of padding stay as they are: they only ever meet sums that nobody reads.
    Packed right{scratch, taken, columns};
    right.put(0, taken, b + r * b_stride, b_stride);
    for (int64_t i = 0; i < count; i += ROW_BLOCK) {
      const float* source = a + r * a_stride + first + i;
      float* target = left + i * taken;
      int64_t used = std::min<int64_t>(ROW_BLOCK, count - i);
      if (used < ROW_BLOCK) std::fill(target, target + taken * ROW_BLOCK, 0.0f);
      for (int64_t k = 0; k < taken; ++k) {
        if (used == ROW_BLOCK)
          std::memcpy(target + k * ROW_BLOCK, source + k * a_stride, ROW_BLOCK * sizeof(float));
        else
          std::copy(source + k * a_stride, source + k * a_stride + used, target + k * ROW_BLOCK);
      }
    }
    for (int64_t j = 0; j < columns; j += PANEL)
      for (int64_t i = 0; i < count; i += ROW_BLOCK) {
        const float* l = left + i * taken;
        const float* b_panel = scratch + j * taken;
        float* out = c + i * width + j;
        switch (right.width(j) / LANES) {
          case 1:
            block<ROW_BLOCK, 1>(taken, l, 1, ROW_BLOCK, b_panel, nullptr, Start::add, out, width);
            break;
          case 2:
            block<ROW_BLOCK, 2>(taken, l, 1, ROW_BLOCK, b_panel, nullptr, Start::add, out, width);
            break;
          case 3:
            block<ROW_BLOCK, 3>(taken, l, 1, ROW_BLOCK, b_panel, nullptr, Start::add, out, width);
            break;
          case 4:
            block<ROW_BLOCK, 4>(taken, l, 1, ROW_BLOCK, b_panel, nullptr, Start::add, out, width);
            break;
        }
      }
  }
}
