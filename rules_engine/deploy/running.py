"""Refuses changes of a running experiment that would assign people anew while results go on as before."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from rules_engine.clock import format_instant
from rules_engine.errors import ProjectError
from rules_engine.rules.experiments.codec import decode_experiments
from rules_engine.rules.experiments.nodes import Experiment, Status


def check_running(before: Mapping[str, Any], after: Mapping[str, Any], now: int) -> None:
    """Compare the experiments that run at an instant with what is applied.

    Parameters
    ----------
    before, after
        definitions as read plans carry them.
    now
        in microseconds.

    Raises
    ------
    ProjectError
        if who is in which arm of one would change, and its phase does not.
    """
    applied: Mapping[str, Experiment] = {}
    with contextlib.suppress(ValueError):  # an earlier release wrote them
        applied = decode_experiments(before)
    for name, experiment in decode_experiments(after).items():
        earlier = applied.get(name)
        if earlier is None or earlier.status(now) is not Status.RUNNING or experiment.status(now) is not Status.RUNNING:
            continue
        changed = list(_changed(earlier, experiment))
        if changed and experiment.phase <= earlier.phase:
            assert earlier.start is not None
            raise ProjectError(
                f"the experiment `{name}` runs since {format_instant(earlier.start)}, and {' and '.join(changed)}: "
                "people would change arms in the middle of it",
                hint=f"write `phase: {earlier.phase + 1}`, so that everybody is assigned and counted anew; or stop it",
            )


def _changed(before: Experiment, after: Experiment) -> Iterator[str]:
    """Yield what differs of that by which people are assigned. More coverage moves nobody."""
    if [(arm.name, arm.weight) for arm in before.arms] != [(arm.name, arm.weight) for arm in after.arms]:
        yield "its arms or their weights change"
    elif before.arms != after.arms:
        yield "an arm serves another variant"
    if (before.seed, before.hash_version) != (after.seed, after.hash_version):
        yield "its seed or its hash changes"
    if after.coverage < before.coverage:
        yield "its coverage gets smaller"
    if before.exclusive != after.exclusive:
        yield "its part of the group changes"
