"""Parquet folders, as Spark reads them."""

from __future__ import annotations

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import StructType

# Spark's own switch for its internal readers: a root such as `/data/[eu]` is a folder here, not a pattern.
LITERAL_PATHS = {"__globPaths__": "false"}


def read_parquet(spark: SparkSession, path: str, schema: StructType | None = None) -> DataFrame:
    """The rows of a folder; with a schema no file is opened before the first action."""
    reader = spark.read.options(**LITERAL_PATHS)
    return (reader if schema is None else reader.schema(schema)).parquet(path)


def count_rows(spark: SparkSession, path: str) -> int:
    """Rows of a folder, from the footers of its files: no column is read."""
    return read_parquet(spark, path, StructType()).count()
