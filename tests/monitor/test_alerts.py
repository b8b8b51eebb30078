"""Holds, reminders and silences of monitors, in time that the test moves; and alarms that ring with no call."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
import weakref
from datetime import datetime, timedelta, timezone

import pytest

from seawall import ConfigurationError, Monitor, MonitoringSystem, Pipeline, Rule, testing


def fail(monitor, times=5):
    for _ in range(times):
        monitor.record(False)


def recover(monitor):
    for _ in range(monitor.window):
        monitor.record(True)


def told(alerts):
    return [(alert.kind, alert.level, alert.silenced) for alert in alerts]


@pytest.fixture
def heard(request):
    return []


# -- holds and reminders ---------------------------------------------------------------------------------------------


def test_what_is_bad_is_told_after_its_hold_with_no_call_between(heard, seawall_clock):
    monitor = Monitor(10, rules=[Rule("outage", emergency=5, hold=timedelta(seconds=30), clear_hold=60), Rule("error_rate", 1)])
    monitor.on_alert(heard.append)
    fail(monitor)
    seawall_clock.advance(29)
    assert heard == [] and monitor.level == "normal"
    seawall_clock.advance(1)
    assert told(heard) == [("raised", "emergency", False)]
    recover(monitor)
    seawall_clock.advance(59)
    assert len(heard) == 1 and monitor.level == "emergency"
    seawall_clock.advance(1)
    assert told(heard)[1:] == [("resolved", "normal", False)] == told(monitor.alerts)[1:]


def test_reminders_come_while_an_incident_lasts_and_not_after(heard, seawall_clock, caplog):
    caplog.set_level(logging.INFO, logger="seawall.monitor")
    monitor = Monitor(10, "gpt-4", remind_every=timedelta(minutes=10))
    monitor.on_alert(heard.append)
    fail(monitor)
    for _ in range(3):
        seawall_clock.advance(600)
    recover(monitor)
    seawall_clock.advance(6000)
    assert told(heard) == [("raised", "emergency", False)] + [("reminder", "emergency", False)] * 3 + [
        ("resolved", "normal", False)
    ]
    assert caplog.messages[1] == "[gpt-4] ALERT continues (emergency): total outage, 5 failures in a row"
    assert caplog.records[1].alert_kind == "reminder" and caplog.records[1].alert_metrics == {"outage": 5}


def test_without_calls_an_incident_is_neither_over_nor_told_again(heard, seawall_clock):
    monitor = Monitor(10)
    monitor.on_alert(heard.append)
    fail(monitor)
    seawall_clock.advance(1e6)
    assert (monitor.level, len(heard)) == ("emergency", 1)


def test_an_alarm_rings_in_time_that_nobody_moves():
    monitor, rang, where = Monitor(10, rules=[Rule("outage", emergency=5, hold=0.02)], remind_every=0.02), threading.Event(), []

    @monitor.on_alert
    def heard(alert):
        where.append((alert.kind, threading.current_thread().name))
        if alert.kind == "reminder":
            rang.set()

    fail(monitor)
    assert rang.wait(30)
    assert where[:2] == [("raised", "seawall-alerts"), ("reminder", "seawall-alerts")]
    monitor.reset()


def test_an_alarm_set_in_a_tests_time_rings_when_time_runs_again():
    monitor, rang = Monitor(10, rules=[Rule("outage", emergency=5, hold=5)]), threading.Event()
    monitor.on_alert(lambda alert: rang.set())
    with testing.clock() as clock:
        fail(monitor)
        clock.advance(4.99)
        assert not rang.is_set()
    assert rang.wait(30)


def test_an_alarm_keeps_no_monitor_alive(seawall_clock):
    monitor = Monitor(10, rules=[Rule("outage", emergency=5, hold=5)])
    fail(monitor)
    gone = weakref.ref(monitor)
    del monitor
    assert gone() is None
    seawall_clock.advance(10)


def test_a_callback_that_raises_stops_no_other_alarm(seawall_clock, caplog, heard):
    broken, well = (Monitor(10, rules=[Rule("outage", emergency=5, hold=5)]) for _ in range(2))
    broken.on_alert(lambda alert: 1 / 0)
    well.on_alert(heard.append)
    fail(broken)
    fail(well)
    seawall_clock.advance(5)
    assert len(heard) == 1 and "callback failed" in caplog.text


def test_guarded_calls_set_alarms_too(seawall_clock, heard):
    monitor = Monitor(10, rules=[Rule("avg_latency", warning=1, minimum=1, hold=30)])
    monitor.on_alert(heard.append)
    guarded = Pipeline(monitor=monitor)(lambda seconds: seawall_clock.sleep(seconds))
    guarded(2)
    seawall_clock.advance(29)
    guarded(1)
    assert told(heard) == [("raised", "warning", False)]


def test_a_forked_child_rings_its_own_alarms(forking):
    program = (
        forking
        + """
