"""seawall and its peers around one function: who is measured in bench_calls.py, and how each is set up.

Each gets what it needs to be at its best: no logging, no waits, thresholds that are never reached.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

PEERS = ["circuitbreaker", "pybreaker", "interlock-cb", "tenacity", "stamina", "pyresilience", "backoff", "langchain-core"]
Maker = tuple[str, Callable[[], Any]]

BARE = "the function alone"
WRAPPER = "empty Python wrapper"
SEAWALL = "seawall: retry + breaker + monitor"
GUARD = "seawall: guard(monitor=True)"
BREAKER = "seawall: circuit alone"
RETRY = "seawall: retry alone"
# A failure that every retry here retries.
FAILURE = ConnectionError


def wrapped(function: Any) -> Any:
    """What an empty decorator costs."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


def wrapped_async(function: Any) -> Any:
    @functools.wraps(function)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        return await function(*args, **kwargs)

    return wrapper


def seawall_full(attempts: int = 3) -> Any:
    import seawall

    policies = (seawall.Retry(attempts, wait=0), seawall.CircuitBreaker(1_000_000))
    return seawall.Pipeline(*policies, monitor=seawall.Monitor())


def _stamina(attempts: int) -> Any:
    import stamina

    stamina.instrumentation.set_on_retry_hooks([])
    return stamina.retry(on=FAILURE, attempts=attempts, timeout=None, wait_initial=0, wait_max=0, wait_jitter=0)


def _pyresilience(attempts: int, *, breaker: bool) -> Any:
    from pyresilience import CircuitBreakerConfig, RetryConfig, resilient

    parts: dict[str, Any] = {"retry": RetryConfig(max_attempts=attempts, delay=0, jitter=False)}
    if breaker:
        parts["circuit_breaker"] = CircuitBreakerConfig(failure_threshold=1_000_000)
    return resilient(**parts)


def _tenacity(attempts: int, **more: Any) -> Any:
    import tenacity

    return tenacity.retry(stop=tenacity.stop_after_attempt(attempts), wait=tenacity.wait_none(), reraise=True, **more)


def _backoff(attempts: int) -> Any:
    import backoff

    return backoff.on_exception(backoff.constant, FAILURE, max_tries=attempts, interval=0, jitter=None, logger=None)


def _langchain(attempts: int) -> Any:
    from langchain_core.runnables import RunnableLambda

    # Without its jitter it does not wait at all.
    return RunnableLambda, {"stop_after_attempt": attempts, "wait_exponential_jitter": False}


def langchain_sync(function: Any, attempts: int = 3) -> Any:
    runnable, words = _langchain(attempts)
    return runnable(function).with_retry(**words).invoke


def langchain_async(function: Any, attempts: int = 3) -> Any:
    runnable, words = _langchain(attempts)
    return runnable(function).with_retry(**words).ainvoke


def _imported(module: str, name: str) -> Any:
    import importlib

    return getattr(importlib.import_module(module), name)


def _breakers(function: Any) -> list[Maker]:
    return [
        ("circuitbreaker", lambda: _imported("circuitbreaker", "circuit")(1_000_000)(function)),
        ("interlock-cb", lambda: _imported("interlock", "CircuitBreaker")(name="bench")(function)),
    ]


def _retries(function: Any, attempts: int, *, breaker: bool) -> list[Maker]:
    both = "pyresilience: retry + breaker" if breaker else "pyresilience: retry"
    return [
        ("tenacity", lambda: _tenacity(attempts)(function)),
        ("stamina", lambda: _stamina(attempts)(function)),
        (both, lambda: _pyresilience(attempts, breaker=breaker)(function)),
        ("backoff", lambda: _backoff(attempts)(function)),
    ]


def _seawalls(function: Any) -> list[Maker]:
    import seawall

    return [
        (SEAWALL, lambda: seawall_full()(function)),
        (GUARD, lambda: seawall.guard(monitor=True)(function)),
        (BREAKER, lambda: seawall.circuit(1_000_000)(function)),
        (RETRY, lambda: seawall.retry(3)(function)),
    ]


def sync_calls(function: Any, *, keyword: bool) -> list[Maker]:
    """Everybody around a plain function. LangChain's takes one input and no keyword argument of ours."""
    last = [] if keyword else [("langchain with_retry", lambda: langchain_sync(function))]
    return [
        (BARE, lambda: function),
        (WRAPPER, lambda: wrapped(function)),
        *_seawalls(function),
        *_breakers(function),
        ("pybreaker", lambda: _imported("pybreaker", "CircuitBreaker")(1_000_000)(function)),
        *_retries(function, 3, breaker=True),
        *last,
    ]


