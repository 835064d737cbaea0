// The backward in tiles by tensor cores: windows of 3x3 at stride 1, 16 or 32 channels a group, in float16 and bfloat16.
//
// Why. The backward is two products of matrices that are mostly zeros: values at the corners with grad_output, and the weights
// of the corners with grad_output. Tensor cores are so fast that zeros cost nothing; what costs is to make their operands, and
// both are made here with few instructions, for offsets of any size.
//
// Values at the corners. The columns are one corner of the eight points around a unit's centre, the rows sixteen units, and of
// grad_output all rows but the unit's own are zero: sixteen units, one product each, fill a sum with numbers that are all
// wanted. A lane finds those of its own points in its registers, and reads from memory what tensor cores want from it.
//
// Sums of the pixels. The points of a tile are sorted by rows of cells and strips of four, and taken sixteen at a time: the
// shares of four pixels of the row and of the four below, times grad_output of the points' units. A share is a tent around its
// point, zero at pixels that are not corners of it. Each lane needs four of the sixteen points, and gets them by a product,
// too: shared memory is read once, not by eight lanes. 16 bits are too few for a share: it is two numbers, what 16 bits hold of
// it and the rest, and each pixel stands twice among the rows of the product.
//
// Who owns what. A block owns the tile and the window of tiles.cuh. A warp owns a row of the tile, sixteen units; a lane of it
// two points of two units, and one's centre. The corners of points outside the window, which are far, are added to memory one
// by one. Where a number is not finite, zero times it would spread: such a row goes the way of any.cuh.
//
// Phases of a block: multiply, a warp a row of units, which leaves a note of each point; give each bin its place; sort; add up,
// a warp two strips, row by row.
#pragma once

#include "any.cuh"
#include "sheets.cuh"
#include "tensor.cuh"

namespace dcnv3 {

// Columns of pixels that are summed together, and the bins of a row of cells: for each strip the cells whose pixels are all in
// it, and, but for the last, the cells whose right pixels are in the next strip.
constexpr int STRIP = 4, STRIPS = COLUMNS / STRIP, ROW_BINS = 2 * STRIPS - 1, BINS = ROWS * ROW_BINS;
constexpr int STEP = 16;       // points of a product
constexpr unsigned BIN = 4u << 16;  // of a place: above 16 digits for the place in its bin, the bin's bytes in an array of words
constexpr int SIZE = 16, UNIT = 6;  // bytes of a sorted point, and the one at which it has its unit
constexpr int OWN_POINTS = 5;  // of a lane: two of each of two units, and the centre of one
static_assert(SIDE == 16 && STRIPS == 2 * WARPS && ROWS <= 32 && TILE == 2 * THREADS);

// A point before it is sorted: its bin, and how many came before it there.
struct alignas(16) Unsorted {
  float x, top, bottom;  // from the window's left; its weights for the upper and for the lower pixels
  unsigned place;
};

// A point as tensor cores hand it out, two numbers of 16 bits a word: x in three; its unit, no number; the two weights in two
// each.
struct alignas(SIZE) Sorted {
  unsigned of[4];
};

template <typename T>
struct Memory {
  union {
    Unsorted unsorted[TILE][POINTS];
    Sorted sorted[POINTS * TILE + STEP];
  };
  union {
    alignas(16) unsigned words[WARPS][POINTS][SIDE + 4];  // of a warp's points: see look_and_multiply
    alignas(16) uint4 gradients[2][TILE];  // of 16 channels: word i of plane j is word 2 i + j of the unit's
  };
  unsigned begin[BINS + 3];  // of bin i: begin[i + 1]; at first, how many points it has
  bool finite;               // grad_output of the tile is, as far as anybody knows
};

// ---- who owns what -------------------------------------------------------------------------------------------------------

// Sixteen units side by side, of which `count` are in the output.
struct Row {
  int number, count;

  __device__ __forceinline__ Row(const Problem<float>& z, const Tile& tile, int number)
      : number(number), count(tile.p + number < z.P ? z.Q - tile.q : 0) {}
  __device__ __forceinline__ bool has(int unit) const { return FULL || unit < count; }
  __device__ __forceinline__ int present(int unit) const { return FULL || unit < count ? unit : count - 1; }
};

// A lane's points: 0 and 1 of its first unit, 2 and 3 of its second, and the centre of one of these; two lanes of four own
// centres.
struct Owner {
  int row, part;  // of the lane, in a matrix

