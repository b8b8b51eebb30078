"""Waits that are made of calls: of an exception, and of waits of which some are tenacity's or plain functions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from seawall._retry_state import outcome_of
from seawall._word import Word, called, made, seconds

AnyWait = Callable[[Any], float]


class wait_base(Word, ABC):
    """What waits of one's own may inherit from, to be added to others; any function of the retry state is a wait too.

    One that has no `__call__` cannot be made.
    """

    __slots__ = ()

    @abstractmethod
    def __call__(self, retry_state: Any) -> float:
        """The seconds to wait after the attempt that the retry state is about."""

    def __add__(self, other: AnyWait) -> wait_base:
        return _Combine(self, other) if callable(other) else NotImplemented

    def __radd__(self, other: AnyWait | int) -> wait_base:
        if other == 0:  # `sum` begins with it
            return self
        return _Combine(other, self) if callable(other) else NotImplemented


class wait_exception(wait_base):
    """Wait as long as `predicate(exception)` says: seconds, made of what the attempt raised. No wait after a bad result."""

    __slots__ = ("predicate",)

    def __init__(self, predicate: Callable[[BaseException], float]) -> None:
        self.predicate = called("wait_exception: predicate", predicate)

    def __call__(self, retry_state: Any) -> float:
        exception = outcome_of(retry_state).exception()
        return 0.0 if exception is None else seconds("wait_exception: the predicate's answer", self.predicate(exception))


class _Of(wait_base):
    __slots__ = ("strategies",)

    def __init__(self, *strategies: AnyWait) -> None:
        self.strategies = tuple(made(f"wait{type(self).__name__.lower()}: each wait", wait) for wait in strategies)

    def _made_with(self) -> tuple[Any, ...]:
        return self.strategies


class _Combine(_Of):
    __slots__ = ()

    def __call__(self, retry_state: Any) -> float:
        return sum((float(wait(retry_state)) for wait in self.strategies), 0.0)

    def __repr__(self) -> str:
        return f"wait_combine({', '.join(map(repr, self.strategies))})"


class _Chain(_Of):
    __slots__ = ()

    def __call__(self, retry_state: Any) -> float:
        place = min(max(retry_state.attempt_number, 1), len(self.strategies))
        return float(self.strategies[place - 1](retry_state))

    def __repr__(self) -> str:
        return f"wait_chain({', '.join(map(repr, self.strategies))})"


# By the native words that come here when not all of their waits are native.
mixed = SimpleNamespace(wait_combine=_Combine, wait_chain=_Chain)
