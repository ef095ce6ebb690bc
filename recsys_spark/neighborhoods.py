"""Between the tables and the neighborhood model: learns the similarity of neighbors on the driver, and keeps it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from recsys_spark.audit import Facts
from recsys_spark.learning import FitName, epoch_reporter, facts_of_fits, read_pairs, sample_users
from recsys_spark.models.interactions import TrainingPairs
from recsys_spark.models.neighborhood import NeighborhoodFit, fit_neighborhood
from recsys_spark.scoring import ITEM_VECTORS, neighbor_mode
from recsys_spark.tables import USERS

if TYPE_CHECKING:
    from recsys_spark.config import Settings
    from recsys_spark.storage.run_storage import RunStorage


def learn_similarity(storage: RunStorage, settings: Settings) -> Facts:
    """Fit twice, as the embeddings: without the hold-out, for the metrics and the epochs, then on everything."""
    sample = sample_users(storage.count(USERS), settings.neighborhood.max_trained_users, settings.seed)
    train, validation = (read_pairs(storage, (split,), sample) for split in ("train", "validation"))
    selection = _fit(settings, train, validation if len(validation) else None)
    _keep(storage, "selection", selection)
    del train, validation
    final = _fit(
        settings, read_pairs(storage, sample=sample), None, selection.best_epoch or settings.neighborhood.epochs
    )
    _keep(storage, "model", final)
    return facts_of_fits(selection, final, sample)


def _fit(
    settings: Settings, pairs: TrainingPairs, validation: TrainingPairs | None, epochs: int | None = None
) -> NeighborhoodFit:
    title = "neighborhood" if epochs is None else "neighborhood refit"
    return fit_neighborhood(
        pairs,
        settings.neighborhood,
        settings.neighbors,
        settings.seed,
        validation=validation,
        epochs=epochs,
        mode=neighbor_mode(settings),
        shrinkage=settings.recommend.shrinkage,
        on_epoch=epoch_reporter(title, epochs or settings.neighborhood.epochs),
    )


def _keep(storage: RunStorage, name: FitName, fit: NeighborhoodFit) -> None:
    folder = storage.scratch / f"{name}-neighborhood-export"
    folder.mkdir(exist_ok=True)
    np.save(folder / ITEM_VECTORS, fit.item_vectors, allow_pickle=False)
    storage.upload(folder, f"{name}-neighborhood")
