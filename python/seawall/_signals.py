"""Waiting on a loop for another call's signal: for a place in a `Bulkhead`, a turn under a `RateLimit`."""

from __future__ import annotations

import asyncio
import math
import sys
from typing import Any

from seawall import _seawall, _virtual_time

# So long a task of trio's sleeps between looks at a clock that a test moves.
_LOOK = 0.005


async def wait(future: asyncio.Future[None], seconds: float | None, passes: bool) -> None:
    """Until the future has its result, or so many seconds have passed, by the policies' clock. `passes`: it is time that is
    waited for, so a clock that stands still is moved."""

    def ring() -> None:
        if not future.done():
            future.set_result(None)

    alarm: Any = None
    if seconds is not None:
        loop = asyncio.get_running_loop()
        if _seawall.clock_stands():
            alarm = _virtual_time.alarm(loop, seconds, ring, is_wait=passes)
        else:
            alarm = loop.call_later(seconds, ring)
    try:
        await future
    finally:
        if alarm is not None:
            alarm.cancel()


async def wait_in_trio(future: Any, seconds: float | None, passes: bool) -> None:
    """The same in a task of trio's."""
    trio = sys.modules["trio"]
    if not _seawall.clock_stands():
        with trio.move_on_after(math.inf if seconds is None else seconds):
            await future
        return
    until = math.inf if seconds is None else _seawall.clock_now() + round(seconds * 1e9)
    if passes:
        _seawall.clock_advance(int(until))
        _virtual_time.moved()
        await trio.lowlevel.checkpoint()
    while not future.done() and _seawall.clock_now() < until:
        with trio.move_on_after(_LOOK):
            await future
