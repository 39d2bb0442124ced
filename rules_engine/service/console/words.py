"""Say what a segment means in plain words.

>>> from rules_engine.rules.nodes import AllOf, FeatureRef, Predicate, Segment
>>> of_age, keen = (Predicate(FeatureRef("user", name), "at_least", 18) for name in ("age", "visits"))
>>> in_words(Program({"adults": Segment("adults", AllOf((of_age, keen)))}), "adults")
'user:age at least 18 and user:visits at least 18'
"""

from __future__ import annotations

from rules_engine.rules.explain import explain
from rules_engine.rules.explanation import Reason
from rules_engine.rules.inputs import Inputs
from rules_engine.rules.program import Program

_JOINED = {"all": " and ", "any": " or ", "none": " or "}


def in_words(program: Program, segment: str) -> str:
    """Return the condition of a segment as a sentence without its subject."""
    return _phrase(explain(program, segment, Inputs(), 0).reason, is_inside=False)


def _phrase(reason: Reason, *, is_inside: bool) -> str:
    if reason.text.startswith("in_segment "):
        return f"is in {reason.text.removeprefix('in_segment ')}"
    if not reason.children:
        return _leaf(reason)
    parts = [_phrase(child, is_inside=True) for child in reason.children]
    joined = _JOINED.get(reason.text, " and ").join(parts)
    if reason.text in ("none", "not"):
        return f"not ({joined})"
    return f"({joined})" if is_inside and len(parts) > 1 else joined


def _leaf(reason: Reason) -> str:
    """Return a condition with the operator in words; names and values stay as they are."""
    operator = (reason.threshold or "").partition(" ")[0]
    head, middle, tail = reason.text.partition(f" {operator} ") if operator else (reason.text, "", "")
    return f"{head}{middle.replace('_', ' ')}{tail}"
