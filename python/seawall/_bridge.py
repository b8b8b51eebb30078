"""The way from the native runtime into each asyncio loop: one descriptor a loop, watched while the loop lives."""

from __future__ import annotations

import asyncio
import weakref

from seawall._seawall import Bridge

_bridges: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Bridge] = weakref.WeakKeyDictionary()


def bridge(loop: asyncio.AbstractEventLoop | None) -> Bridge:
    """The bridge into the running loop."""
    if loop is None:
        raise RuntimeError("the native client awaits in asyncio loops only: elsewhere call its other methods in a thread")
    known = _bridges.get(loop)
    if known is None:
        known = _bridges[loop] = _new(loop)
    return known


def _new(loop: asyncio.AbstractEventLoop) -> Bridge:
    bridge = Bridge()
    try:
        loop.add_reader(bridge.fileno(), bridge.drain)
    except (NotImplementedError, AttributeError):  # Windows' proactor loop watches no descriptors
        bridge.use_threadsafe(loop.call_soon_threadsafe)
    return bridge
