"""The kernels of csrc/dcnv3_cuda.cu without nvcc: compiled by NVRTC at first use, launched by the driver, all by ctypes.

NVRTC comes with PyTorch for CUDA. It compiles one kernel for this GPU in a few seconds; the machine code is kept in the cache
folder beside what `vistalib_kernels.build` makes. Which kernel is launched, on how many blocks, repeats the second half of
dcnv3_cuda.cu.
"""

import ctypes
import sys
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from vistalib_kernels.build import COMMAND, SOURCES, BuildFailed, find_nvcc, folder

THREADS, WARPS, STRIDING_BLOCKS = 128, 4, 4096  # as in dcnv3_cuda.cu
HEADERS = ("dcnv3.h", "made.cuh", "any.cuh", "tiles.cuh", "sheets.cuh", "tensor.cuh", "products.cuh", "window.cuh")
WIDTHS = (8, 16, 32)  # channels of a group that have kernels of their own
SIDE, REACH = 16, 3  # of a tile; of a kernel that it suits
AHEAD, IN_FLIGHT = 2, 512  # of a ring of sums, as in sheets.cuh
NAMES = {torch.float32: "float", torch.float64: "double", torch.float16: "dcnv3::Half", torch.bfloat16: "dcnv3::BFloat16"}
_lock = Lock()


def trouble() -> str | None:
    """Why NVRTC cannot be used; None where it can."""
    try:
        _nvrtc()
    except OSError as error:
        return f"{error}; run: python -m pip install nvidia-cuda-nvrtc{_suffix()}"
    return None


def forward(
    value: Tensor,
    offset: Tensor,
    mask: Tensor,
    *,
    groups: int,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    offset_scale: float,
    mask_is_logits: bool,
    tensor_cores: bool = False,
) -> Tensor:
    """As `extension.forward`."""
    value, offset, mask = map(_ready, (value, offset, mask))
    output = value.new_empty((*offset.shape[:3], value.shape[3]))
    if output.numel() == 0:
        return output
    z = _problem(value, offset, groups, (kernel_size, stride, padding, dilation), offset_scale, mask_is_logits)
    name, width = NAMES[value.dtype], _width(value, z)
    if width and (windows := _windows(z, value) if tensor_cores else 0):
        kernel = f"dcnv3::forward_in_window<{name}, {int(offset_scale)}>"
        _launch(kernel, windows, value, z, value, offset, mask, output)
    elif width:
        blocks = _blocks(z.units, _units_of_block(value, width))
        _launch(f"dcnv3::forward<{name}, {width}>", blocks, value, z, value, offset, mask, output)
    else:
        _launch(f"dcnv3::forward_any<{name}>", _blocks(z.units * z.D, THREADS), value, z, value, offset, mask, output)
    return output


