// The operators as PyTorch sees them: torch.ops.vistalib_kernels.dcnv3 and dcnv3_backward, for CPU tensors by the C++ twin and,
// where USE_CUDA is defined, for CUDA tensors by the kernels. USE_CUDA is PyTorch's own switch: without it, its headers do not
// declare how to ask for the current stream.
//
// Written against PyTorch's stable ABI (2.10), so that one build serves later versions. Autograd, autocast and shapes without
// data are registered in Python; arguments are checked there, and here only so far that nothing is read beyond a tensor.
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <tuple>
#include <vector>

#include "dcnv3.h"

namespace {

using dcnv3::Kind;
using dcnv3::Settings;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using Sizes = std::vector<int64_t>;

Kind kind_of(const Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case ScalarType::Float: return Kind::float32;
    case ScalarType::Double: return Kind::float64;
    case ScalarType::Half: return Kind::float16;
    case ScalarType::BFloat16: return Kind::bfloat16;
    default: STD_TORCH_CHECK(false, "value must be float32, float64, float16 or bfloat16; convert it with .float()");
  }
}

bool is_shaped(const Tensor& tensor, const Sizes& shape) {
  if (tensor.dim() != int64_t(shape.size())) return false;
  for (size_t i = 0; i < shape.size(); ++i)
    if (tensor.size(int64_t(i)) != shape[i]) return false;
  return true;
}

Settings settings_of(const Tensor& value, const Tensor& offset, const Tensor& mask, int64_t groups, const Sizes& kernel_size,
                     const Sizes& stride, const Sizes& padding, const Sizes& dilation, double scale, bool logits) {
  for (const Sizes* pair : {&kernel_size, &stride, &padding, &dilation})
    STD_TORCH_CHECK(pair->size() == 2 && (*pair)[0] >= 0 && (*pair)[1] >= 0, "sizes must be pairs (height, width)");
  STD_TORCH_CHECK(value.dim() == 4 && offset.dim() == 4 && groups > 0 && value.size(3) % groups == 0,
                  "value must be (N, H, W, C) with channels divisible by groups");
  Settings s{};
  s.N = value.size(0), s.H = value.size(1), s.W = value.size(2), s.P = offset.size(1), s.Q = offset.size(2);
  s.G = groups, s.D = value.size(3) / groups;
  s.kernel_h = int(kernel_size[0]), s.kernel_w = int(kernel_size[1]), s.stride_h = int(stride[0]), s.stride_w = int(stride[1]);
  s.padding_h = int(padding[0]), s.padding_w = int(padding[1]);
  s.dilation_h = int(dilation[0]), s.dilation_w = int(dilation[1]);
  s.scale = scale, s.logits = logits;
  const int64_t a_pixel = s.G * s.points();
  STD_TORCH_CHECK(is_shaped(offset, {s.N, s.P, s.Q, 2 * a_pixel}) && is_shaped(mask, {s.N, s.P, s.Q, a_pixel}),
                  "offset must be (N, P, Q, groups * points * 2) and mask (N, P, Q, groups * points)");
  STD_TORCH_CHECK(offset.scalar_type() == value.scalar_type() && mask.scalar_type() == value.scalar_type(),
                  "value, offset and mask must have one dtype");
  STD_TORCH_CHECK(s.units() < (int64_t(1) << 31) && s.H * s.W < (int64_t(1) << 31),
                  "an operator call must have fewer than 2**31 output pixels times groups; split the batch");
  return s;
}

Tensor forward_cpu(const Tensor& value, const Tensor& offset, const Tensor& mask, int64_t groups, Sizes kernel_size,
                   Sizes stride, Sizes padding, Sizes dilation, double scale, bool logits, bool) {
  const Settings s = settings_of(value, offset, mask, groups, kernel_size, stride, padding, dilation, scale, logits);
  const Tensor v = torch::stable::contiguous(value), o = torch::stable::contiguous(offset), m = torch::stable::contiguous(mask);
  Tensor output = torch::stable::new_empty(v, {s.N, s.P, s.Q, s.G * s.D});
  void* const to = output.mutable_data_ptr();
  torch::stable::parallel_for(0, s.units(), 1 + 65536 / (1 + s.points() * s.D), [&](int64_t first, int64_t last) {
    dcnv3::cpu_forward(kind_of(v), s, v.const_data_ptr(), o.const_data_ptr(), m.const_data_ptr(), to, first, last);
  });
  return output;
}

