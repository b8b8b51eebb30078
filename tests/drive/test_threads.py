"""Many threads through one guarded object, and an object that is entered, closed or dropped while it runs."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from seawall import CircuitBreaker, Monitor, Pipeline, Retry, Timeout

THREADS = 8


def together(work: Callable[[int], Any]) -> list[Any]:
    """Runs work in many threads that begin at once; what each gave or raised."""
    barrier, results = threading.Barrier(THREADS), [None] * THREADS

    def run(number: int) -> None:
        barrier.wait(60)
        try:
            results[number] = work(number)
        except BaseException as error:
            results[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(THREADS)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    finally:
        sys.setswitchinterval(interval)
    return results


def test_one_function_in_many_threads(guarding: Any) -> None:
    guarded = guarding(lambda a, *, b: (a, b))

    def work(number: int) -> bool:
        return all(guarded(a, b=number) == (a, number) for a in range(300))

    assert together(work) == [True] * THREADS


def test_failures_in_many_threads_are_all_counted(hooks: dict[str, Any]) -> None:
    breaker, monitor = CircuitBreaker(10**6), Monitor(1000)

    @Pipeline(Retry(3, wait=0, **hooks), breaker, monitor=monitor)
    def fails(mine: list[int]) -> None:
        mine.append(1)
        raise ConnectionError(len(mine))

    def work(number: int) -> int:
        tries = 0
        for _ in range(50):
            mine: list[int] = []
            with pytest.raises(ConnectionError) as raised:
                fails(mine)
            assert raised.value.args == (3,)
            tries += len(mine)
        return tries

    assert together(work) == [150] * THREADS
    assert breaker.failure_count == 150 * THREADS
    seen = monitor.snapshot()
    assert (seen["total"], seen["errors"], seen["retries"]) == (50 * THREADS, 50 * THREADS, 100 * THREADS)


def test_each_item_of_one_generator_goes_to_one_thread(guarding: Any) -> None:
    def numbers() -> Iterator[int]:
        for number in range(2000):
            # Somewhere to change threads.
            len(str(number))
            yield number

    running = guarding(numbers)()

    def work(number: int) -> list[int]:
        mine = []
        while True:
            try:
                mine.append(next(running))
            except StopIteration:
                return mine
            except ValueError as error:
                assert "already executing" in str(error)

    taken = together(work)
    assert sorted(number for mine in taken for number in mine) == list(range(2000))


def test_one_coroutine_gives_its_result_once(guarding: Any) -> None:
    async def ask() -> str:
        for number in range(200):
            len(str(number))
        return "answer"

    for _ in range(20):
        call = guarding(ask)()

        def work(number: int, call: Any = call) -> Any:
            return call.send(None)

        results = together(work)
        answers = [result for result in results if isinstance(result, StopIteration)]
        assert [answer.value for answer in answers] == ["answer"]
        assert all(isinstance(result, (RuntimeError, ValueError)) for result in results if result not in answers)


def test_loops_in_many_threads(guarding: Any) -> None:
    @guarding
    async def ask(a: int) -> int:
        await asyncio.sleep(0)
        return a

    async def main() -> list[int]:
        return await asyncio.gather(*(ask(a) for a in range(50)))

    assert together(lambda number: asyncio.run(main())) == [list(range(50))] * THREADS


def test_a_half_open_breaker_lets_one_thread_in(hooks: dict[str, Any]) -> None:
    breaker = CircuitBreaker(2, 0)
    breaker.force("half_open")
    inside, done, most = [], threading.Event(), []

    @Pipeline(Retry(1, **hooks), breaker)
    def probe() -> str:
        inside.append(1)
        most.append(len(inside))
        done.wait(60)
        return "probed"

    def work(number: int) -> str:
        try:
            return probe()
        except Exception as error:
            # The last of the refused ones lets the probe go.
            refused.append(number)
            if len(refused) == THREADS - 1:
                done.set()
            return type(error).__name__

    refused: list[int] = []
    results = together(work)
    assert sorted(results) == ["CircuitBreakerError"] * (THREADS - 1) + ["probed"]
    assert most == [1]
    assert breaker.state == "closed"


def test_what_runs_cannot_be_entered_or_closed(guarding: Any) -> None:
    told = []

    def items() -> Iterator[int]:
        for enter in (
            lambda: next(running),
            lambda: running.send(None),
            lambda: running.throw(KeyError()),
            lambda: running.close(),
        ):
            with pytest.raises(ValueError, match="already executing"):
                enter()
        told.append(repr(running))
        gc.collect()
        yield 1

    running = guarding(items)()
    assert list(running) == [1]

    async def coroutine() -> int:
        for enter in (lambda: call.send(None), lambda: call.throw(KeyError()), lambda: call.close()):
            with pytest.raises(ValueError, match="already executing"):
                enter()
        told.append(repr(call))
        assert call.cr_running
        gc.collect()
        return 1

    call = guarding(coroutine)()
    with pytest.raises(StopIteration) as ended:
        call.send(None)
    assert ended.value.value == 1
    assert all("running" in text for text in told)


def test_what_runs_may_lose_its_last_name(guarding: Any) -> None:
    def items() -> Iterator[int]:
        kept.clear()
        gc.collect()
        yield 1

    async def coroutine() -> int:
        kept.clear()
        gc.collect()
        return 1

    kept: list[Any] = [guarding(items)()]
    assert next(kept[0]) == 1
    kept.append(guarding(coroutine)())
    with pytest.raises(StopIteration):
        kept[0].send(None)
    kept.append(guarding(lambda: (kept.clear(), gc.collect())))
    kept[0]()


async def test_what_is_deleted_may_call_back(guarding: Any) -> None:
    """Arguments, items and results whose end runs code that comes back to what is just being left."""
    story: list[str] = []

    class Thing:
        def __init__(self, back: Callable[[], Any]) -> None:
            self.back = back

        def __del__(self) -> None:
            try:
                self.back()
            except Exception as error:
                story.append(type(error).__name__)

    def items(thing: Thing) -> Iterator[Thing]:
        yield Thing(lambda: next(kept[0]))
        yield Thing(lambda: kept[0].close())

    async def coroutine(thing: Thing) -> None:
        await asyncio.sleep(0)

    async def async_items(thing: Thing) -> AsyncIterator[int]:
        yield 1

    kept: list[Any] = [None]
    kept[0] = guarding(items)(Thing(lambda: next(kept[0])))
    for _ in kept[0]:
        pass
    kept[0] = guarding(coroutine)(Thing(lambda: kept[0].send(None)))
    await kept[0]
    kept[0] = guarding(coroutine)(Thing(lambda: kept[0].close()))
    kept[0].close()
    kept[0] = guarding(async_items)(Thing(lambda: kept[0].__anext__().send(None)))
    assert [item async for item in kept[0]] == [1]
    kept[0] = guarding(async_items)(Thing(lambda: kept[0].aclose().send(None)))
    await kept[0].aclose()
    kept.clear()
    gc.collect()
    # Each came back while what it came back to was being left, or when there was nothing left of it; a close has no more to say.
    assert story == ["ValueError", "StopIteration", "ValueError", "ValueError", "StopAsyncIteration", "StopIteration"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_an_error_in_an_end_is_nobodys_failure(guarding: Any) -> None:
    class Broken:
        def __del__(self) -> None:
            raise KeyError("in __del__")

    async def coroutine(thing: Broken) -> str:
        await asyncio.sleep(0)
        return "fine"

    def items(thing: Broken) -> Iterator[Broken]:
        yield Broken()

    assert guarding(lambda thing: "fine")(Broken()) == "fine"
    assert await guarding(coroutine)(Broken()) == "fine"
    assert len(list(guarding(items)(Broken()))) == 1
    # Left in the middle.
    call = guarding(coroutine)(Broken())
    call.send(None)
    del call
    running = guarding(items)(Broken())
    next(running)
    del running
    gc.collect()


async def test_what_is_dropped_while_an_error_is_on_its_way_keeps_it() -> None:
    """The interpreter lets go of what lies on its stack with the error already set."""

    @Pipeline(Timeout(1000), Retry(2))
    async def waits() -> None:
        await asyncio.Event().wait()

    def suspended(call: Any) -> Any:
        call.send(None)
        return call

    def raises() -> None:
        raise KeyError("on its way")

    pipeline = Pipeline(Retry(2))
    for _ in range(3):
        with pytest.raises(KeyError, match="on its way"):
            [suspended(waits()), raises()]
        with pytest.raises(KeyError, match="on its way"), pytest.warns(RuntimeWarning, match="never awaited"):
            [pipeline.acall(waits), raises()]


def test_weak_references_hear_of_the_end(guarding: Any) -> None:
    heard: list[str] = []

    async def coroutine() -> None: ...

    def items() -> Iterator[int]:
        yield 1

    async def async_items() -> AsyncIterator[int]:
        yield 1

    kept = [guarding(coroutine)(), guarding(items)(), guarding(async_items)(), guarding(items)]
    kept[0].close()
    references = [weakref.ref(thing, lambda _: heard.append("gone")) for thing in kept]
    kept.clear()
    assert heard == ["gone"] * 4
    assert all(reference() is None for reference in references)


PROGRAM = """
import asyncio, gc, logging, threading, faulthandler
from seawall import CircuitBreaker, Fallback, Pipeline, Retry, Timeout, circuit, guard
faulthandler.enable()
gc.set_threshold(5)
# How long a step takes on a busy machine is not asked here.
logging.getLogger("asyncio").setLevel(logging.ERROR)

