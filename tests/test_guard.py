"""`guard`, presets, `Pipeline` and what guarded functions look like."""

from __future__ import annotations

import _thread
import functools
import inspect
import signal
import threading
import warnings

import pytest

import seawall
from seawall import (
    Bulkhead,
    CircuitBreaker,
    Fallback,
    Hedge,
    Pipeline,
    PipelineOrderWarning,
    Retry,
    Timeout,
    circuit,
    guard,
    presets,
    retry,
    stop_after_delay,
    wait_fixed,
    wait_random,
)
from seawall.errors import ConfigurationError


def kinds(guarded: object) -> list[str]:
    return [type(policy).__name__ for policy in guarded.pipeline.policies]  # type: ignore[attr-defined]


def test_bare_it_means_retries_and_a_breaker() -> None:
    @guard
    def ask() -> str:
        return "answer"

    assert ask() == "answer"
    assert kinds(ask) == ["Retry", "CircuitBreaker"]
    assert ask.pipeline.policies[0].attempts == 3  # type: ignore[attr-defined]


def test_presets_are_the_documents() -> None:
    assert kinds(guard("dev")(str)) == ["Retry"]
    assert kinds(guard("test")(str)) == ["Retry", "CircuitBreaker"]
    assert kinds(guard("prod", fallback="sorry")(str)) == ["Fallback", "Timeout", "Retry", "CircuitBreaker", "Timeout"]
    assert [presets.get(name).retry for name in ("dev", "test", "prod")] == [2, 3, 5]


def test_production_wants_its_fallback_said_aloud() -> None:
    with pytest.raises(ConfigurationError, match="fallback="):
        guard("prod")
    assert "Fallback" not in kinds(guard("prod", fallback=None)(str))


def test_an_unknown_preset_is_refused_by_name() -> None:
    with pytest.raises(ConfigurationError, match=r"'staging'.*'prod'"):
        guard("staging")


def test_none_removes_a_part_and_objects_are_shared() -> None:
    breaker = CircuitBreaker(9)
    one, two = guard(retry=None, circuit=breaker)(str), guard(circuit=breaker, retry=2)(str)
    assert kinds(one) == ["CircuitBreaker"]
    assert one.pipeline.policies[0] is two.pipeline.policies[1]  # type: ignore[attr-defined]


def test_its_own_breaker_does_not_open_on_one_bad_call() -> None:
    @guard(retry=Retry(5, wait=0))
    def ask() -> str:
        raise ConnectionError

    for _ in range(3):
        with pytest.raises(ConnectionError):
            ask()
    assert ask.pipeline.policies[1].state == "closed"  # type: ignore[attr-defined]
    with pytest.raises(ConnectionError):
        ask()
    # The twentieth attempt was the last of the fourth call.
    assert ask.pipeline.policies[1].state == "open"  # type: ignore[attr-defined]


def test_pipelines_nest_and_describe_themselves() -> None:
    inner = Pipeline(Retry(2), Timeout(5))
    outer = Pipeline(Fallback("instead"), inner, name="chat")
    assert [type(policy).__name__ for policy in outer.policies] == ["Fallback", "Retry", "Timeout"]
    lines = outer.describe().splitlines()
    assert "chat" in lines[0]
    assert [line.strip(" └").split("  ")[0] for line in lines[1:]] == ["Fallback", "Retry", "Timeout", "the call"]
    with pytest.raises(TypeError, match="policies"):
        Pipeline("Retry")


def test_known_wrong_orders_warn() -> None:
    for policies, text in (
        ((CircuitBreaker(9), Fallback("x")), "outside the Fallback"),
        ((Retry(3), Fallback("x")), "outside the Fallback"),
        ((Retry(5), CircuitBreaker(5)), "one bad call opens"),
        ((Retry(stop=stop_after_delay(9)), CircuitBreaker(5)), "is not above the attempts of one call"),
        ((Retry(3), CircuitBreaker(9), Retry(2)), "2 Retry policies .* 3 × 2 attempts"),
        ((Retry(3), Retry(stop=stop_after_delay(9))), "3 × … attempts"),
        ((twice := Bulkhead(1), Timeout(5), twice), "the same Bulkhead stands in the pipeline twice"),
        ((Hedge(5), Timeout(5)), "5 s is over before the Hedge's delay of 5 s"),
        ((Timeout(0.3), Retry(3)), r"0.3 s .* before its first wait is \(0.375 s"),
        ((Timeout(1), Retry(3, wait=wait_fixed(0.5) + wait_random(0.5, 2))), "nothing is ever tried again"),
    ):
        with pytest.warns(PipelineOrderWarning, match=text):
            Pipeline(*policies)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Pipeline(Fallback("x"), Timeout(60), Retry(3), CircuitBreaker(5), Timeout(20))
        Pipeline(Hedge(5), Bulkhead(1), Bulkhead(1), Timeout(6))
        Pipeline(Timeout(0.3), Hedge(percentile=0.9, initial_delay=5))
        Pipeline(Timeout(0.3), Retry(3, wait=wait_random(0, 2)))
        Pipeline(Timeout(0.3), Retry(3, wait=lambda state: 5))
        Pipeline(Timeout(0.3), Retry(1), Timeout(0.1))


