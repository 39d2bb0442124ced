"""The JSON Schema of conditions, for editors.

Derived from the operator table, the table of forms and the catalog: there is no second description of the language. It
knows the project's own features, events, properties and segments by name.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from rules_engine.rules.arithmetic import ON_TWO, Operation
from rules_engine.rules.catalog import EVENT_VIEW, Catalog
from rules_engine.rules.forms import (
    ANCHORS,
    CLOCKS,
    EVENT_INSTANT,
    FORMS,
    MAX_NTH,
    NTH_REQUIRED,
    TIME_PARTS,
    TWO_SIDED,
    WEEKDAYS,
    WHERE_GROUPS,
    Form,
    Shape,
)
from rules_engine.rules.operators import COUNT_OPERATORS, OPERATORS, Argument, Operator, operators_for
from rules_engine.rules.parsing.shares import SEEDED_SHARE
from rules_engine.rules.right_side_schema import RIGHT_SIDE, property_side, right_side_definitions
from rules_engine.rules.schema_parts import JsonSchema, feature_schema, mapping_schema
from rules_engine.rules.text import MAX_PATTERN_LENGTH
from rules_engine.rules.types import FLOAT, INTEGER, STRING, Kind, ValueType
from rules_engine.rules.window_schema import CALENDAR_SPAN, DURATION, EVENT_WINDOW, FIXED_ZONE, WINDOW

_COMPUTED = "What numbers of the event come to: properties and constants, e.g. {product: [quantity, price]}."

_LITERALS: dict[Kind, JsonSchema] = {
    Kind.BOOLEAN: {"type": "boolean"},
    Kind.INTEGER: {"type": "number"},
    Kind.FLOAT: {"type": "number"},
    Kind.STRING: {"type": "string"},
    Kind.TIME: {
        "type": "string",
        "format": "date-time",
        "description": "An instant with an offset, e.g. 2026-01-31T09:00:00Z.",
    },
    Kind.TIME_OF_DAY: {"type": "string", "pattern": "^([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9])?$"},
    Kind.DAY_OF_WEEK: {"enum": list(WEEKDAYS)},
}
_ANY_LITERAL: JsonSchema = {"type": ["boolean", "number", "string"]}
_FLAG_OPTIONS: dict[str, JsonSchema] = {
    "ignore_case": {"type": "boolean", "description": "Compare strings without regard to case."},
    "or_missing": {"type": "boolean", "description": "`true`: a missing value fulfils the condition."},
}


class ConditionSchema:
    """Describes conditions, with the names that the catalog holds and those of segments."""

    def __init__(self, catalog: Catalog, segments: Collection[str] = ()) -> None:
        self._catalog = catalog
        self._segments = sorted(segments)

    def definitions(self) -> JsonSchema:
        """Return the definitions of conditions and of what stands in them, by name."""
        forms = [schema for form in FORMS.values() for schema in self._form(form)]
        return {
            "condition": {"type": "object", "anyOf": forms},
            "segment_name": {"type": "string", "examples": self._segments},
            "event_name": self._event_name(),
            **{_where_of(name): self._where(name) for name in (None, *sorted(self._catalog.events))},
            "duration": DURATION,
            "window": EVENT_WINDOW,
            **right_side_definitions(
                feature_schema(self._catalog, None),
                [self._source_of(event) for event in self._event_names()],
                EVENT_WINDOW,
            ),
        }

    def _event_name(self) -> JsonSchema:
        names = sorted(self._catalog.events)
        return {"enum": names} if names and self._catalog.closed else {"type": "string", "examples": names}

    # --- forms ------------------------------------------------------------------------------------------------------

    def _form(self, form: Form) -> list[JsonSchema]:
        builders: dict[Shape, Callable[[], list[JsonSchema]]] = {
            Shape.CONDITIONS: lambda: [_object(form, {form.head: _list_of("condition")})],
            Shape.CONDITION: lambda: [_object(form, {form.head: {"$ref": "#/definitions/condition"}})],
            Shape.SEGMENT: lambda: [_object(form, {form.head: {"$ref": "#/definitions/segment_name"}})],
            Shape.FEATURE: lambda: self._feature(form),
            Shape.NAME: lambda: [self._context(form)],
            Shape.CLOCK: lambda: [self._clock(form, name) for name in CLOCKS],
            Shape.SHARE: lambda: [_object(form, {form.head: SEEDED_SHARE})],
            Shape.EVENT: lambda: self._per_event(form, self._did),
            Shape.EVENT_PROPERTY: lambda: self._per_event(form, self._aggregate),
            Shape.FIRST_EVENT: lambda: self._per_event(form, self._did),
            Shape.NTH_EVENT: lambda: self._per_event(form, self._nth),
            Shape.EVENTS: lambda: [self._did_any(form)] if self._event_names() else [],
            Shape.TERMS: lambda: [self._calculation(form)],
            Shape.EVENT_DAYS: lambda: self._per_event(form, self._days),
            Shape.STEPS: lambda: [self._sequence(form)] if self._event_names() else [],
        }
        return builders[form.shape]()

    def _feature(self, form: Form) -> list[JsonSchema]:
        """Return an alternative per type, so that an editor offers only the operators that fit the feature."""
        by_type: dict[ValueType, list[str]] = {}
        for feature in self._catalog.features.values():
            if feature.type is not None:
                by_type.setdefault(feature.type, []).append(feature.key)
        for name, aggregate in self._catalog.event_features.items():
            if aggregate.type is not None:
                by_type.setdefault(aggregate.type, []).append(f"{EVENT_VIEW}:{name}")
        if not self._catalog.closed:
            return [_object(form, {form.head: {"type": "string"}, **_operators(None), **_FLAG_OPTIONS}, operator=True)]
        return [
            _object(
                form,
                {form.head: {"enum": sorted(keys)}, **_operators(value_type), **_options(value_type)},
                operator=True,
            )
            for value_type, keys in by_type.items()
        ]

    def _context(self, form: Form) -> JsonSchema:
        default = {"description": "The value where the caller passes none."}
        return _object(
            form,
            {form.head: {"type": "string"}, "default": default, **_operators(None), **_FLAG_OPTIONS},
            operator=True,
        )

    def _clock(self, form: Form, name: str) -> JsonSchema:
        kind = Kind.TIME_OF_DAY if name == "time_of_day" else Kind.DAY_OF_WEEK
        features = [feature.key for feature in self._catalog.features.values() if feature.type == STRING]
        zone_feature = {"enum": sorted(features)} if features and self._catalog.closed else {"type": "string"}
        zone = {
            "description": "An IANA time zone, or the feature that holds one.",
            "anyOf": [
                {"type": "string", "examples": ["Europe/Oslo", "America/New_York"]},
                {
                    "type": "object",
                    "properties": {"feature": zone_feature},
                    "required": ["feature"],
                    "additionalProperties": False,
                },
            ],
        }
        operators = {key: value for key, value in _operators(ValueType(kind), None).items() if key != "exists"}
        return _object(form, {form.head: {"const": name}, "timezone": zone, **operators}, operator=True)

    # --- events -----------------------------------------------------------------------------------------------------

    def _per_event(self, form: Form, build: Any) -> list[JsonSchema]:
        """Return an alternative per declared event, so that an editor offers that event's properties."""
        return [build(form, name) for name in self._event_names()]

    def _any_event(self) -> JsonSchema:
        return {"enum": sorted(self._catalog.events)} if self._catalog.closed else {"type": "string"}

    def _event_names(self) -> list[str | None]:
        """Return the events that may be named; a single None if any may. If empty, there are no event conditions."""
        return [*sorted(self._catalog.events)] if self._catalog.closed else [None]

    def _did(self, form: Form, event: str | None) -> JsonSchema:
        properties = {form.head: _name(event), "within": EVENT_WINDOW, "where": self.where(event)}
        if "count" in form.optional:
            properties["count"] = _count(RIGHT_SIDE)
        return _object(form, properties)

    def _aggregate(self, form: Form, event: str | None) -> JsonSchema:
        inner = self._source_of(event)
        options = {key: value for key, value in _FLAG_OPTIONS.items() if key in form.optional}
        return _object(form, {form.head: inner, "within": EVENT_WINDOW, **_operators(None), **options}, operator=True)

    def _source_of(self, event: str | None) -> JsonSchema:
        """Return what an aggregate is of: an event and its property."""
        return {
            "type": "object",
            "properties": {
                "event": _name(event),
                "of": self._of(event),
                "where": self.where(event),
            },
            "required": ["event", "of"],
            "additionalProperties": False,
        }

    def _of(self, event: str | None) -> JsonSchema:
        """Return the schema of ``of``: a property, or an operation on some."""
        properties = self._catalog.events[event].properties if event else {}
        numbers = sorted(name for name, each in properties.items() if each.kind.is_number and not each.is_list)
        number = {"anyOf": [{"enum": numbers} if properties else {"type": "string"}, {"type": "number"}]}
        operations = [
            mapping_schema({each.value: {"type": "array", "minItems": 2, "items": number}}, description=_COMPUTED)
            for each in Operation
        ]
        return {"anyOf": [{"enum": sorted(properties)} if properties else {"type": "string"}, *operations]}

    def _did_any(self, form: Form) -> JsonSchema:
        """Return the schema of a count of several events; in ``where`` stands what each of them has."""
        names = {"type": "array", "minItems": 2, "uniqueItems": True, "items": {"$ref": "#/definitions/event_name"}}
        where = {"type": "object", "minProperties": 1}
        return _object(form, {form.head: names, "within": EVENT_WINDOW, "where": where, "count": _count(None)})

    def _calculation(self, form: Form) -> JsonSchema:
        most = {"maxItems": 2} if Operation(form.head) in ON_TWO else {}
        terms = {"type": "array", "minItems": 2, **most, "items": {"$ref": "#/definitions/right_value"}}
        operators = _operators(FLOAT, side=None)
        return _object(form, {form.head: terms, "or_missing": _FLAG_OPTIONS["or_missing"], **operators}, operator=True)

    def _nth(self, form: Form, event: str | None) -> JsonSchema:
        number = {"type": "integer", "minimum": 1, "maximum": MAX_NTH, "description": "The second event is 2."}
        keys = {"event": _name(event), "n": number, "of": self._of(event), "where": self.where(event)}
        inner = mapping_schema(keys, NTH_REQUIRED)
        return _object(
            form, {form.head: inner, "within": EVENT_WINDOW, **_operators(None), **_FLAG_OPTIONS}, operator=True
        )

    def _days(self, form: Form, event: str | None) -> JsonSchema:
        inner = mapping_schema({"event": _name(event), "where": self.where(event), "timezone": FIXED_ZONE}, ("event",))
        return _object(form, {form.head: inner, "within": EVENT_WINDOW, **_operators(INTEGER)}, operator=True)

    def where(self, event: str | None) -> JsonSchema:
        """Return the schema of ``where`` for an event; None is any event."""
        has_properties = event is not None and self._catalog.events[event].properties
        return {"$ref": f"#/definitions/{_where_of(event)}" if has_properties else "#/definitions/where"}

    def _where(self, event: str | None) -> JsonSchema:
        """Return what ``where`` is for an event, to be referred to: groups of conditions have it inside."""
        declared = self._catalog.events[event].properties if event else {}
        whole = {"$ref": f"#/definitions/{_where_of(event)}"}
        groups = {word: {"type": "array", "minItems": 1, "items": whole} for word in WHERE_GROUPS}
        properties = {name: self._property_condition(value_type, declared) for name, value_type in declared.items()}
        others = False if declared else self._property_condition(None)
        return {
            "type": "object",
            "minProperties": 1,
            "properties": {**properties, **groups, "not": whole, EVENT_INSTANT: _event_instant()},
            "additionalProperties": others,
        }

    def _property_condition(self, value_type: ValueType | None, properties: Collection[str] = ()) -> JsonSchema:
        sides = property_side(properties)
        operators = {
            key: value for key, value in _operators(value_type, sides).items() if OPERATORS[key].boundaries is None
        }
        comparison = {
            "type": "object",
            "properties": {**operators, **_options(value_type)},
            "additionalProperties": False,
            "oneOf": [{"required": [key]} for key in operators],
        }
        if value_type is not None and value_type.is_list:
            return comparison
        return {"anyOf": [_literal(value_type), comparison]}

    def _sequence(self, form: Form) -> JsonSchema:
        steps = [self._step(head, event) for head in ("did", "did_not") for event in self._event_names()]
        properties = {
            form.head: {"type": "array", "minItems": 2, "items": {"anyOf": steps}},
            "within": {
                **WINDOW,
                "description": "How long it stays true, from the first step's event; else for ever.",
            },
            "match_on": {"type": "string", "description": "A property on which every step's event agrees."},
            "anchor": {
                "enum": list(ANCHORS),
                "description": "`any` first step completes, or only the `latest` is judged.",
            },
        }
        return _object(form, properties)

    def _step(self, head: str, event: str | None) -> JsonSchema:
        within = {**DURATION, "description": "Counted from where the step before it matched; of `did_not`, a gap."}
        name = _name(event)
        if head == "did_not":  # of several events each has its own properties, so `where` is not offered for them
            name = {"anyOf": [name, {"type": "array", "minItems": 1, "items": self._any_event()}]}
        return {
            "type": "object",
            "properties": {head: name, "within": within, "where": self.where(event)},
            "required": [head],
            "additionalProperties": False,
        }