  __device__ __forceinline__ explicit Owner(int lane) : row(lane / 4), part(lane % 4) {}
  __device__ __forceinline__ int number(int j) const { return j < 4 ? 2 * part + (part >= 2 ? 1 : 0) + j % 2 : POINTS / 2; }
  // Where tensor cores leave the product of a centre of the first units, and the lane beside it, for the second ones.
  __device__ __forceinline__ bool in_first(int j) const { return j < 4 ? j < 2 : part == row / 2; }
  __device__ __forceinline__ bool owns(int j) const { return j < 4 || part / 2 == row / 4; }
  __device__ __forceinline__ bool owns(int j, int i) const { return j < 4 ? j / 2 == i : part == (row / 2 ^ i); }  // of unit i
  __device__ __forceinline__ int unit(int j) const { return row + (in_first(j) ? 0 : 8); }
  __device__ __forceinline__ int index(int j) const { return j < 4 ? 2 * part + j % 2 : POINTS - 1; }  // the centre last
  template <typename V>
  __device__ __forceinline__ V of_unit(int j, const V (&both)[2]) const {
    return in_first(j) ? both[0] : both[1];
  }
};

// ---- multiply ------------------------------------------------------------------------------------------------------------

// A lane's quarter of a pixel's channels, two in a word.
template <int D>
struct alignas(D / 2) Quarter {
  unsigned of[D / 8];
};
template <int D, typename T>
__device__ __forceinline__ Quarter<D> load_quarter(const T* from) {
  return *reinterpret_cast<const Quarter<D>*>(from);
}

// What is known of a lane's points, an array each; where their cells lie in value is in shared memory.
struct Spots {
  float across[OWN_POINTS], down[OWN_POINTS], x[OWN_POINTS];  // x: from the window's left
  int bin[OWN_POINTS];                                        // BINS: in none
};

// Looks at point j; returns the position of its cell's first pixel inside and, in the last four bits, the corners outside.
template <bool INTERIOR, int D>
__device__ __forceinline__ unsigned look(const Problem<float>& z, const Tile& tile, Point<float> at, int j, Spots& spots) {
  Cell<float> cell;
  if (INTERIOR) {
    const int x = int(at.x), y = int(at.y);  // no floor: they are not negative
    cell = {x, y, at.x - float(x), at.y - float(y), 15u};
  } else {
    cell = cell_of(z, at);
  }
  const unsigned x = unsigned(cell.x - tile.left), y = unsigned(cell.y - tile.top);
  spots.across[j] = cell.across, spots.down[j] = cell.down, spots.x[j] = at.x - float(tile.left);
  spots.bin[j] = (x < COLUMNS - 1) & (y < ROWS) & (cell.inside != 0u) ? int(y * ROW_BINS + (x / 2 & (x | ~1u))) : BINS;
  const int pixel = (INTERIOR || cell.y >= 0 ? cell.y : 0) * z.W + (INTERIOR || cell.x >= 0 ? cell.x : 0);
  return unsigned(pixel * (z.G * D) + tile.first(z, D)) | (cell.inside ^ 15u);
}

// From a cell's first pixel inside to its corner c, pixels being `step` apart; to some pixel inside for a corner outside.
__device__ __forceinline__ unsigned to_corner(const Problem<float>& z, unsigned step, unsigned inside, int c) {
  const unsigned right = inside & inside >> 1 & 5u ? step : 0u, below = inside & inside >> 2 & 3u ? unsigned(z.W) * step : 0u;
  return (c % 2 ? right : 0u) + (c / 2 ? below : 0u);
}

// Quarters of the corners of a cell, of which `word` has the position and, in its last four bits, the corners outside. `from`:
// value from the lane's quarter on, moved by a corner.
template <bool INTERIOR, typename T, int D>
__device__ __forceinline__ void load_cell(const Problem<float>& z, const T* const (&from)[4], unsigned word, Quarter<D> (&corners)[4]) {
#pragma unroll
  for (int c = 0; c < 4; ++c)
    corners[c] = load_quarter<D>(
        INTERIOR ? from[c] + word : from[0] + ((word & ~15u) + to_corner(z, unsigned(z.G * D), ~word & 15u, c)));
}

// The product with zeros: NaN where a number is not finite.
template <typename T, int D>
__device__ __forceinline__ float nothing_of(const Quarter<D>& numbers, T) {
  float nothing = 0.0f;
#pragma unroll
  for (int i = 0; i < D / 8; ++i) nothing += first_of(numbers.of[i], T{}) * 0.0f + second_of(numbers.of[i], T{}) * 0.0f;
  return nothing;
}

using Products = Corners<float>[OWN_POINTS];  // of a lane's points with grad_output; nothing for a corner outside

// Looks at a lane's points and multiplies. `words`, what lanes exchange: of point i of unit j, the centre last, in row i.
template <bool INTERIOR, typename T, int D>
__device__ __forceinline__ void look_and_multiply(const Problem<float>& z, const Tile& tile, const Owner& owner,
                                                  const Point<float> (&at)[OWN_POINTS], unsigned (*words)[SIDE + 4],
                                                  const Quarter<D> (&gradient)[2], const T* value, Spots& spots,
                                                  Products& products) {
  unsigned own[OWN_POINTS];
  const T* from[4];
#pragma unroll
  for (int c = 0; c < 4; ++c) from[c] = given(value + (owner.part * (D / 4) + to_corner(z, unsigned(z.G * D), 15u, c)));
#pragma unroll
  for (int j = 0; j < OWN_POINTS; ++j) {
    own[j] = look<INTERIOR, D>(z, tile, at[j], j, spots);
    if (owner.owns(j)) words[owner.index(j)][owner.unit(j)] = own[j];
  }
  __syncwarp();
  // sums[i] of a corner: of the lane's unit i, the rest is of no use. `own`: whether the lane's units are multiplied.
  float sums[2][4][4] = {};
  const auto multiply = [&](const unsigned (*words)[8], bool own) {
    Quarter<D> units[2];
#pragma unroll
    for (int i = 0; i < D / 8; ++i) units[0].of[i] = own ? gradient[0].of[i] : 0u, units[1].of[i] = own ? gradient[1].of[i] : 0u;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      Quarter<D> corners[4];
      load_cell<INTERIOR, T, D>(z, from, *words[half], corners);
#pragma unroll
      for (int i = 0; i < D / 8; i += 2) {
        const Matrices a{{units[0].of[i], units[1].of[i], units[0].of[i + 1], units[1].of[i + 1]}};
#pragma unroll
        for (int c = 0; c < 4; ++c) multiply_add(sums[half][c], a, corners[c].of[i], corners[c].of[i + 1], T{});
      }
    }
  };
  const auto halves = [&](int row, int unit) { return reinterpret_cast<const unsigned (*)[8]>(&words[row][unit]); };
  // Centres: that of a unit is in column `row` of its row, in part row / 2; the second unit's go to the lane beside it.
  multiply(halves(POINTS - 1, owner.row), z.D == D);  // it is; were this known, the compiler would copy the units for each product
  const bool odd = owner.row % 2 == 1;
#pragma unroll
  for (int c = 0; c < 4; ++c) {
    const float *const of_first = sums[0][c], *const of_second = sums[1][c] + 2;
    const float first = odd ? of_first[1] : of_first[0], second = __shfl_xor_sync(ALL, odd ? of_second[1] : of_second[0], 1);
    products[4].of[c] = owner.in_first(4) ? first : second;
#pragma unroll
    for (int i = 0; i < 4; ++i) sums[0][c][i] = sums[1][c][i] = 0.0f;
  }
  constexpr int TURN = 32 / D;  // units at once: all would need more registers than there are
#pragma unroll 1
  for (int unit = 0; unit < 8; unit += TURN) {
#pragma unroll
    for (int i = 0; i < TURN; ++i) multiply(halves(owner.row, unit + i), owner.row == unit + i);
  }
#pragma unroll
  for (int c = 0; c < 4; ++c) {
#pragma unroll
    for (int j = 0; j < OWN_POINTS; ++j) {
      if (j < 4) products[j].of[c] = sums[j / 2][c][j];
      if (!INTERIOR && own[j] >> c & 1u) products[j].of[c] = nothing_of(owner.of_unit(j, gradient), T{});
    }
  }
}

