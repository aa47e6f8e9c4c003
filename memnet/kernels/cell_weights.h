// The gradients of the parameters: products over all rows of all steps, made once when the steps are over.
#pragma once
#include "cell_backward.h"
#include "threads.h"

// The gradient of one weight and its bias: d_weight[i, j] = sum over rows of left[r, i] right[r, j], the columns going
// to two matrices (an LSTM has one for its input and one for its own output).
struct WeightGradient {
  const float* left;
  int64_t outputs;
  const float* right;
  int64_t inputs, stride, first_inputs;
  float *first, *second, *bias, *second_bias;  // `second` and `second_bias` may be null

  static int64_t scratch(int64_t outputs, int64_t inputs) {
    const int64_t width = round_up(inputs, LANES), height = round_up(outputs, ROW_BLOCK);
    return height * width + SUM_ROWS * (width + height) + round_up(outputs, LANES);
  }
  // Outputs [from, from + count).
  void run(int64_t rows, int64_t from, int64_t count, float* scratch) const {
    const int64_t width = round_up(inputs, LANES), height = round_up(count, ROW_BLOCK);
    float *weights = scratch, *sums = weights + height * width, *own = sums + round_up(outputs, LANES);
    std::fill(weights, own, 0.0f);
    outer_sum(rows, left, outputs, from, count, right, stride, inputs, weights, sums, own);
    for (int64_t i = 0; i < count; ++i) {
      copy(weights + i * width, first_inputs, first + (from + i) * first_inputs);
      if (second)
        copy(weights + i * width + first_inputs, inputs - first_inputs, second + (from + i) * (inputs - first_inputs));
    }
    copy(sums, count, bias + from);
    if (second_bias) copy(sums, count, second_bias + from);
  }
};

// Scratch that a thread needs for any of a cell's weights.
static int64_t weight_scratch(const CellBackward& pass) {
  const Cell& p = pass.sizes;
  int64_t most = WeightGradient::scratch(p.output, p.top_row());
  most = std::max(most, WeightGradient::scratch(pass.interface_size, p.hidden));
  for (int64_t l = 0; l < p.layers; ++l) most = std::max(most, WeightGradient::scratch(p.gates(), p.row_of(l)));
  return most;
}

static std::vector<WeightGradient> products_of(const CellBackward& pass, float* const* d_parameters) {
  const Cell& p = pass.sizes;
  const int64_t per_layer = pass.parameters.per_layer();
  std::vector<WeightGradient> all;
  for (int64_t l = 0; l < p.layers; ++l) {
    float* const* d = d_parameters + l * per_layer;
    all.push_back({pass.d_gates[l], p.gates(), pass.rows.rows_in[l], p.row_of(l), p.row_of(l), p.below(l), d[0],
                   p.lstm ? d[1] : nullptr, p.lstm ? d[2] : d[1], p.lstm ? d[3] : nullptr});
  }
  float* const* d = d_parameters + pass.parameters.after_layers() + 2 * p.normalized;
  // The interface sees the control alone, the first part of a row.
  all.push_back({pass.d_interface, pass.interface_size, pass.rows.top, p.hidden, p.top_row(), p.hidden, d[0], nullptr,
                 d[1], nullptr});
  if (p.output)
    all.push_back(
        {pass.d_out, p.output, pass.rows.top, p.top_row(), p.top_row(), p.top_row(), d[2], nullptr, d[3], nullptr});
  return all;
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

// `scratch` has `weight_scratch` numbers for each thread.
static void weight_gradients(const CellBackward& pass, float* const* d_parameters, const std::vector<float*>& scratch) {
  const std::vector<WeightGradient> all = products_of(pass, d_parameters);
  const int64_t parts = pass.sizes.threads;
  share_out(all.size() * parts, parts, [&](int64_t task, int64_t thread) {
    const WeightGradient& product = all[task / parts];
    const int64_t part = round_up((product.outputs + parts - 1) / parts, ROW_BLOCK), from = task % parts * part;
    if (from < product.outputs)
      product.run(pass.order.rows, from, std::min(part, product.outputs - from), scratch[thread]);
  });
  if (pass.sizes.normalized) {
    float* const* d = d_parameters + pass.parameters.after_layers();
    normalization_gradient(pass, d[0], d[1]);
  }
}
