"""Triggers, and what belongs to them, as JSON and back: a read plan carries them beside the segments."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rules_engine.errors import ProjectError
from rules_engine.rules.codec import CLASSES, ENUMS, decode, encode
from rules_engine.rules.nodes import FeatureRef
from rules_engine.rules.triggers import nodes as trigger_nodes
from rules_engine.rules.triggers.nodes import Trigger
from rules_engine.sinks.registry import sink_kinds
from rules_engine.sinks.settings import SinkSettings

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
    )
}
#: Plans that were written before kinds of sinks became plain names call them ``SinkKind``.
_ENUMS: Mapping[str, Callable[[Any], Any]] = {**ENUMS, "QuietPolicy": trigger_nodes.QuietPolicy, "SinkKind": str}
_EARLIER_SINKS = {"WebhookSettings": "webhook", "KafkaSettings": "kafka", "FileSettings": "file"}


def encode_triggers(
    triggers: Mapping[str, Trigger],
    consent: Mapping[str, FeatureRef] | None = None,
    sinks: Mapping[str, SinkSettings] | None = None,
) -> dict[str, Any]:
    """Triggers, consents and sinks as plain JSON data, to be put beside the segments; what is empty is left out.

    >>> from rules_engine.rules.triggers.nodes import OnEnter, SinkRef
    >>> trigger = Trigger("mail", OnEnter("vip"), (SinkRef("stream", "mails"),), delay=60_000_000)
    >>> decode_triggers(encode_triggers({"mail": trigger})) == {"mail": trigger}
    True
    """
    parts = {
        "triggers": {name: encode(triggers[name]) for name in sorted(triggers)},
        "consent": {name: encode(feature) for name, feature in sorted((consent or {}).items())},
        "sinks": {name: settings.encode() for name, settings in sorted((sinks or {}).items())},
    }
    return {part: values for part, values in parts.items() if values}


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
    ProjectError
        if a package that brings a kind of sink is not installed here.
    """
    return {name: _decoded_sink(data) for name, data in definitions.get("sinks", {}).items()}


def _decoded_sink(data: Mapping[str, Any]) -> SinkSettings:
    kind: str = data["sink"] if "sink" in data else _EARLIER_SINKS.get(data.get("node", ""), "")
    if kind not in sink_kinds():
        hint = "install the package that brings it, or run `segments apply` here"
        raise ProjectError(
            f"the applied definitions send to a sink of the kind `{kind}`, which is not known", hint=hint
        )
    return sink_kinds()[kind].decode(data)


def _decoded(definitions: Mapping[str, Any], part: str) -> dict[str, Any]:
    try:
        return {name: decode(data, _CLASSES, _ENUMS) for name, data in definitions.get(part, {}).items()}
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"not encoded {part}: {error!r}") from error
