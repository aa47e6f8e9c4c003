// The gradients of the entity network's parameters, summed up over sentences and questions.
//
// Each is summed by one thread from beginning to end, except for what a story adds up itself: that is too much to keep.
#pragma once
#include <memory>

#include "entity_backward.h"

// The gradient of a weight (output, input) and of its bias, from the gradients of outputs and the inputs, in rows.
class WeightSum {
  const int64_t outputs_, row_;
  std::unique_ptr<float[]> scratch_;  // not cleared: that takes as long as the sums themselves

 public:
  std::vector<float> weight, bias;  // (output, row), (output)

  WeightSum(int64_t outputs, int64_t row)
      : outputs_(outputs),
        row_(row),
        scratch_(new float[OuterSum::size(outputs, row)]),
        weight(round_up(outputs, ROW_BLOCK) * row),
        bias(outputs) {}

  void add(int64_t count, const float* d_outputs, const float* inputs) {
    for (int64_t first = 0; first < count; first += SUM_ROWS) {
      const int64_t rows = std::min(SUM_ROWS, count - first);
      const OuterSum outer(rows, outputs_, row_, scratch_.get());
      outer.take(0, rows, d_outputs + first * outputs_, inputs + first * row_, row_, bias.data());
      outer.add_to(weight.data());
    }
  }
};

template <int VECTORS>
class ParameterSums {
  const Problem& p_;
  const BackwardWeights& weights_;
  const Rows<VECTORS> rows_{p_};
  const Asked asked_;
  const float* d_logits_;
  const Traces& traces_;
  std::vector<Sums>& parts_;
  WeightSum from_sentence_, scores_, from_read_, answers_, from_keys_;
  std::vector<float> words_, sentence_masks_, question_masks_, slopes_;

 public:
  ParameterSums(const Problem& p, const BackwardWeights& weights, const Asked& asked, const float* d_logits,
                const Traces& traces, std::vector<Sums>& parts)
      : p_(p),
        weights_(weights),
        asked_(asked),
        d_logits_(d_logits),
        traces_(traces),
        parts_(parts),
        from_sentence_(p.row, p.row),
        scores_(p.gates, p.row),
        from_read_(p.row, p.row),
        answers_(p.answers, p.row),
        from_keys_(p.row, p.row),
        words_(p.vocabulary * p.row),
        sentence_masks_(p.positions * p.row),
        question_masks_(p.positions * p.row),
        slopes_(p.row) {}

  // Tasks that have nothing to do with one another.
  static constexpr int64_t TASKS = 6;
  void run(int64_t task) {
    switch (task) {
      case 0:
        return add_parts();
      case 1:
        return from_sentence_.add(p_.told(), traces_.d_from_told.data(), traces_.told.data());
      case 2:
        return add_words();
      case 3:
        return scores_.add(p_.told(), traces_.d_scores.data(), traces_.told.data());
      case 4:
        return from_read_.add(p_.batch, traces_.d_hidden.data(), asked_.read);
      case 5:
        add_slopes();
        return answers_.add(p_.batch, d_logits_, asked_.bent);
    }
  }

  // After all tasks.
  void write(const Gradients& d) {
    Sums& stories = parts_[0];
    // Contents begin as the keys, which are compared with sentences and go through V, too.
    float* keys = stories.start.data();
    Sums::add(scores_.weight, stories.start);
    multiply(p_.slots, stories.from_keys.data(), p_.row, weights_.keys_map, nullptr, Start::add, keys, p_.row);
    rows_.add(1.0f, stories.slopes.data(), slopes_.data());
    p_.take_rows(&words_[p_.row], p_.vocabulary - 1, d.words);
    p_.take_rows(keys, p_.slots, d.keys);
    p_.take_rows(sentence_masks_.data(), p_.positions, d.sentence_masks);
    p_.take_rows(question_masks_.data(), p_.positions, d.question_masks);
    std::copy_n(scores_.bias.data(), p_.slots, d.gate_bias);
    p_.take_rows(stories.from_memory.data(), p_.width, d.from_memory);
    p_.take_rows(from_keys_.weight.data(), p_.width, d.from_keys);
    p_.take_rows(from_sentence_.weight.data(), p_.width, d.from_sentence);
    std::copy_n(from_keys_.bias.data(), p_.width, d.bias);
    std::copy_n(slopes_.data(), p_.width, d.slopes);
    p_.take_rows(from_read_.weight.data(), p_.width, d.from_read);
    p_.take_rows(answers_.weight.data(), p_.answers, d.answers);
  }

 private:
  void add_parts() {
    for (size_t part = 1; part < parts_.size(); ++part) parts_[0].add(parts_[part]);
    from_keys_.add(p_.slots, parts_[0].from_keys.data(), p_.keys.data());
  }
  void add_slopes() {
    for (int64_t at = 0; at < p_.batch * p_.row; at += LANES) {
      const vec x = load(asked_.hidden + at);
      float* slope = &slopes_[at % p_.row];
      store(slope, multiply_add(x > 0.0f ? vec{} : x, load(&traces_.d_bent[at]), load(slope)));
    }
  }
  void add_words() {
    for (int64_t s = 0; s < p_.told(); ++s)
      encode_backward(p_.sentence(s), p_.words, &p_.sentence_masks[0], &traces_.d_told[s * p_.row], sentence_masks_);
    for (int64_t q = 0; q < p_.batch; ++q)
      encode_backward(p_.question + q * p_.asked, p_.asked, &p_.question_masks[0], &traces_.d_asked[q * p_.row],
                      question_masks_);
  }
  void encode_backward(const int64_t* numbers, int64_t count, const float* masks, const float* d,
                       std::vector<float>& d_masks) {
    for (int64_t i = 0; i < count; ++i) {
      if (!numbers[i]) continue;
      const float *word = &p_.vocabulary_rows[numbers[i] * p_.row], *mask = masks + i * p_.row;
      float *d_word = &words_[numbers[i] * p_.row], *d_mask = &d_masks[i * p_.row];
      for (int64_t v = 0; v < rows_.vectors(); ++v) {
        const int64_t at = v * LANES;
        store(d_word + at, multiply_add(load(d + at), load(mask + at), load(d_word + at)));
        store(d_mask + at, multiply_add(load(d + at), load(word + at), load(d_mask + at)));
      }
    }
  }
};
