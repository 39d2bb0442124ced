"""Event declarations as plain data in the read plan, so that the request path reads no YAML and compiles no schema."""

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
    >>> events = "{visit: {retention: 30d, aliases: [Visited], features: {visits_7d: {count: , within: 7d}}}}"
    >>> declared = parse_events(f"{{events: {events}, traits: profile}}")
    >>> decode_declarations(encode_declarations(declared)) == declared
    True
    """
    return {
        "events": {
            name: {
                "properties": {key: encode(value_type) for key, value_type in declaration.type.properties.items()},
                "retention": declaration.type.retention,
                "description": declaration.type.description,
                "schemas": dict(declaration.schemas),
                "required": list(declaration.required),
                "id": declaration.id_property,
                **({"aliases": list(declaration.aliases)} if declaration.aliases else {}),
            }
            for name, declaration in declarations.events.items()
        },
        "features": {name: encode(aggregate) for name, aggregate in declarations.features.items()},
        **({"traits": declarations.traits} if declarations.traits else {}),
    }


def decode_features(data: Mapping[str, Any]) -> dict[str, EventAggregate]:
    """Return the named windowed features, by name."""
    return {name: decode(aggregate) for name, aggregate in data["features"].items()}


def decode_declarations(data: Mapping[str, Any]) -> EventDeclarations:
    """Decode what :func:`encode_declarations` made."""
    from rules_engine.events.declarations.events_yaml import EventDeclaration, EventDeclarations

    events = {}
    for name, event in data["events"].items():
        properties = {key: decode(value_type) for key, value_type in event["properties"].items()}
        event_type = EventType(name, properties, event["retention"], event["description"])
        required, aliases = tuple(event["required"]), tuple(event.get("aliases", ()))
        events[name] = EventDeclaration(event_type, event["schemas"], required, event["id"], aliases)
    return EventDeclarations(events, decode_features(data), data.get("traits"))
