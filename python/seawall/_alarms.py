"""Alarms of monitors: at some time there is something to tell, whether or not a call comes.

They ring in the worker's thread; while a test moves the time by hand, in the thread that moves it.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import os
import threading
import weakref
from typing import TYPE_CHECKING, Any

from seawall import _seawall, _worker

if TYPE_CHECKING:
    import asyncio

_log = logging.getLogger("seawall.monitor")
_heap: list[tuple[int, int, weakref.ref[Any]]] = []
_order = itertools.count()
# The garbage collector may run something that records a call, and so sets an alarm, while one is set here.
_lock = threading.RLock()
_timer: asyncio.TimerHandle | None = None


def arm(monitor: Any, at: int) -> None:
    """Has `monitor._ring()` called at that nanosecond of the policies' clock, if it lives then."""
    with _lock:
        heapq.heappush(_heap, (at, next(_order), weakref.ref(monitor)))
    _worker.soon(_wind)


def _wind() -> None:
    """In the worker: waits for the next alarm, unless the time stands still."""
    global _timer
    if _timer is not None:
        _timer.cancel()
        _timer = None
    with _lock:
        soonest = _heap[0][0] if _heap else None
    if soonest is not None and not _seawall.clock_stands():
        # Not longer than a day: loops count their timers in floats.
        left = min(max(0.0, (soonest - _seawall.clock_now()) / 1e9), 86_400.0)
        _timer = _worker.loop().call_later(left, _rung)


def _rung() -> None:
    ring()
    _wind()


def ring() -> None:
    """Rings all alarms whose time has come."""
    now = _seawall.clock_now()
    while True:
        with _lock:
            if not _heap or _heap[0][0] > now:
                return
            _, _, ref = heapq.heappop(_heap)
        monitor = ref()
        if monitor is not None:
            try:
                monitor._ring()
            except Exception:
                _log.exception("an alert could not be told")


def clock_runs() -> None:
    """The time is not moved by hand any more."""
    if _heap:
        _worker.soon(_wind)


def _in_child() -> None:
    global _lock, _timer
    _lock = threading.RLock()
    _timer = None
    # The next call sets them anew.
    left, _heap[:] = list(_heap), []
    for _, _, ref in left:
        monitor = ref()
        if monitor is not None:
            monitor._disarm()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
