"""A headless Chromium for the page; without one the tests skip with one line, and under CI they fail."""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from unitygain.report import Report

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)


def missing() -> str:
    """What is not there, or nothing."""
    if chromium() is None:
        return "no chromium on the PATH"
    try:
        import axe_playwright_python  # noqa: F401  # pyright: ignore[reportMissingImports]
        import playwright  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ImportError as problem:
        return f"{problem.name} is not installed"
    return ""


def chromium() -> str | None:
    """Return the path of a Chromium, if there is one."""
    found = (shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome"))
    return next((path for path in found if path), None)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    absent = missing()
    if absent and os.environ.get("CI") == "true":
        pytest.fail(f"{absent}; the browser tests must run under CI", pytrace=False)
    if absent:
        pytest.skip(f"{absent}; the page was not opened")
    from playwright.sync_api import sync_playwright  # pyright: ignore[reportMissingImports]

    with sync_playwright() as player:
        started = player.chromium.launch(executable_path=chromium(), args=list(FLAGS))
        yield started
        started.close()


@dataclass
class Opened:
    """A page in the browser, and what it said and asked for meanwhile."""

    page: Any
    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def at(self, selector: str) -> Any:
        """Return the one element that `selector` finds."""
        return self.page.locator(selector)


@pytest.fixture
def look(browser: Any, tmp_path: Path) -> Iterator[Callable[..., Opened]]:
    """Return ``look(report, scheme="light", size=(1200, 900))``: it saves and opens the report."""
    contexts = []

    def open_file(report: Report, scheme: str = "light", size: tuple[int, int] = (1200, 900)) -> Opened:
        path = report.save(tmp_path / f"{len(contexts)}.html")
        context = browser.new_context(
            color_scheme=scheme, viewport={"width": size[0], "height": size[1]}, offline=True
        )
        contexts.append(context)
        opened = Opened(context.new_page())
        opened.page.on("console", lambda message: opened.said.append(message.text))
        opened.page.on("pageerror", lambda error: opened.said.append(str(error)))
        opened.page.on("request", lambda request: opened.asked.append(request.url))
        opened.page.goto(path.as_uri())
        opened.page.wait_for_load_state("load")
        assert opened.asked == [path.as_uri()]
        return opened

    yield open_file
    for context in contexts:
        context.close()
