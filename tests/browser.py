"""Pages in a real browser: Chromium without a window, driven by chromedriver; nothing it asks for leaves the machine.

    with browser() as chromium:
        view = chromium.look(path, width=390, dark=True)
    assert view.faults() == []

Where Chromium, chromedriver or selenium is not installed, `browser` skips the test and says what is missing; with
`REQUIRE_BROWSER=1` in the environment the test fails there.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import pytest

WIDTHS = (1280, 390)  # a desk and a phone, in CSS pixels
HEIGHT = 900
_LOCAL = ("file", "data", "blob", "about", "chrome")
# What stands out of the screen, unless something around it scrolls or cuts it off by itself.
_WIDER = """
const wide = document.documentElement.clientWidth, found = [];
for (const one of document.querySelectorAll('body *')) {
  const box = one.getBoundingClientRect();
  if (box.width === 0 || box.right <= wide + 1 && box.left >= -1) continue;
  let around = one.parentElement;
  const held = () => ['auto', 'scroll', 'hidden'].includes(getComputedStyle(around).overflowX);
  while (around && !held()) around = around.parentElement;
  if (!around) found.push(`${one.tagName} ${one.className} ${Math.round(box.left)} to ${Math.round(box.right)}`);
}
if (document.documentElement.scrollWidth > wide) found.push(`page ${document.documentElement.scrollWidth}`);
return found;
"""


@dataclass(frozen=True)
class View:
    """A page as a reader gets it.

    Attributes:
        messages: what the console says.
        wider: elements that stand out of the screen, with their left and right edge.
        requests: addresses that were asked for besides the page's own.
    """

    messages: list[str]
    wider: list[str]
    requests: list[str]

    def faults(self) -> list[str]:
        """Everything of these that a page which needs nothing else must not have."""
        wider = (f"wider than the screen: {one}" for one in self.wider)
        return [*self.messages, *wider, *(f"asked for {one}" for one in self.requests)]


class Browser:
    """A running Chromium; made by `browser`."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def look(self, page: Path | str, width: int = 1280, dark: bool = False) -> View:
        """Open a page and say what is wrong with it.

        Args:
            page: a file, or an address on this machine.
            width: of the window in CSS pixels.
            dark: whether the reader's system is dark.
        """
        address = page if isinstance(page, str) else page.resolve().as_uri()
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.command("Emulation.setEmulatedMedia", {"features": scheme})
        size = {"width": width, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": width < 600}
        self.command("Emulation.setDeviceMetricsOverride", size)
        for kind in ("performance", "browser"):
            self.driver.get_log(kind)  # what came before is not this page's
        self.driver.get(address)
        wider = self.wider()
        messages = [f"{one['level']}: {one['message']}" for one in self.driver.get_log("browser")]
        return View(messages, wider, [one for one in self._requests() if one != address])

    def picture(self, path: Path, height: int | None = None) -> Path:
        """Save what is seen as PNG: the whole page, or its first `height` CSS pixels."""
        size = self.command("Page.getLayoutMetrics", {})["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": height or size["height"], "scale": 1}
        shot = self.command("Page.captureScreenshot", {"clip": clip, "captureBeyondViewport": True})
        path.write_bytes(base64.b64decode(shot["data"]))
        return path

    def wider(self) -> list[str]:
        """What stands out of the screen now."""
        return list(self.driver.execute_script(_WIDER))

    def run(self, script: str) -> Any:
        """What a script in the page returns."""
        return self.driver.execute_script(script)

    def command(self, name: str, values: dict[str, Any]) -> Any:
        """A command of the DevTools protocol."""
        return self.driver.execute_cdp_cmd(name, values)

    def _requests(self) -> list[str]:
        sent = (json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance"))
        return [one["params"]["request"]["url"] for one in sent if one["method"] == "Network.requestWillBeSent"]


def leaves(address: str) -> bool:
    """Whether a request for it leaves this machine."""
    parts = urlparse(address)
    return parts.scheme not in _LOCAL and parts.hostname not in ("127.0.0.1", "localhost", "::1")


def missing() -> str:
    """What a browser needs and is not installed; "" where nothing is missing."""
    known = {"chromium": _chromium(), "chromedriver": shutil.which("chromedriver"), "selenium": find_spec("selenium")}
    return ", ".join(name for name, found in known.items() if not found)


def _chromium() -> str | None:
    return next(
        (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
    )


@contextmanager
def browser() -> Iterator[Browser]:
    """Start Chromium without a window, and end it; skips or fails the test where there is none."""
    if lacks := missing():
        gives_up = pytest.fail if os.environ.get("REQUIRE_BROWSER") == "1" else pytest.skip
        gives_up(f"pages are not opened in a browser here: {lacks} not installed")
    from selenium.webdriver import Chrome, ChromeOptions
    from selenium.webdriver.chrome.service import Service

    options = ChromeOptions()
    options.binary_location = _chromium() or ""
    quiet = ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "no-first-run", "hide-scrollbars")
    for flag in (*quiet, "disable-background-networking", "disable-component-update", "disable-sync"):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        yield Browser(driver)
    finally:
        driver.quit()
