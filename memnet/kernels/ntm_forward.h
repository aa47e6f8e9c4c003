// The sequence forwards.
#pragma once
#include "gemm.h"
#include "ntm_address.h"
#include "ntm_memory.h"

// The parameters as the caller lists them: for each layer weight_ih, weight_hh, bias_ih, bias_hh with an LSTM, weight
// and bias without; then weight and bias of the interface and of the output.
struct Parameters {
  const Problem& p;
  const float* const* list;
  const float* of_layer(int64_t layer, int64_t which) const { return list[layer * (p.lstm ? 4 : 2) + which]; }
  const float* weight_in(int64_t layer) const { return of_layer(layer, 0); }
  const float* weight_hidden(int64_t layer) const { return of_layer(layer, 1); }
  const float* after_layers(int64_t which) const { return of_layer(p.layers, which); }
};

// Where things lie in a list of state tensors: hidden and cell (batch, layer, hidden) with an LSTM, memory (batch,
// slot, width), write weights and read weights (batch, head, slot), reads (batch, head, width).
struct StateList {
  const Problem& p;
  static constexpr int64_t hidden = 0, cell = 1;
  int64_t memory() const { return p.lstm ? 2 : 0; }
  int64_t weights(bool read) const { return memory() + 1 + read; }
  int64_t reads() const { return memory() + 3; }
  int64_t size() const { return memory() + 4; }
  // Offset of an item's layer in hidden and cell.
  int64_t layer(int64_t item, int64_t l) const { return (item * p.layers + l) * p.hidden; }
  // Offset of an item's head (of all heads) in its weights.
  int64_t head(int64_t item, int64_t h) const {
    return (h < p.write_heads ? item * p.write_heads + h : item * p.read_heads + h - p.write_heads) * p.slots;
  }
};

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

static INLINE void copy(const float* from, int64_t count, float* to) { std::copy(from, from + count, to); }

struct Forward {
  const Problem& p;
  const Order& order;
  const Kept& kept;
  int64_t group_size;
  const float* inputs;
  const float* const* state;
  float* outputs;
  float* const* final_state;
  Parameters parameters{p, nullptr};
  std::vector<Packed> layer_weight{};
  std::vector<float*> layer_bias{};
  Packed interface_weight{}, output_weight{};
  float *interface_bias = nullptr, *output_bias = nullptr;

  float* bias(Arena& arena, int64_t count) const { return arena.take(round_up(count, LANES)); }
  Packed packed(Arena& arena, int64_t inner, int64_t columns) const {
    return {arena.take(Packed::size(inner, columns)), inner, columns};
  }
  void lay_out(Arena& arena) {
    for (int64_t l = 0; l < p.layers; ++l) {
      layer_weight.push_back(packed(arena, p.row_of(l), p.gates()));
      layer_bias.push_back(bias(arena, p.gates()));
    }
    interface_weight = packed(arena, p.hidden, p.interface());
    interface_bias = bias(arena, p.interface());
    output_weight = packed(arena, p.top_row(), p.output);
    output_bias = bias(arena, p.output);
  }
  static void fill_bias(int64_t count, const float* first, const float* second, float* to) {
    std::fill(to, to + round_up(count, LANES), 0.0f);
    for (int64_t i = 0; i < count; ++i) to[i] = second ? first[i] + second[i] : first[i];
  }
  void pack() {
    for (int64_t l = 0; l < p.layers; ++l) {
      layer_weight[l].clear();
      layer_weight[l].put_transposed(0, p.below(l), parameters.weight_in(l), p.below(l));
      if (p.lstm) layer_weight[l].put_transposed(p.below(l), p.hidden, parameters.weight_hidden(l), p.hidden);
      fill_bias(p.gates(), parameters.of_layer(l, p.lstm ? 2 : 1), p.lstm ? parameters.of_layer(l, 3) : nullptr,
                layer_bias[l]);
    }
    interface_weight.clear();
    interface_weight.put_transposed(0, p.hidden, parameters.after_layers(0), p.hidden);
    fill_bias(p.interface(), parameters.after_layers(1), nullptr, interface_bias);
    output_weight.clear();
    output_weight.put_transposed(0, p.top_row(), parameters.after_layers(2), p.top_row());
    fill_bias(p.output, parameters.after_layers(3), nullptr, output_bias);
  }

