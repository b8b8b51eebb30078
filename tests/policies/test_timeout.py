"""Timeout: total and per attempt."""

from __future__ import annotations

import asyncio

import pytest

from seawall import Fallback, Pipeline, Retry, Timeout, guard
from seawall.errors import CallTimeoutError, ConfigurationError


async def hangs() -> None:
    await asyncio.Event().wait()


async def test_a_coroutine_is_cancelled_at_the_limit() -> None:
    cleaned = []

    async def cleans_up() -> None:
        try:
            await hangs()
        finally:
            cleaned.append(True)

    with pytest.raises(TimeoutError) as raised:
        await Pipeline(Timeout(0.02), name="slow").acall(cleans_up)
    assert isinstance(raised.value, CallTimeoutError)
    assert raised.value.limit == 0.02
    assert "slow" in str(raised.value)
    assert cleaned == [True]


async def test_each_attempt_has_its_limit_and_the_next_may_work() -> None:
    calls = 0

    async def first_hangs() -> str:
        nonlocal calls
        calls += 1
        if calls == 1:
            await hangs()
        return "second"

    assert await Pipeline(Retry(2, wait=0), Timeout(0.02)).acall(first_hangs) == "second"


async def test_the_total_limit_ends_a_wait_too() -> None:
    async def fails() -> None:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await Pipeline(Timeout(30), Retry(9, wait=60)).acall(fails)


async def test_a_fallback_serves_when_the_limit_has_passed() -> None:
    assert await Pipeline(Fallback("instead"), Timeout(0.02), Retry(3)).acall(hangs) == "instead"


async def test_an_outer_cancellation_stays_a_cancellation() -> None:
    task = asyncio.ensure_future(Pipeline(Retry(3, on=Exception), Timeout(60)).acall(hangs))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_wait_for_around_it_ends_it() -> None:
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(Pipeline(Retry(3, wait=60, on=Exception)).acall(hangs), 0.02)


async def test_the_guards_limits_are_in_the_canonical_order() -> None:
    calls = 0

    @guard(retry=2, attempt_timeout=0.02, timeout=10, deadline=20, fallback="instead", circuit=None)
    async def ask() -> None:
        nonlocal calls
        calls += 1
        await hangs()

    assert await ask() == "instead"
    assert calls == 2
    kinds = [type(policy).__name__ for policy in ask.pipeline.policies]  # type: ignore[attr-defined]
    assert kinds == ["Timeout", "Fallback", "Timeout", "Retry", "Timeout"]


def test_a_late_answer_of_a_function_that_nobody_could_stop_is_still_the_answer() -> None:
    assert Pipeline(Timeout(1e-9)).call(lambda: "late") == "late"


@pytest.mark.parametrize("limit", [0, -1, float("nan"), "5", None, True])
def test_bad_limits_are_refused(limit: object) -> None:
    with pytest.raises((ConfigurationError, TypeError), match="seconds"):
        Timeout(limit)  # type: ignore[arg-type]