def async_calls(function: Any) -> list[Maker]:
    """Everybody around a coroutine function. pybreaker's speaks tornado only."""
    return [
        (BARE, lambda: function),
        (WRAPPER, lambda: wrapped_async(function)),
        *_seawalls(function),
        *_breakers(function),
        *_retries(function, 3, breaker=True),
        ("langchain with_retry", lambda: langchain_async(function)),
    ]


LOOP = "Python try-loop"
FAILS = 9


def failing(times: int = FAILS, error: type[Exception] = FAILURE) -> Any:
    """A function that fails so often and then works, again and again."""
    left = times

    def function(_: Any) -> None:
        nonlocal left
        if left:
            left -= 1
            raise error("not now")
        left = times

    return function


def try_loop(function: Any) -> Any:
    """What one would write by hand."""

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        for attempt in range(FAILS + 1):
            try:
                return function(*args, **kwargs)
            except FAILURE:
                if attempt == FAILS:
                    raise
        return None

    return wrapper


def failed_attempts() -> list[Maker]:
    """Everybody that retries, around a function that fails nine times in ten."""
    import seawall

    full = seawall_full(FAILS + 1)
    named = seawall.retry(FAILS + 1, on=FAILURE, wait=0)
    return [
        (LOOP, lambda: try_loop(failing())),
        (SEAWALL, lambda: full(failing())),
        (RETRY, lambda: seawall.retry(FAILS + 1, wait=0)(failing())),
        ("seawall: retry alone, class named", lambda: named(failing())),
        # Its own sleep of zero seconds asks the kernel.
        ("tenacity, sleep given", lambda: _tenacity(FAILS + 1, sleep=lambda _: None)(failing())),
        *_retries(failing(), FAILS + 1, breaker=False),
        ("langchain with_retry", lambda: langchain_sync(failing(), FAILS + 1)),
    ]


def _raises(_: Any) -> None:
    raise FAILURE("always")


def _opened(guarded: Any) -> Any:
    """The same, after so many failures that its breaker is open."""
    for _ in range(30):
        try:
            guarded(1)
        except Exception:
            continue
    return guarded


NATIVE = "Python: raise, caught"


def rejections() -> list[Maker]:
    """Everybody with an open breaker."""
    import seawall

    full = seawall.Pipeline(seawall.Retry(3, wait=0), seawall.CircuitBreaker(4, 3600), monitor=seawall.Monitor())

    def interlock() -> Any:
        module = _imported("interlock", "CircuitBreaker")(name="open")
        guarded = module(_raises)
        module.force_open()
        return guarded

    return [
        (NATIVE, lambda: _raises),
        (BREAKER, lambda: _opened(seawall.circuit(3, 3600)(_raises))),
        (SEAWALL, lambda: _opened(full(_raises))),
        ("circuitbreaker", lambda: _opened(_imported("circuitbreaker", "circuit")(3, 3600)(_raises))),
        ("pybreaker", lambda: _opened(_imported("pybreaker", "CircuitBreaker")(3, 3600)(_raises))),
        ("interlock-cb", interlock),
    ]


ITEMS = 1000
YIELD = "bare yield wrapper"


def items(count: int) -> Any:
    yield from range(count)


async def async_items(count: int) -> Any:
    for item in range(count):
        yield item


def streams() -> list[Maker]:
    import seawall

    def wrapper(count: int) -> Any:
        for item in items(count):  # noqa: UP028  an item each is what is measured
            yield item

    return [
        ("the generator alone", lambda: items),
        (YIELD, lambda: wrapper),
        (SEAWALL, lambda: seawall_full()(items)),
        (GUARD, lambda: seawall.guard(monitor=True)(items)),
        ("circuitbreaker", lambda: _imported("circuitbreaker", "circuit")(1_000_000)(items)),
    ]


def async_streams() -> list[Maker]:
    import seawall

    async def wrapper(count: int) -> Any:
        async for item in async_items(count):
            yield item

    return [
        ("the generator alone", lambda: async_items),
        (YIELD, lambda: wrapper),
        (SEAWALL, lambda: seawall_full()(async_items)),
        (GUARD, lambda: seawall.guard(monitor=True)(async_items)),
        ("circuitbreaker", lambda: _imported("circuitbreaker", "circuit")(1_000_000)(async_items)),
    ]
