"""`python -m seawall.batch`: what it takes, what it writes, how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from _canary import CANARY

from seawall import batch, journal
from seawall.simulator import Simulator, faults


@pytest.fixture
def run(sim: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> Callable[..., tuple[int, str]]:
    """Runs the command in the test's folder; its exit code and what it said."""
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    monkeypatch.setenv("OPENAI_BASE_URL", sim.base_url)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str]:
        try:
            code = batch.main(arguments)
        except SystemExit as ended:
            code = int(ended.code or 0)
        said = capsys.readouterr()
        assert said.out == ""
        return code, said.err

    return run


def write(name: str, *lines: Any) -> None:
    Path(name).write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines), encoding="utf-8")


def rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(name).read_text(encoding="utf-8").splitlines()]


def test_every_kind_of_line_is_asked_and_answered_in_order(sim: Simulator, run) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "three"}], "max_tokens": 7}
    write(
        "in.jsonl",
        '"one"',
        {"prompt": "two", "temperature": 0.5},
        {"custom_id": "c", "method": "POST", "url": "/v1/chat/completions", "body": body},
        "",
        {"custom_id": "d", "messages": [{"role": "user", "content": "four ✓"}]},
    )
    code, said = run("in.jsonl", "out.jsonl", "--model", "m")
    assert code == 0, said
    assert said.endswith("4 lines answered, 0 failed\n")
    out = rows("out.jsonl")
    assert [row["custom_id"] for row in out] == ["line-1", "line-2", "c", "d"]
    texts = [row["response"]["body"]["choices"][0]["message"]["content"] for row in out]
    assert [text.split()[1] for text in texts] == ["one", "two", "three", "four"]
    assert all(row["error"] is None and row["response"]["status_code"] == 200 for row in out)
    asked = {request.body["messages"][0]["content"]: request.body for request in sim.requests}
    assert (asked["two"]["temperature"], asked["three"]["max_tokens"]) == (0.5, 7)
    assert "temperature" not in asked["one"]
    assert sorted(path.name for path in Path().iterdir()) == ["in.jsonl", "out.jsonl", "out.jsonl.db"]


def test_failures_are_in_their_places_and_are_asked_for_again(sim: Simulator, run) -> None:
    write("in.jsonl", '"one"', '"two"', '"three"')
    sim.on("m", faults.context_window(), times=1, after=1)
    arguments = ("in.jsonl", "out.jsonl", "--model", "m", "--max-concurrency", "1", "--quiet")
    code, said = run(*arguments)
    assert (code, said) == (1, "2 lines answered, 1 failed, which are in out.jsonl\n")
    out = rows("out.jsonl")
    assert [row["response"] is None for row in out] == [False, True, False]
    assert out[1]["error"]["code"] == "ContextWindowExceededError"
    assert out[1]["error"]["status_code"] == 400
    assert sim.count() == 3
    assert run(*arguments, "--no-retry-failures")[0] == 1
    assert sim.count() == 3
    assert run(*arguments) == (0, "3 lines answered, 0 failed\n")
    assert sim.count() == 4
    assert [row["error"] for row in rows("out.jsonl")] == [None, None, None]


def test_errors_go_to_a_file_of_their_own(sim: Simulator, run) -> None:
    write("in.jsonl", '"one"', '"two"')
    sim.on("m", faults.status(400), times=1)
    code, _ = run("in.jsonl", "out.jsonl", "--model", "m", "--max-concurrency", "1", "--errors", "bad.jsonl")
    assert code == 1
    assert [row["custom_id"] for row in rows("out.jsonl")] == ["line-2"]
    assert [row["custom_id"] for row in rows("bad.jsonl")] == ["line-1"]


