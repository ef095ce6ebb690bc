"""The project's own single models, tuned as the others are: `ials`, `ease`, `graph_filter` and `vae`."""

from __future__ import annotations

import time

import numpy as np
from optuna.distributions import FloatDistribution, IntDistribution

from benchmarks.item_model_quality import by_items
from benchmarks.peers.contender import Contender, Fitted, Settings
from benchmarks.peers.plain import by_vectors
from benchmarks.peers.whole_data import DEFAULTS, space_up_to, weight_of
from benchmarks.quality import SEED
from recsys_spark.blend_sections import EaseSettings, GraphFilterSettings
from recsys_spark.kernels.csr import CsrRows, IndexLists, rows_of_ones
from recsys_spark.kernels.encoder import encode_rows
from recsys_spark.kernels.item_models import ease_weights, graph_filter_weights
from recsys_spark.model_sections import ModelSettings, VaeSettings
from recsys_spark.models.interactions import TrainingPairs, select_trained
from recsys_spark.models.training import fit_embeddings
from recsys_spark.models.vae import fit_vae


def ials(pairs: TrainingPairs, settings: Settings, held_out: TrainingPairs | None) -> Fitted:
    weight = weight_of(pairs, settings)
    model = ModelSettings(embedding_dim=settings["embedding_dim"], l2=settings["l2"], unobserved_weight=weight)
    started = time.perf_counter()
    fit = fit_embeddings(pairs, model, SEED, validation=held_out, epochs=settings.get("epochs"))
    seconds = time.perf_counter() - started
    return Fitted(by_vectors(*fit.embeddings.scoring_vectors()), seconds, {"epochs": fit.best_epoch})


def ease(pairs: TrainingPairs, settings: Settings, held_out: TrainingPairs | None) -> Fitted:
    rows, started = ones_of(pairs), time.perf_counter()
    weights = ease_weights(rows, settings["l2"])
    seconds = time.perf_counter() - started
    return Fitted(by_items(rows, weights), seconds)


def graph_filter(pairs: TrainingPairs, settings: Settings, held_out: TrainingPairs | None) -> Fitted:
    rows, started = ones_of(pairs), time.perf_counter()
    weights = graph_filter_weights(rows, settings["dims"], settings["low_pass"], SEED)
    seconds = time.perf_counter() - started
    return Fitted(by_items(rows, weights), seconds)


def vae(pairs: TrainingPairs, settings: Settings, held_out: TrainingPairs | None) -> Fitted:
    chosen = VaeSettings.model_validate({name: settings[name] for name in VAE_SPACE})
    started = time.perf_counter()
    fit = fit_vae(select_trained(pairs, 1, 1), chosen, SEED, validation=held_out, epochs=settings.get("epochs"))
    seconds, rows = time.perf_counter() - started, ones_of(pairs)
    users, known = encode_rows(rows, fit.encoder), np.where(fit.encoder.is_known, np.float32(0), np.float32(-np.inf))
    scores = by_vectors(users, fit.item_vectors)
    return Fitted(lambda some: scores(some) + known, seconds, {"epochs": fit.best_epoch})


def ones_of(pairs: TrainingPairs) -> CsrRows:
    """What each user has."""
    return rows_of_ones(IndexLists(pairs.indptr(), pairs.item_idx), pairs.n_items)


FILTER = GraphFilterSettings()
VAE_SPACE = {
    "embedding_dim": IntDistribution(50, 400, log=True),
    "hidden_units": IntDistribution(100, 800, log=True),
    "kl_weight": FloatDistribution(0.0005, 0.05, log=True),
}
CONTENDERS = [
    Contender("ials", ials, DEFAULTS, space_up_to(512)),
    Contender("ease", ease, {"l2": EaseSettings().l2}, {"l2": FloatDistribution(10.0, 5000.0, log=True)}),
    Contender(
        "graph_filter",
        graph_filter,
        {"dims": FILTER.dims, "low_pass": FILTER.low_pass},
        {"dims": IntDistribution(16, 512, log=True), "low_pass": FloatDistribution(0.02, 2.0, log=True)},
    ),
    Contender("vae", vae, {name: getattr(VaeSettings(), name) for name in VAE_SPACE}, VAE_SPACE),
]
