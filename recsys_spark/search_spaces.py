"""What is tuned: the search space of each model, checked before anything is run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from recsys_spark.advising import Sections
from recsys_spark.config import with_changes
from recsys_spark.errors import SettingsError
from recsys_spark.tune_sections import SearchSpace

if TYPE_CHECKING:
    from recsys_spark.config import Settings

Space = Mapping[str, SearchSpace]
"""What each setting, such as `model.l2`, is tried with."""

Values = Mapping[str, Any]
"""A value for each setting that differs from the settings as they are."""

_FIRST_STEPS = {"content": "embed_content", "neighbors": "neighbors"}
_TRAINED = (
    "model",
    "neighborhood",
    "recommend",
    "hybrid",
    "session",
    "ranker",
    "diversity",
    "ease",
    "graph_filter",
    "vae",
)
TUNABLE = (*_TRAINED, "popularity", *_FIRST_STEPS)
"""Sections that do not change what is known or how it is measured."""

_IN_FORCE: dict[str, Callable[[Settings], Any]] = {
    "model.l2": lambda settings: settings.model.l2_penalty,
    "model.temperature": lambda settings: settings.model.softmax_temperature,
    "model.negatives": lambda settings: settings.model.sampled_negatives,
    "model.batch_size": lambda settings: settings.model.pairs_in_batch,
}


def search_space(settings: Settings) -> dict[str, SearchSpace]:
    """What is tried for the model that makes the lists: what the settings say, or else the model's own space.

    Raises:
        SettingsError: for a space of any model that names no setting, or values that the settings refuse.
    """
    for model, space in settings.tune.spaces.items():
        for name, values in space.items():
            _check(settings, f"tune.spaces.{model}.{name!r}", name, values)
    model = settings.recommend.model
    space = settings.tune.spaces.get(model) or default_space(settings)
    for name, values in space.items():
        _check(settings, f"the search space of {model}, {name!r}", name, values)
    return dict(space)


def sections_of(values: Values) -> Sections:
    """The values as keys of sections."""
    sections: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        section, _, key = name.partition(".")
        sections.setdefault(section, {})[key] = value
    return sections


def value_of(settings: Settings, name: str) -> Any:
    """The value of a setting, where none is given the one in force, as far as it does not depend on the input."""
    section, _, key = name.partition(".")
    value = getattr(getattr(settings, section), key)
    return _IN_FORCE[name](settings) if value is None and name in _IN_FORCE else value


def first_step(space: Space, steps: Sequence[str]) -> str:
    """The first of the steps that reads what is tuned."""
    readers = {_FIRST_STEPS.get(name.partition(".")[0], "train") for name in space}
    return min(readers, key=steps.index)


def default_space(settings: Settings) -> dict[str, SearchSpace]:
    """The space of the model that makes the lists; that of a blend is the union of its components'."""
    model = settings.recommend.model
    if model != "hybrid":
        return _spaces(settings)[model]
    parts = {name.removeprefix("session_") for name in settings.components}
    space: dict[str, SearchSpace] = {}
    for name, own in _spaces(settings).items():
        space |= own if name in parts else {}
    if any(name.startswith("session_") for name in settings.components):
        space["session.half_life_items"] = _range(2.0, 50.0)
    return space or {"hybrid.candidates": _range(50, 200)}


def _spaces(settings: Settings) -> dict[str, dict[str, SearchSpace]]:
    neighbors = {
        "neighbors.k": _range(10, 200),
        "neighbors.weighting": SearchSpace(choices=("none", "l2", "tfidf", "bm25")),
    }
    if settings.neighborhood.enabled and settings.uses_neighbors:
        neighbors["neighborhood.temperature"] = _range(0.05, 0.5)
    elif settings.feedback.kind == "explicit":
        neighbors["recommend.shrinkage"] = _range(0.1, 30.0)
    return {
        "embedding": _embedding_space(settings),
        "neighbors": neighbors,
        "content": {
            "content.embedding_dim": _range(32, 512),
            "content.temperature": _range(0.03, 0.5),
            "content.learning_rate": _range(0.002, 0.05),
        },
        "ease": {"ease.l2": _range(20.0, 5_000.0)},
        "graph_filter": {"graph_filter.dims": _range(16, 512), "graph_filter.low_pass": _range(0.03, 3.0)},
        "vae": {
            "vae.embedding_dim": _range(50, 400),
            "vae.hidden_units": _range(100, 800),
            "vae.kl_weight": _range(0.0005, 0.05),
        },
    }


def _embedding_space(settings: Settings) -> dict[str, SearchSpace]:
    """By the loss: what it reads."""
    temperature = _range(0.05, 0.3) if settings.model.similarity == "cosine" else _range(0.3, 3.0)
    l2, learning_rate = _range(1e-4, 0.1), _range(0.02, 0.5)
    softmax = {"model.temperature": temperature, "model.learning_rate": learning_rate}
    pairs = {"model.l2": l2, "model.learning_rate": learning_rate}
    by_loss = {
        "ials": {"model.l2": l2, "model.unobserved_weight": _range(1e-3, 2.0)},
        "spectral": {},
        "softmax": softmax,
        "sampled_softmax": softmax | {"model.popularity_exponent": SearchSpace(low=0.0, high=1.0)},
        "cosine_contrastive": {
            "model.margin": SearchSpace(low=0.0, high=0.9),
            "model.negative_weight": _range(1.0, 100.0),
            "model.learning_rate": learning_rate,
        },
        "bpr": pairs | {"model.negatives": _range(1, 16)},
        "bce": pairs | {"model.negatives": _range(1, 16)},
        "mse": pairs,
        "rating_bce": pairs,
    }
    return {"model.embedding_dim": _range(16, 256), **by_loss[settings.model.loss]}


def _range(low: float, high: float) -> SearchSpace:
    return SearchSpace(low=low, high=high, log=True)


def _check(settings: Settings, where: str, name: str, space: SearchSpace) -> None:
    section, _, key = name.partition(".")
    if section not in TUNABLE:
        raise SettingsError(f"{where}: only settings of the sections {', '.join(TUNABLE)} are tuned")
    known = type(getattr(settings, section)).model_fields
    if key not in known:
        raise SettingsError(f"{where}: unknown setting; [{section}] has {', '.join(known)}")
    if name == "recommend.model":
        raise SettingsError(f"{where}: the model that the settings name is tuned; recsys-spark compare compares models")
    for value in space.choices or (space.low, space.high):
        _check_value(settings, where, name, value)


def _check_value(settings: Settings, where: str, name: str, value: Any) -> None:
    section, _, key = name.partition(".")
    try:
        taken = getattr(getattr(with_changes(settings, sections_of({name: value})), section), key)
    except SettingsError as error:
        raise SettingsError(f"{where}: {error}") from error
    if isinstance(value, float) and isinstance(taken, int):
        raise SettingsError(f"{where}: takes whole numbers, got {value}: write {taken}")
