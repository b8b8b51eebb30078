"""Redaction that is undone for the caller: what was taken out of a question is put back into its answer, and is nowhere else."""

from __future__ import annotations

import asyncio
import json
import logging
import pickle
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from _canary import CANARY
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessageChunk
from langchain_core.runnables import RunnableLambda
from openai import OpenAI, Stream
from pydantic import BaseModel, field_validator

from seawall import Cache, Guardrails, guard, resilient
from seawall.errors import ConfigurationError, ConfigurationTypeError
from seawall.guardrails import Redact, Shape
from seawall.langchain import ChatOpenAI
from seawall.llm import Chat
from seawall.simulator import Simulator, faults

JANE, JOE = "jane@example.org", "joe@example.com"
RAILS = Guardrails(input=[Redact.personal(restore=True)])


class Contact(BaseModel):
    mail: str

    @field_validator("mail")
    @classmethod
    def is_mail(cls, mail: str) -> str:
        assert "@" in mail
        return mail


def test_what_is_sent_has_placeholders_and_what_comes_back_the_values(sim: Simulator, chat: Callable[..., Chat]) -> None:
    sim.on("m", faults.reply("To [EMAIL_1], cc [EMAIL_2], not [EMAIL_3] or [EMAIL"))
    model = chat(guardrails=RAILS)
    asked = [{"role": "system", "content": JANE}, {"role": "user", "content": f"Mail {JOE} and {JANE}"}]
    reply = model.invoke(asked)
    said = f"To {JANE}, cc {JOE}, not [EMAIL_3] or [EMAIL"
    assert (reply.content, reply.raw["choices"][0]["message"]["content"], reply.choices[0].content) == (said, said, said)
    assert [message["content"] for message in sim.requests[0].body["messages"]] == ["[EMAIL_1]", "Mail [EMAIL_2] and [EMAIL_1]"]
    assert [(done.what, done.times) for done in reply.guardrails] == [("redacted", 3)]
    assert "".join(chunk.content for chunk in model.stream(asked)) == said

    async def streamed() -> str:
        return "".join([chunk.content async for chunk in model.astream(asked)])

    assert asyncio.run(streamed()) == said
    assert JANE.encode() not in b"".join(json.dumps(request.body).encode() for request in sim.requests)


def test_words_that_look_like_placeholders_are_left_to_their_author(sim: Simulator, chat: Callable[..., Chat]) -> None:
    sim.on("m", faults.reply("[EMAIL_1] is [EMAIL_2]"))
    assert chat(guardrails=RAILS).invoke(f"What is [EMAIL_1]? Ask {JANE}").content == f"[EMAIL_1] is {JANE}"
    named = Guardrails(input=[Redact("Acme (Ltd|Inc)", "[our customer]", restore=True), Redact("xyz", "", restore=True)])
    assert named.check_input("Acme Ltd, Acme Inc, xyz") == "[OUR_CUSTOMER_1], [OUR_CUSTOMER_2], [REDACTED_1]"
    with pytest.raises(ConfigurationError, match="output must hold no Redact"):
        Guardrails(output=[Redact.personal(restore=True)])
    with pytest.raises(ConfigurationTypeError, match="restore must be True or False"):
        Redact("x", restore=1)  # type: ignore[arg-type]
    rule = Redact.personal(restore=True)
    assert repr(pickle.loads(pickle.dumps(rule))) == repr(rule) == "Redact.personal(restore=True)"


def test_a_cache_keeps_placeholders_and_gives_each_caller_their_own(
    sim: Simulator, chat: Callable[..., Chat], tmp_path: Path
) -> None:
    sim.on("m", faults.reply("Done: [EMAIL_1]"))
    model = chat(guardrails=RAILS, cache=Cache(path=tmp_path / "kept.db"))
    for stream in (False, True):
        for mail in (JANE, JOE):
            said = "".join(chunk.content for chunk in model.stream(mail)) if stream else model.invoke(mail).content
            assert said == f"Done: {mail}"
    assert sim.count() == 2
    assert not any(mail.encode() in file.read_bytes() for file in tmp_path.iterdir() for mail in (JANE, JOE))
    calls: list[str] = []

    @guard(guardrails=RAILS, cache=Cache())
    def ask(prompt: str) -> str:
        calls.append(prompt)
        return f"Done: {prompt}"

    assert [ask(JANE), ask(JOE)] == [f"Done: {JANE}", f"Done: {JOE}"] and calls == ["[EMAIL_1]"]


def test_shapes_are_held_against_the_values_and_each_reads_their_own(sim: Simulator, chat: Callable[..., Chat]) -> None:
    sim.on("m", faults.reply('{mail: "[EMAIL_1]"}'))
    rails = Guardrails(input=RAILS.input, output=[Shape(Contact, repair=True)])
    model = chat(guardrails=rails, cache=Cache())
    for mail in (JANE, JOE):
        reply = model.invoke(mail)
        assert (reply.parsed(), reply.content) == (Contact(mail=mail), f'{{"mail":"{mail}"}}')
    assert sim.count() == 1
    quoted = Guardrails(input=[Redact('"Jo"', "[name]", restore=True)])
    sim.on("m", faults.reply(tool_calls=[("f", {"a": "[NAME_1]"})]))
    ((_, _, arguments),) = chat(guardrails=quoted).invoke('"Jo"').tool_calls
    assert json.loads(arguments) == {"a": '"Jo"'}
    sim.on("m", faults.reply("no")).on("m", faults.reply('{"mail": 3, "x": "[EMAIL_1]"}'), times=1)
    schema = {"type": "object", "properties": {"x": {"maxLength": 3}}}
    with pytest.raises(Exception, match="shape"):
        chat(guardrails=Guardrails(input=RAILS.input, output=[Shape(schema, reask=1)])).invoke(JANE)
    assert JANE not in json.dumps(sim.requests[-1].body) and len(sim.requests[-1].body["messages"]) == 3


