"""Settings of a night: typed, strict, frozen, loaded once at the edge.

Sources, later wins: defaults here, the TOML file, environment variables
(`RECSYS_SPARK__MODEL__EPOCHS=5`), `--set model.epochs=5` on the command line.
`docs/settings.md` is generated from the descriptions below.
"""

from __future__ import annotations

import hashlib
import json
import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict
from pydantic_settings.exceptions import SettingsError as EnvironmentValueError

from recsys_spark.blend_sections import (
    ComponentName,
    EaseSettings,
    GraphFilterSettings,
    HybridSettings,
    ItemModelName,
    RankerSettings,
    SessionSettings,
)
from recsys_spark.content_sections import ContentSettings
from recsys_spark.diversity_sections import DiversitySettings
from recsys_spark.errors import SettingsError
from recsys_spark.export_sections import ExportName, StoreExport
from recsys_spark.model_sections import ModelSettings, NeighborhoodSettings, VaeSettings
from recsys_spark.reason_sections import ReasonSettings
from recsys_spark.rule_sections import RuleSettings
from recsys_spark.sections import (
    AuditSettings,
    EntitySettings,
    EvaluateSettings,
    EventSettings,
    FeedbackSettings,
    MatrixSettings,
    NeighborSettings,
    PlanSettings,
    PopularitySettings,
    RecommendSettings,
    SimilarSettings,
    SparkSettings,
    StorageSettings,
)
from recsys_spark.tune_sections import TuneSettings

_PREFIX = "RECSYS_SPARK__"


