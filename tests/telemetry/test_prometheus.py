"""The exporter: what Prometheus scrapes is what happened, in both formats, whatever names hold."""

from __future__ import annotations

import asyncio
import gc
import http.client
import os
import socket
import subprocess
import sys

import prometheus_client
import pytest
from _canary import CANARY

import seawall
from seawall import CircuitBreaker, Monitor, Pipeline, RateLimit, Retry, errors, guard
from seawall._seawall import metric_names
from seawall.llm import Chat, Embeddings
from seawall.simulator import faults
from seawall.telemetry import prometheus

from .conftest import QUICK, Scraper, fetched, parsed


def chat(sim, model="gpt-4o", **more):
    return Chat(model, api_key=CANARY, base_url=sim.base_url, **more)


def test_a_wait_for_a_limit_that_turned_the_call_away_is_no_retry(scraper, seawall_clock):
    ask = Pipeline(Retry(3), RateLimit(1, per=10, max_queue=0), name="turned away")(lambda: "answer")
    ask()
    ask()
    assert scraper.since("seawall_calls_total", pipeline="turned away") == {(): 2}
    assert scraper.since("seawall_retries_total", pipeline="turned away") in ({}, {(): 0})


def test_a_scrape_tells_what_the_server_saw(sim, scraper):
    sim.on("gpt-4o", faults.status(500), times=2)
    model = chat(sim).with_retry(wait=QUICK)
    replies = [model.invoke("hello"), *model.batch(["one", "two"])]
    sim.on("gpt-4o", faults.status(401))
    with pytest.raises(errors.AuthenticationError):
        model.invoke("x")
    place = sim.base_url.split("/")[2]
    assert scraper.since("seawall_calls_total", "model", "endpoint", "outcome") == {
        ("gpt-4o", place, "ok"): 3,
        ("gpt-4o", place, "AuthenticationError"): 1,
    }
    requests = scraper.since("seawall_requests_total", "outcome", endpoint=place)
    assert requests == {"ok": 3, "InternalServerError": 2, "AuthenticationError": 1}
    assert sum(requests.values()) == sim.count()
    assert scraper.since("seawall_retries_total", "model") == {"gpt-4o": 2}
    usage = [reply.usage for reply in replies]
    assert scraper.since("seawall_tokens_total", "type") == {
        "input": sum(u["prompt_tokens"] for u in usage),
        "output": sum(u["completion_tokens"] for u in usage),
    }
    assert scraper.since("seawall_cost_total", "model")["gpt-4o"] == pytest.approx(
        sum(
            (u["prompt_tokens"] * seawall.prices["gpt-4o"].prompt + u["completion_tokens"] * seawall.prices["gpt-4o"].completion)
            / 1e6
            for u in usage
        )
    )
    assert scraper.since("seawall_call_duration_seconds_count", endpoint=place) == {(): 4}
    assert scraper.since("seawall_request_duration_seconds_count", endpoint=place) == {(): 6}
    calls, requests = (scraper.since(f"seawall_{what}_duration_seconds_sum", endpoint=place)[()] for what in ("call", "request"))
    assert 0 < requests <= calls < 60


async def test_streams_embeddings_and_alternatives(sim, scraper):
    sim.on("down", faults.status(503))
    with chat(sim).stream("one two three") as stream:
        list(stream)
    async for _ in chat(sim).astream("one two three"):
        pass
    Embeddings("m", api_key=CANARY, base_url=sim.base_url).invoke(["a", "b"])
    chat(sim, "down").with_retry(stop_after_attempt=2, wait=QUICK).with_fallbacks([chat(sim, "up")]).invoke("x")
    assert scraper.since("seawall_time_to_first_token_seconds_count", "model") == {"gpt-4o": 2}
    assert scraper.since("seawall_fallbacks_total", "model") == {"up": 1}
    assert scraper.since("seawall_calls_total", "model", "outcome") == {("gpt-4o", "ok"): 2, ("m", "ok"): 1, ("up", "ok"): 1}
    assert scraper.since("seawall_requests_total", "model", "outcome") == {
        ("gpt-4o", "ok"): 2, ("m", "ok"): 1, ("down", "ServiceUnavailable"): 2, ("up", "ok"): 1,
    }  # fmt: skip


