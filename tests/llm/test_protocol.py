"""What goes over the wire is what the OpenAI SDK sends, and everything in an answer can be had."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
from typing import Any

import openai
import pytest

from seawall import errors
from seawall.llm import Chat, Embeddings, amodels, models
from seawall.simulator import Simulator, faults

TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {"x": {"type": "integer"}}}}}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False}


@pytest.mark.parametrize(
    "params",
    [
        {"temperature": 0.5, "max_completion_tokens": 5, "top_p": 1, "user": "u", "metadata": {"a": "b"}},
        {"tools": [TOOL], "tool_choice": "auto", "parallel_tool_calls": False},
        {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "f"}}},
        {"response_format": {"type": "json_object"}, "seed": 7, "stop": ["a", "b"], "n": 2},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA, "strict": True}}},
        {"logprobs": True, "top_logprobs": 3, "stop": "x", "logit_bias": {"5": -100}},
        {"reasoning_effort": "low", "service_tier": "flex", "prediction": {"type": "content", "content": "x"}},
        {"extra_body": {"top_k": 4, "guided_choice": ["a"], "temperature": 2}, "temperature": 1},
        {"extra_headers": {"X-Trace": "t1", "openai-organization": "other"}},
    ],
    ids=lambda params: "+".join(params),
)
@pytest.mark.parametrize("streamed", [False, True])
def test_a_request_is_what_the_sdk_would_send(sim, chat, params: dict[str, Any], streamed: bool) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}}
    messages: list[Any] = [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "name": "me", "content": [{"type": "text", "text": "what is this?"}, image]},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "c", "content": "5"},
    ]
    who = {"api_key": "sk-a-test-key", "base_url": sim.base_url, "organization": "org", "project": "proj"}
    with openai.OpenAI(**who, max_retries=0) as sdk:
        given = sdk.chat.completions.create(model="m", messages=messages, stream=streamed, **params)
        if streamed:
            list(given)
    model = chat(**who)
    if streamed:
        list(model.stream(messages, **params))
    else:
        model.invoke(messages, **params)
    theirs, ours = sim.requests
    if not streamed:
        theirs.body.pop("stream")  # the SDK sends the default where it is written
    expected = {name: value for name, value in theirs.body.items() if name != "stream" or streamed}
    assert ours.body == expected
    assert (ours.method, ours.path) == (theirs.method, theirs.path)
    # What differs is the SDK's account of itself, and the form asked for.
    own = {name for name in theirs.headers if name.startswith("x-stainless")} | {
        "user-agent",
        "accept",
        "content-length",
        "accept-encoding",
        "connection",
    }
    assert {name: value for name, value in ours.headers.items() if name not in own} == {
        name: value for name, value in theirs.headers.items() if name not in own
    }


def test_embeddings_are_asked_for_as_the_sdk_does(sim) -> None:
    who = {"api_key": "k", "base_url": sim.base_url}
    with openai.OpenAI(**who, max_retries=0) as sdk:
        theirs = sdk.embeddings.create(model="e", input=["a", "字"], dimensions=3)
    ours = Embeddings("e", **who).invoke(["a", "字"], dimensions=3)
    assert sim.requests[0].body == sim.requests[1].body
    assert ours.vectors == [each.embedding for each in theirs.data]
    assert (ours.tokens, ours.request_id) == (theirs.usage.prompt_tokens, "req_2")


def test_a_calls_own_query_and_headers_win_over_the_models(raw, chat) -> None:
    server = raw(raw.answer('{"choices":[{"message":{"content":"x"}}]}'))
    model = chat(base_url=f"{server.base_url}?a=1", default_query={"b": "2"}, default_headers={"x-a": "model", "x-b": "model"})
    model.invoke("x", extra_query={"c": "3 4"}, extra_headers={"X-A": "call"})
    asked = server.requests[0]
    assert asked.first_line == "POST /v1/chat/completions?a=1&b=2&c=3+4 HTTP/1.1"
    assert (asked.headers["x-a"], asked.headers["x-b"]) == ("call", "model")
    model.invoke("x")
    assert server.requests[1].headers["x-a"] == "model"


def test_every_way_to_ask_takes_what_belongs_to_a_call(sim, chat) -> None:
    model = chat()
    given: dict[str, Any] = {"extra_headers": {"x-a": "1"}, "extra_body": {"top_k": 1}, "timeout": 30}
    model.invoke("x", **given)
    asyncio.run(model.ainvoke("x", **given))
    list(model.stream("x", **given))
    model.batch(["x"], **given)
    asyncio.run(model.abatch(["x"], **given))
    Embeddings("e", api_key="k", base_url=sim.base_url).invoke("x", **given)

    async def streamed() -> None:
        async for _ in model.astream("x", **given):
            pass

    asyncio.run(streamed())
    assert [(request.headers["x-a"], request.body["top_k"]) for request in sim.requests] == [("1", 1)] * 7
    assert all("timeout" not in request.body and "extra_body" not in request.body for request in sim.requests)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"extra_headers": {"a b": "1"}}, "no name of an HTTP header"),
        ({"extra_headers": ["a"]}, "extra_headers must be a dict"),
        ({"extra_headers": {"a": None}}, r"extra_headers\['a'\] must be a str"),
        ({"extra_query": 5}, "extra_query must be a dict"),
        ({"extra_body": "x"}, "extra_body must be a dict"),
        ({"extra_body": {"model": "n"}}, "model is no parameter"),
        ({"extra_body": {"stream": True}}, "stream is no parameter"),
        ({"timeout": 0}, "timeout must be more than zero"),
        ({"timeout": True}, "timeout must be"),
        ({"timeout": "soon"}, "timeout must be"),
        ({"idempotency_key": ""}, "idempotency_key must be"),
        ({"idempotency_key": 5}, "idempotency_key must be"),
        ({"idempotency_key": "a\nb"}, "idempotency-key"),
    ],
)
def test_what_a_call_cannot_take_is_refused_by_name(sim, chat, given, words) -> None:
    for ask in (chat().invoke, chat().stream, lambda text, **given: chat().batch([text], **given)):
        with pytest.raises(errors.ConfigurationError, match=words):
            ask("x", **given)
    assert sim.count() == 0


def test_the_time_limit_of_a_call_stands_in_for_the_models(sim, chat) -> None:
    sim.on("m", faults.hang(), times=2)
    model = chat(timeout=30, max_retries=1)
    with pytest.raises(errors.APITimeoutError, match="within 0.05 s") as raised:
        model.invoke("x", timeout=0.05)
    assert raised.value.attempts == 2
    slow = chat("slow", timeout=0.01, max_retries=0)
    sim.on("slow", faults.ok(latency=0.2))
    assert slow.invoke("x", timeout=30).attempts == 1
    assert slow.invoke("x", timeout=None).attempts == 1
    # As many as there are limits, and no end of them.
    for limit in range(40):
        model.invoke("x", timeout=10 + limit)
    assert len(model._by_timeout) <= 16


def test_a_calls_time_limit_leaves_its_models_breaker_and_alternatives_in_place(sim, chat) -> None:
    sim.on("m", faults.status(500))
    model = chat(max_retries=0).with_fallbacks([chat("other")])
    reply = model.invoke("x", timeout=5)
    assert (reply.model, reply.alternative) == ("other", 1)


def test_credentials_of_a_call_go_nowhere_but_to_the_models_own_server(sim, raw, chat) -> None:
    with Simulator() as elsewhere:
        sim.on("m", faults.status(500))
        model = chat(max_retries=0).with_fallbacks([chat("other", base_url=elsewhere.base_url), chat("third")])
        elsewhere.on("other", faults.status(500))
        given = {"Authorization": "Bearer mine", "X-Trace": "t"}
        model.invoke("x", extra_headers=given)
        at_home, away, back = sim.requests[0].headers, elsewhere.requests[-1].headers, sim.requests[-1].headers
        assert at_home["x-trace"] == away["x-trace"] == back["x-trace"] == "t"
    there = raw(raw.answer('{"choices":[{"message":{"content":"x"}}]}'))
    fails = raw(raw.answer("{}", status="500 Internal Server Error"))
    own = {"base_url": fails.base_url, "max_retries": 0, "api_key": "own-key"}
    model = chat(**own).with_fallbacks([chat(base_url=there.base_url, api_key="their-key")])
    model.invoke("x", extra_headers={"Authorization": "Bearer mine"}, extra_query={"api-key": "secret", "v": "1"})
    assert fails.requests[0].headers["authorization"] == "Bearer mine"
    assert "api-key=secret" in fails.requests[0].first_line
    assert there.requests[0].headers["authorization"] == "Bearer their-key"
    assert there.requests[0].first_line.endswith("completions?v=1 HTTP/1.1")


def test_no_secret_of_a_call_comes_back_in_an_error(raw, chat) -> None:
    server = raw(raw.answer('{"error":{"message":"bad token-1234567 and query-1234567"}}', status="401 Unauthorized"))
    with pytest.raises(errors.AuthenticationError) as raised:
        given = {"Authorization": "Bearer token-1234567"}
        chat(base_url=server.base_url).invoke("x", extra_headers=given, extra_query={"key": "query-1234567"})
    assert "1234567" not in f"{raised.value} {vars(raised.value)}"


# --- idempotency


def test_an_idempotency_key_is_one_for_all_attempts_of_a_call(sim, chat) -> None:
    sim.on("m", faults.status(500), times=2)
    model = chat().with_retry(wait=0)
    model.invoke("x", idempotency_key=True)
    first, second, third = (request.headers["idempotency-key"] for request in sim.requests)
    assert first == second == third
    assert len(first) > 30
    model.invoke("x", idempotency_key=True)
    model.invoke("x", idempotency_key="mine")
    model.invoke("x")
    assert sim.requests[3].headers["idempotency-key"] not in (first, "mine")
    assert sim.requests[4].headers["idempotency-key"] == "mine"
    assert "idempotency-key" not in sim.requests[5].headers


def test_a_model_can_send_one_with_every_call_and_each_input_has_its_own(sim, chat) -> None:
    model = chat(idempotency_key=True)
    model.batch(["a", "b"])
    asyncio.run(model.abatch(["a", "b"]))
    list(model.stream("a"))
    model.invoke("a", idempotency_key=False)
    keys = [request.headers.get("idempotency-key") for request in sim.requests]
    assert len(set(keys[:5])) == 5
    assert keys[5] is None
    sim.forget()
    model.batch(["a", "b"], idempotency_key="k", max_concurrency=1)
    asyncio.run(model.abatch(["a", "b"], idempotency_key="k", max_concurrency=1))
    assert [request.headers["idempotency-key"] for request in sim.requests] == ["k.0", "k.1", "k.0", "k.1"]
    with pytest.raises(errors.ConfigurationError, match="idempotency_key of a model must be True or False"):
        chat(idempotency_key="k")


def test_another_model_has_another_idempotency_key(sim, chat) -> None:
    sim.on("m", faults.status(500))
    chat(max_retries=0).with_fallbacks([chat("other")]).invoke("x", idempotency_key="k")
    assert [request.headers["idempotency-key"] for request in sim.requests] == ["k", "k-1"]


def test_forked_processes_have_different_idempotency_keys(sim, program) -> None:
    process = program(
        "import os, warnings\n"
        "warnings.simplefilter('ignore', DeprecationWarning)\n"  # of os.fork beside threads, since Python 3.12
        "from seawall.llm import Chat\n"
        "chat = Chat('m', api_key='k', base_url=base_url, idempotency_key=True)\n"
        "chat.invoke('x')\n"
        "for _ in range(3):\n"
        "    child = os.fork()\n"
        "    if not child:\n"
        "        chat.invoke('x'); os._exit(0)\n"
        "    os.waitpid(child, 0)\n"
        "chat.invoke('x')\n"
    )
    assert process.communicate(timeout=60)[1] == ""
    assert len({request.headers["idempotency-key"] for request in sim.requests}) == 5


# --- keys that change


def test_a_function_gives_the_key_of_each_attempt() -> None:
    keys = iter(["old-key-1", "old-key-2", "right-key", "right-key"])
    with Simulator(api_keys=["right-key", "old-key-1", "old-key-2"]) as sim:
        sim.on("m", faults.status(500), times=2)
        model = Chat("m", api_key=lambda: next(keys), base_url=sim.base_url).with_retry(wait=0)
        assert model.invoke("x").attempts == 3
        assert asyncio.run(model.ainvoke("x")).attempts == 1
    assert next(keys, None) is None


def test_each_attempt_sends_the_key_that_it_was_given(raw) -> None:
    server = raw(raw.answer("{}", status="500 Oh"), raw.answer('{"choices":[{"message":{"content":"x"}}]}'))
    keys = iter(["key-number-1", "key-number-2", "key-number-2"])
    model = Chat("m", api_key=lambda: next(keys), base_url=server.base_url).with_retry(wait=0)
    model.invoke("x")
    list(model.stream("x"))
    sent = [asked.headers["authorization"] for asked in server.requests]
    assert sent == ["Bearer key-number-1", "Bearer key-number-2", "Bearer key-number-2"]


def test_a_key_function_may_ask_the_client_itself(sim, chat) -> None:
    inner = chat()
    assert Chat("m", api_key=lambda: inner.invoke("token").id, base_url=sim.base_url).invoke("x").attempts == 1
    assert sim.count() == 2


def _fails() -> str:
    raise RuntimeError("the vault said sk-very-secret")


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (_fails, "the api_key function raised RuntimeError; see the cause"),
        (lambda: None, "the api_key function gave NoneType where a str was expected"),
        (lambda: "", "the api_key function gave no key"),
        (lambda: "a\nb", "the api_key function gave no key: the API key has a character at position 1"),
        (lambda: "\udc00", "half a character"),
        (lambda: asyncio.sleep(0), "the api_key function gave NoneType where a str was expected"),
    ],
)
def test_a_key_function_that_fails_says_so_and_costs_no_request(sim, function, words) -> None:
    model = Chat("m", api_key=function, base_url=sim.base_url)
    for ask in (model.invoke, lambda text: list(model.stream(text)), lambda text: asyncio.run(model.ainvoke(text))):
        with pytest.raises(errors.AuthenticationError, match=words) as raised:
            ask("x")
        assert raised.value.attempts == 1
        assert "very-secret" not in str(raised.value)
    assert sim.count() == 0
    if function is _fails:
        assert isinstance(raised.value.__cause__, RuntimeError)
        assert copy.copy(raised.value).__cause__ is raised.value.__cause__


def test_an_alternative_with_a_key_of_its_own_stands_in_for_a_key_function_that_fails(sim, chat) -> None:
    model = Chat("m", api_key=_fails, base_url=sim.base_url).with_fallbacks([chat("other")])
    assert model.invoke("x").model == "other"


# --- what is in an answer


def test_all_choices_can_be_had(sim, chat) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}}
    logprobs = {"content": [{"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": []}], "refusal": None}
    body = {
        "id": "c",
        "choices": [
            {"index": 1, "message": {"role": "assistant", "content": None, "tool_calls": [call]}, "finish_reason": "tool_calls"},
            {"index": 0, "message": {"role": "assistant", "content": "a"}, "logprobs": logprobs, "finish_reason": "stop"},
            {"index": 2, "message": {"content": None, "refusal": "no", "reasoning": "hm"}, "finish_reason": "stop"},
        ],
    }
    sim.on("m", faults.status(200, body=body))
    reply = chat().invoke("x")
    for again in (reply, pickle.loads(pickle.dumps(reply))):
        first, second, third = again.choices
        assert (first.index, first.content, first.finish_reason, first.logprobs) == (0, "a", "stop", logprobs)
        assert (again.content, again.logprobs, again.message) == ("a", logprobs, {"role": "assistant", "content": "a"})
        assert (second.tool_calls, second.content) == ([("c1", "f", '{"x":1}')], "")
        assert (second.message, second.logprobs) == (body["choices"][0]["message"], None)
        assert (third.refusal, third.reasoning, third.message["role"]) == ("no", "hm", "assistant")
        assert (str(first), repr(first)) == ("a", "<Choice 0 'a'>")
        assert pickle.loads(pickle.dumps(second)).tool_calls == second.tool_calls


def test_the_models_message_goes_into_the_next_request(sim, chat) -> None:
    model = chat(tools=[TOOL])
    messages: list[Any] = [{"role": "user", "content": "x"}]
    reply = model.invoke(messages, tool_choice="required")
    messages += [reply.message, {"role": "tool", "tool_call_id": reply.tool_calls[0][0], "content": "1"}]
    model.invoke(messages)
    assert sim.requests[1].body["messages"][1]["tool_calls"][0]["function"]["name"] == "f"


def test_json_modes_answer_is_parsed_or_says_why_not(sim, chat) -> None:
    model = chat()
    given = {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}
    assert isinstance(model.invoke("x", response_format=given).parsed()["a"], int)
    assert "answer" in model.invoke("x", response_format={"type": "json_object"}, n=2).choices[1].parsed()
    with pytest.raises(ValueError, match=r"no JSON: finish_reason is \"stop\"; was response_format given"):
        model.invoke("x").parsed()
    sim.on("m", faults.status(200, body={"choices": [{"message": {"content": '{"a": "secret'}, "finish_reason": "length"}]}))
    with pytest.raises(ValueError, match="cut short.*max_completion_tokens") as raised:
        model.invoke("x").parsed()
    assert "secret" not in f"{raised.value!r} {raised.value.__cause__!r} {raised.value.__context__!r}"
    sim.on("m", faults.status(200, body={"choices": [{"message": {"content": None, "refusal": "no"}, "finish_reason": "stop"}]}))
    with pytest.raises(ValueError, match="refused"):
        model.invoke("x").parsed()


def test_the_pieces_of_a_stream_carry_logprobs_and_refusals(raw, chat) -> None:
    one = {"index": 1, "delta": {"content": "b"}, "logprobs": {"content": [{"token": "b", "logprob": -1}]}}
    two = {"index": 0, "delta": {"refusal": "n"}, "finish_reason": "stop"}
    end = {"index": 1, "delta": {}, "finish_reason": "stop"}
    lines = [json.dumps({"choices": choices}) for choices in ([one, two], [end])]
    server = raw(raw.events(*(f"data: {line}" for line in lines), "data: [DONE]"))
    b, refusal, last = chat(base_url=server.base_url).stream("x")
    assert (b.index, b.logprobs) == (1, one["logprobs"])
    assert (refusal.index, refusal.refusal, refusal.logprobs, last.logprobs) == (0, "n", None, None)


# --- models


def test_the_models_of_a_service_are_listed_as_it_says(sim) -> None:
    who = {"api_key": "k", "base_url": sim.base_url}
    assert models(**who) == []
    Chat("a", **who).invoke("x")
    (listed,) = models(**who)
    assert (listed.id, listed.owned_by, listed.raw["object"]) == ("a", "simulator", "model")
    assert asyncio.run(amodels(**who)) == [listed]
    assert [(request.method, request.path, request.body) for request in sim.requests][0] == ("GET", "/v1/models", None)


def test_listing_models_is_retried_and_fails_as_a_call_does(raw) -> None:
    good = raw.answer('[{"id": "meta/llama", "context_length": 8192}]')
    server = raw(raw.answer("{}", status="503 Busy", headers="retry-after-ms: 1\r\n"), good)
    (listed,) = models(api_key="k", base_url=server.base_url)
    assert (listed.id, listed.created, listed.raw["context_length"]) == ("meta/llama", None, 8192)
    lost = raw(raw.answer("{}", status="404 Not Found"))
    with pytest.raises(errors.NotFoundError, match=f"GET http://127.0.0.1:{lost.port}/v1/models: check base_url"):
        models(api_key="k", base_url=lost.base_url)
    with pytest.raises(errors.ConfigurationError, match=r"models\(\) got an unexpected keyword argument 'temperature'"):
        models(api_key="k", temperature=1)
    with pytest.raises(errors.ConfigurationError, match="no API key"):
        models(base_url=lost.base_url)


# Of vLLM, llama.cpp, Ollama, OpenRouter, Mistral, DeepSeek, Groq, DashScope and others.
OF_SERVERS = """top_k min_p top_a typical_p repetition_penalty length_penalty best_of stop_token_ids ignore_eos min_tokens prompt_logprobs
guided_json guided_regex guided_choice chat_template chat_template_kwargs add_generation_prompt priority num_ctx num_predict keep_alive think
n_predict n_probs mirostat grammar json_schema cache_prompt models route provider transforms plugins reasoning include_reasoning safe_prompt
random_seed max_new_tokens enable_thinking thinking thinking_budget search_options search_parameters reasoning_format speed top_n input_type
truncate task max_output_tokens instructions""".split()


def test_parameters_of_other_servers_are_sent_and_misspelt_ones_only_where_that_is_said(chat, sim):
    chat(**dict.fromkeys(OF_SERVERS, 1)).invoke("x")
    assert {name for name in OF_SERVERS if sim.requests[0].body.get(name) == 1} == set(OF_SERVERS)
    with pytest.raises(
        errors.ConfigurationError, match=r"is temperature= meant\? If the server does have it, write extra_body={'temprature': …}"
    ):
        chat().invoke("x", temprature=0)
    chat(extra_body={"temprature": 1}).invoke("x", extra_body={"temperatur": 2})
    assert (sim.requests[-1].body["temprature"], sim.requests[-1].body["temperatur"]) == (1, 2)
    with pytest.raises(errors.ConfigurationError, match="timeout is no parameter of a request"):
        chat(extra_body={"timeout": 1})
