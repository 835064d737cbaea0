// DCNv3 on NVIDIA GPUs: which kernel treats which sizes, and launching it.
//
// Two families. `forward` and `backward` (made.cuh) are made for windows of 3x3 and 8, 16 or 32 channels a group, where the
// image is small enough for 32-bit positions; `backward_in_tiles` (tiles.cuh) for those of them at stride 1 whose tiles are
// mostly full, `backward_by_products` or `backward_by_lists` (products.cuh) for these in 16 bits; and
// `forward_in_window` (window.cuh) the forward of 16 channels.
// `forward_any` and `backward_any` (any.cuh) take every other size, float64, and every deterministic backward. Strides, padding
// and dilation cost one multiplication each and are no constants.
//
// The kernels include nothing but the mathematics, so that NVRTC compiles this file, too; it leaves out the launching.
#include "any.cuh"
#include "products.cuh"
#include "window.cuh"

#if !defined(__CUDACC_RTC__)

#include <type_traits>

namespace dcnv3 {

#if !defined(DCNV3_LAUNCH)  // the tests launch on a CPU
#define DCNV3_LAUNCH(kernel, blocks, stream, ...) \
  (kernel)<<<unsigned(blocks), THREADS, 0, static_cast<cudaStream_t>(stream)>>>(__VA_ARGS__)
#define DCNV3_ANSWER() (cudaPeekAtLastError() == cudaSuccess ? nullptr : cudaGetErrorString(cudaGetLastError()))
#endif

inline long long blocks_for(long long items, long long a_block) { return (items + a_block - 1) / a_block; }

// Calls `what` with a number of the type that `kind` names.
template <typename F>
void with_type(Kind kind, F what) {
  switch (kind) {
    case Kind::float32: return what(float{});
    case Kind::float64: return what(double{});
    case Kind::float16: return what(Half{});
    case Kind::bfloat16: return what(BFloat16{});
  }
}

// Calls `what` with the D that the compiler knows; false where the sizes are not those of the first family.
template <int D>
struct Width {
  static constexpr int width = D;
};
template <typename F>
bool with_width(const Settings& s, F what) {
  if (s.kernel_h != 3 || s.kernel_w != 3 || s.numbers() >= 1ll << 30) return false;
  switch (s.D) {
    case 8: what(Width<8>{}); return true;
    case 16: what(Width<16>{}); return true;
    case 32: what(Width<32>{}); return true;
  }
  return false;
}

// Tiles of all images and groups; 0 where most of them would be empty, or positions need more than 32 bits.
inline long long tiles_of(const Settings& s) {
  const long long tiles = blocks_for(s.P, SIDE) * blocks_for(s.Q, SIDE);
  return tiles * TILE <= 2 * s.P * s.Q && s.units() * s.D < 1ll << 30 ? s.N * s.G * tiles : 0;
}

// Tiles of a backward; 0 where `backward` is better: most points would leave the window, or most of a tile be empty.
inline long long tiles_for(const Settings& s) {
  const double reach = s.scale * (s.dilation_h > s.dilation_w ? s.dilation_h : s.dilation_w);
  const bool fits = s.stride_h == 1 && s.stride_w == 1 && s.D >= 16 && reach <= ABOVE / 2;
  return fits ? tiles_of(s) : 0;
}

// Blocks of `forward_in_window`, 0 where it was not made for the sizes.
inline long long windows_for(const Settings& s) {
  const bool plain = s.stride_h == 1 && s.stride_w == 1 && s.dilation_h == 1 && s.dilation_w == 1;
  return plain && s.D == 16 && (s.scale == 1.0 || s.scale == 2.0) ? tiles_of(s) : 0;
}

Sheets cuda_sheets(Kind kind, const Settings& s, bool in_tiles) {
  const bool narrow = kind == Kind::float16 || kind == Kind::bfloat16;
  const long long tiles = in_tiles && narrow && with_width(s, [](auto) {}) ? tiles_for(s) : 0;
  if (tiles == 0) return {};
  const long long count = s.N * s.G;
  const long long of_sheet = tiles / count, pixels = s.H * s.W;
  return {count, AHEAD + 1 + blocks_for(IN_FLIGHT, of_sheet), of_sheet, pixels * s.D, blocks_for(pixels, of_sheet)};
}

template <typename T>
void run_forward(const Settings& s, const T* value, const T* offset, const T* mask, bool tensor_cores, T* output, void* stream) {
  const auto z = problem<Real<T>>(s);
  if constexpr (sizeof(T) < 8) {  // float64 is for checking gradients
    const auto made = [&](auto width) {
      constexpr int D = decltype(width)::width;
      if constexpr (sizeof(T) == 2 && D == 16) {
        if (const long long tiles = tensor_cores ? windows_for(s) : 0) {
          const auto kernel = s.scale == 1.0 ? forward_in_window<T, 1> : forward_in_window<T, 2>;
          DCNV3_LAUNCH(kernel, tiles, stream, z, value, offset, mask, output);
          return;
        }
      }
      DCNV3_LAUNCH((forward<T, D>), blocks_for(s.units(), WARPS * Team<T, D>::UNITS), stream, z, value, offset, mask, output);
    };
    if (with_width(s, made)) return;
  }
  DCNV3_LAUNCH(forward_any<T>, blocks_for(s.units() * s.D, THREADS), stream, z, value, offset, mask, output);
}

template <typename T>
void run_backward(const Settings& s, const T* grad_output, const T* value, const T* offset, const T* mask, void* sums,
                  double* sizes, unsigned* counters, const Sheets& sheets, bool in_tiles, bool tensor_cores, T* grad_value,
                  T* grad_offset, T* grad_mask, void* stream) {
  using R = Real<T>;
  const auto z = problem<R>(s);
  if constexpr (sizeof(T) == 2) {
    const Ring ring{static_cast<float*>(sums), counters, int(sheets.count), int(sheets.slice), divider(sheets.length)};
    const auto made = [&](auto width) {
      constexpr int D = decltype(width)::width;
      if constexpr (D >= 16) {
        const auto kernel = tensor_cores ? backward_by_products<T, D> : backward_by_lists<T, D>;
        DCNV3_LAUNCH(kernel, sheets.blocks(), stream, z, ring, grad_output, value, offset, mask, grad_value, grad_offset, grad_mask);
      }
    };
    if (sheets.count > 0 && with_width(s, made)) return;
  }
  const long long numbers = s.numbers(), most = 4096;  // blocks that stride over a tensor
  const auto finished = [&](auto* store) {
    using Store = std::remove_pointer_t<decltype(store)>;
    const long long blocks = blocks_for(numbers, 4 * THREADS);
    DCNV3_LAUNCH((finish<T, Store>), blocks < most ? blocks : most, stream, z, store, sizes, grad_value, numbers);
  };
  if (sizes) {
    const auto measure = [&](const T* from, long long count, double* size) {
      const long long blocks = blocks_for(count, 4 * THREADS);
      DCNV3_LAUNCH(largest<T>, blocks < most ? blocks : most, stream, from, count, size);
    };
    measure(grad_output, s.units() * s.D, sizes);
    if (!s.logits) measure(mask, s.units() * s.points(), sizes + 1);
    auto* const store = static_cast<unsigned long long*>(sums);
    DCNV3_LAUNCH((backward_any<T, unsigned long long>), blocks_for(s.units(), WARPS), stream, z, grad_output, value, offset,
                 mask, sizes, store, grad_offset, grad_mask);
    return finished(store);
  }
  R* const store = static_cast<R*>(sums);
  bool done = false;
  if constexpr (sizeof(T) < 8) {
    const auto made = [&](auto width) {
      constexpr int D = decltype(width)::width;
      if constexpr (D >= 16 && sizeof(T) == 4) {
        if (const long long tiles = in_tiles ? tiles_for(s) : 0) {
          DCNV3_LAUNCH((backward_in_tiles<T, D>), tiles, stream, z, grad_output, value, offset, mask, store, grad_offset, grad_mask);
          return;
        }
      }
      DCNV3_LAUNCH((backward<T, D>), blocks_for(s.units(), WARPS * Team<T, D>::UNITS), stream, z, grad_output, value, offset,
                   mask, store, grad_offset, grad_mask);
    };
    done = with_width(s, made);
  }
  if (!done)
    DCNV3_LAUNCH((backward_any<T, R>), blocks_for(s.units(), WARPS), stream, z, grad_output, value, offset, mask,
                 static_cast<const double*>(nullptr), store, grad_offset, grad_mask);
  if (static_cast<void*>(store) != static_cast<void*>(grad_value)) finished(store);
}

const char* cuda_forward(Kind kind, const Settings& s, const void* value, const void* offset, const void* mask,
                         bool tensor_cores, void* output, void* stream) {
  with_type(kind, [&](auto number) {
    using T = decltype(number);
    run_forward(s, static_cast<const T*>(value), static_cast<const T*>(offset), static_cast<const T*>(mask),
                tensor_cores, static_cast<T*>(output), stream);
  });
  return DCNV3_ANSWER();
}

const char* cuda_backward(Kind kind, const Settings& s, const void* grad_output, const void* value, const void* offset,
                          const void* mask, void* sums, double* sizes, unsigned* counters, bool in_tiles, bool tensor_cores,
                          void* grad_value, void* grad_offset, void* grad_mask, void* stream) {
  const Sheets sheets = counters ? cuda_sheets(kind, s, in_tiles) : Sheets{};
  with_type(kind, [&](auto number) {
    using T = decltype(number);
    run_backward(s, static_cast<const T*>(grad_output), static_cast<const T*>(value), static_cast<const T*>(offset),
                 static_cast<const T*>(mask), sums, sizes, counters, sheets, in_tiles, tensor_cores,
                 static_cast<T*>(grad_value), static_cast<T*>(grad_offset), static_cast<T*>(grad_mask), stream);
  });
  return DCNV3_ANSWER();
}

}  // namespace dcnv3

#endif
