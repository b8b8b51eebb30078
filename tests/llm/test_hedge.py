"""Hedging models: over real sockets, against a server whose first reply is the slow one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from _canary import CANARY

import seawall
from seawall import CircuitBreaker, Hedge, Monitor, errors
from seawall.errors import ConfigurationError
from seawall.llm import Chat, Embeddings
from seawall.simulator import Simulator, faults

# Longer than any test waits for.
FOR_EVER = 600


def slow_first(sim: Simulator) -> None:
    sim.on("m", faults.latency(FOR_EVER), times=1)


def ask(llm: Chat) -> Any:
    return llm.invoke("hello")


def ask_async(llm: Chat) -> Any:
    return asyncio.run(llm.ainvoke("hello"))


def ask_many(llm: Chat) -> Any:
    (reply,) = llm.batch(["hello"])
    return reply


def ask_stream(llm: Chat) -> Any:
    stream = llm.stream("hello")
    assert "".join(piece.content for piece in stream).startswith("[m] hello")
    return stream


def ask_stream_async(llm: Chat) -> Any:
    async def main() -> Any:
        stream = llm.astream("hello")
        assert "".join([piece.content async for piece in stream]).startswith("[m] hello")
        return stream

    return asyncio.run(main())


WAYS = [ask, ask_async, ask_many, ask_stream, ask_stream_async]


@pytest.mark.parametrize("way", WAYS)
def test_the_second_request_answers_and_the_first_one_s_connection_is_cut(
    sim: Simulator, chat: Callable[..., Chat], way: Callable[[Chat], Any]
) -> None:
    slow_first(sim)
    breaker = CircuitBreaker(failure_rate=0.5, window=100, minimum_calls=50)
    hedge, monitor = Hedge(0.01, budget=1), Monitor(name="hedged")
    answer = way(chat(hedge=hedge, circuit=breaker, monitor=monitor, max_retries=0))
    sim.wait_aborted(1)
    assert sim.count("m") == 2
    assert [attempt.outcome for attempt in answer.attempts] == ["given up", "ok"]
    assert [step.event for step in answer.story] == ["hedge.started", "hedge.won"]
    assert hedge.statistics == {"calls": 1, "hedges": 1, "wins": 1, "denied": 0}
    seen = breaker.metrics()
    assert (seen.calls, seen.failed) == (1, 0)
    said = monitor.snapshot()
    assert (said["total"], said["errors"], said["attempts"], said["retries"]) == (1, 0, 2, 0), said
    told = str(seawall.explain(answer))
    assert "attempt 1, m: given up" in told and "attempt 2, m: answered" in told and "asked once more" in told, told


def test_an_answer_in_time_is_the_only_request(sim: Simulator, chat: Callable[..., Chat]) -> None:
    llm = chat(hedge=FOR_EVER)
    assert (len(llm.invoke("hello").attempts), sim.count("m")) == (1, 1)


def test_streams_are_hedged_until_their_first_content_and_not_after_it(sim: Simulator, chat: Callable[..., Chat]) -> None:
    # Its head is there at once, and no content comes after it.
    sim.on("m", faults.stall(after=0, keepalive=0.01), times=1)
    stream = chat(hedge=Hedge(0.05, budget=1)).stream("hello")
    assert "".join(piece.content for piece in stream).startswith("[m] hello")
    sim.wait_aborted(1)
    assert sim.count("m") == 2
    sim.on("m", faults.stall(after=3), times=1)
    with pytest.raises(errors.StreamInterruptedError):
        list(chat(hedge=Hedge(0.5, budget=1), idle_timeout=1).stream("hello"))
    assert sim.count("m") == 3


def test_embeddings_are_hedged(sim: Simulator) -> None:
    sim.on("e", faults.latency(FOR_EVER), times=1)
    with_hedge = Embeddings("e", api_key=CANARY, base_url=sim.base_url, hedge=0.01)
    assert len(with_hedge.invoke("one").vectors) == 1
    sim.wait_aborted(1)


def test_what_no_retry_mends_is_raised_at_once_and_what_may_pass_waits_for_the_other(
    sim: Simulator, chat: Callable[..., Chat]
) -> None:
    sim.on("m", faults.latency(FOR_EVER), times=1)
    sim.on("m", faults.status(401), times=1, after=1)
    with pytest.raises(errors.AuthenticationError) as refused:
        chat(hedge=Hedge(0.01, budget=1), max_retries=0).invoke("hello")
    sim.wait_aborted(1)
    assert len(refused.value.attempts) == 2


def test_a_circuit_that_lets_one_probe_through_lets_no_hedge_through(sim: Simulator, chat: Callable[..., Chat]) -> None:
    breaker = CircuitBreaker(1, recovery_timeout=0)
    llm = chat(hedge=Hedge(0.01, budget=1), circuit=breaker, max_retries=0)
    sim.on("m", faults.status(500), times=1)
    with pytest.raises(errors.InternalServerError):
        llm.invoke("hello")
    # The next is the one probe that a circuit lets through, however long it takes.
    sim.on("m", faults.latency(0.1), times=1)
    assert len(llm.invoke("hello").attempts) == 1
    assert sim.count("m") == 2


def test_cancelling_the_caller_cuts_both(sim: Simulator, chat: Callable[..., Chat]) -> None:
    sim.on("m", faults.latency(FOR_EVER))
    llm = chat(hedge=Hedge(0.01, budget=1))

    async def main() -> None:
        call = asyncio.ensure_future(llm.ainvoke("hello"))
        await asyncio.to_thread(sim.wait_for, 2)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    asyncio.run(main())
    sim.wait_aborted(2)


@pytest.mark.parametrize("hedge", [True, "0.8", 0, -1, object()])
def test_what_makes_no_hedge_is_refused(hedge: Any) -> None:
    for make in (Chat, Embeddings):
        with pytest.raises(ConfigurationError, match="hedge|delay"):
            make("m", api_key="sk-x", hedge=hedge)
