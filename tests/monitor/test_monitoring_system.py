"""The document's `MonitoringSystem`: same surface, same strings; counts that are true and alerts that are few."""

from __future__ import annotations

import copy
import gc
import logging
import pickle
import random
import threading
import time
from collections import deque
from datetime import timedelta
from fractions import Fraction

import pytest

from seawall import ConfigurationError, Monitor, MonitoringSystem, Rule, sinks


class Reference:
    """What the document's class computes, from scratch every time."""

    def __init__(self, window_size):
        self.kept = deque(maxlen=window_size)

    def record_request(self, success, retried, latency):
        self.kept.append((success, retried, latency))

    def get_metrics(self):
        n = len(self.kept)
        if n == 0:
            return {}
        failed = len([1 for success, _, _ in self.kept if not success])
        again = len([1 for _, retried, _ in self.kept if retried])
        mean = sum(latency for _, _, latency in self.kept) / n
        return {
            "total_requests": n,
            "error_rate": f"{failed / n:.2%}",
            "retry_rate": f"{again / n:.2%}",
            "avg_latency": f"{mean:.2f}s",
            "success_rate": f"{(n - failed) / n:.2%}",
        }


def lines(caplog):
    return [(record.levelname, record.getMessage()) for record in caplog.records if record.name == "seawall.monitor"]


@pytest.fixture(autouse=True)
def listening(caplog):
    caplog.set_level(logging.INFO, logger="seawall.monitor")


# -- numbers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("window_size", [1, 2, 7, 100, 1000])
@pytest.mark.parametrize("exact", [False, True], ids=["any float", "sums without rounding"])
def test_metrics_equal_the_documents_class(window_size, exact):
    # 1/64 s steps add up without rounding, so that even a mean that lies between two printed values must agree.
    dice = random.Random(f"{window_size} {exact}")
    ours, reference = MonitoringSystem(window_size), Reference(window_size)
    assert ours.get_metrics() == reference.get_metrics() == {}
    for _ in range(600):
        latency = dice.randrange(0, 640) / 64 if exact else dice.expovariate(1)
        success, retried = dice.random() < 0.8, dice.random() < 0.1
        ours.record_request(success, retried, latency)
        reference.record_request(success, retried, latency)
        assert ours.get_metrics() == reference.get_metrics()
        assert list(ours.get_metrics()) == list(reference.get_metrics())


def test_means_never_drift():
    monitor = MonitoringSystem(3)
    for _ in range(20_000):
        monitor.record_request(True, False, 1e8)
        monitor.record_request(True, False, 0.1)
    for latency in (0.1, 0.2, 0.3):
        monitor.record_request(True, False, latency)
    assert monitor.avg_latency == 0.2
    for latency in (0.5, 1.001, 1.502):  # 1.001 * 1e9 is a hair under a whole number
        monitor.record_request(True, False, latency)
    assert monitor.avg_latency == 1.001
    assert monitor.snapshot()["lifetime"]["total"] == 40_006


def test_requests_are_the_documents_dicts():
    monitor = MonitoringSystem(window_size=3)
    latencies = [0.1 + 0.2, 1 / 7, 5, 1e-12]
    before = time.time()
    for at, latency in enumerate(latencies):
        monitor.record_request(success=at != 1, retried=at == 2, latency=latency)
    after = time.time()
    requests = monitor.requests
    assert len(requests) == 3 == monitor.window_size
    assert [set(request) for request in requests] == [{"timestamp", "success", "retried", "latency"}] * 3
    assert [request["latency"] for request in requests] == latencies[1:]  # to the last bit
    assert [request["success"] for request in requests] == [False, True, True]
    assert [request["retried"] for request in requests] == [False, True, False]
    assert before - 0.001 <= requests[0]["timestamp"] <= requests[-1]["timestamp"] <= after + 0.001
    monitor.record_request(True, False, 0)
    assert len(requests) == 3 and requests[-1]["latency"] == 1e-12, "a snapshot does not move"


