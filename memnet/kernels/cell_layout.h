// Sizes that cells with a controller and a memory share, the order in which their items and rows are laid out, and
// where what is kept lies.
#pragma once
#include <algorithm>
#include <numeric>
#include <vector>

#include "simd.h"

// What the caller says of every cell, in the order of the fields; the Python side fills the same order.
struct Sizes {
  int64_t batch, time, input, output, slots, width, read_heads, write_heads, hidden, layers;
  int64_t lstm;        // 1: LSTM cells, 0: linear layers with tanh
  int64_t normalized;  // 1: the controller's output goes through a layer normalisation
  int64_t training;    // 1: keep what the backward pass needs
  int64_t segment;     // the memory is kept before every `segment`-th step
  int64_t threads;
};

// How many of the caller's numbers are every cell's.
constexpr int64_t CELL_NUMBERS = 3;

struct Cell : Sizes {
  float norm_epsilon = 0;   // added to squared norms
  float layer_epsilon = 0;  // of the layer normalisation
  float max_gradient = 0;   // of the state of the step before, elementwise; may be infinite

  Cell(const Sizes& sizes, const float* numbers) : Sizes(sizes) {
    if (!numbers) return;
    norm_epsilon = numbers[0];
    layer_epsilon = numbers[1];
    max_gradient = numbers[2];
  }
  int64_t heads() const { return write_heads + read_heads; }  // write heads come first everywhere
  int64_t reads() const { return read_heads * width; }
  int64_t gates() const { return lstm ? 4 * hidden : hidden; }
  // A layer's input row: what comes from below, then (LSTM) its own previous output.
  int64_t below(int64_t layer) const { return layer ? hidden : input + reads(); }
  int64_t row_of(int64_t layer) const { return below(layer) + (lstm ? hidden : 0); }
  int64_t top_row() const { return hidden + reads(); }  // control, reads
  // Without an output layer of its own (its width is 0) a cell hands out the top rows.
  int64_t output_row() const { return output ? output : top_row(); }
  // The memory lies in blocks of LANES slots, (block, width, lane): whatever is computed runs along slots.
  int64_t lanes() const { return round_up(slots, LANES); }
  int64_t blocks() const { return lanes() / LANES; }
  int64_t matrix() const { return lanes() * width; }
};

// Ranks [first, first + count), run through the whole sequence together by one thread.
struct Group {
  int64_t first, count;
};

// Items from the longest to the shortest (their places in this order are their ranks), so that those still running at a
// step are the first ones. Row r of everything kept per step is (step, rank), step after step, without the padding.
struct Order {
  std::vector<int64_t> item, length, first_row, first_memory;  // by rank, by rank, by step, by rank
  int64_t rows = 0, memories = 0;

  Order(const Cell& p, const int64_t* lengths)
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
  // How many of a group have a step t.
  int64_t running(const Group& g, int64_t t) const {
    return std::clamp<int64_t>(first_row[t + 1] - first_row[t] - g.first, 0, g.count);
  }
  // Which of an item's kept memories is the one after step t (-1: the initial one), -1 where that is not kept.
  int64_t kept_memory(int64_t rank, int64_t t, int64_t segment) const {
    if (t == length[rank] - 1) return first_memory[rank] + (length[rank] + segment - 1) / segment;
    return (t + 1) % segment ? -1 : first_memory[rank] + (t + 1) / segment;
  }
};

// Few enough items for their memories, of `size` floats each, to fill no more than `cache` floats. The same for every
// number of threads, as the weights' gradients are added up by groups, and enough groups for many.
static std::vector<Group> groups_of(const Cell& p, int64_t size, int64_t cache) {
  const int64_t most = std::clamp<int64_t>(cache / size, 1, std::clamp<int64_t>(p.batch / 16, 8, 32));
  int64_t count = (p.batch + most - 1) / most;
  std::vector<Group> groups;
  for (int64_t g = 0; g < count; ++g) {
    int64_t first = p.batch * g / count;
    groups.push_back({first, p.batch * (g + 1) / count - first});
  }
  return groups;
}
static int64_t largest(const std::vector<Group>& groups) {
  int64_t most = 0;
  for (const Group& g : groups) most = std::max(most, g.count);
  return most;
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

// Asks for memory that is needed soon: rows lie too far apart for the processor to foresee.
static INLINE void fetch(const float* p, int64_t count) {
  for (int64_t i = 0; i < count; i += 16) __builtin_prefetch(p + i, 0, 2);
}

static INLINE void copy(const float* from, int64_t count, float* to) { std::copy(from, from + count, to); }
static INLINE void copy_or_zero(const float* from, int64_t offset, int64_t count, float* to) {
  if (from)
    copy(from + offset, count, to);
  else
    std::fill(to, to + count, 0.0f);
}

// What the forward pass of any cell leaves for its backward pass. Rows of one step in one piece each; without training
// only the rows of two steps for each thread, used in turn.
struct KeptRows {
  int64_t rows;
  // By layer: input rows, gates (i, f, g, o), cell state, and that before step 0.
  std::vector<float*> rows_in, gates, cell, first_cell;
  // Of the layer normalisation: what goes in, what comes out before gain and bias, and 1 / deviation.
  float *plain, *normal, *scale;
  float *top, *interface;  // control and reads; the activated interface

  KeptRows(const Cell& p, const Order& order, Arena& arena, int64_t group_size, int64_t interface_size)
      : rows(p.training ? order.rows : p.threads * 2 * group_size) {
    for (int64_t l = 0; l < p.layers; ++l) {
      rows_in.push_back(arena.take(rows * p.row_of(l)));
      gates.push_back(arena.take(p.lstm && p.training ? rows * p.gates() : 0));
      cell.push_back(arena.take(p.lstm ? rows * p.hidden : 0));
      first_cell.push_back(arena.take(p.lstm ? p.batch * p.hidden : 0));
    }
    plain = arena.take(p.normalized ? rows * p.hidden : 0);
    normal = arena.take(p.normalized ? rows * p.hidden : 0);
    scale = arena.take(p.normalized ? rows : 0);
    top = arena.take(rows * p.top_row());
    interface = arena.take(rows * interface_size);
  }
};
