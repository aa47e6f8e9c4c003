// The three calls of a cell's kernel: how much memory it wants, its sequence forwards, its sequence backwards.
//
// A group of batch items goes through all steps together, so that the controller's, the interface's and the output's
// products are matrix products; groups are independent and are shared out among threads, backwards several at a time.
#pragma once
#include <exception>

#include "cell_weights.h"

// What both passes derive from the sizes and the lengths. With null pointers everything is only counted.
template <typename Problem, typename Kept, typename Forward, typename Backward>
struct Plan {
  Problem problem;
  Order order;
  std::vector<Group> groups;
  int64_t group_size = 0;
  Arena kept_arena;
  Kept kept;

  Plan(const Problem& problem, const int64_t* lengths, float* block)
      : problem(problem),
        order(problem, lengths),
        groups(problem.groups()),
        group_size(largest(groups)),
        kept_arena{block},
        kept(problem, order, kept_arena, group_size) {}

  std::vector<typename Forward::Scratch> lay_out(Forward& pass, Arena& arena) const {
    pass.lay_out(arena);
    std::vector<typename Forward::Scratch> scratch;
    for (int64_t t = 0; t < problem.threads; ++t) scratch.emplace_back(pass, arena);
    return scratch;
  }
  // By thread: its scratch for the steps, and for the products that give the weights' gradients. By part: their sums.
  struct BackwardScratch {
    std::vector<typename Backward::Scratch> own;
    std::vector<float*> packed, sums;
  };
  // Parts of the groups, each with its own sums of the weights' gradients: as many whatever the number of threads, so
  // that the same numbers come out.
  int64_t parts() const { return std::min<int64_t>(groups.size(), 16); }
  BackwardScratch lay_out(Backward& pass, Arena& arena) const {
    pass.lay_out(arena);
    BackwardScratch scratch;
    for (int64_t t = 0; t < problem.threads; ++t) scratch.own.emplace_back(pass, arena);
    const auto products = products_of(pass, scratch.own[0], nullptr);
    for (int64_t t = 0; t < problem.threads; ++t) scratch.packed.push_back(arena.take(weight_scratch(products)));
    for (int64_t part = 0; part < parts(); ++part) scratch.sums.push_back(arena.take(weight_sums(products)));
    return scratch;
  }

  // Floats that the caller has to bring: kept from forward to backward, scratch of the forward and of the backward
  // pass.
  void count(int64_t* floats) const {
    Arena forward{nullptr}, backward{nullptr};
    Forward pass(problem, order, kept, group_size, nullptr, nullptr, nullptr, nullptr);
    lay_out(pass, forward);
    Backward back(problem, order, kept, group_size, nullptr, nullptr, nullptr, nullptr);
    lay_out(back, backward);
    floats[0] = kept_arena.used;
    floats[1] = forward.used;
    floats[2] = backward.used;
  }
  void forward(const float* const* parameters, const float* inputs, const float* const* state, float* outputs,
               float* const* final_state, float* scratch) const {
    Forward pass(problem, order, kept, group_size, inputs, state, outputs, final_state);
    pass.parameters.list = parameters;
    Arena arena{scratch};
    const auto own = lay_out(pass, arena);
    pass.pack();
    share_out(groups.size(), problem.threads,
              [&](int64_t g, int64_t thread) { pass.run(groups[g], thread, own[thread]); });
  }
  // `d_parameters` may be null.
  void backward(const float* const* parameters, const float* d_outputs, const float* const* d_final, float* d_inputs,
                float* const* d_state, float* const* d_parameters, float* block) const {
    Backward pass(problem, order, kept, group_size, d_outputs, d_final, d_inputs, d_state);
    pass.parameters.list = parameters;
    Arena arena{block};
    const BackwardScratch scratch = lay_out(pass, arena);
    pass.pack();
    const int64_t count = groups.size();
    share_out(parts(), problem.threads, [&](int64_t part, int64_t thread) {
      const auto& own = scratch.own[thread];
      const auto products = products_of(pass, own, d_parameters);
      float* all_sums = scratch.sums[part];
      std::fill(all_sums, all_sums + weight_sums(products), 0.0f);
      for (int64_t i = count * part / parts(); i < count * (part + 1) / parts(); ++i) {
        // What the forward pass has kept last is nearest.
        const Group& group = groups[count - 1 - i];
        pass.run(group, own, [&](int64_t from, int64_t to) {
          float* sums = all_sums;
          for (const WeightGradient& product : products) {
            if (d_parameters) product.add(pass, group, from, to, sums, scratch.packed[thread]);
            sums += product.size();
          }
        });
      }
    });
    if (d_parameters) give_weights(pass, products_of(pass, scratch.own[0], d_parameters), scratch.sums, d_parameters);
  }
};

#define EXPORT extern "C" __attribute__((visibility("default")))

// memnet_NAME_plan, _forward and _backward; each returns 1 where memory has run out. `sizes` are what the constructor
// of PROBLEM takes.
#define EXPORT_SEQUENCE(NAME, PROBLEM)                                                                               \
  EXPORT int memnet_##NAME##_plan(const int64_t* sizes, const int64_t* lengths, int64_t* floats) {                   \
    try {                                                                                                            \
      Plan<PROBLEM, Kept, Forward, Backward>(PROBLEM(sizes, nullptr), lengths, nullptr).count(floats);               \
      return 0;                                                                                                      \
    } catch (const std::exception&) {                                                                                \
      return 1;                                                                                                      \
    }                                                                                                                \
  }                                                                                                                  \
  EXPORT int memnet_##NAME##_forward(const int64_t* sizes, const float* numbers, const int64_t* lengths,             \
                                     const float* const* parameters, const float* inputs, const float* const* state, \
                                     float* outputs, float* const* final_state, float* kept, float* scratch) {       \
    try {                                                                                                            \
      Plan<PROBLEM, Kept, Forward, Backward>(PROBLEM(sizes, numbers), lengths, kept)                                 \
          .forward(parameters, inputs, state, outputs, final_state, scratch);                                        \
      return 0;                                                                                                      \
    } catch (const std::exception&) {                                                                                \
      return 1;                                                                                                      \
    }                                                                                                                \
  }                                                                                                                  \
  EXPORT int memnet_##NAME##_backward(const int64_t* sizes, const float* numbers, const int64_t* lengths,            \
                                      const float* const* parameters, const float* d_outputs,                        \
                                      const float* const* d_final, float* d_inputs, float* const* d_state,           \
                                      float* const* d_parameters, float* kept, float* scratch) {                     \
    try {                                                                                                            \
      Plan<PROBLEM, Kept, Forward, Backward>(PROBLEM(sizes, numbers), lengths, kept)                                 \
          .backward(parameters, d_outputs, d_final, d_inputs, d_state, d_parameters, scratch);                       \
      return 0;                                                                                                      \
    } catch (const std::exception&) {                                                                                \
      return 1;                                                                                                      \
    }                                                                                                                \
  }
