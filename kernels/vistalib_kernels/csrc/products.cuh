// The backward in tiles by tensor cores: windows of 3x3 at stride 1, 16 or 32 channels a group, in float16 and bfloat16.
//
// Why. The backward is two products of matrices that are mostly zeros: values at the corners with grad_output, and the weights of
// the corners with grad_output. Tensor cores are so fast that zeros cost nothing; what costs is to make their operands, and both
// are made here with few instructions, for offsets of any size.
//
// Values at the corners. The columns are one corner of the eight points around a unit's centre, the rows sixteen units, and of
// grad_output all rows but the unit's own are zero: sixteen units, one product each, fill a sum with numbers that are all wanted.
// A lane finds those of its own points in its registers, and reads from memory what tensor cores want from it.
//
// Sums of the pixels. The points of a tile are sorted by rows of cells and strips of eight, and taken sixteen at a time: the shares
// of eight pixels of a row and of the eight below, times grad_output of the points' units. A share is a tent around its point, zero
// at pixels that are not corners of it. Each lane needs four of the sixteen points, and gets them by a product, too: shared memory
// is read once, not by eight lanes. 16 bits are too few for a share: it is two numbers, what 16 bits hold of it and the rest.
//
// Who owns what. A block owns the tile and the window of tiles.cuh. A warp owns a row of the tile, sixteen units; a lane of it two
// points of two units, and two centres. A point outside the window is far, and so is one of which something is not finite (zero
// times infinity would spread): their corners are added to memory one by one.
//
// Phases of a block: multiply, a warp a row of units, which leaves a note of each point; give each bin its place; sort; add up, a
// warp a piece of a strip, downwards: what a row gives to the pixels below is carried into the next.
#pragma once

#include "tensor.cuh"
#include "tiles.cuh"

namespace dcnv3 {

constexpr int STRIP = 8, STRIPS = COLUMNS / STRIP;
constexpr int ROW_BINS = 2 * STRIPS;  // two a strip: cells 0 to 6, and cell 7, whose right pixels the next strip has
constexpr int BINS = ROWS * ROW_BINS;
constexpr int STEP = 16;              // points of a product
constexpr int OWN_POINTS = 6;         // of a lane: two of each unit, and its centre
constexpr int PITCH = TILE + 2;       // of notes: those that a warp writes at once are in different banks
static_assert(SIDE == 16 && STRIPS == 4 && WARPS == 4 && BINS % 32 == 0 && TILE == 2 * THREADS && POINTS * TILE <= 4096);

// A point before it is sorted: its bin and how many came before it there, or NONE_OF_ALL.
struct alignas(16) Unsorted {
  float x, top, bottom;  // from the window's left; its weights for the upper and for the lower pixels
  unsigned place;
};
constexpr unsigned NONE_OF_ALL = 0xffffffffu;

// A point as tensor cores hand it out, two numbers of 16 bits a word: x in three, its unit, and the two weights in two each.
struct alignas(16) Sorted {
  unsigned of[4];
};

template <typename T>
struct Memory {
  union {
    Unsorted unsorted[POINTS * PITCH];
    Sorted sorted[POINTS * TILE + STEP];
  };
  union {
    alignas(16) unsigned position[WARPS][POINTS - 1][SIDE + 4];  // of a warp's points: see multiply_row
    alignas(16) uint4 gradients[2][TILE];  // of 16 channels: word i of plane j is word 2 i + j of the unit's
  };
  unsigned begin[BINS + 2];  // of bin i, and the end of the last: begin[i + 1]; before, how many points it has
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

// A lane's points: 0 and 1 of unit(0), 2 and 3 of unit(1), and the centres of these, which four lanes have and one owns.
struct Owner {
  int row, part;  // of the lane, in a matrix

