"""Holds what the routes of one process share: the client, the keys, and whether the process is about to end."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import datetime
from typing import Any

from rules_engine.clock import from_micros, parse_instant
from rules_engine.errors import DataError, ProjectError, SegmentsError, UnknownNameError
from rules_engine.folders import Project
from rules_engine.read_plan import ReadPlan
from rules_engine.rules.settings.codec import decode_service
from rules_engine.rules.settings.nodes import Role, ServiceSettings
from rules_engine.rules.walk import context_times
from rules_engine.sdk import Assignment, Membership
from rules_engine.service.client import ServiceClient
from rules_engine.service.keys import Key, KeyRing
from rules_engine.service.metrics import SHARED, RequestMetrics
from rules_engine.service.push.hub import Hub
from rules_engine.service.telemetry import Telemetry

_log = logging.getLogger("rules_engine.service")


class Service:
    """Holds the client and the keys of one process, by the definitions that were applied last.

    Parameters
    ----------
    project
        the folder.
    dev
        whether it runs without keys.
    workers
        how many processes share the requests: each takes its part of a key's rate.
    access_log
        whether every request is logged, and not only those that failed here.
    telemetry
        what sends traces and events of evaluations; None for nothing.

    Raises
    ------
    ProjectError
        if the read plan cannot be read, or there are no keys.

    Attributes
    ----------
    client
        answers lookups, and takes events.
    hub
        hands transitions to open streams.
    metrics
        counts requests.
    draining
        whether the process is about to end: replies then close their connections, and ``/readyz`` says so.
    at_end
        called when the process ends.
    """

    def __init__(
        self,
        project: Project,
        *,
        dev: bool = False,
        workers: int = 1,
        access_log: bool = False,
        telemetry: Telemetry | None = None,
    ) -> None:
        self.project = project
        self.telemetry = telemetry
        self.dev = dev
        self.client = ServiceClient(project)
        self.hub = Hub(project, self.client.plan)
        self.draining = False
        self.at_end: list[Callable[[], Awaitable[None]]] = []
        self.metrics = RequestMetrics(os.environ[SHARED] if workers > 1 else None)
        self._workers = workers
        self._access_log = access_log
        self._applied = _Applied(self.client)
        self._settings = decode_service(self.client.plan.definitions)
        self._keys = None if dev else open_keys(self._settings, workers)

    @property
    def settings(self) -> ServiceSettings:
        """Return the settings that were applied last."""
        self._follow_plan()
        return self._settings

    @property
    def keys(self) -> KeyRing | None:
        """Return the keys; None with ``--dev``."""
        self._follow_plan()
        return self._keys

    async def ask(
        self,
        key: Key | None,
        entity: str,
        context: Mapping[str, Any],
        segments: Iterable[str] | None = None,
        *,
        at: datetime | None = None,
    ) -> tuple[Membership, ReadPlan]:
        """Return which segments an entity is in, of those that a key may see, and the plan by which this was answered.

        Parameters
        ----------
        key
            of the caller.
        entity
            its key.
        context
            values of the request, as JSON has them: where a segment reads one as a time, it is ISO 8601 text.
        segments
            the segments; by default all that the key may see.
        at
            the instant that counts as now, as for :meth:`AsyncSegmentClient.lookup`.

        Raises
        ------
        UnknownNameError
            if a segment does not exist, or the key may not see it: the two are not told apart.
        DataError
            if a value of the context is no time.
        StoreError
            if the store cannot be read, or does not hold what the answer rests on.
        """
        while True:
            applied = self._follow_plan()
            names = _visible(applied, key, segments)
            values = _read_context(context, applied.times)
            membership = await self.client.lookup(entity, context=values, segments=names, at=at)
            if self.client.plan is applied.plan:  # else definitions were applied while it was answered
                return membership, applied.plan

    async def decide(
        self, key: Key | None, entity: str, context: Mapping[str, Any], decisions: Iterable[str] | None = None
    ) -> tuple[Mapping[str, Assignment], ReadPlan]:
        """Return which variants an entity gets, by decision, and the plan by which this was answered.

        Parameters
        ----------
        key, entity, context
            as for :meth:`ask`.
        decisions
            the decisions; by default all that the key may see.

        Raises
        ------
        UnknownNameError
            if a decision does not exist, or the key may not see it.
        DataError
            if a value of the context is no time.
        StoreError
            if the store cannot be read, or does not hold what the answer rests on.
        """
        while True:
            applied = self._follow_plan()
            names = self.decisions(key) if decisions is None else list(decisions)
            for name in names:
                if name not in self.decisions(key):
                    raise UnknownNameError(f"there is no decision `{name}` that this key may see")
            values = _read_context(context, applied.times)
            assignments = await self.client.decide_all(entity, names, context=values) if names else {}
            if self.client.plan is applied.plan:  # else definitions were applied while it was answered
                return assignments, applied.plan

    def decisions(self, key: Key | None) -> list[str]:
        """Return the names of the decisions that a key may see, sorted."""
        decisions = self._follow_plan().decisions
        return sorted(name for name, each in decisions.items() if each.public or not _sees_public_only(key))

    def read_context(self, context: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the context of a request, with times where some segment reads a value as one.

        Raises
        ------
        DataError
            if a value is no time.
        """
        return _read_context(context, self._follow_plan().times)

    def visible(self, key: Key | None) -> list[str]:
        """Return the names of the segments that a key may see, sorted."""
        applied = self._follow_plan()
        return sorted(applied.public) if _sees_public_only(key) else list(applied.program.names)

    def is_public(self, segment: str) -> bool:
        """Say whether keys that see public segments only see this one."""
        return segment in self._follow_plan().public

    def _follow_plan(self) -> _Applied:
        """Take new settings after ``segments apply``. With keys that cannot be used, the old ones stay."""
        plan = self.client.plan
        if plan is self._applied.plan:
            return self._applied
        self._applied = _Applied(self.client)
        try:
            settings = decode_service(plan.definitions)
            if settings != self._settings:
                self._keys = None if self.dev else open_keys(settings, self._workers)
                self._settings = settings
        except SegmentsError:
            _log.exception("the newly applied settings of the service cannot be used; the ones before stay")
        return self._applied

    def note(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count a request, and log it if it is to be: by its route, which does not say whom it was about."""
        self.metrics.answered(route, method, status, seconds)
        if self._access_log or status >= 500:
            extra = {"method": method, "route": route, "code": status, "seconds": round(seconds, 6)}
            level = logging.WARNING if status >= 500 else logging.INFO
            _log.log(level, "%s %s %d", method, route, status, extra=extra)

    async def close(self) -> None:
        """Close the connections to the store, and end what else was begun."""
        for end in self.at_end:
            await end()
        await self.client.close()
        await self.hub.close()
        if self.telemetry is not None:
            await asyncio.to_thread(self.telemetry.close)


class _Applied:
    """Holds what follows from the definitions that a client answers from."""

    __slots__ = ("decisions", "plan", "program", "public", "times")

    def __init__(self, client: ServiceClient) -> None:
        self.plan, self.program = client.plan, client.program
        segments = self.program.segments
        self.public = frozenset(name for name, segment in segments.items() if segment.public)
        self.decisions = client.decisions
        self.times = context_times(segment.when for segment in client.conditions.segments.values())


def _sees_public_only(key: Key | None) -> bool:
    return key is not None and key.role is Role.EVALUATE


def _visible(applied: _Applied, key: Key | None, segments: Iterable[str] | None) -> Iterable[str] | None:
    if not _sees_public_only(key):
        return segments
    if segments is None:
        return applied.public
    names = list(segments)
    for name in names:
        if name not in applied.public:
            raise UnknownNameError(f"there is no segment `{name}` that this key may see")
    return names


def _read_context(context: Mapping[str, Any], times: frozenset[str]) -> Mapping[str, Any]:
    """Return a context in which text is a time where segments read it as one."""
    texts = [name for name in times if isinstance(context.get(name), str)]
    return {**context, **{name: _time(name, context[name]) for name in texts}} if texts else context


def _time(name: str, text: str) -> datetime:
    try:
        return from_micros(parse_instant(text))
    except ValueError as error:
        raise DataError(f"context[{name!r}]: {error}") from None


def open_keys(settings: ServiceSettings, workers: int = 1) -> KeyRing:
    """Return the keys of a project.

    Raises
    ------
    ProjectError
        if there are none, or one of them cannot be used.
    """
    if not any(settings.keys.values()):
        raise ProjectError(
            "the project names no keys for the service",
            hint='add `service: {keys: {read: ["${MY_KEY}"]}}` to the `project:` document and apply, or try --dev',
        )
    rates = {role: rate / workers for role, rate in settings.requests_per_second.items()}
    return KeyRing(settings.keys, rates)


def read_settings(project: Project) -> ServiceSettings:
    """Return the settings of a service as they were applied.

    Raises
    ------
    ProjectError
        if nothing was applied, or it cannot be read.
    """
    return decode_service(ReadPlan.load(project.read_plan).definitions)
