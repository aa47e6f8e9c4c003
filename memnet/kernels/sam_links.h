// Reading in the order of writing: which slot was taken after which, and the mixture with what is found by content.
#pragma once
#include "sam_search.h"

// For each slot the one that its head took next, and the one that it had taken before, counted from 1; 0 for none.
struct LinkTables {
  int64_t *after, *before;

  // Puts what each head takes after what it took last, and out of the order in which it stood before. Nothing comes after
  // a slot that its head has lost to another one.
  void take(int64_t heads, const int64_t* last, const int64_t* chosen) const {
    for (int64_t h = 0; h < heads; ++h) {
      if (chosen[h] == last[h]) continue;
      int64_t &next = after[chosen[h]], &previous = before[chosen[h]];
      if (next) before[next - 1] = 0;
      if (previous) after[previous - 1] = 0;
      next = previous = 0;
    }
    for (int64_t h = 0; h < heads; ++h) {
      if (chosen[h] == last[h] || std::find(chosen, chosen + heads, last[h]) != chosen + heads) continue;
      after[last[h]] = chosen[h] + 1;
      before[chosen[h]] = last[h] + 1;
    }
  }
};

// A slot that may be read, and its weight.
struct Candidate {
  float weight;
  int32_t slot;
};

// The read modes through softmax, the power through 1 + softplus.
static INLINE void activate_modes(const float* raw, float* active) {
  const float most = std::max({raw[0], raw[1], raw[2]});
  apply(3, raw, active, [&](vec x) { return exponential(x - most); });
  const float share = 1.0f / (active[0] + active[1] + active[2]);
  for (int mode = 0; mode < 3; ++mode) active[mode] *= share;
  apply(1, raw + 3, active + 3, [](vec x) { return 1.0f + softplus(x); });
}

// w = pi_1 b + pi_2 c + pi_3 f (DNC, "Read weighting"), of which the K largest are kept and sharpened (NTM eq. 9). One
// slot may be several of b, c and f; its weights are added. Slots without any weight are not read.
static void read_linked(const Problem& p, const float* memory, const Emission& y, const Reading& content, int64_t count,
                        const Past& past, const LinkTables& tables, Candidate* candidates, const LinkedReading& linked,
                        float* reads) {
  int64_t found = 0;
  auto add = [&](int32_t slot, float weight) {
    Candidate* same = std::find_if(candidates, candidates + found, [&](const Candidate& c) { return c.slot == slot; });
    if (same == candidates + found)
      candidates[found++] = {weight, slot};
    else
      same->weight += weight;
  };
  for (int64_t k = 0; k < p.near; ++k) {
    linked.seen[k] = static_cast<int32_t>(tables.before[past.slots[k]]) - 1;
    linked.seen[p.near + k] = static_cast<int32_t>(tables.after[past.slots[k]]) - 1;
  }
  for (int64_t k = 0; k < p.near; ++k)
    if (linked.seen[k] >= 0) add(linked.seen[k], y.modes()[0] * past.weights[k]);
  for (int64_t k = 0; k < count; ++k) add(content.slots[k], y.modes()[1] * content.weights[k]);
  for (int64_t k = 0; k < p.near; ++k)
    if (linked.seen[p.near + k] >= 0) add(linked.seen[p.near + k], y.modes()[2] * past.weights[k]);

  // NaN is among the largest, as for torch.topk.
  auto larger = [](const Candidate& a, const Candidate& b) { return better({a.weight, a.slot}, {b.weight, b.slot}); };
  Candidate* end = std::remove_if(candidates, candidates + found, [](const Candidate& c) { return c.weight <= 0.0f; });
  const int64_t kept = std::min<int64_t>(p.near, end - candidates);
  std::partial_sort(candidates, candidates + kept, end, larger);
  *linked.count = static_cast<int32_t>(kept);
  std::fill(linked.slots + kept, linked.slots + p.near, 0);
  std::fill(linked.weights + kept, linked.weights + p.near, 0.0f);
  std::fill(reads, reads + p.width, 0.0f);
  if (!kept) return;
  const float power = y.sharpening(), bound = power * std::log(candidates[0].weight + p.weight_epsilon);
  float total = 0.0f;
  for (int64_t k = 0; k < kept; ++k)
    total += linked.weights[k] = std::exp(power * std::log(candidates[k].weight + p.weight_epsilon) - bound);
  for (int64_t k = 0; k < kept; ++k) {
    linked.slots[k] = candidates[k].slot;
    linked.weights[k] /= total;
    copy(memory + candidates[k].slot * p.width, p.width, linked.rows + k * p.width);
    add_scaled(p.width, linked.weights[k], linked.rows + k * p.width, reads);
  }
}
