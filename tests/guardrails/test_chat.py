"""Guardrails around the native client: what is sent, what is answered, what a refusal costs, and who hears of it."""

from __future__ import annotations

import asyncio
import copy
import json
import logging
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel

from seawall import Cache, CircuitBreaker, Guardrails, Monitor, explain, testing
from seawall.errors import (
    ConfigurationError,
    InputRefusedError,
    OutputRefusedError,
    OutputShapeError,
)
from seawall.guardrails import Detector, Forbidden, MaxLength, Redact, Shape
from seawall.llm import Chat, Embeddings
from seawall.simulator import Simulator, faults

KEY = "sk-" + "proj-" + "aB3dE5gH7jK9mN1pQ2rS4tU6"
SSN = Redact(r"\b\d{3}-\d{2}-\d{4}\b", "[ssn]", name="ssn")


class Person(BaseModel):
    name: str
    age: int


def sent(sim: Simulator) -> list[Any]:
    return [request.body["messages"] for request in sim.requests]


def test_what_is_sent_is_what_the_rules_leave_and_nothing_of_the_callers_changes(
    sim: Simulator, chat: Callable[..., Chat]
) -> None:
    model = chat(guardrails=Guardrails(input=[Redact.secrets(), SSN]))
    messages = [
        {"role": "system", "content": f"The key is {KEY}."},
        {
            "role": "user",
            "content": [{"type": "text", "text": "I am 123-45-6789"}, {"type": "image_url", "image_url": {"url": "data:x"}}],
        },
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": f'{{"k": "{KEY}"}}'}}],
        },
        {"role": "tool", "tool_call_id": "1", "content": "123-45-6789"},
    ]
    before = json.dumps(messages)
    reply = model.invoke(messages)
    assert json.dumps(messages) == before
    (told,) = sent(sim)
    assert told[0]["content"] == "The key is [openai-key]."
    assert told[1]["content"] == [{"type": "text", "text": "I am [ssn]"}, messages[1]["content"][1]]
    assert told[2]["tool_calls"][0]["function"]["arguments"] == '{"k": "[openai-key]"}'
    assert told[3]["content"] == "[ssn]"
    assert reply.guardrails == (("redacted", "input", "secrets", 2), ("redacted", "input", "ssn", 2))
    assert [(step.event, step.number, step.reason) for step in reply.story] == [("guardrail.redacted", 4, "input")]
    assert "cut 4 out of the input" in str(explain(reply))
    assert model.invoke("hello").guardrails == ()


def test_recorders_hear_what_was_cut_out_of_what_is_asked(chat: Callable[..., Chat], seawall_events: testing.Events) -> None:
    model = chat(guardrails=Guardrails(input=[SSN]))
    model.invoke("I am 123-45-6789")
    model.batch(["123-45-6789 and 123-45-6780", "nothing"])
    told = seawall_events.named("guardrail.redacted")
    assert [(event.source, event.attempt, event.reason, event.exception) for event in told] == [
        ("m", 1, "input", None),
        ("m", 2, "input", None),
    ]


def test_a_refusal_of_the_input_costs_no_request_and_is_no_evidence(
    sim: Simulator, chat: Callable[..., Chat], caplog: pytest.LogCaptureFixture, seawall_events: testing.Events
) -> None:
    caplog.set_level(logging.DEBUG)
    breaker, monitor = CircuitBreaker(1, name="b"), Monitor()
    rails = Guardrails(input=[Forbidden("hush", name="secrecy")])
    model = chat(guardrails=rails, circuit=breaker, monitor=monitor).with_fallbacks([chat("other")])
    ways: list[Callable[[], Any]] = [
        lambda: model.invoke("hush hush"),
        lambda: asyncio.run(model.ainvoke("hush hush")),
        lambda: list(model.stream("hush hush")),
        lambda: model.batch(["hello", "hush hush"]),
    ]
    for way in ways:
        with pytest.raises(InputRefusedError) as refused:
            way()
        assert refused.value.rule == "secrecy" and refused.value.place.endswith("messages[0].content")
        assert "hush" not in str(refused.value)
    results = model.batch(["hello", "hush hush"], return_exceptions=True)
    assert isinstance(results[1], InputRefusedError) and results[1].place == "inputs[1].messages[0].content"
    assert (sim.count(), breaker.state, monitor.snapshot()["total"]) == (1, "closed", 1)
    events = [record.__dict__.get("seawall_event") for record in caplog.records]
    assert events.count("guardrail.refused") == 5
    told = seawall_events.named("guardrail.refused")
    assert {(event.source, event.reason, event.exception) for event in told} == {("m", "input", InputRefusedError)} and len(
        told
    ) == 5
    assert "hush" not in caplog.text


