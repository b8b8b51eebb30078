"""`resilient(client)`: every request of an SDK's client goes through the pipeline, and through nothing else that retries."""

from __future__ import annotations

import asyncio
import io
import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anthropic
import httpx2
import openai
import pydantic
import pytest
from langchain_core.runnables import RunnableLambda

import seawall
from seawall.errors import CircuitBreakerError, ConfigurationError, ConfigurationTypeError, MalformedResponseError
from seawall.simulator import Simulator, faults

ASKED: Any = [{"role": "user", "content": "hello there"}]
PLAIN: Any = {"model": "gpt-4", "messages": ASKED}
CLAUDE: Any = {"model": "claude", "max_tokens": 100, "messages": ASKED}


def guarded(client: Any, attempts: int = 3, **more: Any) -> Any:
    return seawall.resilient(client, retry=seawall.Retry(attempts, wait=0), **more)


def test_a_call_is_tried_again_by_the_pipeline_and_by_nobody_else(sim, sdk):
    sim.on("gpt-4", faults.status(500), times=2)
    answer = guarded(sdk).chat.completions.create(**PLAIN)
    assert "hello there" in answer.choices[0].message.content and sim.count() == 3
    sim.on("gpt-4", faults.status(500))
    with pytest.raises(openai.InternalServerError) as caught:
        guarded(sdk).chat.completions.create(**PLAIN)
    assert sim.count() == 6
    assert "3 attempts" in caught.value.__notes__[0] and "'OpenAI'" in caught.value.__notes__[0]


def test_it_is_a_client_of_the_same_class_and_the_callers_is_as_it_was(sim, sdk):
    client = guarded(sdk)
    assert isinstance(client, openai.OpenAI) and type(client) is not openai.OpenAI
    assert (client.max_retries, sdk.max_retries, type(sdk)) == (0, 2, openai.OpenAI)
    assert (type(client).__module__, type(client).__qualname__) == (openai.OpenAI.__module__, "OpenAI")
    assert client._client is sdk._client
    assert isinstance(client.pipeline, seawall.Pipeline)
    assert type(guarded(openai.OpenAI(api_key="k"))) is type(client), "one class for all clients of a class"
    assert isinstance(seawall.resilient(anthropic.AsyncAnthropic(api_key="k")), anthropic.AsyncAnthropic)
    azure = openai.AzureOpenAI(api_key="k", azure_endpoint=sim.origin, api_version="2024-02-01")
    sim.on("gpt-4", faults.status(500), times=1)
    assert isinstance(guarded(azure), openai.AzureOpenAI)
    assert guarded(azure).chat.completions.create(**PLAIN).choices and sim.count(path="/openai/deployments/gpt-4") == 2


def test_every_resource_is_guarded(sim, sdk):
    client = guarded(sdk)

    class Reply(pydantic.BaseModel):
        answer: str

    calls = [
        lambda: client.embeddings.create(model="small", input=["a", "b"]),
        lambda: list(client.models.list()),
        lambda: client.chat.completions.with_raw_response.create(**PLAIN).parse().choices[0],
        lambda: client.with_options(timeout=5).copy().chat.completions.create(**PLAIN),
        lambda: client.post("/chat/completions", body=PLAIN, cast_to=openai.types.chat.ChatCompletion),
        lambda: client.chat.completions.parse(**PLAIN, response_format=openai.omit),
    ]
    for number, call in enumerate(calls):
        sim.forget()
        sim.on("*", faults.status(503), times=1)
        assert call(), number
        assert sim.count() == 2, number
    with client.chat.completions.with_streaming_response.create(**PLAIN) as response:
        assert b"hello there" in response.read()


