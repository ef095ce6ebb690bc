"""Which models suit what there is to learn from, and why. The numbers are those of docs/quality.md."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from recsys_spark.footprints import Workload, driver_bytes_of_training
from recsys_spark.survey import Attribute, Survey

if TYPE_CHECKING:
    from recsys_spark.config import Settings

Sections = Mapping[str, Mapping[str, Any]]

SQUARE_USERS = 100_000  # up to which work that grows with the square of the users is minutes
MOST_ITEMS = 20_000  # for weights of items by items
BLEND_USERS = 500  # with validation items: the fewest that a blend was measured with are 671
DIMS = ((30_000, 256), (10_000, 128), (0, 64))  # from so many items on
FEW_INTERACTIONS = 1_000
SLOW_INTERACTIONS = 2_000_000  # up to which the losses that take longest end in minutes
SPARSE = 0.002
DEEP = 20  # interactions of a user of which a tenth is more than one
LARGE_DIMS = 512


@dataclass(frozen=True)
class Advice:
    """What to do, why, and the settings that do it; `is_optional`: worth a try, not part of what is advised."""

    what: str
    why: str
    sections: Sections = field(default_factory=dict)
    is_optional: bool = False


def advise(survey: Survey, settings: Settings) -> list[Advice]:
    """What suits the data, the most important first."""
    rules: Sequence[Callable[[Survey, Settings], Iterator[Advice]]] = (
        _lists,
        _item_models,
        _sessions,
        _training,
        _size,
        _sample,
        _neighbors,
        _content,
        _split,
        _ratings,
        _worth_trying,
    )
    return [advice for rule in rules for advice in rule(survey, settings)]


def advised_sections(advices: Sequence[Advice]) -> dict[str, dict[str, Any]]:
    """The settings of all that is not optional."""
    merged: dict[str, dict[str, Any]] = {}
    for advice in advices:
        if not advice.is_optional:
            for section, values in advice.sections.items():
                merged.setdefault(section, {}).update(values)
    return merged


def content_of(survey: Survey, settings: Settings) -> dict[str, list[str]]:
    """The attributes of items to learn content from, by kind: those of the settings, or what the values look like."""
    chosen = settings.content
    kinds = {name: list(getattr(chosen, name)) for name in ("text", "categories", "numbers", "vectors")}
    if not chosen.attributes:
        for attribute in survey.attributes:
            kind = _kind(attribute)
            if kind is not None:
                kinds[kind].append(attribute.name)
    return {kind: names for kind, names in kinds.items() if names}


def _kind(attribute: Attribute) -> str | None:
    """What its values look like; None for what says nothing of an item: hardly filled, or a name of its own."""
    if attribute.filled_share < 0.3:
        return None
    if attribute.numeric_share > 0.95:
        return "numbers" if attribute.words < 2 else "vectors"
    if attribute.distinct_share > 0.5:
        return "text" if attribute.words >= 1.5 else None
    return "text" if attribute.words >= 8 else "categories"


def _lists(survey: Survey, settings: Settings) -> Iterator[Advice]:
    components = _components(survey, settings)
    validated = survey.users.validated
    if _can_blend(survey):
        chosen: Sections = {"recommend": {"model": "hybrid"}, "hybrid": {"components": components}}
        yield Advice(
            "lists by a blend of models",
            f"{validated:,} users can validate its weights; NDCG@10 .347 for .341 of the best single model on "
            "MovieLens-1M, five folds. Where it gains nothing the best of its components has all the weight",
            chosen,
        )
    else:
        best = "ease" if "ease" in components else "embedding"
        yield Advice(
            f"lists by one model, {best}",
            f"{validated:,} users have three interactions or more, too few to learn the weights of a blend from",
            {"recommend": {"model": best}},
        )


def _can_blend(survey: Survey) -> bool:
    return survey.users.validated >= BLEND_USERS


def _item_models(survey: Survey, settings: Settings) -> Iterator[Advice]:
    if _fits(survey, settings, 16):
        # 200 was best at 671 users, 240 to 1,300 at 6,000.
        l2 = 200.0 if survey.users.active < 2_000 else 500.0
        is_chosen = "l2" in settings.ease.model_fields_set
        yield Advice(
            "weights of items by items: ease, graph_filter",
            f"{survey.items.active:,} items; ease had NDCG@10 .139 for .132 of ials on MovieLens latest-small",
            {} if is_chosen else {"ease": {"l2": l2}},
        )
    else:
        yield Advice(
            "no weights of items by items",
            f"{survey.items.active:,} items: the driver would hold {_gigabytes(16 * survey.items.active**2)} for ease",
        )


def _sessions(survey: Survey, settings: Settings) -> Iterator[Advice]:
    if _can_blend(survey) and _has_sessions(survey):  # they are components of a blend
        yield Advice(
            "sessions: models of a user's newest items",
            f"{survey.ordered_share:.0%} of the users have interactions in an order; session_ease had NDCG@10 .150 for "
            ".139 of ease on MovieLens latest-small",
        )


def _components(survey: Survey, settings: Settings) -> list[str]:
    has_ease, has_filter = (_fits(survey, settings, bytes_each) for bytes_each in (16, 8))
    has_content, has_sessions = bool(content_of(survey, settings)), _has_sessions(survey)
    possible = {
        "embedding": True,
        "popularity": True,
        "neighbors": _has_neighbors(survey),
        "content": has_content,
        "ease": has_ease,
        "graph_filter": has_filter,
        "session_embedding": has_sessions,
        "session_content": has_sessions and has_content,
        "session_ease": has_sessions and has_ease,
    }
    return [name for name, is_possible in possible.items() if is_possible]


def _fits(survey: Survey, settings: Settings, bytes_each: int) -> bool:
    items = survey.items.active
    needed = bytes_each * items**2 + 8 * survey.interactions
    return items <= MOST_ITEMS and needed <= settings.plan.driver_memory_mb << 20


def _has_neighbors(survey: Survey) -> bool:
    return survey.users.known <= SQUARE_USERS


def _has_sessions(survey: Survey) -> bool:
    return survey.has_times and survey.ordered_share > 0.5


def _training(survey: Survey, settings: Settings) -> Iterator[Advice]:
    chosen: dict[str, Any] = {"loss": "ials", "architecture": "dot"}
    yield Advice(
        "embeddings by ials",
        "learns from every pair, seen or not, and ranks well in seconds: NDCG@10 .3206 on MovieLens-1M after 1.5 s",
        {"model": chosen},
    )
    if survey.interactions < FEW_INTERACTIONS:
        yield Advice(
            "a larger penalty",
            f"{survey.interactions:,} interactions: on so few .01 was too small",
            {"model": {"l2": 0.1}},
        )


def _size(survey: Survey, settings: Settings) -> Iterator[Advice]:
    items = survey.items.active
    dims = next(dims for least, dims in DIMS if items >= least)
    if dims == 64 and "embedding_dim" in settings.model.model_fields_set:
        return  # nothing measured speaks against another size for few items
    why = "the default; more dimensions gain more where there are more items"
    if dims > 64:
        why = "Recall@20 .1723 with 256 for .1542 with 64 on Gowalla's 40,981 items; scoring pays in proportion"
    yield Advice(f"{dims} dimensions for {items:,} items", why, {"model": {"embedding_dim": dims}})


def _sample(survey: Survey, settings: Settings) -> Iterator[Advice]:
    workload = Workload(survey.users.known, survey.items.known, survey.interactions)
    sized = advised_sections(list(_size(survey, settings)))
    dims = sized["model"]["embedding_dim"] if sized else settings.model.embedding_dim
    budget, most = settings.plan.driver_memory_mb << 20, workload.users
    model = settings.model.model_copy(update={"loss": "ials", "architecture": "dot", "embedding_dim": dims})
    needed = driver_bytes_of_training(model.model_copy(update={"max_trained_users": None}), workload)
    if needed <= budget:
        return
    while (
        most > 1 and driver_bytes_of_training(model.model_copy(update={"max_trained_users": most}), workload) > budget
    ):
        most //= 2
    yield Advice(
        f"train on {most:,} of {workload.users:,} users",
        f"all would take {_gigabytes(needed)} of the driver, over plan.driver_memory_mb = "
        f"{settings.plan.driver_memory_mb:,}; a half lost 2.4 % of NDCG@10 on MovieLens-1M and 6.2 % on Gowalla",
        {"model": {"max_trained_users": most}},
    )


def _neighbors(survey: Survey, settings: Settings) -> Iterator[Advice]:
    users = survey.users.known
    if _has_neighbors(survey):
        yield Advice(
            "neighbors by cosine",
            f"{users:,} users, and the work grows with their square; l2 had NDCG@10 .277 for .254 without a weighting "
            "on MovieLens-1M",
            {"neighbors": {"weighting": "l2", "k": 50} | ({"enabled": True} if _can_blend(survey) else {})},
        )
    else:
        yield Advice(
            "neither neighbors nor similar users",
            f"{users:,} users, and the work grows with their square",
            {"neighbors": {"enabled": False}, "neighborhood": {"enabled": False}, "similar": {"users": False}},
        )


def _content(survey: Survey, settings: Settings) -> Iterator[Advice]:
    found, items = content_of(survey, settings), survey.items
    cold = f"{items.cold_share:.0%} of the items have no interaction, {items.few_share:.0%} have few or none"
    if found:
        yield Advice(
            "content of the items: " + ", ".join(name for names in found.values() for name in names),
            f"{cold}: items nobody has had get their vectors from it, Recall@50 .436 for .120 by shares of genres "
            "among new movies of MovieLens-1M",
            {"content": found | {"cold_items": True}},
        )
    else:
        yield Advice(
            "no content",
            f"{cold}; with an [items] table of text, categories or numbers, named in items.attributes, those could be "
            "recommended too",
        )


def _split(survey: Survey, settings: Settings) -> Iterator[Advice]:
    if not _has_sessions(survey):
        why = "no times: a random share is what can be held out"
        if survey.has_times:
            why = f"only {survey.ordered_share:.0%} of the users have interactions of different times"
        yield Advice("a random hold-out", why, {"evaluate": {"split": "random"}})
    elif survey.users.median >= DEEP:
        why = (
            f"a user has {survey.users.median:,} interactions in the median: the newest tenth is several to measure by"
        )
        yield Advice("the newest interactions held out", why, {"evaluate": {"split": "newest"}})
    else:
        why = f"a user has {survey.users.median:,} interactions in the median: one each to test and to validate"
        yield Advice("each user's last interaction held out", why, {"evaluate": {"split": "last"}})


def _ratings(survey: Survey, settings: Settings) -> Iterator[Advice]:
    if settings.feedback.kind == "explicit" and not survey.ratings_vary:
        yield Advice(
            "implicit feedback",
            "all ratings are the same: that a pair is there is all they tell",
            {"feedback": {"kind": "implicit"}},
        )
    elif settings.feedback.kind == "explicit":
        yield Advice(
            "model.loss = 'mse' or 'rating_bce' only to predict ratings",
            "errors of .921 and .914 stars on MovieLens-100K, but they rank badly: they learn from rated pairs alone",
            {"model": {"loss": "rating_bce"}},
            is_optional=True,
        )


def _worth_trying(survey: Survey, settings: Settings) -> Iterator[Advice]:
    is_large = min(survey.items.active, survey.users.active) > 4 * LARGE_DIMS
    if survey.density < SPARSE and is_large:
        yield Advice(
            f"model.loss = 'spectral' with {LARGE_DIMS} dimensions",
            f"sparse ({survey.density:.3%} of the pairs): Recall@20 .1841 for .1723 of ials with 256 on Gowalla; "
            "scoring takes eight times what 64 dimensions do",
            {"model": {"loss": "spectral", "embedding_dim": LARGE_DIMS}},
            is_optional=True,
        )
    if FEW_INTERACTIONS <= survey.interactions <= SLOW_INTERACTIONS:
        yield Advice(
            "model.loss = 'softmax'",
            "ranked better at 64 dimensions, Recall@20 .1704 for .1542 of ials on Gowalla, in five to a hundred times "
            "the time",
            {"model": {"loss": "softmax"}},
            is_optional=True,
        )


def _gigabytes(count: int) -> str:
    return f"{count / 2**30:,.1f} GB"
