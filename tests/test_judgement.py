"""What follows from a failure's class: what is retried, what falls back, and what a classifier of the user's changes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import anthropic
import botocore.exceptions
import google.api_core.exceptions as gcore
import grpc
import httpx
import httpx2
import langchain_core.exceptions as lc
import openai
import pytest
import requests

import seawall
from seawall import errors
from seawall._classify import classify, register_classifier, row_of_class, unregister_classifier, wants_fallback, wants_retry

OPENAI = openai.OpenAI(api_key="none")
REQUEST = httpx2.Request("POST", "https://api.example/v1/chat/completions")


def of_openai(status: int, body: object = None, headers: Mapping[str, str] | None = None) -> openai.APIStatusError:
    """What the OpenAI SDK itself makes of a response."""
    response = httpx2.Response(
        status, json={"error": {"message": "no"}} if body is None else body, headers=headers, request=REQUEST
    )
    return OPENAI._make_status_error_from_response(response)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (errors.AuthenticationError, "auth"),
        (errors.QuotaExceededError, "quota"),
        (errors.RateLimitError, "rate_limited"),
        (errors.BadRequestError, "permanent"),
        (openai.BadRequestError, "permanent"),
        (openai.RateLimitError, "rate_limited"),
        (openai.OAuthError, "auth"),
        (anthropic.OverloadedError, "transient"),
        (anthropic.PaymentRequiredError, "quota"),
        (gcore.Unauthenticated, "auth"),
        (gcore.InvalidArgument, "permanent"),
        (lc.ContextOverflowError, "context_window"),
        (httpx.ReadTimeout, "transient"),
        (TimeoutError, "transient"),
        (BaseException, None),
        (Exception, None),
        (OSError, None),
        (ValueError, None),
        (errors.SeawallError, None),
        (errors.APIError, None),
        (errors.APIStatusError, None),
        (openai.APIError, None),
        (openai.APIStatusError, None),
        (httpx.HTTPStatusError, None),
        (requests.RequestException, None),
        (botocore.exceptions.ClientError, None),
        (gcore.GoogleAPICallError, None),
        (lc.ModelError, None),
        (grpc.RpcError, None),
    ],
)
def test_what_a_type_alone_means(kind: type[BaseException], expected: str | None) -> None:
    assert row_of_class(kind) == expected


def test_a_type_with_a_status_of_its_own_means_it() -> None:
    class Teapot(Exception):
        status_code = 418

    assert row_of_class(Teapot) == "permanent"
    assert wants_retry(Teapot(), (Teapot,)) and not wants_retry(Teapot(), (Exception,))


QUOTA = of_openai(429, {"error": {"code": "insufficient_quota"}})


@pytest.mark.parametrize(
    ("exc", "listed", "expected"),
    [
        (of_openai(500), None, True),
        (of_openai(429), None, True),
        (of_openai(401), None, False),
        (ValueError(), None, False),
        (errors.CallTimeoutError(), None, True),
        (of_openai(500), (Exception,), True),
        (of_openai(500), (ValueError,), False),
        (of_openai(500), (), False),
        (ValueError(), (Exception,), True),
        (ValueError(), (ValueError,), True),
        # broad types retry no error of a class that is not retried
        (of_openai(401), (Exception,), False),
        (of_openai(401), (openai.APIError,), False),
        (of_openai(400), (openai.APIStatusError, openai.APITimeoutError), False),
        (errors.AuthenticationError("no"), (errors.APIError, errors.RateLimitError, errors.Timeout), False),
        (QUOTA, (openai.RateLimitError,), False),
        (errors.QuotaExceededError("no"), (errors.RateLimitError, errors.APIError), False),
        # naming the very error does
        (of_openai(401), (openai.AuthenticationError,), True),
        (of_openai(401), (Exception, openai.AuthenticationError), True),
        (errors.QuotaExceededError("no"), (errors.QuotaExceededError,), True),
        (errors.ContextWindowExceededError("no"), (errors.BadRequestError,), True),
        (of_openai(400), (Exception, openai.AuthenticationError), False),
        # the server decides over both, but only about what was listed
        (of_openai(400, headers={"x-should-retry": "true"}), None, True),
        (of_openai(500, headers={"x-should-retry": "false"}), None, False),
        (of_openai(401, headers={"x-should-retry": "true"}), (Exception,), True),
        (of_openai(401, headers={"x-should-retry": "false"}), (openai.AuthenticationError,), False),
        (of_openai(500, headers={"x-should-retry": "true"}), (ValueError,), False),
        # refusals from inside
        (errors.CircuitBreakerError(), None, False),
        (errors.CircuitBreakerError(), (Exception,), False),
        (errors.CircuitBreakerError(), (errors.CircuitBreakerError,), True),
        (errors.RateLimitExceededError(retry_after=1), None, False),
        (errors.RateLimitExceededError(retry_after=1), (Exception,), True),
    ],
)
def test_wants_retry(exc: BaseException, listed: tuple[type[BaseException], ...] | None, expected: bool) -> None:
    assert wants_retry(exc, listed) is expected


@pytest.mark.parametrize(
    ("exc", "listed", "expected"),
    [
        (of_openai(500), None, True),
        (ValueError(), None, True),
        (errors.CircuitBreakerError(), None, True),
        (QUOTA, None, True),
        (of_openai(404), None, True),
        (errors.ContextWindowExceededError("no"), None, True),
        (of_openai(400), None, False),
        (of_openai(422), (Exception,), False),
        (of_openai(400), (openai.BadRequestError,), True),
        (of_openai(401), None, "other_credentials"),
        (of_openai(401), (Exception,), "other_credentials"),
        (of_openai(401), (openai.AuthenticationError,), True),
        (of_openai(500), (ValueError,), False),
    ],
)
def test_wants_fallback(exc: BaseException, listed: tuple[type[BaseException], ...] | None, expected: object) -> None:
    assert wants_fallback(exc, listed) == expected


@pytest.fixture
def registered() -> Iterator[list[Any]]:
    added: list[Any] = []
    yield added
    for fn in added:
        unregister_classifier(fn)


def test_a_registered_classifier_decides_first_or_last(registered: list[Any]) -> None:
    registered.append(
        register_classifier(lambda exc: "transient" if isinstance(exc, (ValueError, openai.AuthenticationError)) else None)
    )
    registered.append(
        register_classifier(lambda exc: "quota" if isinstance(exc, (KeyError, TimeoutError)) else None, first=False)
    )
    assert classify(ValueError()) == "transient" and classify(of_openai(401)) == "transient"
    assert classify(KeyError()) == "quota" and classify(TimeoutError()) == "transient"
    assert wants_retry(ValueError())
    for fn in list(registered):
        unregister_classifier(fn)
        registered.remove(fn)
    assert classify(ValueError()) == classify(KeyError()) == "unknown"


def test_the_last_registered_is_asked_first(registered: list[Any]) -> None:
    registered.append(register_classifier(lambda exc: "quota"))
    registered.append(register_classifier(lambda exc: "auth"))
    assert classify(ValueError()) == "auth"


def test_a_classifier_that_fails_is_passed_over_and_logged(registered: list[Any], caplog: pytest.LogCaptureFixture) -> None:
    @register_classifier
    def broken(exc: BaseException) -> str | None:
        raise RuntimeError("mine")

    registered.append(broken)
    assert classify(TimeoutError("prompt text")) == "transient"
    assert "broken" in caplog.text and "TimeoutError" in caplog.text


def test_a_name_that_is_none_is_refused(registered: list[Any]) -> None:
    registered.append(register_classifier(lambda exc: "transien"))
    original = ValueError("the real one")
    with pytest.raises(errors.ConfigurationError, match="'transien'.*transient, rate_limited") as caught:
        classify(original)
    assert caught.value.__cause__ is original
    with pytest.raises(errors.ConfigurationError, match="not 'quota'"):
        register_classifier("quota")  # type: ignore[type-var]
    with pytest.raises(errors.ConfigurationError, match="is not registered"):
        unregister_classifier(len)  # type: ignore[arg-type]


class ByName(type):
    """A class of classes that decide for themselves what is theirs."""

    def __instancecheck__(cls, instance: object) -> bool:
        return cls.__subclasscheck__(type(instance))

    def __subclasscheck__(cls, kind: type) -> bool:
        return kind.__name__.startswith("Mine")


class Mine(Exception, metaclass=ByName):
    pass


class MineToo(ValueError):
    pass


class NotTheirs(Mine):
    pass


@pytest.mark.parametrize(("kind", "counts"), [(Mine, True), (MineToo, True), (ValueError, False), (NotTheirs, False)])
def test_a_class_that_decides_for_itself_is_asked_each_time(kind: type[Exception], counts: bool) -> None:
    breaker = seawall.CircuitBreaker(100, expected_exception=(KeyError, Mine))
    calls = 0

    @seawall.Pipeline(seawall.Retry(3, on=(KeyError, Mine), wait=0), breaker)
    def fails() -> None:
        nonlocal calls
        calls += 1
        raise kind("x")

    for turn in range(1, 4):
        with pytest.raises((Mine, NotTheirs, ValueError)):
            fails()
        each = 3 if counts else 1
        assert (calls, breaker.failure_count) == (turn * each, turn * each if counts else 0)


@pytest.mark.parametrize("kind", [ConnectionError, TimeoutError, ValueError, OSError, openai.APITimeoutError])
def test_a_failure_means_the_same_the_first_time_and_later(kind: type[Exception]) -> None:
    fresh = type("Fresh", (kind,), {"__init__": lambda self: None})
    breaker = seawall.CircuitBreaker(100, expected_exception=seawall.transient)
    calls = 0

    @seawall.Pipeline(seawall.Retry(2, wait=0), breaker)
    def fails() -> None:
        nonlocal calls
        calls += 1
        raise fresh()

    seen = []
    for _ in range(3):
        before = calls, breaker.failure_count
        with pytest.raises(fresh):
            fails()
        seen.append((calls - before[0], breaker.failure_count - before[1]))
    each = 2 if wants_retry(fresh()) else 1
    assert seen == [(each, each if each == 2 else 0)] * 3


@pytest.mark.parametrize("kind", [openai.ContentFilterFinishReasonError, errors.ConfigurationError])
def test_what_no_retry_mends_is_called_once_though_a_broad_class_is_listed(kind: type[Exception]) -> None:
    calls = 0

    @seawall.retry(3, on=Exception, wait=0)
    def fails() -> None:
        nonlocal calls
        calls += 1
        raise kind()

    for turn in range(1, 4):
        with pytest.raises(kind):
            fails()
        assert calls == turn


def test_a_classifier_is_heard_of_failures_that_were_known_before(registered: list[Any]) -> None:
    calls = 0

    @seawall.retry(3, wait=0)
    def fails() -> None:
        nonlocal calls
        calls += 1
        raise LookupError("busy")

    def made() -> int:
        before = calls
        with pytest.raises(LookupError):
            fails()
        return calls - before

    assert [made(), made()] == [1, 1]
    registered.append(register_classifier(lambda exc: "transient" if isinstance(exc, LookupError) else None))
    assert [made(), made()] == [3, 3]
    unregister_classifier(registered.pop())
    assert made() == 1


def test_attributes_of_an_exception_are_heard_though_its_class_is_known() -> None:
    class Failed(Exception):
        pass

    calls = 0

    @seawall.retry(9, on=Failed, wait=0)
    def fails() -> None:
        nonlocal calls
        calls += 1
        error = Failed("no")
        if calls == 4:
            error.status_code = 401  # type: ignore[attr-defined]
        raise error

    with pytest.raises(Failed) as caught:
        fails()
    assert (calls, caught.value.status_code) == (4, 401)  # type: ignore[attr-defined]