def test_snapshot_has_numbers():
    monitor = MonitoringSystem(100)
    assert monitor.snapshot()["error_rate"] is None and monitor.snapshot()["p95"] is None
    for at in range(1, 101):
        monitor.record_request(at > 20, at % 4 == 0, at / 100)
    now = monitor.snapshot()
    assert (now["total"], now["errors"], now["retried"], now["error_rate"], now["success_rate"]) == (100, 20, 25, 0.2, 0.8)
    assert now["avg_latency"] == pytest.approx(0.505, abs=1e-9)
    assert [now["p50"], now["p95"], now["p99"]] == pytest.approx([0.50, 0.95, 0.99], rel=0.02)
    assert now["level"] == monitor.level == "critical"


def test_a_timedelta_is_a_latency_and_an_integer_flag_a_flag():
    monitor = MonitoringSystem()
    monitor.record_request(1, 0, timedelta(milliseconds=1500))
    monitor.record_request(0, 1, Fraction(1, 2))
    assert monitor.get_metrics() == {
        "total_requests": 2,
        "error_rate": "50.00%",
        "retry_rate": "50.00%",
        "avg_latency": "1.00s",
        "success_rate": "50.00%",
    }


# -- alerts ----------------------------------------------------------------------------------------------------------


def test_the_documents_incident_is_two_lines(caplog):
    monitor = MonitoringSystem()
    for _ in range(100):
        monitor.record_request(True, False, 0.1)
    for _ in range(50):
        monitor.record_request(False, False, 0.1)
    for _ in range(100):
        monitor.record_request(True, False, 0.1)
    assert lines(caplog) == [
        ("ERROR", "⚠️  告警: 服务完全不可用 连续失败5次（紧急）"),
        ("INFO", "✅ 告警解除: 服务已恢复, 错误率 4.00%"),
    ]
    assert [(alert.kind, alert.level, alert.peak, alert.incident) for alert in monitor.alerts] == [
        ("raised", "emergency", "emergency", 1),
        ("resolved", "normal", "emergency", 1),
    ]


def test_twenty_failing_calls_are_one_line_before_the_tenth(caplog):
    monitor = MonitoringSystem()
    told_at = []
    for call in range(1, 21):
        monitor.record_request(success=False, retried=False, latency=0.5)
        told_at += [call] * (len(lines(caplog)) - len(told_at))
    assert told_at == [5]
    assert monitor.level == "emergency"


def test_failures_among_successes_raise_escalate_and_resolve(caplog):
    monitor = MonitoringSystem()
    for _ in range(100):
        monitor.record_request(True, False, 0.1)
    for call in range(60):
        monitor.record_request(call % 4 != 0, False, 0.1)
    for _ in range(100):
        monitor.record_request(True, False, 0.1)
    assert lines(caplog) == [
        ("WARNING", "⚠️  告警: 错误率过高 6.00%（警告）"),
        ("ERROR", "⚠️  告警升级: 错误率过高 11.00%（严重）"),
        ("INFO", "✅ 告警解除: 错误率 4.00%"),
    ]


def test_slow_and_retried_calls_are_one_incident(caplog):
    monitor = MonitoringSystem()
    for _ in range(10):
        monitor.record_request(True, True, 6.125)
    assert lines(caplog) == [("ERROR", "⚠️  告警: 重试率过高 100.00%, 平均延迟过高 6.12秒（严重）")]
    (alert,) = monitor.alerts
    assert alert.metrics == {"retry_rate": 1.0, "avg_latency": 6.125}
    assert alert.limits == {"retry_rate": 0.05, "avg_latency": 5.0}
    assert alert.calls == 10 and alert.since == alert.timestamp
    assert pickle.loads(pickle.dumps(alert)) == alert


def test_nothing_is_said_of_fewer_than_ten_calls_that_are_no_outage(caplog):
    monitor = MonitoringSystem()
    for call in range(9):
        monitor.record_request(call % 2 == 0, True, 30)
    assert lines(caplog) == [] and monitor.level == "normal"
    monitor.record_request(True, False, 0.1)
    assert len(lines(caplog)) == 1


