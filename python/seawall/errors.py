"""Every error that seawall raises, in one tree.

The names and the tree under `APIError` are those of the OpenAI SDK, so that ``except RateLimitError`` keeps its meaning
when the import line changes. All of them exist without LangChain, the OpenAI SDK or the native module.

Errors pickle, copy and deep-copy with all their attributes, notes and causes. A foreign exception inside one
(`last_failure`, a cause, an item of `results`) that cannot itself be pickled is replaced by a `SeawallError` that says
what it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

if TYPE_CHECKING:
    from typing_extensions import Self

    _E = TypeVar("_E", bound="SeawallError")

# Headers that carry credentials. A response's cookies are some; the others it should not hold, but a server may echo them.
_SECRET_HEADERS = frozenset(
    ("authorization", "proxy-authorization", "api-key", "x-api-key", "x-goog-api-key", "cookie", "set-cookie")
)


def _restored(cls: type[_E], args: tuple[Any, ...]) -> _E:
    # Past __init__: subclasses may have any signature, and the state that follows holds everything it would set.
    error = cls.__new__(cls)
    error.args = args
    return error


def _portable(value: Any) -> Any:
    """The value, with foreign exceptions that do not survive a round trip through pickle replaced."""
    if type(value) is list:
        return [_portable(item) for item in value]
    if not isinstance(value, BaseException) or isinstance(value, SeawallError):
        return value
    import pickle  # not at the top: few programs pickle errors, all import this module

    try:
        pickle.loads(pickle.dumps(value))
    except Exception:
        kind = type(value)
        return SeawallError(f"{kind.__module__}.{kind.__qualname__}: {value}")
    return value


class _Alternatives(tuple[BaseException, ...]):
    """What an error that no alternative helped carries. It may be anybody's error, and has to pickle if it did before."""

    __slots__ = ()

    def __reduce__(self) -> tuple[Any, ...]:
        return _Alternatives, ([_portable(error) for error in self],)


