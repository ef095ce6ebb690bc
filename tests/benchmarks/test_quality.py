"""What the comparison with other libraries rests on: lists, splits by time, closed forms, how far one is ahead."""

from __future__ import annotations

import argparse
import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.trial import create_trial
from scipy import sparse, stats

from benchmarks import nights
from benchmarks.datasets import late_part
from benchmarks.peer_quality import check_settings
from benchmarks.peers.contender import Contender, Fitted, Settings
from benchmarks.peers.plain import ease_by_items, ease_by_users
from benchmarks.peers.tuning import at_an_end, tune
from benchmarks.peers.whole_data import DEFAULTS, terms_of, weight_of
from benchmarks.quality_report import ahead_over_folds, lines_that_count
from benchmarks.ranking import Floats, Lists, Values, among_given, best_places, lists_of, over_all
from benchmarks.splits import Split, Task
from benchmarks.user_values import ahead_of, beside
from recsys_spark.kernels.csr import IndexLists, rows_of_ones
from recsys_spark.kernels.item_models import ease_weights
from recsys_spark.kernels.least_squares import WholeDataLoss
from recsys_spark.model_sections import ModelSettings
from recsys_spark.models.alternating import balanced_weight
from recsys_spark.models.interactions import TrainingPairs

LEVELS = np.array([-np.inf, -1.0, 0.0, 0.5, 2.0], np.float32)


def pairs_of(has: np.ndarray) -> TrainingPairs:
    users, items = (each.astype(np.int32) for each in np.nonzero(has))
    return TrainingPairs(users, items, np.ones(len(users), np.float32), *has.shape)


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12))
def test_best_places_are_those_of_a_stable_sort(seed: int, k: int) -> None:
    scores = np.random.default_rng(seed).choice(LEVELS, (7, 12))
    assert best_places(scores, k).tolist() == np.argsort(-scores, axis=1, kind="stable")[:, :k].tolist()


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_lists_over_all_items_are_measured_as_by_hand(seed: int) -> None:
    random = np.random.default_rng(seed)
    has, wanted = random.random((9, 6)) < 0.3, random.random((9, 6)) < 0.3
    scores = random.choice(LEVELS, (9, 6))
    train, test = pairs_of(has), pairs_of(wanted & ~has)
    measure = over_all(lambda: test, ["recall@2", "ndcg@2"])
    found = measure(lists_of(lambda users: scores[users].copy(), 9), train)
    for user in range(9):
        order = [item for item in np.argsort(-scores[user], kind="stable") if not has[user, item]]
        listed = [item for item in order if scores[user, item] > -np.inf][:2]
        left = set(np.flatnonzero(wanted[user] & ~has[user]))
        if not left:
            assert np.isnan(found["recall@2"][user])
            continue
        gains = [1 / np.log2(place + 2) for place, item in enumerate(listed) if item in left]
        ideal = sum(1 / np.log2(place + 2) for place in range(min(2, len(left))))
        assert found["recall@2"][user] == pytest.approx(len(gains) / len(left))
        assert found["ndcg@2"][user] == pytest.approx(sum(gains) / ideal)


def test_of_items_given_twice_or_level_the_smaller_one_ranks_first() -> None:
    given_items = np.array([[0, 2, 1], [2, 0, 1], [1, 0, 0], [0, 1, 1]])
    scores: Floats = np.array([[1, 0, 1], [1, 0, 1], [3, 3, 3], [0, 5, 0]], np.float32)
    measure = among_given(lambda: given_items, ["hit_rate@1"])
    found = measure(lists_of(lambda users: scores[users], 4), pairs_of(np.zeros((4, 3), bool)))
    assert found["hit_rate@1"].tolist() == [1.0, 0.0, 0.0, 0.0]


def test_parts_by_time_are_one_after_the_other() -> None:
    random = np.random.default_rng(0)
    users, items = np.nonzero(random.random((20, 60)) < 0.4)
    times = random.integers(0, 30, len(users))
    ratings = pa.table({"user": users + 5, "item": items * 3, "rating": np.ones(len(users)), "timestamp": times})
    at = {(int(user), int(item)): (int(time), int(item)) for user, item, time in zip(users, items, times, strict=True)}
    found = {name: late_part(ratings, name) for name in ("train", "test", "early", "newest")}
    sets = {name: set(zip(part.user_idx.tolist(), part.item_idx.tolist(), strict=True)) for name, part in found.items()}
    assert sets["train"] | sets["test"] == at.keys()
    assert sets["early"] | sets["newest"] == sets["train"]
    assert not sets["train"] & sets["test"]
    assert not sets["early"] & sets["newest"]
    for before, after, share in (("train", "test", 0.2), ("early", "newest", 0.1)):
        for user in range(20):
            earlier, later = ([at[pair] for pair in sets[name] if pair[0] == user] for name in (before, after))
            assert max(earlier) < min(later)
            assert len(later) == np.ceil(share * (len(earlier) + len(later)))


