"""A random project: what its features, events and segments are, before any of it is written to disk."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, TypeVar

import hypothesis
from hypothesis import HealthCheck, Phase
from hypothesis import strategies as st

from tests.property import pools
from tests.property.columns import COLUMNS, Column
from tests.property.leaves import Condition, Draw, Vocabulary
from tests.property.strategies import draw_condition
from tests.property.triggers import CONSENT, draw_trigger
from tests.reference_values import length

T = TypeVar("T")
Row = Mapping[str, Any]
_VIEWS = ("u", "v")
_SETTINGS = {"deadline": None, "database": None, "phases": [Phase.generate], "suppress_health_check": [*HealthCheck]}


@dataclass(frozen=True)
class Size:
    """How large a project may become."""

    entities: int = 60
    events: int = 2_000
    segments: int = 16
    triggers: int = 3


#: At most so many events of one entity, on average: five times what a state keeps for a condition.
_EVENTS_OF_ONE = 5_000


@dataclass(frozen=True)
class World:
    """A project and all that ever happened in it.

    Attributes
    ----------
    numeric_keys
        whether the keys are whole numbers in the sources; events name them as text all the same.
    types, columns
        by ``VIEW:NAME`` the declared type, and what its column in the source is.
    ttls
        by view how long a row counts; zero for ever.
    created
        the views whose sources have a created timestamp, which decides between rows of one instant.
    rows
        by view its rows, with ``entity``, ``at``, ``made`` and values by name, as the source holds them. Of rows
        that tie the last one counts; those without a key or an instant never do.
    events
        as files hold them, each with ``entity``, ``event``, ``at``, ``event_id`` and properties.
    segments
        conditions by name, those that are applied first in front.
    triggers
        by name, as `tests.reference_triggers` has them.
    """

    seed: int
    now: datetime
    entities: Sequence[str]
    numeric_keys: bool
    types: Mapping[str, str]
    columns: Mapping[str, Column]
    ttls: Mapping[str, timedelta]
    created: frozenset[str]
    rows: Mapping[str, Sequence[Row]]
    events: Sequence[Mapping[str, Any]]
    segments: Mapping[str, Condition]
    triggers: Mapping[str, Mapping[str, Any]]

    def newest(self, view: str, entity: str, at: datetime) -> Row | None:
        """Return the row of a view that counts for an entity as of an instant."""
        rows = [row for row in self._by_entity[view].get(entity, ()) if row["at"] <= at]
        first = datetime.min.replace(tzinfo=UTC)
        order = (lambda row: (row["at"], row["made"] or first)) if view in self.created else (lambda row: row["at"])
        return sorted(rows, key=order)[-1] if rows else None  # stable: of those that tie the last as written

    def features(self, entity: str, at: datetime) -> tuple[dict[str, Any], dict[str, datetime]]:
        """Return what an entity's features are as of an instant, without missing ones, and the instant of each view."""
        values: dict[str, Any] = {}
        updated_at: dict[str, datetime] = {}
        for view in self.rows:
            row = self.newest(view, entity, at)
            if row is not None:
                updated_at[view] = row["at"]
                names = [name for name in self.types if name.startswith(f"{view}:")]
                read = {name: self.columns[name].read(row[name.partition(":")[2]]) for name in names}
                values |= {name: value for name, value in read.items() if value is not None}
        return values, updated_at

    def rows_at(self, entity: str) -> set[datetime]:
        """Return the instants of an entity's rows."""
        return {row["at"] for rows in self._by_entity.values() for row in rows.get(entity, ())}

    @cached_property
    def _by_entity(self) -> dict[str, dict[str, list[Row]]]:
        found: dict[str, dict[str, list[Row]]] = {view: {} for view in self.rows}
        for view, rows in self.rows.items():
            for row in rows:
                if row["entity"] is not None and row["at"] is not None:
                    found[view].setdefault(row["entity"], []).append(row)
        return found


def draw_world(seed: int, size: Size) -> World:
    """Draw a project. The same seed and size give the same project."""
    draw = random.Random(seed)
    words = _vocabulary(draw)
    numeric = draw.random() < 0.3
    number = draw.randint(2, size.entities)
    entities = [str(7 * place) if numeric else f"e{place:03d}" for place in range(number)]
    columns = {name: draw.choice(COLUMNS[kind]) for name, kind in sorted(words.types.items())}
    segments = _segments(draw, words, size.segments)
    return World(
        seed=seed,
        now=words.now,
        entities=entities,
        numeric_keys=numeric,
        types=words.types,
        columns=columns,
        ttls={view: draw.choice([timedelta(0), timedelta(0), length(draw.choice(words.durations))]) for view in _VIEWS},
        created=frozenset(view for view in _VIEWS if draw.random() < 0.4),
        rows={view: _rows(draw, words, view, entities, columns) for view in _VIEWS},
        events=_events(draw, words, entities, int(size.events ** draw.random())),
        segments=segments,
        triggers=_triggers(draw, words, list(segments), size.triggers),
    )


