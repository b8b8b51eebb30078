"""`circuit`, `retry` and `guard`: pipelines written in one line."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, ParamSpec, TypeAlias, TypeVar, overload

from seawall import presets
from seawall._classify import transient
from seawall._guarded import is_decorated
from seawall._hedges import hedge_of
from seawall._seawall import (
    Bulkhead,
    Cache,
    Chaos,
    CircuitBreaker,
    Fallback,
    Guardrails,
    Hedge,
    Monitor,
    Pipeline,
    RateLimit,
    Retry,
    Timeout,
)
from seawall._word import UNSET, seconds, shown, whole_number
from seawall._wrong_calls import not_one, refuse_others
from seawall.errors import ConfigurationError, ConfigurationTypeError

if TYPE_CHECKING:
    from datetime import timedelta

P = ParamSpec("P")
T = TypeVar("T")
Seconds: TypeAlias = "float | timedelta"
# Arguments of tenacity's that have another name here, or need none: a changed import line brings them along.
_TENACITYS = {
    "retry": "is called on= here, and takes the same objects",
    "reraise": "is not needed: the last exception itself is always raised",
    "retry_error_cls": "is not needed: the last exception itself is always raised",
    "retry_error_callback": "is a fallback here: guard(retry=…, fallback=[…])",
    "sleep": "is not needed: seawall.testing.clock() and no_waits() are for tests",
}


def _taken_apart(first: Any) -> tuple[Any, Any]:
    """The function, where a decorator without brackets got it in place of its first argument; and that argument."""
    return (first, None) if is_decorated(first) else (None, first)


def _no_name(argument: str, first: Any) -> None:
    """Refuses a text as the first argument, where a number belongs."""
    if isinstance(first, str) and not first.strip().isdigit():
        raise ConfigurationTypeError(
            f"{argument} must be a whole number from 1 on, not {shown(first)}; a name is given as name={first[:60]!r}"
        )


def _around(function: Any, pipeline: Pipeline) -> Any:
    return pipeline if function is None else pipeline(function)


@overload
def circuit(failure_threshold: Callable[P, T]) -> Callable[P, T]: ...
@overload
def circuit(
    failure_threshold: int | None = None,
    recovery_timeout: Seconds | None = 30,
    expected_exception: Any = Exception,
    name: str | None = None,
    fallback_function: Callable[..., Any] | None = None,
    *,
    cls: type[CircuitBreaker] = CircuitBreaker,
    **more: Any,
) -> Callable[[Callable[P, T]], Callable[P, T]]: ...
def circuit(
    failure_threshold: Any = None,
    recovery_timeout: Seconds | None = None,
    expected_exception: Any = None,
    name: str | None = None,
    fallback_function: Callable[..., Any] | None = None,
    *,
    cls: type[CircuitBreaker] = CircuitBreaker,
    **more: Any,
) -> Any:
    """Puts a circuit breaker around a function, bare (`@circuit`) or called.

    ```python
    @seawall.circuit(failure_threshold=5, recovery_timeout=30)
    def ask(question): ...
    ```

    Args:
        failure_threshold: failures in a row that open it (5, if no `failure_rate` and no `slow_call_duration` is given).
        recovery_timeout: seconds until a probe is let through (30); 0 means zero.
        expected_exception: what counts (`Exception`): an exception class, several, or a function of the exception (or of
            its type and the exception). All others are neutral.
        name: its name; that of the function if not given.
        fallback_function: called with the same arguments instead, while the circuit is open.
        cls: the class of the breaker.
        more: what `CircuitBreaker` takes beyond that: `failure_rate`, `slow_call_rate`, `slow_call_duration`, `window`,
            `minimum_calls`, `recovery_backoff`, `half_open_max_calls`, `success_threshold`, `max_half_open_time`, `ignore`,
            `on_result`, `listeners`.

    Raises:
        CircuitBreakerError: by the guarded function, while the circuit is open.
        ConfigurationError: for arguments that make no breaker.
    """
    function, failure_threshold = _taken_apart(failure_threshold)
    _no_name("failure_threshold", failure_threshold)
    if not (isinstance(cls, type) and issubclass(cls, CircuitBreaker)):
        raise ConfigurationTypeError(f"cls must be seawall.CircuitBreaker or a subclass of it, not {shown(cls)}")
    breaker = cls(failure_threshold, recovery_timeout, expected_exception, name, fallback_function, **more)
    policies: list[Any] = [breaker]
    if breaker.fallback_function is not None:
        policies.insert(0, Fallback(breaker.fallback_function, only_when_open=True))
    return _around(function, Pipeline(*policies, name=name))


@overload
def retry(attempts: Callable[P, T]) -> Callable[P, T]: ...
@overload
def retry(
    attempts: int | None = None,
    *,
    on: Any = transient,
    wait: Any = None,
    timeout: Seconds | None = None,
    name: str | None = None,
    **more: Any,
) -> Callable[[Callable[P, T]], Callable[P, T]]: ...
def retry(
    attempts: Any = None,
    *,
    on: Any = transient,
    wait: Any = None,
    timeout: Seconds | None = None,
    name: str | None = None,
    **more: Any,
) -> Any:
    """Calls a function again when it fails for a passing reason, bare (`@retry`) or called.

    ```python
    @seawall.retry(3, wait=seawall.wait_exponential(max=10))
    def ask(question): ...
    ```

    Args:
        attempts: calls, all told (3).
        on: which failures: exception classes, a function of the exception, or a tenacity `retry_if_…` object; by default
            the transient ones (`seawall.transient`).
        wait: a `wait_…` object of seawall or tenacity, or seconds; default 0.5 s doubling to 8 s, times 0.75 to 1.
        timeout: seconds for all calls and waits together.
        name: the name in logs and notes.
        more: what `Retry` takes beyond that: `stop`, `on_result`, `giveup`, `before`, `after`, `before_sleep`,
            `max_retry_after`, `budget`.

    Raises:
        ConfigurationError: for arguments that make no sense; for those of tenacity's it says what they are called here.
    """
    for given in more:
        if given in _TENACITYS:
            raise ConfigurationTypeError(f"retry: {given}= {_TENACITYS[given]}")
    function, attempts = _taken_apart(attempts)
    _no_name("attempts", attempts)
    return _around(function, Pipeline(Retry(attempts, on=on, wait=wait, timeout=timeout, **more), name=name))


@overload
def guard(preset: Callable[P, T]) -> Callable[P, T]: ...
@overload
def guard(
    preset: str | None = None,
    *,
    name: str | None = None,
    retry: int | Retry | None = ...,
    fallback: Any = ...,
    timeout: Seconds | None = ...,
    attempt_timeout: Seconds | None = ...,
    deadline: Seconds | None = ...,
    circuit: bool | CircuitBreaker | None = ...,
    hedge: Hedge | Seconds | None = ...,
    rate_limit: RateLimit | None = ...,
    bulkhead: Bulkhead | None = ...,
    cache: Cache | None = ...,
    guardrails: Guardrails | None = ...,
    monitor: bool | Monitor | None = ...,
    chaos: Chaos | None = ...,
) -> Callable[[Callable[P, T]], Callable[P, T]]: ...
def guard(
    preset: Any = None,
    *,
    name: str | None = None,
    retry: int | Retry | None = UNSET,
    fallback: Any = UNSET,
    timeout: Seconds | None = UNSET,
    attempt_timeout: Seconds | None = UNSET,
    deadline: Seconds | None = UNSET,
    circuit: bool | CircuitBreaker | None = UNSET,
    hedge: Hedge | Seconds | None = None,
    rate_limit: RateLimit | None = None,
    bulkhead: Bulkhead | None = None,
    cache: Cache | None = None,
    guardrails: Guardrails | None = None,
    monitor: bool | Monitor | None = UNSET,
    chaos: Chaos | None = None,
    **unknown: Any,
) -> Any:
    """Everything at once, in the canonical order: a preset plus overrides, bare (`@guard`) or called.

    ```python
    @seawall.guard("prod", fallback=["nobody can answer now"], attempt_timeout=20)
    def ask(question): ...
    ```

    Args:
        preset: `None` (retry 3, a breaker), `"dev"`, `"test"` or `"prod"`; `seawall.presets.show()` prints them.
        name: the name in logs and notes.
        retry: attempts, or a `Retry`; `None` for none.
        fallback: alternatives in order: callables, runnables, prompts or plain values. `"prod"` wants it said aloud.
        timeout: seconds for the primary with its retries.
        attempt_timeout: seconds for one attempt. A plain synchronous function cannot be stopped.
        deadline: seconds for everything, fallbacks included.
        circuit: `True` for a breaker of its own (opens at half of the attempts failing over 30 s, 20 seen at least), a
            `CircuitBreaker` to share one, `None` for none.
        hedge: a `Hedge`, or the seconds without an answer after which an attempt is made once more, beside the one under way: what
            is guarded must be safe to repeat. No preset has one.
        rate_limit: a `RateLimit` that each attempt waits for; one object is one limit, for all that share it. No preset has one.
        bulkhead: a `Bulkhead` that holds the number of attempts under way down; shared likewise. No preset has one.
        cache: a `Cache` that gives answers again; one object is one cache, for all that share it. No preset has one. It stands
            outside of all but the deadline.
        guardrails: `Guardrails` that look at what is asked before anything else, and inside of the retries at what is answered.
        monitor: a `Monitor` that is told how each call came out; `True` for one of its own, that the guarded function's
            `pipeline.monitor` is; `None` for none.
        chaos: a `Chaos` next to the call, for tests. No preset has one.

    Raises:
        ConfigurationError: for an unknown preset, `"prod"` without `fallback=`, or an argument that it does not have (`unknown`).
    """
    if unknown:
        refuse_others(guard, unknown)
    function, preset = _taken_apart(preset)
    chosen = presets.get(preset)
    given = {"retry": retry, "fallback": fallback, "timeout": timeout, "attempt_timeout": attempt_timeout, "circuit": circuit}
    if chosen.fallback_required and fallback is UNSET:
        raise ConfigurationError(
            f"guard({preset!r}) wants fallback= said aloud: a value, a list of alternatives, or None for none"
        )
    parts = {key: getattr(chosen, key) if value is UNSET else value for key, value in given.items()}
    watch = chosen.monitor if monitor is UNSET else monitor
    if isinstance(watch, bool):
        watch = Monitor(name=name) if watch else None
    limits = {
        "cache": (cache, Cache),
        "rate_limit": (rate_limit, RateLimit),
        "bulkhead": (bulkhead, Bulkhead),
        "guardrails": (guardrails, Guardrails),
        "chaos": (chaos, Chaos),
    }
    for argument, (policy, kind) in limits.items():
        if policy is not None and not isinstance(policy, kind):
            raise not_one(argument, kind, policy)
    if watch is not None and not isinstance(watch, Monitor):
        raise ConfigurationTypeError(f"monitor must be a seawall.Monitor, True, False or None, not {shown(watch)}")
    parts |= {argument: policy for argument, (policy, _) in limits.items()}
    parts |= {"hedge": hedge_of(hedge), "deadline": None if deadline is UNSET else deadline}
    _check(parts)
    policies = _policies(parts, chosen.retry_budget)
    return _around(function, Pipeline(*policies, name=name, monitor=watch))


def _check(parts: dict[str, Any]) -> None:
    """Refuses what makes no policy, by the argument's name in `guard`."""
    for name in ("timeout", "attempt_timeout", "deadline"):
        if parts[name] is not None and not seconds(name, parts[name]):
            raise ConfigurationError(f"{name} must be more than zero seconds, not {shown(parts[name])}")
    attempts, breaker = parts["retry"], parts["circuit"]
    if not (attempts is None or isinstance(attempts, (int, Retry))) or isinstance(attempts, bool):
        raise ConfigurationTypeError(f"retry must be a number of attempts, a seawall.Retry or None, not {shown(attempts)}")
    if isinstance(attempts, int):
        whole_number("retry", attempts, 1, 2**32 - 1)
    if not (breaker is None or isinstance(breaker, (bool, CircuitBreaker))):
        raise ConfigurationTypeError(f"circuit must be a seawall.CircuitBreaker, True, False or None, not {shown(breaker)}")


