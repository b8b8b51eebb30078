"""Waiting on a loop for another call's signal: for a place in a `Bulkhead`, a turn under a `RateLimit`."""

from __future__ import annotations

import asyncio
import math
import sys
from typing import Any

from seawall import _seawall, _virtual_time

# So long a task of trio's sleeps between looks at a clock that a test moves.
_LOOK = 0.005


async def wait(future: asyncio.Future[None], until: int | None, passes: bool) -> None:
    """Until the future has its result, or that nanosecond of the policies' clock has come. `passes`: it is time that is waited
    for, so a clock that stands still is moved."""

    def ring() -> None:
        if not future.done():
            future.set_result(None)

    alarm: Any = None
    if until is not None:
        loop = asyncio.get_running_loop()
        if _seawall.clock_stands():
            alarm = _virtual_time.alarm(loop, until, ring, is_wait=passes)
        else:
            alarm = loop.call_later(_left(until), ring)
    try:
        await future
    finally:
        if alarm is not None:
            alarm.cancel()


def _left(until: int) -> float:
    return max(0.0, (until - _seawall.clock_now()) / 1e9)


async def wait_in_trio(future: Any, until: int | None, passes: bool) -> None:
    """The same in a task of trio's."""
    trio = sys.modules["trio"]
    if not _seawall.clock_stands():
        with trio.move_on_after(math.inf if until is None else _left(until)):
            await future
        return
    if passes and until is not None:
        _seawall.clock_advance(until)
        _virtual_time.moved()
        await trio.lowlevel.checkpoint()
    while not future.done() and (until is None or _seawall.clock_now() < until):
        with trio.move_on_after(_LOOK):
            await future
