from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recsys_spark import planning
from recsys_spark.cli import main
from recsys_spark.config import Settings
from recsys_spark.footprints import Workload
from recsys_spark.planning import Speeds, StepPlan, measure_speeds, plan_night, refusals

PARTS = 40 << 20
SPEEDS = Speeds(score_s=1e-9, distance_s=4e-9)


def settings(**sections: Any) -> Settings:
    events = {"path": "x", "columns": {"user": "u", "item": "i", "rating": "r", "timestamp": "t"}}
    return Settings(storage={"root": "x"}, events=events, **sections)


def plan_of(step: str, plans: list[StepPlan]) -> StepPlan:
    (found,) = [plan for plan in plans if plan.step == step]
    return found


def test_a_plan_by_hand() -> None:
    chosen = settings(matrix={"shard_mb": 10}, model={"embedding_dim": 61})
    plans = plan_night(chosen, Workload(1_000_000, 100_000, 20_000_000), SPEEDS, cores=50)
    assert [plan.step for plan in plans] == ["neighbors", "train", "recommend", "similar users", "similar items"]
    neighbors, recommend = plan_of("neighbors", plans), plan_of("recommend", plans)
    assert (neighbors.seconds, neighbors.tasks) == (pytest.approx(80.0), 200)  # 10^12 distances of 4 ns on 50 cores
    assert neighbors.disk_bytes == 168_000_000  # 8 bytes a pair and a user
    assert neighbors.shards == 16  # 160 million bytes of pairs in shards of 10 MB
    assert recommend.seconds == pytest.approx(2.0)  # 10^11 scores of 1 ns
    assert recommend.disk_bytes == 100_000 * (64 * 4 + 8)
    assert recommend.shards == 3
    assert plan_of("train", plans).driver_bytes == 16 * 1_100_000 * 64 + PARTS
    assert plan_of("train", plans).disk_bytes == 28 * 20_000_000
    assert plan_of("similar users", plans).seconds == pytest.approx(20.0)
    chosen = settings(model={"embedding_dim": 61, "max_trained_users": 100_000})
    plans = plan_night(chosen, Workload(1_000_000, 100_000, 20_000_000), SPEEDS, cores=50)
    assert plan_of("train", plans).driver_bytes == 16 * 200_000 * 64 + 21 * 1_000_000 + PARTS
    assert plan_of("train", plans).disk_bytes == 28 * 2_000_000
    assert plan_of("fold in", plans).disk_bytes == 4 * 100_000 * 62


def test_a_learned_similarity_is_planned_when_it_takes_more_than_the_model() -> None:
    chosen = settings(recommend={"model": "neighbors"}, neighborhood={"enabled": True}, neighbors={"k": 200})
    plans = plan_night(chosen, Workload(40_000, 1_000, 4_000_000), SPEEDS, cores=2)
    of_users, of_a_batch = 40_000 * (60 * 100 + 40 * 200 + 8 * 64), 256 * 200 * (8 * 100 + 4 * 64)
    assert plan_of("train", plans).driver_bytes == of_users + of_a_batch + 12 * 64 * 1_000
    assert plan_of("neighbors", plans).seconds == pytest.approx(2 * 40_000**2 * 4e-9 / 2), "lists are measured, too"
    rows = 8 * 4_000_000 + 8 * 40_000
    assert plan_of("recommend", plans).disk_bytes == 1_000 * (67 * 4 + 8) + 4 * 64 * 40_000 + rows


def test_segments_are_planned_as_many_as_there_can_be() -> None:
    users = {"path": "x", "id": "u", "attributes": {"country": "c"}}
    chosen = settings(users=users, popularity={"segment": "country", "min_segment_users": 200})
    plans = plan_night(chosen, Workload(40_000, 20_000, 400_000), SPEEDS, cores=2)
    assert plan_of("train", plans).disk_bytes == 28 * 400_000 + 8 * 200 * 20_000
    assert plan_of("recommend", plans).disk_bytes == 20_000 * (67 * 4 + 8) + 8 * 400_000 + 4 * 40_000
    plans = plan_night(chosen, Workload(1_000_000, 100, 400_000), SPEEDS, cores=2)
    assert plan_of("recommend", plans).disk_bytes == 100 * (67 * 4 + 8) + 8 * 1_000 * 100 + 4 * 1_000_000


