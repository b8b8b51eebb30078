"""Where the examples' requests go: to a simulator that misbehaves, or, with LIVE=1, to the service of your OPENAI_API_KEY."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from seawall.simulator import Simulator


@contextmanager
def service(trouble: Callable[[Simulator], object]) -> Iterator[None]:
    """While it lasts, models find the service in the environment, as they do in production."""
    if os.environ.get("LIVE"):
        yield
        return
    with Simulator() as simulator:
        trouble(simulator)
        os.environ |= {"OPENAI_BASE_URL": simulator.base_url, "OPENAI_API_KEY": "sk-test", "NO_PROXY": "127.0.0.1"}
        yield
        print(f"\n{simulator.count()} requests reached the server.")
