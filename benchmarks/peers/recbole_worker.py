"""RecBole's BPR, trained by its own Trainer over its own loader, an epoch for each line of standard input.

Runs in `.venv-recbole`, in a folder with `pairs/pairs.train.inter`. A line holds the steps to take, 0 for a whole
epoch; the answer is a JSON line with the seconds, the positives and the mean loss. After a whole epoch it leaves
`users.npy` and `items.npy`, their rows in the order of the numbers in the file.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from typing import Any

import numpy as np
from recbole.config import Config
from recbole.data import create_dataset
from recbole.data.utils import get_dataloader
from recbole.model.general_recommender import BPR
from recbole.sampler import Sampler
from recbole.trainer import Trainer
from recbole.utils import init_seed

SETTINGS = {
    "data_path": ".",
    "benchmark_filename": ["train"],
    "load_col": {"inter": ["user_id", "item_id"]},
    "embedding_size": 64,
    "train_batch_size": 2048,
    "train_neg_sample_args": {"distribution": "uniform", "sample_num": 1, "alpha": 1.0, "dynamic": False},
    "epochs": 1_000_000,  # as many as are asked for
    "use_gpu": False,
    "show_progress": False,
}


class TimedTrainer(Trainer):
    """RecBole's trainer, which waits for a line before each epoch and answers with one after it."""

    def _train_epoch(self, train_data: Any, *arguments: Any, **named: Any) -> float:
        line = sys.stdin.readline()
        if not line:
            raise SystemExit
        steps = int(line) or len(train_data)
        batches = train_data if steps == len(train_data) else first_batches(train_data, steps)
        started = time.perf_counter()
        loss = super()._train_epoch(batches, *arguments, **named)
        seconds = time.perf_counter() - started
        if steps == len(train_data):
            save_vectors(self.model, train_data.dataset)
        positives = min(steps * train_data.step, train_data.sample_size)
        print(json.dumps({"seconds": seconds, "positives": positives, "loss": loss / steps}), flush=True)
        return float(loss)


def first_batches(train_data: Any, steps: int) -> Any:
    """So many batches of an epoch whose pairs are shuffled already: that is work of all of its steps."""
    batches = iter(train_data)
    return itertools.islice(itertools.chain([next(batches)], batches), steps)


def save_vectors(model: BPR, dataset: Any) -> None:
    """The tables without RecBole's row for padding, ordered as the pairs' numbers."""
    tables = {dataset.uid_field: (model.user_embedding, "users"), dataset.iid_field: (model.item_embedding, "items")}
    for field, (table, name) in tables.items():
        rows = rows_of(dataset, field, dataset.num(field) - 1)
        np.save(f"{name}.npy", table.weight.detach().numpy()[rows])


def rows_of(dataset: Any, field: str, size: int) -> np.ndarray:
    """RecBole's rows of the numbers in the file up to a size, (size,): it counts in the order it meets them, from 1.

    0, the row for padding, stands for numbers that the file does not have.
    """
    known = dataset.field2token_id[field]
    return np.array([known.get(str(number), 0) for number in range(size)])


def training_loader(config: Config, pairs: Any, sampler: Sampler) -> Any:
    """Shuffled batches of pairs with sampled negatives."""
    return get_dataloader(config, "train")(config, pairs, sampler.set_phase("train"), shuffle=config["shuffle"])


def main() -> None:
    config = Config(model="BPR", dataset="pairs", config_dict=SETTINGS)  # and `--learning_rate=`, which it reads itself
    init_seed(config["seed"], config["reproducibility"])
    (pairs,) = create_dataset(config).build()
    loader = training_loader(config, pairs, Sampler(["train"], [pairs]))
    TimedTrainer(config, BPR(config, pairs)).fit(loader, saved=False, verbose=False)


if __name__ == "__main__":
    main()