  __device__ __forceinline__ explicit Owner(int lane) : row(lane / 4), part(lane % 4) {}
  __device__ __forceinline__ int unit(int i) const { return row + 8 * i; }
  __device__ __forceinline__ int number(int j) const { return j < 4 ? 2 * part + (part >= 2 ? 1 : 0) + j % 2 : POINTS / 2; }
  __device__ __forceinline__ bool owns(int j) const { return j < 4 || part == row / 2; }
  static __device__ __forceinline__ int which(int j) { return j < 4 ? j / 2 : j - 4; }  // of its two units
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

// The two numbers of a word.
__device__ __forceinline__ float first_of(unsigned word, BFloat16) { return as_float(word << 16); }
__device__ __forceinline__ float second_of(unsigned word, BFloat16) { return as_float(word & 0xffff0000u); }
__device__ __forceinline__ float first_of(unsigned word, Half) { return read(Half{(unsigned short)(word & 0xffffu)}); }
__device__ __forceinline__ float second_of(unsigned word, Half) { return read(Half{(unsigned short)(word >> 16)}); }

// A point: where its cell's first pixel inside lies in value, and the corners inside.
struct Spot {
  unsigned position, inside;
  float across, down, x;  // x: from the window's left
  int bin;                // -1: in none
};

template <int D>
__device__ __forceinline__ Spot spot_of(const Problem<float>& z, const Tile& tile, Point<float> at) {
  const Cell<float> cell = cell_of(z, at);
  const int pixel = (tile.n * z.H + (cell.y < 0 ? 0 : cell.y)) * z.W + (cell.x < 0 ? 0 : cell.x);
  const int x = cell.x - tile.left, y = cell.y - tile.top;
  const bool near = (cell.inside != 0u) & (unsigned(x) < COLUMNS - 1) & (unsigned(y) < ROWS);
  return {unsigned((pixel * z.G + tile.g) * D), cell.inside, cell.across, cell.down, at.x - float(tile.left),
          near ? y * ROW_BINS + x / STRIP + (x + 1) / STRIP : -1};
}

// From a cell's first pixel inside to its corner c, in a tensor like value; to some pixel inside for a corner outside.
__device__ __forceinline__ unsigned to_corner(const Problem<float>& z, int D, unsigned inside, int c) {
  const unsigned C = unsigned(z.G * D);
  const unsigned right = inside & inside >> 1 & 5u ? C : 0u, below = inside & inside >> 2 & 3u ? unsigned(z.W) * C : 0u;
  return (c % 2 ? right : 0u) + (c / 2 ? below : 0u);
}

// Four quarters: of the corners of a cell whose quarter of the first pixel lies at `position`.
template <bool INTERIOR, typename T, int D>
__device__ __forceinline__ void load_cell(const Problem<float>& z, const Pixels<const T, true>& pixels, const T* value,
                                          unsigned position, unsigned inside, Quarter<D> (&corners)[4]) {
#pragma unroll
  for (int c = 0; c < 4; ++c)
    corners[c] = load_quarter<D>(INTERIOR ? pixels.at(int(position), c) : value + (position + to_corner(z, D, inside, c)));
}

using Products = Corners<float>[OWN_POINTS];  // of a lane's points with grad_output; zero for a corner outside

// `positions`: of point i of unit j, beside the centre, in row i; the corners inside in its last four bits.
template <bool INTERIOR, typename T, int D>
__device__ __forceinline__ void multiply_row(const Problem<float>& z, const Owner& owner, const unsigned (*positions)[SIDE + 4],
                                             const Spot (&spot)[OWN_POINTS], const Quarter<D> (&gradient)[2], const T* value,
                                             Products& products) {
  const Pixels<const T, true> pixels(value, z.W, z.G * D);
  const unsigned channel = unsigned(owner.part * (D / 4));
  float sums[4][4] = {}, sums_of_centres[4][4] = {};
  const auto multiply = [&](float (&sums)[4][4], unsigned position, unsigned inside, int half, unsigned mask) {
    Quarter<D> corners[4];
    load_cell<INTERIOR, T, D>(z, pixels, value, position, inside, corners);
#pragma unroll
    for (int i = 0; i < D / 8; i += 2) {
      const unsigned low = gradient[half].of[i] & mask, high = gradient[half].of[i + 1] & mask;
      const Matrices units = half == 0 ? Matrices{{low, 0u, high, 0u}} : Matrices{{0u, low, 0u, high}};
#pragma unroll
      for (int c = 0; c < 4; ++c) multiply_add(sums[c], units, corners[c].of[i], corners[c].of[i + 1], T{});
    }
  };
#pragma unroll
  for (int unit = 0; unit < SIDE; unit += 4) {
    const uint4 four = *reinterpret_cast<const uint4*>(&positions[owner.row][unit]);
    const unsigned words[] = {four.x, four.y, four.z, four.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const unsigned mask = owner.row == (unit + i) % 8 ? 0xffffffffu : 0u;
      multiply(sums, INTERIOR ? words[i] + (channel - 15u) : (words[i] & ~15u) + channel, words[i] & 15u, unit / 8, mask);
    }
  }
#pragma unroll
  for (int i = 0; i < 2; ++i) multiply(sums_of_centres, spot[4 + i].position + channel, spot[4 + i].inside, i, 0xffffffffu);
  const bool odd = owner.row % 2 == 1;
#pragma unroll
  for (int c = 0; c < 4; ++c) {
#pragma unroll
    for (int j = 0; j < OWN_POINTS; ++j) {
      const float* const centres = sums_of_centres[c] + (j < 4 ? 0 : 2 * (j - 4));
      const float found = j < 4 ? sums[c][j] : odd ? centres[1] : centres[0];
      products[j].of[c] = INTERIOR || spot[j].inside >> c & 1u ? found : 0.0f;
    }
  }
}

// The same where a number is not finite, which tensor cores would spread: a lane multiplies for its own points.
template <typename T, int D>
__device__ __forceinline__ void multiply_alone(const Problem<float>& z, const Spot (&spot)[OWN_POINTS], const T* const (&gradient)[2],
                                               const T* value, Products& products) {
#pragma unroll
  for (int j = 0; j < OWN_POINTS; ++j) {
    for (int c = 0; c < 4; ++c) {
      const bool has = spot[j].inside >> c & 1u;
      const T* const from = value + (spot[j].position + to_corner(z, D, spot[j].inside, c));
      float sum = 0.0f;
#pragma unroll 1
      for (int i = 0; i < D; ++i) sum += read(gradient[Owner::which(j)][i]) * (has ? read(from[i]) : 0.0f);
      products[j].of[c] = sum;
    }
  }
}

// The sum, or the largest, over the points of each of a lane's units.
template <typename F>
__device__ __forceinline__ float over_points(const float (&of)[OWN_POINTS], int i, F together) {
  float both = together(of[2 * i], of[2 * i + 1]);
  both = together(both, __shfl_xor_sync(ALL, both, 1));
  both = together(both, __shfl_xor_sync(ALL, both, 2));
  return together(both, of[4 + i]);
}
__device__ __forceinline__ float sum_of(float a, float b) { return a + b; }

// From a lane's masks to the weights of its points: as they are, or the softmax over the points of each unit.
__device__ __forceinline__ void weigh(const Problem<float>& z, float (&weight)[OWN_POINTS]) {
  if (!(FULL || z.logits)) return;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const float most = over_points(weight, i, [](float a, float b) { return larger(a, b); });
#pragma unroll
    for (int j = 0; j < OWN_POINTS; ++j)
      if (Owner::which(j) == i) weight[j] = power(weight[j] - most);
    const float share = reciprocal(over_points(weight, i, sum_of));
#pragma unroll
    for (int j = 0; j < OWN_POINTS; ++j)
      if (Owner::which(j) == i) weight[j] *= share;
  }
}

// The corners of the points of lanes that raise `far`, added to memory.
template <typename T, int D>
__device__ __forceinline__ void add_far(const Problem<float>& z, const Owner& owner, bool far, const Spot& spot, float weight,
                                        const Quarter<D>& gradient, float* grad_value) {
  const int c = owner.row % 4;
#pragma unroll 1
  for (unsigned left = __ballot_sync(ALL, far); left; left &= left - 1u) {
    const int from = __ffs(int(left)) - 1;
    const Corners<float> share =
        shares(__shfl_sync(ALL, spot.across, from), __shfl_sync(ALL, spot.down, from), __shfl_sync(ALL, weight, from));
    const unsigned inside = __shfl_sync(ALL, spot.inside, from), position = __shfl_sync(ALL, spot.position, from);
    const float mine = c == 0 ? share.of[0] : c == 1 ? share.of[1] : c == 2 ? share.of[2] : share.of[3];
    float* const to = grad_value + (position + unsigned(owner.part * (D / 4)) + to_corner(z, D, inside, c));
#pragma unroll
    for (int i = 0; i < D / 8; i += 2) {
      const unsigned low = __shfl_sync(ALL, gradient.of[i], from / 4 * 4 + owner.part);
      const unsigned high = __shfl_sync(ALL, gradient.of[i + 1], from / 4 * 4 + owner.part);
      if (owner.row < 4 && inside >> c & 1u)
        add(to + 2 * i, Channels<float>{{first_of(low, T{}), second_of(low, T{}), first_of(high, T{}), second_of(high, T{})}}, mine);
    }
  }
}

template <typename T, int D>
__device__ __forceinline__ void multiply(const Problem<float>& z, const Tile& tile, const Row& row, int lane, Memory<T>& memory,
                                         unsigned (*positions)[SIDE + 4], const T* grad_output, const T* value, const T* offset,
                                         const T* mask, float* grad_value, T* grad_offset, T* grad_mask) {
  const Owner owner(lane);
  unsigned unit[2], point[OWN_POINTS];
  Quarter<D> gradient[2];
  float weight[OWN_POINTS];
  Pair<T> move[OWN_POINTS];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    unit[i] = unsigned(((tile.n * z.P + tile.p + row.number) * z.Q + tile.q + row.present(owner.unit(i))) * z.G + tile.g);
    gradient[i] = load_quarter<D>(grad_output + (unit[i] * D + unsigned(owner.part * (D / 4))));
  }
#pragma unroll
  for (int j = 0; j < OWN_POINTS; ++j) {
    point[j] = unit[Owner::which(j)] * POINTS + unsigned(owner.number(j));
    move[j] = reinterpret_cast<const Pair<T>*>(offset)[point[j]];
    weight[j] = read(mask[point[j]]);
  }
  weigh(z, weight);