def test_pages_after_the_first_are_guarded_too(raw):
    page = {"object": "list", "data": [{"id": "a", "object": "batch"}], "has_more": True, "first_id": "a", "last_id": "a"}
    broken = "not json"
    server = raw(page, broken, {**page, "data": [{"id": "b", "object": "batch"}], "has_more": False})
    client = guarded(openai.OpenAI(api_key="k", base_url=server.base_url))
    assert [each.id for each in client.batches.list(limit=1)] == ["a", "b"]
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    "fault", [faults.html(), faults.broken_json(), faults.empty_choices(), faults.empty_body()], ids=lambda f: f.name
)
def test_a_good_status_without_an_answer_is_no_answer(sim, sdk, fault):
    sim.on("gpt-4", fault, times=2)
    assert guarded(sdk).chat.completions.create(**PLAIN).choices[0].message.content
    sim.on("gpt-4", fault)
    for create in (guarded(sdk).chat.completions.create, guarded(sdk).chat.completions.with_raw_response.create):
        sim.forget()
        with pytest.raises(MalformedResponseError) as caught:
            create(**PLAIN)
        assert isinstance(caught.value, openai.APIError) and caught.value.request.url.path == "/v1/chat/completions"
        assert sim.count() == 3 and seawall.classify(caught.value) == "malformed"


def test_an_error_about_an_answer_has_its_headers_without_cookies(sim, sdk):
    headers = {"set-cookie": "session=very-secret", "x-request-id": "req_1", "x-api-key": "very-secret"}
    sim.on("gpt-4", faults.status(200, body={"choices": []}, headers=headers))
    with pytest.raises(MalformedResponseError) as caught:
        guarded(sdk, 1).chat.completions.create(**PLAIN)
    assert caught.value.headers["x-request-id"] == caught.value.request_id == "req_1"
    assert "secret" not in repr(caught.value.headers)


def test_an_error_object_with_a_good_status_is_an_error(sim, sdk):
    sim.on("gpt-4", faults.status(200, body={"error": {"message": "overloaded", "code": "server_error"}}))
    with pytest.raises(openai.APIError, match="overloaded") as caught:
        guarded(sdk).chat.completions.create(**PLAIN)
    assert sim.count() == 3 and seawall.classify(caught.value) == "transient"
    sim.on("gpt-4", faults.status(200, body={"error": {"message": "no money", "code": "insufficient_quota"}}))
    sim.forget()
    with pytest.raises(openai.APIError, match="no money"):
        guarded(sdk).chat.completions.create(**PLAIN)
    assert sim.count() == 1


def test_embeddings_that_are_too_few_are_no_answer(raw):
    one = {"object": "embedding", "index": 0, "embedding": [0.5]}
    few = {"object": "list", "model": "m", "data": [one], "usage": {"prompt_tokens": 1, "total_tokens": 1}}
    server = raw(few, {**few, "data": []}, {**few, "data": [one, {**one, "index": 1}]})
    client = guarded(openai.OpenAI(api_key="k", base_url=server.base_url))
    assert len(client.embeddings.create(model="m", input=["a", "b"], encoding_format="float").data) == 2
    assert len(server.requests) == 3
    # Tokens are one text, and a text is one.
    single = raw(few)
    client = guarded(openai.OpenAI(api_key="k", base_url=single.base_url))
    for given in ([1, 2, 3], "abc", [[1, 2, 3]]):
        assert len(client.embeddings.create(model="m", input=given, encoding_format="float").data) == 1
    assert len(single.requests) == 3


