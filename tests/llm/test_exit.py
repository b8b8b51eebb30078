"""Programs that end with requests under way: in time, with the code they meant, without a word and without a crash."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from seawall.simulator import faults

BEGIN = """
import asyncio, atexit, faulthandler, os, signal, sys, threading
faulthandler.enable()
from seawall.llm import Chat, Embeddings

chat = Chat("m", api_key="k", base_url=base_url)
hung = Chat("hung", api_key="k", base_url=base_url, timeout=None)

def thread(work, daemon=True):
    made = threading.Thread(target=work, daemon=daemon)
    made.start()
    return made

def busy():
    while True:
        chat.invoke("x")
        list(chat.stream("x"))

async def busily():
    while True:
        await chat.ainvoke("x")
        assert [piece async for piece in chat.astream("x")]

def asked():
    chat.invoke("so that the runtime is there")
    print("asked", flush=True)
    sys.stdin.readline()
"""

# What hangs as each ends: requests on the server.
PROGRAMS = {
    "daemon threads that wait": (
        3,
        """
thread(lambda: hung.invoke("x")); thread(lambda: list(hung.stream("x"))); thread(lambda: hung.batch(["x"]))
asked()
""",
    ),
    "daemon threads at work": (
        0,
        """
for _ in range(6): thread(busy)
asked()
""",
    ),
    "a loop in a daemon thread": (
        1,
        """
async def main():
    await asyncio.gather(hung.ainvoke("x"), *(busily() for _ in range(10)))
thread(lambda: asyncio.run(main()))
asked()
""",
    ),
    "a thread that is waited for": (
        0,
        """
def last():
    asked()
    for _ in range(20): chat.invoke("x")
thread(last, daemon=False)
""",
    ),
    "tasks that a loop leaves": (
        2,
        """
async def main():
    tasks = [asyncio.create_task(hung.ainvoke("x")), asyncio.create_task(anext(hung.astream("x")))]
    tasks += [asyncio.create_task(busily()) for _ in range(5)]
    await asyncio.to_thread(asked)
asyncio.run(main())
""",
    ),
    "a loop that nobody closes": (
        1,
        """
import warnings; warnings.simplefilter("ignore", ResourceWarning)
loop = asyncio.new_event_loop()
task = loop.create_task(hung.ainvoke("x"))
task._log_destroy_pending = False
loop.call_soon(loop.stop)
loop.run_forever()
asked()
""",
    ),
    "a stream that was begun": (
        0,
        """
streams = [chat.stream("x"), chat.astream("y")]
next(streams[0])
asked()
""",
    ),
    "a call at exit": (
        0,
        """
def last():
    assert chat.invoke("x").content and asyncio.run(chat.ainvoke("x")).content and list(chat.stream("x"))
atexit.register(last)
asked()
""",
    ),
    "the first call at exit": (
        0,
        """
atexit.register(lambda: (chat.invoke("x"), asked()))
""",
    ),
    "a daemon thread that is waited for at exit": (
        0,
        """
def work():
    over.wait()
    for _ in range(20): chat.invoke("x")
over = threading.Event()
worker = thread(work)
atexit.register(lambda: (over.set(), worker.join()))
asked()
""",
    ),
    "a call in __del__": (
        0,
        """
class Last:
    def __init__(self): self.chat = chat
    def __del__(self):
        assert self.chat.invoke("x").content
        assert len(self.chat.batch(["x", "y"])) == 2
        assert list(self.chat.stream("x"))
last = Last()
import builtins
builtins.last = Last()
asked()
""",
    ),
    "a failing call in __del__": (
        0,
        """
class Last:
    def __init__(self): self.chat = Chat("bad", api_key="k", base_url=base_url)
    def __del__(self):
        try: self.chat.invoke("x")
        except Exception: pass
last = Last()
import builtins
builtins.last = Last()
asked()
""",
    ),
    "a trio run that is left": (
        1,
        """
import trio
async def main():
    trio.lowlevel.spawn_system_task(hung.ainvoke, "x")
    await trio.to_thread.run_sync(asked)
trio.run(main)
""",
    ),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_ends_as_if_nothing_were_under_way(sim, program, name) -> None:
    hanging, text = PROGRAMS[name]
    sim.on("hung", faults.hang())
    sim.on("bad", faults.status(400))
    process = program(BEGIN + text)
    assert process.stdout.readline() == "asked\n", process.communicate()
    arrived = sim.count()  # before the look: what comes in between is seen by it
    while sim.count("hung") < hanging:
        sim.wait_for(arrived + 1)
        arrived = sim.count()
    out, err = process.communicate("\n", timeout=30)
    assert (process.returncode, out, err) == (0, "", "")
    sim.wait_aborted(hanging)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGTERM there")
@pytest.mark.parametrize(
    ("handler", "code"),
    [
        ("", -signal.SIGTERM),
        ("signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))", 7),
    ],
    ids=["by itself", "a handler's exit"],
)
@pytest.mark.parametrize("call", ["hung.invoke('x')", "list(hung.stream('x'))", "asyncio.run(hung.ainvoke('x'))"])
def test_sigterm_ends_a_call_that_hangs(sim, program, handler, code, call) -> None:
    sim.on("hung", faults.hang())
    process = program(f"{BEGIN}\n{handler}\n{call}\n")
    sim.wait_for(1, timeout=60)
    process.terminate()
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (code, "", "")
    sim.wait_aborted(1)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no sigwait there")
def test_a_signal_that_the_program_waits_for_comes_to_it_and_to_no_thread_of_ours(program) -> None:
    text = """
chat.invoke("so that the runtime is there")
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
print("waiting", flush=True)
print(signal.sigwait([signal.SIGTERM]).name, flush=True)
"""
    process = program(BEGIN + text)
    assert process.stdout.readline() == "waiting\n"
    process.terminate()
    assert process.communicate(timeout=30) == ("SIGTERM\n", "")
    assert process.returncode == 0


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals there")
def test_what_a_hook_starts_takes_signals(sim, program) -> None:
    """A hook runs on a thread of ours, and what it starts must not have inherited that such threads take no signals."""
    sim.on("m", faults.status(500), times=1)
    text = """
def hook(state):
    blocked = subprocess.run([sys.executable, "-c", "import signal; print(signal.pthread_sigmask(signal.SIG_BLOCK, []))"], stdout=subprocess.PIPE)
    print(blocked.stdout.decode().strip(), flush=True)
import subprocess
chat.with_retry(wait=0.001, before_sleep=hook).invoke("x")
"""
    assert program(BEGIN + text).communicate(timeout=60) == ("set()\n", "")


def test_another_interpreter_of_the_process_is_refused() -> None:
    program = """
import seawall.llm
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
other = interpreters.create()
refused = "try:\\n import seawall\\nexcept ImportError as error:\\n print('refused', flush=True)"
getattr(interpreters, "exec", None) and interpreters.exec(other, refused) or hasattr(interpreters, "run_string") and not hasattr(interpreters, "exec") and interpreters.run_string(other, refused)
interpreters.destroy(other)
print("ended", flush=True)
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert (ended.returncode, ended.stdout) == (0, "refused\nended\n"), ended.stderr
