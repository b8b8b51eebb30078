"""`monitor.live()`: in place in a terminal, a line elsewhere, and never in the way of the work."""

from __future__ import annotations

import io
import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from _things import HOSTILE, watched
from seawall import Monitor, _live
from seawall._live import Live, fitted, line
from seawall.errors import ConfigurationError

CLEARED = "\r\x1b[K"


class Terminal(io.StringIO):
    """A stream that says it is a terminal; and tells when so many frames have been drawn."""

    encoding = "utf-8"  # type: ignore[assignment]

    def __init__(self, *, broken: bool = False) -> None:
        super().__init__()
        self.broken, self.frames, self.drawn = broken, 0, threading.Semaphore(0)

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self.drawn.release()
        self.frames += 1
        if self.broken:
            raise OSError("the terminal is gone")
        return super().write(text)

    def wait(self, frames: int) -> None:
        for _ in range(frames):
            assert self.drawn.acquire(timeout=20)

    def lines(self) -> list[str]:
        return [frame for frame in self.getvalue().split(CLEARED) if frame]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    made = Terminal()
    # Not sys.stderr itself, which pytest sets anew before the test.
    monkeypatch.setattr(_live, "sys", SimpleNamespace(stderr=made, modules=sys.modules))
    monkeypatch.setenv("TERM", "xterm")
    return made


def run(program: str) -> tuple[int, str, str]:
    program = "import os, seawall, signal, sys, threading\n" + textwrap.dedent(program)
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False, timeout=60)
    # Not as text, where a return to the line's beginning would be a new line.
    return ended.returncode, ended.stdout.decode(), ended.stderr.decode()


def test_a_terminal_is_brought_up_to_date_in_place(terminal: Terminal):
    monitor = Monitor(name="answers")
    with monitor.live(0.05) as live:
        assert live.running and isinstance(live, Live)
        terminal.wait(1)
        monitor.record(True, latency=0.2)
        terminal.wait(3)
    lines = terminal.lines()
    assert lines[0] == "● normal answers: no calls yet"
    assert lines[-1].startswith("● normal answers: 1 call, errors 0 %, retried 0 %, median 199 ms") and lines[-1].endswith("\n")
    assert terminal.getvalue().count("\n") == 1 and len(lines) >= 4
    assert not live.running


def test_it_ends_by_stop_and_only_once(terminal: Terminal):
    live = watched("answers", calls=3).live(timedelta(seconds=0.05))
    terminal.wait(3)
    live.stop()
    frames = terminal.frames
    live.stop()
    assert terminal.frames == frames and not live.running
    assert not [thread for thread in threading.enumerate() if thread.name == "seawall-live"]


def test_what_the_block_raises_goes_on_its_way(terminal: Terminal):
    monitor = Monitor()
    for error in (ValueError(), KeyboardInterrupt(), SystemExit()):
        with pytest.raises(type(error)) as caught, monitor.live():
            raise error
        assert caught.value is error
    assert terminal.getvalue().count("\n") == 3


def test_a_second_display_of_a_monitor_ends_the_first(terminal: Terminal):
    monitor = Monitor()
    first = monitor.live()
    second = monitor.live()
    assert second.running and not first.running
    with Monitor().live() as other:
        assert other.running and second.running
    second.stop()
    assert not _live._running


def test_elsewhere_it_is_one_line_at_the_end(capsys: pytest.CaptureFixture[str]):
    monitor = watched("answers", failing=12)
    with monitor.live(0.05) as live:
        assert live._thread is None
        assert capsys.readouterr() == ("", "")
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("■ emergency answers: 12 calls, errors 100 %") and err.count("\n") == 1


def test_a_display_that_fails_is_given_up_and_said_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    terminal = Terminal(broken=True)
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monitor = Monitor()
    with caplog.at_level(logging.WARNING, "seawall.monitor"), monitor.live(0.05) as live:
        terminal.wait(3)
        assert live._thread is not None
        live._thread.join(20)
        assert not live._thread.is_alive()
        monitor.record(True)
    assert [record.getMessage() for record in caplog.records] == ["monitor.live() is given up: it cannot be displayed (OSError)"]
    assert terminal.frames == 3


def test_without_a_stream_it_shows_nothing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "stderr", None)
    with Monitor().live() as live:
        assert live.running