// The sum, or the largest, over the points of a lane's unit i, in each of the unit's lanes.
template <typename F>
__device__ __forceinline__ float over_points(const Owner& owner, const float (&of)[OWN_POINTS], int i, F together) {
  float both = together(of[2 * i], of[2 * i + 1]);
  both = owner.owns(4, i) ? together(both, of[4]) : both;
  both = together(both, __shfl_xor_sync(ALL, both, 1));
  return together(both, __shfl_xor_sync(ALL, both, 2));
}
__device__ __forceinline__ float sum_of(float a, float b) { return a + b; }
__device__ __forceinline__ float larger_of(float a, float b) { return larger(a, b); }

// From a lane's masks to the weights of its points: as they are, or the softmax over the points of each unit.
__device__ __forceinline__ void weigh(const Problem<float>& z, const Owner& owner, float (&weight)[OWN_POINTS]) {
  if (!(FULL || z.logits)) return;
  const float most[] = {over_points(owner, weight, 0, larger_of), over_points(owner, weight, 1, larger_of)};
#pragma unroll
  for (int j = 0; j < OWN_POINTS; ++j) weight[j] = power(weight[j] - owner.of_unit(j, most));
  const float share[] = {reciprocal(over_points(owner, weight, 0, sum_of)), reciprocal(over_points(owner, weight, 1, sum_of))};
#pragma unroll
  for (int j = 0; j < OWN_POINTS; ++j) weight[j] *= owner.of_unit(j, share);
}

