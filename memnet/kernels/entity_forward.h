// The forward pass of the recurrent entity network.
//
// A memory of the paper's 20 slots of 100 numbers fits into the nearest cache, so a story is read from beginning to end
// before the next one.
#pragma once
#include "entity_layout.h"

struct ForwardWeights {
  Matrix memory, sentence, keys, read, answers;
  std::vector<float> from_keys, gate_bias;  // (slot, row): V w + bias; (slot)

  explicit ForwardWeights(const Problem& p)
      : memory(Matrix::forwards(p.given.from_memory, p.width, p.width)),
        sentence(Matrix::forwards(p.given.from_sentence, p.width, p.width)),
        keys(Matrix::forwards(p.given.keys, p.slots, p.width)),
        read(Matrix::forwards(p.given.from_read, p.width, p.width)),
        answers(Matrix::forwards(p.given.answers, p.answers, p.width)),
        from_keys(p.memory),
        gate_bias(p.gates) {
    const Matrix turned = Matrix::forwards(p.given.from_keys, p.width, p.width);
    const std::vector<float> bias = p.in_rows(p.given.bias, 1);
    multiply(p.slots, p.keys.data(), p.row, turned, bias.data(), Start::bias, from_keys.data(), p.row);
    std::copy_n(p.given.gate_bias, p.slots, gate_bias.data());
  }
};

// Reads stories, and with each one what is asked of it.
template <int VECTORS>
class Story {
  const Problem& p_;
  const ForwardWeights& weights_;
  const Rows<VECTORS> rows_{p_};
  Heard heard_;
  const Asked asked_;
  std::vector<float> own_;                       // in place of what is kept, of two sentences in turns
  std::vector<float> told_, from_told_, scores_;  // (sentence, row): s and W s; (sentence, slot): s . w_j + b_j

 public:
  Story(const Problem& p, const ForwardWeights& weights, float* heard, const Asked& asked)
      : p_(p),
        weights_(weights),
        heard_(p, p.told(), heard),
        asked_(asked),
        own_(p.kept ? 0 : Heard::size(p, 2)),
        told_(p.length(0) * p.row),
        from_told_(p.length(0) * p.row),
        scores_(p.length(0) * p.gates) {
    if (!p.kept) heard_ = Heard(p, 2, own_.data());
  }

  void read(int64_t number) {
    const int64_t first = p_.first[number], length = p_.length(number);
    prepare(first, length);
    const float* memory = p_.keys.data();
    for (int64_t t = 0;; ++t) {
      for (int64_t q = p_.asked_first[p_.memory_number(number, t)]; q >= 0; q = p_.asked_next[q]) ask(q, memory);
      if (t == length) return;
      memory = listen(t, p_.kept ? first + t : t % 2, memory);
    }
  }

 private:
  // All that does not depend on the memory.
  void prepare(int64_t first, int64_t length) {
    if (length == 0) return;
    for (int64_t t = 0; t < length; ++t)
      rows_.encode(p_.sentence(first + t), p_.words, p_.sentence_masks.data(), &told_[t * p_.row]);
    multiply(length, told_.data(), p_.row, weights_.sentence, nullptr, Start::zero, from_told_.data(), p_.row);
    multiply(length, told_.data(), p_.row, weights_.keys, weights_.gate_bias.data(), Start::bias, scores_.data(),
             p_.gates);
  }

