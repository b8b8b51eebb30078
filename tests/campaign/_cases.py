"""Each fault of the simulator, and what a request comes to that meets it. A new fault wants a line in `CASES`, no more.

Nothing here was read off a run: `RULES` is the table of failure classes that seawall promises, a case says to which row
its fault belongs, and `expected` works out the requests, the outcome and the time of a whole call from that.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple

from seawall import errors
from seawall.simulator import faults
from seawall.simulator.faults import Fault

# Seconds after which a model that waits in vain gives an attempt up: long for a loopback, however busy the machine.
LIMIT = 1.0
# The longest wait that a server may ask for.
MAX_RETRY_AFTER = 120


class Alternative(Enum):
    """Which alternatives are tried."""

    ANY = "any"
    ELSEWHERE = "with another key, or at another place"
    NONE = "none"


class Rule(NamedTuple):
    """What a failure means."""

    retried: bool
    alternative: Alternative
    counted: bool
    """By the model's breaker."""


RULES = {
    "transient": Rule(True, Alternative.ANY, True),
    "malformed": Rule(True, Alternative.ANY, True),
    "rate limited": Rule(True, Alternative.ANY, False),
    "quota": Rule(False, Alternative.ANY, False),
    "not found": Rule(False, Alternative.ANY, False),
    "context window": Rule(False, Alternative.ANY, False),
    "content filter": Rule(False, Alternative.ANY, False),
    "auth": Rule(False, Alternative.ELSEWHERE, False),
    "permanent": Rule(False, Alternative.NONE, False),
    # Once content was handed out, nothing starts again in silence.
    "interrupted": Rule(False, Alternative.NONE, True),
}


@dataclass(frozen=True)
class Meets:
    """What a request comes to.

    Attributes:
        kind: a row of `RULES`, or `None` for an answer.
        error: what is raised when it was the last.
        seconds: how long it takes at least.
        wait: seconds that the server asks for before the next.
        should_retry: the server's own word.
        left: whether the client has to cut the request.
        options: of the model that asks.
    """

    kind: str | None = None
    error: type[errors.APIError] | None = None
    seconds: float = 0.0
    wait: float = 0.0
    should_retry: bool | None = None
    left: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def rule(self) -> Rule | None:
        return None if self.kind is None else RULES[self.kind]

    @property
    def retried(self) -> bool:
        if self.rule is None or self.wait > MAX_RETRY_AFTER:
            return False
        return self.rule.retried if self.should_retry is None else self.should_retry


@dataclass(frozen=True)
class Case:
    """A fault, and what whole answers and streams come to that meet it (`None`: they are not asked).

    Attributes:
        name: the fault as it is written, and what else is said.
        maker: the function of `faults` that makes it.
        text: of the answer, where the fault says it.
        other: options of the alternative.
    """

    name: str
    maker: str
    fault: Fault
    whole: Meets | None
    stream: Meets | None
    text: str | None = None
    other: Mapping[str, Any] = field(default_factory=dict)

    @property
    def elsewhere(self) -> bool:
        return bool(self.other)


ANSWER = Meets()
MALFORMED = Meets("malformed", errors.MalformedResponseError)
CUT = Meets("malformed", errors.StreamInterruptedError)
BROKEN = Meets("transient", errors.APIConnectionError)
OVERLOADED = Meets("transient", errors.InternalServerError)
INTERRUPTED = Meets("interrupted", errors.StreamInterruptedError)


def _failed(kind: str, error: type[errors.APIError], **more: Any) -> Meets:
    return Meets(kind, error, **more)


def _slow(kind: str = "transient", error: type[errors.APIError] = errors.APITimeoutError, **options: Any) -> Meets:
    """It would last for ever: the time limit of the model ends it."""
    options = options or {"timeout": LIMIT}
    return Meets(kind, error, seconds=min(options.values()), left=True, options={"timeout": None, **options})


def _interrupted(**options: Any) -> Meets:
    return _slow("interrupted", errors.StreamInterruptedError, **options)


SAME: Any = object()


