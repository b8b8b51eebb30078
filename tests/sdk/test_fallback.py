"""What stands in for a client: other clients, functions, answers, texts."""

from __future__ import annotations

import io
import json
from typing import Any

import anthropic
import openai
import pydantic
import pytest
from langchain_core.runnables import RunnableLambda

import seawall
from seawall.errors import ConfigurationError, ConfigurationTypeError, StreamInterruptedError
from seawall.langchain import ChatOpenAI, create_production_llm
from seawall.simulator import Simulator, faults

ASKED: Any = [{"role": "user", "content": "hello there"}]
PLAIN: Any = {"model": "gpt-4", "messages": ASKED}
CLAUDE: Any = {"model": "claude", "max_tokens": 100, "messages": ASKED}


@pytest.fixture
def other():
    with Simulator(seed=7) as simulator:
        yield simulator


def guarded(client: Any, *fallback: Any, **more: Any) -> Any:
    return seawall.resilient(client, retry=seawall.Retry(2, wait=0), circuit=None, fallback=list(fallback), **more)


def content(answer: Any) -> str:
    return answer.choices[0].message.content


def text(pieces: Any) -> str:
    return "".join(piece.choices[0].delta.content or "" for piece in pieces)


def test_another_client_is_sent_the_same_request(sim, sdk, other):
    sim.on("gpt-4", faults.status(500))
    backup = openai.OpenAI(api_key="other", base_url=other.base_url, max_retries=5)
    client = guarded(sdk, backup)
    assert "hello there" in content(client.chat.completions.create(**PLAIN))
    assert "hello there" in text(client.chat.completions.create(**PLAIN, stream=True))
    assert (sim.count(), other.count()) == (4, 2) and other.requests[0].body == sim.requests[0].body
    # Its own retries are off as well, and it is not changed.
    other.on("gpt-4", faults.status(503))
    with pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(**PLAIN)
    assert caught.value.status_code == 500 and other.count() == 3 and backup.max_retries == 5
    assert [error.status_code for error in caught.value.alternatives] == [503]


def test_where_another_client_asks_is_shown_without_what_it_says_in_secret(sdk):
    backup = openai.OpenAI(api_key="k", base_url="http://me:very-secret@127.0.0.1:9/v1?key=very-secret")
    shown = guarded(sdk, backup).pipeline.describe()
    assert "OpenAI(http://127.0.0.1:9/v1/)" in shown and "secret" not in shown


def test_another_client_keeps_its_own_timeout(sim, sdk, other):
    sim.on("gpt-4", faults.status(500))
    backup = openai.OpenAI(api_key="other", base_url=other.base_url, timeout=30)
    guarded(sdk.with_options(timeout=5), backup, deadline=60).chat.completions.create(**PLAIN)
    told = [simulator.requests[0].headers["x-stainless-read-timeout"] for simulator in (sim, other)]
    assert told[0] == "5" and float(told[1]) == 30


def test_a_guarded_client_stands_in_with_its_own_policies(sim, sdk, other):
    sim.on("gpt-4", faults.status(500))
    other.on("gpt-4", faults.html(), times=2)
    backup = seawall.resilient(openai.OpenAI(api_key="other", base_url=other.base_url), retry=seawall.Retry(3, wait=0))
    assert content(guarded(sdk, backup).chat.completions.create(**PLAIN)) and other.count() == 3


def test_a_good_status_without_an_answer_does_not_stand_in(sim, sdk, other):
    sim.on("gpt-4", faults.status(500))
    other.on("gpt-4", faults.empty_choices())
    with pytest.raises(openai.InternalServerError):
        guarded(sdk, openai.OpenAI(api_key="other", base_url=other.base_url)).chat.completions.create(**PLAIN)


def test_a_wrong_key_goes_only_to_other_credentials(sdk, other):
    with Simulator(api_keys={"right"}) as locked:
        wrong, right = (openai.OpenAI(api_key=key, base_url=locked.base_url) for key in ("wrong", "right"))
        assert content(guarded(wrong, right).chat.completions.create(**PLAIN))
        locked.forget()
        with pytest.raises(openai.AuthenticationError):
            guarded(wrong, wrong.copy()).chat.completions.create(**PLAIN)
        assert locked.count() == 1


