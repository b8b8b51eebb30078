"""Processes forked off beside the native client: the child makes its own runtime and connections, and leaves its parent's alone.

Each program runs in a process of its own and asks the simulator in this one.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from seawall.simulator import faults

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")

BEGIN = '''
import asyncio, gc, signal, sys, threading
from seawall import CircuitBreaker
from seawall.errors import CircuitBreakerError
from seawall.llm import Chat, Embeddings

chat = Chat("m", api_key="k", base_url=base_url, circuit=CircuitBreaker(5, 60, name="c"))
hung = Chat("hung", api_key="k", base_url=base_url, timeout=None)
vectors = Embeddings("e", api_key="k", base_url=base_url)

async def awaited():
    replies = await asyncio.gather(*(chat.ainvoke(f"q{n}") for n in range(5)))
    assert [f" q{n} " in reply.content for n, reply in enumerate(replies)] == [True] * 5
    assert [piece async for piece in chat.astream("x")]
    assert len(await chat.abatch(["a", "b"])) == 2

def whole():
    """What a process does with models, all of it."""
    assert chat.invoke("x").attempts == 1
    assert list(chat.stream("x")) and len(chat.batch(["a", "b"])) == 2 and vectors.invoke("x").vectors
    asyncio.run(awaited())

def thread(work):
    made = threading.Thread(target=work, daemon=True)
    made.start()
    return made

def told(line):
    print(line, flush=True)
    assert sys.stdin.readline()
'''

MOMENTS = {
    "before anything was asked": """
assert forked(whole) == 0
whole()
""",
    "after a call that warmed up": """
whole()
assert [forked(whole) for _ in range(3)] == [0, 0, 0]
whole()
""",
    "of a child, and of its child": """
whole()
assert forked(lambda: exec("whole(); assert forked(whole) == 0; whole()")) == 0
whole()
""",
    "with a child that ends as programs do": """
whole()
assert forked(whole, sys.exit) == 0
whole()
""",
    "while threads are inside the client": """
over, failed = threading.Event(), []

def busy():
    try:
        while not over.is_set():
            chat.invoke("x")
            list(chat.stream("x"))
    except BaseException as error:
        failed.append(error)

threads = [thread(busy) for _ in range(4)]
assert [forked(whole) for _ in range(10)] == [0] * 10
over.set()
for each in threads:
    each.join()
assert not failed, failed
""",
    "from a thread, while another is inside": """
codes, over = [], threading.Event()
inside = thread(lambda: [chat.invoke("x") for _ in iter(over.is_set, True)])
forking = thread(lambda: codes.append(forked(whole)))
forking.join()
over.set()
inside.join()
assert codes == [0]
""",
    "while a loop is inside the client": """
async def busy():
    over = asyncio.Event()

    async def ask():
        while not over.is_set():
            await chat.ainvoke("x")

    tasks = [asyncio.create_task(ask()) for _ in range(20)]
    await asyncio.sleep(0)
    codes = [forked(lambda: list(chat.stream("x"))) for _ in range(3)]
    over.set()
    await asyncio.gather(*tasks)
    return codes

assert asyncio.run(busy()) == [0, 0, 0]
""",
    "with a loop that was made before": """
loop = asyncio.new_event_loop()
loop.run_until_complete(awaited())
children = []
for _ in range(2):
    child = os.fork()
    if not child:
        end(lambda: [loop.run_until_complete(awaited()) for _ in range(20)])
    children.append(child)
assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0]
loop.run_until_complete(awaited())
loop.close()
""",
    "with an open circuit": """
import logging
logging.getLogger("seawall").setLevel(logging.ERROR)
breaker = CircuitBreaker(1, 60, name="own")
guarded = Chat("m", api_key="k", base_url=base_url, circuit=breaker)
guarded.invoke("x")
breaker.force("forced_open")

def recovers():
    try:
        guarded.invoke("x")
    except CircuitBreakerError:
        breaker.reset()
    assert guarded.invoke("x").attempts == 1 and breaker.closed

assert forked(recovers) == 0
assert breaker.state == "forced_open"
""",
}


def finished(process: subprocess.Popen[str], timeout: float = 80) -> None:
    out, err = process.communicate(timeout=timeout)
    assert (process.returncode, out, err) == (0, "whole\n", "")


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_forked_child_asks_by_itself(program, forking, moment) -> None:
    finished(program(forking + BEGIN + MOMENTS[moment] + "\nprint('whole', flush=True)\n"))


STREAMS = """
begun, fresh, awaited = chat.stream("x"), chat.stream("x"), chat.astream("x")
given = [next(begun).content, next(begun).content]
# Another thread reads, and waits, while the process is forked.
waiting, others, there = chat.stream("x"), [], threading.Event()

