// The kernels made for windows of 3x3 and groups of D channels known to the compiler.
//
// Who owns what. A lane owns 16 bytes of the channels of one unit (output pixel and group): V = 16 / sizeof(T) of them, so that
// D / V lanes stand side by side for a unit. Each of these also owns its share of the 8 points around the centre: it locates
// them and hands them to the others by shuffles; the centre is located by all. A warp owns 32 * V / D neighbouring units, whose
// offsets and masks are one piece of memory, read and written by the whole warp 16 bytes a lane and kept in its own part of
// shared memory: warps never wait for each other.
//
// Phases of a warp: stage offsets and masks; locate and softmax, each lane its own points; gather, 36 independent loads a lane;
// write. Where all corners of all points are inside the image, which one vote tells, the gather asks nothing; at the border
// each corner is asked for, so that a pixel outside is never read, and never multiplied by zero.
#pragma once

#include "dcnv3.h"

namespace dcnv3 {

constexpr int THREADS = 128, WARPS = THREADS / 32, POINTS = 9;
// Blocks that share a multiprocessor: 128 and 168 registers a thread, most of them for loads under way.
constexpr int FORWARD_BLOCKS = 4, BACKWARD_BLOCKS = 3;
constexpr unsigned ALL = 0xffffffffu;

// With DCNV3_COUNT, for counting the instructions that run in the machine code, only the path of a full warp inside the image is
// compiled, but for rows of units in products.cuh, whose two paths share registers. Never for use.
#if defined(DCNV3_COUNT)
constexpr bool FULL = true;
#else
constexpr bool FULL = false;
#endif

// ---- 16 bytes of channels ------------------------------------------------------------------------------------------------

template <typename T>
struct Channels {
  static constexpr int V = 16 / sizeof(T);
  Real<T> of[V];
};

// The two numbers of a word.
__device__ __forceinline__ float first_of(unsigned word, BFloat16) { return as_float(word << 16); }
__device__ __forceinline__ float second_of(unsigned word, BFloat16) { return as_float(word & 0xffff0000u); }
__device__ __forceinline__ float first_of(unsigned word, Half) { return read(Half{(unsigned short)(word & 0xffffu)}); }
__device__ __forceinline__ float second_of(unsigned word, Half) { return read(Half{(unsigned short)(word >> 16)}); }

__device__ __forceinline__ Channels<float> unpack(uint4 raw, float) {
  return {{as_float(raw.x), as_float(raw.y), as_float(raw.z), as_float(raw.w)}};
}
template <typename T>
__device__ __forceinline__ Channels<T> unpack(uint4 raw, T) {
  return {{first_of(raw.x, T{}), second_of(raw.x, T{}), first_of(raw.y, T{}), second_of(raw.y, T{}),
           first_of(raw.z, T{}), second_of(raw.z, T{}), first_of(raw.w, T{}), second_of(raw.w, T{})}};
}

// An offset, x and y, by one load where both fit into a word.
__device__ __forceinline__ Point<float> load_offset(const float* from) { return {from[0], from[1]}; }
template <typename T>
__device__ __forceinline__ Point<float> load_offset(const T* from) {
  const unsigned word = *reinterpret_cast<const unsigned*>(from);
  return {first_of(word, T{}), second_of(word, T{})};
}

__device__ __forceinline__ uint4 pack(const Channels<float>& c) {
  return {as_bits(c.of[0]), as_bits(c.of[1]), as_bits(c.of[2]), as_bits(c.of[3])};
}
template <typename T>
__device__ __forceinline__ uint4 pack(const Channels<T>& c) {
  unsigned words[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    T low, high;
    write(low, c.of[2 * i]);
    write(high, c.of[2 * i + 1]);
    words[i] = unsigned(low.bits) | unsigned(high.bits) << 16;
  }
  return {words[0], words[1], words[2], words[3]};
}

template <typename T>
__device__ __forceinline__ Channels<T> load(const T* from) {
  return unpack(*reinterpret_cast<const uint4*>(from), T{});
}

// The same where the loads of other points must not be moved before it: at the border, where each comes with questions, the
// compiler would ask for more registers than there are and put some of them into local memory.
template <typename T>
__device__ __forceinline__ Channels<T> load_in_order(const T* from) {
#if defined(__CUDA_ARCH__)
  uint4 raw;
  asm volatile("ld.global.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(raw.x), "=r"(raw.y), "=r"(raw.z), "=r"(raw.w) : "l"(from));
  return unpack(raw, T{});
#else
  return load(from);
#endif
}

// Adds to memory that others add to at the same time. One instruction for four floats where the GPU has one (sm_90 on); it is
// not said to touch memory, so that the loads of later points may overtake it: no kernel reads what it adds to.
template <typename T>
__device__ __forceinline__ void add(float* to, const Channels<T>& c, float weight) {
#pragma unroll
  for (int i = 0; i < Channels<T>::V; i += 4) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("red.global.add.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(to + i), "f"(weight * c.of[i]),
                 "f"(weight * c.of[i + 1]), "f"(weight * c.of[i + 2]), "f"(weight * c.of[i + 3]));
#else
#pragma unroll
    for (int j = i; j < i + 4; ++j) atomicAdd(to + j, weight * c.of[j]);
#endif
  }
}

// The compiler takes this address in device memory as given, and does not work it out anew from its parts at each use.
template <typename T>
__device__ __forceinline__ T* given(T* address) {
#if defined(__CUDA_ARCH__)
  asm volatile("" : "+l"(address));
  __builtin_assume(__isGlobal(address));
#endif
  return address;
}

// The sums of one image and group, which no other adds to: those of pixel (x, y) lie (y W + x) `step` numbers from `of` on.
template <typename R>
struct Sheet {
  R* of;
  int step;
};

// ---- a warp's units ------------------------------------------------------------------------------------------------------

template <typename T, int D>
struct Team {
  static constexpr int V = Channels<T>::V, LANES = D / V, UNITS = 32 / LANES;  // of a unit; of a warp
  static constexpr int OWN = (POINTS - 1) / LANES;                             // points of a lane, beside the centre
  static_assert(D % V == 0 && LANES * OWN == POINTS - 1, "a unit's channels must fill 1, 2, 4 or 8 lanes");
};

// Copy what A_UNIT numbers a unit make for `units` units between shared and device memory, by all lanes of a warp. A full
// team's piece is a multiple of 16 bytes long and begins at one; the last team of the tensor may have fewer units.
template <typename T, int D, int A_UNIT>
__device__ __forceinline__ void copy(T* to, const T* from, int units, int lane) {
  constexpr int WORDS = Team<T, D>::UNITS * A_UNIT / Channels<T>::V;
  if (FULL || units == Team<T, D>::UNITS) {
#pragma unroll
    for (int i = 0; i < WORDS; i += 32)
      if (i + lane < WORDS) reinterpret_cast<uint4*>(to)[i + lane] = reinterpret_cast<const uint4*>(from)[i + lane];
  } else {
#pragma unroll 1
    for (int i = lane; i < units * A_UNIT; i += 32) to[i] = from[i];
  }
}

// The sum over the lanes of a unit, in each of them.
template <int LANES, typename R>
__device__ __forceinline__ R over_lanes(R x) {
#pragma unroll
  for (int step = 1; step < LANES; step *= 2) x += __shfl_xor_sync(ALL, x, step);
  return x;
}

// A point as the gather needs it. Turn t shows a lane the points of the lane whose part differs by t; in turn 0 they are its
// own.
template <typename R>
struct Sample {
  R across, down, weight;
  int pixel;        // number of the cell's top left pixel, counted over all images
  unsigned inside;  // one bit a corner
};

// What a lane knows of its unit before it touches a channel: its own points, the centre last.
template <typename T, int D>
struct Look {
  using R = Real<T>;
  using team = Team<T, D>;
  Sample<R> own[team::OWN + 1];
  const Problem<R>& z;
  const T *offset, *mask;  // of the unit, staged
  Point<R> start;   // of the window
  int first_pixel;  // of the unit's image
  int part;         // which of the unit's lanes this is
  R most = R(0), share = R(1);  // of the softmax: the largest logit, one over the sum
  bool interior;    // all corners of all points of the warp are inside the image

