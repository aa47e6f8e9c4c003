// The recurrent entity network: what it is given, and what its forward pass leaves for the backward pass.
//
// Contents begin as the keys w_j. For each sentence s, h_j <- unit(h_j + sigmoid(s . (h_j + w_j) + b_j) phi(x_j)),
// x_j = U h_j + V w_j + W s; a question q reads o from the slots by softmax, and the answer is R phi(q + H o).
#pragma once
#include <cmath>

#include "entity_plan.h"
#include "gemm.h"

// The parameters, or their gradients.
template <typename Float>
struct Tensors {
  Float *words, *keys;                             // (word - 1, width), (slot, width)
  Float *sentence_masks, *question_masks;          // (position, width)
  Float* gate_bias;                                // (slot)
  Float *from_memory, *from_keys, *from_sentence;  // (width, width): U, V and W
  Float *bias, *slopes;                            // (width)
  Float *from_read, *answers;                      // (width, width), (answer, width): H and R
};
using Parameters = Tensors<const float>;
using Gradients = Tensors<float>;

constexpr float UNIT_EPS = 1e-10f;  // as in memnet.functional_entity

// A weight (output, input) for rows to be multiplied by: for inputs, or for gradients of outputs.
struct Matrix : Packed {
  std::vector<float> floats;

  static Matrix forwards(const float* weight, int64_t outputs, int64_t inputs) {
    Matrix matrix(inputs, outputs);
    matrix.put_transposed(0, inputs, weight, inputs);
    return matrix;
  }
  static Matrix backwards(const float* weight, int64_t outputs, int64_t inputs) {
    Matrix matrix(outputs, inputs);
    matrix.put(0, outputs, weight, inputs);
    return matrix;
  }
  Matrix(Matrix&&) = default;  // the numbers stay where they are

 private:
  Matrix(int64_t inner, int64_t columns) : Packed{nullptr, inner, columns}, floats(Packed::size(inner, columns)) {
    data = floats.data();
  }
};

struct Inputs {
  const int64_t *story, *question;  // (question, sentence, word), (question, word)
  int64_t* plan;                    // as the planner has made it
};

struct Layout : Sizes {
  int64_t vectors = (width + LANES - 1) / LANES;
  int64_t row = vectors * LANES;           // floats from one row of `width` to the next in everything below
  int64_t memory = slots * row;            // floats of a memory
  int64_t gates = round_up(slots, LANES);  // floats of a number for each slot

  explicit Layout(const Sizes& sizes) : Sizes(sizes) { threads = std::min(threads, batch); }
};

struct Problem : Layout, Plan {
  const int64_t *story, *question;
  Parameters given;
  // In rows; the null word has one, too.
  std::vector<float> vocabulary_rows, keys, sentence_masks, question_masks, slopes;
  std::vector<int64_t> asked_first;  // (memory): the first question that is asked of it, or -1
  std::vector<int64_t> asked_next;   // (question): the next one that is asked of the same memory, or -1

  Problem(const Sizes& sizes, const Inputs& inputs, const Parameters& given)
      : Layout(sizes),
        Plan(sizes, inputs.plan),
        story(inputs.story),
        question(inputs.question),
        given(given),
        vocabulary_rows(vocabulary * row),
        keys(in_rows(given.keys, slots)),
        sentence_masks(in_rows(given.sentence_masks, positions)),
        question_masks(in_rows(given.question_masks, positions)),
        slopes(in_rows(given.slopes, 1)),
        asked_first(told() + *stories, -1),
        asked_next(batch) {
    put_rows(given.words, vocabulary - 1, vocabulary_rows.data() + row);
    for (int64_t q = batch - 1; q >= 0; --q) {
      int64_t& other = asked_first[memory_number(of[q], heard[q])];
      asked_next[q] = other;
      other = q;
    }
  }
  // Of the memory after t sentences, among those of all stories.
  int64_t memory_number(int64_t number, int64_t t) const { return first[number] + number + t; }
  const int64_t* sentence(int64_t number) const { return story + lines[number] * words; }