def reads():
    for piece in waiting:
        others.append(piece.content)
        there.set()

reader = thread(reads)
assert there.wait(30)

def is_refused(call):
    try:
        call()
    except RuntimeError as error:
        assert "before the process was forked: open another one here" in str(error), error
    else:
        raise AssertionError("a stream of the parent's was read")

async def first():
    await anext(awaited)

def has_none_of_them():
    global begun, fresh, awaited, waiting
    for stream in (begun, fresh, waiting):
        is_refused(lambda: next(stream))
    is_refused(lambda: asyncio.run(first()))
    begun.close()
    asyncio.run(awaited.aclose())
    with fresh:
        pass
    del begun, fresh, awaited, waiting, stream
    gc.collect()
    assert "".join(piece.content for piece in chat.stream("x"))

assert forked(has_none_of_them) == 0
answer = chat.invoke("x").content
given += [piece.content for piece in begun]
reader.join()
assert "".join(given) == "".join(others) == "".join(piece.content for piece in fresh) == answer
asyncio.run(first())
print("whole", flush=True)
"""


def test_a_stream_of_the_parents_is_refused_in_the_child_and_goes_on_in_the_parent(sim, program, forking) -> None:
    # They are under way when the process is forked: the rest comes once the child has ended.
    sim.on("m", faults.drip(0.02), times=2)
    finished(program(forking + BEGIN + STREAMS))
    assert not any(request.aborted for request in sim.requests)


@pytest.mark.parametrize("leave", ["os._exit", "sys.exit"])
def test_a_child_that_ends_leaves_its_parents_requests_alone(sim, program, forking, leave) -> None:
    sim.on("slow", faults.stall(2), times=2)
    text = """
slow = chat.__class__("slow", api_key="k", base_url=base_url, timeout=None)
chat.invoke("warm")
stream, got = slow.stream("x"), []
made = [thread(lambda: got.append(next(stream))), thread(lambda: hung.invoke("x"))]
async def task():
    return await hung.ainvoke("y")
loop = asyncio.new_event_loop()
loop.create_task(task())
loop.call_soon(loop.stop)
loop.run_forever()
told("asked")
assert forked(whole, LEAVE) == 0
told("forked")
loop.close()
os._exit(0)
""".replace("LEAVE", leave)
    sim.on("hung", faults.hang())
    process = program(forking + BEGIN + text)
    assert process.stdout.readline() == "asked\n"
    sim.wait_for(4)
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.stdout.readline() == "forked\n"
    assert not any(request.aborted for request in sim.requests)
    assert process.communicate("\n", timeout=30) == ("", "")
    sim.wait_aborted(3)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere a child keeps its parent's connections open")
def test_a_call_that_the_parent_gives_up_is_cut_though_a_child_lives_on(sim, program, forking) -> None:
    sim.on("hung", faults.hang())
    text = """
async def main():
    task = asyncio.create_task(hung.ainvoke("x"))
    await asyncio.to_thread(told, "asked")
    child = os.fork()
    if not child:
        sys.stdin.readline()
        end(lambda: exec("assert chat.invoke('x').attempts == 1"))
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        print("cancelled", flush=True)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

asyncio.run(main())
print("whole", flush=True)
"""
    process = program(forking + BEGIN + text)
    assert process.stdout.readline() == "asked\n"
    sim.wait_for(1)
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.stdout.readline() == "cancelled\n"
    sim.wait_aborted(1)
    out, err = process.communicate("\n", timeout=60)
    assert (process.returncode, out, err) == (0, "whole\n", "")


WORKERS = """
import asyncio, concurrent.futures, multiprocessing, sys, warnings

warnings.simplefilter("ignore", DeprecationWarning)
from seawall.llm import Chat

chat = Chat("m", api_key="k", base_url=sys.argv[2])

def ask(text):
    return text in chat.invoke(text).content

async def several(text):
    return len(await chat.abatch([text, text]))

