"""The breaker through all its doors at once, against a list of what happened; and crowds of threads and tasks."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import pickle
import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from seawall import CircuitBreaker, CircuitBreakerError, Pipeline


class Counts(Exception):
    pass


class Ignored(Counts):
    pass


class Other(Exception):
    pass


class Cancelled(asyncio.CancelledError):
    pass


OUTCOMES = st.sampled_from(["good", "bad", Counts, Ignored, Other, KeyboardInterrupt, Cancelled])


def evidence(outcome: Any, judges_values: bool) -> bool | None:
    """Whether it was a failure; `None` if it told nothing."""
    if isinstance(outcome, str):
        return outcome == "bad" and judges_values
    return True if outcome is Counts else None


def finish(coroutine: Any) -> Any:
    """Runs a coroutine that waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it waited")


def do(outcome: Any) -> str:
    if isinstance(outcome, str):
        return outcome
    raise outcome


class Model(RuleBasedStateMachine):
    """Recovery takes no time, or for ever: with either the clock has no say."""

    @initialize(
        threshold=st.integers(1, 4),
        at_once=st.booleans(),
        probes=st.integers(1, 3),
        successes=st.integers(1, 3),
        rate=st.booleans(),
    )
    def start(self, threshold: int, at_once: bool, probes: int, successes: int, rate: bool) -> None:
        self.threshold, self.at_once, self.probes, self.successes = threshold, at_once, probes, successes
        rates = {"failure_rate": 0.5, "window": 6, "minimum_calls": 3} if rate else {}
        self.rate = rate
        self.breaker = CircuitBreaker(
            threshold,
            0 if at_once else 1e6,
            Counts,
            ignore=Ignored,
            on_result=lambda value: value == "bad",
            half_open_max_calls=probes,
            success_threshold=successes,
            listeners=[lambda event: self.told.append((event.old, event.new))],
            **rates,
        )
        self.told: list[tuple[str, str]] = []
        self.expected_told: list[tuple[str, str]] = []
        self.mode, self.era, self.row, self.won = "closed", 0, 0, 0
        self.calls: list[bool] = []
        self.rejected = 0
        self.out: list[tuple[Any, int, bool]] = []
        self.isolations: list[Any] = []
        self.before = "closed"

    # --- the model

    def enter(self, mode: str) -> None:
        if mode != self.mode:
            self.expected_told.append((self.mode, mode))
        self.mode, self.era, self.won = mode, self.era + 1, 0

    def state(self) -> str:
        return "half_open" if self.mode == "open" and self.at_once else self.mode

    def admits(self) -> bool:
        if self.state() == "half_open" and self.mode == "open":
            self.enter("half_open")
        busy = sum(probe and era == self.era for _, era, probe in self.out)
        free = self.mode in {"closed", "disabled", "metrics_only"} or (self.mode == "half_open" and busy < self.probes)
        self.rejected += not free
        return free

    def open(self) -> None:
        self.enter("open")

    def close(self) -> None:
        self.enter("closed")
        self.row, self.calls = 0, []

    def settles(self, era: int, failed: bool | None) -> None:
        if era != self.era or failed is None:
            return
        if self.mode == "half_open":
            if failed:
                self.row += 1
                self.open()
            else:
                self.won += 1
                if self.won >= self.successes:
                    self.close()
        elif self.mode in {"closed", "metrics_only"}:
            self.row = self.row + 1 if failed else 0
            self.calls = [*self.calls, failed][-6:]
            half = self.rate and len(self.calls) >= 3 and sum(self.calls) >= 0.5 * len(self.calls)
            if self.mode == "closed" and failed and (self.row >= self.threshold or half):
                self.open()

    # --- the doors

    def through(self, door: Callable[[], Any], outcome: Any, judges_values: bool) -> None:
        free = self.admits()
        era = self.era
        try:
            result = door()
        except CircuitBreakerError:
            assert not free
            return
        except BaseException as error:
            assert free
            assert type(error) is outcome
        else:
            assert free
            assert result == outcome
        self.settles(era, evidence(outcome, judges_values))

    @rule(outcome=OUTCOMES)
    def call(self, outcome: Any) -> None:
        self.through(lambda: self.breaker.call(do, outcome), outcome, True)

    @rule(outcome=OUTCOMES)
    def decorated(self, outcome: Any) -> None:
        self.through(lambda: Pipeline(self.breaker)(do)(outcome), outcome, True)

    @rule(outcome=OUTCOMES)
    def awaited(self, outcome: Any) -> None:
        async def work() -> str:
            return do(outcome)

        self.through(lambda: finish(self.breaker.acall(work)), outcome, True)

    @rule(outcome=OUTCOMES)
    def block(self, outcome: Any) -> None:
        def enter() -> str:
            with self.breaker:
                return do(outcome)

        self.through(enter, outcome, False)

    @rule(outcome=OUTCOMES)
    def asynchronous_block(self, outcome: Any) -> None:
        async def enter() -> str:
            async with self.breaker:
                return do(outcome)

        self.through(lambda: finish(enter()), outcome, False)

    @rule()
    def acquire(self) -> None:
        free, permit = self.admits(), self.breaker.try_acquire()
        assert (permit is not None) == free
        if permit is not None:
            assert permit.probe == (self.mode == "half_open")
            self.out.append((permit, self.era, permit.probe))

    @precondition(lambda self: getattr(self, "out", None))
    @rule(which=st.integers(0, 9), how=st.sampled_from(["success", "failure", "release", "drop"]))
    def give_back(self, which: int, how: str) -> None:
        permit, era, _ = self.out.pop(which % len(self.out))
        if how == "success":
            permit.on_success()
            self.settles(era, False)
        elif how == "failure":
            permit.on_failure(Counts())
            self.settles(era, True)
        elif how == "release":
            permit.release()
        del permit

    @rule()
    def reset(self) -> None:
        self.breaker.reset()
        self.isolations = []
        self.close()

    @rule(state=st.sampled_from(["closed", "open", "half_open", "forced_open", "disabled", "metrics_only"]))
    def force(self, state: str) -> None:
        self.breaker.force(state)
        self.isolations = []
        {"closed": self.close, "open": self.open}.get(state, lambda: self.enter(state))()

    @rule()
    def isolate(self) -> None:
        if not self.isolations:
            self.before = self.mode
            self.enter("forced_open")
        self.isolations.append(self.breaker.isolate())

    @precondition(lambda self: getattr(self, "isolations", None))
    @rule()
    def end_isolation(self) -> None:
        assert self.isolations.pop().end()
        if not self.isolations:
            # Half open again is an open circuit whose time is up.
            self.enter("open" if self.before == "half_open" else self.before)
            if self.before == "half_open" and not self.at_once:
                self.force("half_open")

    @rule(threshold=st.integers(1, 4), probes=st.integers(1, 3), successes=st.integers(1, 3))
    def configure(self, threshold: int, probes: int, successes: int) -> None:
        self.breaker.configure(failure_threshold=threshold, half_open_max_calls=probes, success_threshold=successes)
        self.threshold, self.probes, self.successes = threshold, probes, successes

    @rule()
    def copies_are_itself(self) -> None:
        assert copy.deepcopy(self.breaker) is self.breaker

    # --- what must hold

    @invariant()
    def all_that_can_be_seen_is_equal(self) -> None:
        if not hasattr(self, "breaker"):
            return
        seen = self.breaker.metrics()
        assert (self.breaker.state, seen.state) == (self.state(), self.state())
        assert (self.breaker.closed, self.breaker.opened) == (self.state() == "closed", self.state() in {"open", "forced_open"})
        assert self.breaker.failure_count == seen.consecutive_failures == self.row
        assert seen.rejected == self.rejected
        assert seen.probes == sum(probe and era == self.era for _, era, probe in self.out)
        assert seen.probe_successes == self.won
        assert (seen.calls, seen.failed) == ((len(self.calls), sum(self.calls)) if self.rate else (None, None))
        assert self.told == self.expected_told
        assert self.breaker.explain()