def test_a_stream_falls_back_before_its_first_content_only(sim, sdk, other):
    backup = openai.OpenAI(api_key="other", base_url=other.base_url)
    sim.on("gpt-4", faults.cut(0))
    assert "hello there" in text(guarded(sdk, backup).chat.completions.create(**PLAIN, stream=True))
    assert (sim.count(), other.count()) == (2, 1)
    sim.on("gpt-4", faults.cut(2))
    with pytest.raises(StreamInterruptedError):
        text(guarded(sdk, backup).chat.completions.create(**PLAIN, stream=True))
    assert other.count() == 1


async def test_asynchronous_alternatives_are_awaited(sim, async_sdk, opened, other):
    sim.on("gpt-4", faults.status(500))
    backup = opened(openai.AsyncOpenAI(api_key="other", base_url=other.base_url))

    async def smaller(**asked: Any) -> Any:
        return await backup.chat.completions.create(**{**asked, "model": "small"})

    for fallback in (backup, smaller, lambda **asked: backup.chat.completions.create(**asked)):
        client = guarded(async_sdk, fallback)
        assert "hello there" in content(await client.chat.completions.create(**PLAIN))
        for fault in (faults.status(500), faults.cut(0)):
            sim.on("gpt-4", fault)
            stream = await client.chat.completions.create(**PLAIN, stream=True)
            assert "hello there" in "".join([piece.choices[0].delta.content or "" async for piece in stream])
    assert {request.model for request in other.requests} == {"gpt-4", "small"}
    sim.on("gpt-4", faults.cut(0))
    stream = await guarded(async_sdk, "sorry").chat.completions.create(**PLAIN, stream=True)
    assert "".join([piece.choices[0].delta.content or "" async for piece in stream]) == "sorry"
    assert content(await guarded(async_sdk, "sorry").chat.completions.create(**PLAIN)) == "sorry"


def test_another_client_is_sent_the_same_content(sim, sdk, other):
    sim.on("gpt-4", faults.status(500))
    backup = openai.OpenAI(api_key="other", base_url=other.base_url)
    guarded(sdk, backup).post("/chat/completions", content=io.BytesIO(json.dumps(PLAIN).encode()), cast_to=object)
    assert [request.body for request in (*sim.requests, *other.requests)] == [PLAIN] * 3


def test_another_client_is_sent_the_same_file(raw):
    good = {"id": "f", "object": "file", "bytes": 1, "created_at": 1, "filename": "x", "purpose": "batch", "status": "processed"}
    broken, backup = raw("nothing of use"), raw(good)
    primary, other = (openai.OpenAI(api_key=url, base_url=url) for url in (broken.base_url, backup.base_url))
    assert guarded(primary, other).files.create(file=("x", io.BytesIO(b"content")), purpose="batch").id == "f"
    assert [b"content" in request.body for server in (broken, backup) for request in server.requests] == [True] * 3


def test_a_clients_pipeline_may_be_another_clients_too(sim, sdk, other):
    sim.on("gpt-4", faults.status(500))
    first = guarded(sdk, openai.OpenAI(api_key="other", base_url=other.base_url), "sorry", lambda **asked: None)
    second = seawall.resilient(sdk.with_options(timeout=5), first.pipeline)
    assert "hello there" in content(second.chat.completions.create(**PLAIN)) and (sim.count(), other.count()) == (2, 1)


def test_a_function_is_called_with_what_create_was_given(sim, sdk, other):
    sim.on("gpt-4", faults.status(500))
    backup = openai.OpenAI(api_key="other", base_url=other.base_url)
    client = guarded(sdk, lambda **asked: backup.chat.completions.create(**{**asked, "model": "small"}))
    assert "[small] hello there" in content(client.chat.completions.create(**PLAIN, temperature=0.5))
    assert "[small] hello there" in text(client.chat.completions.create(**PLAIN, stream=True))
    assert other.requests[0].body == {"model": "small", "messages": ASKED, "temperature": 0.5}
    client.chat.completions.create(**PLAIN, extra_body={"top_k": 4})
    assert other.requests[-1].body == {"model": "small", "messages": ASKED, "top_k": 4}


