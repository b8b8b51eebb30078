"""The determinism kit: clock, seeds, no waits, few attempts, a record, and their fixtures."""

from __future__ import annotations

import asyncio
import math
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from seawall import (
    Bulkhead,
    CircuitBreaker,
    Fallback,
    Pipeline,
    Retry,
    Timeout,
    _virtual_time,
    retry,
    testing,
    wait_fixed,
    wait_random,
)
from seawall.errors import CallTimeoutError, CircuitBreakerError, ConfigurationError


def fails() -> None:
    raise ConnectionError


async def afails() -> None:
    raise ConnectionError


# --- the clock


def test_waits_move_the_clock_and_nobody_sleeps(seawall_clock: testing.clock) -> None:
    seen = []

    @retry(3, wait=wait_fixed(3600))
    def ask() -> None:
        seen.append(seawall_clock.now)
        raise ConnectionError

    with pytest.raises(ConnectionError):
        ask()
    assert seen == [0, 3600, 7200]


async def test_waits_of_coroutines_move_it_too(seawall_clock: testing.clock) -> None:
    seen = []

    @retry(3, wait=wait_fixed(3600))
    async def ask() -> None:
        seen.append(seawall_clock.now)
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await ask()
    assert seen == [0, 3600, 7200]


def test_breakers_go_by_it(seawall_clock: testing.clock) -> None:
    breaker = CircuitBreaker(1, recovery_timeout=30)
    with pytest.raises(ConnectionError):
        breaker.call(fails)
    seawall_clock.advance(29.999)
    with pytest.raises(CircuitBreakerError) as raised:
        breaker.call(fails)
    assert raised.value.retry_after == pytest.approx(0.001)
    seawall_clock.advance(timedelta(milliseconds=1))
    assert breaker.state == "half_open"
    assert breaker.call(lambda: 5) == 5
    assert breaker.state == "closed"


async def test_tasks_wait_in_the_order_of_their_times(seawall_clock: testing.clock) -> None:
    ends = []

    async def sleeps(name: str, seconds: float) -> None:
        await seawall_clock.asleep(seconds)
        ends.append((name, seawall_clock.now))
        await asyncio.sleep(0)
        await seawall_clock.asleep(seconds)
        ends.append((name, seawall_clock.now))

    @retry(2, wait=4)
    async def asks() -> None:
        ends.append(("ask", seawall_clock.now))
        raise ConnectionError

    failed, *_ = await asyncio.gather(asks(), sleeps("long", 7), sleeps("short", 3), return_exceptions=True)
    assert isinstance(failed, ConnectionError)
    assert ends == [("ask", 0), ("short", 3), ("ask", 4), ("short", 6), ("long", 7), ("long", 14)]


async def test_a_limit_ends_what_takes_longer_and_nothing_else(seawall_clock: testing.clock) -> None:
    async def takes(seconds: float) -> float:
        await asyncio.sleep(0)  # a limit alone makes no time pass
        await seawall_clock.asleep(seconds)
        return seawall_clock.now

    pipeline = Pipeline(Timeout(10))
    assert await pipeline.acall(takes, 9.5) == 9.5
    with pytest.raises(CallTimeoutError):
        await pipeline.acall(takes, 10.5)
    assert seawall_clock.now == 19.5
    with pytest.raises(CallTimeoutError):
        await pipeline.acall(takes, math.inf)
    assert seawall_clock.now == 29.5


async def test_advancing_by_hand_ends_waits_and_limits(seawall_clock: testing.clock) -> None:
    forever = asyncio.Event()
    task = asyncio.ensure_future(Pipeline(Timeout(60)).acall(forever.wait))
    await asyncio.sleep(0)
    seawall_clock.advance(59)
    for _ in range(5):
        await asyncio.sleep(0)
    assert not task.done()
    seawall_clock.advance(1)
    with pytest.raises(CallTimeoutError):
        await task