  Spot spot[OWN_POINTS];
  bool interior = true;
#pragma unroll
  for (int j = 0; j < OWN_POINTS; ++j) {
    const Point<float> start =
        start_of(z, Place{tile.n, tile.p + row.number, tile.q + row.present(owner.unit(Owner::which(j))), tile.g});
    const int k = owner.number(j), column = k * 11 >> 5;  // k / 3
    spot[j] = spot_of<D>(z, tile, location(z, start, column, k - 3 * column, read(move[j].x), read(move[j].y)));
    interior &= spot[j].inside == 15u;
    if (j < 4) positions[2 * owner.part + j % 2][owner.unit(j / 2)] = spot[j].position | spot[j].inside;
  }
  __syncwarp();
  Products products;
  if (FULL || __all_sync(ALL, interior)) {
    multiply_row<true, T, D>(z, owner, positions, spot, gradient, value, products);
  } else {
    multiply_row<false, T, D>(z, owner, positions, spot, gradient, value, products);
  }
  __syncwarp();

  // Nothing is the product with zeros: NaN where a number is not finite.
  float nothing = 0.0f, nothing_of[2] = {};
#pragma unroll
  for (int j = 0; j < OWN_POINTS; ++j) {
#pragma unroll
    for (int c = 0; c < 4; ++c) nothing += products[j].of[c] * 0.0f;
  }
#pragma unroll
  for (int i = 0; i < 2; ++i) {
#pragma unroll
    for (int word = 0; word < D / 8; ++word)
      nothing_of[i] += first_of(gradient[i].of[word], T{}) * 0.0f + second_of(gradient[i].of[word], T{}) * 0.0f;
    nothing += nothing_of[i];
  }
  bool known[2] = {true, true};
  if (!FULL && !__all_sync(ALL, nothing == 0.0f)) {
#pragma unroll
    for (int i = 0; i < 2; ++i) known[i] = (__ballot_sync(ALL, nothing_of[i] == 0.0f) >> 4 * owner.row & 15u) == 15u;
    const T* const gradients[] = {grad_output + unit[0] * D, grad_output + unit[1] * D};
    multiply_alone<T, D>(z, spot, gradients, value, products);
  }

