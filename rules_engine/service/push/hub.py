"""Hands the transitions that workers announce to the streams of one process.

A thread reads the stream of transitions, one for the process however many streams are open, and hands what it read to
the event loop, where each stream has its own short queue. A reader that does not keep up loses its stream, and nobody
else does; it learns the reason, and begins anew where it was.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from rules_engine.errors import StoreError
from rules_engine.folders import Project
from rules_engine.read_plan import ReadPlan
from rules_engine.redis.client import store_errors
from rules_engine.redis.server import event_server
from rules_engine.service.push.recent import Announcement, Position, RecentTransitions, read_announcement, refetch
from rules_engine.triggers.transition_stream import FIELD, transitions_key

#: How many transitions each process remembers, for streams that begin anew.
MAX_REMEMBERED = 20_000

#: How many messages may wait for one reader.
MAX_PENDING = 200

#: How many streams one process has at most.
MAX_STREAMS = 20_000

_COUNT, _WAIT_MILLISECONDS, _PAUSE = 5_000, 1_000, 0.5

#: Seconds after which clients have noticed that definitions were applied.
_NOTICED_AFTER = 0.5

_log = logging.getLogger("rules_engine.service")


class Subscription:
    """The messages of one reader.

    Parameters
    ----------
    entity
        whose transitions it hears of.
    visible
        says of a segment whether its reader may see it; None: it sees all, with causes.
    """

    def __init__(self, entity: str, visible: Callable[[str], bool] | None) -> None:
        self.entity = entity
        self.ending: str | None = None
        self._visible = visible
        self._pending: deque[bytes] = deque()
        self._news = asyncio.Event()

    def offer(self, announcement: Announcement) -> None:
        """Put an announcement in line, if the reader may see it."""
        if self._visible is None:
            self.put(announcement.whole)
        elif self._visible(announcement.segment):
            self.put(announcement.public)

    def put(self, message: bytes) -> None:
        """Put a message in line. If too many wait, the stream ends."""
        if self.ending is not None:
            return
        if len(self._pending) >= MAX_PENDING:
            self.end("slow-reader")
            return
        self._pending.append(message)
        self._news.set()

    def end(self, reason: str) -> None:
        """End the stream; what waits in line is not sent any more."""
        self._pending.clear()
        self.ending = reason
        self._news.set()

    async def next(self, seconds: float) -> bytes:
        """Return what waits; nothing if nothing comes for so long, or the stream ends."""
        if not self._pending and self.ending is None:
            try:
                async with asyncio.timeout(seconds):
                    await self._news.wait()
            except TimeoutError:
                return b""
        messages = b"".join(self._pending)
        self._pending.clear()
        self._news.clear()
        return messages


class Hub:
    """Reads the stream of transitions, and hands each to those who subscribed to its entity.

    Parameters
    ----------
    project
        the project's folder.
    plan
        its read plan.
    """

    def __init__(self, project: Project, plan: ReadPlan) -> None:
        self._project = project
        self._plan = plan
        self._key = transitions_key(plan.project)
        self._definitions = _stamp(project)
        self._recent = RecentTransitions(MAX_REMEMBERED)
        self._subscriptions: dict[str, set[Subscription]] = {}
        self._count = 0
        self._position: Position = (0, 0)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ready = asyncio.Event()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def position(self) -> bytes:
        """Return the id of the last transition that was read."""
        return b"%d-%d" % self._position

    @property
    def is_full(self) -> bool:
        """Say whether no further stream is taken."""
        return self._count >= MAX_STREAMS

    async def subscribe(self, subscription: Subscription, after: Position | None) -> None:
        """Begin to hand transitions to a reader.

        Parameters
        ----------
        after
            what it has already; None: it has nothing, and needs only what comes.
        """
        if self._thread is None:
            self._loop = asyncio.get_running_loop()
            self._thread = threading.Thread(target=self._read, name="transitions", daemon=True)
            self._thread.start()
        await self._ready.wait()
        missed = [] if after is None else self._recent.after(subscription.entity, after)
        if missed is None or len(missed) >= MAX_PENDING:
            missed = None
            subscription.put(refetch(self.position))
        for announcement in missed or ():
            subscription.offer(announcement)
        self._subscriptions.setdefault(subscription.entity, set()).add(subscription)
        self._count += 1

    def unsubscribe(self, subscription: Subscription) -> None:
        """End handing transitions to a reader."""
        mine = self._subscriptions.get(subscription.entity, set())
        if subscription in mine:
            mine.remove(subscription)
            self._count -= 1
            if not mine:
                del self._subscriptions[subscription.entity]

    def refetch_all(self) -> None:
        """Ask all readers to evaluate anew: definitions changed, or transitions were missed."""
        message = refetch(self.position)
        for subscription in self._all():
            subscription.put(message)

    def end_all(self, reason: str) -> None:
        """End all streams."""
        for subscription in self._all():
            subscription.end(reason)

    async def close(self) -> None:
        """End the thread."""
        self._closing.set()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)

    def _all(self) -> list[Subscription]:
        return [subscription for mine in self._subscriptions.values() for subscription in mine]

    # --- in the event loop --------------------------------------------------------------------------------------------

    def _begin(self, entries: Sequence[Any], position: Position, *, anew: bool) -> None:
        """Take the position, and what is remembered before it."""
        self._recent.clear(position)
        announcements = [read_announcement(entry, fields.get(FIELD, b"")) for entry, fields in entries]
        readable = [announcement for announcement in announcements if announcement is not None]
        if readable:
            self._recent.clear(readable[0].position)
        for announcement in readable:
            self._recent.add(announcement)
        self._position = position
        self._ready.set()
        if anew:
            self.refetch_all()

    def _deliver(self, entries: Sequence[Any], position: Position) -> None:
        for entry, fields in entries:
            announcement = read_announcement(entry, fields.get(FIELD, b""))
            if announcement is not None:
                self._recent.add(announcement)
                for subscription in tuple(self._subscriptions.get(announcement.entity, ())):
                    subscription.offer(announcement)
        self._position = position

    # --- in the thread ------------------------------------------------------------------------------------------------

    def _read(self) -> None:
        """Read until the hub is closed. While the store is down it is tried anew; to start it is for others."""
        server = event_server(self._plan.connection, self._project.root)
        client = server.client()
        position: Position | None = None
        fails = False
        while not self._closing.is_set():
            try:
                self._follow_definitions()
                with store_errors(server.address):
                    position = self._step(client, position)
                fails = False
            except StoreError as error:
                if not fails:
                    _log.warning("transitions cannot be read; trying until they can: %s", error)
                fails = True
                self._closing.wait(_PAUSE)
        client.close()

    def _follow_definitions(self) -> None:
        """Have readers evaluate anew when definitions were applied, once the clients have had time to notice."""
        stamp = _stamp(self._project)
        if stamp != self._definitions and stamp is not None and time.time() > stamp / 1e9 + _NOTICED_AFTER:
            self._definitions = stamp
            self._call(self.refetch_all)

    def _step(self, client: Any, position: Position | None) -> Position:
        if position is None:
            return self._restart(client, anew=False)
        last = b"%d-%d" % position
        answer = client.xread({self._key: last}, _COUNT, _WAIT_MILLISECONDS)
        entries = answer[0][1] if answer else []
        if entries:
            position = _position(entries[-1][0])
            self._call(self._deliver, entries, position)
        elif self._is_ahead(client, position):
            return self._restart(client, anew=True)
        return position

    def _restart(self, client: Any, *, anew: bool) -> Position:
        entries = client.xrevrange(self._key, count=MAX_REMEMBERED)[::-1]
        position = _position(entries[-1][0]) if entries else (0, 0)
        self._call(lambda: self._begin(entries, position, anew=anew))
        return position

    def _is_ahead(self, client: Any, position: Position) -> bool:
        """Say whether the store does not know of the position: it was emptied or replaced."""
        newest = client.xrevrange(self._key, count=1)
        return (_position(newest[0][0]) if newest else (0, 0)) < position

    def _call(self, action: Callable[..., None], *arguments: Any) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(action, *arguments)


def _stamp(project: Project) -> int | None:
    try:
        return project.read_plan.stat().st_mtime_ns
    except OSError:
        return None


def _position(entry: bytes) -> Position:
    milliseconds, _, number = entry.partition(b"-")
    return int(milliseconds), int(number)
