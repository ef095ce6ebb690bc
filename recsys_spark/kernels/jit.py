"""How kernels are compiled: one decorator, so that all get the same flags, and one way to hand arrays over."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numpy.typing import DTypeLike, NDArray

Kernel = TypeVar("Kernel", bound=Callable[..., Any])
Real = float | np.floating[Any]
Whole = int | np.integer[Any]


def _sources_digest() -> str:
    sources = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:12]


_DIGEST = _sources_digest()


def compiled(function: Kernel) -> Kernel:
    """Compile a function with Numba: GIL released, IEEE arithmetic, cached on disk where that is possible."""
    # Numba's cache looks at the caller's file only: an edit of a kernel that another file calls would go
    # unnoticed there. The cache is named by `__qualname__`, so the digest of all kernels joins it.
    function.__qualname__ = f"{function.__qualname__}-{_DIGEST}"
    try:
        kernel: Any = numba.njit(cache=True, nogil=True, error_model="numpy")(function)
    except RuntimeError:  # neither the package's nor the user's cache folder can be written
        kernel = numba.njit(nogil=True, error_model="numpy")(function)
    return cast(Kernel, kernel)


def kernel_input(array: NDArray[Any], dtype: DTypeLike) -> NDArray[Any]:
    """Give a contiguous, read-only view of an array (a copy where dtype or layout differ).

    Numba compiles once per combination of layouts and writability, and memory-mapped shards are read-only:
    with every input read-only there is one combination.
    """
    view = np.require(array, dtype, ["C", "A"]).view(np.ndarray)
    view.flags.writeable = False
    return view
