// Tensor cores: products of matrices of 16 bits a number, with sums in float32; the kernels choose what goes into them.
#pragma once

#include "made.cuh"

namespace dcnv3 {

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
constexpr bool TENSOR_CORES = false;  // of this kind: kernels go another way
#else
constexpr bool TENSOR_CORES = true;
#endif

// ---- matrices of 16 bits a number, 8 x 8 in a register of all lanes ------------------------------------------------------

struct Matrices {
  unsigned of[4];
};

// Lane i names row i % 8 of matrix i / 8, 16 bytes of shared memory; it gets numbers i % 4 * 2 and the next of row i / 4 of
// each, or of column i / 4.
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

// sum += a b. Of a, 16 x 16, the matrices are top left, bottom left, top right, bottom right; of b, 16 x 8 and given by
// columns, top and bottom. Of the sum, a lane has numbers i % 4 * 2 and the next of rows i / 4 and i / 4 + 8.
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

// a b + c for half as many columns of a, 16 x 8, top and bottom, and b of 8 x 8.
struct Product {
  float of[4];
};
__device__ __forceinline__ Product multiplied(unsigned top, unsigned bottom, unsigned b, const Product& c, BFloat16) {
  Product sum = c;
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm("mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%7, %8, %9, %10};"
      : "=f"(sum.of[0]), "=f"(sum.of[1]), "=f"(sum.of[2]), "=f"(sum.of[3])
      : "r"(top), "r"(bottom), "r"(b), "f"(c.of[0]), "f"(c.of[1]), "f"(c.of[2]), "f"(c.of[3]));
#elif !defined(__CUDACC__)
  cpu_multiply_add<BFloat16>(sum.of, {top, bottom, 0u, 0u}, b, 0u);
#endif
  return sum;
}
__device__ __forceinline__ Product multiplied(unsigned top, unsigned bottom, unsigned b, const Product& c, Half) {
  Product sum = c;
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%7, %8, %9, %10};"
      : "=f"(sum.of[0]), "=f"(sum.of[1]), "=f"(sum.of[2]), "=f"(sum.of[3])
      : "r"(top), "r"(bottom), "r"(b), "f"(c.of[0]), "f"(c.of[1]), "f"(c.of[2]), "f"(c.of[3]));
#elif !defined(__CUDACC__)
  cpu_multiply_add<Half>(sum.of, {top, bottom, 0u, 0u}, b, 0u);
#endif
  return sum;
}

// ---- a float as two numbers of 16 bits -----------------------------------------------------------------------------------

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

}  // namespace dcnv3
