"""What a user is told of each mistake, as a listing: `messages.txt`. Each text says what was wrong, where, and what to do.

A line `>>> …` is what somebody writes, the lines below it the error or the warning that comes of it; `…` stands for what differs
from run to run. `python tests/test_messages.py` writes the texts anew: read each that changed as a newcomer would.
"""

from __future__ import annotations

import asyncio
import inspect
import re
import socket
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import seawall
import seawall.langchain
from seawall import guardrails, journal, sinks
from seawall.compat import circuitbreaker
from seawall.llm import Chat
from seawall.simulator import Simulator, faults

FILE = Path(__file__).with_name("messages.txt")
# What is no text for somebody who only uses it.
INNER = re.compile(
    r"__new__|__init__|PyO3|pyo3|panick|_seawall|object has no attribute|cannot be converted|object is not callable"
)


class Mistake(NamedTuple):
    """What somebody writes, and what they are told."""

    code: str
    said: str


def blocks() -> list[str]:
    """The listing's mistakes with what is said of them, its headings, and its empty lines."""
    return re.split(r"\n(?=>>> |\n|#)", FILE.read_text(encoding="utf-8"))


def mistakes() -> Iterator[Mistake]:
    for block in blocks():
        if block.startswith(">>> "):
            code, _, said = block.removeprefix(">>> ").partition("\n")
            yield Mistake(code, said.rstrip("\n"))


def plain(question: str = "") -> str:
    return question


async def asynchronous(question: str = "") -> str:
    return question


class Desk:
    """All names that the listing uses."""

    def __init__(self, folder: Path, key: str) -> None:
        self.simulator = Simulator(models=["m", "page"], api_keys=[key]).start().on("page", faults.html())
        with socket.create_server(("127.0.0.1", 0)) as closed:
            self.closed = f"http://127.0.0.1:{closed.getsockname()[1]}/v1"
        self.folder, self.key = folder, key

    def file(self, name: str, text: str) -> str:
        (self.folder / name).write_text(text, encoding="utf-8")
        return str(self.folder / name)

    def chat(self, model: str = "m", **options: Any) -> Chat:
        return Chat(model, **{"api_key": self.key, "base_url": self.simulator.base_url, "max_retries": 0, **options})

    def names(self) -> dict[str, Any]:
        import openai

        public = {name: getattr(seawall, name) for name in seawall.__all__}
        return {
            **public,
            "seawall": seawall,
            "guardrails": guardrails,
            "journal": journal,
            "sinks": sinks,
            "llm": seawall.llm,
            "Chat": Chat,
            "Embeddings": seawall.llm.Embeddings,
            "Simulator": Simulator,
            "faults": faults,
            "langchain": seawall.langchain,
            "ChatOpenAI": seawall.langchain.ChatOpenAI,
            "compat": circuitbreaker,
            "openai": openai,
            "client": lambda: openai.OpenAI(api_key=self.key, base_url=self.simulator.base_url),
            "plain": plain,
            "asynchronous": asynchronous,
            "nan": float("nan"),
            "KEY": self.key,
            "folder": str(self.folder),
            "server": self.simulator.base_url,
            "closed": self.closed,
            "chat": self.chat,
            "file": self.file,
        }

    def said(self, code: str) -> str:
        """What comes of it; empty if nothing does."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", UserWarning)
                # A listing of what users write: it is the file's own code.
                made = exec(code, self.names()) if "] = " in code else eval(code, self.names())
                if inspect.iscoroutine(made):
                    asyncio.run(made)
        except Exception as error:
            text = error.args[0] if isinstance(error, KeyError) else str(error)
            for place in (self.simulator.origin, str(self.folder)):
                text = text.replace(place, "…")
            return f"{type(error).__name__}: {re.sub(r'127.0.0.1:[0-9]+', '…', re.sub(r' at 0x[0-9a-f]+', '…', text))}"
        return ""


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    from _canary import CANARY  # not where the file is run by itself

    made = Desk(tmp_path_factory.mktemp("messages"), CANARY)
    with made.simulator:
        yield made


def is_like(said: str, listed: str) -> bool:
    return re.fullmatch(".*".join(map(re.escape, listed.split("…"))), said, re.DOTALL) is not None


@pytest.mark.parametrize("mistake", list(mistakes()), ids=lambda mistake: mistake.code[:60])
def test_what_is_said_of_a_mistake(mistake: Mistake, desk: Desk) -> None:
    said = desk.said(mistake.code)
    assert is_like(said, mistake.said), (
        f"now it says\n{said}\nIf that tells what was wrong, where, and what to do: python tests/test_messages.py"
    )
    assert not INNER.search(said), "that is no text for a user"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        at_hand = Desk(Path(folder), "sk-listed")
        known = {mistake.code: mistake.said for mistake in mistakes()}
        said = {code: at_hand.said(code) for code in known}
        at_hand.simulator.stop()
    new = {code: known[code] if known[code] and is_like(said[code], known[code]) else said[code] for code in known}
    listed = []
    for block in blocks():
        first = block.partition("\n")[0]
        listed.append(f"{first}\n{new[first[4:]]}" if first.startswith(">>> ") else block)
    FILE.write_text("\n".join(listed), encoding="utf-8")
