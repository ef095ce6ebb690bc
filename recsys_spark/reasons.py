"""Puts together from what a run has stored how its lists are explained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys_spark.blockwise.explanations import BlendedModels, Explainer, ListReasons, OneModel, named_models
from recsys_spark.blockwise.files import (
    MappedArray,
    MappedStrings,
    distribute_array,
    distribute_strings,
    save_arrays,
    write_strings,
)
from recsys_spark.blockwise.hybrid import Component, HybridScorer
from recsys_spark.blockwise.items import distribute_ids
from recsys_spark.blockwise.profiles import (
    EmbeddedProfile,
    EncodedProfile,
    ItemWeightProfile,
    NeighborProfile,
    PopularProfile,
    SessionProfile,
    VectorProfile,
)
from recsys_spark.blockwise.ranking import RankedScorer
from recsys_spark.blockwise.reasons import (
    KINDS,
    EmbeddedItems,
    LikedContent,
    PooledItems,
    PopularItems,
    SessionItems,
    Source,
    VotingUsers,
    WeighingItems,
)
from recsys_spark.blockwise.scorers import ContentScorer, EmbeddingScorer, ItemWeightScorer, NeighborScorer, Scorer
from recsys_spark.blockwise.segments import SegmentScorer
from recsys_spark.blockwise.tastes import Tastes
from recsys_spark.kernels.least_squares import WholeDataLoss, fixed_side
from recsys_spark.scoring import load_model, shared_factors
from recsys_spark.tables import USERS

if TYPE_CHECKING:
    from recsys_spark.config import Settings
    from recsys_spark.models.embeddings import Embeddings
    from recsys_spark.storage.run_storage import RunStorage


def load_reasons(storage: RunStorage, settings: Settings, scorer: Scorer) -> ListReasons | None:
    """How the lists of a scorer are explained; None where they are not.

    Disk of the driver and of each host, where embeddings are explained: 4 bytes x (d + 1) an item; for shown users
    their ids.
    """
    if not settings.reasons.enabled:
        return None
    (storage.scratch / "reasons").mkdir(exist_ok=True)
    explainer = _explainer(storage, settings, scorer)
    users = None
    if settings.reasons.show_users:
        folder = storage.fetch(USERS, storage.scratch)
        users = distribute_ids(storage.spark, folder, "user", storage.scratch / "reasons")
    kinds, models = (_share_strings(storage, *each) for each in (("kinds", KINDS), ("models", named_models(explainer))))
    factors = shared_factors(storage, settings, "model")
    return ListReasons(explainer, kinds, models, settings.uses_neighbors, users, factors)


def _explainer(storage: RunStorage, settings: Settings, scorer: Scorer) -> Explainer:
    """What explains a scorer, whatever stands around it."""
    if isinstance(scorer, SegmentScorer):
        return _explainer(storage, settings, scorer.scorer)
    if isinstance(scorer, RankedScorer):
        return _explainer(storage, settings, scorer.hybrid)
    most = settings.reasons.items
    if isinstance(scorer, HybridScorer):
        sources = tuple(_source_of_component(storage, settings, component) for component in scorer.components)
        return BlendedModels(scorer, sources, most)
    return OneModel(settings.recommend.model, _source_of_scorer(storage, settings, scorer), most)


def _source_of_scorer(storage: RunStorage, settings: Settings, scorer: Scorer) -> Source:
    if isinstance(scorer, EmbeddingScorer):
        return _embedded(storage, settings)
    if isinstance(scorer, ContentScorer):
        return _content(storage, scorer.tastes)
    if isinstance(scorer, ItemWeightScorer):
        return WeighingItems(scorer.items)
    if isinstance(scorer, NeighborScorer):
        shrinkage = scorer.shrinkage if scorer.mode == "mean" else None
        return VotingUsers(scorer.ranges, shrinkage, scorer.learned)
    return PopularItems()


def _source_of_component(storage: RunStorage, settings: Settings, component: Component) -> Source:
    profile = component.profile
    if isinstance(profile, SessionProfile):
        return _session(storage, component.name, profile)
    if isinstance(profile, Tastes):
        return _content(storage, profile)
    if isinstance(profile, ItemWeightProfile):
        return WeighingItems(profile.items, profile.session)
    if isinstance(profile, NeighborProfile):
        return VotingUsers(profile.ranges, None, profile.learned)
    if isinstance(profile, EncodedProfile):
        return _encoded(storage, profile)
    return PopularItems() if isinstance(profile, PopularProfile) else _embedded(storage, settings)


def _content(storage: RunStorage, tastes: Tastes) -> LikedContent:
    popularity = load_model(storage, "model").popularity
    return LikedContent(tastes, **_share(storage, "content", is_new=popularity == 0))


def _session(storage: RunStorage, name: str, profile: SessionProfile) -> SessionItems:
    model = load_model(storage, "model")
    if name != "session_embedding":
        flags = _share(storage, name, is_new=model.popularity == 0)
        return SessionItems(profile.vectors, profile.vectors, profile.session, **flags)
    rights = np.hstack([model.item_vectors, np.zeros((model.n_items, 1), np.float32)])
    shared = _share(storage, name, rights=rights, is_new=model.is_mapped_item)
    return SessionItems(profile.vectors, session=profile.session, **shared)


def _embedded(storage: RunStorage, settings: Settings) -> EmbeddedItems | PooledItems:
    model = load_model(storage, "model")
    flags = {"is_trained": np.asarray(model.is_trained_item), "is_new": np.asarray(model.is_mapped_item)}
    if settings.model.can_fold_in and settings.model.loss != "ials":  # users are pooled
        shared = _share(storage, "embedding", vectors=model.item_vectors, **flags)
        return PooledItems(is_unit=settings.model.is_cosine, **shared)
    users, loss = EmbeddedProfile(model.embedding_dim), _loss(storage, settings, model)
    return _by_vectors(storage, "embedding", model.item_vectors, flags, users, loss)


def _encoded(storage: RunStorage, profile: EncodedProfile) -> EmbeddedItems:
    """The encoder is no sum over items: theirs count evenly, as those of users with vectors of their own."""
    folder = storage.download("model-vae", storage.scratch)
    vectors, is_known = (np.load(folder / f"{name}.npy", allow_pickle=False) for name in ("item_vectors", "is_known"))
    flags = {"is_trained": is_known, "is_new": np.zeros_like(is_known)}
    return _by_vectors(storage, "vae", vectors[:, :-1], flags, profile, None)


def _by_vectors(
    storage: RunStorage,
    name: str,
    vectors: NDArray[np.float32],
    flags: dict[str, NDArray[np.bool_]],
    users: VectorProfile,
    loss: WholeDataLoss | None,
) -> EmbeddedItems:
    fixed = fixed_side(vectors[flags["is_trained"]])
    turned = {"vectors": vectors @ fixed.axes, "diagonal": fixed.diagonal, "axes": fixed.axes}
    return EmbeddedItems(loss=loss, users=users, **_share(storage, name, **turned, **flags))


def _loss(storage: RunStorage, settings: Settings, model: Embeddings) -> WholeDataLoss | None:
    weight = storage.step_details("train").get("unobserved_weight")
    return (
        None if weight is None or not model.is_trained_item.any() else WholeDataLoss(weight, settings.model.l2_penalty)
    )


def _share(storage: RunStorage, name: str, **arrays: NDArray[Any]) -> dict[str, MappedArray]:
    paths = save_arrays(storage.scratch / f"reasons-{name}", arrays)
    return {each: distribute_array(storage.spark, path) for each, path in paths.items()}


def _share_strings(storage: RunStorage, name: str, strings: tuple[str, ...]) -> MappedStrings:
    path = storage.scratch / "reasons" / f"reason-{name}.arrow"
    return distribute_strings(storage.spark, write_strings(path, iter([pa.array(strings)])))
