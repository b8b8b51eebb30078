"""Timeout's thread mode: plain functions that are left alone when their limit has passed."""

from __future__ import annotations

import _thread
import contextvars
import os
import pickle
import signal
import sys
import threading
import traceback
import weakref
from typing import Any

import pytest

from seawall import Fallback, Pipeline, Retry, Timeout, remaining, testing
from seawall.errors import CallTimeoutError

pipeline = Pipeline(Timeout(10, thread=True), name="slow")


@pytest.fixture
def released() -> Any:
    """Lets go of the threads that a test has left behind."""
    event = threading.Event()
    yield event
    event.set()


def test_the_limit_is_raised_though_the_function_goes_on(seawall_clock: testing.clock, released: threading.Event) -> None:
    ended = threading.Event()

    def hangs() -> str:
        seawall_clock.sleep(10)
        assert released.wait(60)
        ended.set()
        return "too late"

    with pytest.raises(CallTimeoutError) as raised:
        pipeline.call(hangs)
    assert raised.value.limit == 10
    assert not ended.is_set()
    released.set()
    assert ended.wait(60)  # what it returns then is dropped


def test_what_comes_in_time_comes() -> None:
    assert pipeline.call(divmod, 7, 2) == (3, 1)
    assert pipeline(lambda **kwargs: kwargs)(a=1) == {"a": 1}
    with pytest.raises(ZeroDivisionError) as raised:
        pipeline.call(divmod, 1, 0)
    assert "apart" not in str(traceback.format_exception_only(raised.value))


def test_what_comes_late_is_dropped_however_it_ends(seawall_clock: testing.clock) -> None:
    def late(error: BaseException | None) -> str:
        seawall_clock.sleep(11)
        if error:
            raise error
        return "late"

    for error in (None, ValueError("late")):
        with pytest.raises(CallTimeoutError):
            pipeline.call(late, error)


def test_it_runs_on_another_thread_in_a_copy_of_the_context(seawall_clock: testing.clock) -> None:
    variable = contextvars.ContextVar("variable", default="unset")
    variable.set("outside")

    def inside() -> tuple[Any, ...]:
        seen = variable.get()
        variable.set("inside")
        return seen, threading.current_thread() is threading.main_thread(), threading.current_thread().daemon, remaining()

    assert pipeline.call(inside) == ("outside", False, True, 10)
    assert variable.get() == "outside"


def test_each_attempt_has_a_thread_and_a_limit_of_its_own(seawall_clock: testing.clock, released: threading.Event) -> None:
    calls: list[str] = []

    def hangs_once() -> str:
        calls.append(threading.current_thread().name)
        if len(calls) == 1:
            seawall_clock.sleep(10)
            released.wait(60)
        return "second"

    assert Pipeline(Retry(2, wait=0), Timeout(10, thread=True)).call(hangs_once) == "second"
    assert len(calls) == 2
    assert all("hangs_once" in name for name in calls)


def test_a_total_limit_ends_it_too(seawall_clock: testing.clock, released: threading.Event) -> None:
    def hangs() -> None:
        seawall_clock.sleep(5)
        released.wait(60)

    total = Pipeline(Fallback("instead"), Timeout(5), Retry(2, wait=0), Timeout(10, thread=True))
    assert total.call(hangs) == "instead"
    assert seawall_clock.now == 5
    # A limit of the caller's ends it as well.
    with pytest.raises(CallTimeoutError):
        Pipeline(Timeout(4)).call(lambda: pipeline.call(hangs))


def test_values_and_exceptions_are_not_held() -> None:
    class Thing:
        pass

    def raises() -> None:
        thing = Thing()
        kept.append(weakref.ref(thing))
        raise ValueError

    kept: list[weakref.ref[Thing]] = []
    try:
        pipeline.call(raises)
    except ValueError:
        pass
    thing = pipeline.call(Thing)
    kept.append(weakref.ref(thing))
    del thing
    # Without the garbage collector: nothing goes in a circle.
    assert [ref() for ref in kept] == [None, None]


async def test_coroutines_stay_in_their_task_and_are_cancelled(seawall_clock: testing.clock) -> None:
    async def where() -> threading.Thread:
        return threading.current_thread()

    assert await pipeline.acall(where) is threading.current_thread()
    with pytest.raises(CallTimeoutError):
        await pipeline.acall(seawall_clock.asleep)


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="signals to a thread are Unix's")
@pytest.mark.parametrize("early", [False, True], ids=["during the wait", "just before it"])
def test_ctrl_c_ends_the_wait_for_it(released: threading.Event, early: bool) -> None:
    main = threading.get_ident()

    def hangs() -> None:
        if early:  # it is noted, and wakes nobody who waits: here once the condition's `wait` has come to its last step
            while "gotit" not in sys._current_frames()[main].f_locals:
                os.sched_yield()
            _thread.interrupt_main()
        else:
            signal.pthread_kill(main, signal.SIGINT)
        released.wait(60)

    with pytest.raises(KeyboardInterrupt):
        Pipeline(Timeout(600, thread=True)).call(hangs)


def test_it_says_so_and_keeps_it() -> None:
    limit = pickle.loads(pickle.dumps(Timeout(2.5, thread=True)))
    assert (limit.seconds, limit.thread, repr(limit)) == (2.5, True, "Timeout(2.5, thread=True)")
    assert not Timeout(2.5).thread
