"""The real SDKs against a simulator that counts what reaches it, and a server of raw bytes for what it does not speak."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import anthropic
import openai
import pytest
from _canary import CANARY

from seawall.simulator import Simulator

KEY = CANARY


@pytest.fixture
def sdk(sim: Simulator) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(api_key=KEY, base_url=sim.base_url) as client:
        yield client


@pytest.fixture
async def opened() -> AsyncIterator[Callable[[Any], Any]]:
    """Hands an asynchronous client on, and closes it in its loop."""
    async with contextlib.AsyncExitStack() as stack:
        clients: list[Any] = []
        yield lambda client: clients.append(client) or client
        for client in clients:
            stack.push_async_callback(client.close)


@pytest.fixture
def async_sdk(sim: Simulator, opened: Callable[[Any], Any]) -> openai.AsyncOpenAI:
    made: openai.AsyncOpenAI = opened(openai.AsyncOpenAI(api_key=KEY, base_url=sim.base_url))
    return made


@pytest.fixture
def claude(sim: Simulator) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(api_key=KEY, base_url=sim.origin) as client:
        yield client


@pytest.fixture
def raw(raw: Any) -> Callable[..., Any]:
    """Starts a server that gives these bodies in turn: texts are event streams, dicts JSON."""

    def bytes_of(body: str | dict[str, Any]) -> bytes:
        return raw.answer(body, kind="text/event-stream") if isinstance(body, str) else raw.answer(json.dumps(body))

    return lambda *bodies: raw(*map(bytes_of, bodies))
