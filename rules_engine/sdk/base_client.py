"""Hold what the two clients share: all code that does not wait for the store."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Generic, Literal, Self, TypeVar

from rules_engine.clock import from_micros, to_micros
from rules_engine.errors import DataError, StoreError
from rules_engine.features.online.selection import checked
from rules_engine.folders import Project
from rules_engine.read_plan import ReadPlan
from rules_engine.rules.decisions.nodes import Decision
from rules_engine.rules.program import Program
from rules_engine.sdk.applied import Applied
from rules_engine.sdk.assignment import Assignment
from rules_engine.sdk.membership import Membership
from rules_engine.sdk.rules import Inquiry, Question, Rules
from rules_engine.sdk.trackers import Trackers

#: What a lookup does when the store cannot be read: raise the error, or answer that the entity is in no segment.
OnError = Literal["raise", "no_match"]

Reader = TypeVar("Reader")

#: What is asked of the store, and all else that the answer depends on: the keys, the question, the context, and the
#: instant that counts as now in microseconds.
Request = tuple[Sequence[str], Question, Mapping[str, Any], int]

_NO_CONTEXT: Mapping[str, Any] = {}  # what a request without a context has; never changed

_log = logging.getLogger("rules_engine.sdk")


class BaseClient(Generic[Reader]):
    """Holds the current rules, prepares requests, and answers for a store that does not.

    Its parameters, and the errors that it raises, are those of :class:`rules_engine.sdk.client.SegmentClient`.
    """

    def __init__(self, project: Project, *, on_error: OnError = "raise", timeout: float | None = None) -> None:
        if on_error not in ("raise", "no_match"):
            raise ValueError(f'on_error is "raise" or "no_match", not {on_error!r}')
        self._project = project
        self._on_error = on_error
        self._timeout = timeout
        self._applied = Applied(project.read_plan)
        #: Rules and the reader of their plan, which is opened when it is first needed. Replaced together, in one step.
        self._current: tuple[Rules, Reader | None] = (self._applied.rules, None)
        self._trackers = Trackers(project.root, timeout)
        self._closed = False

    @classmethod
    def from_repo(cls, path: str | Path = ".", *, on_error: OnError = "raise", timeout: float | None = None) -> Self:
        """Make a client for the project in a folder: the one that holds ``feature_repo/`` and ``segments/``.

        A folder that holds only ``.segments/read_plan.json`` will do too. One file is read, and the store is not
        contacted before it is needed.

        Parameters
        ----------
        path
            the folder.
        on_error, timeout
            as for the class.

        Raises
        ------
        ProjectError
            if the folder is no project.
        NotAppliedError
            if nothing was applied in it yet.
        """
        return cls(Project.open_applied(path), on_error=on_error, timeout=timeout)

    @property
    def program(self) -> Program:
        """Return the checked definitions that the client answers from."""
        return self._current[0].program

    @property
    def conditions(self) -> Program:
        """Return the segments, and the conditions of decisions as hidden segments."""
        return self._current[0].conditions

    @property
    def decisions(self) -> Mapping[str, Decision]:
        """Return the decisions that the client answers from, by name."""
        return {name: chooser.decision for name, chooser in self._current[0].choosers.items()}

    @property
    def plan(self) -> ReadPlan:
        """Return the read plan that the client answers from; another one once newer definitions are in use."""
        return self._current[0].plan

    def _request(
        self,
        rules: Rules,
        keys: Sequence[str],
        context: Mapping[str, Any] | None,
        segments: Iterable[str] | None,
        at: datetime | None,
    ) -> Request:
        """Check a caller's context and instant, and resolve the names of segments. The keys were checked."""
        checked_context = _checked_context(context) if context else _NO_CONTEXT
        return keys, rules.question(segments), checked_context, rules.now(at)

    def _instead(self, request: Request, error: StoreError) -> list[Membership]:
        """Give empty memberships that say why, if the client is to go on without the store; else raise the error."""
        if self._on_error == "raise":
            raise error
        _log.warning("answered without the online store: %s", error)
        keys, _, _, now = request
        return [Membership(key, frozenset(), from_micros(now), error=error) for key in keys]

    def _inquiry(
        self,
        rules: Rules,
        decisions: Iterable[str] | None,
        context: Mapping[str, Any] | None,
        at: datetime | None,
    ) -> tuple[Inquiry, Mapping[str, Any], int]:
        """Check a caller's context and instant, and resolve the names of decisions; None is all."""
        return rules.inquiry(decisions), _checked_context(context) if context else _NO_CONTEXT, rules.now(at)

    def _defaults(
        self, keys: Sequence[str], inquiry: Inquiry, at: datetime, error: StoreError
    ) -> list[list[Assignment]]:
        """Give the defaults of decisions and say why, if the client is to go on without the store; else raise."""
        if self._on_error == "raise":
            raise error
        _log.warning("decided without the online store: %s", error)
        return [[Assignment.failed(chooser, key, at, error) for chooser in inquiry.choosers] for key in keys]

    def _open_check(self) -> None:
        if self._closed:
            raise RuntimeError("the client is closed")


def checked_keys(entities: Sequence[str]) -> list[str]:
    """Return the keys of several entities.

    Raises
    ------
    TypeError
        if they are a single key, or one is no string.
    """
    return [checked(entity) for entity in _several("entities", "keys", "key", entities)]


def unanswered(keys: Sequence[str], answers: Sequence[object | None]) -> list[str]:
    """Return the keys of the entities that have no answer yet."""
    return [key for key, answer in zip(keys, answers, strict=True) if answer is None]


def wanted_features(names: Iterable[str] | None) -> list[str] | None:
    """Return the names of the features that a caller wants, None for all of them.

    Raises
    ------
    TypeError
        if they are a single name.
    """
    return None if names is None else list(_several("names", "features", "feature", names))


def wanted_decisions(names: Iterable[str] | None) -> list[str] | None:
    """Return the names of the decisions that a caller asks for, None for all of them.

    Raises
    ------
    TypeError
        if they are a single name.
    """
    return None if names is None else list(_several("decisions", "names", "name", names))


def _several(parameter: str, what: str, what_each: str, values: Any) -> Any:
    if isinstance(values, str):
        raise TypeError(f"{parameter} is a list of {what}, and {values!r} is a single {what_each}: write [{values!r}]")
    return values


def _checked_context(context: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the context, after checking that every time in it has an offset.

    Raises
    ------
    DataError
        if a time has none.
    """
    for name, value in context.items():
        for item in value if isinstance(value, list | tuple | set | frozenset) else (value,):
            if isinstance(item, datetime):
                try:
                    to_micros(item)
                except ValueError as error:
                    raise DataError(f"context[{name!r}]: {error}") from None
    return context
