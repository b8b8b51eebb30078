"""The command line, as a process of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

COMMAND = [sys.executable, "-m", "seawall.dashboard"]
PROGRAM = """
import sys
import seawall
kept = seawall.CircuitBreaker(name="of the program")
print(__name__, *sys.argv[1:], flush=True)
sys.stdin.readline()
raise SystemExit(3)
"""


@contextmanager
def running(*arguments: str, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command once it serves, and where."""
    process = subprocess.Popen(
        [*COMMAND, "--port", "0", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )
    try:
        assert process.stderr is not None
        told = process.stderr.readline()
        found = re.fullmatch(r"seawall: dashboard at (http://\S+)\n", told)
        assert found, told
        yield process, found[1]
    finally:
        process.kill()
        process.communicate()


def state(url: str, **headers: str) -> Any:
    return json.load(urllib.request.urlopen(urllib.request.Request(f"{url}/api/state", headers=headers), timeout=30))


@pytest.mark.parametrize("how", ["file", "module"])
def test_a_program_runs_with_the_dashboard_on(tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "program.py").write_text(PROGRAM)
    monkeypatch.chdir(tmp_path)
    asked = ["program.py"] if how == "file" else ["-m", "program"]
    with running(*asked, "--an", "argument") as (process, url):
        assert process.stdout.readline() == "__main__ --an argument\n"
        told = state(url)
        assert told["process"]["title"] == asked[-1]
        assert [breaker["name"] for breaker in told["breakers"]] == ["of the program"]
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.wait(30) == 3
        assert process.stderr.read() == ""


def test_the_page_can_outlast_the_program(tmp_path: Path):
    program = tmp_path / "short.py"
    program.write_text("print('over', flush=True)")
    with running("--keep", str(program)) as (process, url):
        assert process.stderr.readline() == "seawall: Ctrl-C ends it\n"
        assert state(url)["process"]["title"] == "short.py"
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0


def test_a_program_that_fails_fails_as_it_would(tmp_path: Path):
    program = tmp_path / "broken.py"
    program.write_text("raise ValueError('of its own')")
    with running(str(program)) as (process, _):
        assert process.wait(30) == 1
        assert "ValueError: of its own" in process.stderr.read()


def test_the_demo_shows_traffic_and_ends_when_told(until):
    with running("--demo") as (process, url):
        assert process.stderr.readline() == "seawall: Ctrl-C ends it\n"
        names = {"gpt-4o", "gpt-4o-mini", "text-embedding-3-small", "prices"}
        assert names <= {breaker["name"] for breaker in state(url)["breakers"]}
        until(lambda: {row["pipeline"] for row in state(url)["series"]} == names - {"gpt-4o-mini"}, "its traffic")
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def test_from_other_machines_it_asks_for_the_token_of_the_environment():
    token = "a-token-that-nobody-guesses"
    with running("--demo", "--host", "0.0.0.0", SEAWALL_DASHBOARD_TOKEN=token) as (_, url):
        place, _, told = url.partition("/?token=")
        assert told == token
        assert state(place, authorization=f"Bearer {token}")["process"]["title"] == "demo"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "a program to run, or --demo"),
        (["--demo", "program.py"], "a program to run, or --demo"),
        (["no-such-file.py"], "no file 'no-such-file.py'"),
        (["--port", "99999", "--demo"], "port must be"),
        (["--host", "192.0.2.1", "--demo"], "192.0.2.1"),
    ],
)
def test_what_cannot_be_meant_is_told(arguments, said):
    ended = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr
