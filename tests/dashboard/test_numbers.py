"""What is told of calls is what the simulator's own log says of them."""

from __future__ import annotations

import gc
import itertools
import subprocess
import sys

import pytest
from _canary import CANARY

from seawall import CircuitBreaker, CircuitBreakerError, Monitor, guard
from seawall.errors import AuthenticationError, InternalServerError
from seawall.llm import Chat
from seawall.simulator import faults

_numbers = itertools.count()
SECRET = "what nobody else is to read"


@pytest.fixture
def model() -> str:
    """A name that no other call of this process has."""
    return f"model-of-{next(_numbers)}"


def series(state, **names):
    return [row for row in state["series"] if all(row[key] == value for key, value in names.items())]


def sums(state):
    return {name: sum(slot[name] for slot in state["timeline"]) for name in ("calls", "errors", "retried", "fallbacks", "tokens")}


def settled(ask, until, condition):
    """The state once it has come about: what is told may be some tenths of a second old."""
    return until(lambda: (state := ask().body) and condition(state) and state, "what was to be told")


def test_calls_attempts_and_failures_are_those_of_the_simulator(sim, ask, until, model):
    before = ask().body
    sim.on(model, faults.status(503), times=2)
    chat = Chat(model, api_key=CANARY, base_url=sim.base_url).with_retry(stop_after_attempt=3, wait=0)
    replies = [chat.invoke(SECRET) for _ in range(20)]
    sim.on(model, faults.status(500))
    with pytest.raises(InternalServerError):
        chat.invoke(SECRET)
    sim.clear(model)
    sim.on(model, faults.status(401))
    with pytest.raises(AuthenticationError):
        chat.invoke(SECRET)

    state = settled(ask, until, lambda state: sum(row["calls"] for row in series(state, model=model)) == 22)
    (row,) = series(state, model=model)
    log = sim.requests
    assert (row["calls"], row["errors"], row["retried"], row["fallbacks"]) == (22, 2, 2, 0)
    assert row["attempts"] == len(log) == 2 + 20 + 3 + 1
    assert sorted(row["classes"]) == [["AuthenticationError", 1], ["InternalServerError", 1]]
    assert row["endpoint"] == sim.base_url.split("/")[2]
    assert row["tokens"] == sum(reply.usage["total_tokens"] for reply in replies)
    assert 0 < row["p50"] <= row["p95"] <= row["p99"]
    told, was = sums(state), sums(before)
    added = {"calls": 22, "errors": 2, "retried": 2, "fallbacks": 0, "tokens": row["tokens"]}
    assert {name: told[name] - was[name] for name in told} == added
    assert state["minute"]["calls"] >= 22

    failures = [failure for failure in state["failures"] if failure["model"] == model]
    assert [(each["error"], [attempt["status"] for attempt in each["attempts"]]) for each in failures] == [
        ("InternalServerError", [500, 500, 500]),
        ("AuthenticationError", [401]),
    ]
    assert [request.status for request in log][-4:] == [500, 500, 500, 401]
    assert {attempt["endpoint"] for each in failures for attempt in each["attempts"]} == {row["endpoint"]}
    for each in failures:
        assert each["seconds"] >= sum(attempt["seconds"] for attempt in each["attempts"]) > 0


def test_a_fallback_is_told_of_whoever_answered(sim, ask, until, model):
    sim.on(model, faults.status(503))
    chat = Chat(model, api_key=CANARY, base_url=sim.base_url, max_retries=0)
    spare = Chat(f"{model}-spare", api_key=CANARY, base_url=sim.base_url)
    for _ in range(5):
        chat.with_fallbacks([spare]).invoke("hello")
    state = settled(ask, until, lambda state: sum(row["calls"] for row in series(state, pipeline=model)) == 5)
    (row,) = [row for row in series(state, pipeline=model) if row["calls"]]
    assert (row["model"], row["fallbacks"], row["errors"], row["attempts"]) == (spare.model, 5, 0, sim.count())
    assert (sim.count(model), sim.count(spare.model)) == (5, 5)


def test_a_call_that_was_turned_away_made_no_attempt(sim, ask, until, model):
    sim.on(model, faults.status(503))
    breaker = CircuitBreaker(2, 1000, name=f"circuit of {model}")
    chat = Chat(model, api_key=CANARY, base_url=sim.base_url, circuit=breaker, max_retries=0)
    for refusal in (InternalServerError, InternalServerError, CircuitBreakerError):
        with pytest.raises(refusal):
            chat.invoke("hello")
    state = settled(ask, until, lambda state: sum(row["calls"] for row in series(state, pipeline=model)) == 3)
    last = [failure for failure in state["failures"] if failure["pipeline"] == model][-1]
    assert (last["error"], last["attempts"]) == ("CircuitBreakerError", [])
    assert ("circuit.rejected", breaker.name) in [(note["event"], note["place"]) for note in last["notes"]]
    assert sum(row["attempts"] for row in series(state, pipeline=model)) == sim.count() == 2
    (told,) = [each for each in state["breakers"] if each["name"] == breaker.name]
    assert (told["state"], told["rejected"]) == ("open", 1)


def test_functions_are_told_by_their_pipeline(ask, until, model):
    @guard(name=model, retry=3)
    def flaky(value):
        if value % 4 == 0:
            raise ValueError(SECRET)
        return value

    for value in range(12):
        if value % 4:
            flaky(value)
        else:
            with pytest.raises(ValueError, match=SECRET):
                flaky(value)
    state = settled(ask, until, lambda state: [row["calls"] for row in series(state, pipeline=model)] == [12])
    (row,) = series(state, pipeline=model)
    assert (row["model"], row["errors"], row["classes"]) == ("", 3, [["ValueError", 3]])
    assert SECRET not in ask().raw.decode()


def test_neither_content_nor_keys_are_told(sim, ask, until, model):
    key = "sk-that-nobody-is-to-read"
    sim.on(model, faults.status(400, message=f"you said: {SECRET}"), times=1)
    sim.on(model, faults.status(500, body=f'{{"error": {{"message": "{SECRET}"}}}}'), times=1, after=1)
    chat = Chat(model, api_key=key, base_url=sim.base_url, max_retries=0)
    for _ in range(2):
        with pytest.raises(Exception, match=SECRET):
            chat.invoke(SECRET)
    answer = chat.invoke(SECRET).content
    settled(ask, until, lambda state: [row["calls"] for row in series(state, model=model)] == [3])
    told = ask().raw.decode()
    for secret in (SECRET, key, answer):
        assert secret not in told


def test_alerts_and_levels_of_monitors(ask, until, model):
    monitor = Monitor(name=model)
    for _ in range(5):
        monitor.record(success=False, latency=0.1)
    state = settled(ask, until, lambda state: any(alert["name"] == model for alert in state["alerts"]))
    (alert,) = [alert for alert in state["alerts"] if alert["name"] == model]
    (own,) = monitor.alerts
    assert (alert["kind"], alert["level"], alert["incident"]) == (own.kind, own.level, own.incident)
    assert alert["at"] == pytest.approx(own.timestamp)
    (told,) = [each for each in state["monitors"] if each["name"] == model]
    assert (told["level"], told["calls"], told["error_rate"]) == (monitor.level, 5, 1.0)
    for _ in range(200):
        monitor.record(success=True, latency=0.1)
    kinds = ["raised", "resolved"]
    assert [each.kind for each in monitor.alerts] == kinds
    settled(ask, until, lambda state: [each["kind"] for each in state["alerts"] if each["name"] == model] == kinds)
    del monitor, own
    gc.collect()
    settled(ask, until, lambda state: not any(each["name"] == model for each in state["monitors"]))


WATCHED = """
import json, urllib.request
import seawall

def told():
    with seawall.dashboard.serve(0, quiet=True) as page:
        inside()
        return [row["pipeline"] for row in json.load(urllib.request.urlopen(page.url + "/api/state"))["series"]]

def function(name):
    return seawall.guard(name=name)(lambda: None)

before, inside, after = function("before"), function("inside"), function("after")
before()
first = told()
after()
print(first, told())
"""


def test_calls_are_recorded_while_a_dashboard_is_there():
    ended = subprocess.run([sys.executable, "-c", WATCHED], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.stdout, ended.stderr) == ("['inside'] ['inside']\n", "")
