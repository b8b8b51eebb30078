"""`seawall.Rule`: when a metric is bad, as data."""

from __future__ import annotations

import copy
import dataclasses
import json
import logging
import pickle
from datetime import timedelta

import pytest

from seawall import ConfigurationError, Monitor, MonitoringSystem, Rule


def limits(rules):
    return {rule.metric: (rule.warning, rule.critical, rule.emergency) for rule in rules}


def test_the_defaults_are_the_documents_tables():
    assert limits(Monitor().rules) == {
        "outage": (None, None, 5),
        "error_rate": (0.05, 0.10, None),
        "retry_rate": (0.03, 0.05, None),
        "avg_latency": (2, 5, None),
    }
    assert Monitor().rules == MonitoringSystem().rules
    assert Monitor().remind_every is None


def test_a_rule_takes_the_place_of_the_default_of_its_metric_and_of_no_other():
    monitor = Monitor(rules=[Rule("error_rate", critical=0.5, minimum=3), {"metric": "p95", "warning": 1.5}])
    assert limits(monitor.rules) == {
        "outage": (None, None, 5),
        "error_rate": (None, 0.5, None),
        "retry_rate": (0.03, 0.05, None),
        "avg_latency": (2, 5, None),
        "p95": (1.5, None, None),
    }
    for success in (False, True, False):
        monitor.record(success)
    assert [(alert.level, alert.metrics) for alert in monitor.alerts] == [("critical", {"error_rate": 2 / 3})]


def test_infinity_switches_a_metric_off():
    monitor = Monitor(rules=[Rule("outage", emergency=float("inf")), Rule("error_rate", warning=float("inf"))])
    for _ in range(50):
        monitor.record(False)
    assert (monitor.level, monitor.alerts) == ("normal", [])
    assert set(limits(monitor.rules)) == {"retry_rate", "avg_latency"}
    assert limits(Monitor(rules=[Rule("success_rate", warning=0)]).rules)["success_rate"] == (0, None, None)


def test_rules_are_plain_data():
    rule = Rule("avg_latency", timedelta(seconds=1.5), 4, hold=timedelta(minutes=1))
    as_data = json.loads(json.dumps(dataclasses.asdict(rule)))
    assert as_data == {
        "metric": "avg_latency",
        "warning": 1.5,
        "critical": 4.0,
        "emergency": None,
        "minimum": 10,
        "clear": 0.8,
        "hold": 60.0,
        "clear_hold": 60.0,
    }
    assert Rule(**as_data) == rule == pickle.loads(pickle.dumps(rule)) and hash(rule) == hash(copy.deepcopy(rule))
    assert Monitor(rules=[as_data]).rules == Monitor(rules=(rule,)).rules
    assert [Rule(metric, 1).minimum for metric in ("error_rate", "p95", "p99", "outage")] == [10, 20, 100, 1]
    with pytest.raises(dataclasses.FrozenInstanceError):
        rule.warning = 3


@pytest.mark.parametrize("given", ["rules", "monitor.rules"])
def test_a_copy_of_a_monitor_has_its_rules(given):
    monitor = Monitor(
        rules=[Rule("outage", 2, hold=3, clear_hold=4), Rule("retry_rate", float("inf"))], remind_every=timedelta(hours=1)
    )
    twin = pickle.loads(pickle.dumps(copy.copy(monitor)))
    assert twin.rules == monitor.rules and twin.remind_every == 3600
    assert Monitor(rules=monitor.rules).rules[0] == monitor.rules[0]