@pytest.mark.parametrize(
    ("metric", "limit", "under", "over"),
    [
        ("error_rate", 0.5, [(False, False, 0.1), (True, False, 0.1), (True, False, 0.1)], (False, False, 0.1)),
        ("retry_rate", 0.5, [(True, True, 0.1), (True, False, 0.1), (True, False, 0.1)], (True, True, 0.1)),
        ("avg_latency", 20, [(True, False, 15)], (True, False, 60)),
    ],
)
def test_a_threshold_changed_at_run_time_takes_effect(caplog, metric, limit, under, over):
    monitor = MonitoringSystem(100)
    monitor.thresholds[metric] = limit
    for request in under * 10:
        monitor.record_request(*request)
    assert lines(caplog) == [], "one's own limit also replaces the early warning"
    for _ in range(40):
        monitor.record_request(*over)
        monitor.record_request(*over)
        monitor.record_request(True, over[1], over[2])
    assert monitor.alerts[0].kind == "raised" and list(monitor.alerts[0].metrics) == [metric]
    assert monitor.alerts[0].metrics[metric] > limit
    monitor.thresholds.update({metric: float("inf")})
    monitor.record_request(True, False, 0.1)
    assert monitor.level == "normal" and monitor.alerts[-1].kind == "resolved"


def test_thresholds_are_a_dict_with_the_documents_defaults():
    monitor = MonitoringSystem()
    assert monitor.thresholds == {"error_rate": 0.10, "retry_rate": 0.05, "avg_latency": 5.0}
    assert isinstance(monitor.thresholds, dict)
    monitor.thresholds |= {"error_rate": 0.2, "avg_latency": 9}
    assert monitor.thresholds == {"error_rate": 0.2, "retry_rate": 0.05, "avg_latency": 9}
    monitor.thresholds = {"retry_rate": 0.5}
    assert monitor.thresholds == {"error_rate": 0.10, "retry_rate": 0.5, "avg_latency": 5.0}
    assert type(copy.deepcopy(monitor.thresholds)) is dict


def test_rules_reminders_and_sinks_are_a_monitor_s(seawall_clock, caplog):
    heard = []
    rules = [Rule("error_rate", warning=0.3, critical=0.6), {"metric": "p95", "warning": 2.0}, Rule("avg_latency", warning=9)]
    monitor = MonitoringSystem(20, rules=rules, remind_every=60, sinks=[heard.append])
    assert monitor.thresholds == {"error_rate": 0.6, "retry_rate": 0.05, "avg_latency": float("inf")}
    assert (monitor.remind_every, monitor.sinks) == (60, [heard.append])
    assert {rule.metric: (rule.warning, rule.critical) for rule in monitor.rules} == {
        "error_rate": (0.3, 0.6), "retry_rate": (0.03, 0.05), "avg_latency": (9, None), "p95": (2.0, None), "outage": (None, None),
    }  # fmt: skip
    twin = pickle.loads(pickle.dumps(MonitoringSystem(20, rules=rules, remind_every=60)))
    assert (twin.rules, twin.remind_every, twin.thresholds) == (monitor.rules, 60, monitor.thresholds)
    for call in range(20):
        monitor.record_request(call % 5 != 4, False, 0.1)  # a fifth: nothing, with a rule of one's own
    assert monitor.level == "normal"
    for call in range(20):
        monitor.record_request(call % 5 < 3, False, 0.1)
    assert monitor.level == "warning"
    seawall_clock.advance(61)
    assert [alert.kind for alert in monitor.alerts] == ["raised", "reminder"] and sinks.flush(30)
    assert heard == monitor.alerts
    monitor.thresholds["error_rate"] = 0.9
    monitor.record_request(True, False, 0.1)
    assert monitor.level == "normal" and {rule.metric: rule.critical for rule in monitor.rules}["error_rate"] == 0.9


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"rules": [{"metric": "eror_rate", "warning": 1}]}, r"rules\[0\].metric must be one of"),
        ({"rules": "error_rate"}, "rules must be a list"),
        ({"remind_every": 0}, "remind_every must be"),
        ({"sinks": print}, "sinks must be a list"),
    ],
)
def test_what_no_monitor_would_take_is_refused(arguments, says):
    with pytest.raises(ConfigurationError, match=says):
        MonitoringSystem(10, **arguments)


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        (lambda limits: limits.__setitem__("eror_rate", 0.2), ValueError, "no threshold 'eror_rate'.*error_rate, retry_rate"),
        (lambda limits: limits.update(error_rate=0.2, latency=3), ValueError, "no threshold 'latency'"),
        (lambda limits: limits.setdefault("p95", 3), ValueError, "no threshold 'p95'"),
        (lambda limits: limits.__setitem__("error_rate", "10%"), TypeError, "'10%' \\(str\\)"),
        (lambda limits: limits.__setitem__("error_rate", True), TypeError, "True \\(bool\\)"),
        (lambda limits: limits.__setitem__("error_rate", 10), ValueError, "0.10 is 10 %"),
        (lambda limits: limits.__setitem__("avg_latency", -1), ValueError, "at least 0"),
        (lambda limits: limits.__setitem__("avg_latency", float("nan")), ValueError, "nan"),
        (lambda limits: limits.__delitem__("avg_latency"), TypeError, "inf"),
        (lambda limits: limits.pop("avg_latency"), TypeError, "inf"),
        (lambda limits: limits.clear(), TypeError, "inf"),
    ],
)
def test_a_threshold_that_cannot_be_meant_is_refused(change, error, says):
    monitor = MonitoringSystem()
    with pytest.raises(error, match=says):
        change(monitor.thresholds)
    assert monitor.thresholds == MonitoringSystem().thresholds, "a refused change changes nothing"