def test_an_answer_whose_content_is_missing_is_none(raw):
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hi"}}
    chat = {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
    response = {
        "id": "r", "object": "response", "created_at": 1, "model": "m", "status": "completed", "output": [], "tools": [],
        "parallel_tool_calls": True, "tool_choice": "auto",
    }  # fmt: skip
    message = {"id": "m", "type": "message", "role": "assistant", "model": "m", "content": [], "stop_reason": "end_turn",
               "usage": {"input_tokens": 1, "output_tokens": 1}}  # fmt: skip
    for broken, whole, ask in (
        ({**chat, "choices": [{**choice, "message": None}]}, chat, lambda url: openai_at(url).chat.completions.create(**PLAIN)),
        ({**response, "output": None}, response, lambda url: openai_at(url).responses.create(model="m", input="hi")),
        (
            {**message, "content": None},
            message,
            lambda url: guarded(anthropic.Anthropic(api_key="k", base_url=url)).messages.create(**CLAUDE),
        ),
    ):
        server = raw(broken, whole)
        assert ask(server.base_url) is not None and len(server.requests) == 2, broken


def openai_at(base_url: str) -> Any:
    return guarded(openai.OpenAI(api_key="k", base_url=base_url))


def test_a_failed_response_is_an_error_and_an_incomplete_one_an_answer(raw):
    whole = {
        "id": "r", "object": "response", "created_at": 1, "model": "m", "status": "completed", "output": [], "tools": [],
        "parallel_tool_calls": True, "tool_choice": "auto",
    }  # fmt: skip
    failed = {**whole, "status": "failed", "error": {"code": "server_error", "message": "it broke"}}
    server = raw(failed, {**whole, "status": "incomplete"})
    client = guarded(openai.OpenAI(api_key="k", base_url=server.base_url))
    assert client.responses.create(model="m", input="hi").status == "incomplete"
    assert len(server.requests) == 2
    alone = raw(failed)
    client = guarded(openai.OpenAI(api_key="k", base_url=alone.base_url))
    with pytest.raises(openai.APIError, match="it broke"):
        client.responses.create(model="m", input="hi")
    # One that is looked up is what it is.
    assert client.responses.retrieve("r").status == "failed"


def test_retries_of_the_sdk_cannot_be_switched_on_again(sim, sdk):
    client = guarded(sdk)
    with pytest.raises(ConfigurationError, match=r"max_retries must be 0 on a guarded client, not 5.*retry=6"):
        client.with_options(max_retries=5)
    with pytest.raises(ConfigurationError, match="max_retries"):
        client.post("/chat/completions", body=PLAIN, cast_to=object, options={"max_retries": 2})
    client.max_retries = 7
    sim.on("gpt-4", faults.status(500))
    with pytest.raises(openai.InternalServerError):
        client.chat.completions.create(**PLAIN)
    assert sim.count() == 3 and client.with_options(max_retries=0).max_retries == 0


def test_what_the_server_says_about_retries_holds(sim, sdk):
    never = seawall.resilient(sdk, retry=seawall.Retry(3, wait=600), circuit=None)
    with seawall.testing.no_waits():
        sim.on("gpt-4", faults.rate_limit(retry_after_ms=1), times=1)
        never.chat.completions.create(**PLAIN)
    for fault in (
        faults.status(500, headers={"x-should-retry": "false"}),
        faults.rate_limit(121),
        faults.quota(),
        faults.status(400),
        faults.status(401),
    ):
        sim.on("gpt-4", fault)
        sim.forget()
        with pytest.raises(openai.APIStatusError):
            guarded(sdk).chat.completions.create(**PLAIN)
        assert sim.count() == 1, fault
    sim.on("gpt-4", faults.status(400, headers={"x-should-retry": "true"}), times=1)
    sim.on("gpt-4", faults.ok(), after=1)
    assert guarded(sdk).chat.completions.create(**PLAIN).choices


def test_the_server_is_told_how_often_it_was_tried(sim, sdk):
    sim.on("gpt-4", faults.status(500), times=2)
    guarded(sdk).chat.completions.create(**PLAIN)
    assert [request.headers["x-stainless-retry-count"] for request in sim.requests] == ["0", "1", "2"]
    sim.forget()
    sim.on("gpt-4", faults.status(500), times=1)
    guarded(sdk).chat.completions.create(**PLAIN, extra_headers={"X-Stainless-Retry-Count": "7"})
    assert [request.headers["x-stainless-retry-count"] for request in sim.requests] == ["7", "7"]


def test_all_attempts_of_a_call_have_one_idempotency_key(sim):
    # Of the generator's SDKs some have a header for it. Their own retries send the same one again, too.
    class Keyed(openai.OpenAI):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self._idempotency_header = "Idempotency-Key"

    client = guarded(Keyed(api_key="k", base_url=sim.base_url))
    sim.on("gpt-4", faults.status(500), times=2)
    client.chat.completions.create(**PLAIN)
    client.chat.completions.create(**PLAIN)
    *first, other = [request.headers["idempotency-key"] for request in sim.requests]
    assert len(set(first)) == 1 and len(first) == 3 and other != first[0]
    client.models.list()
    assert "idempotency-key" not in sim.requests[-1].headers
    sim.on("gpt-4", faults.status(500), times=1)
    client.post("/chat/completions", body=PLAIN, cast_to=object, options={"idempotency_key": "mine"})
    assert [request.headers["idempotency-key"] for request in sim.requests[-2:]] == ["mine", "mine"]


def test_an_open_breaker_asks_nobody(sim, sdk):
    sim.on("gpt-4", faults.status(500))
    breaker = seawall.CircuitBreaker(2)
    client = seawall.resilient(sdk, retry=None, circuit=breaker)
    for _ in range(2):
        with pytest.raises(openai.InternalServerError):
            client.chat.completions.create(**PLAIN)
    with pytest.raises(CircuitBreakerError, match="OpenAI"):
        client.embeddings.create(model="gpt-4", input="a")
    assert sim.count() == 2 and isinstance(breaker.last_failure, openai.InternalServerError)


def test_a_deadline_around_tightens_the_sdks_timeout(sim, sdk):
    sim.on("gpt-4", faults.hang())
    client = seawall.resilient(sdk.with_options(timeout=httpx2.Timeout(600, connect=0.001)), retry=None, deadline=0.2)
    with pytest.raises(openai.APITimeoutError):
        client.chat.completions.create(**PLAIN)
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=None).chat.completions.create(**PLAIN)
    told = [float(request.headers["x-stainless-read-timeout"]) for request in sim.requests]
    assert len(told) == 2 and all(0 < seconds <= 0.2 for seconds in told)
    # What is tighter already stays, and each part is as tight as it has to be.
    sim.forget()
    parts: list[dict[str, float]] = []
    sdk._client.event_hooks["request"].append(lambda request: parts.append(request.extensions["timeout"]))
    with pytest.raises(openai.APITimeoutError):
        client.chat.completions.create(**PLAIN)
    assert parts[0]["connect"] == 0.001 and all(0 < parts[0][part] <= 0.2 for part in ("read", "write", "pool"))
    sim.forget()
    roomy = seawall.resilient(sdk, retry=None, deadline=60)
    with pytest.raises(openai.APITimeoutError):
        roomy.chat.completions.create(**PLAIN, timeout=0.05)
    assert sim.requests[0].headers["x-stainless-read-timeout"] == "0.05"


