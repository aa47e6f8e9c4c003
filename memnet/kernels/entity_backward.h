// The backward pass of the recurrent entity network: from the logits to each sentence and question.
#pragma once
#include "entity_layout.h"

struct BackwardWeights {
  Matrix memory, keys_map, sentence, keys, read, answers;

  explicit BackwardWeights(const Problem& p)
      : memory(Matrix::backwards(p.given.from_memory, p.width, p.width)),
        keys_map(Matrix::backwards(p.given.from_keys, p.width, p.width)),
        sentence(Matrix::backwards(p.given.from_sentence, p.width, p.width)),
        keys(Matrix::backwards(p.given.keys, p.slots, p.width)),
        read(Matrix::backwards(p.given.from_read, p.width, p.width)),
        answers(Matrix::backwards(p.given.answers, p.answers, p.width)) {}
};

// The gradients of what happens to each sentence and question, from which those of the parameters are summed up.
struct Traces {
  std::vector<float> told, d_told, d_from_told;         // (sentence, row); the first one is s itself
  std::vector<float> d_scores;                          // (sentence, slot)
  std::vector<float> d_bent, d_hidden, d_read, d_asked;  // (question, row)

  explicit Traces(const Problem& p)
      : told(p.told() * p.row),
        d_told(p.told() * p.row),
        d_from_told(p.told() * p.row),
        d_scores(p.told() * p.gates),
        d_bent(p.batch * p.row),
        d_hidden(p.batch * p.row),
        d_read(p.batch * p.row),
        d_asked(p.batch * p.row) {}
};

// From the logits of some questions to what they have read.
inline void answer_backward(const Problem& p, const BackwardWeights& weights, const Asked& asked, int64_t first,
                            int64_t count, const float* d_logits, Traces& traces) {
  const int64_t from = first * p.row;
  float *d_bent = &traces.d_bent[from], *d_hidden = &traces.d_hidden[from];
  multiply(count, d_logits + first * p.answers, p.answers, weights.answers, nullptr, Start::zero, d_bent, p.row);
  for (int64_t at = 0; at < count * p.row; at += LANES) {
    const vec d = load(d_bent + at);
    store(d_hidden + at, load(asked.hidden + from + at) > 0.0f ? d : d * load(&p.slopes[at % p.row]));
  }
  std::copy_n(d_hidden, count * p.row, &traces.d_asked[from]);
  multiply(count, d_hidden, p.row, weights.read, nullptr, Start::zero, &traces.d_read[from], p.row);
}

// Sums over a part of the stories, in rows.
struct Sums {
  std::vector<float> start, from_keys, slopes, from_memory;

  explicit Sums(const Problem& p)
      : start(p.memory), from_keys(p.memory), slopes(p.row), from_memory(round_up(p.row, ROW_BLOCK) * p.row) {}

  void add(const Sums& other) {
    add(other.start, start);
    add(other.from_keys, from_keys);
    add(other.slopes, slopes);
    add(other.from_memory, from_memory);
  }

  // to += from, as far as `to` goes
  static void add(const std::vector<float>& from, std::vector<float>& to) {
    for (size_t i = 0; i < to.size(); i += LANES) store(&to[i], load(&to[i]) + load(&from[i]));
  }
};

// Goes through a story from its end to its beginning.
template <int VECTORS>
class Past {
  const Problem& p_;
  const BackwardWeights& weights_;
  const Rows<VECTORS> rows_{p_};
  const Heard heard_;
  const Asked asked_;
  Traces& traces_;
  std::vector<float> d_memory_, d_inner_;  // (slot, row)
  std::vector<float> d_looks_, outer_;     // (slot)
  int64_t taken_ = 0;

 public:
  Past(const Problem& p, const BackwardWeights& weights, const Heard& heard, const Asked& asked, Traces& traces)
      : p_(p),
        weights_(weights),
        heard_(heard),
        asked_(asked),
        traces_(traces),
        d_memory_(p.memory),
        d_inner_(p.memory),
        d_looks_(p.gates),
        outer_(OuterSum::size(p.row, p.row)) {}

