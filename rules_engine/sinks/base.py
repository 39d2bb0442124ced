"""Defines what every sink does: it takes actions, and reports for each one whether it was delivered."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar, Protocol

from rules_engine.sinks.settings import SinkSettings

#: The kind of the sink that needs no settings: a Redis stream of the online store.
STREAM = "stream"

_KIND = re.compile(r"[a-z][a-z0-9_]{0,62}\Z")


class Verdict(Enum):
    """Says what became of one action."""

    DELIVERED = "delivered"
    RETRY = "retry"  # not now: it is tried later
    REFUSED = "refused"  # never: trying it later would not help


@dataclass(frozen=True, slots=True)
class Outcome:
    """Reports what became of one action.

    Attributes
    ----------
    code
        a word for metrics: ``http-503``, ``timeout``.
    message
        what happened, without the action's content and without the value of any setting.
    retry_after
        seconds that the sink asks to wait.
    is_sick
        True if the failure is one of the sink, and not of this action alone: several in a row open its circuit.
    """

    verdict: Verdict
    code: str = "ok"
    message: str = ""
    retry_after: float | None = None
    is_sick: bool = False


DELIVERED = Outcome(Verdict.DELIVERED)

#: An action that was not sent, and keeps its place: an earlier one of the same entity was not delivered.
BEHIND = Outcome(Verdict.RETRY, "behind", "it was not sent: an earlier action of the same entity waits")


#: By the class of its settings, the class of a sink.
_SINKS: dict[type[SinkSettings], type[Sink]] = {}


class Message(Protocol):
    """An action, as far as a sink has to know it."""

    @property
    def key(self) -> str:
        """Return the idempotency key, the same on every try."""
        ...

    @property
    def entity(self) -> str:
        """Return the key of the entity that the action is about."""
        ...

    def body(self) -> bytes:
        """Return the action as JSON."""
        ...


class Sink(ABC):
    """Sends actions to one place. Used by one thread at a time.

    A subclass names its kind and its settings: ``class FileSink(Sink, kind="file", settings=FileSettings)``. Python
    refuses the class if something of it is missing.

    Parameters
    ----------
    settings
        an instance of the settings, with the values of ``${VARIABLES}`` put in and checked.
    root
        the project's folder.
    """

    kind: ClassVar[str]
    settings_class: ClassVar[type[SinkSettings]]

    def __init_subclass__(cls, *, kind: str, settings: type[SinkSettings], **more: Any) -> None:
        super().__init_subclass__(**more)
        cls.kind, cls.settings_class = kind, settings
        problem = _problem(cls, kind, settings)
        if problem is not None:
            raise TypeError(f"the sink `{kind}` ({cls.__module__}.{cls.__qualname__}) is incomplete: {problem}")
        settings.kind = kind
        _SINKS[settings] = cls

    @abstractmethod
    def __init__(self, settings: Any, root: Path) -> None:
        """Check what can be checked without sending anything."""

    @abstractmethod
    def send(self, actions: Sequence[Message]) -> Sequence[Outcome]:
        """Send actions, those of one entity in their order, and return an outcome for each. Failures are outcomes."""

    def hurry(self) -> None:  # noqa: B027 - most sinks have nothing to shorten
        """End what is being sent early; called from another thread. What was not sent is to be tried later."""

    def close(self) -> None:  # noqa: B027 - nor anything to close
        """Give back connections and files."""


def open_sink(settings: SinkSettings, root: Path) -> Sink:
    """Return a sink that sends.

    Parameters
    ----------
    settings
        as the project's definitions give them.
    root
        the project's folder.

    Raises
    ------
    ProjectError
        if a variable is not set, or its value cannot be used. The message names the variable and never the value.
    MissingExtraError
        if a package that the sink needs is not installed.
    """
    return _SINKS[type(settings)](settings.expanded(), root)


def _problem(sink: type[Sink], kind: str, settings: type[SinkSettings]) -> str | None:
    """Return what is missing in a sink's declaration; None if it is complete."""
    if not _KIND.match(kind) or kind == STREAM:
        return "its kind is small letters, digits and underscores, starting with a letter, and not `stream`"
    problem = settings.problem(kind)
    if problem is not None:
        return problem
    # ABCMeta computes `__abstractmethods__` of the class only after this.
    methods = sorted(Sink.__abstractmethods__)
    missing = [name for name in methods if hasattr(getattr(sink, name), "__isabstractmethod__")]
    return f"it has no `{missing[0]}`" if missing else None
