"""``segments run``."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from rules_engine.cli.common import output
from rules_engine.cli.common.options import HERE, Format, OutputFormat, Repo
from rules_engine.folders import Project

if TYPE_CHECKING:
    from rules_engine.delivery.metrics import MetricsRegistry
    from rules_engine.stream.kafka_bridge import KafkaBridge
    from rules_engine.stream.worker import Progress, Worker

_log = logging.getLogger("rules_engine.worker")


def run(
    once: Annotated[
        bool, typer.Option("--once", help="End when all is done that waits, and every timer that is due.")
    ] = False,
    brokers: Annotated[
        str | None,
        typer.Option("--from-kafka", metavar="HOST:PORT", help="Take events from these brokers too."),
    ] = None,
    topic: Annotated[str | None, typer.Option("--topic", metavar="TOPIC", help="The topic that holds them.")] = None,
    group: Annotated[
        str | None,
        typer.Option("--group", metavar="GROUP", help="The consumer group; feast-segments-PROJECT by default."),
    ] = None,
    options: Annotated[
        list[str] | None,
        typer.Option(
            "--kafka-option",
            metavar="NAME=VALUE",
            help="An option of librdkafka; repeatable. ${VARIABLES} are those of the environment.",
        ),
    ] = None,
    metrics_port: Annotated[
        int | None,
        typer.Option("--metrics-port", metavar="PORT", min=0, max=65_535, help="Answer Prometheus at /metrics."),
    ] = None,
    metrics_host: Annotated[
        str, typer.Option("--metrics-host", metavar="ADDRESS", help="The address to answer it at.")
    ] = "127.0.0.1",
    json_logs: Annotated[bool, typer.Option("--json-logs", help="Log lines of JSON.")] = False,
    repo: Repo = HERE,
    output_format: OutputFormat = Format.TEXT,
) -> None:
    """Work off the streams of events.

    Events that applications report are checked, written to the event log and put into the online store; who enters or
    leaves a segment is noted in the ledger, and triggers are started, watched and fired. Start as many workers as you
    like, they share the work; the work of one that is killed is taken over within seconds, and nothing is lost or done
    twice. Ctrl-C or SIGTERM ends a worker after the events that it is working on, and hands its work over at once.
    """
    from rules_engine.stream.logs import set_up_logs
    from rules_engine.stream.worker import Worker, tune_process

    if bool(brokers) != bool(topic):
        raise typer.BadParameter("--from-kafka and --topic go together")
    project = Project.open(repo)
    if json_logs:
        set_up_logs(as_json=True)
    with _served(metrics_port, metrics_host) as metrics:
        worker = Worker(project, metrics=metrics)
        tune_process()
        bridge = _bridge(project, brokers, topic, group, options or [], metrics)
        with _stopped_by_signals(worker, bridge):
            if not once:
                output.remark("working; Ctrl-C ends it")
            _log.info("the worker began")
            progress = _work(worker, bridge, once)
    _log.info("the worker ended", extra={"number": progress.accepted})
    if output_format is Format.JSON:
        output.print_json(asdict(progress) | ({} if bridge is None else {"kafka": asdict(bridge.progress)}))
        return
    output.say(f"Took {output.plural(progress.accepted, 'event')}, refused {progress.refused:,}")
    if bridge is not None:
        taken = output.plural(bridge.progress.taken, "event")
        output.say(f"  {taken} came from Kafka, and {bridge.progress.refused:,} messages that are none")
    if progress.late:
        late = output.plural(progress.late, "event")
        output.say(f"  {late} came too late for a total: `segments ingest --rebuild` counts them")
    if progress.transitions or progress.fired:
        moved = output.plural(progress.transitions, "membership")
        output.say(f"  {moved} began or ended, {output.plural(progress.fired, 'trigger')} fired")


def _work(worker: Worker, bridge: KafkaBridge | None, once: bool) -> Progress:
    if bridge is None:
        return worker.run(once=once)
    if once:
        bridge.run(once=True)
        return worker.run(once=True)
    from rules_engine.stream.kafka_bridge import run_beside

    return run_beside(bridge, worker.run, worker.stop)


def _bridge(
    project: Project,
    brokers: str | None,
    topic: str | None,
    group: str | None,
    options: list[str],
    metrics: MetricsRegistry | None,
) -> KafkaBridge | None:
    if not brokers or not topic:
        return None
    from rules_engine.stream.kafka_bridge import KafkaBridge
    from rules_engine.stream.kafka_source import KafkaSource, kafka_options

    return KafkaBridge(project, KafkaSource(brokers, topic, group or "", kafka_options(options)), metrics)


@contextmanager
def _served(port: int | None, host: str) -> Iterator[MetricsRegistry | None]:
    """Serve metrics to Prometheus while a block runs, and yield them; None if no port is given."""
    if port is None:
        yield None
        return
    from rules_engine.delivery.metrics import MetricsRegistry

    metrics = MetricsRegistry()
    endpoint = metrics.serve(port, host)
    output.remark(f"metrics are at http://{host}:{endpoint.port}/metrics")
    try:
        yield metrics
    finally:
        endpoint.close()


@contextmanager
def _stopped_by_signals(worker: Worker, bridge: KafkaBridge | None) -> Iterator[None]:
    stops: list[Callable[[], None]] = [worker.stop, *([] if bridge is None else [bridge.stop])]
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda *_: [stop() for stop in stops]) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