def test_weights_of_items_are_planned_by_their_square() -> None:
    plans = plan_night(settings(recommend={"model": "ease"}), Workload(1_000, 20_000, 100_000), SPEEDS, cores=2)
    assert plan_of("train", plans).driver_bytes == 12 * 20_000**2 + 5_120 * 20_000 + 8 * 100_000
    assert plan_of("recommend", plans).disk_bytes == 20_000 * (67 * 4 + 8) + 4 * 20_000**2


def test_a_blend_is_planned_by_its_components() -> None:
    names = ["embedding", "session_embedding", "popularity", "neighbors", "ease", "session_ease", "graph_filter"]
    chosen = settings(recommend={"model": "hybrid"}, hybrid={"components": names, "validation_users": 1_000})
    plans = plan_night(chosen, Workload(1_000, 20_000, 100_000), SPEEDS, cores=2)
    assert [plan.step for plan in plans][:4] == ["neighbors", "train", "blend", "recommend"]
    columns, pairs, weights = 20_000 * (66 * 4 + 8), 8 * 100_000 + 8 * 1_000, 2 * 4 * 20_000**2
    assert plan_of("recommend", plans).disk_bytes == columns + pairs + weights + 4 * 20_000 * 65
    assert plan_of("blend", plans).driver_bytes == 20_000 * 66 * 4 + 1_000 * 100 * 7 * (40 + 20 * 7)
    ranked = settings(ranker={"enabled": True}, recommend={"model": "hybrid"}, hybrid={"components": names})
    plain = settings(recommend={"model": "hybrid"}, hybrid={"components": names})
    more, less = (plan_night(each, Workload(1_000, 20_000, 100_000), SPEEDS, cores=2) for each in (ranked, plain))
    held = plan_of("recommend", more).worker_bytes - plan_of("recommend", less).worker_bytes
    assert held == 4 * 64 * 100 * 7 * (2 * 7 + 16)


def test_an_autoencoder_is_planned_by_items_and_the_users_of_a_batch() -> None:
    workload, names = Workload(1_000_000, 50_000, 5_000_000), ["embedding", "popularity"]
    plain, more = (
        settings(
            recommend={"model": "hybrid"},
            hybrid={"components": components},
            reasons={"enabled": True},
            model={"embedding_dim": 1, "max_trained_users": 1_000},
            vae={"batch_users": 100, "hidden_units": 300, "embedding_dim": 150, "max_trained_users": 10_000},
        )
        for components in (names, [*names, "vae"])
    )
    before, after = (plan_night(each, workload, SPEEDS, cores=2) for each in (plain, more))
    held = 160 * 2**20 + 50_000 * (20 * 450 + 40 * 100) + 8 * 5 * 10_000
    assert plan_of("train", after).driver_bytes == held > plan_of("train", before).driver_bytes
    mapped = plan_of("recommend", after).disk_bytes - plan_of("recommend", before).disk_bytes
    assert mapped == 4 * 50_000 * (151 + 300 + 150), "columns of the product, the encoder, and what explains"


def test_lists_that_are_reranked_are_planned_by_their_candidates() -> None:
    source = {"path": "x", "id": "i", "attributes": {"genres": "g"}}
    workload, plain = Workload(1_000_000, 10_000, 5_000_000), settings(items=source)
    capped = settings(items=source, diversity={"weight": 0.3, "category": "genres", "max_per_category": 2})
    before, after = (plan_of("recommend", plan_night(each, workload, SPEEDS, cores=2)) for each in (plain, capped))
    assert after.worker_bytes - before.worker_bytes == 12 * 1024 * 50
    assert after.disk_bytes - before.disk_bytes == 10_000 * (4 * 64 + 8 + 4 * 4)


def test_reasons_are_planned_by_the_listed_items_and_the_terms_of_each() -> None:
    workload, plain = Workload(1_000_000, 10_000, 5_000_000), settings(recommend={"top_k": 100})
    named = settings(recommend={"top_k": 100}, reasons={"enabled": True, "items": 3})
    before, after = (plan_of("recommend", plan_night(each, workload, SPEEDS, cores=2)) for each in (plain, named))
    assert after.worker_bytes - before.worker_bytes == 1024 * 100 * 24 * 5
    assert after.disk_bytes - before.disk_bytes == 10_000 * 4 * 64


