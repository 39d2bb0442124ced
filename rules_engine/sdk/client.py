"""The client that applications use."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from rules_engine.clock import from_micros, to_micros
from rules_engine.errors import DataError, SegmentsError, StoreError
from rules_engine.features.online.reader import OnlineReader, RedisReader, checked, open_reader
from rules_engine.features.online.selection import EntityFeatures
from rules_engine.folders import Project
from rules_engine.rules.program import Program
from rules_engine.sdk.applied import Applied
from rules_engine.sdk.membership import Membership
from rules_engine.sdk.rules import Question, Rules
from rules_engine.sdk.trackers import Trackers

if TYPE_CHECKING:
    from rules_engine.rules.explain import Explanation

#: What a lookup does when the store cannot be read: raise the error, or answer that the entity is in no segment.
OnError = Literal["raise", "no_match"]

log = logging.getLogger("rules_engine.sdk")

_Current = tuple[Rules, OnlineReader | None]

#: What a request without a context has; never changed.
NO_CONTEXT: Mapping[str, Any] = {}


class SegmentClient:
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
        if on_error not in ("raise", "no_match"):
            raise ValueError(f'on_error is "raise" or "no_match", not {on_error!r}')
        self._project = project
        self._on_error = on_error
        self._timeout = timeout
        self._applied = Applied(project.read_plan)
        self._lock = threading.Lock()
        #: Rules and the reader of their plan, which is opened when it is first needed. Replaced together, in one step.
        self._current: _Current = (self._applied.rules, None)
        self._trackers = Trackers(project.root, timeout)
        self._closed = False

    @classmethod
    def from_repo(cls, path: str | Path = ".", *, on_error: OnError = "raise", timeout: float | None = None) -> Self:
        """A client for the project in a folder: the one that holds ``feature_repo/`` and ``segments/``.

        A folder that holds only ``.segments/read_plan.json`` will do too.

        Raises
        ------
        ProjectError
            if the folder is no project.
        NotAppliedError
            if nothing was applied in it yet.
        """
        return cls(find_project(path), on_error=on_error, timeout=timeout)

    @property
    def program(self) -> Program:
        """The checked definitions that the client answers from."""
        return self._rules.program

    @property
    def _rules(self) -> Rules:
        return self._now()[0]

    # --- asking -----------------------------------------------------------------------------------------------------

    def lookup(
        self,
        entity: str,
        *,
        context: Mapping[str, Any] | None = None,
        segments: Iterable[str] | None = None,
        at: datetime | None = None,
    ) -> Membership:
        """Which segments an entity is in. One round trip to the store; only what the segments need is read.

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
        rules = current[0]
        given = checked_context(context) if context else NO_CONTEXT
        question = rules.question(segments)
        now = rules.now(at)
        try:
            return self._answer(current, (checked(entity),), question, given, now)[0]
        except StoreError as error:
            return self._unanswered([entity], now, error)[0]

    def lookup_many(
        self,
        entities: Sequence[str],
        *,
        context: Mapping[str, Any] | None = None,
        segments: Iterable[str] | None = None,
        at: datetime | None = None,
    ) -> list[Membership]:
        """Which segments each entity is in, in order: one round trip for some hundreds of them. See :meth:`lookup`."""
        if isinstance(entities, str):
            raise TypeError(f"entities is a list of keys, and {entities!r} is one key: write [{entities!r}]")
        current = self._now()
        rules = current[0]
        keys = [checked(entity) for entity in entities]
        given = checked_context(context)
        question = rules.question(segments)
        now = rules.now(at)
        try:
            return self._answer(current, keys, question, given, now)
        except StoreError as error:
            return self._unanswered(keys, now, error)

    def _answer(
        self, current: _Current, keys: Sequence[str], question: Question, given: Mapping[str, Any], now: int
    ) -> list[Membership]:
        """Memberships: by undecoded rows if the reader has some and the question asks for no more."""
        rules, instant = current[0], from_micros(now)
        on_rows = rules.on_rows(question)
        if on_rows is not None and keys:
            reader = current[1] or self._reader(current)
            if isinstance(reader, RedisReader):
                at = now, instant
                if len(keys) == 1:
                    (row,) = reader.rows(on_rows.layout, keys)
                    return [rules.row_membership(on_rows, question, keys[0], row, given, at)]
                member = rules.row_membership
                return reader.judged(
                    on_rows.layout, keys, lambda key, row: member(on_rows, question, key, row, given, at)
                )
        read = self._read(current, keys, question)
        return [rules.membership(question, found, given, now, instant) for found in read]

    def _unanswered(self, keys: list[str], now: int, error: StoreError) -> list[Membership]:
        if self._on_error == "raise":
            raise error
        return unanswered(keys, now, error)

    def is_member(
        self, entity: str, segment: str, *, context: Mapping[str, Any] | None = None, at: datetime | None = None
    ) -> bool:
        """Whether an entity is in a segment; an unknown answer is no. See :meth:`lookup`."""
        return segment in self.lookup(entity, context=context, segments=[segment], at=at).segments

    def explain(
        self, entity: str, segment: str, *, context: Mapping[str, Any] | None = None, at: datetime | None = None
    ) -> Explanation:
        """Why an entity is, or is not, in a segment. ``str()`` of it is a tree of values, thresholds and verdicts.

        Raises
        ------
        UnknownNameError
            if the segment does not exist.
        StoreError
            if the store cannot be read.
        """
        current = self._now()
        rules = current[0]
        given = checked_context(context)
        question = rules.question([segment])
        now = rules.now(at)
        (found,) = self._read(current, [checked(entity)], question)
        return rules.explain(segment, found, given, now)

    def features(
        self, entity: str, names: Iterable[str] | None = None, *, at: datetime | None = None
    ) -> dict[str, Any]:
        """The values of features, by ``"view:name"``.

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
        if isinstance(names, str):
            raise TypeError(f"names is a list of features, and {names!r} is one: write [{names!r}]")
        wanted = None if names is None else list(names)
        current = self._now()
        rules = current[0]
        now = rules.now(at)
        stored, beside = rules.sources(wanted)
        (found,) = self._reader(current).read([checked(entity)], stored, beside)
        return rules.features(wanted, found, now)

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
        rules = self._rules
        instant = rules.now(at)
        return self._trackers.of(rules).track(checked(entity), event, properties, instant, event_id)

    # --- the store --------------------------------------------------------------------------------------------------

    def _now(self) -> _Current:
        """The rules and the reader to answer with; a request takes them once and keeps to them."""
        current = self._current
        if not self._applied.changed(current[0]):
            return current
        self._applied.load()
        return self._replaced()

    def _replaced(self) -> _Current:
        """What is answered with from now on, if the rules are newer than those that were."""
        with self._lock:
            held, reader = self._current
            rules = self._applied.rules
            if rules is held:
                return self._current
            try:
                self._current = rules, reader and reader.for_plan(rules.plan)
            except SegmentsError:  # the new plan's store cannot be reached: that is for the requests to say
                self._current = rules, None
            return self._current

    def _read(self, current: _Current, keys: Sequence[str], question: Question) -> list[EntityFeatures]:
        if not question.features and question.beside is None:
            return [EntityFeatures(key) for key in keys]
        return (current[1] or self._reader(current)).read(keys, question.features, question.beside)

    def _reader(self, current: _Current) -> OnlineReader:
        """The reader, opened when it is first needed: a store that is down is an error of the lookup."""
        rules, reader = current
        if reader is not None:
            return reader
        with self._lock:
            if self._closed:
                raise RuntimeError("the client is closed")
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


def find_project(path: str | Path) -> Project:
    """The project in a folder, which may hold no more than what was applied.

    Raises
    ------
    ProjectError
        if the folder is neither applied nor a project.
    """
    project = Project(Path(path).expanduser().resolve())
    return project if project.read_plan.is_file() else Project.open(path)


def checked_context(context: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """The context, with every time in it known to have an offset."""
    for name, value in (context or {}).items():
        for item in value if isinstance(value, list | tuple | set | frozenset) else (value,):
            if isinstance(item, datetime):
                try:
                    to_micros(item)
                except ValueError as error:
                    raise DataError(f"context[{name!r}]: {error}") from None
    return context or NO_CONTEXT


def unanswered(keys: Sequence[str], now: int, error: StoreError) -> list[Membership]:
    """Empty memberships that say why, for clients that are to go on without the store."""
    log.warning("answered without the online store: %s", error)
    return [Membership(key, frozenset(), from_micros(now), error=error) for key in keys]