Model.TestCase.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
TestModel = Model.TestCase


# --- crowds


def by_call(breaker: CircuitBreaker, work: Callable[[], Any]) -> Any:
    return breaker.call(work)


def by_block(breaker: CircuitBreaker, work: Callable[[], Any]) -> Any:
    with breaker:
        return work()


def by_permit(breaker: CircuitBreaker, work: Callable[[], Any]) -> Any:
    with breaker.acquire():
        return work()


DOORS = pytest.mark.parametrize("door", [by_call, by_block, by_permit])


@DOORS
def test_half_open_fifty_threads_one_probe_and_the_others_do_not_wait(door: Callable[..., Any]) -> None:
    breaker = CircuitBreaker(1, 0)
    breaker.acquire().on_failure()
    together, others, lock = threading.Barrier(50), threading.Semaphore(0), threading.Lock()
    seen: list[str] = []

    def probe() -> None:
        # Ends only when all the others have been turned away: whoever waits for the probe waits for ever.
        for _ in range(49):
            assert others.acquire(timeout=20)

    def caller() -> None:
        together.wait(20)
        try:
            door(breaker, probe)
        except CircuitBreakerError:
            with lock:
                seen.append("rejected")
            others.release()
        else:
            with lock:
                seen.append("probe")

    threads = [threading.Thread(target=caller) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(40)
    assert (seen.count("rejected"), seen.count("probe"), breaker.state) == (49, 1, "closed")


async def aby_call(breaker: CircuitBreaker, work: Callable[[], Any]) -> Any:
    return await breaker.acall(work)


async def aby_block(breaker: CircuitBreaker, work: Callable[[], Any]) -> Any:
    async with breaker:
        return await work()


async def aby_permit(breaker: CircuitBreaker, work: Callable[[], Any]) -> Any:
    async with breaker.acquire():
        return await work()


ADOORS = pytest.mark.parametrize("door", [aby_call, aby_block, aby_permit])


@ADOORS
async def test_half_open_fifty_tasks_one_probe_and_the_others_do_not_wait(door: Callable[..., Any]) -> None:
    breaker, others = CircuitBreaker(1, 0), asyncio.Semaphore(0)
    breaker.acquire().on_failure()

    async def probe() -> None:
        for _ in range(49):
            await others.acquire()

    async def caller() -> str:
        try:
            await door(breaker, probe)
        except CircuitBreakerError:
            others.release()
            return "rejected"
        return "probe"

    seen = await asyncio.wait_for(asyncio.gather(*(caller() for _ in range(50))), 20)
    assert (seen.count("rejected"), seen.count("probe"), breaker.state) == (49, 1, "closed")


@ADOORS
async def test_fifty_cancelled_tasks_tell_nothing(door: Callable[..., Any]) -> None:
    breaker, inside = CircuitBreaker(2, 60), asyncio.Semaphore(0)
    breaker.acquire().on_failure()

    async def hangs() -> None:
        inside.release()
        await asyncio.Event().wait()

    tasks = [asyncio.ensure_future(door(breaker, hangs)) for _ in range(50)]
    for _ in tasks:
        await inside.acquire()
    for task in tasks:
        task.cancel()
    assert all(isinstance(r, asyncio.CancelledError) for r in await asyncio.gather(*tasks, return_exceptions=True))
    # Neither a failure nor the success that would have reset the count.
    assert (breaker.state, breaker.failure_count) == ("closed", 1)


@DOORS
def test_fifty_late_successes_do_not_close_it(door: Callable[..., Any]) -> None:
    breaker = CircuitBreaker(1, 60)
    inside, finish = threading.Barrier(51), threading.Event()

    def slow() -> None:
        inside.wait(20)
        assert finish.wait(20)

    threads = [threading.Thread(target=door, args=(breaker, slow)) for _ in range(50)]
    for thread in threads:
        thread.start()
    inside.wait(20)  # all fifty are in: none was serialised
    with contextlib.suppress(Counts):
        door(breaker, lambda: do(Counts))
    finish.set()
    for thread in threads:
        thread.join(40)
    assert (breaker.state, breaker.metrics().openings) == ("open", 1)


@DOORS
def test_fifty_threads_that_fail_open_it_once(door: Callable[..., Any]) -> None:
    breaker, together = CircuitBreaker(50, 60), threading.Barrier(50)

    def fail() -> None:
        together.wait(20)
        raise Counts

    def caller() -> None:
        with contextlib.suppress(Counts):
            door(breaker, fail)

    threads = [threading.Thread(target=caller) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(40)
    seen = breaker.metrics()
    assert (seen.state, seen.consecutive_failures, seen.openings) == ("open", 50, 1)


def test_a_pickled_breaker_in_a_crowd_is_the_breaker() -> None:
    breaker = CircuitBreaker(3, name="in a crowd")
    pickled, found, together = pickle.dumps(breaker), [], threading.Barrier(8)

    def load() -> None:
        together.wait(20)
        found.append(pickle.loads(pickled))

    threads = [threading.Thread(target=load) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert [f is breaker for f in found] == [True] * 8
