"""Nights that recommend to new users what is popular in their country, and what is popular of late."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pyspark.sql import SparkSession

from tests.night.catalogue import (
    FIRST_DAY,
    N_ITEMS,
    N_USERS,
    TOP_K,
    Event,
    List,
    Workspace,
    checkerboard,
    half_of,
    item_id,
    user_id,
    write_csv,
    write_events,
)
from tests.night.oracles import SPLITS, brute_force_metrics, metrics_of_run, splits_as_matrices

pytestmark = pytest.mark.slow

HALF_LIFE = 3.0
NEW = {"n-even": "even", "n-odd": "odd", "n-iceland": "iceland", "n-nowhere": "", "n-alone": "moon"}
"""Users without an event. The users of the checkerboard are of the country of their half, but for two."""
ICELANDERS = ("u00", "u01")
SETS = {
    "popularity.segment": "country",
    "popularity.min_segment_users": "5",
    "popularity.half_life_days": str(HALF_LIFE),
    "users.attributes": '{ country = "land" }',
}


def country_of(user: str) -> str:
    if user in NEW:
        return NEW[user]
    return "iceland" if user in ICELANDERS else ("even", "odd")[half_of(user)]


def countries() -> dict[str, str]:
    return {user: country_of(user) for user in [*map(user_id, range(N_USERS)), *NEW]}


def write_inputs(workspace: Workspace) -> None:
    """An item that only Icelanders have had: all else is of the checkerboard."""
    only = [Event(user, "i90", "5", "2024-03-02 10:00:00") for user in ICELANDERS]
    write_events(workspace.folder / "events.csv", [*checkerboard(), *only])
    write_csv(workspace.folder / "users.csv", ["name", "land"], countries().items())
    write_csv(workspace.folder / "items.csv", ["code", "label"], [[item_id(item), "x"] for item in range(N_ITEMS)])


@pytest.fixture(scope="module")
def segments(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = Workspace(spark, tmp_path_factory.mktemp("segments"), SETS, is_described=True)
    write_inputs(workspace)
    workspace.night(FIRST_DAY)
    return workspace


def decayed_counts(workspace: Workspace, users: set[str], splits: tuple[str, ...]) -> NDArray[np.float64]:
    """The sum of 2^(-age / half-life) of the pairs of some users, by item position."""
    names = {place: user for user, place in workspace.positions("user").items()}
    counts = np.zeros(len(workspace.positions("item")))
    for row in workspace.rows("interactions"):
        if row["split"] in splits and names[row["user_idx"]] in users:
            at = np.datetime64(row["last_at"].replace(tzinfo=None))
            counts[row["item_idx"]] += 2 ** (-((np.datetime64("2024-03-10") - at) / np.timedelta64(1, "D")) / HALF_LIFE)
    return counts


def expected_scores(workspace: Workspace, splits: tuple[str, ...]) -> dict[str, NDArray[np.float64]]:
    """Scores by country: of what it has had, its counts on a log scale, and of the rest those of all, less 1."""

    def scale(counts: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.where(counts > 0, np.log1p(counts) / np.log1p(counts.max()), -np.inf)

    everybody = scale(decayed_counts(workspace, set(countries()), splits))
    found = dict.fromkeys(countries().values(), everybody)
    for country in ("even", "odd"):
        own = scale(decayed_counts(workspace, {user for user, of in countries().items() if of == country}, splits))
        found[country] = np.where(np.isfinite(own), own, everybody - 1)
    return found


def check(workspace: Workspace, found: List, scores: NDArray[np.float64]) -> None:
    items = workspace.positions("item")
    np.testing.assert_allclose(found.scores, np.sort(scores)[::-1][: len(found.scores)], atol=1e-6)
    np.testing.assert_allclose(found.scores, [scores[items[item]] for item in found.item_ids], atol=1e-6)


def test_new_users_get_what_is_popular_in_their_country(segments: Workspace) -> None:
    expected, lists = expected_scores(segments, SPLITS), segments.lists()
    for user, country in NEW.items():
        check(segments, lists[user], expected[country])
        assert len(lists[user].item_ids) == TOP_K
        assert lists[user].tier == ("segment_popularity" if country in ("even", "odd") else "popularity"), user
    assert {half_of(item) for item in lists["n-even"].item_ids} == {0}
    assert {half_of(item) for item in lists["n-odd"].item_ids} == {1}
    assert {lists[user].tier for user in map(user_id, range(N_USERS))} == {"embedding"}
    facts = segments.facts("recommend")["details"]["tiers"]
    assert facts == {"embedding": N_USERS, "segment_popularity": 2, "popularity": 3}
    learned = segments.facts("train")["details"]["popularity"]
    assert learned == {"largest": ["even", "odd"], "model_segments": 2, "selection_segments": 2}


def test_metrics_of_popularity_are_those_of_the_users_countries_without_the_hold_out(segments: Workspace) -> None:
    users, expected = segments.positions("user"), expected_scores(segments, ("train",))
    scores = np.zeros((len(users), len(segments.positions("item"))), np.float32)
    for user, country in countries().items():
        scores[users[user]] = expected[country]
    popularity = np.where(np.isfinite(expected["moon"]), expected["moon"], 0)
    np.testing.assert_allclose(segments.arrays("selection")["popularity"], popularity, atol=1e-6)
    interactions = splits_as_matrices(segments.rows("interactions"), scores.shape)
    assert metrics_of_run(segments, "popularity") == pytest.approx(brute_force_metrics(scores, interactions, (1, 3)))


def test_lists_longer_than_what_a_country_has_had_go_on_with_what_all_have_had(
    segments: Workspace, tmp_path: Path
) -> None:
    """And so they are with neighbors, whose fallback is another; blocks do not matter."""
    other = Workspace(segments.spark, tmp_path, SETS, is_described=True)
    write_inputs(other)
    sets = {"recommend.model": "neighbors", "recommend.top_k": "20", "matrix.block_users": "5"}
    other.night(FIRST_DAY, sets=sets)
    expected = expected_scores(other, SPLITS)
    for user, country in NEW.items():
        found = other.lists()[user]
        check(other, found, expected[country])
        assert sorted(found.item_ids) == sorted([*map(item_id, range(N_ITEMS)), "i90"])
        assert (found.tier, found.item_ids[:TOP_K]) == (segments.lists()[user].tier, segments.lists()[user].item_ids)
    for folder in ("model-segments", "selection-segments"):
        theirs: dict[str, Any] = segments.arrays(folder)
        for name, array in other.arrays(folder).items():
            np.testing.assert_array_equal(array, theirs[name], err_msg=f"{folder} {name}")
    assert metrics_of_run(other, "popularity") == metrics_of_run(segments, "popularity")


@pytest.mark.parametrize(
    ("sets", "complaint"),
    [
        ({"popularity.segment": "land"}, "popularity.segment 'land' is not among users.attributes, ['country']"),
        (
            {"popularity.min_segment_users": "0"},
            "popularity.min_segment_users: Input should be greater than or equal to 1",
        ),
    ],
)
def test_what_cannot_be_is_refused(segments: Workspace, sets: dict[str, str], complaint: str) -> None:
    outcome = segments.cli("run", "--run-date", FIRST_DAY, sets=sets)
    assert outcome.code == 2
    assert complaint in outcome.err
