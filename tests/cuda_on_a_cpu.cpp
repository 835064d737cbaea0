// The CUDA kernels run on a CPU, thread by thread, as they are: `dcnv3_cuda.cu` is included below and compiled by an ordinary
// compiler. A block's threads are coroutines; a shuffle or a vote suspends each lane of a warp until all have come, and it is an
// error if they come to different ones, or if some have returned. A warp runs until it ends or waits for the block; warps take
// turns in an order that changes from block to block, so that what depends on it shows. Blocks follow each other, or several
// processes take one after the other (`at_once`), where all memory is shared between processes.
#include <csetjmp>
#include <sched.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <vector>

struct uint4 {
  unsigned x, y, z, w;
};
struct Index {
  unsigned x;
};
static Index blockIdx, threadIdx, gridDim;

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static
#define __restrict__

namespace warp {

constexpr unsigned LANES = 32, MOST = 128;  // threads of a warp, of a block
constexpr size_t STACK = 128 * 1024;
static const char* const BLOCK = "block";  // waits for all warps
static ucontext_t begin[MOST];             // enters a thread's own stack; from then on jumps do, which need no system call
static jmp_buf scheduler, threads[MOST];
static std::vector<char> stacks(MOST* STACK);
static bool entered[MOST], running[MOST];
static const char* waiting[MOST];            // what each thread waits at
static uint64_t given[MOST], seen[LANES];    // what the threads bring, and what those of the warp brought the last time
static unsigned lane;
static std::function<void()> body;

static void fail(const char* what) {
  std::fprintf(stderr, "cuda_on_a_cpu: %s\n", what);
  std::abort();
}

static void start() {
  body();
  running[threadIdx.x] = false;
  _longjmp(scheduler, 1);
}

// Brings `number`, waits for the other lanes, and returns what all of them brought.
static const uint64_t* meet(const char* where, uint64_t number) {
  const unsigned me = threadIdx.x;
  waiting[me] = where;
  given[me] = number;
  if (_setjmp(threads[me]) == 0) _longjmp(scheduler, 1);
  return seen;
}

// Lets the warp of threads `first` and on run until it waits for the block, or ends: then false.
static bool run(unsigned first) {
  for (;;) {
    static unsigned alive;
    alive = 0;
    for (lane = 0; lane < LANES; ++lane) {
      const unsigned thread = threadIdx.x = first + lane;
      if (!running[thread]) continue;
      if (_setjmp(scheduler) == 0) {
        if (entered[threadIdx.x]) _longjmp(threads[threadIdx.x], 1);
        entered[threadIdx.x] = true;
        setcontext(&begin[threadIdx.x]);
      }
      alive += running[first + lane];
    }
    if (alive == 0) return false;
    if (alive != LANES) fail("some lanes of a warp returned while others wait for them");
    for (unsigned i = 1; i < LANES; ++i)
      if (std::strcmp(waiting[first + i], waiting[first]) != 0) fail("the lanes of a warp wait at different places");
    std::memcpy(seen, given + first, sizeof seen);
    if (waiting[first] == BLOCK) return true;
  }
}

static void run_block(unsigned count) {
  for (unsigned i = 0; i < count; ++i) {
    running[i] = true, entered[i] = false;
    getcontext(&begin[i]);
    begin[i].uc_stack.ss_sp = stacks.data() + i * STACK;
    begin[i].uc_stack.ss_size = STACK;
    begin[i].uc_link = nullptr;
    makecontext(&begin[i], start, 0);
  }
  for (;;) {
    unsigned waiting_warps = 0;
    for (unsigned i = 0; i < count; i += LANES) waiting_warps += run(blockIdx.x % 2 ? count - LANES - i : i);
    if (waiting_warps == 0) return;
    if (waiting_warps != count / LANES) fail("some warps of a block returned while others wait for them");
  }
}

}  // namespace warp

static unsigned processes = 1;
extern "C" void at_once(unsigned count) { processes = count; }

