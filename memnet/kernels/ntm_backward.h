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

  // A thread's own scratch: what goes from step to step for each item, gradients of weightings and memory and 1 / |M_n|
  // after the step at hand; and what a step needs for items abreast.
  struct Scratch : CellBackward::Scratch {
    float *d_weights, *d_memory, *inverse_norm, *rebuilt;
    float *d_reads, *d_dots, *d_norm, *dots, *cosine, *content, *ring, *d_ring, *sums, *numbers, *products;
    int64_t sum_count, own_sums;
    Scratch(const Backward& b, Arena& arena) : CellBackward::Scratch(b, arena) {
      const Problem& p = b.p;
      const int64_t n = b.group_size;
      d_weights = arena.take(n * p.heads() * p.lanes());
      d_memory = arena.take(n * p.matrix());
      inverse_norm = arena.take(n * p.lanes());
      rebuilt = arena.take(n * (p.segment - 1) * p.matrix());
      d_reads = arena.take(ABREAST * p.reads());
      d_dots = arena.take(ABREAST * p.heads() * p.lanes());
      for (float** weighting : {&d_norm, &dots, &cosine, &content}) *weighting = arena.take(ABREAST * p.lanes());
      for (float** each : {&ring, &d_ring}) *each = arena.take(ABREAST * ring_size(p));
      sum_count = (p.heads() + 2 * p.write_heads) * p.width;
      own_sums = round_up(sum_count, LANES) * LANES;
      sums = arena.take(ABREAST * own_sums);
      numbers = arena.take(round_up(sum_count, LANES));
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
                kept.weights(r), interface + p.erase_start(), interface + p.add_start(), nullptr);
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

  // The memories of items [first, end), at most ABREAST of them, at one step: from the gradients of their reads and of
  // what is carried to those of their interfaces.
  void memory_step(const Group& g, const Scratch& s, int64_t t, int64_t first, int64_t end) const {
    const int64_t lanes = p.lanes(), width = p.width, writes = p.write_heads;
    HeadGradient heads[ABREAST];
    auto each = [&](auto stage) {
      for (int64_t i = first; i < end; ++i) stage(i, row(g, t, i), heads[i - first]);
    };
    // From the gradients of a head's weighting. A head's part of d_raw holds its key norm sum at the place of its key
    // until the keys' gradients are made.
    auto address = [&](int64_t h, auto compare) {
      each([&](int64_t i, int64_t, HeadGradient& head) {
        head = head_at(g, s, t, i, i - first, h);
        compare(i, head);
      });
      each([&](int64_t, int64_t, HeadGradient& head) { head.find_content(p); });
      each([&](int64_t, int64_t, HeadGradient& head) { head.begin(p); });
      each([&](int64_t, int64_t, HeadGradient& head) { head.through_sharpening(p); });
      each([&](int64_t, int64_t, HeadGradient& head) { head.through_shift(p); });
      each([&](int64_t, int64_t, HeadGradient& head) { head.through_gate(p); });
      each([&](int64_t, int64_t, HeadGradient& head) { head.through_content(p); });
      each([&](int64_t, int64_t, HeadGradient& head) { head.d_raw[0] = head.key_norm; });
    };
    each([&](int64_t i, int64_t, HeadGradient&) {
      rebuild(g, s, i, t);
      if (t + 1 == order.length[g.first + i]) invert_norms(p, memory_after(g, s, i, t), s.inverse_norm + i * lanes);
      const float *d_above = d_reads_above(s, i), *d_carried = d_reads_carried(s, i);
      float* d_reads = s.d_reads + (i - first) * p.reads();
      for (int64_t j = 0; j < p.reads(); ++j) d_reads[j] = d_above[j] + d_carried[j];
    });
    std::fill(s.d_norm, s.d_norm + ABREAST * lanes, 0.0f);
    for (int64_t h = writes; h < p.heads(); ++h)
      address(h, [&](int64_t i, const HeadGradient& head) {
        const float* d_read = s.d_reads + (i - first) * p.reads() + (h - writes) * width;
        dot_slots_of_two(p, memory_after(g, s, i, t), d_read, head.d_weights, head.y.key(), head.dots);
      });
    each([&](int64_t i, int64_t, HeadGradient&) { written_gradient(g, s, t, i, i - first); });
    std::fill(s.d_norm, s.d_norm + ABREAST * lanes, 0.0f);
    for (int64_t h = 0; h < writes; ++h)
      address(h, [&](int64_t i, const HeadGradient& head) {
        const float *before = memory_after(g, s, i, t - 1), *key = head.y.key();
        if (h == 0)
          invert_norms(p, before, s.inverse_norm + i * lanes, key, head.dots);
        else
          dot_slots(p, before, key, head.dots, false);
      });
    each([&](int64_t i, int64_t r, HeadGradient&) {
      const int64_t place = i - first;
      score_gradient(p, writes,
                     {s.d_dots + place * kept.weighting, s.d_norm + place * lanes, interface_at(r), p.emission()},
                     memory_after(g, s, i, t - 1), s.d_memory + i * p.matrix(), s.sums + place * s.own_sums);
      add_lanes(s.sums + place * s.own_sums, s.sum_count, s.numbers);
      interface_gradient(s, r, d_raw(s, t, i));
    });
  }
  const float* interface_at(int64_t r) const { return kept.interface + r * p.interface(); }
  const HeadScalars* scalars_at(int64_t r) const {
    return reinterpret_cast<const HeadScalars*>(kept.scalars) + r * p.heads();
  }
  HeadGradient head_at(const Group& g, const Scratch& s, int64_t t, int64_t i, int64_t place, int64_t h) const {
    const int64_t r = row(g, t, i), lanes = p.lanes();
    const float* previous = t ? kept.weights(row(g, t - 1, i)) : kept.first_weights + (g.first + i) * kept.weighting;
    const HeadScalars& scalars = scalars_at(r)[h];
    HeadGradient head;
    static_cast<Head&>(head) = {{interface_at(r) + h * p.emission(), p.width, p.shifts},
                                scalars.inverse_key,
                                s.inverse_norm + i * lanes,
                                previous + h * lanes,
                                s.dots + place * lanes,
                                s.cosine + place * lanes,
                                s.content + place * lanes,
                                s.ring + place * ring_size(p),
                                kept.weights(r) + h * lanes,
                                0.0f};
    head.scalars = scalars;
    head.d_weights = s.d_weights + (i * p.heads() + h) * lanes;
    head.d_dots = s.d_dots + (place * p.heads() + h) * lanes;
    head.d_norm = s.d_norm + place * lanes;
    head.d_raw = d_raw(s, t, i) + h * p.emission();
    head.d_ring = s.d_ring + place * ring_size(p);
    return head;
  }
  // Backwards through what the read heads have read and compared with, and through the writing.
  void written_gradient(const Group& g, const Scratch& s, int64_t t, int64_t i, int64_t place) const {
    const int64_t r = row(g, t, i), lanes = p.lanes(), width = p.width, writes = p.write_heads;
    const float *before = memory_after(g, s, i, t - 1), *after = memory_after(g, s, i, t);
    const float *interface = interface_at(r), *weights = kept.weights(r), *read_weights = weights + writes * lanes;
    const float *erase = interface + p.erase_start(), *add = interface + p.add_start();
    const float* d_reads = s.d_reads + place * p.reads();
    float *d_weights = s.d_weights + i * kept.weighting, *d_memory = s.d_memory + i * p.matrix();
    float* read_sums = s.sums + place * s.own_sums + writes * width * LANES;
    float* d_erase_sums = read_sums + p.reads() * LANES;
    float* d_add_sums = d_erase_sums + writes * width * LANES;
    const MemoryGradient by_read{s.d_dots + place * kept.weighting + writes * lanes, s.d_norm + place * lanes,
                                 interface + writes * p.emission(), p.emission()};
    if (p.read_heads == 1 && writes == 1) {
      step_gradient(p, before, after, read_weights, d_reads, by_read, read_sums, weights, erase, add, d_memory,
                    d_weights, d_erase_sums, d_add_sums);
    } else {
      read_gradient(p, read_weights, d_reads, d_memory);
      score_gradient(p, p.read_heads, by_read, after, d_memory, read_sums);
      write_gradient(p, before, weights, erase, add, d_memory, d_weights, d_erase_sums, d_add_sums, s.products);
    }
  }
  // From the sums over slots, in s.numbers, to the gradients of keys, erase and add vectors before their activations.
  void interface_gradient(const Scratch& s, int64_t r, float* d_raw) const {
    const float *interface = interface_at(r), *erase = interface + p.erase_start(), *add = interface + p.add_start();
    for (int64_t h = 0; h < p.heads(); ++h) {
      const float* key = interface + h * p.emission();
      float* d_key = d_raw + h * p.emission();
      const float inverse_key = scalars_at(r)[h].inverse_key, norm = d_key[0] * inverse_key * inverse_key;
      for (int64_t w = 0; w < p.width; ++w)
        d_key[w] = (s.numbers[h * p.width + w] - norm * key[w]) * (1.0f - key[w] * key[w]);
    }
    const float* d_erase = s.numbers + p.heads() * p.width;
    const float* d_add = d_erase + p.write_heads * p.width;
    for (int64_t j = 0; j < p.write_heads * p.width; ++j) {
      d_raw[p.erase_start() + j] = d_erase[j] * erase[j] * (1.0f - erase[j]);
      d_raw[p.add_start() + j] = d_add[j] * (1.0f - add[j] * add[j]);
    }
  }

  void bound_memory(const Scratch& s, int64_t i) const {
    bound(s.d_weights + i * p.heads() * p.lanes(), p.heads() * p.lanes(), p.max_gradient);
    bound(s.d_memory + i * p.matrix(), p.matrix(), p.max_gradient);
  }

  template <typename AddWeights>
  void run(const Group& g, const Scratch& s, AddWeights add_weights) const {
    for (int64_t i = 0; i < g.count; ++i) begin(g, s, i);
    auto memory_steps = [&](int64_t t, int64_t running) {
      for (int64_t i = 0; i < running; i += ABREAST) memory_step(g, s, t, i, std::min(i + ABREAST, running));
    };
    CellBackward::run(g, s, memory_steps, [&](int64_t i) { bound_memory(s, i); }, add_weights);
    for (int64_t i = 0; i < g.count; ++i) finish(g, s, i);
  }
};
