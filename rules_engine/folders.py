"""Name the places of a project: one folder with ``feature_repo/`` and ``segments/`` in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rules_engine.errors import ProjectError


@dataclass(frozen=True, slots=True)
class Project:
    """The paths of one project. Nothing is read or created here.

    >>> Project(Path("shop")).read_plan.as_posix()
    'shop/.segments/read_plan.json'
    """

    root: Path

    @classmethod
    def open(cls, root: str | Path = ".") -> Project:
        """Return the project in a folder.

        Raises
        ------
        ProjectError
            if the folder holds no ``feature_repo/feature_store.yaml`` or no ``segments/``, or may not be read.
        """
        path = Path(root).expanduser().resolve()
        project = cls(path)
        hint = "pass --repo PATH, or make a new project with `segments init NAME`"
        if not path.is_dir():
            raise ProjectError(f"{root} is not a folder", hint=hint)
        try:
            if not project.feature_store_yaml.is_file():
                raise ProjectError(f"{path} has no feature_repo/feature_store.yaml, so it is no project", hint=hint)
            if not project.segments_dir.is_dir():
                raise ProjectError(f"{path} has no segments/ folder, so it is no project", hint=hint)
            project.feature_store_yaml.open("rb").close()
        except PermissionError as error:
            raise ProjectError(
                f"{error.filename} cannot be read: {error.strerror}", hint="let this user read it, or run as its owner"
            ) from error
        return project

    @classmethod
    def open_applied(cls, root: str | Path = ".") -> Project:
        """Return the project in a folder that may hold no more than what was applied, which is all that requests read.

        Raises
        ------
        ProjectError
            if the folder holds no read plan and is no project either.
        """
        project = cls(Path(root).expanduser().resolve())
        return project if project.read_plan.is_file() else cls.open(root)

    @property
    def feature_repo(self) -> Path:
        return self.root / "feature_repo"

    @property
    def feature_store_yaml(self) -> Path:
        return self.feature_repo / "feature_store.yaml"

    @property
    def events_yaml(self) -> Path:
        return self.feature_repo / "events.yaml"

    @property
    def segments_dir(self) -> Path:
        return self.root / "segments"

    @property
    def state_dir(self) -> Path:
        """Return the folder of what commands keep between runs; it is not under version control."""
        return self.root / ".segments"

    @property
    def read_plan(self) -> Path:
        return self.state_dir / "read_plan.json"
