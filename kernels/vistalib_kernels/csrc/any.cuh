// The kernels for every size and dtype, for every deterministic backward, and what comes before and after a backward.
//
// Who owns what is said at each. Positions are 64-bit, points are not unrolled, channels lie side by side on lanes.
#pragma once

#include "made.cuh"

namespace dcnv3 {

// The softmax of a unit's masks, one point at a time.
template <typename T>
struct Masks {
  using R = Real<T>;
  const T* mask;
  R largest = R(0), share = R(1);
  bool logits;

  __device__ Masks(const T* mask, int points, bool logits) : mask(mask), logits(logits) {
    if (!logits) return;
    largest = read(mask[0]);
    for (int k = 1; k < points; ++k) largest = larger(largest, read(mask[k]));
    R total = R(0);
    for (int k = 0; k < points; ++k) total += power(read(mask[k]) - largest);
    share = reciprocal(total);
  }
  __device__ R operator[](int k) const {
    const R x = read(mask[k]);
    return logits ? power(x - largest) * share : x;
  }
};

// A thread owns one channel of one unit.
template <typename T>
__global__ void __launch_bounds__(THREADS)
    forward_any(Problem<Real<T>> z, const T* __restrict__ value, const T* __restrict__ offset, const T* __restrict__ mask,
                T* __restrict__ output) {
  using R = Real<T>;
  const long long thread = (long long)blockIdx.x * THREADS + threadIdx.x;
  if (thread >= (long long)z.units * z.D) return;
  const int unit = int(thread / z.D), points = z.KH * z.KW;
  const Place at = place_of(z, unit);
  const Point<R> start = start_of(z, at);
  const long long C = (long long)z.G * z.D, steps[2] = {0, C};
  const T* const from = value + (long long)at.n * z.H * z.W * C + at.g * z.D + thread % z.D;
  const T* const moves = offset + (long long)unit * points * 2;
  const Masks<T> masks(mask + (long long)unit * points, points, z.logits);
  R sum = R(0);
  for (int k = 0; k < points; ++k) {
    const Cell<R> cell = cell_of(z, location(z, start, k / z.KH, k % z.KH, read(moves[2 * k]), read(moves[2 * k + 1])));
    const Corners<R> share = shares(cell.across, cell.down, masks[k]);
#pragma unroll
    for (int c = 0; c < 4; ++c)
      if (cell.inside >> c & 1u)
        sum += share.of[c] * read(from[((long long)(cell.y + c / 2) * z.W + cell.x) * C + steps[c % 2]]);
  }
  write(output[thread], sum);
}

__device__ __forceinline__ void add_one(float* to, float x, double) { atomicAdd(to, x); }
__device__ __forceinline__ void add_one(double* to, double x, double) { atomicAdd(to, x); }
__device__ __forceinline__ void add_one(unsigned long long* to, double x, double unit) {
  atomicAdd(to, (unsigned long long)__double2ll_rn(x * unit));  // a negative number is its complement: sums come out right
}

// The units of a fixed-point sum, from the largest |grad_output| and |mask|, which `largest` left in `sizes`.
template <typename R>
__device__ __forceinline__ int digits_of_sum(const Problem<R>& z, const double* sizes) {
  const long long count = (long long)z.P * z.Q * z.KH * z.KW;  // a pixel's channel gets no more than that
  int size = 0;
  for (int i = 0; i < (z.logits ? 1 : 2); ++i) size += sizes[i] > 0.0 && isfinite(sizes[i]) ? ilogb(sizes[i]) + 1 : 0;
  return fixed_digits(64 - __clzll(count), size);
}

// A warp owns one unit; its lanes stand for channels. `Store` is the type of the sums: float, double, or integers, which add up
// to the same bits in any order. The softmax needs a sum over all points before it can write the first, so it looks twice.
template <typename T, typename Store>
__device__ __forceinline__ void backward_of_unit(const Problem<Real<T>>& z, long long unit, int lane, const T* grad_output,
                                                 const T* value, const T* offset, const T* mask, const double* sizes,
                                                 const Sheet<Store>& sums, T* grad_offset, T* grad_mask) {
  using R = Real<T>;
  const int points = z.KH * z.KW;
  const Place at = place_of(z, int(unit));
  const Point<R> start = start_of(z, at);
  const long long C = (long long)z.G * z.D;
  const T* const from = value + (long long)at.n * z.H * z.W * C + at.g * z.D;
  const T* const moves = offset + unit * points * 2;
  const T* const arrived = grad_output + unit * z.D;
  const Masks<T> masks(mask + unit * points, points, z.logits);
  const double one = sizes ? exp2(double(digits_of_sum(z, sizes))) : 1.0;
  R along = R(0);
  for (int turn = z.logits ? 0 : 1; turn < 2; ++turn) {
    for (int k = 0; k < points; ++k) {
      const Cell<R> cell = cell_of(z, location(z, start, k / z.KH, k % z.KH, read(moves[2 * k]), read(moves[2 * k + 1])));
      const R weight = masks[k];
      const Corners<R> share = shares(cell.across, cell.down, weight);
      Corners<R> dot{};
#pragma unroll
      for (int c = 0; c < 4; ++c) {
        const bool inside = cell.inside >> c & 1u;
        const long long pixel = (long long)(cell.y + c / 2) * z.W + cell.x + c % 2;
        for (int d = lane; d < z.D; d += 32) {
          const R gradient = read(arrived[d]);
          dot.of[c] += gradient * (inside ? read(from[pixel * C + d]) : R(0));  // NaN outside, too, where it is not finite
          if (inside && turn == 1) add_one(sums.of + pixel * sums.step + d, share.of[c] * gradient, one);
        }
      }
      const PointGradient<R> part = point_gradient(dot, cell.across, cell.down);
      const R found = over_lanes<32>(part.weight);
      if (turn == 0) {
        along += weight * found;
        continue;
      }
      const R x = over_lanes<32>(part.x), y = over_lanes<32>(part.y);
      if (lane == 0) {
        const long long e = unit * points + k;
        write(grad_offset[2 * e], weight * z.scale * x);
        write(grad_offset[2 * e + 1], weight * z.scale * y);
        write(grad_mask[e], z.logits ? logit_gradient(weight, found, along) : found);
      }
    }
  }
}

template <typename T, typename Store>
__global__ void __launch_bounds__(THREADS)
    backward_any(Problem<Real<T>> z, const T* __restrict__ grad_output, const T* __restrict__ value,
                 const T* __restrict__ offset, const T* __restrict__ mask, const double* __restrict__ sizes,
                 Store* __restrict__ grad_value, T* __restrict__ grad_offset, T* __restrict__ grad_mask) {
  const long long unit = (long long)blockIdx.x * WARPS + threadIdx.x / 32;
  if (unit >= z.units) return;
  const Place at = place_of(z, int(unit));
  const Sheet<Store> sums{grad_value + ((long long)at.n * z.H * z.W * z.G + at.g) * z.D, z.G * z.D};
  backward_of_unit(z, unit, int(threadIdx.x % 32), grad_output, value, offset, mask, sizes, sums, grad_offset, grad_mask);
}

// The largest |x| of a tensor, into `size`, which begins at zero. The bits of positive numbers are ordered as they are; NaN is
// last.
template <typename T>
__global__ void __launch_bounds__(THREADS) largest(const T* __restrict__ from, long long count, double* size) {
  double most = 0.0;
  for (long long i = (long long)blockIdx.x * THREADS + threadIdx.x; i < count; i += (long long)gridDim.x * THREADS)
    if (const double size = fabs(double(read(from[i]))); !(size <= most)) most = size;
  atomicMax(reinterpret_cast<unsigned long long*>(size), (unsigned long long)__double_as_longlong(most));
}

__device__ __forceinline__ float number(float sum, double) { return sum; }
__device__ __forceinline__ double number(double sum, double) { return sum; }
__device__ __forceinline__ double number(unsigned long long sum, double unit) { return double((long long)sum) * unit; }

// From sums to the gradient in its own dtype. Where a number was not finite, fixed-point sums mean nothing, and all are NaN.
template <typename T, typename Store>
__global__ void __launch_bounds__(THREADS)
    finish(Problem<Real<T>> z, const Store* __restrict__ sums, const double* __restrict__ sizes, T* __restrict__ to,
           long long count) {
  const bool known = !sizes || (isfinite(sizes[0]) && (z.logits || isfinite(sizes[1])));
  const double one = sizes && known ? exp2(-double(digits_of_sum(z, sizes))) : 1.0;
  for (long long i = (long long)blockIdx.x * THREADS + threadIdx.x; i < count; i += (long long)gridDim.x * THREADS)
    write(to[i], known ? Real<T>(number(sums[i], one)) : Real<T>(nanf("")));
}

}  // namespace dcnv3
