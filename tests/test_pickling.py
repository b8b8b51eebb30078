"""Policies, pipelines and guarded functions: pickled, copied, and sent to other processes."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from seawall import (
    Chaos,
    CircuitBreaker,
    Fallback,
    Monitor,
    Pipeline,
    Prompt,
    Retry,
    Timeout,
    presets,
    retry,
    retry_if_result,
    stop_after_attempt,
    transient,
    wait_chain,
    wait_decorrelated_jitter,
    wait_equal_jitter,
    wait_exception,
    wait_exponential,
    wait_exponential_jitter,
    wait_fixed,
    wait_incrementing,
    wait_none,
    wait_random,
    wait_random_exponential,
)
from seawall.errors import CallTimeoutError, CircuitBreakerError


def is_bad(value: Any) -> bool:
    return value == "bad"


def seconds_of(state: Any) -> float:
    return 1.0


def hook(state: Any) -> None:
    hook.calls += 1  # type: ignore[attr-defined]


hook.calls = 0  # type: ignore[attr-defined]


@retry(2, wait=0)
def module_level(value: int) -> int:
    return value + 1


@retry(2, wait=0)
async def coroutine() -> str:
    return "a"


@retry(2, wait=0)
def generator() -> Iterator[str]:
    yield "b"


@retry(2, wait=0)
async def async_generator() -> AsyncIterator[str]:
    yield "c"


class Client:
    @retry(2, wait=0)
    def ask(self, value: int) -> int:
        return value + 2

    @retry(2, wait=0)
    @classmethod
    def made(cls) -> str:
        return cls.__name__

    @retry(2, wait=0)
    @staticmethod
    def alone() -> str:
        return "alone"


POLICIES: list[Any] = [
    Retry(7),
    Retry(
        4,
        on=(KeyError, ValueError),
        wait=wait_fixed(1) + wait_random(0, 2),
        timeout=90,
        max_retry_after=3,
        budget=0.25,
        on_result=is_bad,
        giveup=is_bad,
        before=hook,
        after=hook,
        before_sleep=hook,
    ),
    Retry(stop=stop_after_attempt(5), on=retry_if_result(is_bad)),
    Timeout(2.5),
    Timeout(2.5, thread=True),
    Fallback("instead", {"a": [1]}, on=KeyError, on_result=is_bad, only_when_open=True),
    Fallback(Prompt("shorter: {}")),
    Chaos(latency=(1, 2), latency_rate=0.5, exception=KeyError, exception_rate=0.1, result=None, result_rate=0.2, seed=7),
    wait_exponential(multiplier=1, max=60),
    wait_chain(wait_fixed(1), wait_random(0, 2) + wait_none(), wait_incrementing(1, 2, max=9)),
    wait_random_exponential(max=9) + wait_exponential_jitter(2) + wait_equal_jitter() + wait_decorrelated_jitter(3),
]
WAYS: list[Callable[[Any], Any]] = [
    copy.copy,
    copy.deepcopy,
    *(lambda thing, protocol=protocol: pickle.loads(pickle.dumps(thing, protocol)) for protocol in range(2, 6)),
]


def arguments(policy: Any) -> Any:
    given = policy.__getnewargs_ex__() if hasattr(policy, "__getnewargs_ex__") else policy.__getnewargs__()
    return repr(given)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("policy", POLICIES, ids=repr)
def test_a_policy_is_made_again_as_it_was(policy: Any, way: Callable[[Any], Any]) -> None:
    twin = way(policy)
    assert type(twin) is type(policy)
    assert repr(twin).replace(hex(id(twin)), "") == repr(policy).replace(hex(id(policy)), "")
    if not isinstance(policy, Fallback):
        assert arguments(twin) == arguments(policy)


# These are equal to their copies.
VALUES: list[Any] = [
    wait_fixed(1) + seconds_of,
    wait_chain(wait_fixed(1), seconds_of),
    wait_exception(seconds_of),
    presets.production,
    transient,
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_a_value_is_equal_to_its_copy(value: Any, way: Callable[[Any], Any]) -> None:
    assert way(value) == value and repr(way(value)) == repr(value)


class Unpicklable(Exception):
    def __init__(self, *, needed: int) -> None:
        super().__init__("needed")


def raised(policy: Any, function: Callable[[], Any]) -> Exception:
    with pytest.raises(Exception) as caught:
        Pipeline(policy, name="chat").call(function)
    return caught.value


def fails_unpicklably() -> None:
    raise Unpicklable(needed=1)


def test_what_policies_raise_and_leave_on_others_errors_is_not_lost() -> None:
    breaker = CircuitBreaker(1, name="chat")
    breaker.record_failure(KeyError("first"))
    refused = raised(breaker, int)
    over = threading.Event()
    limited = raised(Timeout(0.001, thread=True), over.wait)
    over.set()
    foreign = raised(Fallback({}.__getitem__, fails_unpicklably), {}.popitem)
    tried = raised(Retry(2, on=KeyError, wait=0), {}.popitem)
    for way in WAYS:
        twin = way(refused)
        assert (type(twin), twin.name, twin.retry_after) == (CircuitBreakerError, "chat", refused.retry_after)  # type: ignore[attr-defined]
        assert repr(twin.last_failure) == "KeyError('first')" and str(twin) == str(refused)
        twin = way(limited)
        assert (type(twin), twin.name, twin.limit, twin.elapsed, str(twin)) == (
            CallTimeoutError,
            "chat",
            0.001,
            0.001,
            str(limited),
        )
        twin = way(foreign)
        assert type(twin) is KeyError and twin.__notes__ == foreign.__notes__
        first, second = twin.alternatives
        assert isinstance(first, TypeError) and "needed" in str(second)
        assert way(tried).__notes__ == tried.__notes__ and "2 attempts" in tried.__notes__[0]


def test_what_a_breaker_tells_travels() -> None:
    heard: list[Any] = []
    breaker = CircuitBreaker(1, name="told", listeners=[heard.append])
    breaker.record_failure(KeyError("first"))
    metrics = breaker.metrics()
    for way in WAYS:
        assert repr(way(metrics)) == repr(metrics) and way(metrics).state == "open"
        assert (way(heard[0]).new, way(heard[0]).breaker) == ("open", breaker)
    with pytest.raises(TypeError, match=r"cannot pickle 'seawall\.Permit'"):
        copy.copy(CircuitBreaker().acquire())


def test_a_copied_retry_retries_as_the_first_and_counts_for_itself() -> None:
    policy = Retry(3, on=KeyError, wait=0, before_sleep=hook)
    twin = copy.deepcopy(policy)
    before = hook.calls  # type: ignore[attr-defined]
    with pytest.raises(KeyError):
        Pipeline(twin).call({}.__getitem__, 1)
    assert hook.calls == before + 2  # type: ignore[attr-defined]
    assert (twin.statistics["attempts"], policy.statistics["attempts"]) == (3, 0)


def test_a_chaos_that_is_on_stays_on() -> None:
    chaos = Chaos(exception=KeyError)
    chaos.enable()
    assert pickle.loads(pickle.dumps(chaos)).enabled
    assert not copy.copy(Chaos(exception=KeyError)).enabled


def test_subclasses_keep_their_class_and_attributes() -> None:
    policy = Named(3)
    policy.label = "mine"
    twin = pickle.loads(pickle.dumps(policy))
    assert (type(twin), twin.label, twin.attempts) == (Named, "mine", 3)


class Named(Retry):
    label: str


def test_a_pipeline_is_made_again_with_its_policies() -> None:
    pipeline = Pipeline(Fallback("instead"), Timeout(9), Retry(3, wait=0), name="chat", monitor=Monitor(name="watch"))
    for way in WAYS:
        twin = way(pipeline)
        assert twin.describe() == pipeline.describe()
        assert (twin.name, twin.monitor.name) == ("chat", "watch")
        assert twin.call(lambda: 1 / 0) == "instead"
    assert copy.copy(pipeline).policies == pipeline.policies
    assert copy.deepcopy(pipeline).policies[2] is not pipeline.policies[2]


def test_a_pipeline_with_a_breaker_finds_it_again() -> None:
    breaker = CircuitBreaker(3, name="test_pickling")
    twin = pickle.loads(pickle.dumps(Pipeline(breaker)))
    assert twin.policies[0] is breaker


def test_a_guarded_function_pickles_by_reference_as_functions_do() -> None:
    for way in (copy.copy, copy.deepcopy):
        assert way(module_level) is module_level
        assert way({"f": module_level})["f"] is module_level
    for function in (module_level, coroutine, generator, async_generator, Client.alone):
        for way in WAYS[2:]:
            assert way(function) is function
    for way in WAYS:
        assert way(Client.made)() == "Client"
    with pytest.raises((pickle.PicklingError, AttributeError)):
        pickle.dumps(retry(2)(lambda: 1))
    assert copy.copy(Client().ask)(1) == 3


SPAWNED = """
import multiprocessing

