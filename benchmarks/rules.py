"""The rule time of one request: all segments of one user, here and in other libraries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.table import Table

from benchmarks.peers import PEERS, Matcher, Peer
from benchmarks.timing import Limit, microseconds, seconds_of, write
from benchmarks.workload import COLUMNS, predicates, program, users
from rules_engine.rules.evaluate import Evaluation
from rules_engine.rules.inputs import Inputs
from rules_engine.rules.program import Program
from rules_engine.targets.columns.column_index import ColumnIndex
from rules_engine.targets.index.rule_index import RuleIndex

SIZES = (10, 100, 1_000, 10_000)
PEER_SIZES = (10, 100, 1_000)
USERS = 500
OURS = "feast-segments"

#: Limits of the index: at most this part of the fastest peer's time at 100 segments, ...
MOST_OF_FASTEST_PEER = 0.5
#: ... and at most this growth from 100 to 10,000 segments.
MOST_GROWTH = 4.0

ROWS, DISTINCT_ROWS = 1_000_000, 5_000


@dataclass(frozen=True)
class Figure:
    """One row of the table."""

    library: str
    program: str
    segments: int
    predicates: int
    members: float
    microseconds: float
    build_seconds: float


def measure_index(kind: str, size: int, people: Sequence[Inputs]) -> Figure:
    """The time of the compiled index, whose answers are compared with the plain evaluator's first."""
    checked = program(size, narrow=kind == "narrow")
    index = RuleIndex(checked)
    _agree(OURS, lambda inputs: index.match(inputs, 0), checked, people[:3])
    members = sum(len(index.match(inputs, 0)) for inputs in people) / len(people)
    took = microseconds(lambda inputs: index.match(inputs, 0), people)
    return Figure(OURS, kind, size, _predicates(checked), members, took, seconds_of(lambda: RuleIndex(checked), 2))


def _predicates(checked: Program) -> int:
    return sum(1 for segment in checked.segments.values() for _ in predicates(segment.when))


def _agree(library: str, match: object, checked: Program, people: Sequence[Inputs]) -> None:
    """A library that answers something else is not compared.

    Raises
    ------
    ValueError
        if it does.
    """
    assert callable(match)
    for inputs in people:
        evaluation = Evaluation(checked, inputs, 0)
        wanted = {name for name in checked.names if evaluation.segment(name) is True}
        found = match(inputs)
        if found != wanted:
            raise ValueError(f"{library} says {sorted(found ^ wanted)} differently")


def measure_peer(peer: Peer, size: int, people: Sequence[Inputs]) -> Figure:
    """The time of a peer, whose answers are compared with ours first."""
    checked = program(size)
    build_seconds = seconds_of(lambda: peer.compile(checked), 1)
    match: Matcher = peer.compile(checked)
    asked = people[:3] if peer.slow else people[:100]
    _agree(peer.name, lambda inputs: match(_values(inputs)), checked, asked[:3])
    given = [_values(inputs) for inputs in asked]
    members = sum(len(match(values)) for values in given) / len(given)
    took = microseconds(match, given, seconds=0.2)
    return Figure(peer.name, "broad", size, _predicates(checked), members, took, build_seconds)


def _values(inputs: Inputs) -> dict[str, object]:
    return {column.name: inputs.features[column.ref.key] for column in COLUMNS}


def measure_columns(people: Sequence[Inputs]) -> dict[str, float]:
    """Seconds of the index over columns, for 100 segments."""
    chosen = pa.array(np.random.default_rng(0).integers(0, len(people), ROWS))
    names = [column.ref.key for column in COLUMNS]
    batch = pa.record_batch(
        {name: pa.array([inputs.features[name] for inputs in people]).take(chosen) for name in names}
    )
    columns = ColumnIndex(RuleIndex(program(100)))
    return {"rows": ROWS, "segments": 100, "seconds": seconds_of(lambda: columns.match_many(batch, 0))}


def limits(figures: Sequence[Figure]) -> list[Limit]:
    """Return what the index may take, beside what was measured."""
    ours = {(figure.program, figure.segments): figure.microseconds for figure in figures if figure.library == OURS}
    peers = [figure for figure in figures if figure.library != OURS and figure.segments == 100]
    measured = [
        Limit(f"growth from 100 to 10,000 segments ({kind})", ours[kind, 10_000] / ours[kind, 100], at_most=MOST_GROWTH)
        for kind in ("narrow", "broad")
    ]
    if peers:
        part = ours["broad", 100] / min(figure.microseconds for figure in peers)
        measured.append(Limit("part of the fastest peer's time, 100 segments", part, at_most=MOST_OF_FASTEST_PEER))
    return measured


def show(figures: Sequence[Figure], measured: Sequence[Limit], columns: dict[str, float]) -> None:
    """Print everything."""
    console = Console()
    table = Table(title="Rule time of one request: all segments of one user, CPU microseconds")
    for heading in ("library", "program", "segments", "predicates", "a user is in", "us", "us / ours", "build s"):
        table.add_column(heading, justify="left" if heading in ("library", "program") else "right")
    ours = {(figure.program, figure.segments): figure.microseconds for figure in figures if figure.library == OURS}
    for figure in figures:
        ratio = figure.microseconds / ours[figure.program, figure.segments]
        table.add_row(
            figure.library,
            figure.program,
            f"{figure.segments:,}",
            f"{figure.predicates:,}",
            f"{figure.members:.1f}",
            f"{figure.microseconds:,.1f}",
            "" if figure.library == OURS else f"{ratio:,.1f}",
            f"{figure.build_seconds:.3f}",
        )
    console.print(table)
    for limit in measured:
        console.print(limit)
    console.print(
        f"Columns: {columns['rows']:,.0f} rows, {columns['segments']:.0f} segments in {columns['seconds']:.2f} s"
    )


def main() -> None:
    """Measure, print and write down."""
    people = users(USERS)
    figures = [measure_index(kind, size, people) for kind in ("broad", "narrow") for size in SIZES]
    absent = [peer.name for peer in PEERS if not peer.is_installed]
    for size in PEER_SIZES:
        # A thousand segments take the slow ones seconds for each user.
        chosen = [peer for peer in PEERS if peer.is_installed and not (peer.slow and size > 100)]
        figures += [measure_peer(peer, size, people) for peer in chosen]
    measured, columns = limits(figures), measure_columns(users(DISTINCT_ROWS))
    show(figures, measured, columns)
    if absent:
        print(f"Not installed, so not measured: {', '.join(absent)} (`make bench` installs them)")
    bounds = [asdict(limit) for limit in measured]
    path = write("rules", {"figures": [asdict(figure) for figure in figures], "limits": bounds, "columns": columns})
    print(f"Written to benchmarks/results/{path.name}")


if __name__ == "__main__":
    main()