// The corners of the points j of lanes that raise `far`, added to memory, as far as they are inside: two points at a time, one
// by the lanes of rows 0 to 3, a corner a row.
template <typename T, int D>
__device__ __forceinline__ void add_far(const Problem<float>& z, const Owner& owner, int j, bool far,
                                        const unsigned (*words)[SIDE + 4], float across, float down, float weight,
                                        const Quarter<D> (&gradient)[2], int first, const Sheet<float>& sums) {
  const int c = owner.row % 4;
#pragma unroll 1
  for (unsigned left = __ballot_sync(ALL, far); left; left &= left - 1u) {
    int from = __ffs(int(left)) - 1;
    if (left & left - 1u) left &= left - 1u;  // the second one, if there is one
    const int second = __ffs(int(left)) - 1;
    const bool counts = owner.row < 4 || second != from;
    if (owner.row >= 4) from = second;
    const Owner whose(from);
    const unsigned word = words[whose.index(j)][whose.unit(j)], inside = ~word & 15u;
    const Corners<float> share = shares(__shfl_sync(ALL, across, from), __shfl_sync(ALL, down, from), __shfl_sync(ALL, weight, from));
    const float mine = c == 0 ? share.of[0] : c == 1 ? share.of[1] : c == 2 ? share.of[2] : share.of[3];
    const unsigned pixel = z.by_G(((word & ~15u) - unsigned(first)) / D);
    float* const to = sums.of + (pixel * D + unsigned(owner.part * (D / 4)) + to_corner(z, D, inside, c));
#pragma unroll
    for (int i = 0; i < D / 8; i += 2) {
      unsigned both[2][2];  // of both units of the lane that has the point, since it cannot know which is asked for
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        both[half][0] = __shfl_sync(ALL, gradient[half].of[i], whose.row * 4 + owner.part);
        both[half][1] = __shfl_sync(ALL, gradient[half].of[i + 1], whose.row * 4 + owner.part);
      }
      const unsigned low = whose.in_first(j) ? both[0][0] : both[1][0], high = whose.in_first(j) ? both[0][1] : both[1][1];
      if (counts && inside >> c & 1u)
        add(to + 2 * i, Channels<float>{{first_of(low, T{}), second_of(low, T{}), first_of(high, T{}), second_of(high, T{})}}, mine);
    }
  }
}

// Leaves point k of a unit for `sort`; what is in no bin, in one behind all others.
template <typename T>
__device__ __forceinline__ void note(Memory<T>& memory, int k, int local, int bin, Unsorted point) {
  point.place = unsigned(bin) * BIN + atomicAdd(&memory.begin[bin + 1], 1u);
  memory.unsorted[local][k] = point;
}

template <typename T>
__device__ __forceinline__ void leave_out(Memory<T>& memory, int row, int lane) {  // notes of units that have nothing to sort
#pragma unroll 1
  for (int i = lane; i < POINTS * SIDE; i += 32) note(memory, i / SIDE, row * SIDE + i % SIDE, BINS, Unsorted{});
}

