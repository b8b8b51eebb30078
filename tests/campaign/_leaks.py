"""What may be left over when all calls are over: nothing but the client's own thread and its idle connections."""

from __future__ import annotations

import asyncio
import collections
import gc
import threading
import time
from collections.abc import Callable
from pathlib import Path

from _cells import Cell
from seawall.llm import Chat
from seawall.simulator import Simulator, faults

# So long may what is going on its way take to be gone.
PATIENCE = 15.0
# Threads of the client that stay, or end by themselves after ten idle seconds: they look names up and ask hooks.
LASTING = {"seawall", "seawall-aside", "seawall-simulat"}


def native_threads() -> collections.Counter[str]:
    """The threads of this process, by the names that the system knows."""
    found: collections.Counter[str] = collections.Counter()
    for task in Path("/proc/self/task").glob("*/comm"):
        try:
            found[task.read_text().strip()] += 1
        except OSError:
            continue  # it has just ended
    return found


class Leaks:
    """What there was before."""

    def __init__(self, sim: Simulator) -> None:
        self.sim = sim
        self.native = native_threads()
        self.threads = set(threading.enumerate())

    async def check(self, done: list[Cell]) -> list[str]:
        """What was left over."""
        checks: list[tuple[str, Callable[[], object]]] = [
            ("tasks", self._tasks),
            ("threads", self._threads),
            ("native threads", self._native),
            ("requests that nobody waits for", lambda: self._requests(done)),
        ]
        found = []
        gc.collect()
        for what, left in checks:
            until = time.monotonic() + PATIENCE
            # Nobody tells when a native thread is gone, or what is left of a request: they are looked for again.
            while (rest := left()) and time.monotonic() < until:
                await asyncio.sleep(0.05)
            if rest:
                found.append(f"{what} left over: {rest}")
        return found + await self._connections()

    @staticmethod
    def _tasks() -> set[asyncio.Task[object]]:
        return asyncio.all_tasks() - {asyncio.current_task()}

    def _threads(self) -> set[threading.Thread]:
        # A dummy is no thread but a note of a native one that has logged; `native threads` are those that are there.
        real = {thread for thread in threading.enumerate() if not isinstance(thread, threading._DummyThread)}
        return real - self.threads

    def _native(self) -> dict[str, int]:
        more = native_threads() - self.native
        return {name: count for name, count in more.items() if name not in LASTING}

    def _requests(self, done: list[Cell]) -> list[str]:
        """A request that would never end has been cut by its client, and no other was."""
        cut = {name: cell.met.left for cell in done for name in cell.names or (cell.name,)}
        wrong = []
        for request in self.sim.requests:
            left = cut.get((request.model or "").removesuffix("-other"))
            if left is not None and request.aborted != (left and request.fault != "ok"):
                wrong.append(f"{request.model} {request.fault}")
        return wrong

    async def _connections(self) -> list[str]:
        """Each open connection is an idle one: as many calls at once as there are connections need no new one."""
        self.sim.on("idle", faults.latency(0.5))
        chat = Chat("idle", api_key="k", base_url=self.sim.base_url, max_retries=0)
        before = self.sim.open_connections
        asked = asyncio.gather(*(chat.ainvoke("x") for _ in range(before)))
        arrived = self.sim.count() + before
        await asyncio.sleep(0)  # a turn in which they are given to the native client, which needs no loop
        self.sim.wait_for(arrived)
        during = self.sim.open_connections
        await asked
        self.sim.clear("idle")
        return [] if during <= before else [f"{during - before} of {before} connections are open and cannot be used"]
