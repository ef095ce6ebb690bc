"""How popular items are: what pairs count, which segments there are, and their rankings."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from recsys_spark import list_scorers
from recsys_spark.blockwise.blocks import binary_cell
from recsys_spark.popularity import ONE, find_segments, item_popularity, learn_segments, pair_weights, rank_segments
from recsys_spark.sections import PopularitySettings
from recsys_spark.tables import USERS, Table


def test_pairs_count_half_as_much_with_each_half_life() -> None:
    ages = np.array([0, 7, 14, 3.5, -2, np.nan], np.float32)
    assert pair_weights(ages, 7.0) / ONE == pytest.approx([1, 0.5, 0.25, 0.5**0.5, 1, 1], abs=1e-9)
    assert pair_weights(ages, None).tolist() == [ONE] * 6


def test_a_pair_of_long_ago_still_counts() -> None:
    assert pair_weights(np.array([1e4, 1e30], np.float32), 0.01).tolist() == [1, 1]


def test_as_many_users_as_there_can_be_fit_into_a_count() -> None:
    assert np.iinfo(np.int64).max >= ONE * (2**31 - 1)


@given(counts=arrays(np.int64, (3, 6), elements=st.sampled_from([0, 0, 1, ONE // 2, ONE, 5 * ONE, ONE * 2**31 - 1])))
def test_a_ranking_holds_what_somebody_has_had_by_its_count(counts: NDArray[np.int64]) -> None:
    indptr, items, scores = rank_segments(counts)
    for segment, row in enumerate(counts.tolist()):
        own = slice(indptr[segment], indptr[segment + 1])
        assert items[own].tolist() == sorted(
            [item for item, count in enumerate(row) if count], key=lambda item: (-row[item], item)
        )
        expected = np.log1p([row[item] / ONE for item in items[own]]) / np.log1p(max(row) / ONE or 1)
        assert scores[own] == pytest.approx(expected, rel=1e-6)
        assert (scores[own] > 0).all()


def test_no_segment_has_no_ranking() -> None:
    indptr, items, scores = rank_segments(np.zeros((0, 4), np.int64))
    assert (indptr.tolist(), items.size, scores.size) == ([0], 0, 0)


N_ITEMS = 6


class Pairs(NamedTuple):
    """Of users by items: ages in days, nan where there is no pair, and splits, 0 to 2."""

    ages: NDArray[np.float32]
    splits: NDArray[np.int64]


@pytest.fixture(scope="module")
def pairs() -> Pairs:
    random = np.random.default_rng(4)
    shape = (len(COUNTRIES), N_ITEMS)
    ages = np.where(random.random(shape) < 0.5, random.integers(0, 200, shape) / 8, np.nan).astype(np.float32)
    ages[[7, 9]], ages[:, 5] = np.nan, np.nan
    ages[1, 5] = 3  # what one user alone has had
    return Pairs(ages, random.choice([0, 0, 1, 2], shape))


class Kept:
    """A run on a local folder, of what popularity needs of it."""

    def __init__(self, folder: Path, pairs: Pairs, block_users: int) -> None:
        self.scratch, self._folder = folder, folder
        for name in ("user_blocks", "users"):
            (folder / name).mkdir()
        write_blocks(folder / "user_blocks", pairs, block_users)
        write_users(folder / "users")

    def count(self, table: Table) -> int:
        return len(COUNTRIES) if table is USERS else N_ITEMS

    def fetch(self, table: Table, scratch: Path) -> Path:
        return self._folder / table.name

    def upload(self, folder: Path, name: str) -> None:
        folder.rename(self._folder / name)

    def arrays(self, name: str) -> dict[str, NDArray[Any]]:
        return {path.stem: np.load(path) for path in (self._folder / name).glob("*.npy")}


COUNTRIES = ["de", "fr", None, "de", "fr", "is", "", "de", "at", "at", ""]
"""Of users 0 to 10; 7 and 9 have no interactions."""


def write_users(folder: Path) -> None:
    """The index in two files, in another order than that of the positions."""
    rows = [(user, {} if value is None else {"country": value, "age": "x"}) for user, value in enumerate(COUNTRIES)]
    for number, some in enumerate((rows[5:], rows[:5][::-1])):
        columns: dict[str, Any] = {
            "user_idx": pa.array([user for user, _ in some], pa.int32()),
            "attributes": pa.array([list(each.items()) for _, each in some], pa.map_(pa.string(), pa.string())),
        }
        pq.write_table(pa.table(columns), folder / f"part-{number}.parquet")


def write_blocks(folder: Path, pairs: Pairs, block_users: int) -> None:
    """The pairs in blocks, a file each, the last users' first."""
    for first in range(0, len(COUNTRIES), block_users):
        ages, splits = pairs.ages[first : first + block_users], pairs.splits[first : first + block_users]
        users, items = np.nonzero(~np.isnan(ages))
        indptr = np.concatenate([[0], np.cumsum(np.bincount(users, minlength=len(ages)))]).astype(np.int64)
        block = {
            "first_user_idx": pa.array([first], pa.int32()),
            "indptr": binary_cell(indptr),
            "indices": binary_cell(items.astype(np.int32)),
            "splits": binary_cell(splits[users, items].astype(np.uint8)),
            "ages": binary_cell(ages[users, items]),
        }
        pq.write_table(pa.table(block), folder / f"part-{99 - first}.parquet")


