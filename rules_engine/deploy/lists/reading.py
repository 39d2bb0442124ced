"""Reads the files of lists: every key is checked, and only a bounded number of them is in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from rules_engine.diagnostics import Diagnostic, nearest
from rules_engine.errors import DefinitionError
from rules_engine.rules.nodes import ListFile, Segment

_ROWS = 100_000

#: The longest key, in characters.
MAX_KEY = 1_000

#: What no key begins or ends with, nor has inside.
_ODD = r"^\s|\s$|[\x00-\x1f\x7f]"


def read_keys(project_root: Path, source: ListFile, join_key: str) -> Iterator[pa.Array]:
    """Yield the keys of a list as strings, in pieces; keys that are given twice come twice.

    Raises
    ------
    DefinitionError
        if the file cannot be read, has no such column, or a key is none; at the place of ``list:``.
    """
    column = source.column or join_key
    path = project_root / source.file
    first = 2 if path.suffix == ".csv" else 1  # the line of a CSV file, the row of another
    word = "line" if path.suffix == ".csv" else "row"
    try:
        pieces = _of_csv(path, source, column) if path.suffix == ".csv" else _of_parquet(path, source, column)
        for piece in pieces:
            keys = _as_text(piece, source)
            _check(keys, source, first, word)
            first += len(keys)
            yield keys
    except FileNotFoundError:
        raise _not_there(source) from None
    except (OSError, pa.ArrowException) as error:
        raise _refusal(source, f"`{source.file}` cannot be read: {error}", None) from None


def missing_files(project_root: Path, segments: Iterable[Segment]) -> Iterator[Diagnostic]:
    """Yield a problem for each list whose file is not there."""
    for segment in segments:
        if segment.list is not None and not (project_root / segment.list.file).is_file():
            yield from _not_there(segment.list).diagnostics


def _not_there(source: ListFile) -> DefinitionError:
    return _refusal(source, f"there is no file `{source.file}`", "its path begins at the project's folder")


def _of_csv(path: Path, source: ListFile, column: str) -> Iterator[pa.Array]:
    if not path.is_file():
        raise FileNotFoundError
    if path.stat().st_size == 0:
        raise _refusal(source, f"`{source.file}` is empty", f"its first line names the columns, e.g. `{column}`")
    parsing = pa_csv.ParseOptions(ignore_empty_lines=False)  # so that lines can be counted
    names = pa_csv.open_csv(path, parse_options=parsing).schema.names
    _check_column(names, source, column)
    options = pa_csv.ConvertOptions(
        column_types={column: pa.string()}, include_columns=[column], null_values=[], strings_can_be_null=False
    )
    with pa_csv.open_csv(path, convert_options=options, parse_options=parsing) as reader:
        for batch in reader:
            yield batch.column(0)


def _of_parquet(path: Path, source: ListFile, column: str) -> Iterator[pa.Array]:
    with pq.ParquetFile(path) as file:
        _check_column(file.schema_arrow.names, source, column)
        for batch in file.iter_batches(_ROWS, columns=[column]):
            yield batch.column(0)


def _check_column(names: list[str], source: ListFile, column: str) -> None:
    if column not in names:
        hint = nearest(column, names) or f"name the column of keys: `list: {{file: {source.file}, column: {names[0]}}}`"
        raise _refusal(source, f"`{source.file}` has no column `{column}`; it has {', '.join(names[:10])}", hint)


def _as_text(keys: pa.Array, source: ListFile) -> pa.Array:
    kind = keys.type.value_type if pa.types.is_dictionary(keys.type) else keys.type
    if not (pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        message = f"the keys in `{source.file}` are of the type {kind}; keys are strings or whole numbers"
        raise _refusal(source, message, "write them as strings")
    return keys.cast(pa.large_string())


def _check(keys: pa.Array, source: ListFile, first: int, word: str) -> None:
    lengths = pc.utf8_length(keys)
    has_wrong_length = pc.or_(pc.equal(lengths, 0), pc.greater(lengths, MAX_KEY))
    is_odd = pc.or_(pc.match_substring_regex(keys, _ODD), has_wrong_length)
    place = pc.index(pc.fill_null(is_odd, True), True).as_py()
    if place < 0:
        return
    key = keys[place].as_py()
    if not key:
        problem = "there is no key"
    elif len(key) > MAX_KEY:
        problem = f"a key has at most {MAX_KEY:,} characters, and this one has {len(key):,}"
    else:
        problem = f"{key!r} begins or ends with a space, or has a character inside that no key has"
    raise _refusal(
        source, f"`{source.file}`, {word} {first + place:,}: {problem}", "mend the file; nothing was imported"
    )


def _refusal(source: ListFile, message: str, hint: str | None) -> DefinitionError:
    return DefinitionError([Diagnostic("invalid-list", source.span, message, hint)])
