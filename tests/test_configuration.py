"""Every argument of every constructor and decorator, given what it cannot be: refused when it is written, by an error that says
which argument, what it was and what it may be. What an argument may be although it looks odd is in the table too."""

from __future__ import annotations

import logging
import math
import re
import warnings
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

import seawall
from seawall import (
    Bulkhead,
    Cache,
    Chaos,
    CircuitBreaker,
    Fallback,
    Monitor,
    Pipeline,
    RateLimit,
    Retry,
    Timeout,
    circuit,
    guard,
    retry,
    testing,
)
from seawall.errors import ConfigurationError, ConfigurationTypeError


class TimeoutSetting:
    """Like the `Timeout` of an HTTP client, which is no exception."""


class Unshown:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


class NoNumber:
    def __float__(self) -> float:
        raise RuntimeError("no number")


async def later(*_: object) -> bool:
    return True


VALUES: dict[str, Any] = {
    "negative": -1,
    "zero": 0,
    "nan": math.nan,
    "endless": math.inf,
    "minus endless": -math.inf,
    "fraction": 1.5,
    "huge": 1e300,
    "huge whole": 2**100,
    "beyond floats": 10**400,
    "huge negative": -(10**400),
    "negative span": timedelta(seconds=-1),
    "text": "x",
    "half a character": "\ud800",
    "bytes": b"5",
    "true": True,
    "none": None,
    "object": object(),
    "setting": TimeoutSetting,
    "a setting": TimeoutSetting(),
    "list": [1],
    "complex": 1j,
    "unshown": Unshown(),
    "no number": NoNumber(),
    "function": print,
    "async": later,
    "exception": ValueError,
    "interrupt": KeyboardInterrupt,
}
NUMBERS = {
    "negative",
    "zero",
    "nan",
    "endless",
    "minus endless",
    "fraction",
    "huge",
    "huge whole",
    "beyond floats",
    "huge negative",
}
HUGE = {"endless", "huge", "huge whole", "beyond floats"}
UNDER = {"negative", "nan", "minus endless", "huge negative", "negative span"}
WHOLE = {"negative", "zero", "huge whole", "beyond floats", "huge negative"}
TEXTS = {"text", "half a character"}
CLASSES = {"setting", "exception", "interrupt"}
CALLED = {"function", "async", *CLASSES}


class Kind:
    """What an argument takes (`fits`), and what is of its type but out of its bounds; the rest is of another type."""

    def __init__(self, fits: set[str], out_of_bounds: set[str], *, optional: bool = True) -> None:
        self.fits = fits | ({"none"} if optional else set())
        self.out_of_bounds = out_of_bounds

    def needed(self) -> Kind:
        return Kind(self.fits - {"none"}, self.out_of_bounds, optional=False)


SECONDS = Kind({"zero", "fraction", *HUGE}, UNDER)
LIMIT = Kind({"fraction", *HUGE}, UNDER | {"zero"})
SEEN = Kind({"fraction"}, UNDER | HUGE | {"zero"})  # a span that somebody will see pass
COUNT = Kind(set(), WHOLE)
SHARE = Kind(set(), NUMBERS)
PORTION = Kind({"zero"}, NUMBERS - {"zero"})
FLAG = Kind({"true"}, set())
TEXT = Kind({"text"}, {"half a character"})
FUNCTION = Kind(CALLED, set())
PREDICATE = Kind({"function", *CLASSES}, {"async"})
WORD = Kind({"function"}, {"async"})
FAILURES = Kind({"function", "exception"}, {"async", "interrupt"})
ANYTHING = Kind(set(VALUES), set())
AMOUNT = Kind({"zero", "fraction", "huge", "huge whole"}, UNDER | {"endless", "beyond floats"}, optional=False)
MOST = Kind({"zero", "fraction", *HUGE}, UNDER, optional=False)
TYPES = Kind({"exception", "interrupt"}, set(), optional=False)

