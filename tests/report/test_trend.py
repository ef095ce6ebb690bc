from __future__ import annotations

import csv
import datetime
from pathlib import Path

import pyarrow as pa

from recsys_spark.backtesting import headline
from recsys_spark.report.trend import draw_trend, ndcg_by_night, shown_k, write_trend
from recsys_spark.tables import BACKTEST

FIRST, SECOND = datetime.date(2026, 11, 22), datetime.date(2026, 11, 23)


def trend_of(*nights: tuple[datetime.date, str, int, float]) -> pa.Table:
    rows = [
        {
            **dict.fromkeys(BACKTEST.schema.names),
            "run_date": night, "lists_run_date": night - datetime.timedelta(1), "lists_run_id": "run", "users": 3,
            "model": model, "metric": metric, "k": k, "value": value if metric == "ndcg" else 1.0,
        }
        for night, model, k, value in nights
        for metric in ("recall", "ndcg")
    ]  # fmt: skip
    return pa.Table.from_pylist(rows)


TREND = trend_of(
    (SECOND, "published", 10, 0.25), (SECOND, "popularity", 10, 0.125), (SECOND, "published", 20, 0.5),
    (FIRST, "published", 10, 0.1), (FIRST, "popularity", 10, 0.2), (FIRST, "published", 5, 0.3),
)  # fmt: skip


def test_the_file_holds_the_rows_in_the_order_of_the_key(tmp_path: Path) -> None:
    write_trend(TREND, tmp_path / "trend.csv")
    with (tmp_path / "trend.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == BACKTEST.schema.names
    ndcgs = [(row["run_date"], row["model"], row["k"], row["value"]) for row in rows if row["metric"] == "ndcg"]
    assert ndcgs == [
        ("2026-11-22", "popularity", "10", "0.2"), ("2026-11-22", "published", "5", "0.3"),
        ("2026-11-22", "published", "10", "0.1"), ("2026-11-23", "popularity", "10", "0.125"),
        ("2026-11-23", "published", "10", "0.25"), ("2026-11-23", "published", "20", "0.5"),
    ]  # fmt: skip


def test_the_picture(tmp_path: Path) -> None:
    for name, trend in (
        ("two.png", TREND),
        ("one.png", trend_of((FIRST, "published", 3, 0.1), (FIRST, "popularity", 3, 0.2))),
    ):
        draw_trend(trend, tmp_path / name)
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_the_length_shown_is_the_longest_of_at_most_ten() -> None:
    assert (shown_k(TREND, FIRST), shown_k(TREND, SECOND)) == (10, 10)
    assert shown_k(trend_of((FIRST, "published", 15, 0.1), (FIRST, "published", 20, 0.1)), FIRST) == 15
    assert shown_k(TREND, FIRST - datetime.timedelta(1)) is None
    assert list(ndcg_by_night(TREND, "published", 10).items()) == [(FIRST, 0.1), (SECOND, 0.25)]


def test_the_headline_tells_the_night_before_when_there_is_one() -> None:
    assert headline(TREND, FIRST) == {"k": 10, "ndcg": 0.1, "popularity_ndcg": 0.2}
    before = {"ndcg_before": 0.1, "measured_before": "2026-11-22"}
    assert headline(TREND, SECOND) == {"k": 10, "ndcg": 0.25, "popularity_ndcg": 0.125, **before}
    assert headline(TREND.slice(0, 0), SECOND) == {}