def _policies(parts: dict[str, Any], budget: float | None) -> Iterable[Any]:
    if parts["deadline"] is not None:
        yield Timeout(parts["deadline"])
    if parts["cache"] is not None:
        yield parts["cache"]
    if parts["fallback"] is not None:
        yield Fallback(*_alternatives(parts["fallback"]))
    if parts["timeout"] is not None:
        yield Timeout(parts["timeout"])
    attempts = parts["retry"]
    if attempts is not None:
        yield attempts if isinstance(attempts, Retry) else Retry(attempts, budget=budget)
    if parts["guardrails"] is not None:
        yield parts["guardrails"]
    if parts["hedge"] is not None:
        yield parts["hedge"]
    breaker = parts["circuit"]
    if isinstance(breaker, CircuitBreaker):
        yield breaker
    elif breaker:
        yield own_breaker()
    for limit in (parts["rate_limit"], parts["bulkhead"]):
        if limit is not None:
            yield limit
    if parts["attempt_timeout"] is not None:
        yield Timeout(parts["attempt_timeout"])
    if parts["chaos"] is not None:
        yield parts["chaos"]


def own_breaker(name: str | None = None, *, recovery_timeout: Seconds = 30) -> CircuitBreaker:
    """The breaker that guards and models make for themselves: at half of 20 attempts or more failing over 30 s."""
    return CircuitBreaker(None, recovery_timeout, transient, name, failure_rate=0.5, window=30.0, minimum_calls=20)


def _alternatives(fallback: Any) -> Sequence[Any]:
    return fallback if isinstance(fallback, (list, tuple)) else (fallback,)
