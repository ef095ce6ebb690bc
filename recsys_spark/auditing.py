"""Between a run and the checks of its audit: what is compared with the run before, and the report that stays."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from pyspark.sql import functions as F

from recsys_spark.audit import Check, at_least, at_most
from recsys_spark.list_checks import audit_lists, mean_overlap, share_of_top_items
from recsys_spark.rules import possible_lists
from recsys_spark.storage.parquet import read_parquet
from recsys_spark.tables import INTERACTIONS, ITEMS, RECOMMENDATIONS
from recsys_spark.transforms.events import end_of

if TYPE_CHECKING:
    from recsys_spark.config import Settings
    from recsys_spark.storage.run_storage import RunStorage


def audit_run(storage: RunStorage, settings: Settings) -> tuple[Check, ...]:
    """All checks of the run's lists, and of the run beside the one before; those of what is not there are left out."""
    chosen, lists = settings.audit, storage.read(RECOMMENDATIONS)
    free, n_users = possible_lists(storage, settings)
    top_share = share_of_top_items(lists, storage.count(ITEMS))
    return (
        *audit_lists(lists, free, n_users, settings.recommend.top_k, chosen, settings.diversity.is_on),
        at_most("share of list places taken by the top 1 % of items", top_share, chosen.max_top_items_share),
        *_overlap(storage, settings),
        *ndcg_drop(storage, settings),
        *_input_age(storage, settings),
    )


def keep_report(storage: RunStorage, checks: tuple[Check, ...]) -> None:
    """Write the folder `audit`: it is there of a refused run, too."""
    folder = storage.scratch / "audit"
    folder.mkdir(exist_ok=True)
    (folder / "checks.json").write_text(json.dumps([asdict(check) for check in checks], indent=2) + "\n")
    storage.upload(folder, "audit")


def _overlap(storage: RunStorage, settings: Settings) -> tuple[Check, ...]:
    before = storage.parent
    if before is None or not storage.exists(RECOMMENDATIONS, before):
        return ()
    earlier = read_parquet(storage.spark, storage.path(RECOMMENDATIONS, before))
    overlap = mean_overlap(storage.read(RECOMMENDATIONS), earlier)
    name = f"share of a list that was in the user's list of {before.run_date}"
    return () if overlap is None else (at_least(name, overlap, settings.audit.min_overlap),)


def ndcg_drop(storage: RunStorage, settings: Settings) -> tuple[Check, ...]:
    """How much lower the NDCG of the hold-out is than that of the run before, as a share of it."""
    most, model = settings.audit.max_ndcg_drop, settings.recommend.model
    now, earlier = (
        _ndcgs(facts, model) for facts in (storage.step_details("evaluate"), storage.parent_details("evaluate"))
    )
    common = sorted(now.keys() & earlier.keys(), key=lambda k: (abs(k - settings.recommend.top_k), k))
    if not common or earlier[common[0]] <= 0:
        return ()
    k = common[0]
    drop = 1 - now[k] / earlier[k]
    return (at_most(f"drop of the hold-out's NDCG@{k} since the run before", drop, 1.0 if most is None else most),)


def _ndcgs(evaluate: dict[str, Any], model: str) -> dict[int, float]:
    rows = evaluate.get("metrics", [])
    return {row["k"]: row["value"] for row in rows if (row["model"], row["metric"]) == (model, "ndcg") and row["users"]}


def _input_age(storage: RunStorage, settings: Settings) -> tuple[Check, ...]:
    """Hours from the newest event to the end of the run date, so that a backfill is judged as of its day."""
    age = (F.unix_micros(end_of(storage.run.run_date)) - F.unix_micros(F.max("last_at"))) / F.lit(3600e6)
    hours = storage.read(INTERACTIONS).agg(age.alias("hours")).collect()[0]["hours"]
    if hours is None:
        return ()
    most = settings.audit.max_input_age_hours
    return (
        at_most(
            "hours from the newest event to the end of the run date", hours, float("inf") if most is None else most
        ),
    )
