// The backward in tiles: windows of 3x3 at stride 1, 16 or 32 channels a group, in float32, float16 and bfloat16.
//
// Why. `backward` adds each of a unit's 36 corners to memory, though neighbouring units mostly add to the same pixels. Here
// they meet on chip, and a pixel is added to memory once a tile. Shared memory cannot add floats (the compiler would make a
// loop around a compare-and-swap of it), so nothing is added there: points are put into lists, which takes an integer exchange,
// and whoever owns a pixel sums it in registers.
//
// Who owns what. A block owns a tile of 16 x 16 output pixels of one group, and a window of 32 x 28 input pixels around it. Its
// points lie in the window's cells; a cell has a list of its points. Those that leave the window, by large offsets, are far:
// their corners are added to memory one by one, as `backward` does. So the result is right for offsets of any size.
//
// Phases of a block:
//   enter    a thread owns a unit: softmax, locations, each point into the table and into its cell's list;
//   multiply a team of D / V lanes owns a unit: products of grad_output with the corners give the gradients of offset and mask;
// collect  a team owns a column of the window's cells in a quarter of its rows, V channels a lane, and walks down: what a
// cell's
// points give to their upper corners is complete, and leaves, together with the right corners of the team to the left;
//            what they give to their lower corners is carried into the next row.
// Corners outside the image: their pixels are sums that nobody sends off; their products are replaced, not multiplied by zero,
// so that no question stands before a load.
#pragma once

#include "made.cuh"

namespace dcnv3 {

constexpr int TILE = SIDE * SIDE;                                // output pixels of a tile, each a unit
constexpr int COLUMNS = 32, ROWS = 28;                           // of the window
constexpr int LEFT = (COLUMNS - SIDE) / 2, ABOVE = (ROWS - SIDE) / 2;  // of the window before the tile's first pixel
constexpr int ROWS_OF_A_WARP = ROWS / WARPS;
constexpr unsigned NONE = 0xffffu, FAR = 0x80000000u;
static_assert(ROWS % WARPS == 0 && TILE % THREADS == 0 && POINTS * TILE < NONE);

struct Tile {
  int n, p, q, g;  // image, first output pixel, group
  int left, top;   // the window's first pixel, in the image

