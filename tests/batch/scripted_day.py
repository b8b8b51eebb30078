"""Ten thousand prompts through a bad day, killed five times: `python tests/batch/scripted_day.py` prints what it cost.

The day is scripted: outages of three kinds, storms of 429, slow spells, and errors here and there all day long. The batch runs in a process
of its own and is killed with SIGKILL at chosen counts; each is begun again with the same journal. What was asked is counted at the server.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from seawall import journal
from seawall.simulator import Simulator, faults

CONCURRENCY = 32
PROGRAM = """
import sys
from seawall.llm import Chat

base_url, path, count, concurrency = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
chat = Chat("m", api_key="sk-a-test-key", base_url=base_url).with_retry(stop_after_attempt=6, wait=0.05)
inputs = (f"question {n}" for n in range(count))
for at, reply in chat.batch_as_completed(inputs, max_concurrency=concurrency, journal=path, patience=60):
    assert f" question {at} " in reply.content, (at, reply)
    sys.stdout.write(f"{at}\\n")
    sys.stdout.flush()
"""


class Outcome(NamedTuple):
    """What a day came to."""

    prompts: int
    kills: int
    right: int
    requests: int
    failures: int
    twice: int
    seconds: float

    @property
    def least(self) -> int:
        """One request for each prompt, and the failures that the script dealt out."""
        return self.prompts + self.failures

    @property
    def excess(self) -> float:
        """How much more was asked than the least that is possible, as a share of it."""
        return self.requests / self.least - 1


def script(sim: Simulator, day: float) -> None:
    """A day that is so many seconds long."""

    def during(start: float, until: float) -> dict[str, float]:
        return {"start": start * day, "until": until * day}

    sim.on("m", faults.latency((0.005, 0.04)))
    sim.on("m", faults.status(500), probability=0.01)
    sim.on("m", faults.broken_json(), probability=0.005)
    for start, until in ((0.30, 0.34), (0.70, 0.74)):
        sim.on("m", faults.latency((0.1, 0.3)), **during(start, until))
    for start, until in ((0.10, 0.13), (0.50, 0.53), (0.85, 0.87)):
        sim.on("m", faults.rate_limit(retry_after_ms=150), **during(start, until))
    sim.outage("m", **during(0.20, 0.25))
    sim.outage("m", fault=faults.reset(), **during(0.42, 0.46))
    sim.outage("m", fault=faults.status(500), **during(0.60, 0.64))


def run(prompts: int, kills: Sequence[int], day: float, path: str) -> Outcome:
    """The day's course: the batch is killed when so many results have been reported."""
    began = time.monotonic()
    with Simulator(seed=11) as sim:
        script(sim, day)
        arguments = [sys.executable, "-c", PROGRAM, sim.base_url, path, str(prompts), str(CONCURRENCY)]
        for kill_at in [*kills, None]:
            seen: set[int] = set()
            with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
                assert process.stdout is not None
                for line in process.stdout:
                    # What it wrote when it was killed may be half a line.
                    if line.endswith("\n"):
                        seen.add(int(line))
                    if kill_at is not None and len(seen) == kill_at:
                        process.kill()
            assert (process.returncode == 0) == (kill_at is None), process.returncode
            with journal.open(path) as written:
                done = {at for at, _ in written.results()}
            # What was reported is there; what is there is reported by the next.
            assert seen <= done, sorted(seen - done)[:5]
        answered = Counter(asked(request) for request in sim.requests if request.status == 200 and request.fault != "broken json")
        failures = sum(request.status != 200 or request.fault == "broken json" for request in sim.requests)
        requests = sim.count()
    with journal.open(path) as written:
        right = sum(f" question {at} " in reply.content for at, reply in written.results())
    twice = sum(count - 1 for count in answered.values())
    return Outcome(prompts, len(kills), right, requests, failures, twice, time.monotonic() - began)


def asked(request: Any) -> str:
    """What a request asks."""
    text: str = request.body["messages"][0]["content"]
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=10_000)
    parser.add_argument("--day", type=float, default=30.0, help="seconds that the scripted day is long")
    parser.add_argument("--seed", type=int, default=3)
    given = parser.parse_args()
    # Each counts what it reports itself, and that begins with what is in the journal.
    kills = sorted(random.Random(given.seed).sample(range(given.prompts // 20, given.prompts), 5))
    with tempfile.TemporaryDirectory() as folder:
        found = run(given.prompts, kills, given.day, str(Path(folder, "run.db")))
    rows = {
        "prompts": found.prompts,
        "killed after": ", ".join(map(str, kills)),
        "right answers": found.right,
        "requests": found.requests,
        "failures dealt out": found.failures,
        "least possible": found.least,
        "more than that": f"{found.requests - found.least} ({found.excess:.2%})",
        "answered twice": f"{found.twice} (at most {len(kills) * CONCURRENCY} were under way at the kills)",
        "seconds": f"{found.seconds:.1f}",
    }
    for name, value in rows.items():
        sys.stdout.write(f"{name:<20} {value}\n")


if __name__ == "__main__":
    main()
