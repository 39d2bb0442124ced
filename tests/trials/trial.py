"""One random project, made and filled by the commands, and then compared."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from rules_engine.cli.main import app
from rules_engine.deploy.definitions import load_project
from rules_engine.folders import Project
from tests.commands import run, stopped
from tests.trials import files
from tests.trials.comparison import Comparison
from tests.trials.outcome import Trial
from tests.trials.simulation import SimulationComparison
from tests.trials.world import World


def run_trial(world: World, root: Path) -> Trial:
    """Make the project in an empty folder, fill it, and compare."""
    draw = random.Random(world.seed + 1)
    files.write_repository(world, root, draw)
    documents = _loadable(world, root)
    with stopped(root):
        _fill(world, documents, root, draw)
        trial = Trial()
        definitions = load_project(Project.open(root)).definitions
        Comparison(world, root, draw, trial, definitions).compare()
        SimulationComparison(world, root, draw, trial, definitions).compare()
        return trial


def _loadable(world: World, root: Path) -> dict[str, Any]:
    """Return the documents that load: some draw on nothing that can be, such as what is never true."""
    documents = files.documents_of(world)
    while True:
        files.write_definitions(documents, root)
        done = CliRunner().invoke(app, ["validate", "--format", "json", "--repo", str(root)])
        problems = json.loads(done.stdout)["problems"]
        refused = {Path(problem["file"]).stem for problem in problems if problem["severity"] == "error"}
        if not refused:
            return documents
        for name in refused:
            del documents[name]
            (root / "segments" / f"{name}.yaml").unlink()


def _fill(world: World, documents: Mapping[str, Any], root: Path, draw: random.Random) -> None:
    """Apply the definitions in one to three steps, and take the events and the sources before, between and after."""
    names = list(documents)
    for name in names:
        (root / "segments" / f"{name}.yaml").unlink()
    cuts = sorted(draw.randint(0, len(names)) for _ in range(draw.choice((0, 1, 2))))
    first, *applies = ({name: documents[name] for name in names[a:b]} for a, b in pairwise([0, *cuts, len(names)]))
    _apply(root, first)
    steps: list[Callable[[], object]] = [
        partial(_ingest, root, number, *batch) for number, batch in enumerate(files.in_batches(world, draw))
    ]
    steps += draw.choice(([], [partial(run, "materialize", "--repo", root)]))
    draw.shuffle(steps)
    # Documents may refer to those of an earlier step, so the steps keep their order.
    places = sorted(draw.randint(0, len(steps)) for _ in applies)
    for place, part in reversed([*zip(places, applies, strict=True)]):
        steps.insert(place, partial(_apply, root, part))
    for step in steps:
        step()
    files.write_sources(world, root, draw)
    run("materialize", "--repo", root)


def _apply(root: Path, documents: Mapping[str, Any]) -> None:
    files.write_definitions(documents, root)
    run("apply", "--repo", root)


def _ingest(root: Path, number: int, ending: str, part: Sequence[Mapping[str, Any]]) -> None:
    path = root / f"events{number}{ending}"
    files.write_events(part, path)
    run("ingest", path, "--repo", root)
