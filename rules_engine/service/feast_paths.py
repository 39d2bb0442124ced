"""Answers the two paths of Feast's own feature server that its clients use most, as Feast itself does.

Feast takes seconds to import, and is imported with the first such request. What is pushed starts transitions and
triggers: the online store asks the workers to look at those who were written.
"""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

from rules_engine.errors import DataError
from rules_engine.rules.settings.nodes import Role
from rules_engine.service.documented import answer, array, operation, schema
from rules_engine.service.problems import Problem, Reply, json_reply
from rules_engine.service.requests import HttpRequest
from rules_engine.service.routes import Route

if TYPE_CHECKING:
    from rules_engine.folders import Project

#: The largest body, in bytes.
MAX_BODY = 1024 * 1024

#: Seconds for an answer, the import of Feast included.
_SECONDS = 120.0

_TEXT = {"type": "string"}
_ANSWER = schema(
    {
        "metadata": schema({"feature_names": {"type": ["array", "object"]}}),
        "results": array(schema({"values": array({}), "statuses": array(_TEXT), "event_timestamps": array(_TEXT)})),
    }
)
_FEATURES = schema(
    {
        "entities": {"type": "object", "additionalProperties": array({})},
        "features": array(_TEXT),
        "feature_service": {"type": ["string", "null"]},
        "full_feature_names": {"type": "boolean"},
    },
    optional=("features", "feature_service", "full_feature_names"),
)
_PUSH = schema(
    {
        "push_source_name": _TEXT,
        "df": {"type": "object", "additionalProperties": array({})},
        "to": {"enum": ["online"]},
    },
    optional=("to",),
)


def routes() -> list[Route]:
    """Return the two operations."""
    feast = Feast()

    async def get_online_features(request: HttpRequest) -> Reply:
        body = request.json_object()
        return json_reply(await asyncio.to_thread(feast.features, request.service.project, body))

    async def push(request: HttpRequest) -> Reply:
        await asyncio.to_thread(feast.push, request.service.project, request.json_object())
        return json_reply({"status": "pushed"})

    read = operation("Values of features, as Feast answers", answer("Values", _ANSWER), body=_FEATURES)
    write = operation("Write features", answer("They are written", schema({"status": _TEXT})), body=_PUSH)
    return [
        Route("POST", "/get-online-features", get_online_features, Role.READ, read, MAX_BODY, _SECONDS),
        Route("POST", "/push", push, Role.ADMIN, write, MAX_BODY, _SECONDS),
    ]


class Feast:
    """Holds Feast's store of the project, opened with the first request. Requests take turns."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._store: Any = None

    def features(self, project: Project, body: dict[str, Any]) -> Any:
        """Return values of features as Feast's feature server does.

        Raises
        ------
        Problem
            if Feast refuses the request.
        """
        entities, service = body.get("entities"), body.get("feature_service")
        names = body.get("features") or []
        if not isinstance(entities, dict) or not all(isinstance(keys, list) for keys in entities.values()):
            raise Problem(400, "invalid-body", "`entities` maps each join key to a list of values")
        if not (isinstance(names, list) and all(isinstance(name, str) for name in names)) or not (names or service):
            raise Problem(400, "invalid-body", "name `features` as a list of `view:name`, or a `feature_service`")
        with self._lock:
            store = self._opened(project)

            def read() -> Any:
                from google.protobuf.json_format import MessageToDict  # type: ignore[import-untyped]  # it has none

                wanted_features = store.get_feature_service(service) if service else names
                is_full = bool(body.get("full_feature_names"))
                response = store.get_online_features(wanted_features, entities, full_feature_names=is_full)
                return MessageToDict(response.proto, preserving_proto_field_name=True)

            return _refused_by_feast(read)

    def push(self, project: Project, body: dict[str, Any]) -> None:
        """Write rows into the online store.

        Raises
        ------
        Problem
            if Feast refuses the request.
        """
        name, columns = body.get("push_source_name"), body.get("df")
        if not isinstance(name, str) or not isinstance(columns, dict):
            raise Problem(400, "invalid-body", "`push_source_name` is a name, and `df` maps columns to lists")
        if body.get("to", "online") != "online":
            raise Problem(422, "unsupported", "rows are pushed online; the offline store is yours to write")
        with self._lock:
            store = self._opened(project)

            def write() -> None:
                import pandas as pd

                frame = pd.DataFrame(columns)
                source = store.get_data_source(name).batch_source
                for column in (source.timestamp_field, source.created_timestamp_column):
                    if column and column in frame:
                        frame[column] = pd.to_datetime(frame[column], utc=True)
                store.push(name, frame)

            _refused_by_feast(write)

    def _opened(self, project: Project) -> Any:
        if self._store is None:
            from feast import proto_json

            from rules_engine.features.feast.repo import FeastRepo
            from rules_engine.features.feast_import import quiet

            with quiet():
                self._store = FeastRepo(project).store
            proto_json.patch()
        return self._store


def _refused_by_feast(action: Any) -> Any:
    """Do something with Feast, whose refusals become problems."""
    from feast.errors import FeastError

    from rules_engine.features.feast_import import quiet

    try:
        with quiet():
            return action()
    except FeastError as error:
        raise Problem(error.http_status_code(), "feast", str(error)) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"Feast refuses it: {error}") from error
