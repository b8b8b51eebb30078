"""A log handler that raises changes no call: neither its answer nor its error, nor what policies know of it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from seawall import CircuitBreaker, Monitor, Pipeline, Retry


@pytest.fixture(params=[KeyError, KeyboardInterrupt], ids=lambda kind: kind.__name__)
def broken(request: pytest.FixtureRequest) -> Iterator[Any]:
    """The kind of exception that a handler of seawall's logger raises for all it hears."""

    class Broken(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise request.param("in the handler")

    logger, handler, level = logging.getLogger("seawall"), Broken(), logging.getLogger("seawall").level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield request.param
    logger.setLevel(level)
    logger.removeHandler(handler)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("broken", [KeyError], indirect=True)
def test_an_error_in_a_handler_changes_nothing(broken: Any, hooks: dict[str, Any]) -> None:
    breaker, monitor, script = CircuitBreaker(20), Monitor(20), [True, False] * 12

    @Pipeline(Retry(2, wait=0, **hooks), breaker, monitor=monitor)
    def ask() -> str:
        if script.pop(0):
            raise ConnectionError
        return "answer"

    # Enough of them for the monitor to raise an alert.
    assert [ask() for _ in range(12)] == ["answer"] * 12
    seen = monitor.snapshot()
    assert (seen["total"], seen["errors"], seen["retried"]) == (12, 0, 12)
    script += [True, True]
    with pytest.raises(ConnectionError):
        ask()


@pytest.mark.parametrize("broken", [KeyboardInterrupt], indirect=True)
def test_an_interrupt_in_a_handler_is_passed_on(broken: Any, hooks: dict[str, Any]) -> None:
    @Pipeline(Retry(2, wait=0, **hooks))
    def ask() -> None:
        raise ConnectionError

    with pytest.raises(KeyboardInterrupt):
        ask()
