"""Reads the events, checks every row, and keeps the rejected ones with their reasons."""

from __future__ import annotations

import datetime
import sys

from recsys_spark.audit import Facts, count_verdicts, require_few_quarantined
from recsys_spark.config import Settings
from recsys_spark.sources import read_entities, read_events, readable
from recsys_spark.storage.run_storage import RunStorage
from recsys_spark.tables import EVENTS, QUARANTINE
from recsys_spark.transforms.events import check_events, quarantined, renew_verdict
from recsys_spark.transforms.index import rejected_entities


def run(storage: RunStorage, settings: Settings) -> Facts:
    """Write `events` and `quarantine`; stop when too many rows are quarantined."""
    run_date, now = storage.run.run_date, datetime.datetime.now(datetime.UTC)
    with readable("events"):
        raw = read_events(storage.spark, settings.events)
        checked = check_events(raw, settings.events, settings.feedback, run_date, now)
        kept = storage.read_parent(EVENTS) if settings.events.incremental else None
        carried = None if kept is None else renew_verdict(kept, run_date)
        storage.write(EVENTS, checked if carried is None else checked.unionByName(carried))
    events = storage.read(EVENTS)
    with readable("items or users"):
        entities = read_entities(storage.spark, settings)
        storage.write(QUARANTINE, rejected_entities(quarantined(events), entities))
    facts = count_verdicts(events, storage.read(QUARANTINE), 0 if carried is None else carried.count())
    require_few_quarantined(facts, settings.events.max_quarantined_share, storage.path(QUARANTINE))
    return facts


if __name__ == "__main__":
    from recsys_spark.cli import main

    sys.exit(main(["ingest", *sys.argv[1:]]))
