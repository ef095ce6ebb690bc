"""Search spaces: those of the settings, those that models have of their own, and what is refused."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from jobs import nightly
from recsys_spark.config import Settings, with_changes
from recsys_spark.errors import SettingsError
from recsys_spark.model_sections import Loss
from recsys_spark.search_spaces import first_step, search_space, sections_of, value_of
from recsys_spark.tune_sections import SearchSpace, TunedModel

STEPS = [step.name for step in nightly.STEPS]
DESCRIBED = {
    "items": {"path": "x", "id": "i", "attributes": {"title": "t"}},
    "content": {"text": ["title"]},
}


def settings(**sections: Any) -> Settings:
    events = {"path": "x", "columns": {"user": "u", "item": "i", "rating": "r", "timestamp": "t"}}
    return Settings(**{"storage": {"root": "x"}, "events": events} | sections)


@pytest.mark.parametrize("loss", get_args(Loss))
def test_every_loss_has_a_space_that_its_settings_take(loss: str) -> None:
    assert "model.embedding_dim" in search_space(settings(model={"loss": loss}))


@pytest.mark.parametrize("model", get_args(TunedModel))
def test_every_model_has_a_space(model: str) -> None:
    assert search_space(settings(recommend={"model": model}, **DESCRIBED))


def test_a_blend_has_the_spaces_of_its_components() -> None:
    blend = {"recommend": {"model": "hybrid"}, "hybrid": {"components": ["ease", "embedding", "session_ease", "vae"]}}
    assert set(search_space(settings(**blend))) == {
        "model.embedding_dim", "model.l2", "model.unobserved_weight", "ease.l2", "session.half_life_items",
        "vae.embedding_dim", "vae.hidden_units", "vae.kl_weight",
    }  # fmt: skip


def test_the_space_of_the_settings_is_that_of_their_model() -> None:
    chosen = settings(
        recommend={"model": "ease"},
        tune={"spaces": {"ease": {"ease.l2": {"low": 1, "high": 9}}, "embedding": {"model.l2": {"choices": [0.1, 1]}}}},
    )
    assert search_space(chosen) == {"ease.l2": SearchSpace(low=1, high=9)}


@pytest.mark.parametrize(
    ("name", "space", "message"),
    [
        ("model.l3", {"low": 1, "high": 2}, r"tune.spaces.ease.'model.l3': unknown setting; \[model\] has loss, "),
        ("l2", {"low": 1, "high": 2}, "only settings of the sections model, "),
        ("evaluate.share", {"low": 0.1, "high": 0.2}, "only settings of the sections model, "),
        ("recommend.model", {"choices": ["ease", "hybrid"]}, "recsys-spark compare compares models"),
        ("model.loss", {"choices": ["bpr", "magic"]}, "model.loss: Input should be 'ials'.*'magic'"),
        ("ease.l2", {"low": -1.0, "high": 2.0}, "ease.l2: Input should be greater than 0, got -1.0"),
        ("neighbors.k", {"low": 1.0, "high": 2.5}, "takes whole numbers, got 1.0: write 1|valid integer"),
    ],
)
def test_what_is_no_setting_or_is_refused_is_named(name: str, space: dict[str, Any], message: str) -> None:
    """Of any model, whichever makes the lists."""
    with pytest.raises(SettingsError, match=message):
        search_space(settings(tune={"spaces": {"ease": {name: space}}}))


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"low": 2, "high": 2}, "tune.spaces.ease.ease.l2: low must be below high, got 2 and 2"),
        ({"low": 0.0, "high": 2.0, "log": True}, "low must be above 0 with log = true, got 0.0"),
        ({"low": 1}, "needs low and high, or choices"),
        ({"choices": [1, 2], "low": 1}, "give low and high, or choices, not both"),
        ({"choices": [1]}, r"choices must be at least two, none of them twice, got \[1\]"),
        ({"least": 1}, "tune.spaces.ease.ease.l2.least: unknown setting"),
    ],
)
def test_wrong_spaces(space: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        with_changes(settings(), {"tune": {"spaces": {"ease": {"ease.l2": space}}}})


def test_a_space_of_no_model() -> None:
    with pytest.raises(SettingsError, match=r"tune.spaces.magic.*Input should be 'embedding'"):
        with_changes(settings(), {"tune": {"spaces": {"magic": {}}}})


@pytest.mark.parametrize(
    ("names", "first"),
    [
        (["model.l2", "ease.l2"], "train"),
        (["neighbors.k", "model.l2"], "neighbors"),
        (["content.epochs", "neighbors.k"], "embed_content"),
    ],
)
def test_steps_run_again_from_the_first_that_reads_what_is_tuned(names: list[str], first: str) -> None:
    assert first_step({name: SearchSpace(low=1, high=2) for name in names}, STEPS) == first


def test_values_become_sections_and_back() -> None:
    values = {"model.l2": 0.5, "model.epochs": 3, "ease.l2": 7.0}
    changed = with_changes(settings(), sections_of(values))
    assert {name: value_of(changed, name) for name in values} == values
    assert value_of(settings(), "model.l2") == 0.01, "of ials, where none is given"
    assert value_of(settings(), "model.unobserved_weight") is None, "follows from the input"


def test_a_night_does_not_depend_on_how_it_was_tuned() -> None:
    assert settings(tune={"trials": 3}).digest() == settings().digest()
