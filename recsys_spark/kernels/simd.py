"""Vector operations that Numba does not make of plain loops, as LLVM vectors: LLVM fits them to any processor.

Working through a tile of scores, and the scores themselves, are bound by them.
"""

import math
from collections.abc import Callable
from typing import Any, cast

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

LANES = 16  # of float64 sums; a power of two
MASK_BITS = 64
LINE_FLOATS = 16
WIDTH = 128  # sums that are added up in registers: eight of the longest, so that they do not wait for each other

_FLOAT, _DOUBLE, _I32, _I64 = ir.FloatType(), ir.DoubleType(), ir.IntType(32), ir.IntType(64)
_FLOATS, _DOUBLES = ir.VectorType(_FLOAT, LANES), ir.VectorType(_DOUBLE, LANES)
_FLAGS = ir.VectorType(ir.IntType(1), LANES)


def aligned(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Give room for float32 values that begins with a cache line: loads that cross lines take longer."""
    size = math.prod(shape)
    room = np.empty(size + LINE_FLOATS, np.float32)
    first = -room.ctypes.data % (4 * LINE_FLOATS) // 4
    return room[first : first + size].reshape(shape)


def _operation(build: Callable[..., Any]) -> Callable[..., Any]:
    """Make an operation of compiled code from a function that types it and builds it."""
    return cast(Callable[..., Any], intrinsic(build))


@_operation
def above(typing_context: Any, scores: Any, start: Any, limit: Any) -> tuple[Any, Callable[..., Any]]:
    """Of the 64 scores from `start` on, which are above the limit, as the bits of a uint64; (n,) float32, contiguous.

    Nothing checks that there are 64.
    """

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        array, start, limit = arguments
        vector = ir.VectorType(_FLOAT, MASK_BITS)
        values = builder.load(_place(context, builder, signature.args[0], array, start, vector), align=4)
        is_above = builder.fcmp_ordered(">", values, _splat(builder, limit, MASK_BITS))
        return builder.bitcast(is_above, _I64)

    return types.uint64(scores, types.intp, types.float32), generate


@_operation
def lowest_bit(typing_context: Any, bits: Any) -> tuple[Any, Callable[..., Any]]:
    """The place of the lowest bit that is set in a uint64 other than 0."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), generate


@_operation
def bit_count(typing_context: Any, bits: Any) -> tuple[Any, Callable[..., Any]]:
    """How many bits of a uint64 are set."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        return builder.ctpop(arguments[0])

    return types.int64(types.uint64), generate


@_operation
def keep_larger(
    typing_context: Any, largest: Any, place: Any, scores: Any, start: Any
) -> tuple[Any, Callable[..., Any]]:
    """Keep in 64 of an array, from `place` on, the larger of each: its own or that of `scores` from `start` on."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        vector, kinds = ir.VectorType(_FLOAT, MASK_BITS), signature.args
        target = _place(context, builder, kinds[0], arguments[0], arguments[1], vector)
        source = _place(context, builder, kinds[2], arguments[2], arguments[3], vector)
        kept, offered = builder.load(target, align=4), builder.load(source, align=4)
        builder.store(builder.select(builder.fcmp_ordered(">", offered, kept), offered, kept), target, align=4)
        return context.get_dummy_value()

    return types.void(largest, types.intp, scores, types.intp), generate


@_operation
def add_multiples(
    typing_context: Any,
    sums: Any,
    place: Any,
    initial: Any,
    at: Any,
    columns: Any,
    first: Any,
    numbers: Any,
    factors: Any,
    start: Any,
    stop: Any,
) -> tuple[Any, Callable[..., Any]]:
    """Fill 128 of `sums`, from `place` on, with 128 of `initial`, from `at` on, plus multiples of columns; float32.

    Column c is 128 values from `first + 128 c` of `columns` on, bits of float16 in uint16; entries `start` to `stop`
    (excluded) of `numbers`, int32, say which are added, and those of `factors` how often. The sums stay in registers
    meanwhile: what takes the time is loading the columns, of which float16 needs half the bytes.
    """

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        vector, halves, kinds = ir.VectorType(_FLOAT, WIDTH), ir.VectorType(ir.HalfType(), WIDTH), signature.args
        sums, place, initial, at, columns, first, *_, start, stop = arguments
        kind = ir.FunctionType(vector, [vector] * 3)
        multiply_add = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fmuladd.v{WIDTH}f32")
        number_data, factor_data = (
            context.make_array(kinds[which])(context, builder, arguments[which]).data for which in (6, 7)
        )
        beginning = builder.load(_place(context, builder, kinds[2], initial, at, vector), align=4)
        total = cgutils.alloca_once_value(builder, beginning)
        with cgutils.for_range_slice(builder, start, stop, ir.Constant(start.type, 1), inc=True) as (entry, _):
            number = builder.sext(builder.load(builder.gep(number_data, [entry])), _I64)
            offset = builder.add(first, builder.mul(number, ir.Constant(_I64, WIDTH)))
            stored = builder.load(_place(context, builder, kinds[4], columns, offset, halves), align=2)
            factor = _splat(builder, builder.load(builder.gep(factor_data, [entry])), WIDTH)
            builder.store(
                builder.call(multiply_add, [factor, builder.fpext(stored, vector), builder.load(total)]), total
            )
        builder.store(builder.load(total), _place(context, builder, kinds[0], sums, place, vector), align=4)
        return context.get_dummy_value()

    whole = types.intp
    return types.void(sums, whole, initial, whole, columns, whole, numbers, factors, whole, whole), generate


@_operation
def half_bits(typing_context: Any, value: Any) -> tuple[Any, Callable[..., Any]]:
    """The bits of the float16 nearest to a float32."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        return builder.bitcast(builder.fptrunc(arguments[0], ir.HalfType()), ir.IntType(16))

    return types.uint16(types.float32), generate


@_operation
def from_half_bits(typing_context: Any, bits: Any) -> tuple[Any, Callable[..., Any]]:
    """The float32 with the value of the float16 of these bits, a uint16."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        return builder.fpext(builder.bitcast(arguments[0], ir.HalfType()), _FLOAT)

    return types.float32(types.uint16), generate


@_operation
def float_of(typing_context: Any, bits: Any) -> tuple[Any, Callable[..., Any]]:
    """The float32 with the bits of an int32."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        return builder.bitcast(arguments[0], _FLOAT)

    return types.float32(types.int32), generate


@_operation
def prefetch(typing_context: Any, values: Any) -> tuple[Any, Callable[..., Any]]:
    """Ask for the cache lines of an array of 4-byte values, contiguous, that will be read soon."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        size = builder.extract_value(array.shape, 0)
        zero, step = ir.Constant(size.type, 0), ir.Constant(size.type, LINE_FLOATS)
        with cgutils.for_range_slice(builder, zero, size, step, inc=True) as (start, _):
            place = builder.bitcast(builder.gep(array.data, [start]), _FLOAT.as_pointer())
            kind = ir.FunctionType(ir.VoidType(), [place.type, _I32, _I32, _I32])
            call = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
            builder.call(call, [place, ir.Constant(_I32, 0), ir.Constant(_I32, 3), ir.Constant(_I32, 1)])
        return context.get_dummy_value()

    return types.void(values), generate


@_operation
def dot(typing_context: Any, left: Any, right: Any) -> tuple[Any, Callable[..., Any]]:
    """The dot product of two float32 arrays of one length, contiguous, as float64, in one defined order.

    Lane l of 16 adds the products of dimensions l, l + 16, ... in turn; then the lanes are added by halves: l and
    l + 8, l and l + 4, l and l + 2, l and l + 1. The products are exact, so fusing them with the sums changes nothing.
    """

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        arrays = [
            context.make_array(kind)(context, builder, value)
            for kind, value in zip(signature.args, arguments, strict=True)
        ]
        size = builder.extract_value(arrays[0].shape, 0)
        total = cgutils.alloca_once_value(builder, ir.Constant(_DOUBLES, None))
        step = ir.Constant(size.type, LANES)
        with cgutils.for_range_slice(builder, ir.Constant(size.type, 0), size, step, inc=True) as (start, _):
            left_part, right_part = (_lanes(builder, array.data, start, size) for array in arrays)
            product = builder.fmul(builder.fpext(left_part, _DOUBLES), builder.fpext(right_part, _DOUBLES))
            builder.store(builder.fadd(builder.load(total), product), total)
        return _added(builder, builder.load(total))

    return types.float64(left, right), generate


def _place(context: Any, builder: ir.IRBuilder, kind: Any, array: Any, start: Any, vector: ir.VectorType) -> ir.Value:
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [start]), vector.as_pointer())


