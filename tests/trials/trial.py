"""One random project, driven by the commands, and the comparison of its answers wherever they are asked."""

from __future__ import annotations

import json
import random
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from typer.testing import CliRunner

from rules_engine import SegmentClient
from rules_engine.cli.main import app
from rules_engine.clock import from_micros, to_micros
from rules_engine.deploy.definitions import load_project
from rules_engine.folders import Project
from rules_engine.redis.embedded import EmbeddedStore
from rules_engine.rules.evaluate import Evaluation
from rules_engine.rules.inputs import Event, Inputs, in_order
from rules_engine.rules.program import Program
from rules_engine.targets.sql.run import evaluate_duckdb
from tests.property import pools
from tests.trials import files
from tests.trials.world import World

#: So many entities are asked when each of their answers next changes.
_CHANGES = 12


@dataclass
class Trial:
    """What was compared, and what differed.

    Attributes
    ----------
    compared
        how many answers, by the pair that was compared.
    differences
        a line for each answer that differed.
    """

    compared: dict[str, int] = field(default_factory=dict)
    differences: list[str] = field(default_factory=list)

    def compare(self, pair: str, where: str, first: Mapping[str, Any], second: Mapping[str, Any]) -> None:
        """Compare two sets of answers by segment."""
        self.compared[pair] = self.compared.get(pair, 0) + len(first)
        for name in sorted(first.keys() | second.keys()):
            if first.get(name) != second.get(name):
                self.differences.append(f"{pair}: {where}, {name}: {first.get(name)} and {second.get(name)}")


def run(*arguments: object) -> str:
    """Run a command of ours in this process; give what it printed.

    Raises
    ------
    AssertionError
        if it fails.
    """
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if done.exit_code:
        shown = "".join(traceback.format_exception(done.exception)) if done.exception else ""
        raise AssertionError(f"segments {arguments} ended with {done.exit_code}:\n{done.output}\n{shown}")
    return done.output


@contextmanager
def stopped(root: Path) -> Iterator[None]:
    """Stop the project's server at the end."""
    try:
        yield
    finally:
        EmbeddedStore(root).stop()


def run_trial(world: World, root: Path) -> Trial:
    """Make the project in an empty folder, fill it, and compare."""
    draw = random.Random(world.seed + 1)
    files.write_repository(world, root, draw)
    conditions = _loadable(world, root)
    with stopped(root):
        _fill(world, conditions, root, draw)
        return _Comparison(world, root, draw).compare()


def _loadable(world: World, root: Path) -> dict[str, Any]:
    """Return the conditions that load: some draw on nothing that can be, such as what is never true."""
    conditions = dict(world.segments)
    while True:
        files.write_segments(conditions, root)
        done = CliRunner().invoke(app, ["validate", "--format", "json", "--repo", str(root)])
        problems = json.loads(done.stdout)["problems"]
        refused = {Path(problem["file"]).stem for problem in problems if problem["severity"] == "error"}
        if not refused:
            return conditions
        for name in refused:
            del conditions[name]
            (root / "segments" / f"{name}.yaml").unlink()


def _fill(world: World, conditions: Mapping[str, Any], root: Path, draw: random.Random) -> None:
    """Apply the definitions at once or in two steps, and take the events before, between and after."""
    batches = files.in_batches(world, draw)
    first = draw.randint(1, len(conditions)) if conditions else 0
    later = dict(list(conditions.items())[first:])
    cut = draw.randint(0, len(batches))
    for name in later:
        (root / "segments" / f"{name}.yaml").unlink()
    run("apply", "--repo", root)
    steps = [lambda: _ingest(root, batches[:cut], 0), lambda: run("materialize", "--repo", root)]
    draw.shuffle(steps)
    for step in steps:
        step()
    files.write_segments(later, root)
    run("apply", "--repo", root)
    _ingest(root, batches[cut:], cut)


def _ingest(root: Path, batches: Sequence[tuple[str, Any]], start: int) -> None:
    for number, (ending, part) in enumerate(batches, start):
        path = root / f"events{number}{ending}"
        files.write_events(part, path)
        run("ingest", path, "--repo", root)


