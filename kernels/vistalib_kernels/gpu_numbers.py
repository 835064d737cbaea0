"""Numbers in a GPU's memory: one at a time, or 16 bytes by one instruction; those of 16 bits by their bits.

Under Numba's CUDA simulator (`NUMBA_ENABLE_CUDASIM=1`) kernels run as plain Python, one Python thread for each of the GPU's.
The simulator has no libdevice and no intrinsics; what stands for them is in the last part of this file.
"""

from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import config, cuda, types

SIMULATED = bool(config.ENABLE_CUDASIM)  # type: ignore[attr-defined]  # numba sets its settings at run time


def device(function: Any) -> Any:
    """A function for other GPU functions to call. Always inlined, so that constants and memory spaces stay known to it.

    It is also what lets a kernel be compiled where there is no GPU: a function of its own would be compiled for the one here.
    """
    return cuda.jit(device=True, inline="always")(function)


def access(dtype: torch.dtype) -> tuple[Any, Any]:
    """get(array, i) and put(array, i, number) for arrays of `dtype`.

    Sixteen bits become 32 on the way in and are rounded once on the way out.
    """
    if dtype is torch.bfloat16:
        return _get_bfloat16, _put_bfloat16
    if dtype is torch.float16:
        return _get_half, _put_half
    return _get, _put


@device
def _get(array, i):  # type: ignore[no-untyped-def]  # Numba infers them, here and below
    return array[i]


@device
def _put(array, i, number):  # type: ignore[no-untyped-def]
    array[i] = number


@device
def _get_half(array, i):  # type: ignore[no-untyped-def]
    return from_half(array[i])


@device
def _put_half(array, i, number):  # type: ignore[no-untyped-def]
    array[i] = to_half(number)


@device
def _get_bfloat16(array, i):  # type: ignore[no-untyped-def]
    return as_float(np.int32(np.int32(array[i]) << 16))


@device
def _put_bfloat16(array, i, number):  # type: ignore[no-untyped-def]
    bits = as_int(number)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    array[i] = np.int16(rounded if number == number else 0x7FC0)  # NaN stays NaN


def wide(vector: int) -> tuple[Any, Any]:
    """load16(array, i, found), which sets found[0:vector] = array[i : i + vector], and store16, the other way.

    Both take one instruction of 16 bytes, so `array` must begin, and `i` lie, on a boundary of 16 bytes.
    """
    if not SIMULATED:
        return _load16, _store16

    def load16(array: Any, i: int, found: Any) -> None:
        for j in range(vector):
            found[j] = array[i + j]

    def store16(array: Any, i: int, found: Any) -> None:
        for j in range(vector):
            array[i + j] = found[j]

    return load16, store16


if SIMULATED:

    def as_float(bits: Any) -> Any:
        """The float32 that has these 32 bits."""
        return np.int32(bits).view(np.float32)

    def as_int(number: Any) -> Any:
        """The bits of a float32."""
        return int(np.float32(number).view(np.int32))

    def from_half(bits: Any) -> Any:
        """The float16 that has these 16 bits, as float32."""
        return np.float32(np.int16(bits).view(np.float16))

    def to_half(number: Any) -> Any:
        """The 16 bits of a float32 rounded to float16."""
        return np.float16(number).view(np.int16)

    def times32(a: Any, b: Any) -> Any:
        """A product that is rounded before anything is added to it."""
        return a * b

    times64 = times32

else:
    from numba.cuda.extending import intrinsic

    @device
    def as_float(bits):  # type: ignore[no-untyped-def]
        """The float32 that has these 32 bits."""
        return cuda.libdevice.int_as_float(bits)

    @device
    def as_int(number):  # type: ignore[no-untyped-def]
        """The bits of a float32."""
        return np.int64(cuda.libdevice.float_as_int(number))

    @device
    def times32(a, b):  # type: ignore[no-untyped-def]
        """A product that is rounded before anything is added to it."""
        return cuda.libdevice.fmul_rn(a, b)

    @device
    def times64(a, b):  # type: ignore[no-untyped-def]
        """The same in float64."""
        return cuda.libdevice.dmul_rn(a, b)

    def _pointer(context: Any, builder: Any, kind: Any, array: Any, index: Any) -> Any:
        """Address of an element, as one of four 32-bit words."""
        data = context.make_array(kind)(context, builder, array).data
        return builder.bitcast(builder.gep(data, [index]), ir.VectorType(ir.IntType(32), 4).as_pointer())

    @intrinsic  # type: ignore[untyped-decorator]  # of numba
    def _load16(typing_context: Any, array: Any, i: Any, found: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            source = _pointer(context, builder, signature.args[0], arguments[0], arguments[1])
            target = _pointer(context, builder, signature.args[2], arguments[2], ir.IntType(64)(0))
            builder.store(builder.load(source, align=16), target, align=signature.args[2].dtype.bitwidth // 8)
            return context.get_dummy_value()

        return types.void(array, types.int64, found), generate

    @intrinsic  # type: ignore[untyped-decorator]  # of numba
    def _store16(typing_context: Any, array: Any, i: Any, found: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            target = _pointer(context, builder, signature.args[0], arguments[0], arguments[1])
            source = _pointer(context, builder, signature.args[2], arguments[2], ir.IntType(64)(0))
            builder.store(builder.load(source, align=signature.args[2].dtype.bitwidth // 8), target, align=16)
            return context.get_dummy_value()

        return types.void(array, types.int64, found), generate

    @intrinsic  # type: ignore[untyped-decorator]  # of numba
    def from_half(typing_context: Any, bits: Any) -> Any:
        """The float16 that has these 16 bits, as float32."""

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            kind = ir.FunctionType(ir.FloatType(), [ir.IntType(16)])
            return builder.call(_llvm(builder, "llvm.convert.from.fp16.f32", kind), arguments)

        return types.float32(types.int16), generate

    @intrinsic  # type: ignore[untyped-decorator]  # of numba
    def to_half(typing_context: Any, number: Any) -> Any:
        """The 16 bits of a float32 rounded to float16."""

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            kind = ir.FunctionType(ir.IntType(16), [ir.FloatType()])
            return builder.call(_llvm(builder, "llvm.convert.to.fp16.f32", kind), arguments)

        return types.int16(types.float32), generate

    def _llvm(builder: Any, name: str, kind: Any) -> Any:
        """One of LLVM's own functions."""
        known = builder.module.globals.get(name)
        return known if known is not None else ir.Function(builder.module, kind, name)
