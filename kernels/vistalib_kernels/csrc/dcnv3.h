// The mathematics of DCNv3 for one output pixel and one group, the same lines on CPUs and on GPUs.
//
// Everything here is a plain inline function of numbers: no loads, no threads. The C++ twin and the CUDA kernels differ only in
// who calls what. The file includes nothing on a GPU, so that NVRTC compiles it on machines without any CUDA headers.
//
// Letters: N images, H x W input, P x Q output, G groups of D channels, K = KH * KW points, k = column * KH + row.
// A unit is one (output pixel, group); units are counted in the order of memory: ((n * P + p) * Q + q) * G + g.
#pragma once

#if defined(__CUDACC__)
#define DCNV3_INLINE __host__ __device__ __forceinline__
#else
#include <cmath>
#define DCNV3_INLINE inline
#endif

namespace dcnv3 {

// ---- numbers of sixteen bits: storage only, every sum is taken in float -------------------------------------------------

struct Half {
  unsigned short bits;
};
struct BFloat16 {
  unsigned short bits;
};

template <typename T>
struct Sum {
  using type = float;  // coordinates and sums of T
};
template <>
struct Sum<double> {
  using type = double;
};
template <typename T>
using Real = typename Sum<T>::type;

union Word {
  unsigned bits;
  float number;
};

DCNV3_INLINE float as_float(unsigned bits) {
  Word word;
  word.bits = bits;
  return word.number;
}
DCNV3_INLINE unsigned as_bits(float number) {
  Word word;
  word.number = number;
  return word.bits;
}

DCNV3_INLINE float read(float x) { return x; }
DCNV3_INLINE double read(double x) { return x; }
DCNV3_INLINE float read(BFloat16 x) { return as_float(unsigned(x.bits) << 16); }
DCNV3_INLINE float read(Half x) {
#if defined(__CUDA_ARCH__)
  float number;
  asm("cvt.f32.f16 %0, %1;" : "=f"(number) : "h"(x.bits));
  return number;
#else
  const unsigned sign = unsigned(x.bits & 0x8000) << 16, rest = x.bits & 0x7fff;
  if (rest >= 0x7c00) return as_float(sign | 0x7f800000 | (rest & 0x3ff) << 13);  // infinity and NaN
  // Exponent and fraction moved to their places in a float; multiplying by 2**112 mends the bias, subnormals included.
  return as_float(sign | as_bits(as_float(rest << 13) * 5.192296858534828e33f));
#endif
}

DCNV3_INLINE void write(float& to, float x) { to = x; }
DCNV3_INLINE void write(double& to, double x) { to = x; }
DCNV3_INLINE void write(BFloat16& to, float x) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(to.bits) : "f"(x));
#else
  const unsigned bits = as_bits(x);
  to.bits = x == x ? (unsigned short)((bits + 0x7fff + (bits >> 16 & 1)) >> 16) : 0x7fff;  // to nearest, ties to even
#endif
}
DCNV3_INLINE void write(Half& to, float x) {
#if defined(__CUDA_ARCH__)
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(to.bits) : "f"(x));
#else
  const unsigned bits = as_bits(x), sign = bits >> 16 & 0x8000, size = bits & 0x7fffffff;
  if (size > 0x7f800000) {
    to.bits = 0x7fff;
  } else if (size >= 0x477ff000) {  // 65520 and more
    to.bits = (unsigned short)(sign | 0x7c00);
  } else if (size < 0x38800000) {  // below 2**-14: adding 2**-1 leaves the subnormal's digits, rounded, at the end
    to.bits = (unsigned short)(sign | (as_bits(as_float(size) + 0.5f) - 0x3f000000));
  } else {
    to.bits = (unsigned short)(sign | (size - 0x38000000 + 0xfff + (size >> 13 & 1)) >> 13);
  }
#endif
}

// Output pixels of a side of a tile, for the kernels that work on tiles.
constexpr int SIDE = 16;

// ---- sizes ---------------------------------------------------------------------------------------------------------------

// Division of 0 <= x < 2**31 by a number known before the launch: one high multiplication and a shift.
struct Divider {
  unsigned divisor, factor, shift;

  DCNV3_INLINE unsigned operator()(unsigned x) const {
#if defined(__CUDA_ARCH__)
    return divisor == 1 ? x : __umulhi(x, factor) >> shift;
#else
    return divisor == 1 ? x : unsigned((unsigned long long)x * factor >> 32) >> shift;
#endif
  }
};

template <typename R>
struct Problem {
  int units;  // N * P * Q * G
  int H, W, P, Q, G, D, KH, KW, SH, SW, DH, DW;
  int left, top;     // of the window's centre at output pixel 0: centre of the window minus padding
  int logits;        // the mask is given before its softmax
  R scale;           // of the window and its offsets, about its centre
  R half_w, half_h;  // half the stretched window
  Divider by_G, by_Q, by_P;
  Divider by_across, by_down;  // tiles in a row, in a column
};

struct Place {
  int n, p, q, g;
};