  __device__ __forceinline__ int number(int j) const {  // of own point j in the window
    const int other = part * team::OWN + j;              // among those beside the centre
    return j == team::OWN ? POINTS / 2 : other + (other >= POINTS / 2 ? 1 : 0);
  }
  __device__ __forceinline__ Point<R> point(const T* offset, int j) const {
    const int k = number(j), column = (k * 11) >> 5;  // k / 3
    const Point<R> move = load_offset(offset + 2 * k);
    return location(z, start, column, k - 3 * column, move.x, move.y);
  }

  __device__ __forceinline__ Look(const Problem<R>& z, const Place& at, int part, const T* offset, const T* mask)
      : z(z), offset(offset), mask(mask), start(start_of(z, at)), first_pixel(at.n * z.H * z.W), part(part) {
    bool all_inside = true;
#pragma unroll
    for (int j = 0; j <= team::OWN; ++j) {
      const Point<R> here = point(offset, j);
      all_inside &= is_interior(z, here);
      const int x = int(here.x), y = int(here.y);  // no floor: where these are used, they are not negative
      own[j] = {here.x - R(x), here.y - R(y), read(mask[number(j)]), first_pixel + y * z.W + x, 15u};
    }
    interior = __all_sync(ALL, all_inside) || FULL;
    if (!(FULL || z.logits)) return;
    most = own[0].weight;
    R total = R(0);
#pragma unroll
    for (int j = 1; j <= team::OWN; ++j) most = larger(most, own[j].weight);
#pragma unroll
    for (int step = 1; step < team::LANES; step *= 2) most = larger(most, __shfl_xor_sync(ALL, most, step));
#pragma unroll
    for (int j = 0; j <= team::OWN; ++j) {
      own[j].weight = power(own[j].weight - most);
      if (j < team::OWN) total += own[j].weight;
    }
    share = reciprocal(over_lanes<team::LANES>(total) + own[team::OWN].weight);
#pragma unroll
    for (int j = 0; j <= team::OWN; ++j) own[j].weight *= share;
  }

