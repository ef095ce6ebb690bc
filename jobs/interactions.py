"""Turns events into one rating between 0 and 1 for each user-item pair, and sets some pairs aside for testing."""

from __future__ import annotations

import sys

from recsys_spark.audit import Facts
from recsys_spark.config import Settings
from recsys_spark.continuity import kept_interactions, require_interactions, value_range
from recsys_spark.storage.run_storage import RunStorage
from recsys_spark.tables import EVENTS, INTERACTIONS, ITEMS, USERS
from recsys_spark.transforms.interactions import gather_pairs, scale_ratings, weigh_events
from recsys_spark.transforms.splits import assign_splits


def run(storage: RunStorage, settings: Settings) -> Facts:
    """Write `interactions`."""
    feedback = settings.feedback
    events = weigh_events(storage.read(EVENTS), feedback, storage.run.run_date)
    kept = kept_interactions(storage, settings)
    users, items = storage.read(USERS), storage.read(ITEMS)
    pairs = gather_pairs(events, users, items, feedback, kept)
    low, high = value_range(storage, settings)
    scaled = scale_ratings(pairs, (low, high), feedback.lowest)
    count = storage.write(INTERACTIONS, assign_splits(scaled, users, items, settings.evaluate, settings.seed))
    require_interactions(count, settings.events.path)
    density = count / (storage.count(USERS) * storage.count(ITEMS))
    return {"interactions": count, "value_range": [low, high], "lowest": feedback.lowest, "density": density}


if __name__ == "__main__":
    from recsys_spark.cli import main

    sys.exit(main(["interactions", *sys.argv[1:]]))
