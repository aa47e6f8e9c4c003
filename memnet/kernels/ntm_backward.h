// The sequence backwards.
#pragma once
#include "cell_backward.h"
#include "ntm_forward.h"

struct Backward : CellBackward {
  const Problem& p;
  const Kept& kept;

  Backward(const Problem& p, const Order& order, const Kept& kept, int64_t group_size, const float* d_outputs,
           const float* const* d_final, float* d_inputs, float* const* d_state)
      : CellBackward{p, order, kept, group_size, p.interface(), d_outputs, d_final, d_inputs, d_state},
        p(p),
        kept(kept) {}

  // A thread's own scratch. Carries go from step to step: gradients of weightings and memory.
  struct Scratch : CellBackward::Scratch {
    float *d_weights, *d_memory, *rebuilt, *d_reads, *d_dots, *d_norm, *ring, *sums, *numbers, *products;
    Scratch(const Backward& b, Arena& arena) : CellBackward::Scratch(b, arena) {
      const Problem& p = b.p;
      const int64_t n = b.group_size;
      d_weights = arena.take(n * p.heads() * p.lanes());
      d_memory = arena.take(n * p.matrix());
      rebuilt = arena.take(n * (p.segment - 1) * p.matrix());
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
  const float* memory_after(const Group& g, const Scratch& s, int64_t i, int64_t t) const {
    const int64_t place = order.kept_memory(g.first + i, t, p.segment);
    return place < 0 ? s.rebuilt + (i * (p.segment - 1) + t % p.segment) * p.matrix()
                     : kept.memory + place * p.matrix();
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

  // The carries of an item before its last step: the gradients of its final state.
  void begin(const Group& g, const Scratch& s, int64_t i) const {
    const int64_t item = order.item[g.first + i], lanes = p.lanes();
    CellBackward::begin(g, s, i, d_final[at().reads()]);
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
    CellBackward::finish(g, s, i, d_state[at().reads()]);
    for (int64_t h = 0; h < p.heads(); ++h)
      give(s.d_weights + (i * p.heads() + h) * p.lanes(), p.slots, d_state[at().weights(h >= p.write_heads)],
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
    const float *d_above = d_reads_above(s, i), *d_carried = d_reads_carried(s, i);
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

  void bound_memory(const Scratch& s, int64_t i) const {
    bound(s.d_weights + i * p.heads() * p.lanes(), p.heads() * p.lanes(), p.max_gradient);
    bound(s.d_memory + i * p.matrix(), p.matrix(), p.max_gradient);
  }

  void run(const Group& g, const Scratch& s) const {
    for (int64_t i = 0; i < g.count; ++i) begin(g, s, i);
    CellBackward::run(
        g, s, [&](int64_t t, int64_t i) { memory_step(g, s, t, i); }, [&](int64_t i) { bound_memory(s, i); });
    for (int64_t i = 0; i < g.count; ++i) finish(g, s, i);
  }
};
