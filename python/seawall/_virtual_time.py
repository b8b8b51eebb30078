"""Time that `seawall.testing.clock` moves, on asyncio's loops: who waits for what, and when to move on.

A wait (a retry's, or `clock.asleep`) is never slept. Once a loop has nothing else to do, time jumps to whatever comes next
there, a wait's end or a time limit. A time limit alone makes no time pass: something has to take that long.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import sys
import threading
from collections.abc import Callable
from typing import Any

from seawall import _seawall

# So many rounds without a new wait, and a loop's tasks are taken to be waiting: chains of callbacks and of tasks
# that hand on to each other need a few.
_ROUNDS = 10

_lock = threading.Lock()
_alarms: list[Alarm] = []
_turning: set[asyncio.AbstractEventLoop] = set()
_order = itertools.count()


class Alarm:
    """Something that a loop does at a time."""

    __slots__ = ("at", "is_wait", "loop", "order", "ring")

    def __init__(self, loop: asyncio.AbstractEventLoop, at: float, ring: Callable[[], Any], is_wait: bool) -> None:
        self.loop = loop
        self.at = at
        self.ring = ring
        self.is_wait = is_wait
        self.order = next(_order)

    def cancel(self) -> None:
        """Takes it back."""
        with _lock:
            if self in _alarms:
                _alarms.remove(self)

    def go_off(self) -> None:
        """Rings on its loop, from any thread."""
        _on_loop(self.loop, self.ring)


def _on_loop(loop: asyncio.AbstractEventLoop, callback: Callable[..., Any], *args: Any) -> None:
    with contextlib.suppress(RuntimeError):  # closed: nobody waits there any more
        loop.call_soon_threadsafe(callback, *args)


def alarm(loop: asyncio.AbstractEventLoop, at: float, ring: Callable[[], Any], is_wait: bool) -> Alarm:
    """Has something done on a loop at that nanosecond of our time. `is_wait`: if nothing else is to be done, time is moved there."""
    made = Alarm(loop, at, ring, is_wait)
    with _lock:
        _alarms.append(made)
        begins = loop not in _turning
        if begins:
            _turning.add(loop)
    if begins:
        loop.call_soon(_turn, loop, made.order, _ROUNDS)
    if not is_wait and at <= _seawall.clock_now():
        # Another thread has moved the time since the caller looked, and found no alarm here yet. A wait's loop sees to it by itself.
        moved()
    return made


def _turn(loop: asyncio.AbstractEventLoop, newest: int, rounds: int) -> None:
    """Lets the loop's tasks run until they all wait, then moves the time to what comes next."""
    with _lock:
        ours = [each for each in _alarms if each.loop is loop]
        latest = max((each.order for each in ours), default=newest)
        soonest = min((each.at for each in ours), default=math.inf)
        over = not _seawall.clock_stands() or not any(each.is_wait for each in ours) or math.isinf(soonest)
        if over:
            _turning.discard(loop)
            return
    if latest != newest:
        rounds = _ROUNDS
    elif rounds == 0:
        _seawall.clock_advance(int(soonest))
        moved()
        rounds = _ROUNDS
    loop.call_soon(_turn, loop, latest, rounds - 1)


def moved() -> None:
    """Rings all alarms whose time has come, in order."""
    now = _seawall.clock_now()
    with _lock:
        due = sorted((each for each in _alarms if each.at <= now), key=lambda each: (each.at, each.order))
        for each in due:
            _alarms.remove(each)
    for each in due:
        each.go_off()
    if alarms := sys.modules.get("seawall._alarms"):
        alarms.ring()


def released() -> None:
    """Time runs by itself again: what is left of each wait passes on its loop's own clock."""
    now = _seawall.clock_now()
    with _lock:
        left, _alarms[:] = list(_alarms), []
        _turning.clear()
    for each in left:
        if not math.isinf(each.at):
            _on_loop(each.loop, each.loop.call_later, max(0.0, (each.at - now) / 1e9), each.ring)
    if alarms := sys.modules.get("seawall._alarms"):
        alarms.clock_runs()


def call_at(loop: asyncio.AbstractEventLoop, at: int, ring: Callable[[], Any]) -> Alarm:
    """As the loop's own `call_at`, by our time, in nanoseconds."""
    return alarm(loop, at, ring, is_wait=False)


async def sleep(seconds: float) -> None:
    """As `asyncio.sleep`, by our time."""
    await sleep_until(math.inf if math.isinf(seconds) else _seawall.clock_now() + round(seconds * 1e9))


async def sleep_until(at: float) -> None:
    """Until that nanosecond of our time."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()

    def ring() -> None:
        if not future.done():
            future.set_result(None)

    wait = alarm(loop, at, ring, is_wait=True)
    try:
        await future
    finally:
        wait.cancel()
