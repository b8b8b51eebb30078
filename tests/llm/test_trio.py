"""The native client under trio, and under anyio on both of its backends: in the task's own rules of cancellation."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any

import anyio
import anyio.to_thread
import pytest
import trio

from seawall import CircuitBreaker, _trio_bridge
from seawall.errors import AuthenticationError, BadRequestError, CircuitBreakerError
from seawall.llm import Embeddings
from seawall.simulator import faults


async def waited(wait: Callable[..., Any], *args: Any) -> None:
    await trio.to_thread.run_sync(wait, *args)


def test_calls_streams_batches_and_embeddings(sim, chat) -> None:
    model, vectors = chat(), Embeddings("e", api_key="k", base_url=sim.base_url)
    answers: dict[int, str] = {}

    async def ask(number: int) -> None:
        answers[number] = (await model.ainvoke(f"q{number}")).content

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(ask, number)
        assert all(f" q{number} " in answers[number] for number in range(50))
        stream = model.astream("x")
        assert "".join([piece.content async for piece in stream]) == (await model.ainvoke("x")).content
        assert stream.attempts == 1
        assert [f" {text} " in reply.content for text, reply in zip("abc", await model.abatch(list("abc")))] == [True] * 3
        assert len((await vectors.ainvoke(["a", "b"])).vectors) == 2
        assert [len(reply.vectors) for reply in await vectors.abatch(["a", ["b", "c"]])] == [1, 2]

    trio.run(main)
    # And in another run.
    trio.run(main)


def test_errors_come_where_they_are_awaited(sim, chat) -> None:
    sim.on("locked", faults.status(401))
    sim.on("m", faults.status(400), times=1, after=1)

    async def main() -> None:
        with pytest.raises(AuthenticationError):
            await chat("locked").ainvoke("x")
        with pytest.raises(AuthenticationError):
            async for _ in chat("locked").astream("x"):
                pass
        results = await chat().abatch(["a", "b", None, "c"], max_concurrency=1, return_exceptions=True)
        assert [type(result).__name__ for result in results] == ["Reply", "BadRequestError", "TypeError", "Reply"]
        sim.on("m", faults.status(400), times=1)
        with pytest.raises(BadRequestError) as raised:
            await chat().abatch(["a", "b"], max_concurrency=1)
        assert raised.value.results[1].content

    trio.run(main)


WAYS: dict[str, Callable[[Any, Any], Any]] = {
    "ainvoke": lambda model, vectors: model.ainvoke("x"),
    "abatch": lambda model, vectors: model.abatch(["x", "y"], max_concurrency=1),
    "astream": lambda model, vectors: anext(model.astream("x")),
    "embeddings": lambda model, vectors: vectors.ainvoke("x"),
    "embeddings, abatch": lambda model, vectors: vectors.abatch(["x", "y"], max_concurrency=1),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_cancelled_call_is_cut_on_the_wire_and_gives_its_permit_back(sim, chat, way) -> None:
    sim.on("*", faults.hang(), times=1)
    breaker = CircuitBreaker(5, 0, name="probed")
    model = chat(timeout=None, circuit=breaker)
    vectors = Embeddings("e", api_key="k", base_url=sim.base_url, timeout=None, circuit=breaker)
    breaker.force("half_open")

    async def main() -> None:
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                await WAYS[way](model, vectors)

            nursery.start_soon(ask)
            await waited(sim.wait_for, 1)
            with pytest.raises(CircuitBreakerError):
                await model.ainvoke("the only permit is out")
            nursery.cancel_scope.cancel()
        await waited(sim.wait_aborted, 1)
        assert (await model.ainvoke("the permit is back")).attempts == 1

    trio.run(main)
    assert breaker.state == "closed"
    assert sim.count() == 2


def test_move_on_after_ends_a_wait_between_attempts(sim, chat) -> None:
    sim.on("m", faults.status(500))

    async def main() -> None:
        token, scope = trio.lowlevel.current_trio_token(), trio.CancelScope()
        model = chat().with_retry(wait=600, before_sleep=lambda state: token.run_sync_soon(scope.cancel))
        with scope:
            await model.ainvoke("x")
        assert scope.cancelled_caught
        with trio.move_on_after(0.01) as scope:
            await chat().with_retry(wait=600).ainvoke("x")
        assert scope.cancelled_caught

    trio.run(main)
    assert sim.count() == 2


def test_every_await_is_a_checkpoint(chat) -> None:
    async def main() -> None:
        model = chat()
        with trio.CancelScope() as scope:
            scope.cancel()
            await model.ainvoke("x")
        assert scope.cancelled_caught
        stream = model.astream("x")
        await anext(stream)
        # The next piece is there, as a rule: a cancellation is seen all the same.
        with trio.CancelScope() as scope:
            scope.cancel()
            await anext(stream)
        assert scope.cancelled_caught
        others = 0

        async def turns() -> None:
            nonlocal others
            while True:
                await trio.lowlevel.checkpoint()
                others += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(turns)
            pieces = [piece async for piece in model.astream("x")]
            # All may be there at once; whose turn is first is left to chance.
            assert others >= len(pieces) - 1 > 5, "nobody else had a turn between two pieces"
            nursery.cancel_scope.cancel()

    trio.run(main)


@pytest.mark.parametrize("watches", [True, False], ids=["by a descriptor", "by its token, as on Windows"])
def test_a_run_that_ends_cuts_what_its_tasks_await_and_leaves_nothing(sim, chat, monkeypatch, watches) -> None:
    monkeypatch.setattr(_trio_bridge, "_WATCHES", watches)
    sim.on("m", faults.hang())
    model, ways = chat(timeout=None), []

    async def main() -> None:
        # As a library's own task would: one that the main task does not wait for.
        trio.lowlevel.spawn_system_task(model.ainvoke, "x")
        await waited(sim.wait_for, 1)
        ways.append(weakref.ref(_trio_bridge.bridge()))
        gc.collect()
        assert ways[0]() is _trio_bridge.bridge(), "the run keeps its one way"

    trio.run(main)
    sim.wait_aborted(1)
    gc.collect()
    assert ways[0]() is None, "and lets go of it when it ends"


def test_in_a_guest_run_each_side_awaits_in_its_own_way(chat) -> None:
    import asyncio

    model = chat()

    async def guest() -> str:
        return (await model.ainvoke("of the guest")).content

    async def host() -> None:
        loop, over = asyncio.get_running_loop(), asyncio.get_running_loop().create_future()
        trio.lowlevel.start_guest_run(
            guest, run_sync_soon_threadsafe=loop.call_soon_threadsafe, done_callback=lambda outcome: over.set_result(outcome)
        )
        mine = await asyncio.gather(*(model.ainvoke(f"of the host {number}") for number in range(10)))
        assert all(reply.content for reply in mine)
        assert (await over).unwrap()

    asyncio.run(host())


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_anyio_on_both_backends(sim, chat, backend) -> None:
    model = chat()

    async def main() -> None:
        got = []

        async def ask(number: int) -> None:
            got.append((await model.ainvoke(f"q{number}")).attempts)

        async with anyio.create_task_group() as group:
            for number in range(10):
                group.start_soon(ask, number)
        assert got == [1] * 10
        assert len(await model.abatch(["a", "b"])) == 2
        assert [piece async for piece in model.astream("x")]
        seen = sim.count()
        sim.on("m", faults.hang())
        async with anyio.create_task_group() as group:
            for call in (model.ainvoke("x"), model.abatch(["x", "y"]), anext(model.astream("x"))):

                async def awaited(call: Any) -> None:
                    await call

                group.start_soon(awaited, call)
            await anyio.to_thread.run_sync(sim.wait_for, seen + 4)
            group.cancel_scope.cancel()
        await anyio.to_thread.run_sync(sim.wait_aborted, 4)
        with anyio.move_on_after(0.01) as scope:
            await model.ainvoke("x")
        assert scope.cancelled_caught

    anyio.run(main, backend=backend)


def test_a_program_of_trios_loads_no_asyncio(sim) -> None:
    program = (
        "import sys, trio; from seawall.llm import Chat; before = 'asyncio' in sys.modules; "
        f"model = Chat('m', api_key='k', base_url={sim.base_url!r}); "
        "assert trio.run(model.ainvoke, 'x').attempts == 1; print(before, 'asyncio' in sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout in ("False False\n", "True True\n")


def test_where_only_sockets_can_be_watched(chat, monkeypatch) -> None:
    """Windows' way works everywhere: the run is told by its token, from another thread."""
    made, told = _trio_bridge._teller, []

    def teller(*args: Any) -> Callable[[], None]:
        tell = made(*args)
        return lambda: (told.append(threading.get_ident()), tell())[1]

    monkeypatch.setattr(_trio_bridge, "_WATCHES", False)
    monkeypatch.setattr(_trio_bridge, "_teller", teller)

    async def main() -> None:
        assert len(await chat().abatch(["a", "b"])) == 2
        assert [piece async for piece in chat().astream("x")]

    trio.run(main)
    assert told and threading.get_ident() not in told