  PointGradient<float> found[OWN_POINTS];
  float part[OWN_POINTS];
#pragma unroll
  for (int j = 0; j < OWN_POINTS; ++j) {
    found[j] = point_gradient(products[j], spot[j].across, spot[j].down);
    part[j] = weight[j] * found[j].weight;
  }
#pragma unroll
  for (int i = 0; i < 2; ++i) part[4 + i] = __shfl_sync(ALL, part[4 + i], owner.row * 4 + owner.row / 2);  // of who owns it
  const float along[2] = {over_points(part, 0, sum_of), over_points(part, 1, sum_of)};
#pragma unroll
  for (int j = 0; j < OWN_POINTS; ++j) {
    const int i = Owner::which(j);
    const bool counts = owner.owns(j) && row.has(owner.unit(i));
    const bool placed = spot[j].bin >= 0 && known[i] && weight[j] * 0.0f == 0.0f;
    if (counts) {
      const float factor = weight[j] * z.scale, bottom = spot[j].down * weight[j];
      Pair<T> moved;
      write(moved.x, factor * found[j].x);
      write(moved.y, factor * found[j].y);
      reinterpret_cast<Pair<T>*>(grad_offset)[point[j]] = moved;
      write(grad_mask[point[j]], FULL || z.logits ? logit_gradient(weight[j], found[j].weight, along[i]) : found[j].weight);
      const unsigned before = placed ? atomicAdd(&memory.begin[spot[j].bin + 1], 1u) : 0u;
      memory.unsorted[owner.number(j) * PITCH + row.number * SIDE + owner.unit(i)] = {
          spot[j].x, weight[j] - bottom, bottom, placed ? unsigned(spot[j].bin) << 16 | before : NONE_OF_ALL};
    }
    const bool far = counts && spot[j].inside != 0u && !placed;
    if (!FULL && !__all_sync(ALL, !far)) add_far<T, D>(z, owner, far, spot[j], weight[j], gradient[i], grad_value);
  }
}

// ---- sort ----------------------------------------------------------------------------------------------------------------

// From how many points a bin has to the place of its first. By one warp.
template <typename T>
__device__ __forceinline__ void place_bins(int lane, Memory<T>& memory) {
  constexpr int EACH = BINS / 32;
  unsigned* const mine = memory.begin + 1 + lane * EACH;
  unsigned counts[EACH], total = 0u;
#pragma unroll
  for (int i = 0; i < EACH; ++i) total += counts[i] = mine[i];
  unsigned place = total;
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    const unsigned theirs = __shfl_up_sync(ALL, place, step);
    place += lane >= step ? theirs : 0u;
  }
  if (lane == 31) memory.begin[BINS + 1] = place;
  place -= total;
#pragma unroll
  for (int i = 0; i < EACH; ++i) {
    mine[i] = place;
    place += counts[i];
  }
}