def _count(side: JsonSchema | None) -> JsonSchema:
    """Return the schema of ``count``; ``side`` is that of another value that it may be compared with."""
    return {
        "type": "object",
        "properties": {key: _argument(OPERATORS[key], INTEGER, side) for key in sorted(COUNT_OPERATORS)},
        "additionalProperties": False,
        "minProperties": 1,
        "maxProperties": 1,
        "description": "How many; at least 1 if it is not given.",
    }


def _where_of(event: str | None) -> str:
    """Return the name of the definition of ``where`` for an event; None is any event."""
    return f"where_of_{event}" if event else "where"


def _event_instant() -> JsonSchema:
    """Return the schema of ``at`` in ``where``."""
    kinds = {"time_of_day": Kind.TIME_OF_DAY, "day_of_week": Kind.DAY_OF_WEEK}
    parts = {}
    for part in TIME_PARTS:
        value_type = ValueType(kinds[part])
        operators = {key: value for key, value in _operators(value_type).items() if key != "exists"}
        comparison = {**mapping_schema(operators, ()), "oneOf": [{"required": [key]} for key in operators]}
        parts[part] = {"anyOf": [_literal(value_type), comparison]}
    described = "The local time at which the event happened."
    return {**mapping_schema({**parts, "timezone": FIXED_ZONE}, (), described), "minProperties": 1}