  __device__ __forceinline__ Tile(const Problem<float>& z, int n, int p, int q, int g)
      : n(n), p(p), q(q), g(g), left(q * z.SW + z.left - LEFT), top(p * z.SH + z.top - ABOVE) {}
  // Where its image and group begin in a tensor like value.
  __device__ __forceinline__ int first(const Problem<float>& z, int D) const { return (n * z.H * z.W * z.G + g) * D; }
  // A tile's last rows and columns may lie beyond the output.
  __device__ __forceinline__ bool has(const Problem<float>& z, int local) const {
    return p + local / SIDE < z.P && q + local % SIDE < z.Q;
  }
  __device__ __forceinline__ long long unit(const Problem<float>& z, int local) const {
    return ((long long)(n * z.P + p + local / SIDE) * z.Q + q + local % SIDE) * z.G + g;
  }
};

// The tile of a block, where neighbouring blocks share the lines that a pixel's groups lie in.
__device__ __forceinline__ Tile tile_of(const Problem<float>& z, int block) {
  const int tile = int(z.by_G(unsigned(block))), row = int(z.by_across(unsigned(tile))), n = int(z.by_down(unsigned(row)));
  const int p = row - n * int(z.by_down.divisor), q = tile - row * int(z.by_across.divisor);
  return {z, n, p * SIDE, q * SIDE, block - tile * z.G};
}

// A point as the later phases need it. `where`: the first pixel of its cell that is inside the image, times 16, and one bit for
// each corner inside; FAR marks those that are in no list.
struct alignas(16) Note {
  float across, down, weight;
  unsigned where;
};

struct Notes {
  Note of[POINTS * TILE];               // of point k of unit `local`: k * TILE + local
  unsigned short next[POINTS * TILE];   // the one before in the list of its cell
  unsigned first[ROWS * COLUMNS];       // of each cell's list: the last that came
};

// Two numbers that are read and written at once.
template <typename T>
struct alignas(2 * sizeof(T)) Pair {
  T x, y;
};

// ---- enter ---------------------------------------------------------------------------------------------------------------

// The weights of a unit's points by the lane that owns it: its masks, or the softmax of its logits.
template <typename T>
__device__ __forceinline__ void weigh(const Problem<float>& z, const T* mask, float (&weight)[POINTS]) {
#pragma unroll
  for (int k = 0; k < POINTS; ++k) weight[k] = read(mask[k]);
  if (FULL || z.logits) {
    float most = weight[0], total = 0.0f;
#pragma unroll
    for (int k = 1; k < POINTS; ++k) most = larger(most, weight[k]);
#pragma unroll
    for (int k = 0; k < POINTS; ++k) total += weight[k] = power(weight[k] - most);
    const float share = reciprocal(total);
#pragma unroll
    for (int k = 0; k < POINTS; ++k) weight[k] *= share;
  }
}

template <typename T>
__device__ __forceinline__ void enter(const Problem<float>& z, const Tile& tile, int local, const T* offset, const T* mask,
                                      Notes& notes) {
  const long long unit = tile.unit(z, local);
  float weight[POINTS];
  weigh(z, mask + unit * POINTS, weight);
  const Point<float> start = start_of(z, Place{tile.n, tile.p + local / SIDE, tile.q + local % SIDE, tile.g});
#pragma unroll
  for (int k = 0; k < POINTS; ++k) {
    const Point<float> move = load_offset(offset + 2 * (unit * POINTS + k));
    const Cell<float> cell = cell_of(z, location(z, start, k / 3, k % 3, move.x, move.y));
    const int pixel = (cell.y < 0 ? 0 : cell.y) * z.W + (cell.x < 0 ? 0 : cell.x);
    const int column = cell.x - tile.left, row = cell.y - tile.top, number = k * TILE + local;
    const bool near = (unsigned(column) < COLUMNS - 1) & (unsigned(row) < ROWS);  // the cell's right pixels are in the window, too
    const bool counts = cell.inside != 0u;
    notes.of[number] = {cell.across, cell.down, weight[k], unsigned(pixel) << 4 | cell.inside | (counts & !near ? FAR : 0u)};
    if (near & counts)
      notes.next[number] = (unsigned short)atomicExch(&notes.first[row * COLUMNS + column], unsigned(number));
  }
}

// ---- multiply ------------------------------------------------------------------------------------------------------------

// Positions of a cell's four corners, pixels being `step` apart. Those of a corner outside are some pixel's, so that it can be
// read.
struct Positions {
  unsigned of[4];

  __device__ __forceinline__ Positions(unsigned where, int W, int step, int first) {
    const unsigned right = where & where >> 1 & 5u ? unsigned(step) : 0u, below = where & where >> 2 & 3u ? unsigned(W * step) : 0u;
    of[0] = ((where & ~FAR) >> 4) * unsigned(step) + unsigned(first);
    of[1] = of[0] + right, of[2] = of[0] + below, of[3] = of[2] + right;
  }
};

// The corners of a unit's far points, by its team.
template <typename T>
__device__ __forceinline__ void add_far(const Problem<float>& z, const Note* notes, int channel, const Channels<T>& gradient,
                                        const Sheet<float>& sums) {
#pragma unroll 1
  for (int k = 0; k < POINTS; ++k) {
    const Note note = notes[k * TILE];
    if (!(note.where & FAR)) continue;
    const Positions positions(note.where, z.W, sums.step, channel);
    const Corners<float> share = shares(note.across, note.down, note.weight);
#pragma unroll
    for (int c = 0; c < 4; ++c)
      if (note.where >> c & 1u) add(sums.of + positions.of[c], gradient, share.of[c]);
  }
}

// Units `first` and on, side by side in a row, as many as a warp has teams. `staged` has room for the gradients of their
// offsets and masks. Where the output ends before the tile, teams without a unit see another one: no lane misses a vote or a
// shuffle, and no condition that differs between warps stands before those, from which the compiler would make a second, slower
// kernel.
template <typename T, int D>
__device__ __forceinline__ void multiply(const Problem<float>& z, const Tile& tile, int first, const Notes& notes, T* staged,
                                         const T* grad_output, const T* value, const Sheet<float>& sums, T* grad_offset,
                                         T* grad_mask) {
  using team = Team<T, D>;
  const int lane = threadIdx.x % 32, owned = lane / team::LANES, part = lane % team::LANES;
  const int count = tile.p + first / SIDE < z.P ? z.Q - tile.q - first % SIDE : 0;  // of units up to the end of the row
  const bool present = FULL || owned < count;
  const int channel = part * team::V, first_of_image = tile.first(z, D) + channel;
  const Note* const mine = notes.of + (present ? first + owned : 0);
  const Channels<T> gradient = load(grad_output + tile.unit(z, present ? first + owned : 0) * D + part * team::V);
  constexpr int OWN = (POINTS + team::LANES - 1) / team::LANES;
  PointGradient<float> own_points[OWN];  // point j * LANES + part
  float along = 0.0f, nothing = 0.0f;  // the latter: the product with zeros, which is NaN where the gradient is not finite
#pragma unroll
  for (int i = 0; i < team::V; ++i) nothing += gradient.of[i] * 0.0f;
  unsigned all = 0u;  // what the points have in common
#pragma unroll
  for (int k = 0; k < POINTS; ++k) {
    const Note note = mine[k * TILE];
    const Positions positions(note.where, z.W, z.G * D, first_of_image);
    Corners<float> dot{};
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      const Channels<T> there = load(value + positions.of[c]);
#pragma unroll
      for (int i = 0; i < team::V; ++i) dot.of[c] += gradient.of[i] * there.of[i];
      if (!(note.where >> c & 1u)) dot.of[c] = nothing;
    }
    const PointGradient<float> share = point_gradient(dot, note.across, note.down);
    const PointGradient<float> found = {over_lanes<team::LANES>(share.weight), over_lanes<team::LANES>(share.x),
                                        over_lanes<team::LANES>(share.y)};
    if (k % team::LANES == part) own_points[k / team::LANES] = found;
    along += note.weight * found.weight;
    if (k == POINTS / 2) __syncwarp();  // loads of later points stay behind: all at once need more registers than there are
    all |= note.where;
  }
  if (!FULL && !__all_sync(ALL, !(all & FAR)) && present) add_far(z, mine, channel, gradient, sums);

