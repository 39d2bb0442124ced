"""Logs as lines of JSON, for those who collect them. What is logged says nothing about a single person."""

from __future__ import annotations

import logging
import sys
from typing import Any, TextIO

from pythonjsonlogger.orjson import OrjsonFormatter

from rules_engine.clock import format_instant

#: What a log call may add besides its message, with ``extra``: names that people gave to things, and numbers.
FIELDS = (
    *("project", "sink", "partition", "segment", "trigger", "code", "number", "seconds", "worker", "topic"),
    *("method", "route"),
)


class JsonFormatter(OrjsonFormatter):
    """One line of JSON for each record: ``at``, ``level``, ``logger``, ``message``, and those of :data:`FIELDS`.

    Of an exception, only its type and where it happened are told: its text may hold what a person did.

    >>> record = logging.LogRecord("rules_engine.worker", logging.INFO, "", 0, "took %d", (5,), None)
    >>> record.created, record.number = 0.0, 5
    >>> JsonFormatter().format(record)
    '{"at":"1970-01-01T00:00:00Z","level":"info","logger":"rules_engine.worker","message":"took 5","number":5}'
    """

    def add_fields(self, log_data: dict[str, Any], record: logging.LogRecord, _message_dict: dict[str, Any]) -> None:
        """Put the fields of a record into its line, without the text of an exception."""
        log_data["at"] = format_instant(int(record.created * 1_000_000))
        log_data["level"] = record.levelname.lower()
        log_data["logger"] = record.name
        log_data["message"] = record.getMessage()
        log_data |= {name: getattr(record, name) for name in FIELDS if hasattr(record, name)}
        if record.exc_info and record.exc_info[0] is not None:
            log_data["error"] = record.exc_info[0].__name__
            traceback = record.exc_info[2]
            while traceback is not None and traceback.tb_next is not None:
                traceback = traceback.tb_next
            if traceback is not None:
                log_data["where"] = f"{traceback.tb_frame.f_globals.get('__name__', '?')}:{traceback.tb_lineno}"


def set_up_logs(*, as_json: bool, stream: TextIO | None = None, level: int = logging.INFO) -> None:
    """Send what this package logs to a stream, the standard error output by default; once for a process.

    What libraries log of requests is kept out: their addresses may hold a secret.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    plain = logging.Formatter("%(asctime)s %(levelname)s %(message)s")
    handler.setFormatter(JsonFormatter() if as_json else plain)
    logger = logging.getLogger("rules_engine")
    for old in list(logger.handlers):
        logger.removeHandler(old)
    logger.addHandler(handler)
    logger.setLevel(level)
    logger.propagate = False
