"""asyncio's own tools around and inside guarded calls, and what a cancellation is at each moment."""

from __future__ import annotations

import asyncio
import gc
import inspect
import subprocess
import sys
import textwrap
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from seawall import CircuitBreaker, CircuitBreakerError, Fallback, Pipeline, Retry, Timeout
from seawall.errors import CallTimeoutError


def half_open() -> CircuitBreaker:
    breaker = CircuitBreaker(2, 0)
    breaker.force("half_open")
    return breaker


async def settled() -> None:
    """Lets every task that can run do so until it waits."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_gather_and_tasks_run_side_by_side(guarding: Any) -> None:
    gate = asyncio.Event()

    @guarding
    async def ask(a: int) -> int:
        await gate.wait()
        return a

    tasks = [asyncio.create_task(ask(a)) for a in range(50)]
    together = asyncio.gather(*(ask(a) for a in range(50)))
    await settled()
    gate.set()
    assert await together == list(range(50))
    assert [await task for task in tasks] == list(range(50))


@pytest.mark.skipif(sys.version_info < (3, 11), reason="new in Python 3.11")
async def test_a_task_group_and_a_timeout(guarding: Any) -> None:
    ended = []

    @guarding
    async def hangs(name: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(name)

    @guarding
    async def fails() -> None:
        await asyncio.sleep(0)
        raise KeyError("not retried")

    with pytest.raises(BaseExceptionGroup) as raised:  # noqa: F821
        async with asyncio.TaskGroup() as group:
            group.create_task(hangs("group"))
            group.create_task(fails())
    assert [type(error) for error in raised.value.exceptions] == [KeyError]
    task = asyncio.current_task()
    assert task is not None
    before = task.cancelling()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await hangs("timeout")
    assert ended == ["group", "timeout"]
    assert task.cancelling() == before


@pytest.mark.skipif(sys.version_info < (3, 11), reason="new in Python 3.11")
async def test_a_task_group_inside_is_ended_by_the_limit(hooks: dict[str, Any]) -> None:
    ended = []

    async def child() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    @Pipeline(Retry(1, **hooks), Timeout(0.001))
    async def several() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(child())
            group.create_task(child())

    with pytest.raises(CallTimeoutError):
        await several()
    assert ended == [True, True]
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_wait_for_and_shield(guarding: Any) -> None:
    gate, got = asyncio.Event(), []

    @guarding
    async def ask() -> str:
        await gate.wait()
        got.append(True)
        return "answer"

    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(ask(), 0.001)
    inner = asyncio.ensure_future(ask())
    outer = asyncio.ensure_future(asyncio.shield(inner))
    await settled()
    outer.cancel()
    with pytest.raises(asyncio.CancelledError):
        await outer
    gate.set()
    assert await inner == "answer"
    assert got == [True]
    assert await asyncio.wait_for(ask(), 1000) == "answer"


def test_run_and_run_coroutine_threadsafe(guarding: Any) -> None:
    @guarding
    async def ask(a: int) -> int:
        await asyncio.sleep(0)
        return a

    assert asyncio.run(ask(1)) == 1
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        assert [asyncio.run_coroutine_threadsafe(ask(a), loop).result(60) for a in range(3)] == [0, 1, 2]
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(60)
        loop.close()


async def test_guarded_calls_inside_guarded_calls(guarding: Any) -> None:
    @guarding
    async def inner(a: int) -> int:
        await asyncio.sleep(0)
        return a

    @guarding
    async def outer(a: int) -> int:
        return await inner(a) + sum(await asyncio.gather(inner(1), inner(2)))

    assert await guarding(outer)(4) == 7


@pytest.mark.skipif(sys.version_info < (3, 12), reason="new in Python 3.12")
async def test_eager_tasks(guarding: Any) -> None:
    @guarding
    async def ask(waits: bool) -> str:
        if waits:
            await asyncio.sleep(0)
        return "answer"

    loop = asyncio.get_running_loop()
    loop.set_task_factory(asyncio.eager_task_factory)
    try:
        done = asyncio.create_task(ask(False))
        assert done.done()
        assert await asyncio.create_task(ask(True)) == await done == "answer"
    finally:
        loop.set_task_factory(None)


def a_call(where: str, hooks: dict[str, Any]) -> tuple[Callable[[], Any], CircuitBreaker]:
    """A guarded call that waits there, and the breaker inside."""
    breaker = half_open() if where == "probe" else CircuitBreaker(9)

    @Pipeline(Timeout(1000), Retry(1 if where == "probe" else 3, wait=500, **hooks), breaker, Timeout(900))
    async def ask() -> None:
        if where == "backoff":
            raise ConnectionError
        await asyncio.Event().wait()

    return ask, breaker


@pytest.mark.parametrize("where", ["beginning", "call", "backoff", "probe"])
async def test_a_cancellation_is_neutral_at_every_moment(where: str, hooks: dict[str, Any]) -> None:
    ask, breaker = a_call(where, hooks)
    task = asyncio.create_task(ask())
    if where != "beginning":
        await settled()
        assert not task.done()
    before = breaker.failure_count
    task.cancel("by the user")
    with pytest.raises(asyncio.CancelledError) as raised:
        await task
    if sys.version_info >= (3, 11):
        assert raised.value.args == ("by the user",)
    assert breaker.failure_count == before
    assert breaker.state == ("half_open" if where == "probe" else "closed")
    assert breaker.call(lambda: "let in") == "let in"


@pytest.mark.skipif(sys.version_info < (3, 11), reason="before, a task does not tell how often it was cancelled")
async def test_a_cancellation_goes_before_our_own_limit_that_passes_at_the_same_time(hooks: dict[str, Any]) -> None:
    @Pipeline(Fallback("instead"), Timeout(0.5), Retry(1, **hooks))
    async def hangs() -> None:
        await asyncio.Event().wait()

    task = asyncio.create_task(hangs())
    await settled()
    loop = asyncio.get_running_loop()
    both = asyncio.Event()

    def cancel() -> None:
        task.cancel()
        both.set()

    # Set later than our alarm for the same moment: both ring in one turn of the loop.
    (alarm,) = (handle for handle in loop._scheduled if "Ring" in repr(handle))  # type: ignore[attr-defined]
    loop.call_at(alarm.when(), cancel)
    await both.wait()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_call_that_survives_a_cancellation_goes_on(hooks: dict[str, Any]) -> None:
    @Pipeline(Retry(2, **hooks), CircuitBreaker(9), Timeout(1000))
    async def stubborn() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            return "cleaned up"
        return "never"

    task = asyncio.create_task(stubborn())
    await settled()
    task.cancel()
    assert await task == "cleaned up"


async def test_what_is_never_awaited_warns_as_without_a_guard(guarding: Any) -> None:
    async def ask() -> None: ...

    def told(function: Callable[[], Any]) -> list[str]:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            call = function()
            del call
            gc.collect()
        return [f"{warning.category.__name__}: {warning.message}" for warning in seen]

    assert told(guarding(ask)) == told(ask)
    assert len(told(ask)) == 1
    pipeline = guarding(ask).pipeline
    assert told(lambda: pipeline.acall(ask)) == told(ask)
    assert told(lambda: guarding(lambda: ask())()) == told(ask)


async def test_what_is_closed_before_it_began_does_not_warn(guarding: Any) -> None:
    async def ask() -> None: ...

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for call in (guarding(ask)(), guarding(ask).pipeline.acall(ask), guarding(lambda: ask())()):
            call.close()
            call.close()
            with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
                await call
            del call
        gc.collect()


async def test_a_refused_call_does_not_warn_of_the_coroutine_that_did_not_run(hooks: dict[str, Any]) -> None:
    breaker = CircuitBreaker(9)
    breaker.force("forced_open")

    @Pipeline(Retry(1, **hooks), breaker)
    async def refused() -> None:
        raise AssertionError("never runs")

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(CircuitBreakerError):
            await refused()
        gc.collect()


async def test_a_probe_runs_the_coroutine_that_was_made_at_the_call() -> None:
    calls = []

    async def probe() -> str:
        return "probed"

    class Probe:
        """What makes a coroutine is a function that can be watched."""

        __code__ = probe.__code__
        __name__, __defaults__, __kwdefaults__, __annotations__ = "probe", None, None, {}

        def __call__(self) -> Any:
            calls.append(True)
            return probe()

    function = Probe()
    guarded = half_open()(function)
    assert inspect.iscoroutinefunction(guarded)
    assert await guarded() == "probed"
    assert len(calls) == 1


async def test_wrong_arguments_are_told_at_the_call_as_without_a_guard(guarding: Any) -> None:
    async def ask(a: int) -> int:
        return a

    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        guarding(ask)()


async def test_one_call_is_awaited_once(guarding: Any) -> None:
    gate = asyncio.Event()

    @guarding
    async def ask() -> str:
        await gate.wait()
        return "answer"

    async def waits_for(call: Any) -> Any:
        return await call

    call = ask()
    tasks = [asyncio.create_task(waits_for(call)) for _ in range(2)]
    await settled()
    with pytest.raises(RuntimeError, match="being awaited already"):
        await tasks[1]
    gate.set()
    assert await tasks[0] == "answer"
    with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
        await call


async def test_a_call_that_awaits_itself_is_refused(guarding: Any) -> None:
    calls: list[Any] = []

    @guarding
    async def ask() -> None:
        await calls[0]

    calls.append(ask())
    with pytest.raises((RuntimeError, ValueError), match="already"):
        await calls[0]


async def test_send_throw_and_close_by_hand(guarding: Any) -> None:
    class Yields:
        def __await__(self) -> Iterator[str]:
            got = yield "first"
            try:
                yield f"got {got}"
            except KeyError:
                yield "caught"

    @guarding
    async def ask() -> str:
        await Yields()
        return "end"

    call = ask()
    with pytest.raises(TypeError, match="just-started"):
        call.send("too early")
    call.close()
    call = ask()
    assert call.send(None) == "first"
    assert call.send("sent") == "got sent"
    assert call.throw(KeyError()) == "caught"
    with pytest.raises(StopIteration) as ended:
        call.send(None)
    assert ended.value.value == "end"
    call = ask()
    call.send(None)
    call.close()
    assert "done" in repr(call)


async def test_closing_is_neutral_whatever_the_call_says_to_it(guarding: Any) -> None:
    calls = []

    async def stubborn() -> None:
        calls.append(True)
        try:
            await asyncio.Event().wait()
        finally:
            raise ConnectionError("while closing")

    async def ignores() -> None:
        calls.append(True)
        while True:
            try:
                await asyncio.sleep(0)
            except GeneratorExit:
                await asyncio.sleep(0)

    for function, expected in ((stubborn, ConnectionError), (ignores, RuntimeError)):
        guarded = guarding(function)
        for make in (lambda: guarded(), lambda: guarded.pipeline.acall(function), lambda: guarding(lambda: function())()):
            call = make()
            call.send(None)
            before = len(calls)
            with pytest.raises(expected, match="while closing|ignored GeneratorExit"):
                call.close()
            assert len(calls) == before
            assert "done" in repr(call)
        for policy in guarded.pipeline.policies:
            if isinstance(policy, CircuitBreaker):
                assert policy.failure_count == 0


async def test_closing_the_await_of_an_item_is_neutral(hooks: dict[str, Any]) -> None:
    breaker, calls = half_open(), []

    @Pipeline(Retry(1, **hooks), breaker)
    async def items() -> Any:
        calls.append(True)
        try:
            await asyncio.sleep(0)
            yield 1
        except GeneratorExit:
            raise ConnectionError("while closing") from None

    running = items()
    item = running.__anext__()
    item.send(None)
    with pytest.raises(ConnectionError, match="while closing"):
        item.close()
    assert (len(calls), breaker.state) == (1, "half_open")
    with pytest.raises(StopAsyncIteration):
        await running.__anext__()
    assert breaker.call(lambda: "free") == "free"


PROGRAM = """
import asyncio, sys, warnings
from seawall import CircuitBreaker, Fallback, Pipeline, Retry, Timeout, circuit, guard, retry

