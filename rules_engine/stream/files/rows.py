"""Reads the rows of files: JSON lines, CSV and Parquet, compressed or not. A bad row does not affect the others."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO, cast

import orjson

from rules_engine.errors import DataError
from rules_engine.events.declarations.validation import Rejection
from rules_engine.stream.files.parquet import parquet_columns, parquet_rows

#: The most bytes of a line in a text file. An event is much smaller.
MAX_LINE = 1 << 20

#: The most bytes that are kept of a refused row.
KEPT = 10_000

#: The number of rows of a file without a header that are read to learn its columns.
LOOKED_AT = 100

_TEXTS = (".jsonl", ".ndjson", ".csv", ".tsv")
_PACKED = (".gz", ".zst")

#: The accepted endings of file names, for messages.
FORMATS = ".jsonl, .ndjson, .csv, .tsv (also with .gz or .zst behind it) or .parquet"

_SEPARATORS = ",;\t|"


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be read: its bytes, as far as they are known, and the reason."""

    raw: bytes
    rejection: Rejection


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of a file.

    Attributes
    ----------
    columns
        the names of its columns; of JSON lines, those of the first rows.
    rows
        the values of each row, by column.
    is_text
        whether values are texts only, as in CSV.
    has_header
        whether ``columns`` are all that there are.
    """

    columns: tuple[str, ...]
    rows: Iterator[dict[str, Any] | BadRow]
    is_text: bool = False
    has_header: bool = True


@contextlib.contextmanager
def open_rows(path: Path, separator: str | None = None) -> Iterator[Rows]:
    """Open a file, as the format that its name says.

    Parameters
    ----------
    separator
        the separator of columns in a CSV file; by default a tab in ``.tsv`` and a comma elsewhere.

    Raises
    ------
    DataError
        if the file cannot be read, or its format is unknown.
    """
    kind, packing = kind_of(path)
    try:
        if kind == ".parquet":
            yield Rows(parquet_columns(path), _parquet(path))
        else:
            with _opened(path, packing) as file:
                if kind in (".csv", ".tsv"):
                    yield _csv(path, file, separator or ("\t" if kind == ".tsv" else ","))
                else:
                    yield _json_lines(path, file)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"cannot read {path}: {error}", hint="is the file whole?") from error


def kind_of(path: Path) -> tuple[str, str]:
    """Return the format and the compression of a file, by the end of its name.

    >>> kind_of(Path("A.CSV.GZ"))
    ('.csv', '.gz')
    """
    name = path.name.lower()
    packing = next((ending for ending in _PACKED if name.endswith(ending)), "")
    kind = Path(name.removesuffix(packing)).suffix
    if kind in _TEXTS or (kind == ".parquet" and not packing):
        return kind, packing
    raise DataError(f"{path} is no file of events", hint=f"its name may end in {FORMATS}")


def other_separator(line: str, columns: Sequence[str]) -> str | None:
    """Return the separator with which a header has these columns; None if no usual one does.

    >>> other_separator("entity;event;at", ["entity", "at"])
    ';'
    """
    for separator in _SEPARATORS:
        if {part.strip(' "') for part in line.split(separator)} >= set(columns):
            return separator
    return None


@contextlib.contextmanager
def _opened(path: Path, packing: str) -> Iterator[BinaryIO]:
    if packing == ".gz":
        with gzip.open(path) as file:
            yield cast("BinaryIO", file)
    elif packing == ".zst":
        import pyarrow as pa

        with path.open("rb"):  # raises the same error for a missing file as the other formats do
            pass
        with pa.input_stream(str(path), compression="zstd") as stream:
            yield cast("BinaryIO", io.BufferedReader(stream))
    else:
        with path.open("rb") as file:
            yield file


def _lines(file: BinaryIO) -> Iterator[tuple[bytes, bool]]:
    """Yield each line, and whether it was too long and was cut off."""
    first = True
    while line := file.readline(MAX_LINE):
        is_cut = len(line) == MAX_LINE and not line.endswith(b"\n")
        rest = line if is_cut else b"\n"
        while is_cut and rest and not rest.endswith(b"\n"):
            rest = file.readline(MAX_LINE)
        if first:
            line, first = line.removeprefix(b"\xef\xbb\xbf"), False
        yield line, is_cut


def _too_long(raw: bytes) -> BadRow:
    return BadRow(raw[:KEPT], Rejection("event-too-large", f"a line has at most {MAX_LINE:,} bytes"))


# --- JSON lines -----------------------------------------------------------------------------------------------------


def _json_lines(path: Path, file: BinaryIO) -> Rows:
    rows = _json_rows(path, file)
    ahead = list(islice(rows, LOOKED_AT))
    columns = dict.fromkeys(name for row in ahead if isinstance(row, dict) for name in row)
    return Rows(tuple(columns), chain(ahead, rows), has_header=False)


def _json_rows(path: Path, file: BinaryIO) -> Iterator[dict[str, Any] | BadRow]:
    is_first = True
    for line, is_cut in _lines(file):
        text = line.strip()
        if not text:
            continue
        if is_first:
            _check_lines(path, text)
            is_first = False
        yield _too_long(text) if is_cut else _json_row(text)


def _check_lines(path: Path, first: bytes) -> None:
    if first[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise DataError(f"{path} is UTF-16", hint="save it as UTF-8")
    if first in (b"{", b"[") or first.startswith(b"[{"):
        raise DataError(f"{path} has not one object in each line", hint="write JSON lines, e.g. with `jq -c '.[]'`")


def _json_row(text: bytes) -> dict[str, Any] | BadRow:
    try:
        row = orjson.loads(text)
    except ValueError as error:
        return BadRow(text[:KEPT], Rejection("invalid-event", f"the line is no JSON: {error}"))
    if not isinstance(row, dict):
        return BadRow(text[:KEPT], Rejection("invalid-event", "an event is an object of JSON"))
    return row


# --- CSV ------------------------------------------------------------------------------------------------------------


class _Texts:
    """The lines of a CSV file as texts. Bytes that are not UTF-8 become surrogates, and are reported row by row."""

    def __init__(self, file: BinaryIO) -> None:
        self._lines = _lines(file)
        self.is_cut = False

    def __iter__(self) -> _Texts:
        return self

    def __next__(self) -> str:
        line, is_cut = next(self._lines)
        self.is_cut = self.is_cut or is_cut
        return line.decode("utf-8", "surrogateescape")


def _csv(path: Path, file: BinaryIO, separator: str) -> Rows:
    lines = _Texts(file)
    reader = csv.reader(lines, delimiter=separator)
    try:
        header = next(reader, [])
    except csv.Error as error:
        raise DataError(f"cannot read the first line of {path}: {error}") from error
    if header and header[0][:1] in ("\udcff", "\udcfe"):
        raise DataError(f"{path} is UTF-16", hint="save it as UTF-8")
    if not is_text("".join(header).encode("utf-8", "surrogateescape")):
        raise DataError(f"the first line of {path} holds bytes that are no UTF-8", hint="save the file as UTF-8")
    doubled = sorted({name for name in header if header.count(name) > 1})
    if doubled:
        raise DataError(f"{path} has several columns `{doubled[0]}`", hint="give each column a name of its own")
    return Rows(tuple(header), _csv_rows(lines, reader, header), is_text=True)


def _csv_rows(lines: _Texts, reader: Any, header: Sequence[str]) -> Iterator[dict[str, Any] | BadRow]:
    while True:
        start, lines.is_cut = reader.line_num + 1, False
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            place = f"line {start}" if reader.line_num <= start else f"lines {start} to {reader.line_num}"
            message = f"{place}: {error}; is there a quote that is not closed?"
            yield BadRow(place.encode(), Rejection("invalid-row", message))
            continue
        if fields:
            yield _csv_row(fields, header, is_cut=lines.is_cut)


def _csv_row(fields: Sequence[str], header: Sequence[str], *, is_cut: bool) -> dict[str, Any] | BadRow:
    row = ",".join(fields).encode("utf-8", "surrogateescape")
    raw = row[:KEPT]
    if is_cut:
        return _too_long(raw)
    if len(fields) != len(header):
        message = f"{len(fields)} fields, and the header has {len(header)}"
        return BadRow(raw, Rejection("wrong-columns", message))
    if not is_text(row):
        return BadRow(raw, Rejection("invalid-text", "the row holds bytes that are no UTF-8"))
    return {name: value for name, value in zip(header, fields, strict=True) if value != ""}


def is_text(raw: bytes) -> bool:
    """Return whether bytes are UTF-8.

    >>> is_text("å".encode()), is_text("å".encode("latin-1"))
    (True, False)
    """
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


# --- Parquet --------------------------------------------------------------------------------------------------------


def _parquet(path: Path) -> Iterator[dict[str, Any] | BadRow]:
    for row in parquet_rows(path):
        unreadable = [name for name, value in row.items() if isinstance(value, Rejection)]
        if unreadable:
            readable = {name: value for name, value in row.items() if name not in unreadable}
            raw = orjson.dumps(readable, default=str, option=orjson.OPT_NON_STR_KEYS)
            yield BadRow(raw, row[unreadable[0]])
        else:
            yield row
