"""The native `Monitor`."""

from __future__ import annotations

import copy
import logging
import pickle

import pytest

from seawall import Monitor


def test_everything_that_is_recorded_is_counted():
    monitor = Monitor(window=3, name="gpt-4")
    monitor.record(False, True, 9.0)
    monitor.record(True, latency=0.5, retries=2, tokens=10)
    monitor.record(True, False, 0.25, fallback=True, tokens=5)
    monitor.record(success=False, retried=True, latency=0.75)
    now = monitor.snapshot()
    lifetime = now.pop("lifetime")
    assert now.pop("p50") == pytest.approx(0.5, rel=0.02)
    assert now.pop("p95") == now.pop("p99") == pytest.approx(0.75, rel=0.02)
    assert now == {
        "total": 3,
        "errors": 1,
        "retried": 2,
        "retries": 3,
        "fallbacks": 1,
        "attempts": 6,
        "tokens": 15,
        "prompt_tokens": 0,
        "cost": 0.0,
        "avg_first_token": None,
        "first_token_p50": None,
        "first_token_p95": None,
        "first_token_p99": None,
        "error_rate": 1 / 3,
        "retry_rate": 2 / 3,
        "fallback_rate": 1 / 3,
        "success_rate": 2 / 3,
        "avg_latency": 0.5,
        "consecutive_failures": 1,
        "level": "critical",
        "window": 3,
    }
    assert (lifetime["total"], lifetime["errors"], lifetime["retries"], lifetime["tokens"]) == (4, 2, 4, 15)
    assert (monitor.error_rate, monitor.success_rate, monitor.retry_rate, monitor.avg_latency) == (1 / 3, 2 / 3, 2 / 3, 0.5)
    assert (monitor.window, monitor.name) == (3, "gpt-4")


def test_without_calls_nothing_is_known():
    monitor = Monitor()
    assert (monitor.error_rate, monitor.success_rate, monitor.retry_rate, monitor.avg_latency) == (None,) * 4
    assert (monitor.p50, monitor.p95, monitor.p99) == (None,) * 3
    assert (monitor.window, monitor.name, monitor.level, monitor.alerts) == (100, None, "normal", [])
    assert repr(monitor) == "<Monitor: normal, no calls yet>"


def test_the_repr_says_how_things_are():
    monitor = Monitor(10, "gpt-4")
    for call in range(8):
        monitor.record(call % 2 == 0, latency=0.064)
    assert repr(monitor) == (
        "<Monitor 'gpt-4': normal, 8 of the last 10 calls: errors 50.00%, retried 0.00%, mean 0.064s, p95 0.064s>"
    )


def test_alerts_carry_the_name_and_are_in_english(caplog):
    caplog.set_level(logging.INFO, logger="seawall.monitor")
    monitor = Monitor(name="gpt-4")
    for _ in range(5):
        monitor.record(False)
    for _ in range(100):
        monitor.record(True)
    assert [record.getMessage() for record in caplog.records] == [
        "[gpt-4] ALERT (emergency): total outage, 5 failures in a row",
        "[gpt-4] ALERT resolved: calls succeed again, error rate 4.00% (limit 5.00%)",
    ]
    assert [alert.name for alert in monitor.alerts] == ["gpt-4", "gpt-4"]


def test_reset_forgets_all_but_window_and_callbacks():
    monitor, heard = Monitor(20), []
    monitor.on_alert(heard.append)
    for _ in range(5):
        monitor.record(False)
    monitor.reset()
    assert (monitor.snapshot()["lifetime"]["total"], monitor.level, monitor.alerts, monitor.window) == (0, "normal", [], 20)
    for _ in range(5):
        monitor.record(False)
    assert [alert.incident for alert in heard] == [1, 1]


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda monitor: pickle.loads(pickle.dumps(monitor))])
def test_a_copy_is_set_up_alike_and_starts_empty(duplicate):
    monitor = Monitor(20, "gpt-4")
    monitor.on_alert(print)
    monitor.record(False)
    twin = duplicate(monitor)
    assert (twin.window, twin.name, twin.error_rate) == (20, "gpt-4", None)
    assert twin.__getstate__() == monitor.__getstate__() and monitor.error_rate == 1.0


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: Monitor(0), "window must be a whole number from 1"),
        (lambda: Monitor("5"), "window must be .*'5' \\(str\\)"),
        (lambda: Monitor(5, 7), "name must be a text, not 7 \\(int\\)"),
        (lambda: Monitor().record("yes"), "success must be"),
        (lambda: Monitor().record(True, latency=-1), "latency must be"),
        (lambda: Monitor().record(True, retries=-1), "retries must be a whole number from 0"),
        (lambda: Monitor().record(True, retries=1.0), "retries must be a whole number"),
        (lambda: Monitor().record(True, True, retries=0), "retries is 0 although retried is True"),
        (lambda: Monitor().record(True, False, retries=2), "retries is 2 although retried is False"),
        (lambda: Monitor().record(True, tokens=2**32), "tokens must be"),
        (lambda: Monitor().record(True, fallback="model-b"), "fallback must be"),
    ],
)
def test_what_cannot_be_meant_is_refused(call, says):
    with pytest.raises((TypeError, ValueError), match=says):
        call()
