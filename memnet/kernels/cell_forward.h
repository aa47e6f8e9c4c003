// What happens in every cell's sequence besides its memory, forwards: the controller, the interface, the output layer.
#pragma once
#include "cell_layout.h"
#include "gemm.h"

// The parameters as the caller lists them: for each layer weight_ih, weight_hh, bias_ih, bias_hh with an LSTM, weight
// and bias without; gain and bias of the layer normalisation if there is one; then weight and bias of the interface,
// and of the output layer if there is one.
struct Parameters {
  const Cell& sizes;
  const float* const* list;
  int64_t per_layer() const { return sizes.lstm ? 4 : 2; }
  int64_t after_layers() const { return sizes.layers * per_layer(); }
  const float* of_layer(int64_t layer, int64_t which) const { return list[layer * per_layer() + which]; }
  const float* weight_in(int64_t layer) const { return of_layer(layer, 0); }
  const float* weight_hidden(int64_t layer) const { return of_layer(layer, 1); }
  const float* norm(int64_t which) const { return list[after_layers() + which]; }
  const float* interface(int64_t which) const { return list[after_layers() + 2 * sizes.normalized + which]; }
  const float* output(int64_t which) const { return interface(2 + which); }
};

// y = f(x) over any number of floats.
template <typename Function>
static INLINE void apply(int64_t count, const float* x, float* y, Function f) {
  for (int64_t i = 0; i < count; i += LANES) store_part(y + i, f(load_part(x + i, count - i)), count - i);
}

// c = f c' + i g, h = o tanh(c). `gates` may be null.
static void lstm_step(int64_t hidden, const float* z, const float* previous, float* gates, float* cell, float* output) {
  for (int64_t j = 0; j < hidden; j += LANES) {
    const int64_t n = hidden - j;
    vec i = sigmoid(load_part(z + j, n)), f = sigmoid(load_part(z + hidden + j, n));
    vec g = hyperbolic_tangent(load_part(z + 2 * hidden + j, n)), o = sigmoid(load_part(z + 3 * hidden + j, n));
    vec c = f * load_part(previous + j, n) + i * g;
    store_part(cell + j, c, n);
    store_part(output + j, o * hyperbolic_tangent(c), n);
    if (gates) {
      store_part(gates + j, i, n);
      store_part(gates + hidden + j, f, n);
      store_part(gates + 2 * hidden + j, g, n);
      store_part(gates + 3 * hidden + j, o, n);
    }
  }
}

// y = gain (x - mean) / sqrt(variance + epsilon) + bias; `normal` is what it is before gain and bias. Returns the
// factor.
static float normalize(int64_t count, const float* x, float epsilon, const float* gain, const float* bias,
                       float* normal, float* y) {
  float mean = 0.0f, variance = 0.0f;
  for (int64_t j = 0; j < count; ++j) mean += x[j];
  mean /= count;
  for (int64_t j = 0; j < count; ++j) variance += (x[j] - mean) * (x[j] - mean);
  const float scale = 1.0f / std::sqrt(variance / count + epsilon);
  for (int64_t j = 0; j < count; ++j) {
    normal[j] = (x[j] - mean) * scale;
    y[j] = gain[j] * normal[j] + bias[j];
  }
  return scale;
}

struct CellForward {
  const Cell& sizes;
  const Order& order;
  const KeptRows& rows;
  int64_t group_size;
  int64_t interface_size;
  const float* inputs;
  const float* const* state;  // hidden and cell state come first with an LSTM
  float* outputs;
  float* const* final_state;
  Parameters parameters{sizes, nullptr};
  std::vector<Packed> layer_weight{};
  std::vector<float*> layer_bias{};
  Packed interface_weight{}, output_weight{};
  float *interface_bias = nullptr, *output_bias = nullptr;

