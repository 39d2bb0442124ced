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
        the cause of a requested look, if any; ``views`` are the feature views that changed, None for all.
    """

    entity: str
    partition: int
    until: int
    arrived: list[Arrived] = field(default_factory=list)
    look: str | None = None
    views: frozenset[str] | None = None

    def also_look(self, cause: str, views: frozenset[str] | None) -> None:
        """Add a request to look at the entity because of changed views."""
        is_first = self.look is None
        self.look = cause
        self.views = views if is_first else None if self.views is None or views is None else self.views | views


def works_of(waiting: Mapping[int, PartitionWork], batches: Mapping[int, Checked], rules: TriggerRules) -> list[Work]:
    """Return the work on each entity, with its events in the order of arrival."""
    works: dict[str, Work] = {}
    for partition, batch in batches.items():
        until = waiting[partition].until
        for arrived in batch.events:
            work = works.get(arrived.entity)
            if work is None:
                work = works[arrived.entity] = Work(arrived.entity, partition, until)
            work.arrived.append(arrived)
        for entity in waiting[partition].due:
            if entity not in works:
                works[entity] = Work(entity, partition, until)
        for look in batch.looks:
            if look.views is None or rules.groups_of_views(look.views):
                for entity in look.entities:
                    works.setdefault(entity, Work(entity, partition, until)).also_look(look.cause, look.views)
    return list(works.values())
