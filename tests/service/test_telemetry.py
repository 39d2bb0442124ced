"""An OpenTelemetry collector receives traces and evaluations of a real service, and not whom they are about."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from rules_engine.folders import Project
from tests.service import shop
from tests.service.conftest import MakeService

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


class Collector(ThreadingHTTPServer):
    """A collector that keeps what it is sent."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Receiver)
        self.bodies: list[bytes] = []
        self.spans: list[Any] = []
        self.events: list[Any] = []


class Receiver(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.bodies.append(body)
        if self.path == "/v1/traces":
            traces = ExportTraceServiceRequest.FromString(body)
            self.server.spans += [
                span for part in traces.resource_spans for scope in part.scope_spans for span in scope.spans
            ]
        elif self.path == "/v1/logs":
            logs = ExportLogsServiceRequest.FromString(body)
            self.server.events += [
                record for part in logs.resource_logs for scope in part.scope_logs for record in scope.log_records
            ]
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def attributes(record: Any) -> dict[str, str | int]:
    return {pair.key: pair.value.string_value or pair.value.int_value for pair in record.attributes}


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_requests_and_evaluations_arrive_without_whom_they_are_about(
    make_service: MakeService, shop_project: Project, collector: Collector
) -> None:
    service = make_service(
        shop_project,
        "--telemetry",
        env={
            **shop.ENVIRONMENT,
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.server_port}",
            "OTEL_BSP_SCHEDULE_DELAY": "50",
            "OTEL_BLRP_SCHEDULE_DELAY": "50",
        },
    )
    asked = {"context": {"targetingKey": "ada", "device": "secret-device"}}
    header = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
    assert service.post("/ofrep/v1/evaluate/flags/adults", "read", json=asked, headers=header).status_code == 200
    assert service.get("/v1/users/ada/segments", "read").status_code == 200
    assert service.post("/ofrep/v1/evaluate/flags/nothing", "read", json=asked).status_code == 404

    def spans(route: str) -> list[Any]:
        return [span for span in collector.spans if attributes(span)["http.route"] == route]

    wait_for(lambda: bool(spans("/v1/users/{id}/segments")) and len(spans("/ofrep/v1/evaluate/flags/{key}")) == 2)
    wait_for(lambda: bool(collector.events))
    right, wrong = spans("/ofrep/v1/evaluate/flags/{key}")
    assert (right.name, right.trace_id.hex()) == ("POST /ofrep/v1/evaluate/flags/{key}", TRACE)
    assert [attributes(span)["http.response.status_code"] for span in (right, wrong)] == [200, 404]
    [event] = collector.events
    assert (event.event_name, event.span_id) == ("feature_flag.evaluation", right.span_id)
    said = attributes(event)
    assert said.pop("feature_flag.version")
    assert said == {
        "feature_flag.key": "adults",
        "feature_flag.result.variant": "in",
        "feature_flag.result.reason": "targeting_match",
        "feature_flag.provider.name": "feast-segments",
    }
    assert not any(word in body for body in collector.bodies for word in (b"ada", b"secret-device"))


def test_a_collector_that_is_gone_keeps_nobody_waiting(make_service: MakeService, shop_project: Project) -> None:
    env = {**shop.ENVIRONMENT, "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
    service = make_service(shop_project, "--telemetry", env=env)
    assert service.evaluate("adults", "ada")["value"] is True
