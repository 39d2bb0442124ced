"""Every exception that this package raises on purpose.

::

    SegmentsError
    ├── ProjectError             the folder, feature_store.yaml or the applied state is not usable
    │   └── NotAppliedError      nothing was applied yet: run `segments apply`
    ├── DefinitionError          definitions were refused; carries every Diagnostic found
    ├── UnknownNameError         a segment, feature or model that does not exist was asked for
    ├── DataError                input data (events, purchases, parameters) cannot be used
    │   └── FeatureColumnError   a column of a source gives no values of the feature's declared type
    ├── UnsupportedError         a target cannot express this rule; it never guesses
    ├── MissingExtraError        an optional package is needed for what was asked
    └── StoreError               the online store
        ├── StoreUnavailableError  it cannot be reached or refuses the connection
        ├── StoreTimeoutError      it did not answer in time
        └── StoreDataError         it holds other bytes than the read plan says, or forgot what it held

A command prints the message of a ``SegmentsError`` and exits with 1; it never prints a traceback for one.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rules_engine.diagnostics import Diagnostic


class SegmentsError(Exception):
    """Base of all errors of this package. ``hint`` says what to do about it.

    >>> error = SegmentsError("the cup is empty", hint="fill it")
    >>> str(error), error.hint
    ('the cup is empty', 'fill it')
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class ProjectError(SegmentsError):
    """The project folder or its configuration is not usable."""


class NotAppliedError(ProjectError):
    """Nothing was applied yet, so there is no read plan to answer from."""


class DefinitionError(SegmentsError):
    """Definitions were refused. ``diagnostics`` holds every problem of every file once, in file order."""

    def __init__(self, diagnostics: Sequence[Diagnostic]) -> None:
        from rules_engine.diagnostics import render_all

        self.diagnostics = tuple(dict.fromkeys(diagnostics))  # YAML aliases bring the same text in several times
        super().__init__(render_all(self.diagnostics))


class UnknownNameError(SegmentsError):
    """A name that was asked for does not exist."""


class DataError(SegmentsError):
    """Input data cannot be used as it is."""


class FeatureColumnError(DataError):
    """A column of a source gives no values of the type that its feature declares. ``feature`` is its name."""

    def __init__(self, message: str, feature: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.feature = feature


class UnsupportedError(SegmentsError):
    """A target cannot express a rule. Raised instead of a wrong answer."""


class MissingExtraError(SegmentsError):
    """An optional dependency is not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package {package!r}, which is not installed",
            hint=f"pip install 'feast-segments[{extra}]'",
        )


class StoreError(SegmentsError):
    """Something is wrong with the online store."""


class StoreUnavailableError(StoreError):
    """The online store cannot be reached."""


class StoreTimeoutError(StoreError):
    """The online store did not answer in time."""


class StoreDataError(StoreError):
    """The online store holds bytes that the read plan cannot explain, or does not hold what an answer rests on."""


_SYSTEM_HINTS: Mapping[int, str] = {
    errno.EACCES: "run this as a user who may, or give this user access to it",
    errno.EPERM: "run this as a user who may, or give this user access to it",
    errno.EROFS: "the file system is read-only",
    errno.ENOSPC: "the disk is full: free some space and try again",
    errno.EDQUOT: "this user's share of the disk is full: free some space and try again",
}


def of_the_system(error: OSError) -> SegmentsError:
    """Return what the operating system refused, as an error of this package.

    >>> error = of_the_system(PermissionError(errno.EACCES, "Permission denied", "shop/feature_store.yaml"))
    >>> print(error, error.hint, sep="; ")
    shop/feature_store.yaml: permission denied; run this as a user who may, or give this user access to it
    """
    reason = (error.strerror or str(error) or type(error).__name__).lower()
    message = f"{error.filename}: {reason}" if error.filename else reason
    return SegmentsError(message, hint=_SYSTEM_HINTS.get(error.errno or 0))


def pass_interrupt(error: BaseException) -> None:
    """Raise KeyboardInterrupt if an error was caused by one. Call this before any error is turned into one of ours.

    DuckDB, for one, turns Ctrl-C into a ``RuntimeError``.
    """
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        if isinstance(cause, KeyboardInterrupt):
            raise KeyboardInterrupt from error
        seen.add(id(cause))
        cause = cause.__cause__ or cause.__context__
