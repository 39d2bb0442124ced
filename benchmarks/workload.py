"""Segments and users for benchmarks, drawn from a seed.

40 features of a kind that a shop has, and segments of 3 to 6 predicates, some with an `any` inside and some negated. A
predicate holds for about 3 users in 10. Users have every feature, so that peers without a notion of a missing value
give the same answers.

Two kinds of program: in a *broad* one all segments are drawn alike, so that a user is in about 1.5 % of them, however
many there are. In a *narrow* one every segment beyond the first hundred is also limited to one city or one campaign, as
it is where people keep thousands of segments: a user is in a few of them.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from rules_engine.rules.inputs import Inputs
from rules_engine.rules.nodes import AllOf, AnyOf, Condition, FeatureRef, Not, Predicate, Segment
from rules_engine.rules.program import Program
from rules_engine.rules.types import BOOLEAN, FLOAT, INTEGER, STRING, Value

COUNTRIES = ["NO", "SE", "DK", "FI", "DE", "FR", "GB", "US", "CA", "NL", "ES", "IT", "PL", "JP", "BR", "IN"]
DEVICES = ["mobile", "desktop", "tablet"]
PLANS = ["free", "basic", "plus", "pro"]
PAGES = ["/home", "/search", "/cart", "/checkout", "/product/a", "/product/b", "/help", "/account"]

#: What the features whose names begin so can be.
CHOICES = {
    "country": COUNTRIES,
    "device": DEVICES,
    "plan": PLANS,
    "page": PAGES,
    "city": [f"city{number}" for number in range(200)],
    "campaign": [f"campaign-{number}" for number in range(40)],
}


@dataclass(frozen=True)
class Column:
    """One feature: its name, its kind, how its values are spread, and its feature view."""

    name: str
    kind: str
    scale: float = 1.0
    view: str = "user"

    @property
    def ref(self) -> FeatureRef:
        return FeatureRef(self.view, self.name)

    @property
    def choices(self) -> list[str]:
        return CHOICES[self.name.rstrip("0123456789")]

    def draw(self, rng: random.Random) -> Value:
        if self.kind == "string":
            return rng.choice(self.choices)
        if self.kind == "boolean":
            return rng.random() < 0.3
        if self.kind == "integer":
            return int(rng.expovariate(1 / self.scale))
        return round(rng.lognormvariate(0, 1) * self.scale, 2)


COLUMNS = [
    *(Column(f"{name}{number}", "string") for name in CHOICES for number in (1, 2)),
    *(
        Column(f"count{number}", "integer", scale)
        for number, scale in enumerate([1, 3, 5, 10, 20, 40, 60, 90, 180, 365])
    ),
    *(
        Column(f"amount{number}", "number", scale)
        for number, scale in enumerate([0.1, 1, 5, 10, 25, 50, 75, 100, 250, 500])
    ),
    *(Column(f"flag{number}", "boolean") for number in range(8)),
]


#: The features to which the segments of a narrow program are limited.
LIMITING = [column for column in COLUMNS if column.name.startswith(("city", "campaign"))]

#: Beyond so many segments those of a narrow program are limited to a city or a campaign.
BROAD = 100


def program(segments: int, narrow: bool = False, seed: int = 0) -> Program:
    """A program of so many segments; the first of a larger one are those of a smaller one."""
    rng = random.Random(seed)
    made = (Segment(f"segment_{number:05d}", _condition(rng, narrow and number >= BROAD)) for number in range(segments))
    return Program({segment.name: segment for segment in made})


def users(number: int, seed: int = 1) -> list[Inputs]:
    """Users with a value for every feature."""
    rng = random.Random(seed)
    return [Inputs({column.ref.key: column.draw(rng) for column in COLUMNS}) for _ in range(number)]


def predicates(condition: Condition) -> Iterator[Predicate]:
    """All predicates in a condition."""
    if isinstance(condition, AllOf | AnyOf):
        for child in condition.conditions:
            yield from predicates(child)
    elif isinstance(condition, Not):
        yield from predicates(condition.condition)
    else:
        assert isinstance(condition, Predicate)
        yield condition


def _condition(rng: random.Random, narrow: bool) -> Condition:
    columns = rng.sample(COLUMNS, rng.randint(3, 6))
    leaves: list[Condition] = [draw_predicate(column, rng) for column in columns]
    if narrow:
        column = rng.choice(LIMITING)
        leaves[-1] = Predicate(column.ref, "equals", rng.choice(column.choices), STRING)
    if rng.random() < 0.1:
        leaves[0] = Not(leaves[0])
    if len(leaves) > 3 and rng.random() < 0.4:
        leaves = [AnyOf(tuple(leaves[:2])), *leaves[2:]]
    return AllOf(tuple(leaves))


def draw_predicate(column: Column, rng: random.Random) -> Predicate:
    """A predicate on a feature, as people write them."""
    if column.kind == "boolean":
        return Predicate(column.ref, "equals", rng.random() < 0.8, BOOLEAN)
    if column.kind == "string":
        return _string_predicate(column, rng)
    value_type = INTEGER if column.kind == "integer" else FLOAT
    operator = rng.choice(["at_least", "greater_than", "less_than", "at_most", "between"])
    low, middle, high = sorted(_threshold(column, rng) for _ in range(3))
    if operator == "between":
        return Predicate(column.ref, operator, rng.choice([(low, middle), (middle, high)]), value_type)
    return Predicate(column.ref, operator, low if operator in ("less_than", "at_most") else high, value_type)


def _threshold(column: Column, rng: random.Random) -> int | float:
    """A value with two digits, as people write thresholds."""
    rounded = float(f"{column.draw(rng):.1e}")
    return int(rounded) if column.kind == "integer" else rounded


def _string_predicate(column: Column, rng: random.Random) -> Predicate:
    operator = rng.choices(["equals", "in", "not_in", "not_equals", "contains"], [4, 4, 0.5, 0.5, 0.5])[0]
    if operator == "contains":
        return Predicate(column.ref, operator, rng.choice(column.choices)[-2:], STRING)
    if operator in ("in", "not_in"):
        return Predicate(column.ref, operator, tuple(rng.sample(column.choices, rng.randint(2, 3))), STRING)
    return Predicate(column.ref, operator, rng.choice(column.choices), STRING)
