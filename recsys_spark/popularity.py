"""Between the tables and the lists of who is new: how popular items are, counted on the driver, block by block."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from numpy.typing import NDArray

from recsys_spark.audit import Facts
from recsys_spark.blockwise.blocks import TEST, TRAIN, VALIDATION, array_of, read_blocks, user_positions
from recsys_spark.blockwise.files import save_arrays
from recsys_spark.models.embeddings import popularity_scores
from recsys_spark.models.interactions import make_array
from recsys_spark.tables import ITEMS, USER_BLOCKS, USERS

if TYPE_CHECKING:
    from recsys_spark.sections import PopularitySettings
    from recsys_spark.storage.run_storage import RunStorage

ONE = 2**32
"""What a pair of no age counts. Sums of whole numbers do not depend on their order, and 2^31 users fit in 64 bits."""

_COLUMNS = ("first_user_idx", "indptr", "indices", "splits", "ages")


def item_popularity(storage: RunStorage, half_life_days: float | None, hold_out: bool) -> NDArray[np.float32]:
    """The popularity of the items with all users, (items,): 1 for the most popular, 0 for what nobody has had."""
    counts = np.zeros(storage.count(ITEMS), np.int64)
    for _, items, weights in _known_pairs(storage.fetch(USER_BLOCKS, storage.scratch), half_life_days, hold_out):
        np.add.at(counts, items, weights)
    return popularity_scores(counts / ONE)


def learn_segments(storage: RunStorage, settings: PopularitySettings) -> Facts:
    """Rank the items of each segment twice: without the hold-out, for the metrics, and by everything, for the lists."""
    blocks, users = (storage.fetch(table, storage.scratch) for table in (USER_BLOCKS, USERS))
    names = {fit: _learn(storage, settings, fit, blocks, users) for fit in ("selection", "model")}
    return {"largest": names["model"][:10], **{f"{fit}_segments": len(found) for fit, found in names.items()}}


def pair_weights(ages: NDArray[np.float32], half_life_days: float | None) -> NDArray[np.int64]:
    """What pairs of these ages in days count, in parts of `ONE`: 2^(-age / half-life), but at least one part.

    So that items of long ago still stand before those of nobody, in the order of how many had them. A pair without a
    time, or of the future, counts as a new one.
    """
    if half_life_days is None:
        return np.full(len(ages), ONE, np.int64)
    past = np.nan_to_num(np.maximum(ages, 0.0).astype(np.float64), nan=0.0)
    weights: NDArray[np.int64] = np.maximum(np.rint(np.exp2(-past / half_life_days) * ONE), 1).astype(np.int64)
    return weights


def find_segments(
    user_index: Path, settings: PopularitySettings, is_active: NDArray[np.bool_]
) -> tuple[list[str], NDArray[np.int32]]:
    """The segments of enough active users, the largest first, and each user's, (users,), -1 for none.

    Args:
        user_index: local folder of `users`, read twice, some users at a time.
        settings: which attribute, how many users, how many segments.
        is_active: who has interactions, (users,).
    """
    sizes = Counter[str]()
    for users, values in _attribute(user_index, settings.segment):
        counted = pc.value_counts(values.filter(pa.array(is_active[users])).drop_null())
        sizes.update({pair["values"]: pair["counts"] for pair in counted.to_pylist()})
    enough = [name for name, size in sizes.items() if name and size >= settings.min_segment_users]
    names = sorted(enough, key=lambda name: (-sizes[name], name))[: settings.max_segments]
    segments = np.full(len(is_active), -1, np.int32)
    for users, values in _attribute(user_index, settings.segment):
        found = pc.index_in(values, value_set=pa.array(names, pa.string()), skip_nulls=True)
        segments[users] = found.fill_null(-1).to_numpy(zero_copy_only=False)
    return names, segments


def rank_segments(
    counts: NDArray[np.int64], scratch: Path | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]:
    """The items that somebody of a segment has had, most popular first, and their scores, by counts (segments, items).

    Gives where each segment starts, (segments + 1,), items and scores, mapped when there is a folder for such. Equal
    scores are ordered by the smaller item.
    """
    indptr = np.cumsum([0, *(np.count_nonzero(row) for row in counts)]).astype(np.int64)
    items, scores = (make_array(scratch, dtype, int(indptr[-1])) for dtype in (np.int32, np.float32))
    for row, start, end in zip(counts, indptr[:-1], indptr[1:], strict=True):
        popularity, known = popularity_scores(row / ONE), np.flatnonzero(row)
        order = known[np.argsort(-popularity[known], kind="stable")]
        items[start:end], scores[start:end] = order, popularity[order]
    return indptr, items, scores


def _learn(
    storage: RunStorage, settings: PopularitySettings, fit: str, user_blocks: Path, user_index: Path
) -> list[str]:
    """Store one ranking as the folder `<fit>-segments`; the names of its segments, the largest first."""
    hold_out, n_items = fit == "selection", storage.count(ITEMS)
    is_active = np.zeros(storage.count(USERS), bool)
    for users, _, _ in _known_pairs(user_blocks, None, hold_out):
        is_active[users] = True
    names, segments = find_segments(user_index, settings, is_active)
    counts = make_array(storage.scratch, np.int64, len(names) * n_items)
    counts[:] = 0
    for users, items, weights in _known_pairs(user_blocks, settings.half_life_days, hold_out):
        places = segments[users].astype(np.int64) * n_items + items  # below 0 without a segment
        np.add.at(counts, places[places >= 0], weights[places >= 0])
    indptr, ranked, scores = rank_segments(counts.reshape(len(names), n_items), storage.scratch)
    folder = storage.scratch / f"{fit}-segments-export"
    save_arrays(folder, {"segments": segments, "indptr": indptr, "items": ranked, "scores": scores})
    storage.upload(folder, f"{fit}-segments")
    return names


def _known_pairs(
    folder: Path, half_life_days: float | None, hold_out: bool
) -> Iterator[tuple[NDArray[Any], NDArray[Any], NDArray[np.int64]]]:
    """Users, items and weights of the pairs of each block, of the train split alone when `hold_out`."""
    splits = (TRAIN,) if hold_out else (TRAIN, VALIDATION, TEST)
    for block in read_blocks(folder, _COLUMNS):
        is_known = np.isin(array_of(block, "splits", np.uint8), splits)
        users = np.repeat(user_positions(block), np.diff(array_of(block, "indptr", np.int64)))
        weights = pair_weights(array_of(block, "ages", np.float32)[is_known], half_life_days)
        yield users[is_known], array_of(block, "indices", np.int32)[is_known], weights


def _attribute(folder: Path, name: str | None) -> Iterator[tuple[NDArray[np.int32], pa.Array]]:
    """Positions of users, and their values of an attribute, null where there is none, some at a time."""
    for batch in ds.dataset(folder, format="parquet").to_batches(columns=["user_idx", "attributes"]):
        values = pc.map_lookup(batch.column("attributes"), query_key=pa.scalar(name), occurrence="first")
        yield batch.column("user_idx").to_numpy(), values
