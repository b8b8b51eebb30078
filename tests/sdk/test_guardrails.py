"""Guardrails of a guarded client: what its requests say and its answers, whole and in pieces."""

from __future__ import annotations

import json
from typing import Any

import anthropic
import openai
import pytest
from _canary import CANARY
from pydantic import BaseModel

import seawall
from seawall import Guardrails, Retry, resilient
from seawall.errors import ConfigurationError, InputRefusedError, OutputRefusedError, OutputShapeError
from seawall.guardrails import Forbidden, Redact, Shape
from seawall.simulator import Simulator, faults

RAILS = Guardrails(input=[Redact("secret", "[x]"), Forbidden("forbidden")], output=[Redact("token", "[y]"), Forbidden("bad")])
ASKED: Any = {"model": "m", "messages": [{"role": "system", "content": "a secret"}, {"role": "user", "content": "secret?"}]}
CLAUDE: Any = {"model": "m", "max_tokens": 9, "system": "a secret", "messages": [{"role": "user", "content": "secret?"}]}


class Point(BaseModel):
    x: int


def guarded(client: Any, rails: Guardrails = RAILS, **more: Any) -> Any:
    return resilient(client, guardrails=rails, **{"retry": Retry(3, wait=0), **more})


def test_chat_completions_are_looked_at_before_and_behind(sim: Simulator, sdk: openai.OpenAI) -> None:
    sim.on("m", faults.reply("a token"))
    client = guarded(sdk)
    answer = client.chat.completions.create(**ASKED)
    assert answer.choices[0].message.content == "a [y]" and answer.usage.total_tokens
    assert [message["content"] for message in sim.requests[0].body["messages"]] == ["a [x]", "[x]?"]
    assert ASKED["messages"][0]["content"] == "a secret"
    with pytest.raises(InputRefusedError) as refused:
        client.chat.completions.create(model="m", messages=[{"role": "user", "content": "forbidden"}])
    assert (refused.value.place, sim.count()) == ("messages[0].content", 1)
    client.chat.completions.create(
        model="m", messages=ASKED["messages"], extra_body={"messages": [{"role": "user", "content": "secret"}]}
    )
    assert sim.requests[1].body["messages"] == [{"role": "user", "content": "[x]"}]
    assert [model.id for model in client.models.list()]  # what says nothing is as it was
    assert client.embeddings.create(model="m", input=["a secret"]).data and sim.requests[-1].body["input"] == ["a [x]"]


async def test_asynchronous_clients_are_alike(sim: Simulator, async_sdk: openai.AsyncOpenAI) -> None:
    sim.on("m", faults.reply("a token"))
    client = guarded(async_sdk)
    assert (await client.chat.completions.create(**ASKED)).choices[0].message.content == "a [y]"
    stream = await client.chat.completions.create(**ASKED, stream=True)
    assert isinstance(stream, openai.AsyncStream)
    assert "".join([event.choices[0].delta.content or "" async for event in stream if event.choices]) == "a [y]"
    raw = await client.chat.completions.with_raw_response.create(**ASKED)
    assert raw.parse().choices[0].message.content == "a [y]" and 'token"' not in raw.text
    sim.on("m", faults.reply("so bad"))
    with pytest.raises(OutputRefusedError):
        await client.chat.completions.create(**ASKED)
    given: list[str] = []
    with pytest.raises(OutputRefusedError) as refused:
        async for event in await client.chat.completions.create(**ASKED, stream=True):
            given.append(event.choices[0].delta.content or "")
    assert "".join(given) == refused.value.partial == "so "


def test_streams_pass_across_their_pieces_and_end_as_they_did(sim: Simulator, sdk: openai.OpenAI) -> None:
    sim.on("m", faults.reply("a token, a tok"))
    client = guarded(sdk)
    stream = client.chat.completions.create(**ASKED, stream=True)
    assert isinstance(stream, openai.Stream)
    events = list(stream)
    assert "".join(event.choices[0].delta.content or "" for event in events if event.choices) == "a [y], a tok"
    ends = [event.choices[0].finish_reason for event in events if event.choices]
    assert ends.count("stop") == 1 and ends[-1] == "stop"
    with client.chat.completions.stream(**ASKED) as helper:
        assert helper.get_final_completion().choices[0].message.content == "a [y], a tok"
    broken = seawall.resilient(sdk, guardrails=RAILS, retry=Retry(2, wait=0))
    sim.clear()
    sim.on("m", faults.reply("a token, and more and more"))
    sim.on("m", faults.cut(0), times=1)
    whole = "".join(event.choices[0].delta.content or "" for event in broken.chat.completions.create(**ASKED, stream=True))
    assert whole == "a [y], and more and more"


