"""Anthropic's messages, asked by Anthropic's own SDK."""

from __future__ import annotations

import http.client
import json
from typing import Any

import anthropic
import pytest

from seawall.simulator import Simulator, faults

ASKED: list[Any] = [{"role": "user", "content": "What is the weather in San Francisco?"}]
WEATHER: Any = {
    "name": "get_weather",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
PLAIN: Any = {"model": "claude", "max_tokens": 100, "messages": ASKED}


@pytest.fixture
def client(sim: Simulator):
    with anthropic.Anthropic(base_url=sim.origin, api_key="k", max_retries=0) as made:
        yield made


def test_an_answer_is_the_same_whole_and_in_pieces(client, sim):
    whole = client.messages.create(**PLAIN)
    assert whole.content[0].text.startswith("[claude] What is the weather in San Francisco?")
    assert (whole.stop_reason, whole.usage.input_tokens > 0, whole.usage.output_tokens > 0) == ("end_turn", True, True)
    with client.messages.stream(**PLAIN) as stream:
        assert "".join(stream.text_stream) == whole.content[0].text
        final = stream.get_final_message()
    assert (final.stop_reason, final.usage.output_tokens) == (whole.stop_reason, whole.usage.output_tokens)
    assert whole._request_id == "req_1"
    assert [request.model for request in sim.requests] == ["claude", "claude"]


def test_a_stream_has_the_protocols_events_in_order(client):
    names = [event.type for event in client.messages.create(**PLAIN, stream=True)]
    assert names[:2] == ["message_start", "content_block_start"]
    assert names[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert set(names[2:-3]) == {"content_block_delta"}


def test_a_tool_is_called_and_its_result_is_told(client):
    for stream in (False, True):
        if stream:
            with client.messages.stream(**PLAIN, tools=[WEATHER]) as pieces:
                called = pieces.get_final_message()
        else:
            called = client.messages.create(**PLAIN, tools=[WEATHER])
        (call,) = called.content
        assert (called.stop_reason, call.name, call.input) == ("tool_use", "get_weather", {"city": "San Francisco"})
        result = {"type": "tool_result", "tool_use_id": call.id, "content": "It is sunny."}
        told = [*ASKED, called.to_param(), {"role": "user", "content": [result]}]
        answer = client.messages.create(**{**PLAIN, "messages": told}, tools=[WEATHER])
        assert (answer.stop_reason, "It is sunny." in answer.content[0].text) == ("end_turn", True)
    forced = client.messages.create(
        model="claude",
        max_tokens=9,
        messages=[{"role": "user", "content": "hello"}],
        tools=[WEATHER],
        tool_choice={"type": "tool", "name": "get_weather"},
    )
    assert forced.content[0].input == {"city": "text"}


def test_stop_sequences_limits_and_thinking_are_obeyed(client):
    stopped = client.messages.create(**PLAIN, stop_sequences=["never", " weather"])
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", " weather")
    assert stopped.content[0].text == "[claude] What is the"
    cut = client.messages.create(**{**PLAIN, "max_tokens": 3})
    assert (cut.stop_reason, len(cut.content[0].text)) == ("max_tokens", 12)
    with client.messages.stream(**{**PLAIN, "max_tokens": 2000}, thinking={"type": "enabled", "budget_tokens": 1024}) as stream:
        thought = stream.get_final_message()
    assert [block.type for block in thought.content] == ["thinking", "text"]
    assert client.messages.count_tokens(model="claude", messages=ASKED).input_tokens == cut.usage.input_tokens
    assert [model.id for model in client.models.list()] == ["claude"]


@pytest.mark.parametrize(
    ("fault", "error", "kind"),
    [
        (faults.status(400), anthropic.BadRequestError, "invalid_request_error"),
        (faults.status(401), anthropic.AuthenticationError, "authentication_error"),
        (faults.status(403), anthropic.PermissionDeniedError, "permission_error"),
        (faults.unknown_model(), anthropic.NotFoundError, "not_found_error"),
        (faults.status(413), anthropic.APIStatusError, "request_too_large"),
        (faults.rate_limit(3), anthropic.RateLimitError, "rate_limit_error"),
        (faults.quota(), anthropic.RateLimitError, "rate_limit_error"),
        (faults.status(500), anthropic.InternalServerError, "api_error"),
        (faults.status(504), anthropic.InternalServerError, "timeout_error"),
        (faults.overloaded(), anthropic.InternalServerError, "overloaded_error"),
        (faults.status(400, error_type="billing_error"), anthropic.BadRequestError, "billing_error"),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_errors_are_those_of_the_protocol(client, sim, fault, error, kind):
    sim.on("claude", fault)
    for stream in (False, True):
        with pytest.raises(error) as raised:
            client.messages.create(**PLAIN, stream=stream)
        body = raised.value.body
        assert (body["type"], body["error"]["type"], body["request_id"]) == ("error", kind, raised.value.request_id)
    if fault.name == "rate limit":
        assert raised.value.response.headers["retry-after"] == "3"


def test_a_stream_breaks_as_the_protocol_breaks(client, sim):
    sim.on("claude", faults.cut(2, "error"))
    with pytest.raises(anthropic.APIStatusError) as raised:
        list(client.messages.create(**PLAIN, stream=True))
    assert raised.value.body["error"]["type"] == "overloaded_error"
    sim.on("claude", faults.cut(2, "reset"))
    with pytest.raises(Exception, match="reset|peer|incomplete"):
        list(client.messages.create(**PLAIN, stream=True))
    sim.on("claude", faults.no_done())
    assert [e.type for e in client.messages.create(**PLAIN, stream=True)][-1] == "message_delta"
    sim.on("claude", faults.done_only())
    assert [e.type for e in client.messages.create(**PLAIN, stream=True)][-1:] == ["message_stop"]
    sim.on("claude", faults.empty_choices())
    assert [e.type for e in client.messages.create(**PLAIN, stream=True)] == ["message_start", "message_delta", "message_stop"]
    assert client.messages.create(**PLAIN).content == []


def test_a_script_says_texts_calls_and_thoughts(client, sim):
    calls = [("one", {"a": 1}), {"name": "two", "arguments": {"b": [2]}}]
    sim.on("claude", faults.reply("Let me see.", tool_calls=calls, reasoning="hm"))
    for stream in (False, True):
        if stream:
            with client.messages.stream(**PLAIN) as pieces:
                said = pieces.get_final_message()
        else:
            said = client.messages.create(**PLAIN)
        assert [block.type for block in said.content] == ["thinking", "text", "tool_use", "tool_use"]
        assert [(block.name, block.input) for block in said.content[2:]] == [("one", {"a": 1}), ("two", {"b": [2]})]


@pytest.mark.parametrize(
    ("body", "headers", "status", "words"),
    [
        ({**PLAIN, "max_tokens": 0}, {}, 400, "max_tokens"),
        ({"model": "claude", "messages": ASKED}, {}, 400, "max_tokens: Field required"),
        ({"max_tokens": 9, "messages": ASKED}, {}, 400, "model: Field required"),
        ({"model": "claude", "max_tokens": 9}, {}, 400, "messages: Field required"),
        ({**PLAIN, "messages": []}, {}, 400, "at least one message"),
        ({**PLAIN, "messages": [{"role": "system", "content": "x"}]}, {}, 400, "messages.0.role"),
        (
            {
                **PLAIN,
                "messages": [{"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "x", "input": {}}]}],
            },
            {},
            400,
            "without `tool_result` blocks",
        ),
        (PLAIN, {"anthropic-version": None}, 400, "anthropic-version"),
        (PLAIN, {"x-api-key": None}, 401, "x-api-key header is required"),
        (PLAIN, {"x-api-key": "bad"}, 401, "Incorrect API key"),
        ({**PLAIN, "model": "other"}, {}, 404, "model: other"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_request_is_refused_in_its_words(body, headers, status, words):
    with Simulator(models=["claude"], api_keys=["k"]) as sim:
        connection = http.client.HTTPConnection(sim.origin.removeprefix("http://"), timeout=20)
        sent = {"x-api-key": "k", "anthropic-version": "2023-06-01", **headers}
        connection.request("POST", "/v1/messages", json.dumps(body), {k: v for k, v in sent.items() if v is not None})
        answer = connection.getresponse()
        error = json.loads(answer.read())
        connection.close()
        assert (answer.status, error["type"], words in error["error"]["message"]) == (status, "error", True), error
