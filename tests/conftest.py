"""Fixtures for all tests: a real server, and projects on disk. Nothing here stands in for a part that runs.

Hypothesis has two profiles. ``ci``, the default, draws the same examples on every run: a commit that passed does not
fail later for reasons of luck, and a failure is there again when you look. New examples are the work of ``long``:
``HYPOTHESIS_PROFILE=long make pytest``, which also remembers what failed.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import redis
from hypothesis import HealthCheck, settings

from rules_engine.features.feast_import import import_feast
from rules_engine.folders import Project
from rules_engine.redis.embedded import EmbeddedStore

# The first import of Feast in a process decides how it checks the arguments of definitions: here as in our commands,
# whichever test comes first.
import_feast()

_SHARED = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("ci", derandomize=True, max_examples=100, **_SHARED)
settings.register_profile("long", max_examples=5_000, print_blob=True, **_SHARED)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

FEATURE_STORE_YAML = """\
project: {name}
provider: local
registry: ../.segments/registry.db
offline_store:
  type: duckdb
online_store:
  type: rules_engine.features.online_store.EmbeddedOnlineStore
entity_key_serialization_version: 3
"""


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C reaches the test and what it starts, also if the whole suite runs behind a shell, which has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def store_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedStore]:
    """One real server for the whole run. Tests take ``store``, which is this one, emptied."""
    server = EmbeddedStore(tmp_path_factory.mktemp("store_server"))
    server.ensure_running()
    yield server
    server.stop()


@pytest.fixture
def store(store_server: EmbeddedStore) -> EmbeddedStore:
    """A real, empty server: ``.url``, ``.socket_path`` and ``.connection_string`` say where."""
    with redis.Redis.from_url(store_server.url) as client:
        client.flushall()
    return store_server


@pytest.fixture
def client(store: EmbeddedStore) -> Iterator[redis.Redis]:
    """A Redis client of ``store``."""
    with redis.Redis.from_url(store.url) as connected:
        yield connected


@pytest.fixture
def make_store(tmp_path: Path) -> Iterator[Callable[..., EmbeddedStore]]:
    """Make an embedded store of one's own, in a folder of one's own unless one is given. Stopped at the end."""
    made: list[EmbeddedStore] = []

    def make(root: Path | None = None) -> EmbeddedStore:
        folder = tmp_path / f"store{len(made)}" if root is None else root
        folder.mkdir(parents=True, exist_ok=True)
        made.append(EmbeddedStore(folder))
        return made[-1]

    yield make
    for one in made:
        one.stop()


@pytest.fixture
def make_project(make_store: Callable[..., EmbeddedStore], tmp_path: Path) -> Callable[..., Project]:
    """Make a project on disk, on an embedded store of its own: ``make_project({"segments/vip.yaml": "..."})``."""

    def make(files: Mapping[str, str] | None = None, name: str = "shop") -> Project:
        root = make_store(tmp_path / name).root
        contents = {"feature_repo/feature_store.yaml": FEATURE_STORE_YAML.format(name=name), **(files or {})}
        (root / "segments").mkdir(exist_ok=True)
        for path, text in contents.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text, encoding="utf-8")
        return Project.open(root)

    return make