def _case(
    maker: Callable[..., Fault],
    *args: Any,
    whole: Meets | None,
    stream: Meets | None = SAME,
    note: str = "",
    text: str | None = None,
    other: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> Case:
    written = ", ".join([*map(repr, args), *(f"{name}={value!r}" for name, value in kwargs.items())])
    name = f"{maker.__name__}({written}){note and f', {note}'}"
    return Case(
        name, maker.__name__, maker(*args, **kwargs), whole, whole if stream is SAME else stream, text=text, other=other or {}
    )


def _statuses() -> list[Case]:
    known: dict[int, Meets] = {
        301: _failed("permanent", errors.APIStatusError),
        400: _failed("permanent", errors.BadRequestError),
        401: _failed("auth", errors.AuthenticationError),
        402: _failed("quota", errors.QuotaExceededError),
        403: _failed("auth", errors.PermissionDeniedError),
        404: _failed("not found", errors.NotFoundError),
        408: _failed("transient", errors.APIStatusError),
        409: _failed("transient", errors.ConflictError),
        413: _failed("permanent", errors.APIStatusError),
        418: _failed("permanent", errors.APIStatusError),
        422: _failed("permanent", errors.UnprocessableEntityError),
        429: _failed("rate limited", errors.RateLimitError),
        **dict.fromkeys((500, 502, 504, 529), OVERLOADED),
        503: _failed("transient", errors.ServiceUnavailable),
    }
    return [_case(faults.status, code, whole=met) for code, met in sorted(known.items())]


CASES = [
    _case(faults.ok, whole=ANSWER),
    _case(faults.reply, "just so — 就这样 ✓", whole=ANSWER, text="just so — 就这样 ✓"),
    _case(faults.latency, 0.05, whole=Meets(seconds=0.05)),
    _case(faults.latency, (0.0, 0.05), whole=ANSWER),
    _case(faults.latency, 60, whole=_slow(), note=f"timeout={LIMIT:g}"),
    *_statuses(),
    _case(
        faults.status,
        401,
        whole=_failed("auth", errors.AuthenticationError),
        note="the alternative has another key",
        other={"api_key": "sk-of-another-account"},
    ),
    _case(faults.status, 200, body={"any": "thing"}, whole=MALFORMED),
    _case(faults.status, 204, whole=MALFORMED),
    _case(
        faults.status,
        400,
        headers={"x-should-retry": "true"},
        whole=_failed("permanent", errors.BadRequestError, should_retry=True),
    ),
    _case(
        faults.status,
        500,
        headers={"x-should-retry": "false"},
        whole=_failed("transient", errors.InternalServerError, should_retry=False),
    ),
    _case(faults.status, 503, headers={"retry-after": "0.1"}, whole=_failed("transient", errors.ServiceUnavailable, wait=0.1)),
    _case(faults.rate_limit, whole=_failed("rate limited", errors.RateLimitError)),
    _case(faults.rate_limit, 0.1, whole=_failed("rate limited", errors.RateLimitError, wait=0.1)),
    _case(faults.rate_limit, retry_after_ms=100, whole=_failed("rate limited", errors.RateLimitError, wait=0.1)),
    _case(faults.rate_limit, 1, date=True, whole=_failed("rate limited", errors.RateLimitError, wait=1)),
    _case(faults.rate_limit, 3600, whole=_failed("rate limited", errors.RateLimitError, wait=3600)),
    _case(faults.overloaded, whole=OVERLOADED),
    _case(faults.quota, whole=_failed("quota", errors.QuotaExceededError)),
    _case(faults.context_window, whole=_failed("context window", errors.ContextWindowExceededError)),
    _case(faults.content_filter, whole=_failed("content filter", errors.ContentFilterError)),
    _case(faults.unknown_model, whole=_failed("not found", errors.NotFoundError)),
    _case(faults.hang, whole=_slow(), note=f"timeout={LIMIT:g}"),
    _case(faults.hang, whole=None, stream=_slow(first_token_timeout=LIMIT), note=f"first_token_timeout={LIMIT:g}"),
    _case(faults.reset, whole=BROKEN),
    _case(faults.broken_json, whole=MALFORMED, stream=CUT),
    _case(faults.html, whole=MALFORMED),
    _case(faults.empty_choices, whole=MALFORMED),
    _case(faults.empty_body, whole=MALFORMED),
    _case(faults.cut, 0, "clean", whole=BROKEN, stream=CUT),
    _case(faults.cut, 0, "reset", whole=BROKEN),
    _case(faults.cut, 0, "error", whole=OVERLOADED),
    _case(faults.cut, 0, "json", whole=MALFORMED, stream=CUT),
    _case(faults.cut, 3, "clean", whole=BROKEN, stream=INTERRUPTED),
    _case(faults.cut, 3, "reset", whole=BROKEN, stream=INTERRUPTED),
    _case(faults.cut, 3, "error", whole=OVERLOADED, stream=INTERRUPTED),
    _case(faults.cut, 3, "json", whole=MALFORMED, stream=INTERRUPTED),
    _case(faults.no_done, whole=ANSWER),
    _case(faults.done_only, whole=ANSWER),
    _case(faults.drip, 0.005, whole=ANSWER),
    _case(faults.drip, 0.1, 20, whole=_slow(), stream=_interrupted(), note=f"timeout={LIMIT:g}"),
    _case(faults.stall, 0, whole=_slow(), note=f"timeout={LIMIT:g}"),
    _case(faults.stall, 0, 0.05, whole=_slow(), note=f"timeout={LIMIT:g}"),
    _case(faults.stall, 0, 0.05, whole=None, stream=_slow(first_token_timeout=LIMIT), note=f"first_token_timeout={LIMIT:g}"),
    _case(faults.stall, 3, whole=_slow(), stream=_interrupted(), note=f"timeout={LIMIT:g}"),
    _case(faults.stall, 3, 0.05, whole=_slow(), stream=_interrupted(), note=f"timeout={LIMIT:g}"),
    _case(faults.stall, 3, 0.05, whole=None, stream=_interrupted(idle_timeout=LIMIT), note=f"idle_timeout={LIMIT:g}"),
]


def makers() -> set[str]:
    """Every function of the simulator that makes a fault."""
    found = inspect.getmembers(faults, inspect.isfunction)
    returns = {name: inspect.get_annotations(function, eval_str=True).get("return") for name, function in found}
    return {name for name, made in returns.items() if made is Fault and not name.startswith("_")}


class Extent(Enum):
    """How far the trouble reaches."""

    LASTING = "The first model meets the fault every time; the alternative is well"
    ONCE = "One request meets the fault, the next are answered"
    EVERYWHERE = "The alternative meets the fault too, every time"


@dataclass(frozen=True)
class Policy:
    """What stands around the first model: so many attempts, and those of an alternative."""

    name: str
    attempts: int
    others: int = 0


POLICIES = (Policy("plain", 1), Policy("retry", 3), Policy("retry + fallback", 3, 2))
ANSWERED, BY_THE_OTHER = "answer", "answer of the alternative"


@dataclass(frozen=True)
class Expected:
    """What a call has to come to.

    Attributes:
        requests: that reach the first model.
        others: that reach the alternative.
        outcome: `ANSWERED`, `BY_THE_OTHER`, or the name of the error.
        seconds: that it takes at least.
        counted: attempts that the first model's breaker counts as failures.
    """

    requests: int
    others: int
    outcome: str
    seconds: float
    counted: int


def expected(met: Meets, policy: Policy, extent: Extent, *, elsewhere: bool) -> Expected:
    """Of a call with one input."""

    def spent(requests: int) -> float:
        return met.seconds * requests + met.wait * (requests - 1)

    if met.rule is None:
        return Expected(1, 0, ANSWERED, met.seconds, 0)
    counted = int(met.rule.counted)
    requests = policy.attempts if met.retried else 1
    if extent is Extent.ONCE and requests > 1:
        return Expected(2, 0, ANSWERED, spent(1) + met.wait, counted)
    helps = met.rule.alternative is Alternative.ANY or (met.rule.alternative is Alternative.ELSEWHERE and elsewhere)
    if not policy.others or not helps:
        return Expected(requests, 0, _name(met), spent(requests), requests * counted)
    if extent is not Extent.EVERYWHERE:
        return Expected(requests, 1, BY_THE_OTHER, spent(requests), requests * counted)
    # Of all that failed, the first error is raised.
    others = policy.others if met.retried else 1
    return Expected(requests, others, _name(met), spent(requests) + spent(others), requests * counted)


def _name(met: Meets) -> str:
    assert met.error is not None
    return met.error.__name__
