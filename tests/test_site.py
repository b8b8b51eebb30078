"""The site: it builds with every link and docstring found, and a reader's browser fetches nothing from elsewhere."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
# What a browser loads by itself.
LOADED = re.compile(
    r"<(?:script|img|iframe)[^>]+src=[\"']?(https?:)?//|<link[^>]+(?:stylesheet|preconnect)[^>]+href=[\"']?(https?:)?//|@import\s+url"
)


def test_the_site_builds_strictly_and_stands_alone(tmp_path: Path):
    ended = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        env={**os.environ, "PYTHONPATH": str(ROOT / "python"), "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    pages = {
        page.relative_to(tmp_path / "site"): page.read_text(encoding="utf-8") for page in (tmp_path / "site").rglob("*.html")
    }
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
    found = json.loads((tmp_path / "site" / "search" / "search_index.json").read_text(encoding="utf-8"))["docs"]
    assert any("\u200b断路器\u200b" in section["text"] for section in found if section["location"].startswith("zh/"))
    # From a docstring of the native extension, by way of the reference.
    assert "At most <code>max_concurrency</code> calls at a time" in pages[Path("reference/index.html")]
