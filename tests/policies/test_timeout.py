"""Timeout: total and per attempt."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from seawall import Fallback, Pipeline, Retry, Timeout, guard, testing
from seawall.errors import CallTimeoutError


async def hangs() -> None:
    await asyncio.Event().wait()


@pytest.fixture
def hangs_on(seawall_clock: testing.clock) -> Callable[[], Awaitable[None]]:
    """A call that hangs by a clock that moves to whatever limit ends it."""
    return seawall_clock.asleep


async def test_a_coroutine_is_cancelled_at_the_limit(seawall_clock: testing.clock) -> None:
    cleaned = []

    async def cleans_up() -> None:
        try:
            await seawall_clock.asleep()
        finally:
            cleaned.append(seawall_clock.now)

    with pytest.raises(TimeoutError) as raised:
        await Pipeline(Timeout(20), name="slow").acall(cleans_up)
    assert isinstance(raised.value, CallTimeoutError)
    assert raised.value.limit == 20
    assert "slow" in str(raised.value)
    assert cleaned == [20]


async def test_a_limit_ends_a_call_in_real_time_too() -> None:
    with pytest.raises(CallTimeoutError):
        await Pipeline(Timeout(0.02)).acall(hangs)


async def test_each_attempt_has_its_limit_and_the_next_may_work(hangs_on: Callable[[], Awaitable[None]]) -> None:
    calls = 0

    async def first_hangs() -> str:
        nonlocal calls
        calls += 1
        if calls == 1:
            await hangs_on()
        return "second"

    assert await Pipeline(Retry(2, wait=0), Timeout(20)).acall(first_hangs) == "second"


@pytest.mark.filterwarnings("ignore:the Timeout of:seawall.PipelineOrderWarning")
async def test_the_total_limit_ends_a_wait_too() -> None:
    async def fails() -> None:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await Pipeline(Timeout(30), Retry(9, wait=60)).acall(fails)


async def test_a_fallback_serves_when_the_limit_has_passed(hangs_on: Callable[[], Awaitable[None]]) -> None:
    assert await Pipeline(Fallback("instead"), Timeout(20), Retry(3)).acall(hangs_on) == "instead"


async def test_an_outer_cancellation_stays_a_cancellation() -> None:
    task = asyncio.ensure_future(Pipeline(Retry(3, on=Exception), Timeout(60)).acall(hangs))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_wait_for_around_it_ends_it() -> None:
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(Pipeline(Retry(3, wait=60, on=Exception)).acall(hangs), 0.02)


async def test_the_guards_limits_are_in_the_canonical_order(hangs_on: Callable[[], Awaitable[None]]) -> None:
    calls = 0

    @guard(retry=2, attempt_timeout=2, timeout=10, deadline=20, fallback="instead", circuit=None)
    async def ask() -> None:
        nonlocal calls
        calls += 1
        await hangs_on()

    assert await ask() == "instead"
    assert calls == 2
    kinds = [type(policy).__name__ for policy in ask.pipeline.policies]  # type: ignore[attr-defined]
    assert kinds == ["Timeout", "Fallback", "Timeout", "Retry", "Timeout"]


def test_a_late_answer_of_a_function_that_nobody_could_stop_is_still_the_answer() -> None:
    assert Pipeline(Timeout(1e-9)).call(lambda: "late") == "late"
