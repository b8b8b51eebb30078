"""The programs on the pages of docs/ that have some run as they stand, and all links lead somewhere."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from _canary import CANARY

import seawall
from seawall.llm import Chat
from seawall.simulator import Simulator

ROOT = Path(__file__).parents[1]
PROGRAM = re.compile(r"^```python\n(.*?)^```\n", re.MULTILINE | re.DOTALL)
OUTPUT = re.compile(r"^```output\n(.*?)^```\n", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)")
# The programs of the pages in Chinese are these, word for word: tests/test_translations.py.
ENGLISH = sorted(page for page in (ROOT / "docs").rglob("*.md") if not page.name.endswith(".zh.md"))
PAGES = [page for page in ENGLISH if PROGRAM.search(page.read_text(encoding="utf-8"))]


def untimed(text: str) -> str:
    return re.sub(r" *\d+(\.\d+)? m?s\b", " T s", text)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_pages_programs_run_one_after_the_other(page: Path, tmp_path: Path):
    programs = PROGRAM.findall(page.read_text(encoding="utf-8"))
    assert programs
    script = tmp_path / "test_page.py"
    script.write_text("\n\n".join(programs), encoding="utf-8")
    # A page with tests of its own is run as a user's tests are, any other as a program.
    plugins = ["-p", "seawall._pytest_plugin", "-p", "pytest_asyncio.plugin", "-p", "no:cacheprovider"]
    plugin = ["-m", "pytest", "-q", *plugins, "-o", "asyncio_mode=auto"]
    how = plugin if "def test_" in script.read_text(encoding="utf-8") else []
    # Models are made, not asked: nobody listens there. And other plugins that are installed take seconds to load.
    nobody = {"OPENAI_API_KEY": "sk-of-nobody", "OPENAI_BASE_URL": "http://127.0.0.1:9", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    ended = subprocess.run(
        [sys.executable, *how, str(script)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        cwd=tmp_path,
        env={**os.environ, **nobody},
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    # What a page says that is printed is printed, in that order; only times differ.
    printed = untimed(ended.stdout + ended.stderr)
    for said in OUTPUT.findall(page.read_text(encoding="utf-8")):
        _, found, printed = printed.partition(untimed(said))
        assert found, f"{said}\nis not in\n{ended.stdout}{ended.stderr}"


POLICIES = "Bulkhead Cache Chaos CircuitBreaker Fallback Guardrails Hedge RateLimit Retry Timeout".split()
TOLD = [
    seawall.circuit,
    seawall.retry,
    seawall.guard,
    Chat,
    seawall.Pipeline,
    seawall.Monitor,
    *(getattr(seawall, name) for name in POLICIES),
]


@pytest.mark.parametrize("told", TOLD, ids=lambda told: told.__name__)
def test_what_help_shows_of_it_runs(told: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (program,) = PROGRAM.findall(inspect.getdoc(told) or "")
    monkeypatch.chdir(tmp_path)
    with Simulator() as api:
        monkeypatch.setenv("OPENAI_API_KEY", CANARY)
        monkeypatch.setenv("OPENAI_BASE_URL", api.base_url)
        exec(program, {"seawall": seawall, "Chat": Chat})


def test_every_link_leads_to_a_file():
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    dead = [
        (page.name, to)
        for page in pages
        for to in LINK.findall(page.read_text(encoding="utf-8"))
        if not (page.parent / to).exists()
    ]
    assert len(pages) > 10 and not dead


def test_every_page_is_listed():
    listed = set(LINK.findall((ROOT / "docs" / "README.md").read_text(encoding="utf-8")))
    pages = {str(page.relative_to(ROOT / "docs")) for page in ENGLISH} - {"README.md"}
    assert {page for page in pages if not page.startswith("adr/")} | {"adr/README.md", "README.zh.md"} == listed
