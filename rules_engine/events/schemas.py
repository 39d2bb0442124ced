"""JSON Schema as events use it: regular expressions run in linear time, instants are those of definitions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from rules_engine.clock import parse_instant
from rules_engine.rules.text import compile_pattern

if TYPE_CHECKING:
    from jsonschema import FormatChecker
    from jsonschema.exceptions import ValidationError
    from jsonschema.protocols import Validator

#: The formats that are checked. Others of JSON Schema would be mere notes, and are refused.
FORMATS = ("date-time", "date", "email", "ipv4", "ipv6", "uuid")


def schema_validator(schema: Mapping[str, Any]) -> Validator:
    """A compiled validator.

    >>> schema_validator({"type": "string", "format": "date-time"}).is_valid("2026-01-31T09:00:00")
    False
    """
    return _validator_class()(schema, format_checker=_format_checker())


@lru_cache(maxsize=1)
def _validator_class() -> type[Validator]:
    from jsonschema import Draft202012Validator
    from jsonschema.validators import extend

    return extend(Draft202012Validator, {"pattern": _pattern})  # type: ignore[no-any-return, no-untyped-call]


def _pattern(_validator: Validator, pattern: str, value: object, _schema: object) -> Iterator[ValidationError]:
    from jsonschema.exceptions import ValidationError

    if isinstance(value, str) and compile_pattern(pattern).search(value) is None:
        yield ValidationError(f"{value!r} does not match {pattern!r}")


@lru_cache(maxsize=1)
def _format_checker() -> FormatChecker:
    from jsonschema import FormatChecker

    checker = FormatChecker([name for name in FORMATS if name != "date-time"])
    checker.checks("date-time", raises=ValueError)(_is_instant)
    return checker


def _is_instant(value: object) -> bool:
    if isinstance(value, str):
        parse_instant(value)
    return True
