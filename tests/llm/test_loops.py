"""The native client in event loops: of every kind, several at once, one after another, closed early, stopped and run again."""

from __future__ import annotations

import asyncio
import gc
import os
import selectors
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from seawall.errors import AuthenticationError
from seawall.simulator import faults

try:
    import uvloop
except ImportError:  # there is none for Windows
    uvloop = None


class Blind(asyncio.SelectorEventLoop):
    """As Windows' usual one: its own waking works; nobody else may have a descriptor watched."""

    def add_reader(self, *args: Any) -> None:
        raise NotImplementedError


class Poor(asyncio.SelectorEventLoop):
    """A loop of somebody's that has no such method."""

    @property
    def add_reader(self) -> Any:  # type: ignore[override]
        raise AttributeError("add_reader")


LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.SelectorEventLoop,
    "blind": lambda: Blind(selectors.DefaultSelector()),
    "poor": lambda: Poor(selectors.DefaultSelector()),
}
if uvloop is not None:
    LOOPS["uvloop"] = uvloop.new_event_loop


@pytest.fixture(params=LOOPS)
def new_loop(request: pytest.FixtureRequest) -> Callable[[], asyncio.AbstractEventLoop]:
    """Makes loops of one kind."""
    return LOOPS[request.param]


@pytest.fixture
def run(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> Iterator[Any]:
    loop = new_loop()

    def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
        return loop.run_until_complete(asyncio.wait_for(coroutine, 60))

    yield run
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


async def some_of_all(model: Any) -> None:
    replies = await asyncio.gather(*(model.ainvoke(f"question {i}") for i in range(20)))
    assert all(f" {i} " in reply.content for i, reply in enumerate(replies))
    assert "".join([piece.content async for piece in model.astream("again")])
    assert len(await model.abatch(["a", "b", "c"])) == 3


def test_calls_streams_and_batches(sim, chat, run) -> None:
    run(some_of_all(chat()))
    assert sim.count() == 24


def test_errors_and_cancellations(sim, chat, run) -> None:
    sim.on("locked", faults.status(401))
    sim.on("hung", faults.hang())

    async def both() -> None:
        with pytest.raises(AuthenticationError):
            await chat("locked").ainvoke("x")
        tasks = [asyncio.ensure_future(chat("hung").ainvoke("x")), asyncio.ensure_future(chat("hung").abatch(["x", "y"]))]
        await asyncio.to_thread(sim.wait_for, 4)
        for task in tasks:
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    run(both())
    sim.wait_aborted(3)


def test_one_model_in_a_loop_of_each_of_several_threads(sim, chat, new_loop) -> None:
    model, failed = chat(), []

    def work() -> None:
        loop = new_loop()
        try:
            for _ in range(3):
                loop.run_until_complete(some_of_all(model))
        except BaseException as error:
            failed.append(error)
        finally:
            loop.close()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failed
    assert sim.count() == 4 * 3 * 24


def test_one_model_in_loops_one_after_another_and_in_turns(chat, new_loop) -> None:
    model = chat()
    for _ in range(3):
        loop = new_loop()
        loop.run_until_complete(model.ainvoke("x"))
        loop.close()
    one, other = new_loop(), new_loop()
    for loop in (one, other, one, other):
        assert loop.run_until_complete(model.ainvoke("x")).attempts == 1
    one.close()
    other.close()


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="descriptors are counted in /proc")
def test_a_loop_that_is_gone_leaves_no_descriptor_and_calls_need_no_threads(chat, new_loop) -> None:
    model, process = chat(), Path("/proc/self")

    def once() -> None:
        loop = new_loop()
        loop.run_until_complete(some_of_all(model))
        loop.close()

    def is_no_connection(descriptor: Path) -> bool:
        # The pool holds as many connections as were needed at once, which may be more at any time.
        with suppress(FileNotFoundError):
            return not str(descriptor.readlink()).startswith("socket:")
        return False

    def counted() -> tuple[int, list[str]]:
        gc.collect()
        names = [task.read_text().strip() for task in process.glob("task/*/comm")]
        return sum(map(is_no_connection, process.glob("fd/*"))), [name for name in names if name == "seawall"]

    def leave() -> tuple[tuple[int, list[str]], tuple[int, list[str]]]:
        before = counted()
        for _ in range(20):
            once()
        return before, counted()

    once()
    before, after = leave()
    if before != after:
        # Something else in the process may have opened one meanwhile, once. What loops leave, they leave each time.
        before, after = leave()
    assert after == (before[0], ["seawall"])


