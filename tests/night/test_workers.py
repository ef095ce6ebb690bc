"""What a worker imports must not need what only the driver has."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import recsys_spark

IMPORT_ALL = """
import importlib, pkgutil, sys

BLOCKED = {"keras", "tensorflow", "pydantic", "pydantic_settings", "typer", "rich", "psutil", "h5py"}


class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ImportError(f"{name} is not there on an executor")


sys.meta_path.insert(0, Block())
names = ["recsys_spark.tables", "recsys_spark.errors"]
for room in ("blockwise", "kernels", "metrics", "transforms"):
    package = importlib.import_module(f"recsys_spark.{room}")
    names += [module.name for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")]
for name in names:
    importlib.import_module(name)
print(len(names), sorted(BLOCKED & {name.partition(".")[0] for name in sys.modules}))
"""


def test_workers_import_nothing_of_the_driver() -> None:
    found = subprocess.run([sys.executable, "-c", IMPORT_ALL], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    rooms = ("blockwise", "kernels", "metrics", "transforms")
    folder = Path(recsys_spark.__file__).parent
    modules = [path for room in rooms for path in (folder / room).rglob("*.py") if path.stem != "__init__"]
    assert found.stdout.strip() == f"{len(modules) + 2} []"


def test_the_block_would_be_noticed() -> None:
    code = IMPORT_ALL.replace('names = ["recsys_spark.tables"', 'names = ["recsys_spark.cli"')
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert found.returncode == 1
    assert "is not there on an executor" in found.stderr
