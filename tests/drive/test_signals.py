"""A real Ctrl-C, in a process of its own, wherever it comes: at once, neutral, and without harm."""

from __future__ import annotations

import subprocess
import sys

import pytest

PREAMBLE = """
import asyncio, os, signal, sys, threading, time
from seawall import CircuitBreaker, Pipeline, Retry, Timeout

def interrupt():
    os.kill(os.getpid(), signal.SIGINT)

def soon():
    threading.Thread(target=interrupt).start()

def told(state):
    pass

hooks = {"before": told} if sys.argv[1] == "machine" else {}
breaker = CircuitBreaker(99)
calls = []

def pipeline(**more):
    return Pipeline(Timeout(900), Retry(3, wait=600, on=Exception, **more, **hooks), breaker)

def interrupted(call):
    try:
        call()
    except KeyboardInterrupt:
        print("interrupted", len(calls), breaker.failure_count, breaker.state)
    else:
        print("not interrupted")
"""

PROGRAMS = {
    "function": """
@pipeline()
def ask():
    calls.append(1)
    interrupt()
    while True:
        pass
interrupted(ask)
""",
    "wait": """
@pipeline()
def ask():
    calls.append(1)
    soon()
    threading.Event().wait()
interrupted(ask)
""",
    "backoff": """
@pipeline(before_sleep=lambda state: soon())
def ask():
    calls.append(1)
    raise ConnectionError
interrupted(ask)
""",
    "handler": """
class Own(BaseException):
    pass
def handler(*_):
    raise Own
signal.signal(signal.SIGINT, handler)
@pipeline(before_sleep=lambda state: soon())
def ask():
    calls.append(1)
    raise ConnectionError
try:
    ask()
except Own:
    print("interrupted", len(calls), breaker.failure_count, breaker.state)
""",
    "generator": """
@pipeline()
def items():
    calls.append(1)
    yield 1
    interrupt()
    while True:
        pass
interrupted(lambda: list(items()))
""",
    "before its first item": """
@pipeline(before_sleep=lambda state: soon())
def items():
    calls.append(1)
    raise ConnectionError
    yield
interrupted(lambda: list(items()))
""",
    "coroutine": """
@pipeline()
async def ask():
    calls.append(1)
    soon()
    await asyncio.Event().wait()
interrupted(lambda: asyncio.run(ask()))
""",
    "backoff of a coroutine": """
@pipeline(before_sleep=lambda state: soon())
async def ask():
    calls.append(1)
    raise ConnectionError
interrupted(lambda: asyncio.run(ask()))
""",
    "async generator": """
@pipeline()
async def items():
    calls.append(1)
    yield 1
    soon()
    await asyncio.Event().wait()
async def take():
    async for _ in items():
        pass
interrupted(lambda: asyncio.run(take()))
""",
}
COUNTED = {"backoff", "handler", "before its first item", "backoff of a coroutine"}


@pytest.mark.skipif(sys.platform == "win32", reason="signals to a process are Unix's")
@pytest.mark.parametrize("lane", ["lane", "machine"])
@pytest.mark.parametrize("where", PROGRAMS)
def test_ctrl_c(where: str, lane: str) -> None:
    program = PREAMBLE + PROGRAMS[where]
    ended = subprocess.run(
        [sys.executable, "-c", program, lane], capture_output=True, text=True, timeout=60, start_new_session=True
    )
    failures = 1 if where in COUNTED else 0
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, f"interrupted 1 {failures} closed\n", "")


@pytest.mark.skipif(sys.platform == "win32", reason="signals to a process are Unix's")
def test_a_signal_that_raises_nothing_does_not_end_a_wait() -> None:
    program = (
        PREAMBLE
        + """
heard = []
signal.signal(signal.SIGUSR1, lambda *_: heard.append(1))
tries = []

@Pipeline(Retry(2, wait=0.01, before_sleep=lambda state: os.kill(os.getpid(), signal.SIGUSR1)))
def ask():
    tries.append(time.monotonic())
    if len(tries) == 1:
        raise ConnectionError
    return "answer"
print(ask(), len(heard), tries[1] - tries[0] >= 0.01)
"""
    )
    ended = subprocess.run([sys.executable, "-c", program, "lane"], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "answer 1 True\n", "")
