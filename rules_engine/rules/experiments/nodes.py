"""An experiment: its arms, who takes part, from when until when, and what is measured."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from rules_engine.diagnostics import NO_SPAN, Span
from rules_engine.rules.allocation import Allocation

#: The arm that others are compared with, and that everybody gets after an experiment without a winner.
CONTROL = "control"


class Status(StrEnum):
    """Says where an experiment is in its life; it follows from ``start``, ``stop``, ``winner`` and the instant."""

    DRAFT = "draft"  # it has not started: nobody takes part
    RUNNING = "running"
    STOPPED = "stopped"  # everybody gets the control
    SHIPPED = "shipped"  # everybody gets the winner


@dataclass(frozen=True, slots=True)
class Arm:
    """A part of an experiment: the variant that it serves, and its weight, of 1 for all arms together."""

    name: str
    serve: str
    weight: float


@dataclass(frozen=True, slots=True)
class Slice:
    """A part of a group of experiments that exclude each other: of its buckets, from a share to another."""

    group: str
    start: float
    end: float

    def __str__(self) -> str:
        return f"{self.group} from {self.start * 100:g} to {self.end * 100:g}"


@dataclass(frozen=True, slots=True)
class Experiment:
    """A checked experiment. Instants are in microseconds.

    Attributes
    ----------
    arms
        one of them is named ``control``.
    coverage
        the share of the entities that take part.
    seed
        what decides, beside the entity's key, which arm it gets.
    hash_version
        1 where an experiment of GrowthBook with its older hash is carried on.
    phase
        the number of the assignment: entities are assigned anew, and results are counted anew, when it is raised.
    exclusive
        the experiments of one group never have an entity in common.
    winner
        the arm that everybody gets after ``stop``.
    primary, secondary, guardrails
        names of metrics.
    covariate
        the feature (``VIEW:NAME``) that results are adjusted by.
    """

    name: str
    arms: tuple[Arm, ...]
    seed: str
    coverage: float = 1.0
    hash_version: int = 2
    phase: int = 1
    exclusive: Slice | None = None
    start: int | None = None
    stop: int | None = None
    winner: str | None = None
    primary: str | None = None
    secondary: tuple[str, ...] = ()
    guardrails: tuple[str, ...] = ()
    covariate: str | None = None
    hypothesis: str = ""
    description: str = ""
    owner: str = ""
    tags: tuple[str, ...] = ()
    span: Span = field(default=NO_SPAN, compare=False, repr=False)

    def arm(self, name: str) -> Arm:
        """Return an arm by its name."""
        return next(arm for arm in self.arms if arm.name == name)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Return the names of all metrics, the primary one first."""
        return (*(() if self.primary is None else (self.primary,)), *self.secondary, *self.guardrails)

    @property
    def allocation(self) -> Allocation:
        """Return how entities are divided among the arms."""
        names, weights = tuple(arm.name for arm in self.arms), tuple(arm.weight for arm in self.arms)
        return Allocation(self.seed, names, weights, self.coverage, self.hash_version)

    @property
    def instants(self) -> tuple[int, ...]:
        """Return the instants at which its status changes."""
        return tuple(instant for instant in (self.start, self.stop) if instant is not None)

    def status(self, now: int) -> Status:
        """Return where it is in its life at an instant.

        >>> arms = (Arm("control", "none", 0.5), Arm("voucher", "voucher", 0.5))
        >>> offer = Experiment("offer", arms, "offer", start=10, stop=20, winner="voucher")
        >>> [offer.status(now).value for now in (9, 10, 20)]
        ['draft', 'running', 'shipped']
        """
        if self.start is None or now < self.start:
            return Status.DRAFT
        if self.stop is None or now < self.stop:
            return Status.RUNNING
        return Status.STOPPED if self.winner is None else Status.SHIPPED

    def served_after(self) -> Arm:
        """Return the arm that everybody gets once it is stopped."""
        return self.arm(self.winner or CONTROL)
