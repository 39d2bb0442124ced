"""From events, timers and looks to memberships and actions: read entities, take them through their steps, replace them.

State and record of an entity are replaced by compare-and-set. A worker that was overtaken reads them again and repeats
the steps, which are a pure function. The record holds what is to be published until it is in the ledger and in the
queues of the sinks. So a worker that dies in between leaves that to the next one, and publishing twice changes nothing.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from rules_engine.delivery.queues import REMEMBERED_AFTERWARDS
from rules_engine.errors import StoreTimeoutError
from rules_engine.events.joins import JOIN
from rules_engine.events.state.encoding import encode_state, named_pieces
from rules_engine.events.state.entity_state import EventState, changed_places, event_key
from rules_engine.events.state.pruning import prune
from rules_engine.events.state.store import CLOCK_SKEW, is_empty, is_late, is_worth_pruning, lifetime, pieces_written
from rules_engine.events.state.waiting import Handover, taken_in, waiting_digest
from rules_engine.events.streams import ENTITY, HANDED_ON, partition_of, rebuild_key, stream_key
from rules_engine.features.online.row_layout import RowLayout, RowLayouts
from rules_engine.features.online.selection import EntityFeatures
from rules_engine.redis.feast_layout import KeyMaker
from rules_engine.redis.pipe import Command, Pipe
from rules_engine.rules.inputs import Event
from rules_engine.sdk.rules import Rules
from rules_engine.stream.commit import Commits, Replacement, StoredEntity
from rules_engine.stream.intake import Arrived
from rules_engine.stream.loading import LoadedEntities, LoadedEntity
from rules_engine.stream.timers import Timers
from rules_engine.stream.work import Work
from rules_engine.targets.stepwise.view import View
from rules_engine.triggers.encoding import encode_record
from rules_engine.triggers.machine import Machine
from rules_engine.triggers.record import Outgoing, Record
from rules_engine.triggers.rules import TriggerRules

#: The number of entities that are worked on at once.
BATCH = 500

#: The due instant of an entity that has something to publish: at once.
_AT_ONCE = 0

_ATTEMPTS, _LONGEST_WAIT = 100, 0.05

_log = logging.getLogger("rules_engine.worker")


@dataclass(slots=True)
class StepsTaken:
    """The outcome for some entities.

    Attributes
    ----------
    dues
        by partition and entity: the instant at which to look at it next, None for never.
    published
        the transitions and trigger steps that were published, each with its entity.
    late
        the entities with an event that came too late for a total, once for each such event.
    """

    dues: dict[int, dict[str, int | None]] = field(default_factory=dict)
    published: list[tuple[str, Outgoing]] = field(default_factory=list)
    late: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Step:
    """An entity after its steps, and the change to write; None if nothing changed.

    ``is_late`` says that an event came too late for a total, so that the state has to be rebuilt from the log.
    """

    work: Work
    loaded: LoadedEntity
    due: int | None
    change: Replacement | None
    is_late: bool = False


#: Publishes transitions and trigger steps of entities. When it returns, none of them can be lost.
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
        publishes transitions and trigger steps.
    confirm
        is called with those that were published and that no record holds any more.
    """

    def __init__(self, rules: Rules, pipe: Pipe, timers: Timers, publish: Publish, confirm: Publish) -> None:
        plan = rules.plan
        self.rules = TriggerRules.of(rules)
        self._requirements = self.rules.events.requirements
        self._outlooks = self.rules.events.outlooks
        self._latest = plan.now
        self._project = plan.project
        self._pipe = pipe
        self._timers = timers
        self._publish, self._confirm = publish, confirm
        key = KeyMaker(plan.project, plan.join_key, plan.key_version)
        self._commits = Commits(pipe, key, rules.events.name, lifetime(self._requirements) if plan.now is None else 0)
        self._layout: RowLayout | None = RowLayouts(plan).of(self.rules.features) if self.rules.features else None
        self._has_rules = bool(self.rules.names or self.rules.triggers)
        self._loaded = LoadedEntities(pipe, self._commits, self._requirements, rebuild_key(plan.project))

    def forget(self) -> None:
        """Forget all cached entities: other workers may have changed them."""
        self._loaded.forget()

    def do(self, works: Iterable[Work], swept: Callable[[int], Collection[str]]) -> StepsTaken:
        """Take entities through their steps, write their new states and records, and publish what happened.

        Parameters
        ----------
        swept
            gives the segments for which all entities of a partition were looked at once.

        Raises
        ------
        StoreError
            if the store cannot be used; call it again then.
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
            loaded = self._loaded.load([work.entity for work in works])
            works = self._without_damaged(works, loaded, outcome)
            features = self._features([work.entity for work in works])
            steps = [
                self._step(work, loaded[work.entity], features[work.entity], swept(work.partition)) for work in works
            ]
            overtaken = self._write(steps)
            done += [step for step in steps if step.work.entity not in overtaken]
            works = [work for work in works if work.entity in overtaken]
            if not works:
                break
            time.sleep(random.uniform(0, min(_LONGEST_WAIT, 0.0005 * 2 ** min(attempt, 10))))  # noqa: S311 (no secret)
        else:
            raise StoreTimeoutError(
                f"the states of {len(works)} entities were changed by other processes {_ATTEMPTS} times in a row",
                hint="does something else write event states of these entities all the time?",
            )
        outcome.late += [step.work.entity for step in done if step.is_late]
        self._tell(done, outcome, started)
        for step in done:
            outcome.dues.setdefault(step.work.partition, {})[step.work.entity] = step.due

    # --- reading ----------------------------------------------------------------------------------------------------

    @staticmethod
    def _without_damaged(works: Iterable[Work], loaded: Mapping[str, LoadedEntity], outcome: StepsTaken) -> list[Work]:
        """Return the work on the entities that could be read. The events of the others are in the log."""
        whole = []
        for work in works:
            if work.entity in loaded:
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

    def _step(self, work: Work, loaded: LoadedEntity, features: EntityFeatures, swept: Collection[str]) -> _Step:
        old, before = loaded.state, loaded.record
        arrived = work.arrived
        if before.last_id is not None and arrived and arrived[0].stream_id <= before.last_id:
            # These events were processed before; a state made for new definitions may lack them.
            repeated = [entry.event for entry in arrived if entry.stream_id <= before.last_id]
            old = old if before.person is not None else taken_in(old, repeated, self._requirements)
            arrived = arrived[len(repeated) :]
        view, is_about_joins = None, _is_about_joins(before, arrived)
        if not self._has_rules and not is_about_joins:
            state, record, due, changed = self._only_kept(old, arrived), before, None, False
        else:
            machine = Machine(self.rules, before, features, old, swept=swept)
            if not is_about_joins:
                machine.expect([entry.event for entry in arrived if isinstance(entry.event, Event)])
            for entry in arrived:
                machine.event(entry.event, entry.arrival, entry.stream_id)
            machine.timers(work.until)
            if work.look is not None:
                machine.look(work.until, work.look, work.views)
            state, view, record, due = machine.state, machine.view, machine.record, machine.next_due
            changed = _matters(before, record)
        changed_events = changed_places(loaded.state, state)
        state = self._pruned(loaded.state, state, record)
        digests = self._digests(work, loaded, state)
        stored = loaded.stored
        raw_state = stored.state
        if state is not loaded.state:
            raw_state = self._encoded(state, stored.state, changed_events, view)
        elif work.look is not None and raw_state and not self._outlooks.is_of_these(raw_state):
            raw_state = self._encoded(state, b"", (), view)
        if raw_state is stored.state and not changed and not digests:
            return _Step(work, loaded, due, None)
        raw_record = encode_record(record) if changed else stored.record
        pieces = pieces_written(stored.pieces, state, self._requirements)
        change = Replacement(work.entity, stored, raw_state, raw_record, digests, pieces)
        names = named_pieces(state, self._requirements).keys() if pieces else ()
        after = LoadedEntity(StoredEntity(raw_state, raw_record, b"", names), state, record if changed else before)
        return _Step(work, after, due, change, is_late(loaded.state, state))

    def _only_kept(self, state: EventState, arrived: Iterable[Arrived]) -> EventState:
        return taken_in(state, [entry.event for entry in arrived], self._requirements)

    def _encoded(self, state: EventState, stored: bytes, changed: Collection[int], view: View | None) -> bytes:
        if is_empty(state):
            return b""
        outlook = self._outlooks.renewed(stored, state, _now(self._latest), changed, view)
        return encode_state(state, self._requirements) + outlook

    def _pruned(self, old: EventState, new: EventState, record: Record) -> EventState:
        """Drop what neither readers nor the next step need."""
        if new is old:
            return new
        now = _now(self._latest)
        keep_from = (now if record.at is None else min(now, record.at)) - CLOCK_SKEW
        requirements = self._requirements
        is_due = is_worth_pruning(old, new, keep_from, requirements.piece)
        return prune(new, requirements, keep_from) if is_due else new

    def _digests(self, work: Work, loaded: LoadedEntity, state: EventState) -> bytes:
        """Return the digests of the waiting events that need not wait any longer, because the state contains them."""
        places = self._requirements.places
        arrived = (entry.event for entry in work.arrived)
        digests = [waiting_digest(event) for event in arrived if isinstance(event, Handover) or event.name in places]
        for event in loaded.waiting:  # in a cluster an event may have been appended after it was processed
            if isinstance(event, Handover):
                digests += [waiting_digest(event)] if event.via[0] in state.joined else []
                continue
            place = places.get(event.name)
            if place is None or state.kept[place].has(event_key(event, self._requirements.events[place])):
                digests.append(waiting_digest(event))
        return b"".join(digests)

    # --- writing ----------------------------------------------------------------------------------------------------

    def _write(self, steps: Iterable[_Step]) -> set[str]:
        """Write the changes. Return the entities that another worker changed meanwhile."""
        changed = [step for step in steps if step.change is not None]
        dues: dict[int, dict[str, int]] = {}
        for step in changed:
            due = step.due if step.loaded.record.is_published else _AT_ONCE
            if due is not None:
                dues.setdefault(step.work.partition, {})[step.work.entity] = due
        changes = [step.change for step in changed if step.change is not None]
        ahead = self._timers.earlier(dues) + self._loaded.noted([step.work.entity for step in changed if step.is_late])
        overtaken = {change.entity for change in self._commits.write(changes, ahead)} if changes else set()
        for step in changed:
            if step.work.entity in overtaken:
                self._loaded.drop(step.work.entity)
            else:
                self._loaded.remember(step.work.entity, step.loaded)
        return overtaken

    def _tell(self, steps: Iterable[_Step], outcome: StepsTaken, started: float) -> None:
        """Publish the outboxes, then clear them in the records, which were read at ``started``."""
        telling = [step for step in steps if not step.loaded.record.is_published]
        if not telling:
            return
        if time.time() - started > REMEMBERED_AFTERWARDS / 2:
            # Another worker may have published it, and the queues may have forgotten that by now.
            raise StoreTimeoutError("this worker was suspended for minutes; its work is started over")
        outgoing = [(step.work.entity, item) for step in telling for item in step.loaded.record.outbox]
        self._publish(outgoing)
        self._hand_on(step.loaded.record for step in telling)
        outcome.published += outgoing
        changes = []
        for step in telling:
            loaded, record = step.loaded, step.loaded.record.published()
            raw = encode_record(record)
            changes.append(
                Replacement(
                    step.work.entity, StoredEntity(loaded.stored.state, loaded.stored.record), loaded.stored.state, raw
                )
            )
            self._loaded.remember(
                step.work.entity, LoadedEntity(replace(loaded.stored, record=raw), loaded.state, record)
            )
        # Where this worker was overtaken, the other one publishes the same items again; readers drop them by their key.
        overtaken = {change.entity for change in self._commits.write(changes)}
        for entity in overtaken:
            self._loaded.drop(entity)
        self._confirm([(entity, item) for entity, item in outgoing if entity not in overtaken])

    def _hand_on(self, records: Iterable[Record]) -> None:
        """Put what joined entities hand on into the streams of their persons. Doing it twice has the effect of once."""
        commands: list[Command] = []
        for record in records:
            if record.person is not None:
                stream = stream_key(self._project, partition_of(record.person))
                fields = ENTITY, record.person, HANDED_ON
                commands += [("XADD", stream, "*", *fields, entry) for entry in record.handed_on]
        if commands:
            self._pipe.run(commands)


def _is_about_joins(record: Record, arrived: Iterable[Arrived]) -> bool:
    """Say whether an entity is or will be joined to a person, or somebody else to it."""
    return record.person is not None or any(
        isinstance(entry.event, Handover) or entry.event.name == JOIN for entry in arrived
    )


def _matters(before: Record, record: Record) -> bool:
    """Say whether the record has to be written. A look at the entity that changed nothing is no reason."""
    if record.last_id != before.last_id:
        return True
    if record.is_empty and before.is_empty:
        return False
    return replace(record, at=before.at) != before


def _now(latest: int | None) -> int:
    now = time.time_ns() // 1000
    return now if latest is None else min(now, latest)
