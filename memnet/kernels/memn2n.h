// The end-to-end memory network, one question at a time.
//
// The work is in the sentences' sums over embedded words, and stories and sentences of one batch differ much in length:
// taking a question at a time skips all padding, keeps what a question needs in the nearest cache, and lets the backward
// pass compute it again in less time than fetching it would take.
#pragma once
#include <algorithm>
#include <cmath>
#include <vector>

#include "simd.h"

// What the caller says, in the order of the fields; the Python side fills the same order.
struct Sizes {
  int64_t members, batch, sentences, words, asked;  // of the batch; `asked`: words of a question
  int64_t vocabulary, width, hops, slots;           // of the network; words number 0 to vocabulary - 1, 0 is null
  int64_t matrices, memories;                       // embedding matrices, those of them that fill a memory
  int64_t question;                                 // the matrix that embeds the question
  int64_t tied;                                     // the matrix whose rows are the answers'; -1: one of their own
  int64_t answers;
  int64_t linear_map, rectified;  // 1: u goes through a linear map; u is rectified
  int64_t draws;                  // random numbers for each question; 0: no noise
  int64_t threads;
};

struct Inputs {
  const int64_t* story;     // (member, batch, sentence, word)
  const int64_t* question;  // (member, batch, word)
  const float* noise;       // (member, batch, draw)
};

struct Network {
  const int64_t *keys, *values;  // (hop): matrices
  const int64_t* most_empty;     // (sentences + 1): empty memories at most, by the number of sentences
  const uint8_t* softmax;        // (member): 0: the scores are the weights
  const float* positions;        // (length, word, width), up to the longest of story and question; null: bag of words
};

// Tensors of a network in one order: the matrices (member, word - 1, width), the times (member, slot, width) of those
// that fill a memory, the linear map (member, width, width), the answers (member, answer, width), as far as it has them.
template <typename Float>
using Tensors = Float* const*;

struct Problem : Sizes {
  Network network;
  Inputs inputs;
  int64_t vectors = (width + LANES - 1) / LANES;
  int64_t row = vectors * LANES;  // floats from one row to the next in everything below
  int64_t slot_row = round_up(std::max(sentences, int64_t{1}), LANES);
  std::vector<float> positions;  // as the network's, in rows; for a bag of words a single row of ones

  Problem(const Sizes& sizes, const Network& network, const Inputs& inputs)
      : Sizes(sizes), network(network), inputs(inputs) {
    const int64_t longest = std::max(words, asked), rows = network.positions ? (longest + 1) * longest : 1;
    positions.assign(rows * row, network.positions ? 0.0f : 1.0f);
    if (!network.positions) return;
    for (int64_t r = 0; r < rows; ++r) std::copy_n(network.positions + r * width, width, &positions[r * row]);
  }
  const float* position(int64_t length, int64_t word) const {
    return &positions[network.positions ? (length * std::max(words, asked) + word) * row : 0];
  }
};

// One member's weights, or their gradients, in rows of whole vectors.
class Weights {
  const Problem& p_;
  std::vector<std::vector<float>> parts_;

 public:
  explicit Weights(const Problem& p) : p_(p) {
    for (int64_t m = 0; m < p.matrices; ++m) parts_.emplace_back(p.vocabulary * p.row);
    for (int64_t m = 0; m < p.memories; ++m) parts_.emplace_back(p.slots * p.row);
    if (p.linear_map) parts_.emplace_back(p.width * p.row);
    if (p.tied < 0) parts_.emplace_back(p.answers * p.row);
    // Products of whole vectors of rows read on behind the last one.
    for (std::vector<float>& part : parts_) part.reserve(part.size() + LANES * p.row);
  }
  float* word(int64_t matrix, int64_t number) { return &parts_[matrix][number * p_.row]; }
  // Ages count from 1.
  float* time(int64_t memory, int64_t age) { return &parts_[p_.matrices + memory][(age - 1) * p_.row]; }
  float* map(int64_t row) { return &parts_[p_.matrices + p_.memories][row * p_.row]; }
  float* answer(int64_t number) { return p_.tied < 0 ? &parts_.back()[number * p_.row] : word(p_.tied, number); }

