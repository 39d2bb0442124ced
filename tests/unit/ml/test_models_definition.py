"""Definitions of models: what is accepted, what is refused, and where."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from rules_engine.clock import DAY, HOUR, parse_instant
from rules_engine.definitions.source import read_documents
from rules_engine.diagnostics import Diagnostic
from rules_engine.errors import DataError, DefinitionError, ProjectError
from rules_engine.folders import Project
from rules_engine.ml.filled_view import SCORES
from rules_engine.ml.propensity.check import definitions_of, load_model_definitions
from rules_engine.ml.propensity.definition import Cuts, ModelDefinition
from rules_engine.rules.catalog import Catalog, EventType, Feature
from rules_engine.rules.types import FLOAT, STRING, Kind, ValueType, from_feast_name
from tests.model_data import TYPES, definition, plain

FEATURES = [Feature("habits", name.partition(":")[2], found, "Int64") for name, found in TYPES.items()]
FEATURES += [
    Feature("orders", "amount", FLOAT, "Float64"),
    *(Feature("propensity", name, from_feast_name(kind), kind) for name, kind in SCORES.needed.items()),
    Feature("habits", "tags", ValueType(Kind.STRING, is_list=True), "Array(String)"),
]
CATALOG = Catalog(
    {feature.key: feature for feature in FEATURES},
    events={"purchase": EventType("purchase", {"amount": FLOAT, "sku": STRING}, retention=400 * DAY)},
)
SEGMENTS = ["buyers", "vips"]
FAR = {"every": "500d", "count": 3}


def read(text: str) -> dict[str, ModelDefinition]:
    documents, problems = read_documents(text, "models.yaml")
    return definitions_of(documents, CATALOG, SEGMENTS, problems)


def problem(**changes: Any) -> Diagnostic:
    """The one problem of a definition."""
    with pytest.raises(DefinitionError) as refused:
        read(yaml.safe_dump(plain(**changes), sort_keys=False))
    assert len(refused.value.diagnostics) == 1, str(refused.value)
    return refused.value.diagnostics[0]


def test_a_definition_is_read_and_written_back_the_same() -> None:
    found = read(yaml.safe_dump(plain(population="buyers", at_request=False)))["propensity"]
    assert ModelDefinition.from_plain(found.to_plain()) == found
    assert found.target.within == 30 * DAY
    assert found.keys[:2] == ("habits:recency", "habits:orders")
    assert [feature.scale for feature in found.features[:3]] == ["standard", "log", "standard"]
    assert found.cuts.listed[0] == parse_instant("2026-01-01T00:00:00Z")
    assert found.everything_read == found.keys


def test_defaults() -> None:
    found = definition(algorithms=None, search=None, subgroups=None, cuts={"every": "36h", "count": 3})
    assert set(found.algorithms) == {"logistic_regression", "gradient_boosting"}
    assert (found.calibration, found.test_cuts, found.at_request) == ("sigmoid", 1, False)
    assert len(found.grid()) == found.candidates() == 4 + 4
    assert found.cuts.instants(now=100 * DAY, horizon=30 * DAY) == (67 * DAY, 68 * DAY + 12 * HOUR, 70 * DAY)
    assert ModelDefinition.from_plain(found.to_plain()) == found


def test_a_target_of_events_is_checked_as_a_condition_is() -> None:
    event = {"did": "purchase", "where": {"amount": {"greater_than": 10}}, "within": "30d"}
    found = definition(target=event).target
    assert (found.did, found.to_plain()) == ("purchase", event)
    read(yaml.safe_dump(plain(target=event)))
    assert problem(target={"did": "purchas", "within": "30d"}).code == "unknown-event"
    assert problem(target={"did": "purchase", "within": "401d"}, cuts=FAR).code == "window-beyond-retention"
    wrong = {"did": "purchase", "where": {"amount": {"greater_than": "ten"}}, "within": "30d"}
    assert problem(target=wrong).code == "literal-type"


@pytest.mark.parametrize(
    ("changes", "code", "message"),
    [
        ({"features": ["habits:recncy"]}, "unknown-feature", "there is no feature `habits:recncy`"),
        ({"features": ["habits:recency", "habits:recency"]}, "duplicate-feature", "`habits:recency` is listed twice"),
        ({"features": ["propensity:score"]}, "own-score", "what this model writes"),
        ({"features": ["habits:tags"]}, "feature-type", "a model looks at numbers"),
        ({"features": [{"feature": "habits:city", "scale": "log"}]}, "scale-type", "which has no logarithm"),
        ({"features": [{"feature": "habits:recency", "scal": "log"}]}, "unknown-key", "there is no key `scal`"),
        ({"features": [7]}, "wrong-shape", "is a mapping, not `7`"),
        ({"features": []}, "empty-list", "`features` is empty"),
        ({"baseline": {"recency": "habits:city", "frequency": "habits:orders"}}, "feature-type", "are numbers"),
        ({"baseline": {"recency": "habits:recency"}}, "missing-key", "needs `frequency`"),
        ({"baseline": None}, "missing-key", "needs `baseline`"),
        ({"subgroups": ["habits:town"]}, "unknown-feature", "habits:town"),
        ({"population": "buyer"}, "unknown-segment", "there is no segment `buyer`"),
        ({"target": {"new_row": "order", "within": "30d"}}, "unknown-view", "there is no feature view `order`"),
        ({"target": {"new_row": "propensity", "within": "30d"}}, "own-score", "what this model writes"),
        ({"target": {"new_row": "orders", "within": "1 month"}}, "bad-duration", "months and years differ"),
        ({"target": {"new_row": "orders", "within": "9d", "where": {}}}, "where-of-rows", "`where` is about events"),
        ({"target": {"within": "9d"}}, "missing-key", "needs one of"),
        ({"cuts": [CUT := "2026-01-01T00:00:00Z", CUT]}, "cut-order", "is not after the cut before it"),
        ({"cuts": [CUT, "2026-02-01"]}, "bad-instant", "has no offset"),
        ({"cuts": {"every": "0d", "count": 3}}, "bad-duration", "no time at all"),
        (
            {"cuts": [CUT, "2026-01-20T00:00:00Z"]},
            "no-training-cut",
            "no cut is a whole horizon before the first test cut",
        ),
        ({"test_cuts": 4}, "no-training-cut", "all 4 cuts are for the test"),
        ({"algorithms": {}}, "empty-list", "`algorithms` is empty"),
        ({"algorithms": {"svm": {}}}, "unknown-key", "there is no key `svm`"),
        ({"algorithms": {"random_forest": {"trees": 5}}}, "unknown-key", "there is no key `trees`"),
        (
            {"algorithms": {"logistic_regression": {"C": [1, 0]}}},
            "wrong-shape",
            "0 is less than or equal to the minimum",
        ),
        ({"calibration": "platt"}, "invalid-choice", "is one of"),
        ({"search": {"folds": 1}}, "wrong-shape", "1 is less than the minimum of 2"),
        ({"model": "My Model"}, "invalid-name", "cannot be used"),
        ({"population": "vips", "at_request": True}, "population-at-request", "everyone who is asked for"),
    ],
)
def test_what_cannot_work_is_refused(changes: dict[str, Any], code: str, message: str) -> None:
    found = problem(**changes)
    assert found.code == code
    assert message in found.message
    assert found.span.file == "models.yaml"
    assert found.span.line >= 1


def test_a_forest_that_is_too_large_for_requests_is_refused_when_it_is_defined() -> None:
    large = {"random_forest": {"n_estimators": [10, 500], "max_depth": 8}}
    found = problem(algorithms=large, at_request=True)
    assert found.code == "too-large-for-requests"
    assert "can have 255,500 nodes" in found.message
    assert read(yaml.safe_dump(plain(algorithms=large)))
    assert read(yaml.safe_dump(plain(algorithms={"random_forest": {"n_estimators": 30}}, at_request=False)))
    assert read(yaml.safe_dump(plain(algorithms={"gradient_boosting": {}}, at_request=True)))


def test_problems_say_where_and_what_to_do() -> None:
    text = """\