BREAKER_NUMBERS: dict[str, tuple[Kind, dict[str, Any]]] = {
    "failure_threshold": (COUNT, {}),
    "recovery_timeout": (SECONDS, {}),
    "failure_rate": (SHARE, {}),
    "slow_call_rate": (SHARE, {"slow_call_duration": 1}),
    "slow_call_duration": (SEEN, {}),
    "window": (Kind({"fraction"}, UNDER | WHOLE | HUGE), {"failure_rate": 0.5}),
    "minimum_calls": (COUNT, {"failure_rate": 0.5}),
    "recovery_backoff": (Kind(set(), set()), {}),
    "half_open_max_calls": (COUNT, {}),
    "success_threshold": (COUNT, {}),
    "max_half_open_time": (LIMIT, {}),
}
BREAKER_RULES = {
    "expected_exception": FAILURES,
    "ignore": Kind({"function", "exception", "interrupt"}, {"async"}),
    "on_result": PREDICATE,
    "name": TEXT,
    "fallback_function": FUNCTION,
    "listeners": Kind(set(), set()),
}
RETRY = {
    "attempts": COUNT,
    "on": FAILURES,
    "wait": Kind({"zero", "fraction", "function"}, UNDER | HUGE | {"async"}),
    "stop": WORD,
    "timeout": LIMIT,
    "max_retry_after": SECONDS,
    "budget": SHARE,
    "on_result": PREDICATE,
    "giveup": FUNCTION,
    "before": FUNCTION,
    "after": FUNCTION,
    "before_sleep": FUNCTION,
}
CHAOS: dict[str, tuple[Kind, dict[str, Any]]] = {
    "latency": (SECONDS, {}),
    "latency_rate": (PORTION, {"latency": 1}),
    "exception": (Kind({"function", "exception"}, {"async"}), {}),
    "exception_rate": (PORTION, {"exception": OSError}),
    "result": (ANYTHING, {}),
    "result_rate": (PORTION, {"result": 1}),
    "seed": (Kind({"zero"}, WHOLE - {"zero"}), {}),
    "enabled": (FLAG, {}),
}
RATE = Kind({"fraction", "huge", "huge whole"}, UNDER - {"negative span"} | {"zero", "endless", "beyond floats"})
ROOM = Kind({"zero"}, WHOLE - {"zero"})
RATE_LIMIT: dict[str, tuple[Kind, dict[str, Any]]] = {
    "requests": (RATE, {"tokens": 5}),
    "tokens": (RATE, {"requests": 5}),
    "per": (SEEN, {"requests": 5}),
    "burst": (Kind({"fraction"}, UNDER - {"negative span"} | HUGE | {"zero"}), {"requests": 5}),
    "max_queue": (ROOM, {"requests": 5}),
    "max_wait": (SECONDS, {"requests": 5}),
    "estimate": (Kind({"function", *CLASSES}, {"async"} | TEXTS), {"tokens": 5}),  # a text names an encoding
    "settle": (PREDICATE, {"tokens": 5}),
    "key": (Kind({"function", *TEXTS, *CLASSES}, {"async"}), {"requests": 5}),
    "max_keys": (COUNT, {"requests": 5}),
    "name": (TEXT, {"requests": 5}),
}
CACHE = {"max_items": COUNT, "max_bytes": COUNT, "stale_if_error": SECONDS, "key": PREDICATE, "name": TEXT}
BULKHEAD = {"max_queue": ROOM, "max_wait": LIMIT, "name": TEXT}
GUARD = {
    "preset": Kind(CALLED, TEXTS),  # a class and a function are decorated
    "name": TEXT,
    "retry": COUNT,
    "fallback": ANYTHING,
    "timeout": LIMIT,
    "attempt_timeout": LIMIT,
    "deadline": LIMIT,
    "circuit": FLAG,
    "rate_limit": Kind(set(), set()),
    "bulkhead": Kind(set(), set()),
    "cache": Kind(set(), set()),
    "monitor": FLAG,
    "chaos": Kind(set(), set()),
}
RECORD = {
    "success": Kind({"zero", "true"}, set(), optional=False),
    "retried": Kind({"zero", "true"}, set()),
    "latency": Kind({"zero", "fraction"}, UNDER - {"huge negative"} | {"endless", "huge", "huge whole"}),
    "retries": Kind({"zero"}, WHOLE - {"zero"}),
    "fallback": Kind({"zero", "true"}, set()),
    "tokens": Kind({"zero"}, WHOLE - {"zero"}),
}
GROWTH = {"multiplier": AMOUNT, "max": MOST, "exp_base": AMOUNT, "min": Kind({"zero", "fraction"}, UNDER | HUGE, optional=False)}
WAITS: dict[str, dict[str, Kind]] = {
    "wait_fixed": {"wait": AMOUNT},
    "wait_random": {"min": Kind({"zero"}, UNDER | HUGE | {"fraction"}, optional=False), "max": MOST},
    "wait_incrementing": {
        "start": AMOUNT,
        "increment": Kind(
            {"negative", "zero", "fraction", "huge", "huge whole", "negative span"},
            {"nan", "endless", "minus endless", "beyond floats", "huge negative"},
            optional=False,
        ),
        "max": MOST,
    },
    "wait_exponential": GROWTH,
    "wait_random_exponential": GROWTH,
    "wait_equal_jitter": GROWTH,
    "wait_exponential_jitter": {"initial": AMOUNT, "max": MOST, "exp_base": AMOUNT, "jitter": AMOUNT},
    "wait_decorrelated_jitter": {"initial": AMOUNT, "max": MOST},
}
LOG = logging.getLogger("seawall.tests")
LEVEL = Kind({"zero"}, {"negative", "huge negative"}, optional=False)
LEVEL.fits |= {"huge whole", "beyond floats"}


