"""The `circuitbreaker` package (2.1), on seawall's breaker: change the import line and nothing else.

Everything public behaves as it does there, the edge cases included; `docs/compat/circuitbreaker.md` lists what
`seawall.circuit` does better, and how to move on to it. Beyond that package a breaker can do what seawall's can:
`explain()`, `metrics()`, `add_listener()`, `isolate()`, pickling, and safety from any thread.
"""

from __future__ import annotations

import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterable, Iterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta, timezone
from functools import partial, wraps
from inspect import isasyncgenfunction, isclass, iscoroutinefunction, isgeneratorfunction
from math import ceil, floor
from time import monotonic
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

from seawall import _seawall, _word, errors
from seawall._circuits import restored

if TYPE_CHECKING:
    from typing_extensions import Self

_F = TypeVar("_F", bound=Callable[..., Any])
_Predicate = Callable[[type[BaseException], BaseException | None], bool]

STRING_TYPES = (bytes, str)
STATE_CLOSED = "closed"
STATE_OPEN = "open"
STATE_HALF_OPEN = "half_open"

# States that the package does not know: set by hand, and left only by hand.
_BY_HAND = ("forced_open", "disabled", "metrics_only")

# Programs turn this module's clock in their tests. In a tuple, where nothing replaces it: the one that nobody turned.
_TRUE_CLOCK = (monotonic,)
_AHEAD = _seawall.clock_now() - round(monotonic() * 1e9)


def _turned_clock() -> int | None:
    """The time by `monotonic` on the engine's scale, if it was turned."""
    return None if monotonic is _TRUE_CLOCK[0] else round(monotonic() * 1e9) + _AHEAD


class _Expected:
    """What a breaker counts, asked of its `is_failure` as it is at that moment."""

    breaker: weakref.ref[CircuitBreaker]

    def __call__(self, kind: type[BaseException], exception: BaseException) -> bool:
        breaker = self.breaker()
        return breaker is not None and breaker.is_failure(kind, exception)


def in_exception_list(*exc_types: type[BaseException]) -> _Predicate:
    """A predicate that says whether an exception's class is one of these, or a subclass."""

    def matches_types(thrown_type: type[BaseException], _: BaseException | None) -> bool:
        return issubclass(thrown_type, exc_types)

    return matches_types


def build_failure_predicate(expected_exception: Any) -> _Predicate:
    """The predicate `(type, exception) -> bool` for an exception class, an iterable of classes, or a predicate.

    Raises:
        ValueError: for a string, or something that is none of these.
    """
    if isclass(expected_exception) and issubclass(expected_exception, Exception):
        return in_exception_list(expected_exception)
    try:
        types = iter(expected_exception)
    except TypeError:
        if isclass(expected_exception) or not callable(expected_exception):
            raise ValueError("expected_exception does not look like a predicate") from None
        predicate: _Predicate = expected_exception
        return predicate
    if isinstance(expected_exception, STRING_TYPES):
        raise ValueError("expected_exception cannot be a string. Did you mean name?")
    return in_exception_list(*types)