model: propensity
target: {new_row: orders, within: 30d}
features: [habits:recency, habits:ordrs]
cuts: {every: 30d, count: 6}
baseline: {recency: habits:recency, frequency: habits:order}
"""
    with pytest.raises(DefinitionError) as refused:
        read(text)
    assert str(refused.value).splitlines()[:4] == [
        "models.yaml:3:28: error[unknown-feature]: there is no feature `habits:ordrs`",
        "    3 | features: [habits:recency, habits:ordrs]",
        "      |                            ^^^^^^^^^^^^",
        "  hint: did you mean `habits:orders`?",
    ]
    assert [str(found.span) for found in refused.value.diagnostics] == ["models.yaml:3:28", "models.yaml:5:48"]


def test_names(tmp_path: Path) -> None:
    one = yaml.safe_dump(plain(), sort_keys=False)
    with pytest.raises(DefinitionError, match="`propensity` is defined twice"):
        read(f"{one}---\n{one}")
    project = Project(tmp_path)
    with pytest.raises(ProjectError, match=r"models\.yaml, so nothing says what is to be predicted"):
        load_model_definitions(project, CATALOG)
    project.feature_repo.mkdir()
    (project.feature_repo / "models.yaml").write_text("# nothing\n")
    with pytest.raises(ProjectError, match="is empty"):
        load_model_definitions(project, CATALOG)


def test_a_cut_whose_horizon_is_not_over_is_refused() -> None:
    with pytest.raises(DataError, match=r"the horizon of the cut 1970-01-03T00:00:00Z ends at 1970-01-05T00:00:00Z"):
        Cuts(listed=(0, 2 * DAY)).instants(now=4 * DAY - 1, horizon=2 * DAY)
    assert Cuts(listed=(0, 2 * DAY)).instants(now=4 * DAY, horizon=DAY) == (0, 2 * DAY)
