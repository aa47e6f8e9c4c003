// A vector of floats as wide as the machine has, and the functions that the equations need on it.
//
// Everything is written with the vector extensions that GCC and Clang share, so that one source serves every processor;
// only products that are added up, partial loads and stores and the square root name instructions, where there are any.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#if defined(__SSE2__)
#include <immintrin.h>
#endif
#if defined(__AVX512F__)
#define MEMNET_LANES 16
#elif defined(__AVX__)
#define MEMNET_LANES 8
#else
#define MEMNET_LANES 4
#endif
#define INLINE inline __attribute__((always_inline))

template <int N>
using Constant = std::integral_constant<int, N>;

constexpr int LANES = MEMNET_LANES;
typedef float vec __attribute__((vector_size(MEMNET_LANES * 4)));
typedef int32_t ivec __attribute__((vector_size(MEMNET_LANES * 4)));
typedef float vec_anywhere __attribute__((vector_size(MEMNET_LANES * 4), aligned(4), may_alias));

static INLINE int64_t round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }
static INLINE vec splat(float x) { return x - vec{}; }
static INLINE vec load(const float* p) { return *reinterpret_cast<const vec_anywhere*>(p); }
static INLINE void store(float* p, vec x) { *reinterpret_cast<vec_anywhere*>(p) = x; }

// The first n lanes (1 <= n <= LANES); the others are zero, and memory beyond the n numbers is not touched.
static INLINE vec load_part(const float* p, int64_t n) {
  if (n >= LANES) return load(p);
#if defined(__AVX512F__)
  return (vec)_mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p);
#else
  vec x = {};
  for (int64_t i = 0; i < n; ++i) x[i] = p[i];
  return x;
#endif
}
static INLINE void store_part(float* p, vec x, int64_t n) {
  if (n >= LANES) return store(p, x);
#if defined(__AVX512F__)
  _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), (__m512)x);
#else
  for (int64_t i = 0; i < n; ++i) p[i] = x[i];
#endif
}
// a b + c, rounded once where the machine can. Compilers may do so for one loop and not for another one, as GCC does on
// AMD's processors where a sum has few others beside it; then the same sum in both would differ.
static INLINE vec multiply_add(vec a, vec b, vec c) {
#if defined(__AVX512F__)
  return (vec)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__FMA__)
  return (vec)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
  return a * b + c;
#endif
}
// All ones in the first n lanes.
static INLINE ivec lanes_below(int64_t n) {
  ivec count;
  for (int i = 0; i < LANES; ++i) count[i] = i;
  return count < (int32_t)(n < LANES ? n : LANES) - ivec{};
}
static INLINE vec square_root(vec x) {
#if defined(__AVX512F__)
  return (vec)_mm512_sqrt_ps((__m512)x);
#else
  vec y;
  for (int i = 0; i < LANES; ++i) y[i] = std::sqrt(x[i]);
  return y;
#endif
}
static INLINE vec max_of(vec a, vec b) { return a > b ? a : b; }
// Bounded either way; what is not a number stays so.
static INLINE vec within(vec x, float bound) {
  const vec most = splat(bound);
  x = x > most ? most : x;
  return x < -most ? -most : x;
}
static INLINE vec magnitude(vec x) { return (vec)((ivec)x & 0x7fffffff); }

#if defined(__clang__) || __GNUC__ >= 12
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, ivec{__VA_ARGS__})
#endif

// Lane i of the result is the sum over the lanes of rows[i], i < LANES; the rows are overwritten. Each step folds rows
// that are WIDTH apart, and groups of lanes of that width, in halves; the lanes come out in the order of the rows.
template <int WIDTH>
struct Lanes;
#define LANE_STEP(WIDTH, SWAP, LOW, HIGH)                                                     \
  template <>                                                                                 \
  struct Lanes<WIDTH> {                                                                       \
    static INLINE vec swap(vec a) { return SHUFFLE(a, a, SWAP); }                             \
    static INLINE vec fold(vec a, vec b) { return SHUFFLE(a, b, LOW) + SHUFFLE(a, b, HIGH); } \
  };
#define LIST(...) __VA_ARGS__
#if MEMNET_LANES == 16
LANE_STEP(8, LIST(8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7),
          LIST(0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23),
          LIST(8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31))
LANE_STEP(4, LIST(4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11),
          LIST(0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27),
          LIST(4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31))
LANE_STEP(2, LIST(2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13),
          LIST(0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29),
          LIST(2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31))
LANE_STEP(1, LIST(1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14),
          LIST(0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30),
          LIST(1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31))