@pytest.mark.parametrize("decorate", [circuit, retry, guard])
def test_inspect_sees_what_it_saw(decorate: object) -> None:
    def plain(a: int, *, b: str = "x") -> bytes:
        """What it does."""
        raise NotImplementedError

    async def coroutine(a: int) -> bytes:
        raise NotImplementedError

    guarded = decorate(plain)  # type: ignore[operator]
    assert inspect.signature(guarded) == inspect.signature(plain)
    assert (guarded.__name__, guarded.__doc__, guarded.__wrapped__) == ("plain", "What it does.", plain)
    assert guarded.__annotations__ == plain.__annotations__
    assert not inspect.iscoroutinefunction(guarded)
    assert inspect.iscoroutinefunction(decorate(coroutine))  # type: ignore[operator]


async def test_partials_of_coroutine_functions_and_callable_objects() -> None:
    async def add(a: int, b: int) -> int:
        return a + b

    class Adder:
        async def __call__(self, a: int) -> int:
            return a + 2

    assert await retry(functools.partial(add, 1))(2) == 3
    assert await retry(Adder())(1) == 3


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="signals to a thread are Unix's")
def test_ctrl_c_ends_a_wait_at_once() -> None:
    main = threading.get_ident()
    waiting = threading.Event()

    @retry(2, wait=600, before_sleep=lambda state: waiting.set())
    def ask() -> None:
        raise ConnectionError

    def interrupt() -> None:
        assert waiting.wait(20)
        signal.pthread_kill(main, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        ask()
    thread.join(20)


def test_an_interrupt_without_a_signal_to_this_thread_ends_a_wait_too() -> None:
    @retry(2, wait=600, before_sleep=lambda state: threading.Thread(target=_thread.interrupt_main).start())
    def ask() -> None:
        raise ConnectionError

    with pytest.raises(KeyboardInterrupt):
        ask()


def test_everything_promised_is_there() -> None:
    for name in seawall.__all__:
        assert hasattr(seawall, name), name


def test_a_monitor_is_told_how_each_call_came_out():
    monitor = seawall.Monitor()

    @guard(retry=Retry(3, on=ValueError, wait=0), fallback=["instead"], circuit=None, monitor=monitor)
    def work(fails):
        if fails:
            raise ValueError

    work(False)
    assert work(True) == "instead"
    seen = monitor.snapshot()
    assert (seen["total"], seen["errors"], seen["retried"], seen["retries"], seen["fallbacks"]) == (2, 0, 1, 2, 1)


async def test_a_monitor_counts_asynchronous_calls_and_their_failures():
    monitor = seawall.Monitor()

    @guard(retry=None, circuit=None, monitor=monitor)
    async def work(fails):
        if fails:
            raise ValueError

    await work(False)
    with pytest.raises(ValueError):
        await work(True)
    assert (monitor.snapshot()["total"], monitor.snapshot()["errors"]) == (2, 1)
    cancelled = work(False)
    cancelled.close()
    assert monitor.snapshot()["total"] == 2


def test_the_production_preset_watches_by_itself():
    assert guard("prod", fallback=None)(lambda: 1).pipeline.monitor is not None
    assert guard("production", fallback=None, monitor=None)(lambda: 1).pipeline.monitor is None
    assert guard(lambda: 1).pipeline.monitor is None
    with pytest.raises(TypeError, match=r"monitor must be a seawall\.Monitor, True, False or None, not 3"):
        guard(monitor=3)
