"""Logs on disk: folders of Parquet files. Writers add whole files; compaction merges many small files into one.

A file appears whole or not at all, and its name begins with the time at which it was stored. A row may be stored twice;
readers and compaction keep the first. Compaction merges only the newest files of about the same size, so each row is
rewritten a few times at most, however many rows come; large files are left alone, so that it needs little memory.

A process that is killed while it writes leaves an unfinished file, whose name begins with a dot; readers ignore those.
Writers delete unfinished files a few times a day, but only those that are some hours old: another process may still be
writing a younger one.
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

#: A folder with so many small files is compacted.
MANY_FILES = 64

#: The most bytes that are merged into one file.
LARGE = 32 << 20

#: Files are of about the same size if they have at most this many bytes, or are at most so many times the mean size.
_SMALL, _ABOUT = 256 << 10, 4

_TRIES = 20

#: An unfinished file this old, in seconds, was left by a killed process. Writers look for such files this often.
_ABANDONED = 6 * 3600


def add_file(folder: Path, table: pa.Table, stored_at: int) -> None:
    """Add a file to a folder. It is on disk when this returns.

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
    folder: Path, stored_from: int | None = None, skip: Collection[Path] = (), **options: Any
) -> list[pa.Table]:
    """Read the tables of a folder at one moment: if a file disappears meanwhile, all are read anew.

    Parameters
    ----------
    stored_from
        only files that were stored from this instant on, in microseconds.
    skip
        files that are not read.
    options
        for ``pyarrow.parquet.read_table``, such as ``columns`` and ``filters``.
    """
    for _ in range(_TRIES):
        files = [file for file in files_of(folder) if stored_from is None or stored_at(file) >= stored_from]
        files = [file for file in files if file not in skip]
        with contextlib.suppress(FileNotFoundError):
            return [pq.read_table(file, partitioning=None, **options) for file in files]
    raise FileNotFoundError(f"files in {folder} keep disappearing")


def compact(folder: Path, lock: Path, keys: Sequence[str]) -> None:
    """Merge a folder's newest files into one if there are many, unless another process is compacting the log.

    A few times a day it also deletes the unfinished files that killed processes left in the whole log.

    Parameters
    ----------
    lock
        a file in the log's own folder, which is locked meanwhile; its modification time is that of the last clearing.
    keys
        the columns that identify a row; of rows with equal keys the first is kept.
    """
    is_to_clear = _is_to_clear(lock)
    if not is_to_clear and len(_newest(folder)) < MANY_FILES:
        return
    with lock.open("a") as lock_file:
        try:
            fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        if is_to_clear:
            os.utime(lock_file.fileno())
            _clear(lock.parent)
        _merge(folder, keys)


def _merge(folder: Path, keys: Sequence[str]) -> None:
    files = _newest(folder)
    if len(files) < MANY_FILES:
        return
    merged = pa.concat_tables([pq.read_table(file, partitioning=None) for file in files])
    seen: set[tuple[Any, ...]] = set()
    rows = zip(*(merged[key].to_pylist() for key in keys), strict=True)
    fresh = [not (row in seen or seen.add(row)) for row in rows]  # type: ignore[func-returns-value]
    # Named like the last of them, so that readers of what was stored from then on find all of it.
    add_file(folder, merged.filter(pa.array(fresh, pa.bool_())), stored_at(files[-1]))
    for file in files:
        file.unlink()


def _is_to_clear(lock: Path) -> bool:
    try:
        return _is_abandoned(lock)
    except FileNotFoundError:
        return True


def _clear(log: Path) -> None:
    """Delete the abandoned unfinished files of a log."""
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
        except FileNotFoundError:  # another process merged the files
            return []
        is_large = number > 0 and size > max(_SMALL, _ABOUT * total // number)
        if is_large or total + size > LARGE:
            return files[len(files) - number :]
        total += size
    return files
