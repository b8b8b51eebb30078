"""The breakers of this process, by name, weakly held."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator

from seawall._seawall import CircuitBreaker

_breakers: weakref.WeakSet[CircuitBreaker] = weakref.WeakSet()


def register(breaker: CircuitBreaker) -> None:
    """Adds a breaker; called when it first guards something."""
    _breakers.add(breaker)


class CircuitBreakerMonitor:
    """All breakers that guard something in this process, as the `circuitbreaker` package names the queries.

    Breakers are held weakly: one whose functions are gone is gone from here. Two breakers of one name are two breakers;
    `get` gives one of them.
    """

    @classmethod
    def register(cls, circuit_breaker: CircuitBreaker) -> None:
        """Adds a breaker that guards nothing yet."""
        register(circuit_breaker)

    @classmethod
    def all_closed(cls) -> bool:
        """Whether no breaker is open or half open."""
        return not list(cls.get_open())

    @classmethod
    def get_circuits(cls) -> Iterable[CircuitBreaker]:
        """All breakers."""
        return list(_breakers)

    @classmethod
    def get(cls, name: str) -> CircuitBreaker | None:
        """The breaker of that name, if there is one."""
        return next((breaker for breaker in cls.get_circuits() if breaker.name == name), None)

    @classmethod
    def get_open(cls) -> Iterator[CircuitBreaker]:
        """The breakers that are not closed."""
        return (breaker for breaker in cls.get_circuits() if not breaker.closed)

    @classmethod
    def get_closed(cls) -> Iterator[CircuitBreaker]:
        """The closed ones."""
        return (breaker for breaker in cls.get_circuits() if breaker.closed)
