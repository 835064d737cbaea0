// The forward by tensor cores: windows of 3x3 at stride 1, offset_scale 1 or 2, 16 channels a group, in float16 and bfloat16.
//
// Why. `forward` reads 36 corners a unit, and turns each of their numbers into a float to multiply it. Where no point leaves
// its place in the stretched window by more than a pixel or two (REACH), the nine points are one dense stencil of SIZE x SIZE
// weights: neighbouring units share the pixels it covers, and their sums are a product of matrices.
//
// The product. Eight units side by side see 16 pixels of a row: (16 channels x pixels) times (pixels x 8 units). 16 bits are
// too few for a weight, so that it is a word of two numbers, what 16 bits hold of it and the rest; each pixel stands twice in
// the product, once for each. The words of eight units and a row are a band: unit x has words x .. x + SIZE - 1, the others are
// zero.
//
// Who owns what. A block owns a tile of 16 x 16 units of one group and a window of the pixels around it, in shared memory, zero
// outside the image. A warp takes 8 x 4 units in a turn, and has two bands of each row of units; a lane owns a unit, its
// softmax and its weights.
//
// Phases of a turn: stage offsets and masks, and see how far they reach; bring the window, once a block, as soon as one of its
// warps can use it; locate and softmax; for each row of the stencil, write its words into a band and multiply; write. Where a
// point went further, or a sum is not finite (zero times infinity would have spread), the warp gathers, as `forward` does. So
// does every warp of a GPU before sm_80.
#pragma once

#include "tensor.cuh"
#include "tiles.cuh"

namespace dcnv3 {

#if defined(DCNV3_COUNT)
constexpr int COUNTED = DCNV3_COUNT;  // the reach whose path is compiled, 3 where all gathers
#else
constexpr int COUNTED = 0;
#endif
constexpr int ACROSS = 8, DOWN = 4, TURN = ACROSS * DOWN;  // units of a turn, one a lane
constexpr int FARTHEST = 2;                                // pixels that a point may leave its place by
constexpr bool MULTIPLIES = TENSOR_CORES && COUNTED <= FARTHEST, GATHERS = !FULL || COUNTED > FARTHEST;
constexpr int WINDOW_BLOCKS = 3;                           // that share a multiprocessor, with 168 registers a thread

// Numbers of a turn's offsets, and of the masks of a row of units, as they are staged. Lanes read the masks of their units by
// words, of which neighbours share one; with some numbers between two rows, they do not meet in a bank.
constexpr int OFFSETS = TURN * 2 * POINTS, MASK_ROW = ACROSS * POINTS + 8;

// Words of a unit in a band, and of a row of units. With some between, neither lanes that write a word of their own units nor
// lanes that read four words of a row's units meet in a bank.
constexpr int WORDS = 16, UNIT_WORDS = WORDS + 4, ROW_WORDS = ACROSS * UNIT_WORDS + 8, BAND = DOWN * ROW_WORDS;

template <typename T, int SCALE>
struct Seen {                                    // by a tile
  static constexpr int HALO = SCALE + FARTHEST;  // pixels around it
  static constexpr int ROWS = SIDE + 2 * HALO;   // of the window, and columns
  static constexpr int COLUMNS = 24;             // that are kept, zeros among them
  static_assert(ROWS <= COLUMNS && ACROSS + 2 * HALO <= WORDS);
  alignas(16) uint4 value[2][ROWS * COLUMNS];  // even channels, odd channels
  alignas(16) unsigned band[WARPS][2][BAND];
  alignas(16) T staged[WARPS][OFFSETS + DOWN * MASK_ROW];
  alignas(WARPS) bool near[TILE / TURN];  // turns that can use the window
};

// ---- weights of twice 16 bits, as a word ---------------------------------------------------------------------------------

template <typename T>
__device__ __forceinline__ unsigned halves(float weight) {
  const float first = first_half(weight, T{});
  return two(first, weight - first, T{});
}

// ---- a turn --------------------------------------------------------------------------------------------------------------

__device__ __forceinline__ int smaller(int a, int b) { return a < b ? a : b; }

// Where a warp works: units (p + i, q + j) of one image and group, i < DOWN, j < ACROSS, as far as there are any.
struct Turn {
  int n, p, q, g;
  int rows, columns;  // that there are, at least one

