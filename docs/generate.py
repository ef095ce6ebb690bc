"""Writes docs/tables.md and docs/settings.md from the code: `make docs`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from recsys_spark.config import Settings
from recsys_spark.export_sections import (
    CsvExport,
    ExportSection,
    IcebergExport,
    JsonlExport,
    PostgresExport,
    RedisExport,
)
from recsys_spark.night import WRITERS
from recsys_spark.tables import TABLES, Table

EXPORTS: dict[str, type[ExportSection]] = {
    "redis": RedisExport,
    "postgres": PostgresExport,
    "jsonl": JsonlExport,
    "csv": CsvExport,
    "iceberg": IcebergExport,
}
DOCS = Path(__file__).parent
GENERATED = "<!-- Made by `make docs` from the code: edit there. -->\n"


def main() -> int:
    """Write both pages; with `--check` only say whether they are up to date."""
    pages = {"tables.md": tables_page(), "settings.md": settings_page()}
    if "--check" in sys.argv:
        stale = [name for name, text in pages.items() if (DOCS / name).read_text(encoding="utf-8") != text]
        if stale:
            print(f"out of date: {', '.join(stale)}; run `make docs`", file=sys.stderr)
        return 1 if stale else 0
    for name, text in pages.items():
        (DOCS / name).write_text(text, encoding="utf-8")
    return 0


def tables_page() -> str:
    """Every table of a run, with its columns."""
    lines = [
        GENERATED,
        "# Tables",
        "",
        "Each run writes its tables under `<root>/runs/run_date=D/run_id=R/<table>/` as Parquet. Readers resolve "
        "`<root>/_CURRENT` first (`recsys_spark.storage.pointer.read_current` does) and use the tables marked "
        "*published*; the others are the run's own and may change from version to version.",
        "",
        "`user_id` and `item_id` are external ids, as text; `user_idx` and `item_idx` are positions 0 to n - 1, kept "
        "from night to night. A score is predicted, a rating observed. Binary columns hold little-endian arrays.",
        "",
    ]
    for table in TABLES:
        lines += _table_lines(table)
    return "\n".join(lines)


def settings_page() -> str:
    """Every setting, with its default."""
    lines = [
        GENERATED,
        "# Settings",
        "",
        "A TOML file, one section a heading below. `RECSYS_SPARK__MODEL__EPOCHS=5` in the environment overrides "
        "`epochs` of `[model]`, and `--set model.epochs=5` on the command line overrides both. Unknown keys are "
        "refused. Paths may hold `~` and `${VARIABLES}`. Examples: `conf/demo.toml`, `conf/nightly.toml`, "
        "`examples/*.toml`.",
        "",
    ]
    plain = (item for item in Settings.model_fields.items() if _section(item[1]) is None)
    top = [(name, field) for name, field in plain if name != "exports"]
    lines += ["## Top level", "", *_field_table(top), ""]
    for name, field in Settings.model_fields.items():
        section = _section(field)
        if section is not None:
            lines += list(_section_lines(name, section, optional=not field.is_required() and field.default is None))
    lines += list(_export_lines())
    return "\n".join(lines)


def _table_lines(table: Table) -> list[str]:
    marks = ["*published*"] if table.published else []
    marks += [f"key: {', '.join(f'`{column}`' for column in table.key)}"] if table.key else []
    marks += [f"written by the step `{WRITERS[table.name]}`"]
    rows = [
        f"| `{column.name}` | {column.type.simpleString()} | {'yes' if column.nullable else ''} | {column.meaning} |"
        for column in table.columns
    ]
    head = ["| column | type | may be null | meaning |", "|---|---|---|---|"]
    return [f"## {table.name}", "", table.meaning, "", "; ".join(marks) + ".", "", *head, *rows, ""]


def _section_lines(name: str, section: type[BaseModel], optional: bool) -> Iterator[str]:
    note = " Optional." if optional else ""
    yield from (f"## [{name}]", "", f"{(section.__doc__ or '').strip()}{note}", "")
    plain = [(key, field) for key, field in section.model_fields.items() if _section(field) is None]
    yield from (*_field_table(plain), "")
    for key, field in section.model_fields.items():
        inner = _section(field)
        if inner is not None:
            yield from _section_lines(f"{name}.{key}", inner, optional=False)


def _export_lines() -> Iterator[str]:
    """The kinds of `[exports.NAME]`, each with its own settings after those it shares with all."""
    yield from (
        "## [exports.NAME]",
        "",
        "A store that lists are exported to, under a name of yours ([serving](serving.md)).",
        "",
    )
    shared = [(key, field) for key, field in ExportSection.model_fields.items()]
    yield from ("| setting | default | meaning |", "|---|---|---|")
    kinds = ", ".join(f"`{kind}`" for kind in EXPORTS)
    yield f"| `kind` | *required* | {kinds}: each has more settings, below. |"
    yield from (*_field_table(shared)[2:], "")
    for kind, section in EXPORTS.items():
        own = [
            (key, field)
            for key, field in section.model_fields.items()
            if key not in {*ExportSection.model_fields, "kind"}
        ]
        yield from (f'### kind = "{kind}"', "", (section.__doc__ or "").strip(), "", *_field_table(own), "")


def _field_table(fields: list[tuple[str, FieldInfo]]) -> list[str]:
    rows = [f"| `{name}` | {_default(field)} | {field.description or ''}{_choices(field)} |" for name, field in fields]
    return ["| setting | default | meaning |", "|---|---|---|", *rows]


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "*required*"
    value: Any = field.get_default(call_default_factory=True)
    if value is None or value is PydanticUndefined:
        return "none"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _choices(field: FieldInfo) -> str:
    """The words a field allows, where its description does not name them all."""
    annotation: Any = field.annotation
    kinds = [annotation, *(get_args(annotation) if get_origin(annotation) in (Union, UnionType) else ())]
    words = [word for kind in kinds if get_origin(kind) is Literal for word in get_args(kind)]
    if len(words) < 2 or all(f"`{word}`" in (field.description or "") for word in words):
        return ""
    return f" One of {', '.join(f'`{word}`' for word in words)}."


def _section(field: FieldInfo) -> type[BaseModel] | None:
    """The section class of a field, or None for a plain value."""
    kinds = [field.annotation, *getattr(field.annotation, "__args__", ())]
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)


if __name__ == "__main__":
    sys.exit(main())
