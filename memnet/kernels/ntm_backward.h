// The sequence backwards, and the gradients of the parameters.
#pragma once
#include "ntm_forward.h"

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

struct Backward {
  const Problem& p;
  const Order& order;
  const Kept& kept;
  int64_t group_size;
  const float* d_outputs;       // may be null
  const float* const* d_final;  // state gradients coming in, each may be null
  float* d_inputs;              // may be null
  float* const* d_state;        // state gradients going out, each may be null
  Parameters parameters{p, nullptr};
  // Rows like the forward pass's: gradients of what each product gave. `carry_weight` takes a layer's gates to what the
  // layer below (or the reads of the step before) and its own previous output get.
  std::vector<float*> d_gates{};
  float *d_interface = nullptr, *d_out = nullptr;
  std::vector<Packed> carry_weight{};
  Packed input_weight{}, interface_weight{}, output_weight{};

  int64_t from_below(int64_t layer) const { return layer ? p.hidden : p.reads(); }
  int64_t carried(int64_t layer) const { return from_below(layer) + (p.lstm ? p.hidden : 0); }
  int64_t carry_stride(int64_t layer) const { return round_up(carried(layer), LANES); }
  int64_t top_stride() const { return round_up(p.top_row(), LANES); }

  Packed packed(Arena& arena, int64_t inner, int64_t columns) const {
    return {arena.take(Packed::size(inner, columns)), inner, columns};
  }
  void lay_out(Arena& arena) {
    for (int64_t l = 0; l < p.layers; ++l) {
      d_gates.push_back(arena.take(order.rows * p.gates()));
      carry_weight.push_back(packed(arena, p.gates(), carried(l)));
    }
    d_interface = arena.take(order.rows * p.interface());
    d_out = arena.take(order.rows * p.output);
    input_weight = packed(arena, p.gates(), p.input);
    interface_weight = packed(arena, p.interface(), p.hidden);
    output_weight = packed(arena, p.output, p.top_row());
  }
  void pack() {
    for (int64_t l = 0; l < p.layers; ++l) {
      carry_weight[l].clear();
      const int64_t skipped = p.below(l) - from_below(l);
      carry_weight[l].put_columns(0, from_below(l), parameters.weight_in(l) + skipped, p.below(l));
      if (p.lstm) carry_weight[l].put_columns(from_below(l), p.hidden, parameters.weight_hidden(l), p.hidden);
    }
    input_weight.clear();
    if (d_inputs) input_weight.put_columns(0, p.input, parameters.weight_in(0), p.below(0));
    interface_weight.clear();
    interface_weight.put_columns(0, p.hidden, parameters.after_layers(0), p.hidden);
    output_weight.clear();
    output_weight.put_columns(0, p.top_row(), parameters.after_layers(2), p.top_row());
  }

  // A thread's own scratch. Carries go from step to step: gradients of reads, hidden and cell state, weightings and
  // memory.
  struct Scratch {
    std::vector<float*> carry{}, d_cell{};
    float *d_top, *d_weights, *d_memory, *rebuilt, *d_input, *d_reads, *d_dots, *d_norm, *ring, *sums, *numbers,
        *products;
    Scratch(const Backward& b, Arena& arena) {
      const Problem& p = b.p;
      const int64_t n = b.group_size;
      for (int64_t l = 0; l < p.layers; ++l) {
        carry.push_back(arena.take(n * b.carry_stride(l)));
        d_cell.push_back(arena.take(p.lstm ? n * p.hidden : 0));
      }
      d_top = arena.take(n * b.top_stride());
      d_weights = arena.take(n * p.heads() * p.lanes());
      d_memory = arena.take(n * p.matrix());
      rebuilt = arena.take(n * (p.segment - 1) * p.matrix());
      d_input = arena.take(n * round_up(p.input, LANES));
      d_reads = arena.take(p.reads());
      d_dots = arena.take(p.heads() * p.lanes());
      d_norm = arena.take(p.lanes());
      ring = arena.take(2 * ring_size(p));
      const int64_t count = (p.heads() + 2 * p.write_heads) * p.width;
      sums = arena.take(round_up(count, LANES) * LANES);
      numbers = arena.take(round_up(count, LANES));
      products = arena.take((2 * p.write_heads + 1) * LANES);
    }
  };