class _Comparison:
    """The comparisons of one project."""

    def __init__(self, world: World, root: Path, draw: random.Random) -> None:
        self._world = world
        self._root = root
        self._draw = draw
        self._trial = Trial()
        self._program: Program = load_project(Project.open(root)).definitions.program
        self._names = sorted(self._program.segments)
        self._now = to_micros(world.now)
        self._events = _events_by_entity(world)

    def compare(self) -> Trial:
        shifts = [self._shift() for _ in range(2)]
        earlier, later = [self._now - shift for shift in shifts], [self._now + shift for shift in shifts]
        for at in (self._now, *earlier):
            self._batch_with_oracle(at)
        for at in (self._now, *later):
            self._online_with_batch(at)
        self._sql_with_oracle()
        self._changes()
        self._backtest(min(earlier))
        return self._trial

    def _shift(self) -> int:
        base = self._draw.choice(pools.DURATIONS)
        micros = {"s": 10**6, "m": 60 * 10**6, "h": 3_600 * 10**6, "d": 86_400 * 10**6, "w": 604_800 * 10**6}
        return max(1, int(base[:-1]) * micros[base[-1]] * self._draw.choice((1, 1, 2)) + self._draw.choice((-1, 0, 1)))

    # --- the ways to ask --------------------------------------------------------------------------------------------

    def _oracle(self, entity: str, at: int, known_at: int | None = None) -> dict[str, Any]:
        """Answer by the plain evaluator on everything that was known of an entity at an instant."""
        evaluation = Evaluation(self._program, self._inputs(entity, at if known_at is None else known_at), at)
        return {name: evaluation.segment(name) for name in self._names}

    def _inputs(self, entity: str, as_of: int) -> Inputs:
        features, updated_at, expires_at = {}, {}, {}
        for view, rows in self._world.rows.items():
            seen = [row for row in rows if row["entity"] == entity and to_micros(row["at"]) <= as_of]
            if not seen:
                continue
            newest = sorted(seen, key=lambda row: row["at"])[-1]  # stable: of one instant the last as written
            updated_at[view] = to_micros(newest["at"])
            if self._world.ttls[view]:
                expires_at[view] = updated_at[view] + self._world.ttls[view] // timedelta(microseconds=1) + 1
            for name, value in newest.items():
                if name not in ("entity", "at") and value is not None and value == value:
                    features[f"{view}:{name}"] = _inside(value)
        return Inputs(features, {}, self._events.get(entity, ()), updated_at, expires_at)

    def _batch(self, at: int, *only: str) -> dict[str, dict[str, Any]]:
        """Evaluate everyone, for all segments or for some: who is known depends on the events that they read."""
        path = self._root / "matrix.parquet"
        asked = [argument for name in only for argument in ("--segment", name)]
        run("evaluate", "--matrix", "--out", path, "--as-of", from_micros(at).isoformat(), "--repo", self._root, *asked)
        names = only or self._names
        rows = pq.read_table(path).to_pylist()
        key = next(iter(set(rows[0]) - set(names))) if rows else ""
        return {row[key]: {name: row[name] for name in names} for row in rows}

    # --- the comparisons --------------------------------------------------------------------------------------------

    def _batch_with_oracle(self, at: int) -> None:
        for entity, answers in self._batch(at).items():
            expected = self._oracle(entity, at)
            if None not in answers.values():  # files that do not tell false from unknown
                expected = {name: truth is True for name, truth in expected.items()}
            self._trial.compare("batch, plain", f"{entity} at {from_micros(at)}", answers, expected)

    def _online_with_batch(self, at: int) -> None:
        batch = self._batch(at)
        with SegmentClient.from_repo(self._root) as client:
            found = client.lookup_many(list(batch), at=from_micros(at))
        for membership in found:
            online = {name: name in membership.segments for name in self._names}
            answers = {name: batch[membership.entity][name] is True for name in self._names}
            self._trial.compare("online, batch", f"{membership.entity} at {from_micros(at)}", online, answers)

    def _sql_with_oracle(self) -> None:
        entities = list(self._world.entities)
        found = evaluate_duckdb(
            self._program, [(entity, self._inputs(entity, self._now)) for entity in entities], self._now
        )
        for entity in entities:
            self._trial.compare("sql, plain", entity, found[entity], self._oracle(entity, self._now))

    def _changes(self) -> None:
        asked = self._draw.sample(list(self._world.entities), min(_CHANGES, len(self._world.entities)))
        with SegmentClient.from_repo(self._root) as client:
            found = client.lookup_many(asked)
        for membership in found:
            last = self._now + 2 * 365 * 86_400 * 10**6
            until = last if membership.changes_at is None else to_micros(membership.changes_at)
            instants = [self._now, until - 1, *(self._draw.randint(self._now, until - 1) for _ in range(2))]
            for at in instants:
                where = f"{membership.entity} before {membership.changes_at}, at {from_micros(at)}"
                self._trial.compare(
                    "changes_at", where, self._true(membership.entity, at), self._true(membership.entity, self._now)
                )
            if membership.changes_at is not None:
                self._trial.compared["changes_at"] += 1
                if self._true(membership.entity, until) == self._true(membership.entity, self._now):
                    self._trial.differences.append(
                        f"changes_at: nothing changes for {membership.entity} at {membership.changes_at}"
                    )

    def _true(self, entity: str, at: int) -> dict[str, bool]:
        return {name: truth is True for name, truth in self._oracle(entity, at, self._now).items()}

    def _backtest(self, start: int) -> None:
        if not self._names:
            return
        name = self._draw.choice(self._names)
        every = (self._now - start) // 2 // 10**6
        if every < 1:
            return
        arguments = ["--from", from_micros(start).isoformat(), "--every", f"{every}s", "--alone", "--format", "json"]
        points = json.loads(run("backtest", name, *arguments, "--repo", self._root))["points"]
        for point in points:
            at = to_micros(datetime.fromisoformat(point["at"]))
            size = sum(answers[name] is True for answers in self._batch(at, name).values())
            self._trial.compare("backtest, batch", f"at {point['at']}", {name: point["size"]}, {name: size})


def _events_by_entity(world: World) -> dict[str, tuple[Event, ...]]:
    found: dict[str, list[Event]] = {}
    for raw in world.events:
        properties = {name: _inside(raw[name]) for name in pools.PROPERTIES if name in raw}
        event = Event(raw["event"], to_micros(raw["at"]), f"{raw['event']}:{raw['event_id']}", properties)
        found.setdefault(raw["entity"], []).append(event)
    return {entity: in_order(events) for entity, events in found.items()}


def _inside(value: Any) -> Any:
    """Return a value as evaluators hold it: an instant in microseconds."""
    return to_micros(value) if isinstance(value, datetime) else value
