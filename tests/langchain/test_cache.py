"""`cache=` of the LangChain layer: seawall's own, and langchain-core's beside it."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from _canary import CANARY
from langchain_core.caches import InMemoryCache
from langchain_core.globals import set_llm_cache

from seawall import Cache
from seawall.langchain import ChatOpenAI, OpenAIEmbeddings
from seawall.simulator import Simulator


@pytest.fixture
def make(sim: Simulator) -> Callable[..., ChatOpenAI]:
    return lambda **options: ChatOpenAI(model="m", api_key=CANARY, base_url=sim.base_url, **options)


async def test_answers_and_streams_are_given_again(sim: Simulator, make: Callable[..., ChatOpenAI]) -> None:
    cache = Cache()
    model = make(cache=cache)
    first, second = model.invoke("x"), await model.ainvoke("x")
    assert first.content == second.content
    assert (first.response_metadata["attempts"], second.response_metadata["attempts"]) == (1, 0)
    assert second.response_metadata["seawall"]["cached"] is True
    assert "cached" not in first.response_metadata["seawall"]
    assert [answer.content for answer in model.batch(["x"] * 5)] == [first.content] * 5
    for kept in (
        model.with_retry(),
        model.with_fallbacks([make()]),
        model.model_copy(),
        copy.deepcopy(model),
    ):
        assert kept.invoke("x").response_metadata["attempts"] == 0
    assert pickle.loads(pickle.dumps(model)).invoke("x").response_metadata["attempts"] == 0
    assert sim.count() == 1
    streams: list[Any] = [list(model.stream("x")), [piece async for piece in model.astream("x")]]
    assert [piece.content for piece in streams[0]] == [piece.content for piece in streams[1]]
    assert sim.count() == 2
    assert cache.stats.items == 2


def test_langchains_own_caches_are_langchains(sim: Simulator, make: Callable[..., ChatOpenAI]) -> None:
    own = InMemoryCache()
    model = make(cache=own)
    assert model.cache is own
    model.invoke("x"), model.invoke("x")
    assert sim.count() == 1
    try:
        set_llm_cache(InMemoryCache())
        make().invoke("y"), make(cache=True).invoke("y")
        assert sim.count() == 2
        make(cache=False).invoke("y")
        assert sim.count() == 3
        ours = make(cache=Cache())
        ours.invoke("y"), ours.invoke("y")
        assert sim.count() == 4, "one of the two, not both"
    finally:
        set_llm_cache(None)


def test_embeddings(sim: Simulator) -> None:
    model = OpenAIEmbeddings(model="e", api_key=CANARY, base_url=sim.base_url, cache=Cache())
    assert model.embed_query("x") == model.embed_query("x")
    assert sim.count() == 1
