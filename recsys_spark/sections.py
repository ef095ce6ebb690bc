"""The sections of the settings, one class each; `config.py` puts them together and loads them."""

from __future__ import annotations

import datetime
import os
from pathlib import Path
from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

EventFormat = Literal["parquet", "csv", "json", "orc", "table", "recbole"]


def _expand(path: str) -> str:
    expanded = os.path.expandvars(Path(path).expanduser().as_posix() if path.startswith("~") else path)
    if "$" in expanded:
        raise ValueError(f"{path!r} names an environment variable that is not set")
    return expanded


def _known_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise ValueError(f"{name!r} is not a time zone; use a name such as 'UTC' or 'Europe/Berlin'") from error
    return name


TimeZone = Annotated[str, AfterValidator(_known_zone)]
SourcePath = Annotated[str, AfterValidator(_expand), Field(min_length=1)]


class Section(BaseModel):
    """Base of every settings section: unknown keys are refused, values never change."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class StorageSettings(Section):
    """Where runs are written and published."""

    root: SourcePath = Field(
        description="Folder that holds all runs and the pointer to the current one; any path Spark can write."
    )
    lease_ttl_s: int = Field(
        600, ge=10, description="Seconds without a heartbeat after which another night may take over the root."
    )


class SparkSettings(Section):
    """The Spark session. Under spark-submit the master comes from there and `master` is ignored."""

    master: str = Field(
        "local[2,4]",
        description="Spark master when not started by spark-submit; `local[cores,retries]` retries a lost worker.",
    )
    driver_memory: str = Field(
        "4g", pattern=r"^\d+[kmgt]$", description="Java heap of the driver when not started by spark-submit."
    )
    shuffle_partitions: int = Field(
        64, ge=1, description="Partitions of a shuffle; a few times the cores of the cluster."
    )
    conf: dict[str, str] = Field(
        default_factory=dict, description="Any further Spark settings, passed through as they are."
    )


class Source(Section):
    """One input in any format Spark reads."""

    path: SourcePath = Field(description="Path, glob, or table name when `format` is `table`.")
    format: EventFormat = Field(
        "parquet", description="`recbole` reads tab-separated atomic files with `name:type` headers."
    )
    options: dict[str, str] = Field(
        default_factory=dict, description="Options of the Spark reader, for example `sep` for CSV."
    )


class EventColumns(Section):
    """Which input column is what."""

    user: str = Field("user_id", description="Column of the user id (string or integer).")
    item: str = Field("item_id", description="Column of the item id (string or integer).")
    rating: str | None = Field(
        None, description="Column of the rating; none means every event counts as its event weight."
    )
    event_type: str | None = Field(None, description="Column of the event type, for example view, cart, purchase.")
    timestamp: str | None = Field(
        None, description="Column of the event time: a timestamp, a date, ISO 8601 text, or a number since the epoch."
    )


class EventSettings(Source):
    """The interactions to learn from."""

    columns: EventColumns = EventColumns()
    incremental: bool = Field(
        False, description="True: the input holds only new events, merged with the interactions kept by the run before."
    )
    timestamp_unit: Literal["s", "ms", "us"] = Field("s", description="Unit of numeric timestamps.")
    timezone: TimeZone = Field("UTC", description="Zone of timestamps that carry none, and of the run date's midnight.")
    earliest: datetime.date = Field(datetime.date(1970, 1, 2), description="Events before this day are quarantined.")
    max_id_bytes: int = Field(
        1024, ge=1, le=65536, description="Longest user or item id, in UTF-8 bytes; longer ones are quarantined."
    )
    max_quarantined_share: float = Field(
        0.05, ge=0, le=1, description="Share of quarantined rows above which the run stops with nothing published."
    )


class EntitySettings(Source):
    """An optional table of items or users: they exist before their first event."""

    id: str = Field(description="Column of the id.")
    attributes: dict[str, str] = Field(
        default_factory=dict, description="Attributes to keep, name = input column, for example `title`."
    )


class FeedbackSettings(Section):
    """How events become one rating between 0 and 1 for each user-item pair."""

    kind: Literal["explicit", "implicit"] = Field(
        "explicit", description="`explicit`: ratings; `implicit`: weighted events."
    )
    range: tuple[float, float] | None = Field(
        None,
        description="Lowest and highest value, scaled to 0 and 1. None: the observed range of explicit ratings, kept "
        "from night to night; zero to the largest event weight for implicit feedback.",
    )
    lowest: float = Field(
        0.0, ge=0, lt=1, description="What the lowest explicit rating becomes; above 0 it differs from 'unseen'."
    )
    duplicates: Literal["last", "max", "sum", "mean"] | None = Field(
        None,
        description="One value from several events of a pair. None: `last` for explicit, `sum` for implicit feedback.",
    )
    event_weights: dict[str, float] = Field(
        default_factory=dict,
        description="Weight of each event type; types not listed are quarantined. Empty: all types weigh 1.",
    )
    half_life_days: float | None = Field(
        None, gt=0, description="Age in days at which an implicit event counts half; none means no decay."
    )

    @property
    def duplicate_policy(self) -> str:
        """The policy in force, the default of the kind of feedback filled in."""
        return self.duplicates or ("last" if self.kind == "explicit" else "sum")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.range is not None and not self.range[0] < self.range[1]:
            raise ValueError(f"range must rise from lowest to highest, got {list(self.range)}")
        if any(weight <= 0 for weight in self.event_weights.values()):
            raise ValueError(f"event_weights must be above 0, got {self.event_weights}")
        if self.kind == "explicit" and self.half_life_days is not None:
            raise ValueError("half_life_days applies to implicit feedback only; remove it or set kind = 'implicit'")
        return self


class MatrixSettings(Section):
    """The sparse user-item matrix."""

    block_users: int = Field(1024, ge=1, le=65536, description="Users in a row block. Results do not depend on it.")
    shard_mb: int = Field(1024, ge=1, description="Largest candidate file a task maps. Results do not depend on it.")


class NeighborSettings(Section):
    """Each user's nearest users by exact Euclidean distance."""

    enabled: bool = Field(
        True, description="Whether the night finds neighbors; the work grows with the square of the users."
    )
    k: int | Literal["all"] = Field(
        50, description="Neighbors a user; `all` gives the full distance matrix row by row, up to 20,000 users."
    )
    weighting: Literal["none", "l2", "center", "tfidf", "bm25"] = Field(
        "none", description="Weighting of the rows before distances; with `l2` the Euclidean order is the cosine order."
    )
    similarity: Literal["inverse", "gaussian"] = Field(
        "inverse", description="`inverse`: 1 / (1 + d); `gaussian`: exp(-d^2 / (2 bandwidth^2))."
    )
    bandwidth: float = Field(1.0, gt=0, description="Bandwidth of the gaussian similarity, in units of distance.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.k != "all" and self.k < 1:
            raise ValueError(f"k must be 1 or more, or 'all', got {self.k}")
        return self


LEAST_IALS_L2 = 1e-5

Loss = Literal["ials", "spectral", "softmax", "sampled_softmax", "cosine_contrastive", "bpr", "bce", "mse"]
_SOFTMAXES = ("softmax", "sampled_softmax")
_SHARED_NEGATIVES = ("sampled_softmax", "cosine_contrastive")
_OF_PAIRS = ("bpr", "bce", "mse")
_OF_USERS = (*_SOFTMAXES, "cosine_contrastive")


class ModelSettings(Section):
    """The embedding model and its training, on the driver."""

    loss: Loss = Field(
        "ials",
        description="`ials` ranks, by alternating least squares over all pairs, seen or not; `spectral` ranks, by the "
        "leading singular vectors of the normalised matrix, and needs many dimensions: 256 and more; `softmax` ranks "
        "each positive among all items, and takes the longest; `sampled_softmax` and `cosine_contrastive` rank, "
        "against sampled items that the users of a batch share; `bpr` and `bce` rank, against items sampled for each "
        "pair; `mse` predicts ratings, which the others ignore: to them a pair is seen or not.",
    )
    architecture: Literal["dot", "two_tower", "neumf"] = Field(
        "dot",
        description="`dot`: two embeddings and their product; `two_tower`: users are the pooled embeddings of their "
        "items (`softmax`, `sampled_softmax`, `cosine_contrastive`); `neumf`: a hidden layer beside the product, which "
        "predicts pairs and gives no lists (`bpr`, `bce`, `mse`).",
    )
    own_embedding: bool = Field(
        False, description="Users have embeddings of their own, too, added to those of their items (`two_tower`)."
    )
    item_features: tuple[str, ...] = Field(
        (),
        description="Attributes of `[items]` whose values, split at `|`, `;` and `,`, have vectors that are added to "
        "those of their items (`two_tower`).",
    )
    hidden_units: int = Field(32, ge=1, le=1024, description="Size of the hidden layer (`neumf`).")
    embedding_dim: int = Field(64, ge=1, le=4096, description="Latent size of users and items.")
    epochs: int = Field(60, ge=1, description="Most epochs; early stopping usually ends before.")
    patience: int = Field(
        5,
        ge=1,
        description="Epochs without a validation NDCG@10 (`mse`: error of ratings) better by .0003 before training "
        "stops.",
    )
    batch_size: int | None = Field(
        None,
        ge=1,
        description="Interactions in a step (all but `ials` and `spectral`). None: 2,048 for `bpr`, `bce` and `mse`, "
        "else 8,192: users with all of theirs.",
    )
    learning_rate: float = Field(
        0.1, gt=0, description="Step size of Adagrad, which keeps one scale a row (all but `ials` and `spectral`)."
    )
    l2: float | None = Field(
        None,
        ge=0,
        description="L2 penalty on the vectors a sample touches, added to its loss; `ials`: times the pairs of a row, "
        "`unobserved_weight` for each of the other side included; of no effect on cosines and `spectral`. None: 0.02 "
        "for `mse`, 0.003 for `bpr`, 0.01 for `ials` and `bce`, else 0.",
    )
    similarity: Literal["cosine", "dot"] = Field(
        "cosine", description="What `softmax` and `sampled_softmax` score by; with `dot`, items have biases."
    )
    temperature: float | None = Field(
        None,
        gt=0,
        description="What scores are divided by in `softmax` and `sampled_softmax`; lower minds the hardest negatives "
        "more. None: 0.1 for cosines, 1 for dot products.",
    )
    margin: float = Field(
        0.4, ge=-1, lt=1, description="Cosine up to which a negative costs nothing (`cosine_contrastive`)."
    )
    negative_weight: float = Field(
        10.0, gt=0, description="Weight of the mean negative beside the positive (`cosine_contrastive`)."
    )
    unobserved_weight: float | None = Field(
        None,
        gt=0,
        description="Weight of any pair beside 1 for a seen one (`ials`). None: such that all pairs of a user weigh "
        "ten times the seen ones, in the mean.",
    )
    negatives: int | None = Field(
        None,
        ge=1,
        description="Sampled negatives: for each positive (`bpr`, `bce`), or shared by a batch (`sampled_softmax`, "
        "`cosine_contrastive`). None: 4, or 1,024 shared ones.",
    )
    popularity_exponent: float = Field(
        0.0, ge=0, le=1, description="Negatives are drawn by the item's users to this power; 0: uniformly."
    )
    in_batch_negatives: bool = Field(
        False,
        description="The items of a batch are negatives of its other users, too (`sampled_softmax`, "
        "`cosine_contrastive`).",
    )
    min_user_interactions: int = Field(
        1, ge=1, description="Users with fewer are not trained; they get the fallback tier."
    )
    min_item_interactions: int = Field(
        1, ge=1, description="Items with fewer are not trained and not recommended by the model."
    )
    max_trained_users: int | None = Field(
        None,
        ge=1,
        description="Most users the driver trains on, drawn by the seed (`ials`, and `two_tower` without own "
        "embeddings); then the vectors of all users follow from their interactions, on the executors. The `l2` of "
        "`ials` grows as the sample shrinks; items that no sampled user has are not recommended. None: all users.",
    )
    validation_users: int = Field(20_000, ge=1, description="Most users whose validation NDCG steers early stopping.")
    spectral_start: bool | None = Field(
        None,
        description="Without a run before, start from the singular vectors of `spectral` instead of random ones, where "
        "users and items are more than dimensions. None: for `softmax`, `sampled_softmax` and `cosine_contrastive`, "
        "which then need a third of the epochs.",
    )
    warm_start: bool = Field(True, description="Start from the embeddings of the run before when there is one.")
    mixed_precision: bool = Field(
        False,
        description="Multiply matrices in bfloat16, on GPUs and processors that do so faster (losses over shared "
        "negatives, and `neumf`); vectors and sums stay float32.",
    )
    tensorboard: SourcePath | None = Field(
        None,
        description="Local folder for logs of the training, one folder in it a run, that `tensorboard --logdir` shows; "
        "needs the package `tensorboard`.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.loss == "ials" and self.l2 is not None and self.l2 < LEAST_IALS_L2:
            raise ValueError(
                f"l2 must be at least {LEAST_IALS_L2} for loss 'ials', got {self.l2}: "
                "with less, users with few items have no one solution in float32"
            )
        if self.max_trained_users is not None and not self.can_fold_in:
            raise ValueError(
                "max_trained_users needs a model that gives users their vectors without training: loss 'ials', or "
                f"architecture 'two_tower' without own_embedding; got {self.loss!r}, {self.architecture!r}"
            )
        if self.architecture == "two_tower" and self.loss not in _OF_USERS:
            raise ValueError(f"architecture 'two_tower' needs loss {_either(_OF_USERS)}, got {self.loss!r}")
        if self.own_embedding and self.architecture != "two_tower":
            raise ValueError(f"own_embedding needs architecture 'two_tower', got {self.architecture!r}")
        if self.item_features and self.architecture != "two_tower":
            raise ValueError(f"item_features needs architecture 'two_tower', got {self.architecture!r}")
        if self.architecture == "neumf" and self.loss not in _OF_PAIRS:
            raise ValueError(f"architecture 'neumf' needs loss {_either(_OF_PAIRS)}, got {self.loss!r}")
        if self.in_batch_negatives and self.loss not in _SHARED_NEGATIVES:
            raise ValueError(f"in_batch_negatives needs loss {_either(_SHARED_NEGATIVES)}, got {self.loss!r}")
        if self.similarity == "dot" and self.loss == "cosine_contrastive":
            raise ValueError("similarity must be 'cosine' for loss 'cosine_contrastive', got 'dot'")
        return self

    @property
    def l2_penalty(self) -> float:
        """The penalty in force, the default of the loss filled in."""
        defaults = {"mse": 0.02, "bpr": 0.003, "bce": 0.01, "ials": 0.01}
        return defaults.get(self.loss, 0.0) if self.l2 is None else self.l2

    @property
    def can_fold_in(self) -> bool:
        """Whether users follow from their items without training."""
        return self.loss == "ials" or (self.architecture == "two_tower" and not self.own_embedding)

    @property
    def is_closed_form(self) -> bool:
        """Whether training solves for the vectors, or else descends a gradient in batches."""
        return self.loss in ("ials", "spectral")

    @property
    def is_trained_by_user(self) -> bool:
        """Whether a batch holds users with all of their pairs, or else pairs of any users."""
        return self.loss in _OF_USERS

    @property
    def starts_from_spectrum(self) -> bool:
        """Whether a fit without an earlier one starts from singular vectors."""
        return self.is_trained_by_user if self.spectral_start is None else self.spectral_start

    @property
    def is_cosine(self) -> bool:
        """Whether scores are cosines, or else dot products with biases."""
        return self.is_trained_by_user and self.similarity == "cosine"

    @property
    def pairs_in_batch(self) -> int:
        """The batch size in force."""
        return self.batch_size or (8192 if self.is_trained_by_user else 2048)

    @property
    def sampled_negatives(self) -> int:
        """The number of negatives in force."""
        return self.negatives or (1024 if self.is_trained_by_user else 4)

    @property
    def product_dtype(self) -> str:
        """In what matrices are multiplied."""
        return "bfloat16" if self.mixed_precision else "float32"

    @property
    def softmax_temperature(self) -> float:
        """The temperature in force."""
        return self.temperature or (0.1 if self.is_cosine else 1.0)


def _either(names: tuple[str, ...]) -> str:
    return " or ".join(repr(name) for name in names)


class RecommendSettings(Section):
    """The lists."""

    model: Literal["embedding", "neighbors"] = Field("embedding", description="What scores the items.")
    top_k: int = Field(10, ge=1, le=10_000, description="Items in a list.")
    exclude_seen: bool = Field(True, description="Leave out items the user already has.")
    shrinkage: float = Field(
        1.0, ge=0, description="Pulls neighbor scores that rest on little similarity towards 0 (`neighbors`, explicit)."
    )


SIMILARITY_BATCH_USERS = 256
"""Users in a step that learns a similarity."""


class NeighborhoodSettings(Section):
    """A similarity of users and their nearest users that is learned (`recommend.model` = `neighbors`)."""

    enabled: bool = Field(
        False,
        description="Whether neighbors count by what they predict of a user, learned on the driver, and not by their "
        "distance alone. It gains more from more neighbors, such as 200.",
    )
    embedding_dim: int = Field(64, ge=1, le=4096, description="Latent size of items, and of users, by their items.")
    temperature: float = Field(
        0.2,
        ge=0.01,
        le=10,
        description="A neighbor counts by his similarity times exp(cosine / temperature): lower trusts fewer of them, "
        "which may be better when there are more, such as 0.1 for 200.",
    )
    epochs: int = Field(30, ge=1, description="Most epochs; early stopping usually ends before.")
    patience: int = Field(
        5, ge=1, description="Epochs without a validation NDCG@10 better by .0003 before training stops."
    )
    learning_rate: float = Field(0.1, gt=0, description="Step size of Adagrad, which keeps one scale an item.")
    max_trained_users: int = Field(
        50_000,
        ge=2,
        description="Most users the driver learns from, drawn by the seed; the work grows with the square of them.",
    )
    validation_users: int = Field(20_000, ge=1, description="Most users whose validation NDCG steers early stopping.")


class SimilarSettings(Section):
    """Lists of similar users and items by embedding distance."""

    users: bool = Field(True, description="Write `similar_users`; the work grows with the square of the users.")
    items: bool = Field(True, description="Write `similar_items`.")
    top_k: int = Field(10, ge=1, le=10_000, description="Entries in a list.")


class EvaluateSettings(Section):
    """The hold-out and the metrics."""

    split: Literal["last", "random"] = Field(
        "last",
        description="`last`: each user's last item by time tests, the one before validates; `random`: a share.",
    )
    share: float = Field(
        0.1, gt=0, lt=0.5, description="Share of pairs for testing, and as much again for validation (`random`)."
    )
    ks: tuple[int, ...] = Field((5, 10, 20), min_length=1, description="List lengths at which metrics are computed.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if min(self.ks) < 1 or list(self.ks) != sorted(set(self.ks)):
            raise ValueError(f"ks must be rising whole numbers from 1, got {list(self.ks)}")
        return self


class AuditSettings(Section):
    """What must hold before lists are published; a failed audit ends with exit code 3."""

    min_user_coverage: float = Field(
        0.99, ge=0, le=1, description="Share of users with at least one item, of those who have not had all."
    )
    max_underfilled_share: float = Field(1.0, ge=0, le=1, description="Share of lists shorter than they could be.")


class PlanSettings(Section):
    """What a night may take; `recsys-spark plan` refuses what is over it."""

    worker_memory_mb: int = Field(
        2048, ge=1, description="Private memory of a Python worker; a core has one beside its share of the Java heap."
    )
    driver_memory_mb: int = Field(8192, ge=1, description="Memory of the driver's Python, where the model is trained.")
    disk_gb: float = Field(100.0, gt=0, description="Disk for candidate files, on the driver and on each host.")
    max_hours: float = Field(8.0, gt=0, description="Longest that a step is expected to take.")