def test_the_answer_is_what_the_rules_leave_wherever_it_is_looked_at(sim: Simulator, chat: Callable[..., Chat]) -> None:
    sim.on("m", faults.reply(f"Take {KEY}!", tool_calls=[("f", {"key": KEY})], reasoning=f"They want {KEY}"))
    cache = Cache()
    model = chat(guardrails=Guardrails(output=[Redact.secrets()]), cache=cache)
    for reply in (model.invoke("x"), model.invoke("x"), pickle.loads(pickle.dumps(model.invoke("x")))):
        assert reply.content == "Take [openai-key]!" and reply.reasoning == "They want [openai-key]"
        assert json.loads(reply.tool_calls[0][2]) == {"key": "[openai-key]"}
        assert KEY not in json.dumps(reply.raw) and KEY not in json.dumps(reply.message) and KEY not in repr(reply)
    first = model.invoke("y")
    assert first.guardrails == (("redacted", "output", "secrets", 3),)
    assert ("guardrail.redacted", 3) in [(step.event, step.number) for step in first.story]
    # Another model that shares the cache and looks at nothing is not given what this one has, nor the other way round.
    assert KEY in chat(cache=cache).invoke("x").content
    assert KEY not in model.invoke("x").content and model.invoke("x").cached


def test_a_forbidden_answer_is_not_asked_for_again_and_the_next_alternative_may_help(
    sim: Simulator, chat: Callable[..., Chat]
) -> None:
    sim.on("m", faults.reply("a bad word"))
    breaker = CircuitBreaker(1, name="of m")
    rails = Guardrails(output=[Forbidden("bad", name="words")])
    model = chat(guardrails=rails, circuit=breaker)
    with pytest.raises(OutputRefusedError) as refused:
        model.invoke("x")
    error = refused.value
    assert (error.rule, error.direction, error.place, error.partial) == ("words", "output", "content", None)
    assert [attempt.outcome for attempt in error.attempts] == ["OutputRefusedError"]  # type: ignore[attr-defined]
    assert (sim.count(), breaker.state) == (1, "closed")
    assert model.with_fallbacks([chat("other")]).invoke("x").alternative == 1
    retried = model.with_retry(retry_if_exception_type=(OutputRefusedError,), stop_after_attempt=2, wait=0)
    sim.forget()
    with pytest.raises(OutputRefusedError):
        retried.invoke("x")
    assert sim.count() == 2, "named, it is tried again"
    sim.on("other", faults.reply("worse and bad"))
    with pytest.raises(OutputRefusedError):
        model.with_fallbacks([chat("other")]).invoke("x")


def test_a_wrong_shape_is_asked_for_again_within_the_attempts(sim: Simulator, chat: Callable[..., Chat]) -> None:
    good, wrong = '{"name": "Jo", "age": 3}', '{"name": "Jo", "age": "three"}'
    sim.on("m", faults.reply(good)).on("m", faults.reply(wrong), times=1)
    breaker = CircuitBreaker(1, name="of m")
    reply = chat(guardrails=Guardrails(output=[Shape(Person, reask=1)]), circuit=breaker).invoke("who?")
    assert reply.parsed() == Person(name="Jo", age=3)
    assert reply.attempts == 2 and sim.count() == 2
    assert [step.event for step in reply.story] == ["guardrail.refused", "retry.scheduled"]
    first, second = sent(sim)
    assert second[:1] == first and second[1] == {"role": "assistant", "content": wrong}
    assert "age" in second[2]["content"] and second[2]["role"] == "user"
    assert breaker.state == "closed"


@pytest.mark.parametrize(("reask", "retries", "requests"), [(0, 2, 1), (1, 2, 2), (2, 2, 3), (5, 2, 3), (5, 0, 1)])
def test_a_shape_that_never_comes_costs_no_more_than_was_said(
    sim: Simulator, chat: Callable[..., Chat], reask: int, retries: int, requests: int
) -> None:
    sim.on("m", faults.reply("no"))
    with pytest.raises(OutputShapeError) as wrong:
        chat(guardrails=Guardrails(output=[Shape(Person, reask=reask)]), max_retries=retries).invoke("who?")
    assert sim.count() == requests == len(wrong.value.attempts)  # type: ignore[attr-defined]
    assert [len(messages) for messages in sent(sim)] == [1 + 2 * at for at in range(requests)]


