"""The metrics beside RecBole's own code, where its environment is: `make bench-recbole` makes it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from recsys_spark.kernels.csr import IndexLists
from recsys_spark.metrics.ranking import hits_matrix, ranking_metrics
from recsys_spark.metrics.spread import TrainingCounts, spread_metrics

PYTHON = Path(__file__).parents[2] / ".venv-recbole/bin/python"
WORKER = Path(__file__).with_name("recbole_metrics.py")
USERS, ITEMS, KS = 200, 120, (1, 5, 10)

pytestmark = pytest.mark.skipif(not PYTHON.exists(), reason="RecBole is not there: make bench-recbole")


@pytest.mark.parametrize("seed", range(3))
def test_metrics_are_those_of_recbole(seed: int, tmp_path: Path) -> None:
    random = np.random.default_rng(seed)
    likely = 1.0 / (np.arange(ITEMS) + 1.0)
    recommended = np.stack(
        [random.choice(ITEMS, max(KS), replace=False, p=likely / likely.sum()) for _ in range(USERS)]
    )
    n_relevant = random.integers(1, 15, USERS)
    relevant = np.concatenate([np.sort(random.choice(ITEMS, count, replace=False)) for count in n_relevant])
    lists = IndexLists(np.concatenate([[0], np.cumsum(n_relevant)]).astype(np.int64), relevant.astype(np.int32))
    hits, trained = hits_matrix(recommended, lists), random.integers(0, 40, ITEMS)
    ours = {name: float(values.mean()) for name, values in ranking_metrics(hits, n_relevant, KS).items()}
    for k in KS:
        listed = np.bincount(recommended[:, :k].ravel(), minlength=ITEMS)
        spread = spread_metrics(listed, TrainingCounts(trained, USERS))
        ours |= {f"{name}@{k}": value for name, value in spread.items()}
    case = tmp_path / "case.npz"
    np.savez(case, ks=KS, hits=hits, n_relevant=n_relevant, recommended=recommended, trained=trained)
    answer = subprocess.run([PYTHON, "-W", "ignore", WORKER, case], capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    theirs = json.loads(answer.stdout.splitlines()[-1])
    assert theirs.keys() == {name for name in ours if not name.startswith("novelty")}
    for name, value in theirs.items():
        assert ours[name] == pytest.approx(value, abs=1e-6), name
