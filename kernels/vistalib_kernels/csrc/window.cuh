// The forward by tensor cores: windows of 3x3 at stride 1, offset_scale 1 or 2, 16 channels a group, in float16 and bfloat16.
//
// Why. `forward` reads 36 corners a unit, and turns each of their numbers into a float to multiply it. Where no point leaves its
// place in the stretched window by more than a pixel, the nine points are one dense stencil of SIZE x SIZE weights: neighbouring
// units share the pixels it covers, and their sums are a product of matrices.
//
// The product. Eight units side by side see 16 pixels of a row: (16 channels x pixels) times (pixels x 8 units). 16 bits are too
// few for a weight, so that it is a word of two numbers, what 16 bits hold of it and the rest; each pixel stands twice in the
// product, once for each. The words of a row of all units are a band: unit x has words x .. x + SIZE - 1, the others are zero.
//
// Who owns what. A block owns a tile of 16 x 16 units of one group and the pixels around it, in shared memory, zero outside the
// image. A warp takes 8 x 4 units in a turn, and has a band; a lane owns a unit, its softmax and its weights.
//
// Phases of a turn: stage offsets and masks; locate and softmax; for each row of the stencil, write its words into the band and
// multiply; sums to shared memory; from there two lanes take a unit, gather its far points, and write. Where a unit has many far
// points, or a sum is not finite (zero times infinity would have spread), the warp gathers all, as `forward` does.
#pragma once

#include "tiles.cuh"

namespace dcnv3 {

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
constexpr bool TENSOR_CORES = false;  // of this type: then all is gathered
#else
constexpr bool TENSOR_CORES = true;
#endif
constexpr int ACROSS = 8, DOWN = 4, TURNS = TILE / (ACROSS * DOWN);  // units of a turn, one a lane
constexpr int FAR_POINTS = 4;                                        // of a unit; with more, to gather all is cheaper

// A band. The words of a unit, and those of a row of units, lie so far apart that neither lanes that write a word of their own
// units nor lanes that read four words of one row's units meet in a bank.
constexpr int WORDS = 16, UNIT_WORDS = WORDS + 4, ROW_WORDS = ACROSS * UNIT_WORDS + 8, BAND = DOWN * ROW_WORDS;

template <typename T, int SCALE>
struct Seen {  // by a tile
  static constexpr int SIZE = 2 * SCALE + 3;  // of the stencil
  static constexpr int ROWS = SIDE + SIZE - 1, COLUMNS = SIDE + WORDS - ACROSS;  // beyond SIDE + SIZE - 1, zeros
  alignas(16) uint4 value[ROWS * COLUMNS * 2];
  alignas(16) unsigned band[WARPS][2][BAND];
  alignas(16) T staged[WARPS][32 * 3 * POINTS];
};

// ---- matrices of 16 bits a number, 8 x 8 in a register of all lanes ------------------------------------------------------

struct Matrices {
  unsigned of[4];
};

// Lane i names row i % 8 of matrix i / 8, 16 bytes of shared memory; it gets numbers i % 4 * 2 and the next of row i / 4 of each,
// or of column i / 4.
template <bool COLUMN>
__device__ __forceinline__ Matrices load_matrices(const void* row) {
  Matrices m{};
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  const unsigned at = unsigned(__cvta_generic_to_shared(row));
  if constexpr (COLUMN) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(m.of[0]), "=r"(m.of[1]), "=r"(m.of[2]), "=r"(m.of[3])
                 : "r"(at)
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(m.of[0]), "=r"(m.of[1]), "=r"(m.of[2]), "=r"(m.of[3])
                 : "r"(at)
                 : "memory");
  }
#elif !defined(__CUDACC__)
  cpu_load_matrices(COLUMN, row, m.of);
#endif
  return m;
}

