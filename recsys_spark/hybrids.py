"""Between the tables and a blend of models: what its components are made of, and the weights they get."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.dataset as ds
from numpy.typing import NDArray

from recsys_spark.audit import Facts
from recsys_spark.blockwise.candidates import collect_candidates
from recsys_spark.blockwise.files import MappedArray, distribute_array, save_array
from recsys_spark.blockwise.hybrid import Component, HybridScorer, ScoreComponent, SegmentWeights, VectorComponent
from recsys_spark.blockwise.items import distribute_items
from recsys_spark.blockwise.plan import Blocks
from recsys_spark.blockwise.profiles import (
    EmbeddedProfile,
    EncodedProfile,
    ItemWeightProfile,
    NeighborProfile,
    PopularProfile,
    ScoreProfile,
    Session,
    SessionProfile,
    VectorProfile,
)
from recsys_spark.blockwise.ranking import MappedNetwork, RankedScorer
from recsys_spark.blockwise.scorers import ItemWeights, Scorer
from recsys_spark.blockwise.tastes import distribute_tastes
from recsys_spark.kernels.blending import center_vectors
from recsys_spark.kernels.encoder import Encoder
from recsys_spark.kernels.network import Network
from recsys_spark.kernels.pooling import unit_rows
from recsys_spark.kernels.stacking import CandidateLists, cross_fitted_ndcgs, list_ndcgs, weights_by_segment
from recsys_spark.rankers import item_facts, learn_ranker
from recsys_spark.scoring import (
    EMBEDDINGS,
    NEIGHBORS,
    Fit,
    distribute_folder,
    distribute_item_weights,
    item_factors,
    learned_similarity,
    load_content,
    load_model,
    popularity_scorer,
    row_ranges,
    scored_blocks,
    shard_bytes,
)
from recsys_spark.tables import BLEND_CANDIDATES, INTERACTIONS, USER_BLOCKS, Table

if TYPE_CHECKING:
    from recsys_spark.config import Settings
    from recsys_spark.models.embeddings import Embeddings
    from recsys_spark.storage.run_storage import RunStorage

Floats = NDArray[np.float32]
Flags = NDArray[np.bool_]


@dataclass
class _Parts:
    """The components as they are put together: vectors side by side, and which items any of them knows."""

    storage: RunStorage
    settings: Settings
    fit: Fit
    components: list[Component] = field(default_factory=list)
    columns: list[Floats] = field(default_factory=list)
    spaces: dict[str, tuple[int, MappedArray]] = field(default_factory=dict)
    item_weights: dict[str, ItemWeights] = field(default_factory=dict)
    is_known: Flags | None = None

    def add_vectors(self, name: str, space: str, profile: VectorProfile, vectors: Floats, is_known: Flags) -> None:
        """A component in the space of these item vectors, (items, d), which others may share."""
        if space not in self.spaces:
            first = sum(columns.shape[1] for columns in self.columns)
            centered = center_vectors(vectors, is_known)
            self.columns.append(centered.vectors)
            self.spaces[space] = first, self.share(f"{space}-covariance", centered.covariance)
            self._know(is_known)
        self.components.append(VectorComponent(name, profile, *self.spaces[space]))

    def add_scores(self, name: str, profile: ScoreProfile, is_known: Flags) -> None:
        """A component whose scores are added."""
        self.components.append(ScoreComponent(name, profile))
        self._know(is_known)

    def share(self, name: str, array: NDArray[Any]) -> MappedArray:
        """Hand an array to the executors."""
        scratch = self.storage.scratch / f"{self.fit}-hybrid"
        scratch.mkdir(exist_ok=True)
        return distribute_array(self.storage.spark, save_array(scratch / f"{name}.npy", array))

    def _know(self, is_known: Flags) -> None:
        self.is_known = is_known if self.is_known is None else self.is_known | is_known


def hybrid_scorer(
    storage: RunStorage, settings: Settings, fit: Fit, weights: SegmentWeights | None = None
) -> tuple[Blocks, HybridScorer]:
    """The blocks to score and the blend, by the weights that the step `blend` has learned, unless others are given."""
    parts = _gather(storage, settings, fit)
    assert parts.is_known is not None  # noqa: S101 - there is at least one component
    vectors = np.hstack(parts.columns or [np.zeros((len(parts.is_known), 1), np.float32)])
    scratch = storage.scratch / f"{fit}-hybrid-items"
    factors, most = item_factors(storage, settings, fit), shard_bytes(settings)
    items = distribute_items(storage.spark, vectors, parts.is_known, scratch, most, factors=factors)
    fallback = popularity_scorer(storage, settings, fit)
    chosen = learned_weights(storage) if weights is None else weights
    scorer = HybridScorer(items, tuple(parts.components), chosen, fit == "selection", fallback)
    return scored_blocks(storage, settings, fit, *_tables(settings, fit)), scorer


def ranked_scorer(storage: RunStorage, settings: Settings, fit: Fit) -> tuple[Blocks, Scorer]:
    """The blocks to score and what makes the lists: the blend, or the network over it where that ranks better."""
    blocks, blend = hybrid_scorer(storage, settings, fit)
    if not storage.step_details("blend").get("ranker", {"is_used": False})["is_used"]:
        return blocks, blend
    return blocks, with_network(storage, settings, fit, blend)


def with_network(storage: RunStorage, settings: Settings, fit: Fit, blend: HybridScorer) -> RankedScorer:
    """The network of the ranking stage over a blend."""
    scratch = storage.scratch / f"{fit}-ranker"
    arrays = distribute_folder(storage, storage.download("ranker", storage.scratch), scratch)
    network = MappedNetwork(tuple(arrays[name] for name in Network._fields))
    facts = distribute_array(storage.spark, save_array(scratch / "item-facts.npy", item_facts(storage, fit)))
    return RankedScorer(blend, network, facts, settings.hybrid.candidates)


def _tables(settings: Settings, fit: Fit) -> list[Table]:
    tables = [USER_BLOCKS]
    if "embedding" in settings.components:
        tables.append(EMBEDDINGS[fit])
    if "neighbors" in settings.components:
        tables.append(NEIGHBORS[fit])
    return tables


def _gather(storage: RunStorage, settings: Settings, fit: Fit) -> _Parts:
    parts, model = _Parts(storage, settings, fit), load_model(storage, fit)
    session = Session(settings.session.items, settings.session.half_life_items)
    for name in settings.components:
        own = session if name.startswith("session_") else None
        if name in ("embedding", "session_embedding"):
            _add_embedding(parts, name, model, own)
        elif name in ("content", "session_content"):
            _add_content(parts, name, own)
        elif name == "popularity":
            popularity = model.popularity[:, None]
            parts.add_vectors(name, name, PopularProfile(), popularity, model.popularity > 0)
        elif name == "neighbors":
            _add_neighbors(parts, model.popularity > 0)
        elif name == "vae":
            _add_vae(parts)
        else:
            _add_item_weights(parts, name, own)
    return parts


def _add_embedding(parts: _Parts, name: str, model: Embeddings, session: Session | None) -> None:
    profile: VectorProfile = EmbeddedProfile(model.embedding_dim + 1)
    if session is not None:
        # Without biases: a session is about what its items have in common.
        units = np.hstack([unit_rows(model.item_vectors), np.zeros((model.n_items, 1), np.float32)])
        profile = SessionProfile(parts.share("session-vectors", units), session, parts.fit == "selection")
    vectors = np.hstack([model.item_vectors, model.item_biases[:, None]])
    parts.add_vectors(name, "embedding", profile, vectors, model.is_scored_item)


def _add_content(parts: _Parts, name: str, session: Session | None) -> None:
    vectors, hold_out = load_content(parts.storage), parts.fit == "selection"
    if session is not None:
        profile: VectorProfile = SessionProfile(parts.share("session-content", vectors), session, hold_out)
    else:
        half_life = parts.settings.content.half_life_days
        scratch = parts.storage.scratch / f"{parts.fit}-hybrid-content"
        profile = distribute_tastes(parts.storage.spark, vectors, half_life, hold_out, scratch)
    parts.add_vectors(name, "content", profile, vectors, np.asarray(vectors.any(axis=1)))


def _add_neighbors(parts: _Parts, is_known: Flags) -> None:
    source, ranges = row_ranges(parts.storage, parts.settings, parts.fit)
    learned = learned_similarity(parts.storage, parts.settings, parts.fit, source)
    positions = parts.share("neighbor-positions", np.flatnonzero(is_known).astype(np.int32))
    parts.add_scores("neighbors", NeighborProfile(ranges, positions, learned), is_known)


def _add_vae(parts: _Parts) -> None:
    folder = parts.storage.download(f"{parts.fit}-vae", parts.storage.scratch)
    arrays = {path.stem: np.load(path, mmap_mode="r", allow_pickle=False) for path in folder.glob("*.npy")}
    encoder = tuple(parts.share(f"vae-{name}", arrays[name]) for name in Encoder._fields)
    profile = EncodedProfile(encoder, parts.fit == "selection")
    parts.add_vectors("vae", "vae", profile, arrays["item_vectors"], arrays["is_known"])


def _add_item_weights(parts: _Parts, name: str, session: Session | None) -> None:
    model = name.removeprefix("session_")
    if model not in parts.item_weights:
        parts.item_weights[model] = distribute_item_weights(parts.storage, parts.fit, model)
    profile = ItemWeightProfile(parts.item_weights[model], parts.fit == "selection", session)
    parts.add_scores(name, profile, profile.items.places.load() >= 0)


def learned_weights(storage: RunStorage) -> SegmentWeights:
    """What the step `blend` has learned."""
    return _weights_of(storage.step_details("blend"))


def _weights_of(facts: Facts) -> SegmentWeights:
    return SegmentWeights(tuple(facts["segments"]), tuple(tuple(row) for row in facts["weights"]))


def _weights_of_some(
    facts: Facts, lists: CandidateLists, history: NDArray[np.int64], k: int, chosen: NDArray[np.bool_]
) -> SegmentWeights:
    """Those of the blend, learned from some of the lists, (u,)."""
    learned = _weights_of(facts)
    if chosen.all() or not facts["is_blended"]:
        return learned
    numbers = np.searchsorted(np.array(learned.bounds), history[chosen], side="right")
    rows = weights_by_segment(lists.some(chosen), numbers, len(learned.weights), k)
    return SegmentWeights(learned.bounds, tuple(tuple(row) for row in rows.tolist()))


def learn_blend(storage: RunStorage, settings: Settings) -> Facts:
    """Write `blend_candidates` and learn the weights of the components from it; what the run keeps of them."""
    components, chosen, k = settings.components, settings.hybrid, settings.recommend.top_k
    equal = SegmentWeights((), ((1.0,) * len(components),))
    blocks, scorer = hybrid_scorer(storage, settings, "selection", equal)
    validated = storage.read(INTERACTIONS).where("split = 'validation'").select("user_idx").distinct().count()
    share = chosen.validation_users / max(validated, 1)
    table = collect_candidates(blocks, scorer, chosen.candidates, share, settings.seed)
    storage.write_mapped(BLEND_CANDIDATES, table)
    items, lists, history = _read_candidates(storage, len(components))
    facts = {"components": list(components), "users": lists.n_lists, **blend_facts(lists, history, chosen.segments, k)}
    if settings.ranker.enabled:
        weigh = partial(_weights_of_some, facts, lists, history, k)
        facts["ranker"] = learn_ranker(storage, settings, lists, items, history, weigh)
    return facts


def blend_facts(lists: CandidateLists, history: NDArray[np.int64], segments: tuple[int, ...], k: int) -> Facts:
    """The weights by segment, and NDCG@k of each component and of the blend among the candidates of the same users.

    That of the blend is cross-fitted: users are scored by weights learned from others. So it is told whether segments
    have weights of their own, and whether there is a blend at all, or the best component alone: where the blend is
    worse by a standard error, for it is learned from more than the weights that are judged, and the best component was
    chosen by the same users.
    """
    components, numbers = lists.scores.shape[1], np.searchsorted(np.array(segments), history, side="right")
    if lists.n_lists == 0:
        return {"segments": [], "weights": [[1.0] * components], "ndcg_at": k, "is_blended": True}
    alone = [list_ndcgs(lists, lists.scores[:, place], k) for place in range(components)]
    best = int(np.argmax([ndcgs.mean() for ndcgs in alone]))
    alike, by_segment = cross_fitted_ndcgs(lists, numbers, len(segments) + 1, k)
    is_segmented = bool(segments and by_segment.mean() > alike.mean())
    gains = (by_segment if is_segmented else alike) - alone[best]
    standard_error = gains.std() / np.sqrt(len(gains))
    is_blended = bool(gains.mean() > -standard_error)
    if not is_blended:
        weights, is_segmented = np.eye(components)[[best]], False
    elif is_segmented:
        weights = weights_by_segment(lists, numbers, len(segments) + 1, k)
    else:
        weights = weights_by_segment(lists, np.zeros_like(numbers), 1, k)
    return {
        "segments": list(segments) if is_segmented else [],
        "weights": [[round(float(weight), 6) for weight in row] for row in weights],
        "ndcg_at": k,
        "best_component": best,
        "ndcgs": [round(float(ndcgs.mean()), 6) for ndcgs in alone],
        "blend_ndcg": round(float((alone[best] + gains).mean()), 6),
        "gain": round(float(gains.mean()), 6),
        "gain_standard_error": round(float(standard_error), 6),
        "is_blended": is_blended,
    }


def _read_candidates(
    storage: RunStorage, n_components: int
) -> tuple[NDArray[np.int32], CandidateLists, NDArray[np.int64]]:
    """The items and the lists by user, whatever the order of the files, and how many items the users had."""
    folder = storage.fetch(BLEND_CANDIDATES, storage.scratch)
    table = ds.dataset(folder, format="parquet").to_table().sort_by("user_idx").combine_chunks()
    items, scores, relevant = (
        table.column(name).combine_chunks() for name in ("item_idxs", "scores", "validation_idxs")
    )
    lengths, n_relevant = (np.diff(lists.offsets.to_numpy()).astype(np.int64) for lists in (items, relevant))
    owners = [np.repeat(np.arange(len(table)), counts) for counts in (lengths, n_relevant)]
    keys, wanted = (
        owner << 32 | lists.flatten().to_numpy() for owner, lists in zip(owners, (items, relevant), strict=True)
    )
    lists = CandidateLists(
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        scores.flatten().to_numpy().reshape(-1, n_components),
        np.isin(keys, wanted),
        n_relevant,
    )
    return items.flatten().to_numpy(), lists, table.column("history").to_numpy().astype(np.int64)
