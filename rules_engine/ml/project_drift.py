"""The drift of everything that a project has fitted, clusters and models."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from rules_engine.diagnostics import listing
from rules_engine.errors import UnknownNameError
from rules_engine.folders import Project
from rules_engine.ml.clusters.model import CLUSTERS
from rules_engine.ml.clusters.project import stored_drift
from rules_engine.ml.drift import Drift
from rules_engine.ml.propensity.drift import model_drift
from rules_engine.ml.propensity.model import MODELS
from rules_engine.ml.propensity.project import ModelProject
from rules_engine.ml.versions.store import VersionStore, fitted_names


def project_drift(
    project: Project, names: Sequence[str], at: int | None, report: Callable[[str], None] = lambda _text: None
) -> Iterator[Drift]:
    """Yield how far the named clusters and models have drifted; without names, all that were fitted.

    Parameters
    ----------
    at : int or None
        the instant, in microseconds; by default the project's, else the clock's.

    Raises
    ------
    UnknownNameError
        if nothing of a name was fitted, or nothing at all.
    DataError
        if a version cannot be used, or nobody has its features.
    """
    clusters, models = fitted_names(project, CLUSTERS), fitted_names(project, MODELS)
    fitted = [*clusters, *models]
    for name in names:
        if name not in fitted:
            hint = f"there is {listing(fitted)}" if fitted else "nothing was fitted yet"
            raise UnknownNameError(f"no clusters and no model `{name}` were fitted", hint=hint)
    if not fitted:
        raise UnknownNameError("nothing was fitted yet", hint="run `segments cluster fit` or `segments model fit`")
    for name in clusters:
        if not names or name in names:
            report(f"Comparing entities with those of {name}")
            yield from stored_drift(project, name, at)
    for name in models:
        if not names or name in names:
            report(f"Comparing scores with those of {name}")
            model = VersionStore(project, MODELS, name).current()
            yield from model_drift(ModelProject.open(project, name, at), model).rows()
