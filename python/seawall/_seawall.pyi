"""The native extension. What is public here is re-exported by `seawall`, `seawall.llm` and `seawall.simulator`.

Longer than other files, since a module has one stub.
"""

import asyncio
import os
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Generator, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Generic, Literal, ParamSpec, TypeVar, final, type_check_only

from tiktoken import Encoding
from typing_extensions import Self

from seawall._attempts import Attempts
from seawall._cache import CacheStats
from seawall._circuit_reports import CircuitEvent, CircuitMetrics
from seawall._guardrails import Applied
from seawall._live import Live
from seawall._monitoring import Alert
from seawall._pictures import Description
from seawall._rules import Rule
from seawall._silence import Silence
from seawall._story import Step
from seawall.guardrails import Rule as GuardrailRule

_C = TypeVar("_C", bound=Callable[[Alert], object])
_L = TypeVar("_L", bound=Callable[[CircuitEvent], object])
_F = TypeVar("_F", bound=Callable[..., Any])
_T = TypeVar("_T")
_R_co = TypeVar("_R_co", covariant=True)
_P = ParamSpec("_P")

Seconds = float | timedelta

@final
class Wait:
    """How long to wait before the next attempt. Made by the `wait_*` functions; `a + b` waits for both, one after the other.

    Called with a retry state (ours or tenacity's), it gives the seconds, so that it also works in tenacity's own `Retrying`.
    """
    def __call__(self, retry_state: Any) -> float: ...
    def __add__(self, other: Any, /) -> Any: ...
    def __radd__(self, other: Any, /) -> Any: ...

def wait_fixed(wait: Seconds) -> Wait:
    """Wait the same time before each attempt: `wait` seconds, or a timedelta."""

def wait_none() -> Wait:
    """Do not wait."""

def wait_random(min: Seconds = 0, max: Seconds = 1) -> Wait:
    """Wait a random time between `min` and `max` seconds."""

def wait_incrementing(start: Seconds = 0, increment: Seconds = 100, max: Seconds = ...) -> Wait:
    """Wait `start` seconds, then `increment` more before each further attempt, at most `max`."""

def wait_exponential(multiplier: float = 1, max: Seconds = ..., exp_base: float = 2, min: Seconds = 0) -> Wait:
    """Wait `multiplier * exp_base ** n` seconds (n = 0, 1, 2 …), at least `min` and at most `max`."""

def wait_random_exponential(multiplier: float = 1, max: Seconds = ..., exp_base: float = 2, min: Seconds = 0) -> Wait:
    """Full jitter: wait a random time between `min` and what `wait_exponential` would wait with these arguments: `multiplier *
    exp_base ** n` seconds, at most `max`.
    """

def wait_full_jitter(multiplier: float = 1, max: Seconds = ..., exp_base: float = 2, min: Seconds = 0) -> Wait:
    """Full jitter: wait a random time between `min` and what `wait_exponential` would wait with these arguments: `multiplier *
    exp_base ** n` seconds, at most `max`.
    """

def wait_equal_jitter(multiplier: float = 1, max: Seconds = ..., exp_base: float = 2, min: Seconds = 0) -> Wait:
    """Equal jitter: wait half of what `wait_exponential` would wait with these arguments (`multiplier * exp_base ** n` seconds, at
    least `min` and at most `max`), plus a random time up to the other half.
    """

def wait_exponential_jitter(initial: Seconds = 1, max: Seconds = ..., exp_base: float = 2, jitter: Seconds = 1) -> Wait:
    """Wait `initial * exp_base ** n` seconds plus a random time up to `jitter`, together at most `max`."""

def wait_decorrelated_jitter(initial: Seconds = 1, max: Seconds = ...) -> Wait:
    """Wait a random time between `initial` and three times the wait before, at most `max` seconds."""

def wait_sdk() -> Wait:
    """What the OpenAI SDK waits, and Retry where nothing is said: 0.5 s doubling to 8 s, times 0.75 to 1."""

def wait_chain(*strategies: Callable[[Any], float]) -> Any:
    """One wait per attempt, in the order of these `strategies` (`wait_…` objects); the last one from there on."""

def wait_combine(*strategies: Callable[[Any], float]) -> Any:
    """All these `strategies` (`wait_…` objects), one after the other; also written `a + b`."""

class Retry:
    """Call again what failed for a passing reason.

    ```python
    @seawall.Pipeline(seawall.Retry(3, wait=seawall.wait_exponential(max=10)))
    def ask(question): ...
    ```

    `attempts` is the number of calls, all told (default 3). `on` says which failures: exception classes, a function of
    the exception (a bool, or the seconds to wait), or a tenacity `retry_if_…` object; by default transient ones.
    `wait` is a `wait_…` object of seawall or tenacity; default 0.5 s doubling to 8 s, times 0.75 to 1. `timeout` limits
    all calls and waits together. A `Retry-After` of the server wins over the wait; one longer than `max_retry_after`
    (120 s) ends the retries. When attempts run out, the last exception itself is raised.

    `stop` is a `stop_…` object: a function of the retry state that says when it is enough. `on_result` says of a result
    whether it is a bad one, `giveup` of an exception whether to stop although it is retryable. `before`, `after` and
    `before_sleep` are called with the retry state around the attempts; what they raise is logged. These hooks and
    `giveup` may be asynchronous where the guarded function is: they are awaited. `budget` is the share of the calls
    (0 to 1) that may be retried, shared by all pipelines of one name; when it is spent the failure is raised at once.

    Raises `ConfigurationError` for an argument that makes no sense.
    """
    def __new__(
        cls,
        attempts: int | None = None,
        *,
        on: Any = None,
        wait: Any = None,
        stop: Callable[[Any], bool] | None = None,
        timeout: Seconds | None = None,
        max_retry_after: Seconds | None = 120,
        budget: float | None = None,
        on_result: Callable[[Any], bool] | None = None,
        giveup: Callable[[Any], bool | Awaitable[bool]] | None = None,
        before: Callable[[Any], object] | None = None,
        after: Callable[[Any], object] | None = None,
        before_sleep: Callable[[Any], object] | None = None,
    ) -> Retry: ...
    @property
    def attempts(self) -> int: ...
    @property
    def statistics(self) -> dict[str, Any]:
        """What it has done so far, in all pipelines, as a dict: `calls` that came to it, `attempts`, `retries` decided on,
        calls given up (`exhausted`) although their last failure was retryable, and the seconds `waited` in all.
        """
    @property
    def _least_wait(self) -> float | None: ...