@pytest.mark.parametrize(
    ("rules", "says"),
    [
        ([{"metric": "eror_rate", "warning": 0.1}], "rules[0].metric must be one of outage, error_rate, success_rate"),
        ([{"warning": 0.1}], "rules[0].metric is missing: it must be one of outage, error_rate"),
        ([{"metric": ["p95"], "warning": 1}], "rules[0].metric must be one of"),
        (
            [Rule("p95", 1), Rule("p99", 1), {"metric": "error_rate", "critical": 10}],
            "rules[2].critical must be a share from 0 to 1",
        ),
        (
            [{"metric": "error_rate", "critical": "10%"}],
            "rules[0].critical must be a share from 0 to 1 (0.10 is 10 %), not '10%' (str)",
        ),
        ([{"metric": "error_rate", "critical": True}], "rules[0].critical must be a share"),
        ([{"metric": "error_rate", "critical": float("nan")}], "rules[0].critical must be a share"),
        (
            [{"metric": "error_rate", "warning": 0.2, "critical": 0.1}],
            "rules[0].critical must be at least the limit of warning (0.2), not 0.1",
        ),
        (
            [{"metric": "p95", "warning": 2, "emergency": 1}],
            "rules[0].emergency must be at least the limit of warning (2), not 1",
        ),
        (
            [{"metric": "success_rate", "warning": 0.9, "critical": 0.95}],
            "rules[0].critical must be at most the limit of warning (0.9)",
        ),
        ([{"metric": "success_rate", "warning": float("inf")}], "rules[0].warning must be a share from 0 to 1"),
        (
            [{"metric": "p95", "warning": -1}],
            "rules[0].warning must be a number of seconds or a timedelta, zero or more, not -1 (int)",
        ),
        ([{"metric": "error_rate", "warning": timedelta(1)}], "rules[0].warning must be a share"),
        ([{"metric": "outage", "emergency": 2.5}], "rules[0].emergency must be a whole number from 1 on, not 2.5"),
        ([{"metric": "outage", "emergency": 0}], "rules[0].emergency must be a whole number from 1 on"),
        ([{"metric": "p95"}], "rules[0].warning, critical or emergency must be given"),
        ([{"metric": "p95", "warning": 1, "minimum": 0}], "rules[0].minimum must be a whole number from 1 on, not 0"),
        ([{"metric": "p95", "warning": 1, "clear": 0}], "rules[0].clear must be a share, more than 0 and at most 1"),
        ([{"metric": "p95", "warning": 1, "clear": 1.2}], "rules[0].clear must be a share"),
        ([{"metric": "p95", "warning": 1, "hold": -1}], "rules[0].hold must be zero seconds or more"),
        ([{"metric": "p95", "warning": 1, "clear_hold": "1"}], "rules[0].clear_hold must be a number of seconds"),
        ([{"metric": "p95", "crit": 1}], "rules[0] has 'crit', which is no part of a rule: those are metric, warning"),
        ([Rule("p95", 1), {"metric": "p95", "warning": 2}], "rules[1].metric is 'p95', of which rules[0] is a rule already"),
        (["p95"], "rules[0] must be a seawall.Rule or a dict, not 'p95' (str)"),
        (Rule("p95", 1), "rules must be a list of seawall.Rule or of dicts"),
        ("p95", "rules must be a list of seawall.Rule or of dicts, not 'p95' (str)"),
        (7, "rules must be a list"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_place(rules, says):
    with pytest.raises(ConfigurationError) as refused:
        Monitor(rules=rules)
    assert str(refused.value).startswith(says)


def test_a_rule_by_hand_names_its_argument():
    with pytest.raises(ConfigurationError, match=r"^critical must be at least the limit of warning \(3\), not 2$"):
        Rule("p95", 3, 2)
    with pytest.raises(TypeError, match="hold must be a number of seconds"):
        Rule("p95", 3, hold="1 s")


def test_tokens_cost_and_first_tokens_have_rules():
    rules = [Rule("tokens", warning=100), Rule("cost", critical=0.5), Rule("first_token", warning=2, minimum=3)]
    monitor = Monitor(5, rules=rules)
    monitor.record(True, tokens=100, cost=0.5, first_token=9)
    assert monitor.alerts == []
    monitor.record(True, tokens=1)
    monitor.record(True, cost=0.25)
    for _ in range(5):
        monitor.record(True)
    told = [(alert.kind, alert.metrics, alert.message) for alert in monitor.alerts]
    assert told == [
        ("raised", {"tokens": 101}, "ALERT (warning): tokens 101 (limit 100)"),
        (
            "escalated",
            {"tokens": 101, "cost": 0.75, "first_token": 9},
            "ALERT escalated (critical): mean time to the first token 9.00s (limit 2.00s), tokens 101 (limit 100), cost 0.75 (limit 0.5)",
        ),
        ("resolved", {"tokens": 1, "cost": 0.25}, "ALERT resolved: tokens 1 (limit 100), cost 0.25 (limit 0.5)"),
    ]


def test_a_window_over_a_time_forgets_by_itself(seawall_clock):
    monitor = Monitor(60.0, rules=[Rule("cost", warning=1), Rule("p95", warning=5, minimum=1), Rule("avg_latency", float("inf"))])
    for _ in range(4):
        monitor.record(True, cost=0.3, latency=6)
    seawall_clock.advance(30)
    monitor.record(True, latency=0.1)
    seawall_clock.advance(29)
    assert monitor.level == "warning"
    seawall_clock.advance(2)
    assert monitor.level == "normal"
    assert [(alert.kind, set(alert.metrics)) for alert in monitor.alerts] == [("raised", {"p95"}), ("resolved", {"p95", "cost"})]


def test_a_window_over_a_time_without_calls_proves_nothing(seawall_clock):
    monitor = Monitor(60.0, rules=[Rule("outage", float("inf")), Rule("error_rate", 0.5, minimum=3)])
    for _ in range(3):
        monitor.record(False)
    seawall_clock.advance(3600)
    assert monitor.level == "warning" and monitor.snapshot()["total"] == 0
    monitor.record(True)
    assert monitor.level == "normal"


@pytest.mark.parametrize("metric", ["p95", "p99"])
def test_percentiles_have_rules(metric, caplog):
    caplog.set_level(logging.INFO, logger="seawall.monitor")
    monitor = Monitor(window=200, rules=[Rule(metric, warning=timedelta(seconds=1), critical=3)])
    for call in range(400):
        monitor.record(True, latency=2 if call > 150 and call % 5 == 0 else 0.01)
    for _ in range(300):
        monitor.record(True, latency=0.01)
    assert [(alert.kind, alert.level) for alert in monitor.alerts] == [("raised", "warning"), ("resolved", "normal")]
    assert monitor.alerts[0].metrics[metric] == pytest.approx(2, rel=0.02) and monitor.alerts[0].limits == {metric: 1}
    assert caplog.messages[0].startswith(f"ALERT (warning): {metric} latency ")
