"""Find and load what other packages bring as entry points; refuse it with the package's name if it is no use."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from rules_engine.errors import ProjectError, pass_interrupt


class Extensions:
    """The entry points of one group. An entry's name is the name that definitions use.

    Parameters
    ----------
    group : str
        the group, such as ``feast_segments.sinks``.
    noun : str
        what each of them is, for messages.
    page : str
        the page that says what one has to have, for messages.
    """

    def __init__(self, group: str, noun: str, page: str) -> None:
        self.group = group
        self._noun = noun
        self._page = page

    def load(self, taken: Collection[str]) -> Iterator[tuple[EntryPoint, Any]]:
        """Yield each entry point with the object that it names, sorted by name.

        Parameters
        ----------
        taken : collection of str
            names that none may have.

        Raises
        ------
        ProjectError
            if a name is taken or comes twice, or an object cannot be imported.
        """
        names = set(taken)
        for entry in sorted(entry_points(group=self.group), key=lambda entry: entry.name):
            if entry.name in names:
                raise self.unusable(entry, f"there is a {self._noun} `{entry.name}` already")
            names.add(entry.name)
            try:
                value = entry.load()
            except Exception as error:
                pass_interrupt(error)
                raise self.unusable(entry, f"{type(error).__name__}: {error}") from error
            yield entry, value

    def unusable(self, entry: EntryPoint, problem: str) -> ProjectError:
        """Return the error that names the package and says what to do."""
        package = f"{entry.dist.name} {entry.dist.version}" if entry.dist else entry.module
        return ProjectError(
            f"the {self._noun} `{entry.name}` of the package {package} cannot be used: {problem}",
            hint=f"mend or uninstall the package; {self._page} says what a {self._noun} has to have",
        )
