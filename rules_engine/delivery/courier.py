"""Sends the actions in a sink's queue to the sink, in one thread.

One worker at a time serves a sink: it holds a lease. Waiting actions are in the queue in Redis. The number of tries is
kept only here, so a worker that takes over starts counting anew. An action leaves the queue when it is delivered or
given up. Actions of one entity keep their order: those after one that waits for another try wait too.
"""

from __future__ import annotations

import logging
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import orjson

from rules_engine.clock import format_duration, format_instant, now_micros
from rules_engine.delivery.circuit import Breaker, Circuit, backoff
from rules_engine.delivery.queues import FIELD, MAX_UNDELIVERED, lease_key, queue_key, undelivered_key
from rules_engine.errors import SegmentsError
from rules_engine.sinks.base import Outcome, Sink, Verdict, open_sink
from rules_engine.sinks.settings import SinkSettings
from rules_engine.triggers.actions import Action

if TYPE_CHECKING:
    from rules_engine.delivery.metrics import MetricsRegistry

#: The number of actions that are sent at once.
BATCH = 100

#: The number of actions in memory, including those that wait for another try.
WINDOW = 1_000

#: Seconds after which another worker takes over from a dead one.
LEASE = 10.0

#: The longest time between two tries of one action, in seconds.
LONGEST_PAUSE = 300.0

#: KEYS: the lease. ARGV: the token, milliseconds.
_HOLD = """\
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1"""

_RELEASE = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"

#: KEYS: the queue, the undelivered actions. ARGV: the most undelivered actions to keep, and for each finished action
#: its id in the queue, and its content and the reason if it is given up, else two empty strings. It needs no lease:
#: these actions are finished, even if another worker serves the sink by now.
_SETTLE = """\
for i = 2, #ARGV, 3 do
  if redis.call('XDEL', KEYS[1], ARGV[i]) == 1 and ARGV[i + 2] ~= '' then
    redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[1], '*', 'action', ARGV[i + 1], 'reason', ARGV[i + 2])
  end
end"""

_log = logging.getLogger("rules_engine.delivery")


@dataclass(slots=True)
class _Waiting:
    """An action of the window. ``next_try`` is an instant of the courier's clock."""

    identity: bytes
    raw: bytes
    action: Action
    tries: int = 0
    next_try: float = -float("inf")
    last: Outcome | None = None

    @property
    def queued_at(self) -> int:
        return int(self.identity.partition(b"-")[0]) * 1000