template <typename R>
DCNV3_INLINE Place place_of(const Problem<R>& z, int unit) {
  const int pixel = int(z.by_G(unsigned(unit))), row = int(z.by_Q(unsigned(pixel))), n = int(z.by_P(unsigned(row)));
  return {n, row - n * z.P, pixel - row * z.Q, unit - pixel * z.G};
}

// ---- where a point samples -----------------------------------------------------------------------------------------------

// a * b + c with both operations rounded. Nothing is fused here, so that a location that is whole in the definition is whole.
DCNV3_INLINE float stretch(float a, float b, float c) {
#if defined(__CUDA_ARCH__)
  return __fadd_rn(__fmul_rn(a, b), c);
#else
  return a * b + c;  // compiled with -ffp-contract=off
#endif
}
DCNV3_INLINE double stretch(double a, double b, double c) {
#if defined(__CUDA_ARCH__)
  return __dadd_rn(__dmul_rn(a, b), c);
#else
  return a * b + c;
#endif
}

template <typename R>
struct Point {
  R x, y;
};

// The window's top left point at an output pixel.
template <typename R>
DCNV3_INLINE Point<R> start_of(const Problem<R>& z, const Place& at) {
  return {R(at.q * z.SW + z.left) - z.half_w, R(at.p * z.SH + z.top) - z.half_h};
}

// Point (column, row) of the window, moved by its offset.
template <typename R>
DCNV3_INLINE Point<R> location(const Problem<R>& z, Point<R> start, int column, int row, R offset_x, R offset_y) {
  return {stretch(R(column * z.DW) + offset_x, z.scale, start.x), stretch(R(row * z.DH) + offset_y, z.scale, start.y)};
}

// The cell a location lies in: its top left pixel, how far beyond it, and one bit for each corner inside the image
// (1 top left, 2 top right, 4 bottom left, 8 bottom right). A dropped point has no corner.
template <typename R>
struct Cell {
  int x, y;
  R across, down;
  unsigned inside;
};

template <typename R>
DCNV3_INLINE Cell<R> cell_of(const Problem<R>& z, Point<R> at) {
  if (!(at.x > R(-1) && at.x < R(z.W) && at.y > R(-1) && at.y < R(z.H))) return {0, 0, R(0), R(0), 0u};  // NaN, too
#if !defined(__CUDACC__)
  using std::floor;
#endif
  const R low_x = floor(at.x), low_y = floor(at.y);
  const int x = int(low_x), y = int(low_y);
  const unsigned columns = (x >= 0 ? 1u : 0u) | (x < z.W - 1 ? 2u : 0u);
  const unsigned inside = (y >= 0 ? columns : 0u) | (y < z.H - 1 ? columns << 2 : 0u);
  return {x, y, at.x - low_x, at.y - low_y, inside};
}

// All four corners of the cell are inside, so nothing has to be asked of any of them. False for NaN.
template <typename R>
DCNV3_INLINE bool is_interior(const Problem<R>& z, Point<R> at) {
  return (at.x >= R(0)) & (at.x < R(z.W - 1)) & (at.y >= R(0)) & (at.y < R(z.H - 1));  // no branches
}

// The share of each corner.
template <typename R>
struct Corners {
  R of[4];
};

template <typename R>
DCNV3_INLINE Corners<R> shares(R across, R down, R weight) {
  const R bottom = down * weight, top = weight - bottom, bottom_right = bottom * across, top_right = top * across;
  return {{top - top_right, top_right, bottom - bottom_right, bottom_right}};
}

// ---- gradients -----------------------------------------------------------------------------------------------------------

// What one point's weight and location get, from the products of grad_output with its corners (0 for a corner outside).
template <typename R>
struct PointGradient {
  R weight, x, y;  // x and y still lack the factors weight and scale
};

template <typename R>
DCNV3_INLINE PointGradient<R> point_gradient(const Corners<R>& dot, R across, R down) {
  const R to_right_top = dot.of[1] - dot.of[0], to_right_bottom = dot.of[3] - dot.of[2];
  const R top = dot.of[0] + across * to_right_top, bottom = dot.of[2] + across * to_right_bottom;
  return {top + down * (bottom - top), to_right_top + down * (to_right_bottom - to_right_top), bottom - top};
}

// ---- softmax over the points ---------------------------------------------------------------------------------------------

DCNV3_INLINE float power(float x) {  // e**x for x <= 0
#if defined(__CUDA_ARCH__)
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x * 1.4426950408889634f));
  return result;
#else
  return std::exp(x);
#endif
}
DCNV3_INLINE double power(double x) {
#if defined(__CUDA_ARCH__)
  return exp(x);
#else
  return std::exp(x);
#endif
}

DCNV3_INLINE float reciprocal(float x) {  // of a sum that begins with e**0
#if defined(__CUDA_ARCH__)
  float result;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
#else
  return 1.0f / x;
#endif
}
DCNV3_INLINE double reciprocal(double x) { return 1.0 / x; }

// The larger one. A NaN is passed over: it comes back by the sum of the powers.
DCNV3_INLINE float larger(float a, float b) {
#if defined(__CUDA_ARCH__)
  return fmaxf(a, b);
#else
  return std::fmax(a, b);
#endif
}
DCNV3_INLINE double larger(double a, double b) {
#if defined(__CUDA_ARCH__)
  return fmax(a, b);
#else
  return std::fmax(a, b);
#endif
}

