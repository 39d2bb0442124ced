"""The steps of the demo that have no command of their own: build offline data, and look up all customers' segments."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rules_engine.errors import DataError, ProjectError
from rules_engine.folders import Project
from rules_engine.rules.walk import dependencies
from rules_engine.sdk import SegmentClient

#: The number of customers in one round trip.
_BATCH = 1000


@dataclass(frozen=True, slots=True)
class Census:
    """The segments of all customers.

    Attributes
    ----------
    members
        the customers in each segment, in order.
    customers
        the number of all customers.
    of_requests
        for segments without members, the context values that they read, which only requests bring.
    """

    members: Mapping[str, Sequence[str]]
    customers: int
    of_requests: Mapping[str, str] = field(default_factory=dict)

    def share(self, segment: str) -> float:
        """Return the part of all customers who are in a segment.

        >>> Census({"vip": ["00042"]}, customers=4).share("vip")
        0.25
        """
        return len(self.members[segment]) / self.customers


def build_script(project: Project) -> Path:
    """Return the script that builds the demo's offline data.

    Raises
    ------
    ProjectError
        if the project is not the demo.
    """
    script = project.feature_repo / "build.py"
    if not script.is_file():
        raise ProjectError(
            f"{project.root} is not the demo: it has no feature_repo/build.py",
            hint="run it in a clone of the repository of feast-segments, or start with `segments init NAME`",
        )
    return script


def build(script: Path) -> None:
    """Run the script, which prints what it read, rejected and wrote.

    Raises
    ------
    DataError
        if it fails; it has printed the reason.
    """
    sys.stdout.flush()
    done = subprocess.run([sys.executable, str(script)], check=False)
    if done.returncode:
        raise DataError(f"{script} could not build the offline data", hint="see its message above")


def customers(project: Project) -> list[str]:
    """Return all entities in the offline data, in order."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    column = pq.read_table(project.feature_repo / "data" / "purchase_history.parquet", columns=["user_id"])["user_id"]
    return sorted(pc.unique(column).to_pylist())


def take_census(client: SegmentClient, entities: Sequence[str], progress: Callable[[int], None]) -> Census:
    """Look up the segments of entities in the online store, through the client that applications use.

    Parameters
    ----------
    progress
        called with the number of customers that are done.
    """
    members: dict[str, list[str]] = {name: [] for name in client.program.names}
    for start in range(0, len(entities), _BATCH):
        for membership in client.lookup_many(entities[start : start + _BATCH]):
            for segment in membership.segments:
                members[segment].append(membership.entity)
        progress(min(start + _BATCH, len(entities)))
    context = {name: dependencies(client.program.segments[name].when).context for name in members if not members[name]}
    of_requests = {name: ", ".join(sorted(values)) for name, values in context.items() if values}
    return Census(members, len(entities), of_requests)