  StateList at() const { return {p}; }
  int64_t row(const Group& g, int64_t t, int64_t i) const { return order.first_row[t] + g.first + i; }
  const float* memory_after(const Group& g, const Scratch& s, int64_t i, int64_t t) const {
    const int64_t rank = g.first + i, length = order.length[rank];
    const float* first = kept.memory + order.first_memory[rank] * p.matrix();
    if (t == length - 1) return first + (length + p.segment - 1) / p.segment * p.matrix();
    if ((t + 1) % p.segment == 0) return first + (t + 1) / p.segment * p.matrix();
    return s.rebuilt + (i * (p.segment - 1) + t % p.segment) * p.matrix();
  }
  // Writes the memories between two kept ones anew, when step t is the last one of a segment.
  void rebuild(const Group& g, const Scratch& s, int64_t i, int64_t t) const {
    const int64_t start = t / p.segment * p.segment;
    if (t != std::min(order.length[g.first + i], start + p.segment) - 1) return;
    for (int64_t past = start; past < t; ++past) {
      const int64_t r = row(g, past, i);
      const float* interface = kept.interface + r * p.interface();
      write_any(p, memory_after(g, s, i, past - 1), const_cast<float*>(memory_after(g, s, i, past)),
                kept.slots.weights(r), interface + p.erase_start(), interface + p.add_start(), nullptr);
    }
  }

  static void copy_or_zero(const float* from, int64_t offset, int64_t count, float* to) {
    if (from)
      copy(from + offset, count, to);
    else
      std::fill(to, to + count, 0.0f);
  }
  // The carries of an item before its last step: the gradients of its final state.
  void begin(const Group& g, const Scratch& s, int64_t i) const {
    const int64_t item = order.item[g.first + i], lanes = p.lanes();
    copy_or_zero(d_final[at().reads()], item * p.reads(), p.reads(), s.carry[0] + i * carry_stride(0));
    for (int64_t l = 0; p.lstm && l < p.layers; ++l) {
      copy_or_zero(d_final[at().hidden], at().layer(item, l), p.hidden,
                   s.carry[l] + i * carry_stride(l) + from_below(l));
      copy_or_zero(d_final[at().cell], at().layer(item, l), p.hidden, s.d_cell[l] + i * p.hidden);
    }
    float* weights = s.d_weights + i * p.heads() * lanes;
    std::fill(weights, weights + p.heads() * lanes, 0.0f);
    for (int64_t h = 0; h < p.heads(); ++h) {
      copy_or_zero(d_final[at().weights(h >= p.write_heads)], at().head(item, h), p.slots, weights + h * lanes);
    }
    float* memory = s.d_memory + i * p.matrix();
    if (d_final[at().memory()])
      blocked(p, d_final[at().memory()] + item * p.slots * p.width, memory);
    else
      std::fill(memory, memory + p.matrix(), 0.0f);
  }
  // The carries before the first step: the gradients of the initial state.
  void finish(const Group& g, const Scratch& s, int64_t i) const {
    const int64_t item = order.item[g.first + i];
    auto give = [&](const float* from, int64_t count, int64_t which, int64_t offset) {
      if (d_state[which]) copy(from, count, d_state[which] + offset);
    };
    give(s.carry[0] + i * carry_stride(0), p.reads(), at().reads(), item * p.reads());
    for (int64_t l = 0; p.lstm && l < p.layers; ++l) {
      give(s.carry[l] + i * carry_stride(l) + from_below(l), p.hidden, at().hidden, at().layer(item, l));
      give(s.d_cell[l] + i * p.hidden, p.hidden, at().cell, at().layer(item, l));
    }
    for (int64_t h = 0; h < p.heads(); ++h)
      give(s.d_weights + (i * p.heads() + h) * p.lanes(), p.slots, at().weights(h >= p.write_heads),
           at().head(item, h));
    if (d_state[at().memory()])
      unblocked(p, s.d_memory + i * p.matrix(), d_state[at().memory()] + item * p.slots * p.width);
  }