WRONG = {
    "no JSON": ("{", "no JSON"),
    "a number": ("5", "an object or a string, not a number"),
    "nothing asked": ({"temperature": 1}, "needs prompt, messages, or a body"),
    "both": ({"prompt": "a", "messages": []}, "not both"),
    "no message": ({"messages": []}, "empty list of messages"),
    "no role": ({"messages": [{"content": "x"}]}, "has no role"),
    "a prompt that is none": ({"prompt": 5}, "prompt must be a string, not a number"),
    "another url": (
        {"custom_id": "a", "method": "POST", "url": "/v1/embeddings", "body": {}},
        "url must be /v1/chat/completions",
    ),
    "another method": ({"method": "GET", "body": {}}, "method must be POST"),
    "a body without messages": ({"body": {"model": "m"}}, "body has no messages"),
    "a stream": ({"prompt": "a", "stream": True}, "stream is not for batches"),
    "an argument of the model": ({"prompt": "a", "timeout": 5}, "timeout"),
    "an id that is none": ({"custom_id": 5, "prompt": "a"}, "custom_id must be a string"),
    "another model": ({"prompt": "a", "model": "other"}, "make a batch for each model"),
    "half a character": ('"\\ud800"', "lone surrogate"),
    "an id twice": ({"custom_id": "line-1", "prompt": "a"}, "is that of line 1 too"),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("check", [True, False], ids=["check", "run"])
def test_a_line_that_cannot_be_sent_is_told_before_anything_is_spent(sim: Simulator, run, wrong, check: bool) -> None:
    line, what = wrong
    write("in.jsonl", '"one"', line, '"three"')
    code, said = run("in.jsonl", "out.jsonl", "--model", "m", *(["--check"] if check else []))
    assert code == 2
    assert said.startswith("in.jsonl:2: ")
    assert what in said
    assert sim.count() == 0
    assert not Path("out.jsonl").exists() and not Path("out.jsonl.db").exists()


def test_bytes_that_are_no_text_are_told(run) -> None:
    Path("in.jsonl").write_bytes(b'"one"\n"\xff"\n')
    assert run("in.jsonl", "out.jsonl", "--model", "m") == (2, "in.jsonl:2: no UTF-8: invalid start byte at byte 1\n")


def test_check_sends_nothing(sim: Simulator, run) -> None:
    write("in.jsonl", '"one"', '"two"')
    assert run("in.jsonl", "--check") == (0, "in.jsonl: 2 lines, all of which can be sent\n")
    assert sim.count() == 0


USAGE = {
    "no output": (["in.jsonl", "--model", "m"], "OUT is missing"),
    "no model": (["in.jsonl", "out.jsonl"], "no model: give --model"),
    "no such file": (["none.jsonl", "out.jsonl", "--model", "m"], "none.jsonl: No such file"),
    "the same file": (["in.jsonl", "in.jsonl", "--model", "m"], "a file each"),
    "no directory": (["in.jsonl", "none/out.jsonl", "--model", "m"], "directory of none/out.jsonl is not there"),
    "a name alone": (["in.jsonl", "out.jsonl", "--name", "m"], "go together"),
    "two ways to say a model": (["in.jsonl", "out.jsonl", "--config", "c", "--name", "m", "--rpm", "5"], "without --config"),
    "no concurrency": (["in.jsonl", "out.jsonl", "--model", "m", "--max-concurrency", "0"], "max_concurrency"),
    "no patience": (["in.jsonl", "out.jsonl", "--model", "m", "--patience", "0"], "patience must be"),
    "a journal that is none": (["in.jsonl", "out.jsonl", "--model", "m", "--journal", "in.txt"], "is no SQLite file"),
}


@pytest.mark.parametrize("wrong", USAGE.values(), ids=USAGE)
def test_what_cannot_begin_ends_with_2(sim: Simulator, run, wrong) -> None:
    arguments, what = wrong
    write("in.jsonl", '"one"')
    write(
        "in.txt", "a text that is as long as the head of a database and longer than that by far, it is hoped, to be sure. " * 20
    )
    code, said = run(*arguments)
    assert code == 2, said
    assert what in said
    assert sim.count() == 0


def test_a_key_that_nobody_takes_ends_it_after_a_few_requests(sim: Simulator, run) -> None:
    write("in.jsonl", *(f'"q{n}"' for n in range(200)))
    sim.on("m", faults.status(401))
    code, said = run("in.jsonl", "out.jsonl", "--model", "m", "--max-concurrency", "4", "--quiet")
    assert code == 1
    assert "AuthenticationError" in said and "goes on from there" in said and "sk-a-test" not in said
    assert sim.count() <= 8
    assert not Path("out.jsonl").exists()
    sim.clear()
    assert run("in.jsonl", "out.jsonl", "--model", "m", "--quiet")[0] == 0


def test_a_model_of_a_configuration_file(sim: Simulator, run) -> None:
    Path("seawall.toml").write_text(f'[models.small]\nmodel = "m"\nbase_url = "{sim.base_url}"\nparams = {{ temperature = 0 }}\n')
    write("in.jsonl", '"one"')
    code, said = run("in.jsonl", "out.jsonl", "--config", "seawall.toml", "--name", "small", "--quiet")
    assert code == 0, said
    assert sim.requests[0].body["temperature"] == 0
    assert "describes no model 'large'" in run("in.jsonl", "out.jsonl", "--config", "seawall.toml", "--name", "large")[1]


def begun(sim: Simulator, folder: Path) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-m",
        "seawall.batch",
        "in.jsonl",
        "out.jsonl",
        "--model",
        "m",
        "--max-concurrency",
        "4",
        "--quiet",
    ]
    environment = {**os.environ, "OPENAI_API_KEY": CANARY, "OPENAI_BASE_URL": sim.base_url}
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "kill -9"])
def test_broken_off_it_leaves_no_half_file_and_goes_on(sim: Simulator, tmp_path: Path, how: signal.Signals) -> None:
    lines = [f'"q{n}"\n' for n in range(20)]
    Path(tmp_path, "in.jsonl").write_text("".join(lines))
    # Ten are answered, four are not, and the others wait for these.
    sim.on("m", faults.hang(), after=10)
    first = begun(sim, tmp_path)
    sim.wait_for(14, 60)
    first.send_signal(how)
    _, said = first.communicate(timeout=60)
    if how == signal.SIGINT:
        assert first.returncode == 130
        assert "10 of 20 inputs are answered and in out.jsonl.db; the same call goes on from there" in said
    assert sorted(path.name for path in tmp_path.iterdir() if "-" not in path.name) == ["in.jsonl", "out.jsonl.db"]
    with journal.open(tmp_path / "out.jsonl.db") as written:
        assert written.counts == (10, 0)
    sim.clear()
    second = begun(sim, tmp_path)
    second.communicate(timeout=60)
    assert second.returncode == 0
    assert sim.count() == 14 + 10
    assert len(rows(str(tmp_path / "out.jsonl"))) == 20
