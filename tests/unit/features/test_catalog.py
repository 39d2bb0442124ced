"""The Feast repository as the language sees it: names, types, ttl; and what is refused, with a message that helps."""

from __future__ import annotations

import shutil
import subprocess
import sys
import textwrap
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from rules_engine.clock import DAY
from rules_engine.errors import ProjectError, UnsupportedError
from rules_engine.features.feast.repo import EntityKey, FeastRepo
from rules_engine.folders import Project
from rules_engine.rules.types import BOOLEAN, FLOAT, INTEGER, STRING, TIME, Kind, ValueType

HEAD = """\
from datetime import timedelta

from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.types import Array, Bool, Float32, Float64, Int32, Int64, Map, String, UnixTimestamp
"""
USER = 'user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING)\n'
SOURCE = 'source = FileSource(name="s", path="nothing.parquet", timestamp_field="event_timestamp")\n'
PROFILE = """\
profile = FeatureView(
    name="profile", entities=[user], ttl=timedelta(days=1), source=source,
    schema=[Field(name="age", dtype=Int64)],
)
"""


@pytest.fixture
def repo_of(make_project: Callable[..., Project]) -> Callable[..., FeastRepo]:
    """Open a Feast repository made of these definitions."""

    def make(*definitions: str) -> FeastRepo:
        return FeastRepo(make_project({"feature_repo/definitions.py": HEAD + "".join(definitions)}))

    return make


def test_the_demo_repository(tmp_path: Path) -> None:
    """Names and types that the segments of the demo are written against, before any data was built."""
    shutil.copytree(
        Path(__file__).parents[3] / "feature_repo",
        tmp_path / "feature_repo",
        ignore=shutil.ignore_patterns("data", "__pycache__"),
    )
    (tmp_path / "segments").mkdir()
    repo = FeastRepo(Project.open(tmp_path))
    assert repo.entity() == EntityKey("user", "user_id")
    catalog = repo.catalog()
    assert {key: feature.type for key, feature in catalog.features.items()} == {
        "purchase_history:frequency": INTEGER,
        "purchase_history:items": INTEGER,
        "purchase_history:monetary_value": FLOAT,
        "purchase_history:mean_basket": FLOAT,
        "purchase_history:last_basket": FLOAT,
        "purchase_history:typical_gap_days": FLOAT,
        "purchase_history:first_purchase": TIME,
        "purchase_history:last_purchase": TIME,
        "rfm:recency_days": INTEGER,
        "rfm:tenure_days": INTEGER,
        "rfm:frequency": INTEGER,
        "rfm:monetary_value": FLOAT,
        "rfm:mean_basket": FLOAT,
        "rfm:purchases_90d": INTEGER,
        "rfm:spend_90d": FLOAT,
        "user_clusters:label": STRING,
        "user_clusters:cluster": INTEGER,
        "user_clusters:distance": FLOAT,
        "user_clusters:model_version": STRING,
        "user_clusters:confidence": FLOAT,
        "user_clusters:outlier": BOOLEAN,
        "purchase_propensity:score": FLOAT,
        "purchase_propensity:percentile": FLOAT,
        "purchase_propensity:model_version": STRING,
    }
    assert catalog.ttl == {"rfm": 40 * DAY, "purchase_propensity": 40 * DAY}
    assert all(feature.description for feature in catalog.features.values())
    assert not (tmp_path / ".segments").exists()  # looking changes nothing
    assert not list(tmp_path.rglob("__pycache__"))


def test_types_and_what_rules_cannot_read(repo_of: Callable[..., FeastRepo]) -> None:
    fields = ["Int32", "Int64", "Float32", "Float64", "String", "Bool", "UnixTimestamp", "Map"]
    schema = [f'Field(name="{name.lower()}", dtype={name})' for name in fields]
    schema += ['Field(name="tags", dtype=Array(String))', 'Field(name="user_id", dtype=String)']
    view = f'v = FeatureView(name="v", entities=[user], source=source, schema=[{", ".join(schema)}])\n'
    catalog = repo_of(USER, SOURCE, view).catalog()
    assert {name.removeprefix("v:"): feature.type for name, feature in catalog.features.items()} == {
        "int32": INTEGER,
        "int64": INTEGER,
        "float32": FLOAT,
        "float64": FLOAT,
        "string": STRING,
        "bool": BOOLEAN,
        "unixtimestamp": TIME,
        "map": None,
        "tags": ValueType(Kind.STRING, is_list=True),
    }
    assert catalog.ttl == {}


def test_views_that_are_not_served_online_are_not_for_rules(repo_of: Callable[..., FeastRepo]) -> None:
    hidden = PROFILE.replace("profile", "hidden").replace("ttl=", "online=False, ttl=")
    assert set(repo_of(USER, SOURCE, PROFILE, hidden).catalog().features) == {"profile:age"}


def test_files_may_import_each_other_and_leave_no_trace(make_project: Callable[..., Project]) -> None:
    files = {
        "feature_repo/entities.py": HEAD + USER,
        "feature_repo/deep/views.py": HEAD + SOURCE + "from entities import user\n" + PROFILE,
        "feature_repo/services.py": HEAD
        + "from deep.views import profile\n"
        + 'service = FeatureService(name="service", features=[profile])\n',
        "feature_repo/scratch.py": "raise RuntimeError('not part of the repository')\n",
        "feature_repo/.feastignore": "scratch.py\n",
    }
    path, modules = list(sys.path), set(sys.modules)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        filters = list(warnings.filters)
        repo = FeastRepo(make_project(files))
        assert warnings.filters == filters
    assert caught == []
    assert set(repo.catalog().features) == {"profile:age"}
    assert [service.name for service in repo.contents.feature_services] == ["service"]
    assert sys.path == path
    assert {"entities", "deep", "deep.views", "services"}.isdisjoint(set(sys.modules) - modules)


