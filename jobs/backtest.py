"""Measures the lists that readers saw by what their users have had since, and keeps the trend over the nights."""

from __future__ import annotations

import sys

from recsys_spark.audit import Facts
from recsys_spark.backtesting import headline, keep_trend, measure_published, with_earlier_nights
from recsys_spark.config import Settings
from recsys_spark.storage.run_storage import RunStorage
from recsys_spark.tables import BACKTEST


def run(storage: RunStorage, settings: Settings) -> Facts:
    """Write `backtest`, all nights so far, and the folder `trend`: the same as a file and a picture."""
    measured = measure_published(storage, settings)
    rows = storage.write(BACKTEST, with_earlier_nights(storage, measured.rows))
    trend = storage.read(BACKTEST).toArrow()
    keep_trend(storage, trend)
    return {**measured.facts, **headline(trend, storage.run.run_date), "earlier_rows": rows - len(measured.rows)}


if __name__ == "__main__":
    from recsys_spark.cli import main

    sys.exit(main(["backtest", *sys.argv[1:]]))
