// The temporal link of the Differentiable Neural Computer: its step forward, and its step backward, for the matrices of
// all sequences and write heads.
#include <vector>

#include "dnc_link_step.h"
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
  const float *link, *precedence, *write, *read;
  const float *d_next_link, *d_next_precedence, *d_back, *d_forth;  // null where there is no gradient
  float *d_link, *d_precedence, *d_write, *d_read;
};

// Head `head` of all sequences' write heads.
LinkStep step_of(const Sizes& s, int64_t head, const float* link, const float* precedence, const float* write,
                 const float* read) {
  const int64_t n = s.slots;
  return {n, s.reads, n, link + head * n * n, precedence + head * n, write + head * n,
          read + head / s.writes * s.reads * n};
}

void step(const Sizes& s, const Forward& f, int64_t head) {
  const int64_t n = s.slots;
  const LinkStep one = step_of(s, head, f.link, f.precedence, f.write, f.read);
  precedence_forward(one, f.next_precedence + head * n);
  link_forward(one, f.next_link + head * n * n, f.back + head * s.reads * n, f.forth + head * s.reads * n);
}

void copy_or_zero(const float* from, int64_t offset, int64_t count, float* to) {
  if (from)
    std::copy(from + offset, from + offset + count, to);
  else
    std::fill(to, to + count, 0.0f);
}

void step_back(const Sizes& s, const Backward& b, int64_t head, const float* zeros) {
  const int64_t n = s.slots, followed = s.reads * n;
  const LinkStep one = step_of(s, head, b.link, b.precedence, b.write, b.read);
  float *d_p = b.d_precedence + head * n, *d_w = b.d_write + head * n;
  const LinkGradient gradient{b.d_link + head * n * n,
                              d_p,
                              d_w,
                              b.d_read + head * followed,
                              b.d_back ? b.d_back + head * followed : zeros,
                              b.d_forth ? b.d_forth + head * followed : zeros};
  copy_or_zero(b.d_next_link, head * n * n, n * n, gradient.d_link);
  copy_or_zero(b.d_next_precedence, head * n, n, d_p);
  std::fill(d_w, d_w + n, 0.0f);
  std::fill(gradient.d_read, gradient.d_read + followed, 0.0f);
  precedence_backward(one, d_p, d_w);
  link_backward(one, gradient);
}

}  // namespace

#define EXPORT extern "C" __attribute__((visibility("default")))

EXPORT void memnet_link_forward(const Sizes* sizes, const Forward* tensors) {
  share_out(sizes->batch * sizes->writes, sizes->threads, [&](int64_t head, int64_t) { step(*sizes, *tensors, head); });
}

EXPORT void memnet_link_backward(const Sizes* sizes, const Backward* tensors) {
  const std::vector<float> zeros(sizes->reads * sizes->slots);
  share_out(sizes->batch * sizes->writes, sizes->threads,
            [&](int64_t head, int64_t) { step_back(*sizes, *tensors, head, zeros.data()); });
}