def test_failures_in_between_keep_what_was_said(sim: Simulator, chat: Callable[..., Chat]) -> None:
    sim.on("m", faults.reply('{"name": "Jo", "age": 3}')).on("m", faults.overloaded(), times=2).on(
        "m", faults.reply("no"), times=1
    )
    model = chat(guardrails=Guardrails(output=[Shape(Person, reask=1)])).with_retry(stop_after_attempt=4, wait=0)
    assert model.invoke("who?").parsed().age == 3
    assert [len(messages) for messages in sent(sim)] == [1, 3, 3, 3]


def test_an_alternative_is_asked_as_the_first_was(sim: Simulator, chat: Callable[..., Chat]) -> None:
    sim.on("m", faults.reply("no")).on("other", faults.reply('{"name": "Jo", "age": 3}'))
    model = chat(guardrails=Guardrails(output=[Shape(Person, reask=1)])).with_fallbacks([chat("other")])
    assert model.invoke("who?").alternative == 1
    assert [len(messages) for messages in sent(sim)] == [1, 3, 1]


def test_mended_json_is_marked_and_what_was_cut_short_is_not_mended(sim: Simulator, chat: Callable[..., Chat]) -> None:
    model = chat(guardrails=Guardrails(output=[Shape(Person, repair=True, reask=1)]))
    sim.on("m", faults.reply("```json\n{'name': 'Jo', 'age': 3,}\n```"))
    reply = model.invoke("who?")
    assert reply.content == '{"name":"Jo","age":3}' and reply.parsed() == Person(name="Jo", age=3)
    assert reply.guardrails == (("repaired", "output", "shape", 1),)
    assert [step.event for step in reply.story] == ["guardrail.repaired"] and sim.count() == 1
    sim.on("m", faults.reply('{"name": "Jo", "age": 3', finish_reason="length"))
    with pytest.raises(OutputShapeError, match="cut short"):
        model.invoke("who?")
    assert sim.count() == 2, "asking again would be cut short again"
    sim.on("m", faults.reply(tool_calls=[("f", {})]))
    assert model.invoke("who?").tool_calls, "a call of a tool is no answer yet"


def test_a_stream_gives_out_what_its_rules_leave(sim: Simulator, chat: Callable[..., Chat]) -> None:
    sim.on("m", faults.reply(f"So take {KEY} and go. I am 123-45-6789", tool_calls=[("f", {"key": KEY})], reasoning=f"Hm {KEY}"))
    cache = Cache()
    model = chat(guardrails=Guardrails(output=[Redact.secrets(), SSN]), cache=cache)
    for _ in range(2):
        stream = model.stream("x")
        chunks = list(stream)
        assert "".join(chunk.content for chunk in chunks) == "So take [openai-key] and go. I am [ssn]"
        assert "".join(chunk.reasoning or "" for chunk in chunks) == "Hm [openai-key]"
        arguments = "".join(piece for chunk in chunks for _, _, _, piece in chunk.tool_calls)
        assert json.loads(arguments) == {"key": "[openai-key]"}
        whole = json.dumps([chunk.raw for chunk in chunks])
        assert "aB3dE5" not in whole and "123-45" not in whole
        assert [chunk.finish_reason for chunk in chunks if chunk.finish_reason] == [chunks[-1].finish_reason or "tool_calls"]
    assert stream.cached is True

    async def read() -> str:
        return "".join([chunk.content async for chunk in model.astream("y")])

    assert asyncio.run(read()) == "So take [openai-key] and go. I am [ssn]"


def test_a_stream_hands_out_what_no_rule_can_mean_as_it_comes(sim: Simulator, chat: Callable[..., Chat]) -> None:
    text = "one two three four five six seven"
    sim.on("m", faults.reply(text))
    plain = [chunk.content for chunk in chat().stream("x")]
    railed = [chunk.content for chunk in chat(guardrails=Guardrails(output=[Redact.secrets(), SSN])).stream("x")]
    assert "".join(railed) == text
    pieces = [piece for piece in railed if piece]
    assert len(pieces) > len(plain) // 2 and pieces[0] == "on"


