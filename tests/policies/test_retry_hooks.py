"""Retry's hooks, asynchronous ones too, its counts and its budget."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import types
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import tenacity

from seawall import (
    CircuitBreaker,
    Fallback,
    Monitor,
    Pipeline,
    PipelineOrderWarning,
    RateLimit,
    Retry,
    guard,
    retry,
    stop_after_attempt,
    stop_before_delay,
    testing,
    wait_exponential,
)
from seawall.errors import CircuitBreakerError, ConfigurationError
from seawall.llm import Chat


def fails() -> None:
    raise ConnectionError


async def afails() -> None:
    await asyncio.sleep(0)
    raise ConnectionError


# --- asynchronous hooks


async def test_asynchronous_hooks_are_awaited_in_order_before_the_call_goes_on() -> None:
    told: list[Any] = []

    def hook(name: str) -> Callable[[Any], Any]:
        async def says(state: Any) -> None:
            told.append((name, state.attempt_number))
            await asyncio.sleep(0)
            told.append((name, "done"))

        return says

    async def ask() -> str:
        told.append("call")
        if told.count("call") < 2:
            raise ConnectionError
        return "there"

    policy = Retry(3, wait=0, before=hook("before"), after=hook("after"), before_sleep=hook("sleep"))
    assert await Pipeline(policy).acall(ask) == "there"
    assert told == [
        ("before", 1), ("before", "done"),
        "call",
        ("after", 1), ("after", "done"),
        ("sleep", 1), ("sleep", "done"),
        ("before", 2), ("before", "done"),
        "call",
    ]  # fmt: skip


async def test_they_are_awaited_before_the_error_is_raised_too() -> None:
    told = []

    async def after(state: Any) -> None:
        await asyncio.sleep(0)
        told.append(state.attempt_number)

    with pytest.raises(ConnectionError):
        await Pipeline(Retry(2, wait=0, after=after)).acall(afails)
    assert told == [1, 2]


async def test_an_asynchronous_hook_that_raises_is_logged_and_ignored(caplog: pytest.LogCaptureFixture) -> None:
    async def breaks(state: Any) -> None:
        await asyncio.sleep(0)
        raise ZeroDivisionError

    with pytest.raises(ConnectionError):
        await Pipeline(Retry(2, wait=0, before_sleep=breaks)).acall(afails)
    assert [r.exc_info[0] for r in caplog.records if r.levelno == logging.ERROR and r.exc_info] == [ZeroDivisionError]


async def test_a_call_that_is_cancelled_in_a_hook_is_cancelled() -> None:
    entered = asyncio.Event()

    async def hangs(state: Any) -> None:
        entered.set()
        await asyncio.Event().wait()

    async def never(state: Any) -> None:
        raise AssertionError

    task = asyncio.ensure_future(Pipeline(Retry(2, wait=0, after=hangs, before_sleep=never)).acall(afails))
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task  # and nobody is warned that the second hook's coroutine was never awaited


@types.coroutine
def paused() -> Any:
    """A generator that is awaited, as coroutines were written once."""
    yield from asyncio.sleep(0).__await__()


async def test_generators_marked_as_coroutines_are_awaited_too() -> None:
    told: list[str] = []

    @types.coroutine
    def giveup(error: BaseException) -> Any:
        yield from paused()
        told.append("giveup")
        return len(told) > 2

    @types.coroutine
    def before_sleep(state: Any) -> Any:
        yield from paused()
        told.append("sleep")

    with pytest.raises(ConnectionError):
        await Pipeline(Retry(9, wait=0, giveup=giveup, before_sleep=before_sleep)).acall(afails)
    assert told == ["giveup", "sleep", "giveup"]


def test_where_nobody_awaits_them_they_are_refused_too(caplog: pytest.LogCaptureFixture) -> None:
    @types.coroutine
    def marked(thing: Any) -> Any:
        yield

    with pytest.raises(ConnectionError):
        Pipeline(Retry(2, wait=0, before_sleep=lambda state: marked(state))).call(fails)
    assert "nobody can await it" in str(caplog.records[-1].exc_info[1])  # type: ignore[index]
    with pytest.raises(ConfigurationError, match="giveup gave something to await"):
        Pipeline(Retry(2, wait=0, giveup=lambda error: marked(error))).call(fails)


async def test_giveup_may_be_asynchronous() -> None:
    asked: list[BaseException] = []

    async def giveup(error: BaseException) -> bool:
        await asyncio.sleep(0)
        asked.append(error)
        return len(asked) == 2

    policy = Retry(9, wait=0, giveup=giveup)
    with pytest.raises(ConnectionError):
        await Pipeline(policy).acall(afails)
    assert len(asked) == 2
    with pytest.raises(KeyError):
        await Pipeline(policy).acall({}.__getitem__, 1)
    assert len(asked) == 2  # what is not retryable needs no giving up


async def test_what_an_asynchronous_giveup_raises_is_raised() -> None:
    async def giveup(error: BaseException) -> bool:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await Pipeline(Retry(9, wait=0, giveup=giveup)).acall(afails)


async def test_streams_await_them_too() -> None:
    told = []

    async def after(state: Any) -> None:
        await asyncio.sleep(0)
        told.append(state.attempt_number)

    @retry(2, wait=0, after=after)
    async def pieces() -> AsyncIterator[int]:
        if not told:
            raise ConnectionError
        yield 1

    assert [piece async for piece in pieces()] == [1]
    assert told == [1]


@pytest.mark.parametrize("name", ["before", "after", "before_sleep", "giveup"])
def test_in_a_synchronous_call_they_are_refused_when_written(name: str) -> None:
    async def hook(state: Any) -> None:
        raise AssertionError

    policy = Retry(2, wait=0, **{name: hook})  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=f"{name} is an asynchronous function and .*fails is not"):
        Pipeline(policy)(fails)
    with pytest.raises(ConfigurationError, match=f"{name} is an asynchronous function"):
        Pipeline(policy).call(fails)
    Pipeline(policy)(afails)
    with pytest.raises(ConfigurationError, match=f"{name} is an asynchronous function"):
        Chat("model", api_key="x", base_url="http://localhost").with_retry(stop_after_attempt=2, **{name: hook}).invoke("hi")


def test_a_hook_that_turns_out_to_be_asynchronous_is_a_clear_error(caplog: pytest.LogCaptureFixture) -> None:
    async def awaited(state: Any) -> None:
        raise AssertionError

    with pytest.raises(ConnectionError):
        Pipeline(Retry(2, wait=0, after=lambda state: awaited(state))).call(fails)
    assert "nobody can await it" in str(caplog.records[-1].exc_info[1])  # type: ignore[index]
    with pytest.raises(ConfigurationError, match="giveup gave something to await"):
        Pipeline(Retry(2, wait=0, giveup=lambda error: awaited(error))).call(fails)


@pytest.mark.parametrize("name", ["on", "on_result", "stop", "wait"])
def test_what_has_to_answer_at_once_cannot_be_asynchronous(name: str) -> None:
    async def answers(thing: Any) -> bool:
        return False

    with pytest.raises(ConfigurationError, match=f"{name} must answer at once"):
        Retry(**{name: answers})  # type: ignore[arg-type]
    if name.startswith("on"):
        with pytest.raises(ConfigurationError, match=f"{name} must answer at once"):
            Fallback(1, **{name: answers})  # type: ignore[arg-type]


# --- what tenacity's objects and hooks are told


def test_a_stop_knows_the_wait_that_would_follow(seawall_clock: testing.clock) -> None:
    for stop in (stop_before_delay(10), tenacity.stop_before_delay(10)):
        for wait in (4, tenacity.wait_fixed(4)):
            began, calls = seawall_clock.now, []
            with pytest.raises(ConnectionError):
                Pipeline(Retry(stop=stop, wait=wait)).call(lambda: calls.append(1) or fails())
            assert (len(calls), seawall_clock.now - began) == (3, 8)


def test_waits_keep_growing_under_a_stop(seawall_clock: testing.clock) -> None:
    with testing.record() as events, pytest.raises(ConnectionError):
        Pipeline(Retry(stop=stop_after_attempt(4), wait=wait_exponential(multiplier=1))).call(fails)
    assert [event.span for event in events.named("retry.scheduled")] == [1, 2, 4]


def test_the_state_says_how_long_was_waited(seawall_clock: testing.clock) -> None:
    told = []

    def before_sleep(state: Any) -> None:
        told.append((state.idle_for, state.upcoming_sleep, state.seconds_since_start))

    with pytest.raises(ConnectionError):
        Pipeline(Retry(4, wait=wait_exponential(multiplier=2), before_sleep=before_sleep)).call(fails)
    assert told == [(0, 2, 0), (2, 4, 2), (6, 8, 6)]


# --- counts


def test_a_retry_counts_what_it_does(seawall_no_waits: None) -> None:
    policy = Retry(3, wait=5)
    nothing = {"calls": 0, "attempts": 0, "retries": 0, "exhausted": 0, "waited": 0}
    assert policy.statistics == nothing
    good, bad = Pipeline(policy)(lambda: 1), Pipeline(policy)(fails)
    good()
    good()
    with pytest.raises(ConnectionError):
        bad()
    with pytest.raises(KeyError):
        Pipeline(policy).call({}.__getitem__, 1)
    assert policy.statistics == {"calls": 4, "attempts": 6, "retries": 2, "exhausted": 1, "waited": 10}
    del good, bad  # what they counted is not lost with them
    assert policy.statistics["calls"] == 4


def test_a_wait_for_a_limit_that_turned_the_call_away_is_no_retry(
    seawall_clock: testing.clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="seawall")
    results: list[Any] = [ConnectionError(), 1]

    @Pipeline(Retry(3, wait=2), RateLimit(1, per=10, max_queue=0, name="narrow"), monitor=(monitor := Monitor()), name="mine")
    def ask() -> Any:
        result = results.pop()
        if isinstance(result, BaseException):
            raise result
        return result

    ask()
    results.append(2)
    ask()  # waits, and is called once
    told = ask.statistics  # type: ignore[attr-defined]
    assert (told["attempts"], told["retries"], monitor.retry_rate) == (2, 0, 0)
    assert "'mine' waits 10.20 s to try again after RateLimitExceededError" in caplog.text
    results += [3, ConnectionError()]
    ask()  # waits, fails, waits as the retry says and then for the limit
    told = ask.statistics  # type: ignore[attr-defined]
    assert (told["attempts"], told["retries"], monitor.snapshot()["retries"]) == (4, 1, 1)
    first, second = ask.story.attempts  # type: ignore[attr-defined]
    assert first.waited == pytest.approx(10.204, abs=1e-3) and second.waited is None, (
        "2 s, and what the limit had left of its own"
    )


def test_a_wait_in_a_limit_s_queue_is_not_the_retry_s(seawall_clock: testing.clock) -> None:
    results: list[Any] = [1, ConnectionError()]

    @Pipeline(Retry(2, wait=2), RateLimit(1, per=10))
    def ask() -> Any:
        result = results.pop()
        if isinstance(result, BaseException):
            raise result
        return result

    ask()
    assert [attempt.waited for attempt in ask.story.attempts] == [2, None]  # type: ignore[attr-defined]


def test_a_guarded_function_counts_its_own_calls(seawall_no_waits: None) -> None:
    pipeline = Pipeline(Fallback("instead", on=KeyError), Retry(2, wait=5))
    results: list[Any] = [1, ConnectionError(), 2, KeyError(), ConnectionError(), OSError("x")]

    @pipeline
    def ask() -> Any:
        result = results.pop(0)
        if isinstance(result, BaseException):
            raise result
        return result

    other = pipeline(lambda: 1)
    assert [ask(), ask(), ask()] == [1, 2, "instead"]
    with pytest.raises(OSError, match="x"):
        ask()
    told = ask.statistics  # type: ignore[attr-defined]
    assert told.pop("last_seconds") >= 0
    assert told == {
        "calls": 4, "successes": 3, "failures": 1, "attempts": 7, "retries": 2, "fallbacks": 1, "waited": 10,
        "last_attempts": 2, "last_error": "OSError",
    }  # fmt: skip
    assert other.statistics["calls"] == 0  # type: ignore[attr-defined]


async def test_coroutines_and_streams_are_counted_and_the_cancelled_are_neither() -> None:
    @retry(2, wait=0)
    async def ask(what: str) -> None:
        if what == "hang":
            await asyncio.Event().wait()
        if what == "fail":
            raise ConnectionError

    await ask("go")
    with pytest.raises(ConnectionError):
        await ask("fail")
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(guard(retry=2, circuit=None, timeout=60)(ask)("hang"), 0)
    told = ask.statistics  # type: ignore[attr-defined]
    assert (told["successes"], told["failures"], told["attempts"]) == (1, 1, 3)

    @retry(2)
    def pieces() -> Any:
        yield 1

    assert list(pieces()) == [1]
    assert pieces.statistics["successes"] == 1


def test_a_retry_is_told_when_an_attempt_has_ended(seawall_no_waits: None) -> None:
    seen: list[tuple[Any, ...]] = []

    def note(state: Any = None) -> None:
        counts = policy.statistics
        seen.append(tuple(counts[name] for name in ("calls", "attempts", "retries", "exhausted", "waited")))

    policy = Retry(3, wait=5, after=note)
    with pytest.raises(ConnectionError):
        Pipeline(policy).call(fails)
    assert seen == [(1, 1, 1, 0, 5), (1, 2, 2, 0, 10), (1, 3, 2, 1, 10)]


@pytest.mark.parametrize("end", ["to its end", "closed", "dropped"])
def test_of_a_stream_it_is_told_when_it_opens(end: str) -> None:
    policy, tries = Retry(3, wait=0), []

    @Pipeline(policy)
    def pieces() -> Iterator[int]:
        tries.append(1)
        if len(tries) < 3:
            raise ConnectionError
        yield 1
        yield 2

    stream = pieces()
    assert policy.statistics["calls"] == 0
    assert next(stream) == 1
    counts = policy.statistics
    assert (counts["calls"], counts["attempts"], counts["retries"]) == (1, 3, 2)
    if end == "to its end":
        assert list(stream) == [2]
    elif end == "closed":
        stream.close()
    del stream
    gc.collect()
    assert policy.statistics == counts


def left(call: Any, how: str) -> None:
    """Begins a call and gives it up."""
    if hasattr(call, "__anext__"):
        with pytest.raises(StopIteration):
            call.__anext__().send(None)
        ends = {
            "close": lambda: call.aclose().send(None),
            "throw": lambda: call.athrow(KeyboardInterrupt()).send(None),
        }
    else:
        call.send(None)
        ends = {"close": call.close, "throw": lambda: call.throw(KeyboardInterrupt())}
    if how == "throw":
        with pytest.raises(KeyboardInterrupt):
            ends[how]()
    elif how == "close" and hasattr(call, "__anext__"):
        with pytest.raises(StopIteration):
            ends[how]()
    elif how == "close":
        ends[how]()


async def coroutine() -> None:
    await asyncio.Event().wait()


def items() -> Iterator[int]:
    yield 1
    yield 2


async def async_items() -> AsyncIterator[int]:
    yield 1
    yield 2


@pytest.mark.filterwarnings("ignore:.*asynchronous generator.*never")
@pytest.mark.parametrize("how", ["close", "throw", "drop"])
@pytest.mark.parametrize("function", [coroutine, items, async_items], ids=lambda function: function.__name__)
async def test_a_call_that_is_given_up_has_been_one(function: Any, how: str, hooks: dict[str, Any]) -> None:
    policy, breaker, monitor = Retry(3, wait=0, **hooks), CircuitBreaker(9), Monitor()
    guarded = Pipeline(policy, breaker, monitor=monitor)(function)
    left(guarded(), how)
    gc.collect()
    counts = guarded.statistics
    assert (counts["calls"], counts["successes"], counts["failures"]) == (1, 0, 0)
    assert (policy.statistics["calls"], policy.statistics["attempts"]) == (1, 1)
    assert (breaker.failure_count, monitor.snapshot()["total"]) == (0, 0)


def test_so_has_one_that_an_interrupt_ends(hooks: dict[str, Any]) -> None:
    policy, script = Retry(3, wait=0, **hooks), [ConnectionError(), KeyboardInterrupt(), KeyboardInterrupt()]

    @Pipeline(policy, CircuitBreaker(9))
    def ask() -> None:
        raise script.pop(0)

    for calls, attempts in ((1, 2), (2, 3)):
        with pytest.raises(KeyboardInterrupt):
            ask()
        counts = ask.statistics  # type: ignore[attr-defined]
        assert (counts["calls"], counts["successes"], counts["failures"]) == (calls, 0, 0)
        assert (policy.statistics["calls"], policy.statistics["attempts"]) == (calls, attempts)


def test_what_an_open_circuit_turns_away_is_no_attempt_but_an_alternatives_is(seawall_no_waits: None) -> None:
    def alternative() -> str:
        raise ConnectionError

    breaker, policy = CircuitBreaker(), Retry(3, wait=5)
    breaker.force("open")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PipelineOrderWarning)
        inside, bare = Pipeline(policy, Fallback(alternative), breaker), Pipeline(policy, breaker)
    with pytest.raises(CircuitBreakerError):
        bare.call(int)
    assert (policy.statistics["calls"], policy.statistics["attempts"]) == (1, 0)
    with pytest.raises(CircuitBreakerError):
        inside.call(int)
    assert (policy.statistics["calls"], policy.statistics["attempts"]) == (2, 1)


def test_threads_lose_no_count() -> None:
    policy = Retry(2, wait=0)
    ask = Pipeline(policy)(lambda: 1)
    threads = [threading.Thread(target=lambda: [ask() for _ in range(500)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ask.statistics["calls"] == policy.statistics["calls"] == 4000  # type: ignore[attr-defined]


# --- budget


def test_pipelines_of_one_name_share_their_budget(seawall_clock: testing.clock) -> None:
    def spend(pipeline: Pipeline) -> int:
        calls: list[int] = []
        with pytest.raises(ConnectionError) as raised:
            pipeline.call(lambda: calls.append(1) or fails())  # type: ignore[func-returns-value]
        note = raised.value.__notes__[0]
        assert ("budget is spent" in note) == (len(calls) < 6)
        return len(calls)

    def made(name: str | None) -> Pipeline:
        return Pipeline(Retry(6, wait=0, budget=0.2), name=name)

    chat = made("test_budget: chat")
    spent = [spend(chat) for _ in range(3)]
    assert spent[0] == 6
    assert spent[-1] < 6
    assert spend(made("test_budget: chat")) <= 2
    assert spend(made("test_budget: another")) == 6
    assert spend(made(None)) == 6
    seawall_clock.advance(3600)
    assert spend(chat) == 6


def test_production_has_a_budget() -> None:
    policies = guard("prod", fallback=None, name="test_production").policies
    policy = next(p for p in policies if isinstance(p, Retry))
    assert "0.2" in str(policy.__getnewargs_ex__()[1]["budget"])  # type: ignore[attr-defined]
    assert all(p.__getnewargs_ex__()[1]["budget"] is None for p in guard().policies if isinstance(p, Retry))  # type: ignore[attr-defined]