def test_callbacks_hear_every_alert_and_their_errors_are_logged(caplog):
    monitor, heard = MonitoringSystem(), []

    @monitor.on_alert
    def broken(alert):
        raise RuntimeError("the pager is down")

    monitor.on_alert(heard.append)
    monitor.on_alert(lambda alert: monitor.record_request(False, False, 0))  # no lock is held
    for _ in range(5):
        monitor.record_request(False, False, 0.1)
    assert heard == monitor.alerts and [alert.kind for alert in heard] == ["raised"]
    assert len(monitor.requests) == 6
    assert callable(broken)
    (failure,) = [record for record in caplog.records if record.exc_info]
    assert "broken" in failure.getMessage() and str(failure.exc_info[1]) == "the pager is down"
    with pytest.raises(TypeError, match=r"on_alert.*'mail' \(str\)"):
        monitor.on_alert("mail")


# -- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ((True, False, -0.1), ValueError, "latency must be .* at least 0 .*not -0.1"),
        ((True, False, float("nan")), ValueError, "latency must be .*not nan"),
        ((True, False, float("inf")), ValueError, "latency must be .*not inf"),
        ((True, False, timedelta(seconds=-1)), ValueError, "latency must be"),
        ((True, False, 10**400), TypeError, "latency must be a number"),
        ((True, False, "0.5"), TypeError, "latency must be a number of seconds or a timedelta, not '0.5' \\(str\\)"),
        ((True, False, None), TypeError, "latency must be .*NoneType"),
        ((True, False, True), TypeError, "latency must be .*bool"),
        (("no", False, 0.5), TypeError, "success must be True or False, not 'no' \\(str\\)"),
        ((None, False, 0.5), TypeError, "success must be"),
        ((True, 2, 0.5), TypeError, "retried must be True or False, not 2 \\(int\\)"),
        ((True, 0.0, 0.5), TypeError, "retried must be"),
        ((True, False), TypeError, "latency"),
    ],
)
def test_a_request_that_cannot_be_meant_is_refused_and_not_counted(arguments, error, says):
    monitor = MonitoringSystem()
    with pytest.raises(error, match=says):
        monitor.record_request(*arguments)
    assert monitor.requests == () and monitor.get_metrics() == {}