  __device__ __forceinline__ bool has(int local) const {
    return FULL || ((local / ACROSS < rows) & (local % ACROSS < columns));
  }
  __device__ __forceinline__ int unit(const Problem<float>& z, int local) const {
    return ((n * z.P + p + local / ACROSS) * z.Q + q + local % ACROSS) * z.G + g;
  }
};

// Of two numbers each, the larger ones by size, of any sign. Those that are not numbers are passed over.
template <typename T>
__device__ __forceinline__ unsigned farther(unsigned a, unsigned b, T) {
  unsigned both = 0u;
#pragma unroll
  for (int shift = 0; shift < 32; shift += 16) {
    T number;
    write(number, larger(read(T{(unsigned short)(a >> shift & 0x7fffu)}), read(T{(unsigned short)(b >> shift & 0x7fffu)})));
    both |= unsigned(number.bits) << shift;
  }
  return both;
}
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 860  // by one instruction
__device__ __forceinline__ unsigned farther(unsigned a, unsigned b, BFloat16) {
  asm("max.xorsign.abs.bf16x2 %0, %0, %1;" : "+r"(a) : "r"(b));
  return a;
}
__device__ __forceinline__ unsigned farther(unsigned a, unsigned b, Half) {
  asm("max.xorsign.abs.f16x2 %0, %0, %1;" : "+r"(a) : "r"(b));
  return a;
}
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800  // by two
__device__ __forceinline__ unsigned farther(unsigned a, unsigned b, BFloat16) {
  asm("max.bf16x2 %0, %0, %1;" : "+r"(a) : "r"(b & 0x7fff7fffu));
  return a;
}
__device__ __forceinline__ unsigned farther(unsigned a, unsigned b, Half) {
  asm("max.f16x2 %0, %0, %1;" : "+r"(a) : "r"(b & 0x7fff7fffu));
  return a;
}
#endif

// Offsets and masks of a turn. The numbers of a unit lie side by side, those of the next one G units on: lanes take 32 of the
// turn's 288 points at a time, neighbours, so that a load touches few lines. Who is beyond the last unit brings that one again.
// Returns the largest offset that this lane has seen; points that are not numbers are passed over, and dropped later.
template <typename T>
__device__ __forceinline__ float stage(const Problem<float>& z, const Turn& turn, int lane, const T* offset, const T* mask,
                                       T* staged) {
  constexpr int STEPS = TURN * POINTS / 32, ROW = ACROSS * POINTS;  // points of a row of units
  const int step = z.G * POINTS, first = turn.unit(z, 0) * POINTS + lane;
  const auto local = [&](int i) { return (i * 32 + lane) * 57 >> 9; };  // by POINTS
  const auto row = [&](int i) { return i * 32 / ROW + (lane >= ROW - i * 32 % ROW ? 1 : 0); };  // mostly the same for all lanes
  int from[STEPS];
#pragma unroll
  for (int i = 0; i < STEPS; ++i) from[i] = first + row(i) * ((z.Q - ACROSS) * step) + local(i) * (step - POINTS);
  if (!FULL && (turn.rows < DOWN || turn.columns < ACROSS)) {
#pragma unroll
    for (int i = 0; i < STEPS; ++i) {
      const int p = smaller(row(i), turn.rows - 1), q = smaller(local(i) % ACROSS, turn.columns - 1);
      from[i] = first - local(i) * POINTS + (p * z.Q + q) * step;
    }
  }
  unsigned* const moves = reinterpret_cast<unsigned*>(staged) + lane;
  T* const weights = staged + OFFSETS + lane;
  unsigned move[STEPS], farthest = 0u;
  T weight[STEPS];
#pragma unroll
  for (int i = 0; i < STEPS; ++i) {
    move[i] = (reinterpret_cast<const unsigned*>(offset) + i * 32)[from[i]];
    weight[i] = (mask + i * 32)[from[i]];
  }
#pragma unroll
  for (int i = 0; i < STEPS; ++i) moves[i * 32] = move[i], farthest = farther(farthest, move[i], T{});
#pragma unroll
  for (int i = 0; i < STEPS; ++i) weights[i * 32 + row(i) * (MASK_ROW - ROW)] = weight[i];
  return larger(fabsf(first_of(farthest, T{})), fabsf(second_of(farthest, T{})));
}

// What a lane knows of its unit.
struct Located {
  float weight[POINTS], across[POINTS], down[POINTS];  // moved so far from the point's place in the window
};

// Two of the four numbers of two words, the first or the second on.
__device__ __forceinline__ unsigned neighbours(unsigned word, unsigned next, int second) {
#if defined(__CUDA_ARCH__)
  return __byte_perm(word, next, second ? 0x5432 : 0x3210);
#else
  return second ? word >> 16 | next << 16 : word;
#endif
}

// As `location`, whose scale is known here; a product with 1 or 2 needs no rounding.
template <int SCALE>
__device__ __forceinline__ float coordinate(float start, int number, float offset) {
  return (number == 0 ? offset : float(number) + offset) * float(SCALE) + start;
}

template <typename T, int SCALE>
__device__ __forceinline__ Located locate(const Problem<float>& z, int lane, Point<float> start, const T* staged) {
  Located unit;
  const unsigned* const words =
      reinterpret_cast<const unsigned*>(staged + OFFSETS) + (lane / ACROSS * MASK_ROW + lane % ACROSS * POINTS) / 2;
  T mask[POINTS + 1];  // a unit's first is the first or the second of a word
#pragma unroll
  for (int i = 0; i <= POINTS / 2; ++i) {
    const unsigned pair = neighbours(words[i], i < POINTS / 2 ? words[i + 1] : 0u, lane % 2);
    mask[2 * i].bits = (unsigned short)(pair & 0xffffu), mask[2 * i + 1].bits = (unsigned short)(pair >> 16);
  }
  weigh(z, mask, unit.weight);
#pragma unroll
  for (int k = 0; k < POINTS; ++k) {
    const Point<float> move = load_offset(staged + 2 * (lane * POINTS + k));
    unit.across[k] = coordinate<SCALE>(start.x, k / 3, move.x) - (start.x + float(k / 3 * SCALE));
    unit.down[k] = coordinate<SCALE>(start.y, k % 3, move.y) - (start.y + float(k % 3 * SCALE));
  }
  return unit;
}

// The shares of the pixels up to REACH before a point's place and behind it, of a point that moved so far: that of the bilinear
// cell, and zeros. All zero for NaN.
template <int REACH>
struct Tent {
  float of[2 * REACH + 1];

