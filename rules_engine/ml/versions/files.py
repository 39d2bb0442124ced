"""One JSON file for each version of what was fitted, and the choice of one by its name."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from rules_engine.diagnostics import listing, nearest
from rules_engine.errors import ProjectError, UnknownNameError
from rules_engine.read_plan import write_atomically

_VERSION_FILE = re.compile(r"v([1-9][0-9]{0,8})\.json\Z")


class VersionFiles:
    """The versions of one name: ``v1.json``, ``v2.json``, ... in a folder. A version never changes once it is written.

    Parameters
    ----------
    name
        of what was fitted.
    path
        the folder.
    fit
        the command that makes the first version, for messages.
    """

    def __init__(self, name: str, path: Path, fit: str) -> None:
        self.name = name
        self.path = path
        self._fit = fit

    def versions(self) -> tuple[str, ...]:
        """Every stored version, oldest first."""
        found = (_VERSION_FILE.match(path.name) for path in self.path.glob("v*.json"))
        return tuple(f"v{number}" for number in sorted(int(match[1]) for match in found if match))

    def file(self, version: str) -> Path:
        """Where a version lies."""
        return self.path / f"{version}.json"

    def read(self, version: str) -> bytes:
        """The contents of a version's file.

        Raises
        ------
        UnknownNameError
            if there is no such version, or none at all.
        ProjectError
            if the file cannot be read.
        """
        known = self.versions()
        if not known:
            raise UnknownNameError(f"no model of `{self.name}` was fitted yet", hint=f"run `{self._fit}`")
        if version not in known:
            raise UnknownNameError(f"`{self.name}` has no version `{version}`", hint=f"there is {listing(known)}")
        path = self.file(version)
        try:
            return path.read_bytes()
        except OSError as error:
            raise ProjectError(f"cannot read {path}: {error.strerror}") from error

    def next_version(self) -> str:
        """What the next version is called."""
        known = self.versions()
        return f"v{int(known[-1][1:]) + 1 if known else 1}"

    def write(self, version: str, text: bytes) -> None:
        """Store a version."""
        write_atomically(self.file(version), text)


def the_one(known: Iterable[str], name: str | None, what: str) -> str:
    """The given name, or the only one that there is.

    Parameters
    ----------
    known
        the names that there are, one at least.
    what
        what has these names, for messages.

    Raises
    ------
    UnknownNameError
        if there is none of that name, or no name was given and there are several.

    Examples
    --------
    >>> the_one(["shoppers"], None, "clusters in clusters.yaml")
    'shoppers'
    """
    names = list(known)
    if name is None and len(names) == 1:
        return names[0]
    if name is None:
        raise UnknownNameError(f"there are several {what}: {listing(names)}", hint="name one of them")
    if name not in names:
        hint = nearest(name, names) or f"there is {listing(names)}"
        raise UnknownNameError(f"there is no `{name}` among the {what}", hint=hint)
    return name
