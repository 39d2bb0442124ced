"""Writes rows into Redis or Valkey: many at a time, a bounded amount under way, and never an older over a newer one.

It is our own because Feast's writer and redis-py handle values and commands one at a time in Python, which takes ten
times as long as the server does (docs/adr/0006-bulk-writer.md has the figures).

There are three ways. Users whom the store does not know are put in place whole (``bulk_restore``), until a piece has
many whom it knows. Rows of known users are written under watch (``bulk_watch``); few of them, and those that were
refused there, by a script on the server (``bulk_script``), which compares and writes as one step. In all of them no
other writer comes between, no reader sees half a row, and a writer that dies leaves whole rows only. A row as old as
the stored one is written again, so that corrections and added features arrive.

A cluster has no watch: a transaction there has the keys of one slot, and a slot has few rows of a piece.

While the server works on one piece, the next is being made. Sending a piece twice changes nothing, so a lost connection
or a server that came back without its scripts is met by sending the piece again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import redis
from redis.exceptions import NoScriptError

from rules_engine.features.writing.ragged import Ragged
from rules_engine.features.writing.restore import NotRestoredError, restores, write_new
from rules_engine.features.writing.rows import BulkRows
from rules_engine.features.writing.script import write_scripted
from rules_engine.features.writing.watch import write_watched
from rules_engine.features.writing.wire import MOVED

#: Pieces of fewer rows are written by the script: one round trip.
_FEW = 20

#: Users are taken for new until more than one of so many of a piece is known.
_ONE_KNOWN_OF = 10

#: A piece is sent again after these pauses, in seconds, before a failure is passed on; and not if the first tries took
#: so long already, as redis-py tries to connect for some seconds too.
_PAUSES = (0.1, 0.5, 2.0)
_PATIENCE = 5.0

#: Failures that pass: no connection, a script that is not there any more, keys that moved to another node.
_LOST = (redis.ConnectionError, ConnectionError, NoScriptError, *MOVED)


class BulkWriter:
    """Writes rows through a client's connections.

    Parameters
    ----------
    client
        of a server, of a cluster, or of the master that sentinels name.
    key_ttl
        seconds after which a written user expires, as ``key_ttl_seconds`` in ``feature_store.yaml``; None is never.
    """

    def __init__(self, client: Any, key_ttl: int | None = None) -> None:
        self._client = client
        self._key_ttl = key_ttl or 0
        self._cluster = isinstance(client, redis.RedisCluster)
        #: Whether users are taken for new.
        self._restores = True

    def write(self, pieces: Iterable[BulkRows], progress: Callable[[int], Any] | None = None) -> int:
        """Write rows, piece after piece; return how many of them the store took (it leaves out older ones).

        Two pieces are in memory at once: the one that the server works on, and the one that is being made.

        Parameters
        ----------
        progress
            called with the number of rows of each piece, once the server is done with it.

        Raises
        ------
        redis.RedisError
            if the server cannot be reached, or refuses.
        """
        written = 0
        with ThreadPoolExecutor(1, "bulk-writer") as sender:
            under_way: tuple[int, Future[int]] | None = None
            for piece in pieces:
                following = len(piece), sender.submit(self._send, piece, self._commands_of_new(piece))
                written += _finish(under_way, progress)
                under_way = following
            written += _finish(under_way, progress)
        return written

    def _commands_of_new(self, piece: BulkRows) -> Ragged | None:
        """Make the commands that write new entities whole, while the server works on the piece before."""
        commands = restores(piece, self._key_ttl) if self._restores and len(piece) >= _FEW else None
        if commands is None:
            _ = piece.commands  # it keeps them
        return commands

    def _send(self, piece: BulkRows, new: Ragged | None) -> int:
        until = time.monotonic() + _PATIENCE
        for pause in _PAUSES:
            try:
                return self._send_once(piece, new)
            except _LOST as error:
                if isinstance(error, redis.AuthenticationError) or time.monotonic() > until:
                    raise
                time.sleep(pause)
                if self._cluster:
                    self._client.nodes_manager.initialize()
        return self._send_once(piece, new)

    def _send_once(self, piece: BulkRows, new: Ragged | None) -> int:
        if new is not None and self._restores:
            known_rows = self._restored(piece, new)
            if self._restores:
                return len(piece) - len(known_rows) + self._scripted(piece, known_rows)
        if self._cluster or not piece.distinct or len(piece) < _FEW:
            return self._scripted(piece, range(len(piece)))
        written, refused = write_watched(self._client.connection_pool, piece, self._key_ttl)
        return written + self._scripted(piece, [row for chunk in refused for row in range(*chunk)])

    def _restored(self, piece: BulkRows, commands: Ragged) -> list[int]:
        """Put users in place whom the store does not know; return the rows of the others."""
        known_rows: list[int] = []
        try:
            for pool, rows in self._by_node(piece, range(len(piece))):
                known_rows += write_new(pool, commands, rows)
        except NotRestoredError:
            self._restores = False
        if len(known_rows) > len(piece) // _ONE_KNOWN_OF:
            self._restores = False
        return sorted(known_rows)

    def _scripted(self, piece: BulkRows, rows: Sequence[int]) -> int:
        written = 0
        for pool, rows_of_node in self._by_node(piece, rows):
            written += write_scripted(pool, piece, rows_of_node, self._key_ttl, one_by_one=self._cluster)
        return written

    def _by_node(self, piece: BulkRows, rows: Sequence[int]) -> list[tuple[Any, Sequence[int]]]:
        """Return the rows by the node that has their keys, as connections to it."""
        if not rows:
            return []
        if not self._cluster:
            return [(self._client.connection_pool, rows)]
        by_node: dict[str, tuple[Any, list[int]]] = {}
        for row in rows:
            key = piece.keys.row(row).partition(b"\r\n")[2][:-2]
            node = self._client.nodes_manager.get_node_from_slot(self._client.keyslot(key))
            pool = self._client.get_redis_connection(node).connection_pool
            by_node.setdefault(node.name, (pool, []))[1].append(row)
        return list(by_node.values())


def _finish(under_way: tuple[int, Future[int]] | None, progress: Callable[[int], Any] | None) -> int:
    if under_way is None:
        return 0
    rows, sent = under_way
    written = sent.result()
    if progress is not None:
        progress(rows)
    return written
