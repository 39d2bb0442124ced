"""Leases of partitions, which workers renew, share evenly, and lose within seconds if they die.

A worker sends a heartbeat every half second. It is one script on the server, whose clock counts: it notes that the
worker is alive, removes those without a heartbeat for :data:`LIFETIME`, and gives the worker free partitions up to its
fair share. A worker with more than its share gives some back after its present round. Each lease is a new token, and
scripts that write for a whole partition compare it, so a worker that was asleep and lost its lease changes nothing.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from uuid import uuid4

from rules_engine.errors import StoreError
from rules_engine.events.streams import PARTITIONS
from rules_engine.redis.feast_layout import project_key
from rules_engine.redis.pipe import Pipe, Script

#: Seconds without a heartbeat after which a worker loses its partitions, and seconds between two heartbeats.
LIFETIME, BEAT = 3.0, 0.5

#: KEYS: workers by their last heartbeat, leases by partition, the states that workers use. ARGV: the worker, its
#: lifetime in milliseconds, the number of partitions, the states that it uses, then the partitions that it gives back.
#: A lease is WORKER/NUMBER. Returns the fair share, then partition and lease for each partition of the worker.
_BEAT = Script("""\
local me, lifetime, count = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for _, dead in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now - lifetime)) do
  redis.call('ZREM', KEYS[1], dead)
  redis.call('HDEL', KEYS[3], dead)
end
redis.call('ZADD', KEYS[1], now, me)
redis.call('HSET', KEYS[3], me, ARGV[4])
local alive = redis.call('ZRANGE', KEYS[1], 0, -1)
table.sort(alive)
local is_alive, rank = {}, 0
for place, name in ipairs(alive) do
  is_alive[name] = true
  if name == me then rank = place end
end
local share = math.floor(count / #alive)
if rank <= count % #alive then share = share + 1 end
local back, leases, mine, free = {}, {}, {share}, {}
for i = 5, #ARGV do back[ARGV[i]] = true end
local owned = 0
for partition = 0, count - 1 do
  local lease = redis.call('HGET', KEYS[2], partition)
  local owner = lease and string.match(lease, '^(.*)/')
  if owner == me and not back[tostring(partition)] then
    owned = owned + 1
    mine[#mine + 1] = partition
    mine[#mine + 1] = lease
  elseif not owner or owner == me or not is_alive[owner] then
    if lease and owner == me then redis.call('HDEL', KEYS[2], partition) end
    free[#free + 1] = partition
  end
end
for _, partition in ipairs(free) do
  if owned < share and not back[tostring(partition)] then
    local lease = me .. '/' .. redis.call('HINCRBY', KEYS[2], 'number', 1)
    redis.call('HSET', KEYS[2], partition, lease)
    owned = owned + 1
    mine[#mine + 1] = partition
    mine[#mine + 1] = lease
  end
end
return mine""")

#: KEYS and ARGV[1] as above; ARGV[2]: the number of partitions. Removes the worker and frees its partitions.
_LEAVE = Script("""\
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[3], ARGV[1])
for partition = 0, tonumber(ARGV[2]) - 1 do
  local lease = redis.call('HGET', KEYS[2], partition)
  if lease and string.match(lease, '^(.*)/') == ARGV[1] then redis.call('HDEL', KEYS[2], partition) end
end""")

_log = logging.getLogger("rules_engine.worker")


def leases_key(project: str) -> bytes:
    """Return the key of the hash of leases by partition."""
    return project_key(project, "leases")


def workers_key(project: str) -> bytes:
    """Return the key of the sorted set of workers by their last heartbeat, in milliseconds."""
    return project_key(project, "workers")


def using_key(project: str) -> bytes:
    """Return the key of a hash with the name of the event states that each worker uses."""
    return project_key(project, "using")


class Leases:
    """The partitions of one worker. A thread renews them; the worker's own thread works on them.

    Parameters
    ----------
    open_pipe
        opens a connection for the thread.
    project
        the name of Feast's project.

    Attributes
    ----------
    name
        of the worker.
    using
        the name of the event states that the worker uses; others see it from the next heartbeat on.
    """

    def __init__(self, open_pipe: Callable[[], Pipe], project: str) -> None:
        self.name = f"{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:8]}"
        self.using = b""
        self._open_pipe = open_pipe
        self._pipe: Pipe | None = None
        self._keys = workers_key(project), leases_key(project), using_key(project)
        self._leases: dict[int, bytes] = {}
        self._until = 0.0
        self._share = PARTITIONS
        self._back: set[int] = set()
        self._lock = threading.Lock()
        self._beating = threading.Lock()  # one heartbeat at a time: a late answer would be out of date
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def is_started(self) -> bool:
        """Say whether the thread renews the leases."""
        return self._thread is not None

    def partitions(self) -> Mapping[int, bytes]:
        """Return the worker's present partitions with their leases; none if its last heartbeat is too long ago."""
        with self._lock:
            return dict(self._leases) if time.monotonic() < self._until else {}

    def give_back_surplus(self) -> None:
        """Give back the partitions beyond the fair share. Call it between rounds."""
        with self._lock:
            surplus = sorted(self._leases)[self._share :]
            self._back.update(surplus)
            for partition in surplus:
                del self._leases[partition]
        if surplus:
            self.beat()

    def beat(self) -> None:
        """Send a heartbeat: renew the leases, and take free partitions.

        Raises
        ------
        StoreError
            if the store cannot be used.
        """
        with self._beating:
            began = time.monotonic()
            back = sorted(self._back)
            if self._pipe is None:
                self._pipe = self._open_pipe()
            arguments = [self.name, int(LIFETIME * 1000), PARTITIONS, self.using, *back]
            ((share, *pairs),) = self._pipe.run([self._pipe.call(_BEAT, self._keys, arguments)], [_BEAT])
            with self._lock:
                self._back.difference_update(back)
                self._share = int(share)
                leases = dict(zip(map(int, pairs[::2]), pairs[1::2], strict=True))
                self._leases = {partition: lease for partition, lease in leases.items() if partition not in self._back}
                self._until = began + LIFETIME

    def start(self) -> None:
        """Send heartbeats in a thread from now on."""
        self._thread = threading.Thread(target=self._run, name="leases", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._ended.wait(BEAT):
            try:
                self.beat()
            except StoreError as error:
                _log.debug("the leases could not be renewed: %s", error)

    def leave(self) -> None:
        """Free all partitions for the other workers at once.

        Raises
        ------
        StoreError
            if the store cannot be used; the partitions are then free when the leases expire.
        """
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        with self._lock:
            self._leases = {}
            pipe, self._pipe = self._pipe, None
        if pipe is not None:
            try:
                pipe.run([pipe.call(_LEAVE, self._keys, [self.name, PARTITIONS])], [_LEAVE])
            finally:
                pipe.close()
