"""Values, predicates and times of the brute-force reference; see `tests.reference`."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from tests.reference_calendar import has_anniversary, in_units

Truth = bool | None
Condition = Mapping[str, Any]
Event = Mapping[str, Any]

RELATIVE_TIME = ("in_last", "not_in_last", "in_next", "in_calendar", "anniversary_in")
STRING_OPERATORS = ("contains", "starts_with", "ends_with", "matches")
ORDER_OPERATORS = ("greater_than", "at_least", "less_than", "at_most", "between")
DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


@dataclass(frozen=True)
class World:
    """Everything a condition may look at."""

    now: datetime
    features: Mapping[str, Any] = field(default_factory=dict)
    context: Mapping[str, Any] = field(default_factory=dict)
    events: Sequence[Event] = ()
    types: Mapping[str, str] = field(default_factory=dict)
    segments: Mapping[str, Condition] = field(default_factory=dict)
    updated_at: Mapping[str, datetime] = field(default_factory=dict)
    ttl: Mapping[str, timedelta] = field(default_factory=dict)
    entity: str | None = None
    properties: Mapping[str, Any] = field(default_factory=dict)


def fnv(text: str) -> int:
    """Return the 32-bit hash of Fowler, Noll and Vo, of the "1a" kind, over UTF-16 code units."""
    value = 2_166_136_261
    encoded = text.encode("utf-16-be")
    for high, low in zip(encoded[::2], encoded[1::2], strict=True):
        value = (value ^ (high * 256 + low)) * 16_777_619 % 2**32
    return value


def bucket_of(seed: str, key: str) -> int:
    """Return which of 10,000 buckets a key is in."""
    return fnv(str(fnv(seed + key))) % 10_000


def _stored(value: Any) -> Any:
    """Return a value as the store keeps it: times in whole seconds."""
    if isinstance(value, list | tuple):
        return [_stored(item) for item in value]
    return value.replace(microsecond=0) if isinstance(value, datetime) else value


def feature_value(name: str, world: World) -> Any:
    """Return the value of a feature now: None if its row is past the ttl of the view."""
    view = name.split(":", maxsplit=1)[0]
    if view in world.updated_at and view in world.ttl and world.now > world.updated_at[view] + world.ttl[view]:
        return None
    return _stored(world.features.get(name))


def context_value(condition: Condition, world: World) -> Any:
    given = world.context.get(condition["context"])
    return condition.get("default") if given is None else given


def kind_of_type(feast_type: str | None) -> str | None:
    """Only a time has to be told from its literal's type, a string."""
    return "time" if feast_type in ("UnixTimestamp", "Array(UnixTimestamp)") else None


def kind(value: Any) -> str:
    """Name the type of a value; no two kinds ever compare."""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str):
        return "string"
    if isinstance(value, datetime):
        return "time"
    if isinstance(value, bytes):
        return "bytes"
    if isinstance(value, list | tuple):
        return "list"
    return "other"


def clean(value: Any) -> Any:
    """Return the value, with NaN as None and without null elements."""
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, list | tuple):
        return [element for element in value if clean(element) is not None]
    return value


def operator_of(spec: Mapping[str, Any]) -> str:
    (name,) = [key for key in spec if key in COMPARE or key == "exists"]
    return name


def predicate(spec: Mapping[str, Any], value: Any, now: datetime, operand: str | None = None) -> Truth:
    """Judge `value` by the one operator in `spec`."""
    name = operator_of(spec)
    literal = spec[name]
    value = clean(value)
    if name == "exists":
        return (value is not None) is literal
    wanted = operand or wanted_kind(name, literal, value)
    if value is None or not fits(name, wanted, value):
        return True if spec.get("or_missing") else None
    if wanted == "time" and name not in RELATIVE_TIME:
        literal = [instant(item) for item in literal] if isinstance(literal, list) else instant(literal)
    if spec.get("ignore_case"):
        if name == "matches":
            return found(literal, value, ignore_case=True)
        value, literal = lowered(value), lowered_literal(literal)
    return compare(name, value, literal, now)


def wanted_kind(name: str, literal: Any, value: Any) -> str:
    """Return the kind of value that the literal asks for."""
    if name in ("before", "after", *RELATIVE_TIME):
        return "time"
    if name in STRING_OPERATORS:
        return "string"
    sample = literal[0] if isinstance(literal, list) else literal
    if kind(sample) == "string" and (name in ORDER_OPERATORS or kind(value) == "time"):
        return "time"
    return kind(sample)


def fits(name: str, wanted: str, value: Any) -> bool:
    if name.startswith("includes"):
        return kind(value) == "list" and all(kind(element) == wanted for element in value)
    return kind(value) == wanted


