"""How recommendations lie in PostgreSQL, and the reader of them: applications may copy this file. No Spark here.

With `table = "recommendations"`, in the schema of the settings:

`recommendations`           the view to read: user_id, item_ids, scores, tier, run_id, run_date
`recommendations_serving`   one row: which generation the view shows; an UPDATE of it serves the next run
`recommendations_lists`     all generations, partitioned by generation; a partition a run
`recommendations_runs`      one row an export: its run, when it was written, served and superseded
`recommendations_parts`     one row a task whose rows are in, in the same transaction as these
"""

from __future__ import annotations

from dataclasses import dataclass

import psycopg
from psycopg import sql

from recsys_spark.sinks.contract import Recommendations, Served

_SETUP = """
CREATE TABLE IF NOT EXISTS {runs} (
  generation integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, run_id text NOT NULL, run_date date NOT NULL,
  users bigint NOT NULL, started_at timestamptz NOT NULL DEFAULT now(), served_at timestamptz,
  superseded_at timestamptz);
CREATE TABLE IF NOT EXISTS {parts} (
  generation integer NOT NULL REFERENCES {runs} ON DELETE CASCADE, part integer NOT NULL, users bigint NOT NULL,
  PRIMARY KEY (generation, part));
CREATE TABLE IF NOT EXISTS {lists} (
  user_id text NOT NULL, item_ids text[] NOT NULL, scores real[] NOT NULL, tier text, generation integer NOT NULL
) PARTITION BY LIST (generation);
CREATE TABLE IF NOT EXISTS {serving} (
  is_only boolean PRIMARY KEY DEFAULT true CHECK (is_only), generation integer NOT NULL REFERENCES {runs},
  run_id text NOT NULL, run_date date NOT NULL);
CREATE OR REPLACE VIEW {view} AS
  SELECT l.user_id, l.item_ids, l.scores, l.tier, s.run_id, s.run_date
  FROM {lists} l JOIN {serving} s ON l.generation = s.generation
  WHERE l.generation = (SELECT generation FROM {serving});
"""


# The condition of the view with the subquery says the same as the join, and lets the planner skip other partitions.


@dataclass(frozen=True)
class Layout:
    """The names of everything, quoted."""

    schema: str
    table: str

    @property
    def names(self) -> dict[str, sql.Composable]:
        """For the placeholders of statements."""
        kinds = ("runs", "parts", "lists", "serving")
        return {"view": self.name(""), **{kind: self.name(f"_{kind}") for kind in kinds}}

    def name(self, ending: str) -> sql.Identifier:
        """A name with the schema."""
        return sql.Identifier(self.schema, f"{self.table}{ending}")

    def partition(self, generation: int) -> sql.Identifier:
        """The table of one run."""
        return self.name(f"_lists_{generation}")

    def statement(self, text: str, **more: sql.Composable) -> sql.Composed:
        """A statement with the names filled in."""
        return sql.SQL(text).format(**self.names, **more)

    def setup(self) -> sql.Composed:
        """What makes everything that is not there."""
        return self.statement(_SETUP)


class RecommendationReader:
    """Answers from the served run; each answer is one statement, so it is never of two runs.

    In a transaction of many statements a prepared one may keep its plan, which does not have the table of the next run,
    and would then find no list: `connection` is in autocommit, or ValueError is raised.
    """

    def __init__(self, connection: psycopg.Connection, schema: str = "public", table: str = "recommendations") -> None:
        if not connection.autocommit:
            raise ValueError("the connection must be in autocommit: psycopg.connect(..., autocommit=True)")
        self._connection = connection
        layout = Layout(schema, table)
        self._run = layout.statement("SELECT run_id, run_date FROM {serving}")
        self._list = layout.statement("SELECT item_ids, scores FROM {view} WHERE user_id = %s")

    def run(self) -> Served | None:
        """What is served; None before the first export."""
        row = self._connection.execute(self._run).fetchone()
        return None if row is None else Served(row[0], row[1])

    def recommend(self, user_id: str, k: int | None = None) -> Recommendations | None:
        """The first `k` of a user's list, all of it when None; None for a user without one."""
        row = self._connection.execute(self._list, (user_id,)).fetchone()
        return None if row is None else list(zip(*row, strict=True))[:k]