class CircuitBreaker(_seawall.CircuitBreaker):
    """seawall's breaker with the names and the rules of the `circuitbreaker` package.

    Args (each falls back to the class attribute where it is false, a zero included):
        failure_threshold: failures in a row that open it (`FAILURE_THRESHOLD`, 5).
        recovery_timeout: seconds until calls are let through again, all of them (`RECOVERY_TIMEOUT`, 30).
        expected_exception: an exception class, an iterable of them, or a predicate of type and exception
            (`EXPECTED_EXCEPTION`, `Exception`).
        name: its name; that of the first function it decorates if not given.
        fallback_function: called with the same arguments while the circuit is open; of the function's own kind.

    Any exit that is no failure, an unexpected exception or a cancellation included, counts as a success: it closes the
    circuit and resets the count. A `with` block is never rejected, only decorated functions are. In a `seawall.Pipeline`, and
    by permits, an open one does turn calls away, and what is no failure there is neutral.
    """

    FAILURE_THRESHOLD: Any = 5
    RECOVERY_TIMEOUT: Any = 30
    EXPECTED_EXCEPTION: Any = Exception
    FALLBACK_FUNCTION: Any = None

    is_failure: _Predicate

    # The native breaker is made without arguments: subclasses may take any, and __init__ sets what it is told.
    def __new__(cls, *_args: Any, **_kwargs: Any) -> Self:
        expected = _Expected()
        breaker = super().__new__(cls, 1, 0, expected, _lenient=True, _clock=_turned_clock)
        expected.breaker = weakref.ref(breaker)
        return breaker

    def __init__(
        self,
        failure_threshold: int | None = None,
        recovery_timeout: float | None = None,
        expected_exception: Any = None,
        name: str | None = None,
        fallback_function: Callable[..., Any] | None = None,
    ) -> None:
        self._limits = (failure_threshold or self.FAILURE_THRESHOLD, recovery_timeout or self.RECOVERY_TIMEOUT)
        if not expected_exception:
            # Of the class itself and not of its bases, as there; past the descriptors, so that a function stays one.
            expected_exception = type(self).__dict__.get("EXPECTED_EXCEPTION", CircuitBreaker.EXPECTED_EXCEPTION)
        self._expected_exception = expected_exception
        self.is_failure = build_failure_predicate(expected_exception)
        self._fallback_function = fallback_function or self.FALLBACK_FUNCTION
        self._name = name
        self._made = monotonic()
        self._said: BaseException | None = None
        self._set_limits()
        if name is not None:
            self._guards(name)

    def _set_limits(self) -> None:
        threshold, timeout = self._limits
        for name, given in (("failure_threshold", threshold), ("recovery_timeout", timeout)):
            if not hasattr(given, "__float__"):
                raise TypeError(f"{name} must be a number, not {_word.shown(given)}")
        # There a count that reaches the threshold opens it: 2.5 means 3, and less than one the first failure.
        super().configure(failure_threshold=max(ceil(threshold), 1), recovery_timeout=max(timeout, 0))

    # That package reads these two at each call, and programs set them.
    @property
    def _failure_threshold(self) -> Any:
        return self._limits[0]

    @_failure_threshold.setter
    def _failure_threshold(self, threshold: Any) -> None:
        self._limits = (threshold, self._limits[1])
        self._set_limits()

    @property
    def _recovery_timeout(self) -> Any:
        return self._limits[1]

    @_recovery_timeout.setter
    def _recovery_timeout(self, timeout: Any) -> None:
        self._limits = (self._limits[0], timeout)
        self._set_limits()

    def configure(self, **changes: Any) -> None:
        """Changes numbers while it works: see `seawall.CircuitBreaker.configure`."""
        super().configure(**changes)
        threshold, timeout = self._limits
        if "failure_threshold" in changes:
            threshold = self.consecutive_threshold
        if "recovery_timeout" in changes:
            given = changes["recovery_timeout"]
            timeout = given.total_seconds() if isinstance(given, timedelta) else 30 if given is None else given
        self._limits = (threshold, timeout)

    def __call__(self, wrapped: _F) -> _F:
        return self.decorate(wrapped)

    def __enter__(self) -> None:  # type: ignore[override]
        return None

    def __exit__(self, exc_type: Any = None, exc_value: Any = None, _traceback: Any = None) -> Literal[False]:
        if exc_type and self.is_failure(exc_type, exc_value):
            self._said = None
            self._remember(exc_value)
            self.record_failure(exc_value)
        elif type(self).reset is CircuitBreaker.reset:
            self._said = None
            self.record_success()
        # A success ends no isolation; a reset would.
        elif super().state not in _BY_HAND:
            self.reset()
        return False

    async def __aenter__(self) -> None:  # type: ignore[override]
        return self.__enter__()

    async def __aexit__(self, exc_type: Any = None, exc_value: Any = None, traceback: Any = None) -> None:
        self.__exit__(exc_type, exc_value, traceback)

    def decorate(self, function: _F) -> _F:
        """The function behind the breaker: of the same kind, plain or `async`, generator or not."""
        if self._name is None:
            self._name = getattr(function, "__qualname__", None) or function.__name__
        CircuitBreakerMonitor.register(self)
        self._guards(str(self._name))
        if isasyncgenfunction(function):
            return self._async_generator(function)  # type: ignore[return-value]
        if iscoroutinefunction(function):
            return self._coroutine(function)  # type: ignore[return-value]
        if isgeneratorfunction(function):
            return self._generator(function)  # type: ignore[return-value]
        return self._function(function)  # type: ignore[return-value]

    def _function(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            if self.opened:
                return self._instead()(*args, **kwargs)
            return self.call(function, *args, **kwargs)

        return wrapper

    def _generator(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
            call = self._instead() if self.opened else partial(self.call_generator, function)
            return (yield from call(*args, **kwargs))

        return wrapper

    def _coroutine(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            if self.opened:
                return await self._instead()(*args, **kwargs)
            return await self.call_async(function, *args, **kwargs)

        return wrapper

    def _async_generator(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        async def wrapper(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
            call = self._instead() if self.opened else partial(self.call_async_generator, function)
            async with _closing(call(*args, **kwargs)) as items:
                async for item in items:
                    yield item

        return wrapper

    def _instead(self) -> Callable[..., Any]:
        if self.fallback_function:
            return self.fallback_function
        raise CircuitBreakerError(self)

    def call(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]  # as the package names it
        """Calls the function and counts how it comes out, whether the circuit is open or not."""
        with self:
            return func(*args, **kwargs)

    def call_generator(self, func: Callable[..., Iterable[Any]], *args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        """Iterates over the function's generator and counts how it ends."""
        with self:
            return (yield from func(*args, **kwargs))

    async def call_async(self, func: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any) -> Any:
        """Awaits the function and counts how it comes out."""
        with self:
            return await func(*args, **kwargs)

    async def call_async_generator(
        self, func: Callable[..., AsyncIterator[Any]], *args: Any, **kwargs: Any
    ) -> AsyncIterator[Any]:
        """Iterates over the function's asynchronous generator and counts how it ends."""
        with self:
            async with _closing(func(*args, **kwargs)) as items:
                async for item in items:
                    yield item

    def reset(self) -> None:
        """Closes the circuit and forgets the count and the last failure."""
        self._said = None
        super().reset()

    @property
    def open_remaining(self) -> int:
        """Whole seconds until calls are let through, negative after that; from when it was made, if it never opened."""
        since = self._since_opening
        remain = self._recovery_timeout - (monotonic() - self._made if since is None else since)
        whole: int = ceil(remain) if remain > 0 else floor(remain)
        return whole

    @property
    def open_until(self) -> datetime:
        """About when calls are let through again, in UTC."""
        return datetime.now(timezone.utc) + timedelta(seconds=self.open_remaining)

    @property
    def name(self) -> str | None:
        return super().name if self._name is None else self._name

    @property
    def last_failure(self) -> BaseException | None:
        """The failure seen last; `None` after a success, as there."""
        failure = super().last_failure
        # There a success forgets it.
        return failure if self.failure_count or failure is self._said else None

    # Programs set it in their tests.
    @property
    def _last_failure(self) -> BaseException | None:
        return self.last_failure

    @_last_failure.setter
    def _last_failure(self, failure: BaseException | None) -> None:
        self._said = failure
        self._remember(failure)

    @property
    def fallback_function(self) -> Callable[..., Any] | None:
        return self._fallback_function

    def __reduce__(self) -> tuple[Any, ...]:
        arguments = {
            "failure_threshold": self._failure_threshold,
            "recovery_timeout": self._recovery_timeout,
            "expected_exception": self._expected_exception,
            "name": self._name,
            "fallback_function": self._fallback_function,
        }
        return restored, (type(self), self._identity, arguments, {})

    def __str__(self) -> str:
        return self.name or "unnamed_CircuitBreaker"


@asynccontextmanager
async def _closing(items: Any) -> AsyncIterator[Any]:
    """Closes an asynchronous generator with the loop that is left, not when the collector finds it."""
    try:
        yield items
    finally:
        close = getattr(items, "aclose", None)
        if close is not None:
            await close()


class CircuitBreakerError(errors.CircuitBreakerError):
    """The circuit is open. Also a `seawall.CircuitBreakerError`, with its `name`, `retry_after` and `last_failure`."""

    def __init__(self, circuit_breaker: CircuitBreaker, *args: Any, **kwargs: Any) -> None:
        Exception.__init__(self, *args, **kwargs)
        self._circuit_breaker = circuit_breaker
        self.name = circuit_breaker.name
        self.retry_after = max(circuit_breaker.open_remaining, 0)
        self.last_failure = circuit_breaker.last_failure

    def __str__(self) -> str:
        breaker = self._circuit_breaker
        seconds, failures = round(breaker.open_remaining), breaker.failure_count
        told = f"({failures} failures, {seconds} sec remaining) (last_failure: {breaker.last_failure!r})"
        return f'Circuit "{breaker.name}" OPEN until {breaker.open_until} {told}'


class CircuitBreakerMonitor:
    """All breakers that decorate something, by name; of two of one name the last one."""

    circuit_breakers: ClassVar[dict[str | None, CircuitBreaker]] = {}

    @classmethod
    def register(cls, circuit_breaker: CircuitBreaker) -> None:
        """Adds a breaker under its name."""
        cls.circuit_breakers[circuit_breaker.name] = circuit_breaker

    @classmethod
    def all_closed(cls) -> bool:
        """Whether no breaker is open."""
        return not list(cls.get_open())

    @classmethod
    def get_circuits(cls) -> Iterable[CircuitBreaker]:
        """All breakers."""
        return cls.circuit_breakers.values()

    @classmethod
    def get(cls, name: str) -> CircuitBreaker | None:
        """The breaker of that name, `None` if there is none."""
        return cls.circuit_breakers.get(name)

    @classmethod
    def get_open(cls) -> Iterator[CircuitBreaker]:
        """The open breakers."""
        return (breaker for breaker in cls.get_circuits() if breaker.opened)

    @classmethod
    def get_closed(cls) -> Iterator[CircuitBreaker]:
        """The closed breakers."""
        return (breaker for breaker in cls.get_circuits() if breaker.closed)


def circuit(
    failure_threshold: Any = None,
    recovery_timeout: float | None = None,
    expected_exception: Any = None,
    name: str | None = None,
    fallback_function: Callable[..., Any] | None = None,
    cls: type[CircuitBreaker] = CircuitBreaker,
) -> Any:
    """A breaker as a decorator, bare (`@circuit`) or called; see `CircuitBreaker` for the arguments."""
    if callable(failure_threshold):
        return cls().decorate(failure_threshold)
    return cls(
        failure_threshold=failure_threshold,
        recovery_timeout=recovery_timeout,
        expected_exception=expected_exception,
        name=name,
        fallback_function=fallback_function,
    )
