"""Public data sets to measure on. They are not part of the project: `RECSYS_DATA` names the folder that has them."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from examples.fetch_movielens import CACHE
from recsys_spark.models.interactions import TrainingPairs

FOLDER = Path(os.environ.get("RECSYS_DATA", Path(__file__).parents[2] / "shared" / "data"))


def gowalla(part: str = "train") -> TrainingPairs:
    """The `train` or `test` check-ins of Gowalla: 29,858 users, 40,981 places; the split of LightGCN (SIGIR 2020)."""
    pairs = pq.read_table(FOLDER / "gowalla" / f"{part}.parquet", columns=["user", "item"])
    users, items = (pairs.column(name).to_numpy().astype(np.int32) for name in ("user", "item"))
    return TrainingPairs(users, items, np.ones(len(users), np.float32), 29_858, 40_981)


def ml_1m() -> TrainingPairs:
    """MovieLens-1M: 6,040 users, 3,706 rated movies; every rating counts as seen."""
    pairs = ml_1m_ratings()
    return replace(pairs, rating=np.ones(len(pairs), np.float32))


def ml_1m_ratings() -> TrainingPairs:
    """The same with ratings: 1 star as 0, 5 as 1."""
    pairs = pq.read_table(FOLDER / "ml-1m" / "ratings.parquet")
    users, items = (np.unique(pairs.column(name), return_inverse=True)[1].astype(np.int32) for name in ("user", "item"))
    ratings = ((pairs.column("rating").to_numpy() - 1) / 4).astype(np.float32)
    return TrainingPairs(users, items, ratings, int(users.max()) + 1, int(items.max()) + 1)


def ml_100k_ratings() -> TrainingPairs:
    """MovieLens-100K as `make run` keeps it: 943 users, 1,682 movies, ratings as above."""
    options = pa_csv.ParseOptions(delimiter="\t")
    pairs = pa_csv.read_csv(CACHE / "ml-100k.inter", parse_options=options)
    users, items = (np.unique(pairs.column(place), return_inverse=True)[1].astype(np.int32) for place in (0, 1))
    ratings = ((pairs.column(2).to_numpy() - 1) / 4).astype(np.float32)
    return TrainingPairs(users, items, ratings, int(users.max()) + 1, int(items.max()) + 1)


def ml_100k_attributes() -> list[dict[str, str]]:
    """Titles, years and genres of these movies, in their order; genres with `|` between them."""
    options = pa_csv.ParseOptions(delimiter="\t", quote_char=False)
    rows = pa_csv.read_csv(CACHE / "ml-100k.item", parse_options=options).sort_by("item_id:token").to_pylist()
    return [
        {"title": row["movie_title:token_seq"], "year": str(row["release_year:token"]),
         "genres": "|".join(row["class:token_seq"].split())} for row in rows
    ]  # fmt: skip


def ncf_train() -> TrainingPairs:
    """MovieLens-1M without each user's last item: the split of "Neural Collaborative Filtering" (WWW 2017)."""
    pairs = pq.read_table(FOLDER / "ml-1m" / "ncf" / "train.parquet", columns=["ncf_user", "ncf_item"])
    users, items = (pairs.column(name).to_numpy().astype(np.int32) for name in ("ncf_user", "ncf_item"))
    return TrainingPairs(users, items, np.ones(len(users), np.float32), 6_040, 3_706)


def ncf_candidates() -> NDArray[np.int64]:
    """The 100 items that are ranked for each user, (6040, 100): first the last, then 99 that are not in training."""
    lines = (FOLDER / "ml-1m" / "ncf" / "ml-1m.test.negative").read_text().splitlines()
    rows = [line.split("\t") for line in lines]
    return np.array([[int(first.strip("()").split(",")[1]), *map(int, rest)] for first, *rest in rows])


CITEULIKE = (7_947, 25_975)  # users, articles


def citeulike(part: str, least: int) -> TrainingPairs:
    """The `train` or `test` pairs of citeulike-t, 1 or 10 articles of each user in training (Wang et al., KDD 2015)."""
    pairs = pq.read_table(FOLDER / "citeulike-t" / f"cf-{part}-{least}.parquet").sort_by(
        [("user", "ascending"), ("item", "ascending")]
    )
    users, items = (pairs.column(name).to_numpy().astype(np.int32) for name in ("user", "item"))
    return TrainingPairs(users, items, np.ones(len(users), np.float32), *CITEULIKE)


def citeulike_texts() -> list[dict[str, str]]:
    """The words of each article."""
    rows = pq.read_table(FOLDER / "citeulike-t" / "items.parquet").sort_by("item").column("bow_text").to_pylist()
    return [{"text": words or ""} for words in rows]


