"""What a failed request is raised as, and what the error says."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
import re

import pytest

from seawall import errors
from seawall.llm import Chat
from seawall.simulator import Simulator, faults

STATUSES = [
    (400, "BadRequestError"),
    (401, "AuthenticationError"),
    (402, "QuotaExceededError"),
    (403, "PermissionDeniedError"),
    (404, "NotFoundError"),
    (408, "APIStatusError"),
    (409, "ConflictError"),
    (418, "APIStatusError"),
    (422, "UnprocessableEntityError"),
    (429, "RateLimitError"),
    (500, "InternalServerError"),
    (502, "InternalServerError"),
    (503, "ServiceUnavailable"),
    (529, "InternalServerError"),
]


def fails(model: Chat) -> errors.APIError:
    """The error of a call, the same however it is made."""
    raised = []
    for ask in (
        model.invoke,
        lambda x: list(model.stream(x)),
        lambda x: asyncio.run(model.ainvoke(x)),
        lambda x: model.batch([x]),
    ):
        with pytest.raises(errors.APIError) as caught:
            ask("x")
        raised.append(caught.value)
    assert len({type(error) for error in raised}) == 1
    return raised[0]


@pytest.mark.parametrize(("status", "name"), STATUSES)
def test_each_status_is_an_error_of_its_own_that_carries_what_the_server_said(sim, chat, status, name) -> None:
    sim.on("m", faults.status(status, "No, thanks.", error_code="a_code", headers={"x-some": "thing"}))
    error = fails(chat(max_retries=0))
    assert type(error) is getattr(errors, name)
    assert (error.status_code, error.code, error.request_id, error.model) == (status, "a_code", "req_1", "m")
    assert (error.headers["x-some"], error.body["message"]) == ("thing", "No, thanks.")
    assert str(error).startswith(f"Error code: {status} - No, thanks.")
    assert [(a.outcome, a.status, a.request_id) for a in error.attempts] == [(name, status, "req_1")]


@pytest.mark.parametrize(
    ("fault", "name", "code"),
    [
        (faults.quota(), "QuotaExceededError", "insufficient_quota"),
        (faults.context_window(), "ContextWindowExceededError", "context_length_exceeded"),
        (faults.content_filter(), "ContentFilterError", "content_filter"),
        (faults.unknown_model(), "NotFoundError", "model_not_found"),
        (faults.status(200, body={"error": {"message": "m", "code": 429}}), "RateLimitError", "429"),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_the_providers_code_says_more_than_the_status(sim, chat, fault, name, code) -> None:
    sim.on("m", fault)
    error = fails(chat(max_retries=0))
    assert (type(error).__name__, error.code) == (name, code)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (faults.broken_json(), "broken or unexpected JSON|ended with neither"),
        (faults.html(), "HTML page.*base_url"),
        (faults.empty_choices(), "without choices|no choices"),
        (faults.empty_body(), "empty"),
        (faults.status(200, body="hello", content_type="text/plain"), "no JSON object|without choices"),
        (faults.status(200, body="[1]"), "no JSON object"),
        (faults.status(200, body={"choices": [{"index": 0}]}), "without a message"),
        (faults.status(200, body={"choices": [{"message": {"tool_calls": [{"id": "a"}]}}]}), "names no tool"),
        (faults.status(204, body=""), "empty"),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_a_success_that_is_no_answer_is_malformed_and_says_what_came_instead(sim, chat, fault, words) -> None:
    sim.on("m", fault)
    model = chat(max_retries=0)
    with pytest.raises(errors.MalformedResponseError, match=words) as raised:
        model.invoke("x")
    assert sim.base_url in str(raised.value)
    assert raised.value.request_id
    with pytest.raises((errors.MalformedResponseError, errors.StreamInterruptedError), match=words):
        list(model.stream("x"))


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (faults.reset(), "broke before it answered"),
        (faults.cut(2, "reset"), "in the middle of the reply"),
        (faults.cut(2, "clean"), "in the middle of the reply"),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_a_connection_that_breaks_is_a_connection_error(sim, chat, fault, words) -> None:
    sim.on("m", fault)
    with pytest.raises(errors.APIConnectionError, match=words) as raised:
        chat(max_retries=0).invoke("x")
    # Once the head has come, it is known which request it was.
    assert raised.value.headers.get("x-request-id") == raised.value.request_id == (None if fault.kind == "reset" else "req_1")


@pytest.mark.parametrize("fault", [faults.hang(), faults.drip(0.2), faults.latency(60), faults.stall()], ids=lambda f: f.name)
def test_the_timeout_ends_a_hung_and_a_dripping_answer_and_the_request_with_it(sim, chat, fault) -> None:
    sim.on("m", fault)
    model = chat(timeout=0.25, max_retries=0)
    with pytest.raises(errors.Timeout, match=r"m within 0\.25 s") as raised:
        model.invoke("x")
    assert isinstance(raised.value, TimeoutError)
    assert raised.value.attempts[0].seconds >= 0.25
    assert 0.25 <= sum(attempt.seconds for attempt in raised.value.attempts) < 10
    sim.wait_aborted(1)


def test_where_no_server_is_the_error_names_the_place_and_what_to_check(chat) -> None:
    for base_url, words in (
        ("http://127.0.0.1:1/v1", r"127\.0\.0\.1:1 .*nothing listens there; check base_url"),
        ("http://no-such-host.invalid/v1", r"no address found for no-such-host\.invalid:80.*check the host in base_url"),
    ):
        with pytest.raises(errors.APIConnectionError, match=words):
            chat(base_url=base_url, max_retries=0).invoke("x")


def test_https_where_the_server_speaks_http_is_told_apart(sim, chat) -> None:
    with pytest.raises(errors.APIConnectionError, match="does not seem to speak TLS; try http://"):
        chat(base_url=sim.base_url.replace("http", "https"), max_retries=0).invoke("x")


def test_a_base_url_without_its_path_or_with_too_much_of_it_is_not_found_with_advice(sim, chat) -> None:
    root = sim.base_url.removesuffix("/v1")
    with pytest.raises(errors.NotFoundError, match=f"base_url names no path.*like {re.escape(sim.base_url)}"):
        chat(base_url=root).invoke("x")
    with pytest.raises(errors.NotFoundError, match='leave "chat/completions" out of base_url'):
        chat(base_url=f"{sim.base_url}/chat/completions").invoke("x")
    assert sim.count() == 2


@pytest.mark.parametrize(
    "base_url", ["", "nonsense", "localhost:8000/v1", "ftp://h/v1", "http://", "http://h:99999/v1", "http://\ud800/", 5]
)
def test_a_base_url_that_is_none_is_refused_at_once(chat, base_url) -> None:
    with pytest.raises(errors.ConfigurationError, match="base_url"):
        chat(base_url=base_url)


def test_a_missing_key_says_where_to_put_one(sim) -> None:
    for key in (None, "", "  "):
        with pytest.raises(errors.ConfigurationError, match="api_key=.*OPENAI_API_KEY"):
            Chat("m", api_key=key, base_url=sim.base_url)


def test_a_wrong_key_and_an_unknown_model_say_what_to_check() -> None:
    with Simulator(models=["gpt-4"], api_keys=["right-key"]) as sim:
        with pytest.raises(errors.AuthenticationError, match="check the API key given or OPENAI_API_KEY"):
            Chat("gpt-4", api_key="wrong-key", base_url=sim.base_url).invoke("x")
        with pytest.raises(errors.NotFoundError, match='check the model name "gpt-5" and base_url'):
            Chat("gpt-5", api_key="right-key", base_url=sim.base_url).invoke("x")
        assert sim.count() == 2


def test_a_redirect_elsewhere_is_not_followed_and_says_where_it_leads(sim, chat) -> None:
    with Simulator() as other:
        sim.on("m", faults.status(307, headers={"location": f"{other.base_url}/chat/completions?token=x"}))
        with pytest.raises(errors.APIStatusError, match=f"redirected to {other.base_url}/chat/completions:"):
            chat().invoke("x")
        assert other.count() == 0


def test_a_reply_longer_than_allowed_is_refused(sim, chat) -> None:
    sim.on("m", faults.reply("x" * 5000))
    with pytest.raises(errors.MalformedResponseError, match="max_response_bytes is the limit"):
        chat(max_response_bytes=2000, max_retries=0).invoke("x")


def test_errors_pickle_and_copy_with_their_story(sim, chat) -> None:
    sim.on("m", faults.status(500), times=2)
    with pytest.raises(errors.InternalServerError) as raised:
        chat(max_retries=0).batch(["a", "b", "c"], max_concurrency=1)
    error = raised.value
    for again in (pickle.loads(pickle.dumps(error)), copy.deepcopy(error)):
        assert (str(again), again.request_id, again.body, again.headers) == (
            str(error),
            error.request_id,
            error.body,
            error.headers,
        )
        assert again.attempts == error.attempts == 1
        assert [type(result) for result in again.results] == [type(result) for result in error.results]
        assert again.results[2].content == error.results[2].content


def test_a_body_that_is_no_error_object_is_kept_as_it_came(sim, chat) -> None:
    for body, expected in (("<html>no</html>", "<html>no</html>"), (json.dumps({"detail": "no"}), {"detail": "no"}), ("", None)):
        sim.on("m", faults.status(500, body=body), times=1)
        with pytest.raises(errors.InternalServerError) as raised:
            chat(max_retries=0).invoke("x")
        assert raised.value.body == expected
