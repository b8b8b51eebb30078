"""Hedge around plain functions and generators, whose attempts run on threads; and what it is made of."""

from __future__ import annotations

import contextvars
import copy
import logging
import pickle
import signal
import threading
import weakref
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

import seawall
from seawall import (
    Bulkhead,
    Cache,
    CircuitBreaker,
    Fallback,
    Hedge,
    Monitor,
    Pipeline,
    PipelineOrderWarning,
    RateLimit,
    Retry,
    Timeout,
    guard,
    remaining,
)
from seawall.errors import BulkheadFullError, CallTimeoutError, ConfigurationError

# Longer than any test waits for.
FOR_EVER = 600


def soon(**more: Any) -> Hedge:
    return Hedge(0.01, budget=1, **more)


@pytest.fixture
def released() -> Iterator[threading.Event]:
    """Lets go of the threads that a test has left behind, and waits for them."""
    event = threading.Event()
    before = set(threading.enumerate())
    yield event
    event.set()
    for thread in set(threading.enumerate()) - before:
        thread.join(60)


class Slow:
    """A function whose first calls hang until they are let go."""

    def __init__(self, released: threading.Event, hang: int = 1) -> None:
        self.calls: list[threading.Thread] = []
        self.released, self.hang = released, hang

    def __call__(self, answer: str = "second") -> str:
        self.calls.append(threading.current_thread())
        if len(self.calls) <= self.hang:
            assert self.released.wait(60)
            return "too late"
        return answer


# --- plain functions


def test_a_function_is_called_once_more_and_the_first_to_answer_is_the_answer(released: threading.Event) -> None:
    hedge, breaker, monitor = soon(), CircuitBreaker(failure_rate=0.5, window=10, minimum_calls=5), Monitor()
    slow = Slow(released)
    ask = Pipeline(hedge, breaker, name="asking", monitor=monitor)(lambda answer: slow(answer))
    assert ask("here") == "here"
    assert [thread.daemon for thread in slow.calls] == [True, True]
    assert hedge.statistics == {"calls": 1, "hedges": 1, "wins": 1, "denied": 0}
    assert (breaker.metrics().calls, breaker.metrics().failed) == (1, 0)
    seen = monitor.snapshot()
    assert (seen["total"], seen["errors"], seen["attempts"], seen["retries"]) == (1, 0, 2, 0)
    assert [attempt.outcome for attempt in ask.story.attempts] == ["given up", "ok"]
    assert ask.story.attempts[0].seconds is None
    assert [(step.event, step.policy, step.number) for step in ask.story] == [
        ("hedge.started", "asking", 1),
        ("hedge.won", "asking", 1),
    ]
    assert "asked once more" in str(seawall.explain(ask))


def test_what_answers_in_time_is_called_once() -> None:
    ask = Pipeline(Hedge(FOR_EVER))(divmod)
    assert ask(7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError) as raised:
        ask(1, 0)
    assert raised.value.__context__ is None
    assert ask.statistics["attempts"] == 2


def test_it_runs_in_copies_of_the_context(released: threading.Event) -> None:
    variable = contextvars.ContextVar("variable", default="unset")
    variable.set("outside")
    slow = Slow(released)

    def inside() -> tuple[Any, ...]:
        seen = variable.get()
        variable.set("inside")
        slow()
        return seen, remaining()

    seen, left = Pipeline(Timeout(FOR_EVER), soon()).call(inside)
    assert (seen, variable.get()) == ("outside", "outside")
    assert 0 < left <= FOR_EVER


def test_a_failure_waits_for_the_other_and_one_that_both_share_does_not(released: threading.Event) -> None:
    begun, calls = threading.Event(), []

    def fails_once(error: Exception) -> str:
        calls.append(1)
        if len(calls) == 1:
            assert begun.wait(60)
            raise error
        begun.set()
        if isinstance(error, ValueError):
            return "second"
        released.wait(60)
        return "too late"

    assert Pipeline(soon()).call(fails_once, ValueError("first")) == "second"
    begun.clear()
    calls.clear()
    with pytest.raises(RefusedError):
        Pipeline(soon()).call(fails_once, RefusedError())
    assert len(calls) == 2