class Settings(BaseSettings):
    """Everything a night needs to know."""

    # An input may hold a secret that was put where none belongs.
    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix=_PREFIX, env_nested_delimiter="__", hide_input_in_errors=True
    )

    storage: StorageSettings
    events: EventSettings
    spark: SparkSettings = SparkSettings()
    items: EntitySettings | None = None
    users: EntitySettings | None = None
    feedback: FeedbackSettings = FeedbackSettings()
    matrix: MatrixSettings = MatrixSettings()
    neighbors: NeighborSettings = NeighborSettings()
    neighborhood: NeighborhoodSettings = NeighborhoodSettings()
    model: ModelSettings = ModelSettings()
    content: ContentSettings = ContentSettings()
    recommend: RecommendSettings = RecommendSettings()
    rules: RuleSettings = RuleSettings()
    hybrid: HybridSettings = HybridSettings()
    session: SessionSettings = SessionSettings()
    ranker: RankerSettings = RankerSettings()
    diversity: DiversitySettings = DiversitySettings()
    reasons: ReasonSettings = ReasonSettings()
    ease: EaseSettings = EaseSettings()
    graph_filter: GraphFilterSettings = GraphFilterSettings()
    vae: VaeSettings = VaeSettings()
    popularity: PopularitySettings = PopularitySettings()
    similar: SimilarSettings = SimilarSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    audit: AuditSettings = AuditSettings()
    plan: PlanSettings = PlanSettings()
    tune: TuneSettings = TuneSettings()
    exports: dict[ExportName, StoreExport] = Field({}, description="Stores that lists are exported to, by name.")
    seed: int = Field(0, ge=0, lt=2**31, description="Seed of everything random.")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what is passed: `load_settings` puts file, environment and `--set` on top of each other."""
        return (init_settings,)

    @model_validator(mode="after")
    def _check(self) -> Self:
        columns, feedback = self.events.columns, self.feedback
        if feedback.kind == "explicit" and columns.rating is None:
            raise ValueError(
                "events.columns.rating must name a column for explicit feedback, or set feedback.kind = 'implicit'"
            )
        if feedback.event_weights and columns.event_type is None:
            raise ValueError("feedback.event_weights needs events.columns.event_type")
        if columns.timestamp is None:
            self._check_without_time()
        if self.rules.seen_days:
            self._check_seen_days()
        if self.recommend.model == "neighbors" and not self.neighbors.enabled:
            raise ValueError("recommend.model = 'neighbors' needs neighbors.enabled = true")
        if self.model.architecture == "neumf" and (
            self.recommend.model == "embedding" or {"embedding", "session_embedding"} & set(self.components)
        ):
            raise ValueError(
                "model.architecture = 'neumf' predicts pairs and gives no lists: set recommend.model = 'neighbors'"
            )
        if self.recommend.model == "content" and not self.content.attributes:
            raise ValueError("recommend.model = 'content' needs attributes in content, such as content.text")
        self._check_attributes()
        self._check_components()
        self._check_candidates()
        self._check_reasons()
        if self.neighborhood.enabled:
            self._check_neighborhood()
        return self

    def _check_attributes(self) -> None:
        known = set(self.items.attributes) if self.items is not None else set()
        for name, wanted in (
            ("model.item_features", self.model.item_features),
            ("diversity.category", () if self.diversity.category is None else (self.diversity.category,)),
            *(
                (f"content.{part}", getattr(self.content, part))
                for part in ("text", "categories", "numbers", "vectors")
            ),
        ):
            if unknown := sorted(set(wanted) - known):
                raise ValueError(f"{name} {unknown} are not among items.attributes, {sorted(known)}")
        for setting, attribute in self.rules.item_attributes.items():
            if attribute not in known:
                raise ValueError(f"rules.{setting} {attribute!r} is not among items.attributes, {sorted(known)}")
        known = set(self.users.attributes) if self.users is not None else set()
        for setting, wanted in (
            ("popularity.segment", self.popularity.segment),
            ("rules.list_length", self.rules.list_length),
        ):
            if wanted is not None and wanted not in known:
                raise ValueError(f"{setting} {wanted!r} is not among users.attributes, {sorted(known)}")

    def _check_candidates(self) -> None:
        most, top_k = self.diversity.candidates, self.recommend.top_k
        if most is not None and most < top_k:
            raise ValueError(f"diversity.candidates must be at least recommend.top_k = {top_k}, got {most}")

    def _check_reasons(self) -> None:
        if self.reasons.show_users and not self.reasons.enabled:
            raise ValueError("reasons.show_users = true needs reasons.enabled = true")
        if self.reasons.show_users and not self.uses_neighbors:
            raise ValueError(
                "reasons.show_users = true needs recommend.model = 'neighbors', or 'hybrid' with neighbors among "
                f"hybrid.components, got {self.recommend.model!r}"
            )

    def _check_neighborhood(self) -> None:
        if not self.uses_neighbors:
            raise ValueError(
                "neighborhood.enabled = true needs recommend.model = 'neighbors', or 'hybrid' with neighbors among "
                f"hybrid.components, got {self.recommend.model!r}"
            )
        if self.neighbors.k == "all":
            raise ValueError("neighborhood.enabled = true needs a number for neighbors.k, got 'all'")

    def _check_components(self) -> None:
        needs = {
            "neighbors": (self.neighbors.enabled, "neighbors.enabled = true"),
            "content": (bool(self.content.attributes), "attributes in content, such as content.text"),
            "session": (self.events.columns.timestamp is not None, "events.columns.timestamp"),
        }
        for component in self.components:
            for part, (is_there, need) in needs.items():
                if part in component and not is_there:
                    raise ValueError(f"hybrid.components: {component} needs {need}")

    @property
    def components(self) -> tuple[ComponentName, ...]:
        """What is blended, the default filled in; nothing without a blend."""
        if self.recommend.model != "hybrid":
            return ()
        if self.hybrid.components is not None:
            return self.hybrid.components
        has_time, has_content = self.events.columns.timestamp is not None, bool(self.content.attributes)
        possible: dict[ComponentName, bool] = {
            "embedding": True,
            "popularity": True,
            "neighbors": self.neighbors.enabled,
            "content": has_content,
            "session_embedding": has_time,
            "session_content": has_time and has_content,
        }
        return tuple(name for name, is_possible in possible.items() if is_possible)

    @property
    def uses_neighbors(self) -> bool:
        """Whether lists are made of what neighbors have."""
        return self.recommend.model == "neighbors" or "neighbors" in self.components

    @property
    def item_models(self) -> tuple[ItemModelName, ...]:
        """The linear models of items by items that lists are made with."""
        wanted = {self.recommend.model, *(name.removeprefix("session_") for name in self.components)}
        names: tuple[ItemModelName, ...] = ("ease", "graph_filter")
        return tuple(name for name in names if name in wanted)

    def _check_without_time(self) -> None:
        if self.evaluate.needs_times:
            raise ValueError(
                f"evaluate.split = {self.evaluate.split!r} needs events.columns.timestamp; name it or set "
                "evaluate.split = 'random'"
            )
        for name in ("feedback", "content", "popularity"):
            if getattr(self, name).half_life_days is not None:
                raise ValueError(f"{name}.half_life_days needs events.columns.timestamp")
        if self.rules.active_days is not None:
            raise ValueError("rules.active_days needs events.columns.timestamp")
        if self.feedback.duplicate_policy == "last":
            raise ValueError(
                "feedback.duplicates = 'last' needs events.columns.timestamp; name it or set 'max', 'sum' or 'mean'"
            )

    def _check_seen_days(self) -> None:
        if self.events.columns.event_type is None or self.events.columns.timestamp is None:
            raise ValueError("rules.seen_days needs events.columns.event_type and events.columns.timestamp")
        if not self.recommend.exclude_seen:
            raise ValueError("rules.seen_days needs recommend.exclude_seen = true")
        weights = self.feedback.event_weights
        if weights and (unknown := sorted(set(self.rules.seen_days) - set(weights))):
            raise ValueError(f"rules.seen_days {unknown} are not among feedback.event_weights, {sorted(weights)}")

    def digest(self) -> str:
        """SHA-256 of what the results depend on: all but where they and logs go, Spark, tuning, the audit, stores."""
        whole = ("storage", "spark", "tune", "audit", "exports")
        excluded: Any = {**dict.fromkeys(whole, True), "model": {"tensorboard"}}
        content = self.model_dump(mode="json", exclude=excluded)
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def load_settings(path: str | Path, overrides: Sequence[str] = ()) -> Settings:
    """Settings from a TOML file, the environment and `section.key=value` overrides.

    Raises:
        SettingsError: naming the file, the key, the value and what would be right.
    """
    content, environment = _read(path), _environment()
    try:
        return Settings(**_override(_merged(content, environment), overrides))
    except ValidationError as error:
        above = (f", {_PREFIX}* variables" if environment else "") + (", --set" if overrides else "")
        raise SettingsError(f"{path}{above}: {_first_line(error)}") from error


def file_content(path: str | Path, overrides: Sequence[str], sections: Mapping[str, Any]) -> dict[str, Any]:
    """What the TOML file says, with `section.key=value` overrides and then the keys of some sections put on top.

    Raises:
        SettingsError: as `load_settings`.
    """
    return _merged(_override(_read(path), overrides), sections)


def with_changes(settings: Settings, sections: Mapping[str, Mapping[str, Any]]) -> Settings:
    """The settings with some keys of some sections changed.

    Raises:
        SettingsError: when they do not go together.
    """
    try:
        return Settings(**_merged(settings.model_dump(), sections))
    except ValidationError as error:
        raise SettingsError(_first_line(error)) from error


def _read(path: str | Path) -> dict[str, Any]:
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"settings file {str(path)!r} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"settings file {str(path)!r} is not valid TOML: {error}") from error


def _environment() -> dict[str, Any]:
    names = [name for name in os.environ if name.upper().startswith(_PREFIX)]
    for name in names:
        section = name[len(_PREFIX) :].split("__")[0].lower()
        if section not in Settings.model_fields:
            known = ", ".join(sorted(Settings.model_fields))
            raise SettingsError(f"environment variable {name}: there is no section {section!r}, only {known}")
    try:
        return EnvSettingsSource(Settings)()
    except EnvironmentValueError as error:
        raise SettingsError(
            f"environment variables {', '.join(sorted(names))}: {error}; lists and tables are JSON, such as [5, 10]"
        ) from error


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """What `above` gives, key by key, and the rest of `below`."""
    merged = {**below, **above}
    for key in below.keys() & above.keys():
        if isinstance(below[key], dict) and isinstance(above[key], dict):
            merged[key] = _merged(below[key], above[key])
    return merged


def _override(content: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            raise SettingsError(f"--set {override!r} is not of the form section.key=value")
        *sections, name = key.strip().split(".")
        target = content
        for section in sections:
            target = target.setdefault(section, {})
            if not isinstance(target, dict):
                raise SettingsError(f"--set {override!r}: {section!r} is not a section")
        target[name] = _parse(text.strip())
    return content


def _parse(text: str) -> Any:
    """A TOML value, or the text itself when it is not one."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _first_line(error: ValidationError) -> str:
    """All problems on one line: key, what is wrong, the value given."""
    problems = []
    for problem in error.errors(include_url=False):
        key = ".".join(str(part) for part in problem["loc"])
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            message = "unknown setting"
        given = "" if isinstance(problem["input"], dict | BaseModel) else f", got {problem['input']!r}"
        if problem["type"] == "value_error" or problem["loc"][:1] == ("exports",):  # there it may be a secret
            given = ""
        problems.append(f"{key}: {message}{given}" if key else f"{message}{given}")
    return "; ".join(problems)
