// What happens in every cell's sequence besides its memory, backwards, and the gradients of the parameters.
#pragma once
#include "cell_forward.h"

// Backwards through `lstm_step`: d_output and d_cell (of this step's cell state) become d_gates (before the
// activations) and d_cell of the step before.
static void lstm_gradient(int64_t hidden, const float* gates, const float* cell, const float* previous,
                          const float* d_above, const float* d_later, float* d_cell, float* d_gates) {
  for (int64_t j = 0; j < hidden; j += LANES) {
    const int64_t n = hidden - j;
    vec i = load_part(gates + j, n), f = load_part(gates + hidden + j, n);
    vec g = load_part(gates + 2 * hidden + j, n), o = load_part(gates + 3 * hidden + j, n);
    vec squashed = hyperbolic_tangent(load_part(cell + j, n));
    vec d = load_part(d_above + j, n) + load_part(d_later + j, n);
    vec d_c = load_part(d_cell + j, n) + d * o * (1.0f - squashed * squashed);
    store_part(d_gates + j, d_c * g * i * (1.0f - i), n);
    store_part(d_gates + hidden + j, d_c * load_part(previous + j, n) * f * (1.0f - f), n);
    store_part(d_gates + 2 * hidden + j, d_c * i * (1.0f - g * g), n);
    store_part(d_gates + 3 * hidden + j, d * squashed * o * (1.0f - o), n);
    store_part(d_cell + j, d_c * f, n);
  }
}

// Backwards through `normalize`: d, the gradient of its result, becomes that of what went in.
static void normalize_gradient(int64_t count, const float* normal, float scale, const float* gain, float* d) {
  float mean = 0.0f, along = 0.0f;
  for (int64_t j = 0; j < count; ++j) {
    d[j] *= gain[j];
    mean += d[j];
    along += d[j] * normal[j];
  }
  mean /= count;
  along /= count;
  for (int64_t j = 0; j < count; ++j) d[j] = (d[j] - mean - along * normal[j]) * scale;
}

struct CellBackward {
  const Cell& sizes;
  const Order& order;
  const KeptRows& rows;
  int64_t group_size;
  int64_t interface_size;
  const float* d_outputs;       // may be null
  const float* const* d_final;  // state gradients coming in, each may be null
  float* d_inputs;              // may be null
  float* const* d_state;        // state gradients going out, each may be null
  Parameters parameters{sizes, nullptr};
  // Rows like the forward pass's: what the layer normalisation's gain and bias get.
  float* d_control = nullptr;
  // `carry_weight` takes a layer's gates to what the layer below (or the reads of the step before) and its own previous
  // output get.
  std::vector<Packed> carry_weight{};
  Packed input_weight{}, interface_weight{}, output_weight{};

  int64_t from_below(int64_t layer) const { return layer ? sizes.hidden : sizes.reads(); }
  int64_t carried(int64_t layer) const { return from_below(layer) + (sizes.lstm ? sizes.hidden : 0); }
  int64_t carry_stride(int64_t layer) const { return round_up(carried(layer), LANES); }
  int64_t top_stride() const { return round_up(sizes.top_row(), LANES); }

  void lay_out(Arena& arena) {
    for (int64_t l = 0; l < sizes.layers; ++l) {
      carry_weight.push_back(CellForward::packed(arena, sizes.gates(), carried(l)));
    }
    d_control = arena.take(sizes.normalized ? order.rows * sizes.hidden : 0);
    input_weight = CellForward::packed(arena, sizes.gates(), sizes.input);
    interface_weight = CellForward::packed(arena, interface_size, sizes.hidden);
    output_weight = CellForward::packed(arena, sizes.output, sizes.top_row());
  }
  void pack() {
    for (int64_t l = 0; l < sizes.layers; ++l) {
      carry_weight[l].clear();
      const int64_t skipped = sizes.below(l) - from_below(l);
      carry_weight[l].put_columns(0, from_below(l), parameters.weight_in(l) + skipped, sizes.below(l));
      if (sizes.lstm)
        carry_weight[l].put_columns(from_below(l), sizes.hidden, parameters.weight_hidden(l), sizes.hidden);
    }
    input_weight.clear();
    if (d_inputs) input_weight.put_columns(0, sizes.input, parameters.weight_in(0), sizes.below(0));
    interface_weight.clear();
    interface_weight.put_columns(0, sizes.hidden, parameters.interface(0), sizes.hidden);
    if (!sizes.output) return;
    output_weight.clear();
    output_weight.put_columns(0, sizes.top_row(), parameters.output(0), sizes.top_row());
  }

