"""The stages of an apply: found once, shown by `segments plan`, and performed by `segments apply`.

A stage is plain frozen data that says what is done, not how. So `apply` does exactly what `plan` shows.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from hashlib import sha256
from typing import Any

from rules_engine.clock import format_instant
from rules_engine.deploy.lists.changes import ListChange
from rules_engine.features.feast.registry import RegistryChange
from rules_engine.project.versions import plan_content
from rules_engine.read_plan import ReadPlan

#: How many names a line for people lists; JSON lists all.
NAMES_SHOWN = 20


def some_of(names: Sequence[str]) -> str:
    """Return names for people, the first few of many.

    >>> some_of(["a", "b"]), some_of([f"s{number}" for number in range(1_020)])[-28:]
    ('a, b', 's17, s18, s19 and 1,000 more')
    """
    shown = ", ".join(names[:NAMES_SHOWN])
    return shown + (f" and {len(names) - NAMES_SHOWN:,} more" if len(names) > NAMES_SHOWN else "")


@dataclass(frozen=True, slots=True)
class NameChanges:
    """Names of one kind of definition, by what happens to them.

    >>> NameChanges.between({"a": 1, "b": 1}, {"b": 2, "c": 1})
    NameChanges(added=('c',), changed=('b',), removed=('a',))
    """

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.added or self.changed or self.removed)

    @classmethod
    def between(cls, before: Mapping[str, Any], after: Mapping[str, Any]) -> NameChanges:
        """Return the names that differ between two sets of definitions."""
        return cls(
            added=tuple(sorted(after.keys() - before.keys())),
            changed=tuple(sorted(name for name in after.keys() & before.keys() if after[name] != before[name])),
            removed=tuple(sorted(before.keys() - after.keys())),
        )

    def lines(self, what: str) -> Iterator[str]:
        """Yield a line for each kind of change.

        >>> list(NameChanges(added=("a", "b"), removed=("c",)).lines("segments"))
        ['segments added: a, b', 'segments removed: c']
        """
        for word, names in (("added", self.added), ("changed", self.changed), ("removed", self.removed)):
            if names:
                yield f"{what} {word}: {some_of(names)}"


@dataclass(frozen=True, slots=True)
class Register:
    """Bring Feast's registry to the state of the files."""

    change: RegistryChange

    def lines(self) -> Iterator[str]:
        """Say in lines what is done; the first one says it all if it stands alone."""
        yield "bring Feast's registry up to date"
        change = self.change
        yield from NameChanges(change.added, change.updated, change.removed).lines("features")


@dataclass(frozen=True, slots=True)
class ImportLists:
    """Import the lists whose files differ from what was imported, before the new definitions read them."""

    lists: tuple[ListChange, ...]

    def lines(self) -> Iterator[str]:
        """Say in lines what is done."""
        yield "import lists"
        yield from map(str, self.lists)


@dataclass(frozen=True, slots=True)
class BuildStates:
    """Build the event states that the new definitions need from the event log, next to the old ones.

    Attributes
    ----------
    events
        the names of the events that are read.
    since
        the first day of the log that is read, in microseconds; None if the log has no such event.
    days, rows, users
        the numbers of days of the log, of events (one that was delivered twice may count twice), and of entities, None
        if not counted.
    """

    events: tuple[str, ...]
    since: int | None = None
    days: int = 0
    rows: int = 0
    users: int | None = None

    def lines(self) -> Iterator[str]:
        """Say in lines what is done."""
        yield f"build the states of {some_of(self.events)} from the event log"
        if self.since is None:
            yield "the log has no such event yet"
            return
        of_users = "" if self.users is None else f" of {_counted(self.users, 'user')}"
        day = format_instant(self.since).partition("T")[0]
        yield f"{_counted(self.rows, 'event')}{of_users} on {_counted(self.days, 'day')} since {day}"


@dataclass(frozen=True, slots=True)
class KeepVersion:
    """Keep the new read plan as a version that one can go back to."""

    number: int

    def lines(self) -> Iterator[str]:
        """Say in lines what is done."""
        yield f"keep it as version {self.number}"


@dataclass(frozen=True, slots=True)
class Switch:
    """Replace the read plan in one step, so that each request uses either the old definitions or the new ones.

    ``definitions`` are the names that change, by kind; kinds without changes are absent.
    """

    definitions: tuple[tuple[str, NameChanges], ...]

    def lines(self) -> Iterator[str]:
        """Say in lines what is done."""
        yield "put it into effect"
        for kind, names in self.definitions:
            yield from names.lines(kind)


