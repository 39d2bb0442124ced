"""Random projects, small ones: the same answers wherever they are asked. ``python -m tests.trials`` draws many."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.trials.trial import run_trial
from tests.trials.world import Size, draw_world


@pytest.mark.parametrize("seed", [1, 4])
def test_a_random_project_answers_the_same_everywhere(seed: int, tmp_path: Path) -> None:
    trial = run_trial(draw_world(seed, Size(entities=40, events=1_500, segments=12)), tmp_path)
    assert trial.differences == []
    assert sum(trial.compared.values()) > 200
    assert {"online, batch", "batch, plain", "sql, plain", "changes_at", "simulate, plain"} <= trial.compared.keys()