  // Own point j of the lane that `turn` shows; at the border it is looked at anew, with all questions.
  template <bool INTERIOR>
  __device__ __forceinline__ Sample<R> sample(int j, int turn) const {
    Sample<R> mine;
    if (INTERIOR) {
      mine = own[j];
    } else {
      const Cell<R> cell = cell_of(z, point(offset, j));
      const R logit = read(mask[number(j)]), weight = z.logits ? power(logit - most) * share : logit;
      mine = {cell.across, cell.down, weight, first_pixel + cell.y * z.W + cell.x, cell.inside};
    }
    if (turn == 0) return mine;
    return {__shfl_xor_sync(ALL, mine.across, turn), __shfl_xor_sync(ALL, mine.down, turn),
            __shfl_xor_sync(ALL, mine.weight, turn), __shfl_xor_sync(ALL, mine.pixel, turn),
            INTERIOR ? 15u : __shfl_xor_sync(ALL, mine.inside, turn)};
  }
};

// The four pixels of a cell in a tensor like value: 32-bit positions from bases that are the same for the whole grid.
template <typename T, bool INTERIOR>
struct Pixels {
  T* base[4];
  int step[4];

  __device__ __forceinline__ Pixels(T* tensor, int W, int C) : step{0, C, W * C, W * C + C} {
#pragma unroll
    for (int c = 0; c < 4; ++c) base[c] = tensor + (INTERIOR ? step[c] : 0);
  }
  __device__ __forceinline__ T* at(int position, int c) const {
    return base[c] + unsigned(INTERIOR ? position : position + step[c]);
  }
};

template <bool INTERIOR>
__device__ __forceinline__ bool has(unsigned inside, int c) {
  return INTERIOR || (inside >> c & 1u);
}
template <bool INTERIOR, typename T>
__device__ __forceinline__ Channels<T> corner(const T* at, unsigned inside, int c) {
  if (INTERIOR) return load(at);
  return has<INTERIOR>(inside, c) ? load_in_order(at) : Channels<T>{};
}

// ---- forward -------------------------------------------------------------------------------------------------------------

template <bool INTERIOR, typename T, int D>
__device__ __forceinline__ Channels<T> gather(const Look<T, D>& look, const T* value, int channel) {
  const int C = look.z.G * D;
  const Pixels<const T, INTERIOR> pixels(value, look.z.W, C);
  Channels<T> sum{};
  const auto visit = [&](const Sample<Real<T>>& sample) {
    const Corners<Real<T>> share = shares(sample.across, sample.down, sample.weight);
    const int position = sample.pixel * C + channel;
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      const Channels<T> found = corner<INTERIOR>(pixels.at(position, c), sample.inside, c);
#pragma unroll
      for (int i = 0; i < Channels<T>::V; ++i) sum.of[i] += share.of[c] * found.of[i];
    }
    if (!INTERIOR) __syncwarp();  // together again after the questions
  };
  visit(look.template sample<INTERIOR>(Team<T, D>::OWN, 0));
#pragma unroll(INTERIOR ? Team<T, D>::LANES : 1)
  for (int turn = 0; turn < Team<T, D>::LANES; ++turn) {
#pragma unroll(INTERIOR ? Team<T, D>::OWN : 1)
    for (int j = 0; j < Team<T, D>::OWN; ++j) visit(look.template sample<INTERIOR>(j, turn));
  }
  return sum;
}

