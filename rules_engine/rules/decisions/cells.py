"""A decision at an instant as conditions in order, the first true one of which says the variant: for batch and SQL.

What :mod:`rules_engine.rules.decisions.choosing` computes of one entity, its bucket among it, is a condition here. So
every target that answers conditions decides, with nothing of its own but "the first that is true".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rules_engine.errors import UnsupportedError
from rules_engine.rules.allocation import Allocation
from rules_engine.rules.decisions.choosing import HOLDOUT_SEED, Chooser
from rules_engine.rules.decisions.nodes import ExperimentRef, Rule, Serve
from rules_engine.rules.experiments.nodes import Experiment, Status
from rules_engine.rules.nodes import AllOf, AnyOf, BucketRef, Condition, Predicate, Segment
from rules_engine.rules.program import Program
from rules_engine.rules.types import INTEGER


@dataclass(frozen=True, slots=True)
class Cell:
    """A condition, as a hidden segment, and the variant of those for whom it is the first that is true."""

    segment: Segment
    variant: str

    @property
    def name(self) -> str:
        """Return the name of the hidden segment."""
        return self.segment.name


def cells_of(chooser: Chooser, now: int) -> list[Cell]:
    """Return the cells of a decision at an instant; who is in none gets the default.

    Raises
    ------
    UnsupportedError
        if an experiment that runs divides by version 1 of the hash, which conditions do not have.

    >>> from rules_engine.rules.decisions.nodes import Decision, Split, Variant
    >>> rules = (Rule(Split("s", ("a", "b"), (0.5, 0.5))),)
    >>> decision = Decision("d", (Variant("a", "1"), Variant("b", "2")), rules, "a", "number")
    >>> for cell in cells_of(Chooser(decision), now=0):
    ...     print(cell.variant, *cell.segment.when.conditions, sep=", ")
    a, bucket by s at_least 0, bucket by s less_than 5000
    b, bucket by s at_least 5000, bucket by s less_than 10000
    """
    cells = []
    for number, rule in enumerate(chooser.decision.rules, 1):
        for part, (conditions, variant) in enumerate(_parts(chooser, rule, now), 1):
            name = f"decision.{chooser.decision.name}.rule_{number}.{part}"
            every = (*(() if rule.when is None else (rule.when,)), *conditions)
            cells.append(Cell(Segment(name, AllOf(every or (_anybody(),)), span=rule.span), variant))
    return cells


def with_cells(program: Program, cells: Sequence[Cell]) -> Program:
    """Return the segments together with cells."""
    return Program({**program.segments, **{cell.name: cell.segment for cell in cells}})


#: Conditions that must hold beside that of the rule, and the variant that is served then.
_Part = tuple[tuple[Condition, ...], str]


def _parts(chooser: Chooser, rule: Rule, now: int) -> Iterator[_Part]:
    serve = rule.serve
    if isinstance(serve, Serve):
        yield (), serve.variant
    elif isinstance(serve, ExperimentRef):
        yield from _of_experiment(chooser.experiments[serve.name], chooser.holdout, now)
    else:
        yield from _of_allocation(serve.allocation)


def _of_experiment(experiment: Experiment, holdout: int, now: int) -> Iterator[_Part]:
    status = experiment.status(now)
    if status is Status.DRAFT:
        return
    taking_part = (_at_least(HOLDOUT_SEED, holdout),) if holdout else ()
    if status is not Status.RUNNING:
        yield taking_part, experiment.served_after().serve
        return
    if experiment.exclusive is not None or experiment.hash_version != 2:
        raise UnsupportedError(
            f"`{experiment.name}` divides by version 1 of the hash, which is not said in batch and SQL",
            hint="ask for each user with `client.decide_many`",
        )
    served = {arm.name: arm.serve for arm in experiment.arms}
    for conditions, arm in _of_allocation(experiment.allocation):
        yield (*taking_part, *conditions), served[arm]


def _of_allocation(allocation: Allocation) -> Iterator[_Part]:
    for name, (start, end) in zip(allocation.names, allocation.bounds, strict=True):
        if start < end:
            bucket = BucketRef(allocation.seed)
            yield (_at_least(allocation.seed, start), Predicate(bucket, "less_than", end, INTEGER)), name


def _at_least(seed: str, bucket: int) -> Predicate:
    return Predicate(BucketRef(seed), "at_least", bucket, INTEGER)


def _anybody() -> Condition:
    return AnyOf((_at_least(HOLDOUT_SEED, 0),))
