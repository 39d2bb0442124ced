"""From events, timers and looks to memberships and actions: entities are read, taken through their steps, and replaced.

What is remembered of an entity is replaced by compare-and-set, so whoever is overtaken reads again and does the steps
again: they are a pure function, and give the same. What they published is in the record until it is in the ledger and
in the queues of the sinks; so a worker that dies in between leaves it to the next one, and publishing twice changes
nothing.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from rules_engine.delivery.queues import REMEMBERED_AFTERWARDS
from rules_engine.errors import StoreTimeoutError
from rules_engine.events.state.encoding import encode_state
from rules_engine.events.state.entity_state import EventState, changed_places, event_key, update
from rules_engine.events.state.pruning import prune
from rules_engine.events.state.store import CLOCK_SKEW, is_empty, is_late, is_worth_pruning, lifetime
from rules_engine.events.state.waiting import waiting_digest
from rules_engine.events.streams import rebuild_key
from rules_engine.features.online.row_layout import RowLayout, RowLayouts
from rules_engine.features.online.selection import EntityFeatures
from rules_engine.redis.feast_layout import KeyMaker
from rules_engine.redis.pipe import Command, Pipe
from rules_engine.sdk.rules import Rules
from rules_engine.stream.commit import Commits, Replacement, StoredEntity
from rules_engine.stream.intake import Arrived
from rules_engine.stream.loading import LoadedEntities, LoadedEntity
from rules_engine.stream.timers import Timers
from rules_engine.stream.work import Work
from rules_engine.triggers.encoding import encode_record
from rules_engine.triggers.machine import Machine
from rules_engine.triggers.record import Outgoing, Record
from rules_engine.triggers.rules import TriggerRules

#: Entities that are worked on at once.
BATCH = 500

#: What is due at once: there is something to publish.
_AT_ONCE = 0

_ATTEMPTS, _LONGEST_WAIT = 100, 0.05

_log = logging.getLogger("rules_engine.worker")


@dataclass(slots=True)
class StepsTaken:
    """The outcome for some entities.

    Attributes
    ----------
    dues
        by partition and entity: when to look again, None for never.
    published
        what was published, by entity.
    late
        the entities with an event that came too late for a total, as often as that happened.
    """

    dues: dict[int, dict[str, int | None]] = field(default_factory=dict)
    published: list[tuple[str, Outgoing]] = field(default_factory=list)
    late: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Step:
    """An entity after its steps, and what is to be written of it; ``change`` is None if nothing is.

    ``is_late`` says that an event came too late for a total, so that the state has to be rebuilt from the log.
    """

    work: Work
    held: LoadedEntity
    due: int | None
    change: Replacement | None
    is_late: bool = False


#: Takes what entities are to publish. When it returns, none of it can be lost.
Publish = Callable[[Sequence[tuple[str, Outgoing]]], None]


class EntitySteps:
    """Takes entities through their steps by the definitions of one read plan.

    Parameters
    ----------
    rules
        the rules of the plan.
    pipe
        the connection to the store.
    timers
        the project's timers.
    publish
        takes what is to be published.
    confirm
        is told what was published and is in no record any more.
    """

    def __init__(self, rules: Rules, pipe: Pipe, timers: Timers, publish: Publish, confirm: Publish) -> None:
        plan = rules.plan
        self.rules = TriggerRules.of(rules)
        self._requirements = rules.events.requirements
        self._outlooks = rules.events.outlooks
        self._latest = plan.now
        self._pipe = pipe
        self._timers = timers
        self._publish, self._confirm = publish, confirm
        key = KeyMaker(plan.project, plan.join_key, plan.key_version)
        self._commits = Commits(pipe, key, rules.events.name, lifetime(self._requirements) if plan.now is None else 0)
        self._layout: RowLayout | None = RowLayouts(plan).of(self.rules.features) if self.rules.features else None
        self._has_rules = bool(self.rules.names or self.rules.triggers)
        self._loaded = LoadedEntities(pipe, self._commits, self._requirements, rebuild_key(plan.project))

    def forget(self) -> None:
        """Forget what is remembered of entities: others may have worked on them."""
        self._loaded.forget()

    def do(self, works: Iterable[Work], swept: Callable[[int], Collection[str]]) -> StepsTaken:
        """Take entities through their steps, write what became of them, and publish it.

        Parameters
        ----------
        swept
            by partition: the segments for which all its entities were looked at once.

        Raises
        ------
        StoreError
            if the store cannot be used; do it again then.
        """
        outcome = StepsTaken()
        waiting = list(works)
        for start in range(0, len(waiting), BATCH):
            self._do(waiting[start : start + BATCH], swept, outcome)
        return outcome

    def _do(self, works: list[Work], swept: Callable[[int], Collection[str]], outcome: StepsTaken) -> None:
        done: list[_Step] = []
        started = time.time()
        for attempt in range(_ATTEMPTS):
            held = self._loaded.load([work.entity for work in works])
            works = self._without_damaged(works, held, outcome)
            features = self._features([work.entity for work in works])
            steps = [
                self._step(work, held[work.entity], features[work.entity], swept(work.partition)) for work in works
            ]
            overtaken = self._write(steps)
            done += [step for step in steps if step.work.entity not in overtaken]
            works = [work for work in works if work.entity in overtaken]
            if not works:
                break
            time.sleep(random.uniform(0, min(_LONGEST_WAIT, 0.0005 * 2 ** min(attempt, 10))))  # noqa: S311 (no secret)
        else:
            raise StoreTimeoutError(
                f"what is kept of {len(works)} entities was changed by others {_ATTEMPTS} times in a row",
                hint="does something else write event states of these entities all the time?",
            )
        outcome.late += [step.work.entity for step in done if step.is_late]
        self._tell(done, outcome, started)
        for step in done:
            outcome.dues.setdefault(step.work.partition, {})[step.work.entity] = step.due

    # --- reading ----------------------------------------------------------------------------------------------------

    @staticmethod
    def _without_damaged(works: Iterable[Work], held: Mapping[str, LoadedEntity], outcome: StepsTaken) -> list[Work]:
        """Return the work on entities that could be read. The events of the others are in the log."""
        whole = []
        for work in works:
            if work.entity in held:
                whole.append(work)
            else:
                outcome.dues.setdefault(work.partition, {})[work.entity] = None
        return whole

    def _features(self, entities: Sequence[str]) -> dict[str, EntityFeatures]:
        layout = self._layout
        if layout is None:
            return {entity: EntityFeatures(entity) for entity in entities}
        commands: list[Command] = [("HMGET", layout.key(entity), *layout.fields) for entity in entities]
        rows = self._pipe.run(commands)
        return {entity: layout.decode(entity, row) for entity, row in zip(entities, rows, strict=True)}

    # --- one entity -------------------------------------------------------------------------------------------------

    def _step(self, work: Work, held: LoadedEntity, features: EntityFeatures, swept: Collection[str]) -> _Step:
        old, given = held.state, held.record
        arrived = work.arrived
        if given.last_id is not None and arrived and arrived[0].stream_id <= given.last_id:
            # Done before: a state for new definitions may still lack them.
            again = [one.event for one in arrived if one.stream_id <= given.last_id]
            old, arrived = update(old, again, self._requirements), arrived[len(again) :]
        if not self._has_rules:
            state, record, due, changed = self._only_kept(old, arrived), given, None, False
        else:
            machine = Machine(self.rules, given, features, old, swept=swept)
            for one in arrived:
                machine.event(one.event, one.arrival, one.stream_id)
            machine.timers(work.until)
            if work.look is not None:
                machine.look(work.until, work.look, work.views)
            state, record, due = machine.state, machine.record, machine.next_due
            changed = _matters(given, record)
        changed_events = changed_places(held.state, state)
        state = self._pruned(held.state, state, record)
        digests = self._digests(work, held, state)
        stored = held.stored
        raw_state = stored.state
        if state is not held.state:
            raw_state = self._encoded(state, stored.state, self._keep_from(record), changed_events)
        elif work.look is not None and raw_state and not self._outlooks.is_of_these(raw_state):
            raw_state = self._encoded(state, b"", self._keep_from(record), ())
        if raw_state is stored.state and not changed and not digests:
            return _Step(work, held, due, None)
        raw_record = encode_record(record) if changed else stored.record
        change = Replacement(work.entity, stored, raw_state, raw_record, digests)
        now_held = LoadedEntity(StoredEntity(raw_state, raw_record), state, record if changed else given)
        return _Step(work, now_held, due, change, is_late(held.state, state))

    def _only_kept(self, state: EventState, arrived: Iterable[Arrived]) -> EventState:
        return update(state, [one.event for one in arrived], self._requirements)

    def _encoded(self, state: EventState, stored: bytes, begins_at: int, changed: Collection[int]) -> bytes:
        if is_empty(state):
            return b""
        return encode_state(state, self._requirements) + self._outlooks.renewed(stored, state, begins_at, changed)

    def _pruned(self, old: EventState, new: EventState, record: Record) -> EventState:
        """Drop what neither readers nor the next step need."""
        if new is old:
            return new
        keep_from = self._keep_from(record)
        return prune(new, self._requirements, keep_from) if is_worth_pruning(old, new, keep_from) else new

    def _keep_from(self, record: Record) -> int:
        """Return the instant from which on readers and the next step ask."""
        now = _now(self._latest)
        return (now if record.at is None else min(now, record.at)) - CLOCK_SKEW

    def _digests(self, work: Work, held: LoadedEntity, state: EventState) -> bytes:
        """Return the digests of the events that need not wait behind the state any more: those that it has."""
        places = self._requirements.places
        found = [waiting_digest(one.event) for one in work.arrived if one.event.name in places]
        for event in held.waiting:  # in a cluster an event may have been put there after it was worked on
            place = places.get(event.name)
            if place is None or event_key(event, self._requirements.events[place]) in state.kept[place].keys:
                found.append(waiting_digest(event))
        return b"".join(found)

    # --- writing ----------------------------------------------------------------------------------------------------

    def _write(self, steps: Iterable[_Step]) -> set[str]:
        """Write what changed; gives the entities that others were faster at."""
        changed = [step for step in steps if step.change is not None]
        dues: dict[int, dict[str, int]] = {}
        for step in changed:
            due = _AT_ONCE if step.held.record.outbox else step.due
            if due is not None:
                dues.setdefault(step.work.partition, {})[step.work.entity] = due
        changes = [step.change for step in changed if step.change is not None]
        ahead = self._timers.earlier(dues) + self._loaded.noted([step.work.entity for step in changed if step.is_late])
        overtaken = {one.entity for one in self._commits.write(changes, ahead)} if changes else set()
        for step in changed:
            if step.work.entity in overtaken:
                self._loaded.drop(step.work.entity)
            else:
                self._loaded.remember(step.work.entity, step.held)
        return overtaken

    def _tell(self, steps: Iterable[_Step], outcome: StepsTaken, started: float) -> None:
        """Publish what is to be published, then take it out of the records. ``started`` is when they were read."""
        telling = [step for step in steps if step.held.record.outbox]
        if not telling:
            return
        if time.time() - started > REMEMBERED_AFTERWARDS / 2:
            # Another worker may have published it, and by now nobody may remember that.
            raise StoreTimeoutError("this worker was suspended for minutes; what it had begun is begun anew")
        outgoing = [(step.work.entity, one) for step in telling for one in step.held.record.outbox]
        self._publish(outgoing)
        outcome.published += outgoing
        changes = []
        for step in telling:
            held, record = step.held, step.held.record.published()
            raw = encode_record(record)
            changes.append(
                Replacement(
                    step.work.entity, StoredEntity(held.stored.state, held.stored.record), held.stored.state, raw
                )
            )
            self._loaded.remember(step.work.entity, LoadedEntity(replace(held.stored, record=raw), held.state, record))
        # Who was overtaken leaves it to the other, who publishes the same again: its key tells.
        overtaken = {change.entity for change in self._commits.write(changes)}
        for entity in overtaken:
            self._loaded.drop(entity)
        self._confirm([(entity, one) for entity, one in outgoing if entity not in overtaken])


def _matters(given: Record, record: Record) -> bool:
    """Say whether the record has to be written. That an entity was looked at and nothing came of it is no reason."""
    if record.last_id != given.last_id:
        return True
    if record.is_empty and given.is_empty:
        return False
    return replace(record, at=given.at) != given


def _now(latest: int | None) -> int:
    now = time.time_ns() // 1000
    return now if latest is None else min(now, latest)
