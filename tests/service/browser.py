"""Opens pages of the shop in Chromium, with the packages of tests/clients at hand; the service is where they ask."""

from __future__ import annotations

import json
import mimetypes
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Route, sync_playwright

#: The origin that the project's settings allow.
ORIGIN = "https://shop.example"

PACKAGES = Path(__file__).parents[1] / "clients" / "node_modules"
CHROMIUM = shutil.which("chromium")


def needs_browser_and(package: str) -> pytest.MarkDecorator:
    """Skip tests where there is no Chromium, or no package of tests/clients."""
    return pytest.mark.skipif(
        CHROMIUM is None or not (PACKAGES / package).is_dir(),
        reason="needs chromium, and the packages of tests/clients: `npm ci --prefix tests/clients`",
    )


@contextmanager
def open_page(head: str, origin: str = ORIGIN) -> Iterator[Page]:
    """Open a page with this in its head. Paths of its origin are files of the packages."""

    def serve(route: Route) -> None:
        path = route.request.url.removeprefix(origin).lstrip("/")
        if not path:
            route.fulfill(body=f"<head>{head}</head>", content_type="text/html")
        elif (PACKAGES / path).is_file():
            route.fulfill(path=PACKAGES / path, content_type=mimetypes.guess_type(path)[0])
        else:
            route.fulfill(status=404)

    with sync_playwright() as playwright:
        # The page comes from elsewhere, and the service is on this machine: what browsers ask people about otherwise.
        arguments = ["--no-sandbox", "--disable-features=LocalNetworkAccessChecks"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        page = browser.new_page()
        page.route(f"{origin}/**", serve)
        page.goto(f"{origin}/")
        yield page
        browser.close()


@contextmanager
def open_browser() -> Iterator[Browser]:
    """Open Chromium, for pages of the service itself."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def import_map(modules: Mapping[str, str]) -> str:
    """Return the element by which a page finds modules: by name, their files in the packages."""
    imports = {name: f"/{file}" for name, file in modules.items()}
    return f"<script type='importmap'>{json.dumps({'imports': imports})}</script>"
