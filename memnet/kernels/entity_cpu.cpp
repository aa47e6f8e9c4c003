// Recurrent entity networks on the CPU: all stories of a batch and the questions about them.
#include "entity_backward.h"
#include "entity_forward.h"
#include "entity_sums.h"
#include "threads.h"

namespace {

// Stories are added up in so many parts whatever the number of threads, so that the sums do not depend on it.
constexpr int64_t PARTS = 16;

// Questions that are answered together.
constexpr int64_t TOGETHER = 32;

// task(first, count, thread) for the questions, so many at a time.
template <typename Task>
void share_out_questions(const Problem& p, Task task) {
  share_out((p.batch + TOGETHER - 1) / TOGETHER, p.threads, [&](int64_t group, int64_t thread) {
    task(group * TOGETHER, std::min(TOGETHER, p.batch - group * TOGETHER), thread);
  });
}

template <int VECTORS>
void forward(const Problem& p, float* kept, float* logits) {
  const ForwardWeights weights(p);
  std::vector<float> own(p.kept ? 0 : Asked::size(p));
  const Asked asked(p, p.kept ? kept + Heard::size(p, p.told()) : own.data());
  std::vector<Story<VECTORS>> readers;
  std::vector<Answerer> answerers;
  for (int64_t t = 0; t < p.threads; ++t) {
    readers.emplace_back(p, weights, kept, asked);
    answerers.emplace_back(p, weights, asked, std::min(TOGETHER, p.batch));
  }
  share_out(*p.stories, p.threads, [&](int64_t story, int64_t thread) { readers[thread].read(story); });
  share_out_questions(
      p, [&](int64_t first, int64_t count, int64_t thread) { answerers[thread].answer(first, count, logits); });
}

template <int VECTORS>
void backward(const Problem& p, float* kept, const float* d_logits, const Gradients& d) {
  const BackwardWeights weights(p);
  const Heard heard(p, p.told(), kept);
  const Asked asked(p, kept + Heard::size(p, p.told()));
  const int64_t parts = std::min(PARTS, *p.stories);
  Traces traces(p);
  std::vector<Sums> sums(parts, Sums(p));
  std::vector<Past<VECTORS>> readers;
  for (int64_t t = 0; t < p.threads; ++t) readers.emplace_back(p, weights, heard, asked, traces);
  ParameterSums<VECTORS> total(p, weights, asked, d_logits, traces, sums);
  share_out_questions(p, [&](int64_t first, int64_t count, int64_t) {
    answer_backward(p, weights, asked, first, count, d_logits, traces);
  });
  share_out(parts, p.threads, [&](int64_t part, int64_t thread) {
    for (int64_t story = part; story < *p.stories; story += parts) readers[thread].read(story, sums[part]);
  });
  share_out(total.TASKS, p.threads, [&](int64_t task, int64_t) { total.run(task); });
  total.write(d);
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

// Makes the plan, and says how many numbers a forward pass keeps for a backward pass.
EXPORT int memnet_entity_plan(const Sizes* sizes, const int64_t* story, int64_t* numbers, int64_t* kept) {
  try {
    const Plan plan(*sizes, numbers);
    Planner(*sizes, story).write(plan);
    const Layout layout(*sizes);
    *kept = Heard::size(layout, plan.told()) + Asked::size(layout);
    return 0;
  } catch (const std::exception&) {
    return 1;
  }
}

EXPORT int memnet_entity_forward(const Sizes* sizes, const Inputs* inputs, const Parameters* parameters, float* kept,
                                 float* logits) {
  try {
    const Problem problem(*sizes, *inputs, *parameters);
    with_width(problem, [&](auto vectors) { forward<vectors>(problem, kept, logits); });
    return 0;
  } catch (const std::exception&) {
    return 1;
  }
}

EXPORT int memnet_entity_backward(const Sizes* sizes, const Inputs* inputs, const Parameters* parameters, float* kept,
                                  const float* d_logits, const Gradients* gradients) {
  try {
    const Problem problem(*sizes, *inputs, *parameters);
    with_width(problem, [&](auto vectors) { backward<vectors>(problem, kept, d_logits, *gradients); });
    return 0;
  } catch (const std::exception&) {
    return 1;
  }
}