class SeawallError(Exception):
    """Base of all errors of this package. Catch it to catch them all.

    Attributes:
        results: set on the error that ends a batch: one item per input, in input order; the finished answers, and for
            the others the exception. `None` on every other error.
    """

    results: list[Any] | None = None

    def _state(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        if self.__cause__ is not None:
            state["__cause__"] = self.__cause__
        return state

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (type(self), self.args), {key: _portable(value) for key, value in self._state().items()}

    def __copy__(self) -> Self:
        error = _restored(type(self), self.args)
        error.__setstate__(self._state())
        return error

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        error = _restored(type(self), self.args)
        memo[id(self)] = error
        import copy  # not at the top, as pickle

        state = {}
        for key, value in self._state().items():
            try:
                state[key] = copy.deepcopy(value, memo)
            except Exception:  # a foreign exception or a live object that cannot be copied is shared
                state[key] = value
        error.__setstate__(state)
        return error


class ConfigurationError(SeawallError, ValueError):
    """An argument or a setting is wrong. Raised when it is written, not when the call fails.

    The message says which argument, what it was and what it may be. Retrying cannot help; change the argument.

    Attributes:
        problems: what is wrong in a file that `seawall.load` was given, each a `seawall.configuration.Problem`; else empty.
    """

    problems: tuple[Any, ...] = ()


class ConfigurationTypeError(ConfigurationError, TypeError):
    """An argument is of the wrong type. Also a builtin `TypeError`."""


class JournalError(SeawallError):
    """A batch's journal cannot be used. The message says what is wrong with the file and what to do.

    Attributes:
        unsaved: answers that came and could not be written, by the place of their input; `None` where there are none.
    """

    unsaved: dict[int, Any] | None = None


class APIError(SeawallError):
    """A model API could not be reached, refused the request, or answered with something unusable.

    Attributes (each `None` or empty where the failure has none):
        message: what happened, in words.
        status_code: the HTTP status.
        code, param, type: as the server's error object gives them.
        request_id: the server's id of the request; quote it to the provider's support.
        headers: the response's headers, names in lower case; credentials are left out.
        body: the error object, or the text of the body where it was no JSON.
        attempts: one record per attempt made, in order.
        model: the model asked.
    """

    status_code: int | None = None

    def __init__(
        self,
        message: str = "The model API failed.",
        *,
        status_code: int | None = None,
        code: str | None = None,
        param: str | None = None,
        type: str | None = None,
        request_id: str | None = None,
        headers: Mapping[str, str] | None = None,
        body: object = None,
        attempts: list[Any] | None = None,
        model: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        if status_code is not None:
            self.status_code = status_code
        self.code = code
        self.param = param
        self.type = type
        self.request_id = request_id
        lowered = ((str(name).lower(), value) for name, value in (headers or {}).items())
        self.headers = {name: value for name, value in lowered if name not in _SECRET_HEADERS}
        self.body = body
        self.attempts = [] if attempts is None else attempts
        self.model = model


class APIConnectionError(APIError):
    """No answer came: name resolution, connection, TLS or a connection that broke. Retried, then the next alternative.

    If it never works, check `base_url`, the proxy settings and the network.
    """

    def __init__(self, message: str = "Connection error.", **details: Any) -> None:
        super().__init__(message, **details)


class APITimeoutError(APIConnectionError, TimeoutError):
    """The answer did not come within the client's `timeout`. Retried, then the next alternative.

    Also a builtin `TimeoutError`; `Timeout` is its other name. Raise `timeout=` if answers are that slow.
    """

    def __init__(self, message: str = "Request timed out.", **details: Any) -> None:
        super().__init__(message, **details)


Timeout = APITimeoutError


class APIStatusError(APIError):
    """The server answered with an error status. One subclass per status that has a meaning of its own."""


class BadRequestError(APIStatusError):
    """400: the request itself is wrong. Never retried, no fallback; correct the request."""

    status_code = 400


class AuthenticationError(APIStatusError):
    """401: the API key is missing, wrong or revoked. Never retried; check the key that this client was given."""

    status_code = 401


class PermissionDeniedError(APIStatusError):
    """403: the key is valid but may not do this (model, region, organisation). Never retried."""

    status_code = 403


class NotFoundError(APIStatusError):
    """404: no such model or path. Not retried; check `model` and `base_url`."""

    status_code = 404


class ConflictError(APIStatusError):
    """409: the server was in the middle of something else. Retried."""

    status_code = 409


class UnprocessableEntityError(APIStatusError):
    """422: the request is well formed but its content is not acceptable. Never retried, no fallback."""

    status_code = 422


class RateLimitError(APIStatusError):
    """429: too many requests or tokens. Waited out (`Retry-After` where the server sends one), then retried."""

    status_code = 429


class InternalServerError(APIStatusError):
    """5xx: the provider failed. Retried, then the next alternative."""

    status_code = 500


class ServiceUnavailable(InternalServerError):
    """503 or 529: the provider is overloaded or down for the moment. Retried, then the next alternative."""

    status_code = 503


class QuotaExceededError(RateLimitError):
    """The account has no quota or credit left. Waiting does not help: not retried; the next alternative is tried.

    Top up the account or raise its limit.
    """


class ContextWindowExceededError(BadRequestError):
    """The prompt is longer than the model can read. Not retried; shorten it or list a model with a larger window."""


class ContentFilterError(BadRequestError):
    """The provider's content filter refused the prompt or the answer. Not retried; another model may be listed for it."""


class MalformedResponseError(APIError):
    """The answer had a good status but was unusable: broken JSON, an HTML page, no choices. Retried.

    If it never works, `base_url` probably points to something that is not the API.
    """


class StreamInterruptedError(APIError):
    """A stream broke off after content had been handed over, so it was not restarted behind your back.

    Attributes:
        partial: the text delivered before the break. The cause is in `__cause__`.
    """

    def __init__(
        self, message: str = "The stream broke off before it was finished.", *, partial: str = "", **details: Any
    ) -> None:
        super().__init__(message, **details)
        self.partial = partial


class CallTimeoutError(SeawallError, TimeoutError):
    """A `Timeout` policy's limit passed. Retried where it was an attempt's limit and a Retry is outside of it.

    Attributes:
        limit: the limit, in seconds.
        elapsed: the seconds that had passed.
        name: the policy's or pipeline's name.
    """

    limit: float | None = None
    elapsed: float | None = None
    name: str | None = None

    def __init__(
        self, message: str | None = None, *, limit: float | None = None, elapsed: float | None = None, name: str | None = None
    ) -> None:
        super().__init__(*(() if message is None else (message,)))
        self.limit = limit
        self.elapsed = elapsed
        self.name = name

    def __str__(self) -> str:
        if self.args:
            return str(self.args[0])
        where = "The call" if self.name is None else f'"{self.name}"'
        limit = "its time limit" if self.limit is None else f"its limit of {self.limit:g} s"
        elapsed = "" if self.elapsed is None else f", stopped after {self.elapsed:.3g} s"
        return f"{where} took longer than {limit}{elapsed}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"


class Rejected(SeawallError):
    """A policy refused to let the call through; the function was not called. Base of the refusals.

    Attributes:
        policy: the kind of policy that refused.
        name: that policy's name.
        retry_after: seconds until it may let a call through, `None` where it cannot know.
    """

    policy: str = ""
    name: str | None = None
    retry_after: float | None = None

    def __init__(
        self, message: str | None = None, *, name: str | None = None, retry_after: float | None = None, policy: str | None = None
    ) -> None:
        # The text is made when someone reads it: a refusal has to stay cheap.
        super().__init__(*(() if message is None else (message,)))
        self.name = name
        self.retry_after = retry_after
        if policy is not None:
            self.policy = policy

    _kind = "policy"
    _next = "next attempt"

    def __str__(self) -> str:
        if self.args:
            return str(self.args[0])
        named = self._kind if self.name is None else f'{self._kind} "{self.name}"'
        after = "" if self.retry_after is None else f", {self._next} in {self.retry_after:.1f} s"
        return self._sentence(named) + after

    def _sentence(self, named: str) -> str:
        return f"The call was refused by {named}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"


class CircuitBreakerError(Rejected):
    """The circuit is open: the function failed so often that it is not called for a while.

    Wait `retry_after` seconds, or give the call a fallback.

    Attributes:
        last_failure: the failure that opened the circuit, `None` where it was opened by hand.
    """

    policy = "CircuitBreaker"
    last_failure: BaseException | None = None

    def __init__(
        self,
        message: str | None = None,
        *,
        name: str | None = None,
        retry_after: float | None = None,
        last_failure: BaseException | None = None,
        policy: str | None = None,
    ) -> None:
        super().__init__(message, name=name, retry_after=retry_after, policy=policy)
        self.last_failure = last_failure

    _kind = "Circuit"

    def _sentence(self, named: str) -> str:
        return f"{named} is open"

    def __str__(self) -> str:
        text = super().__str__()
        if self.args or self.last_failure is None:
            return text
        try:
            failure = repr(self.last_failure)
        except Exception:  # a foreign repr may do anything
            failure = type(self.last_failure).__name__
        return f"{text} (last failure: {failure if len(failure) <= 200 else failure[:197] + '...'})"


class RateLimitExceededError(Rejected):
    """Our own `RateLimit` has no place for this call within its waiting time. Not the server's 429 (`RateLimitError`)."""

    policy = "RateLimit"
    _kind = "Rate limit"
    _next = "next place"

    def _sentence(self, named: str) -> str:
        return f"{named} is used up"


class BulkheadFullError(Rejected):
    """As many calls as the `Bulkhead` admits are running, and its queue is full or was waited in for too long."""

    policy = "Bulkhead"
    _kind = "Bulkhead"

    def _sentence(self, named: str) -> str:
        return f"{named} is full"


class GuardrailError(SeawallError):
    """A guardrail refused what was asked, or what was answered. No word of it is in the error.

    Attributes:
        rule: the rule's name.
        direction: `"input"` or `"output"`.
        place: where it stands: `"messages[0].content"`, `"content"`, `"tool_calls[0].arguments"`, …
    """

    direction = ""

    def __init__(self, message: str = "A guardrail refused.", *, rule: str = "", place: str = "") -> None:
        super().__init__(message)
        self.rule = rule
        self.place = place


class InputRefusedError(GuardrailError, ValueError):
    """A guardrail refused what was asked: nothing was sent, and nothing counts it. Never retried, no fallback.

    Also a builtin `ValueError`.
    """

    direction = "input"


class OutputRefusedError(GuardrailError):
    """A guardrail refused the answer. Not retried; the next alternative is tried. Breakers take the answer for a success.

    Attributes:
        partial: of a stream, the text that was handed out before; else `None`.
        is_retryable: whether the retries around are to ask again; `None` where the table of classes says.
    """

    direction = "output"
    is_retryable: bool | None = None

    def __init__(
        self,
        message: str = "A guardrail refused the answer.",
        *,
        rule: str = "",
        place: str = "",
        partial: str | None = None,
        is_retryable: bool | None = None,
    ) -> None:
        super().__init__(message, rule=rule, place=place)
        self.partial = partial
        if is_retryable is not None:
            self.is_retryable = is_retryable


class OutputShapeError(OutputRefusedError):
    """The answer is not of the shape that it has to be. Asked for again as often as the `Shape` says (`reask=`), within the attempts
    of the retries around it; then the next alternative."""


class ErrorRow(NamedTuple):
    """One row of `TABLE`."""

    error: type[SeawallError]
    """The error's class."""
    failure: str | None
    """The failure class that this type alone means; `None` where the type is too broad to mean one."""
    closer_look: bool
    """Whether an instance's status and code may mean another failure class than the type does."""


# The one table of errors. `seawall.classify` and the documentation are made from it.
TABLE: tuple[ErrorRow, ...] = (
    ErrorRow(SeawallError, None, True),
    ErrorRow(ConfigurationError, "permanent", False),
    ErrorRow(ConfigurationTypeError, "permanent", False),
    ErrorRow(JournalError, "permanent", False),
    ErrorRow(APIError, None, True),
    ErrorRow(APIConnectionError, "transient", True),
    ErrorRow(APITimeoutError, "transient", False),
    ErrorRow(APIStatusError, None, True),
    ErrorRow(BadRequestError, "permanent", True),
    ErrorRow(AuthenticationError, "auth", False),
    ErrorRow(PermissionDeniedError, "auth", True),
    ErrorRow(NotFoundError, "not_found", False),
    ErrorRow(ConflictError, "transient", False),
    ErrorRow(UnprocessableEntityError, "permanent", True),
    ErrorRow(RateLimitError, "rate_limited", True),
    ErrorRow(InternalServerError, "transient", True),
    ErrorRow(ServiceUnavailable, "transient", True),
    ErrorRow(QuotaExceededError, "quota", False),
    ErrorRow(ContextWindowExceededError, "context_window", False),
    ErrorRow(ContentFilterError, "content_filter", False),
    ErrorRow(MalformedResponseError, "malformed", False),
    ErrorRow(StreamInterruptedError, "malformed", True),
    ErrorRow(CallTimeoutError, "transient", False),
    ErrorRow(Rejected, "unknown", False),
    ErrorRow(CircuitBreakerError, "unknown", False),
    ErrorRow(RateLimitExceededError, "unknown", False),
    ErrorRow(BulkheadFullError, "unknown", False),
    ErrorRow(GuardrailError, "permanent", False),
    ErrorRow(InputRefusedError, "permanent", False),
    ErrorRow(OutputRefusedError, "content_filter", False),
    ErrorRow(OutputShapeError, "malformed", False),
)

__all__ = [
    "TABLE",
    "APIConnectionError",
    "APIError",
    "APIStatusError",
    "APITimeoutError",
    "AuthenticationError",
    "BadRequestError",
    "BulkheadFullError",
    "CallTimeoutError",
    "CircuitBreakerError",
    "ConfigurationError",
    "ConfigurationTypeError",
    "ConflictError",
    "ContentFilterError",
    "ContextWindowExceededError",
    "ErrorRow",
    "GuardrailError",
    "InputRefusedError",
    "InternalServerError",
    "JournalError",
    "MalformedResponseError",
    "NotFoundError",
    "OutputRefusedError",
    "OutputShapeError",
    "PermissionDeniedError",
    "QuotaExceededError",
    "RateLimitError",
    "RateLimitExceededError",
    "Rejected",
    "SeawallError",
    "ServiceUnavailable",
    "StreamInterruptedError",
    "Timeout",
    "UnprocessableEntityError",
]


def __dir__() -> list[str]:
    return sorted(__all__)
