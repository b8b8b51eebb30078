"""Hooks and predicates of models: they run aside, so they may ask models themselves and take as long as they like."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from seawall import errors
from seawall.llm import Chat
from seawall.simulator import faults


async def taken(model: Chat) -> str:
    return "".join([piece.content async for piece in model.astream("x")])


WAYS: dict[str, Callable[[Chat], str]] = {
    "invoke": lambda model: model.invoke("x").content,
    "stream": lambda model: "".join(piece.content for piece in model.stream("x")),
    "batch": lambda model: model.batch(["x"])[0].content,
    "ainvoke": lambda model: asyncio.run(model.ainvoke("x")).content,
    "astream": lambda model: asyncio.run(taken(model)),
}
# Whoever is asked, and what makes an attempt be followed by another.
ASKED: dict[str, Callable[[Callable[[], object]], dict[str, Any]]] = {
    "before": lambda ask: {"before": lambda state: ask()},
    "after": lambda ask: {"after": lambda state: ask()},
    "before_sleep": lambda ask: {"before_sleep": lambda state: ask()},
    "a predicate": lambda ask: {"retry_if_exception_type": lambda error: bool(ask())},
    "giveup": lambda ask: {"giveup": lambda error: not ask()},
    "a wait": lambda ask: {"wait": lambda state: 0 if ask() else 1},
    "a stop": lambda ask: {"stop": lambda state: not ask()},
}


@pytest.mark.parametrize(
    ("asked", "way"),
    [*((asked, "invoke") for asked in ASKED), *((asked, way) for asked in ("before_sleep", "a predicate") for way in WAYS)],
)
def test_they_may_ask_a_model_themselves(sim, chat, asked: str, way: str) -> None:
    sim.on("m", faults.status(500), times=1)
    other, answers = chat("other"), []

    def ask() -> str:
        answers.append(other.invoke("which?").content)
        return answers[-1]

    answer = WAYS[way](chat().with_retry(**{"wait": 0, **ASKED[asked](ask)}))
    assert answer.startswith("[m] x")
    assert answers and set(answers) == {other.invoke("which?").content}
    assert sim.count("m") == 2


def test_they_see_nothing_of_the_callers_thread_and_context(sim, chat) -> None:
    sim.on("m", faults.status(500), times=1)
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")
    variable.set("the caller's")
    seen = []
    hook = {"before_sleep": lambda state: seen.append((threading.get_ident(), variable.get()))}
    assert chat().with_retry(wait=0, **hook).invoke("x").attempts == 2
    ((thread, value),) = seen
    assert thread != threading.get_ident() and value == "unset"


def test_a_slow_one_holds_no_other_call_up(sim, chat) -> None:
    sim.on("m", faults.status(500))
    entered, released, told = threading.Event(), threading.Event(), []

    def slow(state: Any) -> None:
        entered.set()
        told.append(released.wait(60))

    def asks() -> None:
        with pytest.raises(errors.InternalServerError):
            chat().with_retry(stop_after_attempt=2, wait=0, before_sleep=slow).invoke("x")

    thread = threading.Thread(target=asks)
    thread.start()
    assert entered.wait(60)
    for way in WAYS.values():
        assert way(chat("other"))
    assert not told, "it waits still"
    released.set()
    thread.join(60)
    assert told == [True]


async def test_nor_a_task_of_the_loop_whose_call_it_is_about(sim, chat) -> None:
    sim.on("m", faults.status(500), times=1)
    entered, released = asyncio.Event(), threading.Event()
    loop, told = asyncio.get_running_loop(), []

    def slow(state: Any) -> None:
        loop.call_soon_threadsafe(entered.set)
        told.append(released.wait(60))

    task = asyncio.create_task(chat().with_retry(wait=0, before_sleep=slow).ainvoke("x"))
    await asyncio.wait_for(entered.wait(), 60)
    assert (await chat("other").ainvoke("x")).content
    assert not told
    released.set()
    assert (await task).attempts == 2


async def test_a_call_that_is_given_up_while_one_of_them_is_asked_ends_there(sim, chat) -> None:
    sim.on("m", faults.status(500))
    entered, released = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def slow(state: Any) -> None:
        loop.call_soon_threadsafe(entered.set)
        released.wait(60)

    task = asyncio.create_task(chat().with_retry(wait=0, before_sleep=slow).ainvoke("x"))
    await asyncio.wait_for(entered.wait(), 60)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    released.set()
    assert (await chat("other").ainvoke("x")).content
    assert sim.count("m") == 1


class Thing:
    """Something to be collected."""


def is_collected(gone: weakref.ref[Thing]) -> bool:
    """Whether the collector finds it; a call that has just ended may be in the way for a moment."""
    patience = threading.Event()
    for _ in range(1000):
        gc.collect()
        if gone() is None:
            return True
        patience.wait(0.01)
    return False


@pytest.mark.parametrize(("asked", "where"), [*((asked, "the model") for asked in ASKED), ("before_sleep", "an alternative")])
def test_a_model_in_a_circle_with_its_own_hook_is_collected(sim, chat, asked: str, where: str) -> None:
    sim.on("m", faults.status(500), times=1)

    def make() -> tuple[weakref.ref[Thing], list[Any]]:
        thing = Thing()
        cell: list[Any] = [thing]
        model = chat().with_retry(**{"wait": 0, **ASKED[asked](lambda: bool(cell))})
        if where == "an alternative":
            model = chat("first", max_retries=0).with_fallbacks([model])
        cell.append(model)
        return weakref.ref(thing), cell

    gone, cell = make()
    assert cell[1].invoke("x").content
    gc.collect()
    assert gone() is not None, "kept as long as it is in use"
    del cell
    assert is_collected(gone)


async def test_a_task_that_nobody_holds_is_collected_with_the_stream_that_it_waits_for(sim, chat) -> None:
    sim.on("m", faults.stall(0))
    loop, told = asyncio.get_running_loop(), []
    loop.set_exception_handler(lambda loop, context: told.append(context["message"]))

    async def reads(thing: Thing) -> None:
        async for _ in chat().astream("x"):
            pass

    thing = Thing()
    gone = weakref.ref(thing)
    task = asyncio.create_task(reads(thing))
    del thing
    await asyncio.to_thread(sim.wait_for, 1)
    assert not task.done()
    del task
    assert is_collected(gone)
    await asyncio.to_thread(sim.wait_aborted, 1)
    assert told == ["Task was destroyed but it is pending!"]
