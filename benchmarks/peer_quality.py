"""How well models of other libraries and the project's own rank: one run, one split, one budget of tuning.

The data sets and their protocols are those of `benchmarks.splits`. Every contender has as many trials, thirty, or
twenty in `ml-1m/ncf` and twelve on Gowalla, from its defaults on, in a space of its own (`CONTENDERS` of each module of
`benchmarks.peers`; ALS of all libraries in one, from the defaults of `ials` on), judged by the data set's first metric
on one slice of the training pairs: a tenth, of splits by time each user's newest, or in `ml-1m/ncf` a pair of each
user; epochs are stopped early on it, are in the space, or are as many as ALS needs. Then it is fitted to all training
pairs with the best settings and measured once on the test pairs. Folds 1 to 4 of `quest_movielens_1m` have the settings
of fold 0, of whose training pairs four fifths of their test pairs are: of all contenders alike. Lists of all contenders
are made and measured by `benchmarks.ranking`.

A JSON line is kept for each cell: `train_s` is the last fit, `tune_s` all trials with their measuring. Contenders run
one after the other, on as many threads as they take by themselves: implicit and BLAS on all processors (one thread of
BLAS within implicit's ALS), MLlib on two cores, RecBole's PyTorch on two threads. implicit's BPR writes its factors
from many threads at once, and so differs from run to run. Values of users are kept by `benchmarks.user_values`; with
`--settings` of one model, those of a line, say, only they are, without a search.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from benchmarks.datasets import is_there
from benchmarks.harness import chosen, save
from benchmarks.peers.contender import Contender, Settings
from benchmarks.peers.tuning import Tuned, tune
from benchmarks.quality import SEED
from benchmarks.ranking import lists_of, means_of
from benchmarks.splits import FULL, SMALL, Split
from benchmarks.user_values import keep_values

MODULES = ("plain", "implicit_models", "mllib", "project", "recbole_models")
FOR_RECBOLE = "ml-100k/late"
LARGE = "40,981 items: weights of items by items, and what is needed to get them, do not fit in 16 GB beside the trials"
ONE_ITEM = "users have one article each, so nothing tells which articles are had together"


def contenders() -> Iterator[Contender]:
    """Those of all modules whose libraries there are."""
    for name in MODULES:
        try:
            module = importlib.import_module(f"benchmarks.peers.{name}")
        except ImportError as error:
            print(f"without {name}: {error}; `make .venv/.bench` installs what is compared with", file=sys.stderr)
        else:
            yield from module.CONTENDERS


def reason_against(model: str, dataset: str) -> str | None:
    """Why a model is left out of a data set."""
    if model.startswith("peer:recbole") and dataset != FOR_RECBOLE:
        return f"RecBole trains for long: {FOR_RECBOLE} only"
    if dataset == "citeulike-t/P1" and model != "peer:popularity":
        return ONE_ITEM
    if model in ("ease", "graph_filter") and dataset == "gowalla":
        return LARGE
    return None


def run(contender: Contender, splits: Sequence[Split], tuning: Split, trials: int) -> None:
    """Tune once, then fit and measure on each of the splits that share the settings."""
    tuned = tune(contender, tuning.tuning_task(), tuning.metrics[0], trials)
    for split in splits:
        measure_on(contender, split, tuned)


def measure_on(contender: Contender, split: Split, tuned: Tuned) -> None:
    line = {
        "benchmark": "quality",
        **fit_and_measure(contender, split, tuned.settings),
        "tune_s": tuned.tune_s,
        "trials": tuned.trials,
        "failed_trials": tuned.failed,
        "tuned_on": split.settings_from,
        "validation": tuned.validation,
        "settings": dict(tuned.settings),
        "seed": SEED,
    }
    print(json.dumps(save("quality", line)), flush=True)


def fit_and_measure(contender: Contender, split: Split, settings: Settings) -> dict[str, Any]:
    """Fit to all training pairs, keep the values of the users on the test pairs, and give their means."""
    task = split.test_task()
    fitted = contender.fit(task.train, settings, None)
    values = task.measure(lists_of(fitted.scores, task.train.n_users), task.train)
    keep_values(split.name, contender.name, values)
    named = {"dataset": split.name, "model": contender.name}
    return named | {"metrics": means_of(values), "train_s": round(fitted.train_s, 3)}


def check_settings(parser: argparse.ArgumentParser, models: Sequence[Contender], settings: Settings) -> None:
    """Settings are of one model, and all of those that a search would choose; ends the program else."""
    if len(models) > 1:
        parser.error(f"--settings are of one model, not of {', '.join(model.name for model in models)}: see --model")
    if missing := models[0].space.keys() - settings.keys():
        parser.error(f"--settings {json.dumps(settings)} of {models[0].name} are without {', '.join(sorted(missing))}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=["small", "full"], default="small", help="full: all data sets")
    parser.add_argument("--dataset", default="", help="run the one of this name, or else those whose name contains it")
    parser.add_argument("--model", default="", help="the same of models")
    parser.add_argument("--trials", type=int, help="settings to try of each model, in place of the usual number")
    parser.add_argument("--settings", type=json.loads, help="of one model, as JSON: no search, and no line is saved")
    options = parser.parse_args()
    of_size = {split.name: split for split in (SMALL if options.size == "small" else FULL)}
    splits = chosen(parser, "--dataset", options.dataset, of_size)
    models = chosen(parser, "--model", options.model, {contender.name: contender for contender in contenders()})
    if options.settings is not None:
        check_settings(parser, models, options.settings)
        for split in (split for split in splits if is_there(split.folder)):
            print(json.dumps(fit_and_measure(models[0], split, options.settings)), flush=True)
        return 0
    by_name, failures = {split.name: split for split in FULL}, 0
    for source, group in groupby(splits, key=lambda split: split.settings_from):
        together = list(group)
        for contender in models if is_there(together[0].folder) else ():
            if reason := reason_against(contender.name, source):
                print(f"{source}: without {contender.name}: {reason}", file=sys.stderr)
                continue
            try:
                run(contender, together, by_name[source], options.trials or by_name[source].trials)
            except Exception as error:
                failures += 1
                print(f"{source}: {contender.name} failed: {error!r}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