  void read(Tensors<const float> tensors, int64_t member) {
    each([&](size_t part, int64_t first, int64_t rows) {
      for (int64_t r = 0; r < rows; ++r)
        std::copy_n(tensors[part] + (member * rows + r) * p_.width, p_.width, &parts_[part][(first + r) * p_.row]);
    });
  }
  void write(Tensors<float> tensors, int64_t member) {
    each([&](size_t part, int64_t first, int64_t rows) {
      for (int64_t r = 0; r < rows; ++r)
        std::copy_n(&parts_[part][(first + r) * p_.row], p_.width, tensors[part] + (member * rows + r) * p_.width);
    });
  }
  void clear() {
    for (std::vector<float>& part : parts_) std::fill(part.begin(), part.end(), 0.0f);
  }

 private:
  // The null word's row is not the caller's.
  template <typename Do>
  void each(Do act) {
    for (size_t part = 0; part < parts_.size(); ++part) {
      const int64_t first = (int64_t)part < p_.matrices ? 1 : 0;
      act(part, first, (int64_t)parts_[part].size() / p_.row - first);
    }
  }
};

// What one question needs, forwards and backwards. VECTORS in a row, if that is known beforehand; else 0.
template <int VECTORS>
class Reader {
  // Vectors of a row that are held in registers at once.
  static constexpr int STEP = VECTORS ? VECTORS : 1;
  struct Word {
    int64_t row;            // where its row begins in a matrix
    const float* position;  // its weights
  };
  struct Sentence {
    int64_t first, end;  // of its words
    int64_t age;
  };
  // The gradient of a memory's row i holds factors[i] * vector, once for every hop that uses the memory.
  struct Use {
    const float *factors, *vector;
  };

  const Problem& p_;
  int64_t member_ = 0;
  std::vector<Word> words_;
  std::vector<Sentence> story_;  // without its empty sentences
  Sentence question_{};
  std::vector<float> memory_;                     // (memory, sentence, row)
  std::vector<float> control_, d_sum_;            // (hop + 1, row), (hop, row)
  std::vector<float> looks_, d_scores_, logits_;  // (hop, sentence), the same, (answer)
  std::vector<float> d_control_;
  std::vector<std::vector<Use>> uses_;  // by memory

 public:
  Weights weights, gradients;

  explicit Reader(const Problem& p)
      : p_(p),
        memory_(p.memories * p.slot_row * p.row),
        control_((p.hops + 1) * p.row),
        d_sum_(p.hops * p.row),
        looks_(p.hops * p.slot_row),
        d_scores_(p.hops * p.slot_row),
        logits_(round_up(p.answers, LANES)),
        d_control_(p.row),
        uses_(p.memories),
        weights(p),
        gradients(p) {
    words_.reserve(p.sentences * p.words + p.asked);
    story_.reserve(p.sentences);
  }

  void forward(int64_t member, int64_t item) {
    open(member, item);
    for (int64_t m = 0; m < p_.memories; ++m)
      for (int64_t i = 0; i < count(); ++i) encode(m, story_[i], weights.time(m, story_[i].age), memory(m, i));
    std::fill_n(control(0), p_.row, 0.0f);
    encode(p_.question, question_, control(0), control(0));
    for (int64_t k = 0; k < p_.hops; ++k) hop(k);
  }

  void answer(float* logits) {
    compare(weights.answer(0), p_.answers, control(p_.hops), logits_.data());
    std::copy_n(logits_.data(), p_.answers, logits);
  }

  // Adds to the gradients; after `forward`.
  void backward(const float* d_logits) {
    std::fill(d_control_.begin(), d_control_.end(), 0.0f);
    combine(d_logits, weights.answer(0), p_.answers, d_control_.data());
    for (int64_t a = 0; a < p_.answers; ++a) add(d_logits[a], control(p_.hops), gradients.answer(a));
    for (std::vector<Use>& uses : uses_) uses.clear();
    for (int64_t k = p_.hops - 1; k >= 0; --k) hop_backward(k);
    for (int64_t m = 0; m < p_.memories; ++m)
      for (int64_t i = 0; i < count(); ++i) memory_backward(m, i);
    for (int64_t v = 0; v < vectors(); v += STEP) {
      vec d[STEP];
      for (int s = 0; s < STEP; ++s) d[s] = load(&d_control_[(v + s) * LANES]);
      encode_backward(p_.question, question_, v, d);
    }
  }

