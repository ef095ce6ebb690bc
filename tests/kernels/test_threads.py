from __future__ import annotations

import subprocess
import sys

CODE = """
import numpy
from threadpoolctl import threadpool_info, threadpool_limits
from recsys_spark.kernels.threads import one_thread

def threads():
    return {library["filepath"]: library["num_threads"] for library in threadpool_info()}

threadpool_limits(3)
with one_thread():
    before = threads()
    assert set(before.values()) == {1}, before
assert set(threads().values()) == {3}, threads()
import scipy.linalg
threadpool_limits(3)
assert len(threads()) > len(before), "SciPy was to bring a library of its own"
with one_thread():
    assert set(threads().values()) == {1}, threads()
assert set(threads().values()) == {3}, threads()
"""


def test_libraries_have_one_thread_also_those_that_are_loaded_later() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
