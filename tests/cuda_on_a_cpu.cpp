// The CUDA kernels run on a CPU, thread by thread, as they are: `dcnv3_cuda.cu` is included below and compiled by an ordinary
// compiler. A warp's 32 threads are 32 coroutines; a shuffle or a vote suspends each of them until all have come, and it is an
// error if they come to different ones, or if some have returned. Blocks follow each other; warps never wait for one another.
#include <csetjmp>
#include <ucontext.h>

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

constexpr int LANES = 32;
constexpr size_t STACK = 256 * 1024;
static ucontext_t begin[LANES];         // enters a lane's own stack; from then on jumps do, which need no system call
static jmp_buf scheduler, lanes[LANES];
static std::vector<char> stacks(LANES* STACK);
static bool running[LANES];
static const char* waiting[LANES];         // what each lane waits at
static uint64_t given[LANES], seen[LANES];  // what the lanes bring, and what all brought the last time
static int lane;
static std::function<void()> body;

static void fail(const char* what) {
  std::fprintf(stderr, "cuda_on_a_cpu: %s\n", what);
  std::abort();
}

static void start() {
  body();
  running[lane] = false;
  _longjmp(scheduler, 1);
}

// Brings `number`, waits for the other lanes, and returns what all of them brought.
static const uint64_t* meet(const char* where, uint64_t number) {
  const int me = lane;
  waiting[me] = where;
  given[me] = number;
  if (_setjmp(lanes[me]) == 0) _longjmp(scheduler, 1);
  return seen;
}

static void run(unsigned first_thread) {
  for (int i = 0; i < LANES; ++i) {
    running[i] = true;
    getcontext(&begin[i]);
    begin[i].uc_stack.ss_sp = stacks.data() + i * STACK;
    begin[i].uc_stack.ss_size = STACK;
    begin[i].uc_link = nullptr;
    makecontext(&begin[i], start, 0);
  }
  static bool entered;
  for (entered = false;; entered = true) {
    static int alive;
    alive = 0;
    for (lane = 0; lane < LANES; ++lane) {
      if (!running[lane]) continue;
      threadIdx.x = first_thread + unsigned(lane);
      if (_setjmp(scheduler) == 0) {
        if (entered) _longjmp(lanes[lane], 1);
        setcontext(&begin[lane]);
      }
      alive += running[lane];
    }
    if (alive == 0) return;
    if (alive != LANES) fail("some lanes of a warp returned while others wait for them");
    for (int i = 1; i < LANES; ++i)
      if (std::strcmp(waiting[i], waiting[0]) != 0) fail("the lanes of a warp wait at different places");
    std::memcpy(seen, given, sizeof seen);
  }
}

}  // namespace warp

static uint64_t launches = 0;
static void launch(unsigned blocks, unsigned threads, std::function<void()> kernel) {
  ++launches;
  gridDim.x = blocks;
  warp::body = std::move(kernel);
  for (blockIdx.x = 0; blockIdx.x < blocks; ++blockIdx.x)
    for (unsigned first = 0; first < threads; first += 32) warp::run(first);
}
#define DCNV3_LAUNCH(kernel, blocks, stream, ...) launch(unsigned(blocks), THREADS, [=] { (kernel)(__VA_ARGS__); })
#define DCNV3_ANSWER() nullptr

#define TEXT_(x) #x
#define TEXT(x) TEXT_(x)
#define __syncwarp() warp::meet("sync " TEXT(__LINE__), 0)
#define __all_sync(lanes, x) all_of(warp::meet("vote " TEXT(__LINE__), (x) ? 1 : 0))
#define __shfl_xor_sync(lanes, x, step) from_lane(x, step)

static bool all_of(const uint64_t* brought) {
  for (int i = 0; i < warp::LANES; ++i)
    if (!brought[i]) return false;
  return true;
}
template <typename T>
static T from_lane(T x, int step) {
  uint64_t bits = 0;
  std::memcpy(&bits, &x, sizeof x);
  const int other = warp::lane ^ step;
  const uint64_t* const brought = warp::meet(step == 1 ? "shuffle 1" : step == 2 ? "shuffle 2" : "shuffle", bits);
  std::memcpy(&x, &brought[other], sizeof x);
  return x;
}

template <typename T>
static void atomicAdd(T* to, T x) {
  *to += x;
}
static void atomicMax(unsigned long long* to, unsigned long long x) {
  if (x > *to) *to = x;
}
static int __clzll(long long x) { return __builtin_clzll((unsigned long long)x); }
static long long __double2ll_rn(double x) { return std::llrint(x); }
static long long __double_as_longlong(double x) {
  long long bits;
  std::memcpy(&bits, &x, sizeof x);
  return bits;
}
using std::exp2;
using std::isfinite;

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
                        void* output) {
  dcnv3::cuda_forward(dcnv3::Kind(kind), settings_of(sizes, scale), value, offset, mask, output, nullptr);
}

extern "C" void backward(int kind, const long long* sizes, double scale, const void* grad_output, const void* value,
                         const void* offset, const void* mask, void* sums, double* largest, void* grad_value,
                         void* grad_offset, void* grad_mask) {
  dcnv3::cuda_backward(dcnv3::Kind(kind), settings_of(sizes, scale), grad_output, value, offset, mask, sums, largest, grad_value,
                       grad_offset, grad_mask, nullptr);
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
#define TRY_ALL(T) TRY_NARROW(T, 8) TRY_NARROW(T, 16) TRY_NARROW(T, 32) TRY_ANY(T, float)
  TRY_ALL(float)
  TRY_ALL(dcnv3::Half)
  TRY_ALL(dcnv3::BFloat16)
  TRY_ANY(double, double)
  return 0;
}
