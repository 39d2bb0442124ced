"""The value of an event condition that cannot be determined, because too few of its events are kept: it is unknown."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from rules_engine.rules.nodes import Predicate
from rules_engine.rules.operators import OPERATORS


@dataclass(frozen=True, slots=True)
class Undecided:
    """Stands for the value of an aggregate over more events than are kept. It is not missing, but unknown.

    ``at_least`` is a lower bound of a count; None where nothing is known.
    """

    at_least: int | None = None


#: Nothing is known of the value.
UNDECIDED = Undecided()


def judge_undecided(predicate: Predicate, value: Undecided) -> bool | None:
    """Return the answer of a predicate if it is the same for every possible value; None if it is not.

    >>> from rules_engine.rules.nodes import ContextRef
    >>> often, seldom = (Predicate(ContextRef("n"), name, 900) for name in ("at_least", "less_than"))
    >>> judge_undecided(often, Undecided(1_000)), judge_undecided(seldom, Undecided(1_000))
    (True, False)
    >>> judge_undecided(often, UNDECIDED) is None
    True
    """
    if value.at_least is None:
        return None
    meaning, argument = OPERATORS[predicate.operator].meaning, predicate.argument
    answers = {meaning(number, argument, 0) for number in _samples(argument, value.at_least)}
    return answers.pop() if len(answers) == 1 else None


def _samples(argument: Any, least: int) -> set[int]:
    """Return numbers from ``least`` on: one from each range in which comparisons with the argument have one answer."""
    numbers = {least}
    for bound in argument if isinstance(argument, tuple) else (argument,):
        if isinstance(bound, int | float):
            numbers |= {math.floor(bound) + step for step in (-1, 0, 1, 2)}
    return {number for number in numbers if number >= least}
