"""A model of RecBole, trained by its own trainer and loaders, whose scores of all items are left in `scores.npy`.

Runs in `.venv-recbole`, in a folder with `pairs/pairs.train.inter` and, to stop early by, `pairs/pairs.valid.inter`.
Standard input is a job of `recbole_process` as JSON; the answer is a JSON line with the seconds of training, without
those of looking at held-out pairs, and the epochs behind the scores, those of the best look.
"""

from __future__ import annotations

import copy
import json
import sys
import time
from typing import Any

import numpy as np
import torch
from recbole.config import Config
from recbole.data import create_dataset
from recbole.data.interaction import Interaction
from recbole.data.utils import get_dataloader
from recbole.sampler import Sampler
from recbole.utils import get_model, get_trainer, init_seed
from recbole_worker import SETTINGS, rows_of, training_loader
from scipy.sparse import dok_matrix

SETTINGS_OF_LOOKS = {"metrics": ["NDCG"], "topk": [10], "valid_metric": "NDCG@10", "seed": 0}


if not hasattr(dok_matrix, "_update"):  # LightGCN calls it, newer SciPy has it by another name
    dok_matrix._update = lambda matrix, cells: matrix._dict.update(cells)


class Looks:
    """Keeps the state of the best look at held-out pairs."""

    def __init__(self, model: Any) -> None:
        self._model, self.best_epoch, self._best, self._state = model, 0, -np.inf, None

    def __call__(self, epoch: int, score: float) -> None:
        """After a look, by the trainer."""
        if score > self._best:
            self.best_epoch, self._best = epoch + 1, score
            self._state = copy.deepcopy((self._model.state_dict(), self._model.other_parameter()))

    def restore(self) -> None:
        """Give the model its state of the best look, with what it has computed then, such as LightGCN's vectors."""
        weights, others = self._state
        self._model.load_state_dict(weights)
        self._model.load_other_parameter(others)


def main() -> None:
    job = json.loads(sys.stdin.read())
    config = config_of(job)
    init_seed(config["seed"], config["reproducibility"])
    pairs, *held_out = create_dataset(config).build()
    parts = ["train", "valid"][: 1 + len(held_out)]
    sampler = Sampler(parts, [pairs, *held_out])
    loader = training_loader(config, pairs, sampler)
    looked_at = get_dataloader(config, "valid")(config, *held_out, sampler.set_phase("valid")) if held_out else None
    started = time.perf_counter()
    model = get_model(config["model"])(config, pairs)
    trainer, looks = get_trainer(config["MODEL_TYPE"], config["model"])(config, model), Looks(model)
    clock = TimedLooks(trainer)
    trainer.fit(loader, looked_at, verbose=False, saved=False, callback_fn=looks)
    seconds = time.perf_counter() - started - clock.seconds
    if held_out:
        looks.restore()
    np.save("scores.npy", scores_of(model, pairs, (job["n_users"], job["n_items"])))
    print(json.dumps({"seconds": seconds, "epochs": looks.best_epoch or trainer.epochs}), flush=True)


def config_of(job: dict[str, Any]) -> Config:
    stops = {"epochs": job["epochs"], "stopping_step": job["patience"] - 1, "eval_step": job["epochs_a_look"]}
    files = {"benchmark_filename": ["train", "valid"] if job["has_held_out"] else ["train"]}
    return Config(job["model"], "pairs", config_dict=SETTINGS | SETTINGS_OF_LOOKS | stops | files | job["settings"])


class TimedLooks:
    """Seconds that a trainer looks at held-out pairs."""

    def __init__(self, trainer: Any) -> None:
        self.seconds, self._look = 0.0, trainer._valid_epoch
        trainer._valid_epoch = self.look

    def look(self, *arguments: Any, **named: Any) -> Any:
        """As the trainer does."""
        started = time.perf_counter()
        answer = self._look(*arguments, **named)
        self.seconds += time.perf_counter() - started
        return answer


def scores_of(model: Any, dataset: Any, shape: tuple[int, int]) -> np.ndarray:
    """Of all users and items, by their numbers in the file, (users, items)."""
    users, items = (rows_of(dataset, *side) for side in zip((dataset.uid_field, dataset.iid_field), shape, strict=True))
    scores = np.zeros(shape, np.float32)
    scores[:, items == 0] = -np.inf
    model.eval()
    with torch.no_grad():
        for user in np.flatnonzero(users):
            scores[user, items > 0] = user_scores(model, dataset, int(users[user]))[items[items > 0]]
    return scores


def user_scores(model: Any, dataset: Any, user: int) -> np.ndarray:
    """Of all of RecBole's rows of items."""
    try:
        return model.full_sort_predict(Interaction({dataset.uid_field: torch.tensor([user])})).numpy().ravel()
    except NotImplementedError:  # NeuMF scores pairs only
        items = torch.arange(dataset.item_num)
        pairs = {dataset.uid_field: torch.full_like(items, user), dataset.iid_field: items}
        return model.predict(Interaction(pairs)).numpy()


if __name__ == "__main__":
    main()
