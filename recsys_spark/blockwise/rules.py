"""Rules on the executors: what the lists of a block hide, how long they are, who gets one, and what was left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyspark.sql.pandas.types import to_arrow_type
from pyspark.sql.types import IntegerType, StringType, StructField, StructType

from recsys_spark.blockwise.blocks import array_of
from recsys_spark.blockwise.files import MappedArray
from recsys_spark.blockwise.plan import Block, BlockMap, Blocks
from recsys_spark.blockwise.scorers import Scored
from recsys_spark.kernels.csr import IndexLists
from recsys_spark.kernels.exclusions import Exclusions, allowed_rows
from recsys_spark.kernels.topk import TopK
from recsys_spark.tables import FORGOTTEN_ID, RECOMMENDATIONS, USER_RULES

Counts = NDArray[np.integer]

_POSSIBLE = StructType([StructField("user_id", StringType(), False), StructField("possible", IntegerType(), False)])


@dataclass(frozen=True)
class RuledUsers:
    """The users of a block: what each is not shown, and how long the lists are at most, (users,), -1 for no row.

    `left_out` counts what is not listed, (users,), or for all users alike, by the reason.
    """

    hidden: IndexLists
    lengths: Counts
    left_out: Mapping[str, Counts] = field(default_factory=dict)

    def shortened(self, scored: Scored) -> Scored:
        """The lists, none longer than it is to be."""
        best = scored.best
        if (self.lengths >= best.indices.shape[1]).all():
            return scored
        is_within = np.arange(best.indices.shape[1]) < self.lengths[:, None]
        shorter = TopK(
            np.where(is_within, best.indices, -1), np.where(is_within, best.scores, -np.inf).astype(np.float32)
        )
        return scored._replace(best=shorter)

    def of_wanted(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """The rows, (users,), of those who get one; who is forgotten gets none."""
        is_forgotten = pc.starts_with(rows.column("user_id"), FORGOTTEN_ID).to_numpy(zero_copy_only=False)
        is_wanted = (self.lengths >= 0) & ~is_forgotten
        return rows if is_wanted.all() else rows.filter(pa.array(is_wanted))


@dataclass(frozen=True)
class ListRules:
    """Rules as the blocks of `user_rules` have them; `verdicts` counts the items that nobody is shown, by reason.

    `listed` items may be shown.
    """

    listed: int
    verdicts: Mapping[str, int]
    columns = tuple(column.name for column in USER_RULES.columns if column.name != "block_id")

    def of(self, block: Block, k: int) -> RuledUsers:
        """Those of a block's users, whose lists have at most k items."""
        indptr, indices = array_of(block, "hidden_indptr", np.int64), array_of(block, "hidden_indices", np.int32)
        hidden = Exclusions(indptr, indices, array_of(block, "are_allowed", np.uint8).astype(bool))
        seen, denied = (array_of(block, f"{name}_counts", np.int32) for name in ("seen", "denied"))
        has_candidates = array_of(block, "has_candidates", np.uint8).astype(bool)
        others = np.where(has_candidates, self.listed - np.diff(indptr) - seen - denied, 0)
        counts = {
            "seen": seen,
            "denied": denied + self.verdicts.get("denied", 0),
            "unavailable": np.full(len(seen), self.verdicts.get("unavailable", 0)),
            "not_candidate": others,
        }
        return RuledUsers(hidden, np.minimum(array_of(block, "list_lengths", np.int32), k), counts)


def possible_lengths(blocks: Blocks, rules: ListRules, candidates: MappedArray, k: int) -> BlockMap:
    """How long the list of each user who gets one could be, as `user_id, possible`; `candidates` flags all items."""

    def count(block: Block) -> pa.RecordBatch:
        ruled, is_candidate = rules.of(block, k), candidates.load()
        is_hidden = np.append(is_candidate[ruled.hidden.indices], False).astype(np.int64)
        own = np.add.reduceat(is_hidden, ruled.hidden.indptr[:-1])
        own = np.where(np.diff(ruled.hidden.indptr) > 0, own, 0)
        free = np.where(allowed_rows(ruled.hidden), own, np.count_nonzero(is_candidate) - own)
        possible = np.minimum(free, ruled.lengths).astype(np.int32)
        rows = pa.record_batch([block.column("user_ids").flatten(), pa.array(possible)], names=["user_id", "possible"])
        return ruled.of_wanted(rows)

    return BlockMap(blocks, {"user_ids", *rules.columns}, count, _POSSIBLE)


def no_rules_of(seen: IndexLists, k: int) -> RuledUsers:
    """Users to whom nothing applies but that seen items are not shown."""
    return RuledUsers(seen, np.full(seen.n_rows, k), {"seen": np.diff(seen.indptr)})


def left_out(lengths: Counts, ruled: RuledUsers, n_items: int) -> pa.Array:
    """The column `left_out` of lists with so many items, (users,), of a catalogue of `n_items`."""
    kind = to_arrow_type(RECOMMENDATIONS.schema["left_out"].dataType)
    is_short = lengths < ruled.lengths
    if not is_short.any():
        return pa.nulls(len(lengths), kind)
    names = [*ruled.left_out, "cold"]
    counts = np.stack(list(ruled.left_out.values()), axis=1)[is_short]
    # What no other reason holds for has no score for the user: what is listed and what is left out are all items.
    rest = n_items - lengths[is_short] - counts.sum(axis=1)
    counts = np.column_stack([counts, rest])
    is_given = counts > 0
    offsets = np.zeros(len(lengths) + 1, np.int32)
    offsets[1:][is_short] = is_given.sum(axis=1)
    keys = pa.array(np.array(names, object)[np.nonzero(is_given)[1]], pa.string())
    values = pa.array(counts[is_given].astype(np.int32))
    maps = pa.MapArray.from_arrays(pa.array(np.cumsum(offsets).astype(np.int32)), keys, values)
    return _null_where(maps.cast(kind), ~is_short)


def _null_where(maps: pa.MapArray, is_null: NDArray[np.bool_]) -> pa.Array:
    return maps.take(pa.array(np.arange(len(maps)), mask=is_null))