 private:
  INLINE int64_t vectors() const { return VECTORS ? VECTORS : p_.vectors; }
  int64_t count() const { return story_.size(); }
  float* memory(int64_t m, int64_t i) { return &memory_[(m * p_.slot_row + i) * p_.row]; }
  float* control(int64_t k) { return &control_[k * p_.row]; }

  INLINE void add(float factor, const float* x, float* to) const {
    const vec f = splat(factor);
    for (int64_t v = 0; v < vectors(); ++v) store(to + v * LANES, load(to + v * LANES) + f * load(x + v * LANES));
  }
  // to += sum_i factors[i] rows[i]
  INLINE void combine(const float* factors, const float* rows, int64_t count, float* to) const {
    for (int64_t v = 0; v < vectors(); v += STEP) {
      vec total[STEP];
      for (int s = 0; s < STEP; ++s) total[s] = load(to + (v + s) * LANES);
      for (int64_t i = 0; i < count; ++i)
        for (int s = 0; s < STEP; ++s) total[s] += splat(factors[i]) * load(rows + i * p_.row + (v + s) * LANES);
      for (int s = 0; s < STEP; ++s) store(to + (v + s) * LANES, total[s]);
    }
  }
  INLINE vec products(const float* a, const float* b) const {
    vec s = load(a) * load(b);
    for (int64_t v = 1; v < vectors(); ++v) s += load(a + v * LANES) * load(b + v * LANES);
    return s;
  }
  // Each row's product with x, in whole vectors.
  INLINE void compare(const float* rows, int64_t count, const float* x, float* scores) const {
    for (int64_t i = 0; i < count; i += LANES) {
      vec each[LANES];
      for (int lane = 0; lane < LANES; ++lane) each[lane] = products(rows + (i + lane) * p_.row, x);
      store(scores + i, sums_of(each));
    }
  }

  // Finds the question's sentences, their words and their ages.
  void open(int64_t member, int64_t item) {
    member_ = member;
    const int64_t number = member * p_.batch + item;
    words_.clear();
    story_.clear();
    for (int64_t i = 0; i < p_.sentences; ++i) {
      const Sentence sentence = collect(p_.inputs.story + (number * p_.sentences + i) * p_.words, p_.words);
      if (sentence.end > sentence.first) story_.push_back(sentence);
    }
    question_ = collect(p_.inputs.question + number * p_.asked, p_.asked);
    for (int64_t i = 0; i < count(); ++i) story_[i].age = count() - i;
    if (!p_.draws) return;
    const float* noise = p_.inputs.noise + number * p_.draws;
    const int64_t empty = (int64_t)(noise[0] * (float)(p_.network.most_empty[count()] + 1));
    for (int64_t n = 1; n <= empty; ++n) {
      const int64_t gap = (int64_t)(noise[n] * (float)(count() + n));
      for (Sentence& sentence : story_) sentence.age += sentence.age > gap;
    }
    for (Sentence& sentence : story_) sentence.age = std::min(sentence.age, p_.slots);
  }
  Sentence collect(const int64_t* numbers, int64_t most) {
    const int64_t first = words_.size();
    for (int64_t j = 0; j < most; ++j)
      if (numbers[j]) words_.push_back({numbers[j] * p_.row, nullptr});
    const int64_t end = words_.size();
    for (int64_t j = 0, w = first; j < most; ++j)
      if (numbers[j]) words_[w++].position = p_.position(end - first, j);
    return {first, end, 0};
  }