  // The memory after sentence t of the story; `place` is where what is kept goes.
  const float* listen(int64_t t, int64_t place, const float* memory) {
    float* x = heard_.inner + place * p_.memory;
    float* after = heard_.memories + place * p_.memory;
    float *gates = heard_.gates + place * p_.gates, *scales = heard_.scales + place * p_.gates;
    const float *told = &told_[t * p_.row], *from_told = &from_told_[t * p_.row];
    for (int64_t j = 0; j < p_.slots; ++j) {
      vec score = {};
      for (int64_t v = 0; v < rows_.vectors(); ++v) {
        const int64_t at = j * p_.row + v * LANES;
        store(x + at, load(&weights_.from_keys[at]) + load(from_told + v * LANES));
        score = multiply_add(load(memory + at), load(told + v * LANES), score);
      }
      gates[j] = sum(score) + scores_[t * p_.gates + j];
    }
    for (int64_t j = 0; j < p_.slots; j += LANES) store(gates + j, sigmoid(load_part(gates + j, p_.slots - j)));
    multiply(p_.slots, memory, p_.row, weights_.memory, nullptr, Start::add, x, p_.row);
    for (int64_t j = 0; j < p_.slots; ++j) {
      const vec gate = splat(gates[j]);
      vec square = {};
      for (int64_t v = 0; v < rows_.vectors(); ++v) {
        const int64_t at = j * p_.row + v * LANES;
        const vec inner = load(x + at);
        const vec added = inner > 0.0f ? inner : inner * load(&p_.slopes[v * LANES]);
        const vec written = multiply_add(gate, added, load(memory + at));
        store(after + at, written);
        square = multiply_add(written, written, square);
      }
      scales[j] = 1.0f / std::sqrt(sum(square) + UNIT_EPS);
      const vec scale = splat(scales[j]);
      for (int64_t v = 0; v < rows_.vectors(); ++v)
        store(after + j * p_.row + v * LANES, load(after + j * p_.row + v * LANES) * scale);
    }
    return after;
  }

  // What the question reads from the memory.
  void ask(int64_t q, const float* memory) {
    float *asked = asked_.asked + q * p_.row, *looks = asked_.looks + q * p_.gates;
    rows_.encode(p_.question + q * p_.asked, p_.asked, p_.question_masks.data(), asked);
    for (int64_t j = 0; j < p_.slots; ++j) looks[j] = rows_.dot(memory + j * p_.row, asked);
    softmax(looks);
    rows_.combine(looks, memory, p_.slots, asked_.read + q * p_.row);
  }
  void softmax(float* looks) const {
    std::fill(looks + p_.slots, looks + p_.gates, -INFINITY);
    vec most = splat(-INFINITY), total = {};
    for (int64_t j = 0; j < p_.gates; j += LANES) most = max_of(most, load(looks + j));
    const vec top = splat(highest(most));
    for (int64_t j = 0; j < p_.gates; j += LANES) {
      const vec e = exponential(load(looks + j) - top);
      store(looks + j, e);
      total += e;
    }
    const vec scale = splat(1.0f / sum(total));
    for (int64_t j = 0; j < p_.gates; j += LANES) store(looks + j, load(looks + j) * scale);
  }
};

// The answers to questions that have read. Several together, so that each number of the weights is fetched for all.
class Answerer {
  const Problem& p_;
  const ForwardWeights& weights_;
  const Asked asked_;
  const int64_t row_ = round_up(p_.answers, LANES);
  std::vector<float> logits_;  // (question, answer)

 public:
  Answerer(const Problem& p, const ForwardWeights& weights, const Asked& asked, int64_t most)
      : p_(p), weights_(weights), asked_(asked), logits_(most * row_) {}

  void answer(int64_t first, int64_t count, float* logits) {
    const int64_t from = first * p_.row, size = count * p_.row;
    float *hidden = asked_.hidden + from, *bent = asked_.bent + from;
    std::copy_n(asked_.asked + from, size, hidden);
    multiply(count, asked_.read + from, p_.row, weights_.read, nullptr, Start::add, hidden, p_.row);
    for (int64_t at = 0; at < size; at += LANES) {
      const vec x = load(hidden + at);
      store(bent + at, x > 0.0f ? x : x * load(&p_.slopes[at % p_.row]));
    }
    multiply(count, bent, p_.row, weights_.answers, nullptr, Start::zero, logits_.data(), row_);
    for (int64_t q = 0; q < count; ++q)
      std::copy_n(&logits_[q * row_], p_.answers, logits + (first + q) * p_.answers);
  }
};