def ml_1m_attributes() -> list[dict[str, str]]:
    """Titles, plots, genres, directors, actors and years of the rated movies, in their order; some have none."""
    known = {row["item"]: row for row in pq.read_table(FOLDER / "ml-1m" / "items.parquet").to_pylist()}
    rated = np.unique(pq.read_table(FOLDER / "ml-1m" / "ratings.parquet", columns=["item"]).column("item"))
    return [
        {name: str(value) for name, value in known.get(int(item), {}).items() if value and name != "item"}
        for item in rated
    ]


def ncf_items() -> NDArray[np.int64]:
    """The numbers that `ncf_train` has for the rated movies of MovieLens-1M, in the order of these."""
    numbers = pa_csv.read_csv(FOLDER / "ml-1m" / "ncf" / "item_map.csv").sort_by("item")
    return np.asarray(numbers.column("ncf_item"))


def quest(fold: int, part: str = "train") -> TrainingPairs:
    """A fold of MovieLens-1M as Anelli et al. (UMAP 2022) split it.

    Users and items are in the order of their ids in the training part, others left out: there are none.
    """
    folder = FOLDER / "quest_movielens_1m"
    train, wanted = (pq.read_table(folder / f"fold{fold}.{name}.parquet") for name in ("train", part))
    sides = []
    for name in ("user", "item"):
        ids, found = np.unique(train.column(name).to_numpy()), wanted.column(name).to_numpy()
        places = np.minimum(np.searchsorted(ids, found), len(ids) - 1)
        sides.append((places.astype(np.int32), ids[places] == found, len(ids)))
    (users, is_user, n_users), (items, is_item, n_items) = sides
    is_known = is_user & is_item
    return TrainingPairs(users[is_known], items[is_known], np.ones(is_known.sum(), np.float32), n_users, n_items)


TEST_SHARE, NEWEST_SHARE = 0.2, 0.1


def ml_100k_late(part: str = "train") -> TrainingPairs:
    """MovieLens-100K by time, as `late_part` has it."""
    options = pa_csv.ParseOptions(delimiter="\t")
    return late_part(pa_csv.read_csv(CACHE / "ml-100k.inter", parse_options=options), part)


def ml_latest_late(part: str = "train") -> TrainingPairs:
    """MovieLens latest-small by time, as `late_part` has it."""
    return late_part(pa_csv.read_csv(FOLDER / "ml-latest-small" / "ratings.csv"), part)


def late_part(ratings: pa.Table, part: str) -> TrainingPairs:
    """The last fifth of each user's ratings by time (`test`), rounded up, or what is before (`train`).

    `newest` is the last tenth of each user's `train`, rounded up, `early` the rest of it. Columns: user, item, rating,
    timestamp. Users and items are in the order of their ids in all parts; every rating counts as seen. Of one time, the
    greater item ids are later.
    """
    users, items, times = (ratings.column(place).to_numpy() for place in (0, 1, 3))
    is_test = is_late(users, items, times, TEST_SHARE)
    is_newest = np.zeros(len(users), bool)
    is_newest[~is_test] = is_late(users[~is_test], items[~is_test], times[~is_test], NEWEST_SHARE)
    parts = {"test": is_test, "train": ~is_test, "newest": is_newest, "early": ~is_test & ~is_newest}
    chosen = parts[part]
    (user_ids, user_idx), (item_ids, item_idx) = (np.unique(ids, return_inverse=True) for ids in (users, items))
    idx = (each[chosen].astype(np.int32) for each in (user_idx, item_idx))
    return TrainingPairs(*idx, np.ones(chosen.sum(), np.float32), len(user_ids), len(item_ids))


def is_late(
    users: NDArray[np.int64], items: NDArray[np.int64], times: NDArray[np.int64], share: float
) -> NDArray[np.bool_]:
    """The last share of each user's pairs, rounded up, by time and then by id."""
    order, counts = np.lexsort((items, times, users)), np.unique(users, return_counts=True)[1]
    places = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    late = np.zeros(len(order), bool)
    late[order] = places >= np.repeat(counts - np.ceil(share * counts), counts)
    return late


def is_there(name: str) -> bool:
    """Whether there is a data set of this name; says so when there is not."""
    if name == "ml-100k":
        return is_ml_100k_there()
    if (FOLDER / name).is_dir():
        return True
    print(f"skipped: {FOLDER} has no {name}; RECSYS_DATA names the folder to look in", file=sys.stderr)
    return False


def is_ml_100k_there() -> bool:
    """Whether `make run` has kept MovieLens-100K; says so when it has not."""
    if (CACHE / "ml-100k.inter").exists():
        return True
    print(f"skipped: {CACHE} has no ml-100k.inter; `make run` gets it", file=sys.stderr)
    return False
