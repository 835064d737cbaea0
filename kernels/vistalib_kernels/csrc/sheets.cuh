// The sums of a backward in 16 bits: cleared, added to and rounded by one launch, in a ring of memory that stays in L2.
//
// Why. Gradients of 16 bits are summed in float. A tensor of such sums is cleared before the kernel that adds to it and rounded
// after it: ten bytes a number through memory, a quarter of the time of everything else.
//
// A sheet is the sums of one image and group, which no other image or group adds to. There are a few of them, in a ring, and a
// place in it serves one sheet after another. Blocks draw tickets; those of turn u, one for each tile of a sheet,
//   round a slice of sheet u - length, and clear it for sheet u, which takes its place;
//   add a tile of sheet u - AHEAD.
// They wait until the sheet that they round has all its tiles, and the one that they add to is clear. Both is done by tickets
// drawn before, whose blocks are running or have ended: nobody waits for a block that has not begun. In so long a ring nobody
// waits long: at least IN_FLIGHT tickets lie between a tile of a sheet and a slice that waits for it.
#pragma once

#include "tiles.cuh"

namespace dcnv3 {

#if !defined(DCNV3_IN_FLIGHT)  // the tests have a shorter ring
#define DCNV3_IN_FLIGHT 512    // blocks, more than run at once on an H200
#endif
constexpr int AHEAD = 2, IN_FLIGHT = DCNV3_IN_FLIGHT;  // turns from clearing to adding; tickets from adding to rounding

struct Ring {
  float* sums;         // `length` sheets, or all of them where there are fewer, each of (H, W, D)
  unsigned* counters;  // zero at first: tickets drawn; of each sheet, slices that are clear, tiles that are added
  int sheets, slice;   // slice: pixels of one
  Divider by_length;

  __device__ __forceinline__ unsigned* clear(int sheet) const { return counters + 1 + 2 * sheet; }
  __device__ __forceinline__ unsigned* added(int sheet) const { return counters + 2 + 2 * sheet; }
};

// ---- what blocks tell each other -----------------------------------------------------------------------------------------

// Whoever waits for the count sees all that the block has written before.
__device__ __forceinline__ void count_up(unsigned* counter) {
  __syncthreads();
#if defined(__CUDA_ARCH__)
  if (threadIdx.x == 0) asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(counter) : "memory");
#elif !defined(__CUDACC__)
  if (threadIdx.x == 0) atomicAdd(counter, 1u);
#endif
}

__device__ __forceinline__ void wait_for(const unsigned* counter, unsigned count) {
#if defined(__CUDA_ARCH__)
  if (threadIdx.x == 0) {
    for (unsigned there = 0u;;) {
      asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(there) : "l"(counter) : "memory");
      if (FULL || there >= count) break;
      __nanosleep(100);
    }
  }
#elif !defined(__CUDACC__)
  if (threadIdx.x == 0) cpu_wait_for(counter, count);
#endif
  __syncthreads();
}

// Four sums out of L2: L1 may have an older sheet's.
__device__ __forceinline__ Channels<float> load_from_l2(const float* from) {
#if defined(__CUDA_ARCH__)
  uint4 raw;
  asm volatile("ld.global.cg.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(raw.x), "=r"(raw.y), "=r"(raw.z), "=r"(raw.w) : "l"(from));
  return unpack(raw, float{});
#else
  return load(from);
#endif
}

// ---- a ticket ------------------------------------------------------------------------------------------------------------

// A slice of a place in the ring, pixels `first` and on: rounded into the gradient of sheet `before`, cleared for another, as
// asked.
template <typename T, int D>
__device__ __forceinline__ void turn_over(const Problem<float>& z, const Ring& ring, int first, bool round, bool clear, int before,
                                          float* sums, T* grad_value) {
  constexpr int EACH = 8, PARTS = D / EACH, TURN = 4;  // numbers of a thread, 16 bytes of gradients; at a time
  const int pixels = z.H * z.W, left = pixels - first, count = (left < ring.slice ? left : ring.slice) * PARTS;
  const int n = int(z.by_G(unsigned(before))), C = z.G * D, part = threadIdx.x % PARTS * EACH;
  const unsigned begin = unsigned((n * pixels + first) * C + (before - n * z.G) * D + part);
#pragma unroll 1
  for (int i = threadIdx.x; i < count; i += TURN * THREADS) {
    T* const to = grad_value + (begin + unsigned(i / PARTS * C));
    float* const from = sums + unsigned(first * D + i * EACH);
    Channels<float> of[TURN][2];
#pragma unroll
    for (int j = 0; j < TURN; ++j)
      if (round && i + j * THREADS < count)
        of[j][0] = load_from_l2(from + j * THREADS * EACH), of[j][1] = load_from_l2(from + (j * THREADS * EACH + 4));
#pragma unroll
    for (int j = 0; j < TURN; ++j) {
      if (i + j * THREADS >= count) continue;
      if (round) {
        Channels<T> all;
#pragma unroll
        for (int k = 0; k < EACH; ++k) all.of[k] = of[j][k / 4].of[k % 4];
        *reinterpret_cast<uint4*>(to + unsigned(j * (THREADS / PARTS) * C)) = pack(all);
      }
      uint4* const here = reinterpret_cast<uint4*>(from + j * THREADS * EACH);
      if (clear) here[0] = here[1] = uint4{0u, 0u, 0u, 0u};
    }
  }
}

// Does what the next ticket asks for; `add`, called with a tile and its sheet, adds the tile.
template <typename T, int D, typename Add>
__device__ __forceinline__ void in_sheets(const Problem<float>& z, const Ring& ring, T* grad_value, Add add) {
  __shared__ unsigned drawn;
  if (threadIdx.x == 0) drawn = atomicAdd(ring.counters, 1u);
  __syncthreads();
  const int across = int(z.by_across.divisor), down = int(z.by_down.divisor), ticket = int(drawn);
  const int row = int(z.by_across(drawn)), turn = int(z.by_down(unsigned(row)));
  const int length = int(ring.by_length.divisor), before = turn - length, sheet = turn - AHEAD;
  const int place = turn - int(ring.by_length(unsigned(turn))) * length, behind = place - AHEAD;
  const auto sums_at = [&](int place) { return ring.sums + (long long)place * (z.H * z.W * D); };
  const bool round = FULL || before >= 0, clear = FULL || turn < ring.sheets;
  if (round) wait_for(ring.added(before), unsigned(across * down));
  if (round || clear)
    turn_over<T, D>(z, ring, (ticket - turn * across * down) * ring.slice, round, clear, before, sums_at(place), grad_value);
  if (clear) count_up(ring.clear(turn));
  if (!FULL && (sheet < 0 || sheet >= ring.sheets)) return;
  wait_for(ring.clear(sheet), unsigned(across * down));
  const int n = int(z.by_G(unsigned(sheet)));
  add(Tile(z, n, (row - turn * down) * SIDE, (ticket - row * across) * SIDE, sheet - n * z.G),
      Sheet<float>{sums_at(behind < 0 ? behind + length : behind), D});
  count_up(ring.added(sheet));
}

}  // namespace dcnv3
