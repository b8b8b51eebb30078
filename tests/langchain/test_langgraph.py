"""In LangGraph's nodes and LangChain's agents the runs are below the node's, and each token comes once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.runnables import RunnableGenerator, RunnableLambda
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import GraphInterrupt
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import Command, RetryPolicy, interrupt

import seawall
from _ways import FAST
from seawall import CircuitBreaker, Fallback, Monitor, Pipeline, Retry, errors
from seawall.langchain import resilient
from seawall.simulator import faults

KINDS = {
    "plain": lambda llm: llm(),
    "retry": lambda llm: llm().with_retry(**FAST),
    "fallbacks": lambda llm: llm(max_retries=0).with_fallbacks([llm("b")]),
    "resilient": lambda llm: resilient(llm(), retry=Retry(3, **FAST), circuit=None),
}


def graph(model: Any, retry: RetryPolicy | None = None) -> Any:
    async def acall(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    def call(state: MessagesState) -> dict[str, Any]:
        return {"messages": [model.invoke(state["messages"])]}

    building = StateGraph(MessagesState)
    building.add_node("ask", RunnableLambda(call, acall), retry_policy=retry)
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


CALLS_THE_TOOL = faults.reply(tool_calls=[("weather", {"city": "Oslo"})])


@pytest.mark.parametrize("kind", KINDS)
async def test_an_agents_calls_of_the_model_are_below_its_node(sim, llm, runs, kind):
    def weather(city: str) -> str:
        """The weather."""
        return f"sunny in {city}"

    if kind == "fallbacks":
        sim.on("b", CALLS_THE_TOOL, times=1)
    else:
        sim.on("gpt-4", CALLS_THE_TOOL, times=1, after=1)
    sim.on("gpt-4", faults.status(500, headers={"retry-after-ms": "1"}), times=1)
    agent = create_agent(KINDS[kind](llm), [weather])
    answer = await agent.ainvoke({"messages": [("user", "how is it in Oslo?")]}, {"callbacks": [runs]})
    assert [message.type for message in answer["messages"]] == ["human", "ai", "tool", "ai"]
    nodes = [run for run in runs.all if run.name == "model"]
    assert len(nodes) == 2
    for run in chat_runs(runs):
        assert any(run.dotted_order.startswith(node.dotted_order + ".") for node in nodes)


QUESTION = {"messages": [("user", "hello")]}
# Whether the node is run again, which LangGraph decides by the error alone.
FAULTS = {
    "unauthorized": (faults.status(401), False),
    "bad request": (faults.status(400), False),
    "quota": (faults.quota(), False),
    "context window": (faults.context_window(), False),
    "unknown model": (faults.unknown_model(), False),
    "server": (faults.status(500), True),
    "rate limit": (faults.rate_limit(retry_after_ms=1), True),
    "connection": (faults.reset(), True),
    "time": (faults.hang(), True),
    "broken": (faults.broken_json(), True),
}


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
async def test_a_nodes_retry_policy_repeats_what_may_pass_and_nothing_else(sim, llm, name, way):
    fault, again = FAULTS[name]
    sim.on("gpt-4", fault, times=2)
    made = graph(llm(max_retries=0, timeout=0.05 if name == "time" else 10), RetryPolicy(initial_interval=0.001, jitter=False))
    try:
        answer = await made.ainvoke(QUESTION) if way == "ainvoke" else made.invoke(QUESTION)
    except errors.APIError:
        assert (again, sim.count()) == (False, 1)
    else:
        assert "hello" in answer["messages"][-1].content
        assert (again, sim.count()) == (True, 3)


GUARDS = {
    "retry": lambda node: seawall.retry(node, on=(Exception,), wait=0.001),
    "guard": lambda node: seawall.guard(retry=Retry(3, wait=0.001), fallback=[{"messages": []}], circuit=None)(node),
    "resilient": lambda node: resilient(node, retry=Retry(3, wait=0.001), fallback=[lambda state: {"messages": []}]),
    "circuit": lambda node: seawall.circuit(failure_threshold=1)(node),
}


@pytest.mark.parametrize("guard", GUARDS)
def test_a_node_that_waits_for_a_person_does_so_behind_any_policy(guard):
    asked = []

    def approve(state: MessagesState) -> Any:
        asked.append(1)
        said = interrupt("may it be sent?")
        return Command(goto=END, update={"messages": [("ai", said)]})

    building = StateGraph(MessagesState)
    building.add_node("approve", GUARDS[guard](approve))
    building.add_edge(START, "approve")
    made = building.compile(checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "1"}}
    (waiting,) = made.invoke(QUESTION, config)["__interrupt__"]
    assert (waiting.value, len(asked)) == ("may it be sent?", 1)
    assert made.invoke(Command(resume="yes"), config)["messages"][-1].content == "yes"
    assert len(asked) == 2


class Paused(GraphInterrupt):
    pass


async def coroutine() -> None:
    raise Paused


def items() -> Any:
    raise Paused
    yield


async def async_items() -> Any:
    raise Paused
    yield


def block(breaker: CircuitBreaker) -> None:
    with breaker:
        raise Paused


def plain() -> None:
    raise Paused


NEUTRAL = {
    "plain": lambda policy: policy(plain)(),
    "coroutine": lambda policy: asyncio.run(policy(coroutine)()),
    "items": lambda policy: next(policy(items)()),
    "async items": lambda policy: asyncio.run(anext(policy(async_items)())),
    "block": block,
}


@pytest.mark.parametrize("way", NEUTRAL)
def test_an_interrupt_is_no_evidence_for_a_breaker(way):
    # One who asks to be told of all failures, and whose one probe it takes.
    breaker = CircuitBreaker(1, recovery_timeout=0, expected_exception=lambda error: True)
    with pytest.raises(ZeroDivisionError):
        breaker(lambda: 1 / 0)()
    assert breaker.state == "half_open"
    for _ in range(2):
        with pytest.raises(Paused) as raised:
            NEUTRAL[way](breaker)
        assert not hasattr(raised.value, "__notes__")
        assert (breaker.state, breaker.failure_count) == ("half_open", 1)
    assert breaker(lambda: "answer")() == "answer"
    assert breaker.state == "closed"


@pytest.mark.parametrize("way", [way for way in NEUTRAL if way != "block"])
def test_an_interrupt_is_neither_retried_nor_counted(way):
    monitor, asked = Monitor(20), []
    retry = Retry(3, wait=0, on=lambda error: asked.append(error) or True)
    with pytest.raises(Paused):
        NEUTRAL[way](Pipeline(Fallback(["in its place"]), retry, monitor=monitor))
    assert (asked, monitor.snapshot()["total"]) == ([], 0)


def test_an_interrupt_in_a_stream_is_none_of_its_failures():
    def pieces(texts: Any) -> Any:
        yield "one"
        raise GraphInterrupt

    with pytest.raises(GraphInterrupt):
        list(resilient(RunnableGenerator(pieces), retry=None, circuit=None).stream("hello"))