def backward(
    grad_output: Tensor,
    value: Tensor,
    offset: Tensor,
    mask: Tensor,
    *,
    groups: int,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    offset_scale: float,
    mask_is_logits: bool,
    deterministic: bool = False,
    in_tiles: bool = False,
    tensor_cores: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """As `extension.backward`."""
    grad_output, value, offset, mask = map(_ready, (grad_output, value, offset, mask))
    grad_offset, grad_mask = torch.empty_like(offset), torch.empty_like(mask)
    if grad_output.numel() == 0:
        return torch.zeros_like(value), grad_offset, grad_mask
    z = _problem(value, offset, groups, (kernel_size, stride, padding, dilation), offset_scale, mask_is_logits)
    width = 0 if deterministic else _width(value, z)
    tiles = _tiles(z) if width and in_tiles else 0
    name = NAMES[value.dtype]
    if tiles and value.element_size() == 2:
        grad_value, (ring, blocks, *_memory) = torch.empty_like(value), _ring(z, tiles, value)  # kept until the launch
        kernel = f"dcnv3::backward_by_{'products' if tensor_cores else 'lists'}<{name}, {width}>"
        _launch(kernel, blocks, value, z, ring, grad_output, value, offset, mask, grad_value, grad_offset, grad_mask)
        return grad_value, grad_offset, grad_mask
    real = torch.promote_types(value.dtype, torch.float32)
    sums = torch.zeros_like(value, dtype=torch.int64 if deterministic else real)
    grad_value, results = sums if sums.dtype == value.dtype else torch.empty_like(value), (sums, grad_offset, grad_mask)
    store = "unsigned long long" if deterministic else "double" if real is torch.float64 else "float"
    sizes = value.new_zeros(2, dtype=torch.float64) if deterministic else None
    if sizes is not None:
        measured = [(grad_output, sizes)] if mask_is_logits else [(grad_output, sizes), (mask, sizes[1:])]
        for tensor, size in measured:
            count = tensor.numel()
            _launch(f"dcnv3::largest<{name}>", _striding(count), value, tensor, ctypes.c_longlong(count), size)
    if width:
        kernel = f"dcnv3::backward{'_in_tiles' if tiles else ''}<{name}, {width}>"
        blocks = tiles or _blocks(z.units, _units_of_block(value, width))
        _launch(kernel, blocks, value, z, grad_output, value, offset, mask, *results)
    else:
        blocks = _blocks(z.units, WARPS)
        _launch(f"dcnv3::backward_any<{name}, {store}>", blocks, value, z, grad_output, value, offset, mask, sizes, *results)
    if grad_value is not sums:
        count = value.numel()
        _launch(
            f"dcnv3::finish<{name}, {store}>", _striding(count), value, z, sums, sizes, grad_value, ctypes.c_longlong(count)
        )
    return grad_value, grad_offset, grad_mask


class _Divider(ctypes.Structure):
    _fields_ = (("divisor", ctypes.c_uint), ("factor", ctypes.c_uint), ("shift", ctypes.c_uint))


def _divider(by: int) -> _Divider:
    shift = (by - 1).bit_length()
    return _Divider(1, 0, 0) if by <= 1 else _Divider(by, ((1 << 31 + shift) + by - 1) // by, shift - 1)


class _Ring(ctypes.Structure):
    _fields_ = (
        ("sums", ctypes.c_void_p),
        ("counters", ctypes.c_void_p),
        ("sheets", ctypes.c_int),
        ("slice", ctypes.c_int),
        ("by_length", _Divider),
    )


def _ring(z: Any, tiles: int, value: Tensor) -> tuple[_Ring, int, Tensor, Tensor]:
    """The ring of a backward's sums, its blocks, and its memory; `cuda_sheets` of dcnv3_cuda.cu."""
    sheets, pixels = value.shape[0] * z.G, z.H * z.W
    of_sheet = tiles // sheets
    length = AHEAD + 1 + _blocks(IN_FLIGHT, of_sheet)
    sums = value.new_empty(min(sheets, length) * pixels * z.D, dtype=torch.float32)
    counters = value.new_zeros(1 + 2 * sheets, dtype=torch.int32)
    ring = _Ring(sums.data_ptr(), counters.data_ptr(), sheets, _blocks(pixels, of_sheet), _divider(length))
    return ring, (sheets + length) * of_sheet, sums, counters


@cache
def _structure(real: Any) -> Any:
    """`Problem<real>` of dcnv3.h."""
    whole = ("units", "H", "W", "P", "Q", "G", "D", "KH", "KW", "SH", "SW", "DH", "DW", "left", "top", "logits")
    fields = [(name, ctypes.c_int) for name in whole] + [(name, real) for name in ("scale", "half_w", "half_h")]
    fields += [(f"by_{name}", _Divider) for name in ("G", "Q", "P", "across", "down")]
    return type("Problem", (ctypes.Structure,), {"_fields_": fields})


def _problem(value: Tensor, offset: Tensor, groups: int, pairs: Sequence[Sequence[int]], scale: float, logits: bool) -> Any:
    (images, height, width, channels), (rows, columns) = value.shape, offset.shape[1:3]
    (kernel_h, kernel_w), (stride_h, stride_w), (padding_h, padding_w), (dilation_h, dilation_w) = pairs
    units = images * rows * columns * groups
    if max(units, height * width) >= 2**31:
        raise ValueError(f"a call must have fewer than 2**31 output pixels times groups, got {units}; split the batch")
    centre_x, centre_y = dilation_w * (kernel_w - 1) // 2, dilation_h * (kernel_h - 1) // 2
    sizes = (units, height, width, rows, columns, groups, channels // groups, kernel_h, kernel_w, stride_h, stride_w)
    return _structure(ctypes.c_double if value.dtype is torch.float64 else ctypes.c_float)(
        *sizes, dilation_h, dilation_w, centre_x - padding_w, centre_y - padding_h, logits,
        scale, centre_x * scale, centre_y * scale,
        *map(_divider, (groups, columns, rows, _blocks(columns, SIDE), _blocks(rows, SIDE))),
    )  # fmt: skip


def _ready(tensor: Tensor) -> Tensor:
    """The tensor in one piece that begins at a multiple of 16 bytes: PyTorch's memory does, a view need not."""
    tensor = tensor.contiguous()
    return tensor if tensor.data_ptr() % 16 == 0 else tensor.clone()


def _width(value: Tensor, z: Any) -> int:
    """D where a kernel was made for it, else 0."""
    made = (z.KH, z.KW) == (3, 3) and z.D in WIDTHS and value.dtype is not torch.float64 and value.numel() < 2**30
    return z.D if made else 0


def _tiles_of(z: Any) -> int:
    """Tiles of all images and groups; `tiles_of` of dcnv3_cuda.cu."""
    tiles = _blocks(z.P, SIDE) * _blocks(z.Q, SIDE)
    return z.units // (z.P * z.Q) * tiles if tiles * SIDE**2 <= 2 * z.P * z.Q and z.units * z.D < 2**30 else 0


def _tiles(z: Any) -> int:
    """Tiles of a backward, 0 where they do not suit; `tiles_for` of dcnv3_cuda.cu."""
    fits = (z.SH, z.SW) == (1, 1) and z.D >= 16 and z.scale * max(z.DH, z.DW) <= REACH
    return _tiles_of(z) if fits else 0


def _windows(z: Any, value: Tensor) -> int:
    """Blocks of `forward_in_window`, 0 where it does not suit; `windows_for` of dcnv3_cuda.cu."""
    plain = (z.SH, z.SW, z.DH, z.DW) == (1, 1, 1, 1) and z.D == 16 and z.scale in (1.0, 2.0) and value.element_size() == 2
    return _tiles_of(z) if plain else 0


def _units_of_block(value: Tensor, width: int) -> int:
    return THREADS // (width * value.element_size() // 16)


def _blocks(items: int, a_block: int) -> int:
    return -(-items // a_block)


def _striding(items: int) -> int:
    return min(_blocks(items, 4 * THREADS), STRIDING_BLOCKS)


def packed(arguments: Sequence[Any]) -> tuple[list[Any], Any]:
    """The arguments of a kernel as C values, tensors as their addresses, and the array of pointers that a launch takes."""
    values = [ctypes.c_void_p(0 if x is None else x.data_ptr()) if x is None or isinstance(x, Tensor) else x for x in arguments]
    return values, (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))


def _launch(name: str, blocks: int, where: Tensor, *arguments: Any) -> None:
    """Run kernel `name` on the device of `where`, in the order of its current stream."""
    _values, pointers = packed(arguments)  # both must outlive the launch
    with torch.cuda.device(where.device):
        _enter(where.device.index)
        kernel = _kernel(name, where.device.index)
        stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
        _driver(_cuda().cuLaunchKernel(kernel, blocks, 1, 1, THREADS, 1, 1, 0, stream, pointers, None), f"launch {name}")


def _enter(device: int) -> None:
    """Make PyTorch's context current where none is: a thread begins without one, and PyTorch may not have needed it yet."""
    context, number = ctypes.c_void_p(), ctypes.c_int()
    _driver(_cuda().cuCtxGetCurrent(ctypes.byref(context)), "tell its context")
    if context.value is None:
        _driver(_cuda().cuDeviceGet(ctypes.byref(number), device), f"find GPU {device}")
        _driver(_cuda().cuDevicePrimaryCtxRetain(ctypes.byref(context), number), f"open GPU {device}")
        _driver(_cuda().cuCtxSetCurrent(context), f"use GPU {device}")


_modules: dict[tuple[str, int], ctypes.c_void_p] = {}


def _kernel(name: str, device: int) -> ctypes.c_void_p:
    """The kernel, ready on the current device: from this process, from the cache on disk, or compiled now."""
    with _lock:
        if (name, device) not in _modules:
            major, minor = torch.cuda.get_device_capability(device)
            lowered, code = machine_code(name, f"{major}{minor}")
            module, kernel = ctypes.c_void_p(), ctypes.c_void_p()
            _driver(_cuda().cuModuleLoadData(ctypes.byref(module), code), f"load {name}")
            _driver(_cuda().cuModuleGetFunction(ctypes.byref(kernel), module, lowered), f"find {name}")
            _modules[name, device] = kernel
        return _modules[name, device]


def machine_code(name: str, architecture: str) -> tuple[bytes, bytes]:
    """The name in the machine code, and the machine code, of kernel `name` for compute capability `architecture` ("90")."""
    slug = "".join(letter if letter.isalnum() else "-" for letter in name)
    kept = folder() / f"{slug}-sm{architecture}.cubin"
    if kept.exists():
        lowered, _, code = kept.read_bytes().partition(b"\n")
        return lowered, code
    print(f"vistalib: compiling {name} for sm_{architecture}, once for this machine", file=sys.stderr, flush=True)
    lowered, code = _compile(name, architecture)
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        beside = kept.with_suffix(f".{id(code)}")
        beside.write_bytes(lowered + b"\n" + code)
        beside.replace(kept)
    except OSError:  # a cache that cannot be written costs seconds, not the result
        pass
    return lowered, code


def _compile(name: str, architecture: str) -> tuple[bytes, bytes]:
    library, program = _nvrtc(), ctypes.c_void_p()
    source, *texts = ((SOURCES / file).read_bytes() for file in ("dcnv3_cuda.cu", *HEADERS))
    headers, names = (ctypes.c_char_p * len(HEADERS))(*texts), (ctypes.c_char_p * len(HEADERS))(*map(str.encode, HEADERS))
    library.nvrtcCreateProgram(ctypes.byref(program), source, b"dcnv3_cuda.cu", len(HEADERS), headers, names)
    try:
        library.nvrtcAddNameExpression(program, name.encode())
        options = [f"--gpu-architecture=sm_{architecture}".encode(), b"--std=c++17"]
        if library.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options)) != 0:
            raise BuildFailed(
                f"NVRTC cannot compile {name} for sm_{architecture}: {_text(library, program, 'ProgramLog')}; "
                f"install the NVRTC of the CUDA that torch was built with, or build with nvcc: {COMMAND}"
            )
        lowered, size = ctypes.c_char_p(), ctypes.c_size_t()
        library.nvrtcGetLoweredName(program, name.encode(), ctypes.byref(lowered))
        library.nvrtcGetCUBINSize(program, ctypes.byref(size))
        code = ctypes.create_string_buffer(size.value)
        library.nvrtcGetCUBIN(program, code)
        assert lowered.value, "NVRTC has compiled it"
        return lowered.value, code.raw
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))