@pytest.mark.parametrize(
    ("least", "most", "names"),
    [
        (1, 9, ["de", "fr", "at", "is"]),
        (2, 9, ["de", "fr"]),
        (1, 1, ["de"]),
        (3, 9, []),
    ],
)
def test_segments_are_the_largest_of_enough_users_with_interactions(
    tmp_path: Path, least: int, most: int, names: list[str]
) -> None:
    """Equally many: by name. Users without interactions are of a segment, but do not make it larger."""
    settings = PopularitySettings(segment="country", min_segment_users=least, max_segments=most)
    is_active = np.array([user not in (7, 9) for user in range(len(COUNTRIES))])
    write_users(tmp_path)
    found, segments = find_segments(tmp_path, settings, is_active)
    assert found == names
    assert segments.tolist() == [names.index(value) if value in names else -1 for value in COUNTRIES]
    assert segments.dtype == np.int32


@pytest.mark.parametrize("half_life", [None, 2.5])
@pytest.mark.parametrize("block_users", [1, 4, 100])
def test_popularity_is_a_sum_over_what_may_be_known(
    tmp_path: Path, pairs: Pairs, half_life: float | None, block_users: int
) -> None:
    run: Any = Kept(tmp_path, pairs, block_users)
    settings = PopularitySettings(segment="country", min_segment_users=1, half_life_days=half_life)
    facts = learn_segments(run, settings)
    weights = np.nan_to_num(np.ones_like(pairs.ages) if half_life is None else 2 ** (-pairs.ages / half_life))
    weights[np.isnan(pairs.ages)] = 0
    for fit, is_known in (("selection", pairs.splits == 0), ("model", np.ones_like(pairs.splits, bool))):
        known, arrays = np.where(is_known, weights, 0), run.arrays(f"{fit}-segments")
        everybody = item_popularity(run, half_life, fit == "selection")
        np.testing.assert_allclose(everybody, _scaled(known.sum(axis=0)), rtol=1e-6)
        active = Counter(value for value, row in zip(COUNTRIES, known, strict=True) if value and row.any())
        names = sorted(active, key=lambda name: (-active[name], name))
        assert facts[f"{fit}_segments"] == len(names)
        assert arrays["segments"].tolist() == [names.index(each) if each in names else -1 for each in COUNTRIES]
        for segment, name in enumerate(names):
            own = slice(arrays["indptr"][segment], arrays["indptr"][segment + 1])
            counts = known[[value == name for value in COUNTRIES]].sum(axis=0)
            assert set(arrays["items"][own]) == set(np.flatnonzero(counts))
            np.testing.assert_allclose(arrays["scores"][own], _scaled(counts)[arrays["items"][own]], rtol=1e-6)
    assert facts["largest"] == names


def _scaled(counts: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(np.log1p(counts) / np.log1p(counts.max()))


def test_lists_stay_as_they_are_where_no_segment_has_enough_users(tmp_path: Path, pairs: Pairs) -> None:
    run: Any = Kept(tmp_path, pairs, 4)
    chosen = PopularitySettings(segment="country", min_segment_users=5)
    assert learn_segments(run, chosen) == {"largest": [], "model_segments": 0, "selection_segments": 0}
    assert set(run.arrays("model-segments")["segments"]) == {-1}
    run.download = lambda name, scratch: tmp_path / name
    scorer, settings = cast(Any, object()), cast(Any, SimpleNamespace(popularity=chosen))
    assert list_scorers._by_segment(run, settings, "model", scorer) is scorer
