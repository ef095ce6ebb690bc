"""Prints what there is to learn from, which models suit it and why, and the settings to paste."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from recsys_spark.advising import advise, advised_sections
from recsys_spark.config import with_changes
from recsys_spark.errors import SettingsError
from recsys_spark.session import open_session
from recsys_spark.survey import Side, Survey, survey_inputs
from recsys_spark.transforms.survey import FEW

if TYPE_CHECKING:
    from recsys_spark.config import Settings


def print_advice(settings: Settings, console: Console) -> None:
    """Print which models suit the data of these settings."""
    survey = survey_inputs(open_session(settings), settings)
    advices = advise(survey, settings)
    console.print(_grid(_facts(survey)))
    for title, is_optional in (("What suits it", False), ("Worth a try, one at a time", True)):
        chosen = [advice for advice in advices if advice.is_optional == is_optional]
        if chosen:
            console.print(f"\n[bold]{title}[/bold]")
            console.print(_grid((advice.what, advice.why) for advice in chosen))
    _print_fragment(settings, advised_sections(advices), console)


def changed_sections(settings: Settings, sections: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """What of the advised settings differs from those in force."""
    changed: dict[str, dict[str, Any]] = {}
    for section, values in sections.items():
        in_force = getattr(settings, section).model_dump(mode="json")
        different = {key: value for key, value in values.items() if in_force[key] != value}
        if different:
            changed[section] = different
    return changed


def as_toml(settings: Settings, sections: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Lines to paste; a section that the settings have is marked, because TOML takes each once."""
    for section, values in sections.items():
        mark = "  # you have this section: set these in it" if section in settings.model_fields_set else ""
        yield f"[{section}]{mark}"
        yield from (f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in values.items())
        yield ""


def _print_fragment(settings: Settings, sections: Mapping[str, Mapping[str, Any]], console: Console) -> None:
    changed = changed_sections(settings, sections)
    if not changed:
        console.print("\nYour settings are what is advised.")
        return
    console.print("\n[bold]Settings to use[/bold]")
    console.print("\n".join(as_toml(settings, changed)), markup=False, highlight=False, soft_wrap=True)
    try:
        with_changes(settings, changed)
    except SettingsError as error:
        console.print(f"They do not go with other settings of yours: {error}", markup=False, soft_wrap=True)
    console.print(
        "Then: recsys-spark plan, what a night takes; recsys-spark compare, what the models gain.", highlight=False
    )


def _facts(survey: Survey) -> Iterator[tuple[str, str]]:
    yield "Rows", f"{survey.events + survey.rejected:,} events, {survey.rejected:,} of them rejected"
    yield "Interactions", f"{survey.interactions:,} user-item pairs, density {survey.density:.3%}"
    yield "Users", _side(survey.users)
    yield "Items", _side(survey.items)
    yield (
        "Times",
        f"{survey.ordered_share:.0%} of the users have interactions in an order" if survey.has_times else "none",
    )
    yield "Ratings", _ratings(survey)
    for attribute in survey.attributes:
        yield (
            f"  {attribute.name}",
            f"{attribute.filled_share:.0%} of the items have it, {attribute.words:.1f} words each",
        )


def _side(side: Side) -> str:
    return (
        f"{side.known:,}, of which {side.cold_share:.1%} without an interaction and {side.few_share:.1%} with fewer "
        f"than {FEW}; {side.median:,} in the median of the others"
    )


def _ratings(survey: Survey) -> str:
    if survey.ratings is None:
        return "none"
    low, high = survey.ratings
    return f"{low:g} to {high:g}" if survey.ratings_vary else f"all {low:g}"


def _grid(rows: Iterator[tuple[str, str]]) -> Grid:
    grid = Grid(show_header=False, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    grid.add_column(max_width=44)
    grid.add_column(overflow="fold")
    for name, text in rows:
        grid.add_row(Text(name), Text(text))
    return grid
