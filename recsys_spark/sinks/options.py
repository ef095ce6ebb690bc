"""What a data source is told: plain values as the texts that Spark hands on, and what they mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import UTC, date, datetime
from typing import Any, Self, TypeVar, get_type_hints

from recsys_spark.errors import SettingsError

Value = TypeVar("Value", int, float, str)
_PARSERS: dict[Any, Any] = {int: int, float: float, str: str}


@dataclass(frozen=True)
class Options:
    """Base of the options of a data source: every field is an option of that name, None where it is left out."""

    @classmethod
    def parse(cls, given: Mapping[str, str]) -> Self:
        """From the options of a Spark writer, whatever their case.

        Raises:
            SettingsError: for a missing or unknown option, or a value that cannot be read; never repeats a value.
        """
        named = {field.name.replace("_", ""): field.name for field in fields(cls)}
        found = {str(key).lower().replace("_", ""): value for key, value in given.items()}
        unknown = sorted(set(found) - set(named) - {"path"})
        if unknown:
            raise SettingsError(f"unknown option {', '.join(unknown)}: there are {', '.join(sorted(named.values()))}")
        types = get_type_hints(cls)
        texts = {named[key]: value for key, value in found.items() if key in named}
        try:
            return cls(**{name: _parsed(text, types[name]) for name, text in texts.items()})
        except TypeError:
            missing = sorted(set(named.values()) - set(texts))
            raise SettingsError(f"an option is missing, one of {', '.join(missing)}") from None
        except ValueError:
            raise SettingsError("an option that should be a number is none") from None

    def as_texts(self) -> dict[str, str]:
        """The options for a Spark writer; `parse` gives the same again."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: str(value) for name, value in given.items() if value is not None}


def _parsed(text: str, hint: Any) -> Any:
    kinds = [kind for kind in getattr(hint, "__args__", (hint,)) if kind is not type(None)]
    if kinds == [bool]:
        return text.lower() == "true"
    return _PARSERS[kinds[0]](text)


def checked_run_date(text: str) -> str:
    """An ISO date.

    Raises:
        SettingsError: when it is none.
    """
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError:
        raise SettingsError(f"run_date {text!r} is not a date of the form 2026-11-22") from None


def now_iso() -> str:
    """The time now, in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
