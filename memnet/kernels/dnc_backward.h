// The sequence backwards.
#pragma once
#include "cell_backward.h"
#include "dnc_forward.h"

struct Backward : CellBackward {
  const Problem& p;
  const Kept& kept;

  Backward(const Problem& p, const Order& order, const Kept& kept, int64_t group_size, const float* d_outputs,
           const float* const* d_final, float* d_inputs, float* const* d_state)
      : CellBackward{p, order, kept, group_size, p.interface(), d_outputs, d_final, d_inputs, d_state},
        p(p),
        kept(kept) {}

  // A thread's own scratch. Carries go from step to step: gradients of memory and links, of usage, precedences and read
  // weights (in the order of the first rows). The others are of one item's step.
  struct Scratch : CellBackward::Scratch {
    float *d_contents, *rebuilt;
    FirstRows d_before;
    float *d_reads, *d_weights, *d_back, *d_forth, *d_content, *d_used, *d_retention, *one, *erased, *sums, *numbers,
        *products;
    ContentScratch content;
    Scratch(const Backward& b, Arena& arena) : CellBackward::Scratch(b, arena), content(b.p, arena) {
      const Problem& p = b.p;
      const int64_t n = b.group_size, lanes = p.lanes(), written = 2 * p.write_heads * p.width;
      d_contents = arena.take(n * p.contents());
      rebuilt = arena.take(n * (p.segment - 1) * p.contents());
      d_before = {arena.take(n * FirstRows::size(p)), lanes, p.write_heads, p.read_heads};
      d_reads = arena.take(p.reads());
      d_weights = arena.take(p.heads() * lanes);
      d_back = arena.take(p.followed() * lanes);
      d_forth = arena.take(p.followed() * lanes);
      for (float** weighting : {&d_content, &d_used, &d_retention, &one}) *weighting = arena.take(lanes);
      erased = arena.take(p.erase_freed ? p.matrix() : 0);
      sums = arena.take(round_up(written, LANES) * LANES);
      numbers = arena.take(round_up(written, LANES));
      products = arena.take((2 * p.write_heads + 1) * LANES);
    }
  };

  StateList at() const { return {p}; }
  Before before(const Group& g, int64_t t, int64_t i) const {
    return t ? Before::of_row(p, kept.slots, row(g, t - 1, i)) : Before::of_first(kept.first, g.first + i);
  }
  float* contents_after(const Group& g, const Scratch& s, int64_t i, int64_t t) const {
    const int64_t place = order.kept_memory(g.first + i, t, p.segment);
    return place < 0 ? s.rebuilt + (i * (p.segment - 1) + t % p.segment) * p.contents()
                     : kept.contents + place * p.contents();
  }
  // Writes the memories and links between two kept ones anew, when step t is the last one of a segment.
  void rebuild(const Group& g, const Scratch& s, int64_t i, int64_t t) const {
    const int64_t start = t / p.segment * p.segment;
    if (t != std::min(order.length[g.first + i], start + p.segment) - 1) return;
    for (int64_t past = start; past < t; ++past) {
      const int64_t r = row(g, past, i);
      const float* interface = kept.interface + r * p.interface();
      float *from = contents_after(g, s, i, past - 1), *to = contents_after(g, s, i, past);
      write_any(p, unfreed(p, from, kept.slots.retention(r), s.erased), to, kept.slots.weights(r),
                interface + p.erase_start(), interface + p.add_start(), nullptr);
      for (int64_t w = 0; w < p.write_heads; ++w)
        link_forward(link_step(p, before(g, past, i), kept.slots, r, w, from), link_of(p, to, w), nullptr, nullptr);
    }
  }

  // An item's weightings, with padding, from a list of tensors; zeros if there are none.
  void take(int64_t which, int64_t item, int64_t count, float* to) const {
    std::fill(to, to + count * p.lanes(), 0.0f);
    for (int64_t h = 0; d_final[which] && h < count; ++h)
      copy(d_final[which] + (item * count + h) * p.slots, p.slots, to + h * p.lanes());
  }
  void give_weightings(int64_t which, int64_t item, int64_t count, const float* from) const {
    for (int64_t h = 0; h < count; ++h)
      give(from + h * p.lanes(), p.slots, d_state[which], (item * count + h) * p.slots);
  }

