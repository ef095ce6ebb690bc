"""`df.write.format("recsys_postgres")`: lists written to PostgreSQL by COPY, served by one UPDATE. Workers import this.

Each task copies its rows and notes its part in one transaction: of two attempts at a part the second finds the note
and takes its rows back. `commit` runs in a process of its own: it counts, builds the primary key, and then one
transaction attaches the table as a partition and moves the one row that says what is served. Readers take no lock that
waits for it, and one in an older transaction sees the run before. `abort` cleans nothing; a later export does.
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

from recsys_spark.sinks.contract import Served
from recsys_spark.sinks.credentials import Credentials
from recsys_spark.sinks.errors import ExportError
from recsys_spark.sinks.options import Options, checked_run_date
from recsys_spark.sinks.pacing import ATTEMPTS, FEW_ATTEMPTS, Pace, pause_s, retried
from recsys_spark.sinks.postgres import Layout
from recsys_spark.sinks.texts import COLUMNS, copy_rows

FORMAT = "recsys_postgres"
_CONNECT_TIMEOUT_S = 20
_ROWS_A_WRITE = 10_000
_LOCK_TIMEOUT = "SET LOCAL lock_timeout = '5s'"
_BRIEF_LOCK_TIMEOUT = "SET LOCAL lock_timeout = '200ms'"
# Two exports that make the tables at once would both find them missing.
_SETUP_LOCK = "SELECT pg_advisory_xact_lock(hashtext('recsys_spark'), hashtext(%s))"
_NOT_TRANSIENT = ("password authentication failed", "does not exist", "no pg_hba.conf entry", "no password supplied")


@dataclass(frozen=True)
class PostgresOptions(Options):
    """Where to write, and what. `users` are those the run must have; `rate_limit` users a second of one task."""

    host: str
    database: str
    run_id: str
    run_date: str
    users: int
    port: int = 5432
    user: str | None = None
    password_env: str | None = None
    password_file: str | None = None
    sslmode: str = "prefer"
    ca_file: str | None = None
    schema: str = "public"
    table: str = "recommendations"
    grace_s: int = 24 * 3600
    unfinished_s: int = 24 * 3600
    rate_limit: float | None = None
    generation: int = 0

    @property
    def layout(self) -> Layout:
        """The names of the tables."""
        return Layout(self.schema, self.table)

    @property
    def address(self) -> str:
        """For messages."""
        return f"PostgreSQL at {self.host}:{self.port}, database {self.database}"

    @property
    def application(self) -> str:
        """What the connections of this export's tasks call themselves."""
        return f"recsys-spark export {self.generation}"


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
        return PostgresWriter(replace(options, generation=_start(options)))


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
                users = _noted(connection, self.options, part)
                return WrittenPart(part, self._copy(connection, part, iterator) if users is None else users)
        except Exception as error:
            if is_transient(error):
                time.sleep(pause_s(attempt + 1))  # Spark starts the next attempt at once
            raise

    def commit(self, messages: list[WriterCommitMessage | None]) -> None:
        """Serve the run, when all users are there, and drop the generations whose time is over.

        Raises:
            ExportError: when some users are not there, or twice; what was served stays.
        """
        written = sum(message.users for message in messages if isinstance(message, WrittenPart))
        with connect(self.options) as connection:
            _require_complete(connection, self.options, written)
            retried(lambda: _build_key(connection, self.options), is_busy)
            retried(lambda: _flip(connection, self.options), is_busy)
            drop_old(connection, self.options)

    def abort(self, messages: list[WriterCommitMessage | None]) -> None:
        """Nothing: an attempt may still be writing. The next export drops the table."""

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


def connect(options: PostgresOptions, attempts: int = ATTEMPTS) -> psycopg.Connection:
    """A connection, in autocommit; while the server is away it is tried several times."""

    def work() -> psycopg.Connection:
        return psycopg.connect(
            host=options.host,
            port=options.port,
            dbname=options.database,
            user=options.user,
            password=Credentials(options.password_env, options.password_file).password(),
            sslmode=options.sslmode,
            sslrootcert=options.ca_file,
            application_name=options.application,
            connect_timeout=_CONNECT_TIMEOUT_S,
            client_encoding="UTF8",
            autocommit=True,
        )

    return retried(work, is_transient, attempts)


def served_run(options: PostgresOptions) -> Served | None:
    """The run that the store serves, for the driver.

    Raises:
        ExportError: when the store cannot be asked, and what to look at.
    """
    try:
        with connect(options, FEW_ATTEMPTS) as connection:
            if not _exists(connection, options, "_serving"):
                return None
            row = connection.execute(options.layout.statement("SELECT run_id, run_date FROM {serving}")).fetchone()
            return None if row is None else Served(row[0], row[1])
    except psycopg.Error as error:
        raise ExportError(explain(options, error)) from error


def is_transient(error: Exception) -> bool:
    """Whether it may go away by itself; a wrong password or name does not."""
    if not isinstance(error, psycopg.OperationalError):
        return False
    return not any(text in str(error) for text in _NOT_TRANSIENT)


def is_busy(error: Exception) -> bool:
    """Whether something else holds a lock for the moment."""
    return isinstance(error, psycopg.errors.LockNotAvailable | psycopg.errors.DeadlockDetected)


def explain(options: PostgresOptions, error: Exception) -> str:
    """What is wrong and what to look at."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = lines[-1] if lines else type(error).__name__
    if "password" in reason or "pg_hba.conf" in reason:
        return f"{options.address} refused user {options.user!r}: {reason}; look at user, password_env, password_file"
    if is_transient(error):
        return f"{options.address} cannot be reached: {reason}; look at host and port, and whether it runs"
    return f"{options.address}: {reason}"


def drop_old(connection: psycopg.Connection, options: PostgresOptions) -> None:
    """Drop what was superseded `grace_s` ago, and what was begun `unfinished_s` ago and never served.

    What a reader holds stays until a later export; readers wait for a drop at most a fifth of a second.
    """
    layout = options.layout
    over = layout.statement(
        "SELECT generation FROM {runs} r WHERE NOT EXISTS (SELECT FROM {serving} s WHERE s.generation = r.generation) "
        "AND (superseded_at < now() - %s * interval '1 s' "
        "OR served_at IS NULL AND started_at < now() - %s * interval '1 s')"
    )
    for (generation,) in connection.execute(over, (options.grace_s, options.unfinished_s)).fetchall():
        try:
            with connection.transaction():
                connection.execute(_BRIEF_LOCK_TIMEOUT)
                connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(layout.partition(generation)))
                connection.execute(layout.statement("DELETE FROM {runs} WHERE generation = %s"), (generation,))
        except psycopg.Error as error:
            if not is_busy(error):
                raise


def _start(options: PostgresOptions) -> int:
    """Make what is not there, and a table for this export; give its generation."""
    layout = options.layout
    with connect(options) as connection, connection.transaction():
        connection.execute(_SETUP_LOCK, (f"{options.schema}.{options.table}",))
        if not _exists(connection, options, "_serving"):
            connection.execute(layout.setup())
        begin = layout.statement(
            "INSERT INTO {runs} (run_id, run_date, users) VALUES (%s, %s, %s) RETURNING generation"
        )
        row = connection.execute(begin, (options.run_id, options.run_date, options.users)).fetchone()
        assert row is not None  # noqa: S101 - INSERT ... RETURNING gives a row
        generation = int(row[0])
        create = (
            "CREATE TABLE {table} (user_id text NOT NULL, item_ids text[] NOT NULL, scores real[] NOT NULL, tier text, "
            "generation integer NOT NULL DEFAULT {number} CHECK (generation = {number})) "
        )
        names = {"table": layout.partition(generation), "number": sql.Literal(generation)}
        connection.execute(sql.SQL(create).format(**names))
    return generation


def _exists(connection: psycopg.Connection, options: PostgresOptions, ending: str) -> bool:
    name = options.layout.name(ending).as_string(connection)
    row = connection.execute("SELECT to_regclass(%s) IS NOT NULL", (name,)).fetchone()
    return bool(row and row[0])


def _noted(connection: psycopg.Connection, options: PostgresOptions, part: int) -> int | None:
    """Users of a part that an earlier attempt has written; None when there is none."""
    asked = options.layout.statement("SELECT users FROM {parts} WHERE generation = %s AND part = %s")
    row = connection.execute(asked, (options.generation, part)).fetchone()
    return None if row is None else int(row[0])


def _require_complete(connection: psycopg.Connection, options: PostgresOptions, written: int) -> None:
    """All tasks have answered: who still writes is an attempt nobody waits for, and would hold a lock."""
    connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE application_name = %s AND pid <> pg_backend_pid() AND usename = current_user",
        (options.application,),
    )
    asked = options.layout.statement("SELECT coalesce(sum(users), 0) FROM {parts} WHERE generation = %s")
    row = connection.execute(asked, (options.generation,)).fetchone()
    held = int(row[0]) if row is not None else 0
    if not held == written == options.users:
        raise ExportError(
            f"run {options.run_id} has {options.users:,} users, {written:,} were written and {options.address} holds "
            f"{held:,}: it does not serve them"
        )


def _build_key(connection: psycopg.Connection, options: PostgresOptions) -> None:
    table = options.layout.partition(options.generation)
    with connection.transaction():
        connection.execute(_LOCK_TIMEOUT)
        connection.execute(sql.SQL("ALTER TABLE {} ADD PRIMARY KEY (user_id)").format(table))
    connection.execute(sql.SQL("ANALYZE {}").format(table))


def _flip(connection: psycopg.Connection, options: PostgresOptions) -> None:
    layout, generation = options.layout, options.generation
    attach = layout.statement(
        "ALTER TABLE {lists} ATTACH PARTITION {table} FOR VALUES IN ({number})",
        table=layout.partition(generation),
        number=sql.Literal(generation),
    )
    serve = layout.statement(
        "INSERT INTO {serving} (generation, run_id, run_date) VALUES (%s, %s, %s) ON CONFLICT (is_only) DO UPDATE "
        "SET generation = excluded.generation, run_id = excluded.run_id, run_date = excluded.run_date"
    )
    with connection.transaction():
        connection.execute(_LOCK_TIMEOUT)
        connection.execute(attach)
        supersede = "UPDATE {runs} SET superseded_at = now() WHERE generation = (SELECT generation FROM {serving})"
        connection.execute(layout.statement(supersede))
        connection.execute(serve, (generation, options.run_id, options.run_date))
        connection.execute(layout.statement("UPDATE {runs} SET served_at = now() WHERE generation = %s"), (generation,))