def test_a_body_that_is_gone_once_sent_is_sent_once(raw):
    good = {"id": "f", "object": "file", "bytes": 1, "created_at": 1, "filename": "x", "purpose": "batch", "status": "processed"}

    class Once(io.BytesIO):
        def seekable(self) -> bool:
            return False

    server = raw("nothing of use", good)
    client = guarded(openai.OpenAI(api_key="k", base_url=server.base_url))
    with pytest.raises(MalformedResponseError):
        client.files.create(file=("x", Once(b"content")), purpose="batch")
    assert len(server.requests) == 1
    # One that can be rewound is.
    again = raw("nothing of use", good)
    client = guarded(openai.OpenAI(api_key="k", base_url=again.base_url))
    assert client.files.create(file=("x", io.BytesIO(b"content")), purpose="batch").id == "f"
    assert [b"content" in request.body for request in again.requests] == [True, True]


def test_what_is_sent_again_is_sent_from_where_it_stood(sim, sdk):
    sim.on("gpt-4", faults.status(500), times=2)
    file = io.BytesIO(b"before" + json.dumps(PLAIN).encode())
    file.seek(len(b"before"))
    guarded(sdk).post("/chat/completions", content=file, cast_to=object)
    assert [request.body for request in sim.requests] == [PLAIN] * 3


class Unknown(io.BytesIO):
    def tell(self) -> int:
        raise OSError("nobody knows")