  static float* bias(Arena& arena, int64_t count) { return arena.take(round_up(count, LANES)); }
  static Packed packed(Arena& arena, int64_t inner, int64_t columns) {
    return {arena.take(Packed::size(inner, columns)), inner, columns};
  }
  void lay_out(Arena& arena) {
    for (int64_t l = 0; l < sizes.layers; ++l) {
      layer_weight.push_back(packed(arena, sizes.row_of(l), sizes.gates()));
      layer_bias.push_back(bias(arena, sizes.gates()));
    }
    interface_weight = packed(arena, sizes.hidden, interface_size);
    interface_bias = bias(arena, interface_size);
    output_weight = packed(arena, sizes.top_row(), sizes.output);
    output_bias = bias(arena, sizes.output);
  }
  static void fill_bias(int64_t count, const float* first, const float* second, float* to) {
    std::fill(to, to + round_up(count, LANES), 0.0f);
    for (int64_t i = 0; i < count; ++i) to[i] = second ? first[i] + second[i] : first[i];
  }
  void pack() {
    const bool lstm = sizes.lstm;
    for (int64_t l = 0; l < sizes.layers; ++l) {
      layer_weight[l].clear();
      layer_weight[l].put_transposed(0, sizes.below(l), parameters.weight_in(l), sizes.below(l));
      if (lstm) layer_weight[l].put_transposed(sizes.below(l), sizes.hidden, parameters.weight_hidden(l), sizes.hidden);
      fill_bias(sizes.gates(), parameters.of_layer(l, lstm ? 2 : 1), lstm ? parameters.of_layer(l, 3) : nullptr,
                layer_bias[l]);
    }
    interface_weight.clear();
    interface_weight.put_transposed(0, sizes.hidden, parameters.interface(0), sizes.hidden);
    fill_bias(interface_size, parameters.interface(1), nullptr, interface_bias);
    if (!sizes.output) return;
    output_weight.clear();
    output_weight.put_transposed(0, sizes.top_row(), parameters.output(0), sizes.top_row());
    fill_bias(sizes.output, parameters.output(1), nullptr, output_bias);
  }

  // A thread's own scratch.
  struct Scratch {
    float *z, *raw, *out;
    Scratch(const CellForward& pass, Arena& arena) {
      const int64_t n = pass.group_size;
      z = arena.take(n * round_up(pass.sizes.gates(), LANES));
      raw = arena.take(n * round_up(pass.interface_size, LANES));
      out = arena.take(n * round_up(pass.sizes.output, LANES));
    }
  };

  // Offset of an item's layer in hidden and cell state, which are (batch, layer, hidden).
  int64_t layer_at(int64_t item, int64_t l) const { return (item * sizes.layers + l) * sizes.hidden; }
  int64_t row(const Group& g, int64_t thread, int64_t t, int64_t i) const {
    return sizes.training ? order.first_row[t] + g.first + i : (thread * 2 + (t & 1)) * group_size + i;
  }
  float* raw_interface(const Scratch& s, int64_t i) const { return s.raw + i * round_up(interface_size, LANES); }
  // Where the reads of step t go, and where they come from at step t.
  float* reads_after(const Group& g, int64_t thread, int64_t t, int64_t i) const {
    return rows.top + row(g, thread, t, i) * sizes.top_row() + sizes.hidden;
  }
  float* reads_before(const Group& g, int64_t thread, int64_t t, int64_t i) const {
    return rows.rows_in[0] + row(g, thread, t, i) * sizes.row_of(0) + sizes.input;
  }

  // The controller's state and the reads before an item's first step, or, where it has none, the state's end.
  void begin(const Group& g, int64_t thread, int64_t i, const float* reads) const {
    const int64_t rank = g.first + i, item = order.item[rank];
    if (order.length[rank] == 0) {
      for (int64_t which = 0; sizes.lstm && which < 2; ++which)
        for (int64_t l = 0; l < sizes.layers; ++l)
          copy(state[which] + layer_at(item, l), sizes.hidden, final_state[which] + layer_at(item, l));
      return;
    }
    const int64_t r = row(g, thread, 0, i);
    copy(reads, sizes.reads(), reads_before(g, thread, 0, i));
    for (int64_t l = 0; sizes.lstm && l < sizes.layers; ++l) {
      copy(state[0] + layer_at(item, l), sizes.hidden, rows.rows_in[l] + r * sizes.row_of(l) + sizes.below(l));
      copy(state[1] + layer_at(item, l), sizes.hidden, rows.first_cell[l] + rank * sizes.hidden);
    }
  }

