"""The tables of an export in PostgreSQL, from its first to its last: made, counted, keyed, served, dropped."""

from __future__ import annotations

import time

import psycopg
from psycopg import sql

from recsys_spark.sinks.errors import ExportError
from recsys_spark.sinks.pacing import FEW_ATTEMPTS
from recsys_spark.sinks.postgres_connection import PostgresOptions, connect, explain, has_table, is_busy

_LOCK_TIMEOUT = "SET LOCAL lock_timeout = '5s'"
_BRIEF_LOCK_TIMEOUT = "SET LOCAL lock_timeout = '200ms'"
# Far longer than a statement takes from its lock to its snapshot, also on a busy machine.
_PLANNED_S = 5.0
# Two exports that make the tables at once would both find them missing.
_SETUP_LOCK = "SELECT pg_advisory_xact_lock(hashtext('recsys_spark'), hashtext(%s))"


def start_generation(options: PostgresOptions) -> int:
    """Make what is not there, drop what is over, and make a table for this export; give its generation."""
    layout = options.layout
    with connect(options) as connection:
        with connection.transaction():
            connection.execute(_SETUP_LOCK, (f"{options.schema}.{options.table}",))
            if not has_table(connection, options, "_serving"):
                connection.execute(layout.setup())
        drop_old(connection, options)
        with connection.transaction():
            return _make_table(connection, options)


def _make_table(connection: psycopg.Connection, options: PostgresOptions) -> int:
    begin = "INSERT INTO {runs} (run_id, run_date, users) VALUES (%s, %s, %s) RETURNING generation"
    row = connection.execute(
        options.layout.statement(begin), (options.run_id, options.run_date, options.users)
    ).fetchone()
    assert row is not None  # noqa: S101 - INSERT ... RETURNING gives a row
    generation = int(row[0])
    create = (
        "CREATE TABLE {table} (user_id text NOT NULL, item_ids text[] NOT NULL, scores real[] NOT NULL, tier text, "
        "generation integer NOT NULL DEFAULT {number} CHECK (generation = {number}))"
    )
    names = {"table": options.layout.partition(generation), "number": sql.Literal(generation)}
    connection.execute(sql.SQL(create).format(**names))
    return generation


def noted_users(connection: psycopg.Connection, options: PostgresOptions, part: int) -> int | None:
    """Users of a part that an earlier attempt has written; None when there is none."""
    asked = options.layout.statement("SELECT users FROM {parts} WHERE generation = %s AND part = %s")
    row = connection.execute(asked, (options.generation, part)).fetchone()
    return None if row is None else int(row[0])


def require_complete(connection: psycopg.Connection, options: PostgresOptions, written: int) -> None:
    """End the attempts that nobody waits for, which would hold locks, and count what the tasks have noted.

    Raises:
        ExportError: when it is not what they have said, or not what the run has.
    """
    connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE application_name = %s AND pid <> pg_backend_pid() AND usename = current_user "
        "AND datname = current_database()",
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


def build_key(connection: psycopg.Connection, options: PostgresOptions) -> None:
    """The primary key, which finds users that come twice, and statistics for the planner."""
    table = options.layout.partition(options.generation)
    with connection.transaction():
        connection.execute(_LOCK_TIMEOUT)
        connection.execute(sql.SQL("ALTER TABLE {} ADD PRIMARY KEY (user_id)").format(table))
    connection.execute(sql.SQL("ANALYZE {}").format(table))


def attach(connection: psycopg.Connection, options: PostgresOptions) -> None:
    """Make the table a partition, some time before it is served.

    A statement plans with the partitions there are, and then takes the snapshot that it runs with: were both done at
    once, one that comes in between would be led to a partition that its plan does not have.
    """
    layout, generation = options.layout, options.generation
    statement = layout.statement(
        "ALTER TABLE {lists} ATTACH PARTITION {table} FOR VALUES IN ({number})",
        table=layout.partition(generation),
        number=sql.Literal(generation),
    )
    with connection.transaction():
        connection.execute(_LOCK_TIMEOUT)
        connection.execute(statement)


def wait_for_planned(connection: psycopg.Connection, options: PostgresOptions) -> None:
    """Wait until all who held a lock on the lists when the table had become a partition have let go, or for some time.

    A statement takes the lock before it plans. A transaction that stays open for longer keeps the lock: with a snapshot
    of its own it goes on with the run before; without, a prepared statement in it may find no list until it ends.
    """
    waiting, deadline = _lockers(connection, options), time.monotonic() + _PLANNED_S
    while waiting and time.monotonic() < deadline:
        time.sleep(0.01)
        waiting &= _lockers(connection, options)


def _lockers(connection: psycopg.Connection, options: PostgresOptions) -> set[str]:
    """The transactions that hold a lock on the table of all lists."""
    asked = (
        "SELECT virtualtransaction FROM pg_locks WHERE relation = to_regclass(%s) AND pid <> pg_backend_pid() "
        "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    name = options.layout.name("_lists").as_string(connection)
    return {str(row[0]) for row in connection.execute(asked, (name,))}


def serve(connection: psycopg.Connection, options: PostgresOptions) -> None:
    """Point the view at the table."""
    layout, generation = options.layout, options.generation
    serve = layout.statement(
        "INSERT INTO {serving} (generation, run_id, run_date) VALUES (%s, %s, %s) ON CONFLICT (is_only) DO UPDATE "
        "SET generation = excluded.generation, run_id = excluded.run_id, run_date = excluded.run_date"
    )
    with connection.transaction():
        connection.execute(_LOCK_TIMEOUT)
        supersede = "UPDATE {runs} SET superseded_at = now() WHERE generation = (SELECT generation FROM {serving})"
        connection.execute(layout.statement(supersede))
        connection.execute(serve, (generation, options.run_id, options.run_date))
        connection.execute(layout.statement("UPDATE {runs} SET served_at = now() WHERE generation = %s"), (generation,))


def forget_user(options: PostgresOptions, user_id: str) -> int:
    """Delete the lists of a user from the tables of all runs, served or not; give their number.

    Raises:
        ExportError: when PostgreSQL cannot be asked, and what to look at.
    """
    layout = options.layout
    try:
        with connect(options, FEW_ATTEMPTS) as connection:
            if "\0" in user_id or not has_table(connection, options, "_serving"):
                return 0
            generations = connection.execute(layout.statement("SELECT generation FROM {runs}")).fetchall()
            tables = [number for (number,) in generations if has_table(connection, options, f"_lists_{number}")]
            delete = sql.SQL("DELETE FROM {} WHERE user_id = %s")
            named = [delete.format(layout.partition(number)) for number in tables]
            return sum(connection.execute(statement, (user_id,)).rowcount for statement in named)
    except psycopg.Error as error:
        raise ExportError(explain(options, error)) from error


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