static void launch(unsigned blocks, unsigned threads, std::function<void()> kernel) {
  gridDim.x = blocks;
  warp::body = std::move(kernel);
  if (processes == 1) {
    for (blockIdx.x = 0; blockIdx.x < blocks; ++blockIdx.x) warp::run_block(threads);
    return;
  }
  void* const page = mmap(nullptr, sizeof(unsigned), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  std::atomic_ref<unsigned> next(*static_cast<unsigned*>(page));
  for (unsigned i = 0; i < processes; ++i) {
    if (fork() != 0) continue;
    alarm(300);  // nobody waits for ever
    while ((blockIdx.x = next++) < blocks) warp::run_block(threads);
    _exit(0);
  }
  for (unsigned i = 0; i < processes; ++i) {
    int status = 0;
    if (wait(&status) < 0 || status != 0) warp::fail("a process that ran blocks has failed");
  }
  munmap(page, sizeof(unsigned));
}
#define DCNV3_LAUNCH(kernel, blocks, stream, ...) launch(unsigned(blocks), THREADS, [=] { (kernel)(__VA_ARGS__); })
#define DCNV3_ANSWER() nullptr

#include "dcnv3.h"

#define TEXT_(x) #x
#define TEXT(x) TEXT_(x)
#define __syncthreads() warp::meet(warp::BLOCK, 0)
#define __syncwarp() warp::meet("sync " TEXT(__LINE__), 0)
#define __all_sync(lanes, x) all_of(warp::meet("vote " TEXT(__LINE__), (x) ? 1 : 0))
#define __ballot_sync(lanes, x) ballot_of(warp::meet("ballot " TEXT(__LINE__), (x) ? 1 : 0))
#define __shfl_sync(lanes, x, from) from_lane(x, unsigned(from), "from")
#define __shfl_xor_sync(lanes, x, step) from_lane(x, warp::lane ^ unsigned(step), step == 1 ? "xor 1" : step == 2 ? "xor 2" : "xor")
#define __shfl_down_sync(lanes, x, step) from_lane(x, warp::lane + unsigned(step) < warp::LANES ? warp::lane + unsigned(step) : warp::lane, "down")
#define __shfl_up_sync(lanes, x, step) from_lane(x, warp::lane < unsigned(step) ? warp::lane : warp::lane - unsigned(step), "up")

static bool all_of(const uint64_t* brought) {
  for (unsigned i = 0; i < warp::LANES; ++i)
    if (!brought[i]) return false;
  return true;
}
static unsigned ballot_of(const uint64_t* brought) {
  unsigned bits = 0;
  for (unsigned i = 0; i < warp::LANES; ++i) bits |= unsigned(brought[i]) << i;
  return bits;
}
template <typename T>
static T from_lane(T x, unsigned other, const char* how) {
  uint64_t bits = 0;
  std::memcpy(&bits, &x, sizeof x);
  std::memcpy(&x, &warp::meet(how, bits)[other], sizeof x);
  return x;
}

// Tensor cores, after the PTX ISA. `ldmatrix .m8n8.x4`: lane i names row i % 8 of matrix i / 8; it gets, of each matrix, numbers
// i % 4 * 2 and the next of row i / 4, or of column i / 4 (`.trans`).
static void cpu_load_matrices(bool column, const void* row, unsigned (&found)[4]) {
  static const unsigned short* rows[warp::LANES];
  rows[warp::lane] = static_cast<const unsigned short*>(row);
  if (reinterpret_cast<uintptr_t>(row) % 16 != 0) warp::fail("a row of a matrix begins at no multiple of 16 bytes");
  warp::meet(column ? "ldmatrix.trans" : "ldmatrix", 0);
  const unsigned group = warp::lane / 4, pair = warp::lane % 4 * 2;
  for (unsigned m = 0; m < 4; ++m) {
    const unsigned short* const* const matrix = rows + 8 * m;
    const unsigned low = column ? matrix[pair][group] : matrix[group][pair];
    const unsigned high = column ? matrix[pair + 1][group] : matrix[group][pair + 1];
    found[m] = low | high << 16;
  }
  warp::meet("ldmatrix, read", 0);  // nothing is written before all have read
}

// `mma.m16n8k16`: numbers 2 i and 2 i + 1 of a lane's registers i are, of a (row, column), (group + i % 2 * 8, pair + i / 2 * 8)
// and the next column; of b, (pair + i * 8, group) and the next row; of the sum, (group + i / 2 * 8, pair + i % 2).
template <typename T>
static void cpu_multiply_add(float (&sum)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
  static unsigned brought[warp::LANES][6];
  unsigned* const mine = brought[warp::lane];
  std::memcpy(mine, a, sizeof a);
  mine[4] = b0, mine[5] = b1;
  warp::meet("mma", 0);
  const auto number = [](unsigned word, unsigned odd) { return dcnv3::read(T{(unsigned short)(odd ? word >> 16 : word & 0xffff)}); };
  for (unsigned i = 0; i < 4; ++i) {
    const unsigned row = warp::lane / 4 + i / 2 * 8, column = warp::lane % 4 * 2 + i % 2;
    for (unsigned k = 0; k < 16; ++k) {
      const unsigned of_a = brought[row % 8 * 4 + k % 8 / 2][row / 8 + k / 8 * 2], of_b = brought[column * 4 + k % 8 / 2][4 + k / 8];
      sum[i] += number(of_a, k % 2) * number(of_b, k % 2);
    }
  }
  warp::meet("mma, done", 0);
}

template <typename T>
static T atomicAdd(T* to, T x) {
  const T before = std::atomic_ref<T>(*to).fetch_add(x);
  static unsigned rested = ~0u;
  if (processes > 1 && blockIdx.x != rested) {  // once a block, some rest, so that other processes overtake them
    rested = blockIdx.x;
    if (unsigned(before) % 3 == 0) usleep(100000);
  }
  return before;
}
static void cpu_wait_for(const unsigned* counter, unsigned count) {
  while (std::atomic_ref<unsigned>(*const_cast<unsigned*>(counter)) < count) {
    if (processes == 1) warp::fail("waits for a block that has not begun");
    sched_yield();
  }
}
static unsigned atomicExch(unsigned* at, unsigned x) {
  const unsigned before = *at;
  *at = x;
  return before;
}
static void atomicMax(unsigned long long* to, unsigned long long x) {
  if (x > *to) *to = x;
}
static float __saturatef(float x) { return x > 0.0f ? x < 1.0f ? x : 1.0f : 0.0f; }
static int __ffs(int x) { return __builtin_ffs(x); }
static int __clz(int x) { return x == 0 ? 32 : __builtin_clz(unsigned(x)); }
static int __clzll(long long x) { return __builtin_clzll((unsigned long long)x); }
static long long __double2ll_rn(double x) { return std::llrint(x); }
static long long __double_as_longlong(double x) {
  long long bits;
  std::memcpy(&bits, &x, sizeof x);
  return bits;
}
using std::exp2;
using std::isfinite;

#define DCNV3_IN_FLIGHT 4
#include "dcnv3_cuda.cu"

// ---- for ctypes ----------------------------------------------------------------------------------------------------------

static dcnv3::Settings settings_of(const long long* sizes, double scale) {
  dcnv3::Settings s{};
  s.N = sizes[0], s.H = sizes[1], s.W = sizes[2], s.P = sizes[3], s.Q = sizes[4], s.G = sizes[5], s.D = sizes[6];
  int* const pairs[] = {&s.kernel_h,  &s.kernel_w,  &s.stride_h,   &s.stride_w,
                        &s.padding_h, &s.padding_w, &s.dilation_h, &s.dilation_w};
  for (int i = 0; i < 8; ++i) *pairs[i] = int(sizes[7 + i]);
  s.scale = scale, s.logits = sizes[15] != 0;
  return s;
}

extern "C" void forward(int kind, const long long* sizes, double scale, const void* value, const void* offset, const void* mask,
                        int tensor_cores, void* output) {
  dcnv3::cuda_forward(dcnv3::Kind(kind), settings_of(sizes, scale), value, offset, mask, tensor_cores != 0, output, nullptr);
}

extern "C" void backward(int kind, const long long* sizes, double scale, const void* grad_output, const void* value,
                         const void* offset, const void* mask, void* sums, double* largest, unsigned* counters, int in_tiles,
                         int tensor_cores, void* grad_value, void* grad_offset, void* grad_mask) {
  dcnv3::cuda_backward(dcnv3::Kind(kind), settings_of(sizes, scale), grad_output, value, offset, mask, sums, largest,
                       counters, in_tiles != 0, tensor_cores != 0, grad_value, grad_offset, grad_mask, nullptr);
}

// How many sums and counters a backward takes whose sums lie in a ring; false where they do not.
extern "C" int sheets(int kind, const long long* sizes, double scale, int in_tiles, long long* sums, long long* counters) {
  const dcnv3::Sheets sheets = dcnv3::cuda_sheets(dcnv3::Kind(kind), settings_of(sizes, scale), in_tiles != 0);
  *sums = sheets.sums(), *counters = sheets.counters();
  return sheets.count > 0;
}

// 0 where the backward is not done in tiles.
extern "C" long long tiles(const long long* sizes, double scale) { return dcnv3::tiles_for(settings_of(sizes, scale)); }

// 0 where the forward is not done by tensor cores.
extern "C" long long windows(const long long* sizes, double scale) { return dcnv3::windows_for(settings_of(sizes, scale)); }

// a b in 16 bits, row by row, by what the kernels take to tensor cores: a of 16 x 16, b of 16 x 8, once given by rows, once by
// columns.
template <typename T>
static void product(const T* a, const T* b, const T* b_by_columns, float* by_rows, float* by_columns) {
  alignas(16) static T memory[3][16 * 16];
  const unsigned lane = threadIdx.x, group = lane / 4, pair = lane % 4 * 2;
  for (unsigned i = lane; i < 16 * 16; i += 32) memory[0][i] = a[i];
  for (unsigned i = lane; i < 16 * 8; i += 32) memory[1][i] = b[i], memory[2][i] = b_by_columns[i];
  __syncwarp();
  const dcnv3::Matrices of_a = dcnv3::load_matrices<false>(memory[0] + lane % 16 * 16 + lane / 16 * 8);
  for (const bool columns : {false, true}) {
    const dcnv3::Matrices of_b = columns ? dcnv3::load_matrices<false>(memory[2] + lane % 8 * 16 + lane / 8 % 2 * 8)
                                         : dcnv3::load_matrices<true>(memory[1] + lane % 16 * 8);
    float sum[4] = {};
    dcnv3::multiply_add(sum, of_a, of_b.of[0], of_b.of[1], T{});
    for (unsigned i = 0; i < 4; ++i) (columns ? by_columns : by_rows)[(group + i / 2 * 8) * 8 + pair + i % 2] = sum[i];
  }
}
extern "C" void products(int kind, const void* a, const void* b, const void* b_by_columns, float* by_rows, float* by_columns) {
  const auto run = [&](auto number) {
    using T = decltype(number);
    launch(1, 32, [=] {
      product(static_cast<const T*>(a), static_cast<const T*>(b), static_cast<const T*>(b_by_columns), by_rows, by_columns);
    });
  };
  dcnv3::Kind(kind) == dcnv3::Kind::float16 ? run(dcnv3::Half{}) : run(dcnv3::BFloat16{});
}

// A kernel by its name in C++, with its arguments as the driver takes them: an address for each.
template <typename... Argument, size_t... I>
static void call(void (*kernel)(Argument...), unsigned blocks, void** arguments, std::index_sequence<I...>) {
  launch(blocks, dcnv3::THREADS, [=] { kernel(*static_cast<std::remove_const_t<Argument>*>(arguments[I])...); });
}
template <typename... Argument>
static void call(void (*kernel)(Argument...), unsigned blocks, void** arguments) {
  call(kernel, blocks, arguments, std::index_sequence_for<Argument...>{});
}

extern "C" int launch_named(const char* name, unsigned blocks, void** arguments) {
#define TRY(...) \
  if (std::strcmp(name, #__VA_ARGS__) == 0) return call(__VA_ARGS__, blocks, arguments), 1;
#define TRY_NARROW(T, D) TRY(dcnv3::forward<T, D>) TRY(dcnv3::backward<T, D>)
#define TRY_ANY(T, R)                                                                                   \
  TRY(dcnv3::forward_any<T>)                                                                            \
  TRY(dcnv3::largest<T>)                                                                                \
  TRY(dcnv3::backward_any<T, R>) TRY(dcnv3::backward_any<T, unsigned long long>) TRY(dcnv3::finish<T, R>) \
      TRY(dcnv3::finish<T, unsigned long long>)
#define TRY_TILES(T) TRY(dcnv3::backward_in_tiles<T, 16>) TRY(dcnv3::backward_in_tiles<T, 32>)
#define TRY_WINDOW(T) TRY(dcnv3::forward_in_window<T, 1>) TRY(dcnv3::forward_in_window<T, 2>)
#define TRY_SHEETS(T)                                                              \
  TRY(dcnv3::backward_by_products<T, 16>) TRY(dcnv3::backward_by_products<T, 32>) \
  TRY(dcnv3::backward_by_lists<T, 16>) TRY(dcnv3::backward_by_lists<T, 32>)
#define TRY_ALL(T) TRY_NARROW(T, 8) TRY_NARROW(T, 16) TRY_NARROW(T, 32) TRY_ANY(T, float)
  TRY_ALL(float) TRY_TILES(float)
  TRY_ALL(dcnv3::Half) TRY_WINDOW(dcnv3::Half) TRY_SHEETS(dcnv3::Half)
  TRY_ALL(dcnv3::BFloat16) TRY_WINDOW(dcnv3::BFloat16) TRY_SHEETS(dcnv3::BFloat16)
  TRY_ANY(double, double)
  return 0;
}
