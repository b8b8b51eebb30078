"""LangChain models under a RateLimit and a Bulkhead: the same as the native client's."""

from __future__ import annotations

import copy
import pickle

import pytest
from langchain_core.runnables import RunnableLambda

from seawall import Bulkhead, RateLimit, testing
from seawall.langchain import ChatOpenAI, OpenAIEmbeddings, resilient
from seawall.simulator import Simulator


def test_models_wait_for_their_turn_together(seawall_clock: testing.clock, sim: Simulator) -> None:
    limit, bulkhead = RateLimit(60, 100_000), Bulkhead(4, max_queue=10)
    place = {"api_key": "sk-x", "base_url": sim.base_url, "rate_limit": limit, "bulkhead": bulkhead}
    llm = ChatOpenAI(model="m", **place)
    before = seawall_clock.now
    llm.invoke("hello")
    copy.deepcopy(llm).with_retry().bind(temperature=0).invoke("hello")
    assert list(llm.stream("hello"))
    OpenAIEmbeddings(model="e", **place).embed_query("hello")
    assert seawall_clock.now - before == pytest.approx(3 * 60 / 58.8)
    assert (bulkhead.active, len(sim.requests)) == (0, 4)
    assert pickle.loads(pickle.dumps(limit)) is llm.rate_limit


def test_foreign_runnables_are_limited_by_guards_arguments(seawall_clock: testing.clock) -> None:
    limit = RateLimit(60)
    echo = resilient(RunnableLambda(lambda text: text), rate_limit=limit, bulkhead=Bulkhead(1))
    before = seawall_clock.now
    assert [echo.invoke("a"), echo.invoke("b")] == ["a", "b"]
    assert seawall_clock.now - before == pytest.approx(60 / 58.8)
