"""Put the numbers of promoted models that score within requests into the read plan."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from rules_engine.diagnostics import listing
from rules_engine.errors import NotAppliedError, ProjectError
from rules_engine.folders import Project
from rules_engine.ml.propensity.model import MODELS
from rules_engine.ml.versions.store import VersionStore, fitted_names
from rules_engine.project.lock import project_lock
from rules_engine.project.versions import record
from rules_engine.read_plan import ReadPlan
from rules_engine.rules.catalog import Catalog


def request_models(project: Project, catalog: Catalog) -> dict[str, Any]:
    """Return the part of the definitions about models: empty, or ``models`` with a scorer for each, as plain data.

    Raises
    ------
    ProjectError
        if a model needs a feature that there is not.
    DataError
        if a stored version cannot be used.
    """
    scorers = {}
    for name in fitted_names(project, MODELS):
        versions = VersionStore(project, MODELS, name)
        promoted = versions.promoted()
        if promoted is None:
            continue
        model = versions.load(promoted)
        if not model.definition.at_request:
            continue
        gone = [feature for feature in (*model.features, f"{name}:score") if feature not in catalog.features]
        if gone:
            raise ProjectError(
                f"{name} {promoted} scores within requests and needs {listing(gone)}, which there is not",
                hint="bring it back, or promote a version that does without: `segments model promote`",
            )
        scorers[name] = model.scorer.to_plain()
    return {"models": scorers} if scorers else {}


def publish(project: Project) -> bool:
    """Put the promoted versions into the read plan of requests, and return whether that changed anything.

    Without a plan there is nothing to do: ``segments apply`` puts them into the first one.
    """
    with project_lock(project):
        try:
            plan = ReadPlan.load(project.read_plan)
        except NotAppliedError:
            return False
        definitions = {kind: content for kind, content in plan.definitions.items() if kind != "models"}
        definitions |= request_models(project, plan.catalog())
        if definitions == plan.definitions:
            return False
        changed = replace(plan, definitions=definitions)
        record(project, changed)
        changed.save(project.read_plan)
    return True