#elif MEMNET_LANES == 8
LANE_STEP(4, LIST(4, 5, 6, 7, 0, 1, 2, 3), LIST(0, 1, 2, 3, 8, 9, 10, 11), LIST(4, 5, 6, 7, 12, 13, 14, 15))
LANE_STEP(2, LIST(2, 3, 0, 1, 6, 7, 4, 5), LIST(0, 1, 8, 9, 4, 5, 12, 13), LIST(2, 3, 10, 11, 6, 7, 14, 15))
LANE_STEP(1, LIST(1, 0, 3, 2, 5, 4, 7, 6), LIST(0, 8, 2, 10, 4, 12, 6, 14), LIST(1, 9, 3, 11, 5, 13, 7, 15))
#else
LANE_STEP(2, LIST(2, 3, 0, 1), LIST(0, 1, 4, 5), LIST(2, 3, 6, 7))
LANE_STEP(1, LIST(1, 0, 3, 2), LIST(0, 4, 2, 6), LIST(1, 5, 3, 7))
#endif

template <int WIDTH = LANES / 2>
static INLINE vec sums_of(vec* rows) {
  for (int i = 0; i < WIDTH; ++i) rows[i] = Lanes<WIDTH>::fold(rows[i], rows[i + WIDTH]);
  if constexpr (WIDTH > 1)
    return sums_of<WIDTH / 2>(rows);
  else
    return rows[0];
}
template <int WIDTH = LANES / 2>
static INLINE float sum(vec x) {
  x += Lanes<WIDTH>::swap(x);
  if constexpr (WIDTH > 1)
    return sum<WIDTH / 2>(x);
  else
    return x[0];
}
template <int WIDTH = LANES / 2>
static INLINE float highest(vec x) {
  x = max_of(x, Lanes<WIDTH>::swap(x));
  if constexpr (WIDTH > 1)
    return highest<WIDTH / 2>(x);
  else
    return x[0];
}

// A comparison with NaN is false, and below it is arranged so that every function gives NaN for NaN.

// exp(x), about 1e-7 relative. Below -87.3 it is 0, above 88 it stays at exp(88).
static INLINE vec exponential(vec x) {
  const float round_off = 12582912.0f;  // 1.5 * 2^23: adding it rounds to a whole number
  vec y = x > 88.0f ? splat(88.0f) : x;
  y = y < -87.3f ? splat(-87.3f) : y;
  vec shifted = y * 1.44269504f + round_off;
  vec count = shifted - round_off;
  // ln 2 in two parts, the first short enough for an exact product.
  vec r = y - count * 0.693359375f;
  r = r + count * 2.12194440e-4f;
  vec p = splat(1.38117e-3f);
  p = p * r + 8.37014e-3f;
  p = p * r + 4.166853e-2f;
  p = p * r + 0.16666509f;
  p = p * r + 0.49999993f;
  p = p * (r * r) + r + 1.0f;
  // A product, not an addition to the exponent bits: NaN must stay NaN.
  ivec power = ((ivec)shifted + 127) << 23;
  vec result = p * (vec)power;
  return x < -87.3f ? vec{} : result;
}

// log(x) for normal x > 0, about 1e-7 relative; NaN for all others.
static INLINE vec logarithm(vec x) {
  ivec bits = (ivec)x;
  ivec power = (bits - 0x3f3504f3) >> 23;  // so that the fraction lies between sqrt(1/2) and sqrt(2)
  vec f = (vec)(bits - (power << 23)) - 1.0f;
  vec p = splat(-7.632209e-2f);
  p = p * f + 0.12760831f;
  p = p * f - 0.13160648f;
  p = p * f + 0.14201887f;
  p = p * f - 0.16623326f;
  p = p * f + 0.2000122f;
  p = p * f - 0.25000822f;
  p = p * f + 0.33333332f;
  vec square = f * f;
  vec count = __builtin_convertvector(power, vec);
  vec y = p * f * square;
  y = y - count * 2.12194440e-4f;
  y = y - 0.5f * square;
  y = y + f;
  y = y + count * 0.693359375f;
  // x - x is 0, but NaN for infinity and NaN.
  return x > 0.0f ? y + (x - x) : splat(__builtin_nanf(""));
}

static INLINE vec sigmoid(vec x) { return 1.0f / (1.0f + exponential(-x)); }

static INLINE vec hyperbolic_tangent(vec x) {
  vec square = x * x;
  vec p = splat(-5.70498e-3f);
  p = p * square + 2.063908e-2f;
  p = p * square - 5.373971e-2f;
  p = p * square + 0.13331442f;
  p = p * square - 0.33333282f;
  vec small = p * square * x + x;
  vec size = magnitude(x);
  vec large = 1.0f - 2.0f / (exponential(size + size) + 1.0f);
  large = x < 0.0f ? -large : large;
  return size < 0.625f ? small : large;
}

// log(1 + exp(x)) without losing the small values: log1p(e) = log(u) e / (u - 1) with u = 1 + e rounded.
static INLINE vec softplus(vec x) {
  vec e = exponential(-magnitude(x));
  vec u = 1.0f + e;
  vec rest = u - 1.0f;
  vec log1p = rest == 0.0f ? e : logarithm(u) * (e / rest);
  return (x < 0.0f ? vec{} : x) + log1p;
}
