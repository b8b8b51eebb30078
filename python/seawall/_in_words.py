"""What policies are set to do, and what became of a call, in words. Loaded by what is looked at: pictures and explanations."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from seawall import _response
from seawall._seawall import Bulkhead, Cache, Chaos, CircuitBreaker, Fallback, Guardrails, Hedge, RateLimit, Retry, Timeout, Wait

STATES = {
    "closed": "good",
    "half_open": "fair",
    "open": "bad",
    "forced_open": "bad",
    "disabled": "still",
    "metrics_only": "still",
}
LEVELS = {"normal": "good", "warning": "fair", "critical": "bad", "emergency": "bad"}


def printable(said: str, besides: str = "") -> str:
    """The text, with a mark in place of each letter that cannot be printed: control characters do things to terminals."""
    if said.isprintable():
        return said
    return "".join(letter if letter.isprintable() or letter in besides else "�" for letter in said)


def plural(number: int, word: str) -> str:
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def share(part: float | None) -> str:
    """A share from 0 to 1 as a percentage."""
    return "–" if part is None else f"{100 * part:.3g} %"


def span(seconds: float | None) -> str:
    """Seconds as people say them."""
    if seconds is None:
        return "–"
    if seconds >= 120:
        minutes = seconds / 60
        return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"
    if seconds < 0.01:
        return f"{1000 * seconds:.2g} ms"
    return f"{1000 * seconds:.0f} ms" if seconds < 1 else f"{seconds:.2f} s"


def limit(seconds: float) -> str:
    """Seconds as somebody has set them."""
    return f"{seconds:g} s"


def short(value: Any, most: int = 60) -> str:
    """A value's name or repr, cut short; a foreign repr may do anything."""
    try:
        shown = getattr(value, "__qualname__", None)
        shown = shown if isinstance(shown, str) else repr(value)
    except Exception:
        shown = f"<{type(value).__name__}>"
    return shown if len(shown) <= most else shown[: most - 1] + "…"


def kind(error: BaseException) -> str:
    """Of a failure only its kind and its status: its text may hold content."""
    status = _response.status(error)
    return type(error).__name__ if status is None else f"{type(error).__name__} {status}"


def settings(breaker: CircuitBreaker) -> dict[str, Any]:
    """What was said when the breaker was made or configured."""
    reduced: Any = breaker.__reduce__()
    said: dict[str, Any] = reduced[1][2]
    return said


def opens(breaker: CircuitBreaker) -> list[str]:
    """What would open it."""
    said = settings(breaker)
    rate, slow = said.get("failure_rate"), said.get("slow_call_duration")
    window = said.get("window", 100)
    over = f"the last {plural(window, 'call')}" if isinstance(window, int) else f"the last {limit(window)}"
    least = said.get("minimum_calls", min(10, window) if isinstance(window, int) else 10)
    rules = []
    if breaker.consecutive_threshold is not None:
        rules.append(f"{plural(breaker.consecutive_threshold, 'failure')} in a row")
    if rate is not None:
        rules.append(f"{share(rate)} failures over {over}, from {plural(least, 'call')}")
    if slow is not None:
        part = share(said.get("slow_call_rate", 1.0))
        rules.append(f"{part} calls of {limit(slow)} or more over {over}, from {plural(least, 'call')}")
    return rules


def _breaker(breaker: CircuitBreaker) -> str:
    said = settings(breaker)
    wait = f"after {limit(said.get('recovery_timeout', 30.0))}"
    if "recovery_backoff" in said:
        wait = f"after {short(said['recovery_backoff'])} s"
    return f"opens at {' or at '.join(opens(breaker))}; tries again {wait}"


def _waits(wait: Any) -> str:
    if wait is None:
        return "waits 0.5 s, doubling to 8 s"
    fixed = re.fullmatch(r"wait_fixed\(wait=([\d.e+-]+)\)", repr(wait)) if isinstance(wait, Wait) else None
    if fixed:
        return f"waits {fixed[1]} s"
    return "without waits" if repr(wait) == "wait_none()" else f"waits {short(wait)}"


