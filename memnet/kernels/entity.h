// Recurrent entity networks: a story's memory from its first sentence to its last, forwards and backwards.
//
// For each sentence s and slot j, h_j <- unit(h_j + sigmoid(s . h_j + score_j) phi(U h_j + key_j + told)), where score_j,
// key_j and told hold all that does not depend on the memory.
//
// A memory of the paper's 20 slots of 100 numbers fits into the nearest cache, so a story is read from beginning to end
// before the next one.
#pragma once
#include <algorithm>
#include <cmath>
#include <vector>

#include "gemm.h"

// What the caller says, in the order of the fields; the Python side fills the same order.
struct Sizes {
  int64_t questions, steps, slots, width;  // `steps`: sentences of the longest story
  int64_t kept;                            // 1: memories and what led to them are kept for a backward pass
  int64_t threads;
};

// Stories are in order of their lengths, the longest first, and so are the rows of each step: of the first sentences of
// all stories, of the second ones of those that have one, and so on.
struct Inputs {
  const int64_t* counts;               // (step + 1): stories; stories with a first, a second, ... sentence
  const int64_t* ends;                 // (question): the memory that it is asked of, among those of all steps
  const float* start;                  // (slot, width)
  const float *told, *from_told;       // (sentence, width): s, and W s
  const float* scores;                 // (sentence, slot)
  const float* from_keys;              // (slot, width)
  const float *recurrent, *slopes;     // (width, width), (width)
};

struct Gradients {
  float *start, *told, *scores, *from_keys, *from_told, *recurrent, *slopes;  // as the inputs
};

constexpr float UNIT_EPS = 1e-10f;  // as in memnet.functional_entity

struct Problem : Sizes, Inputs {
  int64_t vectors = (width + LANES - 1) / LANES;
  int64_t row = vectors * LANES;               // floats from one slot to the next in everything below
  int64_t memory = slots * row;                // floats of a memory
  int64_t gates = round_up(slots, LANES);      // floats of a gate or a scale for each slot
  std::vector<int64_t> first;                  // (step + 1): the first memory of each step
  std::vector<int64_t> asked, also;            // (memory), (question): the first question asked of it, the next; or -1
  std::vector<float> keys, slope, begin;       // in rows
  std::vector<float> turned_, recurrent_;
  Packed turned, straight;                     // for memory times U transposed, and for gradients times U

  Problem(const Sizes& sizes, const Inputs& inputs)
      : Sizes(sizes),
        Inputs(inputs),
        first(steps + 2),
        also(questions),
        keys(memory),
        slope(row),
        begin(memory),
        turned_(Packed::size(width, width)),
        recurrent_(Packed::size(width, width)),
        turned{turned_.data(), width, width},
        straight{recurrent_.data(), width, width} {
    for (int64_t t = 0; t <= steps; ++t) first[t + 1] = first[t] + counts[t];
    asked.assign(first[steps + 1], -1);
    for (int64_t q = questions - 1; q >= 0; --q) {
      also[q] = asked[ends[q]];
      asked[ends[q]] = q;
    }
    for (int64_t j = 0; j < slots; ++j) {
      std::copy_n(from_keys + j * width, width, &keys[j * row]);
      std::copy_n(start + j * width, width, &begin[j * row]);
    }
    std::copy_n(slopes, width, slope.data());
    turned.put_transposed(0, width, Inputs::recurrent, width);
    straight.put(0, width, Inputs::recurrent, width);
  }
  int64_t stories() const { return counts[0]; }
  // How many sentences a story has.
  int64_t length(int64_t story) const {
    int64_t t = 0;
    while (t < steps && story < counts[t + 1]) ++t;
    return t;
  }
  // Of the memory after t sentences among those of all steps; of sentence t, from 1, among all sentences.
  int64_t memory_row(int64_t t, int64_t story) const { return first[t] + story; }
  int64_t told_row(int64_t t, int64_t story) const { return first[t] - counts[0] + story; }
};

// What the forward pass leaves for the backward pass, for each sentence.
struct Kept {
  float* memories;  // (sentence, slot, row), after it
  float* inner;     // (sentence, slot, row): what phi is applied to
  float *gates, *scales;  // (sentence, slot)

  static int64_t size(const Problem& p, int64_t sentences) { return sentences * 2 * (p.memory + p.gates); }
  Kept(const Problem& p, int64_t sentences, float* floats)
      : memories(floats),
        inner(memories + sentences * p.memory),
        gates(inner + sentences * p.memory),
        scales(gates + sentences * p.gates) {}
};

// VECTORS in a row, if that is known beforehand; else 0.
template <int VECTORS>
class Story {
  // Vectors of a row that are held in registers at once.
  static constexpr int STEP = VECTORS ? VECTORS : 1;

