"""What servers that call themselves compatible really send, byte by byte."""

from __future__ import annotations

import json
from typing import Any

import pytest

from seawall import errors
from seawall.llm import Chat, Embeddings, models


def choice(delta: dict[str, Any], finish: str | None = None, **more: Any) -> str:
    return "data: " + json.dumps({"id": "c", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more})


DONE = "data: [DONE]"


@pytest.fixture
def asked(raw, chat):
    """The reply to a plain request, and the pieces of a streamed one, of a server that sends these bytes."""

    def make(sent: bytes, **options: Any) -> Chat:
        return chat(base_url=raw(sent).base_url, **{"max_retries": 0, **options})

    return make


def streamed(model: Chat) -> tuple[str, str | None]:
    pieces = list(model.stream("x"))
    ends = [piece.finish_reason for piece in pieces if piece.finish_reason]
    return "".join(piece.content for piece in pieces), ends[-1] if ends else None


# --- Azure OpenAI


def test_azures_addresses_and_key_header(raw) -> None:
    server = raw(raw.answer('{"choices":[{"message":{"content":"x"}}]}'), raw.answer('{"data":[{"embedding":[1]}]}'))
    place = {
        "base_url": f"http://127.0.0.1:{server.port}/openai/deployments/gpt-4o",
        "default_query": {"api-version": "2024-10-21"},
        "default_headers": {"api-key": "azure-key-0123"},
    }
    assert Chat("gpt-4o", **place).invoke("x").content == "x"
    asked = server.requests[0]
    assert asked.first_line == "POST /openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21 HTTP/1.1"
    assert asked.headers["api-key"] == "azure-key-0123"
    assert "authorization" not in asked.headers
    Embeddings("e", **place).invoke("x")
    assert server.requests[1].first_line.startswith("POST /openai/deployments/gpt-4o/embeddings?api-version=")


def test_azures_streams_begin_with_a_filters_result_and_interleave_more(raw, asked) -> None:
    safe = {"hate": {"filtered": False, "severity": "safe"}}
    filters = {"choices": [], "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": safe}]}
    late = {
        "choices": [
            {"index": 0, "finish_reason": None, "content_filter_results": safe, "content_filter_offsets": {"start_offset": 1}}
        ]
    }
    sent = raw.events(
        f"data: {json.dumps({'id': '', 'model': '', **filters})}",
        choice({"role": "assistant", "content": "", "refusal": None}, content_filter_results={}),
        choice({"content": "Hi"}),
        f"data: {json.dumps(late)}",
        choice({}, "stop"),
        DONE,
    )
    assert streamed(asked(sent)) == ("Hi", "stop")


def test_azures_content_filter_is_a_content_filter(raw, asked) -> None:
    error = {
        "message": "The response was filtered due to the prompt triggering Azure OpenAI's content management policy.",
        "type": None,
        "param": "prompt",
        "code": "content_filter",
        "status": 400,
        "innererror": {"code": "ResponsibleAIPolicyViolation", "content_filter_result": {"hate": {"filtered": True}}},
    }
    with pytest.raises(errors.ContentFilterError) as raised:
        asked(raw.answer(json.dumps({"error": error}), status="400 Bad Request")).invoke("x")
    assert raised.value.body["innererror"]["code"] == "ResponsibleAIPolicyViolation"
    assert raised.value.attempts == 1


# --- vLLM


def test_vllms_error_in_a_stream_keeps_the_code_it_names(raw, asked) -> None:
    error = {"error": {"object": "error", "message": "bad grammar", "type": "BadRequestError", "param": None, "code": 400}}
    sent = raw.events(choice({"role": "assistant", "content": ""}), f"data: {json.dumps(error)}", DONE)
    with pytest.raises(errors.BadRequestError, match="bad grammar") as raised:
        list(asked(sent, max_retries=2).stream("x"))
    assert (raised.value.status_code, raised.value.attempts) == (400, 1)


def test_vllms_errors_without_an_envelope_and_its_context_length(raw, asked) -> None:
    body = {
        "object": "error",
        "message": "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens (4900 in the messages, 100"
        " in the completion). Please reduce the length of the messages or completion.",
        "type": "BadRequestError",
        "param": None,
        "code": 400,
    }
    with pytest.raises(errors.ContextWindowExceededError, match="maximum context length is 4096"):
        asked(raw.answer(json.dumps(body), status="400 Bad Request")).invoke("x")


def test_vllms_reasoning_and_an_aborted_answer(raw, asked) -> None:
    sent = raw.events(
        choice({"role": "assistant", "content": "", "reasoning_content": "hm"}),
        choice({"content": "x"}, "stop", stop_reason=None),
        DONE,
    )
    first, second = asked(sent).stream("x")
    assert (first.reasoning, second.content) == ("hm", "x")
    with pytest.raises(errors.StreamInterruptedError, match="abort") as raised:
        streamed(asked(raw.events(choice({"content": "half"}), choice({}, "abort"), DONE)))
    assert raised.value.partial == "half"
    with pytest.raises(errors.APIError, match="abort"):
        asked(raw.answer('{"choices":[{"message":{"content":"half"},"finish_reason":"abort"}]}')).invoke("x")


