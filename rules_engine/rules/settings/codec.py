"""A project's settings as JSON and back: a read plan carries them beside the segments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rules_engine.errors import ProjectError
from rules_engine.rules.codec import decode_part, encode_part
from rules_engine.rules.nodes import FeatureRef
from rules_engine.rules.settings.nodes import Frequency, Role, ServiceSettings, Settings
from rules_engine.sinks.registry import sink_kinds
from rules_engine.sinks.settings import SinkSettings

#: Names of kinds of sinks in plans that were written before they became plain.
_EARLIER_SINKS = {"WebhookSettings": "webhook", "KafkaSettings": "kafka", "FileSettings": "file"}


def encode_settings(settings: Settings) -> dict[str, Any]:
    """Return consents, sinks, the service's settings and the holdout as plain JSON data, to be put beside the segments.

    >>> from rules_engine.sinks.kinds.file import FileSettings
    >>> sinks = {"audit": FileSettings("audit", "audit.jsonl")}
    >>> decode_sinks(encode_settings(Settings(sinks=sinks))) == sinks
    True
    """
    sinks = {name: sink.encode() for name, sink in sorted(settings.sinks.items())}
    service = encode_service(settings.service)
    frequency = {str(limit): limit for limit in settings.frequency}
    return (
        encode_part("consent", settings.consent)
        | encode_part("frequency", frequency)
        | ({"sinks": sinks} if sinks else {})
        | ({"service": service} if service else {})
        | ({"holdout": {"share": settings.holdout}} if settings.holdout else {})
    )


def encode_service(service: ServiceSettings) -> dict[str, Any]:
    """Return the service's settings as they are written in YAML; what is empty is left out.

    >>> decode_service({"service": {"keys": {"read": ["${SHOP_KEY}"]}}}).keys[Role.READ]
    ('${SHOP_KEY}',)
    """
    content = {
        "keys": {role.value: list(texts) for role, texts in service.keys.items()},
        "cors": list(service.cors),
        "requests_per_second": {role.value: rate for role, rate in service.requests_per_second.items()},
    }
    return {name: value for name, value in content.items() if value}


def decode_service(definitions: Mapping[str, Any]) -> ServiceSettings:
    """Return the service's settings of a read plan's ``definitions``; they are empty where there are none."""
    content = definitions.get("service", {})
    return ServiceSettings(
        {Role(role): tuple(texts) for role, texts in content.get("keys", {}).items()},
        tuple(content.get("cors", ())),
        {Role(role): float(rate) for role, rate in content.get("requests_per_second", {}).items()},
    )


def decode_settings(definitions: Mapping[str, Any]) -> Settings:
    """Return the settings in a read plan's ``definitions``; the project's name and ``now`` are elsewhere in the plan.

    Raises
    ------
    ValueError
        if the data was not written by :func:`encode_settings`.
    """
    consent, sinks = decode_consent(definitions), decode_sinks(definitions)
    service, frequency = decode_service(definitions), decode_frequency(definitions)
    return Settings(
        consent=consent, sinks=sinks, service=service, frequency=frequency, holdout=decode_holdout(definitions)
    )


def decode_frequency(definitions: Mapping[str, Any]) -> tuple[Frequency, ...]:
    """Return the limits of a read plan's ``definitions`` on how often triggers may fire.

    Raises
    ------
    ValueError
        if the data was not written by :func:`encode_settings`.
    """
    return tuple(decode_part("frequency", definitions, (Frequency,)).values())


def decode_holdout(definitions: Mapping[str, Any]) -> float:
    """Return the share of entities that take part in no experiment, from 0 to 1."""
    return float(definitions.get("holdout", {}).get("share", 0.0))


def decode_consent(definitions: Mapping[str, Any]) -> dict[str, FeatureRef]:
    """Return the consents of a read plan's ``definitions``, by name.

    Raises
    ------
    ValueError
        if the data was not written by :func:`encode_settings`.
    """
    return decode_part("consent", definitions)


def decode_sinks(definitions: Mapping[str, Any]) -> dict[str, SinkSettings]:
    """Return the sinks of a read plan's ``definitions``, by name; ``${VARIABLES}`` in them are not expanded.

    Raises
    ------
    ValueError
        if the data was not written by :func:`encode_settings`.
    ProjectError
        if a package that brings a kind of sink is not installed here.
    """
    return {name: _decoded_sink(data) for name, data in definitions.get("sinks", {}).items()}


def _decoded_sink(data: Mapping[str, Any]) -> SinkSettings:
    kind: str = data["sink"] if "sink" in data else _EARLIER_SINKS.get(data.get("node", ""), "")
    if kind not in sink_kinds():
        message = f"the applied definitions send to a sink of the kind `{kind}`, which is not known"
        raise ProjectError(message, hint="install the package that brings it, or run `segments apply` here")
    return sink_kinds()[kind].decode(data)