// sum += a b. Of a, 16 x 16, the matrices are top left, bottom left, top right, bottom right; of b, 16 x 8 and given by columns,
// top and bottom. Of the sum, a lane has numbers i % 4 * 2 and the next of rows i / 4 and i / 4 + 8.
__device__ __forceinline__ void multiply_add(float (&sum)[4], const Matrices& a, unsigned b0, unsigned b1, BFloat16) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(a.of[0]), "r"(a.of[1]), "r"(a.of[2]), "r"(a.of[3]), "r"(b0), "r"(b1));
#elif !defined(__CUDACC__)
  cpu_multiply_add<BFloat16>(sum, a.of, b0, b1);
#endif
}
__device__ __forceinline__ void multiply_add(float (&sum)[4], const Matrices& a, unsigned b0, unsigned b1, Half) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(a.of[0]), "r"(a.of[1]), "r"(a.of[2]), "r"(a.of[3]), "r"(b0), "r"(b1));
#elif !defined(__CUDACC__)
  cpu_multiply_add<Half>(sum, a.of, b0, b1);
#endif
}

// ---- weights of twice 16 bits --------------------------------------------------------------------------------------------

// The digits of a float that fit.
__device__ __forceinline__ float first_half(float weight, BFloat16) { return as_float(as_bits(weight) & 0xffff0000u); }
__device__ __forceinline__ float first_half(float weight, Half) { return as_float(as_bits(weight) & 0xffffe000u); }

template <typename T>
__device__ __forceinline__ unsigned two(float high, float low, T) {
  T first, second;
  write(first, high);
  write(second, low);
  return unsigned(first.bits) << 16 | second.bits;
}
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800  // by one instruction
__device__ __forceinline__ unsigned two(float high, float low, BFloat16) {
  unsigned word;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
  return word;
}
__device__ __forceinline__ unsigned two(float high, float low, Half) {
  unsigned word;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
  return word;
}
#endif

template <typename T>
__device__ __forceinline__ unsigned halves(float weight) {
  const float first = first_half(weight, T{});
  return two(first, weight - first, T{});
}

// ---- a turn --------------------------------------------------------------------------------------------------------------

// Where a warp works: units (p + i, q + j) of one image and group, i < DOWN, j < ACROSS, as far as there are any.
struct Turn {
  int n, p, q, g;
  int rows, columns;  // that there are, at least one

  __device__ __forceinline__ bool has(int local) const { return FULL || (local / ACROSS < rows && local % ACROSS < columns); }
  __device__ __forceinline__ int unit(const Problem<float>& z, int local) const {
    return ((n * z.P + p + local / ACROSS) * z.Q + q + local % ACROSS) * z.G + g;
  }
};

// Offsets and masks of a turn. The numbers of a unit lie side by side, those of the next one G units on: lanes take three units
// at a time, a point each, so that a load touches few lines.
template <typename T>
__device__ __forceinline__ void stage(const Problem<float>& z, const Turn& turn, int lane, const T* offset, const T* mask,
                                      T* staged) {
  const Pair<T>* const moves = reinterpret_cast<const Pair<T>*>(offset);
  Pair<T>* const to = reinterpret_cast<Pair<T>*>(staged);
  const int point = lane % POINTS, before = lane / POINTS;
#pragma unroll
  for (int row = 0; row < DOWN; ++row) {
#pragma unroll
    for (int first = 0; first < ACROSS; first += 3) {
      const int local = row * ACROSS + first + before;
      if (before == 3 || first + before >= ACROSS || !turn.has(local)) continue;
      const int from = turn.unit(z, local) * POINTS + point;
      to[local * POINTS + point] = moves[from];
      staged[32 * 2 * POINTS + local * POINTS + point] = mask[from];
    }
  }
}

// What a lane knows of its unit.
struct Located {
  float weight[POINTS];
  float across[POINTS], down[POINTS];  // from the point's place in the window
  unsigned far = 0u;                   // one bit a point
  float most = 0.0f, share = 1.0f;     // of the softmax: the largest logit, one over the sum
};