def test_two_projects_in_one_process_do_not_see_each_other(make_project: Callable[..., Project]) -> None:
    one = make_project({"feature_repo/definitions.py": HEAD + USER + SOURCE + PROFILE}, name="one")
    two = make_project(
        {"feature_repo/definitions.py": HEAD + USER + SOURCE + PROFILE.replace("age", "height")}, name="two"
    )
    assert set(FeastRepo(one).catalog().features) == {"profile:age"}
    assert set(FeastRepo(two).catalog().features) == {"profile:height"}


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("definitions", "error", "message"),
    [
        ("", ProjectError, "defines no feature view that is served online"),
        (
            'user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)\n' + SOURCE + PROFILE,
            UnsupportedError,
            "the join key `user_id` of entity `user` is Int64, and entity keys are strings",
        ),
        (
            USER
            + SOURCE
            + PROFILE
            + 'item = Entity(name="item", join_keys=["item_id"], value_type=ValueType.STRING)\n'
            + PROFILE.replace("profile", "other").replace("[user]", "[item]"),
            ProjectError,
            "belong to several entities (`item`, `user`)",
        ),
        (
            USER
            + SOURCE
            + 'item = Entity(name="item", join_keys=["item_id"], value_type=ValueType.STRING)\n'
            + PROFILE.replace("[user]", "[user, item]"),
            UnsupportedError,
            "has the join keys `item_id`, `user_id`; one is supported",
        ),
    ],
)
def test_what_segments_cannot_be_about(
    repo_of: Callable[..., FeastRepo], definitions: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as caught:
        repo_of(definitions).catalog()
    assert message in str(caught.value)
    assert caught.value.hint  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("definitions", "message"),
    [
        ("import nothing_of_this_name\n", "definitions.py:5: ModuleNotFoundError"),
        ("def broken(:\n", "definitions.py:5: SyntaxError"),
        ("1 / 0\n", "definitions.py:5: ZeroDivisionError"),
        (USER + SOURCE + PROFILE + PROFILE.replace("profile = ", "again = "), "has two feature views named `profile`"),
        (
            USER + SOURCE + PROFILE.replace("timedelta(days=1)", "'1d'"),
            "definition of `profile` (feature views) is not",
        ),
        (
            USER.replace('"user"', "5") + SOURCE + PROFILE.replace("[user]", "[]"),
            "definition of `5` (entities) is not",
        ),
    ],
)
def test_definitions_that_do_not_load(repo_of: Callable[..., FeastRepo], definitions: str, message: str) -> None:
    with pytest.raises(ProjectError) as caught:
        repo_of(definitions)
    assert message in str(caught.value)
    assert caught.value.hint


def test_a_view_without_schema_or_data_says_what_is_missing(repo_of: Callable[..., FeastRepo]) -> None:
    with pytest.raises(ProjectError, match="cannot infer the columns"):
        repo_of(USER, SOURCE, 'v = FeatureView(name="v", entities=[user], source=source)\n')


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("project: shop\nregistry: r.db\nonline_store: {type: nowhere}\n", "nowhere"),
        ("project: [not, closed\n", "feature_store.yaml"),
        ("", "feature_store.yaml"),
        ("registry: r.db\n", "project"),
    ],
)
def test_a_broken_configuration_names_its_file(make_project: Callable[..., Project], yaml: str, message: str) -> None:
    project = make_project({"feature_repo/definitions.py": HEAD})
    project.feature_store_yaml.write_text(yaml)
    with pytest.raises(ProjectError) as caught:
        FeastRepo(project)
    assert "feature_store.yaml" in str(caught.value)
    assert message in str(caught.value)


def test_two_features_in_one_field_are_refused(repo_of: Callable[..., FeastRepo]) -> None:
    """`profile:f36693` and `profile:f46281` have the same 32-bit hash; Feast would let one overwrite the other."""
    one, other = colliding_names()
    schema = f'[Field(name="{one}", dtype=Int64), Field(name="{other}", dtype=Int64)]'
    repo = repo_of(USER, SOURCE, PROFILE.replace('[Field(name="age", dtype=Int64)]', schema))
    with pytest.raises(ProjectError) as caught:
        repo.check()
    assert f"profile:{one}" in str(caught.value)
    assert f"profile:{other}" in str(caught.value)
    assert "rename one" in str(caught.value.hint)


def colliding_names() -> tuple[str, str]:
    from rules_engine.redis.feast_layout import field_number

    seen: dict[int, str] = {}
    for number in range(1_000_000):
        name = f"f{number}"
        other = seen.setdefault(field_number("profile", name), name)
        if other != name:
            return other, name
    raise AssertionError("there are hundreds among a million")


# --- importing Feast -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_importing_feast_is_silent_and_restores_what_it_borrows() -> None:
    code = """\
        import sys, warnings
        before = list(warnings.filters)
        import typeguard
        decorator = typeguard.typechecked
        from rules_engine.features.feast_import import import_feast
        feast = import_feast()
        assert feast is sys.modules["feast"] and feast.FeatureStore
        assert typeguard.typechecked is decorator
        assert warnings.filters == before, warnings.filters
        assert import_feast() is feast
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_request_path_imports_no_feast() -> None:
    code = """\
        import sys
        import rules_engine.features.online.reader, rules_engine.read_plan
        heavy = {"feast", "pandas", "pyarrow", "numpy", "duckdb", "sqlglot", "sklearn", "typer", "mmh3"}
        assert not heavy & set(sys.modules), heavy & set(sys.modules)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
