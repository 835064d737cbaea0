// The C++ twin of the CUDA kernels: the same mathematics, one unit after the other, channels by the compiler's vectors.
//
// Who owns what. Forward: a thread owns units of the output. Backward: a thread owns (image, group) pairs and with them their
// channels of every gradient, so that no two threads add to one number and the bits do not depend on how many there are.
#include <type_traits>
#include <vector>

#include "dcnv3.h"

namespace dcnv3 {
namespace {

// One unit: its tensors' parts, and the softmax of its masks.
template <typename T>
struct Unit {
  using R = Real<T>;
  const Problem<R>& z;
  const T* moves;
  Point<R> start;
  const std::vector<R>& weights;

  Unit(const Problem<R>& z, const Place& at, const T* offset, const T* mask, std::vector<R>& scratch)
      : z(z), moves(offset), start(start_of(z, at)), weights(scratch) {
    const int points = int(scratch.size());
    for (int k = 0; k < points; ++k) scratch[k] = read(mask[k]);
    if (!z.logits) return;
    R most = scratch[0], total = R(0);
    for (int k = 1; k < points; ++k) most = larger(most, scratch[k]);
    for (int k = 0; k < points; ++k) total += scratch[k] = power(scratch[k] - most);
    for (int k = 0; k < points; ++k) scratch[k] *= R(1) / total;
  }

  // Calls `corner(c, position of its first channel, share)` for the corners inside the image; returns the cell.
  template <typename F>
  Cell<R> visit(int k, F corner) const {
    const Cell<R> cell = cell_of(z, location(z, start, k / z.KH, k % z.KH, read(moves[2 * k]), read(moves[2 * k + 1])));
    const Corners<R> share = shares(cell.across, cell.down, weights[k]);
    for (int c = 0; c < 4; ++c)
      if (cell.inside >> c & 1u)
        corner(c, ((long long)(cell.y + c / 2) * z.W + cell.x + c % 2) * z.G * z.D, share.of[c]);
    return cell;
  }
};

template <typename T>
void forward(const Settings& s, const T* value, const T* offset, const T* mask, T* output, long long first, long long last) {
  using R = Real<T>;
  const Problem<R> z = problem<R>(s);
  const long long image = s.H * s.W * s.G * s.D, points = s.points();
  std::vector<R> sum(s.D), weights(points);
  for (long long unit = first; unit < last; ++unit) {
    const Place at = place_of(z, int(unit));
    const T* const from = value + at.n * image + at.g * s.D;
    const Unit<T> own(z, at, offset + unit * points * 2, mask + unit * points, weights);
    sum.assign(s.D, R(0));
    for (int k = 0; k < points; ++k)
      own.visit(k, [&](int, long long position, R share) {
        for (int d = 0; d < z.D; ++d) sum[d] += share * read(from[position + d]);
      });
    for (int d = 0; d < z.D; ++d) write(output[unit * s.D + d], sum[d]);
  }
}

template <typename T>
void backward(const Settings& s, const T* grad_output, const T* value, const T* offset, const T* mask, Real<T>* sums,
              T* grad_offset, T* grad_mask, long long first, long long last) {
  using R = Real<T>;
  const Problem<R> z = problem<R>(s);
  const long long image = s.H * s.W * s.G * s.D, points = s.points();
  std::vector<R> gradient(s.D), weights(points);
  std::vector<PointGradient<R>> point(points);
  for (long long pair = first; pair < last; ++pair) {
    const long long begin = pair / s.G * image + pair % s.G * s.D;
    for (long long pixel = 0; pixel < s.P * s.Q; ++pixel) {
      const long long unit = (pair / s.G * s.P * s.Q + pixel) * s.G + pair % s.G, e = unit * points;
      const Unit<T> own(z, place_of(z, int(unit)), offset + 2 * e, mask + e, weights);
      for (int d = 0; d < z.D; ++d) gradient[d] = read(grad_output[unit * s.D + d]);
      R along = R(0);
      for (int k = 0; k < points; ++k) {
        Corners<R> dot{};
        const Cell<R> cell = own.visit(k, [&](int c, long long position, R share) {
          const T* const found = value + begin + position;
          R* const sum = sums + begin + position;
          for (int d = 0; d < z.D; ++d) dot.of[c] += gradient[d] * read(found[d]);
          for (int d = 0; d < z.D; ++d) sum[d] += share * gradient[d];
        });
        point[k] = point_gradient(dot, cell.across, cell.down);
        along += weights[k] * point[k].weight;
      }
      for (int k = 0; k < points; ++k) {
        write(grad_offset[2 * (e + k)], weights[k] * z.scale * point[k].x);
        write(grad_offset[2 * (e + k) + 1], weights[k] * z.scale * point[k].y);
        write(grad_mask[e + k], s.logits ? logit_gradient(weights[k], point[k].weight, along) : point[k].weight);
      }
    }
  }
}

template <typename F>
void with_type(Kind kind, F what) {
  switch (kind) {
    case Kind::float32: return what(float{});
    case Kind::float64: return what(double{});
    case Kind::float16: return what(Half{});
    case Kind::bfloat16: return what(BFloat16{});
  }
}

}  // namespace

void cpu_forward(Kind kind, const Settings& s, const void* value, const void* offset, const void* mask, void* output,
                 long long first, long long last) {
  with_type(kind, [&](auto number) {
    using T = decltype(number);
    forward(s, static_cast<const T*>(value), static_cast<const T*>(offset), static_cast<const T*>(mask),
            static_cast<T*>(output), first, last);
  });
}

void cpu_backward(Kind kind, const Settings& s, const void* grad_output, const void* value, const void* offset,
                  const void* mask, void* sums, void* grad_offset, void* grad_mask, long long first, long long last) {
  with_type(kind, [&](auto number) {
    using T = decltype(number);
    backward(s, static_cast<const T*>(grad_output), static_cast<const T*>(value), static_cast<const T*>(offset),
             static_cast<const T*>(mask), static_cast<Real<T>*>(sums), static_cast<T*>(grad_offset),
             static_cast<T*>(grad_mask), first, last);
  });
}

void cpu_round(Kind kind, const float* sums, void* to, long long first, long long last) {
  with_type(kind, [&](auto number) {
    using T = decltype(number);
    if constexpr (sizeof(T) == 2)
      for (long long i = first; i < last; ++i) write(static_cast<T*>(to)[i], sums[i]);
  });
}

}  // namespace dcnv3
