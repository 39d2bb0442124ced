"""docs/tracking.md: its commands print what the page says."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from tests.service import shop
from tests.service.conftest import RunningService

PAGE = Path(__file__).parents[2] / "docs" / "tracking.md"


def examples() -> list[tuple[str, str]]:
    """The `curl` commands of the page, which may take several lines, with what they print."""
    blocks = re.findall(r"```console\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    return re.findall(r"^\$ (curl .*?)\n(\{.*?\})$", "\n".join(blocks), re.DOTALL | re.MULTILINE)


def test_the_commands_print_what_the_page_says(service: RunningService) -> None:
    shown = examples()
    assert len(shown) == 6
    for command, expected in shown:
        line = command.replace("localhost:8080", service.url).replace("curl -s", 'curl -s -u "$KEY:"', 1)
        environment = {**os.environ, "KEY": shop.KEYS["track"], "no_proxy": "*"}
        done = subprocess.run(["bash", "-c", line], env=environment, capture_output=True, text=True, check=True)
        assert done.stdout == expected, command
