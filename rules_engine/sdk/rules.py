"""Answer by the rules of a read plan: pure computation on what was read from the store."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from rules_engine.clock import format_instant, from_micros, now_micros, to_micros
from rules_engine.errors import DataError, ProjectError, StoreDataError, UnknownNameError
from rules_engine.events.state.outlook import longest
from rules_engine.features.online.row_layout import RowLayouts
from rules_engine.features.online.selection import EntityFeatures
from rules_engine.read_plan import ReadPlan
from rules_engine.rules.decisions.choosing import Chooser, Course, choosers
from rules_engine.rules.decisions.codec import decode_decisions
from rules_engine.rules.decisions.nodes import with_decisions
from rules_engine.rules.experiments.codec import decode_experiments
from rules_engine.rules.inputs import Inputs
from rules_engine.rules.segments.codec import decode_program
from rules_engine.rules.settings.codec import decode_holdout
from rules_engine.rules.types import Kind, Value, ValueType, conform, from_feast_name
from rules_engine.rules.undecided import Undecided
from rules_engine.rules.walk import dependencies, mixes_events, walk
from rules_engine.sdk.assignment import Assignment, assignments_of
from rules_engine.sdk.membership import Membership
from rules_engine.sdk.row_rules import RowRules
from rules_engine.targets.index.rule_index import RuleIndex

if TYPE_CHECKING:
    from rules_engine.events.declarations.events_yaml import EventDeclarations
    from rules_engine.rules.decisions.explaining import DecisionExplanation
    from rules_engine.rules.explanation import Explanation
    from rules_engine.rules.load import Definitions
    from rules_engine.sdk.event_rules import EventRules, LazyState
    from rules_engine.sdk.request_scores import RequestScores

#: How many sets of asked segments are remembered.
_QUESTIONS_KEPT = 256


def encode_definitions(definitions: Definitions, declared: EventDeclarations | None = None) -> dict[str, Any]:
    """Return checked definitions, and the events that are declared, as the read plan carries them.

    Each kind is read back with the ``codec`` of its folder in :mod:`rules_engine.rules`.
    """
    from rules_engine.rules.kinds import KINDS

    content: dict[str, Any] = {}
    for kind in KINDS.values():
        content |= kind.encode(definitions.values.get(kind.name, {}))
    if declared is not None and (declared.events or declared.traits):
        from rules_engine.events.declarations.plan_data import encode_declarations

        content["events"] = encode_declarations(declared)
    return content


@dataclass(frozen=True, slots=True)
class Question:
    """Holds the segments that are asked for, and the features that the answer needs. ``segments`` is None for all.

    ``state_name`` is the name of the event state, if answering needs events. ``scored`` are the models whose scores are
    computed from the features. ``mixes_events`` tells that what events say is compared with other values.
    """

    segments: frozenset[str] | None
    features: tuple[str, ...]
    state_name: bytes | None = None
    scored: tuple[str, ...] = ()
    mixes_events: bool = False


@dataclass(frozen=True, slots=True)
class Inquiry:
    """Holds the decisions that are asked for, and what the conditions of their rules ask of the store."""

    choosers: tuple[Chooser, ...]
    question: Question


class Rules:
    """Answers by the definitions of a read plan. Immutable, and safe to share between threads.

    Raises
    ------
    ProjectError
        if the definitions in the plan cannot be read.
    """

    def __init__(self, plan: ReadPlan) -> None:
        self.plan = plan
        try:
            self.program = decode_program(plan.definitions["segments"])
            decisions = decode_decisions(plan.definitions)
            #: What decides on variants, by the name of the decision.
            self.choosers = choosers(
                decisions.values(), decode_experiments(plan.definitions), decode_holdout(plan.definitions)
            )
            #: The segments, and the conditions of decisions as hidden segments.
            self.conditions = with_decisions(self.program, decisions.values())
            #: The named windowed features. What reads events is loaded only where events are declared or asked for.
            self._windowed = {} if plan.definitions.get("events") is None else self.events.features
            self._scores = _scores(plan.definitions.get("models"))
            self._index = RuleIndex(self.conditions, by_answers=True)
            self._types = {
                f"{view.name}:{feature.name}": from_feast_name(feature.type)
                for view in plan.views
                for feature in view.features
            }
        except (AssertionError, AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            hint = "write it anew with `segments apply`"
            raise ProjectError(f"the definitions in the read plan cannot be read: {error}", hint=hint) from error
        #: None stands for all segments; without decisions, the index has no others.
        self._all = None if self.conditions is self.program else frozenset(self.program.names)
        self._questions: dict[frozenset[str] | None, Question] = {}
        self._inquiries: dict[tuple[str, ...], Inquiry] = {}
        self._layouts = RowLayouts(plan)
        self._row_rules: dict[frozenset[str] | None, RowRules] = {}

    @cached_property
    def events(self) -> EventRules:
        """Return what the rules need of events."""
        from rules_engine.sdk.event_rules import EventRules

        return EventRules(self.program, self.plan.definitions)

    def question(self, segments: Iterable[str] | None) -> Question:
        """Return what is asked, resolved once for each set of segments.

        Raises
        ------
        UnknownNameError
            if a segment does not exist.
        """
        if isinstance(segments, str):
            raise TypeError(f"segments is a list of names, and {segments!r} is one name: write [{segments!r}]")
        names = None if segments is None else frozenset(segments)
        question = self._questions.get(names)
        if question is None:
            if len(self._questions) >= _QUESTIONS_KEPT:
                self._questions.clear()
            question = self._questions[names] = self._question(names)
        return question

    def _question(self, names: frozenset[str] | None) -> Question:
        self.program.closure(() if names is None else sorted(names))  # refuses names of no segment
        return self._question_of(self._all if names is None else names)

    def _question_of(self, names: frozenset[str] | None) -> Question:
        """Return the question for segments, hidden ones among them; None is all that there are."""
        reached = self.conditions.closure(self.conditions.names if names is None else sorted(names))
        conditions = [self.conditions.segment(name).when for name in reached]
        mixed = any(mixes_events(node) for condition in conditions for node in walk(condition))
        needed = [dependencies(condition) for condition in conditions]
        features = sorted({feature for read in needed for feature in read.features})
        state_name = self.events.name if any(read.events for read in needed) else None
        if self._scores is None:
            return Question(names, tuple(features), state_name, mixes_events=mixed)
        scored = self._scores.among(features)
        return Question(names, tuple(self._scores.read_for(features)), state_name, scored, mixed)

    def now(self, at: datetime | None) -> int:
        """Return the instant that counts as now: the given one, the project's, or the clock's.

        Raises
        ------
        DataError
            if the given one has no offset.
        """
        if at is None:
            return now_micros() if self.plan.now is None else self.plan.now
        try:
            return to_micros(at)
        except ValueError as error:
            raise DataError(f"at: {error}", hint="e.g. datetime(2026, 1, 31, 9, tzinfo=UTC)") from None

    def on_rows(self, question: Question) -> RowRules | None:
        """Return the rules of a question on undecoded rows; None if it needs more than rows, or no rows."""
        if question.scored or question.mixes_events or not (question.features or question.state_name is not None):
            return None
        rules = self._row_rules.get(question.segments)
        if rules is None:
            if len(self._row_rules) >= _QUESTIONS_KEPT:
                self._row_rules.clear()
            rules = self._row_rules[question.segments] = self._made_row_rules(question)
        return rules

    def _made_row_rules(self, question: Question) -> RowRules:
        if question.state_name is None:
            return RowRules(self._index, question.segments, self._layouts.of(question.features))
        outlooks = self.events.outlooks
        layout = self._layouts.of(question.features, question.state_name, longest(len(outlooks.conditions)))
        return RowRules(self._index, question.segments, layout, outlooks)

    def membership(
        self, question: Question, features: EntityFeatures, context: Mapping[str, Any], now: int, at: datetime
    ) -> Membership:
        """Return which of the asked segments an entity is in; ``at`` is ``now`` as a datetime."""
        inputs = _inputs(self._filled(question.scored, features, now), context)
        events = None if question.state_name is None else self.events.values(features.event_state)
        segments = self._index.match(inputs, now, question.segments, events=events)
        if events is None:
            return Membership(features.entity, segments, at, lambda: self._change(question, inputs, None, now))
        return Membership(
            features.entity,
            segments,
            at,
            lambda: self._change(question, inputs, events, now),
            undecided=lambda: self._undecided(question, inputs, events, now),
        )

    def _change(self, question: Question, inputs: Inputs, events: LazyState | None, now: int) -> datetime | None:
        _, until = self._index.match_until(inputs, now, question.segments, events=events)
        return None if until is None else from_micros(until)

    def _undecided(self, question: Question, inputs: Inputs, events: LazyState, now: int) -> frozenset[str]:
        """Return the asked segments whose answer is unknown because more events came than are kept."""
        if events.is_whole:
            return frozenset()
        from rules_engine.rules.evaluate import Evaluation

        evaluation = Evaluation(self.conditions, replace(inputs, events=events.log()), now)
        names = self.program.names if question.segments is None else question.segments
        unknown = [name for name in names if evaluation.segment(name) is None]
        return frozenset(name for name in unknown if events.lacks(self.conditions, name, now))

    # --- decisions --------------------------------------------------------------------------------------------------

    def chooser(self, decision: str) -> Chooser:
        """Return what decides on the variants of a decision.

        Raises
        ------
        UnknownNameError
            if there is no such decision.
        """
        chooser = self.choosers.get(decision)
        if chooser is None:
            from rules_engine.diagnostics import listing, nearest

            some = f"there is {listing(self.choosers)}" if self.choosers else "no decision was applied"
            hint = "it is a segment: ask `lookup`" if decision in self.program.segments else None
            hint = hint or nearest(decision, self.choosers) or some
            raise UnknownNameError(f"there is no decision `{decision}`", hint=hint)
        return chooser

    def inquiry(self, decisions: Iterable[str] | None) -> Inquiry:
        """Return what some decisions ask of the store, all of them for None: the conditions of their rules.

        Raises
        ------
        UnknownNameError
            if a decision does not exist.
        """
        names = tuple(self.choosers) if decisions is None else tuple(decisions)
        inquiry = self._inquiries.get(names)
        if inquiry is None:
            if len(self._inquiries) >= _QUESTIONS_KEPT:
                self._inquiries.clear()
            choosers = tuple(map(self.chooser, names))
            conditions = frozenset[str]().union(*(chooser.conditions for chooser in choosers))
            question = self._question_of(conditions) if conditions else Question(conditions, ())
            inquiry = self._inquiries[names] = Inquiry(choosers, question)
        return inquiry

    def assignments(
        self, inquiry: Inquiry, features: EntityFeatures, context: Mapping[str, Any], now: int, at: datetime
    ) -> list[Assignment]:
        """Return which variants an entity gets; ``at`` is ``now`` as a datetime."""
        question = inquiry.question
        inputs = _inputs(self._filled(question.scored, features, now), context)
        events = None if question.state_name is None else self.events.values(features.event_state)
        index, names = self._index, question.segments
        course = Course(
            lambda instant: index.match(inputs, instant, names, events=events),
            lambda instant: index.match_until(inputs, instant, names, events=events)[1],
        )
        unknown = None if events is None else partial(self._undecided, question, inputs, events, now)
        return assignments_of(inquiry.choosers, features.entity, course, now, at, unknown)

    def explain(self, segment: str, features: EntityFeatures, context: Mapping[str, Any], now: int) -> Explanation:
        """Explain why an entity is, or is not, in a segment."""
        from rules_engine.rules.explain import explain

        question = self.question([segment])
        inputs = _inputs(self._filled(question.scored, features, now), context)
        if question.state_name is not None:
            events = self.events.log(features.event_state)
            inputs = replace(inputs, events=events, joined=events.joined)
        return explain(self.program, segment, inputs, now, features.entity)

    def explain_decision(
        self, decision: str, features: EntityFeatures, context: Mapping[str, Any], now: int
    ) -> DecisionExplanation:
        """Explain why an entity gets a variant."""
        from rules_engine.rules.decisions.explaining import explain_decision

        question = self.inquiry((decision,)).question
        inputs = _inputs(self._filled(question.scored, features, now), context)
        if question.state_name is not None:
            inputs = replace(inputs, events=self.events.log(features.event_state))
        return explain_decision(self.conditions, self.chooser(decision), inputs, now, features.entity)

    def sources(self, names: Iterable[str] | None) -> tuple[list[str] | None, bytes | None]:
        """Return what to read for some features: features of Feast (None is all), and the name of the event state."""
        if names is None:
            return None, self.events.name if self._windowed else None
        requested = list(names)
        stored = [name for name in requested if name not in self._windowed]
        state_name = self.events.name if len(stored) < len(requested) else None
        return stored if self._scores is None else self._scores.read_for(stored), state_name

    def _filled(self, models: tuple[str, ...], features: EntityFeatures, now: int) -> EntityFeatures:
        """Return what was read, with the scores that are computed from it."""
        return features if self._scores is None or not models else self._scores.filled(models, features, now)

    def features(self, names: Iterable[str] | None, stored: EntityFeatures, now: int) -> dict[str, Any]:
        """Return values as Python has them; None for what is missing or past its view's ttl."""
        names = list(names) if names is not None else None
        if self._scores is not None:
            stored = self._filled(self._scores.among(self._types if names is None else names), stored, now)
        expired = {view for view, expires_at in stored.expires_at.items() if now >= expires_at}
        values = {}
        events = self.events.values(stored.event_state) if self._windowed else None
        for name in [*self._types, *self._windowed] if names is None else names:
            if events is not None and name in self._windowed:
                aggregate = self._windowed[name]
                value = events.aggregate(aggregate, now)
                values[name] = (
                    None
                    if isinstance(value, Undecided)
                    else _public(name, conform(value, aggregate.type), aggregate.of_type)
                )
                continue
            missing = name.partition(":")[0] in expired
            values[name] = None if missing else _public(name, stored.values.get(name), self._types[name])
        return values


def _scores(content: Mapping[str, Any] | None) -> RequestScores | None:
    """Return the models that score within a request; what computes is loaded only where there are some."""
    if not content:
        return None
    from rules_engine.sdk.request_scores import RequestScores

    return RequestScores(content)


def _public(name: str, value: Value, value_type: ValueType | None) -> Any:
    if isinstance(value, tuple):
        return [_public(name, item, value_type) for item in value]
    if value is None or value_type is None or value_type.kind is not Kind.TIME:
        return value
    try:
        return from_micros(value)
    except OverflowError as error:
        raise StoreDataError(
            f"the store holds an instant {format_instant(value)} for the feature {name}; were milliseconds written?",
            hint="write seconds or timestamps into the source, then run `segments materialize --full`",
        ) from error


def _inputs(features: EntityFeatures, context: Mapping[str, Any]) -> Inputs:
    return Inputs(features.values, context, (), features.updated_at, features.expires_at, features.entity)