def within_last(value: datetime, literal: str, now: datetime) -> bool:
    return now - length(literal) < value <= now


COMPARE: dict[str, Callable[[Any, Any, datetime], bool]] = {
    "equals": lambda value, literal, _: value == literal,
    "not_equals": lambda value, literal, _: value != literal,
    "in": lambda value, literal, _: value in literal,
    "not_in": lambda value, literal, _: value not in literal,
    "greater_than": lambda value, literal, _: value > literal,
    "after": lambda value, literal, _: value > literal,
    "at_least": lambda value, literal, _: value >= literal,
    "less_than": lambda value, literal, _: value < literal,
    "before": lambda value, literal, _: value < literal,
    "at_most": lambda value, literal, _: value <= literal,
    "between": lambda value, literal, _: literal[0] <= value <= literal[1],
    "in_last": within_last,
    "not_in_last": lambda value, literal, now: not within_last(value, literal, now),
    "in_next": lambda value, literal, now: now < value <= now + length(literal),
    "in_calendar": lambda value, literal, now: in_units(literal, value, now),
    "anniversary_in": lambda value, literal, now: has_anniversary(literal, value, now),
    "contains": lambda value, literal, _: literal in value,
    "starts_with": lambda value, literal, _: value.startswith(literal),
    "ends_with": lambda value, literal, _: value.endswith(literal),
    "matches": lambda value, literal, _: found(literal, value),
    "includes": lambda value, literal, _: literal in value,
    "includes_any": lambda value, literal, _: any(item in value for item in literal),
    "includes_all": lambda value, literal, _: all(item in value for item in literal),
    "includes_none": lambda value, literal, _: not any(item in value for item in literal),
}


def compare(name: str, value: Any, literal: Any, now: datetime) -> bool:
    """Apply an operator to a present value of the right kind. Python compares int with float exactly."""
    return bool(COMPARE[name](value, literal, now))


def lowered(text: str) -> str:
    """Lowercase one code point at a time; what would grow stays, except the dotted capital I."""
    return "".join(lowered_letter(letter) for letter in text)


def lowered_letter(letter: str) -> str:
    if letter == "\u0130":
        return "i"
    small = letter.lower()
    return small if len(small) == 1 else letter


def lowered_literal(literal: Any) -> Any:
    return [lowered(item) for item in literal] if isinstance(literal, list) else lowered(literal)


def found(pattern: str, text: str, ignore_case: bool = False) -> bool:
    r"""Search in Python's dialect, in which `$` and `\s` mean more than in the subset."""
    parts = re.findall(r"\\x\{[0-9A-Fa-f]+\}|\\x..|\\.|.", pattern, re.DOTALL)
    translated, in_class = "", False
    for part in parts:
        translated += python_part(part, in_class)
        in_class = (in_class or part == "[") and part != "]"
    return re.search(translated, text, re.IGNORECASE if ignore_case else re.NOFLAG) is not None


def python_part(part: str, in_class: bool) -> str:
    r"""Translate one element; `\d \w \s` are ASCII even where letters fold by Unicode."""
    sets = {r"\d": "0-9", r"\w": "0-9A-Za-z_", r"\s": r"\t\n\f\r "}
    if in_class:
        return {"[": r"\[", **sets}.get(part, part)
    if part.lower() in sets:
        return f"[{'^' if part.isupper() else ''}{sets[part.lower()]}]"
    return {"$": r"\Z", r"\b": r"(?a:\b)", r"\B": r"(?a:\B)", r"\z": r"\Z"}.get(part, part)


def duration(text: str) -> timedelta | None:
    """Return a duration, None for `ever`."""
    return None if text == "ever" else timedelta(seconds=int(text[:-1]) * UNITS[text[-1]])


def length(text: str) -> timedelta:
    long = duration(text)
    if long is None:
        raise ValueError("ever is not a length")
    return long


def instant(text: str | datetime) -> datetime:
    return (text if isinstance(text, datetime) else datetime.fromisoformat(text)).astimezone(UTC)


def zone_of(condition: Condition, world: World) -> tzinfo | None:
    """Return the zone of a clock condition, None if it is missing or no zone has that name."""
    name = condition.get("timezone", "UTC")
    if isinstance(name, Mapping):
        name = feature_value(name["feature"], world)
    try:
        return ZoneInfo(name) if isinstance(name, str) else None
    except (ValueError, OSError, ZoneInfoNotFoundError):
        return None


def time_of_day(text: str) -> int:
    """Return the seconds since midnight of HH:MM or HH:MM:SS."""
    hour, minute, second = [int(part) for part in [*text.split(":"), "0"][:3]]
    return hour * 3600 + minute * 60 + second
