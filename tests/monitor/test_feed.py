"""Monitors fed by the engine: what they count is what the server saw."""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta

import pytest
from _canary import CANARY

import seawall
from seawall import Monitor, Retry, errors, guard
from seawall.llm import Chat, Embeddings
from seawall.simulator import faults

QUICK = seawall.wait_fixed(0)


def chat(sim, model="gpt-4o", **more):
    return Chat(model, api_key=CANARY, base_url=sim.base_url, **more)


def test_a_native_models_calls_are_the_servers(sim):
    sim.on("gpt-4o", faults.status(500), times=2)
    monitor = Monitor(name="mine")
    model = chat(sim, monitor=monitor).with_retry(wait=QUICK)
    replies = [model.invoke("hello"), *model.batch(["one", "two"])]
    sim.on("gpt-4o", faults.status(401))
    with pytest.raises(errors.AuthenticationError):
        model.invoke("x")
    now = monitor.snapshot()
    assert (now["total"], now["errors"], now["retried"], now["retries"]) == (4, 1, 1, 2)
    assert now["attempts"] == sim.count() == 6
    assert now["tokens"] == sum(reply.usage["total_tokens"] for reply in replies)
    assert now["prompt_tokens"] == sum(reply.usage["prompt_tokens"] for reply in replies)
    price = seawall.prices["gpt-4o"]
    tokens = now["prompt_tokens"], now["tokens"] - now["prompt_tokens"]
    assert now["cost"] == pytest.approx((tokens[0] * price.prompt + tokens[1] * price.completion) / 1e6)
    assert monitor.by("error") == {"AuthenticationError": 1}
    assert list(monitor.by("endpoint")) == [sim.base_url.split("/")[2]]
    assert monitor.by("model")["gpt-4o"]["attempts"] == 6


async def test_every_way_of_asking_is_counted(sim):
    monitor = Monitor()
    model = chat(sim, monitor=monitor)
    model.invoke("x")
    await model.ainvoke("x")
    await model.abatch(["x", "y"])
    with model.stream("one two three") as stream:
        list(stream)
    async for _ in model.astream("one two three"):
        pass
    Embeddings("m", api_key=CANARY, base_url=sim.base_url, monitor=monitor).invoke(["a", "b"])
    now = monitor.snapshot()
    assert (now["total"], now["attempts"], now["errors"]) == (7, sim.count(), 0)
    assert now["avg_first_token"] is not None
    assert now["first_token_p50"] <= now["p99"]


def test_the_model_that_answered_is_the_one_that_is_counted(sim):
    sim.on("first", faults.status(503))
    monitor = Monitor()
    model = chat(sim, "first", monitor=monitor, max_retries=0).with_fallbacks([chat(sim, "second")])
    model.invoke("x")
    apart = monitor.by("model")
    assert list(apart) == ["second"]
    assert (apart["second"]["fallbacks"], apart["second"]["attempts"], monitor.snapshot()["retries"]) == (1, 2, 0)
    assert list(monitor.by("pipeline")) == ["first"]


def test_a_stream_that_is_closed_or_cut(sim):
    monitor = Monitor()
    model = chat(sim, monitor=monitor)
    sim.on("gpt-4o", faults.stall(1, 60), times=1)
    with model.stream("one two three four") as stream:
        next(stream)
    sim.on("gpt-4o", faults.cut(1))
    with pytest.raises(errors.StreamInterruptedError):
        list(model.stream("one two three four"))
    # The first was nobody's failure.
    assert (monitor.snapshot()["total"], monitor.by("error")) == (1, {"StreamInterruptedError": 1})


def test_alerts_of_native_calls_reach_their_callbacks(sim):
    sim.on("gpt-4o", faults.status(401))
    monitor, told = Monitor(), threading.Event()
    monitor.on_alert(lambda alert: told.set())
    model = chat(sim, monitor=monitor)
    for _ in range(9):
        with pytest.raises(errors.AuthenticationError):
            model.invoke("x")
    assert told.wait(30)
    assert monitor.level == "emergency"


