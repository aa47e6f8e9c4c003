// Which stories of a batch have to be read: padding is left out, and every story that is the beginning of another one.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <vector>

// What the caller says, in the order of the fields; the Python side fills the same order.
struct Sizes {
  int64_t batch, sentences, words, asked;                // of the stories and of the questions, with their padding
  int64_t vocabulary, positions, slots, width, answers;  // of the network; word number 0 is null
  int64_t kept;     // 1: memories and what led to them are kept for a backward pass
  int64_t threads;
};

// In the caller's memory: what is read, the longest story first, and what is asked of it.
struct Plan {
  int64_t* stories;  // how many
  int64_t* first;    // (story + 1): its first sentence among all that are read
  int64_t* of;       // (question): its story
  int64_t* heard;    // (question): after how many of the story's sentences it is asked
  int64_t* lines;    // (sentence that is read): which of the batch's sentences it is; at most all of them

  Plan(const Sizes& s, int64_t* numbers)
      : stories(numbers),
        first(stories + 1),
        of(first + s.batch + 1),
        heard(of + s.batch),
        lines(heard + s.batch) {}
  // Sentences that are read; those of a story.
  int64_t told() const { return first[*stories]; }
  int64_t length(int64_t number) const { return first[number + 1] - first[number]; }
};

// Makes the plan. Stories are put in order as words are in a dictionary: there, a story that is the beginning of others
// stands right before one of them.
class Planner {
  const Sizes& s_;
  const int64_t* story_;
  std::vector<std::vector<int64_t>> lines_;  // of each question's story, those that are not empty

 public:
  Planner(const Sizes& sizes, const int64_t* story) : s_(sizes), story_(story), lines_(sizes.batch) {
    for (int64_t line = 0; line < s_.batch * s_.sentences; ++line) {
      const int64_t* words = story_ + line * s_.words;
      if (std::any_of(words, words + s_.words, [](int64_t word) { return word != 0; }))
        lines_[line / s_.sentences].push_back(line);
    }
  }

  void write(const Plan& plan) const {
    std::vector<int64_t> order(s_.batch), whole(s_.batch), own, place(s_.batch);
    std::iota(order.begin(), order.end(), 0);
    std::sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return is_before(a, b); });
    for (int64_t i = s_.batch - 1; i >= 0; --i) {
      const bool part = i + 1 < s_.batch && begins(order[i], order[i + 1]);
      whole[order[i]] = part ? whole[order[i + 1]] : order[i];
      if (!part) own.push_back(order[i]);
    }
    std::sort(own.begin(), own.end(), [&](int64_t a, int64_t b) {
      return lines_[a].size() != lines_[b].size() ? lines_[a].size() > lines_[b].size() : a < b;
    });
    *plan.stories = own.size();
    plan.first[0] = 0;
    for (size_t i = 0; i < own.size(); ++i) {
      const std::vector<int64_t>& lines = lines_[own[i]];
      std::copy(lines.begin(), lines.end(), plan.lines + plan.first[i]);
      plan.first[i + 1] = plan.first[i] + lines.size();
      place[own[i]] = i;
    }
    for (int64_t q = 0; q < s_.batch; ++q) {
      plan.of[q] = place[whole[q]];
      plan.heard[q] = lines_[q].size();
    }
  }

 private:
  // Any order of sentences will do.
  int compare(int64_t line, int64_t other) const {
    return std::memcmp(story_ + line * s_.words, story_ + other * s_.words, s_.words * sizeof(int64_t));
  }
  // The first sentence in which two stories differ, or the end of the shorter one.
  size_t parting(int64_t a, int64_t b) const {
    const size_t end = std::min(lines_[a].size(), lines_[b].size());
    size_t i = 0;
    while (i < end && compare(lines_[a][i], lines_[b][i]) == 0) ++i;
    return i;
  }
  bool begins(int64_t a, int64_t b) const { return parting(a, b) == lines_[a].size(); }
  bool is_before(int64_t a, int64_t b) const {
    const size_t i = parting(a, b), a_size = lines_[a].size(), b_size = lines_[b].size();
    if (i < a_size && i < b_size) return compare(lines_[a][i], lines_[b][i]) < 0;
    return a_size != b_size ? a_size < b_size : a < b;
  }
};
