"""Generators and asynchronous generators behind a pipeline: judged when they end, tried again before their first item."""

from __future__ import annotations

import contextlib
import gc
import inspect
import weakref
from collections.abc import AsyncIterator, Generator, Iterator

import pytest

from seawall import CircuitBreaker, CircuitBreakerError, Fallback, Monitor, Pipeline, Retry, Timeout, circuit, retry


class Flaky:
    """Fails so many times before its first item; counts its calls."""

    def __init__(self, failures: int) -> None:
        self.failures, self.calls = failures, 0

    def go(self) -> None:
        self.calls += 1
        if self.calls <= self.failures:
            raise ConnectionError(f"call {self.calls}")


def test_a_generator_is_tried_again_before_its_first_item():
    flaky = Flaky(2)

    @retry(3, wait=0)
    def items() -> Iterator[int]:
        flaky.go()
        yield from (1, 2, 3)

    assert (list(items()), flaky.calls) == ([1, 2, 3], 3)


def test_nothing_runs_before_the_first_item_is_asked_for():
    flaky = Flaky(0)

    @circuit
    def items() -> Iterator[int]:
        flaky.go()
        yield 1

    waiting = items()
    assert flaky.calls == 0
    assert next(waiting) == 1


def test_after_the_first_item_a_failure_is_not_tried_again():
    calls = []

    @retry(3, wait=0)
    def items() -> Iterator[int]:
        calls.append(1)
        yield 1
        raise ConnectionError("cut")

    got = []
    with pytest.raises(ConnectionError, match="cut"):
        for item in items():
            got.append(item)
    assert (got, len(calls)) == ([1], 1)


def test_send_throw_and_the_return_value_pass_through():
    @circuit
    def echo() -> Generator[str, str, str]:
        told = yield "first"
        try:
            told = yield told.upper()
        except KeyError as error:
            told = yield f"caught {error}"
        return f"ended with {told}"

    running = echo()
    assert next(running) == "first"
    assert running.send("hello") == "HELLO"
    assert running.throw(KeyError("k")) == "caught 'k'"
    with pytest.raises(StopIteration) as ended:
        running.send("bye")
    assert ended.value.value == "ended with bye"
    with pytest.raises(StopIteration):
        next(running)


def test_yield_from_gets_the_return_value():
    @retry(2, wait=0)
    def inner() -> Generator[int, None, str]:
        yield 1
        return "value"

    def outer() -> Generator[int, None, None]:
        assert (yield from inner()) == "value"
        yield 2

    assert list(outer()) == [1, 2]


def test_the_first_send_takes_none_only():
    @circuit
    def items() -> Iterator[int]:
        yield 1

    with pytest.raises(TypeError, match="just-started generator"):
        items().send("something")


def test_a_breaker_judges_a_generator_when_it_ends():
    breaker = CircuitBreaker(2, 1000)

    @breaker
    def items(fails: bool) -> Iterator[int]:
        yield 1
        if fails:
            raise ConnectionError

    for _ in range(2):
        running = items(True)
        assert next(running) == 1
        before = breaker.failure_count
        with pytest.raises(ConnectionError):
            next(running)
        assert breaker.failure_count == before + 1
    assert breaker.state == "open"
    refused = items(False)  # the circuit is asked when the first item is
    with pytest.raises(CircuitBreakerError):
        next(refused)


def test_a_generator_that_ends_well_resets_the_count():
    breaker = CircuitBreaker(2, 1000)

    @breaker
    def items(fails: bool) -> Iterator[int]:
        yield 1
        if fails:
            raise ConnectionError

    with pytest.raises(ConnectionError):
        list(items(True))
    running = items(False)
    next(running)
    assert breaker.failure_count == 1
    assert list(running) == []
    assert breaker.failure_count == 0


def half_open(calls: int = 1) -> CircuitBreaker:
    breaker = CircuitBreaker(1, 0, half_open_max_calls=calls)
    breaker.force("half_open")
    return breaker


