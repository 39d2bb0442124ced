"""The service against its own OpenAPI document: what Schemathesis makes of it is answered as the document says."""

from __future__ import annotations

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.service import shop
from tests.service.conftest import RunningService

schema = schemathesis.pytest.from_fixture("document")


@pytest.fixture
def document(service: RunningService) -> object:
    return schemathesis.openapi.from_url(f"{service.url}/openapi.json")


@schema.parametrize()
@settings(
    max_examples=40, derandomize=True, deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.function_scoped_fixture],
)  # fmt: skip
def test_every_operation_answers_as_the_document_says(case: schemathesis.Case, service: RunningService) -> None:
    response = case.call(headers={"Authorization": f"Bearer {shop.KEYS['admin']}"})
    assert response.status_code < 500, response.text
    case.validate_response(
        response,
        checks=[not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance],
    )


def test_the_document_names_roles_and_every_operation_once(service: RunningService) -> None:
    content = service.get("/openapi.json").json()
    operations = [operation for path in content["paths"].values() for operation in path.values()]
    names = [operation["operationId"] for operation in operations]
    assert len(names) == len(set(names))
    assert all(operation["summary"] and operation["responses"] for operation in operations)
    assert content["paths"]["/push"]["post"]["x-role"] == "admin"
