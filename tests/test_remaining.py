"""`seawall.remaining()`: the deadline that calls inherit."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from seawall import Chaos, Pipeline, Retry, Timeout, guard, remaining, retry, testing
from seawall.errors import APITimeoutError, CallTimeoutError
from seawall.llm import Chat
from seawall.simulator import Simulator, faults


def fails() -> None:
    raise ConnectionError


async def left_async() -> float | None:
    return remaining()


def test_there_is_none_outside_of_a_limit() -> None:
    assert remaining() is None
    assert Pipeline(Retry(2)).call(remaining) is None
    assert Pipeline(Timeout(10)).call(lambda: 1) == 1
    assert remaining() is None


@pytest.mark.parametrize(
    "policies",
    [(Timeout(10),), (Retry(2, timeout=10),), (Timeout(30), Retry(2, timeout=20), Timeout(10)), (Timeout(10), Timeout(30))],
)
async def test_it_is_the_tightest_limit_around_the_call(policies: tuple[Any, ...], seawall_clock: testing.clock) -> None:
    pipeline = Pipeline(*policies)
    assert pipeline.call(remaining) == 10
    assert pipeline(lambda: remaining())() == 10
    assert await pipeline.acall(left_async) == 10
    assert await pipeline(left_async)() == 10
    with testing.record():  # by the machine
        assert pipeline(lambda: remaining())() == 10
    assert remaining() is None


def test_it_runs_down(seawall_clock: testing.clock) -> None:
    seen: list[float | None] = []

    @guard(retry=3, circuit=None, timeout=10, attempt_timeout=6)
    def ask() -> None:
        seen.append(remaining())
        seawall_clock.sleep(3)
        seen.append(remaining())
        raise ConnectionError

    with testing.no_waits(), pytest.raises(ConnectionError):
        ask()
    assert seen == [6, 3, 6, 3, 4, 1]


def test_it_is_zero_when_it_has_passed(seawall_clock: testing.clock) -> None:
    assert Pipeline(Timeout(10)).call(lambda: (seawall_clock.sleep(11), remaining())[1]) == 0


def test_it_is_gone_when_the_call_has_raised() -> None:
    for pipeline in (Pipeline(Timeout(10)), Pipeline(Timeout(10), Retry(1))):
        with pytest.raises(ConnectionError):
            pipeline(fails)()
        assert remaining() is None


# --- inherited


def test_inner_attempts_and_waits_end_with_the_outer_limit(seawall_clock: testing.clock) -> None:
    calls: list[float | None] = []

    @retry(9, wait=4)
    def inner() -> None:
        calls.append(remaining())
        raise ConnectionError

    with pytest.raises(ConnectionError) as raised:
        Pipeline(Timeout(10)).call(inner)
    assert calls == [10, 6, 2]  # a fourth would come too late
    assert "no time left" in raised.value.__notes__[0]
    calls.clear()
    with pytest.raises(ConnectionError):
        inner()
    assert len(calls) == 9


async def test_inner_coroutines_inherit_it_too(seawall_clock: testing.clock) -> None:
    calls: list[float | None] = []

    @retry(9, wait=4)
    async def inner() -> None:
        await asyncio.sleep(0)
        calls.append(remaining())
        raise ConnectionError

    async def outer() -> None:
        await asyncio.sleep(0)
        await asyncio.gather(inner(), asyncio.ensure_future(inner()))

    with pytest.raises(ConnectionError):
        await Pipeline(Timeout(10)).acall(outer)
    assert calls == [10, 10, 6, 6, 2, 2]
    assert remaining() is None


def test_a_looser_limit_inside_is_the_outer_one_and_says_so(seawall_clock: testing.clock) -> None:
    inner = Pipeline(Timeout(60), Chaos(latency=100, enabled=True), name="inner")
    with pytest.raises(CallTimeoutError) as raised:
        Pipeline(Timeout(10), name="outer").call(inner.call, remaining)
    assert (seawall_clock.now, raised.value.limit, raised.value.name) == (10, 10, "inner")
    with pytest.raises(CallTimeoutError) as raised:
        inner.call(remaining)
    assert (seawall_clock.now, raised.value.limit) == (70, 60)


async def test_an_inner_limit_is_cut_to_the_outer_one(seawall_clock: testing.clock) -> None:
    seen: list[BaseException] = []

    async def outer() -> None:
        try:
            await Pipeline(Timeout(60), name="inner").acall(seawall_clock.asleep)
        except BaseException as error:
            seen.append(error)
            raise

    with pytest.raises(CallTimeoutError):
        await Pipeline(Timeout(10), name="outer").acall(outer)
    assert seawall_clock.now == 10
    assert len(seen) == 1


async def test_nobody_else_sees_it(seawall_clock: testing.clock) -> None:
    seen = []

    async def inside() -> None:
        await asyncio.sleep(0)
        seen.append(("inside", remaining()))
        await asyncio.sleep(0)

    async def beside() -> None:
        await asyncio.sleep(0)
        seen.append(("beside", remaining()))

    await asyncio.gather(Pipeline(Timeout(10)).acall(inside), beside())
    assert seen == [("inside", 10), ("beside", None)]


def test_threads_see_it_in_a_copy_of_the_context_only(seawall_clock: testing.clock) -> None:
    def in_a_thread(run: Any) -> float | None:
        seen: list[float | None] = []
        thread = threading.Thread(target=lambda: seen.append(run(remaining)))
        thread.start()
        thread.join()
        return seen[0]

    pipeline = Pipeline(Timeout(10))
    assert pipeline.call(lambda: in_a_thread(lambda ask: ask())) is None
    assert pipeline.call(lambda: in_a_thread(contextvars.copy_context().run)) == 10


async def test_streams_see_it_and_their_readers_do_not(seawall_clock: testing.clock) -> None:
    pipeline = Pipeline(Timeout(10))

    @pipeline
    def pieces() -> Iterator[float | None]:
        yield remaining()
        seawall_clock.advance(4)
        yield remaining()

    @pipeline
    async def pieces_async() -> AsyncIterator[float | None]:
        yield remaining()
        await asyncio.sleep(0)
        seawall_clock.advance(4)
        yield remaining()

    seen = []
    for piece in pieces():
        seen.append((piece, remaining()))
    async for piece in pieces_async():
        seen.append((piece, remaining()))
    assert seen == [(10, None), (6, None)] * 2


@pytest.mark.parametrize("stream", [False, True])
def test_a_request_of_the_native_client_is_cut_by_the_limit_around_it(stream: bool, seawall_clock: testing.clock) -> None:
    def ask() -> None:
        if stream:
            next(iter(chat.stream("hi")))
        else:
            chat.invoke("hi")

    with Simulator() as simulator:
        simulator.on("m", faults.hang())
        chat = Chat("m", api_key="sk-a-test-key", base_url=simulator.base_url, timeout=60, max_retries=2)
        # The caller's thread waits for a server that never answers; another one moves the time.
        mover = threading.Thread(target=lambda: (simulator.wait_for(1), seawall_clock.advance(10)))
        mover.start()
        with pytest.raises(APITimeoutError, match="within 10"):
            Pipeline(Timeout(10)).call(ask)
        mover.join()
        assert simulator.count() == 1
