"""Between the tables and the model: reads pairs on the driver, keeps fits, hands users' embeddings to the blocks."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from numpy.typing import NDArray

from recsys_spark.audit import Facts
from recsys_spark.blockwise.blocks import SPLITS, array_of, binary_cell, read_blocks, rows_of, user_positions
from recsys_spark.blockwise.fold_in import FoldIn, distribute_least_squares, distribute_pooling, fold_in_users
from recsys_spark.blockwise.user_rows import ROW_COLUMNS
from recsys_spark.errors import RecsysError
from recsys_spark.kernels.least_squares import WholeDataLoss
from recsys_spark.model_sections import ModelSettings
from recsys_spark.models.alternating import sampled_l2
from recsys_spark.models.checkpoints import STATE, EpochLog
from recsys_spark.models.embeddings import Embeddings
from recsys_spark.models.export import load_warm_start, save_embeddings
from recsys_spark.models.features import ItemFeatures, find_features
from recsys_spark.models.interactions import NothingToTrainError, TrainingPairs, make_array
from recsys_spark.models.training import Fit, fit_embeddings, untrained_fit
from recsys_spark.models.validation import K
from recsys_spark.popularity import item_popularity
from recsys_spark.progress import report_progress
from recsys_spark.report.learning_curve import draw_learning_curve
from recsys_spark.scoring import blocks_of
from recsys_spark.storage.errors import StorageError
from recsys_spark.tables import (
    ITEMS,
    SELECTION_EMBEDDINGS,
    USER_BLOCKS,
    USER_EMBEDDINGS,
    USERS,
    Table,
)

if TYPE_CHECKING:
    from recsys_spark.config import Settings
    from recsys_spark.models.neighborhood import NeighborhoodFit
    from recsys_spark.models.vae import VaeFit
    from recsys_spark.storage.run_storage import RunStorage

FitName = Literal["model", "selection"]
"""`model`: learned from everything, for the lists; `selection`: has not seen the hold-out, for the metrics."""

_TABLES: dict[FitName, Table] = {"model": USER_EMBEDDINGS, "selection": SELECTION_EMBEDDINGS}
_FILE_BLOCKS = 256  # a reader of one block reads the footer of its file, which names each
_SPLITS = ("train", "validation", "test")
SEEN: dict[FitName, tuple[str, ...]] = {"model": _SPLITS, "selection": ("train",)}


@dataclass(frozen=True, eq=False)
class UserSample:
    """The users that are trained on when there are more than `model.max_trained_users`.

    `places` (users,) int32: the place of each user among the `size` sampled ones, -1 for the others.
    """

    places: NDArray[np.int32]
    size: int


def draw_users(storage: RunStorage, settings: Settings) -> UserSample | None:
    """The users to train on; None for all of them. 21 bytes a user while they are drawn."""
    return sample_users(storage.count(USERS), settings.model.max_trained_users, settings.seed)


def sample_users(n_users: int, size: int | None, seed: int) -> UserSample | None:
    """`size` of the users; None for all of them."""
    if size is None or size >= n_users:
        return None
    # A user keeps his number when others are appended, so the sample of the next night is nearly the same.
    numbers = np.random.default_rng([seed, 2]).random(n_users)
    places = np.full(n_users, -1, np.int32)
    places[np.sort(np.argpartition(numbers, size)[:size])] = np.arange(size, dtype=np.int32)
    return UserSample(places, size)


def read_pairs(
    storage: RunStorage, splits: tuple[str, ...] = _SPLITS, sample: UserSample | None = None
) -> TrainingPairs:
    """The interactions of the given splits, on the driver: 12 bytes a pair, in mapped files of its scratch folder.

    Memory: a block of users. Of a sample, the pairs of its users alone, who have their places in it for positions.
    """
    folder = storage.fetch(USER_BLOCKS, storage.scratch)
    ends: dict[int, int] = {}
    for first, users, _, _ in _block_pairs(folder, splits, sample):
        ends[first] = len(users)
    total = 0
    for first in sorted(ends):  # files hold their blocks in any order
        ends[first] = total = total + ends[first]
    user_idx, item_idx, rating = (
        make_array(storage.scratch, dtype, total) for dtype in (np.int32, np.int32, np.float32)
    )
    for first, users, items, ratings in _block_pairs(folder, splits, sample):
        place = slice(ends[first] - len(users), ends[first])
        user_idx[place], item_idx[place], rating[place] = users, items, ratings
    n_users = sample.size if sample else storage.count(USERS)
    return TrainingPairs(user_idx, item_idx, rating, n_users, storage.count(ITEMS), storage.scratch)


def _block_pairs(
    folder: Path, splits: tuple[str, ...], sample: UserSample | None = None
) -> Iterator[tuple[int, NDArray[Any], NDArray[Any], NDArray[Any]]]:
    """The first user of each block of users, and the pairs of its users that are wanted, in their order."""
    wanted = [SPLITS[split] for split in splits]
    for block in read_blocks(folder, ROW_COLUMNS):
        rows = rows_of(block, 0)
        users = np.repeat(user_positions(block), np.diff(rows.indptr))
        users = users if sample is None else sample.places[users]
        is_wanted = np.isin(array_of(block, "splits", np.uint8), wanted) & (users >= 0)
        yield int(user_positions(block)[0]), users[is_wanted], rows.indices[is_wanted], rows.values[is_wanted]


def read_features(storage: RunStorage, settings: ModelSettings) -> ItemFeatures | None:
    """What the model is to know of items beside who took them; None for nothing."""
    if not settings.item_features:
        return None
    table = ds.dataset(storage.fetch(ITEMS, storage.scratch), format="parquet").to_table(["item_idx", "attributes"])
    of_items = table.sort_by("item_idx").column("attributes")
    return find_features((dict(item.as_py() or ()) for item in of_items), settings.item_features)


class RunCheckpoints:
    """Checkpoints of a fit in the run, in two folders by turns: the newest complete one is never the one written."""

    def __init__(self, storage: RunStorage, fit: FitName) -> None:
        self._storage = storage
        self._names = [f"{fit}-checkpoint-0", f"{fit}-checkpoint-1"]  # the one to write next is the first

    def newest(self) -> Path | None:
        """The one of more epochs, if there is one that is complete and as it was uploaded."""
        found = {name: folder for name in self._names if (folder := self._folder(name)) is not None}
        if not found:
            return None
        newest = max(found, key=lambda name: _epochs_behind(found[name]))
        self._names.sort(key=lambda name: name == newest)
        return found[newest]

    def keep(self, folder: Path) -> None:
        """Upload a folder in the place of the older one."""
        self._storage.upload(folder, self._names[0])
        self._names.reverse()

    def discard(self) -> None:
        """Remove what there is."""
        for name in self._names:
            self._storage.discard(name)

    def _folder(self, name: str) -> Path | None:
        if not self._storage.exists(name):
            return None
        try:
            return self._storage.download(name, self._storage.scratch)
        except StorageError:  # a machine that crashed may have kept the receipt and not the files
            return None


def discard_checkpoints(storage: RunStorage) -> None:
    """Remove what would have let both fits go on."""
    for fit in _TABLES:
        RunCheckpoints(storage, fit).discard()


def _epochs_behind(checkpoint: Path) -> int:
    try:
        return len(json.loads((checkpoint / STATE).read_text(encoding="utf-8"))["history"])
    except ValueError:
        return 0


def fit_selection(storage: RunStorage, settings: Settings, start: Embeddings | None, sample: UserSample | None) -> Fit:
    """Fit the train split; early stopping watches the NDCG of the validation split.

    Where the hold-out leaves no user or item enough to be trained on, the fit knows popularity alone.
    """
    train, validation = read_pairs(storage, SEEN["selection"], sample), read_pairs(storage, ("validation",), sample)
    try:
        return fit_embeddings(
            train,
            _of_sample(settings.model, sample),
            settings.seed,
            validation=validation if len(validation) else None,
            warm_start=start,
            on_epoch=epoch_reporter("selection", settings.model.epochs),
            checkpoints=RunCheckpoints(storage, "selection"),
            log_folder=_log_folder(storage, settings.model, "selection"),
            item_features=read_features(storage, settings.model),
        )
    except NothingToTrainError:
        return untrained_fit(train, settings.model)


def fit_everything(
    storage: RunStorage, settings: Settings, start: Embeddings | None, sample: UserSample | None, epochs: int
) -> Fit:
    """Fit all splits, for as many epochs as the selection fit found best."""
    return fit_embeddings(
        read_pairs(storage, SEEN["model"], sample),
        _of_sample(settings.model, sample),
        settings.seed,
        epochs=epochs,
        warm_start=start,
        on_epoch=epoch_reporter("refit", epochs),
        checkpoints=RunCheckpoints(storage, "model"),
        log_folder=_log_folder(storage, settings.model, "model"),
        item_features=read_features(storage, settings.model),
    )


def _log_folder(storage: RunStorage, settings: ModelSettings, fit: FitName) -> Path | None:
    """Where TensorBoard's logs of a fit go; None without them.

    Raises:
        RecsysError: they are wanted, and TensorBoard is not installed.
    """
    if settings.tensorboard is None:
        return None
    if find_spec("tensorboard") is None:
        raise RecsysError("model.tensorboard needs the package tensorboard: pip install 'recsys-spark[tensorboard]'")
    return Path(settings.tensorboard) / f"{storage.run.run_date}-{storage.run.run_id}" / fit


def keep_fit(storage: RunStorage, settings: Settings, name: FitName, fit: Fit, sample: UserSample | None) -> None:
    """Store a fit with the run: its arrays as a folder, its users' side as blocks that match `user_blocks`.

    The fit of a sample is stored without users; the executors fold all of them in.
    """
    embeddings, half_life = fit.embeddings, settings.popularity.half_life_days
    if sample is not None:
        embeddings = embeddings.without_users()
    if sample is not None or half_life is not None:  # of which the fit knows nothing
        embeddings = replace(embeddings, popularity=item_popularity(storage, half_life, name == "selection"))
    folder = storage.scratch / f"{name}-export"
    save_embeddings(folder, embeddings, settings.model, settings.seed, fit.best_epoch)
    storage.upload(folder, name)
    if sample is not None:
        _fold_in(storage, settings, name, embeddings, fit.whole_data_loss)
        return
    blocks = storage.scratch / f"{name}-blocks"
    write_user_blocks(embeddings, settings.matrix.block_users, blocks)
    storage.write_files(_TABLES[name], blocks)


def keep_learning_curve(storage: RunStorage, fit: Fit) -> None:
    """Store a picture of the fit's epochs with the run, in the folder `learning_curve`; none without an epoch."""
    if not fit.history:
        return
    folder = storage.scratch / "learning-curve"
    folder.mkdir(exist_ok=True)
    draw_learning_curve(fit, folder / "learning_curve.png")
    storage.upload(folder, "learning_curve")


