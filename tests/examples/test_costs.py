"""What one failing call costs: each row of the table of costs, in requests that reached the server and in seconds.

The stacks are written as the document writes them; the rows about whole programs are those of `make demo`.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from _cells import CLIENTS, WAYS, LangChain, Native, Told, Way, aask, ask
from _programs import PROGRAMS, Run, environment
from seawall import errors, testing
from seawall.errors import APIError, RateLimitError, Timeout
from seawall.simulator import Simulator, faults

GPT_4, GPT_3 = "gpt-4", "gpt-3.5-turbo"
RETRYABLE_ERRORS = (RateLimitError, APIError, Timeout)


@pytest.fixture
def sim(monkeypatch: pytest.MonkeyPatch) -> Iterator[Simulator]:
    """Where everybody's requests go. Waits between attempts are told and not waited out."""
    with Simulator() as simulator, testing.no_waits():
        monkeypatch.setenv("OPENAI_BASE_URL", simulator.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-costs")
        yield simulator


async def told(client: Any, model: Any, way: Way) -> list[Told]:
    return await aask(client, model, way) if way.asynchronous else await asyncio.to_thread(ask, client, model, way)


def with_retry_3(client: Any) -> Any:
    return client.model(GPT_4).with_retry(stop_after_attempt=3)


def program_4(client: Any) -> Any:
    primary = client.model(GPT_4).with_retry(
        stop_after_attempt=5, wait_exponential_jitter=True, retry_if_exception_type=RETRYABLE_ERRORS
    )
    fallback = client.model(GPT_3).with_retry(stop_after_attempt=3, retry_if_exception_type=RETRYABLE_ERRORS)
    return primary.with_fallbacks([fallback])


every_client = pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.__name__)
every_way = pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)


@every_client
@every_way
@pytest.mark.parametrize(
    ("stack", "fault", "error", "requests", "least", "most"),
    [
        # 1 to 2 s, then 2 to 3 s.
        (with_retry_3, faults.status(500), errors.InternalServerError, 3, 3, 5),
        (with_retry_3, faults.status(401), errors.AuthenticationError, 1, 0, 0),
        (with_retry_3, faults.status(400), errors.BadRequestError, 1, 0, 0),
        (with_retry_3, faults.quota(), errors.QuotaExceededError, 1, 0, 0),
        (with_retry_3, faults.rate_limit(retry_after=3), errors.RateLimitError, 3, 6, 6),
        (program_4, faults.status(500), errors.InternalServerError, 8, 18, 24),
        (program_4, faults.status(401), errors.AuthenticationError, 1, 0, 0),
    ],
    ids=["500", "401", "400", "quota", "Retry-After 3", "program 4, 500", "program 4, 401"],
)
async def test_a_call_costs_so_many_requests_and_so_long_a_wait(sim, client, way, stack, fault, error, requests, least, most):
    sim.on("*", fault)
    results = await told(client, stack(client), way)
    assert [type(each.error).__name__ for each in results] == [error.__name__] * way.inputs
    assert sim.count() == requests * way.inputs
    for each in results:
        waited = sum(attempt.waited or 0 for attempt in each.attempts)
        assert least <= waited <= most


PROGRAM_COSTS = [
    (1, "first model down", 15),
    (1, "everything down", 15),
    (2, "first model down", 20),
    (2, "everything down", 35),
    (3, "first model down", 60),
    (3, "everything down", 60),
    (4, "first model down", 30),
    (4, "everything down", 40),
    (5, "first model down", 18),
    (5, "everything down", 24),
]


@pytest.mark.parametrize(("number", "scenario", "most"), PROGRAM_COSTS)
def test_a_program_of_the_document_sends_no_more_than_so_much(runs: dict[tuple[int, str], Run], number, scenario, most):
    requests = runs[number, scenario].requests
    assert requests is not None
    assert 0 < len(requests) <= most


