"""A stretch of time in which a monitor's alerts are told to nobody."""

from __future__ import annotations

import time
from datetime import datetime
from types import TracebackType
from typing import Any

from seawall import _seawall
from seawall._word import shown
from seawall.errors import ConfigurationError, ConfigurationTypeError


class Silence:
    """What `monitor.silence(…)` gives. It is on at once, until its time, `end()`, or the end of a `with` block it is used in.

    Attributes:
        reason: why, or `None`.
    """

    __slots__ = ("_id", "_monitor", "_until", "reason")

    def __init__(self, monitor: Any, number: int, until: int, reason: str | None) -> None:
        self._monitor = monitor
        self._id = number
        self._until = until
        self.reason = reason

    @property
    def remaining(self) -> float:
        """The seconds until it ends by itself; 0 once it is over."""
        if all(silence._id != self._id for silence in self._monitor.silences):
            return 0.0
        return max(0.0, (self._until - _seawall.clock_now()) / 1e9)

    @property
    def until(self) -> float:
        """When it ends by itself, as Unix time."""
        return time.time() + (self._until - _seawall.clock_now()) / 1e9

    def end(self) -> bool:
        """End it now, and tell what it held back and is still true. `False`: it was over before."""
        return bool(self._monitor._end_silence(self._id))

    def __enter__(self) -> Silence:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None) -> None:
        self.end()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Silence) and other._monitor is self._monitor and other._id == self._id

    def __hash__(self) -> int:
        return hash((id(self._monitor), self._id))

    def __repr__(self) -> str:
        left = self.remaining
        how = f"{left:.0f} s left" if left else "over"
        return f"<Silence: {how}>" if self.reason is None else f"<Silence ({self.reason}): {how}>"

    @staticmethod
    def _span(until: Any) -> float:
        """The seconds until then."""
        if isinstance(until, datetime):
            at = until.timestamp()
        elif isinstance(until, (int, float)) and not isinstance(until, bool):
            at = float(until)
        else:
            raise ConfigurationTypeError(f"until must be a datetime or Unix time, not {shown(until)}")
        left = at - time.time()
        if not left > 0:
            raise ConfigurationError(f"until must be in the future, not {shown(until)}")
        return left


__all__ = ["Silence"]
