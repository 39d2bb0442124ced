"""Ask the store for features and decode its answers, with commands and decoders that are prepared once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from struct import Struct
from typing import Any

from rules_engine.events.state.stored import reading
from rules_engine.features.online.decode import Decoder, decode_timestamp
from rules_engine.features.online.selection import EntityFeatures, Selection
from rules_engine.read_plan import ReadPlan
from rules_engine.redis.endpoint import pack_command
from rules_engine.redis.feast_layout import KeyMaker, encoded, field_bytes, sibling_key
from rules_engine.redis.store_mark import MarkCheck
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


class _Remembered(dict[bytes, Value]):
    """Caches the values of one feature by their bytes: most features take few values, and a look-up beats decoding."""

    __slots__ = ("_name", "decoder")

    def __init__(self, decoder: Decoder, name: str) -> None:
        super().__init__()
        self.decoder = decoder
        self._name = name

    def __missing__(self, raw: bytes) -> Value:
        value = self.decoder(raw, self._name)
        # Mutable values (maps and JSON) are not shared.
        if len(raw) <= _LONGEST_KEPT and value.__class__ in (str, int, bool):
            if len(self) >= _VALUES_KEPT:
                self.clear()  # frequent values soon come back
            self[raw] = value
        return value


#: A view's name, ttl, position of its timestamp, and its features: position, name, and what decodes. Doubles are told
#: from the rest: they take many values and are decoded in place.
_ViewLayout = tuple[str, int | None, int, list[tuple[int, str, Decoder]], list[tuple[int, str, _Remembered]]]


class RowInstants(dict[bytes, int]):
    """Caches the instants of rows by their bytes: a materialization often writes many rows of one instant."""

    __slots__ = ()

    def __missing__(self, raw: bytes) -> int:
        instant = decode_timestamp(raw)
        if len(self) >= _VALUES_KEPT:
            self.clear()
        self[raw] = instant
        return instant


class RowLayout:
    """Holds a selection as hash fields, with the command that asks for them and what makes values of the answer.

    Parameters
    ----------
    selection
        what is read.
    key
        makes the entities' keys.
    state_name
        the name of the event state that is read with the features; None if none is.
    size
        the number of fields that the plan has in the hash.
    end
        how many bytes at its end are read of the event state; 0 is all of it.

    Attributes
    ----------
    key
        makes the entities' keys.
    state_name
        the name of the event state that is read with the features; None if none is.
    end
        how many bytes at its end are read of the event state; 0 is all of it.
    fields
        the hash fields in the order in which their contents are decoded.
    whole
        whether it is faster to read the whole hash and pick the fields from it.
    mark_check
        checks whether the store holds what is read.
    """

    __slots__ = (
        "_heads",
        "_instants",
        "_tail",
        "_timestamps",
        "_views",
        "end",
        "fields",
        "key",
        "mark_check",
        "state_name",
        "whole",
    )

    def __init__(
        self, selection: Selection, key: KeyMaker, state_name: bytes | None = None, size: int = 0, end: int = 0
    ) -> None:
        self.state_name = state_name
        self.end = end
        decoders = {feature.type: Decoder(feature.type) for view in selection.views for feature in view.features}
        self.key = key
        self.fields: list[bytes] = []
        self._views: list[_ViewLayout] = []
        self._instants = RowInstants()
        for view in selection.views:
            timestamp = len(self.fields)
            self.fields.append(view.timestamp_field)
            self.fields += [field_bytes(feature.field) for feature in view.features]
            features = [
                (timestamp + offset, f"{view.name}:{feature.name}", decoders[feature.type])
                for offset, feature in enumerate(view.features, 1)
            ]
            doubles = [place for place in features if place[2].feast_type == "Float64"]
            rest = [place for place in features if place[2].feast_type != "Float64"]
            others = [(at, name, _Remembered(decode, name)) for at, name, decode in rest]
            self._views.append((view.name, view.ttl, timestamp, doubles, others))
        self.whole = len(self.fields) >= max(_WHOLE_FROM, _WHOLE_PART * size)
        #: The command up to the entity, by the length of the entity's key; and from there on.
        self._heads: dict[int, bytes] = {}
        self.mark_check = MarkCheck(key.suffix.decode(), [view.name for view in selection.views], state_name)
        self._timestamps = [position for _, _, position, _, _ in self._views]
        self._tail = key.suffix + b"\r\n" + b"".join(b"$%d\r\n%b\r\n" % (len(name), name) for name in self.fields)

    def command(self, entity: str) -> bytes:
        """Return ``HMGET key field...`` as it goes over the wire."""
        value = encoded(entity)
        length = len(value)
        head = self._heads.get(length)
        return (self._head(length) if head is None else head) + value + self._tail

    def whole_command(self, entity: str) -> bytes:
        """Return ``HGETALL key`` as it goes over the wire."""
        key = self.key(entity)
        return b"*2\r\n$7\r\nHGETALL\r\n$%d\r\n%b\r\n" % (len(key), key)

    def picked(self, contents: Sequence[bytes]) -> Row:
        """Return the layout's fields out of a whole hash."""
        fields = iter(contents)
        by_field = dict(zip(fields, fields, strict=True))
        if len(by_field) > _WHOLE_AT_MOST * len(self.fields):
            self.whole = False
        return list(map(by_field.get, self.fields))

    def requests(
        self, entities: Sequence[str], accept: Callable[[Row], None], refuse: Callable[[Any], None]
    ) -> tuple[list[bytes], Callable[[Any], None]]:
        """Give what asks for the rows of entities in the faster of the two ways, and what takes the answers.

        Parameters
        ----------
        entities
            their keys.
        accept
            takes a row.
        refuse
            raises what an error of the server means.
        """
        if self.state_name is not None:
            return self.commands(entities), self.row_collector(entities, accept, refuse)
        whole = self.whole  # it may change while this is under way
        picked = self.picked if whole else None

        def take(answer: Any) -> None:
            if answer.__class__ is not list:
                refuse(answer)
            accept(answer if picked is None else picked(answer))

        return list(map(self.whole_command if whole else self.command, entities)), take

    def confirming(
        self, entities: Sequence[str], accept: Callable[[Row], None], refuse: Callable[[Any], None]
    ) -> tuple[list[bytes], Callable[[Any], None]]:
        """Return the same as :meth:`requests`, with the mark asked for in the end, and checked if a row is missing."""
        has_unknown = False

        def look(row: Row) -> None:
            nonlocal has_unknown
            has_unknown = has_unknown or self.is_unknown(row)
            accept(row)

        commands, take = self.requests(entities, look, refuse)
        left = len(commands)

        def check(answer: Any) -> None:
            nonlocal left
            if left:
                left -= 1
                take(answer)
                return
            if answer.__class__ is not list:
                refuse(answer)
            if has_unknown:
                self.mark_check.verify(answer)

        return [*commands, self.mark_check.command], check

    def is_unknown(self, row: Row) -> bool:
        """Say whether a row has nothing of any view: the store does not know the entity, or has forgotten it."""
        return row[0] is None and all(row[position] is None for position in self._timestamps)

    def unknown(self, rows: Sequence[Row]) -> list[int]:
        """Give the places of the rows that have nothing of any view, where the mark was not read with them."""
        if self.state_name is not None:
            return []
        return [place for place, row in enumerate(rows) if self.is_unknown(row)]

    def commands(self, entities: Sequence[str]) -> list[bytes]:
        """Return the commands for the rows and event states of entities, in order, and for the mark in the end."""
        assert self.state_name is not None, "without a name, rows are asked for"
        pairs = ((self.command(entity), self._state_command(entity, self.state_name)) for entity in entities)
        commands = [command for pair in pairs for command in (pair if self.fields else pair[1:])]
        commands.append(self.mark_check.command)  # after all else: it was there when the rest was read
        return commands

    def _state_command(self, entity: str, name: bytes) -> bytes:
        """Return what reads an entity's event state with its pieces, or ``GETRANGE`` of the end of the state."""
        key = sibling_key(self.key(entity), name)
        if not self.end:
            return pack_command(*reading(key))
        start = b"-%d" % self.end
        return b"*4\r\n$8\r\nGETRANGE\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n$2\r\n-1\r\n" % (len(key), key, len(start), start)

    def row_collector(
        self, entities: Sequence[str], accept: Callable[[Row], None], refuse: Callable[[Any], None]
    ) -> Callable[[Any], None]:
        """Give what takes the answers to :meth:`commands`: rows that end with the event state, or its end."""
        row: Row = []
        left = len(entities)

        def take(answer: Any) -> None:
            nonlocal row, left
            if isinstance(answer, Exception):
                refuse(answer)
            if not left:
                self.mark_check.verify(answer)
            elif answer.__class__ is list:
                row = answer
            else:
                left -= 1
                accept([*row, answer])

        return take

    def collector(
        self, entities: Sequence[str], into: list[EntityFeatures], refuse: Callable[[Any], None]
    ) -> Callable[[Any], None]:
        """Give what takes the answers to :meth:`commands` one by one and appends the decoded entities to ``into``.

        ``refuse`` raises what an error of the server means.
        """
        rows: list[Any] = []
        together = 2 if self.fields else 1

        def accept(answer: Any) -> None:
            if isinstance(answer, Exception):
                refuse(answer)
            if len(into) == len(entities):
                self.mark_check.verify(answer)
                return
            rows.append(answer)
            if len(rows) < together:
                return
            into.append(self.decoded(entities[len(into)], rows))
            rows.clear()

        return accept

    def decoded(self, entity: str, answers: Sequence[Any]) -> EntityFeatures:
        """Return an entity from the answers to its commands."""
        if self.state_name is None:
            return self.decode(entity, answers[0])
        features = self.decode(entity, answers[0]) if self.fields else EntityFeatures(entity)
        return replace(features, event_state=answers[-1])

    def _head(self, length: int) -> bytes:
        before = self.key.before(length)
        size = len(before) + length + len(self.key.suffix)
        head = b"*%d\r\n$5\r\nHMGET\r\n$%d\r\n%b" % (len(self.fields) + 2, size, before)
        if len(self._heads) < _LENGTHS_KEPT:
            self._heads[length] = head
        return head

    def described(self) -> Iterator[tuple[int, int | None, list[tuple[int, str, Decoder]]]]:
        """Return each view: where its timestamp lies, its ttl, and where its features lie, with names and decoders."""
        for _, ttl, position, doubles, others in self._views:
            rest = [(at, name, remembered.decoder) for at, name, remembered in others]
            yield position, ttl, [*doubles, *rest]

    def decode(self, entity: str, contents: Sequence[bytes | None]) -> EntityFeatures:
        """Decode the row of an entity. A view without a timestamp has no row: its fields are then ignored.

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


class RowLayouts:
    """Makes the layouts of a read plan, each when it is first needed. Safe to share between threads."""

    def __init__(self, plan: ReadPlan) -> None:
        self._plan = plan
        self._size = sum(1 + len(view.features) for view in plan.views)
        self._key = KeyMaker(plan.project, plan.join_key, plan.key_version)
        self._layouts: dict[tuple[tuple[str, ...] | None, bytes | None, int], RowLayout] = {}

    def of(self, features: Sequence[str] | None, state_name: bytes | None = None, end: int = 0) -> RowLayout:
        """Return the layout of some features, or of all, and of the event state of a name, or of its end.

        Raises
        ------
        UnknownNameError
            if the plan has no such feature.
        """
        requested = None if features is None else tuple(features), state_name, end
        layout = self._layouts.get(requested)
        if layout is None:
            if len(self._layouts) >= _LAYOUTS_KEPT:
                self._layouts.clear()
            # Two threads may both make it; they make the same.
            layout = self._layouts[requested] = self._make(features, state_name, end)
        return layout

    def _make(self, features: Sequence[str] | None, state_name: bytes | None, end: int) -> RowLayout:
        nothing = end > 0 and not features  # without features, only the event state is read
        selection = Selection(()) if nothing else Selection.of(self._plan, features)
        return RowLayout(selection, self._key, state_name, self._size, end)