// The words that tensor cores hand out: the numbers' first halves and what is left of them.
template <typename T>
__device__ __forceinline__ Sorted split(const Unsorted& point, int unit) {
  const float x = first_half(point.x, T{}), rest = point.x - x, more = first_half(rest, T{});
  const float top = first_half(point.top, T{}), bottom = first_half(point.bottom, T{});
  return {{two(more, x, T{}), two(0.0f, rest - more, T{}) | unsigned(unit) << 16, two(point.top - top, top, T{}),
           two(point.bottom - bottom, bottom, T{})}};
}

template <typename T>
__device__ __forceinline__ void sort(const Problem<float>& z, const Tile& tile, Memory<T>& memory) {
  constexpr int EACH = POINTS * TILE / THREADS;
  Unsorted mine[EACH];
#pragma unroll
  for (int i = 0; i < EACH; ++i) {
    const int local = i % 2 * THREADS + threadIdx.x;
    mine[i].place = NONE_OF_ALL;
    if (FULL || tile.has(z, local)) mine[i] = memory.unsorted[i / 2 * PITCH + local];
  }
  __syncthreads();
#pragma unroll
  for (int i = 0; i < EACH; ++i)
    if (mine[i].place != NONE_OF_ALL)
      memory.sorted[memory.begin[(mine[i].place >> 16) + 1] + (mine[i].place & 0xffffu)] = split<T>(mine[i], i % 2 * THREADS + threadIdx.x);
  // A step behind the last is read, though it counts for nothing: its units must be some.
  if (threadIdx.x < STEP) memory.sorted[memory.begin[BINS + 1] + threadIdx.x] = Sorted{};
}

