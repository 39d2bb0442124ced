"""A lookup over behaviour beside one over features: the same number of segments, for users who did little and much.

CPU time of this process, in turns, as other work may run; the median of five rounds' means counts. The store's is left
out: it reads a few bytes more or less. What one more event costs a writer is measured over many, so that the time that
pruning and pieces take now and then is in it.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis
from rich.console import Console
from rich.table import Table

from benchmarks.event_project import segments as event_segments
from benchmarks.request_project import COLUMNS, Made, make
from benchmarks.timing import machine, write
from rules_engine.clock import DAY, SECOND, now_micros, to_micros
from rules_engine.events.declarations.events_yaml import parse_events
from rules_engine.events.state.encoding import encode_state, named_pieces, state_size
from rules_engine.events.state.entity_state import changed_places, empty_state, update
from rules_engine.events.state.outlook import outlook_size
from rules_engine.events.state.pruning import prune
from rules_engine.events.state.store import CLOCK_SKEW, is_worth_pruning, pieces_written
from rules_engine.events.state.stored import pieces_key
from rules_engine.features.online.row_layout import RowLayouts
from rules_engine.folders import Project
from rules_engine.read_plan import ReadPlan
from rules_engine.redis.embedded import EmbeddedStore
from rules_engine.redis.feast_layout import KeyMaker, sibling_key
from rules_engine.redis.store_mark import StoreMark
from rules_engine.rules.catalog import Catalog
from rules_engine.rules.evaluate import Evaluation
from rules_engine.rules.inputs import Event, Inputs
from rules_engine.rules.load import load_text
from rules_engine.sdk import SegmentClient
from rules_engine.sdk.rules import Rules, encode_definitions
from rules_engine.sdk.tracking import open_states
from tests.event_shop import EVENTS

#: How many events users have in the last week.
EVENTS_OF_USERS = (0, 10, 100, 1_000, 10_000, 100_000)
SEGMENTS = 20
#: The features that a request of the project's own demo reads, about.
DEMO_FEATURES = 10
ROUNDS, CALLS, IN_A_TURN = 5, 500, 50
#: How often an answer is explained.
EXPLAINED = 5
#: How many events more a writer takes in, a second apart: a fifth of those that there are, at least and at most these.
LEAST_MORE, MOST_MORE = 50, 2_000

Work = Callable[[], object]


#: The events that are drawn from.
NAMES = ("view", "view", "view", "cart", "purchase")


def drawn_properties(chance: random.Random) -> dict[str, Any]:
    """Return what an event carries."""
    return {"page": chance.choice("abcd"), "sku": chance.choice("xyz"), "seconds": 3.5, "value": 1.5}


def drawn_events(number: int, now: int) -> list[Event]:
    """Events of one user over a week, the last one just now."""
    chance = random.Random(number)
    return [
        Event(
            chance.choice(NAMES),
            now - place * 7 * DAY // max(number, 1),
            f"e{place}",
            drawn_properties(chance),
        )
        for place in range(number)
    ]


def with_events(made: Made) -> tuple[Path, Rules]:
    """The folder of a project with the same store and segments over behaviour."""
    declared = parse_events(EVENTS)
    catalog = Catalog(events=declared.types, event_features=declared.features)
    definitions = encode_definitions(load_text(event_segments(), catalog), declared)
    root = made.project.root / "plans" / "behaviour"
    fields = {name: getattr(made.plan, name) for name in ReadPlan.__dataclass_fields__}
    plan = ReadPlan(**{**fields, "definitions": definitions})
    plan.save(Project(root).read_plan)
    return root, Rules(plan)


def medians(works: Mapping[str, Work], rounds: int = ROUNDS, calls: int = CALLS) -> dict[str, float]:
    """Return the milliseconds of CPU of each, in turns: the median of the rounds' means."""
    measured: dict[str, list[float]] = {name: [] for name in works}
    for work in works.values():
        work()
    for _ in range(rounds):
        taken = dict.fromkeys(works, 0.0)
        for _ in range(calls // IN_A_TURN):
            for name, work in works.items():
                began = time.process_time()
                for _ in range(IN_A_TURN):
                    work()
                taken[name] += time.process_time() - began
        for name, seconds in taken.items():
            measured[name].append(seconds * 1e3 / (calls // IN_A_TURN * IN_A_TURN))
    return {name: statistics.median(one) for name, one in measured.items()}


@dataclass
class Bench:
    """The project with both kinds of segments."""

    made: Made

    def __post_init__(self) -> None:
        self.address = self.made.plan.connection.connection_string.partition("unix_socket_path=")[2]
        self.redis: Any = redis.Redis(unix_socket_path=self.address)
        plan = self.made.plan
        self.key = KeyMaker(plan.project, plan.join_key, plan.key_version)
        self.root, self.rules = with_events(self.made)
        self.features_root = self.made.with_rules(SEGMENTS, SEGMENTS)

    def fill(self, user: str, number: int, now: int) -> dict[str, Any]:
        """Write a user's events up to an instant; what they take."""
        events = drawn_events(number, now)
        states = open_states(self.rules, self.redis)
        name = self.rules.events.name
        self.redis.delete(sibling_key(self.key(user), name), pieces_key(sibling_key(self.key(user), name)))
        if events:
            states.rebuild({user: events}, now)
        held = StoreMark(self.redis, self.made.plan.project)
        held.note_states(name)
        held.declare(view.name for view in self.made.plan.views)
        key = sibling_key(self.key(user), name)
        raw, pieces = self.redis.get(key) or b"", self.redis.hvals(pieces_key(key))
        size = state_size(raw) if raw else 0
        return {
            "bytes of the state": size,
            "bytes of the outlook": outlook_size(raw, size),
            "pieces": len(pieces),
            "bytes of pieces": sum(map(len, pieces)),
            "bytes in the store": sum(self.redis.memory_usage(name) or 0 for name in (key, pieces_key(key))),
            **self.one_more(events, now),
        }

    def one_more(self, events: list[Event], now: int) -> dict[str, float]:
        """Measure what one more event costs a writer who remembers the user: CPU, and the bytes sent to the store."""
        requirements, outlooks = self.rules.events.requirements, self.rules.events.outlooks
        state = prune(update(empty_state(requirements), events, requirements), requirements, now - CLOCK_SKEW)
        stored = encode_state(state, requirements) + outlooks.of(state, now)
        chance, sent = random.Random(1), 0
        names = named_pieces(state, requirements).keys()
        began = time.process_time()
        more = min(MOST_MORE, max(LEAST_MORE, len(events) // 5))
        for place in range(more):
            at = now + place * SECOND
            event = Event(chance.choice(NAMES), at, f"more{place}", drawn_properties(chance))
            new = update(state, [event], requirements)
            changed = changed_places(state, new)
            if is_worth_pruning(state, new, at - CLOCK_SKEW, requirements.piece):
                new = prune(new, requirements, at - CLOCK_SKEW)
            outlook = outlooks.renewed(stored, new, at, changed)
            pieces = pieces_written(names, new, requirements)
            names = named_pieces(new, requirements).keys()
            state, stored = new, encode_state(new, requirements) + outlook
            sent += len(stored) + sum(len(part) for part in pieces if isinstance(part, bytes))
        seconds = time.process_time() - began
        return {"ms for one more event": seconds * 1e3 / more, "bytes sent for it": sent / more}

    def check(self, client: SegmentClient, user: str, number: int, filled: int) -> None:
        """The answers of lookups against the plain evaluator over all events."""
        membership = client.lookup(user)
        now = to_micros(membership.at)
        events = tuple(sorted(drawn_events(number, filled), key=lambda event: event.order))
        evaluation = Evaluation(client.program, Inputs({}, events=events), now)
        expected = {name for name in client.program.names if evaluation.segment(name) is True}
        assert membership.segments == expected - membership.undecided, (user, number)

    def measure(self, number: int) -> dict[str, Any]:
        """The times of one user with so many events."""
        user = str(number % 997)
        now = now_micros()
        sizes = self.fill(user, number, now)
        fields = RowLayouts(self.made.plan).of([column.ref.key for column in COLUMNS[:DEMO_FEATURES]]).fields
        key = self.key(user)
        with SegmentClient.from_repo(self.root) as events, SegmentClient.from_repo(self.features_root) as features:
            self.check(events, user, number, now)

            def bare() -> object:
                with self.redis.pipeline(transaction=False) as pipeline:
                    pipeline.hmget(key, fields)
                    return pipeline.execute()

            times = medians(
                {
                    "redis-py HMGET": bare,
                    "feature segments": lambda: features.lookup(user),
                    "event segments": lambda: events.lookup(user),
                    "with changes_at": lambda: events.lookup(user).changes_at,
                },
            )
            began = time.process_time()
            for _ in range(EXPLAINED):
                events.explain(user, "abandoned")
            times["explain"] = (time.process_time() - began) * 1e3 / EXPLAINED
        return {"events": number, **sizes, **times}


def main() -> None:
    """Measure, print and write down; the server is stopped, and keeps the data for the next run."""
    made = make()
    try:
        bench = Bench(made)
        rows = []
        for number in EVENTS_OF_USERS:
            rows.append(bench.measure(number))
            print(rows[-1], flush=True)
    finally:
        EmbeddedStore(made.project.root).stop()
    table = Table(title=f"One user, {SEGMENTS} segments: milliseconds of CPU, bytes")
    for name in rows[0]:
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(*(f"{value:,}" if isinstance(value, int) else f"{value:.3f}" for value in row.values()))
    Console(width=170).print(table)
    lookups = {row["events"]: row["event segments"] for row in rows}
    growth = lookups[10_000] / lookups[10]
    print(f"growth from 10 to 10,000 events: {growth:.2f}")
    path = write("behaviour", {"rows": rows, "growth": growth})
    print(f"Written to benchmarks/results/{path.name}; on {machine()['processor']}")


if __name__ == "__main__":
    main()
