"""The site: it builds with every link and docstring found, its diagrams are drawn, and a reader's browser fetches nothing from elsewhere."""

from __future__ import annotations

import contextlib
import functools
import html
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import urllib.parse
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# What a browser loads by itself.
LOADED = re.compile(
    r"<(?:script|img|iframe)[^>]+src=[\"']?(https?:)?//|<link[^>]+(?:stylesheet|preconnect)[^>]+href=[\"']?(https?:)?//|@import\s+url"
)
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DIAGRAM = re.compile(r'<pre class="mermaid"><code>(.*?)</code></pre>', re.DOTALL)


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built") / "site"
    ended = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        env={**os.environ, "PYTHONPATH": str(ROOT / "python"), "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return folder


def indexed(folder: Path) -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads((folder / "search" / "search_index.json").read_text(encoding="utf-8"))["docs"]
    return found


def test_it_stands_alone(site: Path):
    pages = {page.relative_to(site): page.read_text(encoding="utf-8") for page in site.rglob("*.html")}
    assert len(pages) >= len(list((ROOT / "docs").rglob("*.md")))
    assert [str(page) for page, text in pages.items() if LOADED.search(text)] == []
    # Each language leads to itself, and to the same page in the other.
    assert '<a href="zh/" hreflang="zh"' in pages[Path("index.html")]
    chinese = pages[Path("zh/start/index.html")]
    assert (
        '<html lang="zh"' in chinese
        and '<a href="../checklist/">' in chinese
        and '<a href="../../start/" hreflang="en"' in chinese
    )
    # Words in Chinese are marked off for the search.
    assert any("\u200b断路器\u200b" in section["text"] for section in indexed(site / "zh"))
    # From a docstring of the native extension, by way of the reference.
    assert "At most <code>max_concurrency</code> calls at a time" in pages[Path("reference/index.html")]


def test_each_language_has_a_search_of_its_own(site: Path):
    english, chinese = ({section["location"].partition("#")[0] for section in indexed(folder)} for folder in (site, site / "zh"))
    assert {"", "start/", "performance/"} <= english and not any(page.startswith("zh/") for page in english)
    # What has no translation is found from both.
    assert {"./", "start/", "performance/", "reference/"} <= chinese
    assert [page for page in chinese if not (site / "zh" / page / "index.html").exists()] == []
    assert any("断路器" in section["title"] for section in indexed(site / "zh"))
    assert not any("断路器" in section["title"] for section in indexed(site))


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here: apt-get install chromium")
def test_a_search_leads_to_pages_of_its_language(site: Path):
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: it drives the browser")
    # The theme asks for its index by HTTP.
    handler = functools.partial(Quiet, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server, sync_api.sync_playwright() as playwright:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = chromium.new_page()
        root = f"http://127.0.0.1:{server.server_port}"
        for start, asked, wanted in (
            ("/start/", "bulkhead", "/policies/bulkhead/"),
            ("/zh/start/", "断路器", "/zh/policies/circuit_breaker/"),
        ):
            page.goto(root + start)
            query = page.locator("[data-md-component=search-query]")
            query.fill(asked)
            results = page.locator("a.md-search-result__link")
            # What is typed before the page listens is heard with the next key.
            for _ in range(60):
                query.press("End")
                with contextlib.suppress(sync_api.TimeoutError):
                    results.first.wait_for(timeout=1000)
                    break
            sync_api.expect(results.first).to_be_visible()
            found = [urllib.parse.urlsplit(result.evaluate("link => link.href")).path for result in results.all()]
            assert wanted in found
            assert {path.startswith("/zh/") for path in found} == {start.startswith("/zh/")}
        chromium.close()
        server.shutdown()


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here: apt-get install chromium")
def test_diagrams_are_drawn_by_what_the_site_holds(site: Path):
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: it drives the browser")
    pages = {page: page.read_text(encoding="utf-8") for page in site.rglob("*.html")}
    diagrams = {page: [html.unescape(text) for text in DIAGRAM.findall(written)] for page, written in pages.items()}
    diagrams = {page: texts for page, texts in diagrams.items() if texts}
    assert len(diagrams) >= 9
    asked: list[str] = []
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = chromium.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.goto(min(diagrams).as_uri())
        # The theme puts a drawing in the place of each text. All pages have the same script, so one of them will do.
        sync_api.expect(page.locator("div.mermaid")).to_have_count(1, timeout=20_000)
        assert page.locator("div.mermaid").bounding_box()["height"] > 200
        for place, texts in diagrams.items():
            assert "/assets/javascripts/mermaid.min.js" in pages[place]
            for text in texts:
                assert page.evaluate("text => mermaid.parse(text)", text)["diagramType"] == "sequence"
        chromium.close()
    assert [url for url in asked if not url.startswith(site.as_uri())] == []
