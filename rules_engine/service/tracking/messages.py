"""Reads what the formats of messages have in common, or says why that cannot be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rules_engine.events.declarations.schemas import parse_event_instant
from rules_engine.events.declarations.validation import MAX_INSTANT_LENGTH, Rejection
from rules_engine.events.refused import Refused, as_bytes


class UnclearMessageError(Exception):
    """Ends the reading of a message. ``rejection`` says why."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.rejection = Rejection(code, message)


def refused(content: object, rejection: Rejection) -> Refused:
    """Return a message as it is set aside."""
    return Refused(as_bytes(content) if isinstance(content, Mapping) else ascii(content).encode(), rejection)


def object_in(content: object, what: str) -> Mapping[str, Any]:
    """Return what is a JSON object.

    Raises
    ------
    UnclearMessageError
        if it is none.
    """
    if not isinstance(content, Mapping):
        raise UnclearMessageError("invalid-event", f"{what} is a JSON object")
    return content


def instant_in(written: object, key: str) -> int:
    """Return an instant that a sender wrote, in microseconds.

    Raises
    ------
    UnclearMessageError
        if it is none.
    """
    if not isinstance(written, str) or len(written) > MAX_INSTANT_LENGTH:
        raise UnclearMessageError("invalid-instant", f"`{key}` is ISO 8601 text with an offset")
    try:
        return parse_event_instant(written)
    except ValueError as error:
        raise UnclearMessageError("invalid-instant", f"`{key}`: {error}") from None
