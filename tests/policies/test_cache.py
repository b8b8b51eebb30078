"""Cache around functions: what counts as the same question, who is given what, and what is never kept."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import datetime as dt
import enum
import gc
import os
import pickle
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from seawall import Cache, Chaos, Fallback, Monitor, Pipeline, PipelineOrderWarning, RateLimit, Retry, Timeout, guard, testing
from seawall._cache import CacheStats
from seawall.errors import BulkheadFullError, CallTimeoutError, ConfigurationError


def until(there: Callable[[], bool]) -> None:
    """Looks until it is so."""
    while not there():
        threading.Event().wait(0.001)


class Counted:
    """A function that counts its calls and gives a new object each time."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def __call__(self, *args: Any, **kwargs: Any) -> list[Any]:
        self.calls.append((args, kwargs))
        return [len(self.calls)]


def test_an_answer_is_given_again_until_its_time_is_over():
    cache, asked = Cache(ttl=300), Counted()
    ask = guard(cache=cache, retry=None, circuit=None)(asked)
    with testing.clock() as time:
        first = ask("why?", model="a")
        assert ask("why?", model="a") is first, "the same object"
        time.advance(299)
        assert ask("why?", model="a") is first
        assert ask("why?", model="b") is not first
        time.advance(1)
        assert ask("why?", model="a") is not first
    assert len(asked.calls) == 3
    assert cache.stats == CacheStats(hits=2, misses=3, stale=0, joined=0, items=2, bytes=cache.stats.bytes)
    assert cache.stats.bytes > 0


class Colour(enum.Enum):
    RED = 1


@dataclasses.dataclass
class Prompt:
    text: str
    tags: list[str]


class Odd:
    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 1


