"""Trains the embedding model on the driver: once to measure and to find the epochs, once on everything."""

from __future__ import annotations

import sys

from recsys_spark.audit import Facts
from recsys_spark.config import Settings
from recsys_spark.storage.run_storage import RunStorage


def run(storage: RunStorage, settings: Settings) -> Facts:
    """Write `selection` (has not seen the hold-out), its learning curve, `model` (has seen all), and users' blocks."""
    # TensorFlow takes seconds to import; only this step and embed_content need it
    from recsys_spark import contents, item_models, learning, neighborhoods, popularity, vae

    sample = learning.draw_users(storage, settings)
    start = learning.earlier_fit(storage, settings, "selection", sample)
    selection = learning.fit_selection(storage, settings, start, sample)
    selection = contents.with_cold_items(storage, settings, selection)
    learning.keep_fit(storage, settings, "selection", selection, sample)
    learning.keep_learning_curve(storage, selection)
    earlier = learning.earlier_fit(storage, settings, "model", sample)
    model = learning.fit_everything(storage, settings, earlier, sample, selection.best_epoch)
    model = contents.with_cold_items(storage, settings, model)
    learning.keep_fit(storage, settings, "model", model, sample)
    facts = learning.training_facts(selection, model, settings, sample, is_warm=start is not None)
    del start, selection, earlier, model  # which the driver need not hold any longer
    if settings.neighborhood.enabled:
        facts["neighborhood"] = neighborhoods.learn_similarity(storage, settings)
    for name in settings.item_models:
        facts[name] = item_models.learn_item_weights(storage, settings, name)
    if "vae" in settings.components:
        facts["vae"] = vae.learn_vae(storage, settings)
    if settings.popularity.segment is not None:
        facts["popularity"] = popularity.learn_segments(storage, settings.popularity)
    # Last, because a step that is killed runs anew, and the fits then end at once.
    learning.discard_checkpoints(storage)
    return facts


if __name__ == "__main__":
    from recsys_spark.cli import main

    sys.exit(main(["train", *sys.argv[1:]]))
