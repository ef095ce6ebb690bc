"""Iceberg."""

from __future__ import annotations

from pyspark.sql import SparkSession

from recsys_spark.export_sections import IcebergExport
from recsys_spark.sinks.errors import ExportError
from recsys_spark.storage.run_storage import RunStorage


class IcebergStore:
    """Lists in Iceberg."""

    def __init__(self, export: IcebergExport) -> None:
        self._export = export

    def check(self) -> None:
        """Not there yet."""
        raise ExportError("exports of kind iceberg are not there yet")

    def served_run(self, spark: SparkSession) -> str | None:
        """Not there yet."""
        return None

    def write(self, storage: RunStorage) -> str:
        """Not there yet."""
        return ""
