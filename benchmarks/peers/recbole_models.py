"""Models of RecBole 1.2.1, in ranges around the values its documentation lists, trained as long as held-out pairs say.

Its default of 300 epochs is the most. NeuMF's hidden layers are its defaults.

LightGCN has batches of 4,096 pairs where the others have RecBole's 2,048, because each of its steps walks the whole
graph. It learns slowly at first: looked at after each epoch, it would be stopped before it has begun.
"""

from __future__ import annotations

from functools import partial

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from benchmarks.jobs import CORES
from benchmarks.peers.contender import Contender, Fitted, Settings
from benchmarks.peers.recbole_process import Job, is_there, train_by_recbole
from recsys_spark.models.interactions import TrainingPairs

BATCHES = {"LightGCN": {"train_batch_size": 4096}}
MOST_EPOCHS = {"BPR": 300, "LightGCN": 300, "NeuMF": 300, "ItemKNN": 1}
EPOCHS_A_LOOK = {"BPR": 5, "LightGCN": 5, "NeuMF": 3, "ItemKNN": 1}


def fit(pairs: TrainingPairs, settings: Settings, held_out: TrainingPairs | None, model: str) -> Fitted:
    """With held-out pairs, until three looks in a row have found nothing better."""
    own = dict(settings)
    epochs = own.pop("epochs", MOST_EPOCHS[model])
    job = Job(model, own | BATCHES.get(model, {}), epochs, epochs_a_look=EPOCHS_A_LOOK[model])
    trained = train_by_recbole(job, pairs, held_out, CORES)
    chosen = {"epochs": trained.epochs} if MOST_EPOCHS[model] > 1 else {}
    return Fitted(lambda users: trained.scores[users].copy(), trained.seconds, chosen)


RATE = FloatDistribution(0.0001, 0.02, log=True)
SIZE = IntDistribution(32, 256, log=True)
SPACES: dict[str, tuple[Settings, dict[str, BaseDistribution]]] = {
    "BPR": (
        {"learning_rate": 0.001, "embedding_size": 64, "weight_decay": 0.0},
        {
            "learning_rate": RATE,
            "embedding_size": SIZE,
            "weight_decay": CategoricalDistribution([0.0, 1e-6, 1e-5, 1e-4]),
        },
    ),
    "LightGCN": (
        {"learning_rate": 0.001, "embedding_size": 64, "n_layers": 2, "reg_weight": 1e-5},
        {
            "learning_rate": RATE,
            "embedding_size": SIZE,
            "n_layers": IntDistribution(1, 4),
            "reg_weight": FloatDistribution(1e-5, 1e-2, log=True),
        },
    ),
    "NeuMF": (
        {"learning_rate": 0.001, "mf_embedding_size": 64, "mlp_embedding_size": 64, "dropout_prob": 0.1},
        {
            "learning_rate": RATE,
            "mf_embedding_size": IntDistribution(16, 128, log=True),
            "mlp_embedding_size": IntDistribution(16, 128, log=True),
            "dropout_prob": FloatDistribution(0.0, 0.5),
        },
    ),
    "ItemKNN": (
        {"k": 100, "shrink": 0.0},
        {"k": IntDistribution(3, 1000, log=True), "shrink": FloatDistribution(0.0, 2.0)},
    ),
}
CONTENDERS = [
    Contender(f"peer:recbole-{model.lower()}", partial(fit, model=model), *spaces)
    for model, spaces in (SPACES.items() if is_there() else ())
]
