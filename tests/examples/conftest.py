"""The demo is started once, as soon as it is known that a test wants it, and runs beside the other tests: mostly it waits."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from _programs import HERE, Run

FOLDER = Path(__file__).parent
STARTED = pytest.StashKey[subprocess.Popen]()


@dataclass(frozen=True)
class Demo:
    """What `make demo` printed and saved."""

    exit_code: int
    screen: str
    errors: str
    folder: Path

    def runs(self) -> dict[tuple[int, str], Run]:
        saved = json.loads((self.folder / "results.json").read_text(encoding="utf-8"))
        runs = [Run.load(run) for run in saved]
        return {(int(run.program[0]), run.scenario): run for run in runs}


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: FOLDER in item.path.parents)  # these last: they find the demo over, or nearly


def pytest_collection_finish(session: pytest.Session) -> None:
    if session.config.option.collectonly or not any("shown" in getattr(item, "fixturenames", ()) for item in session.items):
        return
    folder = session.config.rootpath / ".demo" / "tests"
    process = subprocess.Popen(
        [sys.executable, str(HERE / "demo.py"), "--folder", str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )
    session.config.stash[STARTED] = process


def pytest_unconfigure(config: pytest.Config) -> None:
    process = config.stash.get(STARTED, None)
    if process is not None and process.poll() is None:
        process.terminate()
        process.communicate()


@pytest.fixture(scope="session")
def shown(pytestconfig: pytest.Config) -> Demo:
    process = pytestconfig.stash[STARTED]
    screen, errors = process.communicate()
    return Demo(process.returncode, screen, errors, pytestconfig.rootpath / ".demo" / "tests")


@pytest.fixture(scope="session")
def runs(shown: Demo) -> dict[tuple[int, str], Run]:
    assert shown.exit_code == 0, shown.errors
    return shown.runs()
