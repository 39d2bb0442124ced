"""Triggers, and what belongs to them, as JSON and back: a read plan carries them beside the segments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rules_engine.rules.codec import CLASSES, ENUMS, decode, encode
from rules_engine.rules.nodes import FeatureRef
from rules_engine.rules.triggers import nodes as trigger_nodes
from rules_engine.rules.triggers.nodes import SinkSettings, Trigger

_CLASSES = CLASSES | {
    cls.__name__: cls
    for cls in (
        trigger_nodes.OnEnter,
        trigger_nodes.OnExit,
        trigger_nodes.OnEvent,
        trigger_nodes.Cap,
        trigger_nodes.QuietHours,
        trigger_nodes.Consent,
        trigger_nodes.Constant,
        trigger_nodes.SinkRef,
        trigger_nodes.Trigger,
        trigger_nodes.WebhookSettings,
        trigger_nodes.KafkaSettings,
        trigger_nodes.FileSettings,
    )
}
_ENUMS = ENUMS | {cls.__name__: cls for cls in (trigger_nodes.QuietPolicy, trigger_nodes.SinkKind)}


def encode_triggers(
    triggers: Mapping[str, Trigger],
    consent: Mapping[str, FeatureRef] | None = None,
    sinks: Mapping[str, SinkSettings] | None = None,
) -> dict[str, Any]:
    """Triggers, consents and sinks as plain JSON data, to be put beside the segments; what is empty is left out.

    >>> from rules_engine.rules.triggers.nodes import OnEnter, SinkKind, SinkRef
    >>> trigger = Trigger("mail", OnEnter("vip"), (SinkRef(SinkKind.STREAM, "mails"),), delay=60_000_000)
    >>> decode_triggers(encode_triggers({"mail": trigger})) == {"mail": trigger}
    True
    """
    parts = {"triggers": triggers, "consent": consent or {}, "sinks": sinks or {}}
    return {part: {name: encode(values[name]) for name in sorted(values)} for part, values in parts.items() if values}


def decode_triggers(definitions: Mapping[str, Any]) -> dict[str, Trigger]:
    """The triggers of a read plan's ``definitions``, by name; none in a plan of an earlier version.

    Raises
    ------
    ValueError
        if the data was not written by :func:`encode_triggers`.
    """
    return _decoded(definitions, "triggers")


def decode_consent(definitions: Mapping[str, Any]) -> dict[str, FeatureRef]:
    """The consents of a read plan's ``definitions``, by name.

    Raises
    ------
    ValueError
        if the data was not written by :func:`encode_triggers`.
    """
    return _decoded(definitions, "consent")


def decode_sinks(definitions: Mapping[str, Any]) -> dict[str, SinkSettings]:
    """The sinks of a read plan's ``definitions``, by name; ``${VARIABLES}`` in them are not expanded.

    Raises
    ------
    ValueError
        if the data was not written by :func:`encode_triggers`.
    """
    return _decoded(definitions, "sinks")


def _decoded(definitions: Mapping[str, Any], part: str) -> dict[str, Any]:
    try:
        return {name: decode(data, _CLASSES, _ENUMS) for name, data in definitions.get(part, {}).items()}
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"not encoded {part}: {error!r}") from error