// From the gradient of a weight to that of its logit; `along` is the sum over the points of weight * gradient.
template <typename R>
DCNV3_INLINE R logit_gradient(R weight, R gradient, R along) {
  return weight * (gradient - along);
}

// ---- sums in fixed point -------------------------------------------------------------------------------------------------

// Integers add up to the same sum in any order. A sum of at most 2**count_digits numbers, each below 2**size_digits, is counted
// in units of 2**-fixed_digits, as fine as 63 bits allow.
DCNV3_INLINE int fixed_digits(int count_digits, int size_digits) {
  const int digits = 62 - count_digits - size_digits;
  return digits < 1000 ? digits : 1000;
}

// ---- the same from outside: sizes as the caller knows them ---------------------------------------------------------------

#if !defined(__CUDACC_RTC__)

enum class Kind { float32, float64, float16, bfloat16 };

struct Settings {
  long long N, H, W, P, Q, G, D;
  int kernel_h, kernel_w, stride_h, stride_w, padding_h, padding_w, dilation_h, dilation_w;
  double scale;
  bool logits;

  long long units() const { return N * P * Q * G; }
  long long numbers() const { return N * H * W * G * D; }  // of value
  long long points() const { return (long long)kernel_h * kernel_w; }
};

inline Divider divider(unsigned long long by) {
  if (by <= 1) return {1, 0, 0};
  unsigned shift = 0;  // 2**shift >= by
  while ((1ull << shift) < by) ++shift;
  return {unsigned(by), unsigned(((1ull << (31 + shift)) + by - 1) / by), shift - 1};
}

template <typename R>
inline Problem<R> problem(const Settings& s) {
  Problem<R> z{};
  z.units = int(s.units());
  z.H = int(s.H), z.W = int(s.W), z.P = int(s.P), z.Q = int(s.Q), z.G = int(s.G), z.D = int(s.D);
  z.KH = s.kernel_h, z.KW = s.kernel_w, z.SH = s.stride_h, z.SW = s.stride_w, z.DH = s.dilation_h, z.DW = s.dilation_w;
  const int centre_x = s.dilation_w * (s.kernel_w - 1) / 2, centre_y = s.dilation_h * (s.kernel_h - 1) / 2;
  z.left = centre_x - s.padding_w, z.top = centre_y - s.padding_h;
  z.logits = s.logits;
  z.scale = R(s.scale), z.half_w = R(centre_x * s.scale), z.half_h = R(centre_y * s.scale);
  z.by_G = divider(s.G), z.by_Q = divider(s.Q), z.by_P = divider(s.P);
  z.by_across = divider((s.Q + SIDE - 1) / SIDE), z.by_down = divider((s.P + SIDE - 1) / SIDE);
  return z;
}

// The C++ twin: units [first, last) of the output; and (image, group) pairs [first, last) of the gradients, whose sums, float
// or double for float64, must begin at zero.
void cpu_forward(Kind kind, const Settings& s, const void* value, const void* offset, const void* mask, void* output,
                 long long first, long long last);
void cpu_backward(Kind kind, const Settings& s, const void* grad_output, const void* value, const void* offset,
                  const void* mask, void* sums, void* grad_offset, void* grad_mask, long long first, long long last);
// From the sums in float to the gradient of sixteen bits.
void cpu_round(Kind kind, const float* sums, void* to, long long first, long long last);

// The memory of a backward whose sums lie in a ring (sheets.cuh), all zero where they do not.
struct Sheets {
  long long count, length;          // images times groups, each a sheet; places in the ring
  long long tiles, numbers, slice;  // of a sheet; pixels of a slice, one for each tile

  long long sums() const { return (count < length ? count : length) * numbers; }
  long long counters() const { return 1 + 2 * count; }
  long long blocks() const { return (count + length) * tiles; }
};
Sheets cuda_sheets(Kind kind, const Settings& s, bool in_tiles);

// On the GPU, in the order of `stream`; nullptr, or what the launch answered. Tensors begin at multiples of 16 bytes.
// Where there are `sheets`, `sums` are floats that need not be set, and `counters` zeros. Else `counters` is nullptr and `sums`
// begins at zero: it is grad_value itself where that is float or double, else a float tensor, else, with `sizes` (two zeros),
// integers for a result that is the same every time.
// `in_tiles` allows the kernels that add on chip, where they suit; without it every corner is added to memory. `tensor_cores`
// allows those by tensor cores. Both are there to be compared.
const char* cuda_forward(Kind kind, const Settings& s, const void* value, const void* offset, const void* mask, bool tensor_cores,
                         void* output, void* stream);
const char* cuda_backward(Kind kind, const Settings& s, const void* grad_output, const void* value, const void* offset,
                          const void* mask, void* sums, double* sizes, unsigned* counters, bool in_tiles, bool tensor_cores,
                          void* grad_value, void* grad_offset, void* grad_mask, void* stream);

#endif

}  // namespace dcnv3
