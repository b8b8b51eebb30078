"""Hedge around coroutines and asynchronous generators, whose attempts run in tasks: asyncio's and trio's."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import warnings
import weakref
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
import trio.testing

from seawall import Bulkhead, CircuitBreaker, Fallback, Hedge, Pipeline, PipelineOrderWarning, Retry, Timeout, remaining, testing
from seawall.errors import CallTimeoutError

# Longer than any test waits for.
FOR_EVER = 600


def soon(**more: Any) -> Hedge:
    return Hedge(0.01, budget=1, **more)


# --- coroutines


class AsyncSlow:
    """A coroutine function whose first calls hang."""

    def __init__(self, hang: int = 1) -> None:
        self.tasks: list[asyncio.Task[Any]] = []
        self.cancelled: list[int] = []
        self.hang = hang

    async def __call__(self, answer: str = "second") -> str:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.append(task)
        number = len(self.tasks)
        if number <= self.hang:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancelled.append(number)
                raise
        return answer


async def settled() -> None:
    """Lets every task that can run do so until it waits."""
    for _ in range(10):
        await asyncio.sleep(0)


def others() -> set[asyncio.Task[Any]]:
    return asyncio.all_tasks() - {asyncio.current_task()}


async def test_a_coroutine_is_awaited_once_more_and_the_loser_is_cancelled() -> None:
    slow, hedge, room = AsyncSlow(), soon(), Bulkhead(5)
    breaker = CircuitBreaker(failure_rate=0.5, window=10, minimum_calls=5)

    @Pipeline(hedge, breaker, room)
    async def ask(answer: str) -> str:
        return await slow(answer)

    assert await ask("here") == "here"
    assert (hedge.statistics["wins"], room.active) == (1, 0)
    assert (breaker.metrics().calls, breaker.metrics().failed) == (1, 0)
    await settled()
    assert slow.cancelled == [1]
    assert not others()
    assert [attempt.outcome for attempt in ask.story.attempts] == ["given up", "ok"]


async def test_each_attempt_has_a_copy_of_the_caller_s_context() -> None:
    variable = contextvars.ContextVar("variable", default="unset")
    variable.set("outside")
    slow = AsyncSlow()

    async def inside() -> tuple[Any, ...]:
        seen = variable.get()
        variable.set("inside")
        await slow()
        return seen, remaining()

    seen, left = await Pipeline(Timeout(FOR_EVER), soon()).acall(inside)
    assert (seen, variable.get()) == ("outside", "outside")
    assert 0 < left <= FOR_EVER


async def test_cancelling_the_caller_cancels_all() -> None:
    slow, room = AsyncSlow(hang=9), Bulkhead(5)
    call = asyncio.ensure_future(Pipeline(soon(max_hedges=2), room).acall(slow))
    while len(slow.tasks) < 3:
        await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await settled()
    assert (sorted(slow.cancelled), room.active) == ([1, 2, 3], 0)
    assert not others()


async def test_limits_end_them_all_and_one_of_an_attempt_only_that() -> None:
    slow = AsyncSlow(hang=9)
    with pytest.raises(CallTimeoutError):
        await Pipeline(Timeout(1), soon()).acall(slow)
    await settled()
    assert sorted(slow.cancelled) == [1, 2]
    slow = AsyncSlow(hang=2)
    assert await Pipeline(Retry(2, wait=0), soon(max_hedges=1), Timeout(0.1)).acall(slow) == "second"
    assert not others()


async def test_losers_that_raise_later_are_no_news(caplog: pytest.LogCaptureFixture) -> None:
    stubborn = asyncio.Event()
    calls: list[int] = []

    async def work() -> str:
        calls.append(1)
        if len(calls) == 1:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                await stubborn.wait()
                raise ValueError("later") from None
        return "second"

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert await Pipeline(soon()).acall(work) == "second"
        stubborn.set()
        await settled()
        gc.collect()
    assert not others()
    assert not [record for record in caplog.records if record.name == "asyncio"]


async def test_a_failure_waits_for_the_other_task() -> None:
    begun = asyncio.Event()
    calls: list[int] = []

    async def work() -> str:
        calls.append(1)
        if len(calls) == 1:
            await begun.wait()
            raise ConnectionError
        begun.set()
        await settled()
        return "second"

    assert await Pipeline(soon()).acall(work) == "second"


async def test_an_attempt_s_own_cancellation_is_the_caller_s() -> None:
    async def cancelled() -> None:
        raise asyncio.CancelledError

    breaker = CircuitBreaker(1)
    with pytest.raises(asyncio.CancelledError):
        await Pipeline(Hedge(FOR_EVER), breaker).acall(cancelled)
    assert breaker.state == "closed"


async def test_a_plain_function_that_gives_a_coroutine_is_hedged_too() -> None:
    slow = AsyncSlow()
    guarded = Pipeline(soon())(lambda: slow())
    assert await guarded() == "second"


async def test_values_and_exceptions_are_not_held() -> None:
    class Thing:
        pass

    kept: list[weakref.ref[Thing]] = []

    async def work(fails: bool) -> Thing:
        thing = Thing()
        kept.append(weakref.ref(thing))
        if len(kept) == 1:
            await asyncio.Event().wait()
        if fails:
            raise ValueError(thing)
        return thing

    ask = Pipeline(soon())(work)
    assert isinstance(await ask(False), Thing)
    with pytest.raises(ValueError):
        await ask(True)
    await settled()
    assert not others()
    gc.collect()
    assert [ref() for ref in kept] == [None] * 3


async def test_a_stopped_clock_stands_until_something_takes_time(seawall_clock: testing.clock) -> None:
    calls: list[float] = []

    async def work() -> str:
        calls.append(seawall_clock.now)
        await seawall_clock.asleep(50 if len(calls) == 1 else 5)
        return f"call {len(calls)}"

    hedge = Hedge(10, budget=1)
    assert await Pipeline(hedge).acall(work) == "call 2"
    assert (calls, seawall_clock.now) == ([0, 10], 15)


async def test_hedging_at_p95_cuts_p99_to_under_half_for_six_percent_more_calls(seawall_clock: testing.clock) -> None:
    async def ninety_ninth(hedge: Hedge | None) -> tuple[float, int]:
        calls = 0

        async def reply() -> None:
            nonlocal calls
            calls += 1
            # Two of a hundred are twenty times slower; the others differ a little.
            await seawall_clock.asleep(2.0 if calls % 50 == 7 else 0.1 + 0.0001 * (calls * 37 % 101))

        ask = Pipeline(*([] if hedge is None else [hedge]))
        took = []
        for _ in range(1000):
            begun = seawall_clock.now
            await ask.acall(reply)
            took.append(seawall_clock.now - begun)
        return sorted(took)[990], calls

    without, _ = await ninety_ninth(None)
    hedge = Hedge(percentile=0.95)
    with_it, requests = await ninety_ninth(hedge)
    assert with_it < without / 2, (with_it, without)
    assert requests <= 1060, hedge


# --- asynchronous generators


async def test_asynchronous_generators_race_for_their_first_item() -> None:
    calls: list[int] = []
    closed: list[int] = []
    tasks: list[Any] = []

    async def items() -> AsyncIterator[int]:
        calls.append(1)
        number = len(calls)
        try:
            if number == 1:
                await asyncio.Event().wait()
            for item in range(3):
                tasks.append(asyncio.current_task())
                yield item
        finally:
            closed.append(number)

    hedge, room = soon(), Bulkhead(5)
    stream = Pipeline(hedge, room)(items)()
    assert await stream.__anext__() == 0
    assert room.active == 1
    assert [item async for item in stream] == [1, 2]
    assert (room.active, hedge.statistics["wins"], len(calls)) == (0, 1, 2)
    await settled()
    assert sorted(closed) == [1, 2]
    assert tasks[1] is asyncio.current_task()
    assert not others()


class AsyncItems:
    """An asynchronous iterator that has to be closed; the first gives its item although it is cancelled."""

    def __init__(self, made: list[AsyncItems]) -> None:
        made.append(self)
        self.hangs, self.left, self.closed = len(made) == 1, [1, 2], False

    def __aiter__(self) -> AsyncItems:
        return self

    async def __anext__(self) -> int:
        if self.hangs:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                return 0
        if not self.left:
            raise StopAsyncIteration
        return self.left.pop(0)

    async def aclose(self) -> None:
        self.closed = True


async def test_an_iterator_that_gives_an_item_too_late_is_closed() -> None:
    made: list[AsyncItems] = []

    async def nothing() -> AsyncIterator[int]:
        raise ConnectionError
        yield

    # An alternative gives what it likes where items are asked for.
    with pytest.warns(PipelineOrderWarning):
        guarded = Pipeline(soon(), Fallback(lambda: AsyncItems(made)))
    assert [item async for item in guarded(nothing)()] == [1, 2]
    await settled()
    assert [items.closed for items in made][0]
    assert not others()


async def test_an_asynchronous_generator_s_ends() -> None:
    async def fails(late: bool) -> AsyncIterator[int]:
        if late:
            yield 1
        raise ValueError

    async def nothing() -> AsyncIterator[int]:
        for item in ():
            yield item

    guarded = Pipeline(Hedge(FOR_EVER))(fails)
    with pytest.raises(ValueError):
        await guarded(False).__anext__()
    stream = guarded(True)
    assert await stream.__anext__() == 1
    with pytest.raises(ValueError):
        await stream.__anext__()
    assert [item async for item in Pipeline(soon())(nothing)()] == []
    assert not others()


async def test_cancelling_the_wait_for_a_first_item_cancels_all() -> None:
    closed: list[int] = []
    begun: list[int] = []

    async def items() -> AsyncIterator[int]:
        begun.append(1)
        try:
            await asyncio.Event().wait()
            yield 1
        finally:
            closed.append(1)

    room = Bulkhead(5)
    waiting = asyncio.ensure_future(Pipeline(soon(), room)(items)().__anext__())
    while len(begun) < 2:
        await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await settled()
    assert (len(closed), room.active) == (2, 0)
    assert not others()


# --- trio


def run(function: Any) -> Any:
    """In trio's virtual time: every sleep is over as soon as nobody has anything else to do."""
    return trio.run(function, clock=trio.testing.MockClock(autojump_threshold=0.05))