def _of_sample(settings: ModelSettings, sample: UserSample | None) -> ModelSettings:
    """With more of a penalty, because fewer users than are known tell about an item."""
    if sample is None or settings.loss != "ials":
        return settings
    return settings.model_copy(update={"l2": sampled_l2(settings.l2_penalty, sample.size / len(sample.places))})


def _fold_in(
    storage: RunStorage, settings: Settings, name: FitName, embeddings: Embeddings, loss: WholeDataLoss | None
) -> None:
    items = storage.spark, embeddings.item_vectors, embeddings.is_trained_item
    scratch, least = storage.scratch / f"{name}-fold-in", settings.model.min_user_interactions
    if loss is None:
        fold_in: FoldIn = distribute_pooling(*items, settings.model.is_cosine, least, scratch)
    else:
        fold_in = distribute_least_squares(*items, replace(loss, l2=settings.model.l2_penalty), least, scratch)
    blocks, table = blocks_of(storage, USER_BLOCKS), _TABLES[name]
    storage.write_mapped(table, fold_in_users(blocks, fold_in, embeddings.n_items, name == "selection", table))


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


def training_facts(selection: Fit, final: Fit, settings: Settings, sample: UserSample | None, is_warm: bool) -> Facts:
    """What the run keeps of the training: losses, validation, epochs, and of a sample its size."""
    best = selection.history[selection.best_epoch - 1] if selection.history else None
    return {
        "loss": settings.model.loss,
        "warm_start": is_warm,
        "losses": [log.loss for log in selection.history],
        "validation_ndcgs": [log.validation_ndcg for log in selection.history],
        "validation_rmses": [log.validation_rmse for log in selection.history],
        "best_epoch": selection.best_epoch,
        "validation_ndcg": best.validation_ndcg if best else None,
        "popularity_ndcg": selection.popularity_ndcg,
        "refit_epochs": len(final.history),
        "sampled_users": sample.size if sample else None,
        "unobserved_weight": final.whole_data_loss.unobserved_weight if final.whole_data_loss else None,
        "trained_users": int(final.embeddings.is_trained_user.sum()),
        "trained_items": int(final.embeddings.is_trained_item.sum()),
        "mapped_items": int(final.embeddings.is_mapped_item.sum()),
    }


