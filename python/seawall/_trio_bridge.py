"""The way from the native runtime into each run of trio's. Imported in tasks of trio's only."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Generator
from typing import Any

import trio

from seawall._seawall import Bridge

# Windows can watch nothing but sockets.
_WATCHES = os.name != "nt"
# The run's task keeps it, and lets go of it when the run ends: that is how we hear of it.
_bridge: trio.lowlevel.RunVar[weakref.ref[Bridge] | None] = trio.lowlevel.RunVar("seawall._bridge", None)


def bridge() -> Bridge:
    """The bridge into the running run."""
    known = _bridge.get()
    bridge = None if known is None else known()
    if bridge is None or not bridge.is_open:
        bridge = Bridge()
        _bridge.set(weakref.ref(bridge))
        if _WATCHES:
            trio.lowlevel.spawn_system_task(_watching, bridge, name="seawall")
        else:
            bridge.tell_by(_teller(trio.lowlevel.current_trio_token(), weakref.ref(bridge)))
            trio.lowlevel.spawn_system_task(_keeping, bridge, name="seawall")
    return bridge


async def _watching(bridge: Bridge) -> None:
    while True:
        await trio.lowlevel.wait_readable(bridge.fileno())
        bridge.drain()


def _teller(token: trio.lowlevel.TrioToken, bridge: weakref.ref[Bridge]) -> Callable[[], None]:
    def deliver() -> None:
        if (way := bridge()) is not None:
            way.deliver()

    return lambda: token.run_sync_soon(deliver, idempotent=True)


async def _keeping(bridge: Bridge) -> None:  # in its frame
    await trio.sleep_forever()


class Future:
    """What one task waits for: as much of asyncio's future as the bridge knows."""

    def __init__(self) -> None:
        self._there = trio.Event()
        self._value: Any = None
        self._error: BaseException | None = None

    def done(self) -> bool:
        """Whether it has its result."""
        return self._there.is_set()

    def set_result(self, value: Any) -> None:
        """It came out well."""
        self._value = value
        self._there.set()

    def set_exception(self, error: BaseException) -> None:
        """It failed."""
        self._error = error
        self._there.set()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._awaited().__await__()

    async def _awaited(self) -> Any:
        await self._there.wait()
        if self._error is not None:
            # Out of here before it is raised: its traceback would hold it in a circle.
            error, self._error = self._error, None
            try:
                raise error
            finally:
                del error
        return self._value