@dataclass(frozen=True, slots=True)
class CatchUp:
    """Add the events that came meanwhile to the new states, and let the old states expire."""

    def lines(self) -> Iterator[str]:
        """Say in lines what is done."""
        yield "take up the events that came meanwhile; the old states expire after a day"


@dataclass(frozen=True, slots=True)
class Reevaluate:
    """Let the workers evaluate all entities anew, in the segments that are added or changed or refer to such ones.

    ``triggers`` may start for entities that thereby enter or leave.
    """

    segments: tuple[str, ...]
    triggers: tuple[str, ...] = ()

    def lines(self) -> Iterator[str]:
        """Say in lines what is done."""
        yield f"let the workers evaluate everyone again by {some_of(self.segments)}"
        if self.triggers:
            yield f"triggers that may start: {some_of(self.triggers)}"


Stage = Register | ImportLists | BuildStates | KeepVersion | Switch | CatchUp | Reevaluate


@dataclass(frozen=True, slots=True)
class ApplyStages:
    """All that one apply does.

    Attributes
    ----------
    stages
        in order.
    before
        the hash of the read plan in effect; None if there is none that can be read.
    definitions
        the definitions that are put into effect, in the form of the read plan.
    now
        the instant that counts as now, in microseconds; None: the wall clock.
    differs
        whether anything differs from what is applied.
    """

    stages: tuple[Stage, ...]
    before: str | None
    definitions: Mapping[str, Any] = field(default_factory=dict, repr=False)
    now: int | None = None
    differs: bool = True

    @property
    def id(self) -> str:
        """Return a short hash, equal for equal stages from the same state. The number of logged events does not matter.

        >>> kept = (KeepVersion(2),)
        >>> ApplyStages(kept, "a").id == ApplyStages(kept, "a").id != ApplyStages(kept, "b").id
        True
        """
        done = [
            [type(stage).__name__, sorted(stage.events) if isinstance(stage, BuildStates) else to_data(stage)]
            for stage in self.stages
        ]
        content = [self.before, self.now, done, self.definitions]
        return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]

    def of(self, kind: str) -> NameChanges:
        """Return the names of one kind of definition that change: ``segments``, ``events``, ``triggers`` and so on."""
        switches = [stage for stage in self.stages if isinstance(stage, Switch)]
        return next((names for stage in switches for name, names in stage.definitions if name == kind), NameChanges())


@dataclass(frozen=True, slots=True)
class ApplyReport:
    """Report what an apply did.

    Attributes
    ----------
    plan
        the read plan that requests now answer from.
    previous
        the one before it; None if there was none that could be read.
    registry
        what changed in Feast's registry.
    version
        the number under which the plan is kept.
    stages
        what was done, in order.
    notes
        sentences on rows of sources that will be left out, or that tie on their instants.
    """

    plan: ReadPlan
    previous: ReadPlan | None
    registry: RegistryChange
    version: int
    stages: ApplyStages
    notes: tuple[str, ...] = ()

    @property
    def changed(self) -> bool:
        """Tell whether anything differs from before."""
        previous = self.previous
        return bool(self.registry) or previous is None or plan_content(previous) != plan_content(self.plan)


#: How stages are named in JSON.
STAGE_NAMES: dict[type, str] = {
    Register: "register",
    ImportLists: "import_lists",
    BuildStates: "build_states",
    KeepVersion: "keep",
    Switch: "switch",
    CatchUp: "catch_up",
    Reevaluate: "sweep",
}


def stage_data(stage: Stage) -> dict[str, Any]:
    """Return a stage as JSON data.

    >>> stage_data(KeepVersion(2))
    {'stage': 'keep', 'number': 2}
    """
    data: dict[str, Any] = {"stage": STAGE_NAMES[type(stage)]}
    if isinstance(stage, Switch):
        return data | {kind: to_data(names) for kind, names in stage.definitions}
    data |= to_data(stage)
    if isinstance(stage, BuildStates):
        data["since"] = None if stage.since is None else format_instant(stage.since)
    return data


def to_data(value: Any) -> Any:
    """Return frozen data as JSON data."""
    if is_dataclass(value):
        return {attribute.name: to_data(getattr(value, attribute.name)) for attribute in fields(value)}
    if isinstance(value, tuple):
        return [to_data(item) for item in value]
    return value


def _counted(count: int, word: str) -> str:
    return f"{count:,} {word}" + ("" if count == 1 else "s")
