// The gradients of the parameters: products over all rows of all steps, made a few steps at a time while what the steps
// have left is near.
#pragma once
#include "cell_backward.h"
#include "threads.h"

// The gradient of one weight and its bias: d_weight[i, j] = sum over rows of left[r, i] right[r, j], the columns going
// to two matrices (an LSTM has one for its input and one for its own output).
struct WeightGradient {
  const float* left;  // a thread's own rows
  int64_t outputs;
  const float* right;
  int64_t inputs, stride, first_inputs;
  float *first, *second, *bias, *second_bias;  // `second` and `second_bias` may be null

  int64_t width() const { return round_up(inputs, LANES); }
  int64_t weights() const { return round_up(outputs, ROW_BLOCK) * width(); }
  // Numbers of the sums: of the weights, then of the bias.
  int64_t size() const { return weights() + round_up(outputs, LANES); }

  // Adds the rows of steps [from, to) of a group.
  void add(const CellBackward& pass, const Group& g, int64_t from, int64_t to, float* sums, float* scratch) const {
    int64_t rows = 0, taken = 0;
    for (int64_t t = from; t < to; ++t) rows += pass.order.running(g, t);
    const OuterSum product(rows, outputs, inputs, scratch);
    for (int64_t t = from; t < to; ++t) {
      const int64_t running = pass.order.running(g, t);
      product.take(taken, running, left + pass.own_row(t, 0) * outputs, right + pass.row(g, t, 0) * stride, stride,
                   sums + weights());
      taken += running;
    }
    product.add_to(sums);
  }
  void give(const float* sums) const {
    for (int64_t i = 0; i < outputs; ++i) {
      const float* row = sums + i * width();
      copy(row, first_inputs, first + i * first_inputs);
      if (second) copy(row + first_inputs, inputs - first_inputs, second + i * (inputs - first_inputs));
    }
    copy(sums + weights(), outputs, bias);
    if (second_bias) copy(sums + weights(), outputs, second_bias);
  }
};

// `d_parameters` may be null where only sizes are asked for.
static std::vector<WeightGradient> products_of(const CellBackward& pass, const CellBackward::Scratch& s,
                                               float* const* d_parameters) {
  const Cell& p = pass.sizes;
  auto d = [&](int64_t which) { return d_parameters ? d_parameters[which] : nullptr; };
  std::vector<WeightGradient> all;
  for (int64_t l = 0; l < p.layers; ++l) {
    const int64_t of = l * pass.parameters.per_layer();
    all.push_back({s.d_gates[l], p.gates(), pass.rows.rows_in[l], p.row_of(l), p.row_of(l), p.below(l), d(of),
                   p.lstm ? d(of + 1) : nullptr, d(of + (p.lstm ? 2 : 1)), p.lstm ? d(of + 3) : nullptr});
  }
  const int64_t of = pass.parameters.after_layers() + 2 * p.normalized;
  // The interface sees the control alone, the first part of a row.
  all.push_back({s.d_interface, pass.interface_size, pass.rows.top, p.hidden, p.top_row(), p.hidden, d(of), nullptr,
                 d(of + 1), nullptr});
  if (p.output)
    all.push_back({s.d_out, p.output, pass.rows.top, p.top_row(), p.top_row(), p.top_row(), d(of + 2), nullptr,
                   d(of + 3), nullptr});
  return all;
}

// Numbers of all products' sums.
static int64_t weight_sums(const std::vector<WeightGradient>& all) {
  int64_t total = 0;
  for (const WeightGradient& product : all) total += product.size();
  return total;
}
// Scratch that a thread needs to add to any of them.
static int64_t weight_scratch(const std::vector<WeightGradient>& all) {
  int64_t most = 0;
  for (const WeightGradient& product : all) most = std::max(most, OuterSum::size(product.outputs, product.inputs));
  return most;
}

// Of the layer normalisation's gain and bias.
static void normalization_gradient(const CellBackward& pass, float* d_gain, float* d_bias) {
  const int64_t hidden = pass.sizes.hidden;
  std::fill(d_gain, d_gain + hidden, 0.0f);
  std::fill(d_bias, d_bias + hidden, 0.0f);
  for (int64_t r = 0; r < pass.order.rows; ++r)
    for (int64_t j = 0; j < hidden; ++j) {
      const float d = pass.d_control[r * hidden + j];
      d_gain[j] += d * pass.rows.normal[r * hidden + j];
      d_bias[j] += d;
    }
}

// From the sums of all parts, which are added to the first one's.
static void give_weights(const CellBackward& pass, const std::vector<WeightGradient>& all,
                         const std::vector<float*>& sums, float* const* d_parameters) {
  const int64_t count = weight_sums(all);
  for (size_t part = 1; part < sums.size(); ++part)
    for (int64_t i = 0; i < count; ++i) sums[0][i] += sums[part][i];
  const float* own = sums[0];
  for (const WeightGradient& product : all) {
    product.give(own);
    own += product.size();
  }
  if (pass.sizes.normalized) {
    float* const* d = d_parameters + pass.parameters.after_layers();
    normalization_gradient(pass, d[0], d[1]);
  }
}
