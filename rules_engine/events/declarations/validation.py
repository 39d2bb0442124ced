"""Checks raw events against their declarations: gives a valid event, or the reason why it is refused."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import orjson

from rules_engine.clock import DAY, FIRST_INSTANT, LAST_INSTANT, format_duration, format_instant, to_micros
from rules_engine.diagnostics import listing, nearest
from rules_engine.events.declarations.events_yaml import EventDeclaration, EventDeclarations
from rules_engine.events.declarations.names import snake_case
from rules_engine.events.declarations.schemas import parse_event_instant, quick_check, schema_validator
from rules_engine.events.joins import JOIN, PERSON
from rules_engine.rules.catalog import EventType
from rules_engine.rules.inputs import VIA, Event
from rules_engine.rules.types import INTEGER, STRING, Kind, Value, ValueType

if TYPE_CHECKING:
    from jsonschema.protocols import Validator

#: How far ahead of the receiver's clock a sender's clock may be.
MAX_AHEAD = DAY
MAX_BYTES = 32_768
MAX_PROPERTIES = 200
MAX_ID_LENGTH = 200
MAX_ENTITY_LENGTH = 1_000
MAX_INSTANT_LENGTH = 64

#: A whole number below this is an instant in seconds or milliseconds: in microseconds it would lie before 1973.
_LEAST_MICROS = 10**14
_INT64 = range(-(2**63), 2**63)

#: The event that every project has: an entity is joined to a person, once to each.
_JOIN = EventDeclaration(
    EventType(JOIN, {PERSON: STRING}),
    {PERSON: {"type": "string", "minLength": 1, "maxLength": MAX_ID_LENGTH}},
    required=(PERSON,),
    id_property=PERSON,
)


@dataclass(frozen=True, slots=True)
class Rejection:
    """The reason why an event was refused: a stable ``code``, and a message. It is kept with the event."""

    code: str
    message: str

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


class _Invalid(Exception):
    """Ends the checking of an event."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.rejection = Rejection(code, message)


class EventValidator:
    """Checks events against their declarations. Compiled once, immutable, and safe to share between threads.

    >>> from rules_engine.events.declarations.events_yaml import parse_events
    >>> declared = parse_events('''
    ... events:
    ...   purchase: {properties: {amount: {type: number, minimum: 0}}, required: [amount], retention: 30d}
    ... ''')
    >>> validator = EventValidator(declared)
    >>> validator.check("purchase", "2026-01-31T09:00:00Z", "a1", {"amount": 5}, received=1_800_000_000_000_000).id
    'purchase:a1'
    >>> print(validator.check("purchase", "2026-01-31T09:00:00Z", "a1", {"amount": -5}, received=1_800_000_000_000_000))
    invalid-property: `amount`: -5 is less than the minimum of 0
    """

    def __init__(self, declarations: EventDeclarations, *, max_ahead: int = MAX_AHEAD) -> None:
        self._declared = tuple(declarations.events)
        self._checks = {
            declaration.type.name: _EventCheck(declaration) for declaration in (*declarations.events.values(), _JOIN)
        }
        self._by_name = event_names(declarations)
        self._max_ahead = max_ahead

    def check(
        self, name: object, at: object, event_id: object, properties: object, *, received: int
    ) -> Event | Rejection:
        """Return the event with its values as rules read them, or the reason why it is refused. Never raises.

        Parameters
        ----------
        name
            of the event.
        at
            ISO 8601 text with an offset, an aware datetime, or microseconds since the epoch.
        event_id
            identifies the event among those of its name and entity: a string or an integer. Not needed where the
            declaration names a property as id.
        properties
            by name. None and NaN count as absent; undeclared properties are kept as they are, and no rule reads them.
        received
            the receiver's time, in microseconds.
        """
        try:
            check = self._check_of(name)
            instant = _instant(at, received + self._max_ahead)
            values = check.values(properties)
            return Event(check.name, instant, f"{check.name}:{check.identity(event_id, values)}", values)
        except _Invalid as invalid:
            return invalid.rejection

    def _check_of(self, name: object) -> _EventCheck:
        check = self._checks.get(self._by_name.get(name, name)) if isinstance(name, str) else None
        if check is None:
            fallback = f"the events are {listing(self._declared)}" if self._declared else "no event is declared"
            hint = (nearest(name, self._declared) if isinstance(name, str) else None) or fallback
            raise _Invalid("unknown-event", f"there is no event {_shown(name)}; {hint}")
        return check


