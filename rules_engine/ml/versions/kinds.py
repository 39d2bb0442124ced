"""The kinds of models that the store keeps, and the file of one version: JSON with a checksum over all of it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Protocol, Self, TypeVar

import orjson

from rules_engine.errors import DataError


class Versioned(Protocol):
    """A fitted model as the store sees it: an immutable record that is plain data."""

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def created_at(self) -> int: ...
    @property
    def checksum(self) -> str: ...
    def content(self) -> dict[str, Any]: ...
    def is_same_fit(self, other: Self) -> bool: ...
    def numbered(self, version: str, created_at: int) -> Self: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredModel:
    """Holds what every fitted model knows of its fit and of the version that it is stored as.

    Attributes
    ----------
    libraries
        the versions of the libraries that it was fitted with.
    version
        ``v1``, ``v2``, ...; empty until the model is stored.
    created_at
        when it was stored, in microseconds.
    checksum
        of the file it was read from; empty for a model that was not stored.
    """

    libraries: Mapping[str, str] = field(default_factory=dict)
    version: str = ""
    created_at: int = 0
    checksum: str = field(default="", compare=False)


M = TypeVar("M", bound=Versioned)


@dataclass(frozen=True, slots=True)
class ModelKind(Generic[M]):
    """One kind of model that the store keeps.

    Attributes
    ----------
    folder : str
        where its versions lie, below ``.segments/``.
    noun : str
        what one is called in messages.
    file : str
        the file in ``feature_repo/`` that defines them.
    command : str
        the command that makes and promotes versions.
    format : int
        the version of the file's format; raised by one whenever an older release could misread a file.
    build : callable
        makes the model of the file's content. It raises ValueError, KeyError, TypeError, AttributeError or IndexError
        for content that makes no sense.
    newest_counts : bool
        take the newest version where none was promoted. Without it, a version must be promoted to be used.
    indented : bool
        write files for people to read, in place of short ones.
    """

    folder: str
    noun: str
    file: str
    command: str
    format: int
    build: Callable[[dict[str, Any]], M]
    newest_counts: bool = False
    indented: bool = False

    def encode(self, model: M) -> bytes:
        """Return the model as UTF-8 JSON with a checksum."""
        content = {**model.content(), "version": model.version, "created_at": model.created_at}
        content["checksum"] = _checksum(content)
        return orjson.dumps(content, option=orjson.OPT_INDENT_2 if self.indented else 0) + b"\n"

    def decode(self, text: bytes, source: str = "the file") -> M:
        """Return the model that a file holds.

        Raises
        ------
        DataError
            if the text is no such model, was changed after it was written, or has another format.
        """
        hint = (
            f"the other versions still work: `{self.command} promote VERSION` takes one; or remove {source} and run "
            f"`{self.command} fit`"
        )
        try:
            content = orjson.loads(text)
        except ValueError as error:
            raise DataError(f"{source} is damaged: it is no JSON ({error})", hint=hint) from error
        if not isinstance(content, dict) or not {"checksum", "format"} <= content.keys():
            raise DataError(f"{source} is damaged: it holds no {self.noun}", hint=hint)
        checksum = content.pop("checksum")
        if content["format"] != self.format:
            message = f"{source} has format {content['format']}, and this version reads format {self.format}"
            raise DataError(message, hint=hint)
        if checksum != _checksum(content):
            raise DataError(f"{source} was changed after it was written: its checksum does not fit", hint=hint)
        try:
            return replace(self.build(content), checksum=checksum)  # type: ignore[type-var]  # models are dataclasses
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise DataError(f"{source} is damaged: {error}", hint=hint) from error


def _checksum(content: Mapping[str, Any]) -> str:
    canonical = orjson.dumps(content, option=orjson.OPT_SORT_KEYS)
    return "sha256:" + hashlib.sha256(canonical).hexdigest()
