"""The story of one call: what policies did in its course."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple


class Step(NamedTuple):
    """One thing that a policy did."""

    at: float
    """Seconds after the call began."""
    event: str
    """What: a name of the table of events, such as `retry.scheduled`."""
    policy: str
    """The pipeline, breaker or model where it happened."""
    number: int
    """Attempts made, or the alternative tried."""
    seconds: float
    """The wait, or the time taken."""
    reason: str
    """Why, where there are several reasons; else empty."""
    error: str | None
    """The class of the error that it was about."""


def steps(rows: Iterable[tuple[Any, ...]]) -> tuple[Step, ...]:
    """Steps from native rows."""
    return tuple(Step(*row) for row in rows)


class Told(tuple[Step, ...]):
    """A story that was pickled: the steps, and the attempts that belong to them."""

    attempts: Any

    def __new__(cls, attempts: Any, told: Iterable[Step]) -> Told:
        """The story as it was."""
        made = super().__new__(cls, told)
        made.attempts = attempts
        return made

    @property
    def steps(self) -> tuple[Step, ...]:
        """What policies did, in order."""
        return tuple(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return Told, (self.attempts, tuple(self))
