"""Context variables, tracebacks, exceptions, warnings, recursion: as without a guard."""

from __future__ import annotations

import asyncio
import contextvars
import subprocess
import sys
import threading
import traceback
import warnings
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from seawall import CircuitBreaker, CircuitBreakerError, Fallback, Pipeline, Retry, circuit, retry

seen: contextvars.ContextVar[str] = contextvars.ContextVar("seen", default="unset")


async def test_what_is_set_inside_is_visible_to_the_caller(guarding: Any) -> None:
    def sets(value: str) -> None:
        seen.set(value)

    async def sets_async(value: str) -> None:
        await asyncio.sleep(0)
        seen.set(value)

    def items(value: str) -> Iterator[None]:
        seen.set(value)
        yield

    async def async_items(value: str) -> AsyncIterator[None]:
        seen.set(value)
        yield

    seen.set("before")
    guarding(sets)("sync")
    assert seen.get() == "sync"
    await guarding(sets_async)("async")
    assert seen.get() == "async"
    list(guarding(items)("items"))
    assert seen.get() == "items"
    assert [item async for item in guarding(async_items)("async items")] == [None]
    assert seen.get() == "async items"


async def test_each_attempt_and_each_hook_sees_the_callers_context() -> None:
    story = []

    @retry(3, wait=0, before=lambda state: story.append(seen.get()))
    def ask() -> None:
        story.append(seen.get())
        if len(story) < 6:
            raise ConnectionError

    @retry(3, wait=0.001, before=lambda state: story.append(seen.get()))
    async def ask_async() -> None:
        await asyncio.sleep(0)
        story.append(seen.get())
        if len(story) < 6:
            raise ConnectionError

    seen.set("the caller's")
    ask()
    assert story == ["the caller's"] * 6
    story.clear()
    await ask_async()
    assert story == ["the caller's"] * 6
    story.clear()
    # A task has its own copy.
    task = asyncio.create_task(ask_async())
    seen.set("later")
    await task
    assert story == ["the caller's"] * 6


def test_thread_locals_are_the_callers_threads(guarding: Any) -> None:
    local = threading.local()
    local.value = "mine"
    assert guarding(lambda: (local.value, threading.get_ident()))() == ("mine", threading.get_ident())


def frames(error: BaseException) -> list[str]:
    return [frame.name for frame in traceback.extract_tb(error.__traceback__)]


def deep(depth: int) -> None:
    if depth == 0:
        raise KeyError("deep")
    deep(depth - 1)


async def deep_async(depth: int) -> None:
    await asyncio.sleep(0)
    deep(depth)


def deep_items(depth: int) -> Iterator[None]:
    yield
    deep(depth)


async def deep_async_items(depth: int) -> AsyncIterator[None]:
    yield
    deep(depth)


async def test_the_traceback_has_the_functions_frames_and_no_others(guarding: Any) -> None:
    async def raised_by(function: Any) -> list[str]:
        try:
            if function.__name__ == "deep":
                function(2)
            elif function.__name__ == "deep_async":
                await function(2)
            elif function.__name__ == "deep_items":
                list(function(2))
            else:
                [item async for item in function(2)]
        except KeyError as error:
            return frames(error)
        raise AssertionError

    for function in (deep, deep_async, deep_items, deep_async_items):
        # A comprehension is a frame of its own before Python 3.12, with a guard and without.
        assert await raised_by(guarding(function)) == await raised_by(function)


def test_after_retries_the_traceback_is_that_of_the_last_attempt() -> None:
    calls = []

    @retry(3, wait=0)
    def ask() -> None:
        calls.append(1)
        first() if len(calls) == 1 else last()

    def first() -> None:
        raise ConnectionError("first")

    def last() -> None:
        raise ConnectionError("last")

    with pytest.raises(ConnectionError, match="last") as raised:
        ask()
    assert frames(raised.value)[1:] == ["ask", "last"]
    assert raised.value.__context__ is None
    assert raised.value.__cause__ is None


def test_cause_and_context_stay_as_they_were(guarding: Any) -> None:
    cause = ValueError("cause")

    def raises() -> None:
        try:
            raise LookupError("context")
        except LookupError:
            raise KeyError("error") from cause

    with pytest.raises(KeyError) as raised:
        guarding(raises)()
    assert raised.value.__cause__ is cause
    assert isinstance(raised.value.__context__, LookupError)
    # An exception that is being handled outside is the context, as without a guard.
    outside = RuntimeError("outside")
    with pytest.raises(KeyError) as raised:
        try:
            raise outside
        except RuntimeError:
            guarding(deep)(0)
    assert raised.value.__context__ is outside


def test_a_refusal_has_no_context_of_its_own_making() -> None:
    breaker = CircuitBreaker(1, 1000)
    guarded = breaker(deep)
    with pytest.raises(KeyError):
        guarded(0)
    with pytest.raises(CircuitBreakerError) as raised:
        guarded(0)
    assert raised.value.__context__ is None
    assert frames(raised.value)[1:] == []