def arguments() -> Iterator[tuple[str, str, Kind, Callable[[Any], object]]]:
    """Whose argument, its name, what it takes, and a function that gives it one."""
    for name, (kind, others) in BREAKER_NUMBERS.items():
        yield "CircuitBreaker", name, kind, lambda v, name=name, others=others: CircuitBreaker(**others, **{name: v})
        # Bare, `circuit` takes a function.
        bare = Kind(kind.fits | CALLED, kind.out_of_bounds) if name == "failure_threshold" else kind
        yield "circuit", name, bare, lambda v, name=name, others=others: circuit(**others, **{name: v})
        breaker = CircuitBreaker(**others)
        yield "configure", name, kind, lambda v, name=name, breaker=breaker: breaker.configure(**{name: v})
    for name, kind in BREAKER_RULES.items():
        yield "CircuitBreaker", name, kind, lambda v, name=name: CircuitBreaker(**{name: v})
        yield "circuit", name, kind, lambda v, name=name: circuit(**{name: v})
    breaker = CircuitBreaker()
    yield "circuit", "cls", Kind(set(), set(), optional=False), lambda v: circuit(cls=v)
    yield "CircuitBreaker.force", "state", Kind(set(), {"text"}, optional=False), breaker.force
    yield "CircuitBreaker.add_listener", "listener", PREDICATE.needed(), breaker.add_listener
    yield "CircuitBreaker.record_failure", "exception", Kind(set(), set()), breaker.record_failure
    yield "Permit.on_failure", "exception", Kind(set(), set()), lambda v: CircuitBreaker().acquire().on_failure(v)
    yield "CircuitBreakerMonitor", "circuit_breaker", Kind(set(), set(), optional=False), seawall.CircuitBreakerMonitor.register
    for name, kind in RETRY.items():
        yield "Retry", name, kind, lambda v, name=name: Retry(**{name: v})
        # `retry` bare takes a function.
        bare = Kind(kind.fits | CALLED, kind.out_of_bounds) if name == "attempts" else kind
        yield "retry", name, bare, lambda v, name=name: retry(**{name: v})
    yield "retry", "name", TEXT, lambda v: retry(name=v)
    yield "Timeout", "seconds", LIMIT.needed(), Timeout
    yield "Timeout", "thread", FLAG, lambda v: Timeout(1, thread=v)
    yield "Fallback", "on", FAILURES, lambda v: Fallback("instead", on=v)
    yield "Fallback", "on_result", PREDICATE, lambda v: Fallback("instead", on_result=v)
    yield "Fallback", "only_when_open", FLAG, lambda v: Fallback("instead", only_when_open=v)
    for name, (kind, others) in CHAOS.items():
        yield "Chaos", name, kind, lambda v, name=name, others=others: Chaos(**others, **{name: v})
    for name, (kind, others) in RATE_LIMIT.items():
        yield "RateLimit", name, kind, lambda v, name=name, others=others: RateLimit(**others, **{name: v})
    yield "Bulkhead", "max_concurrency", COUNT.needed(), Bulkhead
    for name, kind in BULKHEAD.items():
        room = {} if name == "max_queue" else {"max_queue": 1}
        yield "Bulkhead", name, kind, lambda v, name=name, room=room: Bulkhead(1, **room, **{name: v})
    yield "Cache", "ttl", LIMIT, Cache
    for name, kind in CACHE.items():
        yield "Cache", name, kind, lambda v, name=name: Cache(**{name: v})
    yield "Chaos.enabled_for", "seconds", LIMIT, Chaos(latency=1).enabled_for
    yield "Monitor", "window", Kind({"fraction"}, UNDER | WHOLE | HUGE), Monitor
    yield "Monitor", "name", TEXT, lambda v: Monitor(name=v)
    yield "Monitor", "on_alert", PREDICATE.needed(), Monitor().on_alert
    yield "MonitoringSystem", "window_size", COUNT.needed(), seawall.MonitoringSystem
    for name, kind in RECORD.items():
        yield "Monitor.record", name, kind, lambda v, name=name: Monitor().record(**{"success": True, name: v})
    for name, kind in GUARD.items():
        yield "guard", name, kind, lambda v, name=name: guard(**{name: v})
    yield "Pipeline", "name", TEXT, lambda v: Pipeline(name=v)
    yield "Pipeline", "monitor", Kind(set(), set()), lambda v: Pipeline(monitor=v)
    yield "Pipeline", "policies", Kind(set(), set(), optional=False), Pipeline
    yield "Pipeline", "function", FUNCTION.needed(), Pipeline(Retry(2))
    for word, kinds in WAITS.items():
        for name, kind in kinds.items():
            yield word, name, kind, lambda v, word=word, name=name: getattr(seawall, word)(**{name: v})
    yield "wait_exception", "predicate", PREDICATE.needed(), seawall.wait_exception
    yield "wait_chain", "wait", WORD.needed(), lambda v: seawall.wait_chain(seawall.wait_none(), v)
    yield "wait_combine", "wait", WORD.needed(), lambda v: seawall.wait_combine(seawall.wait_none(), v)
    yield (
        "stop_after_attempt",
        "max_attempt_number",
        Kind({"huge whole", "beyond floats"}, WHOLE, optional=False),
        seawall.stop_after_attempt,
    )
    yield "stop_after_delay", "max_delay", SECONDS.needed(), seawall.stop_after_delay
    yield "stop_before_delay", "max_delay", SECONDS.needed(), seawall.stop_before_delay
    yield "stop_when_event_set", "event", Kind(set(), set(), optional=False), seawall.stop_when_event_set
    for combine in (seawall.stop_any, seawall.stop_all):
        yield combine.__name__, "stop", WORD.needed(), combine
    for combine in (seawall.retry_any, seawall.retry_all):
        yield combine.__name__, "predicate", WORD.needed(), combine
    yield "retry_if_exception", "predicate", PREDICATE.needed(), seawall.retry_if_exception
    yield "retry_if_result", "predicate", PREDICATE.needed(), seawall.retry_if_result
    yield "retry_if_exception_type", "exception_types", TYPES, seawall.retry_if_exception_type
    yield "retry_if_not_exception_type", "exception_types", TYPES, seawall.retry_if_not_exception_type
    for hook in (seawall.before_log, seawall.after_log, seawall.before_sleep_log):
        yield hook.__name__, "logger", Kind(set(), set(), optional=False), lambda v, hook=hook: hook(v, logging.INFO)
        yield hook.__name__, "log_level", LEVEL, lambda v, hook=hook: hook(LOG, v)
    yield "after_log", "sec_format", Kind(set(), TEXTS, optional=False), lambda v: seawall.after_log(LOG, 20, v)
    yield "before_sleep_log", "exc_info", FLAG.needed(), lambda v: seawall.before_sleep_log(LOG, 20, exc_info=v)
    yield (
        "before_sleep_log",
        "sec_format",
        Kind(set(), TEXTS, optional=False),
        lambda v: seawall.before_sleep_log(LOG, 20, False, v),
    )
    yield "register_classifier", "fn", WORD.needed(), registered
    yield "register_classifier", "first", FLAG.needed(), lambda v: registered(print, v)
    yield "Prompt", "change", Kind(CALLED, TEXTS, optional=False), seawall.Prompt
    yield "testing.seed", "number", Kind(WHOLE, set(), optional=False), testing.seed
    yield "testing.cap_attempts", "attempts", COUNT.needed(), testing.cap_attempts
    span = Kind({"zero", "fraction"}, UNDER | HUGE, optional=False)
    yield "testing.clock.advance", "seconds", span, moved
    yield "testing.record", "decorates", FUNCTION.needed(), testing.record()


