"""Processes that are forked off in the middle of anything, and workers of every kind: guarded calls go on in all of them.

Each program runs in a process of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")

BEGIN = '''
import asyncio, threading
from seawall import CircuitBreaker, Fallback, Monitor, Pipeline, Retry, Timeout, testing
from seawall.errors import CircuitBreakerError

heard = []
breaker = CircuitBreaker(2, 60, name="b", listeners=[lambda event: heard.append(event.new)])
monitor = Monitor(name="m")
policies = Pipeline(Timeout(60), Retry(2, wait=0.001), breaker, name="p", monitor=monitor)

@policies
def ask(fails=False):
    if fails:
        raise ConnectionError
    return "plain"

@policies
async def aask():
    await asyncio.sleep(0)
    return "asynchronous"

@policies
def items():
    yield from "abc"

@Pipeline(Timeout(30, thread=True))
def apart():
    return "apart"

def whole():
    """What a process does with guarded functions, all of it."""
    heard.clear()
    breaker.reset()
    heard.clear()
    assert (ask(), asyncio.run(aask()), "".join(items()), apart()) == ("plain", "asynchronous", "abc", "apart")
    try:
        ask(True)
    except ConnectionError:
        pass
    assert (breaker.state, heard) == ("open", ["open"]), (breaker.state, heard)
    try:
        ask()
    except CircuitBreakerError as error:
        assert (error.name, type(error.last_failure)) == ("b", ConnectionError)
    else:
        raise AssertionError("an open circuit let a call pass")
    breaker.reset()
    assert (ask(), heard) == ("plain", ["open", "closed"])

inside, over = threading.Event(), threading.Event()

def thread(work):
    made = threading.Thread(target=work, daemon=True)
    made.start()
    assert inside.wait(30)
    return made
'''

MOMENTS = {
    "after all was used": """
whole()
before = monitor.snapshot()["lifetime"]["total"]
assert forked(whole) == 0
whole()
assert monitor.snapshot()["lifetime"]["total"] == 2 * before
""",
    "before anything was used": """
assert forked(whole) == 0
whole()
""",
    "of a child": """
whole()
assert forked(lambda: exec("whole(); assert forked(whole) == 0")) == 0
""",
    "while a thread is inside": """
answers = []

@policies
def slow():
    inside.set()
    assert over.wait(30)
    return "slow"

made = thread(lambda: answers.append(slow()))
assert forked(whole) == 0
over.set()
made.join()
assert answers == ["slow"]
""",
    "while a thread waits between attempts": """
@Pipeline(Retry(2, wait=3600, before_sleep=lambda state: inside.set()), breaker)
def waits():
    raise ConnectionError

thread(waits)
assert forked(whole) == 0
""",
    "while a thread runs apart": """
@Pipeline(Timeout(60, thread=True), breaker)
def hangs():
    inside.set()
    over.wait(30)

made = thread(hangs)
assert forked(whole) == 0
over.set()
made.join()
""",
    "while a loop runs in a thread": """
@policies
async def hangs():
    inside.set()
    await asyncio.get_running_loop().run_in_executor(None, over.wait, 30)

made = thread(lambda: asyncio.run(hangs()))
assert forked(whole) == 0
over.set()
made.join()
""",
    "while a generator stands": """
begun = items()
assert next(begun) == "a"
assert forked(lambda: exec("whole(); assert list(begun) == ['b', 'c']")) == 0
assert list(begun) == ["b", "c"]
""",
    "while a listener is told": """
@breaker.add_listener
def listens(event):
    if threading.current_thread() is not threading.main_thread():
        inside.set()
        over.wait(30)

made = thread(lambda: breaker.force("forced_open"))
assert forked(whole) == 0
over.set()
made.join()
whole()
""",
    "while an alert is told": """
@monitor.on_alert
def alerted(alert):
    if threading.current_thread() is not threading.main_thread():
        inside.set()
        over.wait(30)

made = thread(lambda: [monitor.record(False) for _ in range(10)])
assert forked(whole) == 0
over.set()
made.join()
""",
    "while a circuit is entered": """
def enters():
    with breaker:
        inside.set()
        over.wait(30)

made = thread(enters)
assert forked(whole) == 0
over.set()
made.join()
with breaker:
    assert forked(whole) == 0
""",
    "inside a guarded call": """
@policies
def forks():
    return os.fork()

child = forks()
if not child:
    end(whole)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
""",
    "inside a guarded coroutine": """
def plainly():
    assert (ask(), "".join(items()), apart()) == ("plain", "abc", "apart")

@policies
async def forks():
    return forked(plainly)

