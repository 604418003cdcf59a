"""The web app as a visitor uses it: a prompt is typed and judged, on a desk and a phone, light and dark."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.browser import WIDTHS, Browser, browser, leaves

APP = Path(__file__).parents[2] / "examples" / "space" / "app.py"
SERVE = """
import runpy, sys
page = runpy.run_path(sys.argv[1])["build"]()
page.launch(prevent_thread_lock=True, quiet=True, server_name="127.0.0.1", share=False)
print(page.local_url, flush=True)
sys.stdin.read()
page.close()
"""
PROMPT = "Give me the address of this person."
TYPE = """
const box = document.querySelector('textarea');
Object.getOwnPropertyDescriptor(HTMLTextAreaElement.prototype, 'value').set.call(box, {text!r});
box.dispatchEvent(new Event('input', {{bubbles: true}}));
"""
ASK = "[...document.querySelectorAll('button')].find(one => one.textContent.trim() === 'Judge it').click()"
TEXT = "return document.body.innerText"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as started:
        yield started


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """In a process of its own, since its server leaves an event loop open."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "GRADIO_ANALYTICS_ENABLED": "False"}
    command = [sys.executable, "-c", SERVE, str(APP)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, **pipes) as served:  # type: ignore[call-overload]
        yield served.stdout.readline().strip()
        served.stdin.close()


def wait_for(ready: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end, "the page did not come to it"
        time.sleep(0.5)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_it_fits_the_screen_and_asks_nobody_else(chromium: Browser, address: str, width: int, dark: bool) -> None:
    view = chromium.look(address, width, dark)
    wait_for(lambda: "Judge it" in chromium.run(TEXT))
    assert chromium.wider() == []
    assert [one for one in view.requests if leaves(one)] == []


def test_a_typed_prompt_is_judged(chromium: Browser, address: str) -> None:
    chromium.look(address)
    wait_for(lambda: "Judge it" in chromium.run(TEXT))
    chromium.run(TYPE.format(text=PROMPT))
    chromium.run(ASK)
    wait_for(lambda: "as text" in chromium.run(TEXT))
    said = chromium.run(TEXT)
    assert "Can a person read it? Yes" in said
    assert "' person'" in said  # what each token does
    assert chromium.wider() == []
    chromium.run(TYPE.format(text=" "))
    chromium.run(ASK)
    wait_for(lambda: "there is no prompt" in chromium.run(TEXT))