  void put_rows(const float* from, int64_t rows, float* to) const {
    for (int64_t r = 0; r < rows; ++r) std::copy_n(from + r * width, width, to + r * row);
  }
  void take_rows(const float* from, int64_t rows, float* to) const {
    for (int64_t r = 0; r < rows; ++r) std::copy_n(from + r * row, width, to + r * width);
  }
  std::vector<float> in_rows(const float* from, int64_t rows) const {
    std::vector<float> to(rows * row);
    put_rows(from, rows, to.data());
    return to;
  }
};

// What is kept of each sentence that is read.
struct Heard {
  float* memories;        // (sentence, slot, row), after it
  float* inner;           // (sentence, slot, row): what phi is applied to
  float *gates, *scales;  // (sentence, slot)

  static int64_t size(const Layout& p, int64_t sentences) { return sentences * 2 * (p.memory + p.gates); }
  Heard(const Layout& p, int64_t sentences, float* floats)
      : memories(floats),
        inner(memories + sentences * p.memory),
        gates(inner + sentences * p.memory),
        scales(gates + sentences * p.gates) {}
};

// What is kept of each question.
struct Asked {
  float *asked, *read;     // (question, row): q and o
  float *hidden, *bent;    // (question, row): what phi is applied to, and what comes of it
  float* looks;            // (question, slot): the softmax

  static int64_t size(const Layout& p) { return p.batch * (4 * p.row + p.gates); }
  Asked(const Layout& p, float* floats)
      : asked(floats),
        read(asked + p.batch * p.row),
        hidden(read + p.batch * p.row),
        bent(hidden + p.batch * p.row),
        looks(bent + p.batch * p.row) {}
};

// Sums over vectors of a row. VECTORS in a row, if that is known beforehand; else 0.
template <int VECTORS>
struct Rows {
  // Vectors of a row that are held in registers at once.
  static constexpr int STEP = VECTORS ? VECTORS : 1;

  const Problem& p;

  INLINE int64_t vectors() const { return VECTORS ? VECTORS : p.vectors; }
  INLINE float dot(const float* a, const float* b) const {
    vec total = {};
    for (int64_t v = 0; v < vectors(); ++v) total = multiply_add(load(a + v * LANES), load(b + v * LANES), total);
    return sum(total);
  }
  // to += factor x
  INLINE void add(float factor, const float* x, float* to) const {
    const vec f = splat(factor);
    for (int64_t v = 0; v < vectors(); ++v)
      store(to + v * LANES, multiply_add(f, load(x + v * LANES), load(to + v * LANES)));
  }
  // to = sum_i factors[i] rows[i]
  INLINE void combine(const float* factors, const float* rows, int64_t count, float* to) const {
    for (int64_t v = 0; v < vectors(); v += STEP) {
      vec total[STEP] = {};
      for (int64_t i = 0; i < count; ++i)
        for (int s = 0; s < STEP; ++s)
          total[s] = multiply_add(splat(factors[i]), load(rows + i * p.row + (v + s) * LANES), total[s]);
      for (int s = 0; s < STEP; ++s) store(to + (v + s) * LANES, total[s]);
    }
  }
  // A sentence: each word's vector times the mask of its position.
  INLINE void encode(const int64_t* numbers, int64_t count, const float* masks, float* to) const {
    for (int64_t v = 0; v < vectors(); v += STEP) {
      vec total[STEP] = {};
      for (int64_t i = 0; i < count; ++i) {
        if (!numbers[i]) continue;
        const float *word = &p.vocabulary_rows[numbers[i] * p.row + v * LANES], *mask = masks + i * p.row + v * LANES;
        for (int s = 0; s < STEP; ++s)
          total[s] = multiply_add(load(word + s * LANES), load(mask + s * LANES), total[s]);
      }
      for (int s = 0; s < STEP; ++s) store(to + (v + s) * LANES, total[s]);
    }
  }
};
