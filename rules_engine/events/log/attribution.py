"""For whom the events of the log count, where ids were joined to persons: as of one instant, or of all between two."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from rules_engine.clock import LAST_INSTANT
from rules_engine.events.joins import Joins
from rules_engine.rules.inputs import VIA

#: By reported entity: for whom its events count, and what is appended to their ids.
ATTRIBUTED = pa.schema([("reported", pa.string()), ("owner", pa.string()), ("suffix", pa.string())])


#: Later than every instant.
_NEVER = LAST_INSTANT + 1


class Attribution:
    """For whom events count as of each instant from a first one to a last one.

    The events of a person to whom ids are joined in that time differ by the instant. So such a person has several
    *owners* of events, each with those that count from one join to the next. Everybody else is their own owner.

    Parameters
    ----------
    joins
        the joins of the project.
    first, last
        the instants, in microseconds.

    Examples
    --------
    >>> from rules_engine.events.joins import Join
    >>> attribution = Attribution(Joins([Join("phone", "u1", 5)]), 4, 6)
    >>> [attribution.owner("u1", at).split(VIA) for at in (4, 5)], attribution.owner("phone", 4)
    ([['u1'], ['u1', '5']], 'phone')
    >>> [(row["reported"], row["owner"].split(VIA)) for row in attribution.table(["u1"]).to_pylist()]
    [('phone', ['u1', '5']), ('u1', ['u1']), ('u1', ['u1', '5'])]
    """

    def __init__(self, joins: Joins, first: int, last: int) -> None:
        self._first = first
        self._stays = [stay for entity in joins.entities() for stay in _stays(joins, entity, first, last)]
        self._reported = {stay[0] for stay in self._stays}
        starts: defaultdict[str, set[int]] = defaultdict(set)
        for _, owner, _, begin, end in self._stays:
            starts[owner].update(at for at in (begin, end) if first < at <= last)
        self._starts = {entity: sorted(instants) for entity, instants in starts.items() if instants}

    def owner(self, entity: str, at: int) -> str:
        """Return the owner of the events that count for an entity as of an instant."""
        starts = self._starts.get(entity)
        number = 0 if starts is None else bisect_right(starts, at)
        return entity if starts is None or not number else f"{entity}{VIA}{starts[number - 1]}"

    def owners(self, entities: pa.Array, at: int) -> pa.Array:
        """Return the owners of many entities as of an instant."""
        if not self._starts:
            return entities
        changed = pc.is_in(entities, value_set=pa.array(self._starts, entities.type))
        replaced = [self.owner(entity, at) for entity in entities.filter(changed).to_pylist()]
        return pc.replace_with_mask(entities, changed, pa.array(replaced, entities.type))

    def reported(self, keys: Sequence[str]) -> list[str]:
        """Return the entities whose events count for some entities at any time."""
        persons = set(keys)
        also = {reported for reported, owner, *_ in self._stays if owner in persons}
        return sorted(also | (persons - self._reported))

    def table(self, keys: Sequence[str] | None = None) -> pa.Table | None:
        """Return a row for each owner of the events of each entity that is joined, or joined to; None if nobody is.

        Parameters
        ----------
        keys
            only what counts for these entities at any time.
        """
        if not self._stays:
            return None
        persons = None if keys is None else set(keys)
        rows = [
            (reported, name, suffix)
            for reported, owner, suffix, begin, end in self._stays
            if persons is None or owner in persons
            for name in self._names(owner, begin, end)
        ]
        columns = zip(*rows, strict=True) if rows else ((), (), ())
        return pa.table([pa.array(column, pa.string()) for column in columns], schema=ATTRIBUTED)

    def _names(self, owner: str, begin: int, end: int) -> Iterator[str]:
        if begin <= self._first:
            yield owner
        for start in self._starts.get(owner, ()):
            if begin <= start < end:
                yield f"{owner}{VIA}{start}"


#: An entity, for whom its events count, what is appended to their ids, and from when until when.
_Stay = tuple[str, str, str, int, int]


def _stays(joins: Joins, entity: str, first: int, last: int) -> Iterator[_Stay]:
    stations = joins.stations(entity)
    ends = [begin for _, _, begin in stations[1:]]
    for (owner, suffix, begin), end in zip(stations, [*ends, _NEVER], strict=True):
        if begin <= last and end > first:
            yield entity, owner, suffix, begin, end
