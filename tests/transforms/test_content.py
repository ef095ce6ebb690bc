from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession

from recsys_spark.content_sections import ContentSettings
from recsys_spark.transforms.content import choose_terms, count_terms, describe_items, encode_text

ITEMS: list[dict[str, str]] = [
    {"title": "The Good, the Bad & the ÜGLY", "genres": "Western|War", "year": "1966", "image": "3 4"},
    {"title": "good WAR", "genres": " war ; Drama", "year": "1990", "image": "[0.0, -2.0]"},
    {"title": "", "genres": "drama", "year": "unknown"},
    {"year": "2000", "genres": "|"},
]
SETTINGS = ContentSettings(
    text=("title",), categories=("genres",), numbers=("year",), vectors=("image",), min_items=1, max_terms=100
)


def index(spark: SparkSession, items: list[dict[str, str]]) -> DataFrame:
    schema = "item_idx int, attributes map<string,string>"
    return spark.createDataFrame(list(enumerate(items)), schema).repartition(3)


def described(spark: SparkSession, settings: ContentSettings, items: list[dict[str, str]] = ITEMS) -> dict[int, Any]:
    frame = index(spark, items)
    counts = count_terms(frame, settings)
    rows = describe_items(frame, counts, choose_terms(counts, len(items), settings), settings).collect()
    return {row["item_idx"]: row for row in rows}


def terms_of(spark: SparkSession, settings: ContentSettings) -> list[tuple[int, str, str, int]]:
    counts = count_terms(index(spark, ITEMS), settings)
    rows = choose_terms(counts, len(ITEMS), settings).orderBy("term_idx").collect()
    return [(row["term_idx"], row["field"], row["term"], row["items"]) for row in rows]


def test_terms_are_of_their_field_and_ordered_by_how_many_items_have_them(spark: SparkSession) -> None:
    assert terms_of(spark, SETTINGS) == [
        (0, "genres", "drama", 2),
        (1, "genres", "war", 2),
        (2, "title", "good", 2),
        (3, "genres", "western", 1),
        (4, "title", "bad", 1),
        (5, "title", "the", 1),
        (6, "title", "war", 1),
        (7, "title", "ügly", 1),
    ]
    assert terms_of(spark, SETTINGS.model_copy(update={"min_items": 2, "max_terms": 2})) == [
        (0, "genres", "drama", 2),
        (1, "genres", "war", 2),
    ]


def test_weights_equal_those_computed_by_hand(spark: SparkSession) -> None:
    rows = described(spark, SETTINGS)
    rare, common = np.log(5 / 2) + 1, np.log(5 / 3) + 1
    title = np.array([common, rare, (1 + np.log(3)) * rare, rare])  # good, bad, the three times, ügly
    genres = np.array([common, rare])  # war, western
    expected = dict(zip([2, 4, 5, 7], title / np.linalg.norm(title), strict=True))
    expected |= dict(zip([1, 3], genres / np.linalg.norm(genres), strict=True))
    assert rows[0]["terms"] == sorted(expected)
    np.testing.assert_allclose(
        rows[0]["weights"], [expected[term] / np.sqrt(2) for term in sorted(expected)], rtol=1e-6
    )
    assert rows[2]["terms"] == [0]
    assert rows[2]["weights"] == [1.0]
    assert (rows[3]["terms"], rows[3]["weights"]) == ([], []), "an item of which nothing is said has a row"


def test_numbers_count_from_the_median_and_vectors_by_direction(spark: SparkSession) -> None:
    rows = described(spark, SETTINGS)
    # 1966, 1990, 2000: quartiles 1978, 1990, 1995.
    expected = {0: -24 / 17, 1: 0.0, 2: 0.0, 3: 10 / 17}
    assert {item: row["numbers"][0] for item, row in rows.items()} == pytest.approx(expected, rel=1e-6)
    assert rows[0]["vectors"] == [pytest.approx([0.6, 0.8])]
    assert rows[1]["vectors"] == [[0.0, -1.0]]
    assert rows[2]["vectors"] == rows[3]["vectors"] == [None]
    wild = described(spark, SETTINGS, [{"year": year} for year in ("1", "2", "3", "4", "5", "1e300", "NaN")])
    assert wild[5]["numbers"] == [5.0], "one outlier is not all there is"
    assert wild[6]["numbers"] == [0.0]
    same = described(spark, SETTINGS, [{"year": "7"}, {"year": "7"}])
    assert [row["numbers"] for row in same.values()] == [[0.0], [0.0]]


def test_the_order_of_rows_does_not_change_a_bit(spark: SparkSession) -> None:
    random = np.random.default_rng(0)
    words = [f"w{number}" for number in range(30)]
    items = [{"title": " ".join(random.choice(words, 40)), "year": str(random.integers(2000))} for _ in range(60)]
    settings = SETTINGS.model_copy(update={"categories": (), "vectors": ()})
    frame = index(spark, items)
    found = []
    for partitions in (1, 7):
        counts = count_terms(frame.repartition(partitions), settings).repartition(partitions, "term")
        terms = choose_terms(counts, len(items), settings)
        rows = describe_items(frame, counts, terms, settings).orderBy("item_idx").collect()
        found.append(rows)
    assert found[0] == found[1]


def lengths(texts: list[str]) -> Any:
    return [[len(text), 1.0] for text in texts]


def lost(texts: list[str]) -> Any:
    return [[1.0]] * (len(texts) - 1)


def test_an_encoder_of_texts_takes_the_place_of_words(spark: SparkSession) -> None:
    settings = SETTINGS.model_copy(update={"text_encoder": f"{__name__}:lengths"})
    rows = described(spark, settings)
    assert rows[1]["vectors"][1] == pytest.approx([8 / np.sqrt(65), 1 / np.sqrt(65)])
    assert rows[2]["vectors"][1] is None, "an item without text"
    assert {field for _, field, _, _ in terms_of(spark, settings)} == {"genres"}


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        (f"{__name__}:lost", "must give a finite array"),
        (f"{__name__}:missing", "cannot be imported"),
        ("no_such_module:encode", "cannot be imported"),
    ],
)
def test_what_is_wrong_with_an_encoder_is_said(spark: SparkSession, name: str, complaint: str) -> None:
    settings = SETTINGS.model_copy(update={"text_encoder": name})
    with pytest.raises(PySparkException, match=complaint):
        encode_text(index(spark, ITEMS), settings).collect()