DAY = dt.date(2026, 1, 2)
SAME = [
    (({"b": 1, "a": [2]},), ({"a": [2], "b": 1},)),
    (({1, 2, 3},), ({3, 2, 1},)),
    ((Prompt("x", ["y"]),), (Prompt("x", ["y"]),)),
    ((Colour.RED, DAY), (Colour.RED, dt.date(2026, 1, 2))),
    (("half \ud800",), ("half \ud800",)),
    ((10**30, 0.5, b"x", None), (10**30, 0.5, b"x", None)),
]
DIFFERENT = [(1,), (1.0,), (True,), ("1",), (b"1",), ([1],), ((1,),), (1, None), ({"a": 1},), ({1},), (Colour.RED,), (2**64 + 1,)]
DIFFERENT += [
    (Prompt("x", []),),
    (Prompt("y", []),),
    (DAY,),
    (dt.datetime(2026, 1, 2),),
    ("ab", "c"),
    ("a", "bc"),
    ([], []),
    ([[]],),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_equal_data_are_the_same_question(one: tuple[Any, ...], other: tuple[Any, ...]):
    ask = Pipeline(Cache())(Counted())
    assert ask(*one) is ask(*other)


def test_data_that_differ_in_anything_are_different_questions():
    asked = Counted()
    ask = Pipeline(Cache())(asked)
    answers = [ask(*question) for question in DIFFERENT]
    assert len(asked.calls) == len(DIFFERENT)
    assert [ask(*question) for question in DIFFERENT] == answers


def test_functions_and_objects_are_themselves():
    cache = Cache()
    one, other = Counted(), Counted()
    assert Pipeline(cache)(one)("x") is not Pipeline(cache)(other)("x")

    class Model:
        @guard(cache=cache, retry=None, circuit=None)
        def ask(self, text: str) -> object:
            return object()

    a, b = Model(), Model()
    assert a.ask("x") is a.ask("x")
    assert a.ask("x") is not b.ask("x")
    pipeline = Pipeline(cache)
    assert pipeline.call(one.__call__, "y") is pipeline.call(one.__call__, "y"), "a method is another object each time"
    assert pipeline.call(one, "z") is not pipeline.call(other, "z")


def test_what_cannot_be_told_apart_is_refused_and_a_key_function_says_what_counts():
    ask = Pipeline(Cache())(Counted())
    with pytest.raises(TypeError, match=r"arguments of type Odd.*Cache\(key="):
        ask(Odd())
    nested: list[Any] = []
    nested.append(nested)
    with pytest.raises(RecursionError, match="holds itself"):
        ask(nested)
    cache = Cache(key=lambda prompt, **_: None if prompt == "now" else prompt.lower())
    asked = Counted()
    ask = Pipeline(cache)(asked)
    assert ask("Why?", trace=Odd()) is ask("why?")
    assert ask("now") is not ask("now")
    assert (cache.stats.misses, len(asked.calls)) == (1, 3)
    assert cache.forget("why?") == 1
    assert cache.forget("why?") == 0


def test_forgetting():
    cache, asked = Cache(), Counted()
    ask, other = Pipeline(cache)(asked), Pipeline(cache)(Counted())
    first = ask("x", n=1)
    other("x", n=1)
    ask("y")
    assert cache.forget("x") == 0
    assert cache.forget("x", n=1) == 2
    assert ask("x", n=1) is not first
    cache.clear()
    assert (cache.stats.items, cache.stats.bytes) == (0, 0)

    def clears() -> list[Any]:
        cache.clear()
        return asked()

    assert Pipeline(cache)(clears)() is not None
    assert cache.stats.items == 0, "what was under way is not kept"


def test_bounds():
    cache, asked = Cache(max_items=2), Counted()
    ask = Pipeline(cache)(asked)
    ask("a"), ask("b"), ask("a"), ask("c")
    assert len(asked.calls) == 3
    ask("a"), ask("c")
    assert len(asked.calls) == 3
    ask("b")
    assert len(asked.calls) == 4
    cache = Cache(max_bytes=3_000)
    text = Pipeline(cache)(lambda length: "x" * length)
    for length in (1_000, 1_100, 1_200, 10_000):
        text(length)
    assert cache.stats.items == 2
    assert cache.stats.bytes <= 3_000


def test_errors_are_never_kept_and_stale_answers_stand_in_for_those_that_pass():
    fails: list[Exception] = []

    def asked(text: str) -> object:
        if fails:
            raise fails[0]
        return object()

    cache = Cache(10, stale_if_error=100)
    ask = Pipeline(cache, name="ask")(asked)
    with testing.clock() as time:
        first = ask("x")
        fails.append(TimeoutError("slow"))
        with pytest.raises(TimeoutError):
            ask("y")
        time.advance(10)
        assert ask("x") is first
        assert [step.event for step in ask.story] == ["cache.miss", "cache.stale"]
        fails[0] = ValueError("a mistake")
        with pytest.raises(ValueError):
            ask("x")
        fails[0] = BulkheadFullError("full")
        assert ask("x") is first
        time.advance(100)
        with pytest.raises(BulkheadFullError):
            ask("x")
        fails.clear()
        assert ask("x") is not first
    assert cache.stats[:4] == (0, 7, 2, 0)


def test_fallbacks_and_injected_answers_are_for_those_who_asked_alone():
    cache, down = Cache(), [True]

    def asked(text: str) -> str:
        if down:
            raise TimeoutError
        return "primary"

    ask = Pipeline(cache, Fallback(lambda text: "instead"))(asked)
    assert ask("x") == "instead"
    down.clear()
    assert [ask("x"), ask("x")] == ["primary", "primary"]
    assert cache.stats[:2] == (1, 2)
    injected = Pipeline(cache := Cache(), Chaos(result="made up", result_rate=1.0, enabled=True))(asked)
    assert injected("x") == "made up"
    assert cache.stats.items == 0


def test_values_that_are_used_up_are_not_given_twice():
    cache = Cache()
    ask = Pipeline(cache)(lambda: iter([1, 2]))
    assert [list(ask()), list(ask())] == [[1, 2], [1, 2]]
    assert cache.stats.items == 0


def test_a_hit_is_a_call_without_attempts():
    monitor = Monitor()
    ask = guard(cache=Cache(name="answers"), monitor=monitor, name="ask")(Counted())
    ask("x"), ask("x"), ask("x")
    assert ask.statistics["calls"] == 3
    assert ask.statistics["attempts"] == 1
    assert ask.statistics["last_attempts"] == 0
    assert monitor.snapshot()["total"] == 3
    assert monitor.snapshot()["attempts"] == 1


def test_a_hundred_equal_calls_at_once_are_one_from_threads():
    cache, entered, go = Cache(), threading.Event(), threading.Event()
    calls = []

    def asked(text: str) -> object:
        calls.append(text)
        entered.set()
        assert go.wait(60)
        return object()

    ask = Pipeline(cache)(asked)
    with ThreadPoolExecutor(100) as pool:
        answers = [pool.submit(ask, "x") for _ in range(100)]
        assert entered.wait(60)
        until(lambda: cache.waiting == 99)
        go.set()
        first = answers[0].result()
        assert all(answer.result() is first for answer in answers)
    assert calls == ["x"]
    stats = cache.stats
    assert (stats.misses, stats.hits + stats.joined) == (1, 99)


async def test_a_hundred_equal_calls_at_once_are_one_in_a_loop():
    cache, calls, go = Cache(), [], asyncio.Event()

    async def asked(text: str) -> object:
        calls.append(text)
        await go.wait()
        return object()

    async def lets_go() -> None:
        while cache.waiting < 99:
            await asyncio.sleep(0)
        go.set()

    ask = Pipeline(cache)(asked)
    *answers, _ = await asyncio.gather(*(ask("x") for _ in range(100)), lets_go())
    assert len(set(map(id, answers))) == 1
    assert (calls, cache.stats.joined) == (["x"], 99)
    assert await ask("x") is answers[0]


async def test_whoever_is_cancelled_hands_on_what_others_wait_for():
    cache, calls, go = Cache(), [], asyncio.Event()

    async def asked() -> int:
        calls.append(len(calls))
        await go.wait()
        return calls[-1]

    ask = Pipeline(cache)(asked)
    tasks = [asyncio.create_task(ask()) for _ in range(4)]
    while cache.waiting < 3:
        await asyncio.sleep(0)
    tasks[0].cancel()
    tasks[2].cancel()
    while len(calls) < 2:
        await asyncio.sleep(0)
    go.set()
    await asyncio.wait(tasks)
    assert [task.cancelled() or task.result() for task in tasks] == [True, 1, True, 1]
    assert (cache.waiting, calls) == (0, [0, 1])


async def test_one_that_fails_hands_on_too():
    cache, calls = Cache(), []

    async def asked() -> int:
        calls.append(len(calls))
        await asyncio.sleep(0)
        if len(calls) < 3:
            raise TimeoutError(str(len(calls)))
        return 7

    ask = Pipeline(cache)(asked)
    answers = await asyncio.gather(*(ask() for _ in range(5)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [TimeoutError, TimeoutError, int, int, int]
    assert len(calls) == 3


async def test_a_deadline_ends_the_wait_for_another():
    cache, go = Cache(), asyncio.Event()

    async def asked() -> int:
        await go.wait()
        return 1

    slow = Pipeline(cache)(asked)
    leader = asyncio.create_task(slow())
    await asyncio.sleep(0)
    hurried = Pipeline(Timeout(0.01), cache)
    with pytest.raises(CallTimeoutError):
        await hurried.acall(asked)
    assert not leader.done()
    go.set()
    assert await leader == 1


def test_nobody_waits_for_himself():
    depth = []

    def asked(text: str) -> int:
        depth.append(text)
        return len(depth) if len(depth) == 3 else ask(text)

    ask = Pipeline(Cache())(asked)
    assert ask("x") == 3


def test_a_plain_function_that_gives_a_coroutine_keeps_nobody_waiting():
    cache = Cache()

    async def answer() -> int:
        return 1

    ask = Pipeline(cache)(lambda: answer())
    one, two = ask(), ask()

    async def both() -> list[int]:
        return [await one, await two]

    assert asyncio.run(both()) == [1, 1]
    assert (cache.stats.items, cache.waiting) == (0, 0)


def test_generators_are_played_again_to_the_end():
    cache, calls = Cache(), []

    @Pipeline(cache)
    def ask(text: str) -> Iterator[str]:
        calls.append(text)
        yield from text
        return "end"

    def read(stream: Any) -> list[Any]:
        items = []
        while True:
            try:
                items.append(next(stream))
            except StopIteration as end:
                return [*items, end.value]

    assert [read(ask("abc")), read(ask("abc"))] == [["a", "b", "c", "end"]] * 2
    assert calls == ["abc"]
    closed = ask("xyz")
    next(closed)
    closed.close()
    assert read(ask("xyz"))[-1] == "end"
    assert calls == ["abc", "xyz", "xyz"]
    assert list(zip(ask("uv"), ask("uv"), strict=True)) == [("u", "u"), ("v", "v")], "nobody waits for his own other hand"


def test_a_generator_that_breaks_off_or_is_told_something_is_not_kept():
    cache = Cache(max_bytes=10_000)

    @Pipeline(cache)
    def ask(how: str) -> Iterator[Any]:
        heard = yield 1
        if how == "fails":
            raise ConnectionError
        for _ in range(1_000 if how == "long" else 1):
            yield heard

    with pytest.raises(ConnectionError):
        list(ask("fails"))
    told = ask("told")
    assert [next(told), told.send(5), next(told, None)] == [1, 5, None]
    assert list(ask("told")) == [1, None]
    assert cache.stats.items == 1
    assert len(list(ask("long"))) == 1_001
    assert cache.stats.items == 1


async def test_asynchronous_generators_are_played_again():
    cache, calls = Cache(), []

    @Pipeline(cache)
    async def ask(text: str) -> AsyncIterator[str]:
        calls.append(text)
        for letter in text:
            await asyncio.sleep(0)
            yield letter

    for _ in range(2):
        assert [letter async for letter in ask("abc")] == ["a", "b", "c"]
    stream = ask("xy")
    assert await anext(stream) == "x"
    await stream.aclose()
    assert [letter async for letter in ask("xy")] == ["x", "y"]
    assert calls == ["abc", "xy", "xy"]


def test_in_trio():
    trio = pytest.importorskip("trio")
    cache, calls = Cache(), []

    async def asked() -> int:
        calls.append(1)
        while cache.waiting < 9:
            await trio.lowlevel.checkpoint()
        return len(calls)

    ask = Pipeline(cache)(asked)

    async def main() -> list[int]:
        answers: list[int] = []

        async def one() -> None:
            answers.append(await ask())

        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(one)
        return answers

    assert trio.run(main) == [1] * 10


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_child_has_the_answers_and_waits_for_nobody():
    cache, entered, go = Cache(), threading.Event(), threading.Event()

    def asked(text: str) -> str:
        if text == "slow" and not entered.is_set():
            entered.set()
            assert go.wait(60)
        return text

    ask = Pipeline(cache)(asked)
    ask("x")
    thread = threading.Thread(target=ask, args=("slow",))
    thread.start()
    assert entered.wait(60)
    child = os.fork()
    if child == 0:
        right = ask("x") == "x" and cache.stats.hits == 1 and ask("slow") == "slow" and cache.waiting == 0
        os._exit(0 if right else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    go.set()
    thread.join()


def test_orders_copies_and_pictures():
    cache = Cache(60, max_items=5, stale_if_error=5, name="answers")
    assert repr(cache) == "<Cache(60, max_items=5, stale_if_error=5, name='answers'): 0 kept, 0 hits, 0 misses>"
    assert copy.deepcopy(cache) is cache
    assert pickle.loads(pickle.dumps(cache)) is cache
    assert repr(pickle.loads(pickle.dumps(Cache(None)))) == "<Cache(None): 0 kept, 0 hits, 0 misses>"
    with pytest.warns(PipelineOrderWarning, match="the Retry stands outside the Cache"):
        Pipeline(Retry(3), cache)
    with pytest.warns(PipelineOrderWarning, match="the RateLimit stands outside the Cache"):
        Pipeline(RateLimit(3), cache)
    ask = guard(cache=cache, deadline=5, fallback=[1])(Counted())
    assert [type(policy) for policy in ask.pipeline.policies][:3] == [Timeout, Cache, Fallback]
    with pytest.raises(ConfigurationError, match="cache must be a seawall.Cache or None"):
        guard(cache=True)
    with pytest.raises(ConfigurationError, match="stale_if_error needs ttl"):
        Cache(None, stale_if_error=5)
    ask("x"), ask("x")
    assert "50% answered" in cache._repr_html_()


def test_what_is_kept_is_seen_by_the_collector():
    class Answer:
        pass

    def run() -> weakref.ref[Any]:
        cache = Cache()

        def asked() -> Any:
            answer = Answer()
            answer.cache = cache
            return answer

        ask = Pipeline(cache)(asked)
        cache.clear()
        return weakref.ref(ask())

    ref = run()
    gc.collect()
    assert ref() is None


def test_it_is_told_and_explained():
    with testing.record() as events:
        cache = Cache(name="answers")
        ask = Pipeline(cache, name="ask")(Counted())
        ask("x"), ask("x")
    assert events.names == ["cache.miss", "cache.hit"]
