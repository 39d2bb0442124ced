"""Where models are kept: one JSON file for each version, and which of them counts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from rules_engine.errors import UnknownNameError
from rules_engine.folders import Project
from rules_engine.ml.clusters.model import ClusterModel
from rules_engine.ml.versions.files import VersionFiles
from rules_engine.read_plan import write_atomically

_ATTACHED = "attached"
_PROMOTED = "promoted"


class ModelFolder(VersionFiles):
    """The stored versions of one project's models of one name: ``.segments/models/NAME/v1.json``, ...

    Beside them lie which version is promoted, with those before it, and whose labels the users have.
    """

    def __init__(self, project: Project, name: str) -> None:
        super().__init__(name, _root(project) / name, "segments cluster fit")

    def load(self, version: str | None = None) -> ClusterModel:
        """A version, by default the newest.

        Raises
        ------
        UnknownNameError
            if there is no such version, or none at all.
        DataError
            if the file cannot be used.
        """
        wanted = version or next(reversed(self.versions()), "v1")
        return ClusterModel.from_json(self.read(wanted), str(self.file(wanted)))

    def save(self, model: ClusterModel, created_at: int) -> tuple[ClusterModel, bool]:
        """Store a model as the next version, unless the newest one is the same.

        Returns
        -------
        The stored model, and whether it is new.
        """
        same = self.same_fit(model)
        if same is not None:
            return same, False
        version = self.next_version()
        text = replace(model, version=version, created_at=created_at).to_json()
        self.write(version, text)
        return ClusterModel.from_json(text), True

    def same_fit(self, model: ClusterModel) -> ClusterModel | None:
        """The newest version, if it is the same fit."""
        newest = self.load() if self.versions() else None
        return newest if newest is not None and newest.is_same_fit(model) else None

    def report(self, version: str) -> Path:
        """Where a version's report lies, if there is one."""
        return self.path / f"{version}.html"

    # --- which one counts ---------------------------------------------------------------------------------------------

    def current(self, version: str | None = None) -> ClusterModel:
        """The version that users are labelled with: the one that is named, else the promoted, else the newest one."""
        return self.load(version or self.promoted())

    def promoted(self) -> str | None:
        """The version that was promoted last; None: the newest counts."""
        history = self._history()
        return history[-1] if history else None

    def promote(self, version: str) -> str | None:
        """Let a version be the one that users are labelled with, whatever is fitted later.

        Returns
        -------
        The version that it was before, if one was promoted.

        Raises
        ------
        UnknownNameError
            if there is no such version.
        DataError
            if its file cannot be used.
        """
        self.load(version)
        history = self._history()
        if history[-1:] != [version]:
            self._write_history([*history, version])
        return history[-1] if history else None

    def rollback(self) -> tuple[str, str]:
        """Undo the last promotion.

        Returns
        -------
        The version that was promoted, and the one that is now.

        Raises
        ------
        UnknownNameError
            if there is none to go back to.
        """
        history = self._history()
        if len(history) < 2:
            what = f"only {history[0]} was ever promoted" if history else "no version was promoted"
            hint = "`segments cluster promote VERSION` takes any version"
            raise UnknownNameError(f"{what}, so there is none of `{self.name}` to go back to", hint=hint)
        self.load(history[-2])
        self._write_history(history[:-1])
        return history[-1], history[-2]

    def mark_attached(self, version: str) -> None:
        """Remember the version whose labels the users have."""
        write_atomically(self.path / _ATTACHED, version.encode() + b"\n")

    def attached(self) -> str | None:
        """The version whose labels the users have, if it is known."""
        found = [version for version in self._lines(_ATTACHED) if version in self.versions()]
        return found[0] if found else None

    def previous(self) -> ClusterModel | None:
        """The version that a new fit takes its labels from: the one that was attached last, else the current one."""
        return self.load(self.attached() or self.promoted()) if self.versions() else None

    def _history(self) -> list[str]:
        known = set(self.versions())
        return [version for version in self._lines(_PROMOTED) if version in known]

    def _write_history(self, versions: list[str]) -> None:
        write_atomically(self.path / _PROMOTED, "".join(f"{version}\n" for version in versions).encode())

    def _lines(self, name: str) -> list[str]:
        try:
            return (self.path / name).read_text(encoding="utf-8").split()
        except (OSError, ValueError):
            return []


def fitted_names(project: Project) -> list[str]:
    """The names of the clusterings of a project that were fitted."""
    return sorted(path.name for path in _root(project).glob("*") if ModelFolder(project, path.name).versions())


def _root(project: Project) -> Path:
    return project.state_dir / "models"