def _text(library: Any, program: ctypes.c_void_p, what: str) -> str:
    size = ctypes.c_size_t()
    getattr(library, f"nvrtcGet{what}Size")(program, ctypes.byref(size))
    text = ctypes.create_string_buffer(size.value)
    getattr(library, f"nvrtcGet{what}")(program, text)
    return text.value.decode(errors="replace").strip()


def _suffix() -> str:
    """What PyPI adds to the name of NVRTC for CUDA 12."""
    return "-cu12" if (torch.version.cuda or "").startswith("12") else ""


@cache
def _nvrtc() -> Any:
    """libnvrtc: PyTorch's, a toolkit's, or the system's. Raises `OSError`."""
    pattern = "nvrtc64_*.dll" if sys.platform == "win32" else "libnvrtc.so*"
    places = [Path(place) for place in (getattr(find_spec("nvidia"), "submodule_search_locations", None) or ())]
    found = [path for place in places for path in sorted(place.glob(f"*/[lb]i[bn]/**/{pattern}"))]
    if (nvcc := find_nvcc()) is not None:
        found += sorted(Path(nvcc).resolve().parent.parent.glob(f"[lb]i[bn]*/{pattern}"))
    found += sorted((Path(torch.__file__).parent / "lib").glob(pattern))
    names = [str(path) for path in found if ".alt." not in path.name] or ["libnvrtc.so"]
    for builtins in Path(names[0]).parent.glob("libnvrtc-builtins.so*"):
        if ".alt." not in builtins.name:
            ctypes.CDLL(str(builtins))  # NVRTC asks for it by name alone
    library = ctypes.CDLL(names[0])
    assert library.nvrtcCompileProgram
    return library


@cache
def _cuda() -> Any:
    return ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")


def _driver(answer: int, what: str) -> None:
    if answer != 0:
        text = ctypes.c_char_p()
        _cuda().cuGetErrorString(answer, ctypes.byref(text))
        said = (text.value or b"unknown error").decode()
        raise RuntimeError(
            f"the driver could not {what}: {said} ({answer}); an old driver must be updated, or use backend='torch'"
        )
