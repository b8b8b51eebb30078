"""Sinks are added to a monitor and removed from it, while it works and from any thread."""

from __future__ import annotations

import threading

import pytest
from _canary import CANARY

from seawall import Monitor, MonitoringSystem, sinks

MONITORS = [Monitor, MonitoringSystem]


def outage(monitor):
    for _ in range(5):
        monitor.record(False)
    for _ in range(monitor.window):
        monitor.record(True)


@pytest.mark.parametrize("kind", MONITORS)
def test_a_sink_that_is_removed_hears_no_later_alert(kind):
    kept, removed, called = [], [], []
    monitor = kind(10, sinks=[kept.append])
    monitor.add_sink(removed.append, level="emergency")
    monitor.on_alert(called.append)
    outage(monitor)
    before = monitor.alerts
    monitor.remove_sink(removed.append)  # another bound method, and equal to it
    assert monitor.sinks == [kept.append]
    outage(monitor)
    assert sinks.flush(30)
    assert removed == before != monitor.alerts, "what waited was delivered still"
    assert kept == called == monitor.alerts


def test_what_is_no_sink_of_it_is_refused_and_no_secret_told():
    monitor = Monitor()
    monitor.on_alert(print)
    for given in (print, sinks.Webhook(f"https://example.com/{CANARY}"), None):
        with pytest.raises(ValueError, match="no sink of this monitor") as refused:
            monitor.remove_sink(given)
        assert CANARY not in str(refused.value)


def test_one_that_was_added_twice_is_removed_twice():
    monitor = Monitor(sinks=[print])
    monitor.add_sink(print, level="critical")
    monitor.remove_sink(print)
    assert monitor.sinks == [print]
    monitor.remove_sink(print)
    assert monitor.sinks == []


def test_from_many_threads_each_removes_one():
    monitor, gate, failed = Monitor(sinks=[print] * 200), threading.Barrier(8), []

    def work():
        gate.wait()
        for _ in range(25):
            try:
                monitor.remove_sink(print)
            except ValueError as error:
                failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (monitor.sinks, failed) == ([], [])