class RefusedError(Exception):
    """By its status: no retry mends it."""

    status_code = 401


def test_when_all_fail_the_first_failure_is_raised() -> None:
    begun, failed, calls = threading.Event(), threading.Event(), []

    def fails() -> None:
        calls.append(1)
        if len(calls) == 1:
            assert begun.wait(60)
            failed.set()
            raise ValueError("first")
        begun.set()
        assert failed.wait(60)
        raise KeyError("second")

    with pytest.raises((ValueError, KeyError)) as raised:
        Pipeline(soon()).call(fails)
    assert not hasattr(raised.value, "alternatives")
    assert len(calls) == 2


def test_retries_are_hedged_each(released: threading.Event) -> None:
    calls: list[int] = []
    begun = threading.Event()

    def work() -> str:
        calls.append(1)
        number = len(calls)
        if number == 1:
            raise ConnectionError
        if number == 2:
            begun.set()
            released.wait(60)
        return f"call {number}"

    assert Pipeline(Retry(2, wait=0), soon()).call(work) == "call 3"


def test_a_limit_ends_them_all(released: threading.Event) -> None:
    slow = Slow(released, hang=9)
    with pytest.raises(CallTimeoutError):
        Pipeline(Timeout(1), soon(max_hedges=3)).call(slow)
    assert len(slow.calls) == 4
    # An attempt's limit is kept too, since it runs on a thread of its own.
    slow = Slow(released, hang=9)
    with pytest.raises(CallTimeoutError):
        Pipeline(soon(), Timeout(0.5)).call(slow)
    assert len(slow.calls) == 2


def test_policies_inside_see_each_and_one_that_turns_a_hedge_away_ends_nothing(released: threading.Event) -> None:
    room = Bulkhead(1)
    entered, answered = threading.Event(), threading.Event()

    def work() -> str:
        entered.set()
        assert answered.wait(60)
        return "first"

    hedge = soon()

    def let_go() -> None:
        while hedge.statistics["hedges"] == 0:
            answered.wait(0.001)
        answered.set()

    thread = threading.Thread(target=let_go)
    thread.start()
    assert Pipeline(hedge, room).call(work) == "first"
    thread.join()
    assert (hedge.statistics["hedges"], hedge.statistics["wins"], room.active) == (1, 0, 0)
    room = Bulkhead(2)
    assert Pipeline(soon(), room).call(Slow(released)) == "second"
    assert room.active == 0
    full = Bulkhead(1)
    with pytest.raises(BulkheadFullError):
        Pipeline(full).call(Pipeline(soon(), full).call, lambda: None)


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="signals to a thread are Unix's")
def test_ctrl_c_ends_the_wait_for_them(released: threading.Event) -> None:
    main = threading.get_ident()
    slow = Slow(released, hang=9)

    def hangs() -> str:
        if len(slow.calls) == 1:
            signal.pthread_kill(main, signal.SIGINT)
        return slow()

    with pytest.raises(KeyboardInterrupt):
        Pipeline(soon()).call(hangs)
    assert len(slow.calls) in {1, 2}


def test_an_interrupt_in_an_attempt_is_the_caller_s() -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    breaker = CircuitBreaker(1)
    with pytest.raises(KeyboardInterrupt):
        Pipeline(soon(), breaker).call(interrupted)
    assert breaker.state == "closed"