def test_the_values_are_in_no_log_story_pickle_or_journal(
    sim: Simulator, chat: Callable[..., Chat], caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.DEBUG)
    sim.on("m", faults.reply("[EMAIL_1]"))
    model = chat(guardrails=RAILS)
    reply = model.invoke(JANE)
    assert reply.content == JANE
    again = pickle.loads(pickle.dumps(reply))
    assert (again.content, again.guardrails) == ("[EMAIL_1]", reply.guardrails)
    assert JANE.encode() not in pickle.dumps(reply)
    assert JANE not in caplog.text + repr(reply.story) + str(list(reply.attempts))
    results = model.batch([JANE, JOE], journal=tmp_path / "run.db")
    assert [result.content for result in results] == [JANE, JOE]
    assert not any(JANE.encode() in file.read_bytes() for file in tmp_path.iterdir() if file.name != "run.db-shm")


WAYS = ["generator", "given", "iterator", "agenerator", "awaited"]


@pytest.mark.parametrize("way", WAYS)
def test_functions_of_every_kind_give_the_values_back(way: str) -> None:
    seen: list[str] = []

    def pieces(prompt: str) -> Iterator[str]:
        seen.append(prompt)
        yield from ("To [EM", "AIL_1], [", "EMAIL_9]")

    async def apieces(prompt: str) -> AsyncIterator[str]:
        for piece in pieces(prompt):
            yield piece

    async def awaited(prompt: str) -> Any:
        return apieces(prompt)

    async def all_of(items: Any) -> list[str]:
        return [item async for item in (await items if hasattr(items, "__await__") else items)]

    functions: dict[str, Any] = {
        "generator": pieces,
        "given": lambda prompt: pieces(prompt),
        "iterator": lambda prompt: iter(list(pieces(prompt))),
        "agenerator": apieces,
        "awaited": awaited,
    }
    ask = guard(guardrails=RAILS)(functions[way])
    for mail in (JANE, JOE):
        items = list(ask(mail)) if way in WAYS[:3] else asyncio.run(all_of(ask(mail)))
        assert "".join(items) == f"To {mail}, [EMAIL_9]"
    assert list(guard(guardrails=RAILS)(lambda prompt: (piece for piece in "ab"))("nothing")) == ["a", "b"]
    assert seen == ["[EMAIL_1]"] * 2


def test_models_of_langchain_and_clients_of_sdks_give_them_back(sim: Simulator) -> None:
    sim.on("m", faults.reply("Dear [EMAIL_1], hello"))
    model = ChatOpenAI(model="m", api_key=CANARY, base_url=sim.base_url, guardrails=RAILS)
    assert model.invoke(JANE).content == f"Dear {JANE}, hello"
    assert "".join(chunk.content for chunk in model.stream(JANE)) == f"Dear {JANE}, hello"
    asked: Any = {"model": "m", "messages": [{"role": "user", "content": JANE}]}
    with OpenAI(api_key=CANARY, base_url=sim.base_url) as plain:
        client = resilient(plain, guardrails=RAILS)
        assert client.chat.completions.create(**asked).choices[0].message.content == f"Dear {JANE}, hello"
        events = client.chat.completions.create(**asked, stream=True)
        assert isinstance(events, Stream)
        assert "".join(event.choices[0].delta.content or "" for event in events if event.choices) == f"Dear {JANE}, hello"
        raw = client.chat.completions.with_raw_response.create(**asked)
        assert raw.parse().choices[0].message.content == f"Dear {JANE}, hello"
    chain = resilient(RunnableLambda(lambda prompt: AIMessageChunk(f"Dear {prompt}")), guardrails=RAILS)
    assert chain.invoke(JANE).content == f"Dear {JANE}" == "".join(chunk.content for chunk in chain.stream(JANE))
    assert JANE not in "".join(json.dumps(request.body) for request in sim.requests[:3])


@settings(max_examples=60, deadline=None)
@given(
    text=st.lists(st.sampled_from(["[EMAIL_1]", "[EMAIL_2]", "[EMAIL", "_1]", "[", "a", " "]), max_size=8).map("".join),
    cuts=st.lists(st.integers(0, 60), max_size=8),
)
def test_in_pieces_the_same_comes_back_as_of_the_whole(text: str, cuts: list[int]) -> None:
    places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    pieces = [text[start:end] for start, end in zip(places, places[1:], strict=False)]
    whole = guard(guardrails=RAILS)(lambda prompt: text)(f"{JANE} {JOE}")
    assert whole == text.replace("[EMAIL_1]", JANE).replace("[EMAIL_2]", JOE)
    assert "".join(guard(guardrails=RAILS)(lambda prompt: (piece for piece in pieces))(f"{JANE} {JOE}")) == whole
