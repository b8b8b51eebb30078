"""How far a batch is, told in each way that there is."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios

import nbclient
import nbformat
import pytest
from _canary import CANARY

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


def in_a_terminal(program: str) -> list[str]:
    """What a program draws on stderr, frame by frame, without colours."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    ended = subprocess.run(
        [sys.executable, "-c", program],
        check=True,
        stdout=subprocess.PIPE,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm"},
    )
    os.close(theirs)
    drawn = b""
    with contextlib.suppress(OSError):  # at its end, where nobody has the other side any more
        while read := os.read(ours, 1 << 16):
            drawn += read
    os.close(ours)
    assert ended.stdout == b""
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", drawn.decode())
    return [frame.rstrip() for frame in re.split(r"[\r\n]+", plain) if frame.strip()]


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such terminals")
@pytest.mark.parametrize(
    ("progress", "inputs", "last"),
    [
        ("True", "['a'] * 20", r"━+ 20/20 2 failed 0:00:0\d 0:00:00"),
        ("'rich'", "(c for c in 'abcde')", r"━+ 5/\? 2 failed 0:00:0\d"),
        ("'tqdm'", "['a'] * 20", r"100%\|█+\| 20/20 \[00:0\d<00:00, .*inputs/s, failed=2\]"),
        ("'tqdm'", "(c for c in 'abcde')", r"5 inputs \[00:0\d, .*inputs/s, failed=2\]"),
        ("'lines'", "['a'] * 20", r"seawall: 20/20 done, 2 failed, \d s"),
    ],
)
def test_in_a_terminal_it_is_drawn(sim: Simulator, progress: str, inputs: str, last: str) -> None:
    sim.on("m", faults.status(400), times=2)
    program = (
        f"import seawall.llm; chat = seawall.llm.Chat('m', api_key={CANARY!r}, base_url={sim.base_url!r})\n"
        f"list(chat.batch_as_completed({inputs}, progress={progress}, return_exceptions=True))"
    )
    frames = in_a_terminal(program)
    assert re.fullmatch(last, frames[-1]), frames
    # Each is drawn over the one before it, and nothing else is said.
    assert all(re.match(r"━|\s*\d+%\||\d+ inputs|seawall: ", frame) for frame in frames), frames


NOTEBOOK = """
from seawall.llm import Chat
chat = Chat("m", api_key={key!r}, base_url={place!r})
replies = await chat.abatch(["a"] * 20, progress=True, return_exceptions=True)
"""


def test_in_a_notebook_it_is_drawn_and_nothing_else_is_said(sim: Simulator) -> None:
    # Without ipywidgets, which the environment of the tests does not have: tqdm warns of that as it is imported.
    sim.on("m", faults.status(400), times=2)
    cell = nbformat.v4.new_code_cell(NOTEBOOK.format(key=CANARY, place=sim.base_url))
    nbclient.NotebookClient(nbformat.v4.new_notebook(cells=[cell]), timeout=60).execute()
    assert {output.name for output in cell.outputs} == {"stderr"}
    said = "".join(output.text for output in cell.outputs)
    frames = [frame for frame in re.split(r"[\r\n]+", said) if frame]
    assert all(re.match(r"\s*\d+%\|", frame) for frame in frames), frames
    assert "20/20" in frames[-1] and "failed=2" in frames[-1]


@pytest.mark.parametrize("wrong", ["yes", 5, []])
def test_what_shows_nothing_is_refused(wrong: object) -> None:
    with pytest.raises(errors.ConfigurationTypeError, match="progress must be True, False, "):
        _progress.checked(wrong)


def test_what_is_not_installed_is_said_before_anything_is_sent(sim: Simulator, chat, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(errors.ConfigurationError, match="progress='tqdm' needs tqdm: pip install tqdm"):
        chat().batch(["a"], progress="tqdm")
    assert sim.count() == 0