def ask_in_a_loop(text):
    return asyncio.run(several(text))

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    assert ask("warm")
    with context.Pool(2) as pool:
        print(pool.map(ask, "abcd"), pool.map(ask_in_a_loop, "ab"))
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
        print(list(pool.map(ask, "abcd")), list(pool.map(ask_in_a_loop, "ab")))
    print(ask("after"))
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_workers_of_every_kind(sim, method, tmp_path: Path) -> None:
    script = tmp_path / "workers.py"
    script.write_text(WORKERS)
    call = [sys.executable, str(script), method, sim.base_url]
    ended = subprocess.run(call, capture_output=True, text=True, check=False, timeout=120)
    four = "[True, True, True, True] [2, 2]"
    assert (ended.returncode, ended.stdout.splitlines()) == (0, [four, four, "True"]), ended.stderr


APP = """
import asyncio, os
from seawall.llm import Chat

chat = Chat("m", api_key="k", base_url=os.environ["ASKED"])
warm = chat.invoke("in the master").attempts
loop = asyncio.new_event_loop()
loop.run_until_complete(chat.ainvoke("in a loop of the master"))
master = os.getpid()

def app(environ, start_response):
    assert os.getpid() != master
    text = environ["PATH_INFO"].strip("/")
    answers = [chat.invoke(text), loop.run_until_complete(chat.ainvoke(text)), *chat.batch([text, text])]
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{os.getpid()} {all(text in answer.content for answer in answers)}".encode()]
"""


def test_gunicorn_that_forks_its_workers_after_a_call(sim, tmp_path: Path) -> None:
    pytest.importorskip("gunicorn")
    (tmp_path / "app.py").write_text(APP)
    command = [sys.executable, "-m", "gunicorn", "--preload", "--workers", "2", "--bind", "127.0.0.1:0", "app:app"]
    environment = {**os.environ, "ASKED": sim.base_url, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True) as server:
        try:
            log = []
            for line in server.stderr:
                log.append(line)
                if sum("Booting worker" in entry for entry in log) == 2:
                    break
            (place,) = [found[1] for entry in log if (found := re.search(r"Listening at: (\S+)", entry))]
            seen = []
            for number in range(40):
                with urllib.request.urlopen(f"{place}/text{number}", timeout=30) as answer:
                    seen.append(answer.read().decode().split())
            assert [well for _, well in seen] == ["True"] * 40, log
            server.send_signal(signal.SIGTERM)
            rest = server.stderr.read()
            assert server.wait(30) == 0
            assert "Traceback" not in "".join(log) + rest and "SIGKILL" not in rest
        finally:
            server.kill()
    assert sim.count() == 2 + 4 * 40


FILES = """
import logging, tempfile
from pathlib import Path
from seawall import Cache, journal

kept_open = tempfile.TemporaryDirectory()
folder = Path(kept_open.name)
over, failed = threading.Event(), []

def asking(path):
    return Chat("m", api_key="k", base_url=base_url, cache=Cache(path=path))

def until_over(turn):
    def busy():
        try:
            for number in range(1_000_000):
                if over.is_set():
                    return
                turn(number)
        except BaseException as error:
            failed.append(error)
    return thread(busy)

def kept(model, text):
    model.invoke(text)
    assert model.cache.flush()
    assert asking(model.cache.path).invoke(text).cached

def written(name, texts):
    assert len(chat.batch(texts, journal=str(folder / name))) == len(texts)

def with_files():
    kept(asking(folder / f"{os.getpid()}.cache"), "own")
    kept(shared, f"child {os.getpid()}")
    written(f"{os.getpid()}.db", ["a", "b"])
    with journal.open(str(folder / f"{os.getpid()}.db")) as own:
        assert own.counts.done == 2
    assert begun.counts.done >= 2

# Something of another's, of which each cache warns: that needs the interpreter, which a thread that forks has.
logging.getLogger("seawall").setLevel(logging.ERROR)
warnings.simplefilter("ignore")
(folder / "foreign.db").write_text("no database, and longer than the head of one " * 100)
shared = asking(folder / "shared.cache")
written("parent.db", ["a", "b"])
begun = journal.open(str(folder / "parent.db"))
busy = [
    until_over(lambda number: kept(asking(folder / "shared.cache"), f"parent {number}")),
    until_over(lambda number: asking(folder / "foreign.db").invoke("x")),
    until_over(lambda number: written("parent.db", [*"ab", *map(str, range(number))])),
    until_over(lambda number: written(f"{number}.db", ["a", "b"])),
]
try:
    assert [forked(with_files) for _ in range(8)] == [0] * 8
finally:
    over.set()
    for each in busy:
        each.join()
assert not failed, failed
print("whole", flush=True)
"""


def test_a_child_has_journals_and_cache_files_whatever_its_parents_threads_do_with_theirs(program, forking) -> None:
    finished(program(forking + BEGIN + FILES))