def test_a_dumb_terminal_is_not_written_over(terminal: Terminal, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TERM", "dumb")
    with Monitor().live():
        pass
    assert terminal.getvalue() == "● normal: no calls yet\n"


def test_letters_that_a_terminal_does_not_know_are_left_out(terminal: Terminal):
    terminal.encoding = "latin-1"  # type: ignore[assignment]
    with watched("answers", calls=2).live():
        pass
    assert terminal.getvalue().isascii() and "normal answers: 2 calls" in terminal.getvalue()


def test_a_line_fits_and_holds_no_control_characters():
    assert fitted("答案abc", 5) == "答案a" and fitted("答案abc", 3) == "答"
    assert fitted("a\u0301bc", 2) == "a\u0301b"
    assert fitted("a\x1b[2J\nb", 20) == "a�[2J�b"
    said = line(watched(HOSTILE, calls=9))
    assert HOSTILE in said and "\x1b" not in fitted(said, 500)


def test_a_frame_is_no_wider_than_the_terminal(terminal: Terminal):
    with watched("a name that is longer than any terminal is wide, " * 3, calls=20).live():
        pass
    assert [len(frame.rstrip("\n")) for frame in terminal.lines()] == [79, 79]


def test_the_line_tells_the_last_calls():
    monitor = Monitor()
    for latency in (0.1, 0.4, 0.8):
        monitor.record(True, latency=latency)
    monitor.record(False, latency=0.1)
    assert line(monitor).endswith("  ▂▅█x")
    over_a_time = Monitor(window=60.0)
    over_a_time.record(True, latency=0.1)
    assert line(over_a_time).endswith("95 % 99 ms") or line(over_a_time).endswith("95 % 100 ms")


@pytest.mark.parametrize("refresh", [0, 0.01, -1, float("nan"), float("inf"), "soon", True])
def test_a_refresh_that_is_none_is_refused(refresh: Any):
    with pytest.raises(ConfigurationError, match="refresh"):
        Monitor().live(refresh)
    assert not _live._running


def test_its_repr_says_how_to_end_it():
    live = Monitor(name="x").live(2)
    assert repr(live) == "<live display of Monitor 'x', every 2 s until stop()>"
    live.stop()
    assert repr(live) == "<live display of Monitor 'x', ended>"


def test_a_real_terminal(tmp_path: Any):
    program = """
        import seawall, sys
        monitor = seawall.Monitor(name="答案")
        with monitor.live(0.05):
            monitor.record(True, latency=0.5)
    """
    outside, inside = pytest.importorskip("pty").openpty()
    environment = {**os.environ, "TERM": "xterm", "PYTHONIOENCODING": "utf-8"}
    child = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], stderr=inside, stdout=inside, env=environment)
    os.close(inside)
    seen = b""
    while True:
        try:
            more = os.read(outside, 65536)
        except OSError:  # Linux's way to say that nobody is at the other end
            break
        if not more:
            break
        seen += more
    os.close(outside)
    assert child.wait(30) == 0
    shown = seen.decode()
    assert shown.startswith(f"{CLEARED}● normal 答案: no calls yet{CLEARED}") and "1 call" in shown and shown.endswith("\n")


def test_one_that_nobody_ends_ends_with_the_process():
    assert run("live = seawall.Monitor(name='x').live()") == (0, "", "● normal x: no calls yet\n")


def test_ctrl_c_ends_the_work_and_the_display():
    code, _, shown = run("""
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with seawall.Monitor(name="x").live():
            os.kill(os.getpid(), signal.SIGINT)
            threading.Event().wait(30)
    """)
    assert code in {1, -signal.SIGINT, 130}
    assert "x: no calls yet\n" in shown and "KeyboardInterrupt" in shown


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_process_shows_nothing(forking: str):
    program = """
        sys.stderr.isatty = lambda: True
        os.environ["TERM"] = "xterm"
        monitor = seawall.Monitor(name="x")
        with monitor.live(0.05) as live:
            def work():
                assert not live.running
                monitor.record(True)
                live.stop()
            code = forked(work)
            again = forked(lambda: monitor.live(0.05).stop())
        print(code, again)
    """
    code, told, shown = run(textwrap.dedent(forking) + textwrap.dedent(program))
    assert (code, told) == (0, "0 0\n"), shown
    # One last line of the parent's, and one of the display that the second child made.
    assert shown.count("no calls yet\n") == shown.count("\n") == 2, shown


def test_a_burst_of_work_loses_nothing_beside_it(terminal: Terminal):
    monitor = Monitor(1000)
    with monitor.live(0.05):
        workers = [threading.Thread(target=lambda: [monitor.record(True) for _ in range(5000)]) for _ in range(4)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    assert monitor.snapshot()["lifetime"]["total"] == 20_000
    assert "20,000 calls" in terminal.lines()[-1]