@pytest.mark.parametrize(
    "content", [lambda body: iter([body]), Unknown], ids=["an iterator", "a file that does not tell where it stands"]
)
def test_nor_does_another_attempt_or_an_alternative_get_what_is_gone(sim, sdk, content):
    sim.on("gpt-4", faults.status(500))
    watch = seawall.Monitor()
    with Simulator() as other:
        backup = openai.OpenAI(api_key="other", base_url=other.base_url)
        client = guarded(sdk, fallback=[backup], monitor=watch)
        with pytest.raises(openai.InternalServerError):
            client.post("/chat/completions", content=content(json.dumps(PLAIN).encode()), cast_to=object)
        assert (sim.count(), other.count(), watch.snapshot()["total"]) == (1, 0, 1)


def test_a_fifth_of_the_requests_fails_and_every_answer_is_right(sim, sdk):
    sim.on("*", faults.status(500), probability=0.2)
    client = guarded(sdk, attempts=12, circuit=None)

    def ask(number: int) -> bool:
        messages: Any = [{"role": "user", "content": f"question {number}."}]
        if number % 2:
            return (
                f"question {number}." in client.chat.completions.create(model="m", messages=messages).choices[0].message.content
            )
        pieces = client.chat.completions.create(model="m", messages=messages, stream=True)
        return f"question {number}." in "".join(piece.choices[0].delta.content or "" for piece in pieces)

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(ask, range(100)))
    failed = [request for request in sim.requests if request.fault != "ok"]
    assert failed and sim.count() == 100 + len(failed)


async def test_a_fifth_of_the_requests_fails_in_tasks_too(sim, async_sdk):
    sim.on("*", faults.status(500), probability=0.2)
    client = guarded(async_sdk, attempts=12, circuit=None)

    async def ask(number: int) -> bool:
        messages: Any = [{"role": "user", "content": f"question {number}."}]
        if number % 2:
            answer = await client.chat.completions.create(model="m", messages=messages)
            return f"question {number}." in answer.choices[0].message.content
        pieces = await client.chat.completions.create(model="m", messages=messages, stream=True)
        return f"question {number}." in "".join([piece.choices[0].delta.content or "" async for piece in pieces])

    assert all(await asyncio.gather(*map(ask, range(60))))
    failed = [request for request in sim.requests if request.fault != "ok"]
    assert failed and sim.count() == 60 + len(failed)


