"""tenacity's words for stops and predicates, and, from here too, its log hooks and the state that all of them get.

They are small objects that pickle, combine (`stop_after_attempt(5) | stop_after_delay(30)`) and mix with tenacity's own, in
either direction. The waits are native (`seawall._seawall`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from seawall._log_hooks import after_log, after_nothing, before_log, before_nothing, before_sleep_log, before_sleep_nothing
from seawall._retry_state import NextAction, Outcome, RetryState, elapsed, outcome_of
from seawall._word import Word, called, made, only_exceptions, seconds, shown, whole_number
from seawall.errors import ConfigurationTypeError

if TYPE_CHECKING:
    from datetime import timedelta

Condition = Callable[[Any], bool]


_Any = TypeVar("_Any")
_All = TypeVar("_All")


class _Condition(Word, Generic[_Any, _All]):
    """A word that answers yes or no: `|` and `&` make one of two."""

    __slots__ = ()

    # What `|` and `&` make.
    _any: ClassVar[Any]
    _all: ClassVar[Any]

    if TYPE_CHECKING:

        def __call__(self, retry_state: Any) -> bool: ...

    def __or__(self, other: Condition) -> _Any:
        return self._any(self, other) if callable(other) else NotImplemented  # type: ignore[no-any-return]

    def __ror__(self, other: Condition) -> _Any:
        return self._any(other, self) if callable(other) else NotImplemented  # type: ignore[no-any-return]

    def __and__(self, other: Condition) -> _All:
        return self._all(self, other) if callable(other) else NotImplemented  # type: ignore[no-any-return]

    def __rand__(self, other: Condition) -> _All:
        return self._all(other, self) if callable(other) else NotImplemented  # type: ignore[no-any-return]


class _AnyOf(Word):
    __slots__ = ()

    def __call__(self, retry_state: Any) -> bool:
        return any(each(retry_state) for each in self._made_with())


class _AllOf(Word):
    __slots__ = ()

    def __call__(self, retry_state: Any) -> bool:
        return all(each(retry_state) for each in self._made_with())


class _Stop(_Condition["stop_any", "stop_all"]):
    __slots__ = ()


class _StopOf(_Stop):
    __slots__ = ("stops",)

    def __init__(self, *stops: Condition) -> None:
        self.stops = tuple(made(f"{type(self).__name__}: each stop", stop) for stop in stops)

    def _made_with(self) -> tuple[Any, ...]:
        return self.stops


class stop_any(_AnyOf, _StopOf):
    """Stop if one of these `stops` (`stop_…` objects) does."""

    __slots__ = ()


class stop_all(_AllOf, _StopOf):
    """Stop if all of these `stops` (`stop_…` objects) do."""

    __slots__ = ()


_Stop._any, _Stop._all = stop_any, stop_all


class _stop_never(_Stop):
    """Never stops, whatever the `retry_state`: as many attempts as it takes, unless something else says enough."""

    __slots__ = ()

    def __call__(self, retry_state: Any) -> bool:
        return False

    def __reduce__(self) -> Any:
        return "stop_never"  # pickle finds the one object by its name

    def __repr__(self) -> str:
        return "stop_never"


stop_never = _stop_never()


class stop_after_attempt(_Stop):
    """Stop after `max_attempt_number` attempts, the first included.

    Raises:
        ConfigurationError: if that is no whole number of at least 1.
    """

    __slots__ = ("max_attempt_number",)

    def __init__(self, max_attempt_number: int) -> None:
        self.max_attempt_number = whole_number("stop_after_attempt: max_attempt_number", max_attempt_number, 1)

    def __call__(self, retry_state: Any) -> bool:
        return bool(retry_state.attempt_number >= self.max_attempt_number)


class stop_after_delay(_Stop):
    """Stop once `max_delay` (seconds or a timedelta) has passed since the first attempt began.

    The last attempt may end later; `stop_before_delay` does not begin one that would.
    """

    __slots__ = ("max_delay",)

    def __init__(self, max_delay: float | timedelta) -> None:
        self.max_delay = seconds("stop_after_delay: max_delay", max_delay)

    def __call__(self, retry_state: Any) -> bool:
        return bool(elapsed(retry_state) >= self.max_delay)


class stop_before_delay(_Stop):
    """Stop if the wait before the next attempt would end `max_delay` (seconds or a timedelta) after the first began."""

    __slots__ = ("max_delay",)

    def __init__(self, max_delay: float | timedelta) -> None:
        self.max_delay = seconds("stop_before_delay: max_delay", max_delay)

    def __call__(self, retry_state: Any) -> bool:
        return bool(elapsed(retry_state) + retry_state.upcoming_sleep >= self.max_delay)


class stop_when_event_set(_Stop):
    """Stop once the `event` (`threading.Event` or like it) is set."""

    __slots__ = ("event",)

    def __init__(self, event: Any) -> None:
        if not callable(getattr(event, "is_set", None)):
            raise ConfigurationTypeError(
                f"stop_when_event_set: event must have is_set(), as threading.Event has; {shown(event)} has not"
            )
        self.event = event

    def __call__(self, retry_state: Any) -> bool:
        return bool(self.event.is_set())


class _Retry(_Condition["retry_any", "retry_all"]):
    __slots__ = ()


class _RetryOf(_Retry):
    __slots__ = ("retries",)

    def __init__(self, *retries: Condition) -> None:
        self.retries = tuple(made(f"{type(self).__name__}: each predicate", retry) for retry in retries)

    def _made_with(self) -> tuple[Any, ...]:
        return self.retries


class retry_any(_AnyOf, _RetryOf):
    """Retry if one of these `retries` (`retry_…` objects) says so."""

    __slots__ = ()


class retry_all(_AllOf, _RetryOf):
    """Retry if all of these `retries` (`retry_…` objects) say so."""

    __slots__ = ()


_Retry._any, _Retry._all = retry_any, retry_all


class retry_if_exception(_Retry):
    """Retry if the attempt raised and `predicate(exception)` is true."""

    __slots__ = ("predicate",)

    def __init__(self, predicate: Callable[[BaseException], bool]) -> None:
        self.predicate = called("retry_if_exception: predicate", predicate)

    def __call__(self, retry_state: Any) -> bool:
        outcome = outcome_of(retry_state)
        return bool(outcome.failed and self.predicate(outcome.exception()))


class _RetryOnType(_Retry):
    __slots__ = ("exception_types",)

    def __init__(self, exception_types: type[BaseException] | tuple[type[BaseException], ...] = Exception) -> None:
        self.exception_types: Any = only_exceptions(f"{type(self).__name__}: exception_types", exception_types)


class retry_if_exception_type(_RetryOnType):
    """Retry if the attempt raised one of `exception_types`: a class, or a tuple of them (`Exception`)."""

    __slots__ = ()

    def __call__(self, retry_state: Any) -> bool:
        outcome = outcome_of(retry_state)
        return bool(outcome.failed and isinstance(outcome.exception(), self.exception_types))


class retry_if_not_exception_type(_RetryOnType):
    """Retry if the attempt raised something else than one of `exception_types`: a class, or a tuple of them (`Exception`)."""

    __slots__ = ()

    def __call__(self, retry_state: Any) -> bool:
        outcome = outcome_of(retry_state)
        return bool(outcome.failed and not isinstance(outcome.exception(), self.exception_types))


class retry_if_result(_Retry):
    """Retry if the attempt returned and `predicate(result)` is true."""

    __slots__ = ("predicate",)

    def __init__(self, predicate: Callable[[Any], bool]) -> None:
        self.predicate = called("retry_if_result: predicate", predicate)

    def __call__(self, retry_state: Any) -> bool:
        outcome = outcome_of(retry_state)
        return bool(not outcome.failed and self.predicate(outcome.result()))


__all__ = [
    "NextAction",
    "Outcome",
    "RetryState",
    "after_log",
    "after_nothing",
    "before_log",
    "before_nothing",
    "before_sleep_log",
    "before_sleep_nothing",
    "retry_all",
    "retry_any",
    "retry_if_exception",
    "retry_if_exception_type",
    "retry_if_not_exception_type",
    "retry_if_result",
    "stop_after_attempt",
    "stop_after_delay",
    "stop_all",
    "stop_any",
    "stop_before_delay",
    "stop_never",
    "stop_when_event_set",
]
