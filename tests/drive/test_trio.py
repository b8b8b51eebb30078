"""trio, and anyio on both of its backends: calls, waits, limits and cancellation in the caller's own task."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import pytest
import trio
import trio.testing

from seawall import CircuitBreaker, Fallback, Pipeline, Retry, Timeout, guard, retry
from seawall.errors import CallTimeoutError


def run(function: Callable[[], Any]) -> Any:
    """In trio's virtual time: every sleep is over as soon as nobody has anything else to do."""
    return trio.run(function, clock=trio.testing.MockClock(autojump_threshold=0))


def half_open() -> CircuitBreaker:
    breaker = CircuitBreaker(2, 0)
    breaker.force("half_open")
    return breaker


def test_a_call_and_its_waits(hooks: dict[str, Any]) -> None:
    tasks = []

    @Pipeline(Retry(3, wait=0.001, **hooks), CircuitBreaker(9))
    async def ask(a: int) -> int:
        tasks.append(trio.lowlevel.current_task())
        await trio.lowlevel.checkpoint()
        if len(tasks) < 3:
            raise ConnectionError
        return a

    async def main() -> None:
        assert await ask(5) == 5
        assert set(tasks) == {trio.lowlevel.current_task()}

    run(main)


def test_a_limit_ends_an_attempt(hooks: dict[str, Any]) -> None:
    cleaned = []

    @Pipeline(Retry(1, **hooks), Timeout(60), name="slow")
    async def hangs() -> None:
        try:
            await trio.sleep_forever()
        finally:
            cleaned.append(True)

    async def main() -> None:
        with pytest.raises(CallTimeoutError) as raised:
            await hangs()
        assert raised.value.limit == 60
        assert cleaned == [True]
        # No scope of ours is left behind.
        assert trio.current_effective_deadline() == math.inf
        await trio.lowlevel.checkpoint()

    run(main)


def test_each_attempt_has_its_own_limit() -> None:
    calls = []

    @Pipeline(Timeout(1000), Retry(3, wait=0), Timeout(10))
    async def ask() -> str:
        calls.append(trio.current_effective_deadline() - trio.current_time())
        if len(calls) < 3:
            await trio.sleep_forever()
        return "third"

    async def main() -> None:
        assert await ask() == "third"

    run(main)
    assert [round(limit) for limit in calls] == [10, 10, 10]


def test_the_total_limit_covers_all_attempts_and_a_fallback_serves() -> None:
    calls = []

    @Pipeline(Fallback("instead"), Timeout(10), Retry(9, wait=0))
    async def hangs() -> None:
        calls.append(True)
        await trio.sleep_forever()

    async def main() -> None:
        assert await hangs() == "instead"

    run(main)
    assert len(calls) == 1


def test_a_call_that_is_in_time_keeps_its_answer_and_its_errors() -> None:
    @Pipeline(Timeout(10))
    async def ask(fails: bool) -> str:
        await trio.sleep(9)  # of virtual time
        if fails:
            raise KeyError("its own")
        return "in time"

    async def main() -> None:
        assert await ask(False) == "in time"
        with pytest.raises(KeyError, match="its own"):
            await ask(True)

    run(main)


def test_a_nursery_inside_is_cancelled_at_the_limit() -> None:
    ended = []

    async def child(name: str) -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append(name)

    @Pipeline(Timeout(5))
    async def several() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(child, "a")
            nursery.start_soon(child, "b")

    async def main() -> None:
        with pytest.raises(CallTimeoutError):
            await several()

    run(main)
    assert sorted(ended) == ["a", "b"]


def test_guarded_calls_in_a_nursery() -> None:
    breaker = CircuitBreaker(99)
    got = []

    @Pipeline(Timeout(50), Retry(3, wait=0.001), breaker, Timeout(20))
    async def ask(a: int) -> None:
        await trio.sleep(a)
        got.append(a)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for a in (3, 1, 2):
                nursery.start_soon(ask, a)

    run(main)
    assert got == [1, 2, 3]


