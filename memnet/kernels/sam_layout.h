// Sizes of a sparse access memory (Rae et al. 2016), what it emits, and what its rows keep.
#pragma once
#include "cell_layout.h"

// What the caller says; the Python side fills the same order.
struct SamSizes : Sizes {
  int64_t near;    // K, how many slots a head reads
  int64_t used;    // how many slots of any item are in use at the beginning
  int64_t zeroed;  // 1: memory, last accesses and links of the final state come as zeros
  int64_t links;   // 1: heads follow the order of writing
};

struct Problem : Cell {
  int64_t near, used, zeroed, links;
  float access_threshold, weight_epsilon;

  Problem(const int64_t* sizes, const float* numbers)
      : Cell(*reinterpret_cast<const SamSizes*>(sizes), numbers),
        near(reinterpret_cast<const SamSizes*>(sizes)->near),
        used(reinterpret_cast<const SamSizes*>(sizes)->used),
        zeroed(reinterpret_cast<const SamSizes*>(sizes)->zeroed),
        links(reinterpret_cast<const SamSizes*>(sizes)->links),
        access_threshold(numbers ? numbers[CELL_NUMBERS] : 0),
        weight_epsilon(numbers ? numbers[CELL_NUMBERS + 1] : 0) {}

  int64_t touches() const { return read_heads * near; }
  // What a head emits: query, what it adds, key strength, write gate, interpolation gate; with links also three modes of
  // reading and the power of sharpening.
  int64_t emission() const { return 2 * width + 3 + 4 * links; }
  int64_t interface() const { return read_heads * emission(); }
  // No more slots are in use at the end: a head takes at most one at a step.
  int64_t most_used() const { return std::min(slots, used + time * read_heads); }
  // Nor are more touched: those read before the first step, and at each step those read (with links also those that were
  // only compared) and one for each head; slot 0 stands where fewer than K are there to be read.
  int64_t most_touched() const { return std::min(most_used(), (time + 1) * ((1 + links) * touches() + read_heads) + 1); }

  // Many items, since they share the controller's weights, over which each group goes at every step; but what is in use
  // of their memories should stay in a core's own cache.
  std::vector<Group> groups() const {
    return groups_of(*this, most_used() * width, 192 * 1024);
  }
};

// A piece of a block of floats for other things.
template <typename T>
static T* of_floats(Arena& arena, int64_t count) {
  return reinterpret_cast<T*>(arena.take((count * sizeof(T) + sizeof(float) - 1) / sizeof(float)));
}

// What one head emits, activated.
struct Emission {
  const float* values;
  int64_t width;

  const float* query() const { return values; }
  const float* add() const { return values + width; }
  float strength() const { return values[2 * width]; }
  float write_gate() const { return values[2 * width + 1]; }
  float interpolation() const { return values[2 * width + 2]; }  // 1 writes where was read, 0 into the least used slot
  const float* modes() const { return values + 2 * width + 3; }  // backward, by content, forward
  float sharpening() const { return values[2 * width + 6]; }
};

// Where a head read, with which weights.
struct Past {
  const int32_t* slots;
  const float* weights;
};

// What one head has read: the slots from the nearest to the farthest, their weights, and the rest for the gradient.
// Where fewer than K slots are in use the last places hold slot 0 and weight 0.
struct Reading {
  int32_t* slots;
  float *weights, *cosine, *inverse_norm;
  float* rows;  // (near, width)
};

// The readings of all heads, and into which slots they have written besides where they read before.
//
// The next step overwrites just the rows that are read here (and erases one for each head, whose numbers then matter to
// nothing). So these copies are all that has to be kept of what writes destroy: the backward pass finds here what was
// read, to the bit, and needs neither the memory itself nor to undo its writes.
struct ReadRows {
  float* base;
  int64_t heads, near, width;

  static int64_t reading(int64_t near, int64_t width) { return near * (4 + width); }
  static int64_t size(const Problem& p) { return p.read_heads * (reading(p.near, p.width) + 1) + 1; }
  float* row(int64_t r) const { return base + r * (heads * (reading(near, width) + 1) + 1); }
  Reading of(int64_t r, int64_t head) const {
    float* start = row(r) + head * reading(near, width);
    return {reinterpret_cast<int32_t*>(start), start + near, start + 2 * near, start + 3 * near, start + 4 * near};
  }
  int32_t* least_used(int64_t r) const { return reinterpret_cast<int32_t*>(row(r) + heads * reading(near, width)); }
  int32_t& count(int64_t r) const { return least_used(r)[heads]; }  // of the slots that each head has read
};

// With links, what one head has read by content and by links; `Reading` is then what it has found by content. The last
// of the K places hold slot 0 and weight 0 where fewer slots have a weight.
struct LinkedReading {
  int32_t *slots, *seen;  // seen: slots before and after those read at the last step, -1 for none
  float *weights, *rows;  // (near), (near, width)
  int32_t* count;         // of the slots that have a weight
};
struct LinkedRows {
  float* base;
  int64_t heads, near, width;

  int64_t reading() const { return near * (4 + width) + 1; }
  int64_t size() const { return heads * reading(); }
  LinkedReading of(int64_t r, int64_t head) const {
    float* start = base + r * size() + head * reading();
    int32_t* slots = reinterpret_cast<int32_t*>(start);
    return {slots, slots + near, start + 3 * near, start + 4 * near, slots + reading() - 1};
  }
};

// What the forward pass leaves for the backward pass.
struct Kept : KeptRows {
  ReadRows read, first;  // by row; before step 0, by rank (slots and weights alone)
  LinkedRows linked;     // by row
  int32_t* in_use;       // by rank: slots that are in use at the end

  Kept(const Problem& p, const Order& order, Arena& arena, int64_t group_size)
      : KeptRows(p, order, arena, group_size, p.interface()) {
    read = {arena.take(rows * ReadRows::size(p)), p.read_heads, p.near, p.width};
    first = {arena.take(p.batch * ReadRows::size(p)), p.read_heads, p.near, p.width};
    linked = {nullptr, p.read_heads, p.near, p.width};
    linked.base = arena.take(p.links ? rows * linked.size() : 0);
    in_use = of_floats<int32_t>(arena, p.batch);
  }
};

// Where things lie in a list of state tensors: hidden and cell (batch, layer, hidden) with an LSTM, memory (batch,
// slot, width), read slots and their weights (batch, head, near), least used slots (batch, head), last access (batch,
// slot), slots in use and time (batch), with links the slots after and before each one (batch, slot), reads (batch, head,
// width). Slots and times are int64.
struct StateList {
  const Problem& p;
  int64_t memory() const { return p.lstm ? 2 : 0; }
  int64_t read_slots() const { return memory() + 1; }
  int64_t read_weights() const { return memory() + 2; }
  int64_t least_used() const { return memory() + 3; }
  int64_t last_access() const { return memory() + 4; }
  int64_t in_use() const { return memory() + 5; }
  int64_t time() const { return memory() + 6; }
  int64_t after() const { return memory() + 7; }
  int64_t before() const { return memory() + 8; }
  int64_t reads() const { return memory() + 7 + 2 * p.links; }
};
