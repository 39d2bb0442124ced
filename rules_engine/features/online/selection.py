"""Which features are read, how they are asked for and decoded, and what comes out: prepared once for all requests."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from struct import Struct
from typing import Any

from rules_engine.diagnostics import nearest
from rules_engine.errors import UnknownNameError
from rules_engine.features.online.decode import Decoder, decode_timestamp
from rules_engine.read_plan import PlanView, ReadPlan
from rules_engine.redis.feast_layout import KeyMaker, beside, encoded, field_bytes
from rules_engine.rules.types import Value

#: Prepared selections of features. An application asks for the same few again and again.
_LAYOUTS_KEPT = 256

#: Values that are remembered for each feature, and how long one may be.
_VALUES_KEPT = 512
_LONGEST_KEPT = 32

#: The whole hash is read where so many fields are wanted, and this part of all that the plan has in it: for each single
#: field the server searches the hash from its beginning.
_WHOLE_FROM = 48
_WHOLE_PART = 0.7
#: ... unless it turns out to hold so many times more than is wanted.
_WHOLE_AT_MOST = 2

#: Lengths of entity keys whose part of the command is remembered.
_LENGTHS_KEPT = 256

#: What the store has of an entity: the contents of a layout's fields, in order.
Row = Sequence[bytes | None]

_DOUBLE_TAG = 0x29
_DOUBLE = Struct("<d").unpack_from


@dataclass(slots=True)
class EntityFeatures:
    """What the online store holds about one entity. Not to be changed; frozen it would take a microsecond to make.

    Attributes
    ----------
    entity
        the entity's key.
    values
        by ``"view:name"``; missing values are absent. Values past their view's ttl are still among them: whether one
        is past it depends on the time of evaluation, and ``expires_at`` tells.
    updated_at
        by view: the event timestamp of its row, in microseconds. A view without a row is absent.
    expires_at
        by view with a ttl: the first instant at which its values count as missing.
    beside
        what is kept beside the features, if it was asked for and there is something.

    Examples
    --------
    >>> EntityFeatures("42").known
    False
    """

    entity: str
    values: Mapping[str, Value] = field(default_factory=dict)
    updated_at: Mapping[str, int] = field(default_factory=dict)
    expires_at: Mapping[str, int] = field(default_factory=dict)
    beside: bytes | None = None

    @property
    def known(self) -> bool:
        """Whether any of the views that were read has a row for the entity."""
        return bool(self.updated_at)


@dataclass(frozen=True, slots=True)
class Selection:
    """Features of the read plan, by view; what is to be read is looked up once and not at every request."""

    views: tuple[PlanView, ...]

    @classmethod
    def of(cls, plan: ReadPlan, features: Sequence[str] | None) -> Selection:
        """The named features, or all. Without any, the views' timestamps are still read.

        Raises
        ------
        UnknownNameError
            if the plan has no such feature.
        """
        if not features:
            names: set[str] = {f"{view.name}:{feature.name}" for view in plan.views for feature in view.features}
            wanted = names if features is None else set()
            return cls(tuple(_only(view, wanted) for view in plan.views))
        wanted = set(features)
        views = tuple(view for view in (_only(view, wanted) for view in plan.views) if view.features)
        found = {f"{view.name}:{feature.name}" for view in views for feature in view.features}
        for name in sorted(wanted - found):
            known = [f"{view.name}:{feature.name}" for view in plan.views for feature in view.features]
            raise UnknownNameError(f"there is no feature `{name}` in the read plan", hint=nearest(name, known))
        return cls(views)


def _only(view: PlanView, wanted: set[str]) -> PlanView:
    features = tuple(feature for feature in view.features if f"{view.name}:{feature.name}" in wanted)
    return PlanView(view.name, view.stored_name, features, view.ttl)


class _Remembered(dict[bytes, Value]):
    """The values of one feature by their bytes: most features take few values, and finding one beats decoding it."""

    __slots__ = ("_name", "decoder")

    def __init__(self, decoder: Decoder, name: str) -> None:
        super().__init__()
        self.decoder = decoder
        self._name = name

    def __missing__(self, raw: bytes) -> Value:
        value = self.decoder(raw, self._name)
        # What can be changed is not shared: maps and JSON.
        if len(raw) <= _LONGEST_KEPT and value.__class__ in (str, int, bool):
            if len(self) >= _VALUES_KEPT:
                self.clear()  # what is frequent is soon back
            self[raw] = value
        return value


#: A view's name, ttl, position of its timestamp, and its features: position, name, and what decodes. Doubles are told
#: from the rest: they take many values and are decoded in place.
_ViewLayout = tuple[str, int | None, int, list[tuple[int, str, Decoder]], list[tuple[int, str, _Remembered]]]


class Instants(dict[bytes, int]):
    """The instants of rows by their bytes: a materialization often writes many rows of one instant."""

    __slots__ = ()

    def __missing__(self, raw: bytes) -> int:
        instant = decode_timestamp(raw)
        if len(self) >= _VALUES_KEPT:
            self.clear()
        self[raw] = instant
        return instant


class Layout:
    """A selection as hash fields, with the command that asks for them and what makes values of the answer.

    Parameters
    ----------
    selection
        what is read.
    key
        makes the entities' keys.
    name
        of what is read beside the features, if something is.
    size
        the number of fields that the plan has in the hash.

    Attributes
    ----------
    key
        makes the entities' keys.
    name
        of what is read beside the features, if something is.
    fields
        the hash fields in the order in which their contents are decoded.
    whole
        whether it is faster to read the whole hash and pick the fields from it.
    """

    __slots__ = ("_heads", "_instants", "_tail", "_views", "fields", "key", "name", "whole")

    def __init__(self, selection: Selection, key: KeyMaker, name: bytes | None = None, size: int = 0) -> None:
        self.name = name
        decoders = {feature.type: Decoder(feature.type) for view in selection.views for feature in view.features}
        self.key = key
        self.fields: list[bytes] = []
        self._views: list[_ViewLayout] = []
        self._instants = Instants()
        for view in selection.views:
            timestamp = len(self.fields)
            self.fields.append(view.timestamp_field)
            self.fields += [field_bytes(feature.field) for feature in view.features]
            features = [
                (timestamp + offset, f"{view.name}:{feature.name}", decoders[feature.type])
                for offset, feature in enumerate(view.features, 1)
            ]
            doubles = [one for one in features if one[2].feast_type == "Float64"]
            rest = [one for one in features if one[2].feast_type != "Float64"]
            others = [(at, name, _Remembered(decode, name)) for at, name, decode in rest]
            self._views.append((view.name, view.ttl, timestamp, doubles, others))
        self.whole = len(self.fields) >= max(_WHOLE_FROM, _WHOLE_PART * size)
        #: The command up to the entity, by the length of the entity's key; and from there on.
        self._heads: dict[int, bytes] = {}
        self._tail = key.suffix + b"\r\n" + b"".join(b"$%d\r\n%b\r\n" % (len(name), name) for name in self.fields)

    def command(self, entity: str) -> bytes:
        """``HMGET key field...`` as it goes over the wire."""
        value = encoded(entity)
        length = len(value)
        head = self._heads.get(length)
        return (self._head(length) if head is None else head) + value + self._tail

    def whole_command(self, entity: str) -> bytes:
        """``HGETALL key`` as it goes over the wire."""
        key = self.key(entity)
        return b"*2\r\n$7\r\nHGETALL\r\n$%d\r\n%b\r\n" % (len(key), key)

    def picked(self, contents: Sequence[bytes]) -> Row:
        """The layout's fields out of a whole hash."""
        fields = iter(contents)
        found = dict(zip(fields, fields, strict=True))
        if len(found) > _WHOLE_AT_MOST * len(self.fields):
            self.whole = False
        return list(map(found.get, self.fields))

    def commands(self, entities: Sequence[str]) -> list[bytes]:
        """All that is asked about entities, in order."""
        if self.name is None:
            return [self.command(entity) for entity in entities]
        pairs = ((self.command(entity), self._beside(entity, self.name)) for entity in entities)
        return [command for pair in pairs for command in (pair if self.fields else pair[1:])]

    def _beside(self, entity: str, name: bytes) -> bytes:
        """``GET key`` of what is kept beside the entity's features."""
        key = beside(self.key(entity), name)
        return b"*2\r\n$3\r\nGET\r\n$%d\r\n%b\r\n" % (len(key), key)

    def collector(
        self, entities: Sequence[str], found: list[EntityFeatures], refuse: Callable[[Any], None]
    ) -> Callable[[Any], None]:
        """What takes the answers to :meth:`commands` one by one and appends the decoded entities to ``found``.

        ``refuse`` raises what an error of the server means.
        """
        rows: list[Any] = []
        together = 1 if self.name is None or not self.fields else 2

        def accept(answer: Any) -> None:
            if isinstance(answer, Exception):
                refuse(answer)
            rows.append(answer)
            if len(rows) < together:
                return
            found.append(self.decoded(entities[len(found)], rows))
            rows.clear()

        return accept

    def decoded(self, entity: str, answers: Sequence[Any]) -> EntityFeatures:
        """An entity from the answers to its commands."""
        if self.name is None:
            return self.decode(entity, answers[0])
        features = self.decode(entity, answers[0]) if self.fields else EntityFeatures(entity)
        return replace(features, beside=answers[-1])

    def _head(self, length: int) -> bytes:
        before = self.key.before(length)
        size = len(before) + length + len(self.key.suffix)
        head = b"*%d\r\n$5\r\nHMGET\r\n$%d\r\n%b" % (len(self.fields) + 2, size, before)
        if len(self._heads) < _LENGTHS_KEPT:
            self._heads[length] = head
        return head

    def described(self) -> Iterator[tuple[int, int | None, list[tuple[int, str, Decoder]]]]:
        """Each view: where its timestamp lies, its ttl, and where its features lie, with names and decoders."""
        for _, ttl, position, doubles, others in self._views:
            rest = [(at, name, remembered.decoder) for at, name, remembered in others]
            yield position, ttl, [*doubles, *rest]

    def decode(self, entity: str, contents: Sequence[bytes | None]) -> EntityFeatures:
        """A view without a timestamp has no row; whatever lies in its fields is not Feast's.

        Raises
        ------
        StoreDataError
            if the bytes are not what the plan says.
        """
        values: dict[str, Value] = {}
        updated_at: dict[str, int] = {}
        expires_at: dict[str, int] = {}
        instants = self._instants
        for view, ttl, position, doubles, others in self._views:
            timestamp = contents[position]
            if timestamp is None:
                continue
            at = updated_at[view] = instants[timestamp]
            if ttl is not None:
                expires_at[view] = at + ttl + 1
            for index, name, remembered in others:
                raw = contents[index]
                if raw:
                    value = remembered[raw]
                    if value is not None:
                        values[name] = value
            if doubles:
                _read_doubles(doubles, contents, values)
        return EntityFeatures(entity, values, updated_at, expires_at)


