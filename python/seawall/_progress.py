"""How far a batch is: in a terminal, in a notebook, in lines, or told to a function."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from typing import Any, Literal, Protocol

from seawall._word import shown
from seawall.errors import ConfigurationError, ConfigurationTypeError

Progress = bool | None | Literal["rich", "tqdm", "lines"] | Callable[[int, int | None, int], object]
_WORDS = ("rich", "tqdm", "lines")
# Seconds between two plain lines.
_INTERVAL = 10.0

_log = logging.getLogger("seawall")


class Bar(Protocol):
    """What shows how far a batch is."""

    def show(self, done: int, failed: int) -> None: ...
    def close(self) -> None: ...


def checked(progress: Any) -> Any:
    """Refuses what shows no progress.

    Raises:
        ConfigurationError: it is none, or draws with a package that is not installed.
    """
    if progress in ("rich", "tqdm") and isinstance(progress, str):
        from importlib.util import find_spec

        if find_spec(progress) is None:
            raise ConfigurationError(f"progress={progress!r} needs {progress}: pip install {progress}, or give progress=True")
    elif progress is not None and not isinstance(progress, bool) and progress not in _WORDS and not callable(progress):
        raise ConfigurationTypeError(
            f'progress must be True, False, "rich", "tqdm", "lines" or a function of (done, total, failed), not {shown(progress)}'
        )
    return progress


def progress_bar(progress: Progress, total: int | None) -> Bar | None:
    """What shows it; everything goes to stderr."""
    if progress is None or progress is False:
        return None
    if isinstance(progress, str):
        return {"rich": _rich, "tqdm": _tqdm, "lines": _Lines}[progress](total) or _Lines(total)
    if progress is not True:
        return _Told(progress, total)
    if _in_notebook():
        return _tqdm(total) or _Lines(total)
    if sys.stderr is not None and sys.stderr.isatty():
        return _rich(total) or _tqdm(total) or _Lines(total)
    return _Lines(total)


def _in_notebook() -> bool:
    # Without importing it: whoever runs in one has.
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return shell is not None and "IPKernelApp" in getattr(shell, "config", ())


class _Told:
    def __init__(self, tell: Callable[[int, int | None, int], object], total: int | None) -> None:
        self._tell, self._total, self._is_wrong = tell, total, False

    def show(self, done: int, failed: int) -> None:
        if self._is_wrong:
            return
        try:
            self._tell(done, self._total, failed)
        except Exception:
            # What shows the batch does not end it.
            self._is_wrong = True
            _log.exception("progress= raised, and is not told any more")

    def close(self) -> None:
        pass


class _Lines:
    """A line now and then, for logs and for pipes."""

    def __init__(self, total: int | None) -> None:
        self._total, self._began = total, time.monotonic()
        self._next = self._began + _INTERVAL
        self._shown: tuple[int, int] | None = None
        self._last = (0, 0)

    def show(self, done: int, failed: int) -> None:
        self._last = (done, failed)
        if time.monotonic() >= self._next:
            self._print()

    def _print(self) -> None:
        now = time.monotonic()
        self._next, self._shown = now + _INTERVAL, self._last
        done, failed = self._last
        of = "" if self._total is None else f"/{self._total}"
        wrong = f", {failed} failed" if failed else ""
        if sys.stderr is not None:
            sys.stderr.write(f"seawall: {done}{of} done{wrong}, {now - self._began:.0f} s\n")
            sys.stderr.flush()

    def close(self) -> None:
        if self._shown != self._last:
            self._print()


class _Rich:
    def __init__(self, progress: Any, total: int | None) -> None:
        self._progress = progress
        self._task = progress.add_task("batch", total=total, failed="")
        progress.start()

    def show(self, done: int, failed: int) -> None:
        self._progress.update(self._task, completed=done, failed=f"[red]{failed} failed" if failed else "")

    def close(self) -> None:
        self._progress.stop()


def _rich(total: int | None) -> Bar | None:
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    except ImportError:
        return None
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[failed]}"), TimeElapsedColumn(), TimeRemainingColumn())
    return _Rich(Progress(*columns, console=Console(stderr=True)), total)


class _Tqdm:
    def __init__(self, bar: Any) -> None:
        self._bar, self._failed = bar, 0

    def show(self, done: int, failed: int) -> None:
        if failed != self._failed:
            self._failed = failed
            self._bar.set_postfix(failed=failed, refresh=False)
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        self._bar.close()


def _tqdm(total: int | None) -> Bar | None:
    try:
        import warnings
        from importlib import import_module

        with warnings.catch_warnings():
            # Without ipywidgets it says so as it is imported, and draws with letters, which will do.
            warnings.simplefilter("ignore")
            tqdm = import_module("tqdm.auto").tqdm
            return _Tqdm(tqdm(total=total, unit=" inputs", file=sys.stderr))
    except ImportError:
        return None