def test_a_text_stands_in_as_an_answer(sim, sdk, claude):
    sim.on("*", faults.status(500))
    client = guarded(sdk, "sorry")
    answer = client.chat.completions.create(**PLAIN)
    assert (content(answer), answer.id, answer.model) == ("sorry", "seawall-fallback", "seawall-fallback")
    assert isinstance(answer, openai.types.chat.ChatCompletion)
    assert text(client.chat.completions.create(**PLAIN, stream=True)) == "sorry"
    with client.chat.completions.stream(**PLAIN) as stream:
        assert content(stream.get_final_completion()) == "sorry"
    assert content(client.chat.completions.with_raw_response.create(**PLAIN).parse()) == "sorry"
    assert client.responses.create(model="gpt-4", input="hi").output_text == "sorry"
    with client.responses.stream(model="gpt-4", input="hi") as events:
        assert events.get_final_response().output_text == "sorry"
    messages = guarded(claude, "sorry").messages
    assert messages.create(**CLAUDE).content[0].text == "sorry"
    with messages.stream(**CLAUDE) as pieces:
        assert pieces.get_final_text() == "sorry"


def test_what_is_no_answer_to_the_question_does_not_stand_in(sim, sdk):
    sim.on("*", faults.status(500))
    whole = guarded(sdk, "sorry").chat.completions.create(**PLAIN)
    for fallback, ask, kind in (
        ("sorry", lambda client: client.embeddings.create(model="m", input="a"), "str"),
        (whole, lambda client: client.models.list(), "ChatCompletion"),
        (whole, lambda client: client.chat.completions.create(**PLAIN, stream=True), "ChatCompletion"),
        (lambda **asked: "sorry", lambda client: client.embeddings.create(model="m", input="a"), "str"),
        (lambda **asked: 7, lambda client: client.chat.completions.create(**PLAIN), "int"),
        (whole, lambda client: client.chat.completions.with_raw_response.create(**PLAIN), "ChatCompletion"),
    ):
        with pytest.raises(openai.InternalServerError) as caught:
            ask(guarded(sdk, fallback))
        (error,) = caught.value.alternatives
        assert isinstance(error, ConfigurationTypeError) and f"fallback 1 gave {kind}, which is no answer to" in str(error)
    with pytest.raises(openai.InternalServerError) as caught:
        guarded(sdk, lambda **asked: whole).models.list()
    assert "a function of a body, which GET /models does not have" in str(caught.value.alternatives[0])
    assert guarded(sdk, whole).chat.completions.create(**PLAIN) is whole


def test_an_alternatives_answer_is_parsed_as_the_primarys_would_be(sim, sdk):
    class Reply(pydantic.BaseModel):
        answer: str

    sim.on("gpt-4", faults.status(500))
    client = guarded(sdk, "no JSON", '{"answer": "sorry"}')
    parsed = client.chat.completions.parse(**PLAIN, response_format=Reply)
    assert parsed.choices[0].message.parsed == Reply(answer="sorry")


def test_a_pipelines_fallbacks_are_the_clients(sim, sdk):
    sim.on("gpt-4", faults.status(500))
    pipeline = seawall.Pipeline(seawall.Fallback("sorry"), seawall.Retry(2, wait=0))
    assert content(seawall.resilient(sdk, pipeline).chat.completions.create(**PLAIN)) == "sorry" and sim.count() == 2


def test_alternatives_that_cannot_be_meant_are_refused(sdk, async_sdk, claude):
    async def later(**asked: Any) -> Any: ...

    for fallback, words in (
        (async_sdk, "fallback 1 is a AsyncOpenAI, which cannot send what a OpenAI was asked"),
        (claude, "fallback 1 is a Anthropic"),
        (7, "fallback 1 must be another client of the same SDK.*not 7"),
        (None, "not None"),
        (openai.OpenAI, "fallback 1 must be"),
        (RunnableLambda(str.upper), "fallback 1 must be"),
        (create_production_llm(api_key="k"), "fallback 1 must be"),
        (ChatOpenAI(model="m", api_key="k"), "fallback 1 must be"),
        (later, "fallback 1 is asynchronous and OpenAI is not"),
    ):
        with pytest.raises(ConfigurationTypeError, match=words):
            guarded(sdk, fallback)
    assert issubclass(ConfigurationTypeError, ConfigurationError)
    assert guarded(anthropic.AsyncAnthropic(api_key="k"), later)