def test_losers_leave_nothing_behind(released: threading.Event, caplog: pytest.LogCaptureFixture) -> None:
    class Thing:
        pass

    kept: list[weakref.ref[Thing]] = []
    entered = threading.Event()

    def work(fails: bool) -> Thing:
        thing = Thing()
        kept.append(weakref.ref(thing))
        if len(kept) % 2 == 1:
            assert released.wait(60)
            if fails:
                raise ValueError(thing)
        return thing

    before = set(threading.enumerate())
    for fails in (False, True):
        assert isinstance(Pipeline(soon()).call(work, fails), Thing)
    released.set()
    for thread in set(threading.enumerate()) - before:
        thread.join(60)
    del thread
    # Without the garbage collector: nothing goes in a circle.
    assert [ref() for ref in kept] == [None] * 4
    assert not entered.is_set() and not caplog.records


# --- generators


def test_generators_race_for_their_first_item_and_the_loser_is_closed(released: threading.Event) -> None:
    calls: list[int] = []
    closed = threading.Event()
    threads: list[threading.Thread] = []

    def items() -> Iterator[Any]:
        calls.append(1)
        if len(calls) == 1:
            try:
                assert released.wait(60)
                yield "too late"
            finally:
                closed.set()
            return
        for number in range(3):
            threads.append(threading.current_thread())
            yield number

    hedge, room = soon(), Bulkhead(5)
    stream = Pipeline(hedge, room)(items)()
    assert next(stream) == 0
    assert room.active == 1
    assert list(stream) == [1, 2]
    assert room.active == 0
    assert (hedge.statistics["wins"], len(calls)) == (1, 2)
    assert threads[0] is not threading.current_thread() and threads[1] is threading.current_thread()
    assert not closed.is_set()
    released.set()
    assert closed.wait(60)


class Items:
    """An iterator that has to be closed; the first hangs."""

    def __init__(self, made: list[Items], released: threading.Event) -> None:
        made.append(self)
        self.hangs, self.released, self.left = len(made) == 1, released, [1, 2]
        self.closed = threading.Event()

    def __iter__(self) -> Items:
        return self

    def __next__(self) -> int:
        if self.hangs:
            assert self.released.wait(60)
        if not self.left:
            raise StopIteration
        return self.left.pop(0)

    def close(self) -> None:
        self.closed.set()


def test_an_iterator_that_comes_too_late_is_closed_though_somebody_holds_it(released: threading.Event) -> None:
    made: list[Items] = []

    def nothing() -> Iterator[int]:
        raise ConnectionError
        yield

    # An alternative gives what it likes where items are asked for.
    with pytest.warns(PipelineOrderWarning):
        guarded = Pipeline(soon(), Fallback(lambda: Items(made, released)))
    assert list(guarded(nothing)()) == [1, 2]
    released.set()
    assert made[0].closed.wait(60)


def test_a_generator_s_failure_before_and_after_its_first_item() -> None:
    def fails(late: bool) -> Iterator[int]:
        if late:
            yield 1
        raise ValueError

    guarded = Pipeline(Hedge(FOR_EVER))(fails)
    with pytest.raises(ValueError):
        next(guarded(False))
    stream = guarded(True)
    assert next(stream) == 1
    with pytest.raises(ValueError):
        next(stream)
    assert list(Pipeline(Hedge(FOR_EVER))(lambda: (n for n in ()))()) == []
    assert list(Pipeline(Hedge(FOR_EVER))(lambda: (n for n in (1, 2)))()) == [1, 2]


def test_an_empty_generator_ends_and_returns(released: threading.Event) -> None:
    def nothing() -> Iterator[int]:
        return 7
        yield

    stream = Pipeline(soon())(nothing)()
    with pytest.raises(StopIteration) as end:
        next(stream)
    assert end.value.value == 7


def test_a_generator_that_is_closed_gives_its_place_back(released: threading.Event) -> None:
    room = Bulkhead(1)
    ended: list[str] = []

    def items() -> Iterator[int]:
        try:
            yield 1
            yield 2
        finally:
            ended.append("closed")

    stream = Pipeline(soon(), room)(items)()
    assert next(stream) == 1
    stream.close()
    assert (room.active, ended) == (0, ["closed"])


# --- what it is made of


