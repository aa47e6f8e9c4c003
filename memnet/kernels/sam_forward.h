// The sequence forwards. The final state's tensors are what the steps work in.
#pragma once
#include "cell_forward.h"
#include "sam_links.h"
#include "sam_search.h"
#include "sam_usage.h"

struct Forward : CellForward {
  const Problem& p;
  const Kept& kept;

  Forward(const Problem& p, const Order& order, const Kept& kept, int64_t group_size, const float* inputs,
          const float* const* state, float* outputs, float* const* final_state)
      : CellForward{p, order, kept, group_size, p.interface(), inputs, state, outputs, final_state}, p(p), kept(kept) {}

  // A thread's own scratch.
  struct Scratch : CellForward::Scratch {
    float* inverse_norms;  // 1 / |row|, of each item
    int32_t *links, *ordered;
    int64_t* last_chosen;
    Candidate* candidates;
    Found* found;
    Nearest* nearest;  // of each head
    Usage::Touch* touches;
    Scratch(const Forward& pass, Arena& arena) : CellForward::Scratch(pass, arena) {
      const Problem& p = pass.p;
      const int64_t n = pass.group_size;
      inverse_norms = arena.take(n * p.most_used());
      links = of_floats<int32_t>(arena, n * 2 * AccessOrder::links(p));
      ordered = of_floats<int32_t>(arena, n);
      last_chosen = of_floats<int64_t>(arena, p.links ? p.read_heads : 0);
      candidates = of_floats<Candidate>(arena, p.links ? 3 * p.near : 0);
      found = of_floats<Found>(arena, p.touches());
      nearest = of_floats<Nearest>(arena, p.read_heads);
      touches = of_floats<Usage::Touch>(arena, 2 * p.touches() + p.read_heads);
    }
  };

  StateList at() const { return {p}; }
  const int64_t* given(int64_t which) const { return reinterpret_cast<const int64_t*>(state[which]); }
  int64_t* made(int64_t which) const { return reinterpret_cast<int64_t*>(final_state[which]); }
  float* memory_of(int64_t item) const { return final_state[at().memory()] + item * p.slots * p.width; }
  // What a head read at a step, in row r; before step 0 of a rank.
  Past read_in(int64_t r, int64_t head) const {
    if (!p.links) return {kept.read.of(r, head).slots, kept.read.of(r, head).weights};
    return {kept.linked.of(r, head).slots, kept.linked.of(r, head).weights};
  }
  Past read_before(const Group& g, int64_t thread, int64_t t, int64_t i, int64_t head) const {
    if (t) return read_in(row(g, thread, t - 1, i), head);
    const Reading first = kept.first.of(g.first + i, head);
    return {first.slots, first.weights};
  }
  LinkTables links_of(int64_t item) const {
    return {made(at().after()) + item * p.slots, made(at().before()) + item * p.slots};
  }
  Usage usage_of(const Scratch& s, int64_t i, int64_t item) const {
    int32_t* links = s.links + i * 2 * AccessOrder::links(p);
    return {p,
            made(at().least_used()) + item * p.read_heads,
            made(at().last_access()) + item * p.slots,
            made(at().in_use()) + item,
            made(at().time()) + item,
            {links, links + AccessOrder::links(p), static_cast<int32_t>(p.slots)},
            s.ordered + i};
  }

