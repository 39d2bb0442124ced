"""A program as one query: features and events are read once, shared parts computed once, segments are columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, assert_never

from sqlglot import exp

from rules_engine.clock import format_instant
from rules_engine.errors import UnsupportedError
from rules_engine.rules.local_time import local_time
from rules_engine.rules.nodes import (
    AllOf,
    AnyOf,
    BucketRef,
    Calculation,
    ClockField,
    ClockRef,
    Condition,
    ContextRef,
    EventAggregate,
    EventTime,
    FeatureRef,
    Not,
    Operand,
    Predicate,
    PropertyRef,
    SegmentRef,
    TwoSides,
)
from rules_engine.rules.nodes import Sequence as SequenceNode
from rules_engine.rules.predicates import context_value, predicate_truth
from rules_engine.rules.program import Program
from rules_engine.rules.types import FLOAT, Value, ValueType, conform
from rules_engine.rules.walk import children, segment_references, walk
from rules_engine.targets.sql.aggregates import AggregateSteps
from rules_engine.targets.sql.arithmetic import as_double, computed_of
from rules_engine.targets.sql.comparisons import constant_forms, lower_comparison, with_default
from rules_engine.targets.sql.engines import Engine
from rules_engine.targets.sql.events import EventSteps, Joined, Step
from rules_engine.targets.sql.expressions import (
    Sql,
    aliased,
    all_of,
    any_of,
    case,
    column,
    compare,
    join,
    negation,
    own,
    select,
    table,
    truth,
)
from rules_engine.targets.sql.features import FeatureStep
from rules_engine.targets.sql.lowering import lower_predicate
from rules_engine.targets.sql.names import UniqueNames
from rules_engine.targets.sql.sequences import SequenceSteps
from rules_engine.targets.sql.tables import ENTITY, Tables
from rules_engine.targets.sql.values import Stored, readable
from rules_engine.targets.sql.zones import ZoneStep


class Compiler:
    """Writes the query for some segments of a program at an instant.

    Parameters
    ----------
    labels
        the names of columns, by segment, where they differ from the segment's.
    context
        context values that are the same for every entity.
    """

    def __init__(
        self,
        engine: Engine,
        program: Program,
        segments: Sequence[str],
        tables: Tables,
        now: int,
        context: Mapping[str, Value],
        labels: Mapping[str, str] | None = None,
    ) -> None:
        self._engine = engine
        self._program = program
        self._segments = segments
        self._tables = tables
        self._now = now
        self._context = context
        self._order = program.closure(segments)
        self._labels = {name: (labels or {}).get(name, name) for name in self._order}
        names = UniqueNames([*self._labels.values(), ENTITY, tables.features, tables.events])
        self._names = names
        self._features = FeatureStep(engine, tables, now)
        self._events = EventSteps(engine, tables, now, names)
        self._aggregates = AggregateSteps(self._events)
        self._sequences = SequenceSteps(self._events)
        self._zones = ZoneStep(engine, now, names)
        self._shared: dict[Predicate, tuple[str, Sql]] = {}

    # --- the query --------------------------------------------------------------------------------------------------

    def query(self) -> exp.Expr:
        """Return the whole query."""
        self._check_labels()
        self._share_predicates()
        answers = {name: self._condition(self._program.segment(name).when) for name in self._order}
        base, steps = self._source_steps()
        if self._shared:
            shared = [aliased(sql, name, comment=str(predicate)) for predicate, (name, sql) in self._shared.items()]
            steps.append(Step(self._names.unique("predicates"), select(exp.Star(), *shared, source=table(base))))
            base = steps[-1].name
        steps += self._segment_levels(base, answers)
        last = steps.pop()
        ctes = [_cte(step) for step in steps]
        last.query.set("with_", exp.With(expressions=ctes))
        return last.query

    def _source_steps(self) -> tuple[str, list[Step]]:
        """Return the name of the step that holds all operands, and the steps of features, events and their join."""
        base = self._names.unique("known_features")
        parts = [*self._aggregates.joined(), *self._sequences.joined()]
        joined = [part for part in parts if isinstance(part, Joined)]
        steps = [
            Step(base, self._features.query(), "what is known of each entity; NaN and what is past its ttl is missing")
        ]
        steps += self._events.steps()
        steps += [part.step if isinstance(part, Joined) else part for part in parts]
        if not joined and not self._zones.used:
            return base, steps
        query = select(_all_columns(base), *(each for part in joined for each in part.columns), source=table(base))
        for part in joined:
            on = compare(exp.EQ, column(ENTITY, part.step.name), column(ENTITY, base))
            join(query, table(part.step.name), on, "LEFT")
        if self._zones.used:
            steps.append(self._zones.step())
            self._zones.join_to(query, base)
        operands = self._names.unique("operands")
        return operands, [*steps, Step(operands, query)]

    def _segment_levels(self, base: str, answers: Mapping[str, Sql]) -> Iterator[Step]:
        """Yield the steps of the segments: a segment comes in a later step than those that it refers to."""
        levels: dict[str, int] = {}
        for name in self._order:
            references = segment_references(self._program.segment(name).when)
            levels[name] = max((levels[each] + 1 for each in references), default=0)
        deepest = max(levels.values(), default=0)
        for level in range(deepest):
            columns = [self._answer(name, answers[name]) for name in self._order if levels[name] == level]
            step = Step(self._names.numbered("segments"), select(exp.Star(), *columns, source=table(base)))
            yield step
            base = step.name
        last = [
            self._answer(name, answers[name]) if levels[name] == deepest else column(self._labels[name])
            for name in self._segments
        ]
        yield Step("", select(column(ENTITY), *last, source=table(base)))

    def _answer(self, name: str, answer: Sql) -> Sql:
        return aliased(answer, self._labels[name], quoted=True)

    def _check_labels(self) -> None:
        """Refuse names that are equal to the engine."""
        claimed: dict[str, str] = {}
        for name in (ENTITY, *self._labels.values()):
            self._engine.claim_name(name, claimed)
        most = self._engine.max_columns
        if most is not None and len(claimed) > most:
            raise UnsupportedError(
                f"{self._engine.name}: a table has at most {most} columns, and these are {len(claimed)}",
                hint="ask for fewer at a time",
            )

    def _share_predicates(self) -> None:
        conditions = [self._program.segment(name).when for name in self._order]
        counts = Counter(node for condition in conditions for node in walk(condition) if isinstance(node, Predicate))
        for predicate, count in counts.items():
            if count > 1:
                self._shared[predicate] = self._names.numbered("predicate"), self._predicate(predicate)

    # --- conditions -------------------------------------------------------------------------------------------------

    def _condition(self, condition: Condition) -> Sql:
        match condition:
            case AllOf():
                return all_of([self._condition(child) for child in children(condition)])
            case AnyOf():
                return any_of([self._condition(child) for child in children(condition)])
            case Not():
                return negation(self._condition(condition.condition))
            case SequenceNode():
                return self._sequences.sequence(condition)
            case SegmentRef():
                return column(self._labels[condition.name])
            case Predicate():
                return own(self._shared[condition][0]) if condition in self._shared else self._predicate(condition)
            case _:
                assert_never(condition)

    def _predicate(self, predicate: Predicate) -> Sql:
        operand, folded = predicate.operand, predicate.ignore_case and predicate.operator != "matches"
        match operand:
            case FeatureRef():
                return self._lowered(predicate, self._features.feature(operand, folded))
            case EventAggregate():
                return self._lowered(predicate, self._aggregates.aggregate(operand))
            case ContextRef():
                return self._context_predicate(predicate, operand, folded)
            case BucketRef():
                return self._lowered(predicate, self._features.bucket(operand.seed))
            case ClockRef():
                return self._clock_predicate(predicate, operand)
            case TwoSides():
                return lower_comparison(self._engine, predicate, operand, self._forms)
            case Calculation(operation, terms):
                numbers = [as_double(self._engine, readable(self._forms(term, FLOAT), FLOAT)) for term in terms]
                return self._lowered(predicate, [Stored(FLOAT, computed_of(self._engine, operation, numbers))])
            case PropertyRef() | EventTime():
                raise TypeError(f"{operand} is read outside `where`")
            case _:
                assert_never(operand)

    def _forms(self, operand: Operand, value_type: ValueType | None) -> list[Stored]:
        """Return the forms of a side of a comparison."""
        match operand:
            case FeatureRef():
                return self._features.feature(operand)
            case EventAggregate():
                return self._aggregates.aggregate(operand)
            case ContextRef() if operand.name in self._tables.context_columns:
                default = constant_forms(self._engine, operand.default, value_type)
                is_given = self._features.context_given(operand.name)
                return with_default(is_given, self._features.context(operand.name), default)
            case ContextRef():
                value = context_value(operand, value_type, self._context)
                return constant_forms(self._engine, value, value_type)
        raise TypeError(f"{operand} is no side of a comparison")

    def _lowered(self, predicate: Predicate, values: list[Stored]) -> Sql:
        return lower_predicate(self._engine, self._now, predicate, values)

    def _constant(self, predicate: Predicate, value: Any) -> Sql:
        """Return the answer on a value that is the same for all entities."""
        return truth(predicate_truth(predicate, conform(value, predicate.operand_type), self._now))

    def _context_predicate(self, predicate: Predicate, operand: ContextRef, folded: bool) -> Sql:
        if operand.name not in self._tables.context_columns:
            return self._constant(predicate, context_value(operand, predicate.operand_type, self._context))
        is_given = self._features.context_given(operand.name)
        answer = self._lowered(predicate, self._features.context(operand.name, folded))
        return case((is_given, answer), default=self._constant(predicate, operand.default))

    def _clock_predicate(self, predicate: Predicate, operand: ClockRef) -> Sql:
        if isinstance(operand.timezone, str):
            local = local_time(self._now, operand.timezone)
            if local is None:
                return self._constant(predicate, None)
            return self._constant(predicate, local[0] if operand.field is ClockField.TIME_OF_DAY else local[1])
        zones = self._features.feature(operand.timezone)
        return self._lowered(predicate, self._zones.local(operand.field, zones))


def _all_columns(name: str) -> Sql:
    return exp.Column(this=exp.Star(), table=exp.to_identifier(name))


def _cte(step: Step) -> exp.CTE:
    if step.comment:
        step.query.add_comments([f" {' '.join(step.comment.split())} "])
    return exp.CTE(this=step.query, alias=exp.TableAlias(this=exp.to_identifier(step.name)))


def header(program: Program, segments: Sequence[str], now: int, dialect: str) -> str:
    """Return the comment above the query: what it answers, and for which segments."""
    lines = [f"Segments as of {format_instant(now)}, in {dialect}: TRUE, FALSE, or NULL for unknown"]
    for name in segments:
        description = " ".join(program.segment(name).description.split())
        lines.append(f"  {name}: {description}" if description else f"  {name}")
    return "".join(f"-- {' '.join(line.splitlines())}\n" for line in lines)