@pytest.fixture
def moved_as_an_alarm_is_set(seawall_clock: testing.clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """As another thread may do: two seconds go by between a look at the clock and the alarm that follows from it."""
    real = _virtual_time.alarm

    def late(*given: Any, **named: Any) -> Any:
        seawall_clock.advance(2)
        return real(*given, **named)

    monkeypatch.setattr(_virtual_time, "alarm", late)


async def test_a_limit_that_is_over_as_its_alarm_is_set_ends_the_call(
    seawall_clock: testing.clock, moved_as_an_alarm_is_set: None
) -> None:
    with pytest.raises(CallTimeoutError):
        await asyncio.wait_for(Pipeline(Timeout(2)).acall(asyncio.get_running_loop().create_future), 60)
    assert seawall_clock.now == 2


async def test_a_limit_that_is_over_as_its_alarm_is_set_ends_the_wait_for_a_place(
    seawall_clock: testing.clock, moved_as_an_alarm_is_set: None
) -> None:
    bulkhead = Bulkhead(1, max_queue=1)
    taken = Pipeline(bulkhead)(lambda: (number for number in (1, 2)))()
    next(taken)
    assert bulkhead.active == 1
    with pytest.raises(CallTimeoutError):
        await asyncio.wait_for(Pipeline(Timeout(2), bulkhead).acall(asyncio.sleep, 0), 60)
    assert seawall_clock.now == 2
    taken.close()


def test_threads_share_it(seawall_clock: testing.clock) -> None:
    @retry(2, wait=5)
    def ask() -> None:
        raise ConnectionError

    def run() -> None:
        with pytest.raises(ConnectionError):
            ask()

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 5 <= seawall_clock.now <= 20


def test_there_is_one_clock_and_it_ends_with_its_block() -> None:
    def enters_another() -> None:
        with testing.clock(), testing.clock():
            pass

    with pytest.raises(RuntimeError, match="runs already"):
        enters_another()
    with testing.clock() as clock:  # so the first one is over
        clock.advance(5)
    with pytest.raises(RuntimeError, match="does not run"):
        clock.advance(1)
    with pytest.raises(RuntimeError, match="does not run"):
        print(clock.now)
    with pytest.raises(ZeroDivisionError), testing.clock():
        1 / 0
    with testing.clock():
        pass


def test_time_goes_on_from_where_it_was_left() -> None:
    breaker = CircuitBreaker(1, recovery_timeout=100)
    with testing.clock() as clock:
        with pytest.raises(ConnectionError):
            breaker.call(fails)
        clock.advance(99)
    # Had time gone back, the whole recovery would lie ahead again.
    remaining = breaker.open_remaining
    assert remaining is None or remaining <= 1


def test_spans_that_are_none_are_refused(seawall_clock: testing.clock) -> None:
    for span in (-1, math.nan, math.inf, "5", None):
        with pytest.raises(ConfigurationError, match="seconds"):
            seawall_clock.advance(span)  # type: ignore[arg-type]


def test_waits_left_over_go_on_in_real_time() -> None:
    async def leaves() -> str:
        with testing.clock():
            task = asyncio.ensure_future(retry(2, wait=0.01)(afails)())
            await asyncio.sleep(0)
        with pytest.raises(ConnectionError):
            await task
        return "over"

    assert asyncio.run(leaves()) == "over"


# --- chance


def waits_of(policy: Retry) -> list[float]:
    with testing.record() as events, testing.no_waits(), pytest.raises(ConnectionError):
        Pipeline(policy).call(fails)
    return [event.span for event in events.named("retry.scheduled")]


def test_a_seed_gives_the_same_jitter_again() -> None:
    policy = Retry(4, wait=wait_random(0, 100))
    with testing.seed(7):
        first, second = waits_of(policy), waits_of(policy)
    with testing.seed(7):
        assert (first, second) == (waits_of(policy), waits_of(policy))
    with testing.seed(8):
        assert waits_of(policy) not in (first, second)
    assert waits_of(policy) != first != second


def test_seeds_nest_and_the_outer_one_goes_on() -> None:
    policy = Retry(2, wait=wait_random(0, 100))
    with testing.seed(1):
        expected = [waits_of(policy) for _ in range(3)]
    with testing.seed(1):
        told = [waits_of(policy)]
        with testing.seed(2):
            waits_of(policy)
        told += [waits_of(policy), waits_of(policy)]
    assert told == expected
    with pytest.raises(ConfigurationError, match="number"):
        testing.seed("x")  # type: ignore[arg-type]


# --- no waits, few attempts


def test_without_waits_retries_follow_at_once_and_say_what_they_would_have_waited() -> None:
    assert waits_of(Retry(3, wait=wait_fixed(3600))) == [3600, 3600]


def test_a_wait_that_fits_no_deadline_ends_the_retries_as_ever(seawall_no_waits: None) -> None:
    calls = []
    with pytest.raises(ConnectionError):
        Pipeline(Retry(9, wait=20, timeout=30)).call(lambda: calls.append(1) or fails())  # type: ignore[func-returns-value]
    # None was waited out, so each of them still fits.
    assert len(calls) == 9
    with pytest.raises(ConnectionError):
        Pipeline(Retry(9, wait=40, timeout=30)).call(lambda: calls.append(1) or fails())  # type: ignore[func-returns-value]
    assert len(calls) == 10


def test_attempts_are_capped_and_the_smallest_cap_holds() -> None:
    calls: list[int] = []

    def ask() -> None:
        calls.append(1)
        raise ConnectionError

    def made() -> int:
        calls.clear()
        with pytest.raises(ConnectionError):
            retry(5, wait=0)(ask)()
        return len(calls)

    assert made() == 5
    with testing.cap_attempts(2):
        assert made() == 2
        with testing.cap_attempts(1):
            assert made() == 1
        with testing.cap_attempts(4):
            assert made() == 2
    assert made() == 5
    for wrong in (0, -1, True, "2", 2.0):
        with pytest.raises(ConfigurationError, match="attempts"):
            testing.cap_attempts(wrong)  # type: ignore[arg-type]


# --- the record


def test_a_call_without_trouble_is_heard_too() -> None:
    ask = retry(3, name="chat")(lambda: 5)
    assert ask() == 5
    with testing.record() as events:
        assert ask() == 5
    assert ask() == 5
    assert [(e.name, e.source, e.attempt, e.exception) for e in events] == [("attempt.started", "chat", 1, None)]


async def test_events_tell_what_happened(seawall_clock: testing.clock, seawall_events: testing.Events) -> None:
    breaker = CircuitBreaker(3, name="model")
    with pytest.raises(ConnectionError):
        breaker.call(fails)
    pipeline = Pipeline(Fallback("instead"), Retry(2, wait=4, on=Exception), breaker, name="chat")
    assert await pipeline.acall(afails) == "instead"
    assert [(e.name, e.source, e.attempt, e.span, e.exception, e.reason) for e in seawall_events] == [
        ("attempt.started", "chat", 1, 0, None, ""),
        ("retry.scheduled", "chat", 1, 4, ConnectionError, ""),
        ("attempt.started", "chat", 2, 4, None, ""),
        ("circuit.opened", "model", 0, 30, None, "3 failures in a row"),
        ("retry.exhausted", "chat", 2, 4, ConnectionError, "attempts used up"),
        ("fallback.used", "chat", 1, 0, ConnectionError, ""),
    ]
    assert seawall_events[2].elapsed == 4
    assert seawall_events[2].at - seawall_events[0].at == pytest.approx(4)


def test_records_nest_and_each_gets_everything() -> None:
    ask = retry(1)(lambda: 5)
    with testing.record() as outer:
        ask()
        with testing.record() as inner:
            ask()
        ask()
    assert (len(outer), len(inner)) == (3, 1)
    with testing.record() as outer:
        with testing.record() as inner:
            assert inner == outer  # of two that are equal the right one ends
        ask()
    assert (len(outer), len(inner)) == (1, 0)


def test_threads_are_heard(seawall_events: testing.Events) -> None:
    ask = retry(1)(lambda: 5)
    threads = [threading.Thread(target=lambda: [ask() for _ in range(50)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seawall_events.names == ["attempt.started"] * 200


# --- all of them


MAKERS: list[Callable[[], Any]] = [testing.clock, testing.seed, testing.no_waits, testing.record, lambda: testing.cap_attempts(2)]


@pytest.mark.parametrize("make", MAKERS)
def test_a_block_is_entered_once_and_may_be_entered_again_afterwards(make: Callable[[], Any]) -> None:
    block = make()
    with block:
        with pytest.raises(RuntimeError, match="already"):
            block.__enter__()
    with block:
        pass


def test_they_decorate_functions() -> None:
    calls: list[int] = []

    @testing.no_waits()
    @testing.cap_attempts(2)
    def ask() -> None:
        calls.append(1)
        raise ConnectionError

    @testing.cap_attempts(2)
    async def ask_async() -> None:
        await retry(9, wait=0)(afails)()

    with testing.record() as events:
        for function in (lambda: testing.cap_attempts(2)(retry(9, wait=0)(ask))(), lambda: asyncio.run(ask_async())):
            with pytest.raises(ConnectionError):
                function()
    assert len(calls) == 2
    assert events.names.count("attempt.started") == 4


PLUGIN_TEST = """
import pytest
from seawall import retry

@retry(5, wait=3600)
def ask():
    raise ConnectionError

def test_clock(seawall_clock, seawall_events, seawall_cap_attempts, seawall_seed):
    seawall_cap_attempts(2)
    with pytest.raises(ConnectionError):
        ask()
    assert seawall_clock.now == 3600
    assert seawall_events.names == ["attempt.started", "retry.scheduled", "attempt.started", "retry.exhausted"]

def test_no_waits(seawall_no_waits, seawall_events):
    with pytest.raises(ConnectionError):
        ask()
    assert seawall_events.names.count("attempt.started") == 5
"""


def test_the_plugin_gives_the_fixtures(tmp_path: Path) -> None:
    declared = re.search(r"\[project\.entry-points\.pytest11\]\nseawall = \"(.+)\"", Path("pyproject.toml").read_text("utf-8"))
    assert declared is not None
    tmp_path.joinpath("test_it.py").write_text(PLUGIN_TEST)
    command = [sys.executable, "-m", "pytest", "-q", "-p", declared[1], "-p", "no:cacheprovider", str(tmp_path)]
    alone = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False, timeout=120, env=alone)
    assert "2 passed" in done.stdout, done.stdout + done.stderr
