// The whole sequence of a Neural Turing Machine, forwards and backwards, on the CPU.
//
// A group of batch items goes through all steps together, so that the controller's, the interface's and the output's
// products are matrix products; groups are independent and are shared out among threads. The gradients of the weights
// are products over all rows of all steps, made once at the end.
#include <exception>

#include "ntm_backward.h"
#include "threads.h"

namespace {

// What both passes derive from the sizes and the lengths. With null pointers everything is only counted.
struct Plan {
  Problem problem;
  Order order;
  std::vector<Group> groups;
  int64_t group_size = 0;
  Arena kept_arena;
  Kept kept;

  Plan(const Sizes& sizes, const float* numbers, const int64_t* lengths, float* block)
      : problem(sizes, numbers),
        order(problem, lengths),
        groups(groups_of(problem)),
        group_size(largest(groups)),
        kept_arena{block},
        kept(problem, order, kept_arena, group_size) {}
  static int64_t largest(const std::vector<Group>& groups) {
    int64_t most = 0;
    for (const Group& g : groups) most = std::max(most, g.count);
    return most;
  }
  std::vector<Forward::Scratch> lay_out(Forward& pass, Arena& arena) const {
    pass.lay_out(arena);
    std::vector<Forward::Scratch> scratch;
    for (int64_t t = 0; t < problem.threads; ++t) scratch.emplace_back(problem, group_size, arena);
    return scratch;
  }
  // A thread needs its scratch for the steps first, and for the weights' gradients when those are over.
  std::vector<Backward::Scratch> lay_out(Backward& pass, Arena& arena, std::vector<float*>& products) const {
    pass.lay_out(arena);
    int64_t product = WeightGradient::scratch(problem.output, problem.top_row());
    product = std::max(product, WeightGradient::scratch(problem.interface(), problem.hidden));
    for (int64_t l = 0; l < problem.layers; ++l)
      product = std::max(product, WeightGradient::scratch(problem.gates(), problem.row_of(l)));
    std::vector<Backward::Scratch> scratch;
    for (int64_t t = 0; t < problem.threads; ++t) {
      scratch.emplace_back(pass, arena);
      products.push_back(arena.take(product));
    }
    return scratch;
  }
};

std::vector<WeightGradient> products_of(const Backward& pass, float* const* d_parameters) {
  const Problem& p = pass.p;
  std::vector<WeightGradient> all;
  for (int64_t l = 0; l < p.layers; ++l) {
    float* const* d = d_parameters + l * (p.lstm ? 4 : 2);
    all.push_back({pass.d_gates[l], p.gates(), pass.kept.rows_in[l], p.row_of(l), p.row_of(l), p.below(l), d[0],
                   p.lstm ? d[1] : nullptr, p.lstm ? d[2] : d[1], p.lstm ? d[3] : nullptr});
  }
  float* const* d = d_parameters + p.layers * (p.lstm ? 4 : 2);
  // The interface sees the control alone, the first part of a row.
  all.push_back(
      {pass.d_interface, p.interface(), pass.kept.top, p.hidden, p.top_row(), p.hidden, d[0], nullptr, d[1], nullptr});
  all.push_back(
      {pass.d_out, p.output, pass.kept.top, p.top_row(), p.top_row(), p.top_row(), d[2], nullptr, d[3], nullptr});
  return all;
}

}  // namespace

#define EXPORT extern "C" __attribute__((visibility("default")))

// Floats that the caller has to bring: kept from forward to backward, scratch of the forward and of the backward pass.
EXPORT int memnet_ntm_plan(const int64_t* sizes, const int64_t* lengths, int64_t* floats) {
  try {
    Plan plan(*reinterpret_cast<const Sizes*>(sizes), nullptr, lengths, nullptr);
    Arena forward{nullptr}, backward{nullptr};
    Forward pass{plan.problem, plan.order, plan.kept, plan.group_size, nullptr, nullptr, nullptr, nullptr};
    plan.lay_out(pass, forward);
    Backward back{plan.problem, plan.order, plan.kept, plan.group_size, nullptr, nullptr, nullptr, nullptr};
    std::vector<float*> products;
    plan.lay_out(back, backward, products);
    floats[0] = plan.kept_arena.used;
    floats[1] = forward.used;
    floats[2] = backward.used;
    return 0;
  } catch (const std::exception&) {
    return 1;
  }
}

EXPORT int memnet_ntm_forward(const int64_t* sizes, const float* numbers, const int64_t* lengths,
                              const float* const* parameters, const float* inputs, const float* const* state,
                              float* outputs, float* const* final_state, float* kept, float* scratch) {
  try {
    Plan plan(*reinterpret_cast<const Sizes*>(sizes), numbers, lengths, kept);
    Forward pass{plan.problem, plan.order, plan.kept, plan.group_size, inputs, state, outputs, final_state};
    pass.parameters.list = parameters;
    Arena arena{scratch};
    const std::vector<Forward::Scratch> own = plan.lay_out(pass, arena);
    pass.pack();
    share_out(plan.groups.size(), plan.problem.threads,
              [&](int64_t g, int64_t thread) { pass.run(plan.groups[g], thread, own[thread]); });
    return 0;
  } catch (const std::exception&) {
    return 1;
  }
}

EXPORT int memnet_ntm_backward(const int64_t* sizes, const float* numbers, const int64_t* lengths,
                               const float* const* parameters, const float* d_outputs, const float* const* d_final,
                               float* d_inputs, float* const* d_state, float* const* d_parameters, float* kept,
                               float* scratch) {
  try {
    Plan plan(*reinterpret_cast<const Sizes*>(sizes), numbers, lengths, kept);
    Backward pass{plan.problem, plan.order, plan.kept, plan.group_size, d_outputs, d_final, d_inputs, d_state};
    pass.parameters.list = parameters;
    Arena arena{scratch};
    std::vector<float*> products;
    const std::vector<Backward::Scratch> own = plan.lay_out(pass, arena, products);
    pass.pack();
    share_out(plan.groups.size(), plan.problem.threads,
              [&](int64_t g, int64_t thread) { pass.run(plan.groups[g], own[thread]); });
    if (!d_parameters) return 0;
    const std::vector<WeightGradient> all = products_of(pass, d_parameters);
    const int64_t parts = plan.problem.threads;
    share_out(all.size() * parts, parts, [&](int64_t task, int64_t thread) {
      const WeightGradient& product = all[task / parts];
      const int64_t part = round_up((product.outputs + parts - 1) / parts, ROW_BLOCK), from = task % parts * part;
      if (from < product.outputs)
        product.run(plan.order.rows, from, std::min(part, product.outputs - from), products[thread]);
    });
    return 0;
  } catch (const std::exception&) {
    return 1;
  }
}
