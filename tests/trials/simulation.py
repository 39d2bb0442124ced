"""The comparison of `simulate` with batch answers as of instants, and with brute force for triggers."""

from __future__ import annotations

import json
import random
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from rules_engine.clock import to_micros
from rules_engine.folders import Project
from rules_engine.rules.load import Definitions
from rules_engine.simulation.simulate import Happening, Simulator
from tests.commands import run
from tests.property import pools
from tests.reference_triggers import Data, Reference
from tests.reference_values import length
from tests.trials.outcome import Trial
from tests.trials.plain import Plain
from tests.trials.world import World

#: Brute force tries every instant that could matter: it is for entities with few events, and triggers on few segments.
_EVENTS, _SEGMENTS, _ENTITIES = 6, 4, 3


#: A simulation looks after every event, so it is compared in projects with at most so many.
_SIMULATED = 5_000


class SimulationComparison:
    """Compares what happens in a simulation with what the plain evaluator and brute force say."""

    def __init__(self, world: World, root: Path, draw: random.Random, trial: Trial, definitions: Definitions) -> None:
        self._world = world
        self._root = root
        self._draw = draw
        self._trial = trial
        self._plain = Plain(world, definitions.program)
        self._triggers = sorted(definitions.triggers)
        moments = sorted(world.now + draw.choice((-1, -1, 0, 1)) * length(draw.choice(pools.DURATIONS)) for _ in "ab")
        self._start, self._end = moments[0], moments[1] + timedelta(seconds=1)

    def compare(self) -> None:
        """Compare memberships at the start, at the end and in between; and all that happens to some with triggers."""
        happened = sum(event["at"] <= self._end for event in self._world.events)
        if not 0 < happened <= _SIMULATED:
            return
        self._memberships()
        for name in self._triggers:
            self._trigger(name)

    # --- memberships ------------------------------------------------------------------------------------------------

    def _memberships(self) -> None:
        out = self._root / "simulated.parquet"
        period = ["--from", self._start.isoformat(), "--to", self._end.isoformat()]
        run("simulate", *period, "--out", out, "--repo", self._root)
        rows = [row for row in pq.read_table(out).to_pylist() if row["kind"] == "segment"]
        moves = {
            entity: sorted(
                ((to_micros(datetime.fromisoformat(row["at"])), row["name"], row["state"]) for row in some),
                key=itemgetter(0),
            )
            for entity, some in groupby(rows, key=itemgetter("entity"))
        }
        span = (self._end - self._start) // timedelta(microseconds=1)
        inner = [self._start + timedelta(microseconds=self._draw.randint(0, span)) for _ in range(2)]
        for at in (self._start, *inner, self._end):
            for entity in self._world.entities:
                if not self._plain.is_beyond_bound(entity) and self._is_known(entity, at):
                    simulated = _folded(moves.get(entity, []), to_micros(at), self._plain.names)
                    plain = {name: truth is True for name, truth in self._plain.answers(entity, to_micros(at)).items()}
                    self._trial.compare("simulate, plain", f"{entity} at {at}", simulated, plain)

    def _is_known(self, entity: str, at: datetime) -> bool:
        """Tell whether there is anything of an entity yet: before that a simulation does not look at it."""
        events = self._plain.events(entity)
        return bool(events and events[0].at <= to_micros(at)) or bool(self._world.features(entity, at)[1])

    # --- triggers ---------------------------------------------------------------------------------------------------

    def _trigger(self, name: str) -> None:
        """Compare all that happens to some entities because of a trigger and its segments."""
        simulator = Simulator(Project.open(self._root), None, [name])
        if len(simulator.names) > _SEGMENTS:
            return
        happenings: dict[str, list[Happening]] = {}
        simulator.run(
            None,
            None,
            to_micros(self._start),
            to_micros(self._end),
            tell=lambda happening: happenings.setdefault(happening.entity, []).append(happening),
        )
        few = [entity for entity in self._world.entities if len(self._plain.events(entity)) <= _EVENTS]
        for entity in self._draw.sample(few, min(_ENTITIES, len(few))):
            reference = self._reference(entity, name, simulator.names)
            brute = dict(enumerate(map(repr, reference.told)))
            simulated = dict(enumerate(repr(_plain_step(happening)) for happening in happenings.get(entity, ())))
            self._trial.compare("simulate, triggers", f"{entity}, {name}", simulated, brute)

    def _reference(self, entity: str, trigger: str, names: Iterable[str]) -> Reference:
        """Take an entity through everything that happens to it, by brute force."""
        segments = {name: self._world.segments[name] for name in names}
        rows = sorted(self._world.rows_at(entity))
        events = [event for event in self._world.events if event["entity"] == entity and event["at"] <= self._end]
        events.sort(key=lambda event: (event["at"], f"{event['event']}:{event['event_id']}"))
        before = [event for event in events if event["at"] < self._start]
        is_known = bool(before) or bool(rows and rows[0] <= self._start)
        made = Reference(
            entity,
            segments,
            {trigger: self._world.triggers[trigger]},
            self._data(entity, self._start),
            () if is_known else segments,
        )
        made.log = before
        if is_known:
            made.look(self._start, "start")
        changes = rows[bisect_right(rows, self._start) : bisect_right(rows, self._end)]
        steps = [(at, 0, None) for at in changes] + [(event["at"], 1, event) for event in events[len(before) :]]
        for at, _, event in sorted(steps, key=itemgetter(0, 1)):
            if event is None:
                made.look(at, "features", self._data(entity, at))
            else:
                made.event(event, at)
        made.timers(self._end + pools.TICK)
        return made

    def _data(self, entity: str, at: datetime) -> Data:
        features, updated_at = self._world.features(entity, at)
        ttls = {view: f"{ttl // timedelta(seconds=1)}s" for view, ttl in self._world.ttls.items() if ttl}
        return Data(features, self._world.types, updated_at, ttls)


def _folded(moves: Iterable[tuple[int, str, str]], at: int, names: Iterable[str]) -> dict[str, bool]:
    """Return the memberships at an instant by the transitions until then."""
    members: set[str] = set()
    for moment, name, state in moves:
        if moment <= at:
            (members.discard if state == "exit" else members.add)(name)
    return {name: name in members for name in names}


def _plain_step(happening: Happening) -> tuple[Any, ...]:
    """Return what happened as brute force tells it."""
    row: Mapping[str, Any] = happening.row()
    at = datetime.fromisoformat(row["at"])
    if row["kind"] == "segment":
        return row["state"], row["name"], at, row["cause"], happening.what.number
    payload = json.loads(row["payload"]) if row["payload"] else {}
    return row["state"], row["name"], row["cause"], at, datetime.fromisoformat(row["due"]), row["reason"], payload