CALLS: dict[str, tuple[int, Callable[[Any], Any]]] = {
    "ainvoke": (1, lambda model: model.ainvoke("x")),
    "abatch": (2, lambda model: model.abatch(["x", "y"])),
    "astream": (1, lambda model: anext(model.astream("x"))),
}


def begun(loop: asyncio.AbstractEventLoop, *calls: Any) -> list[asyncio.Task[Any]]:
    """Tasks that await these calls, once their requests have been given to the runtime."""

    async def begin() -> list[asyncio.Task[Any]]:
        async def awaited(call: Any) -> Any:
            return await call

        tasks = [asyncio.get_running_loop().create_task(awaited(call)) for call in calls]
        await asyncio.sleep(0)
        return tasks

    return loop.run_until_complete(begin())


@pytest.mark.parametrize("way", CALLS)
def test_a_loop_that_is_closed_cuts_what_its_tasks_await(sim, chat, new_loop, way, caplog) -> None:
    sim.on("hung", faults.hang())
    loop, (requests, call) = new_loop(), CALLS[way]
    if isinstance(loop, (Blind, Poor)):
        loop.close()
        pytest.skip("tells nobody that it is closed")
    tasks = begun(loop, call(chat("hung", timeout=None)))
    sim.wait_for(requests)
    loop.close()
    sim.wait_aborted(requests)
    del tasks, loop
    gc.collect()
    assert {record.message.splitlines()[0] for record in caplog.records} == {"Task was destroyed but it is pending!"}
    sim.clear()
    asyncio.run(some_of_all(chat()))


def test_a_closed_loop_that_nobody_told_of_is_noticed_at_the_first_answer(sim, chat, caplog) -> None:
    sim.on("hung", faults.hang())
    sim.on("slow", faults.latency(0.1))
    loop = LOOPS["blind"]()
    tasks = begun(loop, chat("hung", timeout=None).ainvoke("x"), chat("slow").ainvoke("x"))
    sim.wait_for(2)
    loop.close()
    sim.wait_aborted(1)
    del tasks, loop
    gc.collect()
    assert {record.message.splitlines()[0] for record in caplog.records} == {"Task was destroyed but it is pending!"}


def test_a_loop_that_is_stopped_finds_the_answer_when_it_runs_again(sim, chat, new_loop) -> None:
    loop, model = new_loop(), chat()
    tasks = begun(loop, *(model.ainvoke(f"q{i}") for i in range(5)))
    sim.wait_for(5)
    model.invoke("they have been answered meanwhile, as this one")
    assert [f" q{i} " in loop.run_until_complete(task).content for i, task in enumerate(tasks)] == [True] * 5
    loop.close()


def test_a_stream_may_be_read_on_in_another_loop(chat, new_loop) -> None:
    stream, pieces = chat().astream("x"), []
    loop = new_loop()
    pieces.append(loop.run_until_complete(anext(stream)))
    loop.close()

    async def rest() -> None:
        pieces.extend([piece async for piece in stream])

    asyncio.run(rest())
    assert "".join(piece.content for piece in pieces) == chat().invoke("x").content


def test_outside_of_a_loop_it_says_what_to_do(chat) -> None:
    with pytest.raises(RuntimeError, match="no event loop of asyncio or trio is running"):
        chat().ainvoke("x").send(None)


