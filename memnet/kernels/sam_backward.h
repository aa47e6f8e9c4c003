// The sequence backwards.
#pragma once
#include "cell_backward.h"
#include "sam_forward.h"

// The gradient of one item's memory: of the rows that the sequence touches, in the order in which they are first met.
// The others' is that of the final memory.
struct MemoryGradient {
  const Problem& p;
  const float* d_final;  // of the item's final memory, may be null
  int32_t *place, *count;
  float* rows;

  float* row(int32_t slot) const {
    int32_t& at = place[slot];
    if (at < 0) {
      at = (*count)++;
      copy_or_zero(d_final, slot * p.width, p.width, rows + at * p.width);
    }
    return rows + at * p.width;
  }
};

struct Backward : CellBackward {
  const Problem& p;
  const Kept& kept;

  Backward(const Problem& p, const Order& order, const Kept& kept, int64_t group_size, const float* d_outputs,
           const float* const* d_final, float* d_inputs, float* const* d_state)
      : CellBackward{p, order, kept, group_size, p.interface(), d_outputs, d_final, d_inputs, d_state},
        p(p),
        kept(kept) {}

  // A thread's own scratch. Carries go from step to step: gradients of each item's memory and read weights.
  struct Scratch : CellBackward::Scratch {
    int32_t *place, *count;
    float *d_rows, *d_weights;
    float *d_reads, *d_given;  // of one item's step
    float *d_content, *d_past, *nothing;  // the same, with links
    Scratch(const Backward& b, Arena& arena) : CellBackward::Scratch(b, arena) {
      const Problem& p = b.p;
      const int64_t n = b.group_size;
      place = of_floats<int32_t>(arena, n * p.most_used());
      count = of_floats<int32_t>(arena, n);
      d_rows = arena.take(n * p.most_touched() * p.width);
      d_weights = arena.take(n * p.touches());
      d_reads = arena.take(p.reads());
      d_given = arena.take(p.near);
      d_content = arena.take(p.links ? p.near : 0);
      d_past = arena.take(p.links ? p.touches() : 0);
      nothing = arena.take(p.links ? p.width : 0);
    }
  };

  StateList at() const { return {p}; }
  MemoryGradient memory_gradient(const Scratch& s, int64_t i, int64_t item) const {
    const float* d_memory = d_final[at().memory()];
    return {p, d_memory ? d_memory + item * p.slots * p.width : nullptr, s.place + i * p.most_used(), s.count + i,
            s.d_rows + i * p.most_touched() * p.width};
  }

  // The carries of an item before its last step: the gradients of its final state.
  void begin(const Group& g, const Scratch& s, int64_t i) const {
    const int64_t rank = g.first + i, item = order.item[rank];
    CellBackward::begin(g, s, i, d_final[at().reads()]);
    copy_or_zero(d_final[at().read_weights()], item * p.touches(), p.touches(), s.d_weights + i * p.touches());
    std::fill_n(s.place + i * p.most_used(), kept.in_use[rank], -1);
    s.count[i] = 0;
  }
  // The carries before the first step: the gradients of the initial state.
  void finish(const Group& g, const Scratch& s, int64_t i) const {
    const int64_t rank = g.first + i, item = order.item[rank], size = p.slots * p.width;
    CellBackward::finish(g, s, i, d_state[at().reads()]);
    give(s.d_weights + i * p.touches(), p.touches(), d_state[at().read_weights()], item * p.touches());
    if (!d_state[at().memory()]) return;
    const MemoryGradient d_memory = memory_gradient(s, i, item);
    float* to = d_state[at().memory()] + item * size;
    copy_or_zero(d_memory.d_final, 0, size, to);
    for (int32_t slot = 0; slot < kept.in_use[rank]; ++slot)
      if (d_memory.place[slot] >= 0) copy(d_memory.row(slot), p.width, to + slot * p.width);
  }

