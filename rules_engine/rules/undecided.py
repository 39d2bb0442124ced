"""The value of an event condition of which too few events are kept to tell it: neither true nor false, but unknown."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from rules_engine.rules.nodes import Predicate
from rules_engine.rules.operators import OPERATORS


@dataclass(frozen=True, slots=True)
class Undecided:
    """Stands for the value of an aggregate over more events than are kept. It is not missing: it is not known.

    ``at_least`` is what a count is at least; None where nothing is known.
    """

    at_least: int | None = None


#: Nothing is known of the value.
UNDECIDED = Undecided()


def judge_undecided(predicate: Predicate, value: Undecided) -> bool | None:
    """Return what the predicate says of every value that it could be; None if it says both.

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
    answers = {meaning(number, argument, 0) for number in _told_apart(argument, value.at_least)}
    return answers.pop() if len(answers) == 1 else None


def _told_apart(argument: Any, least: int) -> set[int]:
    """Return whole numbers from ``least`` on: one of each stretch in which comparing with the argument is the same."""
    found = {least}
    for bound in argument if isinstance(argument, tuple) else (argument,):
        if isinstance(bound, int | float):
            found |= {math.floor(bound) + step for step in (-1, 0, 1, 2)}
    return {number for number in found if number >= least}
