"""What a night prints at its end: the rows, the model, the lists, and three users to look at."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F
from rich.console import Console
from rich.markup import escape
from rich.table import Table as Grid

from recsys_spark.report.lists import read_lists
from recsys_spark.tables import BY_SCORE, INTERACTIONS, ITEMS, RECOMMENDATIONS, TABLES, USERS

if TYPE_CHECKING:
    from recsys_spark.storage.run_storage import RunStorage

_SHOWN_USERS, _SHOWN_ITEMS = 3, 5


def print_summary(storage: RunStorage, console: Console) -> None:
    """Print the facts of all steps of a finished run."""
    steps = {step: storage.step_details(step) for step in storage.finished_steps()}
    facts = Grid(show_header=False, box=None, pad_edge=False)
    for name, text in _facts(steps):
        facts.add_row(f"[bold]{name}[/bold]", escape(text))
    console.print(facts)
    _print_published(storage, console)
    _print_users(storage, console)


def _facts(steps: dict[str, dict[str, Any]]) -> Iterator[tuple[str, str]]:
    ingest, index, pairs = steps["ingest"], steps["index"], steps["interactions"]
    train, evaluate, lists = steps["train"], steps["evaluate"], steps["recommend"]
    yield "Rows", f"{ingest['input']:,} in, {ingest['accepted']:,} accepted, {ingest['quarantined']:,} quarantined"
    if ingest["later"]:
        yield "Later", f"{ingest['later']:,} accepted rows are after the run date and wait for a later run"
    for source, reasons in ingest["reasons"].items():
        yield "Quarantined", f"{source}: " + ", ".join(f"{reason} {count:,}" for reason, count in reasons.items())
    yield "Users", f"{index['users']:,} ({index['new_users']:,} new)"
    yield "Items", f"{index['items']:,} ({index['new_items']:,} new)"
    yield "Interactions", f"{pairs['interactions']:,}, density {pairs['density']:.2%}"
    if "backtest" in steps:  # which a run of an earlier version has not
        yield "Backtest", backtest_line(steps["backtest"])
    yield "Training", _curve(train)
    yield "Validation", _validation(train)
    if "blend" in steps and "components" in steps["blend"]:
        yield "Blend", _blend(steps["blend"])
    if "ranker" in steps.get("blend", {}):
        yield "Ranking", _ranking(steps["blend"]["ranker"])
    yield "Hold-out", _holdout(evaluate["metrics"])
    if gain := gain_line(evaluate):
        yield "Ahead", gain
    if errors := _errors(evaluate["metrics"]):
        yield "Predicted", errors
    yield from _about_lists(lists, steps.get("rules", {}))
    if forced := audit_line(steps.get("audit", {})):
        yield "Forced", forced


def _about_lists(lists: dict[str, Any], rules: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if "verdicts" in rules:
        yield "Rules", _rules(rules)
    tiers = ", ".join(f"{tier} {count:,}" for tier, count in sorted(lists["tiers"].items()))
    yield "Lists", f"{lists['users']:,} users scored ({tiers})"
    if lists.get("short_lists"):
        yield "Short", _short(lists)
    if "requested" in lists:
        yield "Requested", ", ".join(f"{outcome} {count:,}" for outcome, count in sorted(lists["requested"].items()))


def audit_line(audit: dict[str, Any]) -> str | None:
    """What was published against the audit, and why."""
    if "forced" not in audit:
        return None
    return f"published although {'; '.join(audit['failed'])}: {audit['forced']}"


def _rules(rules: dict[str, Any]) -> str:
    verdicts = rules["verdicts"]
    listed, boosted = verdicts.get("listed", 0), sum(each["items"] for each in rules["factors"])
    out = [f"{verdict} {count:,}" for verdict, count in sorted(verdicts.items()) if verdict != "listed"]
    text = f"{listed:,} of {sum(verdicts.values()):,} items may be listed" + (f" ({', '.join(out)})" if out else "")
    text += f", the scores of {boosted:,} are boosted or demoted" if boosted else ""
    unknown = [
        f"{name} {found['unknown']:,} of {found['rows']:,}" for name, found in rules["rows"].items() if found["unknown"]
    ]
    return text + (f"; rows with ids of no index: {', '.join(unknown)}" if unknown else "")


def _short(lists: dict[str, Any]) -> str:
    """How many lists are not full, and what they lack on average."""
    count = lists["short_lists"]
    reasons = ", ".join(f"{reason} {items / count:,.1f}" for reason, items in lists["left_out"].items())
    return f"{count:,} lists are not full; items left out of one on average: {reasons}"


def backtest_line(backtest: dict[str, Any]) -> str:
    """What the step `backtest` has found, or why it has found nothing."""
    if "reason" in backtest:
        return f"nothing was measured: {backtest['reason']}"
    k, ndcg, popular = backtest["k"], backtest["ndcg"], backtest["popularity_ndcg"]
    text = (
        f"the lists of {backtest['lists_run_date']} had NDCG@{k} {ndcg:.4f} (popularity {popular:.4f}) "
        f"for {backtest['users']:,} users with new items"
    )
    if backtest["users_without_list"]:
        count = backtest["users_without_list"]
        text += f", {count:,} new user{'s' * (count != 1)} had no list"
    if "ndcg_before" in backtest:
        text += f"; {ndcg - backtest['ndcg_before']:+.4f} since {backtest['measured_before']}"
    return text


def _curve(train: dict[str, Any]) -> str:
    if not train["losses"]:
        return f"too little is left beside the hold-out; fitted on everything for {train['refit_epochs']} epochs"
    start = "warm start, " if train["warm_start"] else ""
    first, last = train["losses"][0], train["losses"][-1]
    return (
        f"{start}{train['loss']} loss {first:.4f} -> {last:.4f} in {len(train['losses'])} epochs, "
        f"best epoch {train['best_epoch']}, refitted on everything"
    )


def _validation(train: dict[str, Any]) -> str:
    if train["validation_ndcg"] is None:
        return "no user has enough items to set one aside and learn from the others"
    ours, popular = train["validation_ndcg"], train["popularity_ndcg"]
    times = f" ({ours / popular:.2f}x)" if popular else ""
    error = train["validation_rmses"][train["best_epoch"] - 1] if train["validation_rmses"] else None
    rmse = "" if error is None else f"RMSE of ratings of 0-1 {error:.4f}, "
    return f"{rmse}NDCG@10 {ours:.4f}, popularity {popular:.4f}{times}"


def _blend(blend: dict[str, Any]) -> str:
    names = blend["components"]
    if "ndcgs" not in blend:
        return "no user has validation items to learn weights from: all components count the same"
    best, error = names[blend["best_component"]], blend["gain_standard_error"]
    gain = f"{blend['gain']:+.4f} (standard error {error:.4f}) of NDCG@{blend['ndcg_at']} beside {best} alone"
    if not blend["is_blended"]:
        return f"{best} alone, because a blend has {gain}"
    bounds = ["fewer", *(f"{bound:,} items or more" for bound in blend["segments"])] if blend["segments"] else ["all"]
    weights = zip(bounds, blend["weights"], strict=True)
    return "; ".join([gain, *(f"{bound}: {_shares(names, row)}" for bound, row in weights)])


def _ranking(ranker: dict[str, Any]) -> str:
    if "gain" not in ranker:
        return f"the stage is not used: {ranker['reason']}"
    used = "used" if ranker["is_used"] else "not used"
    gain = f"{ranker['gain']:+.4f} (standard error {ranker['gain_standard_error']:.4f}) of NDCG beside the blend"
    return f"the stage is {used}: it has {gain}, for {ranker['users']:,} users it has not seen"


def _shares(names: list[str], weights: list[float]) -> str:
    """How much each component counts, of 1 for all; the largest first, none for what does not count."""
    shares = sorted(zip(weights, names, strict=True), key=lambda share: (-share[0], share[1]))
    return ", ".join(f"{name} {weight / sum(weights):.2f}" for weight, name in shares if weight)


def _holdout(metrics: list[dict[str, Any]]) -> str:
    values = {(row["model"], row["metric"], row["k"]): row["value"] for row in metrics if row["k"]}
    models = sorted({model for model, _, _ in values}, key=lambda model: (model == "popularity", model))
    if not any(row["users"] for row in metrics):
        return "no user has enough items to set one aside"
    ks = sorted({k for _, _, k in values})
    k = max((k for k in ks if k <= 10), default=ks[0])
    known = {metric for _, metric, _ in values}
    names = [name for name in ("ndcg", "recall", "item_coverage", "intra_list_diversity") if name in known]
    return "; ".join(
        f"{model} " + ", ".join(f"{name}@{k} {values.get((model, name, k), 0.0):.4f}" for name in names)
        for model in models
    )


def gain_line(evaluate: dict[str, Any]) -> str | None:
    """How sure it is that the lists are better than what is popular."""
    shown = [each for each in evaluate["gains"] if each["metric"] == "ndcg" and not each["model"].endswith(BY_SCORE)]
    gains = {each["k"]: each for each in shown}
    if not gains:
        return None
    k = max((k for k in gains if k <= 10), default=min(gains))
    gain = gains[k]
    interval = f"95 % interval {gain['low']:+.4f} to {gain['high']:+.4f}, p {p_text(gain['p_value'])}"
    return f"{gain['mean']:+.4f} of ndcg@{k} beside {gain['other']} ({interval})"


def p_text(p_value: float) -> str:
    """As one reads it: `= .012`, or `< .001`."""
    return "< .001" if p_value < 0.001 else f"= {p_value:.3f}".replace("0.", ".")


def _errors(metrics: list[dict[str, Any]]) -> str:
    """What predictions of held-out pairs are worth, where they are measured."""
    return ", ".join(
        f"{row['metric']} {row['value']:.4f} ({row['low']:.4f} to {row['high']:.4f})" for row in metrics if not row["k"]
    )


def _print_published(storage: RunStorage, console: Console) -> None:
    console.print("[bold]Published[/bold]")
    for table in TABLES:
        if table.published and storage.exists(table):
            console.print(f"  {storage.path(table)}  {storage.count(table):,} rows", soft_wrap=True, highlight=False)


def _print_users(storage: RunStorage, console: Console) -> None:
    rows = storage.read(RECOMMENDATIONS).join(_shown_users(storage), on="user_id", how="inner").orderBy("user_idx")
    liked = liked_titles(storage)
    for found in read_lists(storage, rows, _SHOWN_ITEMS):
        console.print(f"[bold]User {escape(found.user_id)}[/bold]", highlight=False)
        _print_items("liked", liked.get(found.user_id, []), console)
        _print_items("recommended", [item.name for item in found.items], console)
        for item in found.items:
            if item.why is not None:
                _print_items("", [f"{item.name}: {item.why}"], console)


def _print_items(word: str, texts: list[str], console: Console) -> None:
    console.print(f"  {word:<12} {escape('; '.join(texts)) or 'nothing'}", soft_wrap=True, highlight=False)


def liked_titles(storage: RunStorage) -> dict[str, list[str]]:
    """Titles of the items that the shown users rated highest, the newest first among equals."""
    by_user = Window.partitionBy("user_idx").orderBy(
        F.col("rating").desc(), F.col("last_at").desc_nulls_last(), "item_idx"
    )
    pairs = storage.read(INTERACTIONS).join(_shown_users(storage), on="user_idx", how="inner")
    best = pairs.withColumn("place", F.row_number().over(by_user)).where(F.col("place") <= _SHOWN_ITEMS)
    named = best.join(storage.read(ITEMS).select("item_idx", "item_id", "attributes"), on="item_idx", how="inner")
    title = F.coalesce(F.col("attributes")["title"], F.col("item_id")).alias("title")
    titles: dict[str, list[str]] = {}
    for row in named.select("user_id", "place", title).orderBy("user_id", "place").collect():
        titles.setdefault(row["user_id"], []).append(row["title"])
    return titles


def _shown_users(storage: RunStorage) -> DataFrame:
    return storage.read(USERS).where(F.col("user_idx") < _SHOWN_USERS).select("user_idx", "user_id")
