"""What libraries of this kind are known to get wrong, where no other test says it: see docs/traps.md."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from seawall import (
    CircuitBreaker,
    Fallback,
    Pipeline,
    PipelineOrderWarning,
    Retry,
    Timeout,
    circuit,
    classify,
    guard,
    retry,
    testing,
    wait_exponential,
)
from seawall.errors import CircuitBreakerError, Rejected


def raises(error: BaseException) -> None:
    raise error


def tried(breaker: CircuitBreaker, error: BaseException) -> str:
    """The state after a call that raised that."""
    with pytest.raises(type(error)):
        breaker.call(raises, error)
    return breaker.state


# --- the circuit breaker


def test_a_late_failure_does_not_reopen_a_half_open_circuit(seawall_clock: testing.clock) -> None:
    breaker = CircuitBreaker(1, 5)
    late = breaker.acquire()
    breaker.record_failure()
    seawall_clock.advance(5)
    probe = breaker.acquire()
    late.on_failure(ConnectionError())
    assert breaker.state == "half_open"
    probe.on_success()
    assert breaker.closed


def test_a_late_result_takes_and_gives_back_no_probes_place(seawall_clock: testing.clock) -> None:
    breaker = CircuitBreaker(1, 5, half_open_max_calls=2, success_threshold=2)
    late = [breaker.acquire() for _ in range(4)]
    breaker.record_failure()
    seawall_clock.advance(5)
    probes = [breaker.acquire(), breaker.acquire()]
    for permit in late:
        permit.on_success()
    assert breaker.try_acquire() is None and breaker.metrics().probe_successes == 0
    for probe in probes:
        probe.on_success()
    assert breaker.closed


def test_a_class_with_a_metaclass_of_its_own_is_a_class_and_not_asked() -> None:
    class Meta(type):
        def __call__(cls, *arguments: Any) -> Any:
            return super().__call__(*arguments)

    class Odd(Exception, metaclass=Meta):
        pass

    breaker = CircuitBreaker(1, ignore=Odd)
    assert [tried(breaker, Odd()), tried(breaker, ValueError())] == ["closed", "open"]
    breaker = CircuitBreaker(1, expected_exception=Odd)
    assert [tried(breaker, ValueError()), tried(breaker, Odd())] == ["closed", "open"]


def test_a_subclass_of_a_subclass_keeps_its_defaults() -> None:
    class Ours(CircuitBreaker):
        FAILURE_THRESHOLD = 1
        EXPECTED_EXCEPTION = KeyError

    class Theirs(Ours):
        pass

    breaker = Theirs()
    assert [tried(breaker, ValueError()), tried(breaker, KeyError())] == ["closed", "open"]


@pytest.mark.parametrize("decorate", [circuit, retry, guard])
def test_a_decorator_that_gets_the_function_first_keeps_its_other_arguments(decorate: Callable[..., Any]) -> None:
    assert decorate(raises, name="mine").pipeline.name == "mine"
    assert "wait_fixed(wait=7)" in repr(retry(raises, wait=7).pipeline)
    assert [repr(policy) for policy in guard(raises, retry=7, circuit=None, timeout=3).pipeline.policies] == [
        "Timeout(3)",
        "Retry(7)",
    ]
    breaker = circuit(raises, recovery_timeout=0, expected_exception=KeyError).pipeline.policies[0]
    breaker.force("open")
    assert breaker.state == "half_open"


def test_a_breaker_is_called_after_the_first_function_that_it_guards_and_keeps_the_name() -> None:
    breaker = CircuitBreaker()

    @breaker
    def first() -> None: ...

    @breaker
    def second() -> None: ...

    assert breaker.name is not None and breaker.name.endswith("first")


async def test_a_plain_fallback_serves_an_asynchronous_circuit() -> None:
    @circuit(1, fallback_function=lambda: "instead")
    async def down() -> str:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await down()
    assert await down() == "instead"


def test_the_failure_that_opens_it_is_the_one_that_is_raised() -> None:
    error = ConnectionError("the third")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PipelineOrderWarning)
        policies = Pipeline(Retry(5, wait=0), CircuitBreaker(2), name="chat")
    with pytest.raises(ConnectionError) as raised:
        policies.call(raises, error)
    assert raised.value is error
    assert raised.value.__notes__ == ["seawall: 2 attempts in 0.0 s, pipeline 'chat' (the circuit opened)"]
    with pytest.raises(CircuitBreakerError):
        policies.call(raises, error)
    counts = policies.policies[0].statistics
    assert (counts["calls"], counts["attempts"], counts["retries"]) == (2, 2, 2)


@pytest.mark.parametrize("listed", [Exception, CircuitBreakerError, Rejected])
def test_an_open_circuits_refusal_is_not_tried_again(listed: type[Exception]) -> None:
    breaker = CircuitBreaker()
    breaker.force("open")
    with pytest.raises(CircuitBreakerError):
        Pipeline(Retry(3, on=listed, wait=0), breaker).call(int)
    assert breaker.metrics().rejected == 1


def test_an_outer_breaker_takes_an_inner_ones_refusal_for_nothing_unless_it_comes_out_of_the_function() -> None:
    inner, outer = CircuitBreaker(1), CircuitBreaker(1)
    inner.force("open")
    with pytest.raises(CircuitBreakerError):
        Pipeline(outer, inner).call(int)
    assert outer.closed
    # Out of a function it is an exception like any other: `ignore=Rejected` makes it neutral.
    neutral = CircuitBreaker(1, ignore=Rejected)
    for breaker, state in ((neutral, "closed"), (outer, "open")):
        with pytest.raises(CircuitBreakerError):
            breaker.call(inner.call, int)
        assert breaker.state == state


def test_a_recovery_time_that_grows_beyond_all_bounds_is_for_ever(seawall_clock: testing.clock) -> None:
    breaker = CircuitBreaker(1, recovery_backoff=wait_exponential(multiplier=1e300, exp_base=1e300))
    breaker.record_failure()
    seawall_clock.advance(3600)
    assert breaker.state == "open" and breaker.open_remaining is not None and breaker.open_remaining > 1e8


# In place of the C library's: the time of day is so many seconds off, any other time is what it is.
SHIM = """
#define _GNU_SOURCE
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
long jump = 0;
int clock_gettime(clockid_t id, struct timespec *now) {
    int failed = syscall(SYS_clock_gettime, id, now);
    if (!failed && id == CLOCK_REALTIME)
        now->tv_sec += jump;
    return failed;
}
"""
JUMPS = """
import ctypes, sys, time
jump = ctypes.c_long.in_dll(ctypes.CDLL(sys.argv[1]), "jump")
from seawall import CircuitBreaker, Pipeline, Retry, Timeout
today, breaker, tries = time.time(), CircuitBreaker(1, 30), []
breaker.record_failure()

