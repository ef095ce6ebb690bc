"""Reads the events, checks every row, and keeps the rejected ones with their reasons."""

from __future__ import annotations

import datetime
import sys

from recsys_spark.audit import Facts, count_verdicts, require_few_quarantined
from recsys_spark.config import Settings
from recsys_spark.continuity import described_entities, forgotten_hashes
from recsys_spark.sources import read_events, readable
from recsys_spark.storage.run_storage import RunStorage
from recsys_spark.tables import EVENTS, QUARANTINE
from recsys_spark.transforms.events import check_events, quarantined, renew_verdict
from recsys_spark.transforms.forgotten import without_forgotten
from recsys_spark.transforms.index import rejected_entities


def run(storage: RunStorage, settings: Settings) -> Facts:
    """Write `events` and `quarantine`; stop when too many rows are quarantined."""
    run_date, now = storage.run.run_date, datetime.datetime.now(datetime.UTC)
    with readable("events"):
        raw, forgotten = read_events(storage.spark, settings.events), forgotten_hashes(storage)
        known = without_forgotten(raw, settings.events.columns.user, forgotten)
        checked = check_events(known, settings.events, settings.feedback, run_date, now)
        kept = storage.read_parent(EVENTS) if settings.events.incremental else None
        carried = None if kept is None else without_forgotten(renew_verdict(kept, run_date), "user_id", forgotten)
        storage.write(EVENTS, checked if carried is None else checked.unionByName(carried))
    events = storage.read(EVENTS)
    with readable("items or users"):
        entities = described_entities(storage, settings)
        storage.write(QUARANTINE, rejected_entities(quarantined(events), entities))
    facts = count_verdicts(events, storage.read(QUARANTINE), 0 if carried is None else carried.count())
    facts["forgotten"] = raw.count() - known.count() if forgotten else 0
    require_few_quarantined(facts, settings.events.max_quarantined_share, storage.path(QUARANTINE))
    return facts


if __name__ == "__main__":
    from recsys_spark.cli import main

    sys.exit(main(["ingest", *sys.argv[1:]]))
