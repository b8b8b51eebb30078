"""What `hedge=` takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from seawall._seawall import Hedge
from seawall._word import shown
from seawall.errors import ConfigurationTypeError

if TYPE_CHECKING:
    from datetime import timedelta

Hedging: TypeAlias = "Hedge | float | timedelta | None"


def hedge_of(given: Any) -> Hedge | None:
    """The policy that `hedge=` asks for: one that is there already, or one after so many seconds.

    Raises:
        ConfigurationError: it is neither.
    """
    if given is None or isinstance(given, Hedge):
        return given
    if isinstance(given, (bool, str)) or not (isinstance(given, (int, float)) or hasattr(given, "total_seconds")):
        raise ConfigurationTypeError(f"hedge must be a seawall.Hedge, seconds or None, not {shown(given)}")
    return Hedge(given)
