"""The parts of the editors' JSON Schema that describe triggers, and the project's consents and sinks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from rules_engine.definitions.envelope import NAME_PATTERN
from rules_engine.rules.catalog import EVENT_VIEW, Catalog
from rules_engine.rules.forms import FORMS
from rules_engine.rules.nodes import Aggregate
from rules_engine.rules.triggers.nodes import QuietPolicy
from rules_engine.rules.triggers.parse import CAUSES, MAX_CAP
from rules_engine.rules.triggers.payload import MAX_VALUES
from rules_engine.rules.triggers.sink_settings import sink_schemas
from rules_engine.rules.types import BOOLEAN, STRING, ValueType
from rules_engine.sinks.base import STREAM
from rules_engine.sinks.registry import sink_kinds

JsonSchema = dict[str, Any]

_DURATION: JsonSchema = {"$ref": "#/definitions/duration"}
_NAME: JsonSchema = {"type": "string", "pattern": NAME_PATTERN.removesuffix("(?!\\n)")}
_TIME: JsonSchema = {"type": "string", "pattern": "^([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9])?$"}
_SCALAR: JsonSchema = {"type": ["boolean", "number", "string"]}


@dataclass(frozen=True, slots=True)
class Names:
    """The names that a project's files define: segments, sinks by kind, consents, triggers.

    >>> Names(segments=("vip",)).sinks
    {}
    """

    segments: Collection[str] = ()
    sinks: Mapping[str, str | None] = field(default_factory=dict)
    consent: Collection[str] = ()
    triggers: Collection[str] = ()


def cause_schema() -> list[JsonSchema]:
    """That a trigger has one cause."""
    return [{"required": [cause]} for cause in CAUSES]


def trigger_definitions(
    catalog: Catalog, names: Names, where: Callable[[str | None], JsonSchema]
) -> dict[str, JsonSchema]:
    """By ``x-kind`` of an envelope: what stands there.

    Parameters
    ----------
    catalog
        the features and events that may be named.
    names
        what the project's files define.
    where
        gives the schema of ``where`` for an event; None is any event.
    """
    parts = _Parts(catalog, names, where)
    return {
        "event": parts.event(),
        "cap": _mapping({"max": {"type": "integer", "minimum": 1, "maximum": MAX_CAP}, "per": _DURATION}),
        "quiet_hours": parts.quiet_hours(),
        "consent": {"type": "string", "examples": sorted(names.consent)},
        "holdout": _mapping({"percent": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 100}}),
        "send": parts.send(),
        "payload": parts.payload(),
        "consents": {"type": "object", "additionalProperties": parts.features(BOOLEAN)},
        "sinks": _sinks(),
    }


class _Parts:
    def __init__(self, catalog: Catalog, names: Names, where: Callable[[str | None], JsonSchema]) -> None:
        self._catalog = catalog
        self._names = names
        self._where = where
        self._events: list[str | None] = [*sorted(catalog.events)] if catalog.closed else [None]

    def event(self) -> JsonSchema:
        each = [
            _mapping({"did": {"const": event} if event else _SCALAR, "where": self._where(event)}, ("did",))
            for event in self._events
        ]
        return {"type": "object", "anyOf": each} if each else {"not": {}}

    def quiet_hours(self) -> JsonSchema:
        zones: list[JsonSchema] = [
            {"type": "string", "examples": ["Europe/Oslo", "America/New_York"]},
            _mapping({"feature": self.features(STRING)}),
        ]
        policies = [policy.value for policy in QuietPolicy]
        summary = "`defer` waits until they end, `drop` does nothing; `defer` if it is not given."
        return _mapping(
            {
                "from": _TIME,
                "to": _TIME,
                "timezone": {"anyOf": zones, "description": "An IANA time zone, or the feature that holds one."},
                "policy": {"enum": policies, "description": summary},
            },
            ("from", "to", "timezone"),
        )

    def features(self, value_type: ValueType | None) -> JsonSchema:
        """The features of a type, or of any."""
        found = [one.key for one in self._catalog.features.values() if value_type in (None, one.type) and one.type]
        if value_type is None:
            found += [f"{EVENT_VIEW}:{name}" for name in self._catalog.event_features]
        return {"enum": sorted(found)} if found and self._catalog.closed else {"type": "string"}

    def send(self) -> JsonSchema:
        each = []
        for kind in (STREAM, *sink_kinds()):
            known = sorted(name for name, found in self._names.sinks.items() if found == kind)
            each.append(_mapping({kind: {**_NAME, "examples": known}}))
        return {"type": "array", "minItems": 1, "items": {"anyOf": each}}

    def payload(self) -> JsonSchema:
        value = {"anyOf": [_SCALAR, {"type": "array", "items": _SCALAR}, {"type": "null"}]}
        each = [
            _mapping({"feature": self.features(None)}, description="A feature's value when the trigger fires."),
            _mapping({"value": value}, description="The same value in every action."),
            *(self._aggregate(one.value, event) for one in Aggregate for event in self._events),
        ]
        return {
            "type": "object",
            "minProperties": 1,
            "maxProperties": MAX_VALUES,
            "additionalProperties": {"type": "object", "anyOf": each},
        }

    def _aggregate(self, head: str, event: str | None) -> JsonSchema:
        declared = sorted(self._catalog.events[event].properties) if event else []
        inner: JsonSchema = {"event": {"const": event} if event else _SCALAR, "where": self._where(event)}
        required = ["event"]
        if head != Aggregate.COUNT.value:
            inner["of"] = {"enum": declared} if declared else {"type": "string"}
            required.append("of")
        window = {"$ref": "#/definitions/window", "description": "As long as the event is kept, if it is not given."}
        summary = FORMS[head].summary if head in FORMS else "how many such events there were"
        parts = {head: _mapping(inner, required), "within": window}
        return _mapping(parts, (head,), description=f"{summary[0].upper()}{summary[1:]}.")


def _sinks() -> JsonSchema:
    each = sink_schemas()
    return {"type": "object", "propertyNames": _NAME, "additionalProperties": {"type": "object", "anyOf": each}}


def _mapping(
    properties: Mapping[str, JsonSchema], required: Collection[str] | None = None, description: str = ""
) -> JsonSchema:
    """A mapping with these keys, all of which are required unless it is said which are."""
    schema: JsonSchema = {
        "type": "object",
        "properties": dict(properties),
        "required": list(properties if required is None else required),
        "additionalProperties": False,
    }
    return {**schema, "description": description} if description else schema
