"""The service against its own OpenAPI document: what Schemathesis makes of it is answered as the document says."""

from __future__ import annotations

from typing import Any

import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.core.transport import Response
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from rules_engine.service.process import all_routes
from tests.service import shop
from tests.service.conftest import RunningService

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]

#: Every route, and the one of the document itself, which Schemathesis does not try.
SERVED = {(route.method.lower(), route.path) for route in all_routes()}
DOCUMENT = ("get", "/openapi.json")

#: How many requests are made for an operation, and for one that is the same under another path.
EXAMPLES, ALIAS_EXAMPLES = 25, 3


def test_every_operation_answers_as_the_document_says(service: RunningService) -> None:
    document = schemathesis.openapi.from_url(f"{service.url}/openapi.json")
    operations = [result.ok() for result in document.get_all_operations()]
    assert {(operation.method, operation.path) for operation in operations} == SERVED - {DOCUMENT}
    tried = set()
    for operation in operations:
        summary = operation.definition.raw["summary"]
        answers = _try(operation, ALIAS_EXAMPLES if summary in tried else EXAMPLES)
        assert answers, operation.label
        tried.add(summary)


def _try(operation: Any, examples: int) -> set[int]:
    """Send what Schemathesis makes of an operation, and check every answer; their statuses."""
    statuses = set()

    @settings(
        max_examples=examples, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck), database=None
    )
    @given(case=operation.as_strategy())
    def check(case: Any) -> None:
        response = _call(case, {"Authorization": f"Bearer {shop.KEYS['admin']}"})
        assert response.status_code < 500, response.content
        case.validate_response(response, checks=CHECKS)
        statuses.add(response.status_code)

    check()
    return statuses


def _call(case: Any, headers: dict[str, str]) -> Response:
    """Send a case; of a stream that goes on for ever, the answer is what comes first."""
    with requests.request(**case.as_transport_kwargs(headers=headers), stream=True, timeout=60) as answer:
        if answer.headers.get("content-type") != "text/event-stream":
            return Response.from_requests(answer, verify=False)
        first = next(answer.iter_lines())
        lists = {name: [value] for name, value in answer.headers.items()}
        return Response(answer.status_code, lists, first, answer.request, answer.elapsed.total_seconds(), verify=False)


def test_the_document_names_roles_and_every_operation_once(service: RunningService) -> None:
    content = service.get("/openapi.json").json()
    assert {(method, path) for path, methods in content["paths"].items() for method in methods} == SERVED
    operations = [operation for path in content["paths"].values() for operation in path.values()]
    names = [operation["operationId"] for operation in operations]
    assert len(names) == len(set(names))
    assert all(operation["summary"] and operation["responses"] for operation in operations)
    assert content["paths"]["/push"]["post"]["x-role"] == "admin"
    assert content["paths"]["/v1/track"]["post"]["x-role"] == "track"
    assert {"query": []} in content["paths"]["/v1/users/{id}/stream"]["get"]["security"]
