"""What the SDKs' errors mean to the policies: each class of both, with the codes and headers that change its meaning."""

from __future__ import annotations

from typing import Any

import anthropic
import httpx2
import openai
import pytest

import seawall
from seawall._classify import retry_after, wants_retry
from seawall.simulator import faults

ASKED: Any = [{"role": "user", "content": "hello there"}]
PLAIN: Any = {"model": "m", "messages": ASKED}
REQUEST = httpx2.Request("POST", "http://127.0.0.1/v1/chat/completions")

BY_STATUS = {
    400: "permanent", 401: "auth", 402: "quota", 403: "auth", 404: "not_found", 408: "transient", 409: "transient", 413: "permanent",
    422: "permanent", 429: "rate_limited", 500: "transient", 502: "transient", 503: "transient", 504: "transient", 529: "transient",
}  # fmt: skip


def raised(sdk: Any, status: int, error: dict[str, Any] | None = None, headers: dict[str, str] | None = None) -> Exception:
    """As the SDK itself makes it of a response."""
    response = httpx2.Response(status, json={"error": error or {"message": "no"}}, headers=headers, request=REQUEST)
    client = openai.OpenAI(api_key="k") if sdk is openai else anthropic.Anthropic(api_key="k")
    made: Exception = client._make_status_error_from_response(response)
    return made


@pytest.mark.parametrize("sdk", [openai, anthropic], ids=["openai", "anthropic"])
def test_each_status_means_the_same_in_both(sdk):
    found = {status: seawall.classify(raised(sdk, status)) for status in BY_STATUS}
    assert found == BY_STATUS


@pytest.mark.parametrize("sdk", [openai, anthropic], ids=["openai", "anthropic"])
def test_errors_without_a_status(sdk):
    response = httpx2.Response(200, request=REQUEST)
    for error, failure in (
        (sdk.APIConnectionError(request=REQUEST), "transient"),
        (sdk.APITimeoutError(request=REQUEST), "transient"),
        (sdk.APIResponseValidationError(response=response, body=None), "malformed"),
        (sdk.APIError("overloaded", REQUEST, body={"type": "error", "error": {"type": "overloaded_error"}}), "transient"),
        (sdk.APIError("quota", REQUEST, body={"code": "insufficient_quota"}), "quota"),
        (sdk.APIError("key", REQUEST, body={"error": {"type": "authentication_error"}}), "auth"),
    ):
        assert seawall.classify(error) == failure, error


def test_codes_say_more_than_the_status():
    for sdk, status, error, failure in (
        (openai, 429, {"code": "insufficient_quota", "message": "no"}, "quota"),
        (openai, 400, {"code": "context_length_exceeded", "message": "no"}, "context_window"),
        (openai, 400, {"code": "content_filter", "message": "no"}, "content_filter"),
        (anthropic, 400, {"type": "invalid_request_error", "message": "prompt is too long: 9 tokens"}, "context_window"),
        (anthropic, 400, {"type": "invalid_request_error", "message": "Your credit balance is too low"}, "quota"),
        (anthropic, 529, {"type": "overloaded_error", "message": "Overloaded"}, "transient"),
    ):
        assert seawall.classify(raised(sdk, status, error)) == failure, error


def test_a_finish_that_cannot_be_parsed():
    completion = openai.types.chat.ChatCompletion.model_construct(usage=None)
    assert seawall.classify(openai.LengthFinishReasonError(completion=completion)) == "unknown"
    assert seawall.classify(openai.ContentFilterFinishReasonError()) == "content_filter"
    assert not wants_retry(openai.LengthFinishReasonError(completion=completion))


@pytest.mark.parametrize("sdk", [openai, anthropic], ids=["openai", "anthropic"])
def test_headers_are_read(sdk):
    assert retry_after(raised(sdk, 429, headers={"retry-after-ms": "1500", "retry-after": "9"})) == 1.5
    assert retry_after(raised(sdk, 503, headers={"retry-after": "7"})) == 7
    assert retry_after(raised(sdk, 429, headers={"retry-after": "soon"})) is None
    assert not wants_retry(raised(sdk, 500, headers={"x-should-retry": "false"}))
    assert wants_retry(raised(sdk, 400, headers={"x-should-retry": "true"}))


@pytest.mark.parametrize("said", ["true", "false"])
def test_the_servers_word_on_retries_holds_for_plain_decorators(sim, sdk, said):
    plain = sdk.with_options(max_retries=0)
    status = 400 if said == "true" else 500
    sim.on("m", faults.status(status, headers={"x-should-retry": said}))

    @seawall.retry(attempts=3, wait=0)
    def ask() -> Any:
        return plain.chat.completions.create(**PLAIN)

    with pytest.raises(openai.APIStatusError):
        ask()
    assert sim.count() == (3 if said == "true" else 1)


def test_what_user_code_catches_stays_the_sdks(sim, sdk):
    client = seawall.resilient(sdk, retry=seawall.Retry(2, wait=0))
    for fault, kind in (
        (faults.rate_limit(), openai.RateLimitError),
        (faults.quota(), openai.RateLimitError),
        (faults.status(401), openai.AuthenticationError),
        (faults.unknown_model(), openai.NotFoundError),
        (faults.reset(), openai.APIConnectionError),
        (faults.context_window(), openai.BadRequestError),
    ):
        sim.on("m", fault)
        with pytest.raises(kind) as caught:
            client.chat.completions.create(**PLAIN)
        assert type(caught.value) is kind
