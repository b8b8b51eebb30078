"""What the core leaves to be told (spans, and lines for the log) is told here, by a thread of Python's own: no call waits for it."""

from __future__ import annotations

import atexit
import logging
import os
import threading
from typing import Any

from seawall import _seawall

_logger = logging.getLogger("seawall.telemetry")

# Held by whoever is telling.
_telling = threading.Lock()
_starting = threading.Lock()
_thread: threading.Thread | None = None
_users: set[str] = set()
_sees_ends = False


def begin(user: str) -> None:
    """Tells from now on, for one who makes spans, or one who reads lines."""
    global _thread, _sees_ends
    with _starting:
        _users.add(user)
        if not _sees_ends:
            _sees_ends = True
            atexit.register(_end)
            if hasattr(os, "register_at_fork"):
                os.register_at_fork(after_in_child=_forked)
        if _thread is None:
            # Known before it runs: it ends when it is not the one any more.
            _thread = threading.Thread(target=_run, name="seawall-telemetry", daemon=True)
            _thread.start()


def end(user: str) -> None:
    """One of them has enough; when none is left, so has the thread."""
    with _starting:
        _users.discard(user)
        is_last = not _users
    if is_last:
        _end()
    else:
        tell()


def _end() -> None:
    global _thread
    with _starting:
        thread, _thread = _thread, None
    if thread is not None:
        _seawall.wake_told()
        thread.join()
    tell()


def _forked() -> None:
    global _thread, _telling, _starting
    _telling, _starting = threading.Lock(), threading.Lock()
    _seawall.forget_told()
    _thread = None
    for user in list(_users):
        begin(user)


def _run() -> None:
    mine = threading.current_thread()
    while _thread is mine:
        _seawall.wait_told(1.0)
        tell()


def tell() -> int:
    """Tells all there is, here and now; what another thread is telling is told when this returns. Gives how many there were."""
    with _telling:
        told, lost = _seawall.take_told()
        if lost:
            _logger.error("%d spans or lines were lost: there were more of them than this process could tell", lost)
        for span, what in told:
            try:
                if span is None:
                    _say(*what)
                else:
                    span.tell(what)
            except Exception:
                _logger.exception("telemetry failed, of one call")
    return len(told)


def _say(level: int, target: str, text: str, at: float) -> None:
    logger = logging.getLogger("seawall.core." + target.partition("::")[2].replace("::", "."))
    if logger.isEnabledFor(level):
        record: Any = logger.makeRecord(logger.name, level, "", 0, "%s", (text,), None)
        record.created, record.msecs = at, at % 1 * 1000
        logger.handle(record)
