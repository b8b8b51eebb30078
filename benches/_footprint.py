"""Bytes of an object and the price of an import, each in a fresh process.

Native memory is invisible to tracemalloc, so it is the growth of the process over many objects that is measured.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path

OBJECTS = {
    "seawall CircuitBreaker, consecutive": ("import seawall", "seawall.CircuitBreaker(5)", ""),
    "seawall CircuitBreaker, last 100 calls, new": (
        "import seawall",
        "seawall.CircuitBreaker(None, failure_rate=0.5, window=100, minimum_calls=20)",
        "",
    ),
    "seawall CircuitBreaker, last 100 calls, full": (
        "import seawall",
        "seawall.CircuitBreaker(None, failure_rate=0.5, window=100, minimum_calls=20)",
        "call = seawall.Pipeline(made).call\nfor _ in range(100): call(int)",
    ),
    "seawall CircuitBreaker, 30 s, used": (
        "import seawall",
        "seawall.CircuitBreaker(None, failure_rate=0.5, window=30.0, minimum_calls=20)",
        "seawall.Pipeline(made).call(int)",
    ),
    "seawall Monitor, new": ("import seawall", "seawall.Monitor()", ""),
    "seawall Monitor, full": (
        "import seawall",
        "seawall.Monitor()",
        "call = seawall.Pipeline(monitor=made).call\nfor _ in range(100): call(int)",
    ),
    "circuitbreaker": ("import circuitbreaker", "circuitbreaker.CircuitBreaker(5)", ""),
    "pybreaker": ("import pybreaker", "pybreaker.CircuitBreaker(5)", ""),
    "interlock-cb": ("import interlock", "interlock.CircuitBreaker(name='b')", ""),
}

_GROWTH = """
import gc, os
{setup}
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
def one():
    made = {make}
    {use}
    return made
for _ in range(100): one()
kept = [None] * {count}
gc.collect(); gc.freeze(); gc.disable()
before = resident()
for place in range({count}): kept[place] = one()
print((resident() - before) / {count})
"""


def growth(setup: str, make: str, use: str, count: int) -> float:
    """Bytes of one object, from so many of them."""
    code = _GROWTH.format(setup=setup, make=make, use=use.replace("\n", "\n    "), count=count)
    return float(_run(code).stdout)


def _run(code: str, *options: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([sys.executable, *options, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    return done


# What most programs have loaded anyway.
_LOADED = "import asyncio, functools, inspect, logging, typing"
_IMPORT = f"""
{_LOADED}
import sys, time
before = set(sys.modules)
wall, cpu = time.perf_counter_ns(), time.thread_time_ns()
import seawall
wall, cpu = time.perf_counter_ns() - wall, time.thread_time_ns() - cpu
new = sorted(set(sys.modules) - before)
import json
files = {{name: getattr(sys.modules[name], "__file__", None) or "" for name in new}}
foreign = [n for n, f in files.items() if "site-packages" in f and n.split(".")[0] != "seawall"]
print(json.dumps([wall, cpu, foreign, [n for n in new if n.split(".")[0] != "seawall"]]))
"""


def imports(rounds: int) -> tuple[float, float, list[str], list[str]]:
    """Milliseconds of CPU and of wall time, the third-party modules loaded, and the standard library's."""
    told = [json.loads(_run(_IMPORT).stdout) for _ in range(rounds + 1)][1:]  # the first one finds cold files
    walls, cpus = [each[0] / 1e6 for each in told], [each[1] / 1e6 for each in told]
    return statistics.median(cpus), statistics.median(walls), told[0][2], told[0][3]


def slowest(rounds: int, limit: int = 6) -> list[tuple[str, float]]:
    """The modules whose own part of the import is the largest, by `-X importtime`, in milliseconds: the least of the rounds."""
    least: dict[str, float] = {}
    for _ in range(rounds):
        lines = _run(f"{_LOADED}\nimport seawall", "-X", "importtime").stderr.splitlines()
        rows = [line.removeprefix("import time:").split("|") for line in lines if line.count("|") == 2]
        whole = [(name, int(own) / 1000) for own, _, name in rows if own.strip().isdigit()]
        # A module's own imports stand before it, further in.
        before = max((place for place, (name, _) in enumerate(whole[:-1]) if name[1] != " "), default=-1)
        for name, own in whole[before + 1 :]:
            least[name.strip()] = min(own, least.get(name.strip(), own))
    return sorted(least.items(), key=lambda row: -row[1])[:limit]


def library() -> Path | None:
    """The native library as installed."""
    import seawall._seawall

    file = seawall._seawall.__file__
    return Path(file) if file else None
