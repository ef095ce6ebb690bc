from __future__ import annotations

from typing import Any

from recsys_spark.report.summary import backtest_line, gain_line

FACTS: dict[str, Any] = {
    "lists_run_date": "2026-11-22", "k": 10, "ndcg": 0.0412, "popularity_ndcg": 0.031, "users": 1812,
    "users_without_list": 35,
}  # fmt: skip
LINE = "the lists of 2026-11-22 had NDCG@10 0.0412 (popularity 0.0310) for 1,812 users with new items"


def test_the_backtest_in_one_line() -> None:
    assert backtest_line(FACTS) == f"{LINE}, 35 new users had no list"
    assert backtest_line({**FACTS, "users_without_list": 1}) == f"{LINE}, 1 new user had no list"
    before = {"ndcg_before": 0.0432, "measured_before": "2026-11-21"}
    assert backtest_line({**FACTS, **before, "users_without_list": 0}) == f"{LINE}; -0.0020 since 2026-11-21"
    assert backtest_line({"reason": "no run"}) == "nothing was measured: no run"


def test_how_far_the_lists_are_ahead_in_one_line() -> None:
    def gain(model: str, metric: str, k: int, mean: float) -> dict[str, Any]:
        ends = {"mean": mean, "low": mean - 0.01, "high": mean + 0.01, "p_value": 0.0004}
        return {"model": model, "other": "popularity", "metric": metric, "k": k} | ends

    gains = [gain("graph_filter", "ndcg", k, k / 1000) for k in (5, 10, 20)]
    gains += [gain("graph_filter_by_score", "ndcg", 10, 0.9), gain("graph_filter", "recall", 10, 0.8)]
    expected = "+0.0100 of ndcg@10 beside popularity (95 % interval +0.0000 to +0.0200, p < .001)"
    assert gain_line({"gains": gains}) == expected
    assert gain_line({"gains": []}) is None
