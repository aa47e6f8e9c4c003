// Sizes of a Neural Turing Machine, the order in which its items and rows are laid out, and where what is kept lies.
#pragma once
#include <algorithm>
#include <numeric>
#include <vector>

#include "simd.h"

// What the caller says, in the order of the fields; the Python side fills the same order.
struct Sizes {
  int64_t batch, time, input, output, slots, width, read_heads, write_heads, shifts, hidden, layers;
  int64_t lstm;      // 1: LSTM cells, 0: linear layers with tanh
  int64_t training;  // 1: keep what the backward pass needs
  int64_t segment;   // the memory is kept before every `segment`-th step
  int64_t threads;
};

struct Problem : Sizes {
  float norm_epsilon, weight_epsilon;
  float max_gradient;  // of the state of the step before, elementwise; may be infinite

  explicit Problem(const Sizes& sizes, const float* numbers = nullptr)
      : Sizes(sizes),
        norm_epsilon(numbers ? numbers[0] : 0),
        weight_epsilon(numbers ? numbers[1] : 0),
        max_gradient(numbers ? numbers[2] : 0) {}
  int64_t heads() const { return write_heads + read_heads; }  // write heads come first everywhere
  int64_t emission() const { return width + 3 + shifts; }     // key, strength, gate, shift, sharpening
  int64_t erase_start() const { return heads() * emission(); }
  int64_t add_start() const { return erase_start() + write_heads * width; }
  int64_t interface() const { return add_start() + write_heads * width; }
  int64_t reads() const { return read_heads * width; }
  int64_t gates() const { return lstm ? 4 * hidden : hidden; }
  // A layer's input row: what comes from below, then (LSTM) its own previous output.
  int64_t below(int64_t layer) const { return layer ? hidden : input + reads(); }
  int64_t row_of(int64_t layer) const { return below(layer) + (lstm ? hidden : 0); }
  int64_t top_row() const { return hidden + reads(); }  // control, reads
  // The memory lies in blocks of LANES slots, (block, width, lane): whatever is computed runs along slots.
  int64_t lanes() const { return round_up(slots, LANES); }
  int64_t blocks() const { return lanes() / LANES; }
  int64_t matrix() const { return lanes() * width; }
};

// Items from the longest to the shortest (their places in this order are their ranks), so that those still running at a
// step are the first ones. Row r of everything kept per step is (step, rank), step after step, without the padding.
struct Order {
  std::vector<int64_t> item, length, first_row, first_memory;  // by rank, by rank, by step, by rank
  int64_t rows = 0, memories = 0;

  Order(const Problem& p, const int64_t* lengths)
      : item(p.batch), length(p.batch), first_row(p.time + 1), first_memory(p.batch) {
    std::iota(item.begin(), item.end(), 0);
    if (lengths)
      std::stable_sort(item.begin(), item.end(), [&](int64_t a, int64_t b) { return lengths[a] > lengths[b]; });
    for (int64_t rank = 0; rank < p.batch; ++rank) {
      length[rank] = lengths ? lengths[item[rank]] : p.time;
      first_memory[rank] = memories;
      memories += (length[rank] + p.segment - 1) / p.segment + 1;
    }
    int64_t running = p.batch;
    for (int64_t t = 0; t < p.time; ++t) {
      while (running && length[running - 1] <= t) --running;
      first_row[t] = rows;
      rows += running;
    }
    first_row[p.time] = rows;
  }
};

// Ranks [first, first + count), run through the whole sequence together by one thread.
struct Group {
  int64_t first, count;
};

// Few enough items for their memories to stay in a core's own cache, at least one group for each thread.
static std::vector<Group> groups_of(const Problem& p) {
  const int64_t cache = 40 * 1024;  // floats
  int64_t most = std::clamp<int64_t>(cache / p.matrix(), 1, 32);
  most = std::min(most, (p.batch + p.threads - 1) / p.threads);
  int64_t count = (p.batch + most - 1) / most;
  std::vector<Group> groups;
  for (int64_t g = 0; g < count; ++g) {
    int64_t first = p.batch * g / count;
    groups.push_back({first, p.batch * (g + 1) / count - first});
  }
  return groups;
}

// Hands out pieces of one block of floats, each on a vector boundary; with no block it only counts.
struct Arena {
  float* base;
  int64_t used = 0;
  float* take(int64_t count) {
    float* piece = base ? base + used : nullptr;
    used += round_up(count, 16);
    return piece;
  }
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

// Asks for memory that is needed soon: rows lie too far apart for the processor to foresee.
static INLINE void fetch(const float* p, int64_t count) {
  for (int64_t i = 0; i < count; i += 16) __builtin_prefetch(p + i, 0, 2);
}

// What the forward pass leaves for the backward pass. Rows of one step in one piece each; without training only the
// rows of two steps for each thread, used in turn.
struct Kept {
  // By layer: input rows, gates (i, f, g, o), cell state, and that before step 0.
  std::vector<float*> rows_in, gates, cell, first_cell;
  float *top, *interface, *scalars;  // control and reads; the activated interface; see HeadScalars
  SlotRows slots;
  float *first_weights, *first_inverse, *memory;  // before step 0, by rank; memories, by Order::first_memory

  Kept(const Problem& p, const Order& order, Arena& arena, int64_t group_size) {
    int64_t rows = p.training ? order.rows : p.threads * 2 * group_size;
    for (int64_t l = 0; l < p.layers; ++l) {
      rows_in.push_back(arena.take(rows * p.row_of(l)));
      gates.push_back(arena.take(p.lstm && p.training ? rows * p.gates() : 0));
      cell.push_back(arena.take(p.lstm ? rows * p.hidden : 0));
      first_cell.push_back(arena.take(p.lstm ? p.batch * p.hidden : 0));
    }
    top = arena.take(rows * p.top_row());
    interface = arena.take(rows * p.interface());
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
