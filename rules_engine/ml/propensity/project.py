"""A project opened for its models: definitions checked, Feast at hand, and what a fit or a run of scores needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rules_engine.clock import now_micros
from rules_engine.diagnostics import listing
from rules_engine.errors import DataError
from rules_engine.features.feast.repo import FeastRepo
from rules_engine.folders import Project
from rules_engine.ml.filled_view import SCORES
from rules_engine.ml.propensity.attach import Scored, attach
from rules_engine.ml.propensity.check import load_model_definitions
from rules_engine.ml.propensity.definition import FILE, ModelDefinition, split
from rules_engine.ml.propensity.fit import Material
from rules_engine.ml.propensity.model import MODELS, PropensityModel
from rules_engine.ml.propensity.target import occurrences
from rules_engine.ml.propensity.training import Population, training_rows
from rules_engine.ml.versions.store import VersionStore, choose_name
from rules_engine.project.catalog import project_catalog
from rules_engine.rules.catalog import Catalog
from rules_engine.rules.load import load_folder
from rules_engine.rules.program import Program
from rules_engine.rules.walk import dependencies


@dataclass(frozen=True, slots=True)
class ModelProject:
    """A project opened for one of its models.

    Attributes
    ----------
    definition
        the model's, as the file has it.
    now
        the instant that counts as now, in microseconds: the given one, the project's, or the clock's.
    """

    repo: FeastRepo
    catalog: Catalog
    program: Program
    definition: ModelDefinition
    now: int

    @classmethod
    def open(cls, project: Project, name: str | None = None, at: int | None = None) -> ModelProject:
        """Open a project.

        Raises
        ------
        DefinitionError
            with every problem of models.yaml, or of the segments.
        ProjectError, UnknownNameError
            if there is no such model, or the Feast repository cannot be used.
        """
        repo = FeastRepo(project)
        catalog = project_catalog(project, repo)
        definitions = load_folder(project.segments_dir, catalog)
        models = load_model_definitions(project, catalog, definitions.program.names)
        set_now = definitions.settings.now
        now = at if at is not None else now_micros() if set_now is None else set_now
        chosen = models[choose_name(models, name, f"models in {FILE}")]
        _refuse_own_score(definitions.program, chosen)
        return cls(repo, catalog, definitions.program, chosen, now)

    def store(self) -> VersionStore[PropensityModel]:
        """Return the store of the model's versions, after a look at the view that is to hold its scores.

        Raises
        ------
        ProjectError
            if no feature view can hold the scores.
        """
        SCORES.check(self.repo, self.definition.name)
        return VersionStore(self.repo.project, MODELS, self.definition.name)

    def attach(
        self, version: str | None, progress: Callable[[str], None] = lambda _text: None
    ) -> tuple[PropensityModel, Scored]:
        """Score everyone as of now by a version, by default the promoted one.

        Raises
        ------
        UnknownNameError
            if there is no such version, or none is promoted.
        DataError
            if nobody has a score.
        """
        store = self.store()
        model = store.current(version)
        scored = attach(self.repo, model, self.population(model), self.now, progress)
        store.mark_attached(model.version, now_micros())
        return model, scored

    def material(self, report: Callable[[str], None] = lambda _text: None) -> Material:
        """Read what the model is fitted to and assessed on.

        Raises
        ------
        DataError
            if a cut's horizon is not over, or nobody has any of the features.
        ProjectError
            if the offline store cannot be read.
        """
        definition, horizon = self.definition, self.definition.target.within
        cuts = definition.cuts.instants(self.now, horizon)
        earlier, later = split(cuts, definition.test_cuts, horizon)
        report("Reading who did it")
        did = occurrences(self.repo, definition.target, self.catalog, cuts[0], cuts[-1] + horizon)
        people = Population(self.repo, self.catalog, definition.everything_read, definition.population, self.program)
        train = training_rows(people, definition, earlier, did, definition.max_rows, report)
        test = training_rows(people, definition, later, did, definition.max_rows, report)
        skipped = tuple(cut for cut in cuts if cut not in {*earlier, *later})
        return Material(train, test, skipped, people.types)

    def population(self, model: PropensityModel) -> Population:
        """Return the population of a stored model, with the features that it reads.

        Raises
        ------
        DataError
            if a feature or the segment is gone, or of another type than when it was fitted.
        """
        definition = model.definition
        gone = [name for name in definition.keys if name not in self.catalog.features]
        if gone or (definition.population and definition.population not in self.program.names):
            lost = listing(gone) if gone else f"the segment `{definition.population}`"
            raise DataError(
                f"{definition.name} {model.version} needs {lost}, which is gone",
                hint="bring it back, or fit anew with `segments model fit`",
            )
        return Population(self.repo, self.catalog, definition.keys, definition.population, self.program)


def _refuse_own_score(program: Program, definition: ModelDefinition) -> None:
    """Refuse a population that depends on the model's own score: it would be another one after every run."""
    if not definition.population:
        return
    for reached in program.closure([definition.population]):
        for feature in dependencies(program.segment(reached).when).features:
            if feature.startswith(f"{definition.name}:"):
                raise DataError(
                    f"the population of `{definition.name}` is `{definition.population}`, which reads {feature} itself",
                    hint="take a population that does not depend on the score",
                )
