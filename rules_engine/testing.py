"""Evaluate a condition on values given in code, for tests and for trying things out.

>>> evaluate({"feature": "user:country", "in": ["NO", "SE"]}, features={"user:country": "NO"})
True
>>> evaluate("not: {feature: user:country, equals: NO}") is None  # nothing is known, so nothing is claimed
True
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from rules_engine.clock import now_micros, parse_duration, to_micros
from rules_engine.definitions.source import Node, from_plain, read_documents
from rules_engine.diagnostics import Diagnostic
from rules_engine.errors import DataError, DefinitionError
from rules_engine.events.declarations.properties import property_type
from rules_engine.rules.catalog import Catalog, EventType, Feature
from rules_engine.rules.changes import changes_at as next_change
from rules_engine.rules.evaluate import Evaluation
from rules_engine.rules.inputs import Event, Inputs, in_order
from rules_engine.rules.nodes import Condition, Segment
from rules_engine.rules.parsing.conditions import ConditionParser
from rules_engine.rules.parsing.literals import Refusal
from rules_engine.rules.predicates import Truth
from rules_engine.rules.program import Program
from rules_engine.rules.types import (
    BOOLEAN,
    BYTES,
    FLOAT,
    INTEGER,
    STRING,
    TIME,
    Value,
    ValueType,
    conform,
    from_feast_name,
    stored,
)

#: The name under which the condition is known in the program of a :class:`Scenario`.
CONDITION = "condition"

ConditionLike = Mapping[str, Any] | str


class Scenario:
    """Holds a condition, parsed against the types of the given values, with these values as inputs.

    ``updated_at`` says when each view's row was observed, and ``ttl`` (durations such as ``30d``) how long it counts;
    ``entity`` is the key by which samples are drawn.
    Every target's tests start from here: ``program`` holds the condition as the segment :data:`CONDITION`, beside the
    other ``segments``.

    Raises
    ------
    DefinitionError
        if the condition or a segment is refused.
    DataError
        if a value has no place in a feature, a time has no offset, or a type name is unknown.
    """

    def __init__(
        self,
        condition: ConditionLike,
        features: Mapping[str, Any] | None = None,
        context: Mapping[str, Any] | None = None,
        events: Iterable[Mapping[str, Any]] = (),
        now: datetime | None = None,
        *,
        types: Mapping[str, str] | None = None,
        segments: Mapping[str, ConditionLike] | None = None,
        updated_at: Mapping[str, datetime] | None = None,
        ttl: Mapping[str, str] | None = None,
        properties: Mapping[str, Mapping[str, Any]] | None = None,
        entity: str | None = None,
    ) -> None:
        lifetimes = {view: parse_duration(text) for view, text in (ttl or {}).items()}
        plain_events = [dict(event) for event in events]
        self.now = now_micros() if now is None else _instant(now)
        self.catalog = _catalog(features or {}, types or {}, plain_events, lifetimes, properties or {})
        self.program = _program({**(segments or {}), CONDITION: condition}, self.catalog)
        observed = {view: _instant(at) for view, at in (updated_at or {}).items()}
        self.inputs = Inputs(
            features={key: self._feature(key, value, types or {}) for key, value in (features or {}).items()},
            context=context or {},
            events=in_order(self._event(event, position) for position, event in enumerate(plain_events)),
            updated_at=observed,
            expires_at={view: at + lifetimes[view] + 1 for view, at in observed.items() if view in lifetimes},
            entity=entity,
        )

    def _feature(self, key: str, value: Any, types: Mapping[str, str]) -> Value:
        converted = _value(value)
        if types.get(key) == "Float32" and isinstance(converted, float):
            converted = struct.unpack("<f", struct.pack("<f", converted))[0]
        feature = self.catalog.features.get(key)
        return stored(converted, feature.type if feature else None)

    def _event(self, content: Mapping[str, Any], position: int) -> Event:
        """Return an event; a property that is declared as a time is kept only if it is a datetime."""
        event = _event(content, position)
        declared = self.catalog.events[event.name].properties if event.name in self.catalog.events else {}
        times = (name for name, value_type in declared.items() if value_type == TIME)
        wrong = {name for name in times if not isinstance(content.get(name), datetime)}
        properties = {name: value for name, value in event.properties.items() if name not in wrong}
        return Event(event.name, event.at, event.id, properties)

    def truth(self) -> Truth:
        """Return the answer of the plain evaluator."""
        return Evaluation(self.program, self.inputs, self.now).segment(CONDITION)

    def changes_at(self) -> int | None:
        """Return the next instant at which the answer changes by time alone, in microseconds; None if never."""
        return next_change(self.program, self.program.segment(CONDITION).when, self.inputs, self.now)


def evaluate(
    condition: ConditionLike,
    features: Mapping[str, Any] | None = None,
    context: Mapping[str, Any] | None = None,
    events: Iterable[Mapping[str, Any]] = (),
    now: datetime | None = None,
    *,
    types: Mapping[str, str] | None = None,
    segments: Mapping[str, ConditionLike] | None = None,
    entity: str | None = None,
    properties: Mapping[str, Mapping[str, Any]] | None = None,
) -> bool | None:
    """Return the answer of a condition on the given values: True, False, or None for unknown.

    Parameters
    ----------
    condition
        a dict, or YAML text.
    features
        by ``"view:name"``. Types are taken from the values unless ``types`` names them; times are aware datetimes, of
        which whole seconds count, as Feast stores no more of a feature.
    context
        values that a caller would pass with a request.
    events
        dicts with ``event``, ``at`` (an aware datetime), optionally ``event_id``, and properties.
    now
        the instant of evaluation; the wall clock if it is not given.
    types
        Feast type names by feature, e.g. ``{"user:age": "Int64"}``.
    segments
        conditions of other segments by name, for ``in_segment``.
    entity
        the key by which ``sample`` draws; without one, who is in a sample is unknown.
    properties
        by event the JSON Schemas of its properties, as in events.yaml, e.g.
        ``{"purchase": {"amount": {"type": "number", "multipleOf": 0.01}}}``.

    Raises
    ------
    DefinitionError
        if the condition would be refused when definitions load.

    >>> from datetime import UTC, datetime, timedelta
    >>> now = datetime(2026, 1, 1, tzinfo=UTC)
    >>> cart = {"event": "add_to_cart", "at": now - timedelta(minutes=31)}
    >>> abandoned = "sequence: [{did: add_to_cart}, {did_not: purchase, within: 30m}]"
    >>> evaluate(abandoned, events=[cart], now=now)
    True
    """
    scenario = Scenario(
        condition, features, context, events, now, types=types, segments=segments, entity=entity, properties=properties
    )
    return scenario.truth()


def evaluate_sql(
    condition: ConditionLike,
    features: Mapping[str, Any] | None = None,
    events: Iterable[Mapping[str, Any]] = (),
    now: datetime | None = None,
    *,
    context: Mapping[str, Any] | None = None,
    types: Mapping[str, str] | None = None,
    segments: Mapping[str, ConditionLike] | None = None,
    entity: str | None = None,
    properties: Mapping[str, Mapping[str, Any]] | None = None,
) -> bool | None:
    """Return the same as :func:`evaluate`, through the SQL target on DuckDB (needs the extra ``duckdb``).

    >>> evaluate_sql({"feature": "user:age", "at_least": 18}, features={"user:age": 17})
    False
    """
    from rules_engine.targets.sql import evaluate_duckdb

    scenario = Scenario(
        condition, features, context, events, now, types=types, segments=segments, entity=entity, properties=properties
    )
    answers = evaluate_duckdb(scenario.program, [("entity", scenario.inputs)], scenario.now)
    return answers["entity"][CONDITION]


def _catalog(
    features: Mapping[str, Any],
    types: Mapping[str, str],
    events: list[dict[str, Any]],
    ttl: Mapping[str, int],
    schemas: Mapping[str, Mapping[str, Any]],
) -> Catalog:
    declared = {}
    for key in {**features, **types}:
        view, _, name = key.partition(":")
        value_type, feast_type = _named_type(key, types[key]) if key in types else (_inferred_type(features[key]), "")
        if value_type is not None or key in types:
            declared[key] = Feature(view, name, value_type, feast_type)
    times: dict[str, dict[str, ValueType]] = {event: _property_types(listed) for event, listed in schemas.items()}
    for event in events:
        for name, value in event.items():
            if isinstance(value, datetime) and name != "at":
                times.setdefault(str(event.get("event")), {})[name] = TIME
    return Catalog(
        declared, ttl, {name: EventType(name, properties) for name, properties in times.items()}, closed=False
    )


def _property_types(schemas: Mapping[str, Any]) -> dict[str, ValueType]:
    try:
        return {name: property_type(from_plain(schema)) for name, schema in schemas.items()}
    except Refusal as refusal:
        raise DefinitionError([refusal.diagnostic]) from None


def _named_type(key: str, name: str) -> tuple[ValueType | None, str]:
    value_type = from_feast_name(name)
    if value_type is None:
        raise DataError(
            f"types[{key!r}]: rules cannot read the Feast type {name!r}", hint="e.g. Int64, String, Array(String)"
        )
    return value_type, name


def _inferred_type(value: Any) -> ValueType | None:
    """Infer the type of a Python value; None for a missing value or an empty list, which have no type."""
    if isinstance(value, list | tuple | set | frozenset):
        kinds = {inferred.kind for item in value if (inferred := _inferred_type(item)) is not None}
        if len(kinds) > 1 and not all(kind.is_number for kind in kinds):
            raise DataError(f"a list of several types is no feature: {value!r}")
        return ValueType(max(kinds, key=lambda kind: kind is FLOAT.kind), is_list=True) if kinds else None
    converted = _value(value)
    if converted is None or conform(converted, None) is None:
        return None
    if isinstance(value, datetime):
        return TIME
    for python_type, value_type in ((bool, BOOLEAN), (int, INTEGER), (float, FLOAT), (str, STRING), (bytes, BYTES)):
        if isinstance(converted, python_type):
            return value_type
    raise DataError(f"a value of the type {type(value).__name__} is no feature: {value!r}")


def _value(value: Any) -> Value:
    """Return a Python or numpy value as rules read it."""
    if isinstance(value, datetime):
        return _instant(value)
    if isinstance(value, list | tuple | set | frozenset):
        return tuple(_value(item) for item in value)
    if hasattr(value, "item") and not isinstance(value, bool | int | float | str | bytes):
        return value.item()
    return value


def _instant(at: datetime) -> int:
    try:
        return to_micros(at)
    except ValueError as error:
        raise DataError(str(error)) from None


def _event(event: Mapping[str, Any], position: int) -> Event:
    missing = [key for key in ("event", "at") if key not in event]
    if missing:
        raise DataError(f"event {position} has no {' and no '.join(missing)}: {dict(event)!r}")
    if not isinstance(event["at"], datetime):
        raise DataError(f"event {position}: `at` is an aware datetime, not {event['at']!r}")
    properties = {name: _value(value) for name, value in event.items() if name not in ("event", "at", "event_id")}
    return Event(str(event["event"]), _instant(event["at"]), str(event.get("event_id", f"{position:012d}")), properties)


def _program(conditions: Mapping[str, ConditionLike], catalog: Catalog) -> Program:
    problems: list[Diagnostic] = []
    segments = {}
    for name, condition in conditions.items():
        parser = ConditionParser(catalog, set(conditions))
        parsed = _parse(parser, condition, name, problems)
        problems += parser.problems
        if parsed is not None:
            segments[name] = Segment(name, parsed)
    if problems:
        raise DefinitionError(problems)
    return Program(segments)


def _parse(parser: ConditionParser, condition: Any, name: str, problems: list[Diagnostic]) -> Condition | None:
    if not isinstance(condition, str):
        plain = dict(condition) if isinstance(condition, Mapping) else condition
        return parser.condition(from_plain(plain, f"<{name}>"))
    documents, syntax_problems = read_documents(condition, f"<{name}>")
    problems += syntax_problems
    if len(documents) > 1:
        message = "one condition is expected, and this is another document"
        problems.append(Diagnostic("wrong-shape", documents[1].span, message, "write `all:` or `any:` of both"))
        return None
    node: Node = documents[0] if documents else from_plain(None, f"<{name}>")
    return parser.condition(node) if not syntax_problems else None
