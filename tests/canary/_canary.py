"""The key that this run's tests use, and whoever looks for it in everything that the run writes.

Looked through: what tests print and log and how they fail, their warnings, what the programs print that they start and wait for, what
they pickle, and at the end every file under their temporary folders and every one in the project that was written meanwhile.
"""

from __future__ import annotations

import base64
import os
import pickle
import secrets
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

CANARY = f"sk-canary-{secrets.token_hex(20)}"
# Others' files, and what is built of ours.
_NOT_OURS = {".git", "target", "node_modules", "__pycache__", ".mypy_cache", ".ruff_cache"}


def _forms(key: str) -> list[bytes]:
    """The key as it may be written: as it is, and in base64 wherever it begins in what is encoded."""
    forms = [key.encode(), key.encode("utf-16-le"), key.encode().hex().encode()]
    for before in range(3):
        encoded = base64.b64encode(bytes(before) + key.encode())
        forms.append(encoded[(before * 8 + 5) // 6 : (before + len(key)) * 8 // 6])
    return forms


class Canary:
    """Finds the key, names who wrote it, and has the run fail."""

    def __init__(self, root: Path) -> None:
        self.root, self.begun, self.test = root, time.time(), "before the first test"
        self.forms = _forms(CANARY)
        self.found: dict[str, None] = {}
        self.seconds = 0.0

    def look(self, where: str, what: Any) -> None:
        written = what if isinstance(what, bytes) else str(what or "").encode(errors="replace")
        if any(form in written for form in self.forms):
            self.found[where] = None

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.test = nodeid

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.look(f"{report.nodeid}: how it failed", report.longrepr)
        for name, text in report.sections:
            self.look(f"{report.nodeid}: {name}", text)

    def pytest_warning_recorded(self, warning_message: Any, nodeid: str) -> None:
        self.look(f"{nodeid}: a warning", warning_message.message)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        begun = time.perf_counter()
        temporary = getattr(session.config, "_tmp_path_factory").getbasetemp()  # noqa: B009  it has no public name
        for path in [*_files(temporary, 0), *_files(self.root, self.begun)]:
            try:
                self.look(f"the file {path}", path.read_bytes())
            except OSError:
                continue  # it went meanwhile
        self.seconds = time.perf_counter() - begun
        if self.found:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        if self.found:
            terminalreporter.section("the key of this run was written", red=True, bold=True)
            for where in self.found:
                terminalreporter.line(where)

    def watch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Looks at what programs say that tests wait for, and at what tests pickle."""
        communicate, dumps = subprocess.Popen.communicate, pickle.dumps

        def communicated(process: Any, *args: Any, **kwargs: Any) -> Any:
            said = communicate(process, *args, **kwargs)
            for text in said:
                self.look(f"{self.test}: what a program printed", text)
            return said

        def dumped(*args: Any, **kwargs: Any) -> bytes:
            pickled = dumps(*args, **kwargs)
            self.look(f"{self.test}: a pickle", pickled)
            return pickled

        monkeypatch.setattr(subprocess.Popen, "communicate", communicated)
        monkeypatch.setattr(pickle, "dumps", dumped)


def _files(folder: Path, since: float) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        folders[:] = [each for each in folders if each not in _NOT_OURS and not each.startswith(".venv")]
        for name in names:
            path = Path(place, name)
            try:
                if path.is_file() and path.stat().st_mtime >= since:
                    yield path
            except OSError:
                continue


def watched(config: pytest.Config) -> None:
    """Has the run that begins here looked through."""
    canary, patched = Canary(config.rootpath), pytest.MonkeyPatch()
    canary.watch(patched)
    config.add_cleanup(patched.undo)
    config.pluginmanager.register(canary, "seawall-canary")


__all__ = ["CANARY", "watched"]