template <typename T, int SCALE>
__device__ __forceinline__ Located locate(const Problem<float>& z, Point<float> start, const T* offset, const T* mask) {
  Located unit;
#pragma unroll
  for (int k = 0; k < POINTS; ++k) unit.weight[k] = read(mask[k]);
  if (FULL || z.logits) {
    float total = 0.0f;
    unit.most = unit.weight[0];
#pragma unroll
    for (int k = 1; k < POINTS; ++k) unit.most = larger(unit.most, unit.weight[k]);
#pragma unroll
    for (int k = 0; k < POINTS; ++k) total += unit.weight[k] = power(unit.weight[k] - unit.most);
    unit.share = reciprocal(total);
#pragma unroll
    for (int k = 0; k < POINTS; ++k) unit.weight[k] *= unit.share;
  }
#pragma unroll
  for (int k = 0; k < POINTS; ++k) {
    const Pair<T> move = reinterpret_cast<const Pair<T>*>(offset)[k];
    const Point<float> here = location(z, start, k / 3, k % 3, read(move.x), read(move.y));
    unit.across[k] = here.x - (start.x + float(k / 3 * SCALE));
    unit.down[k] = here.y - (start.y + float(k % 3 * SCALE));
    const bool near = (fabsf(unit.across[k]) <= 1.0f) & (fabsf(unit.down[k]) <= 1.0f);
    if (near) continue;
    unit.weight[k] = 0.0f;
    unit.far |= 1u << k;
  }
  return unit;
}

// The shares of the pixel before a point's place, of that at it, and of the one behind; each from 0 to 1, for NaN, too.
struct Tent {
  float of[3];

  __device__ __forceinline__ explicit Tent(float moved)
      : of{__saturatef(-moved), __saturatef(1.0f - fabsf(moved)), __saturatef(moved)} {}
};

// The sums of a turn: for row j of its units, of channels lane / 4 and lane / 4 + 8, two units each.
struct Sums {
  float of[DOWN][4];
};

// `pixels`: of the window, the first that the turn's first unit sees.
template <typename T, int SCALE>
__device__ __forceinline__ Sums multiply(const Located& unit, int lane, const uint4* pixels, unsigned (&band)[2][BAND]) {
  using seen = Seen<T, SCALE>;
  constexpr int SIZE = seen::SIZE;
  float weights[SIZE][SIZE] = {};
#pragma unroll
  for (int k = 0; k < POINTS; ++k) {
    const Tent across(unit.across[k]), down(unit.down[k]);
#pragma unroll
    for (int i = 0; i < 3; ++i) {
      const float weight = unit.weight[k] * down.of[i];
#pragma unroll
      for (int j = 0; j < 3; ++j) weights[k % 3 * SCALE + i][k / 3 * SCALE + j] += weight * across.of[j];
    }
  }

  // Rows of matrices: of the band, unit lane % 8 and words lane / 8 * 4 on; of the pixels, each twice, four of them, then the
  // next four, the second half of their channels between.
  const int to = lane / ACROSS * ROW_WORDS + lane % ACROSS * (UNIT_WORDS + 1), from = lane % 8 * UNIT_WORDS + lane / 8 * 4;
  const uint4* const seen_pixels = pixels + (lane % 8 / 2 + lane / 16 * 4) * 2 + lane / 8 % 2;
  Matrices pairs[SIZE + DOWN - 1][2];
  Sums sums{};
#pragma unroll
  for (int row = 0; row < SIZE; ++row) {
    unsigned* const words = band[row % 2];
#pragma unroll
    for (int i = 0; i < SIZE; ++i) words[to + i] = halves<T>(weights[row][i]);
#pragma unroll
    for (int i = row == 0 ? 0 : row + DOWN - 1; i < row + DOWN; ++i) {
#pragma unroll
      for (int part = 0; part < 2; ++part)
        pairs[i][part] = load_matrices<true>(seen_pixels + (i * seen::COLUMNS + part * 8) * 2);
    }
    __syncwarp();  // of two bands, the other one is read until here
#pragma unroll
    for (int j = 0; j < DOWN; ++j) {
      const Matrices b = load_matrices<false>(words + j * ROW_WORDS + from);
      multiply_add(sums.of[j], pairs[row + j][0], b.of[0], b.of[1], T{});
      multiply_add(sums.of[j], pairs[row + j][1], b.of[2], b.of[3], T{});
    }
  }
  return sums;
}

