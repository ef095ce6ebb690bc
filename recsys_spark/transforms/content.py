"""What items are, as features: weighed words and categories, and numbers. Sums do not depend on the order of rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

if TYPE_CHECKING:
    from recsys_spark.content_sections import ContentSettings

_WORD = r"[\p{L}\p{N}]+"
_BETWEEN = r"\s*[|;,]\s*"
_BETWEEN_NUMBERS = r"[\s,;\[\]]+"
_FARTHEST = 5.0  # quartile ranges from the median, so that one outlier is not all there is to learn
_ENCODED = "item_idx int, vector array<float>"


def count_terms(items: DataFrame, settings: ContentSettings) -> DataFrame:
    """Words and categories of each item as `item_idx, field, term, count`; without case."""
    text = () if settings.text_encoder else settings.text
    fields = [_terms(name, F.regexp_extract_all(_lower(name), F.lit(_WORD), F.lit(0))) for name in text]
    fields += [_terms(name, F.array_distinct(categories_of(name))) for name in settings.categories]
    if not fields:
        return items.sparkSession.createDataFrame([], "item_idx int, field string, term string, count bigint")
    each = items.select("item_idx", F.explode(F.array(*fields)).alias("named"))
    terms = each.select("item_idx", "named.field", F.explode("named.terms").alias("term")).where(F.col("term") != "")
    return terms.groupBy("item_idx", "field", "term").agg(F.count("*").alias("count"))


def categories_of(name: str) -> Column:
    """The categories of an attribute of items, without case; empty ones may be among them."""
    return F.split(_lower(name), _BETWEEN)


def choose_terms(counts: DataFrame, n_items: int, settings: ContentSettings) -> DataFrame:
    """The table `content_terms`: the terms of the most items, numbered, with their inverse document frequency."""
    frequency = counts.groupBy("field", "term").agg(F.count("*").alias("items"))
    common = frequency.where(F.col("items") >= settings.min_items)
    order = [F.desc("items"), F.col("field"), F.col("term")]
    chosen = common.orderBy(*order).limit(settings.max_terms)
    position = F.row_number().over(Window.orderBy(*order)) - 1  # of one partition, because there are few
    weight = F.log(F.lit(1.0 + n_items) / (1.0 + F.col("items"))) + 1.0
    return chosen.select(position.cast("int").alias("term_idx"), "field", "term", "items", weight.alias("weight"))


def weigh_terms(counts: DataFrame, terms: DataFrame) -> DataFrame:
    """TF-IDF of each item as `item_idx, terms, weights`: (1 + ln count) x weight; each field has length 1, then all.

    Salton and Buckley, Information Processing & Management 24(5), 1988.
    """
    known = counts.join(F.broadcast(terms.drop("items")), on=["field", "term"], how="inner")
    weight = ((1.0 + F.log("count")) * F.col("weight")).alias("weight")
    of_fields = known.groupBy("item_idx", "field").agg(
        F.array_sort(F.collect_list(F.struct("term_idx", weight))).alias("entries")
    )
    unit = of_fields.withColumn("entries", _scaled("entries", F.sqrt(_sum_of_squares("entries", "weight"))))
    whole = unit.groupBy("item_idx").agg(F.array_sort(F.flatten(F.collect_list("entries"))).alias("entries"))
    entries = _scaled("entries", F.sqrt(_sum_of_squares("entries", "weight")))
    return whole.select("item_idx", entries.alias("entries")).select(
        "item_idx",
        F.col("entries.term_idx").alias("terms"),
        F.transform("entries", lambda entry: entry["weight"].cast("float")).alias("weights"),
    )


def describe_items(items: DataFrame, counts: DataFrame, terms: DataFrame, settings: ContentSettings) -> DataFrame:
    """The table `item_content`: a row for each item, whatever is known of it.

    Args:
        items: the item index.
        counts: as of `count_terms`.
        terms: the table `content_terms`.
        settings: what is read of the items.
    """
    described = scale_numbers(items, settings).join(weigh_terms(counts, terms), on="item_idx", how="left")
    vectors = F.col("vectors")
    if settings.text_encoder:
        described = described.join(encode_text(items, settings), on="item_idx", how="left")
        vectors = F.concat(vectors, F.array("vector"))
    return described.select(
        "item_idx",
        F.coalesce("terms", F.array().cast("array<int>")).alias("terms"),
        F.coalesce("weights", F.array().cast("array<float>")).alias("weights"),
        "numbers",
        vectors.alias("vectors"),
    )


def scale_numbers(items: DataFrame, settings: ContentSettings) -> DataFrame:
    """Numbers and vectors of each item as `item_idx, numbers, vectors`, one array for each; 0 stands for unknown.

    A number is (x - median) / (quartile range), within 5; a vector is divided by its length.
    """
    found = items.select(
        "item_idx",
        *[_number(name).alias(f"number_{place}") for place, name in enumerate(settings.numbers)],
        *[_unit_vector(name).alias(f"vector_{place}") for place, name in enumerate(settings.vectors)],
    )
    names = [f"number_{place}" for place in range(len(settings.numbers))]
    if names:
        quartiles = [F.percentile(name, [0.25, 0.5, 0.75]).alias(f"of_{name}") for name in names]
        found = found.crossJoin(F.broadcast(found.agg(*quartiles)))  # one row
    numbers = [_scaled_number(F.col(name), F.col(f"of_{name}")) for name in names]
    vectors = [F.col(f"vector_{place}") for place in range(len(settings.vectors))]
    return found.select(
        "item_idx", _array(numbers, "float").alias("numbers"), _array(vectors, "array<float>").alias("vectors")
    )


def encode_text(items: DataFrame, settings: ContentSettings) -> DataFrame:
    """Text of each item as `item_idx, vector`, made by `content.text_encoder` on the executors, of length 1.

    Items without text have none.
    """
    text = F.concat_ws("\n", *[_attribute(name) for name in settings.text])
    known = items.select("item_idx", text.alias("text")).where(F.trim("text") != "")
    name = settings.text_encoder or ""

    def encode(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        encoder = load_encoder(name)
        for batch in batches:
            if batch.num_rows:
                vectors = _encoded(encoder, batch.column("text").to_pylist(), name)
                cells = pa.array(list(vectors), pa.list_(pa.float32()))
                yield pa.record_batch([batch.column("item_idx"), cells], names=["item_idx", "vector"])

    return known.mapInArrow(encode, _ENCODED)


def load_encoder(name: str) -> Callable[[list[str]], Any]:
    """The function that `package.module:function` names.

    Raises:
        ValueError: there is no such module or function.
    """
    module, _, function = name.partition(":")
    try:
        encoder: Callable[[list[str]], Any] = getattr(import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"content.text_encoder = {name!r} cannot be imported: {error}") from error
    return encoder


def _encoded(encoder: Callable[[list[str]], Any], texts: list[str], name: str) -> Any:
    vectors = np.asarray(encoder(texts), np.float32)
    if vectors.ndim != 2 or len(vectors) != len(texts) or not np.isfinite(vectors).all():
        raise ValueError(
            f"content.text_encoder = {name!r} must give a finite array ({len(texts)}, dims), got {vectors.shape}"
        )
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1)


def _attribute(name: str) -> Column:
    return F.coalesce(F.try_element_at("attributes", F.lit(name)), F.lit(""))


def _lower(name: str) -> Column:
    return F.lower(F.trim(_attribute(name)))


def _terms(field: str, terms: Column) -> Column:
    return F.struct(F.lit(field).alias("field"), terms.alias("terms"))


def _sum_of_squares(entries: str, value: str) -> Column:
    return F.aggregate(entries, F.lit(0.0), lambda total, entry: total + entry[value] * entry[value])


def _scaled(entries: str, length: Column) -> Column:
    return F.transform(
        entries, lambda entry: F.struct(entry["term_idx"].alias("term_idx"), (entry["weight"] / length).alias("weight"))
    )


def _number(name: str) -> Column:
    value = _attribute(name).try_cast("double")
    return F.when(~F.isnan(value), value)


def _scaled_number(value: Column, quartiles: Column) -> Column:
    low, middle, high = (F.get(quartiles, place) for place in range(3))
    spread = F.when(high > low, high - low).otherwise(F.lit(1.0))
    scaled = F.greatest(F.lit(-_FARTHEST), F.least(F.lit(_FARTHEST), (value - middle) / spread))
    return F.when(value.isNull(), 0.0).otherwise(scaled).cast("float")


def _unit_vector(name: str) -> Column:
    """The numbers of a text as an array of length 1, null for none; what is no number makes the whole null."""
    parts = F.filter(F.split(_attribute(name), _BETWEEN_NUMBERS), lambda part: part != "")
    numbers = F.transform(parts, lambda part: part.try_cast("double"))
    length = F.sqrt(F.aggregate(numbers, F.lit(0.0), lambda total, number: total + number * number))
    divided = F.transform(numbers, lambda number: (number / F.when(length > 0, length).otherwise(1.0)).cast("float"))
    return F.when(F.size(parts) > 0, divided)


def _array(columns: list[Column], kind: str) -> Column:
    return F.array(*columns).cast(f"array<{kind}>") if columns else F.array().cast(f"array<{kind}>")
