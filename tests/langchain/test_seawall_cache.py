"""LangChain's own cache in a `seawall.Cache`: its standard tests, real models of other packages, and the file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from _canary import CANARY
from langchain_core.globals import set_llm_cache
from langchain_core.language_models import FakeListLLM
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, Generation
from langchain_openai import ChatOpenAI as ForeignChatOpenAI
from langchain_tests.integration_tests.cache import AsyncCacheTestSuite, SyncCacheTestSuite

from seawall import Cache, cache_bypass
from seawall.errors import ConfigurationError
from seawall.langchain import ChatOpenAI, SeawallCache
from seawall.simulator import Simulator


class TestSync(SyncCacheTestSuite):
    @pytest.fixture
    def cache(self) -> SeawallCache:
        return SeawallCache()


class TestAsync(AsyncCacheTestSuite):
    @pytest.fixture
    async def cache(self) -> SeawallCache:
        return SeawallCache()


class TestSyncInAFile(SyncCacheTestSuite):
    @pytest.fixture
    def cache(self, tmp_path: Path) -> SeawallCache:
        return SeawallCache(Cache(path=tmp_path / "cache.db"))


@pytest.fixture
def everywhere() -> Iterator[SeawallCache]:
    """The cache of all models of the process."""
    cache = SeawallCache(Cache(name="all"))
    set_llm_cache(cache)
    yield cache
    set_llm_cache(None)


def model(kind: type, sim: Simulator, **more: Any) -> Any:
    return kind(model="m", api_key=CANARY, base_url=sim.base_url, **more)


@pytest.mark.parametrize("kind", [ForeignChatOpenAI, ChatOpenAI])
async def test_models_of_any_package_are_answered_from_it(sim, everywhere, kind) -> None:
    llm = model(kind, sim)
    first = llm.invoke("why?")
    assert [llm.invoke("why?").content, (await llm.ainvoke("why?")).content] == [first.content] * 2
    assert sim.count() == 1
    llm.invoke("how?")
    model(kind, sim, temperature=1).invoke("why?")
    assert sim.count() == 3
    assert (everywhere.cache.stats.hits, everywhere.cache.stats.misses, everywhere.cache.stats.items) == (2, 3, 3)
    assert everywhere.cache.forget("why?") == 0  # it is LangChain's prompt that counts, which is all of its messages
    everywhere.clear()
    llm.invoke("why?")
    assert sim.count() == 4


def test_a_models_own_cache_and_a_plain_llm(sim) -> None:
    cache = SeawallCache()
    llm = model(ForeignChatOpenAI, sim, cache=cache)
    assert llm.invoke("x").content == llm.invoke("x").content and sim.count() == 1
    fake = FakeListLLM(responses=["one", "two"], cache=cache)
    assert fake.invoke("x") == fake.invoke("x") == "one"


def test_time_and_bounds_are_those_of_the_cache(seawall_clock) -> None:
    cache = SeawallCache(Cache(60, max_items=2))
    for prompt in ("a", "b", "c"):
        cache.update(prompt, "m", [Generation(text=prompt)])
    assert [cache.lookup(prompt, "m") for prompt in ("a", "c")] == [None, [Generation(text="c")]]
    seawall_clock.advance(61)
    assert cache.lookup("c", "m") is None


@pytest.mark.parametrize(
    "generation",
    [
        Generation(text="x", generation_info={"finish_reason": "stop", "n": [1, 2.5, None]}),
        ChatGeneration(message=AIMessage("x", usage_metadata={"input_tokens": 1, "output_tokens": 2, "total_tokens": 3})),
        ChatGeneration(message=AIMessage("", tool_calls=[{"name": "f", "args": {"a": [1]}, "id": "1"}], id="m1")),
        ChatGeneration(message=HumanMessage([{"type": "text", "text": "é"}])),
    ],
)
def test_generations_come_back_from_the_file_as_they_were(tmp_path, generation) -> None:
    for turn in range(2):
        cache = SeawallCache(Cache(path=tmp_path / "cache.db"))
        if turn == 0:
            cache.update("p", "m", [generation])
            assert cache.cache.flush()
        assert cache.lookup("p", "m") == [generation]
        assert cache.lookup("p", "m2") is None


def test_what_json_cannot_say_is_in_memory_only(tmp_path) -> None:
    odd = Generation(text="x", generation_info={"when": object()})
    cache = SeawallCache(Cache(path=tmp_path / "cache.db"))
    cache.update("p", "m", [odd])
    assert cache.lookup("p", "m") == [odd] and cache.cache.flush()
    assert SeawallCache(Cache(path=tmp_path / "cache.db")).lookup("p", "m") is None


def test_it_is_gone_past_and_given_answers_anew(sim, everywhere) -> None:
    llm = model(ForeignChatOpenAI, sim)
    first = llm.invoke("x").response_metadata["id"]
    with cache_bypass():
        assert llm.invoke("x").response_metadata["id"] != first
    assert llm.invoke("x").response_metadata["id"] == first
    with cache_bypass(refresh=True):
        again = llm.invoke("x").response_metadata["id"]
    assert llm.invoke("x").response_metadata["id"] == again != first


def test_what_is_no_cache_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="must be a seawall.Cache"):
        SeawallCache({})  # type: ignore[arg-type]