# --- Ollama


def test_ollama_ends_with_done_alone(raw, asked) -> None:
    sent = raw.events(choice({"role": "assistant", "content": "a"}), choice({"content": "b"}), DONE)
    assert streamed(asked(sent)) == ("ab", None)


def test_ollamas_tool_calls_come_whole_and_all_with_index_0(raw, asked) -> None:
    def call(name: str) -> dict[str, Any]:
        return {"id": f"call_{name}", "index": 0, "type": "function", "function": {"name": name, "arguments": "{}"}}

    sent = raw.events(choice({"tool_calls": [call("f")]}), choice({"tool_calls": [call("g")]}), choice({}, "tool_calls"), DONE)
    calls = [call for piece in asked(sent).stream("x") for call in piece.tool_calls]
    assert [(index, name) for index, _, name, _ in calls] == [(0, "f"), (1, "g")]


def test_ollama_without_models_and_with_an_unknown_one(raw) -> None:
    assert models(api_key="ollama", base_url=raw(raw.answer('{"object":"list","data":null}')).base_url) == []
    body = '{"error":{"message":"model \\"x\\" not found, try pulling it first","type":"api_error","param":null,"code":null}}'
    with pytest.raises(errors.NotFoundError, match="try pulling it first"):
        Chat("x", api_key="ollama", base_url=raw(raw.answer(body, status="404 Not Found")).base_url).invoke("x")


def test_ollama_ignores_dimensions_and_that_is_no_answer(raw) -> None:
    server = raw(raw.answer('{"data":[{"index":0,"embedding":[1,2,3]}]}'))
    model = Embeddings("e", api_key="ollama", base_url=server.base_url)
    assert model.invoke("x").vectors == [[1, 2, 3]]
    with pytest.raises(errors.MalformedResponseError, match="vectors of 3 numbers where dimensions=2 was asked for") as raised:
        model.invoke("x", dimensions=2)
    assert raised.value.attempts == 1


# --- llama.cpp


def test_llama_cpp_ends_with_usage_and_timings(raw, asked) -> None:
    last = {"choices": [], "usage": {"prompt_tokens": 2, "completion_tokens": 1, "total_tokens": 3}, "timings": {"prompt_n": 2}}
    pieces = list(asked(raw.events(choice({"content": "a"}), choice({}, "stop"), f"data: {json.dumps(last)}", DONE)).stream("x"))
    assert (pieces[-1].usage, pieces[-1].raw["timings"]) == (last["usage"], {"prompt_n": 2})


def test_llama_cpps_error_field_in_a_stream_and_a_model_that_loads(raw, asked) -> None:
    error = {"code": 500, "message": "slot unavailable", "type": "server_error"}
    with pytest.raises(errors.InternalServerError, match="slot unavailable"):
        list(asked(raw.events(f"error: {json.dumps(error)}")).stream("x"))
    loading = raw.answer(
        '{"error":{"code":503,"message":"Loading model","type":"unavailable_error"}}', status="503 Service Unavailable"
    )
    server = raw(loading, raw.answer('{"choices":[{"message":{"content":"x"}}]}'))
    assert Chat("m", api_key="k", base_url=server.base_url).with_retry(wait=0).invoke("x").attempts == 2


# --- OpenRouter


def test_openrouters_comments_and_errors_in_a_choice(raw, asked) -> None:
    comment = ": OPENROUTER PROCESSING"
    sent = raw.events(
        comment, comment, choice({"role": "assistant", "content": "a"}), comment, choice({"content": ""}, "stop"), DONE
    )
    assert streamed(asked(sent)) == ("a", "stop")
    failed = {
        "error": {"code": 502, "message": "Provider disconnected"},
        "choices": [{"index": 0, "delta": {}, "finish_reason": "error"}],
    }
    with pytest.raises(errors.InternalServerError, match="Provider disconnected") as raised:
        list(asked(raw.events(comment, f"data: {json.dumps(failed)}")).stream("x"))
    assert raised.value.status_code == 502
    body = {"choices": [{"index": 0, "message": {"content": "half"}, "error": {"code": 429, "message": "upstream limit"}}]}
    with pytest.raises(errors.RateLimitError, match="upstream limit"):
        asked(raw.answer(json.dumps(body))).invoke("x")


def test_white_space_before_a_slow_answer_is_not_the_answer(raw, asked) -> None:
    # OpenRouter and DeepSeek keep a plain request alive with it.
    sent = raw.answer("\n         \n\n\n" + '{"choices":[{"message":{"content":"x"},"finish_reason":"stop"}]}')
    assert asked(sent).invoke("x").content == "x"
    assert streamed(asked(sent)) == ("x", "stop")


# --- LM Studio