  // A thread's own scratch. Carries go from step to step: gradients of reads, hidden and cell state. Own rows, of a few
  // steps of the group at hand, hold the gradients of what each product gave.
  struct Scratch {
    std::vector<float*> carry{}, d_cell{}, d_gates{};
    float *d_top, *d_input, *d_interface, *d_out;
    Scratch(const CellBackward& b, Arena& arena) {
      const int64_t rows = b.steps_at_once() * b.group_size;
      for (int64_t l = 0; l < b.sizes.layers; ++l) d_gates.push_back(arena.take(rows * b.sizes.gates()));
      d_interface = arena.take(rows * b.interface_size);
      d_out = arena.take(rows * b.sizes.output);
      for (int64_t l = 0; l < b.sizes.layers; ++l) {
        carry.push_back(arena.take(b.group_size * b.carry_stride(l)));
        d_cell.push_back(arena.take(b.sizes.lstm ? b.group_size * b.sizes.hidden : 0));
      }
      d_top = arena.take(b.group_size * b.top_stride());
      d_input = arena.take(b.group_size * round_up(b.sizes.input, LANES));
    }
  };

  int64_t layer_at(int64_t item, int64_t l) const { return (item * sizes.layers + l) * sizes.hidden; }
  int64_t row(const Group& g, int64_t t, int64_t i) const { return order.first_row[t] + g.first + i; }
  // Steps whose own rows are there together, until the weights' gradients are made of them.
  int64_t steps_at_once() const { return std::max<int64_t>(1, SUM_ROWS / group_size); }
  int64_t own_row(int64_t t, int64_t i) const { return t % steps_at_once() * group_size + i; }
  // An item's part of the gradient of the interface before its activations.
  float* d_raw(const Scratch& s, int64_t t, int64_t i) const { return s.d_interface + own_row(t, i) * interface_size; }
  // A step's gradient of an item's reads: from the outputs, and from the step after.
  const float* d_reads_above(const Scratch& s, int64_t i) const { return s.d_top + i * top_stride() + sizes.hidden; }
  float* d_reads_carried(const Scratch& s, int64_t i) const { return s.carry[0] + i * carry_stride(0); }
  float* d_hidden(const Scratch& s, int64_t l, int64_t i) const {
    return s.carry[l] + i * carry_stride(l) + from_below(l);
  }

  // An item's carries before its last step: the gradients of its final state.
  void begin(const Group& g, const Scratch& s, int64_t i, const float* d_final_reads) const {
    const int64_t item = order.item[g.first + i];
    copy_or_zero(d_final_reads, item * sizes.reads(), sizes.reads(), d_reads_carried(s, i));
    for (int64_t l = 0; sizes.lstm && l < sizes.layers; ++l) {
      copy_or_zero(d_final[0], layer_at(item, l), sizes.hidden, d_hidden(s, l, i));
      copy_or_zero(d_final[1], layer_at(item, l), sizes.hidden, s.d_cell[l] + i * sizes.hidden);
    }
  }
  // The carries before the first step: the gradients of the initial state.
  static void give(const float* from, int64_t count, float* to, int64_t offset) {
    if (to) copy(from, count, to + offset);
  }
  void finish(const Group& g, const Scratch& s, int64_t i, float* d_first_reads) const {
    const int64_t item = order.item[g.first + i];
    give(d_reads_carried(s, i), sizes.reads(), d_first_reads, item * sizes.reads());
    for (int64_t l = 0; sizes.lstm && l < sizes.layers; ++l) {
      give(d_hidden(s, l, i), sizes.hidden, d_state[0], layer_at(item, l));
      give(s.d_cell[l] + i * sizes.hidden, sizes.hidden, d_state[1], layer_at(item, l));
    }
  }

