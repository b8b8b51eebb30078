"""In LangGraph's nodes and LangChain's agents the runs are below the node's, and each token comes once."""

from __future__ import annotations

import json
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.runnables import RunnableLambda
from langgraph.graph import END, START, MessagesState, StateGraph

from seawall import Retry
from seawall.langchain import resilient
from seawall.simulator import faults

FAST = {"wait": 0.001}
KINDS = {
    "plain": lambda llm: llm(),
    "retry": lambda llm: llm().with_retry(**FAST),
    "fallbacks": lambda llm: llm(max_retries=0).with_fallbacks([llm("b")]),
    "resilient": lambda llm: resilient(llm(), retry=Retry(3, **FAST), circuit=None),
}


def graph(model: Any) -> Any:
    async def acall(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    def call(state: MessagesState) -> dict[str, Any]:
        return {"messages": [model.invoke(state["messages"])]}

    building = StateGraph(MessagesState)
    building.add_node("ask", RunnableLambda(call, acall))
    building.add_edge(START, "ask")
    building.add_edge("ask", END)
    return building.compile()


def chat_runs(runs: Any) -> list[Any]:
    return [run for run in runs.all if run.run_type == "llm"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
async def test_the_attempts_are_below_the_node(sim, llm, runs, kind, way):
    sim.on("gpt-4", faults.status(500, headers={"retry-after-ms": "1"}), times=1)
    question, config = {"messages": [("user", "hello")]}, {"callbacks": [runs]}
    made = graph(KINDS[kind](llm))
    answer = await made.ainvoke(question, config) if way == "ainvoke" else made.invoke(question, config)
    assert "hello" in answer["messages"][-1].content
    (node,) = [run for run in runs.all if run.name == "ask"]
    below = [run for run in runs.all if run.dotted_order.startswith(node.dotted_order + ".")]
    attempts = [run for run in below if any(tag.startswith("retry:attempt:") for tag in run.tags)]
    assert len(attempts) == 2
    assert [run.error is None for run in attempts] == [False, True]
    assert set(map(id, chat_runs(runs))) <= set(map(id, below))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", ["stream", "astream"])
async def test_its_messages_stream_has_each_token_once(sim, llm, kind, way):
    sim.on("gpt-4", faults.status(500, headers={"retry-after-ms": "1"}), times=1)
    made, question = graph(KINDS[kind](llm)), {"messages": [("user", "hello")]}
    if way == "stream":
        pieces = list(made.stream(question, stream_mode=["messages", "values"]))
    else:
        pieces = [piece async for piece in made.astream(question, stream_mode=["messages", "values"])]
    said = [data for mode, data in pieces if mode == "messages"]
    final = pieces[-1][1]["messages"][-1]
    assert "".join(chunk.content for chunk, _ in said) == final.content
    assert {chunk.id for chunk, _ in said} == {final.id}
    assert all(metadata["langgraph_node"] == "ask" for _, metadata in said)
    assert sum((chunk.usage_metadata or {}).get("total_tokens", 0) for chunk, _ in said) == final.usage_metadata["total_tokens"]


def calls(name: str, **arguments: Any) -> Any:
    """A server's answer that calls a tool."""
    function = {"name": name, "arguments": json.dumps(arguments)}
    message = {"role": "assistant", "content": None, "tool_calls": [{"id": "call-1", "type": "function", "function": function}]}
    choice = {"index": 0, "finish_reason": "tool_calls", "message": message}
    return faults.status(200, body={"id": "r", "model": "gpt-4", "choices": [choice]})


@pytest.mark.parametrize("kind", KINDS)
async def test_an_agents_calls_of_the_model_are_below_its_node(sim, llm, runs, kind):
    def weather(city: str) -> str:
        """The weather."""
        return f"sunny in {city}"

    if kind == "fallbacks":
        sim.on("b", calls("weather", city="Oslo"), times=1)
    else:
        sim.on("gpt-4", calls("weather", city="Oslo"), times=1, after=1)
    sim.on("gpt-4", faults.status(500, headers={"retry-after-ms": "1"}), times=1)
    agent = create_agent(KINDS[kind](llm), [weather])
    answer = await agent.ainvoke({"messages": [("user", "how is it in Oslo?")]}, {"callbacks": [runs]})
    assert [message.type for message in answer["messages"]] == ["human", "ai", "tool", "ai"]
    nodes = [run for run in runs.all if run.name == "model"]
    assert len(nodes) == 2
    for run in chat_runs(runs):
        assert any(run.dotted_order.startswith(node.dotted_order + ".") for node in nodes)
