"""Puts together from what a run has stored how its lists are re-ranked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from numpy.typing import NDArray

from recsys_spark.blockwise.diversity import Diversity, ItemCategories
from recsys_spark.blockwise.files import distribute_array, save_arrays
from recsys_spark.kernels.csr import IndexLists
from recsys_spark.kernels.pooling import unit_rows
from recsys_spark.models.export import load_embeddings
from recsys_spark.models.features import list_values
from recsys_spark.scoring import Fit, load_content
from recsys_spark.tables import ITEMS

if TYPE_CHECKING:
    from recsys_spark.config import Settings
    from recsys_spark.storage.run_storage import RunStorage


def load_diversity(storage: RunStorage, settings: Settings, fit: Fit) -> Diversity | None:
    """What lists are re-ranked with; None where they are by score alone.

    Disk of the driver and of each host: 4 bytes x d and 8 an item, and 4 a category of an item.
    """
    chosen = settings.diversity
    if not chosen.is_on:
        return None
    arrays: dict[str, NDArray[Any]] = {"directions": _directions(storage, settings, fit)}
    if chosen.category is not None:
        lists = _categories(storage, chosen.category)
        arrays |= {"category-indptr": lists.indptr, "category-indices": lists.indices}
    paths = save_arrays(storage.scratch / f"{fit}-diversity", arrays)
    directions, *of_categories = [distribute_array(storage.spark, path) for path in paths.values()]
    categories = ItemCategories(*of_categories) if of_categories else None
    pool = chosen.pool(settings.recommend.top_k)
    return Diversity(pool, chosen.weight, directions, categories, chosen.max_per_category)


def _directions(storage: RunStorage, settings: Settings, fit: Fit) -> NDArray[np.float32]:
    """What items are compared by, (items, d), of length 1, or 0 where nothing is known: content before embeddings."""
    if settings.content.attributes:
        return load_content(storage)
    model = load_embeddings(storage.download(fit, storage.scratch))
    return unit_rows(model.item_vectors * model.is_scored_item[:, None])


def _categories(storage: RunStorage, name: str) -> IndexLists:
    """The numbers of each item's values of an attribute."""
    table = ds.dataset(storage.fetch(ITEMS, storage.scratch), format="parquet").to_table(["item_idx", "attributes"])
    attributes = table.sort_by("item_idx").column("attributes")
    values = pc.map_lookup(attributes, query_key=pa.scalar(name), occurrence="first")
    return list_values(value.as_py() for value in values)
