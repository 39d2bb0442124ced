"""Events that were refused, as they are set aside with the reason: ``segments ingest --dead-letters`` lists them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from rules_engine.clock import from_micros, now_micros
from rules_engine.events.declarations.validation import MAX_BYTES, Rejection
from rules_engine.events.streams import FIELD, MAX_REFUSED, refused_key

#: A refused event of more bytes is too large to become a good one; of it, only the beginning is kept.
MAX_KEPT, CUT_TO = 2 * MAX_BYTES, 10_000


@dataclass(frozen=True, slots=True)
class Refused:
    """An event that was refused: what was given, and the reason."""

    raw: bytes
    rejection: Rejection

    def content(self, source: str) -> tuple[bytes, bytes]:
        """Return what was given, and the reason, for the stream of refused events."""
        at = from_micros(now_micros()).isoformat()
        reason = {"code": self.rejection.code, "message": self.rejection.message, "source": source, "refused_at": at}
        return self.raw if len(self.raw) <= MAX_KEPT else self.raw[:CUT_TO], orjson.dumps(reason)

    def command(self, project: str, source: str) -> tuple[Any, ...]:
        """Return the command of Redis that sets the event aside. ``source`` says where it came from."""
        raw, reason = self.content(source)
        return "XADD", refused_key(project), "MAXLEN", "~", MAX_REFUSED, "*", FIELD, raw, b"reason", reason


def as_bytes(raw: Mapping[str, Any]) -> bytes:
    """Return what was given as an event, as it is set aside."""
    try:
        return orjson.dumps(raw, default=str, option=orjson.OPT_NON_STR_KEYS)
    except TypeError:  # numbers beyond 64 bits, half a surrogate pair, nesting without end
        return ascii(raw).encode()