class Courier:
    """Serves one sink.

    Parameters
    ----------
    client
        a redis-py client that threads may share.
    project
        Feast's project name.
    settings
        the sink, as the project's definitions describe it.
    root
        the project's folder.
    metrics
        the metrics to update.
    """

    def __init__(
        self,
        client: Any,
        project: str,
        settings: SinkSettings,
        root: Path,
        metrics: MetricsRegistry | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings
        self.name = str(settings)
        self.breaker = Breaker()
        #: How often there was nothing to do, and the longest wait in that case.
        self.idle, self.wait_milliseconds = 0, 500
        self._client, self._project, self._root = client, project, root
        self._metrics, self._clock = metrics, clock
        self._queue = queue_key(project, self.name)
        self._lease, self._undelivered = lease_key(project, settings.name), undelivered_key(project)
        self._token = uuid4().hex.encode()
        self._held_until = -float("inf")
        self._window: dict[bytes, _Waiting] = {}
        self._last = b"0-0"
        self._done: list[tuple[_Waiting, Outcome | None]] = []
        self._sink: Sink | None = None
        self._is_failing = False
        self._stopping = threading.Event()

    # --- the lease --------------------------------------------------------------------------------------------------

    def hold(self) -> bool:
        """Take or renew the lease. Call it well before the lease ends, from any thread."""
        before = self._clock()
        if self._client.eval(_HOLD, 1, self._lease, self._token, int(LEASE * 1000)):
            self._held_until = before + LEASE * 0.8
            return True
        self._held_until = -float("inf")
        return False

    @property
    def is_holding(self) -> bool:
        """Say whether this courier serves the sink."""
        return self._clock() < self._held_until

    def release(self) -> None:
        """Let another worker serve the sink at once."""
        self._held_until = -float("inf")
        self._client.eval(_RELEASE, 1, self._lease, self._token)

    # --- the loop ---------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """End after the batch that is being sent."""
        self._stopping.set()
        sink = self._sink
        if sink is not None:
            sink.hurry()

    def run(self) -> None:
        """Serve the sink until :meth:`stop`."""
        from redis.exceptions import RedisError

        pause = 0.1
        while not self._stopping.is_set():
            try:
                worked = self.step()
                pause = 0.1
                if not worked:
                    self.idle += 1
                    self._wait()
            except RedisError as error:
                _log.warning("delivery waits for the store: %s", type(error).__name__, extra={"sink": self.name})
                self._stopping.wait(pause)
                pause = min(5.0, pause * 2)
        self.close()

    def close(self) -> None:
        """Close the sink."""
        if self._sink is not None:
            self._sink.close()
            self._sink = None

    def step(self) -> int:
        """Send one batch of due actions. Return how many actions were tried or finished."""
        if not self.is_holding:
            self._settle()
            self._forget()
            if not self.hold():
                return 0
        self._fill()
        state = self.breaker.state(self._clock())
        batch = [] if state is Circuit.OPEN else self._due(1 if state is Circuit.HALF_OPEN else BATCH)
        if batch:
            self._take_in(batch, self._send(batch))
        if self._metrics is not None:
            self._metrics.circuit(self.name, self.breaker.state(self._clock()).value)
        self._give_up_old()
        return len(batch) + self._settle()

    def waiting(self) -> int:
        """Return how many actions the queue holds."""
        return int(self._client.xlen(self._queue))

    def _wait(self) -> None:
        """Wait until an action may be due or comes, half a second at most."""
        if not self.is_holding:
            self._stopping.wait(self.wait_milliseconds / 1000)
            return
        now = self._clock()
        until = min((entry.next_try for entry in self._window.values() if entry.next_try > now), default=float("inf"))
        if self.breaker.state(now) is Circuit.OPEN or len(self._window) >= WINDOW:
            self._stopping.wait(max(0.005, min(self.wait_milliseconds / 1000, max(until, self.breaker.until) - now)))
            return
        milliseconds = max(1, min(self.wait_milliseconds, int(min(until - now, 1.0) * 1000) + 1))
        self._client.xread({self._queue: self._last}, count=1, block=milliseconds)

    # --- what waits -------------------------------------------------------------------------------------------------

    def _forget(self) -> None:
        """Empty the window: another worker may have served the sink."""
        self._window.clear()
        self._last = b"0-0"

    def _fill(self) -> None:
        free = WINDOW - len(self._window)
        if free <= 0:
            return
        for identity, fields in self._client.xrange(self._queue, b"(" + self._last, "+", count=min(free, BATCH)):
            self._last = identity
            raw = fields.get(FIELD, b"")
            try:
                self._window[identity] = _Waiting(identity, raw, Action.decode(raw))
            except ValueError as error:
                unreadable = _Waiting(identity, raw, _NOTHING)
                self._done.append((unreadable, Outcome(Verdict.REFUSED, "invalid-action", str(error))))

    def _due(self, limit: int) -> list[_Waiting]:
        """Return the actions that may be sent now, in the order of the queue; if only one may, the least tried one."""
        now = self._clock()
        behind: set[str] = set()
        due: list[_Waiting] = []
        for entry in self._window.values():
            if entry.action.entity in behind:
                continue
            if entry.next_try > now:
                behind.add(entry.action.entity)
                continue
            due.append(entry)
            if limit == 1:
                behind.add(entry.action.entity)
            elif len(due) >= limit:
                break
        return due if limit > 1 else sorted(due, key=lambda entry: entry.tries)[:1]

    # --- what becomes of it -----------------------------------------------------------------------------------------

    def _send(self, batch: Sequence[_Waiting]) -> Sequence[Outcome]:
        started = time.perf_counter()
        try:
            if self._sink is None:
                self._sink = open_sink(self.settings, self._root)
            outcomes = self._sink.send([entry.action for entry in batch])
        except SegmentsError as error:
            outcomes = [Outcome(Verdict.RETRY, "unusable", str(error), is_sick=True)] * len(batch)
        except Exception as error:  # noqa: BLE001 - a flaw in one sink must not end the delivery of the others
            if len(batch) > 1:  # and one action must not end the delivery of the others
                return [outcome for entry in batch for outcome in self._send([entry])]
            # Without the exception's text, which may hold what was sent or a secret.
            _log.error("the sink failed in a way that it should not: %s", _raised(error), extra={"sink": self.name})
            outcomes = [Outcome(Verdict.RETRY, "broken", type(error).__name__, is_sick=True)] * len(batch)
        if self._metrics is not None:
            self._metrics.sent(self.name, time.perf_counter() - started, [outcome.code for outcome in outcomes])
        return [
            replace(outcome, message=self.settings.scrubbed(outcome.message)) if outcome.message else outcome
            for outcome in outcomes
        ]

    def _take_in(self, batch: Sequence[_Waiting], outcomes: Sequence[Outcome]) -> None:
        now = self._clock()
        for entry, outcome in zip(batch, outcomes, strict=True):
            if outcome.verdict is not Verdict.RETRY:
                self._end(entry, None if outcome.verdict is Verdict.DELIVERED else outcome)
            elif outcome.code != "behind":
                entry.tries += 1
                entry.last = outcome
                entry.next_try = now + max(backoff(entry.tries, longest=LONGEST_PAUSE), outcome.retry_after or 0.0)
        sick = [outcome for outcome in outcomes if outcome.is_sick]
        works = sum(outcome.verdict is not Verdict.RETRY for outcome in outcomes)
        waits = [outcome.retry_after for outcome in sick if outcome.retry_after is not None]
        self.breaker.note(worked=works, failed=len(sick), now=now, retry_after=max(waits, default=None))
        if works and self._is_failing:
            _log.info("the sink works again", extra={"sink": self.name})
        elif sick and not works and not self._is_failing:
            _log.warning("the sink does not work: %s", sick[-1].message, extra={"sink": self.name})
        self._is_failing = bool(sick) and not works

    def _give_up_old(self) -> None:
        """Give up actions that were tried but not delivered within the time in the settings."""
        limit = now_micros() - self.settings.give_up_after
        for entry in [entry for entry in self._window.values() if entry.tries and entry.queued_at <= limit]:
            last = entry.last.message if entry.last else ""
            message = f"not delivered within {format_duration(self.settings.give_up_after)}; at last: {last}"
            self._end(entry, Outcome(Verdict.REFUSED, "gave-up", message))

    def _end(self, entry: _Waiting, given_up: Outcome | None) -> None:
        del self._window[entry.identity]
        self._done.append((entry, given_up))

    def _settle(self) -> int:
        """Remove finished actions from the queue; if the store fails, they are removed the next time."""
        if not self._done:
            return 0
        arguments: list[bytes | str | int] = [MAX_UNDELIVERED]
        for entry, given_up in self._done:
            arguments += [entry.identity, *((b"", b"") if given_up is None else (entry.raw, _reason(entry, given_up)))]
        self._client.eval(_SETTLE, 2, self._queue, self._undelivered, *arguments)
        done, self._done = self._done, []
        if self._metrics is not None:
            self._metrics.settled(self.name, _counts(given_up for _, given_up in done))
        return len(done)


_NOTHING = Action("", "", "", "", "", 0)


def _raised(error: Exception) -> str:
    """Return the class of an exception and where it was raised, without its text."""
    places = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)]
    return f"{type(error).__name__} at {', '.join(places)}"


def _reason(entry: _Waiting, outcome: Outcome) -> bytes:
    return orjson.dumps(
        {
            "code": outcome.code,
            "message": outcome.message,
            "tries": entry.tries + (outcome.code != "gave-up"),
            "queued_at": format_instant(entry.queued_at),
            "given_up_at": format_instant(now_micros()),
        }
    )


def _counts(given_up: Iterable[Outcome | None]) -> tuple[int, int]:
    """Return the numbers of delivered actions and of those given up."""
    ends = [outcome is None for outcome in given_up]
    return sum(ends), len(ends) - sum(ends)
