"""Work on entities: events that arrived, timers that are due, and requests to look at them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from rules_engine.stream.intake import Arrived, Checked, PartitionWork
from rules_engine.triggers.rules import TriggerRules


@dataclass(slots=True)
class Work:
    """The events, timers and requests of one entity that are to be worked on.

    Attributes
    ----------
    until
        timers before this instant are due.
    look
        why it is looked at again, if it is; ``views`` are the feature views that changed, None for anything.
    """

    entity: str
    partition: int
    until: int
    arrived: list[Arrived] = field(default_factory=list)
    look: str | None = None
    views: frozenset[str] | None = None

    def also_look(self, cause: str, views: frozenset[str] | None) -> None:
        """Have the entity looked at again, for these views too."""
        is_first = self.look is None
        self.look = cause
        self.views = views if is_first else None if self.views is None or views is None else self.views | views


def works_of(found: Mapping[int, PartitionWork], batches: Mapping[int, Checked], rules: TriggerRules) -> list[Work]:
    """Return what happened to each entity, in the order in which it came."""
    works: dict[str, Work] = {}
    for partition, batch in batches.items():
        until = found[partition].until
        for one in batch.events:
            work = works.get(one.entity)
            if work is None:
                work = works[one.entity] = Work(one.entity, partition, until)
            work.arrived.append(one)
        for entity in found[partition].due:
            if entity not in works:
                works[entity] = Work(entity, partition, until)
        for look in batch.looks:
            if look.views is None or rules.groups_of_views(look.views):
                for entity in look.entities:
                    works.setdefault(entity, Work(entity, partition, until)).also_look(look.cause, look.views)
    return list(works.values())
