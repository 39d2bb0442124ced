"""The service against its own OpenAPI document: what Schemathesis makes of it is answered as the document says."""

from __future__ import annotations

from typing import Any

import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.service import shop
from tests.service.conftest import RunningService

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


def test_every_operation_answers_as_the_document_says(service: RunningService) -> None:
    document = schemathesis.openapi.from_url(f"{service.url}/openapi.json")
    operations = [result.ok() for result in document.get_all_operations()]
    assert len(operations) >= 13
    for operation in operations:
        answers = _try(operation)
        assert answers, operation.label


def _try(operation: Any) -> set[int]:
    """Send what Schemathesis makes of an operation, and check every answer; their statuses."""
    statuses = set()

    @settings(max_examples=25, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(case=operation.as_strategy())
    def check(case: Any) -> None:
        response = case.call(headers={"Authorization": f"Bearer {shop.KEYS['admin']}"})
        assert response.status_code < 500, response.text
        case.validate_response(response, checks=CHECKS)
        statuses.add(response.status_code)

    check()
    return statuses


def test_the_document_names_roles_and_every_operation_once(service: RunningService) -> None:
    content = service.get("/openapi.json").json()
    operations = [operation for path in content["paths"].values() for operation in path.values()]
    names = [operation["operationId"] for operation in operations]
    assert len(names) == len(set(names))
    assert all(operation["summary"] and operation["responses"] for operation in operations)
    assert content["paths"]["/push"]["post"]["x-role"] == "admin"