  // Backwards through `Forward::read`: from the gradients of reads and weights to those of the rows, which are added
  // to, and of query and key strength before activation.
  void read_gradient(const Emission& y, const Reading& reading, int64_t count, const float* d_reads,
                     const float* d_weights, float* d_given, const MemoryGradient& d_memory, float* d_raw) const {
    const float inverse_query = inverse_norm(p.width, y.query(), p.norm_epsilon);
    float mean = 0.0f, d_strength = 0.0f;
    for (int64_t k = 0; k < count; ++k) {
      d_given[k] = d_weights[k] + dot(p.width, d_reads, reading.rows + k * p.width);
      mean += reading.weights[k] * d_given[k];
    }
    float* d_query = d_raw;
    std::fill(d_query, d_query + p.width, 0.0f);
    for (int64_t k = 0; k < count; ++k) {
      const float* row = reading.rows + k * p.width;
      const float d_score = reading.weights[k] * (d_given[k] - mean);
      d_strength += d_score * reading.cosine[k];
      // d cos(q, m) / d q = m / (|q| |m|) - cos q / |q|^2, and the same with q and m changed.
      const float d_cosine = y.strength() * d_score;
      const float across = d_cosine * inverse_query * reading.inverse_norm[k];
      const float along = d_cosine * reading.cosine[k] * reading.inverse_norm[k] * reading.inverse_norm[k];
      add_scaled(p.width, across, row, d_query);
      float* d_row = d_memory.row(reading.slots[k]);
      for (int64_t w = 0; w < p.width; w += LANES) {
        const int64_t n = p.width - w;
        store_part(d_row + w,
                   load_part(d_row + w, n) + reading.weights[k] * load_part(d_reads + w, n) +
                       across * load_part(y.query() + w, n) - along * load_part(row + w, n),
                   n);
      }
    }
    add_scaled(p.width, -y.strength() * d_strength * inverse_query * inverse_query, y.query(), d_query);
    through_tangent(y.query(), d_query);
    d_raw[2 * p.width] = d_strength * -std::expm1(-y.strength());  // softplus' = 1 - exp(-softplus)
  }
  void through_tangent(const float* y, float* d) const {
    for (int64_t w = 0; w < p.width; ++w) d[w] *= 1.0f - y[w] * y[w];
  }

  // Backwards through `Forward::write` for one head: from the gradients of the written rows to those of the weights
  // read before, and of gates and what is added before activation.
  void write_gradient(const Emission& y, const Past& past, int32_t least_used, const MemoryGradient& d_memory,
                      float* d_weights, float* d_raw) const {
    const float gate = y.write_gate(), share = y.interpolation();
    float* d_add = d_raw + p.width;
    std::fill(d_add, d_add + p.width, 0.0f);
    float d_gate = 0.0f, d_share = 0.0f;
    for (int64_t k = 0; k < p.near; ++k) {
      const float* d_row = d_memory.row(past.slots[k]);
      const float d_weight = dot(p.width, y.add(), d_row);
      add_scaled(p.width, gate * share * past.weights[k], d_row, d_add);
      d_gate += d_weight * share * past.weights[k];
      d_share += d_weight * past.weights[k];
      d_weights[k] = gate * share * d_weight;
    }
    const float* d_row = d_memory.row(least_used);
    const float d_weight = dot(p.width, y.add(), d_row);
    add_scaled(p.width, gate * (1.0f - share), d_row, d_add);
    d_gate += d_weight * (1.0f - share);
    d_share = gate * (d_share - d_weight);
    through_tangent(y.add(), d_add);
    d_raw[2 * p.width + 1] = d_gate * gate * (1.0f - gate);
    d_raw[2 * p.width + 2] = d_share * share * (1.0f - share);
  }