def test_content_is_planned_by_its_terms() -> None:
    source = {"path": "x", "id": "i", "attributes": {"title": "t", "price": "p", "image": "v"}}
    content = {"text": ["title"], "numbers": ["price"], "vectors": ["image"], "max_terms": 1_000, "embedding_dim": 50}
    plans = plan_night(settings(items=source, content=content), Workload(1_000, 10_000, 100_000), SPEEDS, cores=2)
    of_items, of_weights = 10_000 * (1600 + 4 * (51 + 50)), 1_051 * 64 * 50
    assert plan_of("embed_content", plans).driver_bytes == of_items + of_weights + 1_051 * 56 * 512 + PARTS
    without = {**content, "cold_items": False}
    held = [
        plan_of("train", plan_night(settings(items=source, content=each), Workload(1_000, 10_000, 100_000), SPEEDS, 2))
        for each in (content, without)
    ]
    mapping = 10_000 * (4800 + 8 * 51 + 16 * 65) + 1_051 * 24 * 65
    assert held[0].driver_bytes - held[1].driver_bytes == mapping
    tight = settings(items=source, content=content, plan={"driver_memory_mb": 60})
    assert "lower content.max_terms" in next(refusals(tight, plans))


def test_a_sample_of_a_gradient_model_is_drawn_too() -> None:
    chosen = {"architecture": "two_tower", "loss": "softmax", "max_trained_users": 1_000, "embedding_dim": 61}
    plans = plan_night(settings(model=chosen), Workload(1_000_000, 100, 20_000_000), SPEEDS, cores=2)
    held = 8 * 20_000 + 8 * 1_100 * 4 * (64 + 2) + 21 * 1_000_000 + PARTS
    assert plan_of("train", plans).driver_bytes == held + int(16 * 2 * 8192 / 20 * 100)


@pytest.mark.parametrize(
    ("chosen", "scores"),
    [
        ({"loss": "bpr"}, 0),
        ({"loss": "sampled_softmax", "negatives": 500}, 1000 * 500),  # twice 10,000 pairs of 20 a user
        ({"loss": "sampled_softmax", "negatives": 500, "in_batch_negatives": True}, 1000 * 10_500),
        ({"loss": "softmax"}, 1000 * 100_000),
    ],
)
def test_gradient_losses_hold_the_scores_of_a_batch(chosen: dict[str, Any], scores: int) -> None:
    wanted = settings(model={"embedding_dim": 61, "batch_size": 10_000, **chosen})
    plans = plan_night(wanted, Workload(1_000_000, 100_000, 20_000_000), SPEEDS, cores=50)
    # 61 dimensions and two columns for biases fill 64 columns, too; a start from singular vectors takes three tables.
    tables = 5 if chosen["loss"] == "bpr" else 8
    held = 8 * 20_000_000 + tables * 1_100_000 * 4 * (64 + 2) + PARTS
    assert plan_of("train", plans).driver_bytes == held + 16 * scores


def test_steps_that_are_off_are_not_planned() -> None:
    chosen = settings(neighbors={"enabled": False}, similar={"users": False, "items": False})
    plans = plan_night(chosen, Workload(1000, 100, 5000), SPEEDS, cores=2)
    assert [plan.step for plan in plans] == ["train", "recommend"]


def test_workers_need_no_more_for_more_users() -> None:
    few, many = (
        plan_of("recommend", plan_night(settings(), Workload(users, 1000, 20 * users), SPEEDS, cores=2))
        for users in (10_000_000, 1_000_000_000)
    )
    assert few.worker_bytes == many.worker_bytes
    assert many.seconds == pytest.approx(100 * (few.seconds or 0.0))


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        (
            {"worker_memory_mb": 100},
            r"recommend needs \d+\.\d MB a worker, over plan.worker_memory_mb = 100: make mat",
        ),
        ({"driver_memory_mb": 10}, "train needs .* MB on the driver, over plan.driver_memory_mb = 10: set model.max"),
        ({"disk_gb": 0.1}, "neighbors needs 0.2 GB of disk, over plan.disk_gb = 0.1"),
        (
            {"max_hours": 0.01},
            "neighbors needs 0.6 hours, over plan.max_hours = 0.01: .* square of the users; set nei",
        ),
    ],
)
def test_what_does_not_fit_names_the_setting(budget: dict[str, Any], message: str) -> None:
    chosen = settings(plan=budget)
    plans = plan_night(chosen, Workload(1_000_000, 100_000, 20_000_000), SPEEDS, cores=2)
    found = list(refusals(chosen, plans))
    assert any(re.match(message, each) for each in found), found
    assert list(refusals(settings(), plans)) == []


