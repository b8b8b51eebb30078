"""The fault campaign finds nothing wrong, docs/campaign.md says what it found, and it would notice if something were wrong."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import inspect
import threading
from typing import Any

import pytest

import campaign as program
from _cases import ANSWER, CASES, POLICIES, RULES, Case, Meets, makers
from _cells import CLIENTS, WAYS, Answers, Cell, Native, cells
from _leaks import Leaks
from campaign import PAGE, Campaign, carried_out, page, results
from seawall import errors
from seawall.errors import BadRequestError, InternalServerError
from seawall.llm import Chat
from seawall.simulator import Simulator, faults

PLAIN, RETRY, FALLBACK = POLICIES


@pytest.fixture(scope="module")
def whole() -> Campaign:
    return carried_out(half=True)


def test_every_fault_of_the_simulator_has_a_case():
    assert {case.maker for case in CASES} == makers()
    hows = inspect.signature(faults.cut, eval_str=True).parameters["how"].annotation.__args__
    assert {case.fault.details["how"] for case in CASES if case.fault.kind == "cut"} == set(hows)
    met = [met for case in CASES for met in (case.whole, case.stream) if met is not None]
    assert {each.kind for each in met} == {None, *RULES}
    assert len({case.name for case in CASES}) == len(CASES)


def test_every_case_is_asked_by_every_way_under_every_policy():
    made = cells(CLIENTS, CASES)
    for case in CASES:
        ways = [way for way in WAYS if (case.stream if way.streams else case.whole) is not None]
        asked = {(cell.client, cell.way, cell.policy) for cell in made if cell.case is case}
        assert asked == {(client, way, policy) for client in CLIENTS for way in ways for policy in POLICIES}


def test_what_is_carried_out_here_is_each_cell_with_one_of_the_clients(whole: Campaign):
    def met(cell: Cell) -> tuple[Any, ...]:
        return (cell.case.name, cell.way.name, cell.policy.name, cell.extent.name)

    made = cells(CLIENTS, CASES)
    assert sorted(map(met, whole.cells)) == sorted({met(cell) for cell in made})
    assert {(cell.client, cell.case.name, cell.way) for cell in whole.cells} == {(c.client, c.case.name, c.way) for c in made}


def test_every_call_comes_to_what_the_rule_says_and_nothing_is_left_over(whole: Campaign):
    assert whole.problems == []


def test_the_page_says_what_the_campaign_found(whole: Campaign):
    assert page(results(whole)) == PAGE.read_text(encoding="utf-8"), "run `make campaign`"


# --- it would notice


ANSWERS = functools.lru_cache(Answers)


def _found(case: Case, *, client: Any = Native, way: str = "invoke", policy: Any = RETRY, **changes: Any) -> str:
    """What is told of the first cell of a case, as the rule has it."""

    async def one() -> str:
        made = [c for c in cells([client], [case]) if (c.way.name, c.policy) == (way, policy)]
        cell = dataclasses.replace(made[0], **changes)
        with Simulator() as sim:
            await cell.run(sim, ANSWERS())
        return " | ".join(cell.problems)

    return asyncio.run(one())


def _case(fault: faults.Fault, met: Meets, **more: Any) -> Case:
    return Case(fault.name, "", fault, met, met, **more)


RETRIED = Meets("transient", InternalServerError)


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("way", [way.name for way in WAYS])
def test_a_case_that_is_right_has_no_problems(client, way):
    assert _found(_case(faults.status(500), RETRIED), client=client, way=way) == ""


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("way", [way.name for way in WAYS])
def test_a_wrong_or_cut_answer_is_noticed(client, way):
    for text in ("", "[m0-native] What is a seawall? 什么是海堤？ — This answer"):
        assert "a wrong or cut answer was returned" in _found(_case(faults.reply(text), ANSWER), client=client, way=way)


@pytest.mark.parametrize(
    ("fault", "met", "words"),
    [
        (faults.status(500), Meets("permanent", InternalServerError), "3 requests for 1"),
        (faults.status(400), Meets("transient", BadRequestError), "1 requests for 3"),
        (faults.status(503), RETRIED, "ServiceUnavailable for InternalServerError"),
        (faults.status(500), ANSWER, "InternalServerError for answer"),
        (faults.ok(), RETRIED, "answer for InternalServerError"),
        (faults.status(429), Meets("transient", errors.RateLimitError), "the breaker counted 0 failures of 3"),
        (faults.rate_limit(), Meets("rate limited", errors.RateLimitError, wait=1), "which is sooner than 2 s"),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_what_is_not_as_the_rule_says_is_noticed(fault, met, words):
    assert words in _found(_case(fault, met))


def test_a_stream_that_starts_again_or_hands_out_what_is_not_there_is_noticed():
    interrupted = Meets("interrupted", errors.StreamInterruptedError)
    assert "interrupted before the first content" in _found(_case(faults.cut(0), interrupted), way="stream")
    malformed = Meets("malformed", errors.StreamInterruptedError)
    found = _found(_case(faults.cut(3), malformed), way="stream")
    assert "1 requests for 3" in found
    assert "interrupted after the first content" in found


def test_a_call_that_does_not_end_is_noticed(monkeypatch):
    monkeypatch.setattr("_cells.WATCHDOG", 0.2)
    for way in ("invoke", "ainvoke"):
        met = Meets("transient", errors.APITimeoutError, options={"timeout": 1})
        assert "no end within 0.2 s" in _found(_case(faults.hang(), met), way=way, policy=PLAIN)
    monkeypatch.setattr("_cells.SLACK", 0)
    late = Meets("transient", errors.APITimeoutError, options={"timeout": 0.1})
    monkeypatch.setattr("_cells.WATCHDOG", 60)
    assert "where 0 s are enough" in _found(_case(faults.hang(), late), policy=PLAIN)


def test_an_answer_in_the_wrong_place_of_a_batch_and_one_that_is_lost_are_noticed(monkeypatch):
    batch = Chat.batch

    def swapped(self: Chat, inputs: Any, **options: Any) -> Any:
        return batch(self, inputs, **options)[::-1]

    monkeypatch.setattr(Chat, "batch", swapped)
    assert "a wrong or cut answer was returned" in _found(_case(faults.ok(), ANSWER), way="batch")

    def lost(self: Chat, inputs: Any, **options: Any) -> Any:
        try:
            return batch(self, inputs, **options)
        except errors.APIError as error:
            del error.results
            raise

    monkeypatch.setattr(Chat, "batch", lost)
    assert "1 results of 3" in _found(_case(faults.status(500), RETRIED), way="batch")


LIMITED = Meets("transient", errors.APITimeoutError, seconds=1, left=True, options={"timeout": 1})


@pytest.mark.parametrize(
    ("spoilt", "asked", "wrong"), [(1, 2, 0), (3, 4, 0), (9, 4, 1)], ids=["once", "thrice", "wrong of itself"]
)
def test_what_a_machine_that_stood_still_has_spoilt_is_asked_again(monkeypatch, spoilt, asked, wrong):
    names: list[str] = []
    count = Simulator.count

    def one_has_not_arrived(self: Simulator, name: str) -> int:
        if name not in names and not name.endswith("-other"):
            names.append(name)
        return count(self, name) - (len(names) <= spoilt and not name.endswith("-other"))

    monkeypatch.setattr("_cells.arrived", one_has_not_arrived)
    cell = cells([Native], [_case(faults.hang(), LIMITED)])[0]
    made = Campaign([cell])
    asyncio.run(made.run())
    assert (len(names), len(made.problems)) == (asked, wrong)
    # What the first tries left behind is still looked for.
    assert cell.names == names


@pytest.mark.parametrize(
    ("met", "cells_of", "missing", "problem"),
    [
        (RETRIED, 1, True, "2 requests for 3"),
        (LIMITED, 1, False, "a wrong or cut answer was returned as a success"),
        (LIMITED, 1, True, "1 permits of a breaker did not come back"),
        (LIMITED, program.SPOILT + 1, True, "2 requests for 3"),
    ],
    ids=["no time limit", "something else", "something else as well", "everywhere"],
)
def test_nothing_else_is_asked_again(monkeypatch, met, cells_of, missing, problem):
    asked: list[str] = []

    async def wrong(self: Cell, sim: Simulator, answers: Answers) -> None:
        asked.append(self.name)
        self.problems += [*self.missing, problem]
        if missing:
            self.missing.append("2 requests for 3")

    monkeypatch.setattr(Cell, "run", wrong)
    campaign = Campaign(cells([Native], [_case(faults.status(500), met)])[:cells_of])
    asyncio.run(campaign.run())
    assert len(asked) == cells_of == len(campaign.problems)


def test_a_permit_that_does_not_come_back_is_noticed(monkeypatch):
    met = Meets("permanent", BadRequestError)
    assert _found(_case(faults.status(400), met)) == ""
    made, held = Cell._breaker, []

    def holding(self: Cell) -> Any:
        breaker = made(self)
        breaker.configure(half_open_max_calls=2)
        held.append(breaker.acquire())
        return breaker

    monkeypatch.setattr(Cell, "_breaker", holding)
    assert "1 permits of a breaker did not come back" in _found(_case(faults.status(400), met))


@pytest.mark.parametrize(
    ("hung", "noticed"),
    [(True, ("tasks", "requests that nobody waits for", "connections are open")), (False, ("threads",))],
    ids=["a call that hangs", "a thread"],
)
def test_what_is_left_over_is_noticed(monkeypatch, hung, noticed):
    monkeypatch.setattr("_leaks.PATIENCE", 0.1)
    cell = cells([Native], [next(case for case in CASES if case.fault.kind == "hang")])[0]
    over = threading.Event()

    async def left() -> list[str]:
        with Simulator() as sim:
            chat = Chat(cell.name, api_key="k", base_url=sim.base_url, max_retries=0)
            await chat.ainvoke("x")
            leaks = Leaks(sim)
            assert await leaks.check([cell]) == []
            task = None
            if hung:
                sim.on(cell.name, faults.hang())
                task = asyncio.ensure_future(chat.ainvoke("x"))
                await asyncio.sleep(0)
                sim.wait_for(2)
            else:
                threading.Thread(target=over.wait, daemon=True).start()
            try:
                return await leaks.check([cell])
            finally:
                over.set()
                if task is not None:
                    task.cancel()
                    await asyncio.wait([task])

    told = " | ".join(asyncio.run(left()))
    assert all(words in told for words in noticed), told


def test_the_program_says_so_and_fails(monkeypatch, capsys, tmp_path):
    copy = tmp_path / "campaign.md"
    copy.write_text(PAGE.read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setattr(program, "PAGE", copy)
    monkeypatch.setattr(program, "bare_environment", lambda: None)
    monkeypatch.setattr("sys.argv", ["campaign"])
    wrong = [_case(faults.ok(), Meets("permanent", BadRequestError), text=None)]
    monkeypatch.setattr(program, "CASES", wrong)
    monkeypatch.setattr(program, "makers", lambda: {""})
    assert program.main() == 1
    assert "**?**" in capsys.readouterr().out
    assert "answer for BadRequestError" in copy.read_text(encoding="utf-8")
    monkeypatch.setattr(program, "makers", lambda: {"", "flood"})
    assert program.main() == 1
    assert "no line in tests/campaign/_cases.py for flood" in capsys.readouterr().err