// grad_output of the tile's units, channels 16 `half` and on; zeros where they are not finite: those units have only far points.
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
      all[word] = first_of(all[word], T{}) * 0.0f + second_of(all[word], T{}) * 0.0f == 0.0f ? all[word] : 0u;
    memory.gradients[0][local] = uint4{all[0], all[2], all[4], all[6]};
    memory.gradients[1][local] = uint4{all[1], all[3], all[5], all[7]};
  }
}

// ---- add up --------------------------------------------------------------------------------------------------------------

// Of the numbers of a point, those that a lane's row of a product picks: x for rows 0 to 7, its upper weight for the others; and its
// lower weight for rows 0 to 7.
template <typename T>
struct Picks {
  unsigned x, top, bottom;

  __device__ __forceinline__ explicit Picks(int part)
      : x(part == 0 ? two(1.0f, 1.0f, T{}) : part == 1 ? two(0.0f, 1.0f, T{}) : 0u),
        top(part == 2 ? two(1.0f, 1.0f, T{}) : 0u), bottom(part == 3 ? two(1.0f, 1.0f, T{}) : 0u) {}
};

// The shares of the lane's pixel, and of the one below, in sixteen points, as tensor cores want them. `words`: of point `row` of
// the first eight and of the others.
template <typename T>
__device__ __forceinline__ void share_out(float pixel, const Picks<T>& picks, const unsigned (&words)[2], Matrices& high,
                                          Matrices& low) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float upper[4] = {-pixel, -pixel, 0.0f, 0.0f}, lower[4] = {};  // of two points: how far from the pixel, twice; the weights
    multiply_add(upper, picks.x, picks.top, words[half], T{});
    multiply_add(lower, picks.bottom, 0u, words[half], T{});
    float weight[2][2], first[2][2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const float tent = __saturatef(1.0f - fabsf(upper[i]));
      weight[0][i] = tent * upper[2 + i], weight[1][i] = tent * lower[i];
#pragma unroll
      for (int below = 0; below < 2; ++below) first[below][i] = first_half(weight[below][i], T{});
    }
#pragma unroll
    for (int below = 0; below < 2; ++below) {
      high.of[2 * half + below] = two(first[below][1], first[below][0], T{});
      low.of[2 * half + below] = two(weight[below][1] - first[below][1], weight[below][0] - first[below][0], T{});
    }
  }
}

