"""The JSON Schema of a trigger's document, and of the cases that test it."""

from __future__ import annotations

from rules_engine.definitions.case_schema import INPUTS, MOMENT
from rules_engine.definitions.envelope import NAME_PATTERN
from rules_engine.rules.aggregates import AGGREGATES, Aggregate
from rules_engine.rules.parsing.shares import SHARE
from rules_engine.rules.schema_parts import (
    DURATION,
    NAME,
    SCALAR,
    TIME_OF_DAY,
    JsonSchema,
    SchemaParts,
    feature_schema,
    mapping_schema,
)
from rules_engine.rules.triggers.nodes import QuietPolicy
from rules_engine.rules.triggers.parse import CAUSES, MAX_CAP, MAX_PRIORITY
from rules_engine.rules.triggers.payload import MAX_VALUES
from rules_engine.rules.types import STRING
from rules_engine.sinks.base import STREAM
from rules_engine.sinks.registry import sink_kinds

#: A trigger has one cause.
EDITOR_RULES: JsonSchema = {"oneOf": [{"required": [cause]} for cause in CAUSES]}

ENVELOPE: JsonSchema = {
    "type": "object",
    "description": "What is done when somebody enters or leaves a segment, or an event comes.",
    "required": ["trigger", "send"],
    "additionalProperties": False,
    "properties": {
        "trigger": {
            "type": "string",
            "pattern": NAME_PATTERN,
            "description": "The trigger's name: small letters, digits and underscores.",
        },
        "description": {"type": "string", "description": "What the trigger is for, for people."},
        "owner": {"type": "string", "description": "Whom to ask about it."},
        "tags": {"type": "array", "items": {"type": "string"}, "description": "Words to find it by."},
        "on_enter": {"x-kind": "segment_name", "description": "It starts when somebody enters this segment."},
        "on_exit": {"x-kind": "segment_name", "description": "It starts when somebody's membership of this ends."},
        "on_event": {"x-kind": "event", "description": "It starts when such an event comes."},
        "if": {"x-kind": "condition", "description": "Judged when it is due: it fires only if this is true."},
        "delay": {"x-kind": "duration", "description": "How long it waits before it fires."},
        "cancel_if": {"x-kind": "condition", "description": "Judged as long as it waits: true ends the waiting."},
        "cooldown": {"x-kind": "duration_or_ever", "description": "How long it does not fire again for one entity."},
        "cap": {"x-kind": "cap", "description": "How often it fires for one entity, in how long a time."},
        "quiet_hours": {"x-kind": "quiet_hours", "description": "The local times at which it does not fire."},
        "requires_consent": {"x-kind": "consent", "description": "The consent, by its name in `project:`."},
        "priority": {
            "type": "integer",
            "minimum": -MAX_PRIORITY,
            "maximum": MAX_PRIORITY,
            "description": "Of triggers that are due at one instant, the higher ones are decided first; else it is 0.",
        },
        "holdout": {"x-kind": "holdout", "description": "The share of entities that get nothing, to compare with."},
        "send": {"x-kind": "send", "description": "The sinks that the action goes to."},
        "payload": {"x-kind": "payload", "description": "What the action tells: names and values."},
    },
}

_DURATION_OR_EVER: JsonSchema = {"anyOf": [DURATION, {"const": "ever"}]}

_REASONS = ["holdout", "condition", "consent", "timezone", "quiet_hours", "cooldown", "cap", "frequency"]


def _outcome(**further: JsonSchema) -> JsonSchema:
    return {
        "type": "array",
        "items": {**MOMENT, "properties": {**MOMENT["properties"], **further}},
    }


#: The JSON Schema of one case of a test.
CASE: JsonSchema = {
    "type": "object",
    "required": ["name"],
    "additionalProperties": False,
    "properties": {
        **{key: INPUTS[key] for key in ("name", "features", "updated_at", "events", "at", "entity")},
        "until": {
            **MOMENT,
            "description": "How far the clock runs; else to the last instant that is named.",
        },
        "fires": {
            **_outcome(payload={"type": "object", "description": "Some of what is sent, by name."}),
            "description": "Every instant at which it fires.",
        },
        "cancelled": {**_outcome(), "description": "Every instant at which it is cancelled."},
        "suppressed": {
            **_outcome(reason={"enum": _REASONS, "description": "What keeps it from firing."}),
            "description": "Every instant at which it is due and does not fire.",
        },
    },
}