@pytest.mark.parametrize("how", ["close", "drop", "throw"])
def test_ending_early_is_neutral_and_gives_the_probe_back(how: str):
    breaker = half_open()
    closed = []

    @breaker
    def items() -> Iterator[int]:
        try:
            yield 1
            yield 2
        finally:
            closed.append(True)

    running = items()
    assert next(running) == 1
    other = items()
    with pytest.raises(CircuitBreakerError):
        next(other)  # the one probe is out
    match how:
        case "close":
            running.close()
        case "drop":
            del running
            gc.collect()
        case _:
            with pytest.raises(ZeroDivisionError):
                running.throw(ZeroDivisionError())
    assert closed == [True]
    assert breaker.state == "half_open"
    assert next(items()) == 1


def test_an_exception_of_the_source_that_is_like_the_thrown_one_counts():
    breaker = CircuitBreaker(1, 1000)

    @breaker
    def items() -> Iterator[int]:
        try:
            yield 1
        except ZeroDivisionError:
            raise ConnectionError from None

    running = items()
    next(running)
    with pytest.raises(ConnectionError):
        running.throw(ZeroDivisionError())
    assert breaker.state == "open"


def test_what_a_plain_function_gives_is_judged_when_that_ends():
    breaker = CircuitBreaker(2, 1000)

    @breaker
    def stream(fails: bool) -> Iterator[int]:
        def inner() -> Iterator[int]:
            yield 1
            if fails:
                raise ConnectionError

        return inner()

    for _ in range(2):
        with pytest.raises(ConnectionError):
            list(stream(True))
    with pytest.raises(CircuitBreakerError):
        stream(False)  # a plain function is refused at once


def test_what_a_plain_function_gives_is_tried_again_before_its_first_item():
    flaky = Flaky(2)

    def inner() -> Iterator[int]:
        flaky.go()
        yield 1

    assert list(retry(3, wait=0)(lambda: inner())()) == [1]
    assert flaky.calls == 3


async def test_a_coroutine_that_a_plain_function_gives_is_guarded():
    flaky = Flaky(2)

    async def inner() -> int:
        flaky.go()
        return flaky.calls

    assert await retry(3, wait=0)(lambda: inner())() == 3
    breaker = CircuitBreaker(1, 1000)
    flaky.failures = 9
    guarded = breaker(lambda: inner())
    with pytest.raises(ConnectionError):
        await guarded()
    assert breaker.state == "open"


def test_a_fallback_stands_in_before_the_first_item():
    def down() -> Iterator[str]:
        raise ConnectionError
        yield

    def other() -> Iterator[str]:
        yield from ("a", "b")

    for alternative, got in ((other, ["a", "b"]), (["x", "y"], ["x", "y"]), ("sorry", ["sorry"]), ({"k": 1}, [{"k": 1}])):
        assert list(Pipeline(Fallback(alternative))(down)()) == got


def test_a_limit_ends_a_stream_at_its_next_item():
    closed = []

    @Pipeline(Timeout(1e-6))
    def items() -> Iterator[int]:
        try:
            yield 1
            yield 2
        finally:
            closed.append(True)

    running = items()
    # The limit has long passed when the first item comes: there was nobody to stop the source. The next is not taken.
    assert next(running) == 1
    with pytest.raises(TimeoutError):
        next(running)
    assert closed == [True]


def test_a_monitor_sees_a_stream_once_when_it_has_ended():
    monitor = Monitor()

    @Pipeline(monitor=monitor)
    def items() -> Iterator[int]:
        yield 1
        yield 2

    running = items()
    next(running)
    assert monitor.snapshot()["total"] == 0
    list(running)
    assert monitor.error_rate == 0.0


def test_a_generator_inside_a_context_manager():
    @contextlib.contextmanager
    @retry(2, wait=0)
    def opened() -> Iterator[str]:
        yield "resource"

    with opened() as resource:
        assert resource == "resource"
    with pytest.raises(ZeroDivisionError), opened():
        raise ZeroDivisionError


def test_a_running_generator_cannot_be_entered_again():
    @circuit
    def items() -> Iterator[int]:
        next(running)
        yield 1

    running = items()
    with pytest.raises(ValueError, match="already executing"):
        next(running)


def test_inspect_sees_what_it_saw():
    @circuit
    def items(a: int, *, b: str = "x") -> Iterator[int]:
        """Docs."""
        yield a

    @circuit
    async def aitems() -> AsyncIterator[int]:
        yield 1

    assert inspect.isgeneratorfunction(items)
    assert inspect.isasyncgenfunction(aitems)
    assert str(inspect.signature(items)).startswith("(a: 'int', *, b: 'str' = 'x')")
    assert (items.__name__, items.__doc__) == ("items", "Docs.")
    from collections import abc

    assert isinstance(items(1), abc.Generator)
    assert isinstance(aitems(), abc.AsyncGenerator)


