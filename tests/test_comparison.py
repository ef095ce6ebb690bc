"""Comparisons of models: which settings each gets, and the command beside a night with the same settings."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyspark.sql import SparkSession
from rich.console import Console

from recsys_spark.comparison import Comparison, Measured, Sample, beside_best, candidate_sections, default_models
from recsys_spark.config import Settings, with_changes
from recsys_spark.errors import RecsysError, SettingsError
from recsys_spark.metrics.confidence import GROUPS, Difference, GroupSums
from recsys_spark.report.compared import print_comparison
from recsys_spark.sampled_runs import run_apart
from tests.night.catalogue import FIRST_DAY, Workspace, checkerboard, user_id, write_csv, write_events


def settings(**sections: Any) -> Settings:
    events = {"path": "x", "columns": {"user": "u", "item": "i", "rating": "r", "timestamp": "t"}}
    return Settings(**{"storage": {"root": "x"}, "events": events} | sections)


def test_each_name_gets_its_settings() -> None:
    chosen = settings(
        recommend={"model": "neighbors"}, neighborhood={"enabled": True}, hybrid={"components": ["ease", "popularity"]}
    )
    found = {
        name: with_changes(chosen, sections)
        for name, sections in candidate_sections(chosen, ["neighbors", "softmax", "hybrid"]).items()
    }
    assert {name: each.recommend.model for name, each in found.items()} == {
        "neighbors": "neighbors", "softmax": "embedding", "hybrid": "hybrid",
    }  # fmt: skip
    assert found["softmax"].model.loss == "softmax"
    assert {name: each.neighborhood.enabled for name, each in found.items()} == {
        "neighbors": True, "softmax": False, "hybrid": False,
    }  # fmt: skip


def test_the_models_that_settings_allow() -> None:
    assert default_models(settings()) == ("embedding", "neighbors", "ease", "graph_filter", "hybrid")
    assert "neighbors" not in default_models(settings(neighbors={"enabled": False}))
    source = {"path": "x", "id": "i", "attributes": {"title": "t"}}
    assert "content" in default_models(settings(items=source, content={"text": ["title"]}))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "magic",
            r"--models 'magic' is no model: lists are made by embedding, .*hybrid, and .* with ials, .*rating_bce",
        ),
        ("content", r"--models content: recommend.model = 'content' needs attributes in content"),
    ],
)
def test_a_model_that_is_not_there_is_refused(name: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        candidate_sections(settings(), ["embedding", name])


@pytest.fixture
def workspace(spark: SparkSession, tmp_path: Path) -> Workspace:
    workspace = Workspace(spark, tmp_path, {"ease.l2": "2", "evaluate.ks": "[10, 20]"}, is_described=True)
    write_events(tmp_path / "events.csv", checkerboard())
    write_csv(tmp_path / "users.csv", ["name"], [[user_id(0)]])
    write_csv(tmp_path / "items.csv", ["code", "label"], [])
    return workspace


@pytest.mark.slow
def test_the_command_measures_what_a_night_does(workspace: Workspace) -> None:
    """On all 30 users."""
    outcome = workspace.cli("compare", "--models", "ease", "--users", "30", "--run-date", FIRST_DAY, "--json")
    assert outcome.code == 0, outcome.err
    assert not workspace.root.exists(), "nothing is written"
    found = json.loads(outcome.out)
    assert (found["sample"]["users"], found["sample"]["items"], found["sample"]["interactions"]) == (30, 16, 150)
    models = {each["model"]: each for each in found["models"]}
    assert set(models) == {"ease", "popularity"}
    ease = models["ease"]
    assert ease["training_s"] > 0
    assert ease["scoring_s"] > 0
    assert ease["driver_mb"] > 50
    workspace.night(FIRST_DAY, sets={"recommend.model": "ease"})
    rows = workspace.rows("metrics")
    for name in ("ease", "popularity"):
        night = {(row["metric"], row["k"]): row["value"] for row in rows if row["model"] == name}
        measured = models[name]["ndcg"], models[name]["recall"], models[name]["item_coverage"]
        assert measured == pytest.approx((night["ndcg", 10], night["recall", 20], night["item_coverage", 10]))
    (gain,) = [
        each for each in workspace.facts("evaluate")["details"]["gains"] if (each["metric"], each["k"]) == ("ndcg", 10)
    ]
    assert ease["to_best"] is None
    behind = models["popularity"]["to_best"]
    assert (behind["mean"], behind["p_value"]) == pytest.approx((-gain["mean"], gain["p_value"]))
    assert -gain["high"] <= behind["mean"] <= -gain["low"]


def test_models_are_compared_with_the_best_user_by_user() -> None:
    random = np.random.default_rng(3)
    values = {"a": random.random(600), "b": random.random(600) + 0.2}
    values["c"] = values["b"] - 0.001

    def sums(name: str) -> GroupSums:
        groups = np.arange(600)
        return GroupSums(np.bincount(groups, values[name], GROUPS), np.bincount(groups, minlength=GROUPS))

    models = [Measured(name, float(values[name].mean()), sums=sums(name)) for name in "abc"]
    found = {each.model: each.to_best for each in beside_best([*models, Measured("d", problem="no")])}
    assert found["b"] is None
    assert found["d"] is None
    assert found["a"] is not None
    assert found["c"] is not None
    assert found["a"].p_value < 0.001
    assert found["a"].mean == pytest.approx((values["a"] - values["b"]).mean())
    assert found["c"].p_value < 1e-9, "the same users"


def refuse(exit_code: int) -> None:
    error = RecsysError("no")
    error.exit_code = exit_code
    raise error


def fail() -> None:
    raise ValueError("what a library says\nand where")


@pytest.mark.parametrize(
    ("work", "message", "exit_code"),
    [
        (partial(refuse, 3), "no", 3),
        (fail, "ValueError: what a library says", 1),
        (partial(os._exit, 9), "its process was killed; memory may have run out", 1),
    ],
    ids=["refused", "failed", "killed"],
)
def test_what_fails_apart_is_told_here(work: Callable[[], None], message: str, exit_code: int) -> None:
    with pytest.raises(RecsysError) as found:
        run_apart(work)
    assert (str(found.value), found.value.exit_code) == (message, exit_code)


def test_a_process_of_its_own_gives_what_it_makes() -> None:
    assert run_apart(os.getpid) != os.getpid()


def test_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    sample = Sample(settings(), "run", 30, 16, 150, {"ingest": 1.0, "embed_content": 0.0, "neighbors": 2.34})
    behind = Difference(-0.05, -0.06, -0.04, 0.0125)
    models = [
        Measured("ease", 0.25, 0.5, 0.125, 28, 1.25, 0.5, 321.0, to_best=behind),
        Measured("content", problem="no memory"),
        Measured("hybrid", 0.3, 0.5, 0.25, 28, 3.0, 0.7, 400.0),
        Measured("popularity", 0.1, 0.2, 0.0625, 28),
    ]
    with pytest.raises(RecsysError, match="not measured: content: no memory"):
        print_comparison(Comparison(sample, models), Console(width=200), as_json=False)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[1] == ["hybrid", "0.3000", "0.5000", "0.2500", "3.0", "s", "0.7", "s", "400", "MB"]
    assert [line[0] for line in lines[1:5]] == ["hybrid", "ease", "popularity", "content"]
    assert lines[2][4:8] == ["-0.0500,", "p", "=", ".013"]
    assert lines[3][4:] == ["-", "-", "-"]
    assert " ".join(lines[5]).endswith("beside what the models share: neighbors 2.3 s.")


@pytest.mark.parametrize(
    ("models", "sets", "message"),
    [
        ("embedding,magic", {}, "--models 'magic' is no model"),
        ("embedding", {"events.columns.item": "what"}, "events.columns.item: the input has no column 'what'"),
    ],
)
def test_wrong_input_is_told(workspace: Workspace, models: str, sets: dict[str, str], message: str) -> None:
    outcome = workspace.cli("compare", "--models", models, sets=sets)
    assert (outcome.code, outcome.out) == (2, "")
    assert f"error: {message}" in outcome.err