  // One item's memory at one step: from the gradients of its reads and of what is carried to that of the interface.
  void memory_step(const Group& g, const Scratch& s, int64_t t, int64_t i) const {
    const int64_t r = row(g, t, i), lanes = p.lanes(), width = p.width, wide = p.heads() * lanes,
                  writes = p.write_heads;
    const float* interface = kept.interface + r * p.interface();
    float* d_raw = d_interface + r * p.interface();
    const HeadScalars* scalars = reinterpret_cast<const HeadScalars*>(kept.scalars) + r * p.heads();
    const float *erase = interface + p.erase_start(), *add = interface + p.add_start();
    if (i + 1 < g.count) {
      fetch(kept.slots.cosine(r + 1, 0), 2 * wide);
      if (t) fetch(kept.slots.weights(row(g, t - 1, i + 1)), wide + lanes);
    }
    rebuild(g, s, i, t);
    const float *before = memory_after(g, s, i, t - 1), *after = memory_after(g, s, i, t);
    const float* inverse_after = kept.slots.inverse_norm(r);
    const float* inverse_before =
        t ? kept.slots.inverse_norm(row(g, t - 1, i)) : kept.first_inverse + (g.first + i) * lanes;
    const float* previous = t ? kept.slots.weights(row(g, t - 1, i)) : kept.first_weights + (g.first + i) * wide;
    const float* weights = kept.slots.weights(r);
    float* d_weights = s.d_weights + i * wide;
    float* d_memory = s.d_memory + i * p.matrix();
    float* d_erase_sums = s.sums + p.heads() * width * LANES;
    float* d_add_sums = d_erase_sums + writes * width * LANES;
    const float* d_above = s.d_top + i * top_stride() + p.hidden;
    const float* d_carried = s.carry[0] + i * carry_stride(0);
    for (int64_t j = 0; j < p.reads(); ++j) s.d_reads[j] = d_above[j] + d_carried[j];
    auto head = [&](int64_t h, const float* inverse) {
      const Emission y{interface + h * p.emission(), width, p.shifts};
      return address_gradient(p, y, scalars[h], inverse, previous + h * lanes, kept.slots.cosine(r, h),
                              kept.slots.content(r, h), weights + h * lanes, d_weights + h * lanes,
                              s.d_dots + h * lanes, s.d_norm, d_raw + h * p.emission(), s.ring);
    };
    // d_raw holds each head's key norm sum at the place of its key until the keys' gradients are made below.
    std::fill(s.d_norm, s.d_norm + lanes, 0.0f);
    for (int64_t h = writes; h < p.heads(); ++h) {
      dot_slots(p, after, s.d_reads + (h - writes) * width, d_weights + h * lanes, true);
      d_raw[h * p.emission()] = head(h, inverse_after);
    }
    const MemoryGradient by_read{s.d_dots + writes * lanes, s.d_norm, interface + writes * p.emission(), p.emission()};
    const float* read_weights = weights + writes * lanes;
    float* read_sums = s.sums + writes * width * LANES;
    if (p.read_heads == 1 && writes == 1) {
      step_gradient(p, before, after, read_weights, s.d_reads, by_read, read_sums, weights, erase, add, d_memory,
                    d_weights, d_erase_sums, d_add_sums);
    } else {
      read_gradient(p, read_weights, s.d_reads, d_memory);
      score_gradient(p, p.read_heads, by_read, after, d_memory, read_sums);
      write_gradient(p, before, weights, erase, add, d_memory, d_weights, d_erase_sums, d_add_sums, s.products);
    }
    std::fill(s.d_norm, s.d_norm + lanes, 0.0f);
    for (int64_t h = 0; h < writes; ++h) d_raw[h * p.emission()] = head(h, inverse_before);
    score_gradient(p, writes, {s.d_dots, s.d_norm, interface, p.emission()}, before, d_memory, s.sums);
    add_lanes(s.sums, (p.heads() + 2 * writes) * width, s.numbers);
    for (int64_t h = 0; h < p.heads(); ++h) {
      const float* key = interface + h * p.emission();
      float* d_key = d_raw + h * p.emission();
      const float norm = d_key[0] * scalars[h].inverse_key * scalars[h].inverse_key;
      for (int64_t w = 0; w < width; ++w)
        d_key[w] = (s.numbers[h * width + w] - norm * key[w]) * (1.0f - key[w] * key[w]);
    }
    const float* d_erase = s.numbers + p.heads() * width;
    const float* d_add = d_erase + writes * width;
    for (int64_t j = 0; j < writes * width; ++j) {
      d_raw[p.erase_start() + j] = d_erase[j] * erase[j] * (1.0f - erase[j]);
      d_raw[p.add_start() + j] = d_add[j] * (1.0f - add[j] * add[j]);
    }
  }

