"""The store of versions: one JSON file for each version of a name, and which of them counts.

::

    .segments/clusters/NAME/v1.json, v2.json, ...    a version never changes once it is written
    .segments/clusters/NAME/v1.html                  its report
    .segments/clusters/NAME/history.json             what was promoted, rolled back and attached
    .segments/models/NAME/...                        the same for models
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic

from rules_engine.diagnostics import listing, nearest
from rules_engine.errors import DataError, ProjectError, UnknownNameError
from rules_engine.files import entries, write_atomically
from rules_engine.folders import Project
from rules_engine.ml.versions.history import HistoryStep, promotions, read_history, write_history
from rules_engine.ml.versions.kinds import M, ModelKind
from rules_engine.ml.versions.layout import take_over
from rules_engine.project.lock import project_lock

_VERSION_FILE = re.compile(r"v([1-9][0-9]{0,8})\.json\Z")


@dataclass(frozen=True, slots=True)
class StoredVersion(Generic[M]):
    """A stored version: the model, or the error that reading its file gave."""

    version: str
    model: M | None
    error: DataError | None = None


class VersionStore(Generic[M]):
    """The versions of one name in a project.

    Parameters
    ----------
    project : Project
        the project.
    kind : ModelKind
        what is kept.
    name : str
        of the clusters or the model.
    """

    def __init__(self, project: Project, kind: ModelKind[M], name: str) -> None:
        take_over(project)
        self.project = project
        self.kind = kind
        self.name = name
        self.path = project.state_dir / kind.folder / name

    # --- versions ----------------------------------------------------------------------------------------------------

    def versions(self) -> tuple[str, ...]:
        """Return every stored version, oldest first, whether it can be read or not."""
        matches = (_VERSION_FILE.match(path.name) for path in entries(self.path, "v*.json"))
        return tuple(f"v{number}" for number in sorted(int(match[1]) for match in matches if match))

    def file(self, version: str) -> Path:
        """Return the path of a version."""
        return self.path / f"{version}.json"

    def report(self, version: str) -> Path:
        """Return the path of a version's report, which may not exist."""
        return self.path / f"{version}.html"

    def load(self, version: str) -> M:
        """Read a version.

        Raises
        ------
        UnknownNameError
            if there is no such version, or none at all.
        DataError
            if the file cannot be used.
        ProjectError
            if the file cannot be read.
        """
        stored = self.versions()
        if not stored:
            raise self._nothing_fitted()
        if version not in stored:
            raise UnknownNameError(f"`{self.name}` has no version `{version}`", hint=f"there is {listing(stored)}")
        path = self.file(version)
        try:
            text = path.read_bytes()
        except OSError as error:
            raise ProjectError(f"cannot read {path}: {error.strerror}") from error
        model = self.kind.decode(text, str(path))
        if (model.version, model.name) != (version, self.name):
            message = f"{path} holds {model.name} {model.version}: it was copied from elsewhere"
            raise DataError(message, hint="put it back where it was")
        return model

    def entries(self) -> list[StoredVersion[M]]:
        """Return every stored version, oldest first. A damaged one comes with its error, and hides no other."""
        entries: list[StoredVersion[M]] = []
        for version in self.versions():
            try:
                entries.append(StoredVersion(version, self.load(version)))
            except DataError as error:
                entries.append(StoredVersion(version, None, error))
        return entries

    def newest(self) -> M | None:
        """Return the newest version that can be read, if there is one."""
        for version in reversed(self.versions()):
            try:
                return self.load(version)
            except DataError:
                continue
        return None

    def add(self, model: M, created_at: int) -> tuple[M, bool]:
        """Store a model as the next version, unless the newest one is the same fit.

        Parameters
        ----------
        created_at : int
            the instant, in microseconds.

        Returns
        -------
        tuple
            the stored model, and whether it is new.
        """
        with project_lock(self.project):
            same = self.same_fit(model)
            if same is not None:
                return same, False
            text = self.kind.encode(model.numbered(f"v{self._next()}", created_at))
            stored = self.kind.decode(text)
            write_atomically(self.file(stored.version), text)
            return stored, True

    def same_fit(self, model: M) -> M | None:
        """Return the newest version, if it is the same fit as a model."""
        newest = self.newest()
        return newest if newest is not None and newest.is_same_fit(model) else None

    def _next(self) -> int:
        """Return the next number. That of a deleted version which was promoted once is not given again."""
        used = [*self.versions(), *(step.version for step in self.history())]
        return max((int(version[1:]) for version in used), default=0) + 1

    # --- which version counts ----------------------------------------------------------------------------------------

    def current(self, version: str | None = None) -> M:
        """Read the named version, else the promoted one, else, where the kind allows it, the newest.

        Raises
        ------
        UnknownNameError
            if there is no such version, or none counts yet.
        DataError
            if the file cannot be used.
        """
        stored = self.versions()
        chosen = version or self.promoted() or (stored[-1] if stored and self.kind.newest_counts else None)
        if chosen is not None:
            return self.load(chosen)
        if not stored:
            raise self._nothing_fitted()
        hint = f"run `{self.kind.command} promote {stored[-1]} --of {self.name}`"
        raise UnknownNameError(f"no version of `{self.name}` is promoted", hint=hint)

    def promoted(self) -> str | None:
        """Return the version that was promoted last and not rolled back."""
        standing = self._standing()
        return standing[-1] if standing else None

    def promote(self, version: str, at: int) -> str | None:
        """Let a version count, whatever is fitted later, and return the version that was promoted before.

        Raises
        ------
        UnknownNameError, DataError
            if there is no such version, or its file cannot be used.
        """
        self.load(version)
        before = self.promoted()
        if version != before:
            self._note("promote", version, at)
        return before

    def rollback(self, at: int) -> tuple[str, str]:
        """Undo the last promotion, and return the version that it promoted and the one that counts now.

        Raises
        ------
        UnknownNameError
            if there is none to go back to.
        DataError
            if the version to go back to cannot be used.
        """
        standing = self._standing()
        if len(standing) < 2:
            what = f"only {standing[0]} was ever promoted" if standing else "no version was promoted"
            hint = f"`{self.kind.command} promote VERSION` takes any version"
            raise UnknownNameError(f"{what}, so there is none of `{self.name}` to go back to", hint=hint)
        self.load(standing[-2])
        self._note("rollback", standing[-2], at)
        return standing[-1], standing[-2]

    def mark_attached(self, version: str, at: int) -> None:
        """Remember the version whose labels or scores the entities have."""
        if version != self.attached():
            self._note("attach", version, at)

    def attached(self) -> str | None:
        """Return the version that was attached last, unless it was deleted since."""
        steps = [step.version for step in self.history() if step.action == "attach"]
        return steps[-1] if steps and steps[-1] in self.versions() else None

    def history(self) -> tuple[HistoryStep, ...]:
        """Return everything that was promoted, rolled back and attached, oldest first.

        Raises
        ------
        DataError
            if the file cannot be read.
        """
        return read_history(self.path)

    def _standing(self) -> list[str]:
        """Return the promoted versions that still exist, the current one last."""
        stored = set(self.versions())
        return [version for version in promotions(self.history()) if version in stored]

    def _note(self, action: str, version: str, at: int) -> None:
        with project_lock(self.project):
            write_history(self.path, (*self.history(), HistoryStep(action, version, at)))

    def _nothing_fitted(self) -> UnknownNameError:
        return UnknownNameError(f"no version of `{self.name}` was fitted yet", hint=f"run `{self.kind.command} fit`")


