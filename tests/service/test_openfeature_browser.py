"""OpenFeature's own SDK for browsers and its OFREP provider, unmodified, in a real browser, with a browser's key."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Error, Page

from tests.service import shop
from tests.service.browser import import_map, needs_browser_and, open_page
from tests.service.conftest import RunningService

pytestmark = needs_browser_and("@openfeature/ofrep-web-provider")

HEAD = import_map(
    {
        "@openfeature/core": "@openfeature/core/dist/esm/index.js",
        "@openfeature/web-sdk": "@openfeature/web-sdk/dist/esm/index.js",
        "@openfeature/ofrep-core": "@openfeature/ofrep-web-provider/node_modules/@openfeature/ofrep-core/index.esm.js",
        "@openfeature/ofrep-web-provider": "@openfeature/ofrep-web-provider/index.esm.js",
    }
)

START = """async ([baseUrl, key, context, pollInterval]) => {
    const {OpenFeature, ProviderEvents} = await import("@openfeature/web-sdk");
    const {OFREPWebProvider} = await import("@openfeature/ofrep-web-provider");
    const headers = [["Authorization", `Bearer ${key}`]];
    await OpenFeature.setContext(context);
    await OpenFeature.setProviderAndWait(new OFREPWebProvider({baseUrl, headers, pollInterval}));
    window.OpenFeature = OpenFeature;
    window.client = OpenFeature.getClient();
    window.changed = new Promise(done => client.addHandler(ProviderEvents.ConfigurationChanged, done));
}"""


@pytest.fixture
def page() -> Iterator[Page]:
    with open_page(HEAD) as page:
        yield page


def start(page: Page, service: RunningService, role: str, poll: int = 0, **context: str) -> None:
    """Load the SDK in the page, with the key of a role and the context of its user."""
    page.evaluate(START, [service.url, shop.KEYS[role], context, poll])


def details(page: Page, flag: str, otherwise: bool = False) -> dict[str, Any]:
    """Return what the page is told of a flag."""
    told: dict[str, Any] = page.evaluate("([flag, other]) => client.getBooleanDetails(flag, other)", [flag, otherwise])
    return told


def test_a_page_knows_public_segments_and_learns_of_no_others(service: RunningService, page: Page) -> None:
    start(page, service, "evaluate", targetingKey="ada")
    adults = details(page, "adults")
    assert (adults["value"], adults["variant"], adults["reason"]) == (True, "in", "TARGETING_MATCH")
    assert details(page, "mobile", otherwise=True)["value"] is False
    hidden, absent = details(page, "norwegians", otherwise=True), details(page, "absent", otherwise=True)
    assert (hidden["value"], hidden["errorCode"]) == (absent["value"], absent["errorCode"]) == (True, "FLAG_NOT_FOUND")


def test_a_new_context_is_asked_about(service: RunningService, page: Page) -> None:
    start(page, service, "evaluate", targetingKey="ada")
    page.evaluate("OpenFeature.setContext({targetingKey: 'bob', device: 'mobile'})")
    assert details(page, "adults", otherwise=True)["value"] is False
    assert details(page, "mobile")["value"] is True


def test_a_page_that_polls_hears_of_what_changed(service: RunningService, page: Page) -> None:
    start(page, service, "evaluate", 100, targetingKey="web1")
    assert details(page, "keen", otherwise=True)["value"] is False
    with page.expect_response(lambda answer: answer.status == 304):
        pass  # the ETag of the answer before is known to the page, though the service is of another origin
    for shown in ("a", "b"):
        body = {"userId": "web1", "event": "view", "properties": {"page": shown}}
        assert service.post("/v1/track", "track", json=body).json()["taken"] == 1
    page.wait_for_function("client.getBooleanValue('keen', false)")
    assert "keen" in page.evaluate("changed.then(event => event.flagsChanged)")


def test_a_key_that_may_not_ask_is_an_error_of_the_sdk(service: RunningService, page: Page) -> None:
    with page.expect_response(lambda answer: answer.status == 403), pytest.raises(Error, match="ProviderFatalError"):
        start(page, service, "track", targetingKey="ada")


def test_a_page_of_another_origin_gets_no_answer(service: RunningService) -> None:
    logged: list[str] = []
    with open_page(HEAD, "https://elsewhere.example") as page:
        page.on("console", lambda message: logged.append(message.text))
        with pytest.raises(Error, match="OFREPApiFetchError"):
            start(page, service, "evaluate", targetingKey="ada")
    assert any("CORS policy" in text for text in logged)
