"""A self-healing agent: the first model, else the second, else the second with a simpler question, else an apology.

    python examples/native/2_self_healing_agent.py

A simulator is asked, whose first model is down; with LIVE=1 the real service, with your OPENAI_API_KEY.
"""

from __future__ import annotations

import seawall
from _service import service
from seawall import CircuitBreaker
from seawall.langchain import ChatOpenAI, SelfHealingAgent
from seawall.simulator import faults

QUESTIONS = (
    "What is LangChain?",
    "Explain an LCEL expression",
    "What is the Runnable protocol?",
    "Analyse the history of deep learning in detail",
    "What is Python?",
)


def main() -> None:
    # Each model has a breaker: once it is known to be down, the next question goes to the other at once.
    first = ChatOpenAI(model="gpt-4", circuit=CircuitBreaker(3, name="gpt-4"))
    second = ChatOpenAI(model="gpt-3.5-turbo", circuit=CircuitBreaker(2, name="gpt-3.5"))
    agent = SelfHealingAgent(
        primary=first.with_retry(stop_after_attempt=3, wait=0.1),
        fallback=second.with_retry(stop_after_attempt=2, wait=0.1),
        simplify="Answer briefly: {}",
        apology="Sorry, nobody can answer at the moment.",
    )
    for question in QUESTIONS:
        print(f"{question}\n   {agent.invoke(question)[:90]}")

    print("\nHow they were answered:")
    for way, count in agent.stats.items():
        print(f"   {way:16} {count}")
    if agent.last_error:
        print(f"\nThe last apology was for this:\n{seawall.explain(agent.last_error)}")
    print(f"\n{seawall.explain(seawall.circuits['gpt-4'])}")


if __name__ == "__main__":
    with service(lambda api: api.on("gpt-4", faults.status(503))):
        main()