from seawall import Fallback, Pipeline, Retry, Timeout, circuit, retry, wait_fixed
from seawall.errors import RateLimitError

@retry(3, wait=0)
@circuit(failure_threshold=5)
def twice(value):
    twice.calls = getattr(twice, "calls", 0) + 1
    if twice.calls % 2:
        raise ConnectionError
    return 2 * value

@retry(2, wait=0)
def fails(value):
    raise RateLimitError("slow down", status_code=429)

class Client:
    @retry(2, wait=0)
    def ask(self, value):
        return value + 1

def through(pair):
    pipeline, value = pair
    return pipeline.call(divmod, value, 0), pipeline.name

if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(pool.map(twice, [1, 2, 3]))
        print(pool.map(Client().ask, [1, 2]))
        pipeline = Pipeline(Fallback("none"), Timeout(5), Retry(2, on=ZeroDivisionError, wait=wait_fixed(0)), name="division")
        print(pool.map(through, [(pipeline, 1)]))
        try:
            pool.map(fails, [1])
        except RateLimitError as error:
            print(error.status_code, error.__notes__[0][:31])
"""


def test_they_travel_to_spawned_processes_and_their_errors_back(tmp_path: Path) -> None:
    script = tmp_path / "spawned.py"
    script.write_text(SPAWNED)
    ended = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False, timeout=120)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines() == ["[2, 4, 6]", "[2, 3]", "[('none', 'division')]", "429 seawall: 2 attempts in 0.0 s, p"]