def test_what_holds_too_much_of_the_driver_says_what_makes_it_hold_less() -> None:
    chosen = settings(plan={"driver_memory_mb": 1})
    plans = plan_night(chosen, Workload(1_000_000, 100_000, 20_000_000), SPEEDS, cores=2)
    found = [each for each in refusals(chosen, plans) if "MB on the driver" in each]
    remedies = {each.partition(" needs ")[0]: each.partition(" = 1: ")[2].split(",")[0] for each in found}
    assert remedies == {
        "neighbors": "set neighbors.enabled = false",
        "train": "set model.max_trained_users",
        "recommend": "make model.embedding_dim smaller",
        "similar users": "set similar.users = false",
        "similar items": "set similar.items = false",
    }


@pytest.mark.parametrize(
    ("of_a_user", "expected"),
    [
        (1e-6, 1e-6 / 2048),
        (-1e-6, (5.0 - 8192e-6) / (2048 * 8192)),
    ],  # of 2,048 users to one more; or, for noise, to all
)
def test_what_a_block_takes_by_its_items_is_no_cost_of_distances(
    of_a_user: float, expected: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    users_of_blocks = [0]

    def nearest(queries: Any, ids: Any, candidates: Any, first: int, k: int) -> None:
        users_of_blocks.append(candidates.n_rows)

    def seconds(work: Callable[[], object]) -> float:
        work()
        return 5.0 + of_a_user * users_of_blocks[-1]

    monkeypatch.setattr(planning, "nearest_rows", nearest)
    monkeypatch.setattr(planning, "_seconds", seconds)
    speeds = measure_speeds(settings(), Workload(100_000, 50, 200_000))
    assert speeds.distance_s == pytest.approx(expected)


def test_speeds_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "CALIBRATION_S", 0.01)
    speeds = measure_speeds(settings(), Workload(3000, 500, 60_000))
    assert 1e-12 < speeds.score_s < 1e-6
    assert 1e-12 < speeds.distance_s < 1e-5


@pytest.mark.parametrize("workload", [Workload(1, 1, 1), Workload(2, 1, 2), Workload(5, 40_000, 5)])
def test_hardly_any_work_is_planned_too(workload: Workload, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "CALIBRATION_S", 0.001)
    chosen = settings(neighbors={"k": "all"})
    plans = plan_night(chosen, workload, measure_speeds(chosen, workload), cores=1)
    assert all(plan.shards >= 1 for plan in plans if plan.tasks)


PLAN = """
[storage]
root = "{folder}/root"
[events]
path = "{folder}/events.csv"
format = "csv"
columns = {{ user = "user", item = "item", rating = "stars", timestamp = "at" }}
"""


def test_the_command_counts_the_input_and_prints_the_plan(tmp_path: Path, spark: object, capsys: Any) -> None:
    (tmp_path / "plan.toml").write_text(PLAN.format(folder=tmp_path))
    rows = [f"u{user},i{item},4,2024-03-01" for user in range(30) for item in range(user % 5 + 1)]
    (tmp_path / "events.csv").write_text("\n".join(["user,item,stars,at", *rows, rows[0]]))
    assert main(["plan", "--settings", str(tmp_path / "plan.toml")]) == 0
    printed = capsys.readouterr().out
    counted = re.search(r"30 users x 5 items, (\d+) interactions: 1 blocks of 1,024 users", printed)
    assert counted is not None
    assert int(counted[1]) == pytest.approx(90, rel=0.03)  # one row is there twice
    assert {"neighbors", "train", "recommend", "similar"} <= {line.split()[0] for line in printed.splitlines() if line}
    sizes = ["--users", "100000000", "--items", "5000000", "--interactions", "10000000000", "--cores", "100"]
    assert main(["plan", "--settings", str(tmp_path / "plan.toml"), *sizes]) == 2
    captured = capsys.readouterr()
    assert "100,000,000 users x 5,000,000 items" in captured.out
    assert captured.err.startswith("error: this cannot fit:\n  neighbors needs ")
    assert "set neighbors.enabled = false" in captured.err
    assert not (tmp_path / "root").exists()