template <typename T, int D>
__global__ void __launch_bounds__(THREADS, FORWARD_BLOCKS)
    forward(Problem<Real<T>> z, const T* __restrict__ value, const T* __restrict__ offset, const T* __restrict__ mask,
            T* __restrict__ output) {
  using team = Team<T, D>;
  alignas(16) __shared__ T staged[WARPS][team::UNITS * 3 * POINTS];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int first = (blockIdx.x * WARPS + warp) * team::UNITS, units = z.units - first;
  if (units <= 0) return;
  const int count = units < team::UNITS ? units : team::UNITS;
  T* const offsets = staged[warp];
  T* const masks = offsets + team::UNITS * 2 * POINTS;
  copy<T, D, 2 * POINTS>(offsets, offset + (long long)first * (2 * POINTS), count, lane);
  copy<T, D, POINTS>(masks, mask + (long long)first * POINTS, count, lane);
  __syncwarp();

  const int owned = lane / team::LANES, mine = owned < count ? owned : count - 1;  // no lane misses a vote or a shuffle
  const int unit = first + mine, part = lane % team::LANES;
  const Place at = place_of(z, unit);
  const int channel = at.g * D + part * team::V;
  const Look<T, D> look(z, at, part, offsets + mine * 2 * POINTS, masks + mine * POINTS);
  const Channels<T> sum = look.interior ? gather<true>(look, value, channel) : gather<false>(look, value, channel);
  if (owned < count) *reinterpret_cast<uint4*>(output + (long long)unit * D + part * team::V) = pack(sum);
}

// ---- backward ------------------------------------------------------------------------------------------------------------

// The gradients of one unit: those of a lane's own weights and locations returned, those of its channels added to memory.
template <bool INTERIOR, typename T, int D>
__device__ __forceinline__ void scatter(const Look<T, D>& look, const T* value, int channel, const Channels<T>& gradient,
                                        bool mine, Real<T>* grad_value, PointGradient<Real<T>> (&own)[Team<T, D>::OWN + 1]) {
  using R = Real<T>;
  using team = Team<T, D>;
  const int C = look.z.G * D;
  const Pixels<const T, INTERIOR> pixels(value, look.z.W, C);
  const Pixels<R, INTERIOR> sums(grad_value, look.z.W, C);
  // Returns what the lane's channels contribute to the point: linear in the four products, so that three sums, not four, are
  // taken over the lanes.
  const auto visit = [&](const Sample<R>& sample) {
    const Corners<R> share = shares(sample.across, sample.down, sample.weight);
    const int position = sample.pixel * C + channel;
    Corners<R> dot{};
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      const Channels<T> found = corner<INTERIOR>(pixels.at(position, c), sample.inside, c);
#pragma unroll
      for (int i = 0; i < team::V; ++i) dot.of[c] += gradient.of[i] * found.of[i];
    }
#pragma unroll
    for (int c = 0; c < 4; ++c)
      if (INTERIOR || (mine && has<INTERIOR>(sample.inside, c))) add(sums.at(position, c), gradient, share.of[c]);
    if (!INTERIOR) __syncwarp();  // together again after the questions
    return point_gradient(dot, sample.across, sample.down);
  };
  const PointGradient<R> centre = visit(look.template sample<INTERIOR>(team::OWN, 0));
  own[team::OWN] = {over_lanes<team::LANES>(centre.weight), over_lanes<team::LANES>(centre.x), over_lanes<team::LANES>(centre.y)};
