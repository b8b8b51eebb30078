"""A healthy simulator: its answers, its log, its refusals."""

from __future__ import annotations

import json
import math
import threading

import pytest

from seawall.errors import ConfigurationError
from seawall.llm import Chat
from seawall.simulator import Simulator, faults


def content(answer) -> str:
    return answer.body["choices"][0]["message"]["content"]


def nearness(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


def test_the_same_question_has_the_same_answer_in_every_run(talk) -> None:
    answer = talk("what is it?")
    assert (answer.status, answer.body["object"], answer.body["model"]) == (200, "chat.completion", "m")
    assert "what is it?" in content(answer)
    assert content(answer) == content(talk("what is it?")) != content(talk("what is that?"))
    assert answer.body["usage"]["total_tokens"] > 0


def test_a_stream_has_a_role_pieces_a_reason_and_an_end(talk) -> None:
    events = talk("hello", stream=True, stream_options={"include_usage": True}).events
    assert events[-1] == "[DONE]"
    chunks = [json.loads(event) for event in events[:-1]]
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    pieces = [chunk["choices"][0]["delta"].get("content", "") for chunk in chunks if chunk["choices"]]
    assert "".join(pieces) == content(talk("hello"))
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop"
    assert (chunks[-1]["choices"], chunks[-1]["usage"]) == ([], talk("hello").body["usage"])


def test_parameters_that_shape_an_answer_are_obeyed(talk) -> None:
    assert len(talk(n=3).body["choices"]) == 3
    assert talk(max_tokens=2).body["choices"][0]["finish_reason"] == "length"
    schema = {"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 18}}}
    answer = talk(response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}})
    assert json.loads(content(answer)) == {"name": "text", "age": 18}
    tool = {"type": "function", "function": {"name": "look", "parameters": schema}}
    message = talk(tools=[tool], tool_choice="required").body["choices"][0]
    assert message["finish_reason"] == "tool_calls"
    assert message["message"]["tool_calls"][0]["function"]["name"] == "look"


def test_embeddings_are_the_same_each_time_and_similar_texts_are_near(send) -> None:
    texts = ["how do retries work", "how do the retries work", "a recipe for soup", "how do retries work"]
    body = send("embeddings", {"model": "e", "input": texts}).body
    one, near, far, same = (item["embedding"] for item in body["data"])
    assert [item["index"] for item in body["data"]] == [0, 1, 2, 3]
    assert one == same
    assert math.isclose(nearness(one, one), 1, rel_tol=1e-5)
    assert nearness(one, near) > nearness(one, far) + 0.2
    short = send("embeddings", {"model": "e", "input": "x", "dimensions": 7}).body["data"][0]["embedding"]
    assert len(short) == 7


def test_models_are_those_named_or_those_seen(send, talk) -> None:
    assert send("models").body["data"] == []
    talk(model="b")
    talk(model="a")
    assert [model["id"] for model in send("models").body["data"]] == ["a", "b"]
    assert send("models/a").body["id"] == "a"


def test_a_wrong_request_is_refused_as_the_api_refuses_it(send, sim) -> None:
    message = [{"role": "user", "content": "x"}]
    for path, body, options, status in (
        ("chat/completions", b"{", {}, 400),
        ("chat/completions", {"messages": message}, {}, 400),
        ("chat/completions", {"model": "m"}, {}, 400),
        ("chat/completions", {"model": "m", "messages": []}, {}, 400),
        ("chat/completions", {"model": "m", "messages": "x"}, {}, 400),
        ("chat/completions", {"model": "m", "messages": message}, {"key": None}, 401),
        ("embeddings", {"model": "m", "input": []}, {}, 400),
        ("embeddings", {"model": "m", "input": [1, "a"]}, {}, 400),
        ("nowhere", {"model": "m"}, {}, 404),
        ("chat/completions", None, {"method": "GET"}, 405),
    ):
        answer = send(path, body, **options)
        assert answer.status == status, (path, body)
        assert answer.body["error"]["message"]
    assert {request.fault for request in sim.requests} == {"refused 400", "refused 401", "refused 404", "refused 405"}