std::tuple<Tensor, Tensor, Tensor> backward_cpu(const Tensor& grad_output, const Tensor& value, const Tensor& offset,
                                                const Tensor& mask, int64_t groups, Sizes kernel_size, Sizes stride,
                                                Sizes padding, Sizes dilation, double scale, bool logits, bool, bool, bool) {
  const Settings s = settings_of(value, offset, mask, groups, kernel_size, stride, padding, dilation, scale, logits);
  STD_TORCH_CHECK(is_shaped(grad_output, {s.N, s.P, s.Q, s.G * s.D}), "grad_output must be (N, P, Q, C)");
  const Kind kind = kind_of(value);
  const Tensor g = torch::stable::contiguous(grad_output), v = torch::stable::contiguous(value),
               o = torch::stable::contiguous(offset), m = torch::stable::contiguous(mask);
  Tensor grad_offset = torch::stable::new_empty(o, o.sizes()), grad_mask = torch::stable::new_empty(m, m.sizes());
  const bool narrow = kind == Kind::float16 || kind == Kind::bfloat16;
  Tensor sums = torch::stable::new_zeros(v, v.sizes(), narrow ? ScalarType::Float : v.scalar_type());
  void *const to_sums = sums.mutable_data_ptr(), *const to_offset = grad_offset.mutable_data_ptr(),
             *const to_mask = grad_mask.mutable_data_ptr();
  torch::stable::parallel_for(0, s.N * s.G, 1, [&](int64_t first, int64_t last) {
    dcnv3::cpu_backward(kind, s, g.const_data_ptr(), v.const_data_ptr(), o.const_data_ptr(), m.const_data_ptr(), to_sums,
                        to_offset, to_mask, first, last);
  });
  if (!narrow) return {sums, grad_offset, grad_mask};
  Tensor grad_value = torch::stable::new_empty(v, v.sizes());
  void* const to_value = grad_value.mutable_data_ptr();
  torch::stable::parallel_for(0, s.numbers(), 65536, [&](int64_t first, int64_t last) {
    dcnv3::cpu_round(kind, static_cast<const float*>(to_sums), to_value, first, last);
  });
  return {grad_value, grad_offset, grad_mask};
}

#if defined(USE_CUDA)

void* current_stream(const Tensor& tensor) {
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &stream));
  return stream;
}

// Begins at a multiple of 16 bytes, so that kernels can take as many at once: PyTorch's memory does, a view need not.
Tensor ready(const Tensor& tensor) {
  const Tensor whole = torch::stable::contiguous(tensor);
  return reinterpret_cast<uintptr_t>(whole.const_data_ptr()) % 16 == 0 ? whole : torch::stable::clone(whole);
}

void check_launch(const char* answer) { STD_TORCH_CHECK(answer == nullptr, "dcnv3 on CUDA could not be launched: ", answer); }

Tensor forward_cuda(const Tensor& value, const Tensor& offset, const Tensor& mask, int64_t groups, Sizes kernel_size,
                    Sizes stride, Sizes padding, Sizes dilation, double scale, bool logits, bool tensor_cores) {
  const Settings s = settings_of(value, offset, mask, groups, kernel_size, stride, padding, dilation, scale, logits);
  const torch::stable::accelerator::DeviceGuard guard(value.get_device_index());
  const Tensor v = ready(value), o = ready(offset), m = ready(mask);
  Tensor output = torch::stable::new_empty(v, {s.N, s.P, s.Q, s.G * s.D});
  if (s.units() > 0)
    check_launch(dcnv3::cuda_forward(kind_of(v), s, v.const_data_ptr(), o.const_data_ptr(), m.const_data_ptr(),
                                     tensor_cores, output.mutable_data_ptr(), current_stream(v)));
  return output;
}

