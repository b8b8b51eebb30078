"""Bulkhead: so many at a time, first come first served, from threads, loops and generators alike."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import gc
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import trio
import trio.testing

from seawall import (
    Bulkhead,
    CircuitBreaker,
    Fallback,
    Pipeline,
    PipelineOrderWarning,
    RateLimit,
    Retry,
    Timeout,
    explain,
    guard,
    testing,
)
from seawall.errors import BulkheadFullError, CallTimeoutError, ConfigurationError, ConfigurationTypeError, Rejected


def until(there: Callable[[], bool]) -> None:
    """Looks until it is so."""
    while not there():
        threading.Event().wait(0.001)


class Work:
    """Calls that stay inside until they are let go, and the order in which they came in."""

    def __init__(self) -> None:
        self.entered: list[Any] = []
        self.leave = {name: threading.Event() for name in range(10)}

    def __call__(self, name: int) -> int:
        self.entered.append(name)
        assert self.leave[name].wait(60)
        return name

    def started(self, guarded: Callable[[int], int], name: int, waits: Callable[[], bool]) -> threading.Thread:
        """A call on a thread, under way or waiting."""
        thread = threading.Thread(target=guarded, args=(name,))
        thread.start()
        until(waits)
        return thread


def test_who_finds_no_room_is_turned_away_and_costs_nothing() -> None:
    bulkhead, work = Bulkhead(1, name="narrow"), Work()
    ask = Pipeline(Retry(5), bulkhead, name="p")(work)
    thread = work.started(ask, 0, lambda: bulkhead.active == 1)
    with pytest.raises(BulkheadFullError, match='Bulkhead "narrow" is full') as raised:
        ask(1)
    error = raised.value
    assert (error.name, error.policy, error.retry_after) == ("narrow", "Bulkhead", None)
    assert isinstance(error, Rejected) and work.entered == [0]
    assert "bulkhead" in str(explain(error))
    work.leave[0].set()
    thread.join()
    assert (bulkhead.active, bulkhead.queued) == (0, 0)


def test_threads_wait_in_line() -> None:
    bulkhead, work = Bulkhead(2, max_queue=3), Work()
    ask = Pipeline(bulkhead)(work)
    threads = [work.started(ask, n, lambda n=n: bulkhead.active + bulkhead.queued == n + 1) for n in range(5)]
    assert (bulkhead.active, bulkhead.queued) == (2, 3)
    assert repr(bulkhead) == "<Bulkhead(2, max_queue=3): 2 under way, 3 waiting>"
    with pytest.raises(BulkheadFullError):
        ask(9)
    for leaves, comes in ((1, 2), (2, 3), (0, 4)):
        work.leave[leaves].set()
        until(lambda comes=comes: work.entered[-1] == comes)
    assert work.entered[2:] == [2, 3, 4]
    for event in work.leave.values():
        event.set()
    for thread in threads:
        thread.join()
    assert (bulkhead.active, bulkhead.queued) == (0, 0)


def test_tasks_wait_in_line_and_one_that_is_cancelled_gives_its_place_away() -> None:
    bulkhead = Bulkhead(1, max_queue=5)
    entered = []

    @Pipeline(bulkhead)
    async def ask(n: int, leave: asyncio.Event) -> int:
        entered.append(n)
        await leave.wait()
        return n

    async def main() -> None:
        leave = [asyncio.Event() for _ in range(5)]
        tasks = [asyncio.create_task(ask(n, leave[n])) for n in range(5)]
        await asyncio.sleep(0)
        assert (entered, bulkhead.queued) == ([0], 4)
        tasks[1].cancel()
        await asyncio.wait([tasks[1]])
        assert bulkhead.queued == 3
        # The next has been called, and is cancelled before it hears of it.
        leave[0].set()
        await tasks[0]
        assert (entered, bulkhead.active, bulkhead.queued) == ([0], 1, 2)
        tasks[2].cancel()
        leave[3].set()
        assert await tasks[3] == 3
        leave[4].set()
        assert await tasks[4] == 4
        assert entered == [0, 3, 4]
        assert tasks[1].cancelled() and tasks[2].cancelled()

    asyncio.run(main())
    assert (bulkhead.active, bulkhead.queued) == (0, 0)


def test_threads_and_loops_wake_one_another() -> None:
    bulkhead, work = Bulkhead(1, max_queue=9), Work()
    ask = Pipeline(bulkhead)(work)

    @Pipeline(bulkhead)
    async def task(n: int) -> int:
        work.entered.append(n)
        return n

    holder = work.started(ask, 0, lambda: bulkhead.active == 1)
    loops = []
    for n in range(1, 4):
        thread = threading.Thread(target=asyncio.run, args=(task(n),)) if n != 2 else threading.Thread(target=ask, args=(n,))
        thread.start()
        loops.append(thread)
        until(lambda n=n: bulkhead.queued == n)
    work.leave[2].set()
    work.leave[0].set()
    for thread in (holder, *loops):
        thread.join(60)
    assert (work.entered, bulkhead.active) == ([0, 1, 2, 3], 0)


def test_tasks_of_trio_wait_too() -> None:
    bulkhead, entered = Bulkhead(1, max_queue=9), []

    @Pipeline(Timeout(60), bulkhead)
    async def ask(n: int) -> None:
        await trio.lowlevel.checkpoint()
        entered.append(n)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for n in range(4):
                nursery.start_soon(ask, n)
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.deadline = trio.current_time() + 60

    trio.run(main)
    assert (sorted(entered), bulkhead.active, bulkhead.queued) == ([0, 1, 2, 3], 0, 0)

    async def cancelled() -> None:
        with Held(bulkhead), trio.move_on_after(1):
            await ask(5)

    trio.run(cancelled, clock=trio.testing.MockClock(autojump_threshold=0.01))
    assert (bulkhead.active, bulkhead.queued) == (0, 0)


class Held:
    """A place that is taken for as long as a block runs."""

    def __init__(self, bulkhead: Bulkhead) -> None:
        self._stream = Pipeline(bulkhead)(Held._items)()

    @staticmethod
    def _items() -> Iterator[int]:
        yield 1
        yield 2

    def __enter__(self) -> Any:
        assert next(self._stream) == 1
        return self._stream

    def __exit__(self, *raised: Any) -> None:
        self._stream.close()


def test_a_stream_keeps_its_place_until_it_ends() -> None:
    bulkhead = Bulkhead(1)
    ask = Pipeline(bulkhead)(lambda: "there")
    with Held(bulkhead) as stream:
        with pytest.raises(BulkheadFullError):
            ask()
        assert list(stream) == [2]
        assert ask() == "there"
    with Held(bulkhead):
        assert bulkhead.active == 1
    assert ask() == "there"
    with Held(bulkhead) as stream, pytest.raises(ZeroDivisionError):
        stream.throw(ZeroDivisionError)
    assert ask() == "there"

    @Pipeline(bulkhead)
    async def items() -> AsyncIterator[int]:
        yield 1
        yield 2

    async def main() -> None:
        async for _ in items():
            assert bulkhead.active == 1
        assert bulkhead.active == 0
        unfinished = items()
        assert await anext(unfinished) == 1
        await unfinished.aclose()
        assert bulkhead.active == 0

    asyncio.run(main())


def test_failures_interrupts_and_cancellations_give_the_place_back() -> None:
    bulkhead = Bulkhead(1)

    def raises(error: BaseException) -> None:
        raise error

    for error in (ValueError(), KeyboardInterrupt(), SystemExit()):
        with pytest.raises(type(error)):
            Pipeline(bulkhead).call(raises, error)
        assert bulkhead.active == 0

    async def main() -> None:
        task = asyncio.ensure_future(Pipeline(bulkhead).acall(asyncio.sleep, 60))
        await asyncio.sleep(0)
        assert bulkhead.active == 1
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert bulkhead.active == 0


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="signals go to the process here")
def test_ctrl_c_ends_the_wait() -> None:
    bulkhead = Bulkhead(1, max_queue=1)
    main = threading.main_thread().ident
    assert main is not None

    def presses() -> None:
        until(lambda: bulkhead.queued == 1)
        signal.pthread_kill(main, signal.SIGINT)

    thread = threading.Thread(target=presses)
    with Held(bulkhead):
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            Pipeline(bulkhead).call(int)
        assert bulkhead.queued == 0
    thread.join()
    assert bulkhead.active == 0


def test_a_wait_has_its_limits(seawall_clock: testing.clock) -> None:
    bulkhead = Bulkhead(1, max_queue=1, max_wait=5)
    with Held(bulkhead):
        before = seawall_clock.now
        with pytest.raises(BulkheadFullError):
            Pipeline(bulkhead).call(int)
        assert seawall_clock.now - before == pytest.approx(5)
        with pytest.raises(CallTimeoutError):
            Pipeline(Timeout(2), bulkhead).call(int)
        assert seawall_clock.now - before == pytest.approx(7)

        async def main() -> None:
            with pytest.raises(CallTimeoutError):
                await Pipeline(Timeout(2), bulkhead).acall(asyncio.sleep, 0)
            # Nothing moves the time here but what somebody waits for.

        task = threading.Thread(target=asyncio.run, args=(main(),))
        task.start()
        until(lambda: bulkhead.queued == 1)
        seawall_clock.advance(2)
        task.join(60)
    assert (bulkhead.active, bulkhead.queued) == (0, 0)


def test_a_full_bulkhead_is_no_evidence_and_the_next_alternative_serves() -> None:
    bulkhead = Bulkhead(1)
    breaker = CircuitBreaker(1)
    with Held(bulkhead):
        assert Pipeline(Fallback("instead"), breaker, bulkhead).call(int) == "instead"
        assert breaker.failure_count == 0


def test_what_waits_for_its_place_is_not_slow(seawall_clock: testing.clock) -> None:
    limit = RateLimit(1, per=60)
    breaker = CircuitBreaker(slow_call_duration=1, slow_call_rate=0.1, minimum_calls=1)
    ask = Pipeline(breaker, limit)(lambda: "quick")
    assert ask() == ask() == "quick"
    assert (breaker.state, breaker.metrics().slow) == ("closed", 0)


def test_a_loop_that_is_gone_leaves_no_place_behind() -> None:
    bulkhead = Bulkhead(1, max_queue=5)

    async def waits() -> None:
        await Pipeline(bulkhead).acall(asyncio.sleep, 0)

    with Held(bulkhead):
        loop = asyncio.new_event_loop()
        task = loop.create_task(waits())
        task._log_destroy_pending = False  # type: ignore[attr-defined]

        async def until_it_waits() -> None:
            while bulkhead.queued < 1:
                await asyncio.sleep(0)

        loop.run_until_complete(until_it_waits())
        loop.close()
        del task, loop
        gc.collect()
        assert bulkhead.queued == 0


def test_it_is_one_wherever_it_goes() -> None:
    bulkhead = Bulkhead(3, max_queue=2, max_wait=1.5, name="b")
    assert copy.copy(bulkhead) is copy.deepcopy(bulkhead) is pickle.loads(pickle.dumps(bulkhead)) is bulkhead
    pipeline = copy.deepcopy(Pipeline(bulkhead))
    assert pipeline.policies == (bulkhead,)
    program = (
        "import pickle, sys\n"
        "one, two = pickle.load(sys.stdin.buffer), pickle.load(sys.stdin.buffer)\n"
        "assert one.policies[0] is two.policies[0]\n"
        "print(one)"
    )
    sent = pickle.dumps(Pipeline(bulkhead)) * 2
    shown = subprocess.run([sys.executable, "-c", program], input=sent, capture_output=True, check=True).stdout.decode().strip()
    assert shown == "Pipeline(<Bulkhead(3, max_queue=2, max_wait=1.5, name='b'): 0 under way, 0 waiting>)"


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork here")
def test_a_forked_process_begins_with_an_empty_one(forking: str) -> None:
    program = (
        forking
        + """