def told(state): pass

pipelines = [lambda: Pipeline(), lambda: Pipeline(Fallback("x"), Timeout(99), Retry(2, wait=0), CircuitBreaker(99), Timeout(9)),
             lambda: Pipeline(Retry(3, wait=0, before=told), CircuitBreaker(99))]

async def main():
    asyncio.get_running_loop().slow_callback_duration = 3600  # a slow machine is no finding
    for make in pipelines:
        pipeline = make()
        tries = []
        @pipeline
        def plain(fails):
            tries.append(fails)
            if fails and len(tries) % 2:
                raise ConnectionError
            return [fails]
        @pipeline
        async def coroutine(fails):
            await asyncio.sleep(0)
            return plain(fails)
        @pipeline
        def items():
            yield from ([1], [2], [3])
        @pipeline
        async def async_items():
            for item in items():
                await asyncio.sleep(0)
                yield item
        for i in range(60):
            for call in (lambda: plain(i % 2), lambda: list(items()), lambda: items().close(), lambda: next(items())):
                try:
                    call()
                except ConnectionError:
                    pass
            results = await asyncio.gather(*(coroutine(j % 2) for j in range(3)), return_exceptions=True)
            assert [item async for item in async_items()] == [[1], [2], [3]]
            async for _ in async_items():
                break
            call = coroutine(0)
            call.send(None)
            del call
            call = coroutine(0)
            call.close()

threads = [threading.Thread(target=lambda: asyncio.run(main())) for _ in range(4)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
gc.collect()
print("whole")
"""


def test_a_checking_allocator_finds_nothing() -> None:
    """Freed memory is overwritten and bounds are checked: what is used after its end or written beyond it shows."""
    environment = {**os.environ, "PYTHONMALLOC": "debug"}
    ended = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", PROGRAM], capture_output=True, text=True, timeout=120, env=environment
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "whole\n", "")
