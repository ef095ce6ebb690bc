"""The sections of the settings about what is learned: the embedding model, and the similarity of neighbors."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from recsys_spark.sections import Section, SourcePath

LEAST_IALS_L2 = 1e-5

Loss = Literal[
    "ials", "spectral", "softmax", "sampled_softmax", "cosine_contrastive", "bpr", "bce", "mse", "rating_bce"
]
_SOFTMAXES = ("softmax", "sampled_softmax")
_SHARED_NEGATIVES = ("sampled_softmax", "cosine_contrastive")
_OF_RATINGS = ("mse", "rating_bce")
_OF_PAIRS = ("bpr", "bce", *_OF_RATINGS)
_OF_USERS = (*_SOFTMAXES, "cosine_contrastive")


class ModelSettings(Section):
    """The embedding model and its training, on the driver."""

    loss: Loss = Field(
        "ials",
        description="`ials` ranks, by alternating least squares over all pairs, seen or not; `spectral` ranks, by the "
        "leading singular vectors of the normalised matrix, and needs many dimensions: 256 and more; `softmax` ranks "
        "each positive among all items, and takes the longest; `sampled_softmax` and `cosine_contrastive` rank, "
        "against sampled items that the users of a batch share; `bpr` and `bce` rank, against items sampled for each "
        "pair; `mse` and `rating_bce` predict ratings, by squared errors or as probabilities, which stay between the "
        "lowest and the highest; the others ignore ratings: to them a pair is seen or not.",
    )
    architecture: Literal["dot", "two_tower", "neumf"] = Field(
        "dot",
        description="`dot`: two embeddings and their product; `two_tower`: users are the pooled embeddings of their "
        "items (`softmax`, `sampled_softmax`, `cosine_contrastive`); `neumf`: a hidden layer beside the product, which "
        "predicts pairs and gives no lists (`bpr`, `bce`, `mse`, `rating_bce`).",
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
        description="Epochs without a validation NDCG@10 (`mse`, `rating_bce`: error of ratings) better by .0003 "
        "before training stops.",
    )
    batch_size: int | None = Field(
        None,
        ge=1,
        description="Interactions in a step (all but `ials` and `spectral`). None: 2,048 for pairs of any "
        "users, else 8,192: users with all of theirs.",
    )
    learning_rate: float = Field(
        0.1, gt=0, description="Step size of Adagrad, which keeps one scale a row (all but `ials` and `spectral`)."
    )
    l2: float | None = Field(
        None,
        ge=0,
        description="L2 penalty on the vectors a sample touches, added to its loss; `ials`: times the pairs of a row, "
        "`unobserved_weight` for each of the other side included; of no effect on cosines and `spectral`. None: 0.02 "
        "for `mse`, 0.003 for `bpr`, 0.01 for `ials`, `bce` and `rating_bce`, else 0.",
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
        defaults = {"mse": 0.02, "bpr": 0.003, "bce": 0.01, "rating_bce": 0.01, "ials": 0.01}
        return defaults.get(self.loss, 0.0) if self.l2 is None else self.l2

    @property
    def can_fold_in(self) -> bool:
        """Whether users follow from their items without training."""
        return self.loss == "ials" or (self.architecture == "two_tower" and not self.own_embedding)

    @property
    def predicts_ratings(self) -> bool:
        """Whether scores stand for ratings, or else only order items."""
        return self.loss in _OF_RATINGS

    @property
    def is_logistic(self) -> bool:
        """Whether a rating is the logistic function of a score, or else the score."""
        return self.loss == "rating_bce"

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


class VaeSettings(Section):
    """The variational autoencoder of what users have, a component of a blend (`hybrid.components`: `vae`)."""

    embedding_dim: int = Field(200, ge=1, le=4096, description="Latent size of users and items.")
    hidden_units: int = Field(400, ge=1, le=4096, description="Size of each of its three hidden layers.")
    kl_weight: float = Field(
        0.005,
        ge=0,
        description="Weight of the divergence from a normal distribution, for each item of a user; more for less data.",
    )
    dropout: float = Field(0.5, ge=0, lt=1, description="Share of a user's items that the encoder does not see.")
    learning_rate: float = Field(0.001, gt=0, description="Step size of Adam.")
    batch_users: int = Field(250, ge=1, description="Users in a step.")
    epochs: int = Field(100, ge=1, description="Most epochs; early stopping usually ends before.")
    patience: int = Field(
        10,
        ge=1,
        description="Epochs without a validation NDCG of lists as long as `recommend.top_k` that is better by .0003 "
        "before training stops.",
    )
    max_trained_users: int = Field(
        50_000,
        ge=1,
        description="Most users the driver learns from, drawn by the seed; the work grows with them times the items.",
    )
    validation_users: int = Field(20_000, ge=1, description="Most users whose validation NDCG steers early stopping.")
