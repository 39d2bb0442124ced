"""Random triggers, as plain data: those of `tests.reference_triggers`, and as a document of YAML has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from hypothesis import strategies as st

from tests.property import pools
from tests.property.leaves import Draw, Vocabulary, draw_where, maybe, one_of
from tests.property.strategies import draw_condition
from tests.reference_values import length

CONSENT = "u:consent"
LENGTHS = ("1s", "10s", "1m", "30m", "1h", "1d")
TAGS = ("mail", "push")
NIGHTS = ("00:00", "00:30", "02:30", "06:30", "09:00", "17:00", "21:00")
PAYLOADS: Mapping[str, Any] = {
    "number": ("count", {"count": {"event": "view"}, "within": "1h"}),
    "worth": ("sum", {"sum": {"event": "cart", "of": "price"}, "within": "1d"}),
    "latest": ("last", {"last": {"event": "view", "of": "sku"}, "within": "ever"}),
    "zone": ("feature", "u:zone"),
    "fixed": ("value", "x"),
}


def draw_trigger(draw: Draw, words: Vocabulary, names: Sequence[str]) -> dict[str, Any]:
    def wait() -> timedelta:
        return length(one_of(draw, LENGTHS))

    options: dict[str, tuple[int, Callable[[], Any]]] = {
        "delay": (60, wait),
        "cancel_if": (40, lambda: draw_condition(draw, words, names, 2)),
        "if": (25, lambda: draw_condition(draw, words, names, 2)),
        "cooldown": (25, lambda: None if maybe(draw, 15) else wait()),
        "cap": (25, lambda: (draw(st.integers(1, 3)), None if maybe(draw, 15) else wait())),
        "priority": (30, lambda: one_of(draw, (-1, 0, 5, 5, 1_000))),
        "tags": (50, lambda: list(TAGS[: draw(st.integers(1, len(TAGS)))])),
        "consent": (20, lambda: CONSENT),
        "holdout": (15, lambda: one_of(draw, (0.01, 50, 99.99, 100))),
        "quiet": (45, lambda: draw_quiet(draw, words)),
        "payload": (40, lambda: PAYLOADS),
    }
    kind = one_of(draw, ("enter", "enter", "enter", "exit", "event", "event"))
    listened = {"did": one_of(draw, pools.EVENTS), **draw_where(draw, words, 30)}
    drawn = {key: make() for key, (percent, make) in options.items() if maybe(draw, percent)}
    if kind == "event" and "payload" in drawn:
        drawn["payload"] = {**PAYLOADS, "what": ("property", "sku")}
    return {"on": (kind, listened if kind == "event" else one_of(draw, names)), **drawn}


def draw_limits(draw: Draw) -> list[tuple[int, timedelta, str | None]]:
    """Draw limits on how often triggers fire together, no two of the same time and tag."""
    limits = {
        (one_of(draw, LENGTHS), one_of(draw, (None, *TAGS))): draw(st.integers(1, 4))
        for _ in range(draw(st.integers(0, 3)))
    }
    return [(most, length(per), tag) for (per, tag), most in limits.items()]


def draw_quiet(draw: Draw, words: Vocabulary) -> dict[str, Any]:
    start, end = draw(st.lists(st.sampled_from(NIGHTS), min_size=2, max_size=2, unique=True))
    feature = {"feature": "u:zone"}
    zone = one_of(draw, (words.zone, words.zone, feature, {**feature, "default": "Europe/Berlin"}))
    return {"from": start, "to": end, "timezone": zone, "policy": one_of(draw, ("defer", "defer", "drop"))}


def document_of(name: str, trigger: Mapping[str, Any]) -> dict[str, Any]:
    """Return a drawn trigger as its document."""
    kind, on = trigger["on"]
    document = {"trigger": name, f"on_{kind}": on, "send": [{"stream": "actions"}]}
    document |= {key: trigger[key] for key in ("if", "cancel_if", "priority", "tags") if key in trigger}
    document |= {key: _text(trigger[key]) for key in ("delay", "cooldown") if key in trigger}
    if "cap" in trigger:
        document["cap"] = {"max": trigger["cap"][0], "per": _text(trigger["cap"][1])}
    if "consent" in trigger:
        document["requires_consent"] = "mail"
    if "holdout" in trigger:
        document["holdout"] = {"percent": trigger["holdout"]}
    if "quiet" in trigger:
        zone = trigger["quiet"]["timezone"]
        document["quiet_hours"] = {**trigger["quiet"], "timezone": zone}
    if "payload" in trigger:
        document["payload"] = {key: _payload(*value) for key, value in trigger["payload"].items()}
    return document


def _payload(form: str, what: Any) -> Any:
    return {form: what} if form in ("feature", "value", "property") else what


def _text(long: timedelta | None) -> str:
    return "ever" if long is None else f"{long // timedelta(seconds=1)}s"
