"""Write the causes of transitions and of instances of triggers as people read them."""

from __future__ import annotations

from rules_engine.clock import format_instant


def cause_text(value: str) -> str:
    """Return a cause with the instant in it, which is in microseconds, as ISO 8601.

    >>> cause_text("enter:abandoned:1659391257552000")
    'enter:abandoned:2022-08-01T22:00:57.552000Z'
    >>> cause_text("event:visit:a1")
    'event:visit:a1'
    """
    kind, _, rest = value.partition(":")
    name, _, at = rest.rpartition(":")
    if kind in ("enter", "exit") and name and at.lstrip("-").isdigit():
        return f"{kind}:{name}:{format_instant(int(at))}"
    return value
