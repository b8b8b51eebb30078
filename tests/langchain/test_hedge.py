"""LangChain models and foreign runnables with a Hedge: the same as the native client's."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.runnables import RunnableLambda

from seawall import Hedge
from seawall.errors import ConfigurationError
from seawall.langchain import ChatOpenAI, OpenAIEmbeddings, resilient
from seawall.simulator import Simulator, faults

FOR_EVER = 600


@pytest.fixture
def place(sim: Simulator) -> dict[str, Any]:
    return {"api_key": "sk-x", "base_url": sim.base_url}


async def test_models_are_hedged_however_they_are_asked(sim: Simulator, place: dict[str, Any]) -> None:
    hedge = Hedge(0.01, budget=1)
    llm = ChatOpenAI(model="m", hedge=hedge, **place)

    async def asked() -> str:
        return (await llm.ainvoke("hello")).content

    async def streamed() -> str:
        return "".join([piece.content async for piece in llm.astream("hello")])

    def plainly() -> Any:
        return llm.with_retry().bind(temperature=0).invoke("hello").content

    for number, ask in enumerate([asked, streamed, plainly, lambda: "".join(p.content for p in llm.stream("hello"))], 1):
        sim.on("m", faults.latency(FOR_EVER), times=1)
        answer = ask()
        assert (answer if isinstance(answer, str) else await answer).startswith("[m] hello")
        sim.wait_aborted(number)
    assert hedge.statistics["wins"] == 4


def test_embeddings_and_seconds(sim: Simulator, place: dict[str, Any]) -> None:
    sim.on("e", faults.latency(FOR_EVER), times=1)
    model = OpenAIEmbeddings(model="e", hedge=0.01, **place)
    assert isinstance(model.hedge, Hedge)
    assert model.embed_query("hello")
    sim.wait_aborted(1)
    with pytest.raises(ConfigurationError, match="hedge must be"):
        ChatOpenAI(model="m", hedge="0.8", **place)


class Runs(BaseCallbackHandler):
    """What is told of a model's runs."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Any]] = []

    def on_chat_model_start(self, serialized: Any, messages: Any, *, run_id: Any, metadata: Any = None, **more: Any) -> None:
        self.told.append(("start", (metadata or {}).get("seawall_attempt")))

    def on_llm_end(self, response: Any, **more: Any) -> None:
        self.told.append(("end", None))

    def on_llm_error(self, error: BaseException, **more: Any) -> None:
        self.told.append(("error", type(error).__name__))


def test_tracers_hear_of_the_attempt_that_took_the_place_of_another(sim: Simulator, place: dict[str, Any]) -> None:
    sim.on("m", faults.latency(FOR_EVER), times=1)
    runs = Runs()
    llm = ChatOpenAI(model="m", hedge=0.01, **place).with_retry(stop_after_attempt=2)
    assert llm.invoke("hello", {"callbacks": [runs]}).content.startswith("[m] hello")
    assert runs.told == [("start", 1), ("error", "CancelledError"), ("start", 2), ("end", None)]


def test_foreign_runnables_are_hedged_by_guards_arguments() -> None:
    released = threading.Event()
    calls: list[int] = []

    def work(text: str) -> str:
        calls.append(1)
        if len(calls) == 1:
            released.wait(60)
        return text

    assert resilient(RunnableLambda(work), hedge=Hedge(0.01, budget=1)).invoke("a") == "a"
    released.set()
    assert len(calls) == 2
