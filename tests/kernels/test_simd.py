from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from recsys_spark.kernels.jit import compiled
from recsys_spark.kernels.simd import (
    WIDTH,
    above,
    add_multiples,
    aligned,
    bit_count,
    dot,
    float_of,
    half_bits,
    keep_larger,
    lowest_bit,
    prefetch,
)
from tests.kernels.cases import added_in_lanes

FLOATS = st.floats(-1e6, 1e6, width=32)
SCORES = st.one_of(FLOATS, st.sampled_from([-np.inf, np.inf, 0.0, -0.0]))


@compiled
def call_above(scores: NDArray[np.float32], start: int, limit: float) -> int:
    return above(scores, start, limit)


@compiled
def bits_of(mask: np.uint64) -> tuple[int, list[int]]:
    number, places = bit_count(mask), [-1]
    while mask != 0:
        places.append(lowest_bit(mask))
        mask &= mask - np.uint64(1)
    return number, places


@compiled
def call_dot(left: NDArray[np.float32], right: NDArray[np.float32]) -> float:
    prefetch(right)
    return dot(left, right)


@compiled
def call_keep_larger(largest: NDArray[np.float32], scores: NDArray[np.float32], start: int) -> None:
    keep_larger(largest, 3, scores, start)


@compiled
def call_add_multiples(
    sums: NDArray[np.float32],
    initial: NDArray[np.float32],
    columns: NDArray[np.uint16],
    numbers: NDArray[np.int32],
    factors: NDArray[np.float32],
) -> None:
    add_multiples(sums, 5, initial, 2, columns, 3, numbers, factors, 1, numbers.size - 1)


@compiled
def call_half_bits(value: np.float32) -> np.uint16:
    return half_bits(value)


@compiled
def call_float_of(bits: np.int32) -> float:
    return float_of(bits)


@given(arrays(np.float32, 100, elements=SCORES), st.integers(0, 36), SCORES)
def test_above_marks_what_is_above(scores: NDArray[np.float32], start: int, limit: float) -> None:
    mask = call_above(scores, start, np.float32(limit))
    assert [bool(mask >> place & 1) for place in range(64)] == (scores[start : start + 64] > limit).tolist()


@given(st.integers(0, 2**64 - 1))
def test_bits_are_counted_and_found_from_the_lowest(mask: int) -> None:
    number, places = bits_of(np.uint64(mask))
    assert number == mask.bit_count()
    assert places[1:] == [place for place in range(64) if mask >> place & 1]


@settings(max_examples=200)
@given(st.data())
def test_dot_adds_in_its_order_to_the_last_bit(data: st.DataObject) -> None:
    size = data.draw(st.integers(0, 70))
    left, right = (data.draw(arrays(np.float32, size, elements=FLOATS)) for _ in range(2))
    guarded = np.full(size + 16, np.nan, np.float32)  # what lies behind the end plays no part
    guarded[:size] = right
    terms = left.astype(np.float64) * right.astype(np.float64)
    assert call_dot(left, guarded[:size]) == (added_in_lanes(terms) if size else 0.0)


@given(*(arrays(np.float32, 70, elements=FLOATS) for _ in range(2)), st.integers(0, 6))
def test_keep_larger(largest: NDArray[np.float32], scores: NDArray[np.float32], start: int) -> None:
    expected = np.concatenate([largest[:3], np.maximum(largest[3:67], scores[start : start + 64]), largest[67:]])
    call_keep_larger(largest, scores, start)
    assert largest.tolist() == expected.tolist()


@given(st.floats(width=32, allow_nan=False))
def test_float_of_bits(value: float) -> None:
    assert call_float_of(np.float32(value).view(np.int32)) == value


def test_multiples_of_columns_are_added() -> None:
    random = np.random.default_rng(0)
    columns = random.integers(-9, 9, 3 + 7 * WIDTH).astype(np.float16)
    numbers, factors = random.integers(0, 7, 12).astype(np.int32), random.integers(-9, 9, 12).astype(np.float32)
    sums, initial = np.zeros((2, WIDTH + 10), np.float32)
    initial[:] = random.integers(0, 9, initial.size)
    expected = np.zeros(sums.size)
    expected[5 : 5 + WIDTH] = initial[2 : 2 + WIDTH]
    for number, factor in list(zip(numbers, factors, strict=True))[1:-1]:
        expected[5 : 5 + WIDTH] += factor * columns[3 + number * WIDTH : 3 + (number + 1) * WIDTH]
    call_add_multiples(sums, initial, columns.view(np.uint16), numbers, factors)
    assert sums.tolist() == expected.tolist()  # whole numbers: no rounding


@given(st.floats(width=32, allow_nan=False))
def test_half_bits_are_those_of_the_nearest_float16(value: float) -> None:
    with np.errstate(over="ignore"):
        assert call_half_bits(np.float32(value)) == np.float32(value).astype(np.float16).view(np.uint16)


def test_aligned_room_begins_with_a_cache_line() -> None:
    for shape in ((1,), (3, 5), (0, 7), (100_000,)):
        room = aligned(shape)
        assert (room.shape, room.dtype, room.flags.c_contiguous) == (shape, np.float32, True)
        assert room.ctypes.data % 64 == 0 or room.size == 0