// Adds what the far points of a unit give to V of its channels.
template <typename T>
__device__ __forceinline__ void add_far(const Problem<float>& z, const Place& at, unsigned far, float most, float share,
                                        const T* offset, const T* mask, const T* value, int channel, Channels<T>& sum) {
  const Point<float> start = start_of(z, at);
#pragma unroll 1
  while (far) {
    const int k = __ffs(int(far)) - 1, column = (k * 11) >> 5;  // k / 3
    far &= far - 1u;
    const Cell<float> cell = cell_of(z, location(z, start, column, k - 3 * column, read(offset[2 * k]), read(offset[2 * k + 1])));
    const float logit = read(mask[k]), weight = FULL || z.logits ? power(logit - most) * share : logit;
    const Corners<float> part = shares(cell.across, cell.down, weight);
    const T* const first = value + (((at.n * z.H + cell.y) * z.W + cell.x) * (z.G * 16) + channel);
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      if (!(cell.inside >> c & 1u)) continue;
      const Channels<T> found = load(first + ((c & 1) + (c >> 1) * z.W) * (z.G * 16));
#pragma unroll
      for (int i = 0; i < Channels<T>::V; ++i) sum.of[i] += part.of[c] * found.of[i];
    }
  }
}

template <typename T, int SCALE>
__device__ __forceinline__ void turn_of(const Problem<float>& z, const Turn& turn, const uint4* pixels, unsigned (&band)[2][BAND],
                                        T* staged, const T* value, const T* offset, const T* mask, T* output) {
  using team = Team<T, 16>;
  const int lane = threadIdx.x % 32;
  stage(z, turn, lane, offset, mask, staged);
  __syncwarp();

  const int owned = turn.has(lane) ? lane : 0;  // no lane misses a vote or a shuffle
  const Place own{turn.n, turn.p + owned / ACROSS, turn.q + owned % ACROSS, turn.g};
  const T* const masks = staged + 32 * 2 * POINTS;
  bool dense = false;
  unsigned far = 0u;
  float most = 0.0f, share = 1.0f;
  if (TENSOR_CORES) {
    const Located unit = locate<T, SCALE>(z, start_of(z, own), staged + owned * 2 * POINTS, masks + owned * POINTS);
    far = unit.far, most = unit.most, share = unit.share;
    dense = __all_sync(ALL, __popc(far) <= FAR_POINTS) || FULL;
    if (dense) {
      const Sums sums = multiply<T, SCALE>(unit, lane, pixels, band);
      float nothing = 0.0f;
#pragma unroll
      for (int j = 0; j < DOWN; ++j) {
        float* const to = reinterpret_cast<float*>(band[1]) + j * ROW_WORDS + lane % 4 * 2 * UNIT_WORDS + lane / 4;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          nothing += sums.of[j][i] * 0.0f;
          to[i % 2 * UNIT_WORDS + i / 2 * 8] = sums.of[j][i];
        }
      }
      dense = __all_sync(ALL, nothing == 0.0f) || FULL;
    }
  }
  __syncwarp();

