"""The section of the settings about what items are: their text, categories, numbers, and vectors made elsewhere."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from recsys_spark.sections import Section


class ContentSettings(Section):
    """Embeddings of items by their content, learned by an autoencoder on the driver. None without any attribute."""

    text: tuple[str, ...] = Field((), description="Attributes of `[items]` that are text: words, weighed by TF-IDF.")
    categories: tuple[str, ...] = Field(
        (), description="Attributes that are categories or tags, split at `|`, `;` and `,`; weighed as words are."
    )
    numbers: tuple[str, ...] = Field(
        (), description="Attributes that are numbers; they count by their distance from the median, in quartile ranges."
    )
    vectors: tuple[str, ...] = Field(
        (),
        description="Attributes that are vectors, such as an image encoder's output: arrays of numbers, or numbers "
        "with spaces or commas between them; they count by their direction.",
    )
    text_encoder: str | None = Field(
        None,
        pattern=r"^\w+(\.\w+)*:\w+$",
        description="`package.module:function` that makes a vector of each text, a list of str to an array (texts, "
        "dims), in the place of TF-IDF; the executors import it.",
    )
    min_items: int = Field(2, ge=1, description="Words and categories of fewer items are left out.")
    max_terms: int = Field(
        20_000, ge=1, le=1_000_000, description="Most words and categories, those of the most items first."
    )
    embedding_dim: int = Field(256, ge=1, le=4096, description="Latent size.")
    temperature: float = Field(
        0.1,
        gt=0,
        description="What cosines are divided by while half of what is known of an item learns to find the other half "
        "among other items'; small: only the nearest ones matter.",
    )
    epochs: int = Field(50, ge=1, description="Most epochs; early stopping, by items held out, may end before.")
    patience: int = Field(3, ge=1, description="Epochs without a smaller loss of held-out items before training stops.")
    batch_size: int = Field(512, ge=1, description="Items in a step.")
    learning_rate: float = Field(0.01, gt=0, description="Step size of Adam.")
    max_trained_items: int = Field(
        200_000, ge=1, description="Most items the driver trains on, drawn by the seed; all of them are embedded."
    )
    cold_items: bool = Field(
        True,
        description="Items that are not trained and of which something is known get a vector of the embedding model by "
        "their content, so that they are recommended, too.",
    )
    half_life_days: float | None = Field(
        None, gt=0, description="Age in days at which an item counts half in its user's taste; none means no decay."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.text_encoder is not None and not self.text:
            raise ValueError("text_encoder needs text: name the attributes it encodes")
        return self

    @property
    def attributes(self) -> tuple[str, ...]:
        """All that it reads; without any there are no content embeddings."""
        return (*self.text, *self.categories, *self.numbers, *self.vectors)
