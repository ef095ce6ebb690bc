"""Who the flip of PostgreSQL waits for."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from recsys_spark.sinks import postgres, postgres_generations
from recsys_spark.sinks.postgres_connection import PostgresOptions, connect
from tests.sinks.servers import PostgresServer


@pytest.fixture
def options(exports: dict[str, dict[str, Any]]) -> PostgresOptions:
    section = exports["postgres"]
    options = PostgresOptions(
        section["host"], "serving", "r1", "2026-11-22", 1, section["port"], "exporter",
        password_file=section["password_file"], table=section["table"],
    )  # fmt: skip
    postgres_generations.start_generation(options)
    return options


@pytest.fixture
def connections(options: PostgresOptions, postgres_at: PostgresServer) -> Iterator[list[psycopg.Connection]]:
    """Four readers whose transactions stay open once they have begun."""
    found = [postgres_at.connect() for _ in range(4)]
    yield found
    for connection in found:
        connection.close()


def read_lists(connection: psycopg.Connection, options: PostgresOptions) -> None:
    connection.execute(f"SELECT FROM {options.table}_lists").fetchall()


def waiting(options: PostgresOptions) -> threading.Thread:
    def wait() -> None:
        with connect(options) as connection:
            postgres_generations.wait_for_planned(connection, options)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


def test_it_waits_for_those_who_hold_a_lock_and_for_nobody_who_comes_later(
    options: PostgresOptions, connections: list[psycopg.Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_generations, "_PLANNED_S", 60.0)
    first, second, later, other = connections
    read_lists(first, options)
    read_lists(second, options)
    other.execute(f"SELECT FROM {options.table}_runs").fetchall()
    thread = waiting(options)
    thread.join(0.5)
    assert thread.is_alive()
    read_lists(later, options)
    first.rollback()
    thread.join(0.3)
    assert thread.is_alive(), "the second still has its lock"
    second.rollback()
    thread.join(20)
    assert not thread.is_alive()


def test_it_does_not_wait_for_ever(
    options: PostgresOptions, connections: list[psycopg.Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_generations, "_PLANNED_S", 0.2)
    read_lists(connections[0], options)
    thread = waiting(options)
    thread.join(20)
    assert not thread.is_alive()


def test_the_reader_wants_autocommit(options: PostgresOptions, connections: list[psycopg.Connection]) -> None:
    with pytest.raises(ValueError, match="the connection must be in autocommit"):
        postgres.RecommendationReader(connections[0], table=options.table)
