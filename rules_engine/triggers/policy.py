"""Decides what keeps a due trigger from firing: holdout, quiet hours, cooldown, cap, frequency. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rules_engine.clock import DAY
from rules_engine.rules.buckets import bucket
from rules_engine.rules.local_time import crossings, local_time
from rules_engine.rules.settings.nodes import Frequency
from rules_engine.rules.triggers.nodes import QuietHours, Trigger

#: No zone repeats or skips more than a day, so the next end of quiet hours is not further away.
_LONGEST_NIGHT = 3 * DAY


def is_held_out(trigger: Trigger, entity: str) -> bool:
    """Say whether the trigger's holdout includes an entity. The answer is always the same.

    >>> from rules_engine.rules.triggers.nodes import OnEnter
    >>> mail = Trigger("mail", OnEnter("vip"), (), holdout=1_000, holdout_seed="mail")
    >>> sum(is_held_out(mail, str(number)) for number in range(10_000))
    1021
    """
    return trigger.holdout > 0 and bucket(trigger.holdout_seed or trigger.name, entity) < trigger.holdout


def is_quiet(hours: QuietHours, zone: str, at: int) -> bool | None:
    """Return whether an instant lies in the quiet hours of a zone; None if there is no such zone.

    >>> from rules_engine.clock import HOUR
    >>> night = QuietHours(21 * HOUR, 8 * HOUR, "UTC")
    >>> [is_quiet(night, "UTC", hour * HOUR) for hour in (7, 8, 20, 21)], is_quiet(night, "Mars/Olympus", 0)
    ([True, False, False, True], None)
    """
    local = local_time(at, zone)
    if local is None:
        return None
    time = local[0]
    if hours.start <= hours.end:
        return hours.start <= time < hours.end
    return time >= hours.start or time < hours.end


def quiet_until(hours: QuietHours, zone: str, at: int) -> int:
    """Return the first instant after ``at`` that is not quiet; ``at`` must be quiet.

    On a day on which clocks are changed, that may be the change itself, if the end of the quiet hours does not occur.

    >>> from rules_engine.clock import HOUR
    >>> quiet_until(QuietHours(21 * HOUR, 8 * HOUR, "UTC"), "UTC", 22 * HOUR) // HOUR
    32
    """
    boundaries = crossings(at, at + _LONGEST_NIGHT, zone, (hours.end,))
    return next(instant for instant in boundaries if not is_quiet(hours, zone, instant))


def is_cooling(trigger: Trigger, fired: Sequence[int], at: int) -> bool:
    """Return whether the trigger fired for this entity less than its cooldown ago."""
    return trigger.cooldown is not None and bool(fired) and fired[-1] > at - trigger.cooldown


def is_capped(trigger: Trigger, fired: Sequence[int], at: int) -> bool:
    """Return whether the trigger fired for this entity as often as its cap allows."""
    if trigger.cap is None or len(fired) < trigger.cap.max:
        return False
    return fired[-trigger.cap.max] > at - trigger.cap.per


def is_too_frequent(limits: Iterable[Frequency], fired: Mapping[str, Sequence[int]], at: int) -> bool:
    """Return whether triggers that are limited together fired for this entity as often as one of the limits allows.

    >>> weekly = Frequency(2, 60, tag="email")
    >>> [is_too_frequent([weekly], {"of:tag:email": (1, 30)}, at) for at in (60, 61)]
    [True, False]
    """
    for limit in limits:
        counted = fired.get(limit.counted_as, ())
        if len(counted) >= limit.max and counted[-limit.max] > at - limit.per:
            return True
    return False


def remembered_together(
    limits: Iterable[Frequency], fired: Mapping[str, Sequence[int]], at: int
) -> dict[str, tuple[int, ...]]:
    """Return by key of a limit the instants of firing that the limits with this key need, including ``at``."""
    by_key: dict[str, list[Frequency]] = {}
    for limit in limits:
        by_key.setdefault(limit.counted_as, []).append(limit)
    instants = {}
    for key, together in by_key.items():
        start, number = at - max(limit.per for limit in together), max(limit.max for limit in together)
        instants[key] = (*(instant for instant in fired.get(key, ()) if instant > start), at)[-number:]
    return instants


def remembered(trigger: Trigger, fired: Sequence[int], at: int) -> tuple[int, ...]:
    """Return the instants of firing that cooldown and cap need, including ``at``.

    >>> from rules_engine.rules.triggers.nodes import Cap, OnEnter
    >>> mail = Trigger("mail", OnEnter("vip"), (), cap=Cap(3, 60))
    >>> remembered(mail, (1, 30, 40), 50), remembered(mail, (1, 30), 70)
    ((30, 40, 50), (30, 70))
    """
    number = 1 if trigger.cooldown is not None else 0
    start = at - (trigger.cooldown or 0)
    if trigger.cap is not None:
        number, start = max(number, trigger.cap.max), min(start, at - trigger.cap.per)
    recent = [instant for instant in fired if instant > start]
    return (*recent, at)[-number:] if number else ()