@pytest.mark.parametrize("kind", [np.float64, np.float32])
@pytest.mark.parametrize("l2", [10.0, 250.0])
def test_ease_is_the_same_by_users_by_items_and_by_the_project(l2: float, kind: type) -> None:
    has = np.random.default_rng(0).random((40, 90)) < 0.1
    matrix = sparse.csr_matrix(has.astype(np.float64))
    expected = matrix @ ease_by_items(matrix, l2)
    assert ease_by_users(matrix.astype(kind), l2)(slice(3, 30)) == pytest.approx(expected[3:30], abs=1e-5)
    pairs = pairs_of(has)
    rows = rows_of_ones(IndexLists(pairs.indptr(), pairs.item_idx), pairs.n_items)
    assert matrix @ ease_weights(rows, l2) == pytest.approx(expected, abs=1e-5)


def test_how_far_one_is_ahead_is_that_of_a_paired_test() -> None:
    random = np.random.default_rng(0)
    one, other = random.random(700), random.random(700)
    other[::7] = one[::7] = np.nan
    found, t = ahead_of(one, other), stats.ttest_rel(one, other, nan_policy="omit")
    assert found["p_value"] == pytest.approx(t.pvalue, rel=0.02)
    assert found["low"] < found["mean"] < found["high"]
    assert list(beside(one, {"worse": other - 0.5, "better": other})) == ["better", "worse"]


def test_a_best_setting_at_an_end_of_its_range_is_told() -> None:
    spaces = {
        "l2": FloatDistribution(0.01, 100.0, log=True),
        "share": FloatDistribution(0.0, 1.0),
        "k": IntDistribution(10, 1000, log=True),
        "layers": IntDistribution(1, 4),
    }
    params = {"l2": 0.011, "share": 0.5, "k": 990, "layers": 4}
    trial = create_trial(params=params, distributions=spaces, value=1.0)
    assert at_an_end(trial) == ["l2", "k"]


def test_of_several_searches_the_best_by_validation_counts_and_of_nights_the_last() -> None:
    tuned: dict[str, Any] = {"dataset": "gowalla", "model": "peer:ease", "metrics": {"recall@20": 0.1}, "trials": 8}
    night: dict[str, Any] = {"dataset": "gowalla", "model": "hybrid", "metrics": {"recall@20": 0.2}}
    rows = [
        tuned | {"validation": 0.5},
        tuned | {"validation": 0.6, "trials": 12},
        tuned | {"validation": 0.4, "trials": 30, "metrics": {"recall@20": 0.3}},
        night,
        night | {"metrics": {"recall@20": 0.15}},
        {"dataset": "gowalla", "model": "ease", "metrics": {}},  # a component of the night, not searched for
    ]
    found = lines_that_count("\n".join(map(json.dumps, rows)))
    assert found == {("gowalla", "peer:ease"): rows[1], ("gowalla", "hybrid"): rows[4]}


@pytest.mark.parametrize(("gain", "said"), [(0.01, "+.0100"), (-0.01, "-.0100")])
def test_over_overlapping_folds_the_test_is_corrected(gain: float, said: str) -> None:
    gains = gain + np.array([-0.002, -0.001, 0.0, 0.001, 0.002])
    rows = []
    for fold, more in enumerate(gains):
        for model, value in (("peer:ease", 0.3), ("peer:user-knn", 0.2), ("ials", 0.299), ("hybrid", 0.3 + more)):
            line = {"dataset": f"quest_movielens_1m/{fold}", "model": model, "metrics": {"ndcg@10": value}}
            rows.append(json.dumps(line | {"settings": {}, "trials": 30}))
    first, second = ahead_over_folds(lines_that_count("\n".join(rows)), "ndcg@10").split(";\n")
    t = gain / np.sqrt(gains.var(ddof=1) * (1 / 5 + 1 / 4))
    assert first.startswith(
        f"Over the folds the blend beside ease in NumPy, the best of the others, has {said} of NDCG@10"
    )
    assert f"t = {t:.1f} with 4 degrees" in first
    assert second.startswith("beside ials, the best single model of the project, has ")


