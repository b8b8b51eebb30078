"""`SelfHealingAgent` answers always, and its counts are true."""

from __future__ import annotations

import asyncio
import threading

import pytest
from langchain_core.messages import HumanMessage
from langchain_core.prompt_values import StringPromptValue
from langchain_core.runnables import RunnableLambda

from seawall.errors import AuthenticationError, ConfigurationError
from seawall.langchain import SelfHealingAgent
from seawall.simulator import Simulator, faults

APOLOGY = "抱歉，服务暂时不可用"


@pytest.fixture
def agent(llm):
    quick = {"wait": 0.001}
    return SelfHealingAgent(
        llm("first").with_retry(stop_after_attempt=3, **quick), llm("second").with_retry(stop_after_attempt=2, **quick)
    )


def counts(agent):
    return {name: count for name, count in agent.stats.items() if count}


def test_the_primary_answers_when_it_can(sim, agent):
    assert agent.get_health_status() == "未使用"
    assert agent.invoke("hello").startswith("[first] hello")
    assert counts(agent) == {"total_requests": 1, "primary_success": 1}
    assert agent.get_health_status() == {
        "status": "健康",
        "success_rate": "100.00%",
        "self_heal_rate": "0.00%",
        "stats": agent.stats,
    }


@pytest.mark.parametrize("awaited", [False, True])
def test_each_way_is_tried_in_turn_and_counted(sim, agent, awaited):
    def ask(prompt):
        return asyncio.run(agent.ainvoke(prompt)) if awaited else agent.invoke(prompt)

    sim.on("first", faults.status(500))
    assert ask("hello").startswith("[second] hello")
    assert (sim.count("first"), sim.count("second")) == (3, 1)
    sim.on("second", faults.status(500), times=2)
    assert ask("hello").startswith("[second] 简单回答: hello")
    assert (sim.count("first"), sim.count("second")) == (6, 4)
    sim.on("second", faults.status(500))
    assert ask("hello") == APOLOGY
    assert (sim.count("first"), sim.count("second")) == (9, 8)
    assert agent.stats == {
        "total_requests": 3,
        "primary_success": 0,
        "fallback_used": 1,
        "self_healed": 1,
        "total_failures": 1,
    }
    assert agent.get_health_status()["success_rate"] == "66.67%"
    assert agent.get_health_status()["status"] == "异常"
    assert type(agent.last_error).__name__ == "InternalServerError"


def test_after_a_wrong_key_nobody_with_that_key_is_asked(llm):
    with Simulator(api_keys=["sk-right"]) as keyed:
        agent = SelfHealingAgent(llm("first", base_url=keyed.base_url), llm("second", base_url=keyed.base_url))
        assert agent.invoke("hello") == APOLOGY
        assert keyed.count() == 1
        assert isinstance(agent.last_error, AuthenticationError)
        other = SelfHealingAgent(
            llm("first", base_url=keyed.base_url), llm("second", base_url=keyed.base_url, api_key="sk-right")
        )
        assert other.invoke("hello").startswith("[second]")


def test_any_runnable_serves(sim, llm):
    def fails(prompt):
        raise ConnectionError

    agent = SelfHealingAgent(RunnableLambda(fails), RunnableLambda(lambda prompt: f"got {prompt}"), simplify=lambda prompt: "x")
    assert agent.invoke("hello") == "got hello"
    assert counts(agent) == {"total_requests": 1, "fallback_used": 1}
    assert SelfHealingAgent(RunnableLambda(fails), RunnableLambda(fails), apology="sorry").invoke("hello") == "sorry"


@pytest.mark.parametrize(
    "prompt", [[HumanMessage("hello")], [("system", "be brief"), ("human", "hello")], StringPromptValue(text="hello")]
)
def test_messages_are_simplified_to_what_was_asked(sim, agent, prompt):
    sim.on("first", faults.status(500))
    sim.on("second", faults.status(500), times=2)
    assert agent.invoke(prompt).startswith("[second] 简单回答: hello —")


def test_simplify_says_where_the_prompt_goes(sim, llm):
    sim.on("first", faults.status(500))
    sim.on("second", faults.status(500), times=1)
    once = {"stop_after_attempt": 1}
    agent = SelfHealingAgent(llm("first").with_retry(**once), llm("second").with_retry(**once), simplify="In a word: {}")
    assert agent.invoke("why?").startswith("[second] In a word: why?")
    with pytest.raises(ConfigurationError, match="simplify"):
        SelfHealingAgent(llm(), llm(), simplify="In a word")


def test_ctrl_c_is_no_answer_and_no_failure(llm):
    def interrupted(prompt):
        raise KeyboardInterrupt

    agent = SelfHealingAgent(RunnableLambda(interrupted), llm())
    with pytest.raises(KeyboardInterrupt):
        agent.invoke("hello")
    assert counts(agent) == {"total_requests": 1}


def test_the_counts_are_true_from_many_threads(sim, llm):
    sim.on("first", faults.status(500), probability=0.5)
    once = {"stop_after_attempt": 1}
    agent = SelfHealingAgent(llm("first").with_retry(**once), llm("second").with_retry(**once))
    answers = []

    def ask():
        for _ in range(10):
            answers.append(agent.invoke("hello")[:8])

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stats = agent.stats
    assert stats["total_requests"] == 80 == stats["primary_success"] + stats["fallback_used"]
    assert stats["primary_success"] == answers.count("[first] ")
    assert stats["fallback_used"] == answers.count("[second]") > 0


def test_bare_it_is_the_documents_two_models(sim, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-env")
    monkeypatch.setenv("OPENAI_BASE_URL", sim.base_url)
    assert SelfHealingAgent().invoke("hello").startswith("[gpt-4]")