@pytest.mark.parametrize("limits", [(), (Timeout(1000),)], ids=["no limit", "limit"])
@pytest.mark.parametrize("where", ["call", "wait"])
def test_a_cancellation_from_outside_stays_one_and_is_neutral(where: str, limits: Any, hooks: dict[str, Any]) -> None:
    breaker = half_open() if where == "call" else CircuitBreaker(9)

    @Pipeline(*limits, Retry(1 if where == "call" else 3, wait=500, **hooks), breaker)
    async def ask() -> None:
        if where == "wait":
            raise ConnectionError
        await trio.sleep_forever()

    async def main() -> None:
        with trio.move_on_after(10) as scope:
            await ask()
        assert scope.cancelled_caught
        await trio.lowlevel.checkpoint()

    run(main)
    assert breaker.state == ("half_open" if where == "call" else "closed")
    assert breaker.call(lambda: "the probe is free") == "the probe is free"


def test_an_outer_limit_that_passes_at_the_same_time_goes_first() -> None:
    @Pipeline(Fallback("instead"), Timeout(10))
    async def hangs() -> None:
        await trio.sleep_forever()

    async def main() -> None:
        # The outer scope is older; when both have passed the outer one owns the cancellation.
        with trio.CancelScope() as scope:
            with trio.CancelScope(shield=True):
                await trio.lowlevel.checkpoint()
            scope.deadline = trio.current_time() + 5
            await hangs()
        assert scope.cancelled_caught

    run(main)


def test_cancelled_before_it_begins() -> None:
    @Pipeline(Timeout(10), Retry(3))
    async def ask() -> None:
        await trio.lowlevel.checkpoint()

    async def main() -> None:
        with trio.CancelScope() as scope:
            scope.cancel()
            await ask()
        assert scope.cancelled_caught

    run(main)


def test_the_items_of_an_async_generator_are_limited() -> None:
    closed = []

    @Pipeline(Timeout(10))
    async def items() -> AsyncIterator[int]:
        try:
            yield 1
            await trio.sleep(5)  # of virtual time
            yield 2
            await trio.sleep_forever()
        finally:
            closed.append(True)

    async def main() -> None:
        running, got = items(), []
        with pytest.raises(CallTimeoutError):
            async for item in running:
                # Between the items no scope of ours is open.
                assert trio.current_effective_deadline() == math.inf
                got.append(item)
        assert (got, closed) == ([1, 2], [True])

    run(main)


def test_limits_inside_limits() -> None:
    @Pipeline(Timeout(100))
    async def outer() -> str:
        with pytest.raises(CallTimeoutError):
            await inner()
        return "went on"

    @Pipeline(Timeout(5))
    async def inner() -> None:
        await trio.sleep_forever()

    async def main() -> None:
        assert await outer() == "went on"

    run(main)


def test_a_plain_function_that_gives_a_coroutine_is_limited() -> None:
    async def hangs() -> None:
        await trio.sleep_forever()

    async def main() -> None:
        with pytest.raises(CallTimeoutError):
            await Pipeline(Timeout(5))(lambda: hangs())()
        with pytest.raises(CallTimeoutError):
            await Pipeline(Timeout(5)).acall(hangs)

    run(main)


def test_trio_run_takes_a_guarded_function() -> None:
    @guard(timeout=1000, attempt_timeout=100)
    async def main(a: int) -> int:
        await trio.lowlevel.checkpoint()
        return a

    assert trio.run(main, 7) == 7


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_anyio_on_both_backends(backend: str, hooks: dict[str, Any]) -> None:
    calls = []

    @retry(3, wait=0.001, **hooks)
    async def flaky() -> str:
        calls.append(True)
        await anyio.sleep(0)
        if len(calls) < 3:
            raise ConnectionError
        return "there"

    @Pipeline(Timeout(0.01))
    async def hangs() -> None:
        await anyio.sleep_forever()

    @Pipeline(Timeout(1000), Retry(3, **hooks))
    async def hangs_on() -> None:
        await anyio.sleep_forever()

    async def main() -> None:
        assert await flaky() == "there"
        with pytest.raises(CallTimeoutError):
            await hangs()
        with anyio.move_on_after(0.01) as scope:
            await hangs_on()
        assert scope.cancelled_caught
        with pytest.raises(TimeoutError):
            with anyio.fail_after(0.01):
                await hangs_on()
        async with anyio.create_task_group() as group:
            group.start_soon(hangs_on)
            await anyio.lowlevel.checkpoint()
            group.cancel_scope.cancel()
        with anyio.CancelScope() as cancelled:
            cancelled.cancel()
            await hangs_on()
        assert cancelled.cancelled_caught

    anyio.run(main, backend=backend)