  __device__ __forceinline__ explicit Tent(float moved) {
    of[REACH - 1] = __saturatef(-moved), of[REACH] = __saturatef(1.0f - fabsf(moved)), of[REACH + 1] = __saturatef(moved);
    if constexpr (REACH == 2) {
      of[0] = __saturatef(-moved - 1.0f), of[4] = __saturatef(moved - 1.0f);
      of[1] -= of[0], of[3] -= of[4];
    }
  }
};

// The sums of a turn: for row j of its units, of channels lane / 4 * 2 and the next, two units each.
struct Sums {
  float of[DOWN][4];
};

// One of two numbers of a word, twice.
__device__ __forceinline__ unsigned twice(unsigned word, int second) {
#if defined(__CUDA_ARCH__)
  return __byte_perm(word, 0u, second ? 0x3232 : 0x1010);
#else
  const unsigned number = second ? word >> 16 : word & 0xffffu;
  return number << 16 | number;
#endif
}

// `first`: of the window, the pixel before and above all that the turn's units see.
template <typename T, int SCALE, int REACH>
__device__ __forceinline__ Sums multiply(const Located& unit, int lane, int first, const Seen<T, SCALE>& here, unsigned* band) {
  constexpr int SIZE = 2 * (SCALE + REACH) + 1, COLUMNS = Seen<T, SCALE>::COLUMNS, BEFORE = FARTHEST - REACH;
  // A row of a matrix, for each lane. Of the band: unit lane % 8, words lane / 8 * 4 on. Of the pixels: 0, 4, 1, 5, 2, 6, 3, 7
  // of eight, whose first and second numbers are those of words 0 to 3 and 4 to 7; even channels, then odd ones, then both of
  // the next eight pixels.
  const int to = lane / ACROSS * ROW_WORDS + lane % ACROSS * (UNIT_WORDS + 1) + BEFORE, from = lane % 8 * UNIT_WORDS + lane / 8 * 4;
  const uint4* const pixels = here.value[lane / 8 % 2] + first + BEFORE * COLUMNS + lane / 16 * 8 + lane % 8 / 2 + lane % 2 * 4;
  if (REACH < FARTHEST) {  // what a wider stencil left
#pragma unroll
    for (int i = 0; i < 2; ++i) band[i * BAND + to - 1] = band[i * BAND + to + SIZE] = 0u;
  }
  Matrices rows[SIZE + DOWN - 1][2];
  Sums sums{};
#pragma unroll
  for (int row = 0; row < SIZE; ++row) {
    unsigned* const words = band + row % 2 * BAND;
    float weights[SIZE] = {};
#pragma unroll
    for (int k = 0; k < POINTS; ++k) {
      const int i = row - k % 3 * SCALE;
      if (i < 0 || i > 2 * REACH) continue;
      const Tent<REACH> across(unit.across[k]), down(unit.down[k]);
      const float weight = unit.weight[k] * down.of[i];
#pragma unroll
      for (int j = 0; j <= 2 * REACH; ++j) weights[k / 3 * SCALE + j] += weight * across.of[j];
    }
#pragma unroll
    for (int i = 0; i < SIZE; ++i) words[to + i] = halves<T>(weights[i]);
#pragma unroll
    for (int i = row == 0 ? 0 : row + DOWN - 1; i < row + DOWN; ++i) {
      const Matrices found = load_matrices<true>(pixels + i * COLUMNS);
#pragma unroll
      for (int part = 0; part < 4; ++part)
        rows[i][part / 2].of[part % 2] = twice(found.of[part], 0), rows[i][part / 2].of[part % 2 + 2] = twice(found.of[part], 1);
    }
    __syncwarp();  // the other band is read until here
#pragma unroll
    for (int j = 0; j < DOWN; ++j) {
      const Matrices b = load_matrices<false>(words + j * ROW_WORDS + from);
      multiply_add(sums.of[j], rows[row + j][0], b.of[0], b.of[1], T{});
      multiply_add(sums.of[j], rows[row + j][1], b.of[2], b.of[3], T{});
    }
  }
  return sums;
}

// Eight lanes have the channels of a unit, two each.
template <typename T>
__device__ __forceinline__ void write_sums(const Problem<float>& z, const Turn& turn, int lane, const Sums& sums, T* output) {
#pragma unroll
  for (int j = 0; j < DOWN; ++j) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int local = j * ACROSS + lane % 4 * 2 + i;
      const unsigned pair = two(sums.of[j][i + 2], sums.of[j][i], T{});
      unsigned* const to = reinterpret_cast<unsigned*>(output + turn.unit(z, local) * 16) + lane / 4;
      if (turn.has(local)) *to = pair;
    }
  }
}