def _object(form: Form, properties: JsonSchema, operator: bool = False) -> JsonSchema:
    """Return a mapping with exactly these keys, those that the form requires, and one operator."""
    schema = {
        "type": "object",
        "description": f"{form.summary[0].upper()}{form.summary[1:]}. Example: {form.example}",
        "properties": properties,
        "required": [form.head, *form.required],
        "additionalProperties": False,
    }
    if operator:
        schema["oneOf"] = [{"required": [key]} for key in properties if key in OPERATORS]
    return schema


def _list_of(definition: str) -> JsonSchema:
    return {"type": "array", "minItems": 1, "items": {"$ref": f"#/definitions/{definition}"}}


def _name(event: str | None) -> JsonSchema:
    return {"const": event} if event else {"$ref": "#/definitions/event_name"}


def _options(value_type: ValueType | None) -> JsonSchema:
    strings = value_type is None or value_type == STRING
    return {key: schema for key, schema in _FLAG_OPTIONS.items() if strings or key != "ignore_case"}


def _operators(value_type: ValueType | None, side: JsonSchema | None = RIGHT_SIDE) -> JsonSchema:
    """Return the operators that fit a type, each with the schema of what is written after it.

    ``side`` is the schema of another value, for the operators after which one may stand.
    """
    names = OPERATORS if value_type is None else operators_for(value_type.kind, value_type.is_list)
    return {name: _argument(OPERATORS[name], value_type, side) for name in names}


def _argument(operator: Operator, value_type: ValueType | None, side: JsonSchema | None) -> JsonSchema:
    literal = _literal(value_type)
    shapes: dict[Argument, JsonSchema] = {
        Argument.LITERAL: literal,
        Argument.LITERALS: {"type": "array", "minItems": 1, "items": literal},
        Argument.PAIR: {"type": "array", "minItems": 2, "maxItems": 2, "items": literal},
        Argument.FLAG: {"type": "boolean"},
        Argument.DURATION: DURATION,
        Argument.CALENDAR: CALENDAR_SPAN,
        Argument.TEXT: {"type": "string", "minLength": 1},
        Argument.PATTERN: {"type": "string", "maxLength": MAX_PATTERN_LENGTH},
    }
    shape = shapes[operator.argument]
    if side is not None and operator.name in TWO_SIDED:
        shape = {"anyOf": [shape, side]}
    return {**shape, "description": f"The value {operator.summary}. Example: {operator.example}"}


def _literal(value_type: ValueType | None) -> JsonSchema:
    return _ANY_LITERAL if value_type is None else _LITERALS.get(value_type.kind, _ANY_LITERAL)