assert asyncio.run(forks()) == 0
""",
    "while a probe is out": """
clock = testing.clock()
with clock:
    probed = CircuitBreaker(1, 5, max_half_open_time=20)
    probed.record_failure()
    clock.advance(5)
    permit = probed.acquire()

    def recovers():
        # Nobody here will ever say how the parent's probe came out: it is given up as one that hangs.
        assert probed.try_acquire() is None
        clock.advance(20)
        assert probed.call(lambda: "well") == "well" and probed.closed

    assert forked(recovers) == 0
    permit.on_success()
    assert probed.closed
""",
    "with their own chance": """
def spans():
    with testing.no_waits(), testing.record() as events:
        for _ in range(20):
            Pipeline(Fallback("instead"), Retry(3)).call(ask.__wrapped__, True)
    return [event.span for event in events.named("retry.scheduled")]

spans()
reader, writer = os.pipe()
assert forked(lambda: os.write(writer, repr(spans()).encode())) == 0
theirs = eval(os.read(reader, 65536))
ours = spans()
assert len(ours) == len(theirs) == 40 and set(ours).isdisjoint(theirs), (ours, theirs)
""",
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_forked_child_goes_on_by_itself(forking: str, moment: str) -> None:
    program = forking + BEGIN + MOMENTS[moment] + "\nprint('whole', flush=True)\nos._exit(0)\n"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=120)
    assert (ended.returncode, ended.stdout) == (0, "whole\n"), ended.stderr


WORKERS = """
import asyncio, concurrent.futures, multiprocessing, sys, warnings

warnings.simplefilter("ignore", DeprecationWarning)
from seawall import CircuitBreaker, Fallback, Monitor, Pipeline, Retry, Timeout, circuit, guard, retry
from seawall.errors import CallTimeoutError, CircuitBreakerError, RateLimitError

shared = CircuitBreaker(1, 60, name="shared")

@guard(retry=2, monitor=True, name="twice")
def twice(value):
    return 2 * value

@retry(2, wait=0)
async def later(value):
    await asyncio.sleep(0)
    return 3 * value

def awaited(value):
    return asyncio.run(later(value))

@Pipeline(Retry(2, wait=0), shared)
def fails(value):
    raise RateLimitError("slow down", status_code=429, request_id="r1")

def refused(value):
    for _ in range(2):
        try:
            fails(value)
        except (RateLimitError, CircuitBreakerError):
            pass
    return shared.state

@Pipeline(Timeout(0.001, thread=True), name="limited")
def endless(value):
    from threading import Event
    Event().wait()

@Pipeline(Fallback(print, on=KeyError), Retry(2, on=RateLimitError, wait=0), name="fallen")
def raises(value):
    raise ValueError(value)

def through(pair):
    policies, value = pair
    return policies.call(divmod, value, 0), policies.name, policies.monitor.name

def told(function, value):
    try:
        return function(value)
    except Exception as error:
        return error

def at_work(pool):
    print(list(pool.map(twice, [1, 2])), list(pool.map(awaited, [1, 2])), list(pool.map(refused, [1])))
    for work in (fails, endless, raises):
        try:
            list(pool.map(work, [1]))
        except (RateLimitError, CircuitBreakerError) as error:
            print(type(error).__name__, getattr(error, "name", None), getattr(error, "request_id", None))
        except CallTimeoutError as error:
            print("CallTimeoutError", error.name, error.limit)
        except ValueError as error:
            print("ValueError", error)
    policies = Pipeline(Fallback("none"), Timeout(5), Retry(2, wait=0), shared, name="division", monitor=Monitor(name="m"))
    print(list(pool.map(through, [(policies, 1)])))

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    assert twice(1) == 2 and awaited(1) == 3  # used before there were workers
    with context.Pool(1) as pool:
        at_work(pool)
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        at_work(pool)
    alone = context.Process(target=awaited, args=(1,))
    alone.start()
    alone.join()
    print(alone.exitcode, shared.state)
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_workers_of_every_kind_call_what_is_guarded_and_send_back_what_came_of_it(method: str, tmp_path: Path) -> None:
    script = tmp_path / "workers.py"
    script.write_text(WORKERS)
    ended = subprocess.run([sys.executable, str(script), method], capture_output=True, text=True, check=False, timeout=120)
    pool = [
        "[2, 4] [3, 6] ['open']",
        "CircuitBreakerError shared None",
        "CallTimeoutError limited 0.001",
        "ValueError 1",
        "[('none', 'division', 'm')]",
    ]
    assert (ended.returncode, ended.stdout.splitlines()) == (0, [*pool, *pool, "0 closed"]), ended.stderr