def test_a_stream_that_is_closed_early_is_abandoned(sim, scraper):
    sim.on("left", faults.stall(2))
    with chat(sim, "left").stream("one two three four") as stream:
        next(iter(stream))
    del stream
    gc.collect()
    while not scraper.since("seawall_calls_abandoned_total", "model"):
        pass  # the client's own thread gives the call up
    assert scraper.since("seawall_calls_abandoned_total", "model") == {"left": 1}
    assert scraper.since("seawall_requests_total", "model") == {"left": 1}
    assert scraper.since("seawall_calls_total") == {}


async def test_guarded_calls_that_are_given_up_are_told(scraper):
    @guard(name="quits")
    def quits():
        raise KeyboardInterrupt

    @guard(name="waits")
    async def waits():
        await asyncio.Event().wait()

    @guard(name="gives", retry=None)
    def gives():
        yield from range(10)

    with pytest.raises(KeyboardInterrupt):
        quits()
    task = asyncio.create_task(waits())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    items = gives()
    next(items)
    items.close()
    expected = {"quits": 1, "waits": 1, "gives": 1}
    assert {
        name: count for name, count in scraper.since("seawall_calls_abandoned_total", "pipeline").items() if name in expected
    } == expected
    assert scraper.since("seawall_requests_total", "outcome", pipeline="waits") == {"given up": 1}
    assert not set(scraper.since("seawall_calls_total", "pipeline")) & set(expected)


def test_guarded_functions_are_told_by_their_pipeline(scraper):
    @guard(name="mine", retry=seawall.Retry(3, wait=QUICK, on=ValueError))
    def mine(fails):
        if fails:
            raise ValueError("no")

    mine(False)
    with pytest.raises(ValueError):
        mine(True)
    assert scraper.since("seawall_calls_total", "outcome", pipeline="mine") == {"ok": 1, "ValueError": 1}
    assert scraper.since("seawall_requests_total", "outcome", pipeline="mine") == {"ok": 1, "ValueError": 3}
    assert scraper.since("seawall_retries_total", pipeline="mine") == {(): 2}


def test_breakers_and_monitors_are_shown_as_they_are(scraper):
    breaker = CircuitBreaker(1, 60, name="shown-breaker")
    monitor = Monitor(name="shown-monitor")

    def state():
        now = scraper.now().items()
        return {
            dict(labels)["state"]: value
            for (name, labels), value in now
            if name == "seawall_circuit_state" and ("name", "shown-breaker") in labels
        }

    assert state() == {"closed": 1, "open": 0, "half_open": 0, "forced_open": 0, "disabled": 0, "metrics_only": 0}

    @breaker
    def fails():
        raise ValueError("no")

    with pytest.raises(ValueError):
        fails()
    for _ in range(5):
        monitor.record(success=False)
    for _ in range(3):
        with pytest.raises(seawall.CircuitBreakerError):
            fails()
    assert state()["open"] == 1
    assert scraper.since("seawall_circuit_openings_total", "name") == {"shown-breaker": 1}
    assert scraper.since("seawall_circuit_rejections_total", "name") == {"shown-breaker": 3}
    assert scraper.now()["seawall_monitor_level", (("name", "shown-monitor"),)] == 3
    del breaker, fails
    gc.collect()
    assert state() == {}, "one that is gone has no state"
    assert scraper.since("seawall_circuit_rejections_total", "name") == {"shown-breaker": 3}, "and keeps its counts"


HOSTILE = [
    'quo"te',
    "new\nline",
    "back\\slash\\n",
    "\x00\x1b[31mred\r",
    "界" * 400_000,
    'a="b"} 1\nseawall_calls_total{x="',
    "{}",
    " ",
]


def test_hostile_names_are_labels_and_no_more(exporter):
    for name in HOSTILE:
        guard(name=name)(lambda: None)()
    text, _ = fetched(exporter.url)
    assert len(text) < 1_000_000
    assert "\x1b" not in text and "\x00" not in text and "\r" not in text
    for page in (text, fetched(exporter.url, "application/openmetrics-text")[0]):
        names = {dict(labels).get("pipeline") for name, labels in parsed(page) if name == "seawall_calls_total"}
        assert {'quo"te', "new\nline", "back\\slash\\n", "{}", 'a="b"} 1\nseawall_calls_total{x="'} <= names
        assert max(len(name or "") for name in names) <= 200


