"""In LangChain's agents: tools, failures between two calls of the model, streams, answers in a form, middleware, a checkpoint."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import ModelFallbackMiddleware, ModelRetryMiddleware
from langchain.agents.structured_output import ProviderStrategy, ToolStrategy
from langchain_core.runnables import ConfigurableField
from langgraph.checkpoint.memory import InMemorySaver
from pydantic import BaseModel

from _ways import FAST
from seawall import Retry, errors
from seawall.langchain import resilient
from seawall.simulator import faults

KINDS = {
    "plain": lambda llm: llm(),
    "retry": lambda llm: llm().with_retry(**FAST),
    "fallbacks": lambda llm: llm(max_retries=0).with_fallbacks([llm("b").with_retry(**FAST)]),
    "bound": lambda llm: llm().with_retry(**FAST).bind(temperature=0),
    "configurable": lambda llm: llm().with_retry(**FAST).configurable_fields(temperature=ConfigurableField("t")),
    "resilient": lambda llm: resilient(llm(), retry=Retry(3, **FAST), circuit=None),
}
QUESTION = {"messages": [("user", "how is it in Oslo?")]}


def weather(city: str) -> str:
    """The weather in a city."""
    return f"sunny in {city}"


CALLS_THE_TOOL = faults.reply(tool_calls=[{"name": "weather", "arguments": {"city": "Oslo"}}])


def failing(sim: Any, kind: str) -> None:
    """The model that answers calls the tool, then it says something; before each it fails once."""
    trouble = faults.status(503, headers={"retry-after-ms": "1"})
    model = "gpt-4"
    if kind == "fallbacks":
        sim.on(model, trouble)
        model = "b"
    # A later rule goes before an earlier one.
    sim.on(model, trouble, times=1, after=2)
    sim.on(model, CALLS_THE_TOOL, times=1, after=1)
    sim.on(model, trouble, times=1)


def kinds(answer: Any) -> list[str]:
    return [message.type for message in answer["messages"]]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
async def test_an_agent_uses_its_tools_through_failures(sim, llm, kind, way):
    failing(sim, kind)
    agent = create_agent(KINDS[kind](llm), [weather], system_prompt="Be brief.")
    answer = await agent.ainvoke(QUESTION) if way == "ainvoke" else agent.invoke(QUESTION)
    assert kinds(answer) == ["human", "ai", "tool", "ai"]
    assert answer["messages"][2].content == "sunny in Oslo"
    asked = [request for request in sim.requests if request.status == 200]
    assert (len(asked), sim.count()) == (2, 6 if kind == "fallbacks" else 4)
    for request in sim.requests:
        assert request.body["messages"][0] == {"role": "system", "content": "Be brief."}
        assert [tool["function"]["name"] for tool in request.body["tools"]] == ["weather"]
    assert asked[1].body["messages"][-1]["content"] == "sunny in Oslo"


# LangGraph knows in a node's coroutine whom to tell of pieces from Python 3.11 on: a task's context cannot be given before.
told_of_pieces = pytest.mark.skipif(sys.version_info < (3, 11), reason="LangGraph's asynchronous nodes tell nobody of pieces")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", ["stream", pytest.param("astream", marks=told_of_pieces)])
async def test_its_messages_stream_has_each_piece_once(sim, llm, kind, way):
    failing(sim, kind)
    agent = create_agent(KINDS[kind](llm), [weather])
    modes = {"stream_mode": ["messages", "values"]}
    if way == "stream":
        pieces = list(agent.stream(QUESTION, **modes))
    else:
        pieces = [piece async for piece in agent.astream(QUESTION, **modes)]
    final = pieces[-1][1]["messages"]
    assert kinds({"messages": final}) == ["human", "ai", "tool", "ai"]
    said = [chunk for mode, data in pieces if mode == "messages" for chunk in data[:1]]
    for message in final[1:]:
        own = [chunk for chunk in said if chunk.id == message.id]
        whole = own[0]
        for chunk in own[1:]:
            whole += chunk
        assert whole.content == message.content
        if message.type == "ai":
            assert whole.tool_calls == message.tool_calls
            assert whole.usage_metadata == message.usage_metadata
    assert {chunk.id for chunk in said} == {message.id for message in final[1:]}
    assert len([chunk for chunk in said if chunk.id == final[-1].id]) > 1


@told_of_pieces
@pytest.mark.parametrize("kind", KINDS)
async def test_its_events_end_with_its_answer(sim, llm, kind):
    failing(sim, kind)
    agent = create_agent(KINDS[kind](llm), [weather])
    events = [event async for event in agent.astream_events(QUESTION, version="v2")]
    answer = events[-1]["data"]["output"]["messages"][-1]
    pieces = [event["data"]["chunk"] for event in events if event["event"] == "on_chat_model_stream"]
    assert "".join(piece.content for piece in pieces) == answer.content
    assert [event["name"] for event in events if event["event"] == "on_tool_end"] == ["weather"]


class Weather(BaseModel):
    """What the weather is."""

    city: str
    sunny: bool


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("strategy", [ToolStrategy, ProviderStrategy])
def test_its_answer_has_the_form_asked_for(sim, llm, kind, strategy):
    told = {"city": "Oslo", "sunny": True}
    tool = faults.reply(tool_calls=[{"name": "Weather", "arguments": told}])
    for model in ("gpt-4", "b"):
        sim.on(model, tool if strategy is ToolStrategy else faults.reply('{"city": "Oslo", "sunny": true}'))
        sim.on(model, faults.status(503, headers={"retry-after-ms": "1"}), times=1)
    agent = create_agent(KINDS[kind](llm), [weather], response_format=strategy(Weather))
    assert agent.invoke(QUESTION)["structured_response"] == Weather(**told)


def test_a_failure_for_good_ends_the_agent_after_one_request(sim, llm):
    sim.on("gpt-4", faults.status(401))
    agent = create_agent(llm().with_retry(**FAST), [weather])
    with pytest.raises(errors.AuthenticationError):
        agent.invoke(QUESTION)
    assert sim.count() == 1


@pytest.mark.parametrize(("fault", "requests"), [(faults.status(401), 1), (faults.quota(), 1), (faults.status(500), 3)])
def test_the_retry_middleware_repeats_what_may_pass_and_nothing_else(sim, llm, fault, requests):
    sim.on("gpt-4", fault)
    again = ModelRetryMiddleware(max_retries=2, initial_delay=0, on_failure="error")
    with pytest.raises(errors.APIStatusError):
        create_agent(llm(max_retries=0), [weather], middleware=[again]).invoke(QUESTION)
    assert sim.count() == requests


def test_the_fallback_middleware_takes_the_next_model(sim, llm):
    sim.on("gpt-4", faults.status(500))
    agent = create_agent(llm(max_retries=0), [weather], middleware=[ModelFallbackMiddleware(llm("b").with_retry(**FAST))])
    assert agent.invoke(QUESTION)["messages"][-1].content.startswith("[b]")


def test_a_conversation_goes_on_from_its_checkpoint(sim, llm):
    agent = create_agent(llm().with_retry(**FAST), [], checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "1"}}
    agent.invoke(QUESTION, config)
    sim.on("gpt-4", faults.status(503), times=1)
    assert kinds(agent.invoke({"messages": [("user", "and in Rome?")]}, config)) == ["human", "ai", "human", "ai"]
    assert [len(request.body["messages"]) for request in sim.requests] == [1, 3, 3]


def test_it_answers_out_of_the_cache(sim, llm, cache):
    agent = create_agent(llm().with_retry(**FAST), [])
    first, again = agent.invoke(QUESTION), agent.invoke(QUESTION)
    assert first["messages"][-1].content == again["messages"][-1].content
    assert sim.count() == 1
