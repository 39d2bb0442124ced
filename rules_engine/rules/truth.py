"""Kleene's three-valued "and", "or" and "not" of answers: True, False, or None for unknown."""

from __future__ import annotations

from collections.abc import Sequence as Many

from rules_engine.rules.predicates import Truth


def all_of(answers: Many[Truth]) -> Truth:
    """Return Kleene's "and" of answers.

    >>> all_of([True, None]), all_of([None, False]), all_of([True, True])
    (None, False, True)
    """
    if False in answers:
        return False
    return None if None in answers else True


def any_of(answers: Many[Truth]) -> Truth:
    """Return Kleene's "or" of answers.

    >>> any_of([False, None]), any_of([None, True]), any_of([False, False])
    (None, True, False)
    """
    if True in answers:
        return True
    return None if None in answers else False


def negate(answer: Truth) -> Truth:
    """Return Kleene's "not" of an answer.

    >>> negate(None) is None
    True
    """
    return None if answer is None else not answer
