"""Show what segments and triggers would have done on a recorded log: as the worker does it, on a simulated clock.

Nothing is sent, and nothing is written to the store. Every entity goes through the same machine as in the worker. An
event arrives when it happened. Features are those of the offline store as they were at each instant.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import orjson

from rules_engine.clock import DAY, format_instant
from rules_engine.diagnostics import listing, nearest
from rules_engine.errors import DataError, UnknownNameError
from rules_engine.events.declarations.events_yaml import EventDeclarations, read_events
from rules_engine.events.declarations.validation import EventValidator, Rejection, check_entity
from rules_engine.events.joins import JOIN, Join, Joins, join_of
from rules_engine.events.log.event_log import EventLog
from rules_engine.features.online.selection import EntityFeatures
from rules_engine.folders import Project
from rules_engine.project.catalog import project_catalog
from rules_engine.rules.inputs import Event
from rules_engine.rules.load import Definitions, load_folder
from rules_engine.rules.program import Program
from rules_engine.sdk.rules import encode_definitions
from rules_engine.simulation.entity import Simulated
from rules_engine.simulation.feature_changes import FeatureChange, FeatureChanges
from rules_engine.simulation.recorded import Recorded, is_nobody, recorded
from rules_engine.simulation.spool import Spool
from rules_engine.stream.event_sink import event_log
from rules_engine.stream.files.mapping import Mapped, file_events
from rules_engine.stream.files.rows import BadRow
from rules_engine.triggers.record import MembershipChange, Outgoing, State, Transition, TriggerStep
from rules_engine.triggers.rules import TriggerRules

#: Entities whose features are read at once.
BATCH = 20_000

#: Later than any event.
_NO_CLOCK = 2**62

#: How many of the first actions are kept to be shown.
SHOWN = 20

Report = Callable[[str], None]


@dataclass(slots=True)
class SegmentCounts:
    """Counts how often a segment was entered and left, and how many were in it at the start and at the end."""

    entered: int = 0
    left: int = 0
    at_start: int = 0
    at_end: int = 0


@dataclass(slots=True)
class TriggerCounts:
    """Counts what became of the instances of a trigger; ``suppressed`` by reason."""

    started: int = 0
    fired: int = 0
    cancelled: int = 0
    pending: int = 0
    suppressed: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Happening:
    """Describes one thing that happened to an entity."""

    entity: str
    what: Outgoing

    def row(self) -> dict[str, Any]:
        """Return the row of a table; instants are texts."""
        step = self.what
        row = {"at": format_instant(step.at), "entity": self.entity, "cause": step.cause}
        if isinstance(step, Transition):
            return row | {"kind": "segment", "name": step.segment, "state": step.change.value}
        details = {"due": format_instant(step.due), "reason": None if step.reason is None else step.reason.value}
        payload = orjson.dumps(step.payload).decode() if step.state is State.FIRED else None
        return row | {"kind": "trigger", "name": step.trigger, "state": step.state.value, **details, "payload": payload}


#: The columns of :meth:`Happening.row`.
COLUMNS = ("at", "entity", "kind", "name", "state", "reason", "due", "cause", "payload")


@dataclass(slots=True)
class Simulation:
    """Holds what a simulation counted.

    Attributes
    ----------
    start, end
        the first and the last instant.
    refused
        rows that are no events, by reason.
    actions
        the earliest of those that would have been sent.
    """

    start: int
    end: int
    entities: int = 0
    events: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    segments: dict[str, SegmentCounts] = field(default_factory=dict)
    triggers: dict[str, TriggerCounts] = field(default_factory=dict)
    actions: list[Happening] = field(default_factory=list)

    def add(self, happening: Happening) -> None:
        """Count something that happened."""
        step = happening.what
        if isinstance(step, Transition):
            counts = self.segments[step.segment]
            counts.entered += step.change is MembershipChange.ENTER
            counts.left += step.change is MembershipChange.EXIT
            counts.at_start += step.change is MembershipChange.BASELINE
            counts.at_end += -1 if step.change is MembershipChange.EXIT else 1
            return
        self._count(self.triggers[step.trigger], step)

    @staticmethod
    def _count(counts: TriggerCounts, step: TriggerStep) -> None:
        match step.state:
            case State.FIRED:
                counts.fired += 1
            case State.CANCELLED:
                counts.cancelled += 1
            case State.SUPPRESSED if step.reason is not None:
                counts.suppressed[step.reason.value] += 1


class Simulator:
    """Runs a project's definitions, as the files have them, over its events and features.

    Parameters
    ----------
    project
        the project; it need not be applied.
    segments, triggers
        the names of the only ones to look at; None for all. With segments only, the triggers are those on them.
    features
        True to read features from the offline store, as they were at each instant, and the entities that have any.
        False takes all features as missing, and only entities with events as known.

    Raises
    ------
    UnsupportedError
        if features are read, and lie elsewhere than in files on this machine.
    DefinitionError
        with every problem of every file.
    UnknownNameError
        if a name is unknown.
    """

    def __init__(
        self,
        project: Project,
        segments: Collection[str] | None = None,
        triggers: Collection[str] | None = None,
        *,
        features: bool = True,
    ) -> None:
        from rules_engine.features.feast.repo import FeastRepo

        self._project = project
        self._repo = FeastRepo(project)
        catalog = project_catalog(project, self._repo)
        self._declared: EventDeclarations = read_events(project.events_yaml)
        self._types = {key: feature.type for key, feature in catalog.features.items()}
        chosen = choose(load_folder(project.segments_dir, catalog), segments, triggers)
        self.names = chosen.program.names
        self.rules = TriggerRules(encode_definitions(chosen, self._declared), self._types)
        self._features = FeatureChanges(self._repo, self.rules.features) if features else None

    def run(
        self,
        source: Path | None,
        mapped: Mapped | None = None,
        start: int | None = None,
        end: int | None = None,
        *,
        tell: Callable[[Happening], None] = lambda _: None,
        progress: Report = lambda _: None,
        shown: int = SHOWN,
    ) -> Simulation:
        """Run a log from one instant to another.

        Parameters
        ----------
        source
            a file of events; None for the project's own event log.
        start
            the first instant; events before it are known, and start nothing. Default: that of the first event.
        end
            the last instant. Default: that of the last event.
        tell
            called with everything that happens, entity by entity.
        shown
            how many of the first actions are kept.

        Raises
        ------
        DataError
            if the file cannot be read, or there are no events.
        """
        with ExitStack() as spools:
            refused: Counter[str] = Counter()
            spool, joins = spools.enter_context(Spool()), list[Join]()
            for entity, event in self._events(source, mapped or Mapped(), end, refused):
                if event.name == JOIN:
                    joins.append(join_of(entity, event))
                else:
                    spool.add(entity, event)
                if spool.events % 10_000 == 0:
                    progress(f"Read {spool.events:,} events")
            if spool.first is None or spool.last is None:
                raise DataError(_nothing(source, refused))
            simulation = Simulation(
                spool.first if start is None else start, spool.last if end is None else end, refused=refused
            )
            if simulation.end < simulation.start:
                raise DataError(f"the end, {format_instant(simulation.end)}, is before the start")
            simulation.events = spool.events
            if joins:
                spool = _with_joins(spool, joins, spools.enter_context(Spool()))
            simulation.segments = {name: SegmentCounts() for name in sorted(self.names)}
            simulation.triggers = {name: TriggerCounts() for name in sorted(self.rules.triggers)}
            for entity in () if self._features is None else self._features.entities(simulation.end):
                spool.know(entity)
            self._simulate(spool, simulation, tell, progress, shown)
            return simulation

    def _simulate(
        self, spool: Spool, simulation: Simulation, tell: Callable[[Happening], None], progress: Report, shown: int
    ) -> None:
        first: list[tuple[int, int, Happening]] = []  # a heap: the latest of the earliest actions is on top
        place = done = 0
        for entity, events, changes in self._with_features(spool.entities(), simulation):
            done += len(events)
            if is_nobody(item for item in events if item[0] < simulation.start):
                continue
            simulation.entities += 1
            for step in self._entity(entity, events, changes, simulation):
                happening = Happening(entity, step)
                simulation.add(happening)
                tell(happening)
                if shown and isinstance(step, TriggerStep) and step.state is State.FIRED:
                    place -= 1
                    heapq.heappush(first, (-step.at, place, happening))
                    if len(first) > shown:
                        heapq.heappop(first)
            progress(f"Simulated {done:,} of {spool.events:,} events")
        simulation.actions = [happening for _, _, happening in sorted(first, reverse=True)]

    def _entity(
        self, entity: str, events: list[Recorded], changes: list[FeatureChange], simulation: Simulation
    ) -> Iterator[Outgoing]:
        before = [event for arrival, event in events if arrival < simulation.start]
        is_known = bool(changes) and changes[0].at <= simulation.start
        features = changes[0].features if is_known else EntityFeatures(entity)
        simulated = Simulated(self.rules, features, before, simulation.start, is_known=is_known)
        instances: set[tuple[str, str]] = set()
        for outgoing in simulated.run(events[len(before) :], simulation.end, changes[is_known:]):
            if isinstance(outgoing, TriggerStep):
                instances.add((outgoing.trigger, outgoing.cause))
            yield outgoing
        for pending in simulated.record.pending:
            if pending.begins <= simulation.end:
                simulation.triggers[pending.trigger].pending += 1
        for trigger, _ in instances:
            simulation.triggers[trigger].started += 1

    # --- what goes in -----------------------------------------------------------------------------------------------

    def _events(
        self, source: Path | None, mapped: Mapped, end: int | None, refused: Counter[str]
    ) -> Iterator[tuple[str, Event]]:
        events = self._logged(end) if source is None else self._of_file(source, mapped, refused)
        return (event for event in events if end is None or event[1].at <= end)

    def _logged(self, end: int | None) -> Iterator[tuple[str, Event]]:
        log: EventLog = event_log(self._project)
        yield from ((join.entity, join.event) for join in log.joins())
        for day in log.days():
            if end is None or day * DAY <= end:
                yield from log.read(day, self._declared.events)

    def _of_file(self, path: Path, mapped: Mapped, refused: Counter[str]) -> Iterator[tuple[str, Event]]:
        names = self._declared.events
        for name in [*mapped.names.values(), *([mapped.name] if mapped.name else [])]:
            if name not in names:
                raise UnknownNameError(f"there is no event `{name}` in events.yaml", hint=nearest(name, names))
        validator = EventValidator(self._declared)
        for row in file_events(path, mapped, names):
            if isinstance(row, BadRow):
                refused[row.rejection.code] += 1
                continue
            raw = row.raw
            entity = check_entity(raw["entity"])
            event = validator.check(raw["event"], raw["at"], raw["event_id"], raw["properties"], received=_NO_CLOCK)
            bad = next((checked for checked in (entity, event) if isinstance(checked, Rejection)), None)
            if bad is not None:
                refused[bad.code] += 1
            elif isinstance(entity, str) and isinstance(event, Event):
                yield entity, event

    def _with_features(
        self, entities: Iterator[tuple[str, list[Recorded]]], simulation: Simulation
    ) -> Iterator[tuple[str, list[Recorded], list[FeatureChange]]]:
        """Yield every entity with its events and its features over time."""
        while some := list(islice(entities, BATCH)):
            changes: dict[str, list[FeatureChange]] = {}
            if self._features is not None:
                changes = self._features.read([entity for entity, _ in some], simulation.start, simulation.end)
            for entity, events in some:
                yield entity, events, changes.get(entity, [])


def _with_joins(events: Spool, joins: Iterable[Join], into: Spool) -> Spool:
    """Return the events as they arrive at all for whom they count; of several joins of an id the earliest counts."""
    taken = Joins(sorted(joins, key=lambda join: join.at))
    for entity, items in events.entities():
        for _, event in items:
            for owner, (arrival, handed_on) in recorded(entity, event, taken):
                into.add(owner, handed_on, arrival)
    for join in taken:
        into.add(join.entity, join.event)
    return into


def choose(definitions: Definitions, segments: Collection[str] | None, triggers: Collection[str] | None) -> Definitions:
    """Return only the definitions that were asked for, and those that they need.

    Raises
    ------
    UnknownNameError
        if a name is unknown.
    """
    for name in triggers or ():
        if name not in definitions.triggers:
            hint = nearest(name, definitions.triggers) or f"there are {listing(definitions.triggers)}"
            raise UnknownNameError(f"there is no trigger `{name}`", hint=hint)
    if segments is None and triggers is None:
        return definitions
    wanted_segments = set(segments or ())
    chosen = {
        name: trigger
        for name, trigger in definitions.triggers.items()
        if (name in triggers if triggers is not None else trigger.segment in wanted_segments)
    }
    from rules_engine.rules.triggers.nodes import hidden_segments

    hidden = hidden_segments(chosen.values())
    whole = Program({**definitions.program.segments, **hidden})
    roots = {
        *wanted_segments,
        *hidden,
        *(trigger.segment for trigger in chosen.values() if trigger.segment is not None),
    }
    reached = [name for name in whole.closure(sorted(roots)) if name not in hidden]
    chosen_kinds: dict[str, Mapping[str, Any]] = {
        "segment": {name: whole.segments[name] for name in reached},
        "trigger": chosen,
    }
    return Definitions({**definitions.values, **chosen_kinds})


def _nothing(source: Path | None, refused: Mapping[str, int]) -> str:
    if refused:
        reasons = listing(f"{code} ({count:,})" for code, count in sorted(refused.items()))
        return f"{source} has no event that is as declared: {reasons}"
    return "the project's event log is empty: name a file of events" if source is None else f"{source} has no events"


def write_rows(happenings: Iterable[Happening]) -> Any:
    """Return rows as an Arrow batch."""
    import pyarrow as pa

    rows = [happening.row() for happening in happenings]
    return pa.RecordBatch.from_pylist([{name: row.get(name) for name in COLUMNS} for row in rows], schema=schema())


def schema() -> Any:
    """Return the schema of the file of ``--out``."""
    import pyarrow as pa

    return pa.schema([(name, pa.string()) for name in COLUMNS])
