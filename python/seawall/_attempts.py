"""The story of one call: its attempts, in order."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

# The outcome of an attempt that nobody waited for to its end, since another one answered first.
GIVEN_UP = "given up"


@dataclass(frozen=True)
class Attempt:
    """One request.

    Attributes:
        model: the model asked.
        alternative: 0 for the primary, 1 for the first fallback, …
        started: seconds after the call began.
        seconds: how long it took; `None` if it was given up.
        outcome: `"ok"`, the name of the error class, or `"given up"` where another request answered first.
        status: the HTTP status of a failure.
        request_id: the provider's id of the request.
        waited: seconds that a retry waited after it, before the next attempt.
    """

    model: str | None
    alternative: int
    started: float
    seconds: float | None
    outcome: str
    status: int | None = None
    request_id: str | None = None
    waited: float | None = None

    def __str__(self) -> str:
        status = "" if self.status is None else f" {self.status}"
        took = "" if self.seconds is None else f" after {self.seconds:.2f} s"
        waited = "" if self.waited is None else f", waited {self.waited:.2f} s"
        return f"{self.model}: {self.outcome}{status}{took}{waited}"


class Attempts(tuple[Attempt, ...]):
    """The attempts made, in order. Compares with a number as their count: `reply.attempts == 3`."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return len(self) == other if isinstance(other, int) else super().__eq__(other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = tuple.__hash__

    def __lt__(self, other: Any) -> bool:
        return len(self) < other if isinstance(other, int) else super().__lt__(other)

    def __le__(self, other: Any) -> bool:
        return len(self) <= other if isinstance(other, int) else super().__le__(other)

    def __gt__(self, other: Any) -> bool:
        return len(self) > other if isinstance(other, int) else super().__gt__(other)

    def __ge__(self, other: Any) -> bool:
        return len(self) >= other if isinstance(other, int) else super().__ge__(other)

    def __int__(self) -> int:
        return len(self)

    def __str__(self) -> str:
        return "\n".join(f"{number}. {attempt}" for number, attempt in enumerate(self, 1))

    def _repr_html_(self) -> str:
        from seawall._pictures import attempts  # what few programs show

        return attempts(self)


def attempts(rows: Iterable[tuple[Any, ...]]) -> Attempts:
    """Attempts from the native client's rows."""
    return Attempts(Attempt(*row) for row in rows)
