"""`monitor.live()`: a display of a monitor that is brought up to date in place. Loaded when first used.

It only looks, on a thread of its own: whatever becomes of the display, the work that is watched goes on as without it.
"""

from __future__ import annotations

import atexit
import importlib
import logging
import os
import sys
import threading
import time
import unicodedata
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from seawall import _word
from seawall._in_words import LEVELS, plural, printable, share, span
from seawall.errors import ConfigurationError

if TYPE_CHECKING:
    from typing_extensions import Self

    from seawall._seawall import Monitor

logger = logging.getLogger("seawall.monitor")

# Faster than that nobody reads.
_LEAST = 0.05
# After so many failures in a row the display is given up.
_TRIES = 3
# How long the end waits for a display that is stuck, as in a terminal that is paused.
_PATIENCE = 1.0
# How many of the last calls a line shows.
_LAST = 24
_BLOCKS = "▁▂▃▄▅▆▇█"
_MARKS = {"good": "●", "fair": "▲", "bad": "■", "still": "○", "plain": "●"}

# One for each monitor: a cell that is run again takes over from its former run.
_running: dict[int, Live] = {}


def _spark(monitor: Monitor) -> str:
    calls = [(ok, seconds) for ok, seconds, *_ in monitor._recent(_LAST)]
    longest = max((seconds for _, seconds in calls), default=0.0) or 1.0
    return "".join(_BLOCKS[min(7, int(8 * seconds / longest))] if ok else "x" for ok, seconds in calls)


def line(monitor: Monitor, *, plain: bool = False) -> str:
    """How things are, in a line; `plain` for terminals that know ASCII only."""
    now = monitor.snapshot()
    level = now["level"]
    head = level if plain else f"{_MARKS[LEVELS.get(level, 'plain')]} {level}"
    name = "" if monitor.name is None else f" {monitor.name}"
    if not now["total"]:
        return f"{head}{name}: no calls yet"
    facts = [
        plural(now["lifetime"]["total"], "call"),
        f"errors {share(now['error_rate'])}",
        f"retried {share(now['retry_rate'])}",
    ]
    facts += [f"median {span(now['p50'])}", f"95 % {span(now['p95'])}"]
    if now["consecutive_failures"] > 1:
        facts.append(f"{plural(now['consecutive_failures'], 'failure')} in a row")
    return f"{head}{name}: {', '.join(facts)}" + ("" if plain else f"  {_spark(monitor)}").rstrip()


def fitted(said: str, width: int) -> str:
    """The text, one line without control characters, in so many columns."""
    used, kept = 0, []
    for shown in printable(said):
        columns = 0 if unicodedata.combining(shown) else 2 if unicodedata.east_asian_width(shown) in "WF" else 1
        if used + columns > width:
            break
        used += columns
        kept.append(shown)
    return "".join(kept)


class _Notebook:
    """A display in a Jupyter kernel, by an update handle."""

    in_place = True

    def __init__(self) -> None:
        self._handle: Any = None

    def draw(self, monitor: Monitor, *, over: bool) -> None:
        from seawall._pictures import monitor as picture

        note = f"{'ended' if over else 'live,'} at {time.strftime('%H:%M:%S')}"
        bundle = {"text/html": picture(monitor, note=note), "text/plain": line(monitor)}
        if self._handle is None:
            # It is there, for we run in its kernel; and it is no dependency of ours.
            display: Any = importlib.import_module("IPython.display").display
            self._handle = display(bundle, raw=True, display_id=True)
        else:
            self._handle.update(bundle, raw=True)


class _Terminal:
    """A line of a terminal, written over; elsewhere one line, at the end."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.in_place = os.environ.get("TERM") != "dumb" and _asked(stream.isatty)
        encoding = (getattr(stream, "encoding", None) or "").lower().replace("-", "")
        self._plain = not encoding.startswith(("utf", "gb", "cp65001"))

    def draw(self, monitor: Monitor, *, over: bool) -> None:
        said = line(monitor, plain=self._plain)
        # One column is left free: a full line would wrap in some terminals.
        said = f"\r\x1b[K{fitted(said, self._width() - 1)}" if self.in_place else fitted(said, 500)
        self._stream.write(said + ("\n" if over else ""))
        self._stream.flush()

    def _width(self) -> int:
        try:
            return os.get_terminal_size(self._stream.fileno()).columns or 80
        except (OSError, ValueError, AttributeError):
            return 80


def _asked(question: Callable[[], object]) -> bool:
    try:
        return bool(question())
    except Exception:  # a foreign stream may do anything
        return False


def _display() -> _Notebook | _Terminal | None:
    """Where to show it: a kernel's front end, the terminal, or nowhere."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    if getattr(shell, "kernel", None) is not None:
        return _Notebook()
    return None if sys.stderr is None else _Terminal(sys.stderr)


class Live:
    """A display of a monitor: it begins when it is made, and ends with its `with` block or by `stop()`.

    In a Jupyter notebook a picture that is brought up to date in place; in a terminal (of `sys.stderr`) a line; elsewhere
    a line at the end. It runs on a thread of its own that ends with the process, and what goes wrong in it is logged, never
    raised. A second display of the same monitor ends the first. In a process that was forked off it does nothing.

    Args:
        monitor: what is shown.
        refresh: seconds (or a timedelta) from one look to the next, at least 0.05 (default 1).

    Raises:
        ConfigurationError: `refresh` is none.
    """

    def __init__(self, monitor: Monitor, refresh: float | timedelta | None = None) -> None:
        self.monitor = monitor
        self.refresh = 1.0 if refresh is None else _word.seconds("refresh", refresh, threading.TIMEOUT_MAX)
        if self.refresh < _LEAST:
            raise ConfigurationError(f"refresh must be at least {_LEAST} seconds, not {_word.shown(refresh)}")
        self._process = os.getpid()
        self._end = threading.Event()
        self._failures = 0
        self._display = _display()
        self._thread: threading.Thread | None = None
        former = _running.pop(id(monitor), None)
        if former is not None:
            former.stop()
        _running[id(monitor)] = self
        if self._display is not None and self._display.in_place:
            self._draw()
            self._thread = threading.Thread(target=self._run, name="seawall-live", daemon=True)
            self._thread.start()

    @property
    def running(self) -> bool:
        """Whether it is still brought up to date."""
        return not self._end.is_set() and self._process == os.getpid()

    def _run(self) -> None:
        while not self._end.wait(self.refresh) and self._failures < _TRIES:
            self._draw()

    def _draw(self, *, over: bool = False) -> None:
        if self._display is None:
            return
        try:
            self._display.draw(self.monitor, over=over)
            self._failures = 0
        except Exception as error:
            self._failures += 1
            if self._failures == _TRIES:
                logger.warning("monitor.live() is given up: it cannot be displayed (%s)", type(error).__name__)

    def stop(self) -> None:
        """Shows how things are once more, and ends. Again, or in a forked process, it does nothing."""
        if not self.running:
            return
        self._end.set()
        if _running.get(id(self.monitor)) is self:
            del _running[id(self.monitor)]
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(_PATIENCE)
            if self._thread.is_alive():  # stuck, and so would the last line be
                return
        if self._failures < _TRIES:
            self._draw(over=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        name = "" if self.monitor.name is None else f" {self.monitor.name!r}"
        how = f"every {self.refresh:g} s until stop()" if self.running else "ended"
        return f"<live display of {type(self.monitor).__name__}{name}, {how}>"


@atexit.register
def _end_all() -> None:
    for each in list(_running.values()):
        each.stop()
