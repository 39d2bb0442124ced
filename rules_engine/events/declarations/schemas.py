"""JSON Schema as events use it: regular expressions run in linear time, instants are those of definitions."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from rules_engine.clock import parse_instant
from rules_engine.rules.text import compile_pattern

if TYPE_CHECKING:
    from jsonschema import FormatChecker
    from jsonschema.exceptions import ValidationError
    from jsonschema.protocols import Validator

#: The formats that are checked. JSON Schema's other formats are refused, because nothing would check them.
FORMATS = ("date-time", "date", "email", "ipv4", "ipv6", "uuid")


def schema_validator(schema: Mapping[str, Any]) -> Validator:
    """Compile a validator.

    >>> schema_validator({"type": "string", "format": "date-time"}).is_valid("2026-01-31T09:00:00")
    False
    """
    return _validator_class()(schema, format_checker=_format_checker())


_FINER_THAN_MICROSECONDS = re.compile(r"(\.[0-9]{6})[0-9]+", re.ASCII)


def parse_event_instant(text: str) -> int:
    """Return an instant that a sender wrote, in microseconds; digits beyond microseconds are cut off.

    Raises
    ------
    ValueError
        if the text is no instant, or has no offset.

    >>> parse_event_instant("1970-01-01T00:00:00.123456789Z")
    123456
    """
    return parse_instant(_FINER_THAN_MICROSECONDS.sub(r"\1", text))


_CLASSES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (),
}

#: Keywords that restrict no value.
_REMARKS = frozenset({"type", "description", "title", "examples"})


def quick_check(schema: Mapping[str, Any]) -> Callable[[Any], bool] | None:
    """Return a quick check for a schema with a plain type and plain bounds; None for other schemas.

    All values that pass are valid. A value that does not pass may still be valid: then the validator decides.

    >>> check = quick_check({"type": "number", "minimum": 0})
    >>> check(5), check(-5), check("5"), check(True)
    (True, False, False, False)
    """
    declared = schema.get("type")
    names = [declared] if isinstance(declared, str) else declared if isinstance(declared, list) else []
    if not names or not _CLASSES.keys() >= set(names):
        return None
    classes = frozenset(accepted for name in names for accepted in _CLASSES[name])
    bounds = {key: value for key, value in schema.items() if key not in _REMARKS}
    if not bounds:
        return lambda value: value.__class__ in classes
    low, high = (_number(bounds.pop(key, None)) for key in ("minimum", "maximum"))
    if bounds:
        return _quick_text(bounds, classes)
    if not classes <= {int, float}:
        return None
    least, most = -math.inf if low is None else low, math.inf if high is None else high

    def is_between(value: Any) -> bool:
        kind: type = value.__class__
        return kind in classes and least <= value <= most

    return is_between


def _quick_text(bounds: dict[str, Any], classes: frozenset[type]) -> Callable[[Any], bool] | None:
    if classes != {str}:
        return None
    if bounds.keys() == {"enum"}:
        choices = frozenset(value for value in bounds["enum"] if isinstance(value, str))
        return lambda value: value.__class__ is str and value in choices
    if not bounds.keys() <= {"minLength", "maxLength"}:
        return None
    least, most = bounds.get("minLength", 0), bounds.get("maxLength", math.inf)
    return lambda value: value.__class__ is str and least <= len(value) <= most


def _number(value: Any) -> int | float | None:
    return value if isinstance(value, int | float) else None


@lru_cache(maxsize=1)
def _validator_class() -> type[Validator]:
    from jsonschema import Draft202012Validator
    from jsonschema.validators import extend

    return extend(Draft202012Validator, {"pattern": _pattern, "multipleOf": _multiple_of})  # type: ignore[no-any-return, no-untyped-call]


def _pattern(_validator: Validator, pattern: str, value: object, _schema: object) -> Iterator[ValidationError]:
    from jsonschema.exceptions import ValidationError

    if isinstance(value, str) and compile_pattern(pattern).search(value) is None:
        yield ValidationError(f"{value!r} does not match {pattern!r}")


def _multiple_of(_validator: Validator, unit: float, value: object, _schema: object) -> Iterator[ValidationError]:
    """Compare numbers as they are written in decimals: 0.29 is 29 times 0.01, which floats deny."""
    from jsonschema.exceptions import ValidationError

    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return
    if Fraction(str(value)) % Fraction(str(unit)):
        yield ValidationError(f"{value!r} is not a multiple of {unit!r}")


@lru_cache(maxsize=1)
def _format_checker() -> FormatChecker:
    from jsonschema import FormatChecker

    checker = FormatChecker([name for name in FORMATS if name != "date-time"])
    checker.checks("date-time", raises=ValueError)(_is_instant)
    return checker


def _is_instant(value: object) -> bool:
    if isinstance(value, str):
        parse_event_instant(value)
    return True
