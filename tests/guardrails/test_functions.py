"""Guardrails around functions: which argument is looked at, what is replaced, and how often a function is asked again."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda
from openai.types.chat import ChatCompletion
from pydantic import BaseModel

from seawall import (
    Cache,
    CircuitBreaker,
    Fallback,
    Guardrails,
    Pipeline,
    PipelineOrderWarning,
    Retry,
    classify,
    guard,
    resilient,
    testing,
)
from seawall.errors import ConfigurationError, ConfigurationTypeError, InputRefusedError, OutputRefusedError, OutputShapeError
from seawall.guardrails import Forbidden, MaxLength, Redact, Shape

RAILS = Guardrails(input=[Redact("secret", "[x]"), Forbidden("forbidden")], output=[Redact("token", "[y]"), Forbidden("bad")])


class Point(BaseModel):
    x: int


def test_the_first_text_is_looked_at_and_what_comes_back_too() -> None:
    seen: list[Any] = []

    @guard(guardrails=RAILS)
    def ask(number: int, prompt: str, *, more: str = "") -> str:
        seen.append((number, prompt, more))
        return f"token {number}"

    assert ask(1, "a secret", more="secret") == "[y] 1"
    assert ask(2, prompt="a secret") == "[y] 2"
    assert seen == [(1, "a [x]", "secret"), (2, "a [x]", "")]
    with pytest.raises(InputRefusedError) as refused:
        ask(1, "forbidden")
    assert (refused.value.rule, len(seen)) == ("forbidden", 2)
    with pytest.raises(ConfigurationTypeError, match="find no text in the call's arguments"):
        ask(1, 2)  # type: ignore[arg-type]


def test_messages_go_before_texts_and_of_names_another() -> None:
    seen: list[Any] = []

    @guard(guardrails=RAILS)
    def ask(model: str, messages: list[Any]) -> str:
        seen.append((model, messages))
        return "ok"

    mine = [{"role": "user", "content": "secret"}]
    ask("secret", messages=mine)
    assert seen == [("secret", [{"role": "user", "content": "[x]"}])] and mine[0]["content"] == "secret"

    @guard(guardrails=Guardrails(input=[Redact("secret", "[x]")], of="prompt"))
    def named(model: str, prompt: str = "") -> str:
        return f"{model} {prompt}"

    assert named("secret", "secret") == "secret [x]" == named("secret", prompt="secret")
    with pytest.raises(ConfigurationError, match="'prompt' .*which the call has not"):
        named("secret")


def test_what_was_done_is_in_the_story_of_a_call() -> None:
    ask = guard(guardrails=RAILS, retry=None, circuit=None)(lambda prompt: "bad" if "x" in prompt else "ok")
    with pytest.raises(OutputRefusedError) as refused:
        ask("a secret")
    story = refused.value.story  # type: ignore[attr-defined]
    assert [(step.event, step.number, step.reason) for step in story] == [
        ("guardrail.redacted", 1, "input"),
        ("guardrail.refused", 0, "output"),
    ]


def test_recorders_hear_what_was_done_with_what_is_asked(
    seawall_events: testing.Events, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="seawall")
    ask = guard(guardrails=RAILS, retry=None, circuit=None, name="mine")(lambda prompt: "ok")
    ask("a secret, a secret")
    with pytest.raises(InputRefusedError):
        ask("forbidden")
    told = [(event.name, event.source, event.attempt, event.reason, event.exception) for event in seawall_events]
    assert told == [
        ("guardrail.redacted", "mine", 2, "input", None),
        ("guardrail.refused", "mine", 0, "input", InputRefusedError),
    ]
    assert [record.getMessage() for record in caplog.records] == [
        "guardrails of 'mine' cut 2 things out of the input",
        "a guardrail of 'mine' refused the input",
    ]


def test_coroutines_too() -> None:
    @guard(guardrails=RAILS)
    async def ask(prompt: str) -> str:
        return f"{prompt} token"

    assert asyncio.run(ask("secret")) == "[x] [y]"


def test_answers_of_clients_are_looked_at_in_their_own_form() -> None:
    completion = ChatCompletion.model_validate(
        {
            "id": "1", "object": "chat.completion", "created": 1, "model": "m",
            "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "a token"}}],
        }
    )  # fmt: skip
    for answer, read in (
        (completion, lambda given: given.choices[0].message.content),
        (completion.model_dump(), lambda given: given["choices"][0]["message"]["content"]),
        (AIMessage("a token"), lambda given: given.content),
        ({"role": "assistant", "content": [{"type": "text", "text": "a token"}]}, lambda given: given["content"][0]["text"]),
    ):
        guarded = guard(guardrails=RAILS)(lambda prompt, answer=answer: answer)
        assert read(guarded("x")) == "a [y]" and read(answer) == "a token"
    with pytest.raises(ConfigurationTypeError, match="find no text in what the function gave"):
        guard(guardrails=RAILS)(lambda prompt: 3)("x")


def test_a_refused_answer_is_final_and_a_breaker_inside_sees_a_success() -> None:
    calls: list[str] = []
    breaker = CircuitBreaker(4, name="inner")

    def ask(prompt: str) -> str:
        calls.append(prompt)
        return "bad"

    guarded = guard(guardrails=RAILS, circuit=breaker, retry=3)(ask)
    with pytest.raises(OutputRefusedError) as refused:
        guarded("x")
    assert (len(calls), breaker.failure_count, classify(refused.value)) == (1, 0, "content_filter")
    assert guard(guardrails=RAILS, fallback=["instead"])(ask)("x") == "instead"
    named = Pipeline(Retry(2, on=OutputRefusedError, wait=0), RAILS)(ask)
    calls.clear()
    with pytest.raises(OutputRefusedError):
        named("x")
    assert len(calls) == 2


@pytest.mark.parametrize(("reask", "attempts", "calls"), [(0, 3, 1), (1, 3, 2), (9, 3, 3)])
def test_a_function_is_told_what_is_wrong_and_asked_again(reask: int, attempts: int, calls: int) -> None:
    asked: list[Any] = []
    rails = Guardrails(output=[Shape(Point, reask=reask)])

    def ask(messages: list[Any]) -> str:
        asked.append(messages)
        return "no"

    with pytest.raises(OutputShapeError) as wrong:
        Pipeline(Retry(attempts, wait=0), rails)(ask)([{"role": "user", "content": "x"}])
    assert [len(messages) for messages in asked] == [1 + 2 * at for at in range(calls)]
    assert classify(wrong.value) == "malformed"


def test_texts_and_messages_of_langchain_are_asked_again_in_their_own_form() -> None:
    rails = Guardrails(output=[Shape(Point, repair=True, reask=1)])
    asked: list[Any] = []

    def ask(prompt: Any) -> AIMessage:
        asked.append(prompt)
        return AIMessage("no" if len(asked) == 1 else "{x: 3}")

    assert guard(guardrails=rails)(ask)("where?").content == '{"x":3}'
    assert "You have answered:\nno" in asked[1] and asked[1].startswith("where?")
    asked.clear()
    assert guard(guardrails=rails)(ask)([HumanMessage("where?")]).content == '{"x":3}'
    assert [type(message) for message in asked[1]] == [HumanMessage, tuple, tuple]
    asked.clear()
    chain = ChatPromptTemplate.from_messages([("human", "{q}")]) | resilient(RunnableLambda(ask), guardrails=rails)
    assert chain.invoke({"q": "where?"}).content == '{"x":3}'


def test_an_alternative_is_asked_as_the_first_was() -> None:
    got: list[str] = []

    def other(prompt: str) -> str:
        got.append(prompt)
        return '{"x": 1}'

    pipeline = Pipeline(Fallback(other), Retry(2, wait=0), Guardrails(output=[Shape(Point, reask=1)]))
    assert pipeline(lambda prompt: "no")("x") == '{"x": 1}' and got == ["x"]


def test_a_cache_outside_goes_by_what_is_asked_and_keeps_what_is_left() -> None:
    calls: list[str] = []
    cache = Cache()

    @guard(guardrails=RAILS, cache=cache)
    def ask(prompt: str) -> str:
        calls.append(prompt)
        return "token"

    assert [ask("secret"), ask("[x]")] == ["[y]", "[y]"] and calls == ["[x]"]


def test_orders_that_are_wrong_are_warned_of() -> None:
    for policies, says in (
        ((RAILS, Retry(2)), "outside the Retry"),
        ((RAILS, Cache()), "outside the Cache"),
        ((CircuitBreaker(9), RAILS), "inside the CircuitBreaker"),
    ):
        with pytest.warns(PipelineOrderWarning, match=f"Guardrails stand {says}"):
            Pipeline(*policies)
    assert "Guardrails" in str(guard(guardrails=RAILS, retry=2).describe())
    with pytest.raises(ConfigurationTypeError, match="guardrails must be"):
        guard(guardrails=[MaxLength(3)])  # type: ignore[arg-type]
