"""seawall's own fixtures, as its pytest plugin gives them: here the package is not installed, so nothing registers it."""

from __future__ import annotations

from seawall._pytest_plugin import (  # noqa: F401
    seawall_cap_attempts,
    seawall_clock,
    seawall_events,
    seawall_no_waits,
    seawall_seed,
)