template <typename T, int D>
__device__ __forceinline__ void multiply(const Problem<float>& z, const Tile& tile, const Row& row, int lane, Memory<T>& memory,
                                         unsigned (*words)[SIDE + 4], const T* grad_output, const T* value, const T* offset,
                                         const T* mask, const Sheet<float>& sums, T* grad_offset, T* grad_mask) {
  const Owner owner(lane);
  unsigned unit[2], point[3];  // point: of a lane's first one of each unit, which the second follows, and of its centre
  Quarter<D> gradient[2];
  Point<float> start[2], at[OWN_POINTS];
  float weight[OWN_POINTS];
  Point<float> move[OWN_POINTS];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const Place place{tile.n, tile.p + row.number, tile.q + row.present(owner.row + 8 * i), tile.g};
    unit[i] = unsigned(((place.n * z.P + place.p) * z.Q + place.q) * z.G + place.g);
    gradient[i] = load_quarter<D>(grad_output + (unit[i] * D + unsigned(owner.part * (D / 4))));
    start[i] = start_of(z, place);
  }
#pragma unroll
  for (int j = 0; j < OWN_POINTS; ++j) {
    if (j % 2 == 0) point[j / 2] = owner.of_unit(j, unit) * POINTS + unsigned(owner.number(j));
    move[j] = load_offset(offset + 2 * point[j / 2] + 2 * (j % 2));
    weight[j] = read((mask + point[j / 2])[j % 2]);
  }
  weigh(z, owner, weight);
  bool interior = true;
#pragma unroll
  for (int j = 0; j < OWN_POINTS; ++j) {
    const int k = owner.number(j), column = k * 11 >> 5;  // k / 3
    at[j] = location(z, owner.of_unit(j, start), column, k - 3 * column, move[j].x, move[j].y);
    interior &= is_interior(z, at[j]);
  }
  Spots spots;
  Products products;
  if (__all_sync(ALL, interior)) {
    look_and_multiply<true, T, D>(z, tile, owner, at, words, gradient, value, spots, products);
  } else {
    look_and_multiply<false, T, D>(z, tile, owner, at, words, gradient, value, spots, products);
  }

  PointGradient<float> found[OWN_POINTS];
  float part[OWN_POINTS];
#pragma unroll
  for (int j = 0; j < OWN_POINTS; ++j) {
    found[j] = point_gradient(products[j], spots.across[j], spots.down[j]);
    part[j] = weight[j] * found[j].weight;
  }
  const float along[] = {over_points(owner, part, 0, sum_of), over_points(owner, part, 1, sum_of)};
  if (!__all_sync(ALL, along[0] * 0.0f + along[1] * 0.0f == 0.0f)) {  // some number is not finite, which tensor cores spread
    memory.finite = false;
    for (int i = 0; !FULL && i < (row.count < SIDE ? row.count : SIDE); ++i)
      backward_of_unit<T, float>(z, tile.unit(z, row.number * SIDE + i), lane, grad_output, value, offset, mask, nullptr,
                                 sums, grad_offset, grad_mask);
    if (!FULL) leave_out(memory, row.number, lane);
    return;
  }
#pragma unroll
  for (int j = 0; j < OWN_POINTS; ++j) {
    const float factor = weight[j] * z.scale, bottom = spots.down[j] * weight[j];
    const bool counts = owner.owns(j) && row.has(owner.unit(j)), far = counts && spots.bin[j] == BINS;
    if (counts) {
      Pair<T> moved;
      write(moved.x, factor * found[j].x);
      write(moved.y, factor * found[j].y);
      (reinterpret_cast<Pair<T>*>(grad_offset) + point[j / 2])[j % 2] = moved;
      write((grad_mask + point[j / 2])[j % 2],
            FULL || z.logits ? logit_gradient(weight[j], found[j].weight, owner.of_unit(j, along)) : found[j].weight);
    }
    if (owner.owns(j))
      note(memory, owner.number(j), row.number * SIDE + owner.unit(j), counts ? spots.bin[j] : BINS,
           {spots.x[j], weight[j] - bottom, bottom});
    if (!FULL && !__all_sync(ALL, !far))
      add_far<T, D>(z, owner, j, far, words, spots.across[j], spots.down[j], weight[j], gradient, tile.first(z, D), sums);
  }
  __syncwarp();  // the words have been read
}

// ---- sort ----------------------------------------------------------------------------------------------------------------

