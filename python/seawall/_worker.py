"""The one thread of seawall's own in which alerts are delivered and alarms ring: an event loop, started when first needed.

It keeps no program alive, and a forked child starts its own. It imports nothing: a process that was forked in the middle of an
import never gets to the end of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

_inbox: deque[Callable[[], Any]] = deque()
_loop: asyncio.AbstractEventLoop | None = None
_thread: threading.Thread | None = None
_starting = threading.Lock()
# A parent's loops: closing one in a child would close what the parent waits at.
_inherited: list[Any] = []


def soon(callback: Callable[[], Any]) -> None:
    """Has the callback run in the worker's loop. From any thread; never waits."""
    global _thread
    _inbox.append(callback)
    if _loop is not None:
        # In a context of its own: time limits of the call that is under way here are not the worker's.
        with contextlib.suppress(RuntimeError):  # it was stopped: the program ends
            _loop.call_soon_threadsafe(_drain, context=contextvars.Context())
    elif _thread is None and _starting.acquire(blocking=False):
        # Whoever starts it drains what others have put in meanwhile.
        try:
            if _thread is None:
                _thread = threading.Thread(target=_run, name="seawall-alerts", daemon=True)
                _thread.start()
        except RuntimeError:  # the interpreter ends: there are no more threads
            _thread = None
        finally:
            _starting.release()


def loop() -> asyncio.AbstractEventLoop:
    """The loop; in its thread only."""
    assert _loop is not None
    return _loop


def is_here() -> bool:
    """Whether this is the worker's thread."""
    return threading.current_thread() is _thread


def _run() -> None:
    global _loop
    made = asyncio.new_event_loop()
    asyncio.set_event_loop(made)
    _loop = made
    made.call_soon(_drain, context=contextvars.Context())
    made.run_forever()
    made.close()


def _drain() -> None:
    while _inbox:
        _inbox.popleft()()


def stop(timeout: float) -> None:
    """Ends the thread, at the program's end."""
    thread, running = _thread, _loop
    if running is not None and thread is not None and thread.is_alive():
        running.call_soon_threadsafe(running.stop)
        thread.join(timeout)


def _in_child() -> None:
    global _loop, _thread, _starting
    _inherited.append(_loop)
    _loop = _thread = None
    _starting = threading.Lock()
    _inbox.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
