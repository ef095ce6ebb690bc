"""Between the tables and the autoencoder of what users have: learns it on the driver, and keeps it with the run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recsys_spark.audit import Facts
from recsys_spark.blockwise.files import save_arrays
from recsys_spark.learning import SEEN, FitName, UserSample, epoch_reporter, facts_of_fits, read_pairs, sample_users
from recsys_spark.models.interactions import NothingToTrainError, TrainingPairs, select_trained
from recsys_spark.models.vae import VaeFit, fit_vae, untrained_vae
from recsys_spark.tables import USERS

if TYPE_CHECKING:
    from recsys_spark.config import Settings
    from recsys_spark.storage.run_storage import RunStorage


def learn_vae(storage: RunStorage, settings: Settings) -> Facts:
    """Fit twice, as the embeddings: without the hold-out, for the metrics and the epochs, then on everything."""
    sample = sample_users(storage.count(USERS), settings.vae.max_trained_users, settings.seed)
    validation = read_pairs(storage, ("validation",), sample)
    selection = _fit(storage, settings, "selection", sample, validation if len(validation) else None)
    _keep(storage, "selection", selection)
    del validation
    final = _fit(storage, settings, "model", sample, epochs=selection.best_epoch)
    _keep(storage, "model", final)
    return facts_of_fits(selection, final, sample)


def _fit(
    storage: RunStorage,
    settings: Settings,
    name: FitName,
    sample: UserSample | None,
    validation: TrainingPairs | None = None,
    epochs: int | None = None,
) -> VaeFit:
    pairs, model = read_pairs(storage, SEEN[name], sample), settings.model
    try:
        part = select_trained(pairs, model.min_user_interactions, model.min_item_interactions)
    except NothingToTrainError:
        return untrained_vae(pairs.n_items, settings.vae)
    title = "vae" if epochs is None else "vae refit"
    k = settings.recommend.top_k  # as of the weights of the blend
    report = epoch_reporter(title, epochs or settings.vae.epochs, k)
    return fit_vae(part, settings.vae, settings.seed, validation=validation, epochs=epochs, k=k, on_epoch=report)


def _keep(storage: RunStorage, name: FitName, fit: VaeFit) -> None:
    folder = storage.scratch / f"{name}-vae-export"
    save_arrays(folder, {**fit.encoder._asdict(), "item_vectors": fit.item_vectors})
    storage.upload(folder, f"{name}-vae")
