"""Guardrails of the LangChain layer's models: the same, in LangChain's messages and errors."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.exceptions import ModelError
from langchain_core.messages import HumanMessage
from pydantic import BaseModel

from seawall import Guardrails, errors
from seawall.guardrails import Forbidden, Redact, Shape
from seawall.langchain import ChatOpenAI
from seawall.simulator import Simulator, faults


class Point(BaseModel):
    x: int


def model(sim: Simulator, **options: Any) -> ChatOpenAI:
    return ChatOpenAI(model="m", api_key="k", base_url=sim.base_url, **options)


def test_questions_and_answers_pass_the_rules(sim: Simulator) -> None:
    sim.on("m", faults.reply("a token"))
    rails = Guardrails(input=[Redact("secret", "[x]"), Forbidden("hush")], output=[Redact("token", "[y]")])
    chat = model(sim, guardrails=rails).with_retry(stop_after_attempt=2)
    asked = HumanMessage("a secret")
    assert chat.invoke([asked]).content == "a [y]" and asked.content == "a secret"
    assert "".join(chunk.content for chunk in chat.stream([asked])) == "a [y]"
    assert all(request.body["messages"][0]["content"] == "a [x]" for request in sim.requests)
    with pytest.raises(errors.InputRefusedError):
        chat.invoke("hush")
    assert sim.count() == 2


def test_refusals_are_langchains_errors_too(sim: Simulator) -> None:
    sim.on("m", faults.reply("bad"))
    with pytest.raises(errors.OutputRefusedError) as refused:
        model(sim, guardrails=Guardrails(output=[Forbidden("bad")])).invoke("x")
    assert isinstance(refused.value, ModelError)


def test_a_shape_is_asked_for_again_and_structured_output_is_as_it_was(sim: Simulator) -> None:
    sim.on("m", faults.reply('{"x": 1}')).on("m", faults.reply("no"), times=1)
    chat = model(sim, guardrails=Guardrails(output=[Shape(Point, reask=1)]))
    assert chat.invoke("x").content == '{"x": 1}' and sim.count() == 2
    sim.on("m", faults.reply(tool_calls=[("Point", {"x": 2})]))
    assert chat.with_structured_output(Point, method="function_calling").invoke("x") == Point(x=2)
