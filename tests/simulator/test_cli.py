"""The command line, as a process of its own."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import openai
import pytest

COMMAND = [sys.executable, "-m", "seawall.simulator"]
SCRIPT = """
models = ["m", "n"]
api_keys = ["sk-of-the-script"]

[[rule]]
models = "m"
fault = { name = "status", code = 503 }
times = 1
"""


def ended(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=60, check=False)


@contextmanager
def running(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    """The command once it listens, and what it says is to be exported."""
    process = subprocess.Popen([*COMMAND, "--port", "0", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        told: dict[str, str] = {}
        assert process.stdout is not None
        for line in process.stdout:
            told |= dict(re.findall(r"(\w+)=(\S+)", line))
            if line == "Ctrl-C ends it.\n":
                break
        yield process, told
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def script(tmp_path: Path) -> str:
    path = tmp_path / "outage.toml"
    path.write_text(SCRIPT)
    return str(path)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_it_answers_logs_and_ends_with_a_summary(script, how):
    with running("--script", script, "--log") as (process, told):
        assert told["OPENAI_API_KEY"] == told["ANTHROPIC_API_KEY"] == "sk-of-the-script"
        assert told["OPENAI_BASE_URL"] == told["ANTHROPIC_BASE_URL"] + "/v1"
        with openai.OpenAI(base_url=told["OPENAI_BASE_URL"], api_key=told["OPENAI_API_KEY"], max_retries=1) as client:
            answer = client.chat.completions.create(model="m", messages=[{"role": "user", "content": "a secret"}])
            assert answer.model == "m"
            with pytest.raises(openai.NotFoundError):
                client.chat.completions.create(model="x", messages=[{"role": "user", "content": "a secret"}])
        process.send_signal(how)
        output, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")
    lines = output.splitlines()
    for line, words in zip(lines, (" 503 .* m  status 503 ", " 200 .* m  ok ", " 404 .* x  refused 404 "), strict=False):
        assert re.search(words, line) and re.search(r"^ *\d+\.\d{3} s .* ms .*/v1/chat/completions$", line), line
    assert lines[3:] == ["3 requests:", "  m       1  ok", "  m       1  status 503", "  x       1  refused 404"]
    assert "secret" not in output


def test_it_runs_without_a_script_and_without_a_log():
    with running("--model", "a", "--model", "b", "--no-key", "--seed", "7") as (process, told):
        with openai.OpenAI(base_url=told["OPENAI_BASE_URL"], api_key="any", max_retries=0) as client:
            assert [model.id for model in client.models.list()] == ["a", "b"]
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=60)[0].splitlines() == ["1 request:", "  -       1  ok"]


def test_a_script_can_be_checked_alone(script, tmp_path):
    checked = ended("--check", "--script", script)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, f"{script}: 1 rule\n", "")
    wrong = tmp_path / "wrong.toml"
    wrong.write_text("[[rule]]\nfault = { name = 'status', code = 9 }\n")
    checked = ended("--check", "--script", str(wrong))
    assert (checked.returncode, checked.stdout) == (2, "")
    assert checked.stderr == f"{wrong}:2:28: [[rule]] fault: code must be an HTTP status from 200 to 599, not 9\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--check"], "--check needs --script"),
        (["--port", "x"], "argument --port: invalid int value: 'x'"),
        (["--port", "70000"], "port must be at most 65535, not 70000"),
        (["--seed", "-1"], "seed must be a whole number from 0 on, not -1"),
        (["--nothing"], "unrecognized arguments: --nothing"),
        (["--script", "/nowhere/at/all.toml"], "No such file or directory: '/nowhere/at/all.toml'"),
    ],
    ids=str,
)
def test_what_cannot_be_meant_ends_with_2_and_says_why(arguments, words):
    refused = ended(*arguments)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert words in refused.stderr and "Traceback" not in refused.stderr


def test_a_port_that_is_taken_is_named(sim):
    port = sim.origin.rsplit(":", 1)[1]
    refused = ended("--port", port)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith(f"the simulator cannot listen at 127.0.0.1:{port}: ") and "Traceback" not in refused.stderr
