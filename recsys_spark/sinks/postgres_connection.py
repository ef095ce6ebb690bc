"""Connections to PostgreSQL, and what an export to it is told. Workers import this."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import psycopg

from recsys_spark.sinks.contract import Served
from recsys_spark.sinks.credentials import Credentials
from recsys_spark.sinks.errors import ExportError
from recsys_spark.sinks.options import Options
from recsys_spark.sinks.pacing import ATTEMPTS, FEW_ATTEMPTS, retried
from recsys_spark.sinks.postgres import Layout

_CONNECT_TIMEOUT_S = 20
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
        name = zlib.crc32(f"{self.schema}.{self.table}".encode())  # names are cut at 63 bytes
        return f"recsys-spark export {name:08x} {self.generation}"


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
            if not has_table(connection, options, "_serving"):
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


def has_table(connection: psycopg.Connection, options: PostgresOptions, ending: str) -> bool:
    """Whether the table or view with this ending is there."""
    name = options.layout.name(ending).as_string(connection)
    row = connection.execute("SELECT to_regclass(%s) IS NOT NULL", (name,)).fetchone()
    return bool(row and row[0])
