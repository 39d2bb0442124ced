"""The comparison of the answers of a project wherever they can be asked."""

from __future__ import annotations

import json
import random
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from rules_engine import SegmentClient
from rules_engine.clock import from_micros, to_micros
from rules_engine.rules.load import Definitions
from rules_engine.targets.sql.run import evaluate_duckdb
from tests.commands import run
from tests.property import pools
from tests.trials.outcome import Trial
from tests.trials.plain import Plain
from tests.trials.world import World

#: So many entities are asked when each of their answers next changes.
_CHANGES = 12


class Comparison:
    """Compares lookups, batch, SQL, backtests and ``changes_at`` with each other and with plain answers."""

    def __init__(self, world: World, root: Path, draw: random.Random, trial: Trial, definitions: Definitions) -> None:
        self._world = world
        self._root = root
        self._draw = draw
        self._trial = trial
        self._program = definitions.program
        self._plain = Plain(world, self._program)
        self._names = self._plain.names
        self._now = to_micros(world.now)

    def compare(self) -> None:
        """Compare everything."""
        shifts = [self._shift() for _ in range(2)]
        earlier, later = [self._now - shift for shift in shifts], [self._now + shift for shift in shifts]
        for at in (self._now, *earlier):
            self._batch_with_oracle(at)
        for at in (self._now, *later):
            self._online_with_batch(at)
        self._sql_with_oracle()
        self._changes()
        self._backtest(min(earlier))

    def _shift(self) -> int:
        base = self._draw.choice(pools.DURATIONS)
        micros = {"s": 10**6, "m": 60 * 10**6, "h": 3_600 * 10**6, "d": 86_400 * 10**6, "w": 604_800 * 10**6}
        return max(1, int(base[:-1]) * micros[base[-1]] * self._draw.choice((1, 1, 2)) + self._draw.choice((-1, 0, 1)))

    # --- the ways to ask --------------------------------------------------------------------------------------------

    def _oracle(self, entity: str, at: int, known_at: int | None = None) -> dict[str, Any]:
        return self._plain.answers(entity, at, known_at)

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
            entity = membership.entity
            self._trial.undecided += len(membership.undecided)
            if membership.undecided and not self._plain.is_beyond_bound(entity):
                self._trial.differences.append(f"online: {entity} is undecided, and all of its events are kept")
            decided = [name for name in self._names if name not in membership.undecided]
            online = {name: name in membership.segments for name in decided}
            answers = {name: batch[entity][name] is True for name in decided}
            self._trial.compare("online, batch", f"{entity} at {from_micros(at)}", online, answers)

    def _sql_with_oracle(self) -> None:
        entities = list(self._world.entities)
        found = evaluate_duckdb(
            self._program, [(entity, self._plain.inputs(entity, self._now)) for entity in entities], self._now
        )
        for entity in entities:
            self._trial.compare("sql, plain", entity, found[entity], self._oracle(entity, self._now))

    def _changes(self) -> None:
        whole = [entity for entity in self._world.entities if not self._plain.is_beyond_bound(entity)]
        asked = self._draw.sample(whole, min(_CHANGES, len(whole)))
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
