"""OpenFeature's own SDK and provider for Python, unmodified, against the service."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from openfeature import api
from openfeature.client import OpenFeatureClient
from openfeature.contrib.provider.ofrep import OFREPProvider
from openfeature.evaluation_context import EvaluationContext
from openfeature.exception import ErrorCode
from openfeature.track import TrackingEventDetails

from rules_engine import SegmentClient
from rules_engine.folders import Project
from rules_engine.openfeature import SegmentsProvider
from tests.service import shop
from tests.service.conftest import MakeService, RunningService


def openfeature_client(url: str, role: str = "read") -> OpenFeatureClient:
    headers = {"Authorization": f"Bearer {shop.KEYS[role]}"}
    api.set_provider(OFREPProvider(url, headers_factory=lambda: headers))
    return api.get_client()


@pytest.fixture
def flags(service: RunningService) -> Iterator[OpenFeatureClient]:
    yield openfeature_client(service.url)
    api.shutdown()


def person(entity: str, **context: str) -> EvaluationContext:
    return EvaluationContext(entity, context)


def test_segments_are_flags(flags: OpenFeatureClient) -> None:
    assert flags.get_boolean_value("adults", False, person("ada")) is True
    assert flags.get_boolean_value("adults", True, person("bob")) is False
    assert flags.get_boolean_value("mobile", False, person("bob", device="mobile")) is True
    details = flags.get_boolean_details("adults", False, person("ada"))
    assert (details.variant, details.reason, details.error_code) == ("in", "TARGETING_MATCH", None)
    assert len(str(details.flag_metadata["definitions_version"])) == 12


def test_decisions_are_flags_of_their_types(flags: OpenFeatureClient, shop_project: Project) -> None:
    check_decisions(flags)
    api.set_provider(SegmentsProvider(SegmentClient(shop_project)))  # in the same process it is the same
    check_decisions(api.get_client())


def check_decisions(flags: OpenFeatureClient) -> None:
    assert flags.get_float_value("discount", 0.0, person("ada")) == 12.5
    assert flags.get_object_value("banner", {}, person("ada")) == {"text": "Hello"}
    assert flags.get_object_value("banner", {"text": "mine"}, person("bob")) == {"text": "mine"}
    details = flags.get_object_details("banner", {}, person("some stranger", device="mobile"))
    assert (details.reason, details.error_code) == ("SPLIT", None)
    wrong = flags.get_string_details("discount", "none", person("ada"))
    assert (wrong.value, wrong.error_code) == ("none", ErrorCode.TYPE_MISMATCH)


def test_errors_have_the_codes_of_openfeature(flags: OpenFeatureClient) -> None:
    absent = flags.get_boolean_details("absent", True, person("ada"))
    assert (absent.value, absent.error_code) == (True, ErrorCode.FLAG_NOT_FOUND)
    nobody = flags.get_boolean_details("adults", False, EvaluationContext(attributes={"device": "mobile"}))
    assert nobody.error_code == ErrorCode.TARGETING_KEY_MISSING
    late = flags.get_boolean_details("leaves_soon", False, person("ada", departure="soon"))
    assert late.error_code == ErrorCode.INVALID_CONTEXT
    text = flags.get_string_details("adults", "", person("ada"))
    assert text.error_code == ErrorCode.TYPE_MISMATCH


def test_an_event_changes_the_next_answer(flags: OpenFeatureClient, shop_project: Project) -> None:
    at = datetime.now(UTC) - timedelta(minutes=1)
    assert flags.get_boolean_value("keen", True, person("flagged")) is False
    with SegmentClient(shop_project) as client:
        for number in range(2):
            client.track("flagged", "view", {"page": "a"}, at=at + timedelta(seconds=number))
    assert flags.get_boolean_value("keen", False, person("flagged")) is True


@pytest.fixture
def inside(shop_project: Project) -> Iterator[OpenFeatureClient]:
    """A client of OpenFeature that answers in this process."""
    api.set_provider(SegmentsProvider(SegmentClient.from_repo(shop_project.root)))
    yield api.get_client()
    api.shutdown()


def test_the_provider_in_process_answers_as_the_service_does(
    inside: OpenFeatureClient, service: RunningService
) -> None:
    for flag in ("adults", "norwegians", "mobile", "keen"):
        for entity in ("ada", "bob", "nobody"):
            details = inside.get_boolean_details(flag, False, person(entity, device="mobile"))
            remote = service.evaluate(flag, entity, device="mobile")
            assert (details.value, details.reason, details.variant) == tuple(
                remote[name] for name in ("value", "reason", "variant")
            )
            assert details.flag_metadata == remote["metadata"]


def test_the_provider_in_process_has_the_codes_of_openfeature(inside: OpenFeatureClient) -> None:
    assert inside.get_boolean_details("absent", True, person("ada")).error_code == ErrorCode.FLAG_NOT_FOUND
    assert inside.get_boolean_details("adults", True).error_code == ErrorCode.TARGETING_KEY_MISSING
    for details in (
        inside.get_string_details("adults", "", person("ada")),
        inside.get_integer_details("adults", 0, person("ada")),
        inside.get_float_details("adults", 0.0, person("ada")),
        inside.get_object_details("adults", {}, person("ada")),
    ):
        assert details.error_code == ErrorCode.TYPE_MISMATCH


def test_the_provider_in_process_reports_events(inside: OpenFeatureClient) -> None:
    for _ in range(2):
        inside.track("view", person("reporter"), TrackingEventDetails(attributes={"page": "a"}))
    details = inside.get_boolean_details("keen", False, person("reporter"))
    assert details.value is True
    assert datetime.fromisoformat(str(details.flag_metadata["changes_at"])) > datetime.now(UTC)


def test_a_store_that_holds_nothing_is_an_error_and_no_answer(make_service: MakeService, forgetful: Project) -> None:
    flags = openfeature_client(make_service(forgetful).url)
    try:
        for default in (True, False):
            details = flags.get_boolean_details("adults", default, person("ada"))
            assert (details.value, details.error_code) == (default, ErrorCode.GENERAL)
            assert "materialize" in str(details.error_message)
    finally:
        api.shutdown()