  const Problem& p_;
  Kept kept_;
  std::vector<float> own_;            // what is kept, where the caller wants none of it: of two sentences in turns
  std::vector<float> told_, from_told_;  // a sentence's, in a row

  INLINE int64_t vectors() const { return VECTORS ? VECTORS : p_.vectors; }

 public:
  Story(const Problem& p, float* floats)
      : p_(p),
        kept_(p, p.first[p.steps + 1] - p.stories(), floats),
        own_(p.kept ? 0 : Kept::size(p, 2)),
        told_(p.row),
        from_told_(p.row) {
    if (!p.kept) kept_ = Kept(p, 2, own_.data());
  }

  void read(int64_t story, float* answers) {
    const float* memory = p_.begin.data();
    for (int64_t t = 0, length = p_.length(story);; ++t) {
      for (int64_t q = p_.asked[p_.memory_row(t, story)]; q >= 0; q = p_.also[q])
        for (int64_t j = 0; j < p_.slots; ++j)
          std::copy_n(memory + j * p_.row, p_.width, answers + (q * p_.slots + j) * p_.width);
      if (t == length) return;
      memory = listen(p_.told_row(t + 1, story), p_.kept ? p_.told_row(t + 1, story) : t % 2, memory);
    }
  }

 private:
  // The memory after a sentence; `place` is where what is kept goes.
  const float* listen(int64_t sentence, int64_t place, const float* memory) {
    float* x = kept_.inner + place * p_.memory;
    float* after = kept_.memories + place * p_.memory;
    float *gates = kept_.gates + place * p_.gates, *scales = kept_.scales + place * p_.gates;
    std::copy_n(p_.told + sentence * p_.width, p_.width, told_.data());
    std::copy_n(p_.from_told + sentence * p_.width, p_.width, from_told_.data());
    for (int64_t j = 0; j < p_.slots; ++j) {
      vec score = {};
      for (int64_t v = 0; v < vectors(); ++v) {
        const int64_t at = j * p_.row + v * LANES;
        store(x + at, load(&p_.keys[at]) + load(&from_told_[v * LANES]));
        score = multiply_add(load(memory + at), load(&told_[v * LANES]), score);
      }
      gates[j] = sum(score) + p_.scores[sentence * p_.slots + j];
    }
    for (int64_t j = 0; j < p_.slots; j += LANES) store(gates + j, sigmoid(load_part(gates + j, p_.slots - j)));
    multiply(p_.slots, memory, p_.row, p_.turned, nullptr, Start::add, x, p_.row);
    for (int64_t j = 0; j < p_.slots; ++j) {
      const vec gate = splat(gates[j]);
      vec square = {};
      for (int64_t v = 0; v < vectors(); ++v) {
        const int64_t at = j * p_.row + v * LANES;
        const vec inner = load(x + at);
        const vec added = inner > 0.0f ? inner : inner * load(&p_.slope[v * LANES]);
        const vec written = multiply_add(gate, added, load(memory + at));
        store(after + at, written);
        square = multiply_add(written, written, square);
      }
      scales[j] = 1.0f / std::sqrt(sum(square) + UNIT_EPS);
      const vec scale = splat(scales[j]);
      for (int64_t v = 0; v < vectors(); ++v)
        store(after + j * p_.row + v * LANES, load(after + j * p_.row + v * LANES) * scale);
    }
    return after;
  }
};

// Sums over a part of the stories, in rows.
struct Sums {
  std::vector<float> start, from_keys, slopes, recurrent;

  explicit Sums(const Problem& p)
      : start(p.memory), from_keys(p.memory), slopes(p.row), recurrent(round_up(p.row, ROW_BLOCK) * p.row) {}
};

// The backward pass through a story.
template <int VECTORS>
class Past {
  static constexpr int STEP = VECTORS ? VECTORS : 1;

  const Problem& p_;
  const Kept kept_;
  std::vector<float> d_memory_, d_inner_;  // (slot, row)
  std::vector<float> told_, d_told_, d_from_told_;
  std::vector<float> outer_;
  int64_t taken_ = 0;

  INLINE int64_t vectors() const { return VECTORS ? VECTORS : p_.vectors; }

 public:
  Past(const Problem& p, float* floats)
      : p_(p),
        kept_(p, p.first[p.steps + 1] - p.stories(), floats),
        d_memory_(p.memory),
        d_inner_(p.memory),
        told_(p.row),
        d_told_(p.row),
        d_from_told_(p.row),
        outer_(OuterSum::size(p.row, p.row)) {}