def event_names(declarations: EventDeclarations) -> dict[str, str]:
    """Return the names of events by all names under which they are sent: their own, aliases, aliases in small letters.

    >>> from rules_engine.events.declarations.events_yaml import parse_events
    >>> event_names(parse_events("events: {purchase: {retention: 30d, aliases: [Order Completed]}}"))
    {'order_completed': 'purchase', 'Order Completed': 'purchase', 'purchase': 'purchase'}
    """
    aliases = [(alias, name) for name, declaration in declarations.events.items() for alias in declaration.aliases]
    spelled = {snake_case(alias): name for alias, name in aliases}
    return spelled | dict(aliases) | {name: name for name in declarations.events}


def check_instant(at: object, received: int) -> int | Rejection:
    """Return the instant of an event in microseconds, or the reason why it is refused.

    >>> check_instant("2026-01-31T09:00:00Z", received=1_800_000_000_000_000)
    1769850000000000
    """
    try:
        return _instant(at, received + MAX_AHEAD)
    except _Invalid as invalid:
        return invalid.rejection


def check_entity(entity: object) -> str | Rejection:
    """Return the key of an entity, or the reason why it is refused.

    >>> check_entity("42"), str(check_entity(""))[:14]
    ('42', 'missing-entity')
    """
    if not isinstance(entity, str) or not entity:
        return Rejection("missing-entity", "an event belongs to an `entity`, whose key is a string that is not empty")
    if len(entity) > MAX_ENTITY_LENGTH or has_surrogates(entity) or VIA in entity:
        message = f"the key of an entity is a text of at most {MAX_ENTITY_LENGTH} characters, none of them U+0000"
        return Rejection("invalid-entity", message)
    return entity


def has_surrogates(text: str) -> bool:
    """Return whether a text holds half a surrogate pair, which no encoding has."""
    return not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text)


def _instant(at: object, latest: int) -> int:
    instant = _micros(at)
    if not FIRST_INSTANT <= instant <= LAST_INSTANT:
        raise _Invalid(
            "invalid-instant", f"`at` is {format_instant(instant)}, and events are of the years 1900 to 9999"
        )
    if instant > latest:
        ahead = format_duration(instant - latest + MAX_AHEAD)
        raise _Invalid("future-instant", f"`at` is {format_instant(instant)}, {ahead} ahead of the receiver's clock")
    return instant


def _micros(at: object) -> int:
    if isinstance(at, int) and not isinstance(at, bool):
        if at < _LEAST_MICROS:
            raise _Invalid(
                "invalid-instant",
                f"`at` is {_shown(at)}: a number is in microseconds since 1970; better give ISO 8601 text",
            )
        return at
    try:
        if isinstance(at, str):
            return parse_event_instant(at if len(at) <= MAX_INSTANT_LENGTH else _shown(at))
        if isinstance(at, datetime):
            return to_micros(at)
    except (ValueError, OverflowError) as error:
        raise _Invalid("invalid-instant", f"`at`: {error}") from None
    raise _Invalid("invalid-instant", f"`at` is {_shown(at)}, and an instant is ISO 8601 text with an offset")