import threading
from seawall import Monitor, Rule
monitor = Monitor(10, rules=[Rule("outage", emergency=5, hold=3600)], remind_every=0.01)
for _ in range(5):
    monitor.record(False)  # an alarm is set, in an hour
monitor_two = Monitor(10, remind_every=0.01)
for _ in range(5):
    monitor_two.record(False)

def work():
    rang = threading.Event()
    monitor_two.on_alert(lambda alert: rang.set())
    monitor_two.record(False)
    assert rang.wait(30)

assert forked(work) == 0
print("well")
"""
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout == "well\n", done.stderr


# -- silences --------------------------------------------------------------------------------------------------------


def test_a_silenced_incident_is_kept_and_told_to_nobody(heard, seawall_clock, caplog):
    caplog.set_level(logging.INFO, logger="seawall.monitor")
    monitor = Monitor(10)
    monitor.on_alert(heard.append)
    with monitor.silence(timedelta(hours=1), reason="deploy") as silence:
        assert repr(silence) == "<Silence (deploy): 3600 s left>" and monitor.silences == [silence]
        fail(monitor)
        recover(monitor)
        assert monitor.silences[0].reason == "deploy" and silence.remaining == 3600
    assert told(monitor.alerts) == [("raised", "emergency", True), ("resolved", "normal", True)]
    assert (heard, caplog.messages, monitor.silences) == ([], [], [])
    assert repr(silence) == "<Silence (deploy): over>" and silence.end() is False


@pytest.mark.parametrize("how", ["time", "end", "with"])
def test_an_incident_that_outlasts_a_silence_is_told_once(heard, seawall_clock, how):
    monitor = Monitor(10)
    monitor.on_alert(heard.append)
    silence = monitor.silence(60)
    fail(monitor)
    if how == "time":
        seawall_clock.advance(60)
    elif how == "end":
        assert silence.end()
    else:
        with silence:
            pass
    fail(monitor)
    assert told(heard) == [("raised", "emergency", False)]
    assert told(monitor.alerts) == [("raised", "emergency", True), ("raised", "emergency", False)]
    assert heard[0].incident == monitor.alerts[0].incident == 1 and heard[0].since == monitor.alerts[0].since


def test_the_end_of_a_silence_needs_no_call():
    monitor, rang = Monitor(10), threading.Event()
    monitor.on_alert(lambda alert: rang.set())
    monitor.silence(0.05)
    fail(monitor)
    assert rang.wait(30)


def test_a_call_after_a_silence_finds_it_over(heard, seawall_clock):
    monitor = Monitor(10)
    fail(monitor)
    monitor.on_alert(heard.append)
    monitor.silence(60)
    monitor.record(True)
    recover(monitor)
    assert heard == []
    # As if the alarm were late.
    monitor._disarm()
    seawall_clock.advance(60)
    monitor.record(True)
    assert told(heard) == [("resolved", "normal", False)]


def test_silences_add_up(seawall_clock, heard):
    monitor = Monitor(10)
    monitor.on_alert(heard.append)
    monitor.silence(10)
    monitor.silence(100)
    fail(monitor)
    seawall_clock.advance(50)
    assert heard == [] and len(monitor.silences) == 1
    seawall_clock.advance(50)
    assert len(heard) == 1


@pytest.mark.parametrize(
    "in_an_hour",
    [
        lambda: time.time() + 3600,
        lambda: datetime.now() + timedelta(hours=1),
        lambda: datetime.now(timezone.utc) + timedelta(hours=1),
    ],
    ids=["seconds", "local", "aware"],
)
def test_a_silence_may_have_an_end_in_place_of_a_duration(in_an_hour):
    silence = MonitoringSystem().silence(until=in_an_hour())
    assert 3500 < silence.remaining < 3601 and silence.until == pytest.approx(time.time() + 3600, abs=60)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({}, "silence needs either a duration or until="),
        ({"duration": 1, "until": 2}, "silence needs either a duration or until="),
        ({"duration": 0}, "duration must be more than zero seconds, not 0"),
        ({"duration": "1h"}, "duration must be a number of seconds"),
        ({"until": time.time() - 1}, "until must be in the future"),
        ({"until": "tomorrow"}, "until must be a datetime or Unix time, not 'tomorrow' \\(str\\)"),
        ({"duration": 1, "reason": 7}, "reason must be a text"),
    ],
)
def test_a_silence_that_cannot_be_meant_is_refused(arguments, says):
    monitor = Monitor()
    with pytest.raises(ConfigurationError, match=says):
        monitor.silence(**arguments)
    assert monitor.silences == []


@pytest.mark.parametrize("remind_every", [0, -1, "1h"])
def test_reminders_that_cannot_be_meant_are_refused(remind_every):
    with pytest.raises(ConfigurationError, match="remind_every must be"):
        Monitor(remind_every=remind_every)