def test_one_exception_object_raised_over_and_over_grows_no_more_than_without_a_guard(guarding: Any) -> None:
    def length(function: Any) -> int:
        error = KeyError("shared")
        for _ in range(1000):
            try:
                function(error)
            except (KeyError, CircuitBreakerError):
                # What the caller does about it, with a guard and without.
                error.__traceback__ = None
        try:
            function(error)
        except (KeyError, CircuitBreakerError) as raised:
            return len(frames(raised))
        raise AssertionError

    def raises(error: BaseException) -> None:
        raise error

    for policy in guarding.policies:
        if isinstance(policy, CircuitBreaker):
            policy.force("disabled")
    guarded = guarding(raises)
    assert length(guarded) == length(raises)


def test_notes_and_attached_failures_do_not_pile_up() -> None:
    error = ConnectionError("shared")

    def raises() -> None:
        raise error

    guarded = Pipeline(Fallback(raises), Retry(2, wait=0))(raises)
    for _ in range(5):
        with pytest.raises(ConnectionError):
            guarded()
    assert len(error.__notes__) == 1
    assert len(error.alternatives) == 1


def test_a_warning_points_at_the_caller(guarding: Any) -> None:
    @guarding
    def warns() -> None:
        warnings.warn("look", UserWarning, stacklevel=2)

    with pytest.warns(UserWarning, match="look") as recorded:
        warns()
    assert recorded[0].filename == __file__


def test_generator_exit_stop_iteration_and_system_exit_pass(guarding: Any) -> None:
    class Interrupt(BaseException):
        pass

    def raises(error: BaseException) -> None:
        raise error

    for error in (SystemExit(3), GeneratorExit(), KeyboardInterrupt(), Interrupt()):
        with pytest.raises(type(error)) as raised:
            guarding(raises)(error)
        assert raised.value is error
    stop = StopIteration("value")
    with pytest.raises(StopIteration) as stopped:
        guarding(raises)(stop)
    assert stopped.value is stop


async def test_stop_iteration_in_a_coroutine_or_generator_is_a_runtime_error(guarding: Any) -> None:
    async def coroutine() -> None:
        raise StopIteration

    def items() -> Iterator[None]:
        yield
        raise StopIteration

    async def async_items() -> AsyncIterator[None]:
        yield
        raise StopAsyncIteration

    with pytest.raises(RuntimeError, match="coroutine raised StopIteration"):
        await guarding(coroutine)()
    with pytest.raises(RuntimeError, match="generator raised StopIteration"):
        list(guarding(items)())
    with pytest.raises(RuntimeError, match="async generator raised StopAsyncIteration"):
        [item async for item in guarding(async_items)()]


async def test_recursion_ends_with_an_error(guarding: Any) -> None:
    @guarding
    def recursive(depth: int) -> int:
        return recursive(depth + 1)

    @guarding
    async def recursive_async(depth: int) -> int:
        return await recursive_async(depth + 1)

    @guarding
    def recursive_items(depth: int) -> Iterator[int]:
        yield from recursive_items(depth + 1)

    # A breaker that has seen enough of them says so.
    with pytest.raises((RecursionError, CircuitBreakerError)):
        recursive(0)
    with pytest.raises((RecursionError, CircuitBreakerError)):
        await recursive_async(0)
    with pytest.raises((RecursionError, CircuitBreakerError)):
        list(recursive_items(0))

    for policy in recursive.pipeline.policies:
        if isinstance(policy, CircuitBreaker):
            policy.reset()

    @guarding
    def deep_enough(depth: int) -> int:
        return 0 if depth == 0 else 1 + deep_enough(depth - 1)

    assert deep_enough(100) == 100


PROGRAM = """
import asyncio, sys, threading
from seawall import Fallback, Pipeline, Retry, CircuitBreaker, Timeout

pipelines = [
    Pipeline(),
    Pipeline(Fallback("x", on=KeyError), Timeout(99), Retry(2, wait=0), CircuitBreaker(99999), Timeout(9)),
    Pipeline(Retry(2, wait=0, before=lambda state: None), CircuitBreaker(99999)),
]

def run():
    for pipeline in pipelines:
        @pipeline
        def recursive():
            recursive()

        @pipeline
        async def recursive_async():
            await recursive_async()

        @pipeline
        def items():
            yield from items()

        @pipeline
        async def async_items():
            async for item in async_items():
                yield item

        async def take():
            async for _ in async_items():
                pass

        def by_pipeline():
            pipeline.call(by_pipeline)

        def by_breaker():
            breaker.call(by_breaker)

        @pipeline
        def by_method():
            by_method.__call__()

        breaker = CircuitBreaker(99999)
        plain = (recursive, lambda: list(items()), by_pipeline, by_breaker, by_method)
        for call in (*plain, lambda: asyncio.run(recursive_async()), lambda: asyncio.run(take())):
            try:
                call()
            except RecursionError:
                print("RecursionError")

for limit, size in ((1000, 0), (100_000, 0), (3000, 1 << 20)):
    sys.setrecursionlimit(limit)
    threading.stack_size(size)
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
"""


def test_recursion_ends_with_an_error_whatever_the_limit_and_the_stack() -> None:
    """The interpreter counts frames; a raised limit or a small stack must not end the process."""
    ended = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stdout.split()) == (0, ["RecursionError"] * 63), ended.stderr[-2000:]


def test_a_decorated_function_is_called_by_its_name_in_errors() -> None:
    @circuit
    def ask(a: int) -> None: ...

    with pytest.raises(TypeError, match=r"ask\(\) missing 1 required positional argument"):
        ask()  # type: ignore[call-arg]
