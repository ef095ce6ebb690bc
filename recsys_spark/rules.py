"""Between the inputs of the rules and the lists: items judged, users' blocks written, requested users accounted for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.audit import Facts
from recsys_spark.blockwise.files import distribute_array, save_array
from recsys_spark.blockwise.rules import ListRules, possible_lengths
from recsys_spark.errors import RecsysError
from recsys_spark.kernels.boosts import MOST_BOOST
from recsys_spark.list_checks import free_items
from recsys_spark.scoring import blocks_of, item_factors, known_items
from recsys_spark.sources import read_rules, readable
from recsys_spark.tables import (
    INTERACTIONS,
    ITEM_RULES,
    ITEMS,
    RECOMMENDATIONS,
    REQUESTED_USERS,
    USER_BLOCKS,
    USER_RULES,
    USERS,
)
from recsys_spark.transforms.forgotten import forgotten_users
from recsys_spark.transforms.rules import account_requested, judge_items
from recsys_spark.transforms.user_rules import ALLOWED, DENIED, build_user_rules, count_users, ruled_pairs, wanted_users

if TYPE_CHECKING:
    from recsys_spark.config import Settings
    from recsys_spark.storage.run_storage import RunStorage

_KINDS = {"deny_pairs": DENIED, "candidates": ALLOWED}
_SHOWN_FACTORS = 20


def write_rules(storage: RunStorage, settings: Settings) -> Facts:
    """Write `item_rules` and `user_rules`; what the run keeps of both.

    Raises:
        RecsysError: for a factor that is no number within bounds.
    """
    rules, run_date = settings.rules, storage.run.run_date
    users, items, interactions = (storage.read(table) for table in (USERS, ITEMS, INTERACTIONS))
    with readable("rules"):
        sources = read_rules(storage.spark, settings)
        _require_factors(sources.get("item_boosts"))
        storage.write(ITEM_RULES, judge_items(items, sources, rules, run_date))
        judged = storage.read(ITEM_RULES)
        named = {kind: _positioned(sources[name], users, items) for name, kind in _KINDS.items() if name in sources}
        seen = interactions if settings.recommend.exclude_seen else None
        wanted = wanted_users(users, interactions, sources, rules, settings.recommend.top_k, run_date)
        pairs = ruled_pairs(seen, named, judged, rules, run_date)
        storage.write(USER_RULES, build_user_rules(wanted, pairs, settings.matrix.block_users))
        unknown = {name: _count_unknown(source, users, items) for name, source in sources.items()}
    users_facts = count_users(wanted, settings.recommend.top_k).collect()[0].asDict()
    return {**_count_items(judged, settings), **users_facts, "rows": unknown}


def list_rules(storage: RunStorage, settings: Settings) -> ListRules | None:
    """The rules that lists are made by; None without."""
    if not settings.rules.is_on:
        return None
    verdicts = dict(storage.step_details("rules")["verdicts"])
    return ListRules(verdicts.pop("listed", 0), verdicts)


def possible_lists(storage: RunStorage, settings: Settings) -> tuple[DataFrame, int]:
    """How many items could be in each user's list, as `user_id, free`, and how many users get one."""
    is_candidate = _candidate_items(storage, settings)
    rules = list_rules(storage, settings)
    if rules is None:
        positions = pd.DataFrame({"item_idx": np.flatnonzero(is_candidate).astype(np.int32)})
        candidates = storage.spark.createDataFrame(positions, "item_idx int")
        seen = storage.read(INTERACTIONS)
        users = storage.read(USERS)
        free = free_items(users, seen, candidates, settings.recommend.exclude_seen)
        return free, storage.count(USERS) - forgotten_users(users).count()
    path = save_array(storage.scratch / "candidates.npy", is_candidate)
    flags, blocks = distribute_array(storage.spark, path), blocks_of(storage, USER_BLOCKS, USER_RULES)
    possible = possible_lengths(blocks, rules, flags, settings.recommend.top_k).frame()
    return possible.withColumnRenamed("possible", "free"), storage.step_details("rules")["users"]


def write_requested(storage: RunStorage, settings: Settings) -> Facts:
    """Write `requested_users`, where any are, from the lists of this run; how many have each outcome."""
    source = read_rules(storage.spark, settings).get("requested_users")
    if source is None:
        return {}
    users, interactions = storage.read(USERS), storage.read(INTERACTIONS)
    chosen = wanted_users(
        users, interactions, {"requested_users": source}, settings.rules, settings.recommend.top_k, storage.run.run_date
    )
    storage.write(REQUESTED_USERS, account_requested(source, users, chosen, storage.read(RECOMMENDATIONS)))
    outcomes = storage.read(REQUESTED_USERS).groupBy("outcome", "reason").count().collect()
    return {"requested": {row["reason"] or row["outcome"]: row["count"] for row in outcomes}}


def _require_factors(boosts: DataFrame | None) -> None:
    """Refuse factors that are no number within bounds: a list that is boosted by a mistake is seen by everybody."""
    if boosts is None:
        return
    is_sane = F.coalesce(F.col("factor").between(1 / MOST_BOOST, MOST_BOOST), F.lit(False))
    wrong = boosts.where(~is_sane).orderBy("item_id").limit(1).collect()
    if wrong:
        item, factor = wrong[0]["item_id"], wrong[0]["factor"]
        bounds = f"a number from {1 / MOST_BOOST:g} to {MOST_BOOST:g}"
        raise RecsysError(f"rules.item_boosts: the factor of item {item!r} is {factor}, must be {bounds}")


def _positioned(pairs: DataFrame, users: DataFrame, items: DataFrame) -> DataFrame:
    """Pairs of external ids as `user_idx, item_idx`, those of unknown ids left out."""
    known = pairs.join(users.select("user_id", "user_idx"), on="user_id", how="inner")
    return known.join(items.select("item_id", "item_idx"), on="item_id", how="inner").select("user_idx", "item_idx")


def _count_unknown(source: DataFrame, users: DataFrame, items: DataFrame) -> dict[str, int]:
    """Rows of a table of the rules, and of how many an id is in no index."""
    known = source
    for index, name in ((users, "user_id"), (items, "item_id")):
        if name in source.columns:
            known = known.join(index.select(name), on=name, how="left_semi")
    rows = source.count()
    return {"rows": rows, "unknown": rows - known.count()}


def _count_items(judged: DataFrame, settings: Settings) -> Facts:
    """Items by verdict, and by the factor of their scores, the commonest first."""
    verdicts = {row["verdict"]: row["count"] for row in judged.groupBy("verdict").count().collect()}
    boosted = judged.where((F.col("verdict") == "listed") & (F.col("factor") != 1.0)).groupBy("factor").count()
    common = boosted.orderBy(F.desc("count"), "factor").limit(_SHOWN_FACTORS).collect()
    factors = [{"factor": round(row["factor"], 6), "items": row["count"]} for row in common]
    return {"verdicts": verdicts, "boosts": [boost.model_dump() for boost in settings.rules.boosts], "factors": factors}


def _candidate_items(storage: RunStorage, settings: Settings) -> NDArray[np.bool_]:
    """The items that lists can hold, (items,): what the model scores, or any of its components, and rules allow."""
    names = settings.components or (settings.recommend.model,)
    is_known: NDArray[np.bool_] = np.any([known_items(storage, name) for name in names], axis=0)
    factors = item_factors(storage, settings, "model")
    return is_known if factors is None else is_known & (factors > 0)