@pytest.mark.parametrize("window_size", [0, -1, 10_000_001, 10**30, 1.5, "100", None, True])
def test_a_window_that_cannot_be_meant_is_refused(window_size):
    with pytest.raises((TypeError, ValueError), match="window_size must be a whole number from 1 to 10000000, not"):
        MonitoringSystem(window_size)


# -- copies, subclasses, threads -------------------------------------------------------------------------------------


def ring_the_bell(alert):
    """A callback that pickles."""


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda monitor: pickle.loads(pickle.dumps(monitor))])
def test_a_copy_is_set_up_alike_and_starts_empty(duplicate, caplog):
    monitor = MonitoringSystem(7)
    monitor.thresholds["error_rate"] = 0.9
    monitor.on_alert(ring_the_bell)
    monitor.team = ["on call"]
    for _ in range(7):
        monitor.record_request(False, False, 0.1)
    twin = duplicate(monitor)
    assert type(twin) is MonitoringSystem and twin.window_size == 7 and twin.team == ["on call"]
    assert twin.thresholds == monitor.thresholds and twin.requests == () and twin.alerts == [] and twin.level == "normal"
    assert twin.__getstate__()["callbacks"] == [ring_the_bell]
    for call in range(20):
        twin.record_request(call % 4 == 0, False, 0.1)
    assert twin.alerts == [], "the copy judges by its own thresholds, 75 % is under 90 %"
    twin.thresholds["error_rate"] = 0.1
    assert monitor.thresholds["error_rate"] == 0.9 and len(monitor.requests) == 7


def test_a_subclass_may_take_other_arguments():
    class Named(MonitoringSystem):
        def __init__(self, owner, *, size):
            super().__init__(size)
            self.owner = owner

    monitor = Named("me", size=4)
    assert isinstance(monitor, Monitor) and (monitor.owner, monitor.window_size) == ("me", 4)
    assert copy.deepcopy(monitor).owner == "me"
    assert repr(monitor) == "<Named: normal, no calls yet>"
    monitor.record_request(False, True, 0.25)
    assert repr(monitor).startswith("<Named: normal, 1 of the last 4 calls: errors 100.00%, retried 100.00%, mean 0.250s")


@pytest.mark.parametrize("callback", [lambda monitor: lambda alert: monitor.alerts, lambda monitor: monitor.record_request])
def test_a_monitor_that_its_own_callback_holds_is_collected(callback):
    class Watched(MonitoringSystem):
        pass

    def make():
        monitor = Watched()
        monitor.on_alert(callback(monitor))
        assert any(type(each) is Watched for each in gc.get_objects())

    make()
    gc.collect()
    # Not by a weak reference: those are cut even where the objects themselves are never freed.
    assert not any(type(each) is Watched for each in gc.get_objects())


@pytest.mark.parametrize("window_size", [100, 10_000])
def test_eight_threads_lose_nothing(window_size):
    monitor, barrier, errors = MonitoringSystem(window_size), threading.Barrier(8), []
    monitor.thresholds["error_rate"] = 0.3  # so that alerts come and go while all hammer

    def hammer(worker):
        try:
            barrier.wait()
            for call in range(2_000):
                monitor.record_request(worker % 2 == 0, worker == 0, 0.001 * worker)
                if call % 100 == 0:
                    assert len(monitor.requests) <= window_size and monitor.get_metrics()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=hammer, args=(worker,)) for worker in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert errors == [] and not any(thread.is_alive() for thread in threads)
    now, kept = monitor.snapshot(), monitor.requests
    lifetime = now["lifetime"]
    assert (lifetime["total"], lifetime["errors"], lifetime["retried"]) == (16_000, 8_000, 2_000)
    assert lifetime["avg_latency"] == pytest.approx(0.0035, abs=1e-12)
    assert now["total"] == len(kept) == window_size
    assert now["errors"] == sum(not request["success"] for request in kept)
    assert now["retried"] == sum(request["retried"] for request in kept)
    assert now["avg_latency"] == pytest.approx(sum(request["latency"] for request in kept) / window_size, abs=1e-9)