async def test_a_cancelled_call_ends_its_request_and_counts_for_nothing(sim, async_sdk):
    sim.on("gpt-4", faults.hang())
    breaker = seawall.CircuitBreaker(1)
    client = seawall.resilient(async_sdk, retry=None, circuit=breaker)
    task = asyncio.create_task(client.chat.completions.create(**PLAIN))
    await asyncio.to_thread(sim.wait_for, 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.to_thread(sim.wait_aborted, 1)
    assert (sim.count(), breaker.failure_count, breaker.state) == (1, 0, "closed")


async def test_asynchronous_resources_are_guarded(sim, async_sdk):
    client = guarded(async_sdk)
    sim.on("*", faults.status(500), times=1)
    assert [model async for model in client.models.list()] == []
    sim.on("*", faults.html(), times=1)
    answer = await client.with_options(timeout=5).chat.completions.with_raw_response.create(**PLAIN)
    assert answer.parse().choices[0].message.content and sim.count() == 4


def test_messages_of_anthropics_sdk_are_guarded(sim, claude):
    client = guarded(claude)
    sim.on("claude", faults.status(529), times=1)
    sim.on("claude", faults.html(), after=1, times=1)
    assert "hello there" in client.messages.create(**CLAUDE).content[0].text and sim.count() == 3
    sim.on("claude", faults.status(529))
    with pytest.raises(anthropic.InternalServerError) as caught:
        client.messages.create(**CLAUDE)
    assert "3 attempts" in caught.value.__notes__[0] and sim.count() == 6


async def test_anthropics_asynchronous_client_is_guarded(sim, opened):
    client = guarded(opened(anthropic.AsyncAnthropic(api_key="k", base_url=sim.origin)))
    sim.on("claude", faults.status(500), times=2)
    assert (await client.messages.create(**CLAUDE)).content and sim.count() == 3


def test_a_middleware_of_the_sdk_stands_inside_the_guard(sim, claude):
    seen: list[int] = []

    def middleware(request: Any, call_next: Any) -> Any:
        response = call_next(request)
        seen.append(response.http_response.status_code)
        response.parse()  # as one that writes down what came: what is no answer here is the SDK's to say
        return response

    client = guarded(claude.with_options(middleware=[middleware]))
    sim.on("claude", faults.status(500), times=1)
    sim.on("claude", faults.html(), after=1, times=1)
    assert client.messages.create(**CLAUDE).content and seen == [500, 200] and sim.count() == 3
    sim.on("claude", faults.status(500))
    with pytest.raises(anthropic.InternalServerError):
        client.messages.create(**CLAUDE)


def test_a_refused_token_of_the_sdks_own_is_replaced_once(sim):
    with Simulator(api_keys={"good"}) as server:
        given: list[str] = []

        def token(*, force_refresh: bool = False) -> anthropic.AccessToken:
            given.append("bad" if not given else "good")
            return anthropic.AccessToken(token=given[-1], expires_at=None)

        client = guarded(anthropic.Anthropic(credentials=token, base_url=server.origin))
        assert client.messages.create(**CLAUDE).content
        assert given == ["bad", "good"] and server.count() == 2
        # Not where what was sent is gone.
        given.clear()
        again = guarded(anthropic.Anthropic(credentials=token, base_url=server.origin))
        with pytest.raises(anthropic.AuthenticationError):
            again.post("/v1/messages", content=iter([b"{}"]), cast_to=anthropic.types.Message)
        assert given == ["bad"]


async def test_nor_is_it_awaited_more_than_once(opened):
    with Simulator(api_keys={"good"}) as server:
        given: list[str] = []

        async def token(*, force_refresh: bool = False) -> anthropic.AccessToken:
            given.append("bad" if not given else "good")
            return anthropic.AccessToken(token=given[-1], expires_at=None)

        client = guarded(opened(anthropic.AsyncAnthropic(credentials=token, base_url=server.origin)))
        assert (await client.messages.create(**CLAUDE)).content
        assert given == ["bad", "good"] and server.count() == 2


def test_what_cannot_be_guarded_is_refused_by_name(sdk):
    for given, words in (
        (openai, "make a client of it: openai"),
        (print, "guarded by seawall.guard"),
        ("gpt-4", "a client of the openai or anthropic SDK or a LangChain Runnable, not 'gpt-4'"),
        (None, "not None"),
        (openai.OpenAI, r"make a client of it: OpenAI\(…\)"),
    ):
        with pytest.raises(ConfigurationTypeError, match=words):
            seawall.resilient(given)
    with pytest.raises(ConfigurationError, match="guarded already"):
        seawall.resilient(guarded(sdk))
    with pytest.raises(ConfigurationError, match="not both"):
        seawall.resilient(sdk, seawall.Pipeline(seawall.Retry(3)), retry=2)
    with pytest.raises(ConfigurationTypeError, match=r"pipeline must be a seawall\.Pipeline"):
        seawall.resilient(sdk, 3)
    with pytest.raises(ConfigurationError, match="fallback= said aloud"):
        seawall.resilient(sdk, preset="prod")


def test_one_function_has_two_doors(sim, sdk):
    from seawall.langchain import Resilient
    from seawall.langchain import resilient as other_door

    assert isinstance(other_door(sdk), openai.OpenAI)
    runnable = seawall.resilient(RunnableLambda(str.upper), retry=2)
    assert isinstance(runnable, Resilient) and runnable.invoke("a") == "A"


def test_the_word_loads_no_sdk():
    code = (
        "import sys, seawall; seawall.resilient; print({'openai', 'anthropic', 'langchain_core', 'pydantic'} & set(sys.modules))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert ended.stdout.strip() == "set()"


def test_many_threads_may_make_copies_at_once(sim, sdk):
    client = guarded(sdk)
    barrier, kinds = threading.Barrier(8), []

    def copy() -> None:
        barrier.wait()
        for _ in range(20):
            kinds.append(type(client.with_options(timeout=3)))

    threads = [threading.Thread(target=copy) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(kinds) == {type(client)} and len(kinds) == 160
