"""What the kernels take at their peak beside their arguments: the formulas of docs/architecture.md."""

from __future__ import annotations

import ctypes
import platform
import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from recsys_spark.kernels.csr import CsrRows, IndexLists
from recsys_spark.kernels.distances import nearest_rows
from recsys_spark.kernels.scoring import score_top_k

MB = 1 << 20
TOLERANCE = 2 * MB  # pages that the allocator rounds up to
RESET_PEAK = Path("/proc/self/clear_refs")
pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.libc_ver()[0] != "glibc", reason="the peak is read the way of Linux and glibc"
)


def resident(kind: str) -> int:
    """Bytes of this process: VmRSS now, or VmHWM at the peak since the last reset."""
    status = Path("/proc/self/status").read_text()
    return int(re.findall(rf"{kind}:\s+(\d+) kB", status)[0]) * 1024


def peak_of(call: Callable[[], object]) -> int:
    """Bytes that a call takes at its peak; it runs once before, so that compilation does not count."""
    call()
    ctypes.CDLL(None).malloc_trim(0)  # or the call would live on what the first one left
    RESET_PEAK.write_text("5")
    before = resident("VmRSS")
    call()
    return resident("VmHWM") - before


@pytest.mark.parametrize("users", [1_000, 8_000])
def test_scoring_takes_no_more_than_it_says(users: int) -> None:
    k, dims, items, seen = 100, 32, 30_000, 40
    random = np.random.default_rng(0)
    queries = random.standard_normal((users, dims), dtype=np.float32)
    vectors = random.standard_normal((items, dims), dtype=np.float32)
    indices = np.sort(random.integers(0, items, (users, seen)), axis=1).astype(np.int32).ravel()
    excluded = IndexLists(np.arange(0, seen * users + 1, seen), indices)
    stated = users * (12 * k + 12 * dims + 8 * seen) + 4 * MB
    assert stated < users * items
    assert peak_of(lambda: score_top_k(queries, vectors, excluded, k)) < stated + TOLERANCE


@pytest.mark.parametrize(("users", "rated"), [(1_000, 40), (4_000, 40), (4_000, 300)], ids=["few", "more", "popular"])
def test_the_search_for_neighbors_takes_no_more_than_it_says(users: int, rated: int) -> None:
    k, rows, columns = 50, 30_000, 3_000
    random = np.random.default_rng(0)
    indices = np.sort(random.random((rows, columns), dtype=np.float32).argpartition(rated, axis=1)[:, :rated], axis=1)
    values = random.random(rows * rated, dtype=np.float32)
    everybody = CsrRows(np.arange(0, rows * rated + 1, rated), indices.astype(np.int32).ravel(), values, columns)
    some = CsrRows(everybody.indptr[: users + 1], everybody.indices[: users * rated], values[: users * rated], columns)
    stated = users * (33 * rated + 16 * k + 13 * (2 * k + 128) + 8) + 16 * rows + 36 * columns + 13 * MB
    assert stated < users * rows
    assert peak_of(lambda: nearest_rows(some, np.arange(users), everybody, 0, k)) < stated + TOLERANCE