// From how many points a bin has to the place of its first; those in none come behind all others. By one warp, a lane a row.
template <typename T>
__device__ __forceinline__ void place_bins(int lane, Memory<T>& memory) {
  unsigned* const mine = memory.begin + 1 + lane * ROW_BINS;
  unsigned total = 0u;
#pragma unroll
  for (int i = 0; i < ROW_BINS; ++i) total += lane < ROWS ? mine[i] : 0u;
  unsigned place = total;
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    const unsigned theirs = __shfl_up_sync(ALL, place, step);
    place += lane >= step ? theirs : 0u;
  }
  if (lane == 31) memory.begin[BINS + 1] = memory.begin[BINS + 2] = place;
  place -= total;
#pragma unroll
  for (int i = 0; i < ROW_BINS; ++i) {
    if (lane >= ROWS) continue;
    const unsigned count = mine[i];
    mine[i] = place;
    place += count;
  }
}

// A number that fits into 16 bits, with a unit above it.
__device__ __forceinline__ unsigned with_unit(unsigned unit, float number, BFloat16) { return as_bits(number) >> 16 | unit << 16; }
__device__ __forceinline__ unsigned with_unit(unsigned unit, float number, Half) { return two(0.0f, number, Half{}) | unit << 16; }

// The words that tensor cores hand out: the numbers' first halves and what is left of them.
template <typename T>
__device__ __forceinline__ Sorted split(const Unsorted& point, unsigned unit) {
  const float x = first_half(point.x, T{}), rest = point.x - x, more = first_half(rest, T{});
  const float top = first_half(point.top, T{}), bottom = first_half(point.bottom, T{});
  return {{two(more, x, T{}), with_unit(unit, rest - more, T{}), two(point.top - top, top, T{}),
           two(point.bottom - bottom, bottom, T{})}};
}

template <typename T>
__device__ __forceinline__ unsigned begin_of(const Memory<T>& memory, unsigned place) {
  return *reinterpret_cast<const unsigned*>(reinterpret_cast<const char*>(memory.begin + 1) + (place >> 16));
}

template <typename T>
__device__ __forceinline__ void sort(Memory<T>& memory) {
  constexpr int EACH = POINTS * TILE / THREADS;
  Unsorted mine[EACH];
#pragma unroll
  for (int i = 0; i < EACH; ++i) mine[i] = memory.unsorted[i / POINTS * THREADS + threadIdx.x][i % POINTS];
  __syncthreads();
#pragma unroll
  for (int i = 0; i < EACH; ++i) {
    const unsigned place = begin_of(memory, mine[i].place) + mine[i].place % (1u << 16);
    memory.sorted[place] = split<T>(mine[i], unsigned(i / POINTS * THREADS) + threadIdx.x);
  }
  // A step may reach beyond the last point; what it reads there counts for nothing, but its units must be some.
  if (threadIdx.x < STEP) memory.sorted[POINTS * TILE + threadIdx.x] = Sorted{};
}

// grad_output of the tile's units, channels 16 `half` and on; zeros where they are not finite: those units have only far
// points.
template <typename T, int D>
__device__ __forceinline__ void stage_gradients(const Problem<float>& z, const Tile& tile, int half, const T* grad_output,
                                                Memory<T>& memory) {
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int local = i * THREADS + threadIdx.x;
    uint4 words[2] = {};
    if (FULL || tile.has(z, local)) {
      const uint4* const from = reinterpret_cast<const uint4*>(grad_output + tile.unit(z, local) * D + 16 * half);
      words[0] = from[0], words[1] = from[1];
    }
    unsigned all[] = {words[0].x, words[0].y, words[0].z, words[0].w, words[1].x, words[1].y, words[1].z, words[1].w};
#pragma unroll
    for (int word = 0; word < 8; ++word)
      if (!FULL && !memory.finite && !(first_of(all[word], T{}) * 0.0f + second_of(all[word], T{}) * 0.0f == 0.0f)) all[word] = 0u;
    memory.gradients[0][local] = uint4{all[0], all[2], all[4], all[6]};
    memory.gradients[1][local] = uint4{all[1], all[3], all[5], all[7]};
  }
}

// ---- add up --------------------------------------------------------------------------------------------------------------

// What a lane's pixel takes of a word of points: of rows 0 to 7, all of x, less its column; of the others, one of the weights.
struct Picks {
  unsigned top, bottom;
  Product column;
};

