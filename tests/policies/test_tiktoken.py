"""Tokens counted with tiktoken: by an encoding made by hand, since tables are downloaded, and by a name under which tiktoken has it."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import tiktoken
import tiktoken.registry
from _canary import CANARY
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_core.prompt_values import ChatPromptValue

import seawall
from seawall import Pipeline, RateLimit
from seawall.errors import ConfigurationError, ConfigurationTypeError, GuardrailError
from seawall.guardrails import Guardrails, MaxTokens
from seawall.llm import Chat
from seawall.simulator import Simulator

# A token for each byte, and for "user", "assistant", "system", and what looks like one that is special.
WORDS = [b"us", b"er", b"user", b"sy", b"st", b"em", b"syst", b"system"]
TABLE = {**{bytes([n]): n for n in range(256)}, **{word: 256 + n for n, word in enumerate(WORDS)}}


def tiny(name: str = "tiny") -> dict[str, Any]:
    return {"name": name, "pat_str": r"[a-z]+|[^a-z]+", "mergeable_ranks": TABLE, "special_tokens": {"<|end|>": 1000}}


@pytest.fixture
def encoding() -> tiktoken.Encoding:
    return tiktoken.Encoding(**tiny())


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """tiktoken knows encodings under the names `tiny` and `away`; the table of the latter cannot be downloaded."""

    def away() -> dict[str, Any]:
        raise requests.ConnectionError("no such host")

    tiktoken.list_encoding_names()  # it looks for those that are installed once
    constructors = {**(tiktoken.registry.ENCODING_CONSTRUCTORS or {}), "tiny": tiny, "away": away}
    monkeypatch.setattr(tiktoken.registry, "ENCODING_CONSTRUCTORS", constructors)
    monkeypatch.setattr(tiktoken.registry, "ENCODINGS", {})
    yield


def counted(estimate: Any, *args: Any, **kwargs: Any) -> int:
    """What a call takes of a limit."""
    limit = RateLimit(tokens=100_000, per=864_000, burst=100_000, estimate=estimate, settle=False)
    Pipeline(limit).call(lambda *args, **kwargs: None, *args, **kwargs)
    return 100_000 - (limit.available[1] or 0)


USER = {"role": "user", "content": "12345"}


@pytest.mark.parametrize(
    ("args", "kwargs", "tokens"),
    [
        (("12345",), {}, 5),
        (("user",), {}, 1),
        (("äöü",), {}, 6),
        # What looks like a special token is text in a prompt.
        (("<|end|>",), {}, 7),
        # Three a message, and three that begin the answer.
        (([USER],), {}, 3 + 1 + 5 + 3),
        (([{"role": "system", "content": "ab"}, USER],), {}, 3 + 1 + 2 + 3 + 1 + 5 + 3),
        (([{**USER, "name": "abc"}],), {}, 3 + 1 + 5 + 3 + 1 + 3),
        (([{"role": "user", "content": [{"type": "text", "text": "123"}]}],), {}, 3 + 1 + 4 + 3 + 3),
        (([HumanMessage("12345")],), {}, 3 + 1 + 5 + 3),
        ((ChatPromptValue(messages=[SystemMessage("ab"), HumanMessage("12345")]),), {}, 3 + 1 + 2 + 3 + 1 + 5 + 3),
        ((), {"messages": [USER], "model": "gpt-4o"}, 12),
        ((), {"messages": [USER], "max_completion_tokens": 100, "n": 2}, 212),
        (("1234",), {"max_tokens": 100}, 104),
        (([{"image_url": {"url": "data:image/png;base64," + "A" * 100_000}}],), {}, 1000),
        (("1", 5, None, object()), {}, 1),
    ],
)
def test_what_a_call_may_use(encoding: tiktoken.Encoding, args: tuple[Any, ...], kwargs: dict[str, Any], tokens: int) -> None:
    assert counted(encoding, *args, **kwargs) == tokens


def test_a_models_requests_are_counted_so(sim: Simulator, encoding: tiktoken.Encoding) -> None:
    limit = RateLimit(tokens=100_000, per=864_000, burst=100_000, estimate=encoding, settle=False)
    chat = Chat("m", api_key=CANARY, base_url=sim.base_url, rate_limit=limit)
    chat.invoke("12345", max_tokens=50)
    assert limit.available == (None, 100_000 - 12 - 50)


def test_a_name_that_tiktoken_knows_is_one(known: None) -> None:
    limit = RateLimit(tokens=1_000_000, estimate="tiny")
    assert counted("tiny", "12345") == 5
    assert MaxTokens(4, count="tiny").name == "max_tokens"
    assert pickle.loads(pickle.dumps(limit)) is limit


@pytest.mark.parametrize("make", [lambda given: RateLimit(tokens=100, estimate=given), lambda given: MaxTokens(5, count=given)])
def test_what_cannot_be_had_is_told_when_it_is_written(known: None, make: Any) -> None:
    for given, error, said in (
        (
            "away",
            ConfigurationError,
            r"the encoding 'away' cannot be loaded \(ConnectionError: no such host\).*TIKTOKEN_CACHE_DIR",
        ),
        ("nope", ConfigurationError, "tiktoken has no encoding 'nope'; it has away, "),
        ("gpt-4o", ConfigurationError, "that is a model: its encoding is 'o200k_base'"),
        (5, ConfigurationTypeError, "must be a function, a tiktoken.Encoding or the name of one"),
    ):
        with pytest.raises(error, match=said):
            make(given)


def test_without_tiktoken_it_says_what_to_install() -> None:
    program = (
        "import sys; sys.modules['tiktoken'] = None\n"
        "from seawall import RateLimit\n"
        "from seawall.errors import ConfigurationError\n"
        "try: RateLimit(tokens=5, estimate='o200k_base')\n"
        "except ConfigurationError as error: print(error)\n"
        "RateLimit(tokens=5, estimate=len)"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert told.stdout == (
        "estimate='o200k_base' needs tiktoken: pip install 'seawall[tiktoken]', or give a function that counts\n"
    )


def test_nothing_of_it_is_loaded_unless_it_is_asked_for() -> None:
    program = "import sys; from seawall import RateLimit; RateLimit(tokens=5); assert 'tiktoken' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_guardrails_count_texts_with_it(encoding: tiktoken.Encoding) -> None:
    @seawall.guard(guardrails=Guardrails(input=[MaxTokens(5, count=encoding)]))
    def ask(prompt: str) -> str:
        return prompt

    assert ask("user1234") == "user1234"
    with pytest.raises(GuardrailError, match="more than 5 tokens"):
        ask("user12345")
    assert "tiny" in repr(MaxTokens(5, count=encoding))


def test_a_configuration_file_has_its_name(known: None, tmp_path: Any) -> None:
    file = tmp_path / "seawall.toml"
    file.write_text(
        "[rate_limits.shared]\ntokens = 1000\nestimate = 'tiny'\nkey = 'model'\nmax_keys = 7\n"
        "[guardrails.short]\nmax_input_tokens = 5\ncount = 'tiny'\n"
    )
    made = seawall.load(file)
    limit = made.rate_limits["shared"]
    assert (limit.key, limit.max_keys) == ("model", 7)
    ask = seawall.guard(guardrails=made.guardrails["short"])(str)
    assert ask("user1234") == "user1234"
    with pytest.raises(GuardrailError):
        ask("user12345")
    file.write_text("[rate_limits.shared]\ntokens = 1000\nestimate = 'away'\n")
    with pytest.raises(ConfigurationError, match=r"seawall\.toml.*\n?.*cannot be loaded"):
        seawall.load(file)
