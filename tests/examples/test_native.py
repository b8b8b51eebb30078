"""The document's five jobs as one writes them with seawall: what they print, and what really reaches the server, well or ill."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from _programs import HERE, MODELS, environment
from seawall.simulator import Simulator, faults

PROGRAMS = sorted((HERE / "native").glob("[1-5]_*.py"))
GPT_4, GPT_3 = MODELS
OUTAGES = {
    "well": lambda sim: None,
    "first model down": lambda sim: sim.on(GPT_4, faults.status(503)),
    "no model answers": lambda sim: sim.on("*", faults.status(503), path="chat/completions"),
    "everything down": lambda sim: sim.on("*", faults.status(503)),
}
EMBEDDED = "by itself"


@dataclass(frozen=True)
class Ended:
    printed: str
    sent: list[str | None]
    times: list[float]


def run(number: int, outage: str) -> Ended:
    """One program: by itself, or as against the real service, which is a simulator of ours."""
    with Simulator(seed=0) as sim:
        where = {**environment(sim.base_url), "LIVE": "1"}
        if outage == EMBEDDED:
            where = {name: value for name, value in os.environ.items() if not name.startswith(("OPENAI_", "LIVE"))}
        else:
            OUTAGES[outage](sim)
        command = [sys.executable, "-X", "utf8", str(PROGRAMS[number - 1])]
        ended = subprocess.run(command, env=where, capture_output=True, encoding="utf-8", timeout=120, check=False)
        assert ended.returncode == 0, ended.stderr
        assert "Traceback" not in ended.stderr
        return Ended(ended.stdout, [seen.model for seen in sim.requests], [seen.time for seen in sim.requests])


@pytest.fixture(scope="module")
def ends() -> dict[tuple[int, str], Ended]:
    """All at once: they mostly wait."""
    pairs = sorted({case[:2] for case in (*SENT, *PRINTED)})
    with ThreadPoolExecutor(6) as pool:
        return dict(zip(pairs, pool.map(lambda pair: run(*pair), pairs), strict=True))


def test_each_is_short_enough_to_be_read_at_once():
    assert len(PROGRAMS) == 5
    assert all(len(program.read_text(encoding="utf-8").splitlines()) <= 60 for program in PROGRAMS)


# gpt-4, gpt-3.5-turbo, and embeddings: the fewest by which a call that can succeed does.
SENT = [
    (1, "well", 7, 0, 0),
    (1, "first model down", 5 + 1, 0, 0),  # five failures open the circuit; the last one is the probe
    (1, "everything down", 5 + 1, 0, 0),
    (2, "well", 5, 0, 0),
    (2, "everything down", 3, 2, 0),
    (3, "well", 45, 0, 0),
    (3, "everything down", 5 + 8, 0, 0),
    (4, "well", 5, 0, 6),  # the documents in one request, and each question
    (4, "no model answers", 5, 3, 6),
    (4, "everything down", 0, 0, 2),
    (5, "well", 5, 0, 0),
    (5, "first model down", 5, 5, 0),
    (5, "everything down", 5, 3, 0),
]


@pytest.mark.parametrize(("number", "outage", "first", "second", "embeddings"), SENT)
def test_no_request_is_sent_that_could_be_spared(ends, number, outage, first, second, embeddings):
    sent = ends[number, outage].sent
    assert (sent.count(GPT_4), sent.count(GPT_3)) == (first, second)
    assert len(sent) == first + second + embeddings


def test_an_open_circuit_is_probed_by_one_request_each_recovery_time(ends):
    times = ends[3, "everything down"].times
    assert all(later - earlier >= 1 for earlier, later in itertools.pairwise(times[4:]))


PRINTED = [
    (1, "well", ["What is Python?      [gpt-4] ", "has never been in another state"]),
    (1, EMBEDDED, ["ServiceUnavailable, requests: 2", "not asked", "a probe succeeded", "6 requests reached"]),
    (1, "everything down", ["not asked", "ServiceUnavailable, requests: 1", "a probe failed"]),
    (2, "well", ["primary_success  5", "fallback_used    0"]),
    (2, EMBEDDED, ["[gpt-3.5-turbo] What is Python?", "fallback_used    5", "3 failures in a row", "8 requests reached"]),
    (2, "everything down", ["Sorry, nobody can answer", "total_failures   5", "The call was refused by circuit"]),
    (3, "well", ["normal, 20 of the last 20 calls", "0 failed; they made 45 requests"]),
    (3, EMBEDDED, ["ALERT (critical): error rate", "ALERT escalated (emergency): total outage", "ALERT resolved", "40 requests"]),
    (3, "everything down", ["ALERT (emergency): total outage, 5 failures in a row", "of all 45 calls 45 failed"]),
    (4, "well", ["gpt-4, by request 1", "success_rate  100.00%"]),
    (4, EMBEDDED, ["gpt-3.5-turbo, by request 6", "gpt-3.5-turbo, by request 1", "LCEL is LangChain's", "16 requests"]),
    (4, "no model answers", ["no answer: ServiceUnavailable", "no answer: CircuitBreakerError", "failure_rate  100.00%"]),
    (4, "everything down", ["could not be embedded", "ServiceUnavailable 503"]),
    (5, "well", ["What is Rust?\n   [gpt-4] What is Rust?", "errors 0.00%"]),
    (5, EMBEDDED, ["waited 1.00 s", "MalformedResponseError", "after ContextWindow", "after QuotaExceeded", "class 'auth'"]),
    (5, "everything down", ["a failure of class 'transient'", "nobody was asked", "errors 100.00%"]),
]


@pytest.mark.parametrize(("number", "outage", "said"), PRINTED)
def test_what_is_printed_tells_what_happened(ends, number, outage, said):
    printed = ends[number, outage].printed
    for words in said:
        assert words in printed, printed


def test_an_alert_of_an_outage_comes_before_the_tenth_failed_call(ends):
    lines = ends[3, "everything down"].printed.splitlines()
    alert = next(place for place, line in enumerate(lines) if "ALERT" in line)
    assert sum("Error" in line or "Unavailable" in line for line in lines[:alert]) < 10
    assert 1 <= sum("ALERT" in line for line in lines) <= 3