def test_under_trio_attempts_are_system_tasks_and_losers_are_cancelled() -> None:
    calls: list[int] = []
    cancelled: list[int] = []
    room = Bulkhead(5)

    async def work() -> str:
        calls.append(1)
        if len(calls) == 1:
            try:
                await trio.sleep_forever()
            except trio.Cancelled:
                cancelled.append(1)
                raise
        await trio.sleep(1)  # of virtual time
        return "second"

    async def main() -> None:
        assert await Pipeline(soon(), room).acall(work) == "second"
        await trio.testing.wait_all_tasks_blocked()
        assert (cancelled, room.active) == ([1], 0)

    run(main)


def test_a_scope_that_is_cancelled_around_the_call_cancels_all() -> None:
    cancelled: list[int] = []
    room = Bulkhead(5)

    async def work() -> None:
        try:
            await trio.sleep_forever()
        finally:
            cancelled.append(1)

    async def main() -> None:
        with trio.move_on_after(5) as scope:
            await Pipeline(soon(), room).acall(work)
        assert scope.cancelled_caught
        await trio.testing.wait_all_tasks_blocked()
        assert (len(cancelled), room.active) == (2, 0)
        with pytest.raises(CallTimeoutError):
            await Pipeline(Timeout(3), soon(), room).acall(work)
        await trio.testing.wait_all_tasks_blocked()
        assert (len(cancelled), room.active) == (4, 0)

    run(main)


def test_items_under_trio() -> None:
    calls: list[int] = []
    closed: list[int] = []

    async def items() -> AsyncIterator[int]:
        calls.append(1)
        number = len(calls)
        try:
            if number == 1:
                await trio.sleep_forever()
            for item in range(3):
                yield item
                await trio.sleep(1)  # of virtual time
        finally:
            closed.append(number)

    async def main() -> None:
        assert [item async for item in Pipeline(soon())(items)()] == [0, 1, 2]
        await trio.testing.wait_all_tasks_blocked()
        assert sorted(closed) == [1, 2]

    run(main)
