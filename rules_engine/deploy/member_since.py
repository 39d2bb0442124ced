"""The instants at which entities entered segments, from the ledger of the workers."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from rules_engine.clock import SECOND
from rules_engine.errors import ProjectError
from rules_engine.files import entries
from rules_engine.folders import Project

_INSTANT = pa.timestamp("us", "UTC")
_IN, _OUT = ["enter", "baseline"], ["exit"]


class LedgerSince:
    """The last time that each entity entered each segment, up to an instant, where workers recorded it.

    Parameters
    ----------
    project
        the project.
    segments
        the segments to read.
    as_of
        the instant up to which the ledger is read, in microseconds.

    Raises
    ------
    ProjectError
        if the ledger cannot be read.
    """

    def __init__(self, project: Project, segments: Sequence[str], as_of: int) -> None:
        self._latest: dict[str, pa.Table] = {}
        folder = project.feature_repo / "data" / "transitions"
        files = [str(path) for day in entries(folder, "day=*") for path in entries(day, "[!.]*.parquet")]
        if not files:
            return
        condition = ds.field("segment").isin(list(segments)) & (ds.field("at") <= pa.scalar(as_of, _INSTANT))
        columns = ["entity", "segment", "change", "at"]
        try:
            read = ds.dataset(files, format="parquet").to_table(columns=columns, filter=condition)
        except (OSError, pa.ArrowInvalid) as error:
            raise ProjectError(f"the ledger cannot be read: {error}", hint=f"is a file in {folder} damaged?") from error
        entered, left = (
            read.filter(pc.is_in(read["change"], value_set=pa.array(changes)))
            .group_by(["entity", "segment"])
            .aggregate([("at", "max")])
            for changes in (_IN, _OUT)
        )
        both = entered.join(left, ["entity", "segment"], right_suffix="_left")
        still = pc.fill_null(pc.greater_equal(both["at_max"], both["at_max_left"]), fill_value=True)
        for name in segments:
            part = both.filter(pc.and_(still, pc.equal(both["segment"], name)))
            if part.num_rows:
                self._latest[name] = part

    def of(self, segment: str, keys: pa.Array) -> pa.Array | None:
        """Return when each entity last entered, in whole seconds: null if unknown; None if unknown for all."""
        part = self._latest.get(segment)
        if part is None:
            return None
        places = pc.index_in(keys, value_set=part["entity"].combine_chunks().cast(keys.type))
        instants = part["at_max"].combine_chunks().take(places).cast(pa.int64())
        return pc.multiply(pc.divide(instants, SECOND), SECOND).cast(_INSTANT)
