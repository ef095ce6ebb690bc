"""The sections of the settings about linear models of items, sessions, and blends of models."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from recsys_spark.sections import Section

ComponentName = Literal[
    "embedding",
    "popularity",
    "neighbors",
    "content",
    "ease",
    "graph_filter",
    "vae",
    "session_embedding",
    "session_content",
    "session_ease",
]
ItemModelName = Literal["ease", "graph_filter"]

_MAX_ITEMS = "Most items; the driver holds {} bytes for each two of them, a host maps 4."


class EaseSettings(Section):
    """The linear model of items by items (`recommend.model` = `ease`), solved in closed form on the driver."""

    l2: float = Field(
        500.0, gt=0, description="L2 penalty on the weights; more for more users: 240 to 1,300 on MovieLens-1M."
    )
    max_items: int = Field(20_000, ge=1, description=_MAX_ITEMS.format(12))


class GraphFilterSettings(Section):
    """The graph filter (`recommend.model` = `graph_filter`): items of users who have the same, in closed form."""

    dims: int = Field(128, ge=1, le=4096, description="Singular vectors of the normalised matrix: its low-pass part.")
    low_pass: float = Field(
        0.3, ge=0, description="Weight of the low-pass part beside what users with the same items have."
    )
    max_items: int = Field(20_000, ge=1, description=_MAX_ITEMS.format(8))


class SessionSettings(Section):
    """A user's newest items, as components of their own (`hybrid.components`: `session_...`)."""

    items: int = Field(50, ge=1, description="Newest items of a user that count.")
    half_life_items: float = Field(
        10.0, gt=0, description="How many newer ones there are of an item that counts half as much as the newest."
    )


class RankerSettings(Section):
    """The ranking stage of a blend: a small network that orders the best items of each component anew.

    It learns from the candidates that the weights are learned from, and is used where it ranks better than the blend on
    users it has not seen.
    """

    enabled: bool = Field(False, description="Whether the network is learned; the run says whether it is used.")
    hidden_units: tuple[int, int] = Field((32, 16), description="Sizes of the hidden layers.")
    epochs: int = Field(50, ge=1, description="Most epochs; early stopping usually ends before.")
    patience: int = Field(3, ge=1, description="Epochs without a smaller loss of held-out users before training stops.")
    batch_users: int = Field(64, ge=1, description="Users in a step.")
    learning_rate: float = Field(0.001, gt=0, description="Step size of Adam.")


class HybridSettings(Section):
    """The blend of models (`recommend.model` = `hybrid`); its weights are learned from the validation split."""

    components: tuple[ComponentName, ...] | None = Field(
        None,
        description="What is blended; `session_...`: the same model of a user's newest items alone. None: `embedding` "
        "and `popularity`, and as far as the settings have what they need, `neighbors`, `content`, "
        "`session_embedding`, `session_content`; where they are named `ease`, `session_ease`, `graph_filter`, `vae`.",
    )
    segments: tuple[int, ...] = Field(
        (10, 50),
        description="Numbers of items from which on users have other weights: who has few leans on others.",
    )
    candidates: int = Field(100, ge=10, description="Best items of each component that weights are learned from.")
    validation_users: int = Field(
        5_000, ge=1, description="About how many users with validation items the weights are learned from."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.components is not None and len(set(self.components)) < max(len(self.components), 1):
            raise ValueError(f"components must be at least one, none of them twice, got {list(self.components)}")
        if any(bound < 1 for bound in self.segments) or list(self.segments) != sorted(set(self.segments)):
            raise ValueError(f"segments must be rising whole numbers from 1, got {list(self.segments)}")
        return self
