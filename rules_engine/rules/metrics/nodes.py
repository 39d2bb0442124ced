"""A metric: a number for each unit, from what it did after it was exposed."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from rules_engine.diagnostics import NO_SPAN, Span
from rules_engine.rules.nodes import EventAggregate


class MetricForm(StrEnum):
    """Names what is computed of the numbers of units."""

    SHARE = "share"  # of units that did it
    MEAN = "mean"  # of the numbers of units
    RATIO = "ratio"  # of the sums of two metrics


class Goal(StrEnum):
    """Says in which direction a metric gets better."""

    INCREASE = "increase"
    DECREASE = "decrease"


@dataclass(frozen=True, slots=True)
class Metric:
    """A checked metric. Durations are in microseconds.

    Attributes
    ----------
    aggregate
        what is computed of a unit's events, of those later than ``after`` and up to ``after`` plus its ``within`` after
        the exposure. None for a ratio.
    ratio
        the names of the metrics above and below the line.
    percentile
        values above this percentile of all units count as that percentile.
    """

    name: str
    form: MetricForm
    aggregate: EventAggregate | None = None
    after: int = 0
    ratio: tuple[str, str] | None = None
    percentile: float | None = None
    goal: Goal = Goal.INCREASE
    description: str = ""
    owner: str = ""
    tags: tuple[str, ...] = ()
    span: Span = field(default=NO_SPAN, compare=False, repr=False)

    @property
    def lasts(self) -> int | None:
        """Return how long after the exposure it is complete; None for a ratio, and if it is counted without end."""
        aggregate = self.aggregate
        return None if aggregate is None or aggregate.within is None else self.after + aggregate.within
