// The temporal link of the Differentiable Neural Computer: its step forward, and its step backward, in one pass each
// over the matrix of every sequence and write head. The equations are those of memnet/functional_dnc.py.
#include "threads.h"

namespace {

struct Sizes {
  int64_t batch, writes, reads, slots, threads;
};

struct Forward {
  const float *link, *precedence, *write, *read;
  float *next_link, *next_precedence, *back, *forth;
};

struct Backward {
  const float *link, *precedence, *write, *read, *next_link;
  const float *d_next_link, *d_next_precedence, *d_back, *d_forth;  // null where there is no gradient
  float *d_link, *d_precedence, *d_write, *d_read;
};

// Calls act(vector's first place, how many numbers it has).
template <typename Act>
INLINE void by_vectors(int64_t n, Act act) {
  int64_t j = 0;
  for (; j + LANES <= n; j += LANES) act(j, (int64_t)LANES);
  if (j < n) act(j, n - j);
}
INLINE vec get(const float* p, int64_t lanes) { return lanes == LANES ? load(p) : load_part(p, lanes); }
INLINE void put(float* p, vec x, int64_t lanes) { lanes == LANES ? store(p, x) : store_part(p, x, lanes); }
INLINE float total(vec x) {
  float sum = 0;
  for (int i = 0; i < LANES; ++i) sum += x[i];
  return sum;
}
INLINE float dot(const float* a, const float* b, int64_t n) {
  vec sum = {};
  by_vectors(n, [&](int64_t j, int64_t lanes) { sum += get(a + j, lanes) * get(b + j, lanes); });
  return total(sum);
}
INLINE void add_scaled(float* to, float scale, const float* x, int64_t n) {
  by_vectors(n, [&](int64_t j, int64_t lanes) { put(to + j, get(to + j, lanes) + scale * get(x + j, lanes), lanes); });
}
INLINE void clear(float* x, int64_t n) { std::memset(x, 0, n * sizeof(float)); }
INLINE float sum_of(const float* x, int64_t n) {
  vec sum = {};
  by_vectors(n, [&](int64_t j, int64_t lanes) { sum += get(x + j, lanes); });
  return total(sum);
}
INLINE void at_least_zero(float* x, int64_t n) {
  for (int64_t j = 0; j < n; ++j) x[j] = x[j] < 0 ? 0 : x[j];
}

// Head `head` of all sequences' write heads.
void step(const Sizes& s, const Forward& f, int64_t head) {
  const int64_t n = s.slots;
  const float *link = f.link + head * n * n, *p = f.precedence + head * n, *w = f.write + head * n;
  const float* read = f.read + head / s.writes * s.reads * n;
  float *next = f.next_link + head * n * n, *next_p = f.next_precedence + head * n;
  float *back = f.back + head * s.reads * n, *forth = f.forth + head * s.reads * n;

  const float unwritten = 1 - sum_of(w, n);
  by_vectors(n, [&](int64_t j, int64_t lanes) {
    put(next_p + j, unwritten * get(p + j, lanes) + get(w + j, lanes), lanes);
  });
  clear(back, s.reads * n);
  for (int64_t i = 0; i < n; ++i) {
    const float wi = w[i];
    float* row = next + i * n;
    by_vectors(n, [&](int64_t j, int64_t lanes) {
      const vec kept = ((1 - wi) - get(w + j, lanes)) * get(link + i * n + j, lanes);
      put(row + j, kept + wi * get(p + j, lanes), lanes);
    });
    row[i] = 0;
    for (int64_t r = 0; r < s.reads; ++r) {
      const float* reading = read + r * n;
      forth[r * n + i] = dot(row, reading, n);
      add_scaled(back + r * n, reading[i], row, n);
    }
  }
  at_least_zero(back, s.reads * n);
  at_least_zero(forth, s.reads * n);
}

void step_back(const Sizes& s, const Backward& b, int64_t head) {
  const int64_t n = s.slots;
  const float *link = b.link + head * n * n, *p = b.precedence + head * n, *w = b.write + head * n;
  const float *read = b.read + head / s.writes * s.reads * n, *next = b.next_link + head * n * n;
  const float* d_back = b.d_back ? b.d_back + head * s.reads * n : nullptr;
  const float* d_forth = b.d_forth ? b.d_forth + head * s.reads * n : nullptr;
  float *d_link = b.d_link + head * n * n, *d_p = b.d_precedence + head * n, *d_w = b.d_write + head * n;
  float* d_read = b.d_read + head * s.reads * n;

  clear(d_p, n);
  clear(d_w, n);
  clear(d_read, s.reads * n);
  if (b.d_next_precedence) {
    const float* d_next_p = b.d_next_precedence + head * n;
    const float unwritten = 1 - sum_of(w, n), along = dot(d_next_p, p, n);
    by_vectors(n, [&](int64_t j, int64_t lanes) {
      const vec d = get(d_next_p + j, lanes);
      put(d_w + j, d - along, lanes);
      put(d_p + j, unwritten * d, lanes);
    });
  }
  for (int64_t i = 0; i < n; ++i) {
    float* row = d_link + i * n;  // of the gradient by the new link, until it is that by the old one
    if (b.d_next_link) {
      std::memcpy(row, b.d_next_link + head * n * n + i * n, n * sizeof(float));
    } else {
      clear(row, n);
    }
    for (int64_t r = 0; r < s.reads; ++r) {
      const float* reading = read + r * n;
      if (d_forth) {
        add_scaled(row, d_forth[r * n + i], reading, n);
        add_scaled(d_read + r * n, d_forth[r * n + i], next + i * n, n);
      }
      if (d_back) {
        add_scaled(row, reading[i], d_back + r * n, n);
        d_read[r * n + i] += dot(next + i * n, d_back + r * n, n);
      }
    }
    row[i] = 0;
    const float wi = w[i];
    vec by_row = {};
    by_vectors(n, [&](int64_t j, int64_t lanes) {
      const vec d = get(row + j, lanes), product = d * get(link + i * n + j, lanes);
      by_row += d * get(p + j, lanes) - product;
      put(d_w + j, get(d_w + j, lanes) - product, lanes);
      put(d_p + j, get(d_p + j, lanes) + wi * d, lanes);
      put(row + j, ((1 - wi) - get(w + j, lanes)) * d, lanes);
    });
    d_w[i] += total(by_row);
  }
}

}  // namespace

#define EXPORT extern "C" __attribute__((visibility("default")))

EXPORT void memnet_link_forward(const Sizes* sizes, const Forward* tensors) {
  share_out(sizes->batch * sizes->writes, sizes->threads, [&](int64_t head, int64_t) { step(*sizes, *tensors, head); });
}

EXPORT void memnet_link_backward(const Sizes* sizes, const Backward* tensors) {
  share_out(sizes->batch * sizes->writes, sizes->threads,
            [&](int64_t head, int64_t) { step_back(*sizes, *tensors, head); });
}
