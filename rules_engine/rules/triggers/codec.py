"""Triggers as JSON and back: a read plan carries them beside the segments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rules_engine.rules.codec import decode_part, encode_part
from rules_engine.rules.settings.nodes import Consent, SinkRef
from rules_engine.rules.triggers import nodes
from rules_engine.rules.triggers.nodes import Trigger

_CLASSES = (
    nodes.OnEnter,
    nodes.OnExit,
    nodes.OnEvent,
    nodes.Cap,
    nodes.QuietHours,
    nodes.Constant,
    nodes.EventProperty,
    nodes.Trigger,
    nodes.QuietPolicy,
    Consent,
    SinkRef,
)


def encode_triggers(triggers: Mapping[str, Trigger]) -> dict[str, Any]:
    """Return the triggers as plain JSON data, to be put beside the segments; nothing if there are none.

    >>> from rules_engine.rules.triggers.nodes import OnEnter
    >>> trigger = Trigger("mail", OnEnter("vip"), (SinkRef("stream", "mails"),), delay=60_000_000)
    >>> decode_triggers(encode_triggers({"mail": trigger})) == {"mail": trigger}
    True
    """
    return encode_part("triggers", triggers)


def decode_triggers(definitions: Mapping[str, Any]) -> dict[str, Trigger]:
    """Return the triggers of a read plan's ``definitions``, by name; none in a plan of an earlier version.

    Raises
    ------
    ValueError
        if the data was not written by :func:`encode_triggers`.
    """
    return decode_part("triggers", definitions, _CLASSES)