@Pipeline(Timeout(600), Retry(3, wait=0.01))
def ask():
    tries.append(1)
    jump.value = years[len(tries) % 2]
    if len(tries) < 3:
        raise ConnectionError
    return "answer"

years = 10**9, -10**9
for jump.value in years:
    assert abs(time.time() - today) > 10**8
    assert breaker.state == "open" and 0 < breaker.open_remaining <= 30, breaker.open_remaining
assert ask() == "answer" and ask.statistics["last_seconds"] < 600
print("kept time")
"""


@pytest.mark.skipif(sys.platform != "linux" or not shutil.which("cc"), reason="the time of day is moved by a library made here")
def test_the_walls_clock_may_jump(tmp_path: Path) -> None:
    source, library = tmp_path / "jump.c", tmp_path / "jump.so"
    source.write_text(SHIM)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
    program = [sys.executable, "-c", JUMPS, library]
    ended = subprocess.run(
        program, env={**os.environ, "LD_PRELOAD": str(library)}, capture_output=True, text=True, timeout=60, check=False
    )
    assert (ended.returncode, ended.stdout) == (0, "kept time\n"), ended.stderr


def test_its_refusals_are_new_objects_that_do_not_grow() -> None:
    breaker = CircuitBreaker()
    breaker.force("open")
    refusals = []
    for _ in range(3):
        with pytest.raises(CircuitBreakerError) as raised:
            breaker.call(int)
        refusals.append(raised.value)
    depths = []
    for refusal in refusals:
        at, depth = refusal.__traceback__, 0
        while at is not None:
            at, depth = at.tb_next, depth + 1
        depths.append(depth)
    assert len(set(map(id, refusals))) == 3 and depths == depths[:1] * 3
    assert all(refusal.__context__ is None and refusal.__cause__ is None for refusal in refusals)


# --- retries, limits, alternatives


def test_said_nothing_it_does_not_try_for_ever_nor_without_waits(seawall_clock: testing.clock) -> None:
    calls = 0

    @retry
    def down() -> None:
        nonlocal calls
        calls += 1
        raise ConnectionError

    with pytest.raises(ConnectionError):
        down()
    assert calls == 3 and 1.1 < seawall_clock.now <= 1.5


def test_causes_that_go_in_a_circle_end() -> None:
    first, second = httpx.ConnectError("down"), httpx.ConnectError("down")  # their causes are looked through for a certificate
    first.__cause__ = first.__context__ = second
    second.__cause__ = second.__context__ = first
    assert classify(first) == "transient"
    with pytest.raises(httpx.ConnectError):
        retry(2, wait=0)(raises)(first)


async def test_a_timeout_of_the_functions_own_is_not_the_limits() -> None:
    own = asyncio.TimeoutError("its own")
    with pytest.raises(asyncio.TimeoutError) as raised:
        await Pipeline(Timeout(60)).acall(raises, own)
    assert raised.value is own


@pytest.mark.parametrize("value", [None, 0, "", False, []])
def test_an_alternative_that_is_false_is_one(value: Any) -> None:
    assert Pipeline(Fallback(value)).call(raises, ConnectionError()) is value
    assert guard(fallback=[value])(raises)(ValueError()) is value
    if value not in (None, []):  # the one says that there is none, the other is a list of alternatives
        assert guard(fallback=value)(raises)(ValueError()) is value


def test_counts_are_of_ended_calls_and_a_running_one_knows_its_own_attempt() -> None:
    seen = []

    @retry(3, wait=0, before=lambda state: seen.append((state.attempt_number, asks.statistics["attempts"])))
    def asks() -> None:
        if len(seen) < 3:
            raise ConnectionError

    asks()
    assert seen == [(1, 0), (2, 0), (3, 0)]
    assert asks.statistics["attempts"] == 3  # type: ignore[attr-defined]
