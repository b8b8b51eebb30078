"""Every exception here is built by the real package that it belongs to.

Needs openai, anthropic, httpx, httpx2, requests, urllib3, aiohttp, botocore, google-api-core, google-genai, google-auth, grpcio,
langchain-core and trio.
"""

from __future__ import annotations

import asyncio
import builtins
import email.utils
import errno
import http.client
import importlib
import io
import json
import socket
import ssl
import time
import urllib.error
from collections.abc import Mapping
from typing import Any

import aiohttp
import anthropic
import botocore.exceptions
import google.api_core.exceptions as gcore
import google.auth.exceptions
import google.genai.errors
import grpc
import httpx
import httpx2
import langchain_core.exceptions as lc
import openai
import pytest
import requests
import trio
import urllib3

from seawall import errors
from seawall._classify import (
    classify,
    retry_after,
    should_retry_header,
    transient,
    wants_fallback,
    wants_retry,
)
from seawall._known_errors import CLASSES

OPENAI = openai.OpenAI(api_key="none")
ANTHROPIC = anthropic.Anthropic(api_key="none")
REQUEST = httpx2.Request("POST", "https://api.example/v1/chat/completions")


def of_openai(status: int, body: object = None, headers: Mapping[str, str] | None = None) -> openai.APIStatusError:
    """What the OpenAI SDK itself makes of a response."""
    response = httpx2.Response(
        status, json={"error": {"message": "no"}} if body is None else body, headers=headers, request=REQUEST
    )
    return OPENAI._make_status_error_from_response(response)


def of_anthropic(status: int, kind: str = "api_error", message: str = "no", sent: int | None = None) -> Exception:
    body = {"type": "error", "error": {"type": kind, "message": message}}
    response = httpx2.Response(sent or status, json=body, request=REQUEST)
    return ANTHROPIC._make_status_error("no", body=body, response=response)


def of_httpx(status: int, content: str = "", headers: Mapping[str, str] | None = None) -> Exception:
    response = httpx.Response(status, content=content, headers=headers, request=httpx.Request("GET", "https://api.example/"))
    with pytest.raises(httpx.HTTPStatusError) as caught:
        response.raise_for_status()
    return caught.value


def of_requests(status: int, content: bytes = b"", headers: Mapping[str, str] | None = None) -> Exception:
    response = requests.Response()
    response.status_code, response.raw = status, io.BytesIO(content)
    response.headers.update(headers or {})
    response.content  # noqa: B018  reads it, as requests does where stream=False
    with pytest.raises(requests.HTTPError) as caught:
        response.raise_for_status()
    return caught.value


def of_aiohttp(kind: type[aiohttp.ClientResponseError], status: int, headers: Any = None) -> Exception:
    info = aiohttp.RequestInfo("https://api.example/", "GET", {}, "https://api.example/")  # type: ignore[arg-type]
    return kind(info, (), status=status, headers=headers)


def of_aws(code: str, status: int, message: str = "no", headers: Mapping[str, str] | None = None) -> Exception:
    response: Any = {
        "Error": {"Code": code, "Message": message},
        "ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": headers or {}},
    }
    return botocore.exceptions.ClientError(response, "InvokeModel")


def of_grpc(code: grpc.StatusCode) -> Exception:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata())


def caused(outer: BaseException, inner: BaseException) -> BaseException:
    outer.__cause__ = inner
    return outer


CERTIFICATE = ssl.SSLCertVerificationError(
    1, "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: certificate has expired"
)
GENAI = {
    "error": {
        "code": 400,
        "status": "INVALID_ARGUMENT",
        "message": "API key not valid",
        "details": [{"reason": "API_KEY_INVALID"}],
    }
}
FULL = "The input token count (1048577) exceeds the maximum number of tokens allowed"

