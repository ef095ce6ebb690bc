"""The whole night, step by step: read this first."""

from __future__ import annotations

import sys

from jobs import (
    audit,
    backtest,
    blend,
    embed_content,
    evaluate,
    index,
    ingest,
    interactions,
    matrix,
    neighbors,
    publish,
    recommend,
    rules,
    similar,
    train,
)
from recsys_spark.errors import RecsysError
from recsys_spark.night import Night, Step, perform

STEPS: tuple[Step, ...] = (
    Step("ingest", ingest.run, "input rows -> events, quarantine"),
    Step("index", index.run, "ids -> positions: users, items"),
    Step("interactions", interactions.run, "events -> one rating a pair, hold-out set aside"),
    Step("backtest", backtest.run, "lists of the run before x what is new -> how they did"),
    Step("matrix", matrix.run, "interactions -> sparse user-item matrix in blocks"),
    Step("rules", rules.run, "what may be listed, for whom, and how long the lists are"),
    Step("embed_content", embed_content.run, "attributes of items -> content embeddings, on the driver"),
    Step("neighbors", neighbors.run, "blocks -> nearest users by Euclidean distance"),
    Step("train", train.run, "interactions -> embeddings, on the driver"),
    Step("blend", blend.run, "validation split -> how much each model of a blend counts"),
    Step("evaluate", evaluate.run, "hold-out -> metrics, from a fit that has not seen it"),
    Step("recommend", recommend.run, "blocks x item embeddings -> every user's list"),
    Step("similar", similar.run, "embeddings -> similar users and items"),
    Step("audit", audit.run, "may the lists be shown?"),
)


def run(night: Night) -> None:
    """Run the steps that have not finished yet, in order, then publish."""
    for step in STEPS:
        if step.name not in night.storage.finished_steps():
            perform(step, night)
    publish.run(night)


def run_again(step: Step, night: Night) -> None:
    """Run one step, whether it has run before or not; those after it count as not run."""
    for later in reversed(STEPS[STEPS.index(step) :]):
        night.storage.reopen_step(later.name)
    perform(step, night)


def run_publish(night: Night) -> None:
    """Publish a run whose steps have all finished.

    Raises:
        RecsysError: naming the steps that have not.
    """
    missing = [step.name for step in STEPS if step.name not in night.storage.finished_steps()]
    if missing:
        raise RecsysError(f"run {night.storage.run.run_id} cannot be published before its steps {', '.join(missing)}")
    publish.run(night)


if __name__ == "__main__":
    from recsys_spark.cli import main

    sys.exit(main(["run", *sys.argv[1:]]))
