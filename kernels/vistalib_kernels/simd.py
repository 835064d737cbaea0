"""The two inner loops of DCNv3 on a CPU, as vector instructions that Numba could not find by itself.

Each is a Numba intrinsic: called from jitted code like a function, written here in LLVM's own language. One call treats one
pixel and one group: it walks over the K points and keeps all D channels of the group in vector registers meanwhile. D is a
constant of the compiled code, split into powers of two: 30 channels in float32 are vectors of 16, 8, 4 and 2. LLVM fits the
vectors to the machine, two instructions for one of 512 bits where there is no AVX-512.

Arrays, all one-dimensional and contiguous: `pixel` (points) number of the pixel at each point's top left corner, y * W + x;
`inside` (points) one bit a corner, 1 top left, 2 top right, 4 bottom left, 8 bottom right, and in the backward four more in
the same order, for the corners of `grad_value` to add to; `fraction` (points * 2) how far x and y lie beyond that corner;
`weight` (points) the mask. A corner without its bit is never touched.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

INT32, INT64 = ir.IntType(32), ir.IntType(64)
VECTOR_BITS = 512
Vector = list[ir.Value]  # D channels as vectors of powers of two


class _Code:
    """A builder of LLVM code that knows D, the dtype, and the arrays by name."""

    def __init__(self, context: Any, builder: Any, signature: Any, arguments: Any, *, names: tuple[str, ...]) -> None:
        self.builder, self.value = builder, dict(zip(names, arguments))
        self.data = {}
        for name, kind, argument in zip(names, signature.args, arguments):
            if isinstance(kind, types.Array):
                self.data[name] = context.make_array(kind)(context, builder, argument).data
        kinds = dict(zip(names, signature.args))
        self.channels = kinds["channels"].literal_value
        self.bits = kinds["value"].dtype.bitwidth
        self.real = context.get_data_type(kinds["value"].dtype)
        self.parts = []  # (first channel, channels)
        first, width = 0, VECTOR_BITS // self.bits
        while first < self.channels:
            while width > self.channels - first:
                width //= 2
            self.parts.append((first, width))
            first += width

    def number(self, name: str, index: ir.Value) -> ir.Value:
        """One element of an array."""
        return self.builder.load(self.builder.gep(self.data[name], [index]))

    def put(self, number: ir.Value, name: str, index: ir.Value) -> None:
        """Set one element of an array."""
        self.builder.store(number, self.builder.gep(self.data[name], [index]))

    def _pointers(self, name: str, index: ir.Value) -> Iterator[ir.Value]:
        for first, width in self.parts:
            at = self.builder.gep(self.data[name], [self.builder.add(index, INT64(first))])
            yield self.builder.bitcast(at, ir.VectorType(self.real, width).as_pointer())

    def load(self, name: str, index: ir.Value) -> Vector:
        """The D channels that begin at element `index`."""
        return [self.builder.load(at, align=self.bits // 8) for at in self._pointers(name, index)]

    def store(self, vector: Vector, name: str, index: ir.Value) -> None:
        """The other way."""
        for part, at in zip(vector, self._pointers(name, index)):
            self.builder.store(part, at, align=self.bits // 8)

    def slots(self) -> Vector:
        """A variable of D channels, zero at first; LLVM keeps it in registers."""
        slots = []
        for _, width in self.parts:
            zero = ir.Constant(ir.VectorType(self.real, width), [0.0] * width)
            slots.append(cgutils.alloca_once(self.builder, zero.type))  # type: ignore[no-untyped-call]
            self.builder.store(zero, slots[-1])
        return slots

    def fused(self, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
        """A * b + c, in one instruction where the machine has it."""
        name = f"llvm.fmuladd.v{a.type.count}f{self.bits}"
        kind = ir.FunctionType(a.type, [a.type] * 3)
        function = cgutils.get_or_insert_function(self.builder.module, kind, name)  # type: ignore[no-untyped-call]
        return self.builder.call(function, [a, b, c])

    def spread(self, number: ir.Value) -> Vector:
        """`number` in every channel."""
        vectors = []
        for _, width in self.parts:
            kind = ir.VectorType(self.real, width)
            one = self.builder.insert_element(ir.Constant(kind, ir.Undefined), number, INT32(0))
            zeros = ir.Constant(ir.VectorType(INT32, width), [0] * width)
            vectors.append(self.builder.shuffle_vector(one, ir.Constant(kind, ir.Undefined), zeros))
        return vectors

    def dot(self, a: Vector, b: Vector) -> ir.Value:
        """Sum over the channels of a * b, by halves: an order that does not depend on the machine."""
        sums: dict[int, ir.Value] = {}
        for x, y in zip(a, b):
            width = x.type.count
            sums[width] = self.fused(x, y, sums[width]) if width in sums else self.builder.fmul(x, y)
        width, total = max(sums), sums[max(sums)]
        while width > 1:
            width //= 2
            undefined = ir.Constant(total.type, ir.Undefined)
            low, high = (
                self.builder.shuffle_vector(
                    total, undefined, ir.Constant(ir.VectorType(INT32, width), list(range(first, first + width)))
                )
                for first in (0, width)
            )
            total = self.builder.fadd(low, high)
            if width in sums:
                total = self.builder.fadd(total, sums[width])
        return self.builder.extract_element(total, INT32(0))

    @contextmanager
    def points(self) -> Iterator[tuple[ir.Value, ir.Value, ir.Value]]:
        """Loop over the K points from `first` on; yields (place in the arrays, address of the top left corner, inside)."""
        builder = self.builder
        with cgutils.for_range(builder, self.value["points"]) as loop:
            point = builder.add(self.value["first"], loop.index)
            pixel = builder.sext(self.number("pixel", point), INT64)
            corner = builder.add(self.value["image"], builder.mul(pixel, self.value["pixel_step"]))
            yield point, corner, self.number("inside", point)

    def fractions(self, point: ir.Value) -> tuple[list[ir.Value], list[ir.Value]]:
        """[1 - x, x] and [1 - y, y] of a point."""
        x = self.builder.mul(point, INT64(2))
        fractions = [self.number("fraction", x), self.number("fraction", self.builder.add(x, INT64(1)))]
        one = ir.Constant(self.real, 1.0)
        across, down = ([self.builder.fsub(one, fraction), fraction] for fraction in fractions)
        return across, down

    def each_corner(self, corner: ir.Value, inside: ir.Value, *visits: Callable[[int, ir.Value], None]) -> None:
        """Call `visit(number, address)` for the corners with a bit, of every visit's own four bits.

        Most points have all of them, so these are asked first.
        """
        builder = self.builder
        below = builder.add(corner, self.value["line_step"])
        step = self.value["pixel_step"]
        addresses = [corner, builder.add(corner, step), below, builder.add(below, step)]
        with builder.if_else(builder.icmp_signed("==", inside, inside.type(16 ** len(visits) - 1)), likely=True) as (
            whole,
            part,
        ):
            with whole:
                for number, address in enumerate(addresses):
                    for visit in visits:
                        visit(number, address)
            with part:
                for number, address in enumerate(addresses):
                    for place, visit in enumerate(visits):
                        bit = builder.and_(inside, inside.type(1 << number << 4 * place))
                        with builder.if_then(builder.icmp_signed("!=", bit, inside.type(0))):
                            visit(number, address)


_GATHER = ("value", "image", "pixel_step", "line_step", "pixel", "inside", "fraction", "weight", "first", "points")
_FORWARD = (*_GATHER, "output", "to", "channels")
_BACKWARD = (*_GATHER, "grad_output", "at", "grad_value", "grad_weight", "grad_fraction", "channels")


def _weigh_and_add(
    typing_context: Any,
    value: Any,
    image: Any,
    pixel_step: Any,
    line_step: Any,
    pixel: Any,
    inside: Any,
    fraction: Any,
    weight: Any,
    first: Any,
    points: Any,
    output: Any,
    to: Any,
    channels: Any,
) -> Any:
    """output[to : to + D] = sum over K points, from `first` on, of the weight and the interpolated value.

    `image` is the element of `value` where this image's first pixel has this group's first channel; `pixel_step` and
    `line_step` are the elements from a pixel to the one right of it and the one below it.
    """
    arguments = (value, image, pixel_step, line_step, pixel, inside, fraction, weight, first, points, output, to, channels)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        code = _Code(context, builder, signature, arguments, names=_FORWARD)
        # A sum for each corner, so that no addition waits for the one before; fewer where registers would run out.
        sums = [code.slots() for _ in range(4 if len(code.parts) <= 4 else 1)]
        with code.points() as (point, corner, bits):
            across, down = code.fractions(point)
            down = [builder.fmul(share, code.number("weight", point)) for share in down]

            def add(number: int, address: ir.Value) -> None:
                share = builder.fmul(down[number // 2], across[number % 2])
                for part, factor, slot in zip(code.load("value", address), code.spread(share), sums[number % len(sums)]):
                    builder.store(code.fused(part, factor, builder.load(slot)), slot)

            code.each_corner(corner, bits, add)
        total = [builder.load(slot) for slot in sums[0]]
        for more in sums[1:]:
            total = [builder.fadd(part, builder.load(slot)) for part, slot in zip(total, more)]
        code.store(total, "output", code.value["to"])
        return context.get_dummy_value()

    return types.void(*arguments), generate


def _weigh_and_add_backward(
    typing_context: Any,
    value: Any,
    image: Any,
    pixel_step: Any,
    line_step: Any,
    pixel: Any,
    inside: Any,
    fraction: Any,
    weight: Any,
    first: Any,
    points: Any,
    grad_output: Any,
    at: Any,
    grad_value: Any,
    grad_weight: Any,
    grad_fraction: Any,
    channels: Any,
) -> Any:
    """The gradients of `weigh_and_add`: adds to `grad_value`, sets `grad_weight` and `grad_fraction` at its K points.

    `at` is the element of `grad_output` where the D channels of this pixel and group begin.
    """
    arguments = (
        value, image, pixel_step, line_step, pixel, inside, fraction, weight, first, points,
        grad_output, at, grad_value, grad_weight, grad_fraction, channels,
    )  # fmt: skip

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        code = _Code(context, builder, signature, arguments, names=_BACKWARD)
        gradient = code.load("grad_output", code.value["at"])
        slots = [cgutils.alloca_once(builder, code.real) for _ in range(4)]  # type: ignore[no-untyped-call]
        with code.points() as (point, corner, bits):
            across, down = code.fractions(point)
            mask = code.number("weight", point)
            for slot in slots:
                builder.store(ir.Constant(code.real, 0.0), slot)

            def read(number: int, address: ir.Value) -> None:
                builder.store(code.dot(code.load("value", address), gradient), slots[number])

            def add(number: int, address: ir.Value) -> None:
                share = builder.fmul(mask, builder.fmul(down[number // 2], across[number % 2]))
                old = code.load("grad_value", address)
                code.store([code.fused(*three) for three in zip(gradient, code.spread(share), old)], "grad_value", address)

            code.each_corner(corner, bits, read, add)
            top_left, top_right, bottom_left, bottom_right = (builder.load(slot) for slot in slots)

            def mix(a: ir.Value, b: ir.Value, shares: list[ir.Value]) -> ir.Value:
                return builder.fadd(builder.fmul(a, shares[0]), builder.fmul(b, shares[1]))

            top, bottom = mix(top_left, top_right, across), mix(bottom_left, bottom_right, across)
            code.put(mix(top, bottom, down), "grad_weight", point)
            to_right = mix(builder.fsub(top_right, top_left), builder.fsub(bottom_right, bottom_left), down)
            x = builder.mul(point, INT64(2))
            code.put(builder.fmul(mask, to_right), "grad_fraction", x)
            code.put(builder.fmul(mask, builder.fsub(bottom, top)), "grad_fraction", builder.add(x, INT64(1)))
        return context.get_dummy_value()

    return types.void(*arguments), generate


def _power_of_two(typing_context: Any, exponent: Any) -> Any:
    """2 ** exponent for a whole float in the range of normal numbers: its bits are put together, no arithmetic."""
    bits, bias, shift = (32, 127, 23) if exponent == types.float32 else (64, 1023, 52)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        integer = ir.IntType(bits)
        number = builder.add(builder.fptosi(arguments[0], integer), integer(bias))
        return builder.bitcast(builder.shl(number, integer(shift)), arguments[0].type)

    return exponent(exponent), generate


weigh_and_add: Any = intrinsic(prefer_literal=True)(_weigh_and_add)
weigh_and_add_backward: Any = intrinsic(prefer_literal=True)(_weigh_and_add_backward)
power_of_two: Any = intrinsic(_power_of_two)