CASES: list[tuple[str, BaseException]] = [
    # openai, status by status
    ("permanent", of_openai(400)),
    ("auth", of_openai(401)),
    ("quota", of_openai(402)),
    ("auth", of_openai(403)),
    ("not_found", of_openai(404)),
    ("transient", of_openai(408)),
    ("transient", of_openai(409)),
    ("permanent", of_openai(413)),
    ("permanent", of_openai(422)),
    ("rate_limited", of_openai(429)),
    ("transient", of_openai(500)),
    ("transient", of_openai(503)),
    ("transient", of_openai(529)),
    ("permanent", of_openai(418)),
    # openai, by code
    ("quota", of_openai(429, {"error": {"code": "insufficient_quota", "type": "insufficient_quota", "message": "no"}})),
    ("quota", of_openai(429, {"error": {"code": "billing_hard_limit_reached"}})),
    (
        "quota",
        of_openai(
            429, {"error": {"code": "rate_limit_exceeded", "type": "tokens", "message": "Request too large for gpt-4 on TPM"}}
        ),
    ),
    ("rate_limited", of_openai(429, {"error": {"code": "rate_limit_exceeded", "type": "requests", "message": "slow down"}})),
    ("context_window", of_openai(400, {"error": {"code": "context_length_exceeded"}})),
    ("context_window", of_openai(400, {"error": {"message": "This model's maximum context length is 8192 tokens"}})),
    (
        "content_filter",
        of_openai(400, {"error": {"code": "content_filter", "innererror": {"code": "ResponsibleAIPolicyViolation"}}}),
    ),
    ("content_filter", of_openai(400, {"error": {"code": None, "innererror": {"code": "ResponsibleAIPolicyViolation"}}})),
    ("content_filter", of_openai(400, {"error": {"code": "content_policy_violation"}})),
    ("not_found", of_openai(400, {"error": {"code": "model_not_found"}})),
    ("permanent", of_openai(400, {"error": "a string"})),
    ("transient", of_openai(500, ["not", "an", "object"])),
    # openai, without a status
    ("transient", openai.APIConnectionError(request=REQUEST)),
    ("transient", openai.APITimeoutError(request=REQUEST)),
    ("permanent", caused(openai.APIConnectionError(request=REQUEST), caused(httpx2.ConnectError("no"), CERTIFICATE))),
    ("malformed", openai.APIResponseValidationError(httpx2.Response(200, request=REQUEST), None)),
    ("content_filter", openai.ContentFilterFinishReasonError()),
    ("unknown", openai.OpenAIError("The api_key client option must be set")),
    # an error object inside a stream that began with 200
    ("transient", openai.APIError("no", REQUEST, body={"message": "the engine died"})),
    ("transient", openai.APIError("no", REQUEST, body={"code": "server_error"})),
    ("rate_limited", openai.APIError("no", REQUEST, body={"code": "rate_limit_exceeded"})),
    ("permanent", openai.APIError("no", REQUEST, body={"code": 400, "type": "BadRequestError"})),
    ("unknown", openai.APIError("no", REQUEST, body=None)),
    # anthropic
    ("permanent", of_anthropic(400, "invalid_request_error")),
    ("context_window", of_anthropic(400, "invalid_request_error", "prompt is too long: 210000 tokens > 200000 maximum")),
    ("quota", of_anthropic(400, "invalid_request_error", "Your credit balance is too low to access the API")),
    ("auth", of_anthropic(401, "authentication_error")),
    ("quota", of_anthropic(402, "billing_error")),
    ("auth", of_anthropic(403, "permission_error")),
    ("permanent", of_anthropic(413, "request_too_large")),
    ("rate_limited", of_anthropic(429, "rate_limit_error")),
    ("transient", of_anthropic(500)),
    ("transient", of_anthropic(529, "overloaded_error")),
    ("transient", of_anthropic(200, "overloaded_error")),
    ("rate_limited", of_anthropic(200, "rate_limit_error")),
    ("transient", anthropic.RetryableError("again")),
    ("transient", anthropic.APITimeoutError(REQUEST)),
    # httpx and httpx2
    ("auth", of_httpx(401)),
    ("rate_limited", of_httpx(429)),
    ("quota", of_httpx(429, '{"error": {"code": "insufficient_quota"}}')),
    ("context_window", of_httpx(400, '{"error": {"message": "prompt is too long"}}')),
    ("transient", of_httpx(502, "<html>")),
    ("transient", httpx.ConnectError("no")),
    ("permanent", httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed")),
    ("transient", httpx.ReadTimeout("no")),
    ("transient", httpx.PoolTimeout("no")),
    ("transient", httpx.RemoteProtocolError("peer closed connection")),
    ("permanent", httpx.UnsupportedProtocol("no scheme")),
    ("permanent", httpx.InvalidURL("no")),
    ("malformed", httpx.DecodingError("no")),
    ("unknown", httpx.StreamConsumed()),
    ("transient", httpx2.ReadError("no")),
    ("permanent", caused(httpx2.ConnectError("no"), CERTIFICATE)),
    # requests and urllib3
    ("transient", of_requests(500)),
    ("auth", of_requests(403)),
    ("quota", of_requests(429, b'{"error": {"code": "insufficient_quota"}}')),
    ("transient", requests.ConnectionError("no")),
    ("transient", requests.ConnectTimeout("no")),
    ("transient", requests.ReadTimeout("no")),
    (
        "permanent",
        requests.exceptions.SSLError(urllib3.exceptions.MaxRetryError(None, "/", urllib3.exceptions.SSLError(CERTIFICATE))),
    ),  # type: ignore[arg-type]
    ("malformed", requests.exceptions.ChunkedEncodingError("no")),
    ("malformed", requests.JSONDecodeError("no", "<html>", 0)),
    ("permanent", requests.exceptions.MissingSchema("no")),
    ("transient", urllib3.exceptions.ProtocolError("no")),
    ("transient", urllib3.exceptions.ReadTimeoutError(None, "/", "no")),  # type: ignore[arg-type]
    ("permanent", urllib3.exceptions.LocationParseError("no")),
    # aiohttp
    ("transient", of_aiohttp(aiohttp.ClientResponseError, 503)),
    ("rate_limited", of_aiohttp(aiohttp.ClientResponseError, 429)),
    ("malformed", of_aiohttp(aiohttp.ContentTypeError, 200)),
    ("transient", of_aiohttp(aiohttp.ContentTypeError, 502)),
    ("transient", aiohttp.ServerDisconnectedError()),
    ("transient", aiohttp.ServerTimeoutError()),
    ("transient", aiohttp.ClientOSError(errno.ECONNRESET, "no")),
    ("malformed", aiohttp.ClientPayloadError("no")),
    ("permanent", aiohttp.InvalidURL("no")),
    # botocore
    ("rate_limited", of_aws("ThrottlingException", 400)),
    ("rate_limited", of_aws("SlowDown", 503)),
    ("quota", of_aws("ServiceQuotaExceededException", 400)),
    ("auth", of_aws("AccessDeniedException", 403)),
    ("auth", of_aws("ExpiredTokenException", 400)),
    ("not_found", of_aws("ResourceNotFoundException", 404)),
    ("permanent", of_aws("ValidationException", 400)),
    ("context_window", of_aws("ValidationException", 400, "Input is too long for requested model.")),
    ("transient", of_aws("ModelErrorException", 424)),
    ("transient", of_aws("Strange", 500)),
    ("unknown", botocore.exceptions.ClientError({}, "InvokeModel")),
    ("transient", botocore.exceptions.EndpointConnectionError(endpoint_url="https://a")),
    ("transient", botocore.exceptions.ReadTimeoutError(endpoint_url="https://a")),
    ("permanent", botocore.exceptions.SSLError(endpoint_url="https://a", error=CERTIFICATE)),
    ("auth", botocore.exceptions.NoCredentialsError()),
    ("permanent", botocore.exceptions.ParamValidationError(report="no")),
    # google
    ("permanent", gcore.InvalidArgument("no")),
    ("context_window", gcore.InvalidArgument(FULL)),
    ("auth", gcore.Unauthenticated("no")),
    ("auth", gcore.PermissionDenied("no")),
    ("not_found", gcore.NotFound("no")),
    ("rate_limited", gcore.ResourceExhausted("You exceeded your current quota, please check your plan")),
    ("transient", gcore.ServiceUnavailable("no")),
    ("transient", gcore.DeadlineExceeded("no")),
    ("transient", gcore.Aborted("no")),
    ("transient", gcore.RetryError("no", cause=None)),
    ("auth", google.genai.errors.ClientError(400, GENAI)),
    ("context_window", google.genai.errors.ClientError(400, {"error": {"status": "INVALID_ARGUMENT", "message": FULL}})),
    ("rate_limited", google.genai.errors.ClientError(429, {"error": {"status": "RESOURCE_EXHAUSTED"}})),
    ("transient", google.genai.errors.ServerError(503, {"error": {"status": "UNAVAILABLE"}})),
    ("auth", google.auth.exceptions.RefreshError("no")),
    ("transient", google.auth.exceptions.TransportError("no")),
    ("transient", of_grpc(grpc.StatusCode.UNAVAILABLE)),
    ("rate_limited", of_grpc(grpc.StatusCode.RESOURCE_EXHAUSTED)),
    ("auth", of_grpc(grpc.StatusCode.UNAUTHENTICATED)),
    ("permanent", of_grpc(grpc.StatusCode.INVALID_ARGUMENT)),
    ("unknown", of_grpc(grpc.StatusCode.CANCELLED)),
    # langchain-core
    ("auth", lc.ModelAuthenticationError("no")),
    ("permanent", lc.ModelInvalidRequestError("no")),
    ("not_found", lc.ModelNotFoundError("no")),
    ("rate_limited", lc.ModelRateLimitError("no")),
    ("transient", lc.ModelAPIError("no")),
    ("transient", lc.ModelConnectionError("no")),
    ("transient", lc.ModelTimeoutError("no")),
    ("context_window", lc.ContextOverflowError("no")),
    ("content_filter", lc.ModelRefusalError("no")),
    ("unknown", lc.ModelError("no")),
    ("unknown", lc.OutputParserException("no")),
    # the standard library
    ("transient", TimeoutError()),
    ("transient", asyncio.TimeoutError()),
    ("transient", TimeoutError()),
    ("transient", socket.gaierror(socket.EAI_NONAME, "no")),
    ("transient", ConnectionRefusedError()),
    ("transient", ConnectionResetError()),
    ("transient", OSError(errno.EHOSTUNREACH, "No route to host")),
    ("unknown", FileNotFoundError(errno.ENOENT, "no")),
    ("unknown", OSError("no")),
    ("transient", ssl.SSLEOFError("no")),
    ("permanent", CERTIFICATE),
    ("transient", http.client.RemoteDisconnected("no")),
    ("malformed", http.client.IncompleteRead(b"")),
    ("auth", urllib.error.HTTPError("https://a", 401, "no", None, None)),  # type: ignore[arg-type]
    ("permanent", urllib.error.URLError(CERTIFICATE)),
    ("transient", urllib.error.URLError(ConnectionRefusedError())),
    ("transient", asyncio.IncompleteReadError(b"", 3)),
    ("transient", trio.TooSlowError()),
    ("unknown", json.JSONDecodeError("no", "x", 0)),
    ("unknown", ValueError("no")),
    ("unknown", KeyError("no")),
    # ours
    ("unknown", errors.SeawallError("no")),
    ("unknown", errors.APIError("no")),
    ("transient", errors.APIError("no", body={"message": "died"})),
    ("quota", errors.APIError("no", code="insufficient_quota")),
    ("transient", errors.APIConnectionError("no")),
    ("permanent", errors.APIConnectionError("invalid peer certificate: Expired")),
    ("transient", errors.APITimeoutError()),
    ("transient", errors.APIStatusError("no", status_code=408)),
    ("quota", errors.APIStatusError("no", status_code=402)),
    ("permanent", errors.BadRequestError("no")),
    ("context_window", errors.ContextWindowExceededError("no")),
    ("content_filter", errors.ContentFilterError("no")),
    ("auth", errors.AuthenticationError("no")),
    ("auth", errors.PermissionDeniedError("no")),
    ("not_found", errors.NotFoundError("no")),
    ("transient", errors.ConflictError("no")),
    ("permanent", errors.UnprocessableEntityError("no")),
    ("rate_limited", errors.RateLimitError("no")),
    ("quota", errors.RateLimitError("no", code="insufficient_quota")),
    ("quota", errors.QuotaExceededError("no")),
    ("transient", errors.InternalServerError("no")),
    ("transient", errors.ServiceUnavailable("no")),
    ("malformed", errors.MalformedResponseError("no")),
    ("malformed", errors.StreamInterruptedError("no")),
    ("transient", errors.CallTimeoutError()),
    ("permanent", errors.ConfigurationError("no")),
    ("unknown", errors.CircuitBreakerError()),
    ("unknown", errors.RateLimitExceededError()),
    ("unknown", errors.BulkheadFullError()),
]


@pytest.mark.parametrize(("expected", "exc"), CASES, ids=lambda value: value if isinstance(value, str) else type(value).__name__)
def test_class(expected: str, exc: BaseException) -> None:
    assert classify(exc) == expected
    assert classify(exc) == expected, "not the same the second time"
    assert transient(exc) is (expected in ("transient", "rate_limited", "malformed"))


def test_the_langchain_layer_of_an_error_does_not_hide_what_it_is() -> None:
    class OpenAIContextOverflowError(openai.APIError, lc.ContextOverflowError):  # as langchain-openai defines it
        pass

    class OpenAIAPIContextOverflowError(openai.BadRequestError, lc.ContextOverflowError):
        pass

    class OpenAIRateLimitError(openai.RateLimitError, lc.ModelRateLimitError):
        pass

    class Ours(errors.RateLimitError, lc.ModelRateLimitError):
        pass

    assert classify(OpenAIContextOverflowError("no", REQUEST, body={})) == "context_window"
    refused = httpx2.Response(400, request=REQUEST)
    assert classify(OpenAIAPIContextOverflowError("no", response=refused, body={})) == "context_window"
    quota = httpx2.Response(429, request=REQUEST)
    assert classify(OpenAIRateLimitError("no", response=quota, body={"code": "insufficient_quota"})) == "quota"
    assert classify(Ours("no")) == "rate_limited" and classify(Ours("no", code="insufficient_quota")) == "quota"


def test_a_users_own_exception_is_read_by_its_status() -> None:
    class Own(Exception):
        def __init__(self, **attributes: Any) -> None:
            vars(self).update(attributes)

    class Response:
        status_code = 503

    assert classify(Own(status_code=401)) == "auth"
    assert classify(Own(status=429)) == "rate_limited"
    assert classify(Own(response=Response())) == "transient"
    for nothing in (True, "503", 7, None, 200):
        assert classify(Own(status=nothing)) == "unknown"
    assert classify(Own(code=404)) == "unknown", "a user's code is no HTTP status"


def test_is_retryable_of_a_foreign_model_error() -> None:
    class Again(lc.ModelError):
        is_retryable = True

    assert classify(Again("no")) == "transient"
    assert not wants_retry(lc.ModelError("no"), (Exception,))
    assert wants_retry(lc.ModelError("no"), (lc.ModelError,)), "listed by its very name"
    assert wants_fallback(lc.ModelError("no")) is True


def test_a_body_that_is_nested_too_deeply_hides_no_status() -> None:
    for status, expected in ((500, "transient"), (429, "rate_limited"), (401, "auth")):
        assert classify(of_httpx(status, "[" * 60_000)) == expected


def test_an_exception_that_breaks_when_looked_at_is_unknown() -> None:
    class Hostile(Exception):
        def __getattribute__(self, name: str) -> Any:
            raise RuntimeError(name)

    class Unread(openai.APIStatusError):
        @property
        def response(self) -> Any:
            raise RuntimeError("not read")

        def __str__(self) -> str:
            raise RuntimeError("no text")

        def __init__(self) -> None:
            self.status_code = 400

    class Mute(openai.APIConnectionError):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    assert classify(Mute(request=REQUEST)) == "unknown"
    assert classify(Hostile()) == "unknown" and retry_after(Hostile()) is None
    assert classify(Unread()) == "permanent" and should_retry_header(Unread()) is None


def test_a_group_is_as_bad_as_its_worst_member() -> None:
    group = getattr(builtins, "ExceptionGroup", None) or importlib.import_module("exceptiongroup").ExceptionGroup
    assert classify(group("g", [TimeoutError(), of_openai(500)])) == "transient"
    assert classify(group("g", [TimeoutError(), ValueError()])) == "unknown"
    assert classify(group("g", [ValueError(), group("h", [TimeoutError(), of_openai(401)])])) == "auth"


def test_the_table_says_what_the_design_says() -> None:
    retried = {name for name, row in CLASSES.items() if row.retry}
    counted = {name for name, row in CLASSES.items() if row.breaker}
    assert retried == {"transient", "rate_limited", "malformed"}
    assert counted == {"transient", "malformed"}
    assert {name for name, row in CLASSES.items() if row.fallback is False} == {"permanent"}
    assert CLASSES["auth"].fallback == "other_credentials"
    assert CLASSES["unknown"].retry is None


# ------------------------------------------------------------------------------------------------------ what is waited


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"retry-after": "3"}, 3.0),
        ({"Retry-After": " 2.5 "}, 2.5),
        ({"RETRY-AFTER-MS": "1500"}, 1.5),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after-ms": "soon", "retry-after": "9"}, 9.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "0"}, None),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "1e999"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, None),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT", "date": "Wed, 21 Oct 2015 07:27:30 GMT"}, 30.0),
        ({"retry-after": "Wed, 99 Oct 2015"}, None),
        ({}, None),
    ],
)
def test_retry_after_in_its_three_forms_from_everyone(headers: dict[str, str], expected: float | None) -> None:
    class Plain(Exception):
        pass

    plain, raw = Plain(), Plain()
    plain.headers = headers  # type: ignore[attr-defined]
    raw.headers = {k.encode(): v.encode() for k, v in headers.items()}  # type: ignore[attr-defined]
    ours = errors.RateLimitError("no", headers=headers)
    stdlib = http.client.HTTPMessage()
    for name, value in headers.items():
        stdlib[name] = value
    everyone = [
        plain,
        raw,
        ours,
        of_openai(429, headers=headers),
        of_httpx(429, headers=headers),
        of_requests(429, headers=headers),
    ]
    everyone += [of_aiohttp(aiohttp.ClientResponseError, 429, headers), of_aws("SlowDown", 503, headers=headers)]
    everyone += [urllib.error.HTTPError("https://a", 429, "no", stdlib, None)]
    assert [retry_after(exc) for exc in everyone] == [expected] * len(everyone)


def test_retry_after_as_a_date_counts_from_now_where_the_server_says_no_time() -> None:
    wait = retry_after(
        errors.RateLimitError("no", headers={"retry-after": email.utils.formatdate(time.time() + 60, usegmt=True)})
    )
    assert wait is not None and 30 < wait <= 61


def test_retry_after_of_a_refusal_and_of_nothing() -> None:
    assert retry_after(errors.CircuitBreakerError(retry_after=2.5)) == 2.5
    assert retry_after(errors.CircuitBreakerError(retry_after=0)) is None
    assert retry_after(errors.BulkheadFullError()) is None
    assert retry_after(ValueError("no")) is None


@pytest.mark.parametrize(("value", "expected"), [("true", True), ("False", False), ("maybe", None), ("", None)])
def test_should_retry_header(value: str, expected: bool | None) -> None:
    assert should_retry_header(of_openai(500, headers={"X-Should-Retry": value})) is expected
    assert should_retry_header(of_openai(500)) is None
