// Which slots were accessed longest ago.
#pragma once
#include "sam_layout.h"

// All slots of one memory in the order of their last access, the first of equals first, as a ring of links: an access
// moves its slot to the end, so that no step looks at more slots than it touches. Made when it is first needed, which
// is when no slot is free any more.
struct AccessOrder {
  int32_t *next, *previous;  // by slot, and of the ring's own place, which comes after the last slot
  int32_t slots;

  // How many links of each kind: none where a slot stays free to the end.
  static int64_t links(const Problem& p) { return p.used + p.time * p.read_heads > p.slots ? p.slots + 1 : 0; }
  int32_t begin() const { return next[slots]; }
  void link(int32_t first, int32_t second) const {
    next[first] = second;
    previous[second] = first;
  }
  void move_to_end(int32_t slot) const {
    link(previous[slot], next[slot]);
    link(previous[slots], slot);
    link(slot, slots);
  }
  // Sorts by one group of bits of the time after the other, in both arrays in turn.
  void make(const int64_t* last_access) const {
    constexpr int BITS = 11;
    const auto [least, most] = std::minmax_element(last_access, last_access + slots);
    const uint64_t origin = *least, range = static_cast<uint64_t>(*most) - origin;
    int32_t *sorted = next, *other = previous;
    std::iota(sorted, sorted + slots, 0);
    for (int shift = 0; shift < 64 && range >> shift; shift += BITS) {
      auto digit = [&](int32_t slot) {
        return (static_cast<uint64_t>(last_access[slot]) - origin) >> shift & ((1 << BITS) - 1);
      };
      int32_t place[(1 << BITS) + 1] = {};
      for (int32_t i = 0; i < slots; ++i) ++place[digit(i) + 1];
      for (int d = 0; d < 1 << BITS; ++d) place[d + 1] += place[d];
      for (int32_t i = 0; i < slots; ++i) other[place[digit(sorted[i])]++] = sorted[i];
      std::swap(sorted, other);
    }
    if (sorted == next) std::copy(sorted, sorted + slots, previous);
    for (int32_t i = 0, slot = slots; i <= slots; ++i) {
      const int32_t after = i < slots ? previous[i] : slots;
      next[slot] = after;
      slot = after;
    }
    for (int32_t i = 0, slot = slots; i <= slots; ++i, slot = next[slot]) previous[next[slot]] = slot;
  }
};

// What a step knows of the accesses to one item's memory; the numbers are those of the state that is made.
struct Usage {
  const Problem& p;
  int64_t *least_used, *last_access, *in_use, *time;
  AccessOrder order;
  int32_t* ordered;  // 1 once the order is made

  // The slots whose last access lies farthest back, the first of equals; one for each head (sec. 3.2, U^(2)). Slots
  // enter use in the order of their index, and those in use but never accessed (a write can be too weak to count) are
  // among what was chosen at the last step. So as long as a slot is free nothing has to be searched.
  void choose() const {
    const int64_t heads = p.read_heads;
    if (!*ordered && *in_use + heads <= p.slots) {
      int64_t* end = std::remove_if(least_used, least_used + heads, [&](int64_t s) { return last_access[s] > 0; });
      std::sort(least_used, end);
      std::iota(end, least_used + heads, *in_use);
    } else {
      if (!*ordered) order.make(last_access);
      *ordered = 1;
      int32_t slot = order.begin();
      for (int64_t h = 0; h < heads; ++h, slot = order.next[slot]) least_used[h] = slot;
    }
    *in_use = std::max(*in_use, *std::max_element(least_used, least_used + heads) + 1);
  }

  // An access to a slot, with the weight that one head has for it.
  struct Touch {
    int32_t slot;
    float weight;
  };
  // Notes the time of the slots whose weights sum to more than the threshold, in the order of their index. Sorts the
  // touches.
  void note(Touch* touches, int64_t count) const {
    std::sort(touches, touches + count, [](const Touch& a, const Touch& b) { return a.slot < b.slot; });
    for (int64_t i = 0; i < count;) {
      const int32_t slot = touches[i].slot;
      float weight = 0.0f;
      for (; i < count && touches[i].slot == slot; ++i) weight += touches[i].weight;
      if (!(weight > p.access_threshold)) continue;
      last_access[slot] = std::max(last_access[slot], *time);
      if (*ordered) order.move_to_end(slot);
    }
  }
};
