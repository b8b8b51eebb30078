"""The native client in event loops that watch no descriptors, as Windows' usual one: told by `call_soon_threadsafe`."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest

from seawall.errors import AuthenticationError
from seawall.simulator import faults


class Blind(asyncio.SelectorEventLoop):
    """Its own waking works; nobody else may have a descriptor watched."""

    def add_reader(self, *args: Any) -> None:
        raise NotImplementedError


class Poor(asyncio.SelectorEventLoop):
    """A loop of somebody's that has no such method."""

    @property
    def add_reader(self) -> Any:  # type: ignore[override]
        raise AttributeError("add_reader")


@pytest.fixture(params=[Blind, Poor])
def run(request: pytest.FixtureRequest) -> Iterator[Any]:
    loop = request.param(selectors.DefaultSelector())

    def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
        return loop.run_until_complete(asyncio.wait_for(coroutine, 60))

    yield run
    loop.close()


def test_calls_streams_and_batches(sim, chat, run) -> None:
    async def all_of_it() -> None:
        model = chat()
        replies = await asyncio.gather(*(model.ainvoke(f"question {i}") for i in range(20)))
        assert all(reply.content for reply in replies)
        assert "".join([piece.content async for piece in model.astream("again")])
        assert len(await model.abatch(["a", "b", "c"])) == 3

    run(all_of_it())
    assert sim.count() == 24


def test_errors_and_cancellations(sim, chat, run) -> None:
    sim.on("locked", faults.status(401))
    sim.on("hung", faults.hang())

    async def both() -> None:
        with pytest.raises(AuthenticationError):
            await chat("locked").ainvoke("x")
        task = asyncio.ensure_future(chat("hung").ainvoke("x"))
        await asyncio.to_thread(sim.wait_for, 2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(both())
    sim.wait_aborted(1)