def test_an_answer_that_is_refused_is_no_evidence_and_for_the_alternative(sim: Simulator, sdk: openai.OpenAI) -> None:
    sim.on("m", faults.reply("so bad"))
    breaker, watch = seawall.CircuitBreaker(9, name="of a client"), seawall.Monitor()
    client = guarded(sdk, circuit=breaker, monitor=watch)
    for stream in (False, True):
        with pytest.raises(OutputRefusedError) as refused:
            list(client.chat.completions.create(**ASKED, stream=stream))
        assert (refused.value.rule, refused.value.direction) == ("forbidden", "output")
    assert (sim.count(), breaker.failure_count) == (2, 0)
    standing_in = guarded(sdk, fallback=[lambda **asked: sdk.chat.completions.create(**{**asked, "model": "n"}), "bad luck"])
    sim.on("n", faults.reply("a token"))
    assert standing_in.chat.completions.create(**ASKED).choices[0].message.content == "a [y]"
    assert sim.requests[-1].body["messages"][0]["content"] == "a [x]"
    sim.on("n", faults.reply("bad"))
    # A text that was written down is as its author wants it.
    assert standing_in.chat.completions.create(**ASKED).choices[0].message.content == "bad luck"


def test_a_shape_is_mended_or_asked_for_again_within_the_attempts(
    sim: Simulator, sdk: openai.OpenAI, claude: anthropic.Anthropic
) -> None:
    client = guarded(sdk, Guardrails(output=[Shape(Point, repair=True, reask=1)]))
    client._idempotency_header = "Idempotency-Key"  # as some of these SDKs have it
    sim.on("m", faults.reply("Sure: {x: 1}")).on("m", faults.reply("no"), times=1)
    assert client.chat.completions.create(**ASKED).choices[0].message.content == '{"x":1}'
    first, second = sim.requests
    assert [message["role"] for message in second.body["messages"]] == ["system", "user", "assistant", "user"]
    assert second.body["messages"][2]["content"] == "no" and len(first.body["messages"]) == 2
    keys = [request.headers.get("idempotency-key") for request in sim.requests]
    assert keys[0] and keys[1] and keys[0] != keys[1]
    sim.on("m", faults.reply("no"))
    with pytest.raises(OutputShapeError):
        client.chat.completions.create(**ASKED)
    assert sim.count() == 4
    sim.clear()
    sim.on("m", faults.reply("{x: 2}")).on("m", faults.reply("no"), times=1)
    asking = guarded(claude, Guardrails(output=[Shape(Point, repair=True, reask=1)]))
    assert asking.messages.create(**CLAUDE).content[0].text == '{"x":2}' and sim.count() == 6


def test_parsed_answers_and_raw_responses_are_of_what_is_left(sim: Simulator, sdk: openai.OpenAI) -> None:
    class Said(BaseModel):
        what: str

    sim.on("m", faults.reply('{"what": "a token"}'))
    client = guarded(sdk)
    answer = client.chat.completions.parse(**ASKED, response_format=Said)
    assert answer.choices[0].message.parsed == Said(what="a [y]")
    raw = client.chat.completions.with_raw_response.create(**ASKED)
    assert raw.parse().choices[0].message.content == '{"what": "a [y]"}' and "a token" not in raw.text
    assert raw.headers["content-type"].startswith("application/json") and raw.status_code == 200 and raw.elapsed
    with pytest.raises(ConfigurationError, match="with_streaming_response"):
        with client.chat.completions.with_streaming_response.create(**ASKED):
            pass
    with pytest.raises(ConfigurationError, match="with_raw_response"):
        client.chat.completions.with_raw_response.create(**ASKED, stream=True)
    only_input = guarded(sdk, Guardrails(input=RAILS.input))
    with only_input.chat.completions.with_streaming_response.create(**ASKED) as response:
        assert "a token" in response.read().decode()


