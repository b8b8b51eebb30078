"""A circuit breaker: stop asking a model that is down, and notice when it is back.

    python examples/native/1_circuit_breaker.py

A simulator is asked, which is down for five requests; with LIVE=1 the real service, with your OPENAI_API_KEY.
"""

from __future__ import annotations

import time

import seawall
from _service import service
from seawall.errors import APIError
from seawall.llm import Chat
from seawall.simulator import faults

LANGUAGES = ("Python", "JavaScript", "Go", "Rust", "Java", "C++", "C#")


def ask(chat: Chat, question: str) -> None:
    try:
        print(f"{question:20} {chat.invoke(question).content[:60]}")
    except seawall.CircuitBreakerError as refusal:
        print(f"{question:20} not asked, the circuit is open: next try in {refusal.retry_after:.1f} s")
    except APIError as error:
        print(f"{question:20} {type(error).__name__}, requests: {len(error.attempts)}")


def main() -> None:
    # Inside the retries it counts attempts, so it opens in the middle of a call. 60 s is usual; 1 s can be waited for here.
    breaker = seawall.CircuitBreaker(failure_threshold=5, recovery_timeout=1, name="gpt-4")
    chat = Chat("gpt-4", circuit=breaker).with_retry(stop_after_attempt=3, wait=0.1)

    for language in LANGUAGES:
        ask(chat, f"What is {language}?")
    print(f"\n{seawall.explain(breaker)}")

    if breaker.state == "open":
        time.sleep(breaker.metrics().retry_after or 0)
        print("\nA while later one request probes it:")
        ask(chat, "What is Zig?")
        print(seawall.explain(breaker))


if __name__ == "__main__":
    with service(lambda api: api.on("gpt-4", faults.status(503), times=5)):
        main()
