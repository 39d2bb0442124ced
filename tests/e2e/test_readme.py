"""Runs what README.md shows, in order, where the demo ran."""

from __future__ import annotations

import doctest
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import ROOT, Demo
from tests.service.conftest import RunningService, end, start

README = (ROOT / "README.md").read_text(encoding="utf-8")
#: The definitions that the tour adds.
ADDED = ("loyal_newcomers", "front_page")
_FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SECONDS = re.compile(r"\b[0-9]+(\.[0-9])? s\b")


def _transcript(block: str) -> Iterator[tuple[str, str]]:
    """The commands of a console block, each with the output shown."""
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        command, _, shown = part.partition("\n")
        yield command, shown


def _equal(shown: str, printed: str) -> bool:
    """`...` stands for any text, and how long something took is not compared."""
    shown, printed = (_SECONDS.sub("N s", text.strip()) for text in (shown, printed))
    return doctest.OutputChecker().check_output(shown, printed, doctest.ELLIPSIS)


@pytest.fixture
def tour(demo: Demo) -> Iterator[Demo]:
    """The demo's project; the definitions that the tour adds are taken out again."""
    yield demo
    for name in ADDED:
        (demo.root / "segments" / f"{name}.yaml").unlink(missing_ok=True)
    demo.run("apply")


@pytest.fixture
def served(tour: Demo, tmp_path: Path) -> Iterator[RunningService]:
    """The demo's project as a service, on a free port."""
    service = start(tour.root, tmp_path / "service.log", ("--dev",), {})
    yield service
    end(service)


@pytest.mark.slow
def test_the_tour_works_and_prints_what_is_shown(
    tour: Demo, served: RunningService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tour.root)
    commands, names, python, asked = 0, {}, 0, 0
    for language, block in _FENCE.findall(README):
        if language == "console" and block.startswith("$ make demo"):
            assert _equal(block.partition("\n")[2], tour.output)
        elif language == "console" and "segments serve" in block:
            _, (command, shown) = _transcript(block)
            done = tour.shell(command.replace("localhost:8080", served.url))
            assert _equal(shown, done.stdout), f"{command}\n{done.stdout}{done.stderr}"
            asked += 1
        elif language == "console":
            for command, shown in _transcript(block):
                done = tour.shell(command)
                assert _equal(shown, done.stdout + done.stderr), f"{command}\n{done.stdout}{done.stderr}"
                commands += 1
        elif language == "yaml" and (name := block.split(maxsplit=2)[1]) in ADDED:
            (tour.root / "segments" / f"{name}.yaml").write_text(block, encoding="utf-8")
        elif language == "python":
            test = doctest.DocTestParser().get_doctest(block, names, "README.md", None, None)
            runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
            said: list[str] = []
            runner.run(test, out=said.append, clear_globs=False)
            assert runner.failures == 0, "".join(said)
            names, python = test.globs, python + runner.tries
    names["client"].close()
    assert commands >= 9
    assert asked == 1
    assert python >= 9


def test_the_commands_and_the_files_of_the_readme_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"make ([a-z]+)", README):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    example = next(block for _, block in _FENCE.findall(README) if block.startswith("test: at_risk"))
    written = (ROOT / "segments" / "at_risk.test.yaml").read_text(encoding="utf-8")
    assert [line for line in example.splitlines() if line not in written.splitlines()] == []