  // They leave a point a lane, since neighbouring units of a group lie apart.
  Pair<T>* const offsets = reinterpret_cast<Pair<T>*>(staged);
  T* const masks = staged + 2 * POINTS * team::UNITS;
#pragma unroll
  for (int j = 0; j < OWN; ++j) {
    const int k = j * team::LANES + part;
    if (k >= POINTS) continue;
    const PointGradient<float> found = own_points[j];
    const float weight = mine[k * TILE].weight, factor = weight * z.scale;
    write(offsets[owned * POINTS + k].x, factor * found.x);
    write(offsets[owned * POINTS + k].y, factor * found.y);
    write(masks[owned * POINTS + k], FULL || z.logits ? logit_gradient(weight, found.weight, along) : found.weight);
  }
  __syncwarp();
  const long long unit = tile.unit(z, first);
#pragma unroll
  for (int i = lane; i < team::UNITS * POINTS; i += 32) {
    if (i >= (FULL ? team::UNITS : count) * POINTS) continue;
    const int point = i + i / POINTS * ((z.G - 1) * POINTS);
    reinterpret_cast<Pair<T>*>(grad_offset)[unit * POINTS + point] = offsets[i];
    grad_mask[unit * POINTS + point] = masks[i];
  }
  __syncwarp();
}

// ---- collect -------------------------------------------------------------------------------------------------------------

// What a cell's points give to two pixels side by side: to its upper ones, or to its lower ones.
template <typename T>
struct Sides {
  Channels<T> left, right;
};

// Adds what the points of a list give to the corners of their cell.
template <typename T, int D>
__device__ __forceinline__ void walk(const Problem<float>& z, const Notes& notes, unsigned number, const T* gradients,
                                     Sides<T>& upper, Sides<T>& lower) {
  const int C = z.G * D;
#pragma unroll 1
  while (number != NONE) {
    const Note note = notes.of[number];
    const int local = number % TILE;
    const Channels<T> gradient = load(gradients + unsigned((local / SIDE * z.Q + local % SIDE) * C));
    const Corners<float> share = shares(note.across, note.down, note.weight);
#pragma unroll
    for (int i = 0; i < Channels<T>::V; ++i) {
      upper.left.of[i] += share.of[0] * gradient.of[i];
      upper.right.of[i] += share.of[1] * gradient.of[i];
      lower.left.of[i] += share.of[2] * gradient.of[i];
      lower.right.of[i] += share.of[3] * gradient.of[i];
    }
    number = notes.next[number];
  }
}