def test_terms_of_other_libraries_are_those_of_the_loss_of_ials() -> None:
    has = (np.arange(60)[:, None] + np.arange(60)) % 60 < 3  # three pairs in each row and column, so all are mean ones
    pairs = pairs_of(has)
    chosen = DEFAULTS | {"unobserved_share": 0.6}
    terms, weight = terms_of(pairs, chosen), weight_of(pairs, chosen)
    loss = WholeDataLoss(weight, ModelSettings().l2_penalty)
    of_rows = loss.penalties(rows_of_ones(IndexLists(pairs.indptr(), pairs.item_idx), pairs.n_items))
    assert weight == 0.6 * balanced_weight(pairs) < 0.6
    assert weight * terms.extra == pytest.approx(1)
    assert weight * terms.of_row == pytest.approx(of_rows)
    assert weight * terms.of_pair * 3 == pytest.approx(of_rows)


def test_a_search_tries_defaults_first_and_keeps_the_best() -> None:
    tried = []

    def fit(pairs: TrainingPairs, chosen: Settings, held_out: TrainingPairs | None) -> Fitted:
        tried.append(chosen["shift"])
        return Fitted(lambda users: np.full((3, 2), -abs(chosen["shift"] - 2), np.float32)[users], 0.1)

    def measure(lists: Lists, train: TrainingPairs) -> Values:
        return {"score": np.concatenate([scores[:, 0] for _, scores in lists]).astype(np.float64)}

    contender = Contender("some", fit, {"shift": 7.0}, {"shift": FloatDistribution(-9.0, 9.0)})
    tuned = tune(contender, Task(pairs_of(np.zeros((3, 2), bool)), measure), "score", 6)
    best = min(tried, key=lambda shift: abs(shift - 2))
    assert tried[0] == 7.0
    assert len(set(tried)) == tuned.trials == 6
    assert tuned.settings == {"shift": best}
    assert tuned.validation == pytest.approx(-abs(best - 2), abs=1e-5)


def test_given_settings_are_of_one_model_and_complete(capsys: pytest.CaptureFixture[str]) -> None:
    def fit(pairs: TrainingPairs, settings: Settings, held_out: TrainingPairs | None) -> Fitted:
        raise AssertionError

    parser, space = argparse.ArgumentParser(), {"depth": IntDistribution(1, 3), "l2": FloatDistribution(0.0, 1.0)}
    model, other = Contender("peer:tree", fit, space=space), Contender("peer:bush", fit)
    check_settings(parser, [model], {"depth": 2, "l2": 0.5, "epochs": 7})
    for models, chosen, said in (
        ([model], {"depth": 2}, "of peer:tree are without l2"),
        ([model, other], {}, "of one model, not of peer:tree, peer:bush"),
    ):
        with pytest.raises(SystemExit):
            check_settings(parser, models, chosen)
        assert said in capsys.readouterr().err


def test_a_night_on_the_slice_learns_from_the_other_training_pairs_only() -> None:
    has, wanted = np.array([[1, 1, 0], [0, 1, 1]]), np.array([[0, 1, 0], [0, 0, 1]])
    on_test, on_slice = (Task(pairs_of(learned), lambda lists, train: {}) for learned in (has, has - wanted))
    split = Split("any", ("ndcg@10",), lambda: on_test, lambda: on_slice)
    events = pa.table({"user": [7, 7, 9, 9], "item": [20, 10, 30, 20], "rating": [5, 4, 3, 2]})
    task = nights.Task(events, np.array([7, 9]), np.array([10, 20, 30]))
    case = nights.Run(split, lambda: task, {"model": {"l2": 0.1, "embedding_dim": 4}, "ease": {"l2": 9.0}})

    found = nights.on_slice(case, {"model": {"l2": 0.2}, "vae": {"epochs": 3}})

    assert found.task().train.to_pylist() == [
        {"user": 7, "item": 10, "rating": 4},
        {"user": 9, "item": 20, "rating": 2},
    ]
    assert found.split.test_task() is on_slice
    assert found.sections == {"model": {"l2": 0.2, "embedding_dim": 4}, "ease": {"l2": 9.0}, "vae": {"epochs": 3}}
    assert case.split.test_task() is on_test
