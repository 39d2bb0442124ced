"""Predicates on features, context values, samples and the clock."""

from __future__ import annotations

from collections.abc import Iterable

from rules_engine.clock import LAST_INSTANT
from rules_engine.rules.buckets import bucket
from rules_engine.rules.changes import CLOCK_HORIZON
from rules_engine.rules.local_time import crossings, local_time
from rules_engine.rules.nodes import (
    BucketRef,
    ClockField,
    ClockRef,
    ContextRef,
    FeatureRef,
    Predicate,
)
from rules_engine.rules.operators import OPERATORS
from rules_engine.rules.predicates import context_value, predicate_truth
from rules_engine.rules.types import STRING, Value, conform
from rules_engine.targets.stepwise.view import FOREVER, Answer, Check, View


def _lasts(predicate: Predicate, value: Value, now: int, until: int) -> int:
    """Return the instant until which a predicate keeps its answer on a value that lasts until ``until``."""
    boundaries = OPERATORS[predicate.operator].boundaries
    if boundaries is None or value is None:
        return until
    return min(until, next((at for at in boundaries(value, predicate.argument, now) if at > now), until))


def check_feature(predicate: Predicate, ref: FeatureRef, positive: bool) -> Check:
    """Return the check of a predicate on a feature."""
    value_type = predicate.operand_type

    def answer(view: View, now: int) -> Answer:
        raw, until = view.feature(ref, now)
        value = conform(raw, value_type)
        return predicate_truth(predicate, value, now) is positive, _lasts(predicate, value, now, until)

    return answer


def check_context(predicate: Predicate, ref: ContextRef, positive: bool) -> Check:
    """Return the check of a predicate on a context value: its default, as there is no request."""
    value = context_value(ref, predicate.operand_type, {})

    def answer(_view: View, now: int) -> Answer:
        return predicate_truth(predicate, value, now) is positive, _lasts(predicate, value, now, FOREVER)

    return answer


def check_bucket(predicate: Predicate, ref: BucketRef, positive: bool) -> Check:
    """Return the check of a predicate on the bucket of the entity."""

    def answer(view: View, now: int) -> Answer:
        value = None if view.entity is None else bucket(ref.seed, view.entity)
        return predicate_truth(predicate, value, now) is positive, FOREVER

    return answer


def check_clock(predicate: Predicate, clock: ClockRef, positive: bool) -> Check:
    """Return the check of a predicate on the local time."""
    times = {0, *_times_of_day(predicate, clock)}

    def read(zone: str, at: int) -> Value:
        local = local_time(at, zone)
        return None if local is None else local[0] if clock.field is ClockField.TIME_OF_DAY else local[1]

    def holds(zone: str, at: int) -> bool:
        return predicate_truth(predicate, conform(read(zone, at), predicate.operand_type), at) is positive

    def answer(view: View, now: int) -> Answer:
        zone, until = (
            (clock.timezone, FOREVER) if isinstance(clock.timezone, str) else view.feature(clock.timezone, now)
        )
        zone = conform(zone, STRING)
        if zone is None or read(zone, now) is None:
            return predicate_truth(predicate, None, now) is positive, until
        first = holds(zone, now)
        last = min(now + CLOCK_HORIZON, LAST_INSTANT)
        change = next((at for at in crossings(now, last, zone, times) if at >= until or holds(zone, at) != first), last)
        return first, min(until, change)

    return answer


def _times_of_day(predicate: Predicate, clock: ClockRef) -> Iterable[int]:
    if clock.field is not ClockField.TIME_OF_DAY:
        return ()
    argument = predicate.argument
    times = argument if isinstance(argument, tuple) else (argument,)
    return [at for time in times for at in (time, time + 1)]