def registered(fn: Any, first: Any = True) -> None:
    seawall.register_classifier(fn, first=first)
    seawall.unregister_classifier(fn)


def moved(seconds: Any) -> None:
    with testing.clock() as clock:
        clock.advance(seconds)


# So many characters of a value have to be shown.
SHOWN = 40


def shown(value: Any) -> tuple[str, ...]:
    """How a message may show the value."""
    if isinstance(value, type):
        return (value.__name__,)
    if isinstance(value, Unshown):
        return ("Unshown", "?")
    if isinstance(value, list):
        return ("[1]", "1")
    if value is later or value is print:
        return (value.__name__,)
    if isinstance(value, timedelta):
        return "timedelta", "-1"
    if value is True or value == 0:
        return (repr(value),)
    number = (
        str(float(value)) if isinstance(value, (int, float)) and abs(value) <= 1e300 else "-inf" if value == -(10**400) else "inf"
    )
    # Rust and Python write numbers in slightly different ways.
    return repr(value)[:SHOWN], number, number.removesuffix(".0"), number.replace("e+", "e")


def has_word(text: str, word: str) -> bool:
    """Whether the text has that word, not merely as a part of a longer one; of a long one the beginning is enough."""
    before = r"(?<![\w.-])" if word[:1].isdigit() else r"(?<![\w-])"
    after = "" if len(word) == SHOWN else r"(?!\w|\.\d)"
    return re.search(before + re.escape(word) + after, text, re.IGNORECASE) is not None