// Rows `first` and on of the window, a warp's.
template <typename T, int D>
__device__ __forceinline__ void collect(const Problem<float>& z, const Tile& tile, int first, const Notes& notes,
                                        const T* grad_output, const Sheet<float>& sums) {
  using team = Team<T, D>;
  const int lane = threadIdx.x % 32, channel = lane % team::LANES * team::V;
  const T* const gradients = grad_output + tile.unit(z, 0) * D + channel;
#pragma unroll 1
  for (int strip = 0; strip < COLUMNS; strip += team::UNITS) {
    const int column = (LEFT + strip + lane / team::LANES) % COLUMNS;  // the tile's own columns first: full lists side by side
    Sides<T> lower{};
    bool carried = false;
#pragma unroll 1
    for (int i = 0; i <= ROWS_OF_A_WARP; ++i) {  // the row below the warp's gets what is left
      const int row = first + i;
      const unsigned list = i < ROWS_OF_A_WARP ? notes.first[row * COLUMNS + column] : NONE;
      const bool any = carried || list != NONE;
      carried = list != NONE;
      if (__all_sync(ALL, !any)) continue;
      Sides<T> upper = lower;
      lower = Sides<T>{};
      walk<T, D>(z, notes, list, gradients, upper, lower);
      __syncwarp();  // together again: lists differ in length

      // The cell to the left has its right pixel where this one has its left. A strip's last right pixel leaves by itself.
      const bool last = lane >= 32 - team::LANES, has_left = lane >= team::LANES;
      const bool more = __shfl_up_sync(ALL, int(any), team::LANES) && has_left;
#pragma unroll
      for (int i = 0; i < team::V; ++i) {
        const float moved = __shfl_up_sync(ALL, upper.right.of[i], team::LANES);
        upper.left.of[i] += has_left ? moved : 0.0f;
      }
      const int x = tile.left + column, y = tile.top + row, position = (y * z.W + x) * sums.step + channel;
      const bool in_rows = unsigned(y) < unsigned(z.H);
      if (in_rows & (any | more) & (unsigned(x) < unsigned(z.W))) add(sums.of + position, upper.left, 1.0f);
      if (in_rows & any & last & (unsigned(x + 1) < unsigned(z.W))) add(sums.of + (position + sums.step), upper.right, 1.0f);
    }
  }
}

// ---- all of it -----------------------------------------------------------------------------------------------------------

template <typename T, int D>
__device__ __forceinline__ void by_lists(const Problem<float>& z, const Tile& tile, const Sheet<float>& sums, const T* grad_output,
                                         const T* value, const T* offset, const T* mask, T* grad_offset, T* grad_mask) {
  using team = Team<T, D>;
  __shared__ Notes notes;
  alignas(16) __shared__ T staged[WARPS][team::UNITS * 3 * POINTS];
  const int warp = threadIdx.x / 32;
  static_assert(ROWS * COLUMNS % THREADS == 0);
#pragma unroll
  for (int i = 0; i < ROWS * COLUMNS; i += THREADS) notes.first[i + threadIdx.x] = NONE;
  __syncthreads();
  for (int local = threadIdx.x; local < TILE; local += THREADS)
    if (FULL || tile.has(z, local)) enter(z, tile, local, offset, mask, notes);
  __syncthreads();
#pragma unroll 1
  for (int turn = 0; turn < TILE / (WARPS * team::UNITS); ++turn)
    multiply<T, D>(z, tile, (turn * WARPS + warp) * team::UNITS, notes, staged[warp], grad_output, value, sums, grad_offset,
                   grad_mask);
  collect<T, D>(z, tile, warp * ROWS_OF_A_WARP, notes, grad_output, sums);
}

// Of float32, whose sums are the gradient: in 16 bits it is `backward_by_lists` (products.cuh).
template <typename T, int D>
__global__ void __launch_bounds__(THREADS, BACKWARD_BLOCKS)
    backward_in_tiles(Problem<float> z, const T* __restrict__ grad_output, const T* __restrict__ value,
                      const T* __restrict__ offset, const T* __restrict__ mask, float* __restrict__ grad_value,
                      T* __restrict__ grad_offset, T* __restrict__ grad_mask) {
  const Tile tile = tile_of(z, int(blockIdx.x));
  const Sheet<float> sums{grad_value + tile.first(z, D), z.G * D};
  by_lists<T, D>(z, tile, sums, grad_output, value, offset, mask, grad_offset, grad_mask);
}

}  // namespace dcnv3
