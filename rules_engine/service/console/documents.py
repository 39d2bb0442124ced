"""Find the text of a definition in the project's files, and what was noted about it when it was applied."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from rules_engine.definitions.source import Mapping, Scalar, read_documents
from rules_engine.files import files_below
from rules_engine.folders import Project
from rules_engine.rules.load import definition_files


@dataclass(frozen=True, slots=True)
class DefinitionText:
    """A document in a file: the file, the line at which it begins, its text, and the text of the whole file."""

    file: str
    line: int
    text: str
    whole: str


def find_document(project: Project, name: str, kind: str = "segment") -> DefinitionText | None:
    """Return the document that defines a name; None if no file of the project does."""
    if not project.segments_dir.is_dir():
        return None
    for path in definition_files(project.segments_dir):
        try:
            whole = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        line = _line_of(whole, kind, name) if name in whole else None
        if line is not None:
            start, text = _document_at(whole, line)
            return DefinitionText(path.relative_to(project.root).as_posix(), start, text, whole)
    return None


def _line_of(whole: str, kind: str, name: str) -> int | None:
    documents, _ = read_documents(whole, "")
    for document in documents:
        value = document.get(kind) if isinstance(document, Mapping) else None
        if isinstance(value, Scalar) and value.value == name:
            return value.span.line
    return None


def _document_at(whole: str, line: int) -> tuple[int, str]:
    """Return the document around a line: what stands between two lines of dashes, without comments for editors."""
    lines = whole.splitlines()
    start, end = line - 1, line
    while start > 0 and not lines[start - 1].startswith("---"):
        start -= 1
    while end < len(lines) and not lines[end].startswith("---"):
        end += 1
    while start < line - 1 and (not lines[start].strip() or lines[start].startswith("# yaml-language-server")):
        start += 1
    return start + 1, "\n".join(lines[start:end]).rstrip() + "\n"


def files_stamp(project: Project) -> str:
    """Return a hash that changes when a file of definitions or of tests is written."""
    if not project.segments_dir.is_dir():
        return ""
    digest = hashlib.sha256()
    for path in files_below(project.segments_dir):
        status = path.stat()
        digest.update(f"{path}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()
