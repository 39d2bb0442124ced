"""What commands do with a project on disk: the catalog's copy, checks, the schema for editors, new projects."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from pyarrow import parquet

from rules_engine.deploy.check import check_project
from rules_engine.deploy.new_project import new_project
from rules_engine.deploy.schema import project_schema, write_schema
from rules_engine.diagnostics import Severity
from rules_engine.errors import ProjectError
from rules_engine.features.feast.repo import FeastRepo
from rules_engine.features.feast_import import import_feast
from rules_engine.folders import Project
from rules_engine.project.catalog import _decode, _encode, project_catalog
from rules_engine.project.store import embedded_store
from rules_engine.rules.aggregates import Aggregate
from rules_engine.rules.catalog import Catalog, EventType, Feature
from rules_engine.rules.nodes import EventAggregate, EventMatch
from rules_engine.rules.types import FLOAT, INTEGER, STRING, TIME, Kind, ValueType

import_feast()


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A new project. Tests that change it change it back."""
    project = new_project(tmp_path_factory.mktemp("projects") / "shop")
    project_catalog(project)
    return project


# --- the catalog's copy ---------------------------------------------------------------------------------------------


def test_the_copy_says_what_feast_says(shop: Project) -> None:
    copy = project_catalog(shop)
    assert copy == FeastRepo(shop).catalog()
    assert copy.features["orders:last_order"].type == TIME
    assert set(copy.ttl) == {"orders"}


def test_the_copy_is_taken_as_long_as_no_file_changed(shop: Project) -> None:
    path = shop.state_dir / "catalog.json"
    original = path.read_bytes()
    changed = original.replace(b"ISO code of the country", b"a mark that only the copy has")
    assert changed != original
    path.write_bytes(changed)
    try:
        assert project_catalog(shop).features["profile:country"].description == "a mark that only the copy has"
        features = shop.feature_repo / "features.py"
        text = features.read_text()
        features.write_text(text.replace("ISO code of the country", "the country"))
        assert project_catalog(shop).features["profile:country"].description == "the country"
        features.write_text(text)
        assert project_catalog(shop).features["profile:country"].description == "ISO code of the country"
    finally:
        features.write_text(text)
        path.write_bytes(original)


@pytest.mark.parametrize("content", [b"", b"[]", b'{"format": 1}', b"\xff"])
def test_a_damaged_copy_is_made_anew(content: bytes, shop: Project) -> None:
    path = shop.state_dir / "catalog.json"
    original = path.read_bytes()
    path.write_bytes(content)
    assert "orders:orders_30d" in project_catalog(shop).features
    assert path.read_bytes() == original


def test_the_copy_keeps_everything_of_a_catalog() -> None:
    lists = Feature("user", "tags", ValueType(Kind.STRING, is_list=True), "Array(String)", "What they like")
    unreadable = Feature("user", "map", None, "Map")
    count = EventAggregate(Aggregate.COUNT, EventMatch("buy"), within=5)
    catalog = Catalog(
        features={feature.key: feature for feature in (lists, unreadable)},
        ttl={"user": 7},
        events={"buy": EventType("buy", {"price": FLOAT, "sku": STRING, "at": TIME, "n": INTEGER}, 9, "A purchase")},
        event_features={"buys": count},
    )
    assert _decode(json.loads(json.dumps(_encode(catalog)))) == catalog


# --- checks ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def write(shop: Project, request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Write a file into segments/, for as long as the test runs."""

    def write_file(name: str, text: str) -> None:
        path = shop.segments_dir / name
        assert not path.exists()
        path.write_text(text)
        request.addfinalizer(path.unlink)

    return write_file


def test_a_sound_project_has_no_problems(shop: Project) -> None:
    report = check_project(shop)
    documents = {kind: number for kind, number in report.documents.items() if number}
    assert (report.files, report.test_files, documents) == (5, 4, {"segment": 3, "trigger": 1})
    assert report.problems == ()


def test_problems_of_tests_and_warnings_are_shown_together(shop: Project, write: Callable[[str, str], None]) -> None:
    one, five = (f"{{feature: orders:orders_30d, at_least: {number}}}" for number in (1, 5))
    write("a.yaml", f"segment: a\nwhen: {{any: [{one}, {five}]}}")
    write("a.test.yaml", "test: b\ncases: [{name: nobody, expect: true}]")
    problems = check_project(shop).problems
    assert [(problem.span.file, problem.code, problem.severity) for problem in problems] == [
        ("segments/a.test.yaml", "unknown-segment", Severity.ERROR),
        ("segments/a.yaml", "shadowed-condition", Severity.WARNING),
    ]


# --- the schema for editors -----------------------------------------------------------------------------------------


def test_the_schema_knows_segments_of_files_that_are_not_sound(
    shop: Project, write: Callable[[str, str], None]
) -> None:
    write("broken.yaml", "segment: unfinished\nwhen: {feature: nothing:here}")
    names = project_schema(shop)["definitions"]["segment_name"]["examples"]
    assert names == ["lapsed", "unfinished", "vip", "welcome"]


def test_the_schema_is_written_where_it_is_wanted(shop: Project, tmp_path: Path) -> None:
    assert write_schema(shop) == shop.state_dir / "schema.json"
    path = write_schema(shop, to=tmp_path / "deep" / "schema.json")
    assert json.loads(path.read_text()) == json.loads((shop.state_dir / "schema.json").read_text())


# --- new projects and stores ----------------------------------------------------------------------------------------


def test_the_sample_is_the_same_every_time(shop: Project, tmp_path: Path) -> None:
    other = new_project(tmp_path / "other")
    for name in ("profile", "orders"):
        one, two = (parquet.read_table(project.feature_repo / "data" / f"{name}.parquet") for project in (shop, other))
        assert one.equals(two)
        assert one.num_rows == 200


def test_a_project_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(ProjectError, match="cannot write"):
        new_project(tmp_path / "file" / "shop")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("project: shop\nonline_store: {type: redis}", "not the embedded one, but `redis`"),
        ("project: shop\nonline_store: redis", "not the embedded one, but `redis`"),
        ("project: shop", "not the embedded one, but `sqlite`"),
        ("project: [", "cannot be read"),
    ],
)
def test_only_the_embedded_store_is_looked_after(text: str, said: str, make_project: Callable[..., Project]) -> None:
    project = make_project({"feature_repo/feature_store.yaml": text})
    with pytest.raises(ProjectError, match=said):
        embedded_store(project)
