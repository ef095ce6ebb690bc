from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import psycopg
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recsys_spark.sinks.texts import copy_rows, json_lists
from tests.sinks.conftest import table_of
from tests.sinks.servers import PostgresServer

HOSTILE = [
    "",
    ",",
    '"',
    "\\",
    "\n",
    "\r",
    "\t",
    "\r\n",
    "{}",
    "=1+1",
    "NULL",
    "\\N",
    "\\.",
    "é",
    "\u2028",
    "😀",
    " a ",
    "'",
]
IDS = st.one_of(st.sampled_from(HOSTILE), st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=6))
SCORES = st.floats(width=32, allow_nan=False, allow_infinity=False)
LISTS = st.dictionaries(IDS, st.lists(st.tuples(IDS, SCORES), max_size=4), max_size=8)
Lists = dict[str, list[tuple[str, float]]]


def batch_of(lists: Lists) -> pa.RecordBatch:
    """A slice of a larger batch, as Arrow hands them out."""
    around = {"before": [("x", 1.0)], **{f" {user}": found for user, found in lists.items()}, "after": [("y", 2.0)]}
    table = table_of(around).select(["user_id", "item_ids", "scores", "tier"]).combine_chunks()
    (batch,) = table.to_batches()
    part = batch.slice(1, len(lists))
    users = pa.array(list(lists), pa.string())
    return pa.record_batch([users, *part.columns[1:]], names=part.schema.names)


def bits(scores: list[float]) -> list[int]:
    return np.array(scores, np.float32).view(np.int32).tolist()


@given(LISTS)
def test_json_gives_the_lists_back(lists: Lists) -> None:
    texts = json_lists(batch_of(lists)).to_pylist()
    assert len(texts) == len(lists)
    for text, found in zip(texts, lists.values(), strict=True):
        items, scores = json.loads(text)
        assert items == [item for item, _ in found]
        assert np.float32(scores).tolist() == [score for _, score in found]


def test_json_is_compact() -> None:
    assert json_lists(batch_of({"u": [("a", 0.5), ("b", 0.1)]})).to_pylist() == ['[["a","b"],[0.5,0.1]]']


@pytest.mark.parametrize("score", [float("nan"), float("inf")])
def test_json_cannot_hold_what_is_not_finite(score: float) -> None:
    with pytest.raises(ValueError, match="not finite"):
        json_lists(batch_of({"u": [("a", score)]}))


@pytest.fixture(scope="module")
def connection(postgres_at: PostgresServer) -> Iterator[psycopg.Connection]:
    with postgres_at.connect(autocommit=True) as connection:
        connection.execute("CREATE TEMP TABLE copied (user_id text, item_ids text[], scores real[], tier text)")
        yield connection


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(LISTS)
def test_copy_gives_the_lists_back(connection: psycopg.Connection, lists: Lists) -> None:
    connection.execute("TRUNCATE copied")
    with connection.cursor().copy("COPY copied FROM STDIN") as copy:
        copy.write(copy_rows(batch_of(lists)))
    rows = connection.execute("SELECT * FROM copied").fetchall()
    assert {user: items for user, items, _, _ in rows} == {user: [i for i, _ in found] for user, found in lists.items()}
    for user, _, scores, tier in rows:
        assert bits(scores) == bits([score for _, score in lists[user]])
        assert tier == "embedding"


def test_copy_refuses_nul() -> None:
    with pytest.raises(ValueError, match="item_ids holds an id with the character NUL"):
        copy_rows(batch_of({"u": [("a\0b", 0.5)]}))
