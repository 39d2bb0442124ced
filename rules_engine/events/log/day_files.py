"""Logs on disk: folders of Parquet files, to which whole files are added, and of which many small ones are made one.

A file appears whole or not at all, and is named by the time at which it was stored. What was stored twice may lie
there twice: readers take the first, and so does making one file of many. Only files of about one size are made one, the
newest ones, so a row is written again a few times only, however many come; and large ones are left alone, so that it
takes little memory.

A process that is killed while it writes leaves a file behind whose name begins with a dot. Readers never see those.
Whoever adds to a log clears away all of them that are older than some hours, a few times a day: a younger one may be
one that somebody is writing.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq

from rules_engine.files import entries

SUFFIX = ".parquet"

#: So many small files of one folder are made one.
MANY_FILES = 64

#: No more than so many bytes are made one file.
LARGE = 32 << 20

#: Files up to this size are all about one size; beyond it those that are not so many times larger than the others.
_SMALL, _ABOUT = 256 << 10, 4

_TRIES = 20

#: After so many seconds a file that is not finished is one that a kill left behind; and so often it is looked for them.
_ABANDONED = 6 * 3600


def add_file(folder: Path, table: pa.Table, stored_at: int) -> None:
    """Add a file to a folder. When it returns it is on disk.

    Parameters
    ----------
    stored_at
        the time now, in microseconds.
    """
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{stored_at:020d}-{uuid4().hex[:8]}{SUFFIX}"
    temporary = folder / f".{name}"
    try:
        with temporary.open("wb") as file:
            pq.write_table(table, file, compression="zstd")
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(folder / name)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def files_of(folder: Path) -> list[Path]:
    """Return the files in the order in which they were stored."""
    return entries(folder, f"[!.]*{SUFFIX}")


def stored_at(file: Path) -> int:
    """Return when a file was stored, in microseconds."""
    return int(file.name.partition("-")[0])


def stable_tables(
    folder: Path, since: int | None = None, known: Collection[Path] = (), **options: Any
) -> list[pa.Table]:
    """Read the tables of a folder at one moment: if a file is taken away meanwhile, all are read anew.

    Parameters
    ----------
    since
        only what was stored from then on.
    known
        files that are not wanted.
    options
        for ``pyarrow.parquet.read_table``, such as ``columns`` and ``filters``.
    """
    for _ in range(_TRIES):
        files = [file for file in files_of(folder) if since is None or stored_at(file) >= since]
        files = [file for file in files if file not in known]
        with contextlib.suppress(FileNotFoundError):
            return [pq.read_table(file, partitioning=None, **options) for file in files]
    raise FileNotFoundError(f"files in {folder} keep disappearing")


def compact(folder: Path, lock: Path, keys: Sequence[str]) -> None:
    """Make one file of a folder's newest files if there are many, unless another process is at it.

    A few times a day it also clears the whole log of what killed processes left half written.

    Parameters
    ----------
    lock
        a file in the log's own folder, which is locked meanwhile; its time is when the log was last cleared.
    keys
        the columns that tell a row from others; of equal ones the first stays.
    """
    is_to_clear = _is_to_clear(lock)
    if not is_to_clear and len(_newest(folder)) < MANY_FILES:
        return
    with lock.open("a") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        if is_to_clear:
            os.utime(held.fileno())
            _clear(lock.parent)
        _make_one(folder, keys)


def _make_one(folder: Path, keys: Sequence[str]) -> None:
    files = _newest(folder)
    if len(files) < MANY_FILES:
        return
    merged = pa.concat_tables([pq.read_table(file, partitioning=None) for file in files])
    seen: set[tuple[Any, ...]] = set()
    rows = zip(*(merged[key].to_pylist() for key in keys), strict=True)
    fresh = [not (row in seen or seen.add(row)) for row in rows]  # type: ignore[func-returns-value]
    # Named as the last of them: who reads what was stored since then finds all of it.
    add_file(folder, merged.filter(pa.array(fresh, pa.bool_())), stored_at(files[-1]))
    for file in files:
        file.unlink()


def _is_to_clear(lock: Path) -> bool:
    try:
        return _is_abandoned(lock)
    except FileNotFoundError:
        return True


def _clear(log: Path) -> None:
    """Take away the unfinished files of a log that nobody writes any more."""
    for file in log.rglob(f".*{SUFFIX}"):
        with contextlib.suppress(FileNotFoundError):  # it was finished meanwhile
            if _is_abandoned(file):
                file.unlink()


def _is_abandoned(file: Path) -> bool:
    return time.time() - file.stat().st_mtime > _ABANDONED


def _newest(folder: Path) -> list[Path]:
    """Return the newest files of about one size, in the order of storing; none if there are few files."""
    files = files_of(folder)
    if len(files) < MANY_FILES:
        return []
    total = 0
    for number, file in enumerate(reversed(files)):
        try:
            size = file.stat().st_size
        except FileNotFoundError:  # another process made one of many
            return []
        is_large = number > 0 and size > max(_SMALL, _ABOUT * total // number)
        if is_large or total + size > LARGE:
            return files[len(files) - number :]
        total += size
    return files