def test_lm_studios_error_event_and_error_texts(raw, asked) -> None:
    with pytest.raises(errors.APIError, match="Context overflow"):
        list(asked(raw.events('event: error\ndata: {"error":{"message":"Context overflow"}}')).stream("x"))
    with pytest.raises(errors.BadRequestError, match="No models loaded"):
        asked(raw.answer('{"error":"No models loaded. Please load a model."}', status="400 Bad Request")).invoke("x")
    # A wrong path is answered with 200.
    unexpected = '{"error":"Unexpected endpoint or method. (POST /chat/completions)"}'
    for ask in (lambda model: model.invoke("x"), lambda model: list(model.stream("x"))):
        with pytest.raises(errors.APIError, match="Unexpected endpoint or method"):
            ask(asked(raw.answer(unexpected)))


# --- DeepSeek


def test_deepseeks_keep_alive_cache_counts_and_empty_purse(raw, asked) -> None:
    usage = {
        "prompt_tokens": 5,
        "completion_tokens": 1,
        "total_tokens": 6,
        "prompt_cache_hit_tokens": 4,
        "prompt_cache_miss_tokens": 1,
    }
    sent = raw.events(
        ": keep-alive", choice({"content": None, "reasoning_content": "hm"}), choice({"content": "a"}, "stop", usage=usage), DONE
    )
    pieces = list(asked(sent).stream("x"))
    assert (pieces[0].reasoning, pieces[-1].usage["cached_tokens"]) == ("hm", 4)
    broke = '{"error":{"message":"Insufficient Balance","type":"unknown_error","param":null,"code":"invalid_request_error"}}'
    with pytest.raises(errors.QuotaExceededError) as raised:
        asked(raw.answer(broke, status="402 Payment Required"), max_retries=2).invoke("x")
    assert raised.value.attempts == 1


def test_an_answer_that_deepseek_broke_off_is_not_given_as_one(raw, asked) -> None:
    reason = "insufficient_system_resource"
    body = {"choices": [{"index": 0, "message": {"content": "half an"}, "finish_reason": reason}]}
    with pytest.raises(errors.APIError, match=reason):
        asked(raw.answer(json.dumps(body))).invoke("x")
    with pytest.raises(errors.StreamInterruptedError, match=reason) as raised:
        streamed(asked(raw.events(choice({"content": "half an"}), choice({}, reason), DONE)))
    assert raised.value.partial == "half an"


# --- others


def test_geminis_errors_are_in_a_list(raw, asked) -> None:
    error = [{"error": {"code": 429, "message": "Resource exhausted", "status": "RESOURCE_EXHAUSTED"}}]
    with pytest.raises(errors.RateLimitError, match="Resource exhausted"):
        asked(raw.answer(json.dumps(error), status="429 Too Many Requests")).invoke("x")


def test_mistrals_content_in_parts(raw, asked) -> None:
    parts = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
        {"type": "text", "text": "a"},
        {"type": "text", "text": "b"},
    ]
    body = {"choices": [{"index": 0, "message": {"role": "assistant", "content": parts}, "finish_reason": "stop"}]}
    assert asked(raw.answer(json.dumps(body))).invoke("x").content == "ab"
    assert streamed(asked(raw.events(choice({"content": parts}, "stop"), DONE))) == ("ab", "stop")


def test_line_ends_marks_and_cuts_of_every_kind(raw, asked) -> None:
    for end in ("\n", "\r\n", "\r"):
        lines = ["\ufeff" + choice({"content": "é字"}), "", choice({}, "stop"), "", DONE, "", ""]
        assert streamed(asked(raw.answer(end.join(lines), kind="text/event-stream"))) == ("é字", "stop"), repr(end)


def test_a_gateways_page_is_no_answer(raw, asked) -> None:
    page = "<html><head><title>502 Bad Gateway</title></head><body><center>nginx</center></body></html>"
    with pytest.raises(errors.InternalServerError, match="an HTML page: 502 Bad Gateway"):
        asked(raw.answer(page, status="502 Bad Gateway", kind="text/html")).invoke("x")
    for ask in (lambda model: model.invoke("x"), lambda model: list(model.stream("x"))):
        with pytest.raises(errors.MalformedResponseError, match="an HTML page.*is base_url right"):
            ask(asked(raw.answer(page, kind="text/html")))


def test_a_servers_id_of_a_request_is_kept_under_either_name(raw, asked) -> None:
    for name in ("x-request-id", "request-id"):
        good = raw.answer('{"choices":[{"message":{"content":"x"}}]}', headers=f"{name}: req_7\r\n")
        reply = asked(good).invoke("x")
        assert (reply.request_id, reply.attempts[0].request_id) == ("req_7", "req_7")
        with pytest.raises(errors.InternalServerError) as raised:
            asked(raw.answer("{}", status="500 Oh", headers=f"{name}: req_8\r\n")).invoke("x")
        assert (raised.value.request_id, raised.value.attempts[0].request_id) == ("req_8", "req_8")
