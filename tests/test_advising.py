"""What is advised on surveys of which the answer is known, and the command that prints it."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from recsys_spark.advising import Advice, advise, advised_sections, content_of
from recsys_spark.config import Settings, with_changes
from recsys_spark.errors import SettingsError
from recsys_spark.report.advised import as_toml, changed_sections
from recsys_spark.survey import Attribute, Side, Survey
from tests.night.catalogue import Workspace, checkerboard, write_csv, write_events


def settings(**sections: Any) -> Settings:
    events = {"path": "x", "columns": {"user": "u", "item": "i", "rating": "r", "timestamp": "t"}}
    return Settings(**{"storage": {"root": "x"}, "events": events} | sections)


def side(known: int, median: int = 30, **changes: int) -> Side:
    whole = {"active": known, "few": 0, "validated": known, "in_order": known, **changes}
    return Side(known=known, median=median, **whole)


def survey(users: Side, items: Side, interactions: int = 500_000, **changes: Any) -> Survey:
    found = Survey(
        users, items, interactions, interactions, rejected=0, ratings=(1.0, 5.0), has_times=True, attributes=()
    )
    return replace(found, **changes)


def advised(found: Survey, chosen: Settings | None = None) -> dict[str, dict[str, Any]]:
    """The settings that are advised, which go together."""
    chosen = settings() if chosen is None else chosen
    sections = advised_sections(advise(found, chosen))
    if "content" not in sections:
        with_changes(chosen, sections)
    return sections


def optional(found: Survey) -> list[Advice]:
    return [advice for advice in advise(found, settings()) if advice.is_optional]


def test_a_small_catalogue_gets_a_blend_of_all_that_fits() -> None:
    sections = advised(survey(side(6_000), side(3_700)))
    assert sections["recommend"]["model"] == "hybrid"
    assert sections["hybrid"]["components"] == [
        "embedding", "popularity", "neighbors", "ease", "graph_filter", "session_embedding", "session_ease",
    ]  # fmt: skip
    assert sections["neighbors"] == {"enabled": True, "weighting": "l2", "k": 50}
    assert sections["model"] == {"loss": "ials", "architecture": "dot", "embedding_dim": 64}
    assert sections["evaluate"] == {"split": "newest"}
    assert sections["ease"] == {"l2": 500.0}


def test_too_few_users_for_a_blend_get_one_model() -> None:
    sections = advised(survey(side(300), side(200), interactions=900))
    assert sections["recommend"]["model"] == "ease"
    assert "hybrid" not in sections
    assert sections["model"]["l2"] == 0.1


def test_what_somebody_has_chosen_stays_where_nothing_speaks_against_it() -> None:
    own = settings(ease={"l2": 50}, model={"embedding_dim": 32}, neighbors={"enabled": False})
    sections = advised(survey(side(300), side(200)), own)
    assert "ease" not in sections
    assert "embedding_dim" not in sections["model"]
    assert sections["neighbors"] == {"weighting": "l2", "k": 50}
    assert advised(survey(side(300), side(40_000)), own)["model"]["embedding_dim"] == 256


@pytest.mark.parametrize(
    ("items", "plan", "has_ease", "has_filter"),
    [
        (20_000, {}, True, True),
        (20_001, {}, False, False),
        (10_000, {"driver_memory_mb": 1_000}, False, True),  # 1.5 GB and .75 GB
    ],
)
def test_weights_of_items_need_the_square_of_the_items(
    items: int, plan: dict[str, int], has_ease: bool, has_filter: bool
) -> None:
    components = advised(survey(side(6_000), side(items)), settings(plan=plan))["hybrid"]["components"]
    assert ("ease" in components, "graph_filter" in components) == (has_ease, has_filter)


@pytest.mark.parametrize(("items", "dims"), [(100, 64), (10_000, 128), (40_981, 256)])
def test_more_items_get_more_dimensions(items: int, dims: int) -> None:
    assert advised(survey(side(6_000), side(items)))["model"]["embedding_dim"] == dims


def test_many_users_have_no_neighbors_and_train_a_sample() -> None:
    sections = advised(survey(side(50_000_000), side(100_000), interactions=10**9))
    assert sections["neighbors"] == {"enabled": False}
    assert sections["similar"] == {"users": False}
    assert "neighbors" not in sections["hybrid"]["components"]
    most = sections["model"]["max_trained_users"]
    # 16 bytes x (256 + 3) x (users + 100,000), 21 bytes a user in all and 40 MB, in 8 GB.
    held = 16 * 259 * (most + 100_000) + 21 * 50_000_000 + (40 << 20)
    assert held <= 8192 << 20 < held + 16 * 259 * most


@pytest.mark.parametrize(
    ("changes", "split"),
    [
        ({"users": side(1_000, median=4)}, "last"),
        ({"has_times": False}, "random"),
        ({"users": side(1_000, in_order=100)}, "random"),
    ],
)
def test_what_is_held_out_depends_on_times(changes: dict[str, Any], split: str) -> None:
    sections = advised(replace(survey(side(1_000), side(500)), **changes))
    assert sections["evaluate"]["split"] == split
    has_sessions = any(name.startswith("session_") for name in sections["hybrid"]["components"])
    assert has_sessions == (split != "random")


def test_content_is_told_by_what_values_look_like() -> None:
    attributes = (
        Attribute("title", 1.0, 2.9, 0.0, 0.99),
        Attribute("plot", 0.9, 40.0, 0.0, 1.0),
        Attribute("genres", 1.0, 1.7, 0.0, 0.1),
        Attribute("price", 1.0, 1.0, 1.0, 0.6),
        Attribute("image", 0.8, 64.0, 1.0, 1.0),
        Attribute("barcode", 1.0, 1.0, 0.2, 1.0),
        Attribute("note", 0.1, 5.0, 0.0, 1.0),
    )
    found = survey(side(1_000), side(500), attributes=attributes)
    expected = {"text": ["title", "plot"], "categories": ["genres"], "numbers": ["price"], "vectors": ["image"]}
    assert content_of(found, settings()) == expected
    sections = advised(found)
    assert {"content", "session_content"} <= set(sections["hybrid"]["components"])
    assert sections["content"] == expected | {"cold_items": True}
    source = {"path": "x", "id": "i", "attributes": {"title": "t", "genres": "g"}}
    own = settings(items=source, content={"categories": ["genres"]})
    assert content_of(found, own) == {"categories": ["genres"]}


def test_ratings_and_what_is_worth_a_try() -> None:
    losses = [advice.sections["model"]["loss"] for advice in optional(survey(side(6_000), side(3_700)))]
    assert losses == ["rating_bce", "softmax"]
    sparse = survey(side(30_000), side(41_000), interactions=810_000)
    assert "spectral" in [advice.sections["model"]["loss"] for advice in optional(sparse)]
    equal = survey(side(6_000), side(3_700), ratings=(5.0, 5.0))
    assert advised(equal)["feedback"] == {"kind": "implicit"}


def test_the_fragment_is_toml_of_what_differs() -> None:
    chosen = settings(neighbors={"weighting": "l2"})
    changed = changed_sections(chosen, {"neighbors": {"weighting": "l2", "k": 20}, "model": {"loss": "ials"}})
    assert changed == {"neighbors": {"k": 20}}
    lines = list(as_toml(chosen, changed))
    assert lines[0] == "[neighbors]  # you have this section: set these in it"
    assert tomllib.loads("\n".join(lines)) == changed


def test_changes_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"recommend.model = 'neighbors' needs neighbors.enabled"):
        with_changes(settings(), {"recommend": {"model": "neighbors"}, "neighbors": {"enabled": False}})


@pytest.fixture
def workspace(spark: SparkSession, tmp_path: Path) -> Workspace:
    workspace = Workspace(spark, tmp_path, is_described=True)
    write_events(tmp_path / "events.csv", checkerboard())
    write_csv(tmp_path / "users.csv", ["name"], [["u00"], ["nobody"]])
    write_csv(
        tmp_path / "items.csv", ["code", "label"], [["i00", "Green tea of spring"], ["i99", "Rye bread of today"]]
    )
    return workspace


def test_the_command(workspace: Workspace) -> None:
    outcome = workspace.cli("advise")
    assert outcome.code == 0, outcome.err
    printed = " ".join(outcome.out.split())
    assert "150 user-item pairs" in printed
    assert "Users 31, of which 3.2% without an interaction" in printed
    assert "Items 17, of which 5.9% without an interaction" in printed
    fragment = outcome.out.split("Settings to use\n")[1].split("Then:")[0]
    sections = tomllib.loads(fragment)
    assert sections["recommend"] == {"model": "ease"}
    assert sections["content"] == {"text": ["title"]}
    assert not workspace.root.exists(), "nothing is written"


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        ({"events.path": "/nowhere/events"}, "events.path: '/nowhere/events' does not exist"),
        (
            {"events.columns.user": "who"},
            "events.columns.user: the input has no column 'who'; it has user, item, stars",
        ),
        ({"items.id": "number"}, "items.id: the input has no column 'number'; it has code, label"),
    ],
)
def test_wrong_input_is_one_line(workspace: Workspace, sets: dict[str, str], message: str) -> None:
    outcome = workspace.cli("advise", sets=sets)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith(f"error: {message}")


def test_nothing_to_learn_from(workspace: Workspace) -> None:
    write_events(workspace.folder / "events.csv", [])
    outcome = workspace.cli("advise")
    assert outcome.code == 1
    assert outcome.err.startswith("error: there are no interactions to learn from")