def facts_of_fits(
    selection: VaeFit | NeighborhoodFit, final: VaeFit | NeighborhoodFit, sample: UserSample | None
) -> Facts:
    """What the run keeps of a model that is learned beside the embeddings: losses, validation, epochs, the sample."""
    return {
        "losses": [log.loss for log in selection.history],
        "validation_ndcgs": [log.validation_ndcg for log in selection.history],
        "best_epoch": selection.best_epoch,
        "refit_epochs": len(final.history),
        "sampled_users": sample.size if sample else None,
    }


def earlier_fit(storage: RunStorage, settings: Settings, name: FitName, sample: UserSample | None) -> Embeddings | None:
    """The same fit of the run before, to start from; None without one, or when it is of another kind.

    A selection fit continues only a selection fit: what it is measured on was never trained. A sample continues with
    the items: its users' vectors come near what follows from them in the first step.
    """
    if not settings.model.warm_start or storage.parent is None or not storage.exists(name, storage.parent):
        return None
    start = load_warm_start(storage.download(name, storage.scratch, storage.parent), settings.model)
    return start if start is None or sample is None else start.without_users()


def epoch_reporter(title: str, epochs: int, k: int = K) -> Callable[[EpochLog], None]:
    """Says after each epoch how the fit called `title` goes, with NDCG at `k` where it is validated."""

    def report(log: EpochLog) -> None:
        ndcg = "" if log.validation_ndcg is None else f", validation NDCG@{k} {log.validation_ndcg:.4f}"
        ndcg += "" if log.validation_rmse is None else f", RMSE of 0-1 {log.validation_rmse:.4f}"
        report_progress(log.epoch, epochs, f"{title}: epoch {log.epoch}, loss {log.loss:.4f}{ndcg}")

    return report
