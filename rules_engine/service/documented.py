"""Writes the OpenAPI operation of a route in a line or two."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rules_engine.rules.settings.nodes import Role

JsonObject = dict[str, Any]

#: The JSON Schema of an instant.
INSTANT: JsonObject = {"type": "string", "format": "date-time"}

#: The JSON Schema of a problem.
PROBLEM: JsonObject = {
    "type": "object",
    "required": ["title", "status", "detail", "code"],
    "properties": {
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What is wrong."},
        "code": {"type": "string", "description": "The kind of problem; it stays the same."},
        "hint": {"type": "string", "description": "What to do."},
    },
}


def schema(properties: Mapping[str, Any], optional: tuple[str, ...] = ()) -> JsonObject:
    """Return the JSON Schema of an object; all properties are there but the optional ones."""
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": dict(properties), "required": required}


def array(items: JsonObject) -> JsonObject:
    """Return the JSON Schema of a list."""
    return {"type": "array", "items": items}


def answer(description: str, content: JsonObject | None, status: int = 200, text: str = "text/plain") -> JsonObject:
    """Return a response of an operation; its content is JSON, or text of a media type where there is no schema."""
    media = text if content is None else "application/json"
    return {str(status): {"description": description, "content": {media: {"schema": content or {"type": "string"}}}}}


def path_parameter(name: str, description: str) -> JsonObject:
    """Return a parameter in the path."""
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": description,
        "schema": {"type": "string", "minLength": 1},
    }


def query_parameter(name: str, description: str, of: JsonObject, *, several: bool = False) -> JsonObject:
    """Return a parameter in the query."""
    return {"name": name, "in": "query", "description": description, "schema": array(of) if several else of}


#: The places where a request may have its key, and what OpenAPI says of each.
KEY_PLACES: JsonObject = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "A key of the service."},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "basic": {"type": "http", "scheme": "basic", "description": "The user is the key, as Segment's SDKs send it."},
    "write_key": {"type": "apiKey", "in": "query", "name": "writeKey"},
    "query": {"type": "apiKey", "in": "query", "name": "key", "description": "For browsers' `EventSource`."},
}


def keyed(role: Role, *places: str) -> JsonObject:
    """Return the part of an operation that says which key it needs, and where the key may be.

    >>> keyed(Role.READ, "bearer", "header")
    {'security': [{'bearer': []}, {'header': []}], 'x-role': 'read'}
    """
    return {"security": [{place: []} for place in places], "x-role": role.value}


def operation(
    summary: str, responses: JsonObject, *parameters: JsonObject, body: JsonObject | None = None, **more: Any
) -> JsonObject:
    """Return an OpenAPI operation.

    >>> operation("Does it live", answer("It does", {"type": "object"}))["summary"]
    'Does it live'
    """
    content = {"required": True, "content": {"application/json": {"schema": body}}}
    return {
        "summary": summary,
        **({"parameters": list(parameters)} if parameters else {}),
        **({"requestBody": content} if body else {}),
        "responses": responses,
        **more,
    }
