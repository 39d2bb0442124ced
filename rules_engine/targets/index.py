"""The compiled rule index: all segments of one user in one pass over the operands, not over the rules.

Every segment is written as alternatives of conjunctions, every conjunction has one bit, and every operand has a table
from its value to the mask of the conjunctions that allow it. The "and" of the masks leaves the conjunctions that are
true. So the cost follows the number of operands. Operands that cost more than a look into a table (the clock, regular
expressions, events) come last, and only while a conjunction that mentions them is still alive.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import cached_property

from rules_engine.rules.inputs import Inputs
from rules_engine.rules.program import Program
from rules_engine.targets.event_values import EventValues, LoggedEvents
from rules_engine.targets.layout import lay_out
from rules_engine.targets.normal_form import normalize
from rules_engine.targets.plan import Plan, look_late, make_plan
from rules_engine.targets.request import Request, unexpired
from rules_engine.targets.tables import build_tables

#: How many sets of asked segments keep their plan.
_MAX_PLANS = 256


class RuleIndex:
    """All segments of a program, compiled. Immutable, and safe to share between threads.

    >>> from rules_engine.rules.nodes import FeatureRef, Predicate, Segment
    >>> from rules_engine.rules.types import INTEGER
    >>> adult = Segment("adult", Predicate(FeatureRef("user", "age"), "at_least", 18, INTEGER))
    >>> index = RuleIndex(Program({"adult": adult}))
    >>> index.match(Inputs({"user:age": 40}), now=0)
    frozenset({'adult'})
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        self._layout = lay_out(normalize(program))
        self._tables = tuple(build_tables(self._layout))
        self._plan = make_plan(self._layout.everything, self._tables)
        self._plans: dict[frozenset[str], Plan] = {}

    def match(
        self,
        inputs: Inputs,
        now: int,
        segments: Collection[str] | None = None,
        *,
        events: EventValues | None = None,
    ) -> frozenset[str]:
        """The names of exactly the segments whose answer is true.

        Parameters
        ----------
        now
            in microseconds.
        segments
            the only ones to look at; None for all.
        events
            what the events say, where something else than ``inputs.events`` knows it.

        Raises
        ------
        UnknownNameError
            if a segment that is asked for does not exist.
        """
        plan = self._plan if segments is None else self._plan_of(frozenset(segments))
        features = unexpired(inputs, now)
        alive = plan.alive(features, inputs.context, now)
        if alive and plan.late:
            request = Request(features, inputs.context, events or LoggedEvents(inputs.events), now)
            alive = look_late(alive, plan.late, request)
        return self._layout.names_of(self._layout.fold(alive))

    def _plan_of(self, segments: frozenset[str]) -> Plan:
        plan = self._plans.get(segments)
        if plan is None:
            for name in segments:
                self.program.segment(name)
            plan = make_plan(self._layout.bits_of(segments), self._tables)
            if len(self._plans) >= _MAX_PLANS:
                self._plans.clear()
            self._plans[segments] = plan
        return plan

    @cached_property
    def never_true(self) -> frozenset[str]:
        """The segments that no input can fulfil, as far as their own conditions contradict each other.

        >>> from rules_engine.rules.nodes import AllOf, FeatureRef, Predicate, Segment
        >>> from rules_engine.rules.types import STRING
        >>> country = FeatureRef("user", "country")
        >>> both = AllOf(tuple(Predicate(country, "equals", name, STRING) for name in ("NO", "SE")))
        >>> RuleIndex(Program({"both": Segment("both", both)})).never_true
        frozenset({'both'})
        """
        return frozenset(self.program.names) - frozenset(self._layout.names)

    @cached_property
    def never_false(self) -> frozenset[str]:
        """The segments that no input can make false: for each, it is true or unknown."""
        negations = normalize(self.program, positive=False)
        return frozenset(name for name, found in negations.segments.items() if not found)