// As `forward`, from what was staged.
template <typename T>
__device__ __forceinline__ void gather_all(const Problem<float>& z, const Turn& turn, int lane, const T* staged, const T* value,
                                           T* output) {
  using team = Team<T, 16>;
#pragma unroll 1
  for (int first = 0; first < TURN; first += team::UNITS) {
    const int local = first + lane / team::LANES, part = lane % team::LANES, channel = turn.g * 16 + part * team::V;
    const Place at{turn.n, turn.p + local / ACROSS, turn.q + local % ACROSS, turn.g};
    const Look<T, 16> look(z, at, part, staged + local * 2 * POINTS,
                           staged + OFFSETS + local / ACROSS * MASK_ROW + local % ACROSS * POINTS);
    const Channels<T> sum = look.interior ? gather<true>(look, value, channel) : gather<false>(look, value, channel);
    if (turn.has(local)) *reinterpret_cast<uint4*>(output + turn.unit(z, local) * 16 + part * team::V) = pack(sum);
  }
}

// ---- all of it -----------------------------------------------------------------------------------------------------------

// Of the four numbers of two words, the first and the third, or the others.
__device__ __forceinline__ unsigned every_other(unsigned word, unsigned next, int second) {
#if defined(__CUDA_ARCH__)
  return __byte_perm(word, next, second ? 0x7632 : 0x5410);
#else
  return second ? word >> 16 | (next & 0xffff0000u) : (word & 0xffffu) | next << 16;
#endif
}

