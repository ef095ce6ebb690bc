"""Every table of a run: name, columns, key. `docs/tables.md` is generated from here."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from pyspark.sql.types import (
    ArrayType,
    BinaryType,
    DataType,
    DateType,
    DoubleType,
    FloatType,
    IntegerType,
    LongType,
    MapType,
    StringType,
    StructField,
    StructType,
    TimestampType,
)

STRING, INTEGER, LONG, FLOAT, DOUBLE = StringType(), IntegerType(), LongType(), FloatType(), DoubleType()
BINARY, TIMESTAMP, DATE = BinaryType(), TimestampType(), DateType()


FORGOTTEN_ID = "__forgotten__:"
"""What stands, before the position, in the place of the id of a user who asked to be forgotten."""


@dataclass(frozen=True)
class Column:
    """A column: its name, Spark type and meaning; `nullable` only where null means something."""

    name: str
    type: DataType
    meaning: str
    nullable: bool = False


@dataclass(frozen=True)
class Table:
    """A table of a run. `published` tables are for readers, the others are the run's own.

    `group_rows`: rows of a Parquet row group, where readers take rows one by one; Spark's default when None.
    """

    name: str
    meaning: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    published: bool = False
    group_rows: int | None = None
    schema: StructType = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        fields = [StructField(column.name, column.type, column.nullable) for column in self.columns]
        object.__setattr__(self, "schema", StructType(fields))


EVENTS = Table(
    "events",
    "The input as read, one row an input row, each with its verdict. Rows: accepted + later + quarantined.",
    (
        Column("user_id", STRING, "External id of the user.", nullable=True),
        Column("item_id", STRING, "External id of the item.", nullable=True),
        Column("rating", DOUBLE, "Observed rating, unscaled; null for implicit events without one.", nullable=True),
        Column("event_type", STRING, "Type of the event, such as view or purchase.", nullable=True),
        Column("occurred_at", TIMESTAMP, "When the event happened.", nullable=True),
        Column("status", STRING, "`accepted`, `later` (after the run date, kept for a later run) or `quarantined`."),
        Column("reasons", ArrayType(STRING, False), "Why the row was quarantined; empty otherwise."),
        Column("row", STRING, "The input row as JSON, for quarantined rows only.", nullable=True),
    ),
    key=(),
)

QUARANTINE = Table(
    "quarantine",
    "Rejected input rows with all their reasons.",
    (
        Column("source", STRING, "`events`, `items` or `users`."),
        Column("row", STRING, "The input row as JSON."),
        Column("reasons", ArrayType(STRING, False), "Every rule the row broke."),
    ),
    key=(),
    published=True,
)

USERS = Table(
    "users",
    "The user index: contiguous, kept from night to night, new users appended.",
    (
        Column("user_idx", INTEGER, "Position of the user, 0 to users - 1."),
        Column("user_id", STRING, "External id; `__forgotten__:` and the position where the user is forgotten."),
        Column("attributes", MapType(STRING, STRING), "Attributes mapped in the settings; empty when none."),
    ),
    key=("user_idx",),
    published=True,
)

ITEMS = Table(
    "items",
    "The item index: contiguous, kept from night to night, new items appended.",
    (
        Column("item_idx", INTEGER, "Position of the item, 0 to items - 1."),
        Column("item_id", STRING, "External id."),
        Column("attributes", MapType(STRING, STRING), "Attributes mapped in the settings, such as `title`."),
    ),
    key=("item_idx",),
    published=True,
)

INTERACTIONS = Table(
    "interactions",
    "One row a user-item pair: what the models learn from.",
    (
        Column("user_idx", INTEGER, "Position of the user."),
        Column("item_idx", INTEGER, "Position of the item."),
        Column("rating", FLOAT, "Rating between 0 and 1."),
        Column("value", DOUBLE, "The rating before scaling; a later night merges new events into it."),
        Column("event_count", LONG, "Events behind the pair."),
        Column("last_at", TIMESTAMP, "Time of the newest event; null without timestamps.", nullable=True),
        Column("last_at_by_type", MapType(STRING, TIMESTAMP), "Time of the newest event of each type."),
        Column("split", STRING, "`train`, `validation` or `test`."),
    ),
    key=("user_idx", "item_idx"),
)

USER_BLOCKS = Table(
    "user_blocks",
    "The sparse user-item matrix as CSR row blocks: `block_users` consecutive users a row, a row a Parquet row group.",
    (
        Column("block_id", INTEGER, "Position of the block: first user divided by the users of a block."),
        Column("first_user_idx", INTEGER, "Position of the first user."),
        Column("user_ids", ArrayType(STRING, False), "External ids of the users of the block, in order."),
        Column("indptr", BINARY, "int64, users + 1: where each user's entries start."),
        Column("indices", BINARY, "int32: item positions, ascending for each user."),
        Column("ratings", BINARY, "float32: ratings between 0 and 1; stored zeros stay stored."),
        Column("splits", BINARY, "uint8: 0 train, 1 validation, 2 test."),
        Column("ages", BINARY, "float32: days from the newest event to the end of the run date; NaN without times."),
    ),
    key=("block_id",),
    group_rows=1,
)

ITEM_RULES = Table(
    "item_rules",
    "What `[rules]` say of each item.",
    (
        Column("item_idx", INTEGER, "Position of the item."),
        Column(
            "verdict", STRING, "`listed`: it may be; `denied`: by table or category; `unavailable`: by time or stock."
        ),
        Column("factor", FLOAT, "What its scores are multiplied by, or divided by where they are below 0."),
    ),
    key=("item_idx",),
)

USER_RULES = Table(
    "user_rules",
    "What `[rules]` say of each user, in blocks that match `user_blocks`.",
    (
        Column("block_id", INTEGER, "Position of the block."),
        Column("list_lengths", BINARY, "int32, a user: most items of the list, -1 for no row."),
        Column("has_candidates", BINARY, "uint8, a user: 1 for who gets given candidates only."),
        Column("hidden_indptr", BINARY, "int64, users + 1: where each user's entries start."),
        Column("hidden_indices", BINARY, "int32: items that the user is not shown, ascending, of the listed ones."),
        Column("are_allowed", BINARY, "uint8, a user: 1 where these items are all that the user may be shown."),
        Column("seen_counts", BINARY, "int32, a user: items hidden because they are seen."),
        Column("denied_counts", BINARY, "int32, a user: items hidden because they are denied to the user."),
    ),
    key=("block_id",),
    group_rows=1,
)

REQUESTED_USERS = Table(
    "requested_users",
    "What became of each user that `rules.requested_users` names.",
    (
        Column("user_id", STRING, "The id as it was requested; null where it was missing.", nullable=True),
        Column("outcome", STRING, "`scored`, `fell_back` (a list of what is popular) or `refused`."),
        Column(
            "reason",
            STRING,
            "Why there is no list: `missing_id`, `unknown_user`, `no_list_wanted` (`rules.list_length` is 0), "
            "`nothing_left`, or `requested_late`, after the step `rules`; null where there is one.",
            nullable=True,
        ),
    ),
    key=("user_id",),
    published=True,
)

CONTENT_TERMS = Table(
    "content_terms",
    "The words and categories that items are described by: those of the most items.",
    (
        Column("term_idx", INTEGER, "Position of the term."),
        Column("field", STRING, "Attribute it is of."),
        Column("term", STRING, "The word or category, in lower case."),
        Column("items", LONG, "Items that have it."),
        Column("weight", DOUBLE, "Its inverse document frequency: ln((1 + all items) / (1 + items)) + 1."),
    ),
    key=("term_idx",),
)

ITEM_CONTENT = Table(
    "item_content",
    "What each item is like, as features: the input of the content embeddings.",
    (
        Column("item_idx", INTEGER, "Position of the item."),
        Column("terms", ArrayType(INTEGER, False), "Positions of its terms, rising."),
        Column("weights", ArrayType(FLOAT, False), "TF-IDF of its terms; the squares add up to 1."),
        Column("numbers", ArrayType(FLOAT, False), "Its numbers, scaled; 0 where one is not known."),
        Column("vectors", ArrayType(ArrayType(FLOAT)), "Its vectors, of length 1; null where one is not known."),
    ),
    key=("item_idx",),
)

USER_NEIGHBORS = Table(
    "user_neighbors",
    "Each user's nearest users by exact Euclidean distance over the (weighted) behavior vectors.",
    (
        Column("user_idx", INTEGER, "Position of the user."),
        Column("neighbor_idx", INTEGER, "Position of the neighbor."),
        Column("distance", DOUBLE, "Euclidean distance; smaller is nearer."),
        Column("similarity", FLOAT, "Similarity made of the distance; larger is nearer."),
        Column("rank", INTEGER, "1 is the nearest."),
    ),
    key=("user_idx", "rank"),
)

_EMBEDDING_COLUMNS = (
    Column("block_id", INTEGER, "Position of the block."),
    Column("vectors", BINARY, "float32, users x dims: scores are products with the item vectors."),
    Column("is_trained", BINARY, "uint8, a user: 1 when the user has an embedding, 0 for the fallback."),
)

USER_EMBEDDINGS = Table(
    "user_embeddings",
    "The users' side of the model in blocks that match `user_blocks`.",
    _EMBEDDING_COLUMNS,
    key=("block_id",),
    group_rows=1,
)

SELECTION_EMBEDDINGS = Table(
    "selection_embeddings",
    "The users' side of the fit that has not seen the hold-out: what the metrics are measured with.",
    _EMBEDDING_COLUMNS,
    key=("block_id",),
    group_rows=1,
)

_NEIGHBOR_COLUMNS = (
    Column("block_id", INTEGER, "Position of the block."),
    Column("neighbor_indptr", BINARY, "int64, users + 1: where each user's neighbors start."),
    Column("neighbor_indices", BINARY, "int32: positions of the neighbors, nearest first."),
    Column("similarities", BINARY, "float32: their similarities."),
)

NEIGHBOR_BLOCKS = Table(
    "neighbor_blocks",
    "The nearest users of all users in blocks that match `user_blocks`: what lists by neighbors are made of.",
    _NEIGHBOR_COLUMNS,
    key=("block_id",),
    group_rows=1,
)

SELECTION_NEIGHBOR_BLOCKS = Table(
    "selection_neighbor_blocks",
    "The same without the hold-out: what the metrics are measured with.",
    _NEIGHBOR_COLUMNS,
    key=("block_id",),
    group_rows=1,
)

BLEND_CANDIDATES = Table(
    "blend_candidates",
    "The best items of each component for users with validation items: what the weights of a blend are learned from.",
    (
        Column("user_idx", INTEGER, "Position of the user."),
        Column("history", INTEGER, "Items the user has in the train split."),
        Column("item_idxs", ArrayType(INTEGER, False), "Positions of the items, rising."),
        Column("scores", ArrayType(FLOAT, False), "Items x components: standardised scores, item after item."),
        Column("validation_idxs", ArrayType(INTEGER, False), "Positions of the user's validation items, rising."),
    ),
    key=("user_idx",),
)

_STRINGS, _FLOATS = ArrayType(STRING, False), ArrayType(FLOAT, False)

REASON_COLUMNS = (
    Column(
        "reasons",
        _STRINGS,
        "Why each item is there, in the order of `item_ids`: `because_items`, `because_users`, `new_item_content` (its "
        "place is by content, nobody has had it or too few to learn from), `popular_in_segment`, `popular`, or "
        "`unexplained`. Null without `[reasons]`, as are the columns that follow.",
        nullable=True,
    ),
    Column(
        "reason_models",
        _STRINGS,
        "Of a blend the component that adds most to the item's score: the one that is explained. Null without a blend.",
        nullable=True,
    ),
    Column(
        "because_item_ids",
        ArrayType(_STRINGS, False),
        "For each item the user's own that add most to its score, most first.",
        nullable=True,
    ),
    Column(
        "because_user_ids",
        ArrayType(_STRINGS, False),
        "For each item the neighbors that add most; null unless `reasons.show_users`.",
        nullable=True,
    ),
    Column(
        "contributions",
        ArrayType(_FLOATS, False),
        "What each of those items, or neighbors that are shown, adds to the item's score.",
        nullable=True,
    ),
    Column(
        "neighbor_counts",
        ArrayType(INTEGER, False),
        "For each item how many of the user's neighbors have it, 0 for other reasons; null without neighbors.",
        nullable=True,
    ),
    Column(
        "residuals",
        _FLOATS,
        "For each item its score less what all of the user's items, or neighbors, add to it by that model.",
        nullable=True,
    ),
)

RECOMMENDATIONS = Table(
    "recommendations",
    "The product: each user's best items, best first, so that the position is the rank.",
    (
        Column("user_id", STRING, "External id of the user."),
        Column("item_ids", ArrayType(STRING, False), "External ids of the items, best first."),
        Column(
            "scores",
            ArrayType(FLOAT, False),
            "Scores of the items, falling; comparable within a list. With `[diversity]` they are those before the "
            "re-rank, and need not fall.",
        ),
        Column(
            "tier",
            STRING,
            "Where the list comes from: `embedding`, `neighbors`, `content`, `ease`, `graph_filter`, `hybrid`, "
            "`ranker`, `segment_popularity` (what is popular in the user's segment) or `popularity`.",
        ),
        Column(
            "left_out",
            MapType(STRING, INTEGER, False),
            "Of a list that is shorter than it was to be how many items are not in it because they are `seen`, "
            "`denied`, `unavailable`, `not_candidate` of the user, or `cold`: without a score for the user; null of a "
            "full list.",
            nullable=True,
        ),
        *REASON_COLUMNS,
    ),
    key=("user_id",),
    published=True,
)

SIMILAR_USERS = Table(
    "similar_users",
    "Each user's most similar users by embedding distance.",
    (
        Column("user_id", STRING, "External id of the user."),
        Column("similar_user_ids", ArrayType(STRING, False), "External ids, nearest first."),
        Column("distances", ArrayType(DOUBLE, False), "Euclidean distances of the embeddings, rising."),
    ),
    key=("user_id",),
    published=True,
)

SIMILAR_ITEMS = Table(
    "similar_items",
    "Each item's most similar items by embedding distance.",
    (
        Column("item_id", STRING, "External id of the item."),
        Column("similar_item_ids", ArrayType(STRING, False), "External ids, nearest first."),
        Column("distances", ArrayType(DOUBLE, False), "Euclidean distances of the embeddings, rising."),
    ),
    key=("item_id",),
    published=True,
)

BY_SCORE = "_by_score"
"""Ends the name of a model whose lists are measured before they are re-ranked."""

METRICS = Table(
    "metrics",
    "Ranking metrics of the hold-out, from a fit that has not seen it, beside popularity.",
    (
        Column(
            "model",
            STRING,
            "The model, such as `embedding`, or `popularity`. With `[diversity]` the lists before the re-rank, too, as "
            "`embedding_by_score` and so on.",
        ),
        Column("metric", STRING, "Name of the metric, such as `ndcg`."),
        Column("k", INTEGER, "Length of the lists measured; 0 of `rmse`, `mae` and `gauc`."),
        Column(
            "value",
            DOUBLE,
            "Mean over the users with held-out items; of `rmse`, `mae` and `gauc` over held-out pairs. Of all lists "
            "together: `item_coverage`, `gini_index`, "
            "`shannon_entropy`, `average_popularity`, `tail_percentage`, `novelty` (docs/operations.md). "
            "`intra_list_diversity`, with `[diversity]`: of two items of a list 1 - cosine.",
        ),
        Column(
            "low",
            DOUBLE,
            "Lower end of the 95 % interval of a mean over users, by the bootstrap; null of all lists together.",
            nullable=True,
        ),
        Column("high", DOUBLE, "Upper end of that interval.", nullable=True),
        Column("users", LONG, "Users measured; of `rmse`, `mae` and `gauc` pairs."),
    ),
    key=("model", "metric", "k"),
    published=True,
)

METRIC_SUMS = Table(
    "metric_sums",
    "Sums of the metrics that are means over users, by group: what intervals and paired tests of them are made of.",
    (
        Column("model", STRING, "As in `metrics`."),
        Column("metric", STRING, "Name of the metric."),
        Column("k", INTEGER, "Length of the lists measured."),
        Column("group", INTEGER, "Position of the user modulo 1,000."),
        Column("total", DOUBLE, "Sum over the measured users of the group."),
        Column("users", LONG, "How many those are."),
    ),
    key=("model", "metric", "k", "group"),
)

_BACKTEST_MEANINGS = {
    "model": "`published`, the lists as they were; of several tiers also `published:embedding` and so on; "
    "`popularity`, the most popular items of the run that made the lists, for the same users.",
    "value": "As in `metrics`, over the users who had a list and have something new.",
}

BACKTEST = Table(
    "backtest",
    "How published lists did: each night those of the run before, by what users have had since. All nights so far.",
    (
        Column("run_date", DATE, "The night that measured."),
        Column("lists_run_date", DATE, "The night that made the lists."),
        Column("lists_run_id", STRING, "The run that made the lists."),
        Column(
            "lists_published_at",
            TIMESTAMP,
            "When they were published. After `run_date`, nobody can have seen them by then. Null when not known.",
            nullable=True,
        ),
        *(replace(column, meaning=_BACKTEST_MEANINGS.get(column.name, column.meaning)) for column in METRICS.columns),
    ),
    key=("run_date", "lists_run_id", *METRICS.key),
    published=True,
)

TABLES: tuple[Table, ...] = (
    EVENTS,
    QUARANTINE,
    USERS,
    ITEMS,
    INTERACTIONS,
    USER_BLOCKS,
    ITEM_RULES,
    USER_RULES,
    CONTENT_TERMS,
    ITEM_CONTENT,
    USER_NEIGHBORS,
    NEIGHBOR_BLOCKS,
    SELECTION_NEIGHBOR_BLOCKS,
    USER_EMBEDDINGS,
    SELECTION_EMBEDDINGS,
    BLEND_CANDIDATES,
    RECOMMENDATIONS,
    REQUESTED_USERS,
    SIMILAR_USERS,
    SIMILAR_ITEMS,
    METRICS,
    METRIC_SUMS,
    BACKTEST,
)
