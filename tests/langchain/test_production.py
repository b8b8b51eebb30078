"""`create_production_llm`: the document's factory, a Runnable that can also be called."""

from __future__ import annotations

import pytest
from langchain_core.messages import AIMessage
from langchain_core.output_parsers import StrOutputParser
from pydantic import BaseModel

from seawall.errors import CircuitBreakerError, ConfigurationError, InternalServerError
from seawall.langchain import ChatOpenAI, ProductionLLM, create_production_llm
from seawall.simulator import faults

# No waits: the same policies, quicker.
NO_WAIT = {"retry-after-ms": "1"}


@pytest.fixture
def made(sim, key):
    return lambda *arguments, **more: create_production_llm(*arguments, **{"api_key": key, "base_url": sim.base_url, **more})


@pytest.fixture
def down(sim):
    return lambda model: sim.on(model, faults.status(500, headers=NO_WAIT))


def test_it_is_a_chat_model_and_a_function(made):
    llm = made()
    assert isinstance(llm, (ChatOpenAI, ProductionLLM))
    assert isinstance(llm("你好"), AIMessage)
    assert llm("hello").content == llm.invoke("hello").content
    assert (llm | StrOutputParser()).invoke("hello").startswith("[gpt-4]")


def test_five_attempts_then_three_of_the_other_model(sim, made, down):
    down("gpt-4")
    assert made()("hello").response_metadata["attempts"] == 6
    down("gpt-3.5-turbo")
    sim.forget()
    with pytest.raises(InternalServerError):
        made()("hello")
    assert (sim.count("gpt-4"), sim.count("gpt-3.5-turbo")) == (5, 3)


def test_its_arguments_may_be_given_as_the_document_does(sim, made, down):
    down("gpt-4o")
    with pytest.raises(InternalServerError):
        made("gpt-4o", 30, False, False)("hello")
    assert sim.count() == 5
    llm = made("gpt-4o", timeout=5, enable_fallback=True, fallback_model="small", temperature=0.5)
    assert llm.request_timeout == 5
    assert llm("hello").response_metadata["served_by"] == "small"
    assert {request.body["temperature"] for request in sim.requests[5:]} == {0.5}


def test_its_breaker_opens_and_then_only_the_other_model_is_asked(sim, made, down):
    down("gpt-4")
    llm = made()
    for _ in range(4):
        assert llm("hello").response_metadata["served_by"] == "gpt-3.5-turbo"
    assert sim.count("gpt-4") == 20
    assert llm("hello").response_metadata["attempts"] == 1
    assert sim.count("gpt-4") == 20


def test_without_another_model_an_open_breaker_says_so(sim, made, down):
    down("gpt-4")
    llm = made(enable_fallback=False)
    for _ in range(4):
        with pytest.raises(InternalServerError):
            llm("hello")
    with pytest.raises(CircuitBreakerError, match="gpt-4"):
        llm("hello")
    assert sim.count() == 20


def test_without_a_breaker_it_asks_on(sim, made, down):
    down("gpt-4")
    llm = made(enable_circuit_breaker=False)
    for _ in range(6):
        llm("hello")
    assert sim.count("gpt-4") == 30


def test_two_of_them_have_two_breakers(sim, made, down):
    down("gpt-4")
    one, other = made(), made()
    for _ in range(5):
        one("hello")
    before = sim.count("gpt-4")
    other("hello")
    assert sim.count("gpt-4") == before + 5


class Answer(BaseModel):
    """An answer."""

    text: str


def test_the_words_of_a_chat_model_go_on(sim, made, down):
    down("gpt-4")
    assert made().with_structured_output(Answer).invoke("hello") == Answer(text="text")
    assert made().bind_tools([Answer], tool_choice="any").invoke("hello").tool_calls
    once = made(enable_fallback=False).with_retry(stop_after_attempt=1)
    sim.forget()
    with pytest.raises(InternalServerError):
        once("hello")
    assert sim.count() == 1
    assert [answer.content[:15] for answer in made().batch(["a"])] == ["[gpt-3.5-turbo]"]


def test_a_breaker_of_ones_own_is_refused_with_advice(made):
    with pytest.raises(ConfigurationError, match="circuit= to ChatOpenAI"):
        made(circuit=object())