@pytest.mark.parametrize(("failing", "alerts"), [(None, 2), (12, 3)], ids=["to the end", "and is well again"])
def test_program_3_with_seawalls_monitor_alerts_soon_and_seldom(sim, tmp_path, failing, alerts):
    text = PROGRAMS[2].path.read_text(encoding="utf-8")
    before, rest = text.split("# ===== 2. 创建监控类 =====")
    after = rest.split("# ===== 3. 创建带监控的LLM =====")[1]
    program = tmp_path / "program.py"
    program.write_text(f"{before}from seawall import MonitoringSystem\n{after}", encoding="utf-8")
    sim.on("*", faults.status(500), times=None if failing is None else failing * 3)
    run = "import runpy, sys; from seawall import testing; testing.no_waits().__enter__(); runpy.run_path(sys.argv[1])"
    ended = subprocess.run(
        [sys.executable, "-c", run, str(program)],
        env=environment(sim.base_url),
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    lines = [line for line in ended.stderr.splitlines() if "告警" in line or "请求失败" in line]
    told = [place for place, line in enumerate(lines) if "告警" in line]
    failed = 20 if failing is None else failing
    assert len(lines) - len(told) == failed
    assert sim.count() == failed * 3 + (20 - failed) <= 60
    assert 0 < len(told) <= alerts <= 3
    assert told[0] < 10, "the first alert comes before the tenth failed call"


def slow() -> list[tuple[str, faults.Fault]]:
    return [("hung", faults.hang()), ("dripping", faults.drip(0.5, 52)), ("silent", faults.stall(3, 0.2))]


@every_client
async def test_a_timeout_of_two_seconds_is_two_seconds(sim, client):
    for name, fault in slow():
        sim.on(name, fault)
    asked = [(name, way) for name, _ in slow() for way in WAYS]
    # All at once: they mostly wait.
    results = await asyncio.gather(*(told(client, client.model(name, timeout=2, max_retries=0), way) for name, way in asked))
    for (name, way), each in zip(asked, results, strict=True):
        for one in each:
            begun = way.streams and one.text
            expected = errors.StreamInterruptedError if begun else errors.APITimeoutError
            assert isinstance(one.error, expected), (name, way.name, one)
            assert isinstance(one.error.__cause__ if begun else one.error, TimeoutError)
            # A server that drips takes 26 s, the others for ever.
            attempt = one.attempts[0]
            assert 2 <= attempt.started + attempt.seconds < 10
    assert sim.count() == sum(way.inputs for _, way in asked)
    await asyncio.to_thread(sim.wait_aborted, sim.count())


@every_client
@pytest.mark.parametrize("raising", [False, True], ids=["return_exceptions", "raised"])
@pytest.mark.parametrize("asynchronous", [False, True], ids=["batch", "abatch"])
def test_in_a_batch_nobody_gets_anothers_answer(sim, client, asynchronous, raising):
    # One after the other: the first input's third request is answered, the second's never.
    sim.on(GPT_4, faults.status(500), after=3).on(GPT_4, faults.status(500), times=2)
    one_by_one = {"max_concurrency": 1} if client is Native else {"config": {"max_concurrency": 1}}
    model, how = client.model(GPT_4).with_retry(), {**one_by_one, "return_exceptions": not raising}

    def both() -> Any:
        return asyncio.run(model.abatch(["a", "b"], **how)) if asynchronous else model.batch(["a", "b"], **how)

    if raising:
        with pytest.raises(errors.InternalServerError) as raised:
            both()
        results = raised.value.results
    else:
        results = both()
    assert results[0].content.startswith(f"[{GPT_4}] a ")
    assert isinstance(results[1], errors.InternalServerError)
    assert sim.count() == 6


@pytest.mark.parametrize(
    ("client", "options"),
    [(Native, {}), (LangChain, {}), (LangChain, {"streaming": True})],
    ids=["Native", "LangChain", "LangChain, streaming"],
)
async def test_a_stream_that_was_cut_is_an_error(sim, client, options):
    sim.on(GPT_4, faults.cut(3, "clean"))
    model = client.model(GPT_4, max_retries=0, **options)
    for way in WAYS:
        results = await told(client, model, way)
        assert all(isinstance(each.error, errors.APIError) for each in results), way.name
        if options or way.streams:
            assert all(isinstance(each.error, errors.StreamInterruptedError) for each in results), way.name
    assert sim.count() == sum(way.inputs for way in WAYS)


@every_client
def test_a_second_event_loop_works_like_the_first(sim, client):
    model = client.model(GPT_4).with_retry()
    answers = [client.read(asyncio.run(model.ainvoke("hello"))).text for _ in range(3)]
    assert answers[0].startswith(f"[{GPT_4}] hello")
    assert answers == answers[:1] * 3
    assert sim.count() == 3
