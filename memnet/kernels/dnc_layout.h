// Sizes of a Differentiable Neural Computer, what it emits, and what its rows keep.
#pragma once
#include "cell_layout.h"

// What the caller says; the Python side fills the same order.
struct DncSizes : Sizes {
  int64_t masked;       // 1: heads compare with the parts of a slot that they ask for
  int64_t erase_freed;  // 1: freed slots are erased
  int64_t sharpen;      // 1: forward and backward weights are sharpened
};

struct Problem : Cell {
  int64_t masked, erase_freed, sharpen;
  float weight_epsilon;

  Problem(const int64_t* sizes, const float* numbers) : Problem(*reinterpret_cast<const DncSizes*>(sizes), numbers) {}
  Problem(const DncSizes& sizes, const float* numbers)
      : Cell(sizes, numbers),
        masked(sizes.masked),
        erase_freed(sizes.erase_freed),
        sharpen(sizes.sharpen),
        weight_epsilon(numbers ? numbers[CELL_NUMBERS] : 0) {}

  // The interface: write heads, read heads, erase and add vectors, free gates. A write head's emission is a key, its
  // strength, perhaps a mask, then the allocation and the write gate; a read head's ends with its modes and perhaps two
  // sharpnesses.
  int64_t score() const { return width + 1 + masked * width; }
  int64_t modes() const { return 1 + 2 * write_heads; }
  int64_t write_emission() const { return score() + 2; }
  int64_t read_emission() const { return score() + modes() + 2 * sharpen; }
  int64_t emission_start(int64_t head) const {
    return head < write_heads ? head * write_emission()
                              : write_heads * write_emission() + (head - write_heads) * read_emission();
  }
  int64_t erase_start() const { return emission_start(heads()); }
  int64_t add_start() const { return erase_start() + write_heads * width; }
  int64_t free_start() const { return add_start() + write_heads * width; }
  int64_t interface() const { return free_start() + read_heads; }

  // The links follow the memory in one piece, (write head, slot, slot) without padding.
  int64_t link() const { return round_up(slots * slots, LANES); }
  int64_t contents() const { return matrix() + write_heads * link(); }
  // Forward and backward weights, (write head, read head).
  int64_t followed() const { return write_heads * read_heads; }

  // Few enough items for their links to stay near in a core's own cache; but a large controller's weights, over which
  // each group goes in every step, are shared by more.
  std::vector<Group> groups() const {
    int64_t weights = hidden * interface();
    for (int64_t l = 0; l < layers; ++l) weights += row_of(l) * gates();
    return groups_of(*this, contents(), std::max<int64_t>(64 * 1024, weights / 4));
  }
};

// What a row keeps for every slot, in one piece.
struct SlotRows {
  float* base;
  int64_t lanes, heads, writes, reads;

  static int64_t parts(int64_t heads, int64_t writes, int64_t reads) {
    return 4 * heads + 4 * writes + 2 + 2 * writes * reads;
  }
  static int64_t size(const Problem& p) { return parts(p.heads(), p.write_heads, p.read_heads) * p.lanes(); }
  float* part(int64_t row, int64_t which) const { return base + (row * parts(heads, writes, reads) + which) * lanes; }
  // Of each head: its final weights, its cosines, its weights by content, and 1 / the norms that it compared with.
  float* weights(int64_t row, int64_t head = 0) const { return part(row, head); }
  float* cosine(int64_t row, int64_t head) const { return part(row, heads + head); }
  float* content(int64_t row, int64_t head) const { return part(row, 2 * heads + head); }
  float* inverse_norm(int64_t row, int64_t head) const { return part(row, 3 * heads + head); }
  // Of each write head: the usage that its allocation is made of, its slots by that usage, what is allocated, and the
  // precedence after the step.
  float* used(int64_t row, int64_t head) const { return part(row, 4 * heads + head); }
  int32_t* order(int64_t row, int64_t head) const {
    return reinterpret_cast<int32_t*>(part(row, 4 * heads + writes + head));
  }
  float* allocated(int64_t row, int64_t head) const { return part(row, 4 * heads + 2 * writes + head); }
  float* precedence(int64_t row, int64_t head) const { return part(row, 4 * heads + 3 * writes + head); }
  // Usage after the step, and what the free gates leave of each slot.
  float* usage(int64_t row) const { return part(row, 4 * heads + 4 * writes); }
  float* retention(int64_t row) const { return part(row, 4 * heads + 4 * writes + 1); }
  // Backward and forward weights, write head by write head.
  float* back(int64_t row, int64_t which = 0) const { return part(row, 4 * heads + 4 * writes + 2 + which); }
  float* forth(int64_t row, int64_t which = 0) const { return back(row, writes * reads + which); }
};

// The state before step 0, each item's in one piece: usage, precedences, where each read head has read for the free
// gates, and for the links.
struct FirstRows {
  float* base;
  int64_t lanes, writes, reads;

  static int64_t size(const Problem& p) { return (1 + p.write_heads + 2 * p.read_heads) * p.lanes(); }
  float* usage(int64_t rank) const { return base + rank * (1 + writes + 2 * reads) * lanes; }
  float* precedence(int64_t rank) const { return usage(rank) + lanes; }
  float* freeing(int64_t rank) const { return precedence(rank) + writes * lanes; }
  float* following(int64_t rank) const { return freeing(rank) + reads * lanes; }
};

// What the forward pass leaves for the backward pass.
struct Kept : KeptRows {
  SlotRows slots;
  FirstRows first;
  float* contents;  // memories and links, by Order::kept_memory

  Kept(const Problem& p, const Order& order, Arena& arena, int64_t group_size)
      : KeptRows(p, order, arena, group_size, p.interface()) {
    slots = {arena.take(rows * SlotRows::size(p)), p.lanes(), p.heads(), p.write_heads, p.read_heads};
    first = {arena.take(p.batch * FirstRows::size(p)), p.lanes(), p.write_heads, p.read_heads};
    contents = arena.take(p.training ? order.memories * p.contents() : 0);
  }
};

// Where things lie in a list of state tensors: hidden and cell (batch, layer, hidden) with an LSTM, memory (batch,
// slot, width), usage (batch, slot), read weights as the free gates see them (batch, head, slot), retention (batch,
// slot) if freed slots are erased, link (batch, head, slot, slot), precedence (batch, head, slot), backward and forward
// weights (batch, write head, read head, slot), read weights as the links see them, reads (batch, head, width).
struct StateList {
  const Problem& p;
  int64_t memory() const { return p.lstm ? 2 : 0; }
  int64_t usage() const { return memory() + 1; }
  int64_t freeing() const { return memory() + 2; }
  int64_t retention() const { return memory() + 3; }
  int64_t link() const { return memory() + 3 + p.erase_freed; }
  int64_t precedence() const { return link() + 1; }
  int64_t back() const { return link() + 2; }
  int64_t forth() const { return link() + 3; }
  int64_t following() const { return link() + 4; }
  int64_t reads() const { return link() + 5; }
};
