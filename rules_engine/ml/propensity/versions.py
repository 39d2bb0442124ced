"""The stored versions of a model, which of them counts, and what counted before.

::

    .segments/propensity/NAME/v1.json, v2.json, ...     a version never changes once it is written
    .segments/propensity/NAME/promotions.json           which versions were promoted, and when
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from rules_engine.clock import format_instant, parse_instant
from rules_engine.errors import DataError, UnknownNameError
from rules_engine.folders import Project
from rules_engine.ml.propensity.model import PropensityModel
from rules_engine.ml.versions.files import VersionFiles
from rules_engine.read_plan import write_atomically


@dataclass(frozen=True, slots=True)
class Promotion:
    """That a version came to count: by ``promote``, or again by ``rollback``. ``at`` is in microseconds."""

    action: str
    version: str
    at: int


class Versions(VersionFiles):
    """The versions of one project's model of one name."""

    def __init__(self, project: Project, name: str) -> None:
        super().__init__(name, root(project) / name, "segments model fit")

    def load(self, version: str) -> PropensityModel:
        """A version.

        Raises
        ------
        UnknownNameError
            if there is no such version, or none at all.
        DataError
            if the file cannot be used.
        """
        text, path = self.read(version), self.file(version)
        found = PropensityModel.from_json(text, str(path))
        if found.version != version or found.definition.name != self.name:
            raise DataError(
                f"{path} holds {found.definition.name} {found.version}: it was copied from elsewhere",
                hint="put it back where it was",
            )
        return found

    def newest(self) -> PropensityModel | None:
        """The newest version, if there is one."""
        known = self.versions()
        return self.load(known[-1]) if known else None

    def save(self, model: PropensityModel, created_at: int) -> tuple[PropensityModel, bool]:
        """Store a model as the next version, unless the newest one is the same.

        Returns
        -------
        The stored model, and whether it is new.
        """
        newest = self.newest()
        if newest is not None and newest.is_same_fit(model):
            return newest, False
        version = self.next_version()
        scorer = replace(model.scorer, version=version)
        text = replace(model, scorer=scorer, version=version, created_at=created_at).to_json()
        self.write(version, text)
        return PropensityModel.from_json(text), True

    # --- which one counts --------------------------------------------------------------------------------------------

    def promoted(self) -> str | None:
        """The version that gives scores; None if none was promoted."""
        standing = _standing(self.history())
        return standing[-1] if standing else None

    def current(self, version: str | None = None) -> PropensityModel:
        """The named version, else the promoted one.

        Raises
        ------
        UnknownNameError
            if there is no such version, or none was promoted.
        """
        wanted = version or self.promoted()
        if wanted is None:
            known = self.versions()
            command = f"promote {known[-1]} --model {self.name}" if known else "fit"
            raise UnknownNameError(f"no version of `{self.name}` is promoted", hint=f"run `segments model {command}`")
        return self.load(wanted)

    def promote(self, version: str, at: int) -> None:
        """Let a version count.

        Raises
        ------
        UnknownNameError, DataError
            if there is no such version, or its file cannot be used.
        """
        self.load(version)
        if version != self.promoted():
            self._note(Promotion("promote", version, at))

    def rollback(self, at: int) -> str:
        """Let the version count that did so before.

        Raises
        ------
        UnknownNameError
            if there was none before.
        """
        standing = _standing(self.history())
        if len(standing) < 2:
            there = f"`{standing[0]}` is the first that was promoted" if standing else "none was promoted"
            raise UnknownNameError(
                f"there is nothing to go back to: of `{self.name}`, {there}",
                hint="`segments model promote VERSION` takes any version",
            )
        self.load(standing[-2])
        self._note(Promotion("rollback", standing[-2], at))
        return standing[-2]

    def history(self) -> tuple[Promotion, ...]:
        """Everything that was promoted and rolled back, oldest first.

        Raises
        ------
        DataError
            if the file cannot be read.
        """
        path = self.path / "promotions.json"
        try:
            content = orjson.loads(path.read_bytes())
            return tuple(Promotion(one["action"], one["version"], parse_instant(one["at"])) for one in content)
        except FileNotFoundError:
            return ()
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path} cannot be read: {error}", hint="remove it, and promote a version anew") from error

    def _note(self, promotion: Promotion) -> None:
        content = [*map(_plain, self.history()), _plain(promotion)]
        write_atomically(self.path / "promotions.json", orjson.dumps(content, option=orjson.OPT_INDENT_2) + b"\n")


def root(project: Project) -> Path:
    """Where all models of a project lie."""
    return project.state_dir / "propensity"


def fitted(project: Project) -> list[str]:
    """The names of the models that have a version."""
    return sorted(path.name for path in root(project).glob("*") if Versions(project, path.name).versions())


def _standing(history: tuple[Promotion, ...]) -> list[str]:
    """The promoted versions that were not taken back, the current one last."""
    found: list[str] = []
    for promotion in history:
        if promotion.action == "rollback":
            found.pop()
        else:
            found.append(promotion.version)
    return found


def _plain(promotion: Promotion) -> dict[str, Any]:
    return {"action": promotion.action, "version": promotion.version, "at": format_instant(promotion.at)}