#pragma unroll 1
  for (int first = 0; first < 32; first += team::UNITS) {
    const int local = first + lane / team::LANES, part = lane % team::LANES, mine = turn.has(local) ? local : 0;
    const Place at{turn.n, turn.p + mine / ACROSS, turn.q + mine % ACROSS, turn.g};
    const int channel = turn.g * 16 + part * team::V;
    const T *const offsets_of = staged + mine * 2 * POINTS, *const masks_of = masks + mine * POINTS;
    const unsigned its_far = __shfl_sync(ALL, far, local);
    const float its_most = __shfl_sync(ALL, most, local), its_share = __shfl_sync(ALL, share, local);
    Channels<T> sum;
    if (dense) {
      const float4* const found = reinterpret_cast<const float4*>(
          band[1] + local / ACROSS * ROW_WORDS + local % ACROSS * UNIT_WORDS + part * team::V);
#pragma unroll
      for (int i = 0; i < team::V; i += 4) {
        const float4 four = found[i / 4];
        sum.of[i] = four.x, sum.of[i + 1] = four.y, sum.of[i + 2] = four.z, sum.of[i + 3] = four.w;
      }
      add_far(z, at, its_far, its_most, its_share, offsets_of, masks_of, value, channel, sum);
      __syncwarp();
    } else if (!FULL) {
      const Look<T, 16> look(z, at, part, offsets_of, masks_of);
      sum = look.interior ? gather<true>(look, value, channel) : gather<false>(look, value, channel);
    }
    if (turn.has(local)) *reinterpret_cast<uint4*>(output + turn.unit(z, local) * 16 + part * team::V) = pack(sum);
  }
}

__device__ __forceinline__ void clear(unsigned* row) {
#pragma unroll
  for (int i = 0; i < WORDS; i += 4) *reinterpret_cast<uint4*>(row + i) = uint4{0u, 0u, 0u, 0u};
}

// ---- all of it -----------------------------------------------------------------------------------------------------------

template <typename T, int SCALE>
__global__ void __launch_bounds__(THREADS, FORWARD_BLOCKS)
    forward_in_window(Problem<float> z, const T* __restrict__ value, const T* __restrict__ offset, const T* __restrict__ mask,
                      T* __restrict__ output) {
  using seen = Seen<T, SCALE>;
  __shared__ seen here;
  z.DH = z.DW = z.SH = z.SW = 1, z.scale = z.half_w = z.half_h = float(SCALE);  // known to the compiler
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, C = z.G * 16;
  const Tile tile(z, int(blockIdx.x));
  if (TENSOR_CORES) {
    const int left = tile.q + z.left - SCALE - 1, top = tile.p + z.top - SCALE - 1;
#pragma unroll 3
    for (int i = threadIdx.x; i < seen::ROWS * seen::COLUMNS * 2; i += THREADS) {
      const int row = i / (2 * seen::COLUMNS), column = i / 2 % seen::COLUMNS, x = left + column, y = top + row;
      const bool inside = (column < SIDE + seen::SIZE - 1) & (unsigned(x) < unsigned(z.W)) & (unsigned(y) < unsigned(z.H));
      const T* const from = value + (((tile.n * z.H + y) * z.W + x) * C + tile.g * 16 + i % 2 * 8);
      here.value[i] = inside ? *reinterpret_cast<const uint4*>(from) : uint4{0u, 0u, 0u, 0u};
    }
    for (int i = 0; i < 2; ++i) clear(here.band[warp][i] + lane / ACROSS * ROW_WORDS + lane % ACROSS * UNIT_WORDS);
  }
  __syncthreads();
#pragma unroll 1
  for (int i = warp; i < TURNS; i += WARPS) {
    const int down = i / 2 * DOWN, across = i % 2 * ACROSS, p = tile.p + down, q = tile.q + across;
    const Turn turn{tile.n, p, q, tile.g, z.P - p, z.Q - q};
    if (!FULL && (turn.rows <= 0 || turn.columns <= 0)) continue;
    turn_of<T, SCALE>(z, turn, here.value + (down * seen::COLUMNS + across) * 2, here.band[warp], here.staged[warp], value, offset,
                      mask, output);
    __syncwarp();
    clear(here.band[warp][1] + lane / ACROSS * ROW_WORDS + lane % ACROSS * UNIT_WORDS);  // of the sums
    __syncwarp();
  }
}

}  // namespace dcnv3