  // An item's state before its first step. What was never used is 0, and stays untouched where it came so.
  void begin(const Group& g, int64_t thread, const Scratch& s, int64_t i) const {
    const int64_t rank = g.first + i, item = order.item[rank], heads = p.read_heads;
    const float* reads = state[at().reads()] + item * p.reads();
    CellForward::begin(g, thread, i, reads);
    auto keep = [&](int64_t which, int64_t size, int64_t count) {
      std::copy_n(given(which) + item * size, count, made(which) + item * size);
    };
    copy(state[at().memory()] + item * p.slots * p.width, p.used * p.width, memory_of(item));
    auto keep_used = [&](int64_t which) {
      keep(which, p.slots, p.used);
      if (!p.zeroed) std::fill(made(which) + item * p.slots + p.used, made(which) + (item + 1) * p.slots, 0);
    };
    keep_used(at().last_access());
    if (p.links) {
      keep_used(at().after());
      keep_used(at().before());
    }
    if (!p.zeroed) std::fill(memory_of(item) + p.used * p.width, memory_of(item) + p.slots * p.width, 0.0f);
    keep(at().least_used(), heads, heads);
    keep(at().in_use(), 1, 1);
    keep(at().time(), 1, 1);
    if (order.length[rank] == 0) {
      keep(at().read_slots(), p.touches(), p.touches());
      copy(state[at().read_weights()] + item * p.touches(), p.touches(),
           final_state[at().read_weights()] + item * p.touches());
      copy(reads, p.reads(), final_state[at().reads()] + item * p.reads());
      kept.in_use[rank] = 0;  // none whose gradient is changed
      return;
    }
    s.ordered[i] = 0;
    float* inverse_norms = s.inverse_norms + i * p.most_used();
    for (int64_t slot = 0; slot < made(at().in_use())[item]; ++slot)
      inverse_norms[slot] = inverse_norm(p.width, memory_of(item) + slot * p.width, p.norm_epsilon);
    for (int64_t h = 0; h < heads; ++h) {
      const Reading first = kept.first.of(rank, h);
      const int64_t from = (item * heads + h) * p.near;
      std::copy_n(given(at().read_slots()) + from, p.near, first.slots);
      copy(state[at().read_weights()] + from, p.near, first.weights);
    }
  }
  void finish(int64_t rank, int64_t r, const float* reads) const {
    const int64_t item = order.item[rank];
    for (int64_t h = 0; h < p.read_heads; ++h) {
      const Past last = read_in(r, h);
      const int64_t to = (item * p.read_heads + h) * p.near;
      std::copy_n(last.slots, p.near, made(at().read_slots()) + to);
      copy(last.weights, p.near, final_state[at().read_weights()] + to);
    }
    copy(reads, p.reads(), final_state[at().reads()] + item * p.reads());
    kept.in_use[rank] = static_cast<int32_t>(made(at().in_use())[item]);
  }

  void activate_interface(const float* raw, float* interface) const {
    for (int64_t h = 0; h < p.read_heads; ++h, raw += p.emission(), interface += p.emission()) {
      apply(2 * p.width, raw, interface, [](vec x) { return hyperbolic_tangent(x); });
      const int64_t gates = 2 * p.width;
      apply(1, raw + gates, interface + gates, [](vec x) { return softplus(x); });
      apply(2, raw + gates + 1, interface + gates + 1, [](vec x) { return sigmoid(x); });
      if (p.links) activate_modes(raw + gates + 3, interface + gates + 3);
    }
  }

  // Erases the least used slots and adds w_W = alpha (gamma w_R,t-1 + (1 - gamma) I_U) times a (sec. 3.2, eq. 5). Lists
  // the touches.
  template <typename ReadBefore>
  Usage::Touch* write(float* memory, float* inverse_norms, const float* interface, ReadBefore read_before,
                      const int32_t* least_used, Usage::Touch* touch) const {
    Usage::Touch* const first = touch;
    for (int64_t h = 0; h < p.read_heads; ++h) {
      float* erased = memory + least_used[h] * p.width;
      std::fill(erased, erased + p.width, 0.0f);
    }
    for (int64_t h = 0; h < p.read_heads; ++h) {
      const Emission y{interface + h * p.emission(), p.width};
      const Past past = read_before(h);
      for (int64_t k = 0; k < p.near; ++k)
        *touch++ = {past.slots[k], y.write_gate() * (y.interpolation() * past.weights[k])};
      *touch++ = {least_used[h], y.write_gate() * (1.0f - y.interpolation())};
      for (const Usage::Touch* to = touch - p.near - 1; to < touch; ++to)
        add_scaled(p.width, to->weight, y.add(), memory + to->slot * p.width);
    }
    for (const Usage::Touch* to = first; to < touch; ++to)
      inverse_norms[to->slot] = inverse_norm(p.width, memory + to->slot * p.width, p.norm_epsilon);
    return touch;
  }

