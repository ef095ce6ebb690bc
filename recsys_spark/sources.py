"""Reads the inputs of a night, in any format Spark reads and in RecBole's atomic files."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from py4j.protocol import Py4JJavaError
from pyspark.errors import AnalysisException, PySparkException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StringType, StructField, StructType

from recsys_spark.errors import RecsysError, SettingsError
from recsys_spark.transforms.events import CORRUPT_RECORD, check_events, named
from recsys_spark.transforms.index import describe_entities

if TYPE_CHECKING:
    from recsys_spark.config import Settings
    from recsys_spark.sections import EventSettings, Source

_BROKEN_FILE = re.compile(
    r"(?:FAILED_READ_FILE[.\w]*\]|CANNOT_READ_FILE_FOOTER\]).*?(?P<path>(?:[a-z0-9]+:)?/[^\s]+?)\.?(?:\s|$)", re.DOTALL
)


def read_source(spark: SparkSession, source: Source, section: str) -> DataFrame:
    """The rows of an input, text formats with all values as strings and broken records in `_corrupt_record`.

    Raises:
        SettingsError: when the path or table does not exist or holds nothing readable, naming `section`.
        RecsysError: when a file is too broken to tell its columns, naming it where Spark does.
    """
    readers = {"csv": _read_csv, "json": _read_json, "recbole": _read_recbole, "table": _read_table}
    try:
        with readable(section):
            return readers.get(source.format, _read_columnar)(spark, source)
    except AnalysisException as error:
        raise SettingsError(f"{section}.path: {_reason(error, source)}") from error
    except Py4JJavaError as error:  # Spark has no error class of its own for a broken ORC file
        cause = str(error.java_exception.getMessage()).splitlines()[0]
        raise RecsysError(
            f"{section}.path: {source.path!r} cannot be read as {source.format}, a file of it is corrupt: {cause}"
        ) from error


def read_events(spark: SparkSession, events: EventSettings) -> DataFrame:
    """The raw events, with all mapped columns there."""
    raw = read_source(spark, events, "events")
    mapped = {f"columns.{name}": column for name, column in events.columns.model_dump().items() if column is not None}
    _require_columns(raw, mapped, "events")
    return raw


def read_entities(spark: SparkSession, settings: Settings) -> dict[str, DataFrame]:
    """The described items and users, as far as settings name them: source -> `id, attributes, reasons, row`."""
    described = {}
    for section, entity in (("items", settings.items), ("users", settings.users)):
        if entity is not None:
            raw = read_source(spark, entity, section)
            columns = {"id": entity.id, **{f"attributes.{name}": column for name, column in entity.attributes.items()}}
            _require_columns(raw, columns, section)
            described[section] = describe_entities(raw, entity, settings.events.max_id_bytes)
    return described


def read_rules(spark: SparkSession, settings: Settings) -> dict[str, DataFrame]:
    """The tables of the rules that settings name, by name, with `user_id`, `item_id` and `factor` as each has them."""
    found = {}
    for name, (source, columns) in settings.rules.sources.items():
        raw = read_source(spark, source, f"rules.{name}")
        _require_columns(raw, {column: getattr(source, column) for column in columns}, f"rules.{name}")
        found[name] = raw.select(*[_ruling(getattr(source, column), column) for column in columns])
    return found


def _ruling(column: str, role: str) -> Column:
    kind, name = ("double", "factor") if role == "factor" else ("string", f"{role}_id")
    return named(column).try_cast(kind).alias(name)


def check_inputs(spark: SparkSession, settings: Settings) -> None:
    """Look at every input without reading its rows.

    Raises:
        SettingsError: for a path, table or column that is not there, or a column that cannot hold what it should.
    """
    now = datetime.datetime.now(datetime.UTC)
    check_events(read_events(spark, settings.events), settings.events, settings.feedback, now.date(), now)
    read_entities(spark, settings)
    read_rules(spark, settings)


def count_events(spark: SparkSession, settings: Settings) -> tuple[int, int, int]:
    """Users, items and user-item pairs of the input, in one pass, within 2 %; rows a night would reject included."""
    columns = settings.events.columns
    user, item = (named(name).cast("string") for name in (columns.user, columns.item))
    pair = F.struct(user, item)
    counts = [F.approx_count_distinct(column, 0.02) for column in (user, item, pair)]
    with readable("events"):
        (row,) = read_events(spark, settings.events).agg(*counts).collect()
    return row[0], row[1], row[2]


@contextmanager
def readable(section: str) -> Iterator[None]:
    """Turn Spark's failure to read a broken input file into one line that names the file.

    Raises:
        RecsysError: naming the file.
    """
    try:
        yield
    except (PySparkException, Py4JJavaError) as error:
        match = _BROKEN_FILE.search(str(error))
        if match is None:
            raise
        raise RecsysError(
            f"{section}: file {match['path']} is corrupt or not in the format the settings name; "
            "replace it or take it out of the input"
        ) from error


def _require_columns(frame: DataFrame, columns: dict[str, str], section: str) -> None:
    """Check that mapped columns exist; `columns` maps the setting's name to the column it names."""
    for setting, column in columns.items():
        if column not in frame.columns:
            found = ", ".join(name for name in frame.columns if name != CORRUPT_RECORD) or "none"
            raise SettingsError(f"{section}.{setting}: the input has no column {column!r}; it has {found}")


def _read_columnar(spark: SparkSession, source: Source) -> DataFrame:
    return spark.read.format(source.format).options(**source.options).load(source.path)


def _read_table(spark: SparkSession, source: Source) -> DataFrame:
    return spark.read.options(**source.options).table(source.path)


def _read_csv(spark: SparkSession, source: Source) -> DataFrame:
    # Quotes inside quoted values are doubled (RFC 4180); Spark's own default is a backslash.
    return _read_separated(spark, source.path, {"header": "true", "escape": '"', **source.options})


def _read_recbole(spark: SparkSession, source: Source) -> DataFrame:
    """Atomic files: tab separated, no quoting, headers `name:type`; the types are dropped."""
    options = {"header": "true", "sep": "\t", "quote": "", **source.options}
    frame = _read_separated(spark, source.path, options)
    return frame.toDF(*[name.split(":")[0] for name in frame.columns])


def _read_separated(spark: SparkSession, path: str, options: dict[str, str]) -> DataFrame:
    reader = spark.read.options(**options)
    header = reader.csv(path).schema
    schema = StructType([*header.fields, StructField(CORRUPT_RECORD, StringType())])
    # enforceSchema off: a file whose header differs fails instead of filling the wrong columns.
    return reader.options(columnNameOfCorruptRecord=CORRUPT_RECORD, enforceSchema="false").schema(schema).csv(path)


def _read_json(spark: SparkSession, source: Source) -> DataFrame:
    options = {"primitivesAsString": "true", "columnNameOfCorruptRecord": CORRUPT_RECORD, **source.options}
    return spark.read.options(**options).json(source.path)


def _reason(error: AnalysisException, source: Source) -> str:
    reasons = {
        "PATH_NOT_FOUND": f"{source.path!r} does not exist",
        "TABLE_OR_VIEW_NOT_FOUND": f"table {source.path!r} does not exist",
        "UNABLE_TO_INFER_SCHEMA": f"{source.path!r} holds no {source.format} files",
    }
    condition = error.getCondition() or ""
    return reasons.get(condition, f"{source.path!r} cannot be read as {source.format}: {str(error).splitlines()[0]}")
