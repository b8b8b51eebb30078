"""An error-handling template: the house's settings in one file, and each class of failure handled as it deserves.

    python examples/native/5_error_handling_template.py

A simulator is asked, which fails in five ways; with LIVE=1 the real service, with your OPENAI_API_KEY.
"""

from __future__ import annotations

from pathlib import Path

import seawall
from _service import service
from seawall.errors import APIError
from seawall.simulator import Simulator, faults

SETTINGS = Path(__file__).with_name("5_production.toml")
QUESTIONS = ("Hello", "What is Python?", "What is JavaScript?", "What is Go?", "What is Rust?")


def main() -> None:
    config = seawall.load(SETTINGS)
    chat = config.models["main"]
    for question in QUESTIONS:
        print(f"\n{question}")
        try:
            reply = chat.invoke(question)
            print(f"   {reply.content[:60]}")
            if len(reply.attempts) == 1:
                continue
            told = seawall.explain(reply)
        except seawall.Rejected as refusal:
            print("   nobody was asked: all circuits are open")
            told = seawall.explain(refusal)
        except APIError as error:
            print(f"   no answer: {type(error).__name__}, a failure of class {seawall.classify(error)!r}")
            told = seawall.explain(error)
        print("   " + str(told).replace("\n", "\n   "))

    print(f"\n{config.monitors['main']}")


# Which of gpt-4's requests meets what.
TROUBLE = {
    0: faults.rate_limit(retry_after=1),
    2: faults.broken_json(),
    4: faults.context_window(),
    5: faults.quota(),
    6: faults.status(401),
}


def trouble(api: Simulator) -> None:
    for after, fault in TROUBLE.items():
        api.on("gpt-4", fault, after=after, times=1)


if __name__ == "__main__":
    with service(trouble):
        main()