import threading
from seawall import Bulkhead, Pipeline

bulkhead = Bulkhead(1, max_queue=1)
inside, leave = threading.Event(), threading.Event()

def work():
    inside.set()
    leave.wait(60)

thread = threading.Thread(target=Pipeline(bulkhead).call, args=(work,))
thread.start()
inside.wait(60)

def child():
    assert bulkhead.active == 0
    assert Pipeline(bulkhead).call(int) == 0

assert forked(child) == 0
assert bulkhead.active == 1
# Inside of a call: what the child gives back is not the parent's.
leave.set()
thread.join()
assert Pipeline(bulkhead).call(lambda: forked(child)) == 0
assert bulkhead.active == 0
"""
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


def test_guard_puts_it_where_it_belongs() -> None:
    bulkhead, limit = Bulkhead(2), RateLimit(5)
    kinds = [type(policy) for policy in guard(bulkhead=bulkhead, rate_limit=limit, attempt_timeout=3).policies]
    assert kinds == [Retry, CircuitBreaker, RateLimit, Bulkhead, Timeout]
    with pytest.raises(ConfigurationTypeError, match=r"bulkhead must be a seawall.Bulkhead or None, not 2 \(int\)"):
        guard(bulkhead=2)  # type: ignore[call-overload]
    with pytest.warns(PipelineOrderWarning, match="the Bulkhead stands outside the RateLimit"):
        Pipeline(bulkhead, limit)
    described = Pipeline(Bulkhead(2, max_queue=3, max_wait=4), bulkhead).describe()
    assert "2 calls at a time; up to 3 wait, 4 s at most" in described
    assert "2 calls at a time; turns others away" in described


def test_it_is_shown_as_it_is() -> None:
    bulkhead = Bulkhead(1, max_queue=1, name="<b>")
    assert "room" in bulkhead._repr_html_()
    with Held(bulkhead):
        assert "1 of 1" in bulkhead._repr_html_() and "&lt;b&gt;" in bulkhead._repr_html_()
    with Held(Bulkhead(1)) as stream:
        assert stream is not None


def test_wrong_numbers_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="max_concurrency must be a whole number from 1 on, not 0"):
        Bulkhead(0)
    with pytest.raises(ConfigurationError, match="max_wait needs max_queue="):
        Bulkhead(1, max_wait=3)
