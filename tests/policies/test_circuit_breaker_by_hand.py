"""The breaker in a caller's own hands: permits, context managers, states set by hand, numbers changed while it works."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import threading
from collections.abc import Iterator

import pytest

from seawall import CircuitBreaker, CircuitBreakerError, CircuitMetrics, Permit, circuits, wait_incrementing, wait_random
from seawall.errors import ConfigurationError


def opened(**options: object) -> CircuitBreaker:
    """A breaker that one failure has opened."""
    breaker = CircuitBreaker(1, **options)  # type: ignore[arg-type]
    breaker.acquire().on_failure()
    return breaker


def half_open(**options: object) -> CircuitBreaker:
    return opened(recovery_timeout=0, **options)


# --- permits


def test_a_permit_tells_how_the_call_came_out() -> None:
    breaker, error = CircuitBreaker(2, 60), ConnectionError("down")
    permit = breaker.acquire()
    assert isinstance(permit, Permit)
    permit.on_failure(error)
    assert (breaker.failure_count, breaker.last_failure) == (1, error)
    breaker.acquire().on_success()
    assert breaker.failure_count == 0
    breaker.acquire().on_failure()
    breaker.acquire().release()
    assert breaker.failure_count == 1


def test_try_acquire_gives_none_and_acquire_raises_while_open() -> None:
    breaker = opened(recovery_timeout=60, name="by hand")
    assert breaker.try_acquire() is None
    with pytest.raises(CircuitBreakerError, match="by hand") as refused:
        breaker.acquire()
    assert 59 < refused.value.retry_after <= 60
    assert breaker.metrics().rejected == 2


def test_a_permit_speaks_once() -> None:
    breaker = CircuitBreaker(2, 60)
    permit = breaker.acquire()
    permit.on_failure()
    permit.on_failure()
    permit.on_success()
    permit.release()
    assert breaker.failure_count == 1


def test_a_permit_dropped_without_a_word_is_released() -> None:
    breaker = half_open()
    probe = breaker.try_acquire()
    assert probe is not None
    assert probe.probe
    assert breaker.try_acquire() is None
    del probe
    gc.collect()
    assert breaker.state == "half_open"
    second = breaker.try_acquire()
    assert second is not None
    second.on_success()
    assert breaker.state == "closed"


def test_a_late_permit_changes_nothing() -> None:
    breaker = CircuitBreaker(1, 60)
    early, failing = breaker.acquire(), breaker.acquire()
    failing.on_failure()
    early.on_success()
    assert breaker.state == "open"
    breaker.reset()
    early_too = breaker.acquire()
    breaker.reset()
    early_too.on_failure()
    assert (breaker.state, breaker.failure_count) == ("closed", 0)


def test_a_permit_as_a_context_manager_judges_what_its_block_raises() -> None:
    breaker = CircuitBreaker(3, 60, (ConnectionError, ValueError), ignore=ValueError)
    with pytest.raises(ConnectionError), breaker.acquire():
        raise ConnectionError
    for neutral in (ValueError, KeyError, KeyboardInterrupt):
        with pytest.raises(neutral), breaker.acquire():
            raise neutral
    assert breaker.failure_count == 1
    with breaker.acquire() as permit:
        permit.on_failure()
    assert breaker.failure_count == 2
    with breaker.acquire():
        pass
    assert breaker.failure_count == 0


async def test_a_permit_is_an_asynchronous_context_manager_too() -> None:
    breaker = CircuitBreaker(1, 60)
    with pytest.raises(ConnectionError):
        async with breaker.acquire():
            await asyncio.sleep(0)
            raise ConnectionError
    assert breaker.state == "open"


# --- the breaker as a context manager


async def test_async_with_rejects_when_open_and_judges_its_block() -> None:
    breaker = CircuitBreaker(1, 60)
    async with breaker as entered:
        assert entered is breaker
    with pytest.raises(ConnectionError):
        async with breaker:
            await asyncio.sleep(0)
            raise ConnectionError
    reached = False
    with pytest.raises(CircuitBreakerError):
        async with breaker:
            reached = True
    assert not reached


async def test_many_tasks_inside_at_once_leave_by_their_own_permit() -> None:
    breaker = half_open(half_open_max_calls=2, success_threshold=2)
    inside, go = asyncio.Semaphore(0), [asyncio.Event(), asyncio.Event()]

    async def enter(which: int, error: type[BaseException] | None) -> None:
        async with breaker:
            inside.release()
            await go[which].wait()
            if error is not None:
                raise error

    cancelled = asyncio.ensure_future(enter(0, None))
    succeeds = asyncio.ensure_future(enter(1, None))
    await inside.acquire()
    await inside.acquire()
    with pytest.raises(CircuitBreakerError):
        await enter(0, None)
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    # One place is free again; the other is still taken.
    assert breaker.metrics().probes == 1
    go[1].set()
    await succeeds
    assert breaker.metrics().probe_successes == 1
    go[0].set()
    await enter(0, None)
    assert breaker.state == "closed"


def test_it_nests_and_so_do_two_breakers() -> None:
    outer, inner = CircuitBreaker(2, 60), CircuitBreaker(2, 60)
    with pytest.raises(ConnectionError), outer, inner, outer:
        raise ConnectionError
    assert (outer.state, inner.state, inner.failure_count) == ("open", "closed", 1)


def test_generators_that_interleave_leave_by_their_own_permit() -> None:
    breaker = CircuitBreaker(1, 60)

    def block(fails: bool) -> Iterator[None]:
        with breaker:
            yield
            if fails:
                raise ConnectionError

    before, after = block(True), block(True)
    next(before)
    breaker.reset()  # `before` is of an earlier era now
    next(after)
    with pytest.raises(ConnectionError):
        next(before)
    assert breaker.state == "closed"
    with pytest.raises(ConnectionError):
        next(after)
    assert breaker.state == "open"


def test_a_block_may_be_entered_in_one_thread_and_left_in_another() -> None:
    breaker = half_open()

    def block() -> Iterator[None]:
        with breaker:
            yield

    generator = block()
    thread = threading.Thread(target=next, args=(generator,))
    thread.start()
    thread.join(20)
    assert breaker.metrics().probes == 1
    generator.close()
    assert (breaker.state, breaker.metrics().probes) == ("half_open", 0)


def test_exit_stacks_of_interleaved_contexts_find_their_own_entrance() -> None:
    breaker = CircuitBreaker(1, 60)
    one, two = contextvars.copy_context(), contextvars.copy_context()
    first, second = contextlib.ExitStack(), contextlib.ExitStack()
    one.run(first.enter_context, breaker)
    breaker.reset()  # what the first stack will tell is of an earlier era
    two.run(second.enter_context, breaker)
    one.run(first.__exit__, ConnectionError, ConnectionError(), None)
    assert breaker.state == "closed"
    two.run(second.__exit__, ConnectionError, ConnectionError(), None)
    assert breaker.state == "open"


def test_exit_stacks_of_one_context_that_end_crosswise_find_their_own_breaker() -> None:
    one, two = CircuitBreaker(1, 60), CircuitBreaker(1, 60)
    two.reset()  # another era than the first: a permit of the one says nothing to the other
    first, second = contextlib.ExitStack(), contextlib.ExitStack()
    first.enter_context(one)
    second.enter_context(two)
    first.__exit__(ConnectionError, ConnectionError(), None)
    assert (one.state, two.state) == ("open", "closed")
    second.__exit__(ConnectionError, ConnectionError(), None)
    assert two.state == "open"


def test_leaving_without_having_entered_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="without having been entered"):
        CircuitBreaker().__exit__(None, None, None)


def test_fifty_threads_inside_at_once() -> None:
    breaker, together = CircuitBreaker(50, 60), threading.Barrier(50)

    def fail() -> None:
        with contextlib.suppress(ConnectionError), breaker:
            together.wait(20)
            raise ConnectionError

    threads = [threading.Thread(target=fail) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    # Every one of the fifty counted, and a lock across the block would have broken the barrier.
    assert (breaker.state, together.broken) == ("open", False)
    assert breaker.metrics().consecutive_failures == 50


# --- states by hand


def test_an_isolation_has_a_way_back() -> None:
    breaker = CircuitBreaker(3, 60)
    breaker.acquire().on_failure()
    with breaker.isolate():
        assert breaker.state == "forced_open"
        assert breaker.try_acquire() is None
    assert (breaker.state, breaker.failure_count) == ("closed", 1)


def test_isolations_last_until_the_last_one_ends() -> None:
    breaker = opened(recovery_timeout=60)
    one, two = breaker.isolate(), breaker.isolate()
    assert one.end()
    assert breaker.state == "forced_open"
    assert not one.end()
    assert two.end()
    assert breaker.state == "open"


def test_a_reset_ends_isolations_and_their_end_does_not_end_later_ones() -> None:
    breaker = CircuitBreaker()
    early = breaker.isolate()
    breaker.reset()
    assert breaker.state == "closed"
    late = breaker.isolate()
    assert not early.end()
    assert breaker.state == "forced_open"
    assert late.end()


def test_an_isolated_half_open_circuit_is_half_open_again() -> None:
    breaker = half_open()
    probe = breaker.try_acquire()
    with breaker.isolate():
        pass
    assert breaker.state == "half_open"
    assert probe is not None
    probe.on_success()  # of an era before the isolation
    assert breaker.state == "half_open"
    breaker.acquire().on_success()
    assert breaker.state == "closed"


@pytest.mark.parametrize("state", ["closed", "open", "half_open", "forced_open", "disabled", "metrics_only"])
def test_each_state_can_be_set_by_hand(state: str) -> None:
    breaker = CircuitBreaker(1, 60)
    breaker.force(state)
    assert breaker.state == state
    assert (breaker.try_acquire() is None) == (state in {"open", "forced_open"})


@pytest.mark.parametrize("state", ["shut", "", 5, None])
def test_an_unknown_state_is_refused(state: object) -> None:
    with pytest.raises(ConfigurationError, match="state must be closed, open"):
        CircuitBreaker().force(state)  # type: ignore[arg-type]


def test_metrics_only_counts_and_never_opens() -> None:
    breaker = CircuitBreaker(1, 60)
    breaker.force("metrics_only")
    for _ in range(3):
        breaker.acquire().on_failure()
    assert (breaker.state, breaker.failure_count) == ("metrics_only", 3)


def test_what_was_seen_elsewhere_counts_in_any_state() -> None:
    breaker, error = CircuitBreaker(2, 60, success_threshold=2), ConnectionError("seen by the health check")
    breaker.record_failure(error)
    breaker.record_success()
    breaker.record_failure()
    breaker.record_failure(error)
    assert (breaker.state, breaker.last_failure) == ("open", error)
    breaker.record_success()
    assert breaker.state == "open"
    breaker.record_success()
    assert breaker.state == "closed"


# --- recovery


def test_the_recovery_time_grows_with_each_opening_in_a_row() -> None:
    breaker = CircuitBreaker(1, recovery_backoff=wait_incrementing(start=100, increment=100, max=250))
    waits = []
    for _ in range(4):
        breaker.acquire().on_failure()
        waits.append(breaker.open_remaining)
        breaker.force("half_open")
    assert [round(wait) for wait in waits if wait is not None] == [100, 200, 250, 250]
    breaker.acquire().on_success()
    breaker.acquire().on_failure()
    assert breaker.open_remaining == pytest.approx(100, abs=1)


def test_the_jitter_of_the_recovery_time_is_jitter() -> None:
    seen = set()
    for _ in range(20):
        breaker = CircuitBreaker(1, recovery_backoff=wait_random(1000, 9000))
        breaker.acquire().on_failure()
        assert breaker.open_remaining is not None
        assert 999 < breaker.open_remaining <= 9000
        seen.add(round(breaker.open_remaining))
    assert len(seen) > 10


def test_a_probe_that_is_slow_has_not_recovered() -> None:
    breaker = CircuitBreaker(slow_call_duration=1e-9, window=1, recovery_timeout=0)
    breaker.acquire().on_success()
    assert breaker.state == "half_open"
    openings = breaker.metrics().openings
    breaker.acquire().on_success()
    assert breaker.metrics().openings == openings + 1
    breaker.configure(slow_call_duration=1000)
    breaker.acquire().on_success()
    assert breaker.state == "closed"


# --- numbers changed while it works


def test_numbers_change_while_it_works() -> None:
    breaker = CircuitBreaker(5, 60)
    for _ in range(3):
        breaker.acquire().on_failure()
    breaker.configure(failure_threshold=4)
    assert (breaker.consecutive_threshold, breaker.failure_count, breaker.state) == (4, 3, "closed")
    breaker.acquire().on_failure()
    assert breaker.state == "open"
    breaker.configure(recovery_timeout=0)
    # The running recovery time keeps its end; the next one is as asked.
    assert breaker.state == "open"
    breaker.force("half_open")
    breaker.acquire().on_failure()
    assert breaker.state == "half_open"


def test_a_change_that_makes_no_breaker_changes_nothing() -> None:
    breaker = CircuitBreaker(failure_rate=0.5, window=10, minimum_calls=5)
    with pytest.raises(ConfigurationError, match="minimum_calls"):
        breaker.configure(window=4, failure_rate=0.1)
    with pytest.raises(ConfigurationError, match="failure_rate"):
        breaker.configure(failure_rate=7)
    with pytest.raises(TypeError, match="no 'patience'; it takes failure_threshold"):
        breaker.configure(patience=3)  # type: ignore[call-arg]
    for _ in range(5):
        breaker.acquire().on_failure()
    assert breaker.state == "open"


def test_none_is_the_default() -> None:
    breaker = CircuitBreaker(3, failure_rate=0.5)
    breaker.configure(failure_threshold=None)
    assert breaker.consecutive_threshold is None
    breaker.configure(failure_rate=None)
    assert breaker.consecutive_threshold == 5


def test_a_window_of_another_span_begins_empty() -> None:
    breaker = CircuitBreaker(failure_rate=1.0, window=10)
    breaker.acquire().on_failure()
    breaker.configure(minimum_calls=9)
    assert breaker.metrics().calls == 1
    breaker.configure(window=20)
    assert breaker.metrics().calls == 0


def test_changes_of_many_threads_are_all_kept() -> None:
    breaker, together = CircuitBreaker(1, 60), threading.Barrier(4)
    changes = [{"failure_threshold": 7}, {"recovery_timeout": 9}, {"success_threshold": 3}, {"half_open_max_calls": 2}]

    def change(options: dict[str, int]) -> None:
        together.wait(20)
        breaker.configure(**options)  # type: ignore[arg-type]

    threads = [threading.Thread(target=change, args=(options,)) for options in changes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    said = breaker.__reduce__()[1][2]  # type: ignore[index]
    assert {
        "failure_threshold": 7,
        "recovery_timeout": 9.0,
        "success_threshold": 3,
        "half_open_max_calls": 2,
    }.items() <= said.items()


def test_a_change_made_while_another_is_read_is_kept() -> None:
    breaker = CircuitBreaker(1, 60)

    class Number:
        def __index__(self) -> int:
            breaker.configure(success_threshold=3)
            return 7

    breaker.configure(failure_threshold=Number())  # type: ignore[arg-type]
    said = breaker.__reduce__()[1][2]  # type: ignore[index]
    assert (said["failure_threshold"], said["success_threshold"]) == (7, 3)


# --- what it tells of itself


def test_a_snapshot_of_the_counts() -> None:
    breaker = CircuitBreaker(failure_rate=0.9, window=10, slow_call_duration=100, name="counted", recovery_timeout=60)
    breaker.acquire().on_success()
    breaker.acquire().on_failure(ConnectionError())
    seen = breaker.metrics()
    assert isinstance(seen, CircuitMetrics)
    assert (seen.name, seen.state, seen.calls, seen.failed, seen.slow) == ("counted", "closed", 2, 1, 0)
    assert (seen.failure_rate, seen.slow_call_rate, seen.consecutive_failures) == (0.5, 0.0, 1)
    assert (seen.openings, seen.rejected, seen.probes, seen.retry_after) == (0, 0, 0, None)
    assert isinstance(seen.last_failure, ConnectionError)
    with pytest.raises(AttributeError):
        seen.calls = 3  # type: ignore[misc]
    breaker.force("open")
    breaker.try_acquire()
    seen = breaker.metrics()
    assert (seen.openings, seen.openings_in_a_row, seen.rejected) == (1, 1, 1)
    assert 59 < (seen.retry_after or 0) <= 60


def test_what_is_not_counted_is_none_not_zero() -> None:
    seen = CircuitBreaker(3).metrics()
    assert (seen.calls, seen.failed, seen.slow, seen.failure_rate, seen.slow_call_rate) == (None,) * 5
    assert CircuitBreaker(failure_rate=0.5).metrics().slow is None


def test_it_explains_itself() -> None:
    breaker = CircuitBreaker(3, 60, name="explained")
    assert breaker.explain() == (
        "Circuit 'explained' is closed and has never been open.\nIt opens at 3 failures in a row: 0 so far."
    )
    for _ in range(3):
        breaker.acquire().on_failure(ConnectionError("no route"))
    breaker.try_acquire()
    lines = breaker.explain().splitlines()
    assert lines[0].startswith("Circuit 'explained' is open since")
    assert lines[0].endswith("ago: 3 failures in a row.")
    assert lines[1].startswith("In ")
    assert lines[2:] == ["The failure counted last: ConnectionError('no route').", "So far: 1 opening, 1 call turned away."]
    with breaker.isolate():
        assert "forced open" in breaker.explain()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"failure_rate": 0.5}, "It opens at 50 % failures of the last 100 calls, from 10 calls: 0 of 0 (0 %) so far."),
        ({"failure_rate": 0.5, "window": 30.0}, "It opens at 50 % failures of the last 30 s, from 10 calls"),
        ({"slow_call_duration": 2, "slow_call_rate": 0.25}, "It opens at 25 % calls of 2 s or more of the last 100 calls"),
    ],
)
def test_it_explains_its_rules(options: dict[str, float], says: str) -> None:
    breaker = CircuitBreaker(**options)  # type: ignore[arg-type]
    assert says in breaker.explain()
    breaker.force("metrics_only")
    assert says.replace("opens", "would open") in breaker.explain()


# --- the registry


def test_named_breakers_are_found_by_name() -> None:
    breaker = CircuitBreaker(1, 60, name="found by name")
    assert circuits["found by name"] is breaker
    assert circuits.get("found by name") is breaker
    assert breaker in circuits
    assert "found by name" in circuits
    assert breaker in list(circuits)
    assert breaker in circuits.closed()
    breaker.acquire().on_failure()
    assert breaker in circuits.open()
    assert breaker not in circuits.closed()
    circuits.reset_all()
    assert breaker.closed
    assert circuits.get("nobody") is None
    with pytest.raises(KeyError, match="there is no circuit 'nobody'; there are .*'found by name'"):
        circuits["nobody"]


def test_two_breakers_of_one_name_are_both_there() -> None:
    one, two = CircuitBreaker(name="twins"), CircuitBreaker(name="twins")
    assert circuits.all("twins") == [one, two]
    assert circuits["twins"] is two
    del two
    gc.collect()
    assert circuits["twins"] is one


def test_a_breaker_that_holds_its_own_caller_is_not_held_for_ever() -> None:
    import weakref

    def make() -> weakref.ref[CircuitBreaker]:
        breaker = CircuitBreaker(name="a cycle")
        breaker.add_listener(lambda event: breaker)
        with contextlib.suppress(ConnectionError), breaker:
            raise ConnectionError
        assert breaker.last_failure is not None  # its traceback holds this frame, which holds the breaker
        return weakref.ref(breaker)

    ref = make()
    gc.collect()
    assert ref() is None
