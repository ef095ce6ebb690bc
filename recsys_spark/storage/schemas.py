"""Does a frame have the columns its table declares? By name and type before the write, by null during it."""

from __future__ import annotations

import re
from collections import Counter

from pyspark.sql import Column as SparkColumn
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, DataType, StructType

from recsys_spark.storage.errors import TableSchemaError
from recsys_spark.tables import Column, Table

_NULL_FOUND = re.compile(r"table \S+: column \S+ (?:is|holds) null[^\n]*?; [^\n]*? is not nullable")


def conform(table: Table, frame: DataFrame) -> DataFrame:
    """The frame in the table's column order; a null where the table allows none fails the job that writes it.

    The null checks run in the writing pass, and only where Spark cannot prove that there is no null.
    A column that a Python function declares non-nullable counts as proven: Spark trusts that declaration.

    Raises:
        TableSchemaError: naming the table and every missing, extra, repeated or differently typed column.
    """
    problems = schema_problems(table, frame.schema)
    if problems:
        raise TableSchemaError(f"table {table.name}: {'; '.join(problems)}")
    return frame.select(*(_checked(table, column, frame.schema) for column in table.columns))


def schema_problems(table: Table, found: StructType) -> list[str]:
    """What is wrong with the columns found; their order and nullability do not count."""
    counts = Counter(found.names)
    expected = {column.name: column for column in table.columns}
    problems = [f"column {name} is there {count} times" for name, count in counts.items() if count > 1]
    problems += [f"column {name} is not declared" for name in counts if name not in expected]
    for name, column in expected.items():
        wanted = column.type.simpleString()
        if name not in counts:
            problems.append(f"column {name} is missing, expected {wanted}")
        elif (given := found[name].dataType.simpleString()) != wanted:
            problems.append(f"column {name} is {given}, expected {wanted}")
    return problems


def null_problem(error: Exception) -> str | None:
    """The message of a null check inside the failure of a Spark job; None for other failures."""
    match = _NULL_FOUND.search(str(error))
    return match.group(0) if match else None


def _checked(table: Table, column: Column, found: StructType) -> SparkColumn:
    value = F.col(column.name)
    if _forbids_null(column.type) and not _forbids_null(found[column.name].dataType):
        has_null = F.exists(value, lambda element: element.isNull())
        value = F.when(has_null, _failure(table, column, "holds null")).otherwise(value)
    if not column.nullable:
        value = F.coalesce(value, _failure(table, column, "is null"))
    return value.alias(column.name)


def _forbids_null(data_type: DataType) -> bool:
    """Whether an array has no null elements; no table declares other nested types without nulls."""
    return isinstance(data_type, ArrayType) and not data_type.containsNull


def _failure(table: Table, column: Column, what: str) -> SparkColumn:
    """Fails the row, telling its key when that helps to find it."""
    start = F.lit(f"table {table.name}: column {column.name} {what} in the row ")
    key = [name for name in table.key if name != column.name]
    row = F.to_json(F.struct(*key)) if key else F.lit("")
    return F.raise_error(F.concat(start, row, F.lit(f"; {column.name} is not nullable")))
