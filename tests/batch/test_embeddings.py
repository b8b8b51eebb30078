"""Batches of embeddings with a journal: the chat model's machinery, and inputs that take several requests."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest
from _canary import CANARY

from seawall import errors, journal
from seawall.llm import Chat, Embeddings, EmbeddingsReply
from seawall.simulator import Simulator, faults

Batch = Callable[..., list[Any]]
# One request, two, four, one.
INPUTS: list[Any] = ["a", ["b", "c", "d", "e"], [f"t{n}" for n in range(10)], ["z"]]


@pytest.fixture
def model(sim: Simulator) -> Callable[..., Embeddings]:
    def make(**options: Any) -> Embeddings:
        return Embeddings("e", **{"api_key": CANARY, "base_url": sim.base_url, "max_batch_inputs": 3, **options})

    return make


def with_abatch(model: Embeddings, inputs: Any, **options: Any) -> list[Any]:
    return asyncio.run(model.abatch(inputs, **options))


def as_completed(model: Embeddings, inputs: Any, **options: Any) -> list[Any]:
    results = dict(model.batch_as_completed(inputs, **options))
    return [results[at] for at in sorted(results)]


def async_in_order(model: Embeddings, inputs: Any, **options: Any) -> list[Any]:
    async def collected() -> list[Any]:
        pairs = [pair async for pair in model.abatch_in_order(inputs, **options)]
        assert [at for at, _ in pairs] == sorted(at for at, _ in pairs)
        return [result for _, result in pairs]

    return asyncio.run(collected())


WAYS = {"batch": Embeddings.batch, "abatch": with_abatch, "as completed": as_completed, "async in order": async_in_order}
every_way = pytest.mark.parametrize("batch", WAYS.values(), ids=WAYS)


@every_way
def test_what_is_finished_is_never_asked_again(sim: Simulator, model, db: str, batch: Batch) -> None:
    plain = model().batch(INPUTS)
    sim.forget()
    first = batch(model(), INPUTS, journal=db, max_concurrency=2)
    assert sim.count() == 8 and [len(reply.vectors) for reply in first] == [1, 4, 10, 1]
    again = batch(model(), INPUTS, journal=db)
    assert sim.count() == 8
    for reply, kept, usual in zip(first, again, plain, strict=True):
        assert type(kept) is EmbeddingsReply
        assert kept.vectors == reply.vectors == usual.vectors
        assert (kept.model, kept.tokens, len(kept.attempts)) == (reply.model, reply.tokens, len(reply.attempts))
        assert [attempt.request_id for attempt in kept.attempts] == [attempt.request_id for attempt in reply.attempts]
    with journal.open(db) as written:
        assert written.counts == (8, 0)
        rows = dict(written.results())
        assert [len(rows[at].vectors) for at in range(8)] == [1, 3, 1, 3, 3, 3, 1, 1]
    # More may follow, and what cannot be sent has its place.
    more = batch(model(), [*INPUTS, None, "y"], journal=db, return_exceptions=True)
    assert sim.count() == 9 and "inputs[4]" in str(more[4]) and len(more[5].vectors) == 1


@every_way
def test_one_request_that_fails_is_its_inputs_failure_and_is_asked_again_alone(
    sim: Simulator, model, db: str, batch: Batch
) -> None:
    sim.on("e", faults.status(400), times=1, after=4)
    results = batch(model(), INPUTS, journal=db, max_concurrency=1, return_exceptions=True)
    assert [type(result).__name__ for result in results] == [
        "EmbeddingsReply",
        "EmbeddingsReply",
        "BadRequestError",
        "EmbeddingsReply",
    ]
    with journal.open(db) as written:
        assert [at for at, _ in written.failures()] == [4]
    assert [len(reply.vectors) for reply in batch(model(), INPUTS, journal=db)] == [1, 4, 10, 1]
    assert sim.count() == 9


def test_a_journal_is_that_of_its_inputs_model_and_kind(sim: Simulator, model, db: str) -> None:
    model().batch(["a", "b"], journal=db, dimensions=4)
    for ask, what in (
        (lambda: model().batch(["a", "c"], journal=db, dimensions=4), "another question"),
        (lambda: model().batch(["a", "b"], journal=db, dimensions=5), "another dimensions"),
        (lambda: Chat("e", api_key=CANARY, base_url=sim.base_url).batch(["a"], journal=db), "was begun with"),
    ):
        with pytest.raises(errors.JournalError, match=what):
            ask()
    assert sim.count() == 2


@pytest.mark.parametrize("damaged", ["substr(answer, 2)", "substr(answer, 5)", "CAST(answer || x'00' AS BLOB)", "x''"])
def test_numbers_that_somebody_has_damaged_are_told(sim: Simulator, model, db: str, damaged: str) -> None:
    model().batch(["a"], journal=db)
    with closing(sqlite3.connect(db)) as file, file:
        file.execute(f"UPDATE items SET answer = {damaged}")
    with pytest.raises(errors.JournalError, match="holds something at 0 that no seawall wrote"):
        model().batch(["a"], journal=db)


def test_an_outage_is_waited_for_and_progress_counts_inputs(sim: Simulator, model) -> None:
    sim.on("e", faults.status(503), times=4)
    told: list[tuple[int, int | None, int]] = []
    results = model().with_retry(wait=0.001).batch(INPUTS, patience=30, progress=lambda *far: told.append(far))
    assert [len(reply.vectors) for reply in results] == [1, 4, 10, 1]
    assert told[-1] == (4, 4, 0)


KILLED = """
import sys
from seawall.llm import Embeddings
model = Embeddings("e", api_key="k", base_url=base_url, max_batch_inputs=3)
for at, _ in model.batch_as_completed([["t%d" % (n * 3 + part) for part in range(5)] for n in range(40)], journal=sys.argv[1], max_concurrency=4):
    print(at, flush=True)
"""


def test_killed_and_begun_again_it_redoes_nothing_that_was_finished(sim: Simulator, model, db: str) -> None:
    sim.on("e", faults.hang(), after=30)
    program = [sys.executable, "-c", f"base_url = {sim.base_url!r}\n{KILLED}", db]
    process = subprocess.Popen(program, stdout=subprocess.PIPE, text=True)
    sim.wait_for(34, 60)
    process.send_signal(signal.SIGKILL)
    reported, _ = process.communicate()
    with journal.open(db) as written:
        finished = written.counts.done
    # Two rows are an input.
    assert finished == 30 and len(reported.split()) <= 15
    sim.clear()
    sim.forget()
    inputs = [[f"t{n * 3 + part}" for part in range(5)] for n in range(40)]
    replies = model().batch(inputs, journal=db)
    assert sim.count() == 80 - finished
    assert [reply.vectors for reply in replies] == [reply.vectors for reply in model().batch(inputs)]