  // A thread's own scratch.
  struct Scratch {
    float *z, *raw, *out, *dots, *ring, *sums, *running;
    Scratch(const Problem& p, int64_t group_size, Arena& arena)
        : z(arena.take(group_size * round_up(p.gates(), LANES))),
          raw(arena.take(group_size * round_up(p.interface(), LANES))),
          out(arena.take(group_size * round_up(p.output, LANES))),
          dots(arena.take(p.lanes())),
          ring(arena.take(ring_size(p))),
          sums(arena.take(round_up(p.reads(), LANES) * LANES)),
          running(arena.take(p.training && p.segment == 1 ? 0 : group_size * p.matrix())) {}
  };

  StateList at() const { return {p}; }
  int64_t row(const Group& g, int64_t thread, int64_t t, int64_t i) const {
    return p.training ? order.first_row[t] + g.first + i : (thread * 2 + (t & 1)) * group_size + i;
  }
  // The memory after step t (-1: the initial one).
  float* memory_after(const Group& g, const Scratch& s, int64_t i, int64_t t) const {
    const int64_t rank = g.first + i, length = order.length[rank];
    const bool last = t == length - 1;
    if (!p.training || (!last && (t + 1) % p.segment)) return s.running + i * p.matrix();
    return kept.memory +
           (order.first_memory[rank] + (last ? (length + p.segment - 1) / p.segment : (t + 1) / p.segment)) *
               p.matrix();
  }
  const float* weights_before(const Group& g, int64_t thread, int64_t t, int64_t i) const {
    return t ? kept.slots.weights(row(g, thread, t - 1, i))
             : kept.first_weights + (g.first + i) * p.heads() * p.lanes();
  }

  void begin(const Group& g, int64_t thread, const Scratch& s, int64_t i) const {
    const int64_t rank = g.first + i, item = order.item[rank], lanes = p.lanes();
    float* memory = memory_after(g, s, i, -1);
    blocked(p, state[at().memory()] + item * p.slots * p.width, memory);
    invert_norms(p, memory, kept.first_inverse + rank * lanes);
    float* weights = kept.first_weights + rank * p.heads() * lanes;
    std::fill(weights, weights + p.heads() * lanes, 0.0f);
    for (int64_t h = 0; h < p.heads(); ++h) {
      copy(state[at().weights(h >= p.write_heads)] + at().head(item, h), p.slots, weights + h * lanes);
    }
    if (order.length[rank] == 0) {
      finish(g, s, i, weights, state[at().reads()] + item * p.reads());
      for (int64_t l = 0; p.lstm && l < p.layers; ++l)
        for (int64_t which : {at().hidden, at().cell})
          copy(state[which] + at().layer(item, l), p.hidden, final_state[which] + at().layer(item, l));
      return;
    }
    const int64_t r = row(g, thread, 0, i);
    copy(state[at().reads()] + item * p.reads(), p.reads(), kept.rows_in[0] + r * p.row_of(0) + p.input);
    for (int64_t l = 0; p.lstm && l < p.layers; ++l) {
      copy(state[at().hidden] + at().layer(item, l), p.hidden, kept.rows_in[l] + r * p.row_of(l) + p.below(l));
      copy(state[at().cell] + at().layer(item, l), p.hidden, kept.first_cell[l] + rank * p.hidden);
    }
  }

  // An item's memory, weights and reads as its final state.
  void finish(const Group& g, const Scratch& s, int64_t i, const float* weights, const float* reads) const {
    const int64_t rank = g.first + i, item = order.item[rank];
    unblocked(p, memory_after(g, s, i, order.length[rank] - 1), final_state[at().memory()] + item * p.slots * p.width);
    for (int64_t h = 0; h < p.heads(); ++h) {
      copy(weights + h * p.lanes(), p.slots, final_state[at().weights(h >= p.write_heads)] + at().head(item, h));
    }
    copy(reads, p.reads(), final_state[at().reads()] + item * p.reads());
  }

  // One layer of the controller for the items still running.
  void layer_step(const Group& g, int64_t thread, const Scratch& s, int64_t t, int64_t running, int64_t l) const {
    const int64_t first = row(g, thread, t, 0), stride = round_up(p.gates(), LANES), hidden = p.hidden;
    multiply(running, kept.rows_in[l] + first * p.row_of(l), p.row_of(l), layer_weight[l], layer_bias[l], Start::bias,
             s.z, stride);
    for (int64_t i = 0; i < running; ++i) {
      const int64_t r = first + i, rank = g.first + i;
      float* up = l + 1 < p.layers ? kept.rows_in[l + 1] + r * p.row_of(l + 1) : kept.top + r * p.top_row();
      if (!p.lstm) {
        apply(hidden, s.z + i * stride, up, [](vec x) { return hyperbolic_tangent(x); });
        continue;
      }
      float* cell = kept.cell[l] + r * hidden;
      lstm_step(hidden, s.z + i * stride,
                t ? kept.cell[l] + row(g, thread, t - 1, i) * hidden : kept.first_cell[l] + rank * hidden,
                p.training ? kept.gates[l] + r * p.gates() : nullptr, cell, up);
      if (t + 1 < order.length[rank]) {
        copy(up, hidden, kept.rows_in[l] + row(g, thread, t + 1, i) * p.row_of(l) + p.below(l));
      } else {
        copy(up, hidden, final_state[at().hidden] + at().layer(order.item[rank], l));
        copy(cell, hidden, final_state[at().cell] + at().layer(order.item[rank], l));
      }
    }
  }

