"""The tree of errors: names, attributes, what survives pickling and copying."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys

import pytest

from seawall import errors
from seawall.errors import (
    TABLE,
    APIConnectionError,
    APIError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    BadRequestError,
    BulkheadFullError,
    CallTimeoutError,
    CircuitBreakerError,
    ConfigurationError,
    ContentFilterError,
    ContextWindowExceededError,
    InternalServerError,
    QuotaExceededError,
    RateLimitError,
    RateLimitExceededError,
    Rejected,
    SeawallError,
    ServiceUnavailable,
    StreamInterruptedError,
)

CLASSES = [row.error for row in TABLE]


class KeywordOnly(RateLimitError):
    """A subclass whose constructor pickle could not call."""

    def __init__(self, *, tenant: str) -> None:
        super().__init__(f"limit of {tenant}")
        self.tenant = tenant


class Unpicklable(Exception):
    def __init__(self, *, needed: int) -> None:
        super().__init__("boom")


def copies(error: SeawallError) -> list[SeawallError]:
    protocols = [pickle.loads(pickle.dumps(error, protocol)) for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1)]
    return [*protocols, copy.copy(error), copy.deepcopy(error)]


def test_the_table_is_the_module() -> None:
    in_module = {name for name, thing in vars(errors).items() if isinstance(thing, type) and issubclass(thing, BaseException)}
    assert {error.__name__ for error in CLASSES} | {"Timeout"} == in_module
    assert set(errors.__all__) == in_module | {"TABLE", "ErrorRow"}
    assert len(set(errors.__all__)) == len(errors.__all__)


@pytest.mark.parametrize("kind", CLASSES)
def test_each_says_when_it_is_raised(kind: type[SeawallError]) -> None:
    assert kind.__dict__["__doc__"]
    assert issubclass(kind, SeawallError)


def test_the_tree_is_openais() -> None:
    assert issubclass(APITimeoutError, APIConnectionError) and issubclass(APIConnectionError, APIError)
    assert errors.Timeout is APITimeoutError
    statuses = {400: "BadRequestError", 401: "AuthenticationError", 403: "PermissionDeniedError", 404: "NotFoundError"}
    statuses |= {409: "ConflictError", 422: "UnprocessableEntityError", 429: "RateLimitError", 500: "InternalServerError"}
    for status, name in statuses.items():
        kind = getattr(errors, name)
        assert kind.__mro__[1] is APIStatusError and kind("no").status_code == status
    assert ServiceUnavailable("no").status_code == 503 and issubclass(ServiceUnavailable, InternalServerError)
    assert issubclass(QuotaExceededError, RateLimitError)
    assert issubclass(ContextWindowExceededError, BadRequestError) and issubclass(ContentFilterError, BadRequestError)
    assert issubclass(ConfigurationError, ValueError)
    for kind in (CircuitBreakerError, RateLimitExceededError, BulkheadFullError):
        assert issubclass(kind, Rejected) and not issubclass(kind, APIError)


@pytest.mark.parametrize("kind", [APITimeoutError, CallTimeoutError])
def test_both_timeouts_are_builtin_timeouts(kind: type[SeawallError]) -> None:
    with pytest.raises(TimeoutError):
        raise kind()


def test_an_api_error_carries_what_the_server_sent() -> None:
    headers = {"X-Request-ID": "r1", "Retry-After": "3", "Authorization": "Bearer sk-secret"}
    error = APIStatusError(
        "no", status_code=418, code="c", param="p", type="t", request_id="r1", headers=headers, body={"a": 1}, model="m"
    )
    assert (error.message, error.status_code, error.code, error.param, error.type) == ("no", 418, "c", "p", "t")
    assert (error.request_id, error.body, error.model, error.attempts) == ("r1", {"a": 1}, "m", [])
    assert error.headers == {"x-request-id": "r1", "retry-after": "3"}
    assert str(error) == "no"
    assert "sk-secret" not in repr(error) + str(error) + str(vars(error))
    with pytest.raises(TypeError):
        APIStatusError("no", 500)  # type: ignore[misc]


@pytest.mark.parametrize("kind", CLASSES)
def test_every_error_survives_pickle_and_copy(kind: type[SeawallError]) -> None:
    error = kind("what happened")
    error.results = ["done", ValueError("not")]
    error.extra = {"a": [1]}  # type: ignore[attr-defined]
    if sys.version_info >= (3, 11):
        error.add_note("3 attempts")
    error.__cause__ = KeyError("inner")
    for twin in copies(error):
        assert type(twin) is kind and twin is not error
        assert str(twin) == str(error) == "what happened" and twin.args == error.args
        assert {k: v for k, v in vars(twin).items() if k != "results"} == {k: v for k, v in vars(error).items() if k != "results"}
        assert twin.results is not None and repr(twin.results) == repr(error.results)
        assert isinstance(twin.__cause__, KeyError)
        if sys.version_info >= (3, 11):
            assert twin.__notes__ == ["3 attempts"]
    deep = copy.deepcopy(error)
    deep.extra["a"].append(2)  # type: ignore[attr-defined]
    assert error.extra == {"a": [1]}  # type: ignore[attr-defined]


def test_a_subclass_with_keyword_only_arguments_survives() -> None:
    for twin in copies(KeywordOnly(tenant="acme")):
        assert isinstance(twin, KeywordOnly)
        assert (twin.tenant, twin.status_code, str(twin)) == ("acme", 429, "limit of acme")


def test_a_foreign_exception_that_cannot_be_pickled_does_not_stop_ours() -> None:
    error = CircuitBreakerError(name="x", last_failure=Unpicklable(needed=1))
    error.results = ["done", Unpicklable(needed=2)]
    twin = pickle.loads(pickle.dumps(error))
    assert type(twin.last_failure) is SeawallError and str(twin.last_failure).endswith("Unpicklable: boom")
    assert twin.results[0] == "done" and "Unpicklable" in str(twin.results[1])
    deep = copy.deepcopy(error)
    assert isinstance(deep.last_failure, Unpicklable)


def test_refusals_say_who_refused_and_until_when() -> None:
    failure = RateLimitError("slow down")
    error = CircuitBreakerError(name="chat", retry_after=12.34, last_failure=failure)
    assert str(error) == """Circuit "chat" is open, next attempt in 12.3 s (last failure: RateLimitError('slow down'))"""
    assert (error.policy, error.name, error.retry_after, error.last_failure) == ("CircuitBreaker", "chat", 12.34, failure)
    assert str(CircuitBreakerError()) == "Circuit is open"
    assert str(CircuitBreakerError("as told", name="chat")) == "as told"
    assert "chat" in repr(error)
    assert str(RateLimitExceededError(name="tpm", retry_after=2)) == 'Rate limit "tpm" is used up, next place in 2.0 s'
    assert str(BulkheadFullError(name="pool")) == 'Bulkhead "pool" is full'
    assert [kind().policy for kind in (CircuitBreakerError, RateLimitExceededError, BulkheadFullError)] == [
        "CircuitBreaker",
        "RateLimit",
        "Bulkhead",
    ]
    for twin in copies(error):
        assert str(twin) == str(error) and isinstance(twin, CircuitBreakerError) and twin.retry_after == 12.34


def test_a_long_or_broken_failure_does_not_spoil_the_message() -> None:
    class Broken(Exception):
        def __repr__(self) -> str:
            raise RuntimeError("no repr")

    assert str(CircuitBreakerError(last_failure=Broken())).endswith("(last failure: Broken)")
    assert len(str(CircuitBreakerError(last_failure=ValueError("x" * 10_000)))) < 300


def test_a_timeout_says_its_limit() -> None:
    error = CallTimeoutError(limit=5, elapsed=5.0012, name="chat")
    assert str(error) == '"chat" took longer than its limit of 5 s, stopped after 5 s'
    assert str(CallTimeoutError()) == "The call took longer than its time limit"


def test_a_broken_stream_keeps_what_was_delivered() -> None:
    error = StreamInterruptedError(partial="Once upon", model="m")
    for twin in copies(error):
        assert isinstance(twin, StreamInterruptedError) and twin.partial == "Once upon" and twin.model == "m"
    assert AuthenticationError("no").attempts is not AuthenticationError("no").attempts


def test_importing_them_imports_nobody_else() -> None:
    code = "import sys, seawall.errors; print(sorted({m.partition('.')[0] for m in sys.modules}))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"openai", "httpx", "requests", "langchain_core", "tenacity"} & set(eval(shown.stdout))
