"""Fixtures for the service: a project in effect, and the real service as a process on a free port."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from rules_engine.folders import Project
from rules_engine.redis.embedded import EmbeddedStore
from tests.conftest import FEATURE_STORE_YAML
from tests.receivers import Answer, receiver
from tests.service import console_shop, shop

_SERVING = re.compile(r"serving at (\S+);")


@dataclass
class RunningService:
    """A service that runs as a process.

    ``url`` is where it answers, ``stderr`` the file with what it printed and logged.
    """

    url: str
    process: subprocess.Popen[bytes]
    stderr: Path
    client: httpx.Client = field(repr=False)

    def sign_in(self, role: str) -> None:
        """Sign in to the console with the key of a role; the client keeps the cookie."""
        answer = self.post("/console/sign-in", data={"key": console_shop.KEYS[role], "to": "/console"})
        assert answer.status_code == 303, answer.text

    def request(self, method: str, path: str, role: str | None = None, **options: Any) -> httpx.Response:
        """Send a request, with the key of a role."""
        headers = dict(options.pop("headers", {}))
        if role is not None:
            headers["authorization"] = f"Bearer {shop.KEYS[role]}"
        return self.client.request(method, path, headers=headers, **options)

    def get(self, path: str, role: str | None = None, **options: Any) -> httpx.Response:
        return self.request("GET", path, role, **options)

    def post(self, path: str, role: str | None = None, **options: Any) -> httpx.Response:
        return self.request("POST", path, role, **options)

    def evaluate(self, flag: str, entity: str, role: str = "read", **context: Any) -> Any:
        """The answer to one evaluation."""
        body = {"context": {"targetingKey": entity, **context}}
        return self.post(f"/ofrep/v1/evaluate/flags/{flag}", role, json=body).json()

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End it with a signal; its exit code."""
        self.process.send_signal(number)
        return self.process.wait(60)

    def log(self) -> str:
        return self.stderr.read_text(encoding="utf-8")


MakeService = Callable[..., RunningService]


def start(
    root: Path,
    stderr: Path,
    arguments: tuple[str, ...],
    environment: Mapping[str, str],
    *,
    interpreter: str = sys.executable,
) -> RunningService:
    """Start `segments serve`, and wait until it answers."""
    command = [interpreter, "-m", "rules_engine", "serve", "--repo", str(root), *arguments]
    port = [] if "--uds" in arguments or "--port" in arguments else ["--port", "0"]
    # Feast, which tests load, sets this for itself and for all that it starts.
    own = {name: value for name, value in os.environ.items() if name != "PROMETHEUS_MULTIPROC_DIR"}
    with stderr.open("wb") as output:
        process = subprocess.Popen(
            [*command, *port], stdout=subprocess.DEVNULL, stderr=output, env={**own, **environment}
        )
    deadline = time.monotonic() + 60
    while True:
        found = _SERVING.search(stderr.read_text(encoding="utf-8"))
        if found is not None:
            url = found[1]
            transport = httpx.HTTPTransport(uds=url.removeprefix("unix:")) if url.startswith("unix:") else None
            base = "http://service" if transport else url
            client = httpx.Client(base_url=base, transport=transport, timeout=180, trust_env=False, verify=False)
            service = RunningService(url, process, stderr, client)
            try:
                if client.get("/livez").status_code == 200:
                    return service
            except httpx.TransportError:
                client.close()
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            process.wait()
            pytest.fail(f"the service did not start:\n{stderr.read_text(encoding='utf-8')}")
        time.sleep(0.02)


def end(service: RunningService) -> None:
    service.client.close()
    if service.process.poll() is None:
        service.process.send_signal(signal.SIGINT)
        try:
            service.process.wait(30)
        except subprocess.TimeoutExpired:
            service.process.kill()
            service.process.wait()


@pytest.fixture(scope="session")
def shop_project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """The shop in effect, on an embedded store of its own; for tests that change no definitions and name own users."""
    root = tmp_path_factory.mktemp("service") / "shop"
    for path, text in {"feature_repo/feature_store.yaml": FEATURE_STORE_YAML.format(name="shop"), **shop.FILES}.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, encoding="utf-8")
    store = EmbeddedStore(root)
    try:
        project = Project.open(root)
        shop.put_into_effect(project)
        yield project
    finally:
        store.stop()


@pytest.fixture
def forgetful(shop_project: Project, make_store: Callable[..., EmbeddedStore], tmp_path: Path) -> Project:
    """The shop, applied, on a store that holds nothing of it; for tests that change what was applied, too."""
    root = make_store(tmp_path / "forgetful").root
    for folder in ("feature_repo", "segments"):
        shutil.copytree(shop_project.root / folder, root / folder)
    copied = Project.open(root)
    copied.state_dir.mkdir(exist_ok=True)
    shutil.copyfile(shop_project.read_plan, copied.read_plan)
    return copied


@pytest.fixture
def make_service(tmp_path: Path) -> Iterator[MakeService]:
    """Start the service as users do, on a free port: ``make_service(project, "--workers", "2", env={...})``."""
    made: list[RunningService] = []

    def make(project: Project, *arguments: str, env: Mapping[str, str] = shop.ENVIRONMENT) -> RunningService:
        made.append(start(project.root, tmp_path / f"service{len(made)}.log", arguments, env))
        return made[-1]

    yield make
    for service in made:
        end(service)


@pytest.fixture(scope="session")
def service(shop_project: Project, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """The service of the shop, with its keys; for tests that only ask."""
    log = tmp_path_factory.mktemp("service_log") / "stderr"
    running = start(shop_project.root, log, (), shop.ENVIRONMENT)
    yield running
    end(running)


@pytest.fixture(scope="session")
def console_project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A project with all that the console shows, whose sink refuses what it is sent; for tests that only look."""
    root = tmp_path_factory.mktemp("console") / "shop"
    store = EmbeddedStore(root)
    with receiver() as crm:
        crm.answer = lambda _: Answer(400, body=b"<b>no</b>")
        texts = {"feature_repo/feature_store.yaml": FEATURE_STORE_YAML.format(name="shop")}
        for path, text in {**texts, **console_shop.files(crm.url)}.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text, encoding="utf-8")
        try:
            project = Project.open(root)
            with pytest.MonkeyPatch.context() as monkeypatch:
                for name, value in console_shop.ENVIRONMENT.items():
                    monkeypatch.setenv(name, value)
                console_shop.put_into_effect(project)
            yield project
        finally:
            store.stop()


@pytest.fixture
def console_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables that the project's settings name, for commands that a test runs itself."""
    for name, value in console_shop.ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="session")
def console(console_project: Project, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """The service of that project, with its keys."""
    log = tmp_path_factory.mktemp("console_log") / "stderr"
    running = start(console_project.root, log, (), console_shop.ENVIRONMENT)
    yield running
    end(running)