  // The carries of an item before its last step: the gradients of its final state.
  void begin(const Group& g, const Scratch& s, int64_t i) const {
    const int64_t item = order.item[g.first + i], square = p.slots * p.slots;
    CellBackward::begin(g, s, i, d_final[at().reads()]);
    float* d_contents = s.d_contents + i * p.contents();
    std::fill(d_contents, d_contents + p.matrix(), 0.0f);
    if (d_final[at().memory()]) blocked(p, d_final[at().memory()] + item * p.slots * p.width, d_contents);
    for (int64_t w = 0; w < p.write_heads; ++w)
      copy_or_zero(d_final[at().link()], (item * p.write_heads + w) * square, square, link_of(p, d_contents, w));
    take(at().usage(), item, 1, s.d_before.usage(i));
    take(at().precedence(), item, p.write_heads, s.d_before.precedence(i));
    take(at().freeing(), item, p.read_heads, s.d_before.freeing(i));
    take(at().following(), item, p.read_heads, s.d_before.following(i));
  }
  // The carries before the first step: the gradients of the initial state. What the first step writes over gets none,
  // unless there is no step.
  void finish(const Group& g, const Scratch& s, int64_t i) const {
    const int64_t item = order.item[g.first + i], square = p.slots * p.slots;
    CellBackward::finish(g, s, i, d_state[at().reads()]);
    float* d_contents = s.d_contents + i * p.contents();
    if (d_state[at().memory()]) unblocked(p, d_contents, d_state[at().memory()] + item * p.slots * p.width);
    for (int64_t w = 0; w < p.write_heads; ++w)
      give(link_of(p, d_contents, w), square, d_state[at().link()], (item * p.write_heads + w) * square);
    give_weightings(at().usage(), item, 1, s.d_before.usage(i));
    give_weightings(at().precedence(), item, p.write_heads, s.d_before.precedence(i));
    give_weightings(at().freeing(), item, p.read_heads, s.d_before.freeing(i));
    give_weightings(at().following(), item, p.read_heads, s.d_before.following(i));
    const bool none = order.length[g.first + i] == 0;
    auto overwritten = [&](int64_t which, int64_t count) {
      const float* from = none ? d_final[which] : nullptr;
      if (d_state[which]) copy_or_zero(from, item * count, count, d_state[which] + item * count);
    };
    if (p.erase_freed) overwritten(at().retention(), p.slots);
    overwritten(at().back(), p.followed() * p.slots);
    overwritten(at().forth(), p.followed() * p.slots);
  }

  // From the gradients of the reads and of the read weights to those of the written memory, and of backward and forward
  // weights, which are added to.
  void read_heads_gradient(const Scratch& s, int64_t r, int64_t i, const float* memory, float* d_raw) const {
    const SlotRows& slots = kept.slots;
    const int64_t lanes = p.lanes(), stride = p.read_heads * lanes;
    float *d_memory = s.d_contents + i * p.contents();
    read_gradient(p, slots.weights(r, p.write_heads), s.d_reads, d_memory);
    for (int64_t h = 0; h < p.read_heads; ++h) {
      const int64_t head = p.write_heads + h, start = p.emission_start(head);
      const float* y = kept.interface + r * p.interface() + start;
      float* d_weights = s.d_weights + head * lanes;
      const float *freeing = s.d_before.freeing(i) + h * lanes, *following = s.d_before.following(i) + h * lanes;
      for (int64_t n = 0; n < lanes; n += LANES) store(d_weights + n, load(freeing + n) + load(following + n));
      dot_slots(p, memory, s.d_reads + h * p.width, d_weights, true);
      mix_gradient(p, {y + p.score(), p.write_heads}, slots.back(r, h), slots.forth(r, h), stride,
                   slots.content(r, head), d_weights, s.d_back + h * lanes, s.d_forth + h * lanes, s.d_content,
                   d_raw + start + p.score(), s.one);
      content_gradient(p, y, memory, slots.cosine(r, head), slots.inverse_norm(r, head), slots.content(r, head),
                       s.d_content, d_memory, d_raw + start, s.content);
    }
  }

