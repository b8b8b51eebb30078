"""Tools and structured output: what is asked of the server, and answers that do not fit."""

from __future__ import annotations

import pytest
from langchain_core.exceptions import OutputParserException
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from seawall.errors import ConfigurationError, InternalServerError
from seawall.simulator import faults

TWICE = {"stop_after_attempt": 2, "wait": 0.001}


class Answer(BaseModel):
    """An answer."""

    text: str
    count: int = Field(ge=1)


class AnswerDict(TypedDict):
    """An answer."""

    text: str
    count: int


SCHEMA = {
    "title": "answer",
    "description": "An answer.",
    "type": "object",
    "properties": {"text": {"type": "string"}, "count": {"type": "integer"}},
    "required": ["text", "count"],
}


@tool
def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


def multiply(a: int, b: int) -> int:
    """Multiplies two numbers.

    Args:
        a: one.
        b: another.
    """
    return a * b


def test_tools_of_every_kind_are_offered(sim, llm):
    raw = {"type": "function", "function": {"name": "raw", "parameters": {"type": "object", "properties": {}}}}
    llm().bind_tools([add, multiply, Answer, raw], parallel_tool_calls=False, strict=True).invoke("hello")
    sent = sim.requests[0].body
    assert [each["function"]["name"] for each in sent["tools"]] == ["add", "multiply", "Answer", "raw"]
    assert sent["tools"][0]["function"]["strict"] is True
    assert sent["parallel_tool_calls"] is False
    assert "tool_choice" not in sent


@pytest.mark.parametrize(
    ("choice", "sent"),
    [
        ("any", "required"),
        ("required", "required"),
        ("auto", "auto"),
        ("none", "none"),
        ("add", {"type": "function", "function": {"name": "add"}}),
        ({"type": "function", "function": {"name": "add"}}, {"type": "function", "function": {"name": "add"}}),
        (True, {"type": "function", "function": {"name": "add"}}),
        (False, None),
        (None, None),
    ],
)
def test_a_tool_choice_is_said_as_the_api_says_it(sim, llm, choice, sent):
    llm().bind_tools([add], tool_choice=choice).invoke("hello")
    assert sim.requests[0].body.get("tool_choice") == sent


def test_a_choice_of_no_tool_is_refused(llm):
    with pytest.raises(ValueError, match="'subtract' is no tool.*'add'"):
        llm().bind_tools([add], tool_choice="subtract")
    with pytest.raises(ValueError, match="there are 2"):
        llm().bind_tools([add, multiply], tool_choice=True)


def test_a_tools_round_trip(sim, llm):
    model = llm().bind_tools([add], tool_choice="any")
    call = model.invoke("what is 1 + 1?")
    assert call.tool_calls[0]["args"] == {"a": 1, "b": 1}
    result = add.invoke(call.tool_calls[0])
    assert isinstance(result, ToolMessage)
    llm().bind_tools([add]).invoke([HumanMessage("what is 1 + 1?"), call, result])
    sent = sim.requests[1].body["messages"]
    assert sent[1]["tool_calls"][0]["id"] == sent[2]["tool_call_id"] == call.tool_calls[0]["id"]


def test_arguments_that_are_no_json_are_an_invalid_call_and_no_error(sim, llm):
    function = {"name": "add", "arguments": "{broken"}
    message = {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "type": "function", "function": function}]}
    reply = {"model": "gpt-4", "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]}
    sim.on("gpt-4", faults.status(200, body=reply))
    answer = llm().bind_tools([add]).invoke("hello")
    assert answer.tool_calls == []
    assert answer.invalid_tool_calls[0]["args"] == "{broken"


@pytest.mark.parametrize("method", ["function_calling", "json_schema"])
@pytest.mark.parametrize("schema", [Answer, AnswerDict, SCHEMA], ids=["pydantic", "typed dict", "json schema"])
async def test_an_answer_has_the_schemas_form(llm, schema, method):
    structured = llm().with_structured_output(schema, method=method)
    answer = {"text": "text", "count": 1}
    expected = Answer(**answer) if schema is Answer else answer
    assert structured.invoke("hello") == expected
    assert await structured.ainvoke("hello") == expected
    assert list(structured.stream("hello"))[-1] == expected


def test_json_mode_parses_whatever_object_comes(sim, llm):
    assert llm().with_structured_output(method="json_mode").invoke("hello")["answer"].startswith("[gpt-4]")
    assert sim.requests[0].body["response_format"] == {"type": "json_object"}


def test_include_raw_gives_the_message_and_what_was_wrong(sim, llm):
    structured = llm().with_structured_output(Answer, include_raw=True)
    good = structured.invoke("hello")
    assert (good["parsed"], good["parsing_error"]) == (Answer(text="text", count=1), None)
    assert good["raw"].response_metadata["served_by"] == "gpt-4"
    sim.on("gpt-4", faults.reply("I would rather talk"))
    bad = structured.invoke("hello")
    assert bad["parsed"] is None
    assert isinstance(bad["parsing_error"], OutputParserException)
    assert bad["raw"].content == "I would rather talk"


@pytest.mark.parametrize("schema", [Answer, AnswerDict], ids=["pydantic", "typed dict"])
def test_an_answer_in_another_form_is_an_error_and_never_none(sim, llm, schema):
    sim.on("gpt-4", faults.reply("I would rather talk"))
    with pytest.raises(OutputParserException, match="I would rather talk"):
        llm().with_structured_output(schema).invoke("hello")


def test_with_retry_around_it_retries_an_answer_that_does_not_parse(sim, llm):
    sim.on("gpt-4", faults.reply("I would rather talk"), times=1)
    assert llm().with_structured_output(Answer).with_retry(**TWICE).invoke("hello") == Answer(text="text", count=1)
    assert sim.count() == 2


def test_with_retry_before_it_retries_the_request_only(sim, llm):
    sim.on("gpt-4", faults.status(500), times=1)
    assert llm().with_retry(**TWICE).with_structured_output(Answer).invoke("hello")
    assert sim.count() == 2


def test_its_alternatives_have_parsers_of_their_own(sim, llm):
    sim.on("gpt-4", faults.status(500))
    chain = llm(max_retries=0).with_structured_output(Answer).with_fallbacks([llm("b").with_structured_output(Answer)])
    assert chain.invoke("hello") == Answer(text="text", count=1)
    assert [request.model for request in sim.requests] == ["gpt-4", "b"]
    before = llm(max_retries=0).with_fallbacks([llm("c")]).with_structured_output(Answer)
    assert before.invoke("hello") == Answer(text="text", count=1)


def test_a_batch_of_it_keeps_every_parsed_answer(sim, llm):
    sim.on("gpt-4", faults.reply("I would rather talk"), times=1, after=1)
    structured = llm().with_structured_output(Answer)
    with pytest.raises(OutputParserException) as raised:
        structured.batch(["a", "b", "c"], {"max_concurrency": 1})
    good = Answer(text="text", count=1)
    assert [good, raised.value, good] == raised.value.results


def test_wrong_arguments_are_refused(llm):
    with pytest.raises(ConfigurationError, match="tools"):
        llm().with_structured_output(Answer, tools=[])
    with pytest.raises(ConfigurationError, match="needs a schema"):
        llm().with_structured_output()
    with pytest.raises(ConfigurationError, match="'yaml'"):
        llm().with_structured_output(Answer, method="yaml")


def test_a_failing_server_is_that_error_and_no_parsing_error(sim, llm):
    sim.on("gpt-4", faults.status(500))
    with pytest.raises(InternalServerError):
        llm(max_retries=0).with_structured_output(Answer, include_raw=True).invoke("hello")