class CircuitBreaker:
    """Stops calling what is known to be broken.

    ```python
    breaker = seawall.CircuitBreaker(failure_rate=0.5, window=60.0, recovery_timeout=30, name="chat")

    @breaker
    def ask(question): ...
    ```

    Opens after `failure_threshold` failures in a row (default 5, if nothing else is said), or at `failure_rate` (0–1)
    or a `slow_call_rate` of calls that take `slow_call_duration` seconds or more, over the last `window` calls (an int,
    default 100) or seconds (a float or timedelta), once `minimum_calls` (default 10) were seen; what is given is combined.
    While open, calls raise `CircuitBreakerError` at once. After `recovery_timeout` seconds (default 30; 0 means zero), or
    what `recovery_backoff` (a `wait_…` object) says for the n-th opening in a row, it is half open: `half_open_max_calls`
    probes at a time (default 1) pass; `success_threshold` of them (default 1) close it, one failure, or one slow call where
    those count, opens it again; a probe that has not come back after `max_half_open_time` seconds (default 60, or
    `recovery_timeout` if that is longer) is given up.

    `expected_exception` says what counts: an exception class, several, or a function; all exceptions by default.
    `seawall.transient` means what the table of classes says. `ignore` takes the same and goes first. Other exceptions are
    neutral: they neither count nor reset; and so are cancelled and interrupted calls. `on_result` is a function of the
    result that says whether it is a failure.

    A breaker is shared state: used in two pipelines, it is one breaker; `copy` and `deepcopy` give the breaker itself. It
    pickles by name and configuration, without its state and its listeners: where it is loaded, the breaker of that name
    is found again, or else made anew.

    `fallback_function` is called with the same arguments while the circuit is open, where the breaker decorates a function
    (`@breaker`, or `@circuit`). In a `Pipeline`, and by `call`, it is not used: a `Fallback` outside of the breaker is.

    `listeners` are called with a `seawall.CircuitEvent` after each change of state. What they raise is logged.

    Raises `ConfigurationError` for arguments that make no breaker.
    """
    def __new__(
        cls,
        failure_threshold: int | None = None,
        recovery_timeout: Seconds | None = 30,
        expected_exception: Any = None,
        name: str | None = None,
        fallback_function: Callable[..., Any] | None = None,
        *,
        failure_rate: float | None = None,
        slow_call_rate: float | None = None,
        slow_call_duration: Seconds | None = None,
        window: int | Seconds | None = None,
        minimum_calls: int | None = None,
        recovery_backoff: Wait | None = None,
        half_open_max_calls: int | None = 1,
        success_threshold: int | None = 1,
        max_half_open_time: Seconds | None = None,
        on_result: Callable[[Any], bool] | None = None,
        ignore: Any = None,
        listeners: Iterable[Callable[[CircuitEvent], object]] | None = None,
        _lenient: bool = False,
        _clock: Callable[[], int | None] | None = None,
    ) -> Self: ...
    @property
    def name(self) -> str | None:
        """Its name: given, or that of the first function it guards."""
    @property
    def state(self) -> str:
        """`closed`, `open`, `half_open`, `forced_open`, `disabled` or `metrics_only`."""
    @property
    def closed(self) -> bool:
        """Whether calls pass as usual."""
    @property
    def opened(self) -> bool:
        """Whether calls are turned away."""
    @property
    def failure_count(self) -> int:
        """Failures in a row."""
    @property
    def consecutive_threshold(self) -> int | None:
        """Failures in a row that open it, if any number does."""
    @property
    def open_remaining(self) -> float | None:
        """Seconds until a probe is let through; `None` unless open."""
    @property
    def last_failure(self) -> BaseException | None:
        """The failure counted last."""
    @property
    def fallback_function(self) -> Callable[..., Any] | None: ...
    @property
    def listeners(self) -> tuple[Callable[[CircuitEvent], object], ...]:
        """The listeners, in the order in which they are called."""
    @property
    def _identity(self) -> int: ...
    def _known(self) -> None: ...
    @property
    def _since_opening(self) -> float | None: ...
    def _guards(self, name: str) -> None: ...
    def _repr_html_(self) -> str: ...
    @property
    def _why(self) -> tuple[str, float | None]: ...
    def _remember(self, exception: BaseException | None) -> None: ...
    def add_listener(self, listener: _L) -> _L:
        """Calls `listener` with a `CircuitEvent` after each change of state; gives it back, so that it is a decorator.

        It is called by the thread whose call brought the change about, with no lock held and before that call returns (by
        the thread that tells of an earlier change, if one does). Time alone is no change: an open circuit becomes half open
        when the first call comes after the recovery time. What a listener raises is logged by the logger `seawall`.
        """
    def remove_listener(self, listener: Callable[[CircuitEvent], object]) -> None:
        """Forgets a listener. Raises `ValueError` if it is none."""
    def metrics(self) -> CircuitMetrics:
        """A snapshot of its counts, as a `seawall.CircuitMetrics`."""
    def explain(self) -> str:
        """Why it is in its state and what would change it, in words."""
    def configure(
        self,
        *,
        failure_threshold: int | None = ...,
        recovery_timeout: Seconds | None = ...,
        failure_rate: float | None = ...,
        slow_call_rate: float | None = ...,
        slow_call_duration: Seconds | None = ...,
        window: int | Seconds | None = ...,
        minimum_calls: int | None = ...,
        recovery_backoff: Wait | None = ...,
        half_open_max_calls: int | None = ...,
        success_threshold: int | None = ...,
        max_half_open_time: Seconds | None = ...,
    ) -> None:
        """Changes numbers while it works: takes the numbers that the constructor takes, by the same names; `None` is the
        default. The others stay as they are, and so do the state, the counts and the end of a running recovery time;
        a `window` of another span begins empty.

        Raises `ConfigurationError`, and changes nothing, if they make no breaker together.
        """
    def reset(self) -> None:
        """Closes it and forgets all counts, whatever state it is in."""
    def force(self, state: str) -> None:
        """Puts it into a state by hand: `"closed"`, `"open"` (for its recovery time), `"half_open"`, `"forced_open"`,
        `"disabled"` or `"metrics_only"`. Calls in flight tell nothing any more.
        """
    def isolate(self) -> Isolation:
        """Turns all calls away until the isolation ends, by its `end()` or at the end of a `with` block; then the circuit is
        again what it was before. Several isolations last until the last one ends; `reset()` and `force()` end them all.
        """
    def acquire(self) -> Permit:
        """A permit to make one call. Raises `CircuitBreakerError` if calls are turned away."""
    def try_acquire(self) -> Permit | None:
        """A permit to make one call, or `None` if calls are turned away. Say how it came out: see `Permit`."""
    def record_success(self) -> None:
        """Counts a success that was seen elsewhere: a health check, a call that took no permit. It counts in whatever state
        the circuit is; `success_threshold` of them close an open one.
        """
    def record_failure(self, exception: BaseException | None = None) -> None:
        """Counts a failure that was seen elsewhere; `exception` is kept as `last_failure`. Where the circuit is open, its recovery time begins anew."""
    def call(self, function: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Calls `function(*args, **kwargs)` under this breaker. While it is open, `CircuitBreakerError` is raised: the
        `fallback_function` is for decorated functions.
        """
    def acall(self, function: Callable[_P, Awaitable[_T]], /, *args: _P.args, **kwargs: _P.kwargs) -> Coroutine[_T]:
        """`await`s `function(*args, **kwargs)` under this breaker."""
    def __call__(self, function: _F) -> _F: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, kind: Any = None, value: Any = None, traceback: Any = None) -> Literal[False]: ...
    def __aenter__(self) -> Awaitable[Self]: ...
    def __aexit__(self, kind: Any = None, value: Any = None, traceback: Any = None) -> Awaitable[None]: ...
    def __copy__(self) -> Self: ...
    def __deepcopy__(self, memo: Any) -> Self: ...

@final
class Permit:
    """The right to make one call, taken by hand from `CircuitBreaker.acquire()` or `try_acquire()`.

    Say once how the call came out: `on_success()`, `on_failure(exception)`, or `release()` if it told nothing. What is
    said first counts; what is said later changes nothing, and neither does anything said after the circuit has changed
    its state. A permit dropped without a word is released.

    As a context manager (`with` or `async with`) it judges what the block raises by the breaker's `expected_exception`
    and `ignore`; a block that ends well is a success, an interrupt or a cancellation tells nothing.
    """
    @property
    def breaker(self) -> CircuitBreaker:
        """The breaker that gave it."""
    @property
    def probe(self) -> bool:
        """Whether it was given, in a half open circuit, to find out if the callee works again."""
    def on_success(self) -> None:
        """The call worked."""
    def on_failure(self, exception: BaseException | None = None) -> None:
        """The call failed. The exception, if there is one, is kept as `last_failure`; it is not judged."""
    def release(self) -> None:
        """The call told nothing: it was cancelled, or not made at all."""
    def __enter__(self) -> Self: ...
    def __exit__(self, kind: Any = None, value: Any = None, traceback: Any = None) -> Literal[False]: ...
    def __aenter__(self) -> Awaitable[Self]: ...
    def __aexit__(self, kind: Any = None, value: Any = None, traceback: Any = None) -> Awaitable[None]: ...

@type_check_only
class Isolation:
    def end(self) -> bool: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *raised: Any) -> Literal[False]: ...

class Timeout:
    """Everything inside has to be over within `seconds`, else `CallTimeoutError` (a builtin `TimeoutError`).

    ```python
    @seawall.Pipeline(seawall.Timeout(60), seawall.Retry(3), seawall.Timeout(20))  # in all, and for each attempt
    async def ask(question): ...
    ```

    Outermost it limits the whole call with its retries, innermost one attempt. Coroutines are cancelled at the limit; a
    plain synchronous function cannot be stopped: no further attempt is begun, and an answer that comes late is returned.
    `thread=True` runs plain functions on threads of their own, in a copy of the caller's context, and raises at the limit;
    the function goes on running there, and what it returns or raises then is dropped.
    """
    def __new__(cls, seconds: Seconds, *, thread: bool = False) -> Timeout: ...
    @property
    def thread(self) -> bool:
        """Whether plain functions run on threads of their own."""
    @property
    def seconds(self) -> float:
        """The limit in seconds."""

class RateLimit:
    """At most `requests` calls and `tokens` tokens in each `per` seconds (default 60). A call waits for its turn, first come first
    served; one that cannot have it in time is turned away at once, with `RateLimitExceededError` and its `retry_after`.

    ```python
    @seawall.Pipeline(seawall.RateLimit(500, tokens=200_000, per=60, max_wait=30))
    def ask(messages): ...
    ```

    Each call takes one request and its estimated tokens at its turn; what it really used settles that: more is owed, what it did
    not use is given back; `settle=False` leaves it at the estimate, for servers that go by what was asked for.
    `estimate(*args, **kwargs) -> int` says how many it may use, or tiktoken does: an `Encoding`, or the name of one ("o200k_base").
    Without it, it is the call's text at four bytes a token; with a name or without, `max_tokens` or `max_completion_tokens` comes on
    top where the call has one. `settle(result) -> int` says how many it has
    used; without one they are read from the result's `usage` or `usage_metadata`, and where there is none the estimate holds.

    `burst` requests (tokens, if only tokens are limited) may go at once after a pause: by default a fiftieth of the limit, so that
    calls are spread evenly and no minute of a server's sees more than the limit, wherever it begins. 98 % of the limit are used.

    `key` makes it a limit for each key, each with a line of its own: the name of an argument of the function, or of a parameter of a
    model's requests ("user"), "model", "endpoint"; or `key(*args, **kwargs)`, for a model `key(messages, model=…, **parameters)`, that
    gives a text, a whole number or `None`. Beyond `max_keys` (default 10,000) those are forgotten that nobody uses and of which all has
    come back, which changes nothing. `of(key)` is the limit of one key.

    At most `max_queue` calls wait (default 1000), `max_wait` seconds each (default: as long as the limits around the call allow).

    A 429 pauses everybody for its `Retry-After`; `x-ratelimit-…` headers of failures lower what is left, and never raise it. A
    RateLimit is shared state: used in two pipelines, it is one; `copy` and `deepcopy` give the object itself. It pickles by its
    arguments: where it came from it is found again, in another process it is made anew, once.
    `name` is its name in errors and events.

    Raises `ConfigurationError` for arguments that make no limit.
    """
    def __new__(
        cls,
        requests: float | None = None,
        tokens: float | None = None,
        *,
        per: Seconds = 60,
        burst: float | None = None,
        max_queue: int = 1000,
        max_wait: Seconds | None = None,
        estimate: Callable[..., int] | Encoding | str | None = None,
        settle: Callable[[Any], int] | Literal[False] | None = None,
        key: Callable[..., str | int | None] | str | None = None,
        max_keys: int = 10_000,
        name: str | None = None,
    ) -> Self: ...
    @property
    def name(self) -> str | None:
        """Its name in errors, events and metrics; `None` for none."""
    @property
    def requests(self) -> float | None:
        """Requests allowed in each `per` seconds; `None` if they are not limited."""
    @property
    def tokens(self) -> float | None:
        """Tokens allowed in each `per` seconds; `None` if they are not limited."""
    @property
    def per(self) -> float:
        """The span of the limits in seconds."""
    @property
    def burst(self) -> float | None:
        """What may go at once, as given; `None`: a fiftieth of the limit."""
    @property
    def max_queue(self) -> int:
        """Calls that may wait."""
    @property
    def max_wait(self) -> float | None:
        """The longest wait in seconds; `None`: as long as the limits around the call allow."""
    @property
    def key(self) -> Callable[..., str | int | None] | str | None:
        """How a call's key is found, as given; `None`: it is one limit for all."""
    @property
    def max_keys(self) -> int | None:
        """Keys that are remembered in any case; `None` without `key`."""
    @property
    def known_keys(self) -> list[str]:
        """The keys that are remembered now, as texts in order: those of which something is used, and others."""
    def of(self, key: str | int | None) -> RateLimit:
        """The limit of one key, to be looked at or to be used where a call's key is known: it is the one under which the calls of that key
        go. Raises `ConfigurationError` where there is no `key`.
        """
    @property
    def available(self) -> tuple[int | None, int | None]:
        """What may go at once right now, as a tuple `(requests, tokens)`: whole numbers, `None` for what is not limited; tokens below
        zero are owed. With `key`, what a key has that was not seen yet: `of(key).available` is that of one.
        """
    @property
    def queued(self) -> int:
        """Calls that wait for their turn, under all keys."""
    @property
    def paused(self) -> float | None:
        """Seconds for which a server has asked everybody to wait; `None` if none has. With `key`, the longest of those."""
    @property
    def _identity(self) -> int: ...
    def _repr_html_(self) -> str: ...

@type_check_only
class Finish:
    def __call__(self, value: Any, error: BaseException | None = None, source: Any = None) -> bool: ...
    def items(self, value: Any) -> Iterator[Any]: ...
    @staticmethod
    def is_open(value: Any) -> bool: ...

class Hedge:
    """Ask once more where an answer takes long: the first that comes is the answer, and the others are given up.

    ```python
    @seawall.Pipeline(seawall.Hedge(percentile=0.95))
    async def ask(question): ...
    ```

    `delay` is the seconds without an answer after which the call is made once more, beside the one under way; or `percentile` (0.95 where
    neither is given), the share of attempts, between 0 and 1, that answer in time: the delay is then what these took, learnt from the last one
    to two thousand attempts, or those of the last minutes where they are fewer. Until `minimum_calls` attempts (20) are known it
    is `initial_delay` seconds (default: nothing is hedged until then), and never less than `min_delay` (0.001).

    A call is made at most `max_hedges` times more (1), and at most the share `budget` of the calls is (0.05; ten are saved up), each further request
    counted. Policies inside of it see each request; one that they turn away is no hedge. Those that are given up are no evidence for breakers.

    **What is guarded runs more than once for one call**, at the same time: it must be safe to repeat. Plain functions
    run on threads of their own, in copies of the caller's context; what is given up there runs on to its end, and its result is dropped.

    A Hedge is shared state: used in two pipelines, it is one; `copy` and `deepcopy` give the object itself. It pickles by its
    arguments: where it came from it is found again, in another process it is made anew, once.
    `name` is its name in events and metrics.

    Raises `ConfigurationError` for arguments that make no hedge.
    """
    def __new__(
        cls,
        delay: Seconds | None = None,
        *,
        percentile: float | None = None,
        minimum_calls: int = 20,
        initial_delay: Seconds | None = None,
        min_delay: Seconds = 0.001,
        max_hedges: int = 1,
        budget: float = 0.05,
        name: str | None = None,
    ) -> Self: ...
    @property
    def name(self) -> str | None:
        """Its name in errors, events and metrics; `None` for none."""
    @property
    def delay(self) -> float | None:
        """The seconds without an answer after which it would ask once more now; `None` while nothing is hedged."""
    @property
    def percentile(self) -> float | None:
        """The share of attempts that answer within the delay; `None` where that is fixed."""
    @property
    def max_hedges(self) -> int:
        """Further requests of one call, at most."""
    @property
    def budget(self) -> float:
        """The share of the calls that may be hedged."""
    @property
    def statistics(self) -> dict[str, int]:
        """What it has done so far, in all pipelines, as a dict: `calls` that came to it, `hedges` that were made, answers that came
        from one of these (`wins`), and hedges that the budget had no room for (`denied`).
        """
    @property
    def _identity(self) -> int: ...
    def _repr_html_(self) -> str: ...

class Bulkhead:
    """At most `max_concurrency` calls at a time; further ones are turned away with `BulkheadFullError`.

    ```python
    @seawall.Pipeline(seawall.Bulkhead(10, max_queue=100, max_wait=5))
    def ask(question): ...
    ```

    With `max_queue` (default 0) so many further calls wait for a place, first come first served, for `max_wait` seconds at most
    (default: as long as the limits around the call allow). A call that streams keeps its place until the stream ends; one
    that is cancelled, interrupted or closed gives it back at once.

    A Bulkhead is shared state: used in two pipelines, it is one; `copy` and `deepcopy` give the object itself. It pickles by its
    arguments: where it came from it is found again, in another process it is made anew, empty, once.
    `name` is its name in errors and events.

    Raises `ConfigurationError` for arguments that make no bulkhead.
    """
    def __new__(
        cls, max_concurrency: int, *, max_queue: int = 0, max_wait: Seconds | None = None, name: str | None = None
    ) -> Self: ...
    @property
    def name(self) -> str | None:
        """Its name in errors, events and metrics; `None` for none."""
    @property
    def max_concurrency(self) -> int:
        """Calls under way at a time, at most."""
    @property
    def max_queue(self) -> int:
        """Calls that may wait."""
    @property
    def max_wait(self) -> float | None:
        """The longest wait in seconds; `None`: as long as the limits around the call allow."""
    @property
    def active(self) -> int:
        """Calls under way."""
    @property
    def queued(self) -> int:
        """Calls that wait for a place."""
    @property
    def _identity(self) -> int: ...
    def _repr_html_(self) -> str: ...

class Cache:
    """Gives an answer again for `ttl` seconds (300; `None`: as long as there is room) to calls that ask for the same; of equal
    calls at once one is made for all.

    ```python
    @seawall.Pipeline(seawall.Cache(ttl=300, path="answers.db"))
    def ask(question): ...
    ```

    At most `max_items` (10,000) answers are kept, of `max_bytes` (64,000,000) together, as near as that is known; what was not
    used for longest goes first. For `stale_if_error` seconds (0) beyond its time an answer stands in for a call that fails for a
    reason that passes. Errors are not kept, nor are answers of fallbacks, iterators and the like.

    A call asks for the same if it is of the same function with equal arguments: plain data, data classes, models of pydantic;
    other objects are themselves and equal to nothing else. `key` is a function of the arguments that gives what counts instead;
    `None` of it: that call goes past the cache. All who ask are given the same object.

    With `path`, answers are kept in that file too (SQLite; made if need be, readable by its owner alone): there after the process has
    ended, and shared by all processes that name it. Replies of models are, and what functions of modules return if JSON can say it and
    it is asked for with plain data; all else is in memory only. A file that is damaged, full, locked, not writable or of a later
    version holds nothing: that is told once (`cache.unusable` in the log, a `RuntimeWarning`) and is no call's failure.

    A Cache is shared state: used in two pipelines or models, it is one; `copy` and `deepcopy` give the object itself. It pickles
    by its arguments: where it came from it is found again, in another process it is made anew, empty, once.

    Raises `ConfigurationError` for arguments that make no cache.
    """
    def __new__(
        cls,
        ttl: Seconds | None = 300,
        *,
        max_items: int = 10_000,
        max_bytes: int = 64_000_000,
        stale_if_error: Seconds | None = None,
        key: Callable[..., Any] | None = None,
        name: str | None = None,
        path: str | os.PathLike[str] | None = None,
    ) -> Self: ...
    @property
    def name(self) -> str | None: ...
    @property
    def path(self) -> str | None:
        """The file that keeps answers beyond the process; `None`: there is none."""
    @property
    def ttl(self) -> float | None:
        """Seconds for which an answer is given again; `None`: as long as there is room."""
    @property
    def max_items(self) -> int:
        """Answers at a time, at most."""
    @property
    def max_bytes(self) -> int:
        """Bytes of all answers together, at most."""
    @property
    def stale_if_error(self) -> float:
        """Seconds beyond its time for which an answer stands in for a failure."""
    @property
    def key(self) -> Callable[..., Any] | None: ...
    @property
    def stats(self) -> CacheStats:
        """What has come of the calls so far, and what is kept: `hits`, `misses`, `stale`, `joined`, `items`, `bytes`."""
    @property
    def waiting(self) -> int:
        """Calls that wait for an equal one just now."""
    @property
    def _identity(self) -> int: ...
    def clear(self) -> None:
        """Forgets all answers, those in the file too. Those of calls under way here are not kept."""
    def forget(self, *args: Any, **kwargs: Any) -> int:
        """Forgets the answers to calls with these arguments (where there is a `key` function: to those of this key), of all
        functions and models. For a model that is the input. How many there were.
        """
    def flush(self, timeout: Seconds | None = None) -> bool:
        """Waits until all answers so far are in the file, for `timeout` seconds at most; whether they are. A program that ends does so
        by itself.
        """
    def _find(self, said: list[str]) -> tuple[Any, bytes | None]: ...
    def _keep(self, said: list[str], value: Any, bytes: int, in_file: bytes | None = None) -> None: ...
    def _missed(self) -> None: ...
    def _repr_html_(self) -> str: ...

def caching_is_said() -> None:
    """From here on calls look what is said."""

def flush_cache_files() -> None:
    """Waits until the files of all caches have what they are to have: a program ends."""

def forget_waiters() -> None:
    """In a forked process: those that waited, or were inside, are not here."""

@final
class Rail:
    """A rule, made ready."""
    @staticmethod
    def length(name: str, most: int) -> Rail: ...
    @staticmethod
    def tokens(name: str, most: int) -> Rail: ...
    @staticmethod
    def forbid(name: str, given: list[tuple[str, str, str]]) -> Rail:
        """Patterns as (label, pattern, "")."""
    @staticmethod
    def redact(name: str, given: list[tuple[str, str, str]], restore: bool) -> Rail:
        """Patterns as (label, pattern, replacement)."""
    @staticmethod
    def secrets(name: str, restore: bool) -> Rail: ...
    @staticmethod
    def personal(name: str, restore: bool) -> Rail: ...
    @staticmethod
    def ask(name: str, look: Callable[[str], Any]) -> Rail: ...
    @staticmethod
    def shape(name: str, fit: Callable[[str], Any], repair: bool, reask: int) -> Rail: ...

@final
class Filter:
    """A text that comes in pieces."""
    def push(self, piece: str) -> str: ...
    def end(self) -> str:
        """The rest."""
    def redacted(self) -> int:
        """How much was cut out of a text that is over."""

class Guardrails:
    """The rules for what is asked and for what is answered.

    ```python
    from seawall.guardrails import MaxLength, Redact

    rails = seawall.Guardrails(input=[MaxLength(20_000), Redact.secrets()], output=[Redact.personal()])

    @seawall.guard(guardrails=rails)
    def ask(question): ...
    ```

    `input` and `output` are lists of the rules of `seawall.guardrails`, in order: each sees what the one before it has left. What is
    asked is looked at before anything else, a cache included, and a refusal costs no request; what is answered is looked at
    inside the retries. `of` names the argument of a function that is looked at; else it is `messages`, or the first text or list
    of messages. A stream hands out what no rule could still mean; `max_held` bytes (16,384) of it are held back at the most.

    Raises `ConfigurationError` for what are no rules, and for a `Shape` in `input`.
    """
    def __new__(
        cls,
        *,
        input: Iterable[GuardrailRule] | None = None,
        output: Iterable[GuardrailRule] | None = None,
        of: str | None = None,
        max_held: int | None = None,
    ) -> Self: ...
    @property
    def input(self) -> tuple[GuardrailRule, ...]: ...
    @property
    def output(self) -> tuple[GuardrailRule, ...]: ...
    @property
    def of(self) -> str | None: ...
    @property
    def max_held(self) -> int: ...
    def check_input(self, input: Any) -> Any:
        """What is asked, as the rules leave it: a text, or messages.

        Raises `InputRefusedError` where a rule refuses it.
        """
    def check_output(self, output: Any) -> Any:
        """What was answered, as the rules leave it: a text, or what a client gives.

        Raises `OutputRefusedError` where a rule refuses it, `OutputShapeError` where it is not of the shape.
        """
    def stream(self, pieces: Iterable[_T]) -> Iterator[_T]:
        """The texts that come in pieces, as the rules for answers leave them: what is given out is what the whole would have become."""
    def astream(self, pieces: AsyncIterable[_T]) -> AsyncIterator[_T]:
        """As `stream`, of an asynchronous iterator."""
    def _check(
        self, direction: str, texts: list[tuple[str, str]]
    ) -> tuple[list[str], list[tuple[str, int]], list[tuple[str, str]]]: ...
    def _fit(
        self, place: str, text: str, asked: int, held: list[tuple[str, str]]
    ) -> tuple[str | None, Any, int, tuple[BaseException, str | None] | None]: ...
    def _restores(self) -> bool: ...
    @staticmethod
    def _restoring(held: list[tuple[str, str]]) -> Guardrails: ...
    def _filter(self, place: str) -> Filter: ...

class Chaos:
    """Harm on purpose, to see what the rest of the pipeline makes of it. Stands innermost, next to the call.

    ```python
    @seawall.Pipeline(seawall.Retry(3, wait=0), seawall.Chaos(exception=ConnectionError, exception_rate=0.2, seed=1, enabled=True))
    def ask(question): ...
    ```

    All of it is off unless switched on: by `enabled=True`, `enable()`, or for a stretch by `with chaos.enabled_for(30):`.
    `latency` is a wait before the call: seconds, or a pair between which it lies. `exception` is raised in place of
    the call: an exception class, an exception, or a function that makes one. `result` is returned in place of the call.
    `latency_rate`, `exception_rate` and `result_rate` are shares of the calls from 0 to 1; 1 where only the harm is
    given. `result_rate` is of the calls that no exception hits. The same `seed` gives the same harm to the same
    calls in order. A Chaos object is shared state: used in two pipelines, it is one switch and one sequence.

    Raises `ConfigurationError` for a rate without its harm, or out of range.
    """
    def __new__(
        cls,
        *,
        latency: Seconds | tuple[Seconds, Seconds] | None = None,
        latency_rate: float | None = None,
        exception: type[Exception] | Exception | Callable[[], Exception] | None = None,
        exception_rate: float | None = None,
        result: Any = None,
        result_rate: float | None = None,
        seed: int | None = None,
        enabled: bool = False,
    ) -> Chaos: ...
    @property
    def enabled(self) -> bool:
        """Whether calls are harmed right now."""
    def enable(self) -> None:
        """Switches it on until `disable()`."""
    def disable(self) -> None:
        """Switches it off, stretches of `enabled_for` too."""
    def enabled_for(self, seconds: Seconds | None = None) -> Stretch:
        """Switches it on for a `with` block, in all threads and tasks; for `seconds` at most, if given."""

@type_check_only
class Stretch:
    def __enter__(self) -> Chaos: ...
    def __exit__(self, kind: Any = None, value: Any = None, traceback: Any = None) -> bool: ...

class Fallback:
    """Alternatives, tried in order when the call fails.

    ```python
    @seawall.Pipeline(seawall.Fallback(lambda question: "Please ask again later."), seawall.Retry(2))
    def ask(question): ...
    ```

    An alternative is a callable (called with the call's own arguments), an object with `invoke` and `ainvoke`, a
    `Prompt` (calls the primary again with another input), or a plain value. `on` says for which failures: exception
    classes or a function of the exception; by default all but a request that would fail anywhere. `on_result` is a
    function of the result that says it is a bad one. `only_when_open=True` leaves all failures alone but that of an open
    circuit: `CircuitBreakerError`. If all fail, the first error is raised, with the others as its
    `alternatives` and in its notes.
    """
    def __new__(
        cls, *alternatives: Any, on: Any = None, on_result: Callable[[Any], bool] | None = None, only_when_open: bool = False
    ) -> Fallback: ...
    @property
    def alternatives(self) -> tuple[Any, ...]:
        """The alternatives, in order."""
    @property
    def only_when_open(self) -> bool:
        """Whether it stands in only while a circuit is open."""
    def replaced(self, alternatives: Sequence[Any]) -> Fallback:
        """The same rules with other alternatives."""

class Pipeline:
    """Policies in the order written, outermost first, around a call.

    ```python
    @seawall.Pipeline(seawall.Timeout(30), seawall.Retry(3), seawall.CircuitBreaker(5), name="chat")
    def ask(question): ...
    ```

    `Pipeline(a, b, c)` calls a(b(c(function))). It is a decorator, has `call` and `acall`, and is a policy itself: put
    into another pipeline, its policies stand there. A policy object is shared state: used in two pipelines, it is one.
    A `monitor` is told how each call came out; it is no policy, and the pipeline around has its own. `name` is its name in
    logs, events and notes.

    Raises `ConfigurationError` for what is no policy. Warns with `PipelineOrderWarning` of orders that are known to be wrong.
    """
    def __new__(cls, *policies: Any, name: str | None = None, monitor: Monitor | None = None) -> Pipeline: ...
    @property
    def policies(self) -> tuple[Any, ...]:
        """The policies, outermost first."""
    @property
    def name(self) -> str | None:
        """Its name in logs, events and notes."""
    @property
    def monitor(self) -> Monitor | None:
        """The monitor that counts its calls."""
    def call(self, function: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Calls `function(*args, **kwargs)` through the policies."""
    def acall(self, function: Callable[_P, Awaitable[_T]], /, *args: _P.args, **kwargs: _P.kwargs) -> Coroutine[_T]:
        """`await`s `function(*args, **kwargs)` through the policies."""
    def __call__(self, function: _F) -> _F: ...
    def describe(self) -> Description:
        """The policies in order, outermost first, a line each, with what each does; and what is known to be wrong with the order.
        In a notebook, a picture of it.
        """
    def _repr_html_(self) -> str: ...

def guarded(pipeline: Pipeline, function: Callable[..., Any], name: str, kind: str) -> Guarded:
    """A function behind a pipeline."""

@final
class Guarded:
    """A function behind a pipeline. Looks to `inspect` like the function."""
    def _repr_html_(self) -> str: ...
    @property
    def pipeline(self) -> Pipeline:
        """The pipeline that guards it."""
    @property
    def statistics(self) -> dict[str, Any]:
        """What has become of its calls, as a dict: `calls` begun, `successes`, `failures`, `attempts` of all targets,
        `retries`, answers of `fallbacks`, seconds `waited` between attempts; and of the last call that did not simply pass
        `last_attempts`, `last_seconds` and the type of its error, `last_error`. Cancelled calls are neither success nor
        failure.
        """
    @property
    def story(self) -> Story | None:
        """The story of its last call that did not simply pass: the steps of its policies, and `attempts`; `None` if all did."""
    def __call__(self, *args: Any, **kwargs: Any) -> Any: ...

@final
class Coroutine(Generic[_R_co]):
    """One asynchronous guarded call."""
    def __await__(self) -> Generator[Any, Any, _R_co]: ...
    def send(self, value: Any) -> Any: ...
    def throw(self, kind: Any, value: Any = None, traceback: Any = None) -> Any: ...
    def close(self) -> None:
        """Closes what is awaited. Neutral, whatever that says: nobody waits for the answer, so nothing is tried again."""

@final
class Bridge:
    """The way into one event loop. It lives as long as the loop watches it: closing the loop ends what its tasks awaited."""
    def __new__(cls) -> Bridge: ...
    def fileno(self) -> int:
        """The descriptor to watch."""
    @property
    def is_open(self) -> bool:
        """Whether it leads into a loop of this process."""
    def tell_by(self, tell: Callable[[], object]) -> None:
        """For a loop that watches no descriptors: `tell` is called, from any thread, to have it call `deliver`."""
    def drain(self) -> None:
        """Called by the loop when the descriptor is readable."""
    def deliver(self) -> None:
        """Completes the futures whose results have come."""

@final
class Leg:
    """One model at one place."""
    def __new__(
        cls,
        model: str,
        *,
        base_url: str,
        api_key: str | None = None,
        organization: str | None = None,
        project: str | None = None,
        headers: list[tuple[str, str]] | None = None,
        query: list[tuple[str, str]] | None = None,
        params: Mapping[str, Any] | None = None,
        retry: Retry | None = None,
        breaker: CircuitBreaker | None = None,
        timeout: Seconds | None = None,
        first_token_timeout: Seconds | None = None,
        idle_timeout: Seconds | None = None,
        max_response_bytes: int = ...,
        key_source: Callable[[], Any] | None = None,
        key_file: str | None = None,
        proxy: str | None = None,
        authorities: bytes | None = None,
        identity: bytes | None = None,
        rate_limit: RateLimit | None = None,
        bulkhead: Bulkhead | None = None,
        hedge: Hedge | None = None,
    ) -> Leg: ...
    def with_retry(self, retry: Retry | None) -> Leg:
        """The same model at the same place with other retries."""
    def with_timeout(self, timeout: Seconds | None) -> Leg:
        """The same with another time limit of an attempt."""
    def described(self) -> tuple[list[tuple[str, str]], str]:
        """What its answers depend on beside the question: the place, without credentials, and the parameters it always sends."""
    def is_same_place(self, other: Leg) -> bool:
        """Whether it asks the same server, as the same, with the same key."""

_Extras = tuple[list[tuple[str, str]], list[tuple[str, str]], str | None, bool | None]

@final
class Flying:
    """A call, or a batch of them, on its way to a future. Dropping it, or `abort`, or the end of the loop cuts the requests."""
    @property
    def future(self) -> asyncio.Future[Any]: ...
    def abort(self) -> None:
        """Gives the call up: the request is cut, permits go back, nothing counts."""

@final
class Route:
    """Models behind one plan."""
    def __new__(
        cls,
        legs: Sequence[Leg],
        table: Any,
        *,
        handled: Any = None,
        deadline: float | None = None,
        function: Callable[..., Any] | None = None,
        on_interrupt: str | None = None,
        monitor: Monitor | None = None,
        cache: Cache | None = None,
        patience: tuple[Retry, float | None] | None = None,
        guardrails: Guardrails | None = None,
    ) -> Route: ...
    def call(self, kind: str, content: Any, params: dict[str, Any] | None = None, extras: _Extras | None = None) -> Any:
        """Calls and waits on this thread; Ctrl-C ends the wait and cuts the request."""
    def start(self, kind: str, content: Any, params: dict[str, Any] | None = None, extras: _Extras | None = None) -> Flying:
        """Begins a call whose result comes as a future of the running loop: asyncio's, or a run of trio's."""
    def start_batch(
        self,
        kind: str,
        contents: Sequence[Any],
        params: dict[str, Any] | None = None,
        extras: _Extras | None = None,
        *,
        concurrency: int | None = None,
        lenient: bool = False,
    ) -> Flying:
        """As `batch`, whose list comes as a future of the running loop."""
    def stream(
        self,
        content: Any,
        params: dict[str, Any] | None = None,
        extras: _Extras | None = None,
        on_interrupt: str | None = None,
    ) -> Stream:
        """Opens a stream; nothing is sent before its first piece is asked for."""
    def watch(
        self,
        kind: str,
        content: Any,
        params: dict[str, Any] | None = None,
        extras: _Extras | None = None,
        *,
        every: bool = True,
    ) -> Stream:
        """As `stream`, telling of each attempt too, as it begins and once it is known what follows its end; with `kind="chat"`
        the last piece is the whole reply. Unless `every`, nothing is told of a call that needs one attempt.
        """
    def batch(
        self,
        kind: str,
        contents: Sequence[Any],
        params: dict[str, Any] | None = None,
        extras: _Extras | None = None,
        *,
        concurrency: int | None = None,
        lenient: bool = False,
    ) -> list[Any]:
        """Calls for each content, at most `concurrency` at a time; gives a list of results, an exception in place of one that
        failed. Result i belongs to content i; a content that is an exception is its own result. What cannot be sent is
        raised before anything is, or with `lenient` is a result too.
        """

@final
class Run:
    """A batch under way. Inputs are put one by one, each at its place; results are taken as they come."""
    def __new__(
        cls,
        route: Route,
        kind: str,
        params: dict[str, Any] | None = None,
        extras: _Extras | None = None,
        *,
        concurrency: int,
        journal: str | None = None,
        retry_failures: bool = True,
        patient: bool = False,
    ) -> Run: ...
    def put(self, at: int, content: Any, own: dict[str, Any] | None = None) -> bool:
        """Takes the input at that place on, with parameters of its own. `True` if its result is there already."""
    @property
    def is_ready(self) -> bool:
        """Whether there is something to take."""
    @property
    def outstanding(self) -> int:
        """Inputs that were put and whose results were not taken."""
    def take(self) -> list[tuple[int, Any]]:
        """Waits for results on this thread and takes all there are: pairs of a place and an answer or an exception. Raises what ends the run."""
    def start_take(self) -> asyncio.Future[list[tuple[int, Any]]]:
        """The same as a future of the running loop."""
    def close(self) -> None:
        """Cuts what is under way. What has finished is on disk when this returns."""

@final
class JournalReader:
    """Reads a journal, also while a batch writes it."""
    def __new__(cls, path: str) -> JournalReader: ...
    def counts(self) -> tuple[int, int]:
        """How many were answered, and how many failed."""
    def rows(self, table: Any, start: int, most: int, *, failures: bool = False) -> list[tuple[int, Any]]:
        """The next results from that place on, in order: pairs of a place and an answer or an exception of `table`'s."""

@final
class Reply:
    """A model's whole answer."""
    def _repr_html_(self) -> str: ...
    @property
    def guardrails(self) -> tuple[Applied, ...]:
        """What guardrails have done to the question and to this answer, in order: what ("redacted", "repaired"), to which ("input",
        "output"), which rule, how often.
        """
    @property
    def cached(self) -> bool:
        """Whether it came from a cache: no request was made for it, and no tokens were used."""
    @property
    def content(self) -> str:
        """The text."""
    @property
    def reasoning(self) -> str | None:
        """What the model says of its reasoning, where it does."""
    @property
    def refusal(self) -> str | None:
        """The model's refusal, where it refused."""
    @property
    def model(self) -> str:
        """The model that answered, as the server names it."""
    @property
    def asked_model(self) -> str:
        """The model that was asked; `model` is what the server says."""
    @property
    def alternative(self) -> int:
        """Which alternative answered: 0 is the primary."""
    @property
    def attempts(self) -> Attempts:
        """The attempts made, in order; compares with a number as their count."""
    @property
    def story(self) -> tuple[Step, ...]:
        """What policies did in the call's course, in order."""
    @property
    def seconds(self) -> float:
        """Seconds from the call to the answer, retries and waits included."""
    @property
    def id(self) -> str | None:
        """The answer's id."""
    @property
    def request_id(self) -> str | None:
        """The provider's id of the request."""
    @property
    def finish_reason(self) -> str | None:
        """`stop`, `length`, `tool_calls`, `content_filter`, …"""
    @property
    def system_fingerprint(self) -> str | None:
        """The server's mark of the setup that answered, where it gives one."""
    @property
    def service_tier(self) -> str | None:
        """The tier that served it, where the server says."""
    @property
    def usage(self) -> dict[str, int] | None:
        """Tokens: `prompt_tokens`, `completion_tokens`, `total_tokens`, and `cached_tokens` and `reasoning_tokens` if told."""
    @property
    def choices(self) -> list[Choice]:
        """All answers, in the order of their indexes; `content` and the like are those of the first."""
    @property
    def message(self) -> dict[str, Any]:
        """The message as the server sent it, to go into the next request's messages."""
    @property
    def logprobs(self) -> dict[str, Any] | None:
        """The tokens' log probabilities, as the server sent them; `None` if they were not asked for."""
    def parsed(self) -> Any:
        """What a `Shape` of the guardrails has read; else what the text says as JSON (`response_format`).

        Raises ValueError if it is no JSON: cut short, a refusal, or prose.
        """
    @property
    def tool_calls(self) -> list[tuple[str | None, str, str]]:
        """The tool calls: `(id, name, arguments)` each, arguments as the JSON text that the model wrote."""
    @property
    def headers(self) -> dict[str, str]:
        """The response's headers, names in lower case."""
    @property
    def raw(self) -> Any:
        """The whole body, parsed: everything that the server said."""

@final
class Choice:
    """One of a reply's answers."""
    @property
    def index(self) -> int:
        """Its number."""
    @property
    def content(self) -> str:
        """The text."""
    @property
    def reasoning(self) -> str | None:
        """What the model says of its reasoning, where it does."""
    @property
    def refusal(self) -> str | None:
        """The model's refusal, where it refused."""
    @property
    def finish_reason(self) -> str | None:
        """`stop`, `length`, `tool_calls`, `content_filter`, …"""
    @property
    def tool_calls(self) -> list[tuple[str | None, str, str]]:
        """The tool calls, as a reply has them."""
    @property
    def message(self) -> dict[str, Any]:
        """The message as the server sent it."""
    @property
    def logprobs(self) -> dict[str, Any] | None:
        """The tokens' log probabilities, as the server sent them."""
    def parsed(self) -> Any:
        """What the text says as JSON, or a ValueError."""

@final
class Chunk:
    """A piece of a streamed answer."""
    @property
    def logprobs(self) -> dict[str, Any] | None:
        """Its tokens' log probabilities, as the server sent them; `None` if they were not asked for."""
    @property
    def content(self) -> str:
        """The text of this piece; may be empty."""
    @property
    def reasoning(self) -> str | None:
        """What the model says of its reasoning, where it does."""
    @property
    def refusal(self) -> str | None:
        """The model's refusal, where it refused."""
    @property
    def role(self) -> str | None:
        """Whose words these are, where the piece says; most do not."""
    @property
    def model(self) -> str | None:
        """The model that answered, as the server names it."""
    @property
    def id(self) -> str | None:
        """The answer's id."""
    @property
    def finish_reason(self) -> str | None:
        """Set on the last piece: `stop`, `length`, …"""
    @property
    def system_fingerprint(self) -> str | None:
        """The server's mark of the setup that answered, where it gives one."""
    @property
    def service_tier(self) -> str | None:
        """The tier that served it, where the server says."""
    @property
    def index(self) -> int:
        """Which choice it belongs to."""
    @property
    def attempt(self) -> int:
        """Which attempt gave it: its place among the stream's `attempts`, from 1 on."""
    @property
    def restarted(self) -> bool:
        """Whether the answer begins anew with this piece (`on_interrupt="restart"`): the pieces before it are void."""
    @property
    def continued(self) -> bool:
        """Whether another attempt goes on with this piece (`on_interrupt="continue"`): it follows those before it."""
    @property
    def usage(self) -> dict[str, int] | None:
        """Tokens, on the piece that tells them: those of its own attempt's request."""
    @property
    def tool_calls(self) -> list[tuple[int, str | None, str | None, str]]:
        """Pieces of tool calls: `(index, id, name, arguments)` each."""
    @property
    def raw(self) -> Any:
        """The event, parsed."""

@final
class Stream:
    """A streamed answer: an iterator that knows its story once it is over."""
    @property
    def attempts(self) -> Attempts | None:
        """The attempts made, once the stream is over; `None` before."""
    @property
    def story(self) -> tuple[Step, ...] | None:
        """What policies did in its course, in order, once the stream is over; `None` before."""
    @property
    def alternative(self) -> int | None:
        """Which alternative answered (0 is the primary), once the stream is over."""
    @property
    def cached(self) -> bool | None:
        """Whether it came from a cache, once the stream is over."""
    @property
    def seconds(self) -> float | None:
        """Seconds from the first piece asked for to the end, once the stream is over."""
    def __iter__(self) -> Stream: ...
    def __next__(self) -> Chunk: ...
    def close(self) -> None:
        """Gives the rest up: the request is cut and its connection freed."""
    def __enter__(self) -> Stream: ...
    def __exit__(self, *error: object) -> None: ...

@final
class AttemptEvent:
    """An attempt that began (`begun`) or ended (`ended`), or one that an open breaker refused (`refused`)."""
    @property
    def kind(self) -> Literal["begun", "ended", "refused"]: ...
    @property
    def model(self) -> str:
        """The model asked; of a refusal, the breaker's name."""
    @property
    def number(self) -> int:
        """Which attempt of its alternative, from 1 on."""
    @property
    def alternative(self) -> int:
        """Which alternative is asked: 0 is the primary."""
    @property
    def outcome(self) -> str | None:
        """`ok`, or the error's class name."""
    @property
    def status(self) -> int | None:
        """HTTP status of a failure."""
    @property
    def request_id(self) -> str | None:
        """The provider's id of the request."""
    @property
    def seconds(self) -> float | None:
        """Seconds that it took."""
    @property
    def waited(self) -> float | None:
        """Seconds until the next attempt, if one follows."""
    @property
    def error(self) -> BaseException | None:
        """Why it failed."""

class AsyncPieces:
    """A streamed answer for an event loop: what `seawall.llm.AsyncStream` builds on."""

    _stream: Stream
    def __new__(cls, stream: Stream) -> Self: ...
    def __aiter__(self) -> Self: ...
    def __anext__(self) -> Awaitable[Chunk]: ...

def read_toml(text: str) -> tuple[tuple[tuple[int, int, int], Any], list[tuple[tuple[int, int, int], str, bool]]]:
    """A text's values with their places, and what is no TOML in it: `((line, column, width), value)`, a table's keys each with `(place, item)`.
    `None` is a value that could not be read.
    """

@final
class Dashboard:
    """A page that shows the process it is in, until it is closed."""
    def __new__(cls, host: str, port: int | None, token: str | None, title: str) -> Dashboard: ...
    def close(self) -> None:
        """Ends it and its connections at once."""
    @property
    def listens(self) -> bool:
        """Whether it listens, in this process."""
    @property
    def address(self) -> tuple[str, int]:
        """Where it listens, or did."""
    @property
    def token(self) -> str | None:
        """What has to be known to see it, if anything has."""

@final
class Metrics:
    """Counts all calls of the process as long as it is not closed, alone or as one of a group."""
    def __new__(cls, directory: str | None) -> Metrics: ...
    def page(self, accept: str) -> tuple[str, str]:
        """The page for a reader that sends this `Accept`: text and content type."""
    def families(self) -> list[tuple[str, list[tuple[str, list[str], float | None, float]]]]:
        """`(name, [(suffix, labels, le, value)])` of each metric."""
    def close(self) -> None:
        """Counts no more; what was counted stays."""

@final
class MetricsServer:
    """Serves the page of some metrics, until it is closed."""
    def __new__(cls, metrics: Metrics, host: str, port: int) -> MetricsServer: ...
    def close(self) -> None:
        """Ends it and its connections at once."""
    @property
    def listens(self) -> bool:
        """Whether it listens, in this process."""
    @property
    def address(self) -> tuple[str, int]:
        """Where it listens, or did."""

@final
class Told:
    """How a call went. Times are Unix times in nanoseconds."""

    operation: str
    ended: int
    ok: bool | None
    error: str
    is_stream: bool
    pipeline: str
    model: str
    endpoint: str
    answered_by: str | None
    attempts: int
    retries: int
    fallback: bool
    seconds: float
    first_token: float
    prompt_tokens: int
    tokens: int
    cost: float
    requests: list[tuple[str, str, int, int | None, str, int | None, str | None]]
    notes: list[tuple[int, str, str, int, float, str, str]]

def set_tracer(tracer: object | None) -> None:
    """`tracer.begin(operation, pipeline, model, endpoint, begun)` is asked for a span of each call that begins from now on; `None`: nobody is."""

def listen_core(level: int | None) -> None:
    """From now on what the core says is left to be told, if it is at least so loud; `None`: nothing is."""

def wait_told(seconds: float) -> None:
    """Waits until there is something to tell, or so many seconds."""

def wake_told() -> None:
    """Ends the wait of whoever waits."""

def take_told() -> tuple[list[tuple[Any, Any]], int]:
    """What there is to tell, oldest first: `(span, told)`, or `(None, (level, target, text, time))` for what the core said; and how many
    were lost since it was asked last.
    """

def forget_told() -> None:
    """A forked child tells nothing of its parent's."""

def span_names() -> tuple[list[tuple[str, list[str], str]], list[tuple[str, str, str, str]]]:
    """`(name, places, meaning)` of each attribute of spans, and `(name, kind, unit, meaning)` of each instrument."""

def forget_numbers() -> None:
    """A forked child begins at zero."""

def metric_names() -> list[tuple[str, str, str, list[str], str]]:
    """`(name, kind, unit, labels, help)` of each metric."""

class SimulatedServer:
    """A server with OpenAI's API that misbehaves on command."""
    def __new__(
        cls,
        seed: int,
        models: set[str] | None,
        keys: set[str] | None,
        require_key: bool,
        host: str,
        port: int,
        log_limit: int,
    ) -> SimulatedServer: ...
    def listen(self) -> None:
        """Listens from now on; nothing if it does already."""
    def end(self) -> None:
        """Ends it and every connection at once."""
    @property
    def address(self) -> tuple[str, int] | None:
        """Where it listens; `None` while it does not."""
    def rule(
        self,
        model: str,
        fault: str,
        times: int | None,
        probability: float,
        path: str | None,
        after: int,
        start: float,
        until: float | None,
        outage: bool,
    ) -> None:
        """Adds a rule; the fault as JSON."""
    def pace(self, model: str, pace: str, start: float, until: float | None) -> None:
        """Sets how fast a model is, as JSON."""
    def limit(self, model: str, requests: int | None, tokens: int | None) -> None:
        """Sets what a model allows in a minute; `None` is any number."""
    def unrule(self, model: str | None) -> None:
        """Takes away a model's rules, pace and limits, or all."""
    def rows(self) -> list[tuple[Any, ...]]:
        """The requests in the log, a row each."""
    def ended(self, timeout: float) -> list[tuple[Any, ...]]:
        """The requests whose answers have ended since the last call, waiting so many seconds for one."""
    def tally(self, model: str | None = None, path: str | None = None) -> int:
        """All requests since the log was last emptied."""
    def forget(self) -> None:
        """Empties the log."""
    def wait(self, count: int, aborted: bool, timeout: float) -> int:
        """Waits until so many requests have come (or been aborted), at most so many seconds; the number there is then."""
    @property
    def open_connections(self) -> int:
        """Connections open now."""

def remaining() -> float | None:
    """Seconds left of the tightest time limit around the current call: of a `Timeout`, a `Retry(timeout=)` or a guard's
    `deadline`, of this pipeline or of one around it. `None` outside of them; 0 when it has passed. Coroutines, tasks
    and whatever else copies the context see it too; other threads only if they run in a copy of it.
    """

def ask_always(yes: bool) -> None:
    """Called when classifiers are registered or taken back: whether there are any."""

def clock_stop() -> bool:
    """Stops the time. `False`: it stands still already."""

def clock_run() -> None:
    """Lets the time run again."""

def clock_now() -> int:
    """The time in nanoseconds."""

def clock_advance(to: int) -> None:
    """Moves the time, if it stands still, to that nanosecond; never back."""

def clock_stands() -> bool:
    """Whether the time stands still."""

def sow(seed: int | None) -> int | None:
    """Begins a sequence of seeds; gives where the one before was, for whoever wants to go on with it."""

def set_trial(recorded: bool, hurried: bool, cap: int) -> None:
    """What holds for all calls from now on."""

ERROR_CLASSES: list[str]
CLASSES: list[tuple[str, bool | None, bool | None, bool]]

class Monitor:
    """Health of something that is called, over its last calls.

    ```python
    monitor = seawall.Monitor(window=100, name="chat")

    @seawall.guard(monitor=monitor)
    def ask(question): ...

    monitor.error_rate, monitor.p95, monitor.level
    ```

    Args:
        window: how many of the last calls count, an int of 1 to 10,000,000 (default 100); or the calls of how many of the last
            seconds, a float or timedelta.
        name: what is watched; shown in alerts and in the repr.
        rules: `seawall.Rule`s, or dicts of what they are made with; each takes the place of the default of its metric.
        remind_every: seconds or timedelta; while an incident lasts, it is told again so often (default: never).
        sinks: where alerts go, besides the log; see `add_sink`.

    Recording costs the same at every window size and is safe from any thread. One incident gives one alert when it
    starts, one when its level changes and one when it is over: to the logger `seawall.monitor`, to `alerts`, to the
    callbacks of `on_alert` and to the sinks. The limits are 5 % (warning) and 10 % (critical) of errors, 3 % and 5 % of calls
    that were retried, 2 s and 5 s of mean latency, judged from 10 calls on; five failures in a row are an emergency.

    A copy (pickle, deepcopy) has the same window size, name, rules, sinks and callbacks, and starts empty: the counts belong
    to the object that saw the calls.

    Raises `ConfigurationError` for arguments that cannot be meant.
    """
    def __new__(
        cls,
        window: float | timedelta | None = 100,
        name: str | None = None,
        *,
        rules: Iterable[Rule | Mapping[str, Any]] | None = None,
        remind_every: Seconds | None = None,
        sinks: Iterable[Callable[[Alert], object]] | None = None,
    ) -> Monitor: ...
    def record(
        self,
        success: bool,
        retried: bool | None = None,
        latency: float | timedelta | None = None,
        *,
        retries: int | None = None,
        fallback: bool | None = None,
        tokens: int | None = None,
        first_token: float | timedelta | None = None,
        cost: float | None = None,
        model: str | None = None,
        error: str | BaseException | type[BaseException] | None = None,
    ) -> None:
        """Counts one finished call.

        Args:
            success: whether it gave a usable result.
            retried: whether it needed more than one attempt.
            latency: how long it took, seconds or timedelta.
            retries: how many attempts after the first; if not given, 1 where `retried`.
            fallback: whether an alternative answered.
            tokens: tokens used.
            first_token: how long the first content of a stream took, seconds or timedelta.
            cost: what it cost.
            model: the model that answered.
            error: the class of the error of a failed call, or its name.
        """
    def by(self, what: str) -> dict[str, Any]:
        """The window's numbers apart; `what` they are told apart by is `pipeline`, `model`, `endpoint` or `error`, the class of the error of failed calls. A
        dict of dicts with the sums and rates of `snapshot`, or, by error, of counts. Calls of which that is not known are
        under "".

        Raises `ConfigurationError` for another word.
        """
    def timeline(self, slots: int | None = 60) -> list[dict[str, Any]]:
        """The window's calls by time, oldest first: at most `slots` (default 60) equal parts, as dicts with `at`, the Unix time at
        which a part begins, and the numbers of `snapshot`.
        """
    def snapshot(self) -> dict[str, Any]:
        """The numbers at this moment: sums and rates over the window, latencies in seconds (percentiles within 2 %),
        `level`, and under `lifetime` the sums over all calls ever recorded. Rates and latencies are None without calls.
        """
    def live(self, refresh: float | timedelta | None = 1.0) -> Live:
        """A display that is brought up to date in place every `refresh` seconds, in a notebook or a terminal, until the `with` block
        ends or `stop()` is called: a `seawall._live.Live`.
        """
    def _recent(self, most: int) -> list[tuple[bool, float, int, bool, float, str, str]]: ...
    def _repr_html_(self) -> str: ...
    def on_alert(self, callback: _C) -> _C:
        """Has every later alert given to `callback(alert)`, in the thread that recorded the call. What it raises is logged
        and goes no further. Returns the callback, so that it can be used as a decorator.
        """
    def add_sink(self, sink: _C, level: str | None = "warning") -> _C:
        """Has alerts delivered to a sink: one of `seawall.sinks`, or any function of an alert, which may be asynchronous. They are
        delivered from a thread of seawall's own, tried again where that fails, and never in a call's way.

        Args:
            sink: where they go.
            level: `warning`, `critical` or `emergency`: incidents that do not come to this level are not told there.

        Returns the sink, so that it can be used as a decorator.
        """
    def remove_sink(self, sink: Callable[[Alert], object]) -> None:
        """Forgets a sink: no later alert goes there. Those that wait for it already are delivered still. One that was added twice
        has to be removed twice.

        Raises `ValueError` if it is none of this monitor's.
        """
    @property
    def sinks(self) -> list[Any]:
        """The sinks, in the order in which they were added: a copy."""
    def silence(
        self, duration: Seconds | None = None, *, until: datetime | float | None = None, reason: str | None = None
    ) -> Silence:
        """Alerts are kept in `alerts`, marked as silenced, and told to nobody until the silence is over. If what was told before is
        not true any more by then, or an incident has begun that lasts, that is told once.

        Args:
            duration: so long, in seconds or as a timedelta; or
            until: to that time, a datetime or Unix time.
            reason: why, for those who look.

        Returns a `Silence`: `end()` ends it, and so does the end of a `with` block that it is used in.
        """
    @property
    def silences(self) -> list[Silence]:
        """The silences that last, oldest first: a copy."""
    @property
    def rules(self) -> list[Rule]:
        """The rules in force, as `seawall.Rule`s: a copy."""
    @property
    def remind_every(self) -> float | None:
        """How often an incident that lasts is told again, in seconds; None: never."""
    def _end_silence(self, id: int) -> bool: ...
    def _ring(self) -> None: ...
    def _disarm(self) -> None: ...
    def reset(self) -> None:
        """Forgets all calls, alerts and totals; limits, silences and callbacks stay."""
    @property
    def window(self) -> float:
        """How many of the last calls count; or, as a float, of how many of the last seconds."""
    @property
    def cost(self) -> float:
        """Estimated price of the window's calls, by `seawall.prices`."""
    @property
    def name(self) -> str | None:
        """What is watched."""
    @property
    def level(self) -> str:
        """How bad it is: `normal`, `warning`, `critical` or `emergency`."""
    @property
    def alerts(self) -> list[Alert]:
        """The last 100 alerts, silenced ones too, oldest first: a copy."""
    @property
    def error_rate(self) -> float | None:
        """Share of the window's calls that failed, 0 to 1; None without calls."""
    @property
    def success_rate(self) -> float | None:
        """Share of the window's calls that succeeded."""
    @property
    def retry_rate(self) -> float | None:
        """Share of the window's calls that needed a retry."""
    @property
    def avg_latency(self) -> float | None:
        """Mean latency of the window's calls in seconds."""
    @property
    def p50(self) -> float | None:
        """Median latency in seconds, within 2 %."""
    @property
    def p95(self) -> float | None:
        """The latency in seconds that 95 % of the calls did not exceed, within 2 %."""
    @property
    def p99(self) -> float | None:
        """The latency in seconds that 99 % of the calls did not exceed, within 2 %."""
    def __getnewargs__(self) -> tuple[Any, ...]: ...
    def __getstate__(self) -> dict[str, Any]: ...
    def __setstate__(self, state: dict[str, Any]) -> None: ...

@final
class Observation:
    """A monitor that is told of every call, until this is closed."""
    def __new__(cls, monitor: Monitor) -> Observation: ...
    @property
    def monitor(self) -> Monitor:
        """The monitor that is told."""
    def close(self) -> None:
        """Tells the monitor of no further call. Closing twice does no harm."""
    def __enter__(self) -> Monitor: ...
    def __exit__(self, *error: object) -> None: ...

def prices() -> list[tuple[str, float, float, float]]:
    """The price table: `(model, prompt, completion, cached)` each, for a million tokens."""

def set_prices(table: Sequence[tuple[str, list[Any]]]) -> None:
    """Puts another price table in its place."""

@final
class Story:
    """The story of a guarded call that is over: a sequence of its steps, made when somebody asks."""
    def __iter__(self) -> Iterator[Step]: ...
    def __len__(self) -> int: ...
    def __getitem__(self, at: Any, /) -> Any: ...
    @property
    def attempts(self) -> Attempts:
        """The attempts made, in order; compares with a number as their count."""
    @property
    def steps(self) -> tuple[Step, ...]:
        """What policies did, in order."""

class MonitoringSystem(Monitor):
    """The native half of `seawall.MonitoringSystem`: everything that counts."""
    def __new__(cls, *args: Any, **kwargs: Any) -> MonitoringSystem: ...
    def record_request(self, success: bool, retried: bool, latency: float | timedelta) -> None:
        """Counts one finished request.

        Args:
            success: whether it succeeded.
            retried: whether it needed more than one attempt.
            latency: how long it took, seconds or timedelta.
        """
    @property
    def requests(self) -> tuple[dict[str, Any], ...]:
        """The requests in the window, oldest first, as dicts with `timestamp`, `success`, `retried` and `latency`: a copy."""
    def _begin(
        self,
        window_size: int,
        rules: Iterable[Rule | Mapping[str, Any]] | None = None,
        remind_every: Seconds | None = None,
        sinks: Iterable[Callable[[Alert], object]] | None = None,
    ) -> None: ...
    def _limit(self, metric: str) -> float: ...
    def _set_limit(self, metric: str, limit: float) -> None: ...

METRICS: list[tuple[str, str, bool, list[float], int]]

@final
class Webhook:
    """Posts JSON to one address, without the interpreter lock."""
    def __new__(cls, url: str, headers: list[tuple[str, str]]) -> Webhook: ...
    @property
    def host(self) -> str:
        """What may be shown of the address."""
    def start(self, body: bytes, headers: list[tuple[str, str]]) -> Flying:
        """Posts the body once, with these headers too; the running loop's future says how it went."""
