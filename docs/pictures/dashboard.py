"""Makes the pictures of the dashboard: `python docs/pictures/dashboard.py`, with the group `pictures` installed and a Chromium.

A quarter of an hour of the demo's traffic, in half a minute: the simulator and whoever asks it are so much faster, and a clock of
`seawall.testing` runs as fast.
"""

from __future__ import annotations

import io
import json
import logging
import shutil
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, expect, sync_playwright

from seawall import dashboard, testing
from seawall.dashboard._demo import Demo

PLACE = Path(__file__).parent
LAPSE = 30
QUIET = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


class Lapse:
    """Lets the clock run as fast as the demo does, until the end of the block."""

    def __init__(self, clock: testing.clock) -> None:
        self._clock = clock
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        begun = time.monotonic()
        while not self._over.wait(0.001):
            ahead = (time.monotonic() - begun) * LAPSE - self._clock.now
            self._clock.advance(max(ahead, 0))

    def until(self, second: float) -> None:
        while self._clock.now < second:
            time.sleep(0.05)

    def __enter__(self) -> Lapse:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def state(served: dashboard.Dashboard) -> Any:
    return json.load(urllib.request.urlopen(f"{served.url}/api/state", timeout=20))


def take(browser: Browser, url: str, name: str, size: dict[str, int], scheme: Any, level: str) -> None:
    context = browser.new_context(viewport=size, color_scheme=scheme, reduced_motion="reduce")  # type: ignore[arg-type]
    page = context.new_page()
    page.goto(url)
    expect(page.locator("#health")).to_have_attribute("data-level", level)
    failures = page.locator("#failures details")
    if failures.count() and size is WIDE:
        failures.filter(has_text="attempt").first.locator("summary").click()
    page.mouse.move(0, 0)
    taken = Image.open(io.BytesIO(page.screenshot(full_page=True)))
    # 256 colours do: a third of the size.
    taken.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(PLACE / f"dashboard-{name}.png", optimize=True)
    context.close()


def main() -> None:
    logging.disable()
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with (
        sync_playwright() as playwright,
        testing.clock() as clock,
        dashboard.serve(0, title="support-bot", quiet=True) as served,
        Lapse(clock) as lapse,
        Demo(workers=8, lapse=LAPSE, trouble=False) as demo,
    ):
        browser = playwright.chromium.launch(executable_path=chromium, args=QUIET)
        demo.outage(300, 50)
        lapse.until(860)
        for scheme in ("light", "dark"):
            take(browser, served.url, f"calm-{scheme}", WIDE, scheme, "calm")
        demo.outage(clock.now, 1000)
        lapse.until(clock.now + 20)
        while not any(breaker["state"] == "open" for breaker in state(served)["breakers"]):
            time.sleep(0.01)
        for scheme in ("light", "dark"):
            take(browser, served.url, f"incident-{scheme}", WIDE, scheme, "bad")
        take(browser, served.url, "incident-narrow", NARROW, "dark", "bad")
        browser.close()


if __name__ == "__main__":
    main()
