"""The package as it is installed: alone, light, and true to what it says of itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import seawall

SOURCE = Path(__file__).parents[1] / "python"
# Everything that is not seawall and not of the standard library, as a bare interpreter sees it.
FOREIGN = """
import json, sys
sys.path.insert(0, {source!r})
before = set(sys.modules)
__import__({module!r})
new = {{name.partition(".")[0] for name in set(sys.modules) - before}}
print(json.dumps(sorted(new - set(sys.stdlib_module_names) - {{"seawall"}})))
"""


@pytest.mark.parametrize(
    "module",
    [
        "seawall",
        "seawall.llm",
        "seawall.simulator",
        "seawall.dashboard",
        "seawall.errors",
        "seawall.presets",
        "seawall.compat.circuitbreaker",
    ],
)
def test_it_needs_nothing_but_python(module: str):
    # -S: no site-packages, as in a fresh environment into which only seawall was installed.
    ended = subprocess.run(
        [sys.executable, "-S", "-c", FOREIGN.format(source=str(SOURCE), module=module)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout) == []


LOADED = """
import asyncio, functools, inspect, logging, sys, typing
before = set(sys.modules)
import seawall
print(*sorted(name for name in set(sys.modules) - before if name.partition(".")[0] != "seawall"))
"""


def test_importing_it_loads_hardly_anything_that_a_program_has_not_loaded_anyway():
    ended = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=True, timeout=60)
    assert set(ended.stdout.split()) <= {"__future__", "_datetime", "datetime"}


def test_what_is_loaded_later_is_there_all_the_same():
    code = "import seawall; print(seawall.testing.__name__, seawall.CircuitMetrics.__name__); from seawall import *; CircuitEvent"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert ended.stdout.split() == ["seawall.testing", "CircuitMetrics"], ended.stderr
    with pytest.raises(AttributeError, match="nothing_of_that_name"):
        seawall.nothing_of_that_name