  // Addressing, writing and reading of one item.
  void memory_step(const Group& g, int64_t thread, const Scratch& s, int64_t t, int64_t i) const {
    const int64_t r = row(g, thread, t, i), lanes = p.lanes();
    float* interface = kept.interface + r * p.interface();
    HeadScalars* scalars = reinterpret_cast<HeadScalars*>(kept.scalars) + r * p.heads();
    activate_interface(p, s.raw + i * round_up(p.interface(), LANES), interface, scalars);
    const float* before = memory_after(g, s, i, t - 1);
    float* after = memory_after(g, s, i, t);
    const float* previous = weights_before(g, thread, t, i);
    const float* inverse_before =
        t ? kept.slots.inverse_norm(row(g, thread, t - 1, i)) : kept.first_inverse + (g.first + i) * lanes;
    auto head = [&](int64_t h, const float* memory, const float* inverse) {
      Emission y{interface + h * p.emission(), p.width, p.shifts};
      dot_slots(p, memory, y.key(), s.dots, false);
      address(p, y, scalars[h].inverse_key, inverse, previous + h * lanes, s.dots, kept.slots.cosine(r, h),
              kept.slots.content(r, h), kept.slots.weights(r, h), s.ring);
    };
    for (int64_t h = 0; h < p.write_heads; ++h) head(h, before, inverse_before);
    write_any(p, before, after, kept.slots.weights(r), interface + p.erase_start(), interface + p.add_start(),
              kept.slots.inverse_norm(r));
    for (int64_t h = p.write_heads; h < p.heads(); ++h) {
      head(h, after, kept.slots.inverse_norm(r));
      weigh_slots(p, after, kept.slots.weights(r, h), s.sums + (h - p.write_heads) * p.width * LANES);
    }
    float* reads = kept.top + r * p.top_row() + p.hidden;
    add_lanes(s.sums, p.reads(), reads);
    if (t + 1 < order.length[g.first + i])
      copy(reads, p.reads(), kept.rows_in[0] + row(g, thread, t + 1, i) * p.row_of(0) + p.input);
    else
      finish(g, s, i, kept.slots.weights(r), reads);
  }

  void run(const Group& g, int64_t thread, const Scratch& s) const {
    for (int64_t i = 0; i < g.count; ++i) begin(g, thread, s, i);
    const int64_t raw_stride = round_up(p.interface(), LANES), out_stride = round_up(p.output, LANES);
    int64_t running = g.count;
    for (int64_t t = 0; t < p.time; ++t) {
      while (running && order.length[g.first + running - 1] <= t) --running;
      if (!running) break;
      const int64_t first = row(g, thread, t, 0);
      for (int64_t i = 0; i < running; ++i)
        copy(inputs + (order.item[g.first + i] * p.time + t) * p.input, p.input,
             kept.rows_in[0] + (first + i) * p.row_of(0));
      for (int64_t l = 0; l < p.layers; ++l) layer_step(g, thread, s, t, running, l);
      const float* top = kept.top + first * p.top_row();
      multiply(running, top, p.top_row(), interface_weight, interface_bias, Start::bias, s.raw, raw_stride);
      for (int64_t i = 0; i < running; ++i) memory_step(g, thread, s, t, i);
      multiply(running, top, p.top_row(), output_weight, output_bias, Start::bias, s.out, out_stride);
      for (int64_t i = 0; i < running; ++i)
        copy(s.out + i * out_stride, p.output, outputs + (order.item[g.first + i] * p.time + t) * p.output);
    }
    for (int64_t i = 0; i < g.count; ++i) {
      float* rest = outputs + (order.item[g.first + i] * p.time + order.length[g.first + i]) * p.output;
      std::fill(rest, outputs + (order.item[g.first + i] + 1) * p.time * p.output, 0.0f);
    }
  }
};
