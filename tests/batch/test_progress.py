"""How far a batch is, told in each way that there is."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest

from seawall import _progress, errors
from seawall.simulator import Simulator, faults


def test_a_function_is_told(sim: Simulator, chat) -> None:
    sim.on("m", faults.status(400), times=1)
    told: list[tuple[int, int | None, int]] = []
    chat().batch(["a"] * 20, progress=lambda *how_far: told.append(how_far), return_exceptions=True)
    assert told[-1] == (20, 20, 1)
    assert told == sorted(told)
    told.clear()
    list(chat().batch_as_completed(iter(["a"] * 5), progress=lambda *how_far: told.append(how_far)))
    assert told[-1] == (5, None, 0)


def test_one_that_raises_ends_nothing(sim: Simulator, chat, caplog: pytest.LogCaptureFixture) -> None:
    calls = []

    def wrong(*how_far: object) -> None:
        calls.append(how_far)
        raise ValueError("no screen")

    assert len(chat().batch(["a"] * 20, progress=wrong, max_concurrency=1)) == 20
    assert len(calls) == 1
    assert "is not told any more" in caplog.text


def test_one_that_is_interrupted_is(sim: Simulator, chat) -> None:
    def interrupts(*how_far: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        chat().batch(["a"] * 20, progress=interrupts)


def test_where_nobody_draws_there_are_lines_on_stderr(sim: Simulator, chat, capsys: pytest.CaptureFixture[str]) -> None:
    sim.on("m", faults.status(400), times=1)
    chat().batch(["a"] * 20, progress=True, return_exceptions=True)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == "seawall: 20/20 done, 1 failed, 0 s\n"


def test_without_stderr_nothing_is_shown(sim: Simulator, chat, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    assert len(chat().batch(["a"], progress=True)) == 1


def test_nothing_of_others_is_loaded_unless_it_is_asked_for(sim: Simulator) -> None:
    program = (
        f"import sys, seawall.llm; seawall.llm.Chat('m', api_key='k', base_url={sim.base_url!r}).batch(['a'], patience=5)\n"
        "assert not {'rich', 'tqdm', 'IPython'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such terminals")
def test_in_a_terminal_it_is_drawn(sim: Simulator) -> None:
    ours, theirs = pty.openpty()
    program = (
        f"import seawall.llm; seawall.llm.Chat('m', api_key='k', base_url={sim.base_url!r}).batch(['a'] * 20, progress=True)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], check=True, stdout=subprocess.PIPE, stderr=theirs, env={**os.environ, "TERM": "xterm"}
    )
    os.close(theirs)
    drawn = os.read(ours, 1 << 16).decode()
    os.close(ours)
    assert "20/20" in drawn
    assert ended.stdout == b""


def test_each_way_of_drawing_shows_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    for bar in (_progress._rich(10), _progress._tqdm(10), _progress._Lines(10)):
        if bar is None:  # it is not installed
            continue
        for done in range(11):
            bar.show(done, done // 5)
        bar.close()
        said = capsys.readouterr()
        assert "10/10" in said.err
        assert said.out == ""


@pytest.mark.parametrize("wrong", ["yes", 5, []])
def test_what_shows_nothing_is_refused(wrong: object) -> None:
    with pytest.raises(errors.ConfigurationTypeError, match="progress must be True, False or a function"):
        _progress.checked(wrong)