// A thread brings 16 bytes of every eighth pixel of every eighth row; a warp clears its bands.
template <typename T, int SCALE>
__device__ __forceinline__ void bring(const Problem<float>& z, const Tile& tile, int warp, int lane, const T* value,
                                      Seen<T, SCALE>& here) {
  using seen = Seen<T, SCALE>;
  constexpr int STEP = THREADS / 16, DOWNWARD = (seen::ROWS + STEP - 1) / STEP, RIGHTWARD = seen::COLUMNS / STEP;
  const int row = warp * 2 + lane / 16, column = lane % 16 / 2, half = lane % 2, C = z.G * 16;
  const int x = tile.q + z.left - seen::HALO + column, y = tile.p + z.top - seen::HALO + row;
  const int first = ((tile.n * z.H + y) * z.W + x) * C + tile.g * 16 + half * 8;
  uint4 pixels[DOWNWARD][RIGHTWARD];
#pragma unroll
  for (int i = 0; i < DOWNWARD; ++i) {
#pragma unroll
    for (int j = 0; j < RIGHTWARD; ++j) {
      const bool inside = (unsigned(x + j * STEP) < unsigned(z.W)) & (unsigned(y + i * STEP) < unsigned(z.H));
      pixels[i][j] = uint4{0u, 0u, 0u, 0u};
      if (inside & (column + j * STEP < seen::ROWS))
        pixels[i][j] = *reinterpret_cast<const uint4*>(value + unsigned(first + (i * z.W + j) * (STEP * C)));
    }
  }
#pragma unroll
  for (int i = 0; i < DOWNWARD; ++i) {
#pragma unroll
    for (int j = 0; j < RIGHTWARD; ++j) {
      if (row + i * STEP >= seen::ROWS) continue;
      const uint4& words = pixels[i][j];
#pragma unroll
      for (int second = 0; second < 2; ++second)
        reinterpret_cast<Pair<unsigned>*>(here.value[second] + (row + i * STEP) * seen::COLUMNS + column + j * STEP)[half] = {
            every_other(words.x, words.y, second), every_other(words.z, words.w, second)};
    }
  }
#pragma unroll
  for (int i = 0; i < 2 * WORDS; i += 4) {
    const int word = lane / ACROSS * ROW_WORDS + lane % ACROSS * UNIT_WORDS + i % WORDS;
    *reinterpret_cast<uint4*>(here.band[warp][i / WORDS] + word) = uint4{0u, 0u, 0u, 0u};
  }
}

template <typename T, int SCALE>
__global__ void __launch_bounds__(THREADS, WINDOW_BLOCKS)
    forward_in_window(Problem<float> z, const T* __restrict__ value, const T* __restrict__ offset, const T* __restrict__ mask,
                      T* __restrict__ output) {
  using seen = Seen<T, SCALE>;
  __shared__ seen here;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const Tile tile = tile_of(z, int(blockIdx.x));
  T* const staged = here.staged[warp];
  unsigned* const band = here.band[warp][0];
  bool brought = false;  // the same for all warps, who go through the loop as often
#pragma unroll 1
  for (int i = warp; i < TILE / TURN; i += WARPS) {
    const int down = i / 2 * DOWN, across = i % 2 * ACROSS, p = tile.p + down, q = tile.q + across;
    const Turn turn{tile.n, p, q, tile.g, z.P - p, z.Q - q};
    const bool empty = !FULL && (turn.rows <= 0 || turn.columns <= 0);  // then it stages units before it
    // Points move by their offsets times SCALE; rounding on the way takes none beyond a whole number of pixels.
    const float farthest = stage(z, turn, lane, offset, mask, staged) * float(SCALE);
    const bool near = TENSOR_CORES && __all_sync(ALL, farthest <= float(FARTHEST));
    if (TENSOR_CORES && !brought) {
      here.near[i] = near && !empty;
      __syncthreads();
      brought = *reinterpret_cast<const unsigned*>(here.near + i - warp) != 0u;
      if (MULTIPLIES && brought) {
        bring<T, SCALE>(z, tile, i % WARPS, lane, value, here);  // not `warp`: its parts would be worked out before the loop
        __syncthreads();
      }
    } else {
      __syncwarp();
    }
    if (empty) continue;
    bool done = false;
    if (MULTIPLIES && near) {
      const Point<float> start = start_of(z, Place{tile.n, p + lane / ACROSS, q + lane % ACROSS, tile.g});
      const Located unit = locate<T, SCALE>(z, lane, start, staged);
      const bool nearer = FULL ? COUNTED == 1 : __all_sync(ALL, farthest <= 1.0f);
      const int first = down * seen::COLUMNS + across;
      const Sums sums = nearer ? multiply<T, SCALE, 1>(unit, lane, first, here, band)
                               : multiply<T, SCALE, FARTHEST>(unit, lane, first, here, band);
      float nothing = 0.0f;  // the product with zeros: NaN where a sum is not finite
#pragma unroll
      for (int j = 0; j < DOWN; ++j) {
#pragma unroll
        for (int i = 0; i < 4; ++i) nothing += sums.of[j][i] * 0.0f;
      }
      done = __all_sync(ALL, nothing == 0.0f);
      if (done) write_sums(z, turn, lane, sums, output);
    }
    if (GATHERS && !done) gather_all(z, turn, lane, staged, value, output);
    __syncwarp();
  }
}

}  // namespace dcnv3
