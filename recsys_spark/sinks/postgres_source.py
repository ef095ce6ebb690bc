"""`df.write.format("recsys_postgres")`: lists written to PostgreSQL by COPY, served by one UPDATE. Workers import this.

Each task copies its rows and notes its part in one transaction: of two attempts at a part the second finds the note
and takes its rows back. `commit` runs in a process of its own: it counts, builds the primary key, attaches the table
as a partition, and then one transaction moves the one row that says what is served. Readers take no lock that waits
for it, and one in an older transaction sees the run before. `abort` cleans nothing; a later export does.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import psycopg
import pyarrow as pa
from psycopg import sql
from pyspark import TaskContext
from pyspark.sql.datasource import DataSource, DataSourceArrowWriter, WriterCommitMessage
from pyspark.sql.types import StructType

from recsys_spark.sinks.errors import ExportError
from recsys_spark.sinks.options import checked_run_date
from recsys_spark.sinks.pacing import Pace, pause_s, retried
from recsys_spark.sinks.postgres_connection import PostgresOptions, connect, is_busy, is_transient
from recsys_spark.sinks.postgres_generations import (
    attach,
    build_key,
    noted_users,
    require_complete,
    serve,
    start_generation,
    wait_for_planned,
)
from recsys_spark.sinks.texts import COLUMNS, copy_rows

FORMAT = "recsys_postgres"
_ROWS_A_WRITE = 10_000


@dataclass(frozen=True)
class WrittenPart(WriterCommitMessage):
    """What a task has written."""

    part: int
    users: int


class PostgresDataSource(DataSource):
    """Writes `user_id`, `item_ids`, `scores`, `tier`; options as in `PostgresOptions`. Both modes make a generation."""

    @classmethod
    def name(cls) -> str:
        """The format."""
        return FORMAT

    def writer(self, schema: StructType, overwrite: bool) -> DataSourceArrowWriter:
        """A writer of one export, which has a table of its own from here on."""
        missing = sorted(set(COLUMNS) - set(schema.names))
        if missing:
            raise ExportError(f"{FORMAT} needs a column {', '.join(missing)}; there are {', '.join(schema.names)}")
        options = PostgresOptions.parse(self.options)
        checked_run_date(options.run_date)
        return PostgresWriter(replace(options, generation=start_generation(options)))


class PostgresWriter(DataSourceArrowWriter):
    """Pickled to every task and to the process that commits."""

    def __init__(self, options: PostgresOptions) -> None:
        self.options = options

    def write(self, iterator: Iterator[pa.RecordBatch]) -> WrittenPart:
        """Copy the lists of a task in one transaction, unless an earlier attempt has."""
        context = TaskContext.get()
        part, attempt = (context.partitionId(), context.attemptNumber()) if context is not None else (0, 0)
        try:
            with connect(self.options) as connection:
                users = noted_users(connection, self.options, part)
                return WrittenPart(part, self._copy(connection, part, iterator) if users is None else users)
        except Exception as error:
            if is_transient(error):
                time.sleep(pause_s(attempt + 1))  # Spark starts the next attempt at once
            raise

    def commit(self, messages: list[WriterCommitMessage | None]) -> None:
        """Serve the run, when all users are there.

        Raises:
            ExportError: when some users are not there, or twice; what was served stays.
        """
        written = sum(message.users for message in messages if isinstance(message, WrittenPart))
        with connect(self.options) as connection:
            require_complete(connection, self.options, written)
            retried(lambda: build_key(connection, self.options), is_busy)
            retried(lambda: attach(connection, self.options), is_busy)
            wait_for_planned(connection, self.options)
            retried(lambda: serve(connection, self.options), is_busy)

    def abort(self, messages: list[WriterCommitMessage | None]) -> None:
        """Nothing: an attempt may still be writing. A later export drops the table."""

    def _copy(self, connection: psycopg.Connection, part: int, batches: Iterator[pa.RecordBatch]) -> int:
        options, users, pace = self.options, 0, Pace(self.options.rate_limit)
        target = options.layout.partition(options.generation)
        statement = sql.SQL("COPY {} (user_id, item_ids, scores, tier) FROM STDIN").format(target)
        with connection.transaction(), connection.cursor() as cursor:
            with cursor.copy(statement) as copy:
                for batch in batches:
                    step = pace.step(_ROWS_A_WRITE)
                    for start in range(0, len(batch), step):
                        rows = batch.slice(start, step)
                        pace.wait(len(rows))
                        copy.write(copy_rows(rows))
                        users += len(rows)
            note = options.layout.statement("INSERT INTO {parts} VALUES (%s, %s, %s) ON CONFLICT DO NOTHING")
            is_first = cursor.execute(note, (options.generation, part, users)).rowcount == 1
            if not is_first:
                raise psycopg.Rollback
        return users