  void read(int64_t number, Sums& sums) {
    const int64_t first = p_.first[number], length = p_.length(number);
    std::fill(d_memory_.begin(), d_memory_.end(), 0.0f);
    const float* memory = length ? heard_.memories + (first + length - 1) * p_.memory : p_.keys.data();
    for (int64_t t = length;; --t) {
      for (int64_t q = p_.asked_first[p_.memory_number(number, t)]; q >= 0; q = p_.asked_next[q]) ask(q, memory);
      if (t == 0) break;
      const int64_t sentence = first + t - 1;
      rows_.encode(p_.sentence(sentence), p_.words, p_.sentence_masks.data(), &traces_.told[sentence * p_.row]);
      memory = t > 1 ? heard_.memories + (sentence - 1) * p_.memory : p_.keys.data();
      forget(sentence, memory, sums);
      collect(sentence, t, memory, sums);
    }
    Sums::add(d_memory_, sums.start);
    if (length == 0) return;
    float* d_told = &traces_.d_told[first * p_.row];
    multiply(length, &traces_.d_from_told[first * p_.row], p_.row, weights_.sentence, nullptr, Start::add, d_told,
             p_.row);
    multiply(length, &traces_.d_scores[first * p_.gates], p_.gates, weights_.keys, nullptr, Start::add, d_told, p_.row);
  }

 private:
  // Through what the question reads: to the memory, and to the question.
  void ask(int64_t q, const float* memory) {
    const float *asked = asked_.asked + q * p_.row, *looks = asked_.looks + q * p_.gates;
    const float* d_read = &traces_.d_read[q * p_.row];
    float mean = 0;
    for (int64_t j = 0; j < p_.slots; ++j) {
      d_looks_[j] = rows_.dot(d_read, memory + j * p_.row);
      mean += looks[j] * d_looks_[j];
    }
    for (int64_t j = 0; j < p_.slots; ++j) {
      const float d_score = looks[j] * (d_looks_[j] - mean);
      rows_.add(looks[j], d_read, &d_memory_[j * p_.row]);
      rows_.add(d_score, asked, &d_memory_[j * p_.row]);
      rows_.add(d_score, memory + j * p_.row, &traces_.d_asked[q * p_.row]);
    }
  }

  // From the gradient of the memory after a sentence to that of the memory before it.
  void forget(int64_t sentence, const float* before, Sums& sums) {
    const float* x = heard_.inner + sentence * p_.memory;
    const float* after = heard_.memories + sentence * p_.memory;
    const float *gates = heard_.gates + sentence * p_.gates, *scales = heard_.scales + sentence * p_.gates;
    const float* told = &traces_.told[sentence * p_.row];
    float* d_told = &traces_.d_told[sentence * p_.row];
    for (int64_t j = 0; j < p_.slots; ++j) {
      const int64_t from = j * p_.row;
      float *d_row = &d_memory_[from], *d_x = &d_inner_[from];
      // Through the division by the length, which takes away what points along the memory.
      const vec along = splat(-rows_.dot(d_row, after + from)), scale = splat(scales[j]), gate = splat(gates[j]);
      vec by_gate = {};
      for (int64_t v = 0; v < rows_.vectors(); ++v) {
        const int64_t at = v * LANES;
        const vec inner = load(x + from + at), slope = load(&p_.slopes[at]);
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
      traces_.d_scores[sentence * p_.gates + j] = by_score;
      rows_.add(by_score, told, d_row);
      rows_.add(by_score, before + from, d_told);
    }
    multiply(p_.slots, d_inner_.data(), p_.row, weights_.memory, nullptr, Start::add, d_memory_.data(), p_.row);
  }

  // The rows of U's gradient of sentence t of the story, from 1; several sentences' at once where slots are few.
  void collect(int64_t sentence, int64_t t, const float* before, Sums& sums) {
    float* d_from_told = &traces_.d_from_told[sentence * p_.row];
    if (p_.slots > SUM_ROWS) {
      for (int64_t j = 0; j < p_.slots; j += SUM_ROWS) {
        const int64_t rows = std::min(SUM_ROWS, p_.slots - j);
        const OuterSum outer(rows, p_.row, p_.row, outer_.data());
        outer.take(0, rows, &d_inner_[j * p_.row], before + j * p_.row, p_.row, d_from_told);
        outer.add_to(sums.from_memory.data());
      }
      return;
    }
    // The sentences that are left, this one among them, of which a group ends wherever it is full.
    const int64_t most = SUM_ROWS / p_.slots, together = std::min(most, taken_ + t);
    const OuterSum outer(together * p_.slots, p_.row, p_.row, outer_.data());
    outer.take(taken_ * p_.slots, p_.slots, d_inner_.data(), before, p_.row, d_from_told);
    if (++taken_ == together) {
      outer.add_to(sums.from_memory.data());
      taken_ = 0;
    }
  }
};
