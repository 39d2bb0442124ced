"""Write the members of one segment to a file, all of them or what changed since the last time: `segments export`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rules_engine.batch.engine import BatchRules
from rules_engine.batch.membership_files import TableFile
from rules_engine.clock import format_instant
from rules_engine.errors import DataError, ProjectError
from rules_engine.folders import Project

Progress = Callable[[int, float], None]

ENTERED, LEFT = "entered", "left"

#: What a snapshot says about itself.
_AS_OF = b"as_of"


@dataclass(frozen=True, slots=True)
class Exported:
    """Count who is in the segment, and who entered and left since the last export, if there was one.

    ``previous`` is the instant of the last export, in microseconds.
    """

    members: int
    previous: int | None = None
    entered: int = 0
    left: int = 0


class Exports:
    """The exports of a segment to a file: what the last one held is remembered in the project's state folder.

    Parameters
    ----------
    out
        the file; each has a memory of its own.
    csv_formulas
        write keys into CSV as they are, even if a spreadsheet would take them for formulas.
    """

    def __init__(self, project: Project, segment: str, out: Path, *, csv_formulas: bool = False) -> None:
        target = hashlib.sha256(str(out.expanduser().resolve()).encode()).hexdigest()[:12]
        self._snapshot = project.state_dir / "exports" / f"{segment}-{target}.parquet"
        self._segment = segment
        self._out = out
        self._csv_formulas = csv_formulas

    @property
    def shown(self) -> str:
        """Return the file."""
        return str(self._out)

    def full(self, rules: BatchRules, as_of: int, progress: Progress = lambda _users, _done: None) -> Exported:
        """Write everyone who is in the segment.

        Raises
        ------
        ProjectError, DataError
            if the offline store cannot be read, or the file cannot be written.
        """
        schema = pa.schema([(rules.key, pa.string())])
        with TableFile(self._partial, self._members_schema(as_of)) as remembered, self._file(schema) as file:
            for members in members_of(rules, self._segment, as_of, progress):
                file.write(pa.record_batch([members], schema=schema))
                remembered.write(pa.record_batch([members], schema=remembered.schema))
        self._remember()
        return Exported(file.rows)

    def changes(self, rules: BatchRules, as_of: int, progress: Progress = lambda _users, _done: None) -> Exported:
        """Write who entered and who left since the last export to this file; without one, everyone enters.

        The members of the last export and of this one are held in memory.

        Raises
        ------
        ProjectError, DataError
            as :meth:`full`; or if the last export is of a later instant.
        """
        before, previous = self._last()
        if previous is not None and previous > as_of:
            raise DataError(
                f"the last export of `{self._segment}` to {self._out} is as of {format_instant(previous)}, which is "
                "later",
                hint="name a later instant with --as-of, or leave --changes-since-last out",
            )
        chunks = [*members_of(rules, self._segment, as_of, progress)]
        now = pa.concat_arrays(chunks) if chunks else pa.array([], pa.string())
        entered, left = without(now, before), without(before, now)
        schema = pa.schema([(rules.key, pa.string()), ("change", pa.string())])
        with TableFile(self._partial, self._members_schema(as_of)) as remembered, self._file(schema) as file:
            for entities, change in ((entered, ENTERED), (left, LEFT)):
                file.write(
                    pa.record_batch([entities, pa.repeat(change, len(entities)).cast(pa.string())], schema=schema)
                )
            remembered.write(pa.record_batch([now], schema=remembered.schema))
        self._remember()
        return Exported(len(now), previous, len(entered), len(left))

    def _file(self, schema: pa.Schema) -> TableFile:
        return TableFile(self._out, schema, csv_formulas=self._csv_formulas)

    @property
    def _partial(self) -> Path:
        return self._snapshot.with_name(f"new-{self._snapshot.name}")

    def _members_schema(self, as_of: int) -> pa.Schema:
        return pa.schema([("entity", pa.string())], metadata={_AS_OF: str(as_of)})

    def _remember(self) -> None:
        """Remember the export; called last, so that changes that were not written are found by the next one."""
        self._partial.replace(self._snapshot)

    def _last(self) -> tuple[pa.Array, int | None]:
        if not self._snapshot.is_file():
            return pa.array([], pa.string()), None
        try:
            table = pq.read_table(self._snapshot)
            return table["entity"].combine_chunks(), int(table.schema.metadata[_AS_OF])
        except (OSError, pa.ArrowInvalid, KeyError, TypeError, ValueError) as error:
            hint = "remove it; the next export then holds everyone"
            raise ProjectError(f"{self._snapshot} is damaged: {error}", hint=hint) from error


def members_of(rules: BatchRules, segment: str, as_of: int, progress: Progress) -> Iterator[pa.Array]:
    """Yield the keys of everyone who is in a segment, some at a time.

    Raises
    ------
    ProjectError, DataError
        if the offline store cannot be read.
    """
    users = 0
    for answered in rules.answers(as_of):
        users += len(answered.entities)
        progress(users, answered.done)
        yield answered.entities.filter(pa.array(answered.members(segment))).cast(pa.string())


def without(these: pa.Array, those: pa.Array) -> pa.Array:
    """Return the keys that are in the one and not in the other, sorted."""
    return these.filter(pc.invert(pc.is_in(these, value_set=those))).sort()