def _vocabulary(draw: random.Random) -> Vocabulary:
    lively = draw.random() < 0.5
    pool = pools.LIVELY_TYPES if lively else pools.TYPES
    types = {f"{draw.choice(_VIEWS)}:{name}": draw.choice(pool) for name in draw.sample("abcdefgh", draw.randint(2, 6))}
    for view in _VIEWS:  # Feast wants a feature in each view
        types.setdefault(f"{view}:z", draw.choice(pool))
    return Vocabulary(
        types={**types, "u:zone": "String", CONSENT: "Bool"},
        now=draw.choice(pools.NOWS),
        durations=tuple(draw.sample(pools.DURATIONS, draw.randint(2, 4))),
        zone=draw.choice(pools.ZONES),
        exact=True,
        events=True,
        lively=lively,
    )


def _segments(draw: random.Random, words: Vocabulary, number: int) -> dict[str, Condition]:
    """Draw conditions, each of which may refer to those before it."""
    made: dict[str, Condition] = {}
    for place in range(number):
        made[f"s{place:03d}"] = _condition(words, list(made), draw.choice((1, 2, 3)), draw.getrandbits(32))
    return made


def _condition(words: Vocabulary, names: Sequence[str], depth: int, seed: int) -> Condition:
    return drawn_by_hypothesis(lambda draw: draw_condition(draw, words, names, depth), seed)


def _triggers(draw: random.Random, words: Vocabulary, names: Sequence[str], number: int) -> dict[str, Any]:
    """Draw triggers on the segments."""
    seeds = {f"t{place:03d}": draw.getrandbits(32) for place in range(number if names else 0)}
    return {
        name: drawn_by_hypothesis(lambda draw: draw_trigger(draw, words, names), seed) for name, seed in seeds.items()
    }


def drawn_by_hypothesis(make: Callable[[Draw], T], seed: int) -> T:
    """Draw as the property tests do: the last of two, as the first that Hypothesis draws is dull."""
    drawn: list[T] = []

    @hypothesis.seed(seed)
    @hypothesis.settings(max_examples=2, **_SETTINGS)
    @hypothesis.given(st.data())
    def collect(data: st.DataObject) -> None:
        drawn.append(make(data.draw))  # type: ignore[arg-type]

    collect()
    return drawn[-1]


# --- data -----------------------------------------------------------------------------------------------------------


def instant(draw: random.Random, words: Vocabulary) -> datetime:
    """Draw an instant on the edge of a window around now, mostly before it."""
    offset = timedelta()
    for _ in range(draw.choice((0, 1, 1, 1, 2))):
        offset += length(draw.choice(words.durations)) * draw.choice((1, 1, 1, 0.5))
    return words.now - offset * draw.choice((1, 1, 1, 1, 1, -1)) + draw.choice((0, 0, 0, 1, -1)) * pools.TICK


def _rows(
    draw: random.Random, words: Vocabulary, view: str, entities: Sequence[str], columns: Mapping[str, Column]
) -> list[dict[str, Any]]:
    mine = {name.partition(":")[2]: column for name, column in columns.items() if name.startswith(f"{view}:")}
    rows = []
    for entity in entities:
        at = min(instant(draw, words), words.now)
        for _ in range(draw.choice((0, 1, 1, 2, 3))):
            at = at if draw.random() < 0.2 else min(instant(draw, words), words.now)  # rows tie on their instants
            values = {
                name: None if draw.random() < 0.1 else _value(draw, column, words) for name, column in mine.items()
            }
            if "zone" in values:
                values["zone"] = draw.choice((words.zone, words.zone, None, *pools.NO_ZONES))
            rows.append(
                {
                    "entity": None if draw.random() < 0.01 else entity,
                    "at": None if draw.random() < 0.01 else at,
                    "made": draw.choice((None, words.now, words.now - pools.TICK)),
                    **values,
                }
            )
    draw.shuffle(rows)
    return rows


def _value(draw: random.Random, column: Column, words: Vocabulary) -> Any:
    if column.of_instant is not None and draw.random() < 0.9:
        return column.of_instant(instant(draw, words))
    return draw.choice(column.values)


def _events(draw: random.Random, words: Vocabulary, entities: Sequence[str], number: int) -> list[dict[str, Any]]:
    number = min(number, _EVENTS_OF_ONE * len(entities))
    skew = draw.choice((1, 2, 3))  # above 1 a few entities have most events
    events: list[dict[str, Any]] = []
    for place in range(number):
        if events and draw.random() < 0.05:
            events.append(dict(draw.choice(events)))  # delivered twice
            continue
        event = {
            "entity": entities[int(len(entities) * draw.random() ** skew)],
            "event": draw.choice(pools.EVENTS),
            "at": instant(draw, words),
            "event_id": f"{place}",
        }
        values: Mapping[str, Callable[[], Any]] = {
            "string": lambda: draw.choice(pools.SHORT_STRINGS),
            "number": lambda: draw.choice(pools.PRICES),
            "bool": lambda: draw.choice((True, False)),
            "time": lambda: instant(draw, words),
            "list": lambda: [draw.choice(pools.SHORT_STRINGS) for _ in range(draw.randint(0, 4))],
        }
        event |= {name: values[kind]() for name, kind in pools.PROPERTIES.items() if draw.random() < 0.65}
        events.append(event)
    return events