def test_messages_of_anthropic_are_looked_at_too(sim: Simulator, claude: anthropic.Anthropic) -> None:
    sim.on("m", faults.reply("a token, a tok"))
    client = guarded(claude)
    assert client.messages.create(**CLAUDE).content[0].text == "a [y], a tok"
    assert (sim.requests[0].body["system"], sim.requests[0].body["messages"][0]["content"]) == ("a [x]", "[x]?")
    events = list(client.messages.create(**CLAUDE, stream=True))
    assert "".join(event.delta.text for event in events if event.type == "content_block_delta") == "a [y], a tok"
    assert [event.type for event in events][-3:] == ["content_block_stop", "message_delta", "message_stop"]
    with client.messages.stream(**CLAUDE) as helper:
        assert helper.get_final_text() == "a [y], a tok"
    sim.on("m", faults.reply(tool_calls=[("f", {"a": ["token"]})]))
    assert client.messages.create(**CLAUDE).content[0].input == {"a": ["[y]"]}
    parts: list[str] = []
    for event in client.messages.create(**CLAUDE, stream=True):
        if event.type == "content_block_delta":
            parts.append(event.delta.partial_json)
    assert json.loads("".join(parts)) == {"a": ["[y]"]}


MESSAGE = {"type": "message", "id": "m", "role": "assistant", "status": "completed"}
PART = {"type": "output_text", "text": "a token, a tok", "annotations": []}
RESPONSE: dict[str, Any] = {
    "id": "r", "object": "response", "created_at": 1, "model": "m", "status": "completed", "output": [{**MESSAGE, "content": [PART]}],
    "parallel_tool_calls": False, "tool_choice": "auto", "tools": [],
}  # fmt: skip


def responses(raw: Any, *bodies: Any) -> Any:
    return guarded(openai.OpenAI(api_key=CANARY, base_url=raw(*bodies).base_url))


def test_responses_are_looked_at_too(raw: Any) -> None:
    server = raw(RESPONSE)
    client = guarded(openai.OpenAI(api_key=CANARY, base_url=server.base_url))
    answer = client.responses.create(model="m", instructions="a secret", input=[{"role": "user", "content": "secret?"}])
    assert answer.output_text == "a [y], a tok"
    assert b"a [x]" in server.requests[0].body and b"secret" not in server.requests[0].body
    place = {"item_id": "m", "output_index": 0, "content_index": 0}
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": {**RESPONSE, "status": "in_progress", "output": []}},
        {"type": "response.output_item.added", "output_index": 0, "item": {**MESSAGE, "content": []}},
        {"type": "response.content_part.added", **place, "part": {**PART, "text": ""}},
        *({"type": "response.output_text.delta", **place, "delta": text, "logprobs": []} for text in ("a to", "ken, a", " tok")),
        {"type": "response.output_text.done", **place, "text": PART["text"], "logprobs": []},
        {"type": "response.content_part.done", **place, "part": PART},
        {"type": "response.output_item.done", "output_index": 0, "item": {**MESSAGE, "content": [PART]}},
        {"type": "response.completed", "response": RESPONSE},
    ]
    sent = "".join(
        f"event: {event['type']}\ndata: {json.dumps({'sequence_number': at, **event})}\n\n" for at, event in enumerate(events)
    )
    given = list(responses(raw, sent).responses.create(model="m", input="hi", stream=True))
    assert "".join(event.delta for event in given if event.type == "response.output_text.delta") == "a [y], a tok"
    dumped = [event.model_dump_json() for event in given]
    assert not [event for event in dumped if "ken" in event.replace("tokens", "")]
    with responses(raw, sent).responses.stream(model="m", input="hi") as helper:
        assert helper.get_final_response().output_text == "a [y], a tok"


def test_functions_that_give_a_clients_stream_are_looked_at(sim: Simulator, sdk: openai.OpenAI) -> None:
    sim.on("m", faults.reply("a token, so bad"))

    @seawall.guard(guardrails=RAILS)
    def ask(messages: list[Any]) -> Any:
        return sdk.chat.completions.create(model="m", messages=messages, stream=True)

    given: list[str] = []
    with pytest.raises(OutputRefusedError) as refused:
        given.extend(event.choices[0].delta.content or "" for event in ask(ASKED["messages"]))
    assert "".join(given) == refused.value.partial == "a [y], so "
