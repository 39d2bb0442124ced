"""The compiled rule index: all segments of one entity in one pass over the operands, not over the rules.

Every segment is written as alternatives of conjunctions, every conjunction has one bit, and every operand has a table
from its value to the mask of the conjunctions that allow the value. The "and" of the masks leaves the conjunctions that
are true. So the cost depends on the number of operands. Operands that cost more than a table look-up (the clock,
regular expressions, events) come last, and only while a conjunction that mentions them is still alive.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING, TypeVar

from rules_engine.rules.inputs import Inputs
from rules_engine.rules.program import Program
from rules_engine.targets.index.event_values import EventValues, LoggedEvents
from rules_engine.targets.index.layout import lay_out
from rules_engine.targets.index.normal_form import normalize
from rules_engine.targets.index.plan import Plan, look_late, make_plan
from rules_engine.targets.index.request import Request, unexpired
from rules_engine.targets.index.tables import Table, build_tables
from rules_engine.targets.index.texts import Strings, group_strings

#: The number of sets of segments whose plans are kept.
_MAX_PLANS = 256

if TYPE_CHECKING:
    from rules_engine.targets.index.moments import TimedPlan

_Plan = TypeVar("_Plan", Plan, "TimedPlan")


class RuleIndex:
    """All segments of a program, compiled. Immutable, and safe to share between threads.

    Parameters
    ----------
    program
        what is compiled.
    by_answers
        whether event conditions are looked up by their answers, not by the values that they compare: for who knows the
        answers already (:mod:`rules_engine.targets.index.foreseen`).

    Attributes
    ----------
    program
        the program that was compiled.
    layout, tables
        the result, for :mod:`rules_engine.targets.columns.column_index`.

    >>> from rules_engine.rules.nodes import FeatureRef, Predicate, Segment
    >>> from rules_engine.rules.types import INTEGER
    >>> adult = Segment("adult", Predicate(FeatureRef("user", "age"), "at_least", 18, INTEGER))
    >>> index = RuleIndex(Program({"adult": adult}))
    >>> index.match(Inputs({"user:age": 40}), now=0)
    frozenset({'adult'})
    """

    def __init__(self, program: Program, *, by_answers: bool = False) -> None:
        self.program = program
        self.layout = lay_out(normalize(program, by_answers=by_answers))
        self.tables = tuple(build_tables(self.layout))
        self._strings = group_strings(self.tables)
        self._plan = make_plan(self.layout.everything, self.tables, self._strings)
        self._plans: dict[frozenset[str] | None, Plan] = {}
        self._timed_plans: dict[frozenset[str] | None, TimedPlan] = {}

    def match(
        self,
        inputs: Inputs,
        now: int,
        segments: Collection[str] | None = None,
        *,
        events: EventValues | None = None,
    ) -> frozenset[str]:
        """Return the names of exactly the segments whose answer is true.

        Parameters
        ----------
        now
            in microseconds.
        segments
            the only segments to evaluate; None for all.
        events
            the values of event conditions, if not from ``inputs.events``.

        Raises
        ------
        UnknownNameError
            if one of ``segments`` does not exist.
        """
        plan = self._plan if segments is None else self._of(frozenset(segments), self._plans, make_plan)
        features = unexpired(inputs, now)
        alive = plan.alive(features, inputs.context, now)
        if alive and plan.late:
            request = Request(features, inputs.context, events or LoggedEvents(inputs.events), now, inputs.entity)
            alive = look_late(alive, plan.late, request)
        return self.layout.names_of(self.layout.fold(alive))

    def match_until(
        self,
        inputs: Inputs,
        now: int,
        segments: Collection[str] | None = None,
        *,
        events: EventValues | None = None,
    ) -> tuple[frozenset[str], int | None]:
        """Match as :meth:`match`; return also the first instant at which the set changes without new data, or None.

        >>> from rules_engine.rules.nodes import FeatureRef, Predicate, Segment
        >>> from rules_engine.rules.types import TIME
        >>> fresh = Segment("fresh", Predicate(FeatureRef("user", "signup"), "in_last", 10, TIME))
        >>> RuleIndex(Program({"fresh": fresh})).match_until(Inputs({"user:signup": 100}), now=105)
        (frozenset({'fresh'}), 110)
        """
        from rules_engine.targets.index.moments import make_timed_plan, members_until  # plain lookups do without

        plan = self._of(None if segments is None else frozenset(segments), self._timed_plans, make_timed_plan)
        folded, until = members_until(self.layout, plan, inputs, now, events or LoggedEvents(inputs.events))
        return self.layout.names_of(folded), until

    def _of(
        self,
        segments: frozenset[str] | None,
        plans: dict[frozenset[str] | None, _Plan],
        make: Callable[[int, Iterable[Table], Strings], _Plan],
    ) -> _Plan:
        """Return the plan for some segments; each is made once."""
        plan = plans.get(segments)
        if plan is None:
            for name in segments or ():
                self.program.segment(name)
            start = self.layout.everything if segments is None else self.layout.bits_of(segments)
            plan = make(start, self.tables, self._strings)
            if len(plans) >= _MAX_PLANS:
                plans.clear()
            plans[segments] = plan
        return plan
