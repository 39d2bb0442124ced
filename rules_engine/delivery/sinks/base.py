"""What every sink is: it takes actions and says of each what became of it."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from rules_engine.errors import ProjectError
from rules_engine.triggers.actions import Action

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


class Verdict(Enum):
    """What became of one action."""

    DELIVERED = "delivered"
    RETRY = "retry"  # not now: it is tried again
    REFUSED = "refused"  # never: trying again would not help


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one action.

    Attributes
    ----------
    code
        a word for it, for metrics: ``http-503``, ``timeout``.
    message
        what happened, without the action's content.
    retry_after
        seconds that the sink asks to wait.
    is_sick
        whether it says something about the sink, and not only about this action.
    """

    verdict: Verdict
    code: str = "ok"
    message: str = ""
    retry_after: float | None = None
    is_sick: bool = False


DELIVERED = Outcome(Verdict.DELIVERED)

#: An action that was not sent, and keeps its place: one of the same entity before it was not delivered.
BEHIND = Outcome(Verdict.RETRY, "behind", "it was not sent: an earlier action of the same entity waits")


class Sink(Protocol):
    """Somewhere that actions go. Used by one thread at a time."""

    def send(self, actions: Sequence[Action]) -> Sequence[Outcome]:
        """Send actions, those of one entity in their order; gives an outcome for each. Raises nothing of the sink's."""
        ...

    def hurry(self) -> None:
        """End what is being sent as soon as it goes; called from another thread. What was not sent is to be retried."""
        ...

    def close(self) -> None:
        """Give back connections and files."""
        ...


def expand(text: str, sink: str) -> str:
    """The text with its ``${VARIABLES}`` from the environment.

    Raises
    ------
    ProjectError
        if one is not set.

    >>> import os
    >>> os.environ["HOST_OF_CRM"] = "crm.example"
    >>> expand("https://${HOST_OF_CRM}/$x", "crm")
    'https://crm.example/$x'
    """

    def value(match: re.Match[str]) -> str:
        name = match[1]
        if name not in os.environ:
            hint = f"set the environment variable {name}"
            raise ProjectError(f"the sink `{sink}` uses ${{{name}}}, which is not set", hint=hint)
        return os.environ[name]

    return _VARIABLE.sub(value, text)
