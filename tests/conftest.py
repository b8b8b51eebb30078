"""seawall's own fixtures, as its pytest plugin gives them (here the package is not installed, so nothing registers it), and
the choice of the fast lane or the machine."""

from __future__ import annotations

from typing import Any

import pytest

from seawall._pytest_plugin import (  # noqa: F401
    seawall_cap_attempts,
    seawall_clock,
    seawall_events,
    seawall_no_waits,
    seawall_seed,
)


@pytest.fixture(params=[False, True], ids=["lane", "machine"])
def hooks(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Keyword arguments of a `Retry` that leave a call its fast lane, or, by a hook on each attempt, force it onto the machine."""
    return {"before": lambda state: None} if request.param else {}
