"""Event declarations as the read plan carries them: no YAML is read and no schema compiled to answer a request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rules_engine.rules.catalog import EventType
from rules_engine.rules.codec import decode, encode
from rules_engine.rules.nodes import EventAggregate

if TYPE_CHECKING:
    from rules_engine.events.declarations.events_yaml import EventDeclarations


def encode_declarations(declarations: EventDeclarations) -> dict[str, Any]:
    """Return the declarations as plain JSON data.

    >>> from rules_engine.events.declarations.events_yaml import parse_events
    >>> text = "events: {visit: {retention: 30d, features: {visits_7d: {count: , within: 7d}}}}"
    >>> declared = parse_events(text)
    >>> decode_declarations(encode_declarations(declared)) == declared
    True
    """
    return {
        "events": {
            name: {
                "properties": {key: encode(value_type) for key, value_type in found.type.properties.items()},
                "retention": found.type.retention,
                "description": found.type.description,
                "schemas": dict(found.schemas),
                "required": list(found.required),
                "id": found.id_property,
            }
            for name, found in declarations.events.items()
        },
        "features": {name: encode(aggregate) for name, aggregate in declarations.features.items()},
    }


def decode_features(data: Mapping[str, Any]) -> dict[str, EventAggregate]:
    """Return the named windowed features, by name."""
    return {name: decode(aggregate) for name, aggregate in data["features"].items()}


def decode_declarations(data: Mapping[str, Any]) -> EventDeclarations:
    """Decode what :func:`encode_declarations` made."""
    from rules_engine.events.declarations.events_yaml import EventDeclaration, EventDeclarations

    events = {}
    for name, found in data["events"].items():
        properties = {key: decode(value_type) for key, value_type in found["properties"].items()}
        event_type = EventType(name, properties, found["retention"], found["description"])
        events[name] = EventDeclaration(event_type, found["schemas"], tuple(found["required"]), found["id"])
    return EventDeclarations(events, decode_features(data))