std::tuple<Tensor, Tensor, Tensor> backward_cuda(const Tensor& grad_output, const Tensor& value, const Tensor& offset,
                                                 const Tensor& mask, int64_t groups, Sizes kernel_size, Sizes stride,
                                                 Sizes padding, Sizes dilation, double scale, bool logits,
                                                 bool deterministic, bool in_tiles, bool tensor_cores) {
  const Settings s = settings_of(value, offset, mask, groups, kernel_size, stride, padding, dilation, scale, logits);
  STD_TORCH_CHECK(is_shaped(grad_output, {s.N, s.P, s.Q, s.G * s.D}), "grad_output must be (N, P, Q, C)");
  const torch::stable::accelerator::DeviceGuard guard(value.get_device_index());
  const Kind kind = kind_of(value);
  const Tensor g = ready(grad_output), v = ready(value), o = ready(offset), m = ready(mask);
  Tensor grad_offset = torch::stable::new_empty(o, o.sizes()), grad_mask = torch::stable::new_empty(m, m.sizes());
  const dcnv3::Sheets sheets = deterministic ? dcnv3::Sheets{} : dcnv3::cuda_sheets(kind, s, in_tiles);
  const bool direct = !deterministic && (kind == Kind::float32 || kind == Kind::float64);  // sums are the gradient
  const ScalarType real = deterministic ? ScalarType::Long : kind == Kind::float64 ? ScalarType::Double : ScalarType::Float;
  Tensor sums = sheets.count ? torch::stable::new_empty(v, {sheets.sums()}, real) : torch::stable::new_zeros(v, v.sizes(), real);
  Tensor grad_value = direct ? sums : torch::stable::new_empty(v, v.sizes());
  if (s.numbers() == 0) return {grad_value, grad_offset, grad_mask};
  const Tensor sizes = torch::stable::new_zeros(v, {deterministic ? 2 : 0}, ScalarType::Double);
  const Tensor counters = torch::stable::new_zeros(v, {sheets.count ? sheets.counters() : 0}, ScalarType::Int);
  check_launch(dcnv3::cuda_backward(
      kind, s, g.const_data_ptr(), v.const_data_ptr(), o.const_data_ptr(), m.const_data_ptr(), sums.mutable_data_ptr(),
      deterministic ? static_cast<double*>(sizes.mutable_data_ptr()) : nullptr,
      sheets.count ? static_cast<unsigned*>(counters.mutable_data_ptr()) : nullptr, in_tiles, tensor_cores,
      grad_value.mutable_data_ptr(), grad_offset.mutable_data_ptr(), grad_mask.mutable_data_ptr(), current_stream(v)));
  return {grad_value, grad_offset, grad_mask};
}

#endif

}  // namespace

STABLE_TORCH_LIBRARY(vistalib_kernels, library) {
  library.def(
      "dcnv3(Tensor value, Tensor offset, Tensor mask, int groups, int[] kernel_size, int[] stride, int[] padding, "
      "int[] dilation, float offset_scale, bool mask_is_logits, bool tensor_cores) -> Tensor");
  library.def(
      "dcnv3_backward(Tensor grad_output, Tensor value, Tensor offset, Tensor mask, int groups, int[] kernel_size, "
      "int[] stride, int[] padding, int[] dilation, float offset_scale, bool mask_is_logits, bool deterministic, bool in_tiles, "
      "bool tensor_cores) -> (Tensor, Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(vistalib_kernels, CPU, library) {
  library.impl("dcnv3", TORCH_BOX(&forward_cpu));
  library.impl("dcnv3_backward", TORCH_BOX(&backward_cpu));
}

#if defined(USE_CUDA)
STABLE_TORCH_LIBRARY_IMPL(vistalib_kernels, CUDA, library) {
  library.impl("dcnv3", TORCH_BOX(&forward_cuda));
  library.impl("dcnv3_backward", TORCH_BOX(&backward_cuda));
}
#endif