  // to = start + sum_j l_j * row of word j
  INLINE void encode(int64_t matrix, const Sentence& sentence, const float* start, float* to) {
    const float* rows = weights.word(matrix, 0);
    for (int64_t v = 0; v < vectors(); v += STEP) {
      vec total[STEP];
      for (int s = 0; s < STEP; ++s) total[s] = load(start + (v + s) * LANES);
      for (int64_t w = sentence.first; w < sentence.end; ++w) {
        const float *row = rows + words_[w].row, *position = words_[w].position;
        for (int s = 0; s < STEP; ++s) total[s] += load(position + (v + s) * LANES) * load(row + (v + s) * LANES);
      }
      for (int s = 0; s < STEP; ++s) store(to + (v + s) * LANES, total[s]);
    }
  }
  // The gradient of that for the words, given that of vectors v to v + STEP.
  INLINE void encode_backward(int64_t matrix, const Sentence& sentence, int64_t v, const vec* d) {
    float* rows = gradients.word(matrix, 0);
    for (int64_t w = sentence.first; w < sentence.end; ++w) {
      float* row = rows + words_[w].row;
      const float* position = words_[w].position;
      for (int s = 0; s < STEP; ++s) {
        float* at = row + (v + s) * LANES;
        store(at, load(at) + load(position + (v + s) * LANES) * d[s]);
      }
    }
  }
  INLINE void memory_backward(int64_t m, int64_t i) {
    for (int64_t v = 0; v < vectors(); v += STEP) {
      vec d[STEP] = {};
      for (const Use& use : uses_[m])
        for (int s = 0; s < STEP; ++s) d[s] += splat(use.factors[i]) * load(use.vector + (v + s) * LANES);
      float* time = gradients.time(m, story_[i].age) + v * LANES;
      for (int s = 0; s < STEP; ++s) store(time + s * LANES, load(time + s * LANES) + d[s]);
      encode_backward(m, story_[i], v, d);
    }
  }

  void hop(int64_t k) {
    float *look = &looks_[k * p_.slot_row], *next = control(k + 1);
    compare(memory(p_.network.keys[k], 0), count(), control(k), look);
    if (p_.network.softmax[member_]) normalize(look);
    if (p_.linear_map)
      for (int64_t r = 0; r < p_.width; ++r) next[r] = sum(products(weights.map(r), control(k)));
    else
      std::copy_n(control(k), p_.row, next);
    combine(look, memory(p_.network.values[k], 0), count(), next);
    if (p_.rectified)
      for (int64_t c = 0; c < p_.row; ++c) next[c] = next[c] < 0 ? 0.0f : next[c];
  }

  // Slots that no sentence fills have score 0.
  void normalize(float* look) const {
    const int64_t unfilled = p_.slots - count(), last = round_up(count(), LANES);
    for (int64_t i = count(); i < last; ++i) look[i] = -INFINITY;
    vec most = splat(unfilled ? 0.0f : -INFINITY), total = {};
    for (int64_t i = 0; i < last; i += LANES) most = max_of(most, load(look + i));
    const vec top = splat(highest(most));
    for (int64_t i = 0; i < last; i += LANES) {
      const vec e = exponential(load(look + i) - top);
      store(look + i, e);
      total += e;
    }
    const vec scale = splat(1.0f / (sum(total) + (float)unfilled * exponential(-top)[0]));
    for (int64_t i = 0; i < last; i += LANES) store(look + i, load(look + i) * scale);
  }

  // From the gradient of u_{k+1} to that of u_k, both in d_control_.
  void hop_backward(int64_t k) {
    const float *look = &looks_[k * p_.slot_row], *next = control(k + 1);
    const int64_t key = p_.network.keys[k], value = p_.network.values[k];
    float *d_sum = &d_sum_[k * p_.row], *d_score = &d_scores_[k * p_.slot_row];
    for (int64_t c = 0; c < p_.row; ++c) d_sum[c] = p_.rectified && !(next[c] > 0) ? 0.0f : d_control_[c];
    if (p_.linear_map) {
      std::fill(d_control_.begin(), d_control_.end(), 0.0f);
      combine(d_sum, weights.map(0), p_.width, d_control_.data());
      for (int64_t r = 0; r < p_.width; ++r) add(d_sum[r], control(k), gradients.map(r));
    } else {
      std::copy_n(d_sum, p_.row, d_control_.data());
    }
    compare(memory(value, 0), count(), d_sum, d_score);
    if (p_.network.softmax[member_]) {
      float mean = 0;
      for (int64_t i = 0; i < count(); ++i) mean += look[i] * d_score[i];
      for (int64_t i = 0; i < count(); ++i) d_score[i] = look[i] * (d_score[i] - mean);
    }
    combine(d_score, memory(key, 0), count(), d_control_.data());
    uses_[value].push_back({look, d_sum});
    uses_[key].push_back({d_score, control(k)});
  }
};