def test_many_answers_wake_a_loop_once(sim, chat) -> None:
    """Answers that come together are handed over together: the loop's turns are fewer than the answers."""
    turns = 0

    async def all_at_once() -> None:
        loop = asyncio.get_running_loop()
        select = loop._selector.select  # type: ignore[attr-defined]

        def counting(timeout: Any) -> Any:
            nonlocal turns
            turns += 1
            return select(timeout)

        loop._selector.select = counting  # type: ignore[attr-defined]
        await model.abatch(["x"] * 200)

    model = chat()
    asyncio.run(all_at_once())
    assert sim.count() == 200
    assert turns < 20


def test_the_client_loads_no_event_loop_of_its_own(sim) -> None:
    program = (
        "import sys; import seawall.llm as llm; "
        f"assert llm.Chat('m', api_key='k', base_url={sim.base_url!r}).invoke('x').content; "
        "print(sorted({'asyncio', 'trio', 'anyio', 'uvloop'} & set(sys.modules)))"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env={**os.environ})
    assert ended.stdout == "[]\n"


def test_two_loops_take_turns_in_one_thread(chat) -> None:
    first, second = asyncio.new_event_loop(), asyncio.new_event_loop()
    model = chat()

    def run(loop: asyncio.AbstractEventLoop, awaited: Any) -> Any:
        return loop.run_until_complete(asyncio.wait_for(awaited, 60))

    async def begin(loop: asyncio.AbstractEventLoop, name: str) -> Any:
        return loop.create_task(model.ainvoke(name)), model.astream(name)

    try:
        for turn in range(6):
            assert f"turn {turn} " in run((first, second)[turn % 2], model.ainvoke(f"turn {turn}")).content
        # What was begun in one loop ends there, though the other has run meanwhile.
        begun = [
            (loop, name, *run(loop, begin(loop, name))) for loop, name in ((first, "one"), (second, "two"), (first, "three"))
        ]
        for loop, name, _, stream in begun:
            assert run(loop, anext(stream)).role == "assistant", name
        for loop, name, task, stream in begun:
            assert f"{name} " in run(loop, task).content
            assert f"{name} " in run(loop, collected(stream))
    finally:
        first.close()
        second.close()


async def collected(stream: Any) -> str:
    return "".join([piece.content async for piece in stream])


def test_calls_that_are_given_up_as_they_end_keep_no_other_call_waiting(chat) -> None:
    """Of many answers that come together one wakes the loop: not less so if its own task is cancelled just then."""
    model = chat()

    async def many(turns: int) -> None:
        kept = [asyncio.create_task(model.ainvoke("kept")) for _ in range(2)]
        given_up = [asyncio.create_task(model.ainvoke("given up")) for _ in range(40)]
        kept += [asyncio.create_task(model.ainvoke("kept")) for _ in range(8)]
        # Each time a little later among the answers.
        await kept[0]
        for _ in range(turns):
            await asyncio.sleep(0)
        for task in given_up:
            task.cancel()
        await asyncio.gather(*given_up, return_exceptions=True)
        assert all("kept " in reply.content for reply in await asyncio.gather(*kept))

    async def rounds() -> None:
        for turns in range(100):
            await asyncio.wait_for(many(turns), 60)

    asyncio.run(rounds())


async def test_a_cancelled_call_is_cut_though_somebody_keeps_the_error(sim, chat) -> None:
    sim.on("m", faults.hang())
    kept = []

    async def asks() -> None:
        try:
            await chat(timeout=None).ainvoke("x")
        except asyncio.CancelledError as error:
            kept.append(error)  # and the frames in which the call was under way
            raise

    task = asyncio.create_task(asks())
    await asyncio.to_thread(sim.wait_for, 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.to_thread(sim.wait_aborted, 1)
    assert kept[0].__traceback__