def test_one_monitor_may_be_told_of_everything(sim):
    @guard(name="mine", circuit=False)
    def work():
        return chat(sim, "inner").invoke("x").content

    @guard(retry=None, circuit=False)
    async def other():
        return 1

    work()
    with seawall.observe() as monitor:
        work()
        asyncio.run(other())
        chat(sim, "alone").invoke("x")
    work()
    assert {name: numbers["total"] for name, numbers in monitor.by("pipeline").items()} == {
        "mine": 1,
        "inner": 1,
        "alone": 1,
        next(name for name in monitor.by("pipeline") if name.endswith("other")): 1,
    }


def test_an_observation_that_is_closed_hears_nothing_more(sim):
    observation = seawall.observe(Monitor(name="all"))
    chat(sim).invoke("x")
    observation.close()
    observation.close()
    chat(sim).invoke("x")
    assert observation.monitor.snapshot()["total"] == 1
    assert repr(observation).endswith(", closed>")
    with pytest.raises(seawall.ConfigurationError, match=r"monitor must be a seawall.Monitor or None, not 5"):
        seawall.observe(5)


def test_guarded_calls_of_every_kind_are_counted_under_their_name():
    monitor = Monitor()
    failing = guard(retry=Retry(2, on=ValueError, wait=QUICK), circuit=False, monitor=monitor)
    left = {"plain": 1, "items": 0}

    @failing
    def plain():
        left["plain"] -= 1
        if left["plain"] >= 0:
            raise ValueError
        return 1

    @failing
    def items():
        yield 1
        yield 2

    @guard(name="named", retry=None, circuit=False, monitor=monitor)
    def fails():
        raise KeyError

    plain()
    assert list(items()) == [1, 2]
    with pytest.raises(KeyError):
        fails()
    apart = {name.rpartition(".")[2]: numbers for name, numbers in monitor.by("pipeline").items()}
    assert {name: (n["total"], n["errors"], n["attempts"]) for name, n in apart.items()} == {
        "plain": (1, 0, 2),
        "items": (1, 0, 1),
        "named": (1, 1, 1),
    }
    assert monitor.by("error") == {"KeyError": 1}


def test_a_window_over_a_time_lets_go_what_is_old():
    with seawall.testing.clock() as time:
        monitor = Monitor(timedelta(minutes=1))
        for second in range(100):
            monitor.record(second % 2 == 0, latency=second / 10, tokens=1)
            time.advance(1)
        now = monitor.snapshot()
        assert 59 <= now["total"] <= 60
        assert now["lifetime"]["total"] == 100
        assert now["p50"] == pytest.approx(7, rel=0.05)
        assert sum(part["total"] for part in monitor.timeline(7)) == now["total"]
        time.advance(120)
        assert (monitor.snapshot()["total"], monitor.error_rate) == (0, None)
        assert monitor.window == 60.0


def test_a_timeline_of_calls_has_them_all_in_order():
    with seawall.testing.clock() as time:
        monitor = Monitor(50)
        for latency in range(40):
            monitor.record(True, latency=latency)
            time.advance(2)
        parts = monitor.timeline(slots=10)
        assert len(parts) <= 10
        assert sum(part["total"] for part in parts) == 40
        means = [part["avg_latency"] for part in parts if part["total"]]
        assert means == sorted(means)
        assert [part["at"] for part in parts] == sorted(part["at"] for part in parts)
    assert Monitor().timeline() == []


def test_words_that_are_none_are_refused():
    with pytest.raises(
        seawall.ConfigurationError, match=r'by must be "pipeline", "model", "endpoint" or "error", not \'colour\''
    ):
        Monitor().by("colour")
    with pytest.raises(seawall.ConfigurationError, match="window must be"):
        Monitor(0.0)
    with pytest.raises(seawall.ConfigurationError, match="monitor must be a seawall.Monitor or None, not 'x'"):
        Chat("m", api_key=CANARY, monitor="x")
