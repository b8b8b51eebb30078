"""OpenAI's own SDK against the simulator: tools, logarithms of probabilities, JSON mode, several answers, Azure's paths."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from seawall.simulator import Simulator, faults

ASKED: list[Any] = [{"role": "user", "content": "What is the weather in San Francisco, in celsius?"}]


def tool(name: str, **properties: Any) -> Any:
    parameters = {"type": "object", "properties": properties, "required": list(properties)}
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


WEATHER = tool("get_weather", city={"type": "string"}, unit={"enum": ["fahrenheit", "celsius"]})
TIME = tool("get_time", city={"type": "string"})


@pytest.fixture
def client(sim: Simulator) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=sim.base_url, api_key="k", max_retries=0) as made:
        yield made


def whole_or_pieces(client: openai.OpenAI, stream: bool, **params: Any) -> Any:
    """The completion, put together by the SDK itself where it comes in pieces."""
    params = {"model": "m", "messages": ASKED, **params}
    if not stream:
        return client.chat.completions.create(**params)
    with client.chat.completions.stream(**params) as pieces:
        for _ in pieces:
            pass
        return pieces.get_final_completion()


@pytest.mark.parametrize("stream", [False, True])
def test_a_tool_that_the_question_names_is_called_once_and_its_result_told(client, stream):
    choice = whole_or_pieces(client, stream, tools=[TIME, WEATHER]).choices[0]
    (call,) = choice.message.tool_calls
    assert (choice.finish_reason, choice.message.content, call.function.name) == ("tool_calls", None, "get_weather")
    assert json.loads(call.function.arguments) == {"city": "San Francisco", "unit": "celsius"}
    told = [
        *ASKED,
        {"role": "assistant", "tool_calls": [{"id": call.id, "type": "function", "function": dict(call.function)}]},
        {"role": "tool", "tool_call_id": call.id, "content": "It is sunny."},
    ]
    choice = whole_or_pieces(client, stream, messages=told, tools=[TIME, WEATHER]).choices[0]
    assert (choice.finish_reason, choice.message.tool_calls or None) == ("stop", None)
    assert "It is sunny." in choice.message.content


@pytest.mark.parametrize("stream", [False, True])
def test_several_tools_are_called_at_once_unless_that_is_forbidden(client, stream):
    asked = [{"role": "user", "content": "Weather and time in 'Rome' please"}]
    calls = whole_or_pieces(client, stream, messages=asked, tools=[WEATHER, TIME]).choices[0].message.tool_calls
    assert [call.function.name for call in calls] == ["get_weather", "get_time"]
    assert len({call.id for call in calls}) == 2
    assert json.loads(calls[0].function.arguments)["city"] == "Rome"
    for more in ({"parallel_tool_calls": False}, {"tool_choice": {"type": "function", "function": {"name": "get_weather"}}}):
        calls = whole_or_pieces(client, stream, messages=asked, tools=[WEATHER, TIME], **more).choices[0].message.tool_calls
        assert [call.function.name for call in calls] == ["get_weather"]


def test_a_tool_is_called_only_if_it_is_named_asked_for_or_required(client):
    def called(text: str, choice: Any = "auto") -> list[str]:
        params: Any = {"tools": [TIME, WEATHER], "tool_choice": choice, "messages": [{"role": "user", "content": text}]}
        calls = whole_or_pieces(client, False, **params).choices[0].message.tool_calls
        return [call.function.name for call in calls or []]

    assert called("hello") == []
    assert called("hello", "required") == ["get_time"]
    assert called("how is the weather", "required") == ["get_weather"]
    assert called("how is the weather", "none") == []
    assert called("use a tool") == ["get_time"]


@pytest.mark.parametrize("stream", [False, True])
def test_probabilities_are_told_for_each_token(client, stream):
    choice = whole_or_pieces(client, stream, logprobs=True, top_logprobs=3).choices[0]
    told = choice.logprobs.content
    assert "".join(token.token for token in told) == choice.message.content
    assert all(bytes(token.bytes).decode() == token.token and token.logprob < 0 for token in told)
    assert all(
        [top.logprob for top in token.top_logprobs] == sorted((t.logprob for t in token.top_logprobs), reverse=True)
        for token in told
    )
    assert {len(token.top_logprobs) for token in told} == {3}
    assert whole_or_pieces(client, stream, logprobs=True).choices[0].logprobs.content[0].top_logprobs == []
    assert whole_or_pieces(client, stream).choices[0].logprobs is None


def test_several_answers_come_whole_and_in_pieces_alike(client):
    whole = whole_or_pieces(client, False, n=3)
    pieces = whole_or_pieces(client, True, n=3, stream_options={"include_usage": True})
    assert [c.message.content for c in whole.choices] == [c.message.content for c in pieces.choices]
    assert [c.index for c in pieces.choices] == [0, 1, 2]
    assert len({c.message.content for c in whole.choices}) == 3
    assert whole.usage.total_tokens == pieces.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens


@pytest.mark.parametrize("stream", [False, True])
def test_stop_length_and_seed_are_obeyed(client, stream):
    choice = whole_or_pieces(client, stream, stop=["never", " weather"]).choices[0]
    assert (choice.finish_reason, choice.message.content) == ("stop", "[m] What is the")
    if not stream:  # the SDK raises at the end of a stream that is too long
        choice = whole_or_pieces(client, stream, max_tokens=2).choices[0]
        assert (choice.finish_reason, choice.message.content) == ("length", "[m] What")
    said = {whole_or_pieces(client, stream, seed=seed).choices[0].message.content for seed in (1, 2, 3, 4, 5)}
    assert len(said) > 1
    assert whole_or_pieces(client, stream, seed=3).choices == whole_or_pieces(client, stream, seed=3).choices


def test_json_has_the_keys_asked_for_and_schemas_are_filled_from_the_question(client):
    def said(text: str, form: Any) -> Any:
        params: Any = {"messages": [{"role": "user", "content": text}], "response_format": form}
        return json.loads(whole_or_pieces(client, False, **params).choices[0].message.content)

    assert set(said("A joke as JSON with 'setup' and 'punchline' keys", {"type": "json_object"})) == {"setup", "punchline"}
    assert set(said("hello", {"type": "json_object"})) == {"answer"}
    schema = {"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}}}
    form = {"type": "json_schema", "json_schema": {"name": "person", "schema": schema}}
    assert said("I met Ann Lee, 31 years old", form) == {"name": "Ann Lee", "age": 31}


@pytest.mark.parametrize("stream", [False, True])
def test_a_script_says_calls_thoughts_and_reasons(client, sim, stream):
    sim.on("m", faults.reply("wait", tool_calls=[("f", {"a": "ü"})], reasoning="hm", finish_reason="stop"))
    message = (choice := whole_or_pieces(client, stream).choices[0]).message
    assert (message.content, choice.finish_reason, message.reasoning_content) == ("wait", "stop", "hm")
    assert json.loads(message.tool_calls[0].function.arguments) == {"a": "ü"}
    sim.on("m", faults.reply(tool_calls=[{"name": "g"}]))
    choice = whole_or_pieces(client, stream).choices[0]
    assert (choice.finish_reason, choice.message.tool_calls[0].function.arguments) == ("tool_calls", "{}")


def test_a_request_that_makes_no_sense_is_refused(client):
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    for params, words in (
        ({"messages": [{"role": "robot", "content": "x"}]}, r"messages\[0\].role"),
        ({"messages": [*ASKED, {"role": "tool", "tool_call_id": "c", "content": "x"}]}, "must be a response to a preceding"),
        ({"messages": [*ASKED, {"role": "assistant", "tool_calls": [call]}, *ASKED]}, "did not have response messages: c"),
        ({"tool_choice": "auto"}, "only allowed when 'tools'"),
        ({"tools": [TIME], "tool_choice": {"type": "function", "function": {"name": "f"}}}, "'f' not found"),
        ({"tools": [{"type": "function", "function": {}}]}, r"tools\[0\].function.name"),
        ({"top_logprobs": 2}, "when 'logprobs' is enabled"),
        ({"logprobs": True, "top_logprobs": 21}, "from 0 to 20"),
        ({"n": 0}, "from 1 to 128"),
    ):
        with pytest.raises(openai.BadRequestError, match=words):
            client.chat.completions.create(**{"model": "m", "messages": ASKED, **params})


def test_azures_paths_are_answered(sim):
    with openai.AzureOpenAI(azure_endpoint=sim.origin, api_key="k", api_version="2024-10-21", max_retries=0) as client:
        assert client.chat.completions.create(model="my-gpt", messages=ASKED).choices[0].message.content.startswith("[my-gpt]")
        assert len(client.embeddings.create(model="vectors", input=["a", "b"]).data) == 2
    with openai.AzureOpenAI(azure_endpoint=sim.origin, api_key="k", api_version="", max_retries=0) as client:
        with pytest.raises(openai.NotFoundError, match="api-version"):
            client.chat.completions.create(model="my-gpt", messages=ASKED)
    with openai.OpenAI(base_url=f"{sim.origin}/openai/v1", api_key="k", max_retries=0) as client:
        assert client.chat.completions.create(model="m", messages=ASKED).model == "m"
    assert [request.model for request in sim.requests] == ["my-gpt", "vectors", "my-gpt", "m"]


def test_models_are_listed_and_found_by_names_with_slashes(client):
    with pytest.raises(openai.NotFoundError), Simulator(models=["org/m"]) as sim:
        with openai.OpenAI(base_url=sim.base_url, api_key="k", max_retries=0) as other:
            assert [model.id for model in other.models.list()] == ["org/m"]
            assert other.models.retrieve("org/m").id == "org/m"
            other.models.retrieve("m")


def test_a_server_may_want_no_key(send):
    with Simulator(require_key=False, api_keys=["right"]) as sim:
        with openai.OpenAI(base_url=sim.base_url, api_key="wrong", max_retries=0) as client:
            assert client.chat.completions.create(model="m", messages=ASKED).model == "m"