def _lanes(builder: ir.IRBuilder, data: Any, start: Any, size: Any) -> ir.Value:
    """16 values from `start` on, 0 where the array has ended."""
    ascending = ir.Constant(ir.VectorType(size.type, LANES), list(range(LANES)))
    is_inside = builder.icmp_signed("<", ascending, _splat(builder, builder.sub(size, start), LANES))
    place = builder.bitcast(builder.gep(data, [start]), _FLOATS.as_pointer())
    kind = ir.FunctionType(_FLOATS, [place.type, _I32, _FLAGS, _FLOATS])
    load = cgutils.get_or_insert_function(builder.module, kind, f"llvm.masked.load.v{LANES}f32.p0")
    return builder.call(load, [place, ir.Constant(_I32, 4), is_inside, ir.Constant(_FLOATS, None)])


def _added(builder: ir.IRBuilder, lanes: Any) -> ir.Value:
    width = LANES
    while width > 1:
        width //= 2
        undefined = ir.Constant(lanes.type, ir.Undefined)
        halves = [
            builder.shuffle_vector(
                lanes, undefined, ir.Constant(ir.VectorType(_I32, width), list(range(first, first + width)))
            )
            for first in (0, width)
        ]
        lanes = builder.fadd(*halves)
    return builder.extract_element(lanes, ir.Constant(_I32, 0))


def _splat(builder: ir.IRBuilder, value: Any, width: int) -> ir.Value:
    kind = ir.VectorType(value.type, width)
    single = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(_I32, 0))
    return builder.shuffle_vector(single, single, ir.Constant(ir.VectorType(_I32, width), [0] * width))
