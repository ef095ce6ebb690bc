"""The metrics beside RecBole's, RecTools' and ranx's own code, in the environment that `make bench-recbole` makes."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from recsys_spark.kernels.csr import IndexLists
from recsys_spark.metrics.diversity import intra_list_diversity
from recsys_spark.metrics.pairs import share_below
from recsys_spark.metrics.ranking import hits_matrix, ranking_metrics
from recsys_spark.metrics.spread import TrainingCounts, spread_metrics

PYTHON = Path(__file__).parents[2] / ".venv-recbole/bin/python"
HERE = Path(__file__).parent
USERS, ITEMS, KS, SAMPLES = 200, 120, (1, 5, 10), 40

pytestmark = pytest.mark.skipif(not PYTHON.exists(), reason="the other libraries are not there: make bench-recbole")


@pytest.fixture(scope="module", params=range(2))
def case(request: pytest.FixtureRequest) -> dict[str, NDArray[Any]]:
    random = np.random.default_rng(request.param)
    likely = 1.0 / (np.arange(ITEMS) + 1.0)
    recommended = np.stack(
        [random.choice(ITEMS, max(KS), replace=False, p=likely / likely.sum()) for _ in range(USERS)]
    )
    n_relevant = random.integers(1, 15, USERS)
    relevant = np.concatenate([np.sort(random.choice(ITEMS, count, replace=False)) for count in n_relevant])
    lists = IndexLists(np.concatenate([[0], np.cumsum(n_relevant)]).astype(np.int64), relevant.astype(np.int32))
    train = random.random((USERS, ITEMS)) < np.linspace(0.4, 0.01, ITEMS)
    train[:, -5:] = False  # items that nobody has
    train[np.arange(USERS), random.integers(0, 9, USERS)] = True
    vectors = random.standard_normal((ITEMS, 6))
    trained_users, trained_items = np.nonzero(train)
    positives, others = random.integers(0, 8, len(relevant)), random.integers(0, 8, (USERS, SAMPLES))
    return {
        "ks": np.array(KS),
        "recommended": recommended,
        "hits": hits_matrix(recommended, lists),
        "n_relevant": n_relevant,
        "relevant_users": np.repeat(np.arange(USERS), n_relevant),
        "relevant_items": relevant,
        "trained": train.sum(axis=0),
        "trained_users": trained_users,
        "trained_items": trained_items,
        "vectors": (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32),
        "positives": positives.astype(float),  # often as large as another
        "others": others.astype(float),
    }


def asked(worker: str, case: dict[str, NDArray[Any]], folder: Path) -> Any:
    np.savez(folder / "case.npz", **case)
    command = [PYTHON, "-W", "ignore", HERE / worker, folder / "case.npz"]
    answer = subprocess.run(command, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    return json.loads(answer.stdout.splitlines()[-1])


def means(case: dict[str, NDArray[Any]]) -> dict[str, float]:
    ranked = ranking_metrics(case["hits"], case["n_relevant"], KS)
    ours = {name: float(values.mean()) for name, values in ranked.items()}
    for k in KS:
        listed = np.bincount(case["recommended"][:, :k].ravel(), minlength=ITEMS)
        spread = spread_metrics(listed, TrainingCounts(case["trained"], USERS))
        ours |= {f"{name}@{k}": value for name, value in spread.items()}
    return ours


def test_metrics_are_those_of_recbole(case: dict[str, NDArray[Any]], tmp_path: Path) -> None:
    theirs, ours = asked("recbole_metrics.py", case, tmp_path), means(case)
    rows, shape = case["relevant_users"], case["others"].shape
    shares = share_below(
        case["positives"].astype(np.float32), rows, case["others"].astype(np.float32), np.ones(shape, bool)
    )
    ours["gauc@0"] = float(shares.mean())
    assert theirs.keys() == {name for name in ours if not name.startswith("novelty")}
    for name, value in theirs.items():
        assert ours[name] == pytest.approx(value, abs=1e-6), name


def test_metrics_are_those_of_rectools_and_ranx(case: dict[str, NDArray[Any]], tmp_path: Path) -> None:
    ours, n_relevant = means(case), case["n_relevant"]
    precisions = ranking_metrics(case["hits"], n_relevant, KS)
    for k in KS:
        of_all = precisions[f"map@{k}"] * np.minimum(n_relevant, k) / n_relevant
        ours[f"map_of_all@{k}"] = float(of_all.mean())
    diversity = intra_list_diversity(case["recommended"], case["vectors"], [k for k in KS if k > 1])
    ours |= {name: float(values.mean()) for name, values in diversity.items()}
    found = asked("other_metrics.py", case, tmp_path)
    assert {name.partition("@")[0] for name in found["rectools"]} == {
        "recall", "precision", "hit_rate", "mrr", "ndcg", "map_of_all", "novelty", "intra_list_diversity",
    }  # fmt: skip
    for library, theirs in found.items():
        for name, value in theirs.items():
            assert ours[name] == pytest.approx(value, abs=1e-6), (library, name)