  // Backwards through the links, the usage and the write itself: d_weights of the write heads, and d_used of the usage
  // after the free gates. The gradient of the memory becomes that of the memory before the step, but for what the write
  // heads have compared with it.
  void write_gradients(const Scratch& s, int64_t r, int64_t i, const float* from, const Before& past,
                       float* d_raw) const {
    const SlotRows& slots = kept.slots;
    const int64_t lanes = p.lanes(), written = p.write_heads * p.width;
    const float *interface = kept.interface + r * p.interface(), *weights = slots.weights(r);
    float *d_contents = s.d_contents + i * p.contents();
    std::fill(s.d_weights, s.d_weights + p.write_heads * lanes, 0.0f);
    for (int64_t w = 0; w < p.write_heads; ++w) {
      const LinkStep step = link_step(p, past, slots, r, w, from);
      float *d_precedence = s.d_before.precedence(i) + w * lanes, *d_weight = s.d_weights + w * lanes;
      precedence_backward(step, d_precedence, d_weight);
      const int64_t followed = w * p.read_heads * lanes;
      link_backward(step, {link_of(p, d_contents, w), d_precedence, d_weight, s.d_before.following(i),
                           s.d_back + followed, s.d_forth + followed});
    }
    const float* all = written_by_all(p, weights, s.one);
    const float sign = p.write_heads == 1 ? 1.0f : -1.0f;  // of several heads, what is not written is a product
    float* d_all = p.write_heads == 1 ? s.d_weights : s.one;
    for (int64_t n = 0; n < lanes; n += LANES) {
      const vec d = load(s.d_before.usage(i) + n), used = load(slots.used(r, 0) + n);
      store(s.d_used + n, d * (1.0f - load(all + n)));
      const vec d_written = sign * d * (1.0f - used);
      store(d_all + n, p.write_heads == 1 ? load(d_all + n) + d_written : d_written);
    }
    if (p.write_heads > 1) left_over_gradient(p, p.write_heads, nullptr, weights, d_all, s.d_weights, nullptr);

    const float *erase = interface + p.erase_start(), *add = interface + p.add_start();
    write_gradient(p, unfreed(p, from, slots.retention(r), s.erased), weights, erase, add, d_contents, s.d_weights,
                   s.sums, s.sums + written * LANES, s.products);
    add_lanes(s.sums, 2 * written, s.numbers);
    for (int64_t j = 0; j < written; ++j) {
      d_raw[p.erase_start() + j] = s.numbers[j] * erase[j] * (1.0f - erase[j]);
      d_raw[p.add_start() + j] = s.numbers[written + j] * (1.0f - add[j] * add[j]);
    }
    for (int64_t b = 0; p.erase_freed && b < p.blocks(); ++b) {
      vec total = load(s.d_retention + b * LANES);
      const vec left = load(slots.retention(r) + b * LANES);
      for (int64_t place = b * p.width * LANES; place < (b + 1) * p.width * LANES; place += LANES) {
        const vec d = load(d_contents + place);
        total += d * load(from + place);
        store(d_contents + place, d * left);
      }
      store(s.d_retention + b * LANES, total);
    }
  }