def test_what_it_says_of_itself() -> None:
    hedge = Hedge(percentile=0.95, name="slow ones")
    assert (hedge.delay, hedge.percentile, hedge.max_hedges, hedge.budget, hedge.name) == (None, 0.95, 1, 0.05, "slow ones")
    assert repr(hedge) == "<Hedge(percentile=0.95, budget=0.05, name='slow ones'): 0 hedges in 0 calls>"
    assert Hedge().percentile == 0.95
    assert repr(Hedge(timedelta(seconds=2), max_hedges=2)) == "<Hedge(2, max_hedges=2, budget=0.05): 0 hedges in 0 calls>"
    assert "asks once more after" in str(Pipeline(hedge).describe())
    assert "Hedge" in hedge._repr_html_()


@pytest.mark.parametrize(
    "wrong",
    [
        {"delay": 0},
        {"delay": -1},
        {"delay": float("inf")},
        {"delay": float("nan")},
        {"delay": "1"},
        {"percentile": 0},
        {"percentile": 1},
        {"percentile": 95},
        {"percentile": "0.95"},
        {"delay": 1, "percentile": 0.9},
        {"delay": 1, "minimum_calls": 9},
        {"delay": 1, "min_delay": 1},
        {"minimum_calls": 0},
        {"initial_delay": 0},
        {"min_delay": -1},
        {"max_hedges": 0},
        {"max_hedges": 1.5},
        {"budget": 1.5},
        {"budget": -0.1},
        {"name": 7},
    ],
)
def test_what_makes_no_hedge_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=list(wrong)[-1]):
        Hedge(**wrong)


def test_guard_puts_it_between_the_retries_and_the_breaker() -> None:
    kinds = [type(policy).__name__ for policy in guard(hedge=0.8, attempt_timeout=5, rate_limit=RateLimit(5)).policies]
    assert kinds == ["Retry", "Hedge", "CircuitBreaker", "RateLimit", "Timeout"]
    hedge = Hedge(1)
    assert hedge in guard(hedge=hedge).policies
    for wrong in (True, "0.8", object()):
        with pytest.raises(ConfigurationError, match="hedge must be a seawall.Hedge"):
            guard(hedge=wrong)


@pytest.mark.parametrize(
    ("policies", "said"),
    [
        ((Hedge(1), Retry(3)), "outside the Retry"),
        ((Hedge(1), Fallback("x")), "outside the Fallback"),
        ((CircuitBreaker(50), Hedge(1)), "CircuitBreaker stands outside the Hedge"),
        ((RateLimit(5), Hedge(1)), "RateLimit stands outside the Hedge"),
        ((Bulkhead(5), Hedge(1)), "Bulkhead stands outside the Hedge"),
        ((Hedge(1), Cache()), "Hedge stands outside the Cache"),
    ],
)
def test_orders_that_are_known_to_be_wrong_warn(policies: tuple[Any, ...], said: str) -> None:
    with pytest.warns(PipelineOrderWarning, match=said):
        Pipeline(*policies)


def test_a_copy_is_the_hedge_itself_and_a_pickle_finds_it_again() -> None:
    for hedge in (
        Hedge(2, max_hedges=3, budget=0.5, name="a"),
        Hedge(percentile=0.9, minimum_calls=5, initial_delay=1, min_delay=0),
    ):
        assert copy.copy(hedge) is hedge
        assert copy.deepcopy(hedge) is hedge
        assert pickle.loads(pickle.dumps(hedge)) is hedge
        assert repr(type(hedge)(*hedge.__reduce__()[1][2], **hedge.__reduce__()[1][3])) == repr(hedge)


def test_it_is_logged_for_who_follows_single_calls(released: threading.Event, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "seawall")
    assert Pipeline(soon(), name="asking").call(Slow(released)) == "second"
    said = [record.getMessage() for record in caplog.records if "request 2" in record.getMessage()]
    assert len(said) == 2 and "no answer from 'asking'" in said[0] and "answered first" in said[1]
