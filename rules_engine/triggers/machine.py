"""The steps of an entity as pure functions: events that arrive, timers, and looks.

Nothing here reads a clock or a store. The same steps give the same memberships, transitions and actions, in any worker,
in batches of any size, and however often a batch is repeated. docs/adr/0009-transitions-and-triggers.md says why.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from hashlib import blake2b

from rules_engine.clock import DAY, SECOND
from rules_engine.events.joins import JOIN, join_of
from rules_engine.events.state.entity_state import EventState, empty_state
from rules_engine.events.state.waiting import Handover, Waiting, encode_waiting, passed_on, received, whole_state
from rules_engine.features.online.selection import EntityFeatures
from rules_engine.rules.inputs import Event
from rules_engine.rules.triggers.nodes import OnEvent
from rules_engine.targets.stepwise.view import FOREVER, View
from rules_engine.triggers.instances import Instances, Moment, Start
from rules_engine.triggers.payload import properties_of
from rules_engine.triggers.record import (
    SEEN_KEPT,
    MembershipChange,
    Outgoing,
    Record,
    StreamId,
    Transition,
)
from rules_engine.triggers.rules import TriggerRules
from rules_engine.triggers.sight import Sight

#: How long events that may start triggers are remembered.
SEEN_FOR = 7 * DAY

#: The causes of transitions by timers, by changed definitions, and of the first evaluation of a segment.
TIMER, APPLY, BASELINE = "timer", "apply", "baseline"


def cause_of(event: Event) -> str:
    r"""Return the name of an event as a cause. The id of a checked event already begins with the event's name.

    >>> cause_of(Event("visit", 0, "visit:a1")), cause_of(Event("visit", 0, "a1"))
    ('event:visit:a1', 'event:visit:a1')
    >>> cause_of(Event("visit", 0, "visit:a1\0anon"))
    'event:visit:a1 by anon'
    """
    identity = event.spelled_id
    return f"event:{identity}" if event.id.startswith(f"{event.name}:") else f"event:{event.name}:{identity}"


def join_cause(entity: str) -> str:
    """Return the cause of what changes because of a join: it names the other one.

    >>> join_cause("anon")
    'join:anon'
    """
    return f"join:{entity}"


class Machine:
    """One entity, taken from step to step.

    Parameters
    ----------
    rules
        the definitions.
    record
        the record of the entity; an empty one if there is none.
    features
        the entity's features that the rules read.
    state
        its event state.
    swept
        the segments for which all entities have been looked at once. An entity without a record was no member of these.
        In the other segments, an entity that is a member is taken to have been a member before.

    The logical clock is the greatest instant at which the entity was evaluated. Every step evaluates at the instant it
    names or at the clock, whichever is later, so that the clock never goes back.
    """

    def __init__(
        self,
        rules: TriggerRules,
        record: Record,
        features: EntityFeatures,
        state: EventState,
        *,
        swept: Collection[str] = (),
    ) -> None:
        self._rules = rules
        self._initial = record
        self._features = features
        self._sight = Sight(rules, features, state)
        self._pruned_at = state.pruned_at
        self._looked: dict[str, tuple[int, Collection[str], int]] = {}
        self._clock = record.at
        self._last_id = record.last_id
        self._members = dict(record.members)
        self._dues = dict(record.dues)
        self._seen = dict(record.seen)
        self._repeats = dict(record.repeats)
        self._outbox: list[Outgoing] = list(record.outbox)
        self._person = record.person
        self._handed_on = list(record.handed_on)
        self._instances = Instances(rules, features, record, self._dues, self._outbox)
        self._is_new = record.at is None
        self._is_adopted = record.rules == rules.fingerprint
        self._unknown = rules.names_beyond(swept)
        self._fresh: frozenset[str] = frozenset()
        if record.fresh:
            self._unknown -= record.fresh
            self._fresh = (record.fresh & rules.names).difference(swept)

    # --- steps ------------------------------------------------------------------------------------------------------

    def expect(self, events: Sequence[Event]) -> None:
        """Say which events come next, so that what none of them can change is looked at once; see :class:`Sight`."""
        self._sight.expect(events)

    def event(self, event: Waiting, arrival: int, stream_id: StreamId | None = None) -> bool:
        """Process an event that arrived. Return False if it was processed before.

        Timers before its arrival come first. Then the entity is evaluated with the event, at its arrival. An event of
        the future counts from its own instant on. An entity that was joined to a person hands the event on.

        Parameters
        ----------
        event
            the event, or the state of an id that was joined to the entity.
        arrival
            the instant in microseconds.
        stream_id
            of the entry with the event. Entries up to the last processed one are skipped.
        """
        if stream_id is not None:
            if self._last_id is not None and stream_id <= self._last_id:
                return False
            self._last_id = stream_id
        if self._person is not None:
            self._hand_on(event)
            return True
        self.timers(arrival)
        at = self._instant(arrival)
        is_new = self._is_new
        self._adopt(at)
        if isinstance(event, Handover):
            self._receive(event, at)
        elif event.name == JOIN:
            self._leave(event, at)
        else:
            self._sight.add(event)
            self._looked.clear()
            groups = self._rules.groups if is_new else {event.name, *self._due(at)}
            self._evaluate(at, groups, cause_of(event), event)
        return True

    def timers(self, until: int) -> None:
        """Evaluate at each due instant before ``until``.

        No event may arrive before ``until`` any more: it is the arrival of the oldest waiting event, or else now.
        """
        while (due := self.next_due) is not None and due < until:
            at = self._instant(due)
            self._adopt(at)
            self._evaluate(at, self._due(at), TIMER)

    def look(self, at: int, cause: str, views: Iterable[str] | None = None) -> None:
        """Evaluate because something other than events changed.

        Parameters
        ----------
        at
            the instant; all events that arrived before it must have been processed, as for :meth:`timers`.
        cause
            the change, e.g. ``materialize``.
        views
            the feature views that changed; None for anything.
        """
        if self._person is not None:
            return
        self.timers(at)
        at = self._instant(at)
        is_new = self._is_new
        self._adopt(at)
        some = None if views is None or is_new else self._rules.groups_of_views(views)
        groups = self._rules.groups if some is None else {*some, *self._due(at)}
        self._evaluate(at, groups, cause, looks=True)

    # --- results ----------------------------------------------------------------------------------------------------

    @property
    def state(self) -> EventState:
        """Return the event state after the steps."""
        return self._sight.view.reader.state

    @property
    def view(self) -> View:
        """Return the features and the events after the steps, for evaluation."""
        return self._sight.view

    @property
    def record(self) -> Record:
        """Return the record after the steps."""
        return Record(
            rules=self._rules.fingerprint if self._is_adopted else self._initial.rules,
            at=self._clock,
            last_id=self._last_id,
            members=self._members,
            dues=self._dues,
            pending=tuple(self._instances.pending),
            fired=self._instances.fired,
            seen=self._seen,
            fresh=self._fresh,
            repeats=self._repeats,
            outbox=tuple(self._outbox),
            person=self._person,
            handed_on=tuple(self._handed_on),
        )

    @property
    def next_due(self) -> int | None:
        """Return the instant of the next timer; None if there is none.

        Definitions that are new to the record have no timers before its next step: a look, if nothing else happens.
        """
        due = min(self._dues.values(), default=None) if self._is_adopted else None
        waits = self._instances.next_wait(self._clock)
        return due if waits is None else waits if due is None else min(due, waits)

    @property
    def changed(self) -> bool:
        """Say whether the record has to be written."""
        record = self.record
        return record != self._initial and not (record.is_empty and self._initial.is_empty)

    # --- the clock and the state ------------------------------------------------------------------------------------

    def _instant(self, at: int) -> int:
        """Return the instant of an evaluation: never before the clock, nor before the state can answer."""
        pruned_at, clock = self._pruned_at, self._clock
        if pruned_at is not None and pruned_at > at:
            at = pruned_at
        return clock if clock is not None and clock > at else at

    def _due(self, at: int) -> list[str]:
        """Return the groups and hidden segments whose evaluation is due at an instant."""
        return [group for group, due in self._dues.items() if due <= at]

    # --- joins ------------------------------------------------------------------------------------------------------

    def _receive(self, handover: Handover, at: int) -> None:
        """Take over what an id did that was joined to the entity."""
        self._see(received(self.state, handover, self._rules.events.requirements))
        self._evaluate(self._instant(at), self._rules.groups, join_cause(handover.via[0]), looks=True)

    def _leave(self, event: Event, at: int) -> None:
        """End all memberships and waiting triggers, and hand the state over to the person: the entity is nobody now."""
        requirements, person = self._rules.events.requirements, join_of(self._features.entity, event).person
        self._begin(at)
        self._dues.clear()
        ended = [self._ended(name, at) for name in tuple(self._members)]
        self._outbox += self._transitions(ended, at, join_cause(person))
        self._instances.leave(at)
        self._seen.clear()
        self._person = person
        self._hand_on(Handover((), event.at, whole_state(self.state, requirements)))
        self._see(empty_state(requirements))

    def _see(self, state: EventState) -> None:
        """Replace the state of the entity by another one."""
        self._sight = Sight(self._rules, self._features, state)
        self._pruned_at = state.pruned_at
        self._looked.clear()

    def _hand_on(self, event: Waiting) -> None:
        """Hand something on to the person to whom the entity was joined."""
        if not isinstance(event, Event) or event.name != JOIN:
            self._handed_on.append(encode_waiting(passed_on(event, self._features.entity)))

    def _adopt(self, at: int) -> None:
        """Compare with definitions that are new to the record, before anything else happens at an instant."""
        if self._unknown:
            self._take_baseline(at)
        if self._is_adopted:
            return
        self._is_adopted = True
        self._dues.clear()
        self._members = {name: start for name, start in self._members.items() if name in self._rules.names}
        self._instances.adopt(at)
        if not self._is_new:
            self._evaluate(at, self._rules.groups, APPLY, looks=True)

    def _take_baseline(self, at: int) -> None:
        groups = [group for group, names in self._rules.groups.items() if not self._unknown.isdisjoint(names)]
        true = {name for group in groups for name in self._look(group, at)[0]}
        for name in sorted((true & self._unknown) - self._members.keys()):
            self._members[name] = at
            self._outbox.append(Transition(name, MembershipChange.BASELINE, at, BASELINE, self._rules.version))
        self._fresh |= self._unknown
        self._unknown = frozenset()

    # --- evaluation -------------------------------------------------------------------------------------------------

    def _evaluate(
        self, at: int, groups: Iterable[str], cause: str, event: Event | None = None, *, looks: bool = False
    ) -> None:
        """Evaluate memberships and waiting triggers at an instant, because of one cause."""
        grown = None if event is None or self._is_new else event.name
        before = self._begin(at)
        began: list[Start] = []
        for move in self._moves(at, groups, cause, grown):
            self._outbox.append(move)
            began += [(trigger, move.name, at, {}) for trigger in self._rules.on(move.change, move.segment)]
        if event is not None:
            began += self._started_by(event, at)
        created = self._instances.begin(began, at)
        if self._instances.pending:
            self._instances.settle(Moment(at, before, event, looks), created, self._sight.view)

    def _begin(self, at: int) -> int | None:
        """Move the clock to an instant. Return the one before."""
        before = self._clock
        if at != before:
            self._clock = at
            self._repeats = {}
        self._is_new = False
        return before

    def _moves(self, at: int, groups: Iterable[str], cause: str, grown: str | None) -> list[Transition]:
        """Return the memberships that begin and end at an instant; ``grown`` is the name of the event that came."""
        moves: list[tuple[str, bool]] = []
        for group in groups:
            names: Collection[str] | None = self._rules.groups.get(group)
            if names is None:
                continue
            members, due = self._members, self._dues.get(group, FOREVER)
            if group == grown and due > at:
                names, holding, until = self._sight.look_after(group, members, due, at)
            else:
                holding, until = self._look(group, at)
            self._note_due(group, until)
            for name in holding:
                if name not in members:
                    members[name] = at
                    moves.append((name, True))
            moves += [self._ended(name, at) for name in frozenset(names).intersection(members).difference(holding)]
        if not moves:
            return []
        self._sight.forget_open()
        return self._transitions(moves, at, cause)

    def _ended(self, name: str, at: int) -> tuple[str, bool]:
        """End a membership."""
        if self._members.pop(name) == at:
            self._repeats[name] = self._repeats.get(name, 0) + 1
        return name, False

    def _transitions(self, moves: Iterable[tuple[str, bool]], at: int, cause: str) -> list[Transition]:
        """Return the transitions of memberships that began (True) and ended (False)."""
        return [
            Transition(
                name,
                MembershipChange.ENTER if entered else MembershipChange.EXIT,
                at,
                cause,
                self._rules.version,
                self._repeats.get(name, 0),
            )
            for name, entered in sorted(moves)
        ]

    def _look(self, group: str, at: int) -> tuple[Collection[str], int]:
        """Look at a group: once for an instant, as long as no event comes."""
        looked = self._looked.get(group)
        if looked is not None and looked[0] == at:
            return looked[1:]
        holding, until = self._rules.look(group, self._sight.view, at)
        self._looked[group] = at, holding, until
        return holding, until

    def _note_due(self, name: str, until: int) -> None:
        if until == FOREVER:
            self._dues.pop(name, None)
        else:
            self._dues[name] = until

    # --- instances of triggers --------------------------------------------------------------------------------------

    def _started_by(self, event: Event, at: int) -> list[Start]:
        """Return the triggers that an event starts; none if it was seen before."""
        listening = self._rules.on_event(event.name)
        if not listening or self._was_seen(event, at):
            return []
        cause = cause_of(event)
        return [
            (trigger, cause, max(at, event.at), properties_of(trigger, event))
            for trigger in listening
            if isinstance(trigger.on, OnEvent) and event.is_meant_by(trigger.on.match)
        ]

    def _was_seen(self, event: Event, at: int) -> bool:
        """Say whether an event is a redelivery. Remember it if not."""
        seen = self._seen
        whole = f"{event.name}\0{event.id}".encode("utf-8", "surrogatepass")
        digest = int.from_bytes(blake2b(whole, digest_size=6).digest(), "big")
        if digest in seen:
            return True
        seen[digest] = at // SECOND
        oldest = (at - SEEN_FOR) // SECOND
        while len(seen) > SEEN_KEPT or next(iter(seen.values())) < oldest:
            del seen[next(iter(seen))]
        return False
