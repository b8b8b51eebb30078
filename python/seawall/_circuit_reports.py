"""What a breaker tells of itself. Loaded when a breaker first does."""

from __future__ import annotations

from dataclasses import dataclass

from seawall._seawall import CircuitBreaker


@dataclass(frozen=True)
class CircuitEvent:
    """A change of a breaker's state, as its listeners are told.

    Attributes:
        name: `circuit.opened`, `circuit.half_opened` or `circuit.closed`.
        breaker: the breaker.
        old: the state before.
        new: the state since: one of `closed`, `open`, `half_open`, `forced_open`, `disabled`, `metrics_only`.
        reason: why, in words.
        retry_after: seconds until a probe is let through, where it opened for a time.
        last_failure: the failure counted last.
    """

    name: str
    breaker: CircuitBreaker
    old: str
    new: str
    reason: str
    retry_after: float | None
    last_failure: BaseException | None

    def __str__(self) -> str:
        after = "" if self.retry_after is None else f", next attempt in {self.retry_after:.1f} s"
        return f"{self.name}: {self.breaker.name or '(unnamed)'} was {self.old} and is {self.new}: {self.reason}{after}"

    def _repr_html_(self) -> str:
        from seawall._pictures import event  # what few programs show

        return event(self)


@dataclass(frozen=True)
class CircuitMetrics:
    """A breaker's counts at one moment.

    Attributes:
        name, state: as the breaker's own.
        consecutive_failures: failures since the last success.
        calls, failed, slow: over the window; `None` where the breaker has none (it counts failures in a row only), and
            `slow` where no `slow_call_duration` was given.
        failure_rate, slow_call_rate: shares of these, 0 to 1; `None` without calls.
        rejected: calls turned away, ever.
        openings: how often it opened, ever.
        openings_in_a_row: how often since it was last closed.
        probes: probes that are out.
        probe_successes: probes that have succeeded in this recovery.
        retry_after: seconds until a probe is let through; `None` unless it is open.
        last_failure: the failure counted last.
    """

    name: str | None
    state: str
    consecutive_failures: int
    calls: int | None
    failed: int | None
    slow: int | None
    failure_rate: float | None
    slow_call_rate: float | None
    rejected: int
    openings: int
    openings_in_a_row: int
    probes: int
    probe_successes: int
    retry_after: float | None
    last_failure: BaseException | None

    def __str__(self) -> str:
        facts = [self.state, f"{self.consecutive_failures} failures in a row"]
        if self.calls is not None:
            facts.append(f"{self.failed} of {self.calls} calls failed")
        facts += [f"{self.openings} openings", f"{self.rejected} turned away"]
        if self.retry_after is not None:
            facts.append(f"next attempt in {self.retry_after:.1f} s")
        return f"{self.name or '(unnamed)'}: {', '.join(facts)}"

    def _repr_html_(self) -> str:
        from seawall._pictures import metrics  # what few programs show

        return metrics(self)
