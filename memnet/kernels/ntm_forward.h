// The sequence forwards.
#pragma once
#include "cell_forward.h"
#include "memory_passes.h"
#include "ntm_address.h"

// Where things lie in a list of state tensors: hidden and cell (batch, layer, hidden) with an LSTM, memory (batch,
// slot, width), write weights and read weights (batch, head, slot), reads (batch, head, width).
struct StateList {
  const Problem& p;
  int64_t memory() const { return p.lstm ? 2 : 0; }
  int64_t weights(bool read) const { return memory() + 1 + read; }
  int64_t reads() const { return memory() + 3; }
  // Offset of an item's head (of all heads) in its weights.
  int64_t head(int64_t item, int64_t h) const {
    return (h < p.write_heads ? item * p.write_heads + h : item * p.read_heads + h - p.write_heads) * p.slots;
  }
};

struct Forward : CellForward {
  const Problem& p;
  const Kept& kept;

  Forward(const Problem& p, const Order& order, const Kept& kept, int64_t group_size, const float* inputs,
          const float* const* state, float* outputs, float* const* final_state)
      : CellForward{p, order, kept, group_size, p.interface(), inputs, state, outputs, final_state}, p(p), kept(kept) {}

  // A thread's own scratch.
  struct Scratch : CellForward::Scratch {
    float *dots, *ring, *sums, *running;
    Scratch(const Forward& pass, Arena& arena) : CellForward::Scratch(pass, arena) {
      const Problem& p = pass.p;
      dots = arena.take(p.lanes());
      ring = arena.take(ring_size(p));
      sums = arena.take(round_up(p.reads(), LANES) * LANES);
      running = arena.take(p.training && p.segment == 1 ? 0 : pass.group_size * p.matrix());
    }
  };

  StateList at() const { return {p}; }
  // The memory after step t (-1: the initial one).
  float* memory_after(const Group& g, const Scratch& s, int64_t i, int64_t t) const {
    const int64_t place = p.training ? order.kept_memory(g.first + i, t, p.segment) : -1;
    return place < 0 ? s.running + i * p.matrix() : kept.memory + place * p.matrix();
  }
  const float* weights_before(const Group& g, int64_t thread, int64_t t, int64_t i) const {
    return t ? kept.slots.weights(row(g, thread, t - 1, i))
             : kept.first_weights + (g.first + i) * p.heads() * p.lanes();
  }

  void begin(const Group& g, int64_t thread, const Scratch& s, int64_t i) const {
    const int64_t rank = g.first + i, item = order.item[rank], lanes = p.lanes();
    const float* reads = state[at().reads()] + item * p.reads();
    CellForward::begin(g, thread, i, reads);
    float* memory = memory_after(g, s, i, -1);
    blocked(p, state[at().memory()] + item * p.slots * p.width, memory);
    invert_norms(p, memory, kept.first_inverse + rank * lanes);
    float* weights = kept.first_weights + rank * p.heads() * lanes;
    std::fill(weights, weights + p.heads() * lanes, 0.0f);
    for (int64_t h = 0; h < p.heads(); ++h) {
      copy(state[at().weights(h >= p.write_heads)] + at().head(item, h), p.slots, weights + h * lanes);
    }
    if (order.length[rank] == 0) finish(g, s, i, weights, reads);
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

  // Addressing, writing and reading of one item.
  void memory_step(const Group& g, int64_t thread, const Scratch& s, int64_t t, int64_t i) const {
    const int64_t r = row(g, thread, t, i), lanes = p.lanes();
    float* interface = kept.interface + r * p.interface();
    HeadScalars* scalars = reinterpret_cast<HeadScalars*>(kept.scalars) + r * p.heads();
    activate_interface(p, raw_interface(s, i), interface, scalars);
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
    float* reads = reads_after(g, thread, t, i);
    add_lanes(s.sums, p.reads(), reads);
    if (t + 1 == order.length[g.first + i]) finish(g, s, i, kept.slots.weights(r), reads);
  }

  void run(const Group& g, int64_t thread, const Scratch& s) const {
    for (int64_t i = 0; i < g.count; ++i) begin(g, thread, s, i);
    CellForward::run(g, thread, s, [&](int64_t t, int64_t i) { memory_step(g, thread, s, t, i); });
  }
};
