"""Runs what docs/python.md shows, in the project that it names: the examples, the application, a prefork server."""

from __future__ import annotations

import asyncio
import doctest
import importlib.util
import json
import multiprocessing
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import httpx
import pytest

from rules_engine import SegmentClient
from rules_engine.folders import Project
from rules_engine.read_plan import ReadPlan
from tests.commands import good
from tests.e2e.conftest import ROOT, agreeing

PAGE = (ROOT / "docs/python.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
APPLICATION = next(text for _, text in BLOCKS if text.startswith("# app.py"))
ANSWER = next(text for language, text in BLOCKS if language == "json")
URL = "/customers/c015/segments"


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The project that `segments init shop` makes, applied and materialized by commands."""
    folder = tmp_path_factory.mktemp("python")
    root = folder / "shop"
    with agreeing(root):
        good("init", root)
        good("apply", "--repo", root)
        good("materialize", "--repo", root)
        yield root


@pytest.fixture
def application(shop: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The application of the page, imported from a file in the project, which is the current folder."""
    monkeypatch.chdir(shop)
    (shop / "app.py").write_text(APPLICATION, encoding="utf-8")
    spec = importlib.util.spec_from_file_location("app", shop / "app.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_examples_print_what_is_shown(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shop)
    examples = "\n".join(text for language, text in BLOCKS if language == "python" and text.startswith(">>>"))
    test = doctest.DocTestParser().get_doctest(examples, {}, "docs/python.md", None, None)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL)
    said: list[str] = []
    runner.run(test, out=said.append, clear_globs=False)
    test.globs["client"].close()
    assert runner.failures == 0, "".join(said)
    assert runner.tries >= 12


async def ask(application: ModuleType, path: str) -> httpx.Response:
    """Start the application, send one request, stop it."""
    transport = httpx.ASGITransport(application.app)
    async with (
        application.app.router.lifespan_context(application.app),
        httpx.AsyncClient(transport=transport, base_url="http://shop") as client,
    ):
        return await client.get(path)


def test_the_application_answers_as_shown(application: ModuleType) -> None:
    answer = asyncio.run(ask(application, URL))
    assert (answer.status_code, answer.json()) == (200, json.loads(ANSWER))
    assert asyncio.run(ask(application, "/customers/nobody/segments")).json()["segments"] == []


def test_the_application_says_that_the_store_is_down(application: ModuleType) -> None:
    path = Project.open(".").read_plan
    plan = ReadPlan.load(path)
    down = replace(plan.connection, kind="redis", connection_string="localhost:1")
    replace(plan, connection=down).save(path)
    try:
        answer = asyncio.run(ask(application, URL))
    finally:
        plan.save(path)
    assert (answer.status_code, answer.json()["detail"]) == (503, "the feature store does not answer")


def test_a_client_that_was_made_before_a_fork_answers_in_every_child(shop: Path) -> None:
    with SegmentClient.from_repo(shop) as client:
        expected = client.lookup("c015").segments

        def answer(queue: multiprocessing.SimpleQueue[object]) -> None:
            queue.put([client.lookup("c015").segments for _ in range(20)])

        context = multiprocessing.get_context("fork")
        queue = context.SimpleQueue()
        children = [context.Process(target=answer, args=(queue,)) for _ in range(3)]
        for child in children:
            child.start()
        answers = [queue.get() for _ in children]
        for child in children:
            child.join()
        assert answers == [[expected] * 20] * 3
        assert client.lookup("c015").segments == expected


def _listens(path: Path) -> bool:
    """Tell whether a socket takes connections; its file is there a moment earlier."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


@pytest.mark.slow
def test_a_prefork_server_serves_the_application(application: ModuleType, shop: Path, tmp_path: Path) -> None:
    pytest.importorskip("uvicorn_worker")
    command = next(text for language, text in BLOCKS if language == "sh" and "gunicorn" in text).split()
    assert command[0] == "gunicorn"
    path = tmp_path / "socket"
    started = [sys.executable, "-m", *command, "--bind", f"unix:{path}"]
    server = subprocess.Popen(started, cwd=shop, env={**os.environ, "HOME": str(tmp_path)})
    try:
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://shop") as client:
            while not _listens(path):
                assert server.poll() is None
                time.sleep(0.05)
            answers = [client.get(URL, timeout=60).json() for _ in range(8)]
    finally:
        server.terminate()
        server.wait()
    assert answers == [json.loads(ANSWER)] * 8
