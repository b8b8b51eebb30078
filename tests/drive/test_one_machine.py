"""The machine of a call that is over is the next call's: whatever the calls of one function do, none sees another's."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from seawall import CircuitBreaker, CircuitBreakerError, Fallback, Pipeline, Retry, testing


def pipeline(attempts: int = 3) -> Pipeline:
    return Pipeline(Fallback(lambda *given: ("other", *given)), Retry(attempts, wait=0), CircuitBreaker(1000))


class Failing:
    """Fails so often for each argument, then gives it back."""

    def __init__(self, times: int) -> None:
        self.times = times
        self.left: dict[Any, int] = {}

    def __call__(self, given: Any) -> Any:
        left = self.left.setdefault(given, self.times)
        if left:
            self.left[given] = left - 1
            raise ConnectionError(given)
        return given


def test_calls_inside_each_other_each_have_their_own():
    failing = Failing(2)

    @pipeline()
    def deep(depth: int) -> Any:
        below = deep(depth - 1) if depth else ()
        return (failing(depth), below)

    for _ in range(3):
        failing.left.clear()
        # Every level fails twice and is tried again, while those around it wait.
        assert deep(3) == (3, (2, (1, (0, ()))))
        assert deep.statistics["last_attempts"] == 3


def test_calls_beside_each_other_each_have_their_own():
    inside, go_on = threading.Semaphore(0), threading.Event()
    failing = Failing(2)

    @pipeline()
    def call(given: str) -> Any:
        if failing.left.get(given) == 1:
            inside.release()
            assert go_on.wait(60)
        return failing(given)

    for turn in range(3):
        go_on.clear()
        names, came = [f"{turn}-{number}" for number in range(6)], {}
        threads = [threading.Thread(target=lambda name=name: came.update({name: call(name)})) for name in names]
        for thread in threads:
            thread.start()
        # All of them are in the middle of their second attempt.
        for _ in threads:
            assert inside.acquire(timeout=60)
        go_on.set()
        for thread in threads:
            thread.join(60)
        assert came == {name: name for name in names}


def test_an_interrupted_call_leaves_nothing_to_the_next():
    ends: list[BaseException | str] = []

    @pipeline()
    def call(given: str) -> str:
        end = ends.pop(0)
        if isinstance(end, BaseException):
            raise end
        return end

    for _ in range(3):
        ends[:] = [ConnectionError("1"), KeyboardInterrupt()]
        with pytest.raises(KeyboardInterrupt):
            call("a")
        ends[:] = [ConnectionError("1"), ConnectionError("2"), "fine"]
        assert call("a") == "fine"
        assert call.statistics["last_attempts"] == 3
        assert len(call.story.attempts) == 3


def test_what_a_test_asked_for_is_not_asked_of_later_calls():
    call = pipeline(4)(Failing(3))
    with testing.cap_attempts(2):
        assert call("a") == ("other", "a")
    assert call("b") == "b"
    assert call.statistics["last_attempts"] == 4


def test_a_refusal_between_failures_is_a_refusal():
    breaker = CircuitBreaker(1000)
    call = Pipeline(Retry(3, wait=0), breaker)(Failing(2))
    for turn in range(3):
        assert call(f"a{turn}") == f"a{turn}"
        breaker.force("forced_open")
        with pytest.raises(CircuitBreakerError):
            call("b")
        breaker.reset()
        assert call(f"c{turn}") == f"c{turn}"


def test_coroutines_and_generators_each_have_their_own():
    failing = Failing(2)

    @pipeline()
    async def call(given: str) -> Any:
        await asyncio.sleep(0)
        return failing(given)

    async def many() -> list[Any]:
        return list(await asyncio.gather(*(call(f"{number}") for number in range(20))))

    for _ in range(3):
        failing.left.clear()
        assert asyncio.run(many()) == [f"{number}" for number in range(20)]

    @pipeline()
    def items(given: str) -> Iterator[Any]:
        yield failing(given)
        yield "end"

    for _ in range(3):
        failing.left.clear()
        opened = [items("x"), items("y")]
        assert [next(items) for items in opened] == ["x", "y"]
        assert [list(items) for items in opened] == [["end"], ["end"]]
        assert [list(items) for items in opened] == [[], []]


def test_a_generator_that_failed_stays_over():
    @Pipeline(Retry(2, wait=0))
    def items() -> Iterator[int]:
        yield 1
        raise KeyError

    for _ in range(2):
        given = items()
        assert next(given) == 1
        with pytest.raises(KeyError):
            next(given)
        assert list(given) == []
