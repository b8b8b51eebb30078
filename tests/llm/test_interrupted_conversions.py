"""Ctrl-C while Python code of ours looks at what a server said: it is an interrupt, not an answer that cannot be read."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from seawall import errors, retry
from seawall.llm import Chat
from seawall.simulator import faults


@contextmanager
def interrupted_in(name: str) -> Iterator[list[str]]:
    """Sends this process SIGINT when a Python function of that name is entered."""
    told: list[str] = []

    def look(frame, event, arg):
        if event == "call" and frame.f_code.co_name == name and not told:
            told.append(name)
            signal.raise_signal(signal.SIGINT)

    sys.setprofile(look)
    try:
        yield told
    finally:
        sys.setprofile(None)


def of_a_failure(model: Chat) -> None:
    model.invoke("x")


def of_a_guarded_failure(model: Chat) -> None:
    retry(3, on=errors.APIError, wait=600)(model.invoke)("x")


def of_a_batch(model: Chat) -> None:
    model.batch(["x", "y"])


@pytest.mark.parametrize("ask", [of_a_failure, of_a_guarded_failure, of_a_batch])
@pytest.mark.parametrize("place", ["loads", "attempts", "steps"])
def test_a_failure_that_is_being_put_into_words(sim, ask: Callable[[Chat], None], place):
    sim.on("m", faults.status(500))
    model = Chat("m", api_key="k", base_url=sim.base_url, max_retries=0)
    with interrupted_in(place) as told, pytest.raises(KeyboardInterrupt):
        ask(model)
    assert told == [place]


def test_an_answer_that_is_being_parsed(sim):
    reply = Chat("m", api_key="k", base_url=sim.base_url).invoke("x")
    with interrupted_in("loads") as told, pytest.raises(KeyboardInterrupt):
        reply.parsed()
    assert told == ["loads"]
