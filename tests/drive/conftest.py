"""Guards of all kinds, each on the fast lane and, forced there by a hook on each attempt, on the machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from seawall import CircuitBreaker, Pipeline, Retry, Timeout, circuit, guard, retry


def _told(state: object) -> None:
    """A hook that has to be told of each attempt: no call can pass without the machine."""


GUARDS: dict[str, Callable[[], Any]] = {
    "circuit": lambda: circuit(5, 1000),
    "retry": lambda: retry(2, wait=0),
    "guard": lambda: guard(retry=Retry(3, wait=0)),
    "Pipeline": lambda: Pipeline(Timeout(1000), Retry(2, wait=0), CircuitBreaker(5)),
    "empty": lambda: Pipeline(),
    "circuit, machine": lambda: Pipeline(Retry(1, before=_told), CircuitBreaker(5, 1000)),
    "retry, machine": lambda: retry(2, wait=0, before=_told),
    "guard, machine": lambda: guard(retry=Retry(3, wait=0, before=_told)),
    "Pipeline, machine": lambda: Pipeline(Timeout(1000), Retry(2, wait=0, before=_told), CircuitBreaker(5)),
}


@pytest.fixture(params=GUARDS)
def guarding(request: pytest.FixtureRequest) -> Any:
    """A decorator that guards."""
    return GUARDS[request.param]()


@pytest.fixture
def guards() -> list[Callable[[], Any]]:
    """What makes a decorator of each kind."""
    return list(GUARDS.values())