def test_dropped_generators_leave_nothing_behind():
    class Held:
        pass

    held = Held()
    gone = weakref.ref(held)

    @circuit
    def items(kept: Held) -> Iterator[Held]:
        yield kept
        yield kept

    running = items(held)
    next(running)
    del held, running
    gc.collect()
    assert gone() is None


async def test_an_async_generator_is_tried_again_before_its_first_item():
    flaky = Flaky(2)

    @retry(3, wait=0)
    async def items() -> AsyncIterator[int]:
        flaky.go()
        for item in (1, 2, 3):
            yield item

    assert [item async for item in items()] == [1, 2, 3]
    assert flaky.calls == 3


async def test_asend_athrow_and_aclose_pass_through():
    closed = []

    @circuit
    async def echo():
        try:
            told = yield "first"
            try:
                yield told.upper()
            except KeyError as error:
                yield f"caught {error}"
        finally:
            closed.append(True)

    running = echo()
    assert await running.__anext__() == "first"
    assert await running.asend("hello") == "HELLO"
    assert await running.athrow(KeyError("k")) == "caught 'k'"
    await running.aclose()
    assert closed == [True]
    with pytest.raises(StopAsyncIteration):
        await running.__anext__()


async def test_a_breaker_judges_an_async_generator_when_it_ends():
    breaker = CircuitBreaker(1, 1000)

    @breaker
    async def items() -> AsyncIterator[int]:
        yield 1
        raise ConnectionError

    running = items()
    assert await anext(running) == 1
    assert breaker.state == "closed"
    with pytest.raises(ConnectionError):
        await anext(running)
    assert breaker.state == "open"
    with pytest.raises(CircuitBreakerError):
        await anext(items())


async def test_closing_an_async_generator_early_is_neutral():
    breaker = half_open()

    @breaker
    async def items() -> AsyncIterator[int]:
        yield 1
        yield 2

    running = items()
    assert await anext(running) == 1
    with pytest.raises(CircuitBreakerError):
        await anext(items())
    await running.aclose()
    assert breaker.state == "half_open"
    assert await anext(items()) == 1


async def test_an_async_stream_is_cancelled_at_its_limit_and_its_source_closed():
    import asyncio

    closed = []

    @Pipeline(Timeout(0.02))
    async def items() -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            closed.append(True)

    running = items()
    assert await anext(running) == 1
    with pytest.raises(TimeoutError):
        await anext(running)
    assert closed == [True]


async def test_cancelling_the_consumer_is_neutral():
    import asyncio

    breaker = half_open()
    begun = asyncio.Event()

    @breaker
    async def items() -> AsyncIterator[int]:
        yield 1
        begun.set()
        await asyncio.Event().wait()

    async def consume() -> None:
        async for _ in items():
            pass

    task = asyncio.create_task(consume())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert breaker.state == "half_open"
    assert await anext(items()) == 1


async def test_an_async_generator_has_alternatives_of_any_kind():
    async def down() -> AsyncIterator[str]:
        raise ConnectionError
        yield

    async def stream() -> AsyncIterator[str]:
        yield "a"
        yield "b"

    async def value() -> str:
        return "one"

    for alternative, got in ((stream, ["a", "b"]), (value, ["one"]), (["x", "y"], ["x", "y"]), ("sorry", ["sorry"])):
        assert [item async for item in Pipeline(Fallback(alternative))(down)()] == got


async def test_items_of_one_async_generator_are_not_awaited_at_once():
    import asyncio

    @circuit
    async def items() -> AsyncIterator[int]:
        await asyncio.sleep(0)
        yield 1

    running = items()
    results = await asyncio.gather(anext(running), anext(running), return_exceptions=True)
    assert [type(result) for result in results] == [int, RuntimeError]


def test_retry_alone_passes_any_number_of_items_on():
    @Pipeline(Retry(2, wait=0))
    def items() -> Iterator[int]:
        yield from range(1000)

    assert sum(items()) == sum(range(1000))
