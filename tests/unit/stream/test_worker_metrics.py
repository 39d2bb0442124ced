"""What a worker counts and logs, and that it says nothing of single people."""

from __future__ import annotations

import io
import json
import logging
import re
import socket
import urllib.request
from collections.abc import Iterator

import pytest
from prometheus_client.values import MutexValue

from rules_engine.clock import SECOND, now_micros
from rules_engine.delivery.metrics import MetricsRegistry
from rules_engine.errors import ProjectError
from rules_engine.stream.logs import JsonFormatter, set_up_logs
from rules_engine.stream.worker_metrics import WorkerMetrics
from rules_engine.triggers.record import MembershipChange, Outgoing, State, SuppressionReason, Transition, TriggerStep
from tests.docs_pages import ROOT


@pytest.fixture(autouse=True)
def _counters_of_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Feast, which other tests import, has Prometheus count in files that all counters of a process share."""
    monkeypatch.setattr("prometheus_client.values.ValueClass", MutexValue)


def test_every_metric_is_documented_and_no_other() -> None:
    page = (ROOT / "docs/triggers.md").read_text(encoding="utf-8")
    table = re.findall(r"^\| (`segments_.*?) \|", page, re.MULTILINE)
    listed = set(re.findall(r"`(segments_\w+)`", "\n".join(table)))
    named = set(re.findall(r"^# TYPE (segments_\w+) ", MetricsRegistry().text(), re.MULTILINE))
    assert listed == {name for name in named if not name.endswith("_created")}  # the library adds these


def test_a_round_is_counted() -> None:
    metrics = MetricsRegistry()
    at = now_micros() - 2 * SECOND
    step = TriggerStep("mail", "enter:vip:0", State.SUPPRESSED, at, at, SuppressionReason.COOLDOWN)
    published: list[tuple[str, Outgoing]] = [
        ("ada", Transition("vip", MembershipChange.ENTER, at, "timer")),
        ("bob", Transition("vip", MembershipChange.ENTER, at, "event:view:1")),
        ("bob", TriggerStep("mail", "enter:vip:0", State.FIRED, at, at)),
        ("eve", step),
    ]
    WorkerMetrics(metrics, "shop", is_live=True).round(0.02, 7, 2, published)
    assert metrics.value("segments_events_total", result="accepted") == 7
    assert metrics.value("segments_events_total", result="refused") == 2
    assert metrics.value("segments_transitions_total", segment="vip", change="enter") == 2
    fired = metrics.value("segments_trigger_steps_total", trigger="mail", state="fired", reason="")
    held = metrics.value("segments_trigger_steps_total", trigger="mail", state="suppressed", reason="cooldown")
    assert (fired, held) == (1, 1)
    assert metrics.value("segments_round_seconds_count") == 1
    assert metrics.value("segments_timer_lateness_seconds_count") == 2  # the timer's, and the trigger that fired
    assert metrics.value("segments_timer_lateness_seconds_bucket", le="1.0") == 0
    assert metrics.value("segments_timer_lateness_seconds_bucket", le="5.0") == 2
    assert not {"ada", "bob", "eve"} & set(re.findall(r"\w+", metrics.text()))


def test_where_another_instant_counts_as_now_nothing_is_late() -> None:
    metrics = MetricsRegistry()
    WorkerMetrics(metrics, "shop", is_live=False).round(
        0.1, 1, 0, [("a", Transition("vip", MembershipChange.EXIT, 5, "timer"))]
    )
    assert metrics.value("segments_timer_lateness_seconds_count") == 0
    assert metrics.value("segments_transitions_total", segment="vip", change="exit") == 1


def test_prometheus_is_answered_until_it_is_closed() -> None:
    metrics = MetricsRegistry()
    metrics.circuit("webhook:crm", "open")
    endpoint = metrics.serve(0)
    with urllib.request.urlopen(f"http://127.0.0.1:{endpoint.port}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    assert 'segments_sink_circuit{sink="webhook:crm",state="open"} 1.0' in text
    assert 'segments_sink_circuit{sink="webhook:crm",state="closed"} 0.0' in text
    endpoint.close()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", endpoint.port), timeout=1)


def test_a_port_that_is_taken_is_said() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(ProjectError, match=f"cannot be served at 127.0.0.1:{other.getsockname()[1]}"):
            MetricsRegistry().serve(other.getsockname()[1])


@pytest.fixture
def _logs_as_before() -> Iterator[None]:
    logger = logging.getLogger("rules_engine")
    before = list(logger.handlers), logger.level, logger.propagate
    yield
    logger.handlers[:], logger.level, logger.propagate = before


@pytest.mark.usefixtures("_logs_as_before")
def test_logs_are_lines_of_json_without_what_an_exception_says() -> None:
    stream = io.StringIO()
    set_up_logs(as_json=True, stream=stream)
    set_up_logs(as_json=True, stream=stream)  # again changes nothing
    logger = logging.getLogger("rules_engine.delivery")
    logger.info("took %d\nlines", 5, extra={"sink": "webhook:crm", "entity": "ada"})
    try:
        raise ValueError("ada bought A1")
    except ValueError:
        logger.exception("the sink failed", extra={"number": 3})
    logger.debug("not shown")
    logging.getLogger("httpx").warning("POST https://hooks.example/secret")
    first, second = (json.loads(line) for line in stream.getvalue().splitlines())
    assert (first["level"], first["message"], first["sink"]) == ("info", "took 5\nlines", "webhook:crm")
    assert (second["level"], second["error"], second["number"]) == ("error", "ValueError", 3)
    assert re.fullmatch(r".*test_worker_metrics:\d+", second["where"])
    assert "ada" not in stream.getvalue()


def test_a_field_that_is_no_json_does_not_end_logging() -> None:
    record = logging.LogRecord("rules_engine", logging.INFO, "", 0, "x", None, None)
    record.code = object()
    assert "object" in json.loads(JsonFormatter().format(record))["code"]