// Rows `first` and on of a strip of the window, half of them; channels 16 `half` and on.
template <typename T, int D>
__device__ __forceinline__ void add_up(const Problem<float>& z, const Tile& tile, int strip, int first, int half, int lane,
                                       const Memory<T>& memory, float* grad_value) {
  const Owner owner(lane);
  const Picks<T> picks(owner.part);
  const int column = strip * STRIP + owner.row, x = tile.left + column, C = z.G * D;
  const bool in_columns = unsigned(x) < unsigned(z.W);
  const unsigned* begin = memory.begin + first * ROW_BINS + 2 * strip;
  int y = tile.top + first, position = ((tile.n * z.H + y) * z.W + x) * C + tile.g * D + 16 * half + 4 * owner.part;
  float sums[2][4] = {};  // of two channels: of the lane's pixel, and of the one below
#pragma unroll 1
  for (int left = ROWS / 2; left >= 0; --left) {  // the row below the last gets what is left
    const unsigned end = left ? begin[3] : 0u;
#pragma unroll 1
    for (unsigned from = left ? begin[0] : 0u; from < end; from += STEP) {
      unsigned words[2];
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const unsigned point = from + 8 * i + owner.row;
        words[i] = point < end ? memory.sorted[point].of[owner.part] : 0u;
      }
      const unsigned unit = memory.sorted[from + lane % STEP].of[1] >> 16;
      Matrices high, low;
      share_out<T>(float(column), picks, words, high, low);
      const Matrices b = load_matrices<true>(&memory.gradients[lane / STEP][unit]);
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        multiply_add(sums[i], high, b.of[2 * i], b.of[2 * i + 1], T{});
        multiply_add(sums[i], low, b.of[2 * i], b.of[2 * i + 1], T{});
      }
    }
    const Channels<float> four{{sums[0][0], sums[0][1], sums[1][0], sums[1][1]}};
    const bool any = (as_bits(four.of[0]) | as_bits(four.of[1]) | as_bits(four.of[2]) | as_bits(four.of[3])) != 0u;
    if (any & in_columns & (unsigned(y) < unsigned(z.H))) add(grad_value + position, four, 1.0f);
#pragma unroll
    for (int i = 0; i < 2; ++i) sums[i][0] = sums[i][2], sums[i][1] = sums[i][3], sums[i][2] = sums[i][3] = 0.0f;
    begin += ROW_BINS, ++y, position += z.W * C;
  }
}

// ---- all of it -----------------------------------------------------------------------------------------------------------

template <typename T, int D>
__device__ __forceinline__ void by_products(const Problem<float>& z, const T* grad_output, const T* value, const T* offset,
                                            const T* mask, float* grad_value, T* grad_offset, T* grad_mask) {
  __shared__ Memory<T> memory;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const Tile tile(z, int(blockIdx.x));
  for (int i = threadIdx.x; i < BINS + 2; i += THREADS) memory.begin[i] = 0u;
  __syncthreads();
#pragma unroll 1
  for (int i = warp; i < SIDE; i += WARPS) {
    const Row row(z, tile, i);
    if (FULL || row.count > 0)
      multiply<T, D>(z, tile, row, lane, memory, memory.position[warp], grad_output, value, offset, mask, grad_value, grad_offset,
                     grad_mask);
  }
  __syncthreads();
  if (warp == 0) place_bins(lane, memory);
  __syncthreads();
  sort(z, tile, memory);
#pragma unroll 1
  for (int half = 0; half < D / 16; ++half) {
    if (half > 0) __syncthreads();
    stage_gradients<T, D>(z, tile, half, grad_output, memory);
    __syncthreads();
    // Each warp half of a strip in the middle, which most points lie in, and the other half of one at the side.
#pragma unroll 1
    for (int side = 0; side < 2; ++side)
      add_up<T, D>(z, tile, side ? warp / 2 * 3 : 1 + warp / 2, (warp + side) % 2 * (ROWS / 2), half, lane, memory, grad_value);
  }
}

template <typename T, int D>
__global__ void __launch_bounds__(THREADS, BACKWARD_BLOCKS)
    backward_in_tiles(Problem<float> z, const T* __restrict__ grad_output, const T* __restrict__ value,
                      const T* __restrict__ offset, const T* __restrict__ mask, float* __restrict__ grad_value,
                      T* __restrict__ grad_offset, T* __restrict__ grad_mask) {
  if constexpr (TENSOR_CORES && sizeof(T) == 2) {
    by_products<T, D>(z, grad_output, value, offset, mask, grad_value, grad_offset, grad_mask);
  } else {
    by_lists<T, D>(z, grad_output, value, offset, mask, grad_value, grad_offset, grad_mask);
  }
}

}  // namespace dcnv3
