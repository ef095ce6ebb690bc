from __future__ import annotations

from typing import Any

from recsys_spark.report.summary import backtest_line

FACTS: dict[str, Any] = {
    "lists_run_date": "2026-11-22", "k": 10, "ndcg": 0.0412, "popularity_ndcg": 0.031, "users": 1812,
    "users_without_list": 35,
}  # fmt: skip
LINE = "the lists of 2026-11-22 had NDCG@10 0.0412 (popularity 0.0310) for 1,812 users with new items"


def test_the_backtest_in_one_line() -> None:
    assert backtest_line(FACTS) == f"{LINE}, 35 new users had no list"
    before = {"ndcg_before": 0.0432, "measured_before": "2026-11-21"}
    assert backtest_line({**FACTS, **before, "users_without_list": 0}) == f"{LINE}; -0.0020 since 2026-11-21"
    assert backtest_line({"reason": "no run"}) == "nothing was measured: no run"
