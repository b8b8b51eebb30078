"""The way from the native runtime into each asyncio loop: one descriptor a loop, watched while the loop lives."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING

from seawall._seawall import Bridge

if TYPE_CHECKING:
    import asyncio

# A loop that watches keeps its bridge itself, and lets go of it when it is closed: that is how we hear of it.
_bridges: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, weakref.ref[Bridge]] = weakref.WeakKeyDictionary()
# Those of loops that watch nothing.
_kept: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Bridge] = weakref.WeakKeyDictionary()


def bridge(loop: asyncio.AbstractEventLoop) -> Bridge:
    """The bridge into the running loop."""
    known = _bridges.get(loop)
    bridge = None if known is None else known()
    # A child that goes on with a loop of its parent's needs a descriptor of its own.
    if bridge is None or not bridge.is_open:
        bridge = _new(loop)
        _bridges[loop] = weakref.ref(bridge)
    return bridge


def _new(loop: asyncio.AbstractEventLoop) -> Bridge:
    bridge = Bridge()
    try:
        loop.add_reader(bridge.fileno(), bridge.drain)
    except (NotImplementedError, AttributeError):  # Windows' proactor loop watches no descriptors
        _kept[loop] = bridge
        bridge.tell_by(_teller(weakref.ref(loop), weakref.ref(bridge)))
    return bridge


def _teller(loop: weakref.ref[asyncio.AbstractEventLoop], bridge: weakref.ref[Bridge]) -> Callable[[], None]:
    def tell() -> None:
        listening, way = loop(), bridge()
        if listening is not None and way is not None:
            listening.call_soon_threadsafe(way.deliver)

    return tell
