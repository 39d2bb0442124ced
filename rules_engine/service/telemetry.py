"""Send traces of requests and events of evaluations to an OpenTelemetry collector, without whom they were about.

Where they are sent, and as whose, is said by OpenTelemetry's own environment variables, such as
``OTEL_EXPORTER_OTLP_ENDPOINT`` and ``OTEL_SERVICE_NAME``. An evaluation is an event ``feature_flag.evaluation`` with
the attributes of OpenTelemetry's semantic conventions; ``feature_flag.context.id``, the entity, is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rules_engine.errors import MissingExtraError

if TYPE_CHECKING:
    from opentelemetry.trace import Span

_PROVIDER = "feast-segments"
_SCOPE = "rules_engine.service"


class Telemetry:
    """Sends what one process did, in the background; what cannot be sent is dropped, and requests do not wait for it.

    Raises
    ------
    MissingExtraError
        if the extra ``otel`` is not installed.
    """

    def __init__(self) -> None:
        try:
            from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk._logs import LoggerProvider
            from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError:
            raise MissingExtraError("opentelemetry", "otel", "--telemetry") from None
        self._traces = TracerProvider()
        self._traces.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._logs = LoggerProvider()
        self._logs.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter()))
        self._tracer = self._traces.get_tracer(_SCOPE)
        self._logger = self._logs.get_logger(_SCOPE)

    @contextmanager
    def request(self, method: str, route: str, headers: Iterable[tuple[bytes, bytes]]) -> Iterator[Span]:
        """Trace a request as a part of its caller's trace. The address is that of the route, which names nobody."""
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        carrier = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers if name in _TRACED}
        with self._tracer.start_as_current_span(
            f"{method} {route}",
            TraceContextTextMapPropagator().extract(carrier),
            SpanKind.SERVER,
            {"http.request.method": method, "http.route": route},
        ) as span:
            yield span

    def answered(self, span: Span, status: int) -> None:
        """Note the status of the reply; one of 500 or more is an error."""
        from opentelemetry.trace import StatusCode

        span.set_attribute("http.response.status_code", status)
        if status >= 500:
            span.set_status(StatusCode.ERROR)

    def evaluated(self, flag: str, variant: str, reason: str, version: str) -> None:
        """Send the event of an evaluation, as a part of the request that is traced."""
        self._logger.emit(
            event_name="feature_flag.evaluation",
            attributes={
                "feature_flag.key": flag,
                "feature_flag.result.variant": variant,
                "feature_flag.result.reason": reason.lower(),
                "feature_flag.provider.name": _PROVIDER,
                "feature_flag.version": version,
            },
        )

    def close(self) -> None:
        """Send what waits."""
        self._traces.shutdown()
        self._logs.shutdown()


_TRACED = frozenset({b"traceparent", b"tracestate"})
