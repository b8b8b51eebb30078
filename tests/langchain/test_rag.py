"""`ProductionRAG`: a chain that answers with a dict, and a real one made from documents."""

from __future__ import annotations

import asyncio
import threading

import pytest
from langchain_core.documents import Document
from langchain_core.messages import AIMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda

from seawall.errors import APIError, ConfigurationError
from seawall.langchain import ProductionRAG
from seawall.simulator import faults

DOCUMENTS = ["Retries wait longer each time.", "Circuit breakers open after failures.", "Soup is made of potatoes."]


def failing(question):
    raise ConnectionError("no way")


@pytest.fixture
def rag(llm, embeddings):
    once = {"stop_after_attempt": 2, "wait": 0.001}
    return ProductionRAG.from_documents(
        DOCUMENTS,
        embeddings=embeddings(max_retries=0),
        llm=llm().with_retry(**once).with_fallbacks([llm("b").with_retry(**once)]),
        k=1,
    )


def test_it_answers_from_what_it_found(sim, rag):
    told = rag.query("How long do retries wait?")
    assert (told["success"], told["served_by"], told["attempts"]) == (True, "gpt-4", 1)
    assert told["latency"] > 0
    prompt = sim.requests[-1].body["messages"][0]["content"]
    assert "Retries wait longer" in prompt
    assert "How long do retries wait?" in prompt
    assert "Soup" not in prompt
    assert told["answer"].startswith("[gpt-4]")


async def test_the_second_model_answers_when_the_first_is_down(sim, rag):
    sim.on("gpt-4", faults.status(500))
    for told in (rag.query("soup?"), await rag.aquery("soup?")):
        assert (told["success"], told["served_by"], told["attempts"]) == (True, "b", 3)


def test_a_failure_is_a_dict_and_counted(sim, rag):
    sim.on("*", faults.status(500))
    told = rag.query("soup?")
    assert (told["success"], told["error_type"]) == (False, "InternalServerError")
    assert "500" in told["error"]
    assert rag.health()["status"] == "异常"
    assert rag.get_stats()["failure_rate"] == "100.00%"


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("plain", "plain"),
        (AIMessage("message"), "message"),
        (AIMessage([{"type": "text", "text": "block"}]), "block"),
        ({"answer": "in a dict"}, "in a dict"),
        ({"result": AIMessage("deep")}, "deep"),
        (42, "42"),
    ],
)
def test_any_chain_serves(answer, text):
    told = ProductionRAG(RunnableLambda(lambda question: answer)).query("?")
    assert (told["success"], told["answer"]) == (True, text)


def test_stats_and_health_follow_the_documents_table():
    asked = iter([True] * 8 + [False] * 2)
    rag = ProductionRAG(RunnableLambda(lambda question: "yes" if next(asked) else failing(question)))
    assert rag.health() == {"status": "未使用", "total": 0, "success": 0, "failed": 0, "avg_latency": 0.0}
    statuses = []
    for _ in range(10):
        rag.query("?")
        statuses.append(rag.health()["status"])
    assert statuses == ["健康"] * 8 + ["警告"] * 2
    told = rag.get_stats()
    assert (told["total"], told["success_rate"], told["failure_rate"]) == (10, "80.00%", "20.00%")
    assert told["avg_latency"].endswith("s")
    assert rag.stats["failed"] == 2


def test_the_counts_are_true_from_many_threads_and_tasks():
    rag = ProductionRAG(RunnableLambda(lambda question: question if question % 2 else failing(question)))
    threads = [threading.Thread(target=lambda: [rag.query(number) for number in range(50)]) for _ in range(4)]
    for thread in threads:
        thread.start()

    async def all_at_once():
        await asyncio.gather(*(rag.aquery(number) for number in range(50)))

    asyncio.run(all_at_once())
    for thread in threads:
        thread.join()
    assert (rag.stats["success"], rag.stats["failed"]) == (125, 125)


def test_ctrl_c_is_no_failure():
    def interrupted(question):
        raise KeyboardInterrupt

    rag = ProductionRAG(RunnableLambda(interrupted))
    with pytest.raises(KeyboardInterrupt):
        rag.query("?")
    assert rag.stats["total"] == 0


def test_documents_and_prompts_of_ones_own(sim, llm, embeddings):
    rag = ProductionRAG.from_documents(
        [Document("A", metadata={"n": 1}), Document("B")],
        embeddings=embeddings(),
        llm=llm(),
        k=9,
        prompt=ChatPromptTemplate.from_messages([("system", "From: {context}"), ("human", "{question}")]),
    )
    assert rag.query("which?")["success"]
    system, human = sim.requests[-1].body["messages"]
    assert sorted(system["content"].removeprefix("From: ").split("\n")) == ["A", "B"]
    assert human["content"] == "which?"


def test_what_cannot_work_is_refused_at_once(sim, llm, embeddings):
    with pytest.raises(ConfigurationError, match="document"):
        ProductionRAG.from_documents([], embeddings=embeddings(), llm=llm())
    with pytest.raises(ConfigurationError, match="k must"):
        ProductionRAG.from_documents(DOCUMENTS, embeddings=embeddings(), llm=llm(), k=0)
    sim.on("small", faults.status(401))
    with pytest.raises(APIError):
        ProductionRAG.from_documents(DOCUMENTS, embeddings=embeddings(), llm=llm())


def test_bare_it_is_the_documents_models(sim, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-env")
    monkeypatch.setenv("OPENAI_BASE_URL", sim.base_url)
    assert ProductionRAG.from_documents(DOCUMENTS).query("soup?")["served_by"] == "gpt-4"
    assert [request.model for request in sim.requests] == ["text-embedding-ada-002"] * 2 + ["gpt-4"]
