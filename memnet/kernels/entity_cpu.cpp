// Recurrent entity networks on the CPU: all stories of a batch.
#include "entity.h"
#include "threads.h"

namespace {

// Stories are added up in so many parts whatever the number of threads, so that the sums do not depend on it.
constexpr int64_t PARTS = 16;

template <int VECTORS>
void forward(const Problem& p, float* kept, float* answers) {
  std::vector<Story<VECTORS>> each;
  for (int64_t t = 0; t < p.threads; ++t) each.emplace_back(p, kept);
  share_out(p.stories(), p.threads, [&](int64_t story, int64_t thread) { each[thread].read(story, answers); });
}

void add_rows(const float* from, int64_t rows, int64_t width, int64_t row, float* to) {
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t i = 0; i < width; ++i) to[r * width + i] += from[r * row + i];
}

template <int VECTORS>
void backward(const Problem& p, float* kept, const float* d_answers, const Gradients& d) {
  const int64_t parts = std::min(PARTS, p.stories());
  std::vector<Past<VECTORS>> each;
  for (int64_t t = 0; t < p.threads; ++t) each.emplace_back(p, kept);
  std::vector<Sums> sums(parts, Sums(p));
  share_out(parts, p.threads, [&](int64_t part, int64_t thread) {
    for (int64_t story = part; story < p.stories(); story += parts)
      each[thread].read(story, d_answers, d, sums[part]);
  });
  std::fill_n(d.start, p.slots * p.width, 0.0f);
  std::fill_n(d.from_keys, p.slots * p.width, 0.0f);
  std::fill_n(d.slopes, p.width, 0.0f);
  std::fill_n(d.recurrent, p.width * p.width, 0.0f);
  for (const Sums& part : sums) {
    add_rows(part.start.data(), p.slots, p.width, p.row, d.start);
    add_rows(part.from_keys.data(), p.slots, p.width, p.row, d.from_keys);
    add_rows(part.slopes.data(), 1, p.width, p.row, d.slopes);
    add_rows(part.recurrent.data(), p.width, p.width, p.row, d.recurrent);
  }
}

// The paper's width of 100, as vectors of 16 and of 8; any other one as well.
template <typename Do>
void with_width(const Problem& p, Do act) {
  switch (p.vectors) {
    case 7:
      return act(Constant<7>());
    case 13:
      return act(Constant<13>());
    default:
      return act(Constant<0>());
  }
}

}  // namespace

#define EXPORT extern "C" __attribute__((visibility("default")))

EXPORT int memnet_entity_forward(const Sizes* sizes, const Inputs* inputs, float* kept, float* answers) {
  try {
    const Problem problem(*sizes, *inputs);
    with_width(problem, [&](auto vectors) { forward<vectors>(problem, kept, answers); });
    return 0;
  } catch (const std::exception&) {
    return 1;
  }
}

EXPORT int memnet_entity_backward(const Sizes* sizes, const Inputs* inputs, float* kept, const float* d_answers,
                                  const Gradients* gradients) {
  try {
    const Problem problem(*sizes, *inputs);
    with_width(problem, [&](auto vectors) { backward<vectors>(problem, kept, d_answers, *gradients); });
    return 0;
  } catch (const std::exception&) {
    return 1;
  }
}
