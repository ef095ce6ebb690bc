"""One thread for linear algebra."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager
from functools import lru_cache

from threadpoolctl import ThreadpoolController


def one_thread() -> AbstractContextManager[object]:
    """Give BLAS and OpenMP one thread while this is open, or the last bits of a sum depend on how many there are.

    Looking for the libraries takes longer than a pass over few rows: they are looked for again only when a module was
    imported since, which may have loaded another.
    """
    limited: AbstractContextManager[object] = _libraries(len(sys.modules)).limit(limits=1)
    return limited


@lru_cache(maxsize=1)
def _libraries(modules: int) -> ThreadpoolController:
    return ThreadpoolController()