def _read_doubles(
    doubles: Sequence[tuple[int, str, Decoder]], contents: Sequence[bytes | None], values: dict[str, Value]
) -> None:
    for index, name, decode in doubles:
        raw = contents[index]
        if not raw:
            continue
        if raw[0] == _DOUBLE_TAG and len(raw) == 9:
            number = _DOUBLE(raw, 1)[0]
            if number == number:  # NaN is the one that differs from itself, and is missing
                values[name] = number
            continue
        value = decode(raw, name)
        if value is not None:
            values[name] = value


class Layouts:
    """The layouts of a read plan, each made when it is first asked for. Safe to share between threads."""

    def __init__(self, plan: ReadPlan) -> None:
        self._plan = plan
        self._size = sum(1 + len(view.features) for view in plan.views)
        self._key = KeyMaker(plan.project, plan.join_key, plan.key_version)
        self._made: dict[tuple[tuple[str, ...] | None, bytes | None], Layout] = {}

    def of(self, features: Sequence[str] | None, beside: bytes | None = None) -> Layout:
        """The layout of some features, or of all, and of what lies beside them under a name.

        Raises
        ------
        UnknownNameError
            if the plan has no such feature.
        """
        wanted = None if features is None else tuple(features), beside
        layout = self._made.get(wanted)
        if layout is None:
            if len(self._made) >= _LAYOUTS_KEPT:
                self._made.clear()
            # Two threads may both make it; they make the same.
            layout = self._made[wanted] = Layout(Selection.of(self._plan, features), self._key, beside, self._size)
        return layout