  // Backwards through `Forward::address_writes`, from d_weights and d_used.
  void write_heads_gradient(const Scratch& s, int64_t r, int64_t i, const float* memory, const Before& past,
                            float* d_raw) const {
    const SlotRows& slots = kept.slots;
    const int64_t lanes = p.lanes();
    const float* interface = kept.interface + r * p.interface();
    float *d_allocated = s.one, *d_used = s.d_before.usage(i);  // free by now, and to be that of the usage before
    std::fill(d_used, d_used + lanes, 0.0f);
    for (int64_t h = p.write_heads - 1; h >= 0; --h) {
      const int64_t start = p.emission_start(h), gates = start + p.score();
      const float share = interface[gates], open = interface[gates + 1];
      const bool taken = h + 1 < p.write_heads;  // into account by the next head
      const float *used = slots.used(r, h), *content = slots.content(r, h);
      vec d_share = {}, d_open = {};
      for_blocks(p, [&](int64_t n, ivec lanes_there) {
        const vec d = load(s.d_weights + h * lanes + n), c = load(content + n), a = load(slots.allocated(r, h) + n);
        vec of_allocated = d * (open * share), of_share = d * open * (a - c), of_open = d * between(c, a, splat(share));
        if (taken) {
          const vec later = load(d_used + n), of_taken = later * (1.0f - load(used + n));
          store(d_used + n, later * (1.0f - share * open * a));
          of_allocated += share * open * of_taken;
          of_share += open * a * of_taken;
          of_open += share * a * of_taken;
        }
        d_share += only(lanes_there, of_share);
        d_open += only(lanes_there, of_open);
        store(d_allocated + n, of_allocated);
        store(s.d_content + n, d * (open * (1.0f - share)));
      });
      d_raw[gates] = sum(d_share) * share * (1.0f - share);
      d_raw[gates + 1] = sum(d_open) * open * (1.0f - open);
      allocation_gradient(p, used, slots.order(r, h), d_allocated, d_used, s.content.d_dots);
      content_gradient(p, interface + start, memory, slots.cosine(r, h), slots.inverse_norm(r, h), content, s.d_content,
                       s.d_contents + i * p.contents(), d_raw + start, s.content);
    }
    for_blocks(p, [&](int64_t n, ivec lanes_there) {
      const vec d = load(d_used + n) + load(s.d_used + n);
      store(s.d_retention + n, only(lanes_there, load(s.d_retention + n) + d * load(past.usage + n)));
      store(d_used + n, only(lanes_there, d * load(slots.retention(r) + n)));
    });
    const float* free = interface + p.free_start();
    float* d_free = d_raw + p.free_start();
    std::fill(d_free, d_free + p.read_heads, 0.0f);
    left_over_gradient(p, p.read_heads, free, past.freeing, s.d_retention, s.d_before.freeing(i), d_free);
    for (int64_t h = 0; h < p.read_heads; ++h) d_free[h] *= free[h] * (1.0f - free[h]);
  }

  // One item's memory at one step: from the gradients of its reads and of what is carried to that of the interface.
  void memory_step(const Group& g, const Scratch& s, int64_t t, int64_t i) const {
    const int64_t r = row(g, t, i), rank = g.first + i, item = order.item[rank], lanes = p.lanes();
    const bool last = t + 1 == order.length[rank];
    rebuild(g, s, i, t);
    const float *from = contents_after(g, s, i, t - 1), *to = contents_after(g, s, i, t);
    const Before past = before(g, t, i);
    const float *d_above = d_reads_above(s, i), *d_carried = d_reads_carried(s, i);
    for (int64_t j = 0; j < p.reads(); ++j) s.d_reads[j] = d_above[j] + d_carried[j];
    // What a step makes and only the final state hands out.
    auto from_state = [&](int64_t which, int64_t count, float* to) {
      if (last)
        take(which, item, count, to);
      else
        std::fill(to, to + count * lanes, 0.0f);
    };
    from_state(at().back(), p.followed(), s.d_back);
    from_state(at().forth(), p.followed(), s.d_forth);
    if (p.erase_freed)
      from_state(at().retention(), 1, s.d_retention);
    else
      std::fill(s.d_retention, s.d_retention + lanes, 0.0f);
    float* d_raw = this->d_raw(s, t, i);
    read_heads_gradient(s, r, i, to, d_raw);
    // From here on those of the read weights of the step before.
    std::fill(s.d_before.freeing(i), s.d_before.freeing(i) + 2 * p.read_heads * lanes, 0.0f);
    write_gradients(s, r, i, from, past, d_raw);
    write_heads_gradient(s, r, i, from, past, d_raw);
  }

  void bound_memory(const Scratch& s, int64_t i) const {
    bound(s.d_contents + i * p.contents(), p.contents(), p.max_gradient);
    bound(s.d_before.usage(i), FirstRows::size(p), p.max_gradient);
  }

  template <typename AddWeights>
  void run(const Group& g, const Scratch& s, AddWeights add_weights) const {
    for (int64_t i = 0; i < g.count; ++i) begin(g, s, i);
    auto memory_steps = [&](int64_t t, int64_t running) {
      for (int64_t i = 0; i < running; ++i) memory_step(g, s, t, i);
    };
    CellBackward::run(g, s, memory_steps, [&](int64_t i) { bound_memory(s, i); }, add_weights);
    for (int64_t i = 0; i < g.count; ++i) finish(g, s, i);
  }
};
