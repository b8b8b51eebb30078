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


def test_two_loops_take_turns_in_one_thread(chat) -> None:
    first, second = asyncio.new_event_loop(), asyncio.new_event_loop()
    model = chat()

    def run(loop: asyncio.AbstractEventLoop, awaited: Any) -> Any:
        return loop.run_until_complete(asyncio.wait_for(awaited, 60))

    async def begin(loop: asyncio.AbstractEventLoop, name: str) -> Any:
        return loop.create_task(model.ainvoke(name)), model.astream(name)

    try:
        for turn in range(6):
            assert f"turn {turn} " in run((first, second)[turn % 2], model.ainvoke(f"turn {turn}")).content
        # What was begun in one loop ends there, though the other has run meanwhile.
        begun = [
            (loop, name, *run(loop, begin(loop, name))) for loop, name in ((first, "one"), (second, "two"), (first, "three"))
        ]
        for loop, name, _, stream in begun:
            assert run(loop, anext(stream)).role == "assistant", name
        for loop, name, task, stream in begun:
            assert f"{name} " in run(loop, task).content
            assert f"{name} " in run(loop, collected(stream))
    finally:
        first.close()
        second.close()


async def collected(stream: Any) -> str:
    return "".join([piece.content async for piece in stream])


def test_calls_that_are_given_up_as_they_end_keep_no_other_call_waiting(chat) -> None:
    """Of many answers that come together one wakes the loop: not less so if its own task is cancelled just then."""
    model = chat()

    async def many(turns: int) -> None:
        kept = [asyncio.create_task(model.ainvoke("kept")) for _ in range(2)]
        given_up = [asyncio.create_task(model.ainvoke("given up")) for _ in range(40)]
        kept += [asyncio.create_task(model.ainvoke("kept")) for _ in range(8)]
        # Each time a little later among the answers.
        await kept[0]
        for _ in range(turns):
            await asyncio.sleep(0)
        for task in given_up:
            task.cancel()
        await asyncio.gather(*given_up, return_exceptions=True)
        assert all("kept " in reply.content for reply in await asyncio.gather(*kept))

    async def rounds() -> None:
        for turns in range(100):
            await asyncio.wait_for(many(turns), 60)

    asyncio.run(rounds())
