"""The client that applications use."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from rules_engine.clock import from_micros
from rules_engine.errors import SegmentsError, StoreError
from rules_engine.features.online.opening import open_reader
from rules_engine.features.online.reader import OnlineReader
from rules_engine.features.online.selection import EntityFeatures, checked
from rules_engine.folders import Project
from rules_engine.sdk.assignment import Assignment
from rules_engine.sdk.base_client import (
    BaseClient,
    OnError,
    Request,
    checked_keys,
    unanswered,
    wanted_decisions,
    wanted_features,
)
from rules_engine.sdk.membership import Membership
from rules_engine.sdk.rules import Question, Rules

if TYPE_CHECKING:
    from rules_engine.rules.decisions.explaining import DecisionExplanation
    from rules_engine.rules.explanation import Explanation

_Current = tuple[Rules, OnlineReader | None]


class SegmentClient(BaseClient[OnlineReader]):
    """Answers which segments an entity is in, from the online store.

    Make one and keep it: it holds the compiled rules and the connections. It is safe to share between threads, and a
    process that is forked off opens connections of its own. After ``segments apply`` it answers by the new definitions
    from the next request on, at most a fraction of a second later. If those cannot be read it keeps the old ones, and
    logs an error.

    Parameters
    ----------
    project
        where the read plan and the embedded store are.
    on_error
        what lookups do when the store cannot be read. With ``"no_match"`` they answer with an empty membership that
        carries the error, and log a warning. ``explain`` and ``features`` always raise.
    timeout
        seconds that a request may take, from waiting for a connection to the answer of the store (for many entities:
        to each answer); by default what the connection string says, else 5.

    Raises
    ------
    NotAppliedError
        if nothing was applied yet.
    ProjectError
        if the read plan cannot be read.

    Examples
    --------
    ::

        with SegmentClient.from_repo(".") as client:
            client.lookup("42").segments
    """

    def __init__(self, project: Project, *, on_error: OnError = "raise", timeout: float | None = None) -> None:
        super().__init__(project, on_error=on_error, timeout=timeout)
        self._lock = threading.Lock()

    # --- asking -----------------------------------------------------------------------------------------------------

    def lookup(
        self,
        entity: str,
        *,
        context: Mapping[str, Any] | None = None,
        segments: Iterable[str] | None = None,
        at: datetime | None = None,
    ) -> Membership:
        """Return which segments an entity is in. One round trip to the store; only what the segments need is read.

        An entity that the store does not know has no values, so it is in no segment but those that ask for that.

        Parameters
        ----------
        entity
            its key.
        context
            values that the request brings, for conditions that read them; times are aware datetimes.
        segments
            the segments to look at; by default all.
        at
            the instant that counts as now; by default the project's ``now``, else the clock. Features are read as they
            are in the store whatever the instant.

        Raises
        ------
        UnknownNameError
            if a segment does not exist.
        StoreError
            if the store cannot be read, unless the client was made with ``on_error="no_match"``.
        """
        current = self._now()
        request = self._request(current[0], (checked(entity),), context, segments, at)
        try:
            return self._answer(current, request)[0]
        except StoreError as error:
            return self._instead(request, error)[0]

    def lookup_many(
        self,
        entities: Sequence[str],
        *,
        context: Mapping[str, Any] | None = None,
        segments: Iterable[str] | None = None,
        at: datetime | None = None,
    ) -> list[Membership]:
        """Return which segments each entity is in, in order; one round trip for some hundreds. See :meth:`lookup`."""
        current = self._now()
        request = self._request(current[0], checked_keys(entities), context, segments, at)
        try:
            return self._answer(current, request)
        except StoreError as error:
            return self._instead(request, error)

    def _answer(self, current: _Current, request: Request) -> list[Membership]:
        """Give memberships by undecoded rows if the reader has some; of entities of which they do not tell, by all."""
        rules = current[0]
        keys, question, context, now = request
        instant = from_micros(now)
        on_rows = rules.on_rows(question)
        answers: list[Membership | None] = [None] * len(keys)
        if on_rows is not None and keys:
            reader = (current[1] or self._reader(current)).undecoded
            if reader is not None and len(keys) == 1:
                (row,) = reader.rows(on_rows.layout, keys)
                answers = [on_rows.membership(keys[0], row, context, now, instant)]
            elif reader is not None:
                answers = reader.answers(
                    on_rows.layout, keys, lambda key, row: on_rows.membership(key, row, context, now, instant)
                )
        read = self._read(current, unanswered(keys, answers), question)
        rest = (rules.membership(question, features, context, now, instant) for features in read)
        return [next(rest) if answer is None else answer for answer in answers]

    def decide(
        self, entity: str, decision: str, *, context: Mapping[str, Any] | None = None, at: datetime | None = None
    ) -> Assignment:
        """Return which variant of a decision an entity gets, with its value and the reason.

        One round trip to the store; only what the conditions of the rules need is read. If the store cannot be read
        and the client was made with ``on_error="no_match"``, it is the default.

        Parameters
        ----------
        entity
            its key, on which shares and experiments depend.
        decision
            its name.
        context, at
            as for :meth:`lookup`.

        Raises
        ------
        UnknownNameError
            if there is no such decision.
        StoreError
            if the store cannot be read, unless the client was made with ``on_error="no_match"``.
        """
        return self._decide((checked(entity),), (decision,), context, at)[0][0]

    def decide_many(
        self,
        entities: Sequence[str],
        decision: str,
        *,
        context: Mapping[str, Any] | None = None,
        at: datetime | None = None,
    ) -> list[Assignment]:
        """Return which variant of a decision each entity gets, in order. See :meth:`decide`."""
        return [assignment for (assignment,) in self._decide(checked_keys(entities), (decision,), context, at)]

    def decide_all(
        self,
        entity: str,
        decisions: Iterable[str] | None = None,
        *,
        context: Mapping[str, Any] | None = None,
        at: datetime | None = None,
    ) -> dict[str, Assignment]:
        """Return the assignments of several decisions for an entity by name, of all by default, in one round trip."""
        assignments = self._decide((checked(entity),), wanted_decisions(decisions), context, at)[0]
        return {assignment.decision: assignment for assignment in assignments}

    def _decide(
        self,
        keys: Sequence[str],
        decisions: Iterable[str] | None,
        context: Mapping[str, Any] | None,
        at: datetime | None,
    ) -> list[list[Assignment]]:
        """Give assignments by undecoded rows if the reader has some; of entities of which they do not tell, by all."""
        current = self._now()
        rules = current[0]
        inquiry, values, now = self._inquiry(rules, decisions, context, at)
        instant, question = from_micros(now), inquiry.question
        on_rows = rules.on_rows(question)
        answers: list[list[Assignment] | None] = [None] * len(keys)
        try:
            reader = None if on_rows is None or not keys else (current[1] or self._reader(current)).undecoded
            if on_rows is not None and reader is not None:
                decide = partial(on_rows.assignments, inquiry.choosers, context=values, now=now, at=instant)
                answers = reader.answers(on_rows.layout, keys, decide)
            read = self._read(current, unanswered(keys, answers), question)
        except StoreError as error:
            return self._defaults(keys, inquiry, instant, error)
        rest = (rules.assignments(inquiry, features, values, now, instant) for features in read)
        return [next(rest) if answer is None else answer for answer in answers]

    def explain_decision(
        self, entity: str, decision: str, *, context: Mapping[str, Any] | None = None, at: datetime | None = None
    ) -> DecisionExplanation:
        """Explain why an entity gets a variant; ``str()`` gives the rules in order, with values and verdicts.

        Raises
        ------
        UnknownNameError
            if there is no such decision.
        StoreError
            if the store cannot be read.
        """
        current = self._now()
        inquiry, values, now = self._inquiry(current[0], (decision,), context, at)
        (features,) = self._read(current, (checked(entity),), inquiry.question)
        return current[0].explain_decision(decision, features, values, now)

    def is_member(
        self, entity: str, segment: str, *, context: Mapping[str, Any] | None = None, at: datetime | None = None
    ) -> bool:
        """Tell whether an entity is in a segment; an unknown answer is no. See :meth:`lookup`."""
        return segment in self.lookup(entity, context=context, segments=[segment], at=at).segments

    def explain(
        self, entity: str, segment: str, *, context: Mapping[str, Any] | None = None, at: datetime | None = None
    ) -> Explanation:
        """Explain why an entity is, or is not, in a segment; ``str()`` gives a tree of values and verdicts.

        Raises
        ------
        UnknownNameError
            if the segment does not exist.
        StoreError
            if the store cannot be read.
        """
        current = self._now()
        rules = current[0]
        keys, question, checked_context, now = self._request(rules, (checked(entity),), context, [segment], at)
        (features,) = self._read(current, keys, question)
        return rules.explain(segment, features, checked_context, now)

    def features(
        self, entity: str, names: Iterable[str] | None = None, *, at: datetime | None = None
    ) -> dict[str, Any]:
        """Return the values of features, by ``"view:name"``.

        Parameters
        ----------
        entity
            its key.
        names
            the features; by default all that are served online.
        at
            the instant that decides whether a value is past its view's ttl; as for :meth:`lookup`.

        Returns
        -------
        dict
            None for what is missing; times are aware datetimes, lists are lists.

        Raises
        ------
        UnknownNameError
            if a feature does not exist.
        StoreError
            if the store cannot be read.
        """
        requested = wanted_features(names)
        current = self._now()
        rules = current[0]
        now = rules.now(at)
        stored, state_name = rules.sources(requested)
        (features,) = self._reader(current).read([checked(entity)], stored, state_name)
        return rules.features(requested, features, now)

    # --- events -----------------------------------------------------------------------------------------------------

    def track(
        self,
        entity: str,
        event: str,
        properties: Mapping[str, Any] | None = None,
        *,
        at: datetime | None = None,
        event_id: str | None = None,
    ) -> str:
        """Report that an entity did something. When it returns, every lookup sees it.

        Sending the same event again changes nothing; so after a StoreError, send it again with the same ``event_id``.

        Parameters
        ----------
        entity
            its key.
        event
            the name of an event that events.yaml declares.
        properties
            what the event carries; times are aware datetimes or ISO 8601 text.
        at
            when it happened; by default now.
        event_id
            what tells this event from all others of its name and entity; by default a new random id. If events.yaml
            names a property as the id, that is what tells.

        Returns
        -------
        str
            the event's id.

        Raises
        ------
        DataError
            if the event is not as events.yaml declares it.
        StoreError
            if the store cannot be reached.
        """
        rules = self._now()[0]
        instant = rules.now(at)
        return self._trackers.of(rules).track(checked(entity), event, properties, instant, event_id)

    def alias(self, previous_id: str, entity: str, *, at: datetime | None = None) -> str:
        """Join the id under which somebody was seen before to the entity that it turned out to be, for good.

        From then on what was and will be reported under the id counts for the entity: when this returns, every lookup
        sees it. The id itself is nobody any more. An id is joined once: a later join to another entity changes nothing.

        Parameters
        ----------
        previous_id
            for instance the anonymous id of a browser.
        entity
            the key of the entity.
        at
            from when on; by default now.

        Returns
        -------
        str
            the entity that the id is joined to: the given one, or the one that it was joined to before.

        Raises
        ------
        DataError
            if the entity is joined to the id, or too many joins would follow one another.
        StoreError
            if the store cannot be reached.
        """
        rules = self._now()[0]
        return self._trackers.of(rules).join(checked(previous_id), checked(entity), rules.now(at))

    # --- the store --------------------------------------------------------------------------------------------------

    def _now(self) -> _Current:
        """Return the rules and the reader to answer with; a request takes them once and keeps to them."""
        current = self._current
        if not self._applied.changed(current[0]):
            return current
        self._applied.load()
        return self._replaced()

    def _replaced(self) -> _Current:
        """Return what is answered with from now on, if the rules are newer than those that were."""
        with self._lock:
            previous, reader = self._current
            rules = self._applied.rules
            if rules is previous:
                return self._current
            follower = None
            with suppress(SegmentsError):  # the new plan's store cannot be reached: that is for the requests to say
                follower = reader and reader.for_plan(rules.plan)
            if reader is not None and follower is None:
                reader.close()
            self._current = rules, follower
            return self._current

    def _read(self, current: _Current, keys: Sequence[str], question: Question) -> list[EntityFeatures]:
        if not keys or (not question.features and question.state_name is None):
            return [EntityFeatures(key) for key in keys]
        return (current[1] or self._reader(current)).read(keys, question.features, question.state_name)

    def _reader(self, current: _Current) -> OnlineReader:
        """Return the reader, opened when it is first needed: a store that is down is an error of the lookup."""
        rules, reader = current
        if reader is not None:
            return reader
        with self._lock:
            self._open_check()
            newest, reader = self._current
            if newest is not rules or reader is None:
                reader = open_reader(rules.plan, self._project.root, timeout=self._timeout)
                if newest is rules:
                    self._current = rules, reader
            return reader

    def close(self) -> None:
        """Close the connections. A closed client raises RuntimeError when it needs the store."""
        with self._lock:
            self._closed = True
            rules, reader = self._current
            self._current = rules, None
        if reader is not None:
            reader.close()
        self._trackers.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
