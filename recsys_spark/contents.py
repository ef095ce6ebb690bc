"""Between the tables and the content model: features of items on Spark, their embeddings on the driver."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from numpy.typing import NDArray

from recsys_spark.audit import Facts
from recsys_spark.content_sections import ContentSettings
from recsys_spark.errors import RecsysError
from recsys_spark.kernels.csr import CsrRows
from recsys_spark.kernels.layout import Floats
from recsys_spark.learning import epoch_reporter
from recsys_spark.models.cold_items import map_cold_items
from recsys_spark.models.content import ItemContent, fit_content
from recsys_spark.models.training import Fit
from recsys_spark.scoring import CONTENT_VECTORS
from recsys_spark.tables import CONTENT_TERMS, ITEM_CONTENT, ITEMS
from recsys_spark.transforms.content import choose_terms, count_terms, describe_items

if TYPE_CHECKING:
    from recsys_spark.config import Settings
    from recsys_spark.storage.run_storage import RunStorage


def write_features(storage: RunStorage, settings: ContentSettings) -> None:
    """Write `content_terms` and `item_content`."""
    items = storage.read(ITEMS)
    counts = count_terms(items, settings)
    storage.write(CONTENT_TERMS, choose_terms(counts, storage.count(ITEMS), settings))
    storage.write(ITEM_CONTENT, describe_items(items, counts, storage.read(CONTENT_TERMS), settings))


def embed_items(storage: RunStorage, settings: Settings) -> Facts:
    """Learn the items' vectors and store them as the folder `content`; what the run keeps of it."""
    content = _read_content(storage, settings.content)
    fit = fit_content(content, settings.content, settings.seed, epoch_reporter("content", settings.content.epochs))
    folder = storage.scratch / "content-export"
    folder.mkdir(exist_ok=True)
    np.save(folder / CONTENT_VECTORS, fit.vectors, allow_pickle=False)
    storage.upload(folder, "content")
    return {
        "terms": content.terms.n_columns,
        "numbers": content.numbers.shape[1],
        "described_items": int(content.is_described.sum()),
        "losses": [log.loss for log in fit.history],
        "best_epoch": fit.best_epoch,
    }


def with_cold_items(storage: RunStorage, settings: Settings, fit: Fit) -> Fit:
    """The fit with vectors of items that it was not trained on, by their content where there is some."""
    if not settings.content.attributes or not settings.content.cold_items:
        return fit
    content, most = _read_content(storage, settings.content), settings.content.max_trained_items
    return replace(fit, embeddings=map_cold_items(fit.embeddings, content, most, settings.seed))


def _read_content(storage: RunStorage, settings: ContentSettings) -> ItemContent:
    folder = storage.fetch(ITEM_CONTENT, storage.scratch)
    return content_of(ds.dataset(folder, format="parquet").to_table(), storage.count(CONTENT_TERMS), settings)


def content_of(table: pa.Table, n_terms: int, settings: ContentSettings) -> ItemContent:
    """The rows of `item_content` in any order, as arrays: 8 bytes a term of an item, 4 a number.

    Raises:
        RecsysError: a vector that is not of numbers, or of another length than those of other items.
    """
    table = table.sort_by("item_idx").combine_chunks()
    indptr = np.concatenate([[0], np.cumsum(pc.list_value_length(table.column("terms")).to_numpy())]).astype(np.int64)
    terms, weights, numbers = (_flat(table.column(name)) for name in ("terms", "weights", "numbers"))
    rows = CsrRows(indptr, terms.astype(np.int32), weights.astype(np.float32), n_terms)
    names = (*settings.vectors, *(("text",) if settings.text_encoder else ()))
    places = [_vectors(pc.list_element(table.column("vectors"), place), name) for place, name in enumerate(names)]
    return ItemContent(rows, np.hstack([numbers.astype(np.float32).reshape(len(table), -1), *places]))


def _flat(column: pa.ChunkedArray) -> NDArray[Any]:
    """The values of all rows."""
    return np.asarray(pc.list_flatten(column).to_numpy())


def _vectors(column: pa.ChunkedArray, name: str) -> Floats:
    """The vectors of one attribute, (n_items, dims); zeros where there is none.

    Raises:
        RecsysError: one is not of numbers, or they are of different lengths.
    """
    lengths, is_known = pc.list_value_length(column).to_numpy(zero_copy_only=False), pc.is_valid(column).to_numpy()
    if not is_known.any():
        return np.zeros((len(is_known), 0), np.float32)
    dims = int(lengths[is_known][0])
    vectors = np.zeros((len(is_known), dims), np.float32)
    if (lengths[is_known] != dims).any():
        item = int(np.flatnonzero(is_known & (lengths != dims))[0])
        raise RecsysError(
            f"content.vectors: {name} of item_idx {item} has {int(lengths[item])} numbers, that of others {dims}"
        )
    flat = pc.list_flatten(column)
    if flat.null_count:
        item = int(np.flatnonzero(is_known)[int(np.argmax(pc.is_null(flat).to_numpy())) // dims])
        raise RecsysError(f"content.vectors: {name} of item_idx {item} holds something that is not a number")
    vectors[is_known] = flat.to_numpy().reshape(-1, dims)
    return vectors