// The shares of a lane's pixel, of two words of eight points, in two halves; `word`: of point `row` of the eight. The product
// has, in rows 0 to 7, how far two points are from the pixel, which is at `column`, and in the others their weights for it, as
// picked.
template <typename T>
__device__ __forceinline__ void share_out(const Picks& picks, unsigned word, unsigned& high, unsigned& low) {
  const Product found = multiplied(picks.top, picks.bottom, word, picks.column, T{});
  float share[2], first[2];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    share[i] = __saturatef(1.0f - fabsf(found.of[i])) * found.of[2 + i];
    first[i] = first_half(share[i], T{});
  }
  high = two(first[1], first[0], T{});
  low = two(share[1] - first[1], share[0] - first[0], T{});
}

// sums += what sixteen points from byte `from` of the sorted ones on give, if ASK only those before byte `end`: rows 0 to 7 by
// the first halves of the shares, the others by the rest.
template <bool ASK, typename T>
__device__ __forceinline__ void step(const Memory<T>& memory, const Owner& owner, const Picks& picks, const uint4* gradients,
                                     int from, int end, int lane, float (&sums)[2][4]) {
  const char* const points = reinterpret_cast<const char*>(memory.sorted) + from;
  Matrices shares;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int point = (owner.row + 8 * i) * SIZE;
    const bool counts = !ASK || from < end - point;
    const unsigned word = counts ? *reinterpret_cast<const unsigned*>(points + (point + 4 * owner.part)) : 0u;
    share_out<T>(picks, word, shares.of[2 * i], shares.of[2 * i + 1]);
  }
  const unsigned unit = *reinterpret_cast<const unsigned short*>(points + (lane % STEP * SIZE + UNIT));
  const Matrices b = load_matrices<true>(gradients + unit);
#pragma unroll
  for (int i = 0; i < 2; ++i) multiply_add(sums[i], shares, b.of[2 * i], b.of[2 * i + 1], T{});
}

// What the points of a strip's cells in some rows, a bit each, give to their pixels, channels 16 `half` and on. Lanes of rows 0
// to 3 have the four pixels of a row, the others those below. A lane knows where the points of one row begin and end. ASK which
// points are of the row, and which pixels are in the image.
template <bool ASK, typename T, int D>
__device__ __forceinline__ void add_rows(const Problem<float>& z, const Tile& tile, unsigned rows, int begin, int end, int strip,
                                         int half, int lane, const Memory<T>& memory, float* sums) {
  const Owner owner(lane);
  const int column = STRIP * strip + owner.row % STRIP, x = tile.left + column, y = tile.top + owner.row / STRIP;
  const unsigned one = two(1.0f, 1.0f, T{});
  // The column by a product, too: its four numbers would be moved together at each step, were they known.
  const Product negative = multiplied(owner.part == 0 ? two(0.0f, float(-column), T{}) : 0u, 0u, one, Product{}, T{});
  const Picks picks{owner.part == 0 ? one : owner.part == 1 ? two(0.0f, 1.0f, T{}) : 0u,
                    owner.part == 2 + owner.row / STRIP ? one : 0u, negative};
  const uint4* const gradients = memory.gradients[lane / STEP];
  const int line = z.W * D;
  float* const to = given(sums + ((y * z.W + x) * D + 16 * half + 4 * owner.part));
#pragma unroll 1
  for (; rows; rows &= rows - 1u) {
    const int row = __ffs(int(rows)) - 1, last = __shfl_sync(ALL, end, row);
    int from = __shfl_sync(ALL, begin, row);
    float of[2][4] = {};  // sums of two channels each
#pragma unroll 1
    do step<ASK>(memory, owner, picks, gradients, from, last, lane, of);
    while ((from += STEP * SIZE) < last);
    const Channels<float> four{{of[0][0] + of[0][2], of[0][1] + of[0][3], of[1][0] + of[1][2], of[1][1] + of[1][3]}};
    if (!ASK || ((unsigned(x) < unsigned(z.W)) & (unsigned(y + row) < unsigned(z.H)))) add(to + row * line, four, 1.0f);
  }
}

