// The sequence forwards.
#pragma once
#include "cell_forward.h"
#include "dnc_allocation.h"
#include "dnc_content.h"
#include "dnc_link_step.h"
#include "dnc_reading.h"

// What a step takes over from the one before, or from the initial state.
struct Before {
  const float *usage, *precedence, *freeing, *following;

  static Before of_row(const Problem& p, const SlotRows& slots, int64_t row) {
    const float* read = slots.weights(row, p.write_heads);
    return {slots.usage(row), slots.precedence(row, 0), read, read};
  }
  static Before of_first(const FirstRows& first, int64_t rank) {
    return {first.usage(rank), first.precedence(rank), first.freeing(rank), first.following(rank)};
  }
};

static float* link_of(const Problem& p, float* contents, int64_t write) {
  return contents + p.matrix() + write * p.link();
}
static LinkStep link_step(const Problem& p, const Before& before, const SlotRows& slots, int64_t row, int64_t write,
                          const float* contents) {
  return {p.slots,
          p.read_heads,
          p.lanes(),
          contents + p.matrix() + write * p.link(),
          before.precedence + write * p.lanes(),
          slots.weights(row, write),
          before.following};
}
// The memory as the write finds it: what is left of freed slots, in `scratch`, or all.
static const float* unfreed(const Problem& p, const float* memory, const float* retention, float* scratch) {
  if (!p.erase_freed) return memory;
  for (int64_t b = 0; b < p.blocks(); ++b) {
    const vec kept = load(retention + b * LANES);
    for (int64_t w = 0; w < p.width; ++w) {
      const int64_t at = (b * p.width + w) * LANES;
      store(scratch + at, kept * load(memory + at));
    }
  }
  return scratch;
}
// What all write heads have written, 1 - prod_h (1 - w_h); `scratch` where there are several.
static const float* written_by_all(const Problem& p, const float* weights, float* scratch) {
  if (p.write_heads == 1) return weights;
  left_over(p, p.write_heads, nullptr, weights, scratch);
  for (int64_t n = 0; n < p.lanes(); n += LANES) store(scratch + n, 1.0f - load(scratch + n));
  return scratch;
}

struct Forward : CellForward {
  const Problem& p;
  const Kept& kept;

  Forward(const Problem& p, const Order& order, const Kept& kept, int64_t group_size, const float* inputs,
          const float* const* state, float* outputs, float* const* final_state)
      : CellForward{p, order, kept, group_size, p.interface(), inputs, state, outputs, final_state}, p(p), kept(kept) {}

  // A thread's own scratch.
  struct Scratch : CellForward::Scratch {
    float *one, *erased, *sums, *query, *running;
    Scratch(const Forward& pass, Arena& arena) : CellForward::Scratch(pass, arena) {
      const Problem& p = pass.p;
      one = arena.take(p.lanes());
      erased = arena.take(p.erase_freed ? p.matrix() : 0);
      sums = arena.take(round_up(p.reads(), LANES) * LANES);
      query = arena.take(2 * p.width);
      running = arena.take(p.training && p.segment == 1 ? 0 : pass.group_size * p.contents());
    }
  };

  StateList at() const { return {p}; }
  // Memory and links after step t (-1: the initial ones).
  float* contents_after(const Group& g, const Scratch& s, int64_t i, int64_t t) const {
    const int64_t place = p.training ? order.kept_memory(g.first + i, t, p.segment) : -1;
    return place < 0 ? s.running + i * p.contents() : kept.contents + place * p.contents();
  }
  // An item's weightings in a list of tensors, without padding <-> with it.
  void take(int64_t which, int64_t item, int64_t count, float* to) const {
    for (int64_t h = 0; h < count; ++h) {
      copy(state[which] + (item * count + h) * p.slots, p.slots, to + h * p.lanes());
      std::fill(to + h * p.lanes() + p.slots, to + (h + 1) * p.lanes(), 0.0f);
    }
  }
  void give(int64_t which, int64_t item, int64_t count, const float* from) const {
    for (int64_t h = 0; h < count; ++h)
      copy(from + h * p.lanes(), p.slots, final_state[which] + (item * count + h) * p.slots);
  }

  void begin(const Group& g, int64_t thread, const Scratch& s, int64_t i) const {
    const int64_t rank = g.first + i, item = order.item[rank], square = p.slots * p.slots;
    CellForward::begin(g, thread, i, state[at().reads()] + item * p.reads());
    if (order.length[rank] == 0) return keep_state(item);
    float* contents = contents_after(g, s, i, -1);
    blocked(p, state[at().memory()] + item * p.slots * p.width, contents);
    for (int64_t w = 0; w < p.write_heads; ++w)
      copy(state[at().link()] + (item * p.write_heads + w) * square, square, link_of(p, contents, w));
    take(at().usage(), item, 1, kept.first.usage(rank));
    take(at().precedence(), item, p.write_heads, kept.first.precedence(rank));
    take(at().freeing(), item, p.read_heads, kept.first.freeing(rank));
    take(at().following(), item, p.read_heads, kept.first.following(rank));
  }
  // Of an item without steps.
  void keep_state(int64_t item) const {
    auto keep = [&](int64_t which, int64_t count) {
      copy(state[which] + item * count, count, final_state[which] + item * count);
    };
    keep(at().memory(), p.slots * p.width);
    keep(at().usage(), p.slots);
    keep(at().freeing(), p.read_heads * p.slots);
    if (p.erase_freed) keep(at().retention(), p.slots);
    keep(at().link(), p.write_heads * p.slots * p.slots);
    keep(at().precedence(), p.write_heads * p.slots);
    keep(at().back(), p.followed() * p.slots);
    keep(at().forth(), p.followed() * p.slots);
    keep(at().following(), p.read_heads * p.slots);
    keep(at().reads(), p.reads());
  }
  // An item's final state, after the step that row r has kept.
  void finish(int64_t item, int64_t r, const float* contents, const float* reads) const {
    const int64_t square = p.slots * p.slots;
    unblocked(p, contents, final_state[at().memory()] + item * p.slots * p.width);
    for (int64_t w = 0; w < p.write_heads; ++w)
      copy(contents + p.matrix() + w * p.link(), square,
           final_state[at().link()] + (item * p.write_heads + w) * square);
    const float* read_weights = kept.slots.weights(r, p.write_heads);
    give(at().usage(), item, 1, kept.slots.usage(r));
    give(at().freeing(), item, p.read_heads, read_weights);
    if (p.erase_freed) give(at().retention(), item, 1, kept.slots.retention(r));
    give(at().precedence(), item, p.write_heads, kept.slots.precedence(r, 0));
    give(at().back(), item, p.followed(), kept.slots.back(r));
    give(at().forth(), item, p.followed(), kept.slots.forth(r));
    give(at().following(), item, p.read_heads, read_weights);
    copy(reads, p.reads(), final_state[at().reads()] + item * p.reads());
  }

