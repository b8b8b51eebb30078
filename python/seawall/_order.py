"""Orders of policies that are known to be wrong: each is a warning when the pipeline is written."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from seawall._seawall import Bulkhead, Cache, Chaos, CircuitBreaker, Fallback, Guardrails, Hedge, RateLimit, Retry, Timeout


class PipelineOrderWarning(UserWarning):
    """A pipeline's order, or a threshold in it, does something its author hardly wants."""


# The attempts of a Retry that only its stop= ends.
_ANY_NUMBER = 2**32 - 1


def _first(policies: Sequence[Any], kind: type) -> int | None:
    return next((place for place, policy in enumerate(policies) if isinstance(policy, kind)), None)


def found(policies: Sequence[Any]) -> list[str]:
    """What is known to be wrong with the order of `policies`, outermost first."""
    wrong = []
    if again := next(
        (policy for place, policy in enumerate(policies) if any(policy is outer for outer in policies[:place])), None
    ):
        name = type(again).__name__
        wrong.append(f"the same {name} stands in the pipeline twice: each call passes it, and is counted, twice. Leave one out.")
    retries = [policy for policy in policies if isinstance(policy, Retry)]
    if len(retries) > 1:
        times = " × ".join("…" if each.attempts == _ANY_NUMBER else f"{each.attempts:,}" for each in retries)
        wrong.append(f"{len(retries)} Retry policies stand inside each other: {times} attempts of one call. Keep one.")
    fallback, retry, breaker = (_first(policies, kind) for kind in (Fallback, Retry, CircuitBreaker))
    if breaker is not None and fallback is not None and breaker < fallback:
        wrong.append(
            "the CircuitBreaker stands outside the Fallback: it opens only when the alternatives fail too. Put it inside."
        )
    for outside, policy in enumerate(policies):
        instead = policy.fallback_function if isinstance(policy, CircuitBreaker) else None
        if instead is not None and not any(
            isinstance(outer, Fallback) and instead in outer.alternatives for outer in policies[:outside]
        ):
            wrong.append(
                "the CircuitBreaker's fallback_function is not used in a pipeline, but where the breaker decorates a function. Put a "
                "Fallback(…, only_when_open=True) outside of it."
            )
    if retry is not None and fallback is not None and retry < fallback and not policies[fallback].only_when_open:
        wrong.append("the Retry stands outside the Fallback: each attempt runs through all alternatives. Put it inside.")
    limit, bulkhead = (_first(policies, kind) for kind in (RateLimit, Bulkhead))
    if limit is not None and retry is not None and limit < retry:
        wrong.append("the RateLimit stands outside the Retry: further attempts go uncounted. Put it inside.")
    if bulkhead is not None and limit is not None and bulkhead < limit:
        wrong.append(
            "the Bulkhead stands outside the RateLimit: calls that wait for their turn take the places of those that could go. "
            "Put it inside."
        )
    hedge = _first(policies, Hedge)
    if hedge is not None:
        for name, place, what in (("Retry", retry, "attempts"), ("Fallback", fallback, "alternatives")):
            if place is not None and hedge < place:
                wrong.append(f"the Hedge stands outside the {name}: each further request goes through all {what}. Put it inside.")
        for name, place in (("CircuitBreaker", breaker), ("RateLimit", limit), ("Bulkhead", bulkhead)):
            if place is not None and place < hedge:
                wrong.append(f"the {name} stands outside the Hedge: further requests go uncounted. Put it inside.")
        limits, delay = [policy.seconds for policy in policies if isinstance(policy, Timeout)], policies[hedge].delay
        if limits and delay is not None and policies[hedge].percentile is None and min(limits) <= delay:
            wrong.append(
                f"the Timeout of {min(limits):g} s is over before the Hedge's delay of {delay:g} s: nothing is ever asked once more. "
                "Give the Hedge a shorter delay."
            )
    cache = _first(policies, Cache)
    for kind in (Retry, Hedge, CircuitBreaker, RateLimit, Bulkhead):
        place = _first(policies, kind)
        if cache is not None and place is not None and place < cache:
            wrong.append(
                f"the {kind.__name__} stands outside the Cache: what is answered from the cache passes it all the same. "
                "Put the Cache outside."
            )
    rails = _first(policies, Guardrails)
    if rails is not None and policies[rails].output:
        if cache is not None and rails < cache:
            wrong.append("the Guardrails stand outside the Cache: it keeps answers that they have not seen. Put them inside.")
        if retry is not None and rails < retry:
            wrong.append(
                "the Guardrails stand outside the Retry: an answer that is refused is not asked for again. Put them inside."
            )
        if breaker is not None and breaker < rails:
            wrong.append(
                "the Guardrails stand inside the CircuitBreaker: what they refuse counts as its callee's failure. Put them outside."
            )
    chaos = _first(policies, Chaos)
    if chaos is not None and not all(isinstance(policy, Chaos) for policy in policies[chaos:]):
        wrong.append("the Chaos is not innermost: what it injects is not seen by the policies inside of it. Put it last.")
    if breaker is not None and retry is not None and retry < breaker:
        threshold, attempts = policies[breaker].consecutive_threshold, policies[retry].attempts
        if threshold is not None and threshold <= attempts:
            many = "" if attempts == _ANY_NUMBER else f"{attempts} "
            wrong.append(
                f"failure_threshold={threshold} is not above the {many}attempts of one call: one bad call opens the "
                "circuit. Raise it, or use failure_rate."
            )
    if retry is not None and policies[retry].attempts > 1 and (least := policies[retry]._least_wait) is not None:
        limits = [policy.seconds for policy in policies[:retry] if isinstance(policy, Timeout)]
        if limits and min(limits) <= least:
            wrong.append(
                f"the Timeout of {min(limits):g} s around the Retry is over before its first wait is ({least:g} s at the least): nothing is "
                "ever tried again. Give it more seconds, or the Retry a shorter wait=; a Timeout for one attempt stands inside the Retry."
            )
    return wrong


# Where what is wrong is kept instead, by whoever tells it with a place of its own.
_kept: ContextVar[list[str] | None] = ContextVar("_kept", default=None)


@contextmanager
def kept() -> Iterator[list[str]]:
    """What would be warned of meanwhile."""
    found: list[str] = []
    token = _kept.set(found)
    try:
        yield found
    finally:
        _kept.reset(token)


def check(policies: Sequence[Any]) -> None:
    """Warns of known-wrong orders among `policies`, outermost first."""
    wrong, keeps = found(policies), _kept.get()
    if keeps is not None:
        keeps += wrong
        return
    for text in wrong:
        warnings.warn(text, PipelineOrderWarning, stacklevel=3)