  void layer_step(const Group& g, const Scratch& s, int64_t t, int64_t running, int64_t l) const {
    const int64_t first = row(g, t, 0), hidden = sizes.hidden;
    const bool top = l + 1 == sizes.layers;
    for (int64_t i = 0; i < running; ++i) {
      const int64_t r = first + i;
      float* d_above = top ? s.d_top + i * top_stride() : s.carry[l + 1] + i * carry_stride(l + 1);
      float* d_gate = s.d_gates[l] + own_row(t, i) * sizes.gates();
      if (top && sizes.normalized) {
        copy(d_above, hidden, d_control + r * hidden);
        normalize_gradient(hidden, rows.normal + r * hidden, rows.scale[r], parameters.norm(0), d_above);
      }
      if (sizes.lstm) {
        const float* previous =
            t ? rows.cell[l] + row(g, t - 1, i) * hidden : rows.first_cell[l] + (g.first + i) * hidden;
        lstm_gradient(hidden, rows.gates[l] + r * sizes.gates(), rows.cell[l] + r * hidden, previous, d_above,
                      d_hidden(s, l, i), s.d_cell[l] + i * hidden, d_gate);
      } else {
        const float* y = layer_output(r, l);
        for (int64_t j = 0; j < hidden; ++j) d_gate[j] = d_above[j] * (1.0f - y[j] * y[j]);
      }
    }
    multiply(running, s.d_gates[l] + own_row(t, 0) * sizes.gates(), sizes.gates(), carry_weight[l], nullptr,
             Start::zero, s.carry[l], carry_stride(l));
  }
  const float* layer_output(int64_t r, int64_t l) const {
    if (l + 1 < sizes.layers) return rows.rows_in[l + 1] + r * sizes.row_of(l + 1);
    return sizes.normalized ? rows.plain + r * sizes.hidden : rows.top + r * sizes.top_row();
  }

  static void bound(float* gradient, int64_t count, float most) {
    for (int64_t j = 0; j < count; j += LANES)
      store_part(gradient + j, within(load_part(gradient + j, count - j), most), count - j);
  }
  // Clips what one item carries to the step before. What goes from a layer to the one below stays within the step.
  void bound_carries(const Scratch& s, int64_t i) const {
    bound(d_reads_carried(s, i), sizes.reads(), sizes.max_gradient);
    for (int64_t l = 0; sizes.lstm && l < sizes.layers; ++l) {
      bound(d_hidden(s, l, i), sizes.hidden, sizes.max_gradient);
      bound(s.d_cell[l] + i * sizes.hidden, sizes.hidden, sizes.max_gradient);
    }
  }

  void output_step(const Group& g, const Scratch& s, int64_t t, int64_t running) const {
    const int64_t size = sizes.output_row();
    float* d_out = s.d_out + own_row(t, 0) * size;
    for (int64_t i = 0; i < running; ++i)
      copy_or_zero(d_outputs, (order.item[g.first + i] * sizes.time + t) * size, size,
                   sizes.output ? d_out + i * size : s.d_top + i * top_stride());
    if (sizes.output) multiply(running, d_out, size, output_weight, nullptr, Start::zero, s.d_top, top_stride());
  }

  // All steps of a group whose items have begun, from the last to the first. `memory_step(t, running)` takes the
  // gradients of the first items' reads to those of their interfaces, `bound_memory(i)` clips what a memory carries.
  // `add_weights(from, to)` is called when steps [from, to) are done whose own rows are there.
  template <typename MemoryStep, typename BoundMemory, typename AddWeights>
  void run(const Group& g, const Scratch& s, MemoryStep memory_step, BoundMemory bound_memory,
           AddWeights add_weights) const {
    const int64_t input_stride = round_up(sizes.input, LANES), longest = order.length[g.first];
    for (int64_t t = longest - 1; t >= 0; --t) {
      const int64_t running = order.running(g, t);
      output_step(g, s, t, running);
      memory_step(t, running);
      multiply(running, d_raw(s, t, 0), interface_size, interface_weight, nullptr, Start::add, s.d_top, top_stride());
      for (int64_t l = sizes.layers - 1; l >= 0; --l) layer_step(g, s, t, running, l);
      for (int64_t i = 0; std::isfinite(sizes.max_gradient) && i < running; ++i) {
        bound_carries(s, i);
        bound_memory(i);
      }
      if (t % steps_at_once() == 0) add_weights(t, std::min(t + steps_at_once(), longest));
      if (!d_inputs) continue;
      multiply(running, s.d_gates[0] + own_row(t, 0) * sizes.gates(), sizes.gates(), input_weight, nullptr, Start::zero,
               s.d_input, input_stride);
      for (int64_t i = 0; i < running; ++i)
        copy(s.d_input + i * input_stride, sizes.input,
             d_inputs + (order.item[g.first + i] * sizes.time + t) * sizes.input);
    }
    for (int64_t i = 0; d_inputs && i < g.count; ++i) {
      const int64_t item = order.item[g.first + i];
      std::fill(d_inputs + (item * sizes.time + order.length[g.first + i]) * sizes.input,
                d_inputs + (item + 1) * sizes.time * sizes.input, 0.0f);
    }
  }
};