// A strip. Its points in a row are followed by those of later strips, then by those of the next row's first ones: all too far
// across to have a share here. Only where few of them lie before the next row's points of this strip, a step can reach these.
template <typename T, int D>
__device__ __forceinline__ void add_up(const Problem<float>& z, const Tile& tile, int strip, int half, int lane,
                                       const Memory<T>& memory, float* sums) {
  // The bins of a strip begin with the last of the strip before. Those of a first strip begin in the row before, and those of a
  // last strip end in the next row: points without a share, as well.
  const bool is_row = lane < ROWS;
  const unsigned* const bins = memory.begin + (is_row ? lane * ROW_BINS + 2 * strip : BINS + 1);
  const int begin = int(bins[0]) * SIZE, end = is_row ? int(bins[3]) * SIZE : begin, next = __shfl_down_sync(ALL, begin, 1);
  const int x = tile.left + STRIP * strip, y = tile.top + lane;
  const bool inside = (x >= 0) & (x + STRIP <= z.W) & (y >= 0) & (y + 1 < z.H);
  const unsigned rows = __ballot_sync(ALL, begin < end);
  const unsigned plain = rows & __ballot_sync(ALL, inside & (next - end >= (STEP - 1) * SIZE));
  add_rows<false, T, D>(z, tile, plain, begin, end, strip, half, lane, memory, sums);
  add_rows<true, T, D>(z, tile, rows & ~plain, begin, end, strip, half, lane, memory, sums);
}

// ---- all of it -----------------------------------------------------------------------------------------------------------

template <typename T, int D>
__device__ __forceinline__ void by_products(const Problem<float>& z, const Tile& tile, const Sheet<float>& sums,
                                            const T* grad_output, const T* value, const T* offset, const T* mask,
                                            T* grad_offset, T* grad_mask) {
  __shared__ Memory<T> memory;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
  for (int i = 0; i < BINS + 3; i += THREADS)
    if (i + int(threadIdx.x) < BINS + 3) memory.begin[i + threadIdx.x] = 0u;
  if (threadIdx.x == 0) memory.finite = true;
  __syncthreads();
#pragma unroll 1
  for (int i = warp; i < SIDE; i += WARPS) {
    const Row row(z, tile, i);
    if (FULL || row.count > 0) {
      multiply<T, D>(z, tile, row, lane, memory, memory.words[warp], grad_output, value, offset, mask, sums, grad_offset, grad_mask);
    } else {
      leave_out(memory, i, lane);
    }
  }
  __syncthreads();
  if (warp == 0) place_bins(lane, memory);
  __syncthreads();
  sort(memory);
#pragma unroll 1
  for (int half = 0; half < D / 16; ++half) {
    if (half > 0) __syncthreads();
    stage_gradients<T, D>(z, tile, half, grad_output, memory);
    __syncthreads();
    // Each warp a strip in the middle, where most points lie, and one at a side.
#pragma unroll 1
    for (int side = 0; side < 2; ++side)
      add_up<T, D>(z, tile, side ? warp % 2 + warp / 2 * 6 : 2 + warp, half, lane, memory, sums.of);
  }
}

// On a GPU before sm_80 it is `backward_by_lists`.
template <typename T, int D>
__global__ void __launch_bounds__(THREADS, D == 16 ? BACKWARD_BLOCKS : 2)
    backward_by_products(Problem<float> z, Ring ring, const T* __restrict__ grad_output, const T* __restrict__ value,
                         const T* __restrict__ offset, const T* __restrict__ mask, T* __restrict__ grad_value,
                         T* __restrict__ grad_offset, T* __restrict__ grad_mask) {
  in_sheets<T, D>(z, ring, grad_value, [&](const Tile& tile, const Sheet<float>& sums) {
    if constexpr (TENSOR_CORES) {
      by_products<T, D>(z, tile, sums, grad_output, value, offset, mask, grad_offset, grad_mask);
    } else {
      by_lists<T, D>(z, tile, sums, grad_output, value, offset, mask, grad_offset, grad_mask);
    }
  });
}

// The same without tensor cores.
template <typename T, int D>
__global__ void __launch_bounds__(THREADS, BACKWARD_BLOCKS)
    backward_by_lists(Problem<float> z, Ring ring, const T* __restrict__ grad_output, const T* __restrict__ value,
                      const T* __restrict__ offset, const T* __restrict__ mask, T* __restrict__ grad_value,
                      T* __restrict__ grad_offset, T* __restrict__ grad_mask) {
  in_sheets<T, D>(z, ring, grad_value, [&](const Tile& tile, const Sheet<float>& sums) {
    by_lists<T, D>(z, tile, sums, grad_output, value, offset, mask, grad_offset, grad_mask);
  });
}

}  // namespace dcnv3