def describe_parts(parts: SchemaParts) -> dict[str, JsonSchema]:
    """Return by ``x-kind`` of the envelope what stands there."""
    described = _Parts(parts)
    return {
        "duration_or_ever": _DURATION_OR_EVER,
        "event": described.event(),
        "cap": mapping_schema({"max": {"type": "integer", "minimum": 1, "maximum": MAX_CAP}, "per": _DURATION_OR_EVER}),
        "quiet_hours": described.quiet_hours(),
        "consent": {"type": "string", "examples": sorted(parts.names.consent)},
        "holdout": SHARE,
        "send": described.send(),
        "payload": described.payload(),
    }


class _Parts:
    def __init__(self, parts: SchemaParts) -> None:
        self._catalog = parts.catalog
        self._names = parts.names
        self._where = parts.where
        self._events: list[str | None] = [*sorted(self._catalog.events)] if self._catalog.closed else [None]

    def event(self) -> JsonSchema:
        each = [
            mapping_schema({"did": {"const": event} if event else SCALAR, "where": self._where(event)}, ("did",))
            for event in self._events
        ]
        return {"type": "object", "anyOf": each} if each else {"not": {}}

    def quiet_hours(self) -> JsonSchema:
        zones: list[JsonSchema] = [
            {"type": "string", "examples": ["Europe/Oslo", "America/New_York"]},
            mapping_schema(
                {"feature": feature_schema(self._catalog, STRING), "default": {"type": "string"}}, ("feature",)
            ),
        ]
        policies = [policy.value for policy in QuietPolicy]
        summary = "`defer` waits until they end, `drop` does nothing; `defer` if it is not given."
        return mapping_schema(
            {
                "from": TIME_OF_DAY,
                "to": TIME_OF_DAY,
                "timezone": {
                    "anyOf": zones,
                    "description": "An IANA time zone, or the feature that holds one, with a `default`.",
                },
                "policy": {"enum": policies, "description": summary},
            },
            ("from", "to", "timezone"),
        )

    def send(self) -> JsonSchema:
        each = []
        for kind in (STREAM, *sink_kinds()):
            names = sorted(name for name, sink_kind in self._names.sinks.items() if sink_kind == kind)
            each.append(mapping_schema({kind: {**NAME, "examples": names}}))
        return {"type": "array", "minItems": 1, "items": {"anyOf": each}}

    def payload(self) -> JsonSchema:
        feature = feature_schema(self._catalog, None)
        value = {"anyOf": [SCALAR, {"type": "array", "items": SCALAR}, {"type": "null"}]}
        each = [
            mapping_schema({"feature": feature}, description="A feature's value when the trigger fires."),
            mapping_schema({"property": self._property()}, description="A property of the event that started it."),
            mapping_schema({"value": value}, description="The same value in every action."),
            *(self._aggregate(aggregate.value, event) for aggregate in Aggregate for event in self._events),
        ]
        return {
            "type": "object",
            "minProperties": 1,
            "maxProperties": MAX_VALUES,
            "additionalProperties": {"type": "object", "anyOf": each},
        }

    def _property(self) -> JsonSchema:
        names = sorted({name for event in self._catalog.events.values() for name in event.properties})
        return {"type": "string", "examples": names}

    def _aggregate(self, head: str, event: str | None) -> JsonSchema:
        declared = sorted(self._catalog.events[event].properties) if event else []
        inner: JsonSchema = {"event": {"const": event} if event else SCALAR, "where": self._where(event)}
        required = ["event"]
        if head != Aggregate.COUNT.value:
            inner["of"] = {"enum": declared} if declared else {"type": "string"}
            required.append("of")
        window = {"$ref": "#/definitions/window", "description": "As long as the event is kept, if it is not given."}
        summary = AGGREGATES[Aggregate(head)].summary
        parts = {head: mapping_schema(inner, required), "within": window}
        return mapping_schema(parts, (head,), description=f"{summary[0].upper()}{summary[1:]}.")