def fitted_names(project: Project, kind: ModelKind[M]) -> list[str]:
    """Return the names of a kind that have a version, sorted."""
    take_over(project)
    folders = [path.name for path in entries(project.state_dir / kind.folder, "*")]
    return [name for name in folders if VersionStore(project, kind, name).versions()]


def open_fitted(project: Project, kind: ModelKind[M], name: str | None) -> VersionStore[M]:
    """Open the store of the given name, or of the only one that was fitted. Feast is not asked.

    Raises
    ------
    UnknownNameError
        if nothing of that name was fitted, or no name was given and there are several.
    """
    names = fitted_names(project, kind)
    if not names:
        raise UnknownNameError(f"no {kind.noun} was fitted yet", hint=f"run `{kind.command} fit`")
    return VersionStore(project, kind, choose_name(names, name, f"fitted {kind.folder}"))


def choose_name(available: Iterable[str], name: str | None, what: str) -> str:
    """Return the given name, or the only one that there is.

    Parameters
    ----------
    known : iterable of str
        the names that there are, one at least.
    what : str
        what has these names, for messages.

    Raises
    ------
    UnknownNameError
        if there is none of that name, or no name was given and there are several.

    Examples
    --------
    >>> choose_name(["shoppers"], None, "clusters in clusters.yaml")
    'shoppers'
    """
    names = list(available)
    if name is None and len(names) == 1:
        return names[0]
    if name is None:
        raise UnknownNameError(f"there are several {what}: {listing(names)}", hint="name one of them")
    if name not in names:
        hint = nearest(name, names) or f"there is {listing(names)}"
        raise UnknownNameError(f"there is no `{name}` among the {what}", hint=hint)
    return name