def test_the_log_holds_every_request_as_it_came(sim, talk, send) -> None:
    sim.on("m", faults.status(500), times=1)
    talk("first")
    talk("second", stream=True)
    send("embeddings", {"model": "e", "input": "third"})
    first, second, third = sim.requests
    assert (first.method, first.path, first.model, first.stream, first.fault) == (
        "POST",
        "/v1/chat/completions",
        "m",
        False,
        "status 500",
    )
    assert (second.stream, second.fault, second.aborted) == (True, "ok", False)
    assert third.body == {"model": "e", "input": "third"}
    assert first.headers["authorization"] == "Bearer ***"
    assert first.time <= second.time <= third.time
    assert (sim.count(), sim.count("m"), sim.count(path="embeddings"), sim.count("m", "embeddings")) == (3, 2, 1, 0)
    sim.forget()
    assert (sim.requests, sim.count()) == ([], 0)


@pytest.mark.parametrize("name", ["x-api-key", "api-key", "x-goog-api-key", "X-Auth-Token", "cookie", "proxy-authorization"])
def test_the_log_holds_no_key_whatever_its_header_is_called(sim, name) -> None:
    Chat("m", api_key="sk-of-mine", base_url=sim.base_url, default_headers={name: "sk-secret", "idempotency-key": "k"}).invoke(
        "x"
    )
    headers = sim.requests[0].headers
    assert (headers[name.lower()], headers["authorization"], headers["idempotency-key"]) == ("***", "Bearer ***", "k")


def test_the_log_keeps_the_newest_and_counts_all(talk) -> None:
    with Simulator(log_limit=2) as small:
        Chat("m", api_key="k", base_url=small.base_url).batch(["x"] * 5)
        assert (len(small.requests), small.count()) == (2, 5)


def test_waiting_for_requests_ends_with_them_or_with_an_error(sim, talk) -> None:
    with pytest.raises(TimeoutError, match="0 of 1 requests arrived within 0.01 s"):
        sim.wait_for(1, timeout=0.01)
    with pytest.raises(TimeoutError, match="0 of 1 requests were aborted"):
        sim.wait_aborted(1, timeout=0.01)
    thread = threading.Thread(target=talk)
    thread.start()
    sim.wait_for(1)
    thread.join()


def test_stopped_it_answers_nobody_and_started_again_it_is_where_it_was(sim, talk) -> None:
    address = sim.base_url
    sim.on("m", faults.status(503))
    talk()
    sim.stop()
    sim.stop()
    with pytest.raises(RuntimeError, match="not started"):
        _ = sim.base_url
    sim.start().start()
    assert sim.base_url == address
    assert talk().headers["x-request-id"] == "req_2"
    assert [request.fault for request in sim.requests] == ["status 503"] * 2
    assert sim.requests[0].time < sim.requests[1].time


def test_stopping_ends_a_request_that_hangs(sim, talk) -> None:
    sim.on("m", faults.hang())
    failed: list[BaseException] = []

    def ask() -> None:
        try:
            talk()
        except OSError as error:
            failed.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    sim.wait_for(1)
    sim.stop()
    thread.join(20)
    assert isinstance(failed[0], ConnectionResetError)


def test_a_port_that_is_taken_is_named(sim) -> None:
    port = int(sim.base_url.rsplit(":", 1)[1].removesuffix("/v1"))
    with pytest.raises(OSError, match=rf"cannot listen at 127\.0\.0\.1:{port}"):
        Simulator(port=port).start()


@pytest.mark.parametrize(
    "options",
    [
        {"seed": -1},
        {"seed": 2**64},
        {"seed": "a"},
        {"port": 70_000},
        {"port": True},
        {"log_limit": -1},
        {"models": [1]},
        {"models": 5},
        {"host": 5},
    ],
    ids=str,
)
def test_settings_that_cannot_be_meant_are_refused(options) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        Simulator(**options)