  // Backwards through `read_linked` for one head: from the gradients of reads and weights to those of the weights by
  // content and of the weights read before, of modes and sharpening before activation, and of the rows.
  void linked_gradient(const Emission& y, const Reading& content, int64_t count, const Past& past,
                       const LinkedReading& linked, const float* d_reads, const float* d_weights, float* d_given,
                       float* d_content, float* d_past, const MemoryGradient& d_memory, float* d_raw) const {
    float mean = 0.0f, d_sharpening = 0.0f, d_modes[3] = {};
    for (int64_t k = 0; k < *linked.count; ++k) {
      d_given[k] = d_weights[k] + dot(p.width, d_reads, linked.rows + k * p.width);
      mean += linked.weights[k] * d_given[k];
      add_scaled(p.width, linked.weights[k], d_reads, d_memory.row(linked.slots[k]));
    }
    std::fill_n(d_content, p.near, 0.0f);
    std::fill_n(d_past, p.near, 0.0f);
    for (int64_t k = 0; k < *linked.count; ++k) {
      float plain = 0.0f;  // the slot's weight before it is sharpened
      auto each = [&](auto use) {
        for (int64_t j = 0; j < p.near; ++j) {
          if (linked.seen[j] == linked.slots[k]) use(0, past.weights[j], d_past[j]);
          if (j < count && content.slots[j] == linked.slots[k]) use(1, content.weights[j], d_content[j]);
          if (linked.seen[p.near + j] == linked.slots[k]) use(2, past.weights[j], d_past[j]);
        }
      };
      each([&](int mode, float weight, float&) { plain += y.modes()[mode] * weight; });
      const float d_power = linked.weights[k] * (d_given[k] - mean), lifted = plain + p.weight_epsilon;
      d_sharpening += d_power * std::log(lifted);
      const float d_plain = d_power * y.sharpening() / lifted;
      each([&](int mode, float weight, float& d_weight) {
        d_modes[mode] += d_plain * weight;
        d_weight += d_plain * y.modes()[mode];
      });
    }
    float all = 0.0f;
    for (int mode = 0; mode < 3; ++mode) all += y.modes()[mode] * d_modes[mode];
    for (int mode = 0; mode < 3; ++mode) d_raw[2 * p.width + 3 + mode] = y.modes()[mode] * (d_modes[mode] - all);
    d_raw[2 * p.width + 6] = d_sharpening * -std::expm1(1.0f - y.sharpening());
  }

  // One item's memory at one step: from the gradients of its reads and of what is carried to that of the interface.
  void memory_step(const Group& g, const Scratch& s, int64_t t, int64_t i) const {
    const int64_t r = row(g, t, i), rank = g.first + i, heads = p.read_heads;
    const float *interface = kept.interface + r * p.interface(), *d_above = d_reads_above(s, i);
    const float* d_carried = d_reads_carried(s, i);
    float *d_raw = this->d_raw(s, t, i), *d_weights = s.d_weights + i * p.touches();
    const MemoryGradient d_memory = memory_gradient(s, i, order.item[rank]);
    for (int64_t j = 0; j < p.reads(); ++j) s.d_reads[j] = d_above[j] + d_carried[j];
    auto emission = [&](int64_t h) { return Emission{interface + h * p.emission(), p.width}; };
    auto read_before = [&](int64_t h) -> Past {
      const int64_t last = t ? row(g, t - 1, i) : rank;
      if (t && p.links) return {kept.linked.of(last, h).slots, kept.linked.of(last, h).weights};
      const Reading past = t ? kept.read.of(last, h) : kept.first.of(last, h);
      return {past.slots, past.weights};
    };
    for (int64_t h = 0; h < heads; ++h) {
      const Reading reading = kept.read.of(r, h);
      const float *d_read = s.d_reads + h * p.width, *d_weight = d_weights + h * p.near;
      if (p.links) {
        linked_gradient(emission(h), reading, kept.read.count(r), read_before(h), kept.linked.of(r, h), d_read,
                        d_weight, s.d_given, s.d_content, s.d_past + h * p.near, d_memory, d_raw + h * p.emission());
        d_read = s.nothing;
        d_weight = s.d_content;
      }
      read_gradient(emission(h), reading, kept.read.count(r), d_read, d_weight, s.d_given, d_memory,
                    d_raw + h * p.emission());
    }
    const int32_t* least_used = kept.read.least_used(r);
    for (int64_t h = 0; h < heads; ++h)
      write_gradient(emission(h), read_before(h), least_used[h], d_memory, d_weights + h * p.near,
                     d_raw + h * p.emission());
    if (p.links)
      for (int64_t j = 0; j < p.touches(); ++j) d_weights[j] += s.d_past[j];
    // What was erased is without influence.
    for (int64_t h = 0; h < heads; ++h) std::fill_n(d_memory.row(least_used[h]), p.width, 0.0f);
  }

  template <typename AddWeights>
  void run(const Group& g, const Scratch& s, AddWeights add_weights) const {
    for (int64_t i = 0; i < g.count; ++i) begin(g, s, i);
    if (p.links) std::fill_n(s.nothing, p.width, 0.0f);
    auto memory_steps = [&](int64_t t, int64_t running) {
      for (int64_t i = 0; i < running; ++i) memory_step(g, s, t, i);
    };
    CellBackward::run(g, s, memory_steps, [](int64_t) {}, add_weights);
    for (int64_t i = 0; i < g.count; ++i) finish(g, s, i);
  }
};
