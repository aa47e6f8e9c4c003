// End-to-end memory networks on the CPU: one or many of them, each with its own weights and questions.
#include "memn2n.h"
#include "threads.h"

namespace {

// Questions that a thread takes at once from a forward pass; copying a network's weights takes as long as some of them.
constexpr int64_t QUESTIONS = 64;

template <int VECTORS>
std::vector<Reader<VECTORS>> readers(const Problem& p) {
  std::vector<Reader<VECTORS>> each;
  each.reserve(p.threads);
  for (int64_t t = 0; t < p.threads; ++t) each.emplace_back(p);
  return each;
}

template <int VECTORS>
void forward(const Problem& p, Tensors<const float> tensors, float* logits) {
  std::vector<Reader<VECTORS>> each = readers<VECTORS>(p);
  const int64_t parts = (p.batch + QUESTIONS - 1) / QUESTIONS;
  share_out(p.members * parts, p.threads, [&](int64_t task, int64_t thread) {
    Reader<VECTORS>& reader = each[thread];
    const int64_t member = task / parts, first = task % parts * QUESTIONS;
    reader.weights.read(tensors, member);
    for (int64_t item = first; item < std::min(p.batch, first + QUESTIONS); ++item) {
      reader.forward(member, item);
      reader.answer(logits + (member * p.batch + item) * p.answers);
    }
  });
}

template <int VECTORS>
void backward(const Problem& p, Tensors<const float> tensors, const float* d_logits, Tensors<float> d_tensors) {
  std::vector<Reader<VECTORS>> each = readers<VECTORS>(p);
  share_out(p.members, p.threads, [&](int64_t member, int64_t thread) {
    Reader<VECTORS>& reader = each[thread];
    reader.weights.read(tensors, member);
    reader.gradients.clear();
    for (int64_t item = 0; item < p.batch; ++item) {
      reader.forward(member, item);
      reader.backward(d_logits + (member * p.batch + item) * p.answers);
    }
    reader.gradients.write(d_tensors, member);
  });
}

// The widths of the paper's networks, 20, 50 and 100, as vectors of 16 and of 8; any other one as well.
template <typename Do>
void with_vectors(const Problem& p, Do act) {
  switch (p.vectors) {
    case 2:
      return act(std::integral_constant<int, 2>());
    case 3:
      return act(std::integral_constant<int, 3>());
    case 4:
      return act(std::integral_constant<int, 4>());
    case 7:
      return act(std::integral_constant<int, 7>());
    default:
      return act(std::integral_constant<int, 0>());
  }
}

}  // namespace

#define EXPORT extern "C" __attribute__((visibility("default")))

EXPORT int memnet_memn2n_forward(const Sizes* sizes, const Network* network, const Inputs* inputs,
                                 Tensors<const float> tensors, float* logits) {
  try {
    const Problem problem(*sizes, *network, *inputs);
    with_vectors(problem, [&](auto vectors) { forward<vectors>(problem, tensors, logits); });
    return 0;
  } catch (const std::exception&) {
    return 1;
  }
}

EXPORT int memnet_memn2n_backward(const Sizes* sizes, const Network* network, const Inputs* inputs,
                                  Tensors<const float> tensors, const float* d_logits, Tensors<float> d_tensors) {
  try {
    const Problem problem(*sizes, *network, *inputs);
    with_vectors(problem, [&](auto vectors) { backward<vectors>(problem, tensors, d_logits, d_tensors); });
    return 0;
  } catch (const std::exception&) {
    return 1;
  }
}