#pragma unroll
  for (int j = 0; j < team::OWN; ++j) own[j] = visit(look.template sample<INTERIOR>(j, 0));
#pragma unroll(INTERIOR ? team::LANES : 1)
  for (int turn = 1; turn < team::LANES; ++turn) {
#pragma unroll
    for (int j = 0; j < team::OWN; ++j) {
      const PointGradient<R> theirs = visit(look.template sample<INTERIOR>(j, turn));
      own[j].weight += __shfl_xor_sync(ALL, theirs.weight, turn);
      own[j].x += __shfl_xor_sync(ALL, theirs.x, turn);
      own[j].y += __shfl_xor_sync(ALL, theirs.y, turn);
    }
  }
}

template <typename T, int D>
__global__ void __launch_bounds__(THREADS, BACKWARD_BLOCKS)
    backward(Problem<Real<T>> z, const T* __restrict__ grad_output, const T* __restrict__ value, const T* __restrict__ offset,
             const T* __restrict__ mask, Real<T>* __restrict__ grad_value, T* __restrict__ grad_offset,
             T* __restrict__ grad_mask) {
  using R = Real<T>;
  using team = Team<T, D>;
  alignas(16) __shared__ T staged[WARPS][team::UNITS * 3 * POINTS];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int first = (blockIdx.x * WARPS + warp) * team::UNITS, units = z.units - first;
  if (units <= 0) return;
  const int count = units < team::UNITS ? units : team::UNITS;
  T* const offsets = staged[warp];
  T* const masks = offsets + team::UNITS * 2 * POINTS;
  copy<T, D, 2 * POINTS>(offsets, offset + (long long)first * (2 * POINTS), count, lane);
  copy<T, D, POINTS>(masks, mask + (long long)first * POINTS, count, lane);
  __syncwarp();

  const int owned = lane / team::LANES, mine = owned < count ? owned : count - 1;
  const int unit = first + mine, part = lane % team::LANES;
  const Place at = place_of(z, unit);
  const int channel = at.g * D + part * team::V;
  T* const own_offset = offsets + mine * 2 * POINTS;
  T* const own_mask = masks + mine * POINTS;
  const Look<T, D> look(z, at, part, own_offset, own_mask);
  const Channels<T> gradient = load(grad_output + (long long)unit * D + part * team::V);
  PointGradient<R> own[team::OWN + 1];
  if (look.interior && (FULL || count == team::UNITS)) {
    scatter<true>(look, value, channel, gradient, owned < count, grad_value, own);
  } else {
    scatter<false>(look, value, channel, gradient, owned < count, grad_value, own);
  }

  R along = R(0);
#pragma unroll
  for (int j = 0; j < team::OWN; ++j) along += look.own[j].weight * own[j].weight;
  along = over_lanes<team::LANES>(along) + look.own[team::OWN].weight * own[team::OWN].weight;

  // The staged offsets and masks have been read; their places take the gradients, which leave as they came.
  __syncwarp();
#pragma unroll
  for (int j = 0; j <= team::OWN; ++j) {
    if (owned >= count || (j == team::OWN && part > 0)) continue;
    const int k = look.number(j);
    const R weight = look.own[j].weight, factor = weight * z.scale;
    write(own_offset[2 * k], factor * own[j].x);
    write(own_offset[2 * k + 1], factor * own[j].y);
    write(own_mask[k], FULL || z.logits ? logit_gradient(weight, own[j].weight, along) : own[j].weight);
  }
  __syncwarp();
  copy<T, D, 2 * POINTS>(grad_offset + (long long)first * (2 * POINTS), offsets, count, lane);
  copy<T, D, POINTS>(grad_mask + (long long)first * POINTS, masks, count, lane);
}

}  // namespace dcnv3
