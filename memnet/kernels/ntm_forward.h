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

  // A thread's own scratch: what goes from step to step for each item, and what a step needs for items abreast.
  struct Scratch : CellForward::Scratch {
    float *running, *inverse_norm, *dots, *cosine, *content, *ring, *sums;
    int64_t read_sums;
    Scratch(const Forward& pass, Arena& arena) : CellForward::Scratch(pass, arena) {
      const Problem& p = pass.p;
      read_sums = round_up(p.reads(), LANES) * LANES;
      running = arena.take(p.training && p.segment == 1 ? 0 : pass.group_size * p.matrix());
      inverse_norm = arena.take(pass.group_size * p.lanes());
      for (float** weighting : {&dots, &cosine, &content}) *weighting = arena.take(ABREAST * p.lanes());
      ring = arena.take(ABREAST * ring_size(p));
      sums = arena.take(ABREAST * read_sums);
    }
  };

  StateList at() const { return {p}; }
  // The memory after step t (-1: the initial one).
  float* memory_after(const Group& g, const Scratch& s, int64_t i, int64_t t) const {
    const int64_t place = p.training ? order.kept_memory(g.first + i, t, p.segment) : -1;
    return place < 0 ? s.running + i * p.matrix() : kept.memory + place * p.matrix();
  }
  const float* weights_before(const Group& g, int64_t thread, int64_t t, int64_t i) const {
    return t ? kept.weights(row(g, thread, t - 1, i)) : kept.first_weights + (g.first + i) * kept.weighting;
  }

  void begin(const Group& g, int64_t thread, const Scratch& s, int64_t i) const {
    const int64_t rank = g.first + i, item = order.item[rank], lanes = p.lanes();
    const float* reads = state[at().reads()] + item * p.reads();
    CellForward::begin(g, thread, i, reads);
    float* memory = memory_after(g, s, i, -1);
    blocked(p, state[at().memory()] + item * p.slots * p.width, memory);
    invert_norms(p, memory, s.inverse_norm + i * lanes);
    float* weights = kept.first_weights + rank * kept.weighting;
    std::fill(weights, weights + kept.weighting, 0.0f);
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

  // Addressing, writing and reading of items [first, end), no more than ABREAST.
  void memory_step(const Group& g, int64_t thread, const Scratch& s, int64_t t, int64_t first, int64_t end) const {
    const int64_t lanes = p.lanes();
    Head heads[ABREAST];
    auto each = [&](auto stage) {
      for (int64_t i = first; i < end; ++i) stage(i, row(g, thread, t, i), heads[i - first]);
    };
    auto interface = [&](int64_t r) { return kept.interface + r * p.interface(); };
    auto scalars = [&](int64_t r) { return reinterpret_cast<HeadScalars*>(kept.scalars) + r * p.heads(); };
    auto address = [&](int64_t h, int64_t when) {
      each([&](int64_t i, int64_t r, Head& head) {
        const int64_t place = i - first;
        head = {{interface(r) + h * p.emission(), p.width, p.shifts},
                scalars(r)[h].inverse_key,
                s.inverse_norm + i * lanes,
                weights_before(g, thread, t, i) + h * lanes,
                s.dots + place * lanes,
                s.cosine + place * lanes,
                s.content + place * lanes,
                s.ring + place * ring_size(p),
                kept.weights(r) + h * lanes,
                0.0f};
        dot_slots(p, memory_after(g, s, i, when), head.y.key(), head.dots, false);
      });
      each([&](int64_t, int64_t, Head& head) { head.find_content(p); });
      each([&](int64_t, int64_t, Head& head) { head.interpolate(p); });
      each([&](int64_t, int64_t, Head& head) { head.sharpen(p); });
      each([&](int64_t, int64_t, Head& head) { head.normalize(p); });
    };
    each([&](int64_t i, int64_t r, Head&) { activate_interface(p, raw_interface(s, i), interface(r), scalars(r)); });
    for (int64_t h = 0; h < p.write_heads; ++h) address(h, t - 1);
    each([&](int64_t i, int64_t r, Head&) {
      write_any(p, memory_after(g, s, i, t - 1), memory_after(g, s, i, t), kept.weights(r),
                interface(r) + p.erase_start(), interface(r) + p.add_start(), s.inverse_norm + i * lanes);
    });
    for (int64_t h = p.write_heads; h < p.heads(); ++h) {
      address(h, t);
      each([&](int64_t i, int64_t, Head& head) {
        weigh_slots(p, memory_after(g, s, i, t), head.weights,
                    s.sums + (i - first) * s.read_sums + (h - p.write_heads) * p.width * LANES);
      });
    }
    each([&](int64_t i, int64_t r, Head&) {
      float* reads = reads_after(g, thread, t, i);
      add_lanes(s.sums + (i - first) * s.read_sums, p.reads(), reads);
      if (t + 1 == order.length[g.first + i]) finish(g, s, i, kept.weights(r), reads);
    });
  }

  void run(const Group& g, int64_t thread, const Scratch& s) const {
    for (int64_t i = 0; i < g.count; ++i) begin(g, thread, s, i);
    CellForward::run(g, thread, s, [&](int64_t t, int64_t running) {
      for (int64_t i = 0; i < running; i += ABREAST)
        memory_step(g, thread, s, t, i, std::min(i + ABREAST, running));
    });
  }
};
