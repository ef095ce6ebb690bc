"""What the driver holds beside the embedding model, beside the formulas of `docs/scaling.md`.

`ease` and `graph_filter`: weights of items by items. `content`: the autoencoder, two epochs, over items of 200 terms.
`cold_items`: the mapping of their features to vectors of the embedding model. `vae`: the autoencoder of what users
have, two epochs. `blend`: the weights of five components, by segments, over candidates of some users (5,000 by
default). Each in a process of its own: its peak beyond what it held after the same with little. Mapped pages are not
counted.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.harness import peak_beyond, save
from benchmarks.synthetic import Case
from recsys_spark.blend_sections import ItemModelName
from recsys_spark.config import Settings
from recsys_spark.content_sections import ContentSettings
from recsys_spark.footprints import (
    TERMS_OF_AN_ITEM,
    Workload,
    driver_bytes_of_blend,
    driver_bytes_of_cold_items,
    driver_bytes_of_content,
    driver_bytes_of_item_models,
    driver_bytes_of_vae,
)
from recsys_spark.hybrids import blend_facts
from recsys_spark.item_models import fit_item_weights
from recsys_spark.kernels.csr import CsrRows
from recsys_spark.kernels.stacking import CandidateLists
from recsys_spark.models.cold_items import map_cold_items
from recsys_spark.models.content import ItemContent, fit_content
from recsys_spark.models.embeddings import untrained_embeddings
from recsys_spark.models.interactions import select_trained
from recsys_spark.models.vae import fit_vae

ITEMS = {"path": "b.csv", "id": "item", "attributes": {"text": "text"}}
COMPONENTS = ("embedding", "popularity", "neighbors", "content", "ease")
TERMS, LITTLE, CHILD_TIMEOUT_S = 20_000, 300, 3600.0


@dataclass(frozen=True)
class Work:
    """Something of a size: items, or users of a blend; `run` has that much to do, `stated` is by the formula."""

    run: Callable[[int], object]
    stated: Callable[[int], int]


def settings_of(**sections: dict[str, object]) -> Settings:
    """Valid ones, with these sections."""
    inputs = {"storage": {"root": "runs"}, "events": {"path": "a.csv"}, "items": ITEMS}
    kinds = {"feedback": {"kind": "implicit"}, "evaluate": {"split": "random"}}
    return Settings(**inputs, **kinds, **sections)  # type: ignore[arg-type]


def item_models(model: ItemModelName) -> Work:
    settings = settings_of(recommend={"model": model})

    def case(items: int) -> Case:
        return Case(2 * items, items, 60 * items)

    def run(items: int) -> None:
        fit_item_weights(case(items).pairs(), settings, model)

    def stated(items: int) -> int:
        of_case = case(items)
        return driver_bytes_of_item_models(settings, Workload(of_case.users, items, of_case.interactions))

    return Work(run, stated)


def described(items: int) -> ItemContent:
    """Items of as many terms as the formulas take them to have."""
    random = np.random.default_rng(0)
    columns = np.sort(random.integers(0, TERMS // TERMS_OF_AN_ITEM, (items, TERMS_OF_AN_ITEM), np.int32), axis=1)
    columns += np.arange(TERMS_OF_AN_ITEM, dtype=np.int32) * (TERMS // TERMS_OF_AN_ITEM)
    indptr = np.arange(0, items * TERMS_OF_AN_ITEM + 1, TERMS_OF_AN_ITEM, dtype=np.int64)
    values = np.full(columns.size, TERMS_OF_AN_ITEM**-0.5, np.float32)
    return ItemContent(CsrRows(indptr, columns.ravel(), values, TERMS), np.zeros((items, 0), np.float32))


def content() -> Work:
    settings = ContentSettings(text=("text",), epochs=2)
    return Work(
        lambda items: fit_content(described(items), settings, 0),
        lambda items: driver_bytes_of_content(settings, items),
    )


def cold_items() -> Work:
    settings = settings_of(content={"text": ["text"], "max_terms": TERMS})
    users, dims = 1_000, settings.model.embedding_dim

    def run(items: int) -> None:
        random, empty = np.random.default_rng(1), untrained_embeddings(users, dims, np.ones(items, np.int64))
        embeddings = replace(
            empty,
            user_vectors=random.standard_normal((users, dims), np.float32),
            is_trained_user=np.ones(users, bool),
            item_vectors=random.standard_normal((items, dims), np.float32),
            is_trained_item=np.arange(items) % 10 > 0,
        )
        map_cold_items(embeddings, described(items), settings.content.max_trained_items, 0)

    return Work(run, lambda items: driver_bytes_of_cold_items(settings, items) + 4 * items * dims)


def vae() -> Work:
    settings = settings_of(recommend={"model": "hybrid"}, hybrid={"components": ["vae"]})

    def case(items: int) -> Case:
        return Case(2_000, items, 120_000)

    def run(items: int) -> None:
        fit_vae(select_trained(case(items).pairs(), 1, 1), settings.vae, 0, epochs=2)

    def stated(items: int) -> int:
        of_case = case(items)
        return driver_bytes_of_vae(settings, Workload(of_case.users, items, of_case.interactions))

    return Work(run, stated)


def blend() -> Work:
    settings = settings_of(recommend={"model": "hybrid"}, hybrid={"components": COMPONENTS}, content={"text": ["text"]})

    def run(users: int) -> None:
        random = np.random.default_rng(0)
        each = settings.hybrid.candidates * len(COMPONENTS)
        indptr = np.arange(0, users * each + 1, each, dtype=np.int64)
        scores = random.standard_normal((users * each, len(COMPONENTS)), np.float32)
        is_relevant = random.random(users * each) < 3 / each
        counts = np.add.reduceat(is_relevant, indptr[:-1], dtype=np.int64)
        lists = CandidateLists(indptr, scores, is_relevant, np.maximum(counts, 1))
        blend_facts(lists, random.integers(1, 100, users), settings.hybrid.segments, settings.recommend.top_k)

    def stated(users: int) -> int:
        sections = {"hybrid": settings.hybrid.model_copy(update={"validation_users": users})}
        return driver_bytes_of_blend(settings.model_copy(update=sections))

    return Work(run, stated)


WORKS = {
    "ease": item_models("ease"),
    "graph_filter": item_models("graph_filter"),
    "content": content(),
    "cold_items": cold_items(),
    "vae": vae(),
    "blend": blend(),
}
SMALL = [("ease", 5_000), ("blend", 2_000)]
FULL = [
    *(("ease", items) for items in (5_000, 10_000)),
    *(("graph_filter", items) for items in (5_000, 10_000)),
    *(("content", items) for items in (10_000, 40_000)),
    *(("cold_items", items) for items in (10_000, 40_000)),
    *(("vae", items) for items in (10_000, 40_000)),
    *(("blend", users) for users in (2_000, 5_000)),
]


def measure(name: str, size: int) -> None:
    command = [sys.executable, "-m", "benchmarks.driver_memory", "--work", name, "--of", str(size)]
    found = subprocess.run(command, check=True, capture_output=True, text=True, timeout=CHILD_TIMEOUT_S)
    measured, stated = int(found.stdout.splitlines()[-1]), WORKS[name].stated(size)
    line = {"benchmark": "driver_memory", "case": name, "of": size}
    megabytes = {"measured_mb": round(measured / 2**20), "stated_mb": round(stated / 2**20)}
    print(json.dumps(save("driver_memory", line | megabytes)), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=["small", "full"], default="small")
    parser.add_argument("--work", choices=WORKS, help="what the process of its own does")
    parser.add_argument("--of", type=int, help="items, or users of a blend")
    options = parser.parse_args()
    if options.work:
        work = WORKS[options.work]
        print(peak_beyond(lambda: work.run(LITTLE), lambda: work.run(options.of)))
    else:
        for each in SMALL if options.size == "small" else FULL:
            measure(*each)