def test_neither_content_nor_keys_are_shown(sim, exporter):
    sim.on("gpt-4o", faults.status(500))
    with pytest.raises(errors.InternalServerError):
        chat(sim).invoke("my-private-question")
    text, _ = fetched(exporter.url)
    assert "my-private-question" not in text and CANARY not in text


def test_both_formats_tell_the_same_and_every_name_of_the_table(sim, exporter):
    chat(sim).invoke("x")
    plain, kind = fetched(exporter.url, "text/plain")
    assert kind == "text/plain; version=0.0.4; charset=utf-8"
    accept = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1"
    openmetrics, kind = fetched(exporter.url, accept)
    assert kind == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert parsed(plain) == parsed(openmetrics)
    for name, kind, _, _, help_text in metric_names():
        assert f"# TYPE {name} {kind}\n" in plain and f"# HELP {name} {help_text}\n" in plain
    assert (plain.encode(), "text/plain; version=0.0.4; charset=utf-8") == prometheus.render()


def test_prometheus_client_gives_the_same_numbers(sim, exporter):
    chat(sim).invoke("x")
    registry = prometheus_client.CollectorRegistry()
    made = prometheus.register(registry)
    assert parsed(prometheus_client.generate_latest(registry).decode()) == parsed(fetched(exporter.url)[0])
    with pytest.raises(ValueError, match="Duplicated"):
        prometheus.register(registry)
    registry.unregister(made)
    prometheus.register(registry)


def test_what_is_asked_in_vain(exporter):
    connection = http.client.HTTPConnection(exporter.host, exporter.port)

    def asked(method, path):
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.read()

    assert asked("GET", "/metrics")[0] == 200
    assert asked("HEAD", "/metrics") == (200, b"")
    assert asked("POST", "/metrics")[0] == 405
    assert asked("GET", "/secret")[0] == 404
    assert asked("GET", "/")[0] == 200
    connection.close()
    with socket.create_connection((exporter.host, exporter.port)) as odd:
        odd.sendall(b"\x16\x03\x01 no http\r\n\r\n")
        assert b"400" in odd.recv(1000)


def test_a_port_that_is_taken_and_arguments_that_cannot_be_meant(exporter):
    with pytest.raises(OSError, match=f"127.0.0.1:{exporter.port}: something else listens there. Give another port"):
        prometheus.serve(exporter.port)
    with pytest.raises(seawall.ConfigurationError, match="port must be at most 65535, not 70000"):
        prometheus.serve(70_000)
    with pytest.raises(seawall.ConfigurationError, match="host must be a name or an address, not ''"):
        prometheus.serve(0, "")
    with pytest.raises(seawall.ConfigurationError, match="directory is .* but this process counts by itself"):
        prometheus.start("/somewhere")
    with pytest.raises(TypeError, match="directory must be a path, not 3"):
        prometheus.start(3)
    with pytest.raises(TypeError, match="accept must be a text or None, not 3"):
        prometheus.render(3)
    assert repr(exporter) == f"<Exporter http://127.0.0.1:{exporter.port}/metrics>" and not exporter.closed
    exporter.close()
    exporter.close()
    assert exporter.closed and repr(exporter).endswith(", closed>")


def test_many_pipelines_share_a_series():
    program = """
import seawall
from seawall.telemetry import prometheus
prometheus.start()
for n in range(1500):
    seawall.guard(name=f"p{n}")(lambda: None)()
print(prometheus.render()[0].decode())
"""
    page = parsed(subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout)
    calls = {dict(labels)["pipeline"]: value for (name, labels), value in page.items() if name == "seawall_calls_total"}
    assert len(calls) == 1001 and sum(calls.values()) == 1500 and calls["other"] == 500


def test_seawall_without_telemetry_loads_none_of_it():
    program = (
        "import sys, seawall; seawall.telemetry; print([m for m in sys.modules if 'prometheus' in m or 'opentelemetry' in m])"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env={**os.environ})
    assert ran.stdout == "[]\n"


def test_a_scrape_counts_from_when_it_was_begun(exporter):
    assert Scraper(exporter.url).now()["seawall_processes", ()] == 1
