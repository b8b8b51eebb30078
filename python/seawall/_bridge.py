"""The way from the native runtime into each asyncio loop: one descriptor a loop, watched while the loop lives."""

from __future__ import annotations

import asyncio
import weakref
from typing import Any

from seawall._seawall import Bridge

_bridges: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Bridge] = weakref.WeakKeyDictionary()


def future() -> tuple[asyncio.Future[Any], Bridge]:
    """A new future of the running loop, and the bridge into that loop."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        raise RuntimeError(
            "the native client awaits in asyncio loops only: elsewhere call its other methods in a thread"
        ) from None
    bridge = _bridges.get(loop)
    if bridge is None:
        bridge = _bridges[loop] = _new(loop)
    return loop.create_future(), bridge


def _new(loop: asyncio.AbstractEventLoop) -> Bridge:
    bridge = Bridge()
    try:
        loop.add_reader(bridge.fileno(), bridge.drain)
    except (NotImplementedError, AttributeError):  # Windows' proactor loop watches no descriptors
        bridge.use_threadsafe(loop.call_soon_threadsafe)
    return bridge
