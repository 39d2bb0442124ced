"""The OpenAPI operations of the tracking API."""

from __future__ import annotations

from typing import Any

from rules_engine.rules.settings.nodes import Role
from rules_engine.service.documented import INSTANT, JsonObject, answer, array, keyed, operation, path_parameter, schema

_TEXT = {"type": "string"}
_OBJECT = {"type": "object"}
_TAKEN = schema(
    {
        "success": {"type": "boolean"},
        "taken": {"type": "integer"},
        "refused": {"type": "integer"},
        "reasons": array(schema({"index": {"type": "integer"}, "code": _TEXT, "message": _TEXT})),
    }
)
_MESSAGE: JsonObject = {
    "type": "object",
    "properties": {
        "userId": {"type": ["string", "integer"], "description": "Whose it is; without it, `anonymousId` says so."},
        "anonymousId": _TEXT,
        "event": {"type": "string", "description": "What happened, in a `track` message."},
        "properties": {"type": "object", "description": "Of a `track`, `page` or `screen` message."},
        "traits": {"type": "object", "description": "Of an `identify` or `group` message."},
        "groupId": _TEXT,
        "previousId": _TEXT,
        "messageId": {"type": "string", "description": "What comes a second time with the same id counts once."},
        "timestamp": INSTANT,
        "sentAt": INSTANT,
    },
}
_TYPED = schema({"type": {"enum": ["track", "identify", "page", "screen", "group", "alias"]}, **_MESSAGE["properties"]},
                optional=tuple(_MESSAGE["properties"]))  # fmt: skip
_BATCH = schema({"batch": array(_TYPED), "sentAt": INSTANT, "writeKey": _TEXT}, optional=("sentAt", "writeKey"))
_EVENT = schema(
    {"specversion": {"enum": ["1.0"]}, "id": _TEXT, "source": _TEXT, "type": _TEXT, "subject": _TEXT, "time": INSTANT,
     "data": _OBJECT},
    optional=("time", "data"),
)  # fmt: skip

_KEY = keyed(Role.TRACK, "basic", "bearer", "header", "write_key")


def batch_operation(path: str, summary: str) -> JsonObject:
    """Return the operation of a path that takes batches."""
    return operation(summary, answer("What became of them", _TAKEN), body=_BATCH, operationId=_id(path), **_KEY)


def message_operation(path: str, kind: str) -> JsonObject:
    """Return the operation of a path that takes one message of a kind."""
    done = answer("What became of it", _TAKEN)
    return operation(f"Report one message: {kind}", done, body=_MESSAGE, operationId=_id(path), **_KEY)


def metrics_operation(path: str) -> JsonObject:
    """Return the operation of a path that takes what SDKs tell of themselves."""
    done = answer("It is forgotten", schema({"success": {"type": "boolean"}}))
    return operation("Accept an SDK's own metrics", done, operationId=_id(path))


def settings_operation() -> JsonObject:
    """Return the operation with which Segment's SDK for browsers begins."""
    key = path_parameter("key", "The write key.")
    done = answer("Where to send what", schema({"integrations": _OBJECT, "plan": _OBJECT}))
    return operation("Settings of Segment's SDK for browsers", done, key, **keyed(Role.TRACK))


def cloud_events_operation() -> JsonObject:
    """Return the operation that takes CloudEvents, in their three modes."""
    content = {
        "application/cloudevents+json": _EVENT,
        "application/cloudevents-batch+json": array(_EVENT),
        "application/json": {"type": "object", "description": "The data; the headers `ce-…` hold the rest."},
    }
    body: dict[str, Any] = {"required": True, "content": {media: {"schema": of} for media, of in content.items()}}
    return operation("Report CloudEvents", answer("What became of them", _TAKEN), requestBody=body, **_KEY)


def _id(path: str) -> str:
    """Return the id of an operation that several paths have: each its own."""
    return path.strip("/").replace("/", "_")