if sys.argv[1] == "uvloop":
    import uvloop
    run = uvloop.run if sys.version_info >= (3, 11) else lambda c: (uvloop.install(), asyncio.run(c))
else:
    run = asyncio.run

tries = 0

@guard(retry=Retry(3, wait=0.001), attempt_timeout=100)
async def ask(a):
    global tries
    tries += 1
    await asyncio.sleep(0)
    if tries == 1:
        raise ConnectionError
    return a

@Pipeline(Timeout(0.01))
async def hangs():
    await asyncio.Event().wait()

@circuit
async def items():
    yield 1
    await asyncio.sleep(0)
    yield 2

@circuit
def plain():
    yield 1

async def main():
    assert await ask(5) == 5
    try:
        await hangs()
    except TimeoutError:
        pass
    else:
        raise AssertionError
    assert [item async for item in items()] == [1, 2]
    async for item in items():
        break
    assert list(plain()) == [1]
    task = asyncio.create_task(hangs())
    await asyncio.sleep(0)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        pass
    assert await asyncio.gather(*(ask(a) for a in range(20))) == list(range(20))

run(main())
run(main())
print("clean")
"""


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_no_warning_of_any_kind_in_development_mode(loop: str) -> None:
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    # uvloop itself warns of what it takes from asyncio on newer interpreters.
    options = ["-X", "dev"] if loop == "uvloop" else ["-X", "dev", "-W", "error"]
    ended = subprocess.run(
        [sys.executable, *options, "-c", textwrap.dedent(PROGRAM), loop], capture_output=True, text=True, timeout=120
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "clean\n", "")
