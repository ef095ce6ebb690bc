"""Executors have no pydantic, applications that read have no Spark."""

from __future__ import annotations

import subprocess
import sys

import pytest

BLOCK = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ImportError(name)
sys.meta_path.insert(0, Block())
import {module}
"""
DRIVER = {"pydantic", "pydantic_settings", "typer", "rich", "keras", "tensorflow", "psutil", "pyiceberg"}


@pytest.mark.parametrize("module", ["redis_source", "postgres_source"])
def test_workers_import_nothing_of_the_driver(module: str) -> None:
    _import(f"recsys_spark.sinks.{module}", DRIVER)


@pytest.mark.parametrize("module", ["redis", "postgres", "files"])
def test_readers_import_no_spark(module: str) -> None:
    _import(f"recsys_spark.sinks.{module}", {*DRIVER, "pyspark", "pyarrow", "numpy"})


def _import(module: str, blocked: set[str]) -> None:
    code = BLOCK.format(blocked=blocked, module=module)
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
