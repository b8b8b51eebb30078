"""The document's five programs, nothing changed but their imports, under the four scenarios of the demo."""

from __future__ import annotations

import hashlib
import itertools
from pathlib import Path

import pytest

from _programs import MODELS, PROGRAMS, REFUSALS, SCENARIOS, Program, Run

Runs = dict[tuple[int, str], Run]
GPT_4, GPT_3 = MODELS
CALLS = [(1, 7), (2, 5), (3, 20), (4, 5), (5, 3)]

# SHA-256 of each program as the document prints it.
ORIGINALS = {
    1: "e59096938d01e759ddf21384f8d49bf7dff6499d73f101117857674745a62c5b",
    2: "03903ab74aac3c1c7006fa964764e94d6541a6f29d0e838b6ab76946e9e1a4aa",
    3: "4e7ae5a39d9e2a13814ea0e24ee29cc9622fa99426ebd7d5964ad6e016c8333d",
    4: "86867c5d185ecabbc437af2290802e2c81d057650744cf26e1f0d9c10584cd62",
    5: "36d36fbe839ef5861345a0e389cfb9335f53a20f5e15ee52e7c0f4b7308bc22c",
}


def sent(run: Run, model: str | None = None) -> int:
    """The requests that the server saw."""
    assert run.requests is not None
    return sum(model in (None, request.model) for request in run.requests)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.file)
def test_nothing_but_import_lines_differs_from_the_document(program: Program):
    assert hashlib.sha256(program.original.encode()).hexdigest() == ORIGINALS[program.number]


@pytest.mark.parametrize("scenario", [scenario.name for scenario in SCENARIOS])
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.file)
def test_each_program_runs_to_its_end_and_shows_no_traceback_and_no_key(runs: Runs, program, scenario):
    run = runs[program.number, scenario]
    output = Path(run.output).read_text(encoding="utf-8")
    assert run.ended, output[-2000:]
    assert "Traceback" not in output
    assert "sk-demo" not in output


@pytest.mark.parametrize(("number", "calls"), CALLS)
def test_a_healthy_server_gets_one_request_for_each_call(runs: Runs, number, calls):
    run = runs[number, "healthy"]
    assert run.answers == sent(run, GPT_4) == sent(run) == calls
    assert run.events == {}


@pytest.mark.parametrize(("number", "to_the_second"), [(2, 5), (4, 5), (5, 3)])
def test_with_the_first_model_down_the_second_answers_every_call(runs: Runs, number, to_the_second):
    run = runs[number, "first model down"]
    assert run.answers == run.calls == sent(run, GPT_3) == run.events["fallback.used"] == to_the_second
    assert run.events["retry.scheduled"] == sent(run, GPT_4) - run.calls


@pytest.mark.parametrize("number", [1, 3])
def test_without_a_second_model_nothing_is_answered(runs: Runs, number):
    run = runs[number, "first model down"]
    assert run.answers == 0
    assert sent(run) == sent(run, GPT_4)


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5])
def test_with_everything_down_nothing_is_answered(runs: Runs, number):
    assert runs[number, "everything down"].answers == 0


@pytest.mark.parametrize("scenario", ["first model down", "everything down"])
def test_the_circuit_of_program_1_opens_once_and_its_last_two_calls_cost_nothing(runs: Runs, scenario):
    run = runs[1, scenario]
    assert run.events["circuit.opened"] == 1
    assert run.events["retry.scheduled"] == sent(run) - 5
    assert "断路器拦截: 2" in Path(run.output).read_text(encoding="utf-8")


@pytest.mark.parametrize(("number", "calls"), CALLS)
def test_a_rate_limit_is_waited_out_and_every_call_is_answered(runs: Runs, number, calls):
    run = runs[number, "rate limited"]
    assert run.answers == calls
    assert sent(run) == sent(run, GPT_4) == calls + REFUSALS
    assert run.events == {"retry.scheduled": REFUSALS}


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.file)
def test_nothing_is_sent_before_retry_after_has_passed(runs: Runs, program):
    requests = runs[program.number, "rate limited"].requests
    gaps = [later.time - earlier.time for earlier, later in itertools.pairwise(requests)]
    assert min(gaps[:REFUSALS]) >= 1.0