  // One layer of the controller for the items still running.
  void layer_step(const Group& g, int64_t thread, const Scratch& s, int64_t t, int64_t running, int64_t l) const {
    const int64_t first = row(g, thread, t, 0), stride = round_up(sizes.gates(), LANES), hidden = sizes.hidden;
    const bool last = l + 1 == sizes.layers, normalized = last && sizes.normalized;
    multiply(running, rows.rows_in[l] + first * sizes.row_of(l), sizes.row_of(l), layer_weight[l], layer_bias[l],
             Start::bias, s.z, stride);
    for (int64_t i = 0; i < running; ++i) {
      const int64_t r = first + i;
      float* up = last ? rows.top + r * sizes.top_row() : rows.rows_in[l + 1] + r * sizes.row_of(l + 1);
      float* control = normalized ? rows.plain + r * hidden : up;
      if (sizes.lstm)
        lstm_layer(g, thread, t, i, l, s.z + i * stride, control);
      else
        apply(hidden, s.z + i * stride, control, [](vec x) { return hyperbolic_tangent(x); });
      if (normalized)
        rows.scale[r] = normalize(hidden, control, sizes.layer_epsilon, parameters.norm(0), parameters.norm(1),
                                  rows.normal + r * hidden, up);
    }
  }
  void lstm_layer(const Group& g, int64_t thread, int64_t t, int64_t i, int64_t l, const float* z, float* up) const {
    const int64_t r = row(g, thread, t, i), rank = g.first + i, hidden = sizes.hidden;
    float* cell = rows.cell[l] + r * hidden;
    lstm_step(hidden, z, t ? rows.cell[l] + row(g, thread, t - 1, i) * hidden : rows.first_cell[l] + rank * hidden,
              sizes.training ? rows.gates[l] + r * sizes.gates() : nullptr, cell, up);
    if (t + 1 < order.length[rank]) {
      copy(up, hidden, rows.rows_in[l] + row(g, thread, t + 1, i) * sizes.row_of(l) + sizes.below(l));
    } else {
      copy(up, hidden, final_state[0] + layer_at(order.item[rank], l));
      copy(cell, hidden, final_state[1] + layer_at(order.item[rank], l));
    }
  }

  void output_step(const Group& g, int64_t thread, const Scratch& s, int64_t t, int64_t running) const {
    const float* top = rows.top + row(g, thread, t, 0) * sizes.top_row();
    const int64_t stride = round_up(sizes.output, LANES), size = sizes.output_row();
    if (sizes.output)
      multiply(running, top, sizes.top_row(), output_weight, output_bias, Start::bias, s.out, stride);
    for (int64_t i = 0; i < running; ++i)
      copy(sizes.output ? s.out + i * stride : top + i * size, size,
           outputs + (order.item[g.first + i] * sizes.time + t) * size);
  }

  // All steps of a group whose items have begun. `memory_step(t, running)` takes the interfaces of the first items,
  // before activation, to their reads.
  template <typename MemoryStep>
  void run(const Group& g, int64_t thread, const Scratch& s, MemoryStep memory_step) const {
    int64_t running = g.count;
    for (int64_t t = 0; t < sizes.time; ++t) {
      while (running && order.length[g.first + running - 1] <= t) --running;
      if (!running) break;
      const int64_t first = row(g, thread, t, 0);
      for (int64_t i = 0; i < running; ++i)
        copy(inputs + (order.item[g.first + i] * sizes.time + t) * sizes.input, sizes.input,
             rows.rows_in[0] + (first + i) * sizes.row_of(0));
      for (int64_t l = 0; l < sizes.layers; ++l) layer_step(g, thread, s, t, running, l);
      multiply(running, rows.top + first * sizes.top_row(), sizes.top_row(), interface_weight, interface_bias,
               Start::bias, s.raw, round_up(interface_size, LANES));
      memory_step(t, running);
      for (int64_t i = 0; i < running; ++i) {
        if (t + 1 < order.length[g.first + i])
          copy(reads_after(g, thread, t, i), sizes.reads(), reads_before(g, thread, t + 1, i));
      }
      output_step(g, thread, s, t, running);
    }
    for (int64_t i = 0; i < g.count; ++i) {
      const int64_t item = order.item[g.first + i], size = sizes.output_row();
      std::fill(outputs + (item * sizes.time + order.length[g.first + i]) * size,
                outputs + (item + 1) * sizes.time * size, 0.0f);
    }
  }
};
