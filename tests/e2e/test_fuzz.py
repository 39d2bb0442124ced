"""Some damaged input of each kind; ``python -m tests.fuzz`` does as much as there is time for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rules_engine.redis.embedded import EmbeddedStore
from tests.fuzz.__main__ import run
from tests.fuzz.ground import Ground, make_ground
from tests.fuzz.kinds import KINDS

RUNS = 40


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    root = tmp_path_factory.mktemp("fuzz")
    made = make_ground(root)
    yield made
    EmbeddedStore(root).stop()


@pytest.mark.parametrize("kind", [*KINDS])
def test_damaged_input_is_answered_or_refused_with_a_named_error(kind: str, ground: Ground) -> None:
    wrong = [f"{kind} {seed}: {found}" for seed in range(RUNS) if (found := run(ground, kind, seed)) is not None]
    assert wrong == []