def test_a_refusal_in_the_middle_of_a_stream_is_final_and_says_what_was_given(sim: Simulator, chat: Callable[..., Chat]) -> None:
    sim.on("m", faults.reply("This is fine and that is a bad word, and so on"))
    breaker = CircuitBreaker(1, name="of m")
    rails = Guardrails(output=[Forbidden("bad word", name="words")])
    for on_interrupt in (None, "restart", "continue"):
        sim.forget()
        given = []
        model = chat(guardrails=rails, circuit=breaker, on_interrupt=on_interrupt).with_fallbacks([chat("other")])
        with pytest.raises(OutputRefusedError) as refused:
            given.extend(chunk.content for chunk in model.stream("x"))
        assert refused.value.partial == "This is fine and that is a "
        assert (sim.count(), breaker.state) == (1, "closed")
    sim.on("m", faults.reply("bad word first"))
    assert "".join(chunk.content for chunk in model.stream("x")), "nothing was given out yet: an alternative answers"


def test_what_is_looked_at_as_a_whole_comes_at_the_end_of_a_stream(sim: Simulator, chat: Callable[..., Chat]) -> None:
    sim.on("m", faults.reply("Jo is here, said Jo."))
    find = Detector(lambda text: [(at, at + 2, "name") for at in range(len(text)) if text.startswith("Jo", at)], name="names")
    chunks = list(chat(guardrails=Guardrails(output=[find])).stream("x"))
    assert [chunk.content for chunk in chunks if chunk.content] == ["[name] is here, said [name]."]
    assert chunks[-1].finish_reason == "stop" or chunks[-2].finish_reason == "stop"
    sim.on("m", faults.reply('{"name": "Jo", "age": "x"}'))
    given: list[str] = []
    with pytest.raises(OutputShapeError) as wrong:
        given.extend(chunk.content for chunk in chat(guardrails=Guardrails(output=[Shape(Person, reask=3)])).stream("x"))
    assert wrong.value.partial == '{"name": "Jo", "age": "x"}'


def test_alternatives_have_the_guardrails_of_the_first_model(chat: Callable[..., Chat]) -> None:
    rails = Guardrails(output=[MaxLength(3)])
    chat(guardrails=rails).with_fallbacks([chat("other"), chat("third", guardrails=rails)])
    with pytest.raises(ConfigurationError, match="guardrails of its own"):
        chat().with_fallbacks([chat("other", guardrails=rails)])
    with pytest.raises(ConfigurationError, match="guardrails must be a seawall.Guardrails"):
        chat(guardrails=[MaxLength(3)])
    with pytest.raises(ConfigurationError, match="for the input only"):
        Embeddings("e", api_key="k", guardrails=rails)


def test_embeddings_are_of_what_the_rules_leave(sim: Simulator) -> None:
    model = Embeddings("e", api_key="k", base_url=sim.base_url, guardrails=Guardrails(input=[SSN]))
    model.invoke(["I am 123-45-6789", "hello"])
    assert sim.requests[0].body["input"] == ["I am [ssn]", "hello"]


def test_a_detector_that_is_wrong_ends_the_call_and_is_its_cause(sim: Simulator, chat: Callable[..., Chat]) -> None:
    rails = Guardrails(output=[Detector(lambda text: [(0, 10_000, "x")], name="odd")])
    with pytest.raises(OutputRefusedError) as refused:
        chat(guardrails=rails).invoke("x")
    assert isinstance(refused.value.__cause__, ConfigurationError) and "'odd'" in str(refused.value.__cause__)


class Pickled(BaseModel):
    at: int


def test_copies_and_pickles_of_a_reply_keep_what_was_done_and_read(sim: Simulator, chat: Callable[..., Chat]) -> None:
    class Hidden(BaseModel):
        at: int

    sim.on("m", faults.reply("Here: {at: 3} 123-45-6789"))
    for shape in (Pickled, Hidden):
        reply = chat(guardrails=Guardrails(input=[SSN], output=[SSN, Shape(shape, repair=True)])).invoke("123-45-6789")
        assert [(done.what, done.direction) for done in reply.guardrails] == [
            ("redacted", "input"),
            ("redacted", "output"),
            ("repaired", "output"),
        ]
        for again in (copy.copy(reply), copy.deepcopy(reply), pickle.loads(pickle.dumps(reply))):
            assert (again.guardrails, again.content) == (reply.guardrails, reply.content)
            # What a class that pickle cannot find has read is read as JSON.
            assert again.parsed() == reply.parsed() or (shape is Hidden and again.parsed() == {"at": 3})
