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

// What the forward pass leaves for the backward pass. Of what it computes for each slot, only the final weights: the
// others are made anew from them and the memory in less time than they would take to come from far away.
struct Kept : KeptRows {
  float* scalars;        // see HeadScalars
  float* slots;          // the weights of each head and slot
  float* first_weights;  // before step 0, by rank
  float* memory;         // by Order::kept_memory
  int64_t weighting;     // numbers of all heads' weights

  Kept(const Problem& p, const Order& order, Arena& arena, int64_t group_size)
      : KeptRows(p, order, arena, group_size, p.interface()) {
    scalars = arena.take(rows * p.heads() * 4);
    weighting = p.heads() * p.lanes();
    slots = arena.take(rows * weighting);
    first_weights = arena.take(p.batch * weighting);
    memory = arena.take(p.training ? order.memories * p.matrix() : 0);
  }
  float* weights(int64_t row) const { return slots + row * weighting; }
};

// What a row keeps of one head besides its vectors.
struct HeadScalars {
  float inverse_key;     // 1 / |key|
  float strength_slope;  // d softplus / d x of the key strength
  float sharpen_slope;
  float unused;  // fills 16 bytes
};