def _retry(retry: Retry) -> str:
    (attempts,), said = retry.__getnewargs_ex__()  # type: ignore[attr-defined]
    words = [f"up to {plural(attempts, 'attempt')}" if attempts is not None else f"until {short(said['stop'])}"]
    if attempts is not None and "stop" in said:
        words.append(f"or until {short(said['stop'])}")
    words.append(_waits(said.get("wait")))
    if "on" in said:
        words.append(f"on {short(said['on'])}")
    if said.get("timeout") is not None:
        words.append(f"{limit(said['timeout'])} for all of them")
    if said.get("budget") is not None:
        words.append(f"retries at most {share(said['budget'])} of the calls")
    return ", ".join(words)


def _fallback(fallback: Fallback) -> str:
    others = ", then ".join(map(short, fallback.alternatives))
    return f"{'while the circuit is open' if fallback.only_when_open else 'if all inside fails'}: {others}"


def rates(given: RateLimit) -> str:
    """What a rate limit allows."""
    limits = [f"{most:,g} {what}" for what, most in (("requests", given.requests), ("tokens", given.tokens)) if most is not None]
    each = "" if given.key is None else f" for each {given.key if isinstance(given.key, str) else 'key'}"
    return f"{' and '.join(limits)} in {limit(given.per)}{each}"


def _queue(given: RateLimit | Bulkhead) -> str:
    if given.max_queue == 0:
        return "turns others away"
    most = "" if given.max_wait is None else f", {limit(given.max_wait)} at most"
    return f"up to {given.max_queue:,} wait{most}"


def cache(given: Cache) -> str:
    """How long a cache gives answers again, and how many."""
    ttl = "answers serve as long as there is room" if given.ttl is None else f"answers serve for {limit(given.ttl)}"
    stale = f", and {limit(given.stale_if_error)} more in place of a failure" if given.stale_if_error else ""
    return f"{ttl}{stale}; up to {given.max_items:,} answers and {given.max_bytes:,} bytes"


def _hedge(given: Hedge) -> str:
    when = (
        f"{limit(given.delay)}"
        if given.percentile is None and given.delay is not None
        else f"what {share(given.percentile or 0)} of them take"
    )
    times = "once more" if given.max_hedges == 1 else f"up to {given.max_hedges:,} times more"
    return f"asks {times} after {when}; at most {share(given.budget)} of the calls"


def _guardrails(given: Guardrails) -> str:
    sides = (("asked", given.input), ("answered", given.output))
    return "; ".join(f"of what is {side}: {', '.join(rule.name for rule in rules)}" for side, rules in sides if rules)


def policy(given: Any) -> str:
    """What a policy is set to do."""
    if isinstance(given, CircuitBreaker):
        return _breaker(given)
    if isinstance(given, Retry):
        return _retry(given)
    if isinstance(given, Fallback):
        return _fallback(given)
    if isinstance(given, Timeout):
        return f"at most {limit(given.seconds)} for all inside{', on a thread of its own' if given.thread else ''}"
    if isinstance(given, Cache):
        return cache(given)
    if isinstance(given, Hedge):
        return _hedge(given)
    if isinstance(given, RateLimit):
        return f"{rates(given)}; {_queue(given)}"
    if isinstance(given, Bulkhead):
        return f"{plural(given.max_concurrency, 'call')} at a time; {_queue(given)}"
    if isinstance(given, Guardrails):
        return _guardrails(given)
    if isinstance(given, Chaos):
        return f"{'on' if given.enabled else 'off'}: breaks calls on purpose"
    return ""


def warned(policies: Sequence[Any]) -> list[str]:
    """What is known to be wrong with an order of policies."""
    from seawall._order import found

    return found(policies)
