"""Nothing is held after a call has ended, and what refers to itself is collected."""

from __future__ import annotations

import asyncio
import gc
import sys
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from seawall import CircuitBreaker, CircuitBreakerError, Fallback, Pipeline, Retry, Timeout, circuit, guard, retry


@pytest.fixture(autouse=True, scope="module")
def _quick_collections() -> Iterator[None]:
    """What was there before is none of a test's business, and takes the collector long to look at."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


class Thing:
    """What can be referred to weakly."""


def works(thing: Thing, *more: Any, **named: Any) -> Thing:
    return thing


def fails(thing: Thing, *more: Any, **named: Any) -> None:
    raise KeyError


async def works_async(thing: Thing, *more: Any, **named: Any) -> Thing:
    await asyncio.sleep(0)
    return thing


async def fails_async(thing: Thing, *more: Any, **named: Any) -> None:
    await asyncio.sleep(0)
    raise KeyError


def items(thing: Thing, *more: Any, **named: Any) -> Iterator[Thing]:
    yield thing
    yield thing


def items_fail(thing: Thing, *more: Any, **named: Any) -> Iterator[Thing]:
    yield thing
    raise KeyError


async def async_items(thing: Thing, *more: Any, **named: Any) -> AsyncIterator[Thing]:
    yield thing
    await asyncio.sleep(0)
    yield thing


async def async_items_fail(thing: Thing, *more: Any, **named: Any) -> AsyncIterator[Thing]:
    yield thing
    raise KeyError


async def run_out(function: Any, *args: Any, **kwargs: Any) -> None:
    """Calls a function of any kind, and forgets what it gives and raises."""
    try:
        given = function(*args, **kwargs)
        if hasattr(given, "__anext__"):
            async for _ in given:
                pass
        elif hasattr(given, "__next__") and not hasattr(given, "__await__"):
            for _ in given:
                pass
        elif hasattr(given, "__await__"):
            await given
    except (KeyError, CircuitBreakerError):
        pass


FUNCTIONS = [works, fails, works_async, fails_async, items, items_fail, async_items, async_items_fail]


@pytest.fixture(params=FUNCTIONS, ids=lambda f: f.__name__)
def function(request: pytest.FixtureRequest) -> Any:
    return request.param


def neutral(guarding: Any) -> None:
    """A breaker keeps its last failure, and that its frames, until the next: here nothing is to count."""
    for policy in guarding.policies:
        if isinstance(policy, CircuitBreaker):
            policy.reset()


async def test_arguments_and_results_are_let_go(guarding: Any, function: Any) -> None:
    guarded, thing, named = guarding(function), Thing(), Thing()
    gone = [weakref.ref(thing), weakref.ref(named)]
    await run_out(guarded, thing, 1, named=named)
    neutral(guarded.pipeline)
    del thing, named
    assert [reference() for reference in gone] == [None, None]


async def test_what_is_left_in_the_middle_is_let_go(guarding: Any, function: Any) -> None:
    guarded, thing = guarding(function), Thing()
    gone = weakref.ref(thing)
    given = None
    try:
        given = guarded(thing)
        if hasattr(given, "__anext__"):
            await given.__anext__()
            await given.aclose()
        elif hasattr(given, "send"):
            given.send(None)
            given.close()
    except (KeyError, StopIteration):
        pass
    neutral(guarded.pipeline)
    del given, thing
    gc.collect()
    assert gone() is None


def growth(call: Callable[[], Any], times: int) -> tuple[int, int]:
    """How many objects more the collector and the allocator know after so many calls."""

    async def again(times: int) -> None:
        for _ in range(times):
            await run_out(call)

    # Each in a loop of its own: a loop keeps some alarms that were taken back. As often before, to fill the free lists.
    asyncio.run(again(times))
    grown = []
    # What is kept is kept each time; what else allocates in between does not.
    for _ in range(3):
        gc.collect()
        objects, blocks = len(gc.get_objects()), sys.getallocatedblocks()
        asyncio.run(again(times))
        gc.collect()
        grown.append((len(gc.get_objects()) - objects, sys.getallocatedblocks() - blocks))
    return min(objects for objects, _ in grown), min(blocks for _, blocks in grown)


def test_nothing_grows(guarding: Any, function: Any) -> None:
    guarded, thing = guarding(function), Thing()
    times = 500
    before = sys.getrefcount(thing), sys.getrefcount(guarded), sys.getrefcount(function)
    objects, blocks = growth(lambda: guarded(thing, 1, named=2), times)
    neutral(guarded.pipeline)
    # One object a call would be as many as there are calls.
    assert objects < times // 10
    assert blocks < times // 2
    assert (sys.getrefcount(thing), sys.getrefcount(guarded), sys.getrefcount(function)) == before


def test_a_hundred_thousand_calls_leave_nothing() -> None:
    guarded, failing = guard(works), retry(2, wait=0, on=KeyError)(fails)
    thing = Thing()

    def many() -> None:
        for _ in range(100_000):
            guarded(thing)
        for _ in range(10_000):
            try:
                failing(thing)
            except KeyError:
                pass

    guarded(thing)
    gc.collect()
    blocks = sys.getallocatedblocks()
    many()
    gc.collect()
    assert sys.getallocatedblocks() - blocks < 1000


def test_a_hundred_thousand_awaits_leave_nothing() -> None:
    @guard
    async def ask(thing: Thing) -> Thing:
        return thing

    async def many(times: int) -> None:
        thing = Thing()
        for _ in range(times):
            await ask(thing)

    asyncio.run(many(10))
    gc.collect()
    blocks = sys.getallocatedblocks()
    asyncio.run(many(100_000))
    gc.collect()
    assert sys.getallocatedblocks() - blocks < 1000


def collected(make: Callable[[Thing], Any]) -> bool:
    """Whether what refers to itself, and to a thing, is found by the collector."""
    gc.collect()
    thing = Thing()
    gone = weakref.ref(thing)
    kept = make(thing)
    del thing
    gc.collect()
    assert gone() is not None, "kept as long as it is in use"
    del kept
    gc.collect()
    return gone() is None


def a_hook_around(thing: Thing, **arguments: str) -> Any:
    """A guarded function whose policy has a hook that refers to the function."""
    cell: list[Any] = [thing]

    def hook(*args: Any) -> bool:
        return bool(cell)

    @Pipeline(Retry(2, **dict.fromkeys(arguments, hook)))
    def ask() -> None: ...

    cell.append(ask)
    return ask


@pytest.mark.parametrize("argument", ["on", "wait", "stop", "on_result", "giveup", "before", "after", "before_sleep"])
def test_cycles_through_a_retry(argument: str) -> None:
    assert collected(lambda thing: a_hook_around(thing, **{argument: ""}))


def test_cycles_through_closures() -> None:
    def make(thing: Thing) -> Any:
        @guard
        def recursive(depth: int) -> Any:
            return thing if depth == 0 else recursive(depth - 1)

        assert recursive(3) is thing
        return recursive

    assert collected(make)


def test_cycles_through_a_fallback() -> None:
    def make(thing: Thing) -> Any:
        cell: list[Any] = [thing]

        def alternative() -> Any:
            return cell

        fallback = Fallback(alternative, [cell], on=lambda error: bool(cell), on_result=lambda value: bool(cell))
        cell.append(Pipeline(fallback)(works))
        cell.append(fallback)
        return cell

    assert collected(make)


def test_cycles_through_attributes() -> None:
    def make(thing: Thing) -> Any:
        guarded = circuit(lambda: None)
        guarded.thing, guarded.itself = thing, guarded
        return guarded

    assert collected(make)


@pytest.mark.parametrize("function", [works_async, items, async_items], ids=lambda f: f.__name__)
@pytest.mark.parametrize("begun", [False, True])
async def test_cycles_through_calls_that_wait(function: Any, begun: bool, guarding: Any) -> None:
    def make(thing: Thing) -> Any:
        cell: list[Any] = [thing]
        call = guarding(function)(cell)
        cell.append(call)
        if begun and hasattr(call, "__anext__"):
            with pytest.raises(StopIteration):
                call.__anext__().send(None)
        elif begun:
            call.send(None)
        return cell

    if function is works_async and not begun:
        with pytest.warns(RuntimeWarning, match="never awaited"):
            assert collected(make)
    else:
        assert collected(make)


async def test_cycles_through_the_await_of_an_item(guarding: Any) -> None:
    async def slow(cell: list[Any]) -> AsyncIterator[None]:
        await asyncio.sleep(0)
        yield

    def make(thing: Thing) -> Any:
        cell: list[Any] = [thing]
        item = guarding(slow)(cell).__anext__()
        item.send(None)
        cell.append(item)
        return cell

    assert collected(make)


def test_cycles_through_a_waiting_limit(hooks: dict[str, Any]) -> None:
    async def main() -> bool:
        @Pipeline(Retry(2, **hooks), Timeout(1000))
        async def waits(cell: list[Any]) -> None:
            await cell[0].future

        def make(thing: Thing) -> Any:
            thing.future = asyncio.get_running_loop().create_future()
            cell: list[Any] = [thing]
            call = waits(cell)
            cell.append(call)
            call.send(None)
            # The loop holds the alarm, and that what waits for it.
            return call

        thing = Thing()
        gone = weakref.ref(thing)
        call = make(thing)
        del thing
        call.close()
        del call
        gc.collect()
        return gone() is None

    assert asyncio.run(main())


@pytest.mark.parametrize("begin", [lambda pipeline, ask: pipeline(ask)(), Pipeline.acall], ids=["guarded", "acall"])
def test_a_pipeline_outlives_its_names_while_a_call_waits(begin: Any) -> None:
    def alternative() -> str:
        return kept[0]

    kept = ["from the closure"]

    async def main() -> str:
        async def ask() -> None:
            gc.collect()
            await asyncio.sleep(0)
            gc.collect()
            raise KeyError

        pipeline = Pipeline(Fallback(alternative, on=lambda error: bool(kept)), Retry(2, on=lambda error: bool(kept), wait=0))
        call = begin(pipeline, ask)
        del pipeline
        gc.collect()
        return await call

    assert asyncio.run(main()) == "from the closure"


def test_the_collector_may_come_at_any_time(guards: Any) -> None:
    async def coroutine(a: int) -> int:
        await asyncio.sleep(0)
        return a

    def several(a: int) -> Iterator[int]:
        yield a
        yield a

    async def each(guarding: Any, a: int) -> None:
        assert await guarding(coroutine)(a) == a
        assert list(guarding(several)(a)) == [a, a]
        assert guarding(lambda a: [a])(a) == [a]

    class OwnRetry(Retry):
        pass

    class OwnFallback(Fallback):
        pass

    class OwnPipeline(Pipeline):
        pass

    async def main() -> None:
        for make in guards:
            for a in range(20):
                await each(make(), a)
        for a in range(20):
            await each(OwnPipeline(OwnFallback(lambda a: a, on=KeyError), OwnRetry(2, on=KeyError, before=lambda state: None)), a)

    threshold = gc.get_threshold()
    gc.set_threshold(1)
    try:
        asyncio.run(main())
    finally:
        gc.set_threshold(*threshold)