  void read(int64_t story, const float* d_answers, const Gradients& d, Sums& sums) {
    std::fill(d_memory_.begin(), d_memory_.end(), 0.0f);
    for (int64_t t = p_.length(story);; --t) {
      for (int64_t q = p_.asked[p_.memory_row(t, story)]; q >= 0; q = p_.also[q])
        for (int64_t j = 0; j < p_.slots; ++j)
          for (int64_t i = 0; i < p_.width; ++i)
            d_memory_[j * p_.row + i] += d_answers[(q * p_.slots + j) * p_.width + i];
      if (t == 0) break;
      const int64_t sentence = p_.told_row(t, story);
      const float* before =
          t > 1 ? kept_.memories + p_.told_row(t - 1, story) * p_.memory : p_.begin.data();
      forget(sentence, before, d, sums);
      collect(t, before, sums);
      std::copy_n(d_told_.data(), p_.width, d.told + sentence * p_.width);
      std::copy_n(d_from_told_.data(), p_.width, d.from_told + sentence * p_.width);
    }
    for (int64_t at = 0; at < p_.memory; at += LANES)
      store(&sums.start[at], load(&sums.start[at]) + load(&d_memory_[at]));
  }

 private:
  // From the gradient of the memory after a sentence to that of the memory before it, but for what comes through U.
  void forget(int64_t sentence, const float* before, const Gradients& d, Sums& sums) {
    const float* x = kept_.inner + sentence * p_.memory;
    const float* after = kept_.memories + sentence * p_.memory;
    const float *gates = kept_.gates + sentence * p_.gates, *scales = kept_.scales + sentence * p_.gates;
    std::copy_n(p_.told + sentence * p_.width, p_.width, told_.data());
    std::fill(d_told_.begin(), d_told_.end(), 0.0f);
    for (int64_t j = 0; j < p_.slots; ++j) {
      const int64_t from = j * p_.row;
      float *d_row = &d_memory_[from], *d_x = &d_inner_[from];
      // Through the division by the length, which takes away what points along the memory.
      vec together = {};
      for (int64_t v = 0; v < vectors(); ++v)
        together = multiply_add(load(d_row + v * LANES), load(after + from + v * LANES), together);
      const vec along = splat(-sum(together)), scale = splat(scales[j]), gate = splat(gates[j]);
      vec by_gate = {};
      for (int64_t v = 0; v < vectors(); ++v) {
        const int64_t at = v * LANES;
        const vec inner = load(x + from + at), slope = load(&p_.slope[at]);
        const vec written = multiply_add(load(after + from + at), along, load(d_row + at)) * scale;
        const vec added = written * gate, bend = inner > 0.0f ? splat(1.0f) : slope;
        by_gate = multiply_add(inner * bend, written, by_gate);
        const vec negative = inner > 0.0f ? vec{} : inner;
        store(&sums.slopes[at], multiply_add(negative, added, load(&sums.slopes[at])));
        store(d_row + at, written);
        store(d_x + at, added * bend);
        store(&sums.from_keys[from + at], load(&sums.from_keys[from + at]) + added * bend);
      }
      const float by_score = sum(by_gate) * gates[j] * (1.0f - gates[j]);
      d.scores[sentence * p_.slots + j] = by_score;
      const vec score = splat(by_score);
      for (int64_t v = 0; v < vectors(); ++v) {
        const int64_t at = v * LANES;
        store(d_row + at, multiply_add(score, load(&told_[at]), load(d_row + at)));
        store(&d_told_[at], multiply_add(score, load(before + from + at), load(&d_told_[at])));
      }
    }
    multiply(p_.slots, d_inner_.data(), p_.row, p_.straight, nullptr, Start::add, d_memory_.data(), p_.row);
  }

  // The sentence's rows of U's gradient, several sentences' at once where a memory has few slots.
  void collect(int64_t t, const float* before, Sums& sums) {
    std::fill(d_from_told_.begin(), d_from_told_.end(), 0.0f);
    if (p_.slots > SUM_ROWS) {
      for (int64_t j = 0; j < p_.slots; j += SUM_ROWS) {
        const int64_t rows = std::min(SUM_ROWS, p_.slots - j);
        const OuterSum outer(rows, p_.row, p_.row, outer_.data());
        outer.take(0, rows, &d_inner_[j * p_.row], before + j * p_.row, p_.row, d_from_told_.data());
        outer.add_to(sums.recurrent.data());
      }
      return;
    }
    // The sentences that are left, this one among them, of which a group ends wherever it is full.
    const int64_t most = SUM_ROWS / p_.slots, together = std::min(most, taken_ + t);
    const OuterSum outer(together * p_.slots, p_.row, p_.row, outer_.data());
    outer.take(taken_ * p_.slots, p_.slots, d_inner_.data(), before, p_.row, d_from_told_.data());
    if (++taken_ == together) {
      outer.add_to(sums.recurrent.data());
      taken_ = 0;
    }
  }
};
