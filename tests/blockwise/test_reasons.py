"""Reasons beside lists, with other blocks and shards, against sums written out one term at a time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from pyspark.sql import SparkSession

from recsys_spark.blockwise.explanations import Explainer, ListReasons, OneModel, named_models
from recsys_spark.blockwise.files import (
    MappedArray,
    MappedStrings,
    distribute_array,
    distribute_strings,
    save_arrays,
    write_strings,
)
from recsys_spark.blockwise.fold_in import FoldIn, distribute_least_squares, distribute_pooling, fold_in_users
from recsys_spark.blockwise.items import distribute_items
from recsys_spark.blockwise.lists import recommend
from recsys_spark.blockwise.neighbors import pack_neighbors
from recsys_spark.blockwise.plan import MovedBlocks
from recsys_spark.blockwise.profiles import EmbeddedProfile
from recsys_spark.blockwise.reasons import KINDS, EmbeddedItems, PooledItems, Source, VotingUsers, WeighingItems
from recsys_spark.blockwise.scorers import (
    EmbeddingScorer,
    ItemWeights,
    ItemWeightScorer,
    NeighborScorer,
    PopularityScorer,
)
from recsys_spark.blockwise.user_rows import RowSource, distribute_item_ranges
from recsys_spark.kernels.layout import COLUMNS_APART, item_columns
from recsys_spark.kernels.least_squares import WholeDataLoss, fixed_side
from recsys_spark.tables import USER_EMBEDDINGS, USER_NEIGHBORS
from tests.blockwise.conftest import N_ITEMS, N_USERS, Blocks, Taste

POPULARITY = np.array([0, 3, 3, 1, 0, 2, 5, 1, 1, 0, 2, 7, 3, 3, 0, 1, 2], np.float32)
DIMS, K, MOST = 4, 4, 2
LOSS = WholeDataLoss(unobserved_weight=0.2, l2=0.1)
VECTORS = np.random.default_rng(1).standard_normal((N_ITEMS, DIMS)).astype(np.float32)
IS_TRAINED = np.arange(N_ITEMS) % 5 != 3
IS_NEW = ~IS_TRAINED

Rows = dict[str, dict[str, Any]]


@pytest.fixture
def strings(spark: SparkSession, tmp_path: Path) -> Callable[[str, Any], MappedStrings]:
    def write(name: str, values: Any) -> MappedStrings:
        return distribute_strings(spark, write_strings(tmp_path / f"{name}.arrow", iter([pa.array(list(values))])))

    return write


@pytest.fixture
def explained(strings: Callable[[str, Any], MappedStrings]) -> Callable[..., Rows]:
    """The rows of `recommendations`, with reasons, by user."""

    def rows(blocks: MovedBlocks, scorer: Any, explainer: Explainer, show_users: bool = False) -> Rows:
        users = strings("users", (f"u{user}" for user in range(N_USERS))) if show_users else None
        kinds, models = strings("kinds", KINDS), strings("models", named_models(explainer))
        reasons = ListReasons(explainer, kinds, models, explainer.models == ("neighbors",), users)
        items = strings("items", (f"i{item}" for item in range(N_ITEMS)))
        found = recommend(blocks, scorer, items, K, reasons=reasons).frame().collect()
        return {row["user_id"]: row.asDict() for row in found}

    return rows


def popular(spark: SparkSession, scratch: Path) -> PopularityScorer:
    return PopularityScorer(distribute_items(spark, POPULARITY[:, None], POPULARITY > 0, scratch / "popular", 1 << 30))


def share(spark: SparkSession, folder: Path, **arrays: NDArray[Any]) -> dict[str, MappedArray]:
    return {name: distribute_array(spark, path) for name, path in save_arrays(folder, arrays).items()}


def number(name: str) -> int:
    return int(name[1:])


def require_item_terms(rows: Rows, terms: NDArray[np.float64], model: str, left: float) -> None:
    """Those of the terms, (users, own items, items), that are largest; and that nothing more than `left` is left."""
    for user, row in rows.items():
        if row["tier"] == "popularity":
            assert row["reasons"] == ["popular"] * len(row["item_ids"])
            assert row["residuals"] == row["scores"]
            continue
        assert row["reason_models"] is None, "its tier says it"
        assert row["tier"] == model
        for place, item in enumerate(map(number, row["item_ids"])):
            own = terms[number(user), :, item]
            named, values = row["because_item_ids"][place], row["contributions"][place]
            best = np.maximum(-np.sort(-own)[:MOST], 0)
            np.testing.assert_allclose([*values, *[0.0] * (MOST - len(values))], best, atol=1e-4)
            np.testing.assert_allclose([own[number(name)] for name in named], values, atol=1e-4)
            assert row["residuals"][place] == pytest.approx(row["scores"][place] - own.sum(), abs=1e-3)
            assert abs(row["residuals"][place]) <= left
            expected = "new_item_content" if IS_NEW[item] else "because_items" if named else "unexplained"
            assert row["reasons"][place] == expected


@pytest.mark.parametrize("block_users", [4, 23])
@pytest.mark.parametrize("show_users", [False, True])
def test_neighbors_are_counted_and_named_only_where_they_may_be(
    spark: SparkSession,
    taste: Taste,
    blocks: Blocks,
    source: Callable[..., RowSource],
    explained: Callable[..., Rows],
    tmp_path: Path,
    block_users: int,
    show_users: bool,
) -> None:
    random = np.random.default_rng(3)
    listed = [random.permutation(N_USERS)[: random.integers(0, 6)].tolist() for _ in range(N_USERS)]
    weights = (random.integers(1, 9, (N_USERS, N_USERS)) / 8).astype(np.float32)
    pairs = [
        (user, neighbor, 1.0, float(weights[user, neighbor]), rank)
        for user, neighbors in enumerate(listed)
        for rank, neighbor in enumerate(neighbors, start=1)
    ]
    ranges = distribute_item_ranges(spark, source(block_users), tmp_path / "rows", 200)
    assert len(ranges) > 1
    scorer = NeighborScorer(ranges, False, popular(spark, tmp_path), "mean", 0.5)
    packed = pack_neighbors(blocks(block_users), spark.createDataFrame(pairs, USER_NEIGHBORS.schema))
    explainer = OneModel("neighbors", VotingUsers(ranges, 0.5), MOST)
    rows = explained(MovedBlocks((blocks(block_users), packed)), scorer, explainer, show_users)
    is_seen, ratings = ~np.isnan(taste.ratings), np.nan_to_num(taste.ratings).astype(float)
    for user, row in ((number(name), row) for name, row in rows.items() if row["tier"] == "neighbors"):
        for place, item in enumerate(map(number, row["item_ids"])):
            voters = [other for other in listed[user] if is_seen[other, item]]
            votes = {v: weights[user, v] * ratings[v, item] / (sum(weights[user, voters]) + 0.5) for v in voters}
            assert row["reasons"][place] == "because_users"
            assert row["neighbor_counts"][place] == len(voters)
            assert row["residuals"][place] == pytest.approx(0.0, abs=1e-6), "the votes are all of the score"
            assert row["because_item_ids"][place] == []
            best = sorted((vote for vote in votes.values() if vote > 0), reverse=True)[:MOST]
            assert row["contributions"][place] == pytest.approx(best if show_users else [])
            if show_users:
                named = [votes[number(name)] for name in row["because_user_ids"][place]]
                assert named == pytest.approx(best)
    assert {row["tier"] for row in rows.values()} == {"neighbors", "popularity"}
    others = [set(str({**row, "user_id": ""}).split("'")) & rows.keys() for row in rows.values()]
    assert any(others) == show_users, "no other user's id is anywhere in a row"
    assert all((row["because_user_ids"] is not None) == show_users for row in rows.values())


@pytest.mark.parametrize("block_users", [4, 23])
def test_weights_of_items_are_all_of_the_score(
    spark: SparkSession, taste: Taste, blocks: Blocks, explained: Callable[..., Rows], tmp_path: Path, block_users: int
) -> None:
    positions = np.flatnonzero(IS_TRAINED).astype(np.int32)
    places = np.full(N_ITEMS, -1, np.int32)
    places[positions] = np.arange(len(positions))
    weights = np.random.default_rng(2).standard_normal((len(positions), len(positions))).astype(np.float32)
    items = ItemWeights(**share(spark, tmp_path / "weights", weights=weights, positions=positions, places=places))
    scorer = ItemWeightScorer("ease", items, False, popular(spark, tmp_path))
    rows = explained(MovedBlocks((blocks(block_users),)), scorer, OneModel("ease", WeighingItems(items), MOST))
    terms = np.zeros((N_USERS, N_ITEMS, N_ITEMS))
    terms[np.ix_(range(N_USERS), positions, positions)] = ~np.isnan(taste.ratings)[:, positions, None] * weights[
        None
    ].astype(float)
    require_item_terms(rows, terms, "ease", left=1e-5)


@pytest.mark.parametrize(("fold_in", "block_users"), [("least squares", 4), ("least squares", 23), ("pooled", 8)])
def test_users_that_follow_from_their_items_are_explained_by_them(
    spark: SparkSession,
    taste: Taste,
    blocks: Blocks,
    explained: Callable[..., Rows],
    tmp_path: Path,
    fold_in: str,
    block_users: int,
) -> None:
    """The terms are all of the score, that of an item with a vector by its content included."""
    fixed = fixed_side(VECTORS[IS_TRAINED])
    flags = {"is_trained": IS_TRAINED, "is_new": IS_NEW}
    is_pooled = fold_in == "pooled"
    if is_pooled:
        solver: FoldIn = distribute_pooling(spark, VECTORS, IS_TRAINED, True, 1, tmp_path / "solver")
        embedded: Source = PooledItems(is_unit=True, **share(spark, tmp_path / "shared", vectors=VECTORS, **flags))
    else:
        solver = distribute_least_squares(spark, VECTORS, IS_TRAINED, LOSS, 1, tmp_path / "solver")
        turned = {"vectors": VECTORS @ fixed.axes, "diagonal": fixed.diagonal, "axes": fixed.axes}
        shared = share(spark, tmp_path / "shared", **turned, **flags)
        embedded = EmbeddedItems(loss=LOSS, users=EmbeddedProfile(VECTORS.shape[1]), **shared)
    users = fold_in_users(MovedBlocks((blocks(block_users),)), solver, N_ITEMS, False, USER_EMBEDDINGS).frame()
    is_scored = np.ones(N_ITEMS, bool)
    columns = item_columns(VECTORS, np.zeros(N_ITEMS, np.float32), POPULARITY, is_scored)
    items = distribute_items(spark, columns, is_scored, tmp_path / "items", 100, COLUMNS_APART)
    both = MovedBlocks((blocks(block_users), users))
    rows = explained(both, EmbeddingScorer(items), OneModel("embedding", embedded, MOST))
    terms = _pooled_terms(taste) if is_pooled else _least_squares_terms(taste)
    require_item_terms(rows, terms, "embedding", left=1e-3)
    assert {"i3", "i8", "i13"} & {item for row in rows.values() for item in row["item_ids"]}


def _pooled_terms(taste: Taste) -> NDArray[np.float64]:
    has = ~np.isnan(taste.ratings) & IS_TRAINED
    lengths = np.maximum(np.linalg.norm(has @ VECTORS.astype(float), axis=1), 1e-9)
    products: NDArray[np.float64] = has[:, :, None] * (VECTORS.astype(float) @ VECTORS.T)[None]
    return products / lengths[:, None, None]


def _least_squares_terms(taste: Taste) -> NDArray[np.float64]:
    """By the normal equations: D u = the sum of (1 - u.v) v over the user's items, D without these."""
    has, terms = ~np.isnan(taste.ratings) & IS_TRAINED, np.zeros((N_USERS, N_ITEMS, N_ITEMS))
    vectors = VECTORS.astype(float)
    for user in np.flatnonzero(has.any(axis=1)):
        own = vectors[has[user]]
        penalty = LOSS.l2 * (len(own) + LOSS.unobserved_weight * IS_TRAINED.sum())
        rest = LOSS.unobserved_weight * vectors[IS_TRAINED].T @ vectors[IS_TRAINED] + penalty * np.eye(DIMS)
        solved = np.linalg.solve(rest + own.T @ own, own.sum(axis=0))
        terms[user, has[user]] = (1 - own @ solved)[:, None] * (own @ np.linalg.inv(rest) @ vectors.T)
    return terms