class _EventCheck:
    """The compiled declaration of one event."""

    def __init__(self, declaration: EventDeclaration) -> None:
        self.name = declaration.type.name
        self._types = declaration.type.properties
        self._required = declaration.required
        self._id_property = declaration.id_property
        self._validators: dict[str, Validator] = {
            name: schema_validator(schema) for name, schema in declaration.schemas.items()
        }
        #: For properties whose values rules read unchanged: a fast check that most valid values pass.
        self._quick = {
            name: check
            for name, schema in declaration.schemas.items()
            if (check := quick_check(schema)) is not None and not _is_changed(declaration.type.properties[name])
        }

    def values(self, properties: object) -> Mapping[str, Value]:
        """Return the properties as rules read them."""
        if not isinstance(properties, Mapping | None):
            raise _Invalid("invalid-event", f"properties are a mapping, not {_shown(properties)}")
        present = dict(properties or {})
        _check_size(present)
        values: dict[str, Value] = {}
        quick, declared = self._quick, self._validators
        for name, value in present.items():
            check = quick.get(name)
            is_plain = value.__class__ is str or value.__class__ is bool
            if is_plain and (name not in declared if check is None else check(value)):
                values[name] = value
            elif not _is_missing(value):
                values[name] = self._value(name, _plain(name, value), check)
        for name in self._required:
            if name not in values:
                raise _Invalid("missing-property", f"`{name}` is required, and missing")
        return values

    def _value(self, name: str, value: Any, quick: Callable[[Any], bool] | None) -> Value:
        if quick is not None and quick(value):
            return value
        validator = self._validators.get(name)
        if validator is None:
            return value
        if not validator.is_valid(value):
            error = next(validator.iter_errors(value))
            raise _Invalid("invalid-property", f"`{name}`: {error.message[:200]}")
        try:
            return _as_read(value, self._types[name])
        except OverflowError:
            raise _Invalid("invalid-property", f"`{name}`: {_shown(value)} does not fit into 64 bits") from None

    def identity(self, event_id: object, values: Mapping[str, Value]) -> str:
        """Return the id that identifies the event among those of its name."""
        identity = event_id if self._id_property is None else values[self._id_property]
        if identity is None or identity == "":
            raise _Invalid("missing-id", "an event needs an `event_id` that tells it from all others")
        if isinstance(identity, bool) or not (
            isinstance(identity, str) or (isinstance(identity, int) and identity in _INT64)
        ):
            raise _Invalid("invalid-id", f"`event_id` is a string or an integer, not {_shown(identity)}")
        text = str(identity)
        if len(text) > MAX_ID_LENGTH or has_surrogates(text) or VIA in text:
            raise _Invalid("invalid-id", f"an id is a text of at most {MAX_ID_LENGTH} characters, none of them U+0000")
        return text


def _is_changed(value_type: ValueType) -> bool:
    """Say whether rules read valid values in another form."""
    return value_type.is_list or value_type.kind is Kind.TIME or value_type == INTEGER


def _check_size(properties: Mapping[Any, Any]) -> None:
    """Refuse properties that are not JSON, are nested too deeply, or are too large."""
    if len(properties) > MAX_PROPERTIES:
        raise _Invalid("event-too-large", f"there are {len(properties)} properties; at most {MAX_PROPERTIES} are taken")
    try:
        size = len(orjson.dumps(properties))
    except TypeError as error:
        raise _Invalid("invalid-event", f"the properties hold what JSON has no place for: {error}") from None
    if size > MAX_BYTES:
        raise _Invalid("event-too-large", f"its properties take {size:,} bytes; at most {MAX_BYTES:,} are taken")


def _is_missing(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _plain(name: str, value: Any) -> Any:
    """Return a value as JSON has it."""
    if isinstance(value, datetime):
        try:
            return format_instant(to_micros(value))
        except ValueError as error:
            raise _Invalid("invalid-property", f"`{name}`: {error}") from None
    if isinstance(value, float) and math.isinf(value):
        raise _Invalid("invalid-property", f"`{name}`: {value} is not a number that can be counted with")
    if isinstance(value, int) and value not in _INT64:
        raise _Invalid("invalid-property", f"`{name}`: {_shown(value)} does not fit into 64 bits")
    if isinstance(value, list | tuple):
        return [_plain(name, element) for element in value if not _is_missing(element)]
    return value


def _as_read(value: Any, value_type: ValueType) -> Value:
    """Return a valid value as rules read it: instants as microseconds, whole numbers as integers, lists as tuples."""
    if value_type.is_list:
        element_type = ValueType(value_type.kind)
        return tuple(_as_read(element, element_type) for element in value)
    if value_type.kind is Kind.TIME:
        return parse_event_instant(value)
    if value_type.kind is Kind.INTEGER and isinstance(value, float):
        if int(value) not in _INT64:
            raise OverflowError
        return int(value)
    return value


def _shown(value: object) -> str:
    try:
        text = repr(value)
    except ValueError:  # an integer of thousands of digits
        return f"a huge {type(value).__name__}"
    return text if len(text) <= 60 else text[:59] + "…"
