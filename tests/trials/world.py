"""A random project: what its features, events and segments are, before any of it is written to disk."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar

import hypothesis
from hypothesis import HealthCheck, Phase
from hypothesis import strategies as st

from tests.property import pools
from tests.property.leaves import Condition, Vocabulary, scalar_pool
from tests.property.strategies import draw_condition
from tests.reference_values import length

T = TypeVar("T")
_VIEWS = ("u", "v")
_SETTINGS = {"deadline": None, "database": None, "phases": [Phase.generate], "suppress_health_check": [*HealthCheck]}


@dataclass(frozen=True)
class Size:
    """How large a project may become."""

    entities: int = 60
    events: int = 2_000
    segments: int = 16


@dataclass(frozen=True)
class World:
    """A project and all that ever happened in it.

    Attributes
    ----------
    types
        by ``VIEW:NAME`` the declared type.
    ttls
        by view how long a row counts; zero for ever.
    rows
        by view its rows, with ``entity``, ``at`` and values by name; of rows of one instant the last one counts.
    events
        as files hold them, each with ``entity``, ``event``, ``at``, ``event_id`` and properties.
    segments
        conditions by name, those that are applied first in front.
    """

    seed: int
    now: datetime
    entities: Sequence[str]
    types: Mapping[str, str]
    ttls: Mapping[str, timedelta]
    rows: Mapping[str, Sequence[Mapping[str, Any]]]
    events: Sequence[Mapping[str, Any]]
    segments: Mapping[str, Condition]


def draw_world(seed: int, size: Size) -> World:
    """Draw a project. The same seed and size give the same project."""
    draw = random.Random(seed)
    words = _vocabulary(draw)
    number = draw.randint(2, size.entities)
    entities = [f"e{place:03d}" for place in range(number)]
    return World(
        seed=seed,
        now=words.now,
        entities=entities,
        types=words.types,
        ttls={view: draw.choice([timedelta(0), timedelta(0), length(draw.choice(words.durations))]) for view in _VIEWS},
        rows={view: _rows(draw, words, view, entities) for view in _VIEWS},
        events=_events(draw, words, entities, int(size.events ** draw.random())),
        segments=_segments(draw, words, size.segments),
    )


def _vocabulary(draw: random.Random) -> Vocabulary:
    lively = draw.random() < 0.5
    pool = pools.LIVELY_TYPES if lively else pools.TYPES
    types = {f"{draw.choice(_VIEWS)}:{name}": draw.choice(pool) for name in draw.sample("abcdefgh", draw.randint(2, 6))}
    for view in _VIEWS:  # Feast wants a feature in each view
        types.setdefault(f"{view}:z", draw.choice(pool))
    return Vocabulary(
        types={**types, "u:zone": "String"},
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
    """Draw a condition as the property tests do: the last of two, as the first that Hypothesis draws is dull."""
    drawn: list[Condition] = []

    @hypothesis.seed(seed)
    @hypothesis.settings(max_examples=2, **_SETTINGS)
    @hypothesis.given(st.data())
    def collect(data: st.DataObject) -> None:
        drawn.append(draw_condition(data.draw, words, names, depth))  # type: ignore[arg-type]

    collect()
    return drawn[-1]


# --- data -----------------------------------------------------------------------------------------------------------


def instant(draw: random.Random, words: Vocabulary) -> datetime:
    """Draw an instant on the edge of a window around now, mostly before it."""
    offset = timedelta()
    for _ in range(draw.choice((0, 1, 1, 1, 2))):
        offset += length(draw.choice(words.durations)) * draw.choice((1, 1, 1, 0.5))
    return words.now - offset * draw.choice((1, 1, 1, 1, 1, -1)) + draw.choice((0, 0, 0, 1, -1)) * pools.TICK


def _rows(draw: random.Random, words: Vocabulary, view: str, entities: Sequence[str]) -> list[dict[str, Any]]:
    types = {name.partition(":")[2]: kind for name, kind in words.types.items() if name.startswith(f"{view}:")}
    rows = []
    for entity in entities:
        for _ in range(draw.choice((0, 1, 1, 2, 3))):
            at = min(instant(draw, words), words.now)
            values = {name: None if draw.random() < 0.1 else _value(draw, kind, words) for name, kind in types.items()}
            if "zone" in values:
                values["zone"] = draw.choice((words.zone, words.zone, None, *pools.NO_ZONES))
            rows.append({"entity": entity, "at": at, **values})
    draw.shuffle(rows)
    return rows


def _value(draw: random.Random, kind: str, words: Vocabulary) -> Any:
    """Draw a value of a declared type. Feast keeps whole seconds of a timestamp."""
    if kind == "UnixTimestamp":
        return instant(draw, words).replace(microsecond=0)
    if kind.startswith("Array("):
        return _list(draw, kind[6:-1])
    pool = scalar_pool(kind)
    return draw.choice((*pool, *pools.ENDLESS, float("nan")) if kind.startswith("Float") else pool)


def _list(draw: random.Random, element: str) -> list[Any]:
    pool: Mapping[str, Sequence[Any]] = {"String": pools.SHORT_STRINGS, "Int64": (*pools.SMALL_INTEGERS, 2**53 + 1)}
    return [draw.choice(pool.get(element, pools.HALVES)) for _ in range(draw.randint(0, 4))]


def _events(draw: random.Random, words: Vocabulary, entities: Sequence[str], number: int) -> list[dict[str, Any]]:
    # At most some hundreds for each entity: what lies beyond the bound of a state is another test's matter.
    number = min(number, 300 * len(entities))
    events: list[dict[str, Any]] = []
    for place in range(number):
        if events and draw.random() < 0.05:
            events.append(dict(draw.choice(events)))  # delivered twice
            continue
        event = {
            "entity": draw.choice(entities),
            "event": draw.choice(pools.EVENTS),
            "at": instant(draw, words),
            "event_id": f"{place}",
        }
        values: Mapping[str, Callable[[], Any]] = {
            "string": lambda: draw.choice(pools.SHORT_STRINGS),
            "number": lambda: draw.choice(pools.PRICES),
            "bool": lambda: draw.choice((True, False)),
            "time": lambda: instant(draw, words),
            "list": lambda: _list(draw, "String"),
        }
        event |= {name: values[kind]() for name, kind in pools.PROPERTIES.items() if draw.random() < 0.65}
        events.append(event)
    return events
