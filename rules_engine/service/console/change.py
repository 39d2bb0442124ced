"""Show what a change of a segment would do, while somebody types or moves a threshold. Nothing is changed."""

from __future__ import annotations

import asyncio
import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from rules_engine.service.console.background import Answer
from rules_engine.service.console.documents import find_document
from rules_engine.service.console.visits import Content, Visit
from rules_engine.service.problems import Problem

if TYPE_CHECKING:
    from rules_engine.service.console.trying import Threshold, TriedChange

#: A file of definitions that a change may be tried for.
_FILE = re.compile(r"segments/[\w./ -]+\.ya?ml\Z", re.ASCII)

_NEW_FILE = "segments/new_segment.yaml"


async def change_page(visit: Visit) -> Content:
    """Show the text of a segment, to be changed."""
    name = visit.query("segment")
    project = visit.service.project
    if not name:
        return await _content(visit, _NEW_FILE, await asyncio.to_thread(_first_text, visit), "", is_new=True)
    document = await asyncio.to_thread(find_document, project, name)
    if document is None:
        hint = "the files of the project have to be on this machine"
        raise Problem(404, "unknown-name", f"no file defines the segment `{name}`", hint)
    return await _content(visit, document.file, document.whole, name)


async def try_change(visit: Visit) -> Content:
    """Show what the change that was sent would do."""
    from rules_engine.service.console.trying import thresholds

    file, text, name = visit.form("file"), visit.form("text").replace("\r\n", "\n"), visit.form("segment")
    if not _is_definition_file(file):
        raise Problem(400, "invalid-file", "the file is none of segments/", "write e.g. segments/vip.yaml")
    text = _moved(visit, text, thresholds(text, name or None))
    return await _content(visit, file, text, name, everybody=bool(visit.form("everybody")))


def _moved(visit: Visit, text: str, present: list[Threshold]) -> str:
    """Return the text with the thresholds that were moved in place."""
    from rules_engine.service.console.trying import is_threshold, move

    for place, threshold in reversed(list(enumerate(present))):
        value = visit.form(f"threshold.{place}").strip()
        if value and visit.form(f"was.{place}") == threshold.text != value and is_threshold(value):
            text = move(text, threshold, value)
    return text


async def _content(
    visit: Visit, file: str, text: str, name: str, *, everybody: bool = False, is_new: bool = False
) -> Content:
    from rules_engine.service.console import trying

    service = visit.service
    arguments = (service.project.root, service.client.plan.definitions_version, file, text)
    answer: Answer[TriedChange] = Answer()
    if not is_new:
        waits = visit.request.scope["method"] == "POST"
        answer = await visit.background.ask(trying.try_change, *arguments, everybody, waits=waits, quick=not everybody)
    outcome = answer.value
    return Content(
        "change.html",
        {
            "title": f"Try a change of {name}" if name else "Try a change",
            "active": "/console/change",
            "segment": name,
            "file": file,
            "text": text,
            "thresholds": trying.thresholds(text, name or None),
            "answer": answer,
            "outcome": outcome,
            "names": list(service.client.program.names),
            "is_new": is_new,
            "more": "everybody" if everybody or (outcome is not None and outcome.is_sample) else "sample",
        },
    )


def _is_definition_file(file: str) -> bool:
    return bool(_FILE.match(file)) and ".." not in PurePosixPath(file).parts


def _first_text(visit: Visit) -> str:
    """Return a segment to begin with, on a feature that there is."""
    features = sorted(visit.service.client.plan.catalog().features)
    feature = features[0] if features else "view:name"
    return f"segment: new_segment\ndescription: Who it is for\nwhen: {{feature: {feature}, exists: true}}\n"
