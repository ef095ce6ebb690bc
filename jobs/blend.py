"""Learns how much each model of a blend counts, from fits that have not seen the validation split."""

from __future__ import annotations

import sys

from recsys_spark.audit import Facts
from recsys_spark.config import Settings
from recsys_spark.hybrids import learn_blend
from recsys_spark.storage.run_storage import RunStorage


def run(storage: RunStorage, settings: Settings) -> Facts:
    """Write `blend_candidates`; the weights are what the run keeps of the step."""
    if not settings.components:
        return {"skipped": "recommend.model is not 'hybrid'"}
    return learn_blend(storage, settings)


if __name__ == "__main__":
    from recsys_spark.cli import main

    sys.exit(main(["blend", *sys.argv[1:]]))
