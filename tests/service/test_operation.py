"""Test how the service is run: keys, health, metrics, logs, processes, and its end."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from rules_engine.folders import Project
from rules_engine.read_plan import ReadPlan
from tests.service import shop
from tests.service.conftest import MakeService, RunningService

FLAG = "/ofrep/v1/evaluate/flags/adults"
ADA = {"context": {"targetingKey": "ada"}}


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)


def failed(project: Project, *arguments: str, env: dict[str, str]) -> str:
    """Return what a service that cannot start says."""
    command = [sys.executable, "-m", "rules_engine", "serve", "--repo", str(project.root), "--port", "0", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env={**os.environ, **env}, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    return done.stderr


# --- health ---------------------------------------------------------------------------------------------------------


def test_a_service_that_can_answer_is_ready(service: RunningService) -> None:
    content = service.get("/readyz").json()
    assert content["status"] == "ready"
    assert content["checks"]["store"] == "ok"
    assert content["checks"]["workers"].keys() == {"events", "seconds", "timers"}


def test_a_store_that_holds_nothing_makes_it_unready(make_service: MakeService, forgetful: Project) -> None:
    service = make_service(forgetful)
    answer = service.get("/readyz")
    assert (answer.status_code, answer.json()["status"]) == (503, "not ready")
    assert "does not hold" in answer.json()["checks"]["store"]
    assert service.get("/livez").status_code == 200


# --- paths and bodies -----------------------------------------------------------------------------------------------


def test_what_is_not_there_is_said_in_json(service: RunningService) -> None:
    for method, path, status, code in (
        ("GET", "/", 404, "unknown-path"),
        ("GET", FLAG, 405, "wrong-method"),
        ("GET", "/v1/users//segments", 404, "unknown-path"),
        ("DELETE", "/v1/segments", 405, "wrong-method"),
    ):
        answer = service.request(method, path, "read")
        assert (answer.status_code, answer.json()["code"]) == (status, code), path
    assert set(service.request("DELETE", "/v1/segments", "read").headers["allow"].split(", ")) == {"GET", "HEAD"}


def test_bodies_and_headers_are_bounded(service: RunningService) -> None:
    assert service.post(FLAG, "read", content=b" " * 70_000).status_code == 413
    chunked = service.post(FLAG, "read", content=(b" " * 1_000 for _ in range(200)))
    assert chunked.status_code == 413
    assert service.post(FLAG, "read", json=ADA, headers={"x-long": "a" * 17_000}).status_code == 431
    assert service.post(FLAG, "read", json=ADA).status_code == 200


# --- keys -----------------------------------------------------------------------------------------------------------


def test_dev_needs_no_keys_and_stays_on_this_machine(make_service: MakeService, shop_project: Project) -> None:
    service = make_service(shop_project, "--dev", env={})
    assert service.post(FLAG, json=ADA).json()["value"] is True
    assert "listens on this machine only" in failed(shop_project, "--dev", "--host", "0.0.0.0", env={})


def test_a_key_that_cannot_be_used_is_named_and_not_shown(shop_project: Project) -> None:
    missing = {name: key for name, key in shop.ENVIRONMENT.items() if name != "SHOP_READ_KEY"}
    assert "${SHOP_READ_KEY}, which is not set" in failed(shop_project, env=missing)
    short = failed(shop_project, env={**shop.ENVIRONMENT, "SHOP_READ_KEY": "hunter2"})
    assert "${SHOP_READ_KEY}, and a key in it has 7 characters" in short
    assert "hunter2" not in short
    twice = failed(shop_project, env={**shop.ENVIRONMENT, "SHOP_READ_KEY": shop.KEYS["track"]})
    assert "one key has the roles `read` and `track`" in twice


def test_keys_in_a_file_are_replaced_while_it_runs(
    make_service: MakeService, shop_project: Project, tmp_path: Path
) -> None:
    keys = tmp_path / "read_keys"
    keys.write_text("the-first-key-of-all\n")
    environment = {name: key for name, key in shop.ENVIRONMENT.items() if name != "SHOP_READ_KEY"}
    service = make_service(shop_project, env={**environment, "SHOP_READ_KEY_FILE": str(keys)})

    def status(key: str) -> int:
        return service.post(FLAG, json=ADA, headers={"x-api-key": key}).status_code

    assert (status("the-first-key-of-all"), status("the-second-key-of-all")) == (200, 401)
    keys.write_text("the-second-key-of-all\nthe-first-key-of-all\n")
    wait_for(lambda: status("the-second-key-of-all") == 200)
    assert status("the-first-key-of-all") == 200
    keys.write_text("the-second-key-of-all\n")
    wait_for(lambda: status("the-first-key-of-all") == 401)
    keys.write_text("")  # while it is written, say
    wait_for(lambda: status("the-second-key-of-all") == 200 and "the new keys cannot be used" in service.log())
    assert "key-of-all" not in service.log()


def with_settings(project: Project, **settings: object) -> None:
    """Write a read plan with other settings of the service."""
    plan = ReadPlan.load(project.read_plan)
    service = {**plan.definitions["service"], **settings}
    replace(plan, definitions={**plan.definitions, "service": service}).save(project.read_plan)


def test_a_key_that_sends_too_much_is_told_when_to_come_back(make_service: MakeService, forgetful: Project) -> None:
    with_settings(forgetful, requests_per_second={"read": 2})
    service = make_service(forgetful)
    answers = [service.get("/v1/segments", "read") for _ in range(4)]
    assert [answer.status_code for answer in answers][:2] == [200, 200]
    refused = answers[-1]
    assert (refused.status_code, refused.json()["code"]) == (429, "too-many-requests")
    assert int(refused.headers["retry-after"]) >= 1
    assert service.get("/v1/segments", "admin").status_code == 200


def test_origins_that_are_applied_may_ask_from_browsers(make_service: MakeService, forgetful: Project) -> None:
    service = make_service(forgetful)

    def allowed(origin: str) -> str | None:
        asked = {
            "origin": origin,
            "access-control-request-method": "POST",
            "access-control-request-headers": "x-api-key",
        }
        return service.request("OPTIONS", FLAG, headers=asked).headers.get("access-control-allow-origin")

    assert allowed("https://shop.example") == "https://shop.example"
    assert allowed("https://evil.example") is None
    answer = service.get("/v1/segments", "read", headers={"origin": "https://shop.example"})
    assert answer.headers["access-control-allow-origin"] == "https://shop.example"
    with_settings(forgetful, cors=["https://new.example"])

    def new_origin() -> bool:
        service.get("/v1/segments/adults", "read")
        service.evaluate("adults", "ada")  # a lookup notices what was applied
        return allowed("https://new.example") == "https://new.example"

    wait_for(new_origin)
    assert allowed("https://shop.example") is None


# --- processes, logs and metrics ------------------------------------------------------------------------------------


def test_metrics_speak_for_all_processes(make_service: MakeService, shop_project: Project) -> None:
    service = make_service(shop_project, "--workers", "2")
    with ThreadPoolExecutor(8) as threads:
        sent = [threads.submit(httpx.post, service.url + FLAG, json=ADA, headers=key("read")) for _ in range(40)]
        assert {future.result().status_code for future in sent} == {200}
    text = service.get("/metrics", "read").text
    (count,) = re.findall(r'segments_requests_total\{code="200",method="POST",route="[^"]*\{key\}"\} (\S+)', text)
    assert float(count) == 40
    assert "segments_request_seconds_bucket" in text
    assert service.get("/metrics").status_code == 401


def key(role: str) -> dict[str, str]:
    return {"authorization": f"Bearer {shop.KEYS[role]}"}


def test_logs_name_routes_and_nobody(make_service: MakeService, shop_project: Project) -> None:
    service = make_service(shop_project, "--access-log", "--json-logs")
    service.get("/v1/users/secret-person/segments?at=2026-01-01T00:00:00Z", "read")
    service.evaluate("adults", "secret-person", secret="secret-value")
    service.get("/v1/nothing/secret-person", "read")
    wait_for(lambda: service.log().count('"route"') >= 4)
    lines = [json.loads(line) for line in service.log().splitlines() if line.startswith("{")]
    logged = [(line["method"], line["route"], line["code"]) for line in lines if "route" in line]
    assert ("GET", "/v1/users/{id}/segments", 200) in logged
    assert ("POST", "/ofrep/v1/evaluate/flags/{key}", 200) in logged
    assert "secret" not in service.log()
    assert shop.KEYS["read"] not in service.log()


def test_a_unix_socket(make_service: MakeService, shop_project: Project, tmp_path: Path) -> None:
    path = tmp_path / "service.sock"
    service = make_service(shop_project, "--uds", str(path), "--dev", env={})
    assert service.post(FLAG, json=ADA).json()["value"] is True
    assert path.stat().st_mode & 0o022 == 0
    assert "cannot listen on" in failed(shop_project, "--uds", str(path), "--dev", env={})
    service.process.kill()
    service.process.wait()
    assert make_service(shop_project, "--uds", str(path), "--dev", env={}).get("/livez").status_code == 200


def test_a_port_that_is_taken_is_said(service: RunningService, shop_project: Project) -> None:
    port = service.url.rpartition(":")[2]
    assert "choose another --port" in failed(shop_project, "--port", port, env=shop.ENVIRONMENT)


@pytest.mark.parametrize("workers", [1, 2])
def test_its_end_loses_no_request(make_service: MakeService, shop_project: Project, workers: int) -> None:
    """Senders that heed `connection: close` and stop when it is not ready get an answer to everything they sent."""
    service = make_service(shop_project, "--workers", str(workers), "--drain", "2")
    ended, statuses, begun = threading.Event(), [], threading.Barrier(5)

    def send() -> list[int]:
        answers = []
        with httpx.Client(base_url=service.url, headers=key("read"), trust_env=False) as client:
            begun.wait(60)
            while not ended.is_set():
                answer = client.post(FLAG, json=ADA)
                answers.append(answer.status_code)
                if answer.headers.get("connection") == "close" and client.get("/readyz").status_code == 503:
                    return answers
        return answers

    with ThreadPoolExecutor(4) as threads:
        senders = [threads.submit(send) for _ in range(4)]
        try:
            begun.wait(60)
            service.process.send_signal(signal.SIGTERM)
            for sender in senders:
                statuses += sender.result(60)
        finally:
            ended.set()
    assert len(statuses) >= 4
    assert set(statuses) == {200}
    service.process.wait(60)


def test_ctrl_c_ends_it_at_once(make_service: MakeService, shop_project: Project) -> None:
    service = make_service(shop_project, "--drain", "300")
    assert service.stop(signal.SIGINT) in (130, -signal.SIGINT)
    assert "Traceback" not in service.log()