  // w = softmax(beta K[q, M(s_i)]) over the nearest slots (sec. 3.1, eq. 4). Keeps their rows.
  void weigh(const float* memory, const float* inverse_norms, const Emission& y, const Nearest& nearest,
             const Reading& reading) const {
    const float inverse_query = inverse_norm(p.width, y.query(), p.norm_epsilon);
    const int64_t count = nearest.count;
    for (int64_t k = 0; k < count; ++k) {
      const int32_t slot = nearest.best[k].slot;
      reading.slots[k] = slot;
      reading.cosine[k] = nearest.best[k].score * inverse_query;
      reading.inverse_norm[k] = inverse_norms[slot];
      copy(memory + slot * p.width, p.width, reading.rows + k * p.width);
    }
    // The first one is the highest, and the key strength is positive.
    const float strength = y.strength(), bound = strength * reading.cosine[0];
    apply(count, reading.cosine, reading.weights, [&](vec cosine) { return exponential(strength * cosine - bound); });
    const float factor = 1.0f / std::accumulate(reading.weights, reading.weights + count, 0.0f);
    for (int64_t k = 0; k < count; ++k) reading.weights[k] *= factor;
    std::fill(reading.slots + count, reading.slots + p.near, 0);
    std::fill(reading.weights + count, reading.weights + p.near, 0.0f * factor);  // NaN among NaN
  }

  // r = sum_i w(i) M(s_i) (sec. 3.1, eq. 2).
  void read(const Reading& reading, int64_t count, float* reads) const {
    std::fill(reads, reads + p.width, 0.0f);
    for (int64_t k = 0; k < count; ++k) add_scaled(p.width, reading.weights[k], reading.rows + k * p.width, reads);
  }

  // Writing and reading of one item.
  void memory_step(const Group& g, int64_t thread, const Scratch& s, int64_t t, int64_t i) const {
    const int64_t r = row(g, thread, t, i), rank = g.first + i, item = order.item[rank], heads = p.read_heads;
    float *interface = kept.interface + r * p.interface(), *memory = memory_of(item);
    float* inverse_norms = s.inverse_norms + i * p.most_used();
    const Usage usage = usage_of(s, i, item);
    activate_interface(raw_interface(s, i), interface);
    if (p.links) std::copy_n(usage.least_used, heads, s.last_chosen);
    usage.choose();
    if (p.links) links_of(item).take(heads, s.last_chosen, usage.least_used);
    int32_t* least_used = kept.read.least_used(r);
    std::copy_n(usage.least_used, heads, least_used);
    auto before = [&](int64_t h) { return read_before(g, thread, t, i, h); };
    Usage::Touch* touched = write(memory, inverse_norms, interface, before, least_used, s.touches);

    float* reads = reads_after(g, thread, t, i);
    kept.read.count(r) = static_cast<int32_t>(std::min(p.near, *usage.in_use));
    for (int64_t h = 0; h < heads; ++h) s.nearest[h] = {s.found + h * p.near, p.near, 0};
    find_nearest(p, memory, inverse_norms, *usage.in_use, interface, s.nearest);
    for (int64_t h = 0; h < heads; ++h) {
      const Reading reading = kept.read.of(r, h);
      const Emission y{interface + h * p.emission(), p.width};
      weigh(memory, inverse_norms, y, s.nearest[h], reading);
      if (p.links)
        read_linked(p, memory, y, reading, s.nearest[h].count, before(h), links_of(item), s.candidates,
                    kept.linked.of(r, h), reads + h * p.width);
      else
        read(reading, s.nearest[h].count, reads + h * p.width);
      const Past now = read_in(r, h);
      for (int64_t k = 0; k < p.near; ++k) *touched++ = {now.slots[k], now.weights[k]};
    }
    ++*usage.time;
    usage.note(s.touches, touched - s.touches);
    if (t + 1 == order.length[rank]) finish(rank, r, reads);
  }

  void run(const Group& g, int64_t thread, const Scratch& s) const {
    for (int64_t i = 0; i < g.count; ++i) begin(g, thread, s, i);
    CellForward::run(g, thread, s, [&](int64_t t, int64_t running) {
      for (int64_t i = 0; i < running; ++i) memory_step(g, thread, s, t, i);
    });
  }
};
