"""Between the tables and the model: reads pairs on the driver, keeps fits, hands users' embeddings to the blocks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from numpy.typing import NDArray

from recsys_spark.audit import Facts
from recsys_spark.blockwise.blocks import binary_cell
from recsys_spark.models.embeddings import Embeddings
from recsys_spark.models.export import load_warm_start, save_embeddings
from recsys_spark.models.interactions import NothingToTrainError, TrainingPairs
from recsys_spark.models.training import EpochLog, Fit, fit_embeddings, untrained_fit
from recsys_spark.progress import report_progress
from recsys_spark.tables import INTERACTIONS, ITEMS, SELECTION_EMBEDDINGS, USER_EMBEDDINGS, USERS, Table

if TYPE_CHECKING:
    from recsys_spark.config import Settings
    from recsys_spark.storage.run_storage import RunStorage

FitName = Literal["model", "selection"]
"""`model`: learned from everything, for the lists; `selection`: has not seen the hold-out, for the metrics."""

_TABLES: dict[FitName, Table] = {"model": USER_EMBEDDINGS, "selection": SELECTION_EMBEDDINGS}
_FILE_BLOCKS = 256  # a reader of one block reads the footer of its file, which names each
_SPLITS = ("train", "validation", "test")


def read_pairs(storage: RunStorage, splits: tuple[str, ...] = _SPLITS) -> TrainingPairs:
    """The interactions of the given splits, on the driver: 12 bytes a pair, twice that while they are sorted."""
    users, items, ratings = _pair_columns(storage.fetch(INTERACTIONS, storage.scratch), splits)
    return TrainingPairs(users, items, ratings, storage.count(USERS), storage.count(ITEMS))


def _pair_columns(folder: Path, splits: tuple[str, ...]) -> tuple[NDArray[Any], ...]:
    """The arrays of the pairs; Arrow's own copy ends with the call."""
    in_splits = ds.field("split").isin(splits)
    names = ["user_idx", "item_idx", "rating"]
    pairs = ds.dataset(folder, format="parquet").to_table(columns=names, filter=in_splits)
    return tuple(pairs.column(name).to_numpy() for name in names)


def fit_selection(storage: RunStorage, settings: Settings, start: Embeddings | None) -> Fit:
    """Fit the train split; early stopping watches the NDCG of the validation split.

    Where the hold-out leaves no user or item enough to be trained on, the fit knows popularity alone.
    """
    train, validation = read_pairs(storage, ("train",)), read_pairs(storage, ("validation",))
    try:
        return fit_embeddings(
            train,
            settings.model,
            settings.seed,
            validation=validation if len(validation) else None,
            warm_start=start,
            on_epoch=_reporter("selection", settings.model.epochs),
        )
    except NothingToTrainError:
        return untrained_fit(train, settings.model)


def fit_everything(storage: RunStorage, settings: Settings, start: Embeddings | None, epochs: int) -> Fit:
    """Fit all splits, for as many epochs as the selection fit found best."""
    return fit_embeddings(
        read_pairs(storage),
        settings.model,
        settings.seed,
        epochs=epochs,
        warm_start=start,
        on_epoch=_reporter("refit", epochs),
    )


def keep_fit(storage: RunStorage, settings: Settings, name: FitName, fit: Fit) -> None:
    """Store a fit with the run: its arrays as a folder, its users' side as blocks that match `user_blocks`."""
    folder = storage.scratch / f"{name}-export"
    save_embeddings(folder, fit.embeddings, settings.model, settings.seed, fit.best_epoch)
    storage.upload(folder, name)
    blocks = storage.scratch / f"{name}-blocks"
    write_user_blocks(fit.embeddings, settings.matrix.block_users, blocks)
    storage.write_files(_TABLES[name], blocks)


def write_user_blocks(embeddings: Embeddings, block_users: int, folder: Path) -> None:
    """Write the users' scoring vectors as Parquet files, a block a row and row group."""
    folder.mkdir(parents=True)
    schema = pa.schema([("block_id", pa.int32()), ("vectors", pa.binary()), ("is_trained", pa.binary())])
    vectors = embeddings.user_matrix()
    n_blocks = -(-embeddings.n_users // block_users)
    for number, first in enumerate(range(0, n_blocks, _FILE_BLOCKS)):
        with pq.ParquetWriter(folder / f"part-{number:05d}.parquet", schema) as writer:
            for block_id in range(first, min(first + _FILE_BLOCKS, n_blocks)):
                rows = slice(block_id * block_users, (block_id + 1) * block_users)
                is_trained = embeddings.is_trained_user[rows].astype(np.uint8)
                cells = [pa.array([block_id], pa.int32()), binary_cell(vectors[rows]), binary_cell(is_trained)]
                writer.write_batch(pa.record_batch(cells, schema=schema))


def training_facts(selection: Fit, final: Fit, settings: Settings, is_warm: bool) -> Facts:
    """What the run keeps of the training: losses, validation, epochs."""
    best = selection.history[selection.best_epoch - 1] if selection.history else None
    return {
        "loss": settings.model.loss,
        "warm_start": is_warm,
        "losses": [log.loss for log in selection.history],
        "validation_ndcgs": [log.validation_ndcg for log in selection.history],
        "best_epoch": selection.best_epoch,
        "validation_ndcg": best.validation_ndcg if best else None,
        "popularity_ndcg": selection.popularity_ndcg,
        "refit_epochs": len(final.history),
        "trained_users": int(final.embeddings.is_trained_user.sum()),
        "trained_items": int(final.embeddings.is_trained_item.sum()),
    }


def earlier_fit(storage: RunStorage, settings: Settings, name: FitName) -> Embeddings | None:
    """The same fit of the run before, to start from; None without one, or when it is of another kind.

    A selection fit continues only a selection fit: what it is measured on was never trained.
    """
    if not settings.model.warm_start or storage.parent is None or not storage.exists(name, storage.parent):
        return None
    return load_warm_start(storage.download(name, storage.scratch, storage.parent), settings.model)


def _reporter(title: str, epochs: int) -> Callable[[EpochLog], None]:
    def report(log: EpochLog) -> None:
        ndcg = "" if log.validation_ndcg is None else f", validation NDCG@10 {log.validation_ndcg:.4f}"
        report_progress(log.epoch, epochs, f"{title}: epoch {log.epoch}, loss {log.loss:.4f}{ndcg}")

    return report