  // Where the write heads write, and the usage afterwards.
  void address_writes(const Scratch& s, int64_t r, const float* memory, const Before& before) const {
    const SlotRows& slots = kept.slots;
    const float* interface = kept.interface + r * p.interface();
    left_over(p, p.read_heads, interface + p.free_start(), before.freeing, slots.retention(r));
    for (int64_t n = 0; n < p.lanes(); n += LANES)
      store(slots.used(r, 0) + n, load(before.usage + n) * load(slots.retention(r) + n));
    for (int64_t h = 0; h < p.write_heads; ++h) {
      const float* y = interface + p.emission_start(h);
      const float allocation_gate = y[p.score()], write_gate = y[p.score() + 1];
      float *content = slots.content(r, h), *allocated = slots.allocated(r, h), *used = slots.used(r, h);
      address_content(p, y, memory, slots.cosine(r, h), slots.inverse_norm(r, h), content, s.one, s.query);
      sort_slots(p, used, slots.order(r, h), reinterpret_cast<int32_t*>(s.one));
      allocate(p, used, slots.order(r, h), allocated);
      for_blocks(p, [&](int64_t n, ivec) {
        const vec a = load(allocated + n);
        store(slots.weights(r, h) + n, write_gate * between(load(content + n), a, splat(allocation_gate)));
        store(s.one + n, allocation_gate * write_gate * a);
      });
      if (h + 1 < p.write_heads) use(p, used, s.one, slots.used(r, h + 1));
    }
    use(p, slots.used(r, 0), written_by_all(p, slots.weights(r), s.one), slots.usage(r));
  }

  void follow_links(int64_t r, const float* from, float* to, const Before& before) const {
    const SlotRows& slots = kept.slots;
    const int64_t lanes = p.lanes();
    for (int64_t w = 0; w < p.write_heads; ++w) {
      const LinkStep step = link_step(p, before, slots, r, w, from);
      float *back = slots.back(r, w * p.read_heads), *forth = slots.forth(r, w * p.read_heads);
      link_forward(step, link_of(p, to, w), back, forth);
      precedence_forward(step, slots.precedence(r, w));
      std::fill(slots.precedence(r, w) + p.slots, slots.precedence(r, w) + lanes, 0.0f);
      for (int64_t h = 0; h < p.read_heads; ++h)
        for (float* followed : {back, forth})
          std::fill(followed + h * lanes + p.slots, followed + (h + 1) * lanes, 0.0f);
    }
  }

  // Addressing, writing and reading of one item.
  void memory_step(const Group& g, int64_t thread, const Scratch& s, int64_t t, int64_t i) const {
    const SlotRows& slots = kept.slots;
    const int64_t r = row(g, thread, t, i), stride = p.read_heads * p.lanes();
    const Before before =
        t ? Before::of_row(p, slots, row(g, thread, t - 1, i)) : Before::of_first(kept.first, g.first + i);
    float *from = contents_after(g, s, i, t - 1), *to = contents_after(g, s, i, t);
    float* interface = kept.interface + r * p.interface();
    activate_interface(p, raw_interface(s, i), interface);
    address_writes(s, r, from, before);
    write_any(p, unfreed(p, from, slots.retention(r), s.erased), to, slots.weights(r), interface + p.erase_start(),
              interface + p.add_start(), nullptr);
    follow_links(r, from, to, before);
    for (int64_t h = 0; h < p.read_heads; ++h) {
      const int64_t head = p.write_heads + h;
      const float* y = interface + p.emission_start(head);
      address_content(p, y, to, slots.cosine(r, head), slots.inverse_norm(r, head), slots.content(r, head), s.one,
                      s.query);
      mix_modes(p, {y + p.score(), p.write_heads}, slots.back(r, h), slots.forth(r, h), stride, slots.content(r, head),
                slots.weights(r, head), s.one);
      weigh_slots(p, to, slots.weights(r, head), s.sums + h * p.width * LANES);
    }
    float* reads = reads_after(g, thread, t, i);
    add_lanes(s.sums, p.reads(), reads);
    if (t + 1 == order.length[g.first + i]) finish(order.item[g.first + i], r, to, reads);
  }

  void run(const Group& g, int64_t thread, const Scratch& s) const {
    for (int64_t i = 0; i < g.count; ++i) begin(g, thread, s, i);
    CellForward::run(g, thread, s, [&](int64_t t, int64_t running) {
      for (int64_t i = 0; i < running; ++i) memory_step(g, thread, s, t, i);
    });
  }
};
