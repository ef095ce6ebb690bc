import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from recsys_spark.kernels import jit
from recsys_spark.kernels.jit import kernel_input

USE_A_KERNEL = """
from recsys_spark_copy import jit

@jit.compiled
def double(number):
    return 2 * number

print(double(21), double._cache.__class__.__name__)
"""


def _run_with_copy(folder: Path, home: str) -> list[str]:
    package = folder / "recsys_spark_copy"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "jit.py").write_bytes(Path(jit.__file__).read_bytes())
    script = package / "script.py"
    script.write_text(USE_A_KERNEL)
    (package / "__pycache__").touch()  # a file where the cache folder should be: it cannot be made
    environment = {**os.environ, "HOME": home, "PYTHONPATH": str(folder)}
    environment = {name: value for name, value in environment.items() if name[:5] not in {"NUMBA", "XDG_C"}}
    done = subprocess.run(
        [sys.executable, str(script)], env=environment, capture_output=True, text=True, check=True, timeout=120
    )
    return done.stdout.split()


def test_kernels_work_when_no_cache_folder_can_be_written(tmp_path: Path) -> None:
    assert _run_with_copy(tmp_path, "/dev/null") == ["42", "NullCache"]


def test_kernels_are_cached_for_the_user_when_the_package_cannot_be_written(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    assert _run_with_copy(tmp_path, str(home)) == ["42", "FunctionCache"]
    assert list(home.rglob("*.nbi"))


def test_kernel_input_is_a_read_only_view_and_leaves_its_source_alone() -> None:
    source = np.arange(6, dtype=np.int64)
    view = kernel_input(source, np.int64)
    assert np.shares_memory(view, source)
    assert not view.flags.writeable
    assert source.flags.writeable


def test_kernel_input_copies_what_is_strided_unaligned_or_of_another_type() -> None:
    source = np.arange(6, dtype=np.int64)
    unaligned = np.frombuffer(bytes(1) + source.tobytes(), np.int64, offset=1)
    for array in (source[::2], source.astype(np.int32), unaligned):
        view = kernel_input(array, np.int64)
        np.testing.assert_array_equal(view, array)
        assert view.flags.c_contiguous
        assert view.flags.aligned
        assert view.dtype == np.int64