  void layer_step(const Group& g, const Scratch& s, int64_t t, int64_t running, int64_t l) const {
    const int64_t first = row(g, t, 0), hidden = p.hidden;
    const bool top = l + 1 == p.layers;
    for (int64_t i = 0; i < running; ++i) {
      const int64_t r = first + i;
      const float* d_above = top ? s.d_top + i * top_stride() : s.carry[l + 1] + i * carry_stride(l + 1);
      float* d_gate = d_gates[l] + r * p.gates();
      if (p.lstm) {
        const float* previous =
            t ? kept.cell[l] + row(g, t - 1, i) * hidden : kept.first_cell[l] + (g.first + i) * hidden;
        lstm_gradient(hidden, kept.gates[l] + r * p.gates(), kept.cell[l] + r * hidden, previous, d_above,
                      s.carry[l] + i * carry_stride(l) + from_below(l), s.d_cell[l] + i * hidden, d_gate);
      } else {
        const float* y = top ? kept.top + r * p.top_row() : kept.rows_in[l + 1] + r * p.row_of(l + 1);
        for (int64_t j = 0; j < hidden; ++j) d_gate[j] = d_above[j] * (1.0f - y[j] * y[j]);
      }
    }
    multiply(running, d_gates[l] + first * p.gates(), p.gates(), carry_weight[l], nullptr, Start::zero, s.carry[l],
             carry_stride(l));
  }

  static void bound(float* gradient, int64_t count, float most) {
    for (int64_t j = 0; j < count; j += LANES)
      store_part(gradient + j, within(load_part(gradient + j, count - j), most), count - j);
  }
  // Clips what one item carries to the step before. What goes from a layer to the one below stays within the step.
  void bound_carries(const Scratch& s, int64_t i) const {
    const float most = p.max_gradient;
    bound(s.d_weights + i * p.heads() * p.lanes(), p.heads() * p.lanes(), most);
    bound(s.d_memory + i * p.matrix(), p.matrix(), most);
    bound(s.carry[0] + i * carry_stride(0), p.reads(), most);
    for (int64_t l = 0; p.lstm && l < p.layers; ++l) {
      bound(s.carry[l] + i * carry_stride(l) + from_below(l), p.hidden, most);
      bound(s.d_cell[l] + i * p.hidden, p.hidden, most);
    }
  }

  void run(const Group& g, const Scratch& s) const {
    for (int64_t i = 0; i < g.count; ++i) begin(g, s, i);
    const int64_t input_stride = round_up(p.input, LANES);
    int64_t running = 0;
    for (int64_t t = p.time - 1; t >= 0; --t) {
      while (running < g.count && order.length[g.first + running] > t) ++running;
      if (!running) continue;
      const int64_t first = row(g, t, 0);
      for (int64_t i = 0; i < running; ++i)
        copy_or_zero(d_outputs, (order.item[g.first + i] * p.time + t) * p.output, p.output,
                     d_out + (first + i) * p.output);
      multiply(running, d_out + first * p.output, p.output, output_weight, nullptr, Start::zero, s.d_top, top_stride());
      for (int64_t i = 0; i < running; ++i) memory_step(g, s, t, i);
      multiply(running, d_interface + first * p.interface(), p.interface(), interface_weight, nullptr, Start::add,
               s.d_top, top_stride());
      for (int64_t l = p.layers - 1; l >= 0; --l) layer_step(g, s, t, running, l);
      for (int64_t i = 0; std::isfinite(p.max_gradient) && i < running; ++i) bound_carries(s, i);
      if (!d_inputs) continue;
      multiply(running, d_gates[0] + first * p.gates(), p.gates(), input_weight, nullptr, Start::zero, s.d_input,
               input_stride);
      for (int64_t i = 0; i < running; ++i)
        copy(s.d_input + i * input_stride, p.input, d_inputs + (order.item[g.first + i] * p.time + t) * p.input);
    }
    for (int64_t i = 0; i < g.count; ++i) finish(g, s, i);
    for (int64_t i = 0; d_inputs && i < g.count; ++i) {
      const int64_t item = order.item[g.first + i];
      std::fill(d_inputs + (item * p.time + order.length[g.first + i]) * p.input,
                d_inputs + (item + 1) * p.time * p.input, 0.0f);
    }
  }
};

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
    float* sums = scratch;
    float* own = sums + height * width;
    std::fill(sums, own, 0.0f);
    outer_sum(rows, left, outputs, from, count, right, stride, inputs, sums, own);
    for (int64_t i = 0; i < count; ++i) {
      copy(sums + i * width, first_inputs, first + (from + i) * first_inputs);
      if (second)
        copy(sums + i * width + first_inputs, inputs - first_inputs, second + (from + i) * (inputs - first_inputs));
    }
    for (int64_t i = 0; i < count; i += LANES) {
      const int64_t n = count - i;
      vec total = {};
      for (int64_t r = 0; r < rows; ++r) total += load_part(left + r * outputs + from + i, n);
      store_part(bias + from + i, total, n);
      if (second_bias) store_part(second_bias + from + i, total, n);
    }
  }
};