def problem(name: str, kind: Kind, give: Callable[[Any], object], label: str) -> str | None:
    """What is wrong with how the argument takes the value, if anything is."""
    value = VALUES[label]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", seawall.PipelineOrderWarning)
            give(value)
    except BaseException as error:
        if label in kind.fits:
            return f"{label}: refused, by {error!r}"
        exact = ConfigurationError if label in kind.out_of_bounds else ConfigurationTypeError
        text = str(error)
        if type(error) is not exact:
            return f"{label}: {exact.__name__} wanted, not {error!r}"
        if not has_word(text, name):
            return f"{label}: {name} is not named by {text!r}"
        # What it may be comes first, and may look like what it was. A bound is told beside the name of what bounds.
        said = text.partition(" not ")[2] or text
        if not any(has_word(said, part) or f"{name} ({part})" in text for part in shown(value)):
            return f"{label}: not shown by {text!r}"
        if not any(word in text for word in ("must", "there are", "takes", "guards", "decorates")):
            return f"{label}: {text!r} does not say what is allowed"
        if len(text) > 260 or "PyO3" in text or "pyo3" in text or "panic" in text:
            return f"{label}: {text!r} is no text for a user"
        return None
    return None if label in kind.fits else f"{label}: accepted"


ARGUMENTS = list(arguments())


@pytest.mark.parametrize(("name", "kind", "give"), [pytest.param(*rest, id=f"{whose}-{rest[0]}") for whose, *rest in ARGUMENTS])
def test_what_an_argument_cannot_be_is_refused_when_it_is_written(name: str, kind: Kind, give: Callable[[Any], object]) -> None:
    problems = [found for label in VALUES if (found := problem(name, kind, give, label)) is not None]
    assert not problems, "\n".join(problems)
