// Sizes of a Neural Turing Machine, and what its rows keep.
#pragma once
#include "cell_layout.h"

// What the caller says; the Python side fills the same order.
struct NtmSizes : Sizes {
  int64_t shifts;
};

struct Problem : Cell {
  int64_t shifts;
  float weight_epsilon;

  Problem(const int64_t* sizes, const float* numbers)
      : Cell(*reinterpret_cast<const NtmSizes*>(sizes), numbers),
        shifts(reinterpret_cast<const NtmSizes*>(sizes)->shifts),
        weight_epsilon(numbers ? numbers[CELL_NUMBERS] : 0) {}
  // Few enough items for their memories to stay in a core's own cache.
  std::vector<Group> groups() const { return groups_of(*this, matrix(), 40 * 1024); }
  int64_t emission() const { return width + 3 + shifts; }  // key, strength, gate, shift, sharpening
  int64_t erase_start() const { return heads() * emission(); }
  int64_t add_start() const { return erase_start() + write_heads * width; }
  int64_t interface() const { return add_start() + write_heads * width; }
};

// What a row keeps for every slot, in one piece: for each head its cosines, its weights by content and its final
// weights, and 1 / |memory row| after the step's write.
struct SlotRows {
  float* base;
  int64_t lanes, heads;

  static int64_t size(const Problem& p) { return (3 * p.heads() + 1) * p.lanes(); }
  float* part(int64_t row, int64_t which) const { return base + (row * (3 * heads + 1) + which) * lanes; }
  float* cosine(int64_t row, int64_t head) const { return part(row, head); }
  float* content(int64_t row, int64_t head) const { return part(row, heads + head); }
  float* weights(int64_t row, int64_t head = 0) const { return part(row, 2 * heads + head); }
  float* inverse_norm(int64_t row) const { return part(row, 3 * heads); }
};

// What the forward pass leaves for the backward pass.
struct Kept : KeptRows {
  float* scalars;  // see HeadScalars
  SlotRows slots;
  float *first_weights, *first_inverse, *memory;  // before step 0, by rank; memories, by Order::kept_memory

  Kept(const Problem& p, const Order& order, Arena& arena, int64_t group_size)
      : KeptRows(p, order, arena, group_size, p.interface()) {
    scalars = arena.take(rows * p.heads() * 4);
    slots = SlotRows{arena.take(rows * SlotRows::size(p)), p.lanes(), p.heads()};
    first_weights = arena.take(p.batch * p.heads() * p.lanes());
    first_inverse = arena.take(p.batch * p.lanes());
    memory = arena.take(p.training ? order.memories * p.matrix() : 0);
  }
};

// What a row keeps of one head besides its vectors.
struct HeadScalars {
  float inverse_key;     // 1 / |key|
  float strength_slope;  // d softplus / d x of the key strength
  float sharpen_slope;
  float unused;  // fills 16 bytes
};
