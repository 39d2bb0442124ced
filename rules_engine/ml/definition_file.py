"""Read a file of ``feature_repo/`` whose documents each define one thing to fit: ``clusters.yaml``, ``models.yaml``."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from rules_engine.definitions.source import Node, to_plain
from rules_engine.diagnostics import Diagnostic
from rules_engine.errors import DefinitionError, ProjectError
from rules_engine.folders import Project
from rules_engine.rules.load import read_file


class Named(Protocol):
    """A definition as the file sees it."""

    @property
    def name(self) -> str: ...


D = TypeVar("D", bound=Named)

#: Returns every problem of a document.
Check = Callable[[Node], list[Diagnostic]]


@dataclass(frozen=True, slots=True)
class DefinitionFile(Generic[D]):
    """A kind of file of definitions.

    Attributes
    ----------
    file
        its name in ``feature_repo/``.
    purpose
        what nothing says if there is no such file.
    example
        a hint that shows what to write.
    code
        the code of the problem that two definitions have one name.
    build
        makes a definition of a document without problems, as plain data.
    """

    file: str
    purpose: str
    example: str
    code: str
    build: Callable[[Any], D]

    def load(self, project: Project, check: Check) -> dict[str, D]:
        """Return every definition of a project, by name.

        Raises
        ------
        ProjectError
            if there is no such file, or nothing in it.
        DefinitionError
            with every problem in it.
        """
        path = project.feature_repo / self.file
        if not path.is_file():
            raise ProjectError(f"there is no {path}, so nothing says {self.purpose}", hint=self.example)
        documents, problems = read_file(path, path.relative_to(project.root).as_posix())
        definitions = self.checked(documents, problems, check)
        if not definitions:
            raise ProjectError(f"{path} is empty", hint=self.example)
        return definitions

    def checked(self, documents: Iterable[Node], problems: list[Diagnostic], check: Check) -> dict[str, D]:
        """Return the definitions of documents, by name; ``problems`` are those that were met in reading them.

        Raises
        ------
        DefinitionError
            with every problem.
        """
        problems = list(problems)
        definitions: dict[str, D] = {}
        for document in documents:
            trouble = check(document)
            problems += trouble
            if trouble:
                continue
            definition = self.build(to_plain(document))
            if definition.name in definitions:
                message = f"`{definition.name}` is defined twice"
                problems.append(Diagnostic(self.code, document.span, message, "rename one of them"))
            definitions[definition.name] = definition
        if problems:
            raise DefinitionError(problems)
        return definitions
