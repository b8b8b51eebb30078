"""Streams of a process that forks: they stay the parent's."""

from __future__ import annotations

import os

import pytest

from seawall.simulator import faults

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")

PROGRAM = """
import asyncio, faulthandler, gc, os, threading, traceback, warnings

warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads, which is what is tried here
from seawall.llm import Chat

chat = Chat("m", api_key="k", base_url=base_url)
begun, fresh, awaited = chat.stream("x"), chat.stream("x"), chat.astream("x")
given = [next(begun).content, next(begun).content]
# Another thread reads, and waits, while the process is forked.
waiting, others = chat.stream("x"), []
reader = threading.Thread(target=lambda: others.extend(piece.content for piece in waiting))
reader.start()
while not others:
    pass

def is_refused(call):
    try:
        call()
    except RuntimeError as error:
        assert "before the process was forked: open another one here" in str(error), error
    else:
        raise AssertionError("a stream of the parent's was read")

async def first():
    await anext(awaited)

child = os.fork()
if not child:
    faulthandler.dump_traceback_later(40, exit=True)
    try:
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
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
print("child", flush=True)
whole = chat.invoke("x").content
given += [piece.content for piece in begun]
reader.join()
assert "".join(given) == "".join(others) == "".join(piece.content for piece in fresh) == whole
asyncio.run(first())
print("parent", flush=True)
"""


def test_a_stream_of_the_parents_is_refused_in_the_child_and_goes_on_in_the_parent(sim, program) -> None:
    # They are under way when the process is forked: the rest comes once the child has ended.
    sim.on("m", faults.drip(0.02), times=2)
    process = program(PROGRAM)
    out, err = process.communicate(timeout=90)
    assert (out, process.returncode) == ("child\nparent\n", 0), err
    assert not any(request.aborted for request in sim.requests)
