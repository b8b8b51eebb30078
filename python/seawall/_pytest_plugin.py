"""seawall's pytest fixtures: `seawall.testing`, undone after each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from seawall import testing


@pytest.fixture
def seawall_clock() -> Iterator[testing.clock]:
    """The time of all policies, moved by hand: `seawall_clock.advance(30)`."""
    from seawall import testing

    with testing.clock() as clock:
        yield clock


@pytest.fixture
def seawall_events() -> Iterator[testing.Events]:
    """What happens to guarded calls during the test, as a list."""
    from seawall import testing

    with testing.record() as events:
        yield events


@pytest.fixture
def seawall_no_waits() -> Iterator[None]:
    """Retries follow at once."""
    from seawall import testing

    with testing.no_waits():
        yield


@pytest.fixture
def seawall_seed() -> Iterator[None]:
    """The same jitter in each run of the test."""
    from seawall import testing

    with testing.seed(0):
        yield


@pytest.fixture
def seawall_cap_attempts() -> Iterator[Callable[[int], None]]:
    """A function that caps the attempts of all retries until the test's end: `seawall_cap_attempts(2)`."""
    from seawall import testing

    with ExitStack() as stack:

        def cap(attempts: int) -> None:
            stack.enter_context(testing.cap_attempts(attempts))

        yield cap
