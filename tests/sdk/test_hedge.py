"""Clients of the openai SDK with a Hedge: answers and streams, plain and asynchronous."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import seawall
from seawall import Hedge
from seawall.simulator import Simulator, faults

FOR_EVER = 600
ASKED: Any = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}


def soon() -> Hedge:
    return Hedge(0.05, budget=1)


def text(pieces: list[Any]) -> str:
    return "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices)


def test_a_plain_client_s_answers_and_streams(sim: Simulator, sdk: Any) -> None:
    client = seawall.resilient(sdk, seawall.Pipeline(soon()))
    # A thread cannot be stopped: its answer is dropped when it comes.
    sim.on("m", faults.latency(0.5), times=1)
    assert client.chat.completions.create(**ASKED).choices[0].message.content.startswith("[m] hello")
    assert sim.count("m") == 2
    sim.on("m", faults.latency(0.5), times=1)
    assert text(list(client.chat.completions.create(stream=True, **ASKED))).startswith("[m] hello")
    assert sim.count("m") == 4


async def test_an_asynchronous_client_s_losers_are_cut(sim: Simulator, async_sdk: Any) -> None:
    client = seawall.resilient(async_sdk, seawall.Pipeline(soon()))
    sim.on("m", faults.latency(FOR_EVER), times=1)
    answer = await client.chat.completions.create(**ASKED)
    assert answer.choices[0].message.content.startswith("[m] hello")
    await asyncio.to_thread(sim.wait_aborted, 1)
    sim.on("m", faults.latency(FOR_EVER), times=1)
    stream = await client.chat.completions.create(stream=True, **ASKED)
    assert text([piece async for piece in stream]).startswith("[m] hello")
    await asyncio.to_thread(sim.wait_aborted, 2)
    # A head without content wins nothing: what follows is asked for once more.
    sim.on("m", faults.stall(after=0, keepalive=0.01), times=1)
    stream = await client.chat.completions.create(stream=True, **ASKED)
    assert text([piece async for piece in stream]).startswith("[m] hello")
    assert sim.count("m") == 6


@pytest.mark.parametrize("stalls", [False, True])
def test_a_stream_of_a_plain_client_is_hedged_until_its_first_content(sim: Simulator, sdk: Any, stalls: bool) -> None:
    if stalls:
        sim.on("m", faults.stall(after=0, keepalive=0.01), times=1)
    client = seawall.resilient(sdk, seawall.Pipeline(soon() if stalls else Hedge(FOR_EVER)))
    assert text(list(client.chat.completions.create(stream=True, **ASKED))).startswith("[m] hello")
    assert sim.count("m") == 1 + stalls
