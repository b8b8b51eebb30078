"""Monitoring: rates, latencies and costs of the last calls, and one alert when an incident begins, changes and ends.

    python examples/native/3_monitoring.py

A simulator is asked, which fails for a while; with LIVE=1 the real service, with your OPENAI_API_KEY.
"""

from __future__ import annotations

import logging
import sys
import time

from _service import service
from seawall import CircuitBreaker, Monitor, Rejected, Rule
from seawall.errors import APIError
from seawall.llm import Chat
from seawall.simulator import faults

LANGUAGES = ("Python", "JavaScript", "Go", "Rust", "Java")


def main() -> None:
    # Alerts are lines of the log; `sinks=` sends them to Slack, Feishu, a webhook, too.
    logging.basicConfig(level=logging.INFO, format="   %(levelname)-8s%(message)s", stream=sys.stdout)
    logging.getLogger("seawall").setLevel(logging.WARNING)
    logging.getLogger("seawall.monitor").setLevel(logging.INFO)

    # The limits of error rate, retry rate and mean latency are there already; this is one more.
    monitor = Monitor(window=20, name="answers", rules=[Rule("p95", warning=8, critical=20)])
    breaker = CircuitBreaker(failure_threshold=5, recovery_timeout=1, name="gpt-4")
    chat = Chat("gpt-4", monitor=monitor, circuit=breaker).with_retry(stop_after_attempt=3, wait=0.1)

    for number in range(45):
        try:
            chat.invoke(f"What is {LANGUAGES[number % 5]}?")
        except (APIError, Rejected) as error:
            print(f"{number + 1:3} {type(error).__name__}")
        if number % 5 == 4 and breaker.state == "open":  # what comes in fives comes again when it makes sense
            time.sleep(breaker.metrics().retry_after or 0)

    now = monitor.snapshot()
    print(f"\n{monitor}")
    print(f"   tokens {now['tokens']}, cost ${now['cost']:.3f}, models {', '.join(monitor.by('model'))}")
    print("   of all {total} calls {errors} failed; they made {attempts} requests".format(**now["lifetime"]))


if __name__ == "__main__":
    with service(lambda api: api.on("gpt-4", faults.status(503), after=8, times=7)):
        main()
