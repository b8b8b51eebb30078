"""Alerts that guarded calls cause: what their callbacks raise changes no call, but an interrupt goes on its way."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from seawall import CircuitBreaker, Monitor, MonitoringSystem, Pipeline, Retry


def outcome(fails: bool) -> str:
    if fails:
        raise ConnectionError
    return "answer"


async def coroutine(fails: bool) -> str:
    return outcome(fails)


def items(fails: bool) -> Iterator[str]:
    yield "first"
    yield outcome(fails)


async def async_items(fails: bool) -> AsyncIterator[str]:
    yield "first"
    yield outcome(fails)


def through(given: Any) -> Any:
    """All that a call gives, or what it raises; a loop is not needed, since nothing waits."""
    if hasattr(given, "__anext__"):
        taken = []
        while True:
            try:
                given.__anext__().send(None)
            except StopIteration as item:
                taken.append(item.value)
            except StopAsyncIteration:
                return taken
    if hasattr(given, "__await__"):
        with pytest.raises(StopIteration) as ended:
            given.send(None)
        return ended.value.value
    return list(given) if isinstance(given, Iterator) else given


@pytest.fixture(params=[Monitor, MonitoringSystem])
def monitor(request: pytest.FixtureRequest) -> Any:
    return request.param(5)


@pytest.fixture(params=[outcome, coroutine, items, async_items], ids=lambda function: function.__name__)
def function(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.mark.parametrize("fails", [False, True], ids=["resolved by a success", "raised by a failure"])
@pytest.mark.parametrize("kind", [KeyboardInterrupt, KeyError])
def test_an_interrupt_in_a_callback_is_passed_on_and_an_error_only_logged(
    monitor: Any, function: Any, fails: bool, kind: type[BaseException], hooks: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    breaker = CircuitBreaker(9)
    guarded = Pipeline(Retry(1, **hooks), breaker, monitor=monitor)(function)
    # The guarded call is what it takes for an outage, or for its end.
    for success in [False] * 4 if fails else [False] * 5 + [True] * 4:
        monitor.record(success, latency=0)
    breaker.record_failure()
    interrupt, alerts = kind("in the callback"), []

    @monitor.on_alert
    def told(alert: Any) -> None:
        alerts.append(alert.kind)
        raise interrupt

    if kind is KeyError and not fails:
        assert through(guarded(False)) in ("answer", ["first", "answer"])
    else:
        with pytest.raises(ConnectionError if kind is KeyError else kind) as raised:
            through(guarded(fails))
        assert kind is KeyError or raised.value is interrupt
    assert alerts == ["raised" if fails else "resolved"]
    assert ("callback failed" in caplog.text) == (kind is KeyError)
    # The call was over: it counts as what it came to.
    counts = guarded.statistics
    assert (counts["calls"], counts["successes"], counts["failures"]) == (1, int(not fails), int(fails))
    assert monitor.snapshot()["lifetime"]["total"] == (5 if fails else 10)
    assert breaker.failure_count == (2 if fails else 0)
    assert through(guarded(False)) in ("answer", ["first", "answer"])
