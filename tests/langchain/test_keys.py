"""Keys of LangChain's models: from a file, and in no pickle."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from langchain_core.load import dumps

from seawall.errors import ConfigurationError
from seawall.langchain import ChatOpenAI, OpenAIEmbeddings
from seawall.simulator import Simulator

KEY = "sk-a-key-that-is-not-to-be-seen"
ELSEWHERE = """
import pickle, sys
try:
    model = pickle.load(sys.stdin.buffer)
    print(model.invoke("x").content if hasattr(model, "invoke") else len(model.embed_query("x")))
except Exception as error:
    print(type(error).__name__, error)
"""


def loaded_elsewhere(pickled: bytes, **environment: str) -> str:
    """What another process says that loads it and asks."""
    done = subprocess.run([sys.executable, "-c", ELSEWHERE], input=pickled, capture_output=True, timeout=120, env=environment)
    assert not done.stderr, done.stderr.decode()
    return done.stdout.decode()


@pytest.fixture
def guarded():
    """A server that knows one key."""
    with Simulator(api_keys=[KEY]) as sim:
        yield sim


def secret_places(sim: Simulator) -> list[dict[str, object]]:
    return [
        {"api_key": KEY},
        {"api_key": "k", "default_headers": {"authorization": f"Bearer {KEY}"}},
        {"api_key": KEY, "default_query": {"key": KEY}},
        {"api_key": KEY, "openai_proxy": f"http://me:{KEY}@127.0.0.1:1", "base_url": "http://api.invalid"},
        {"api_key": KEY, "base_url": f"{sim.base_url}?token={KEY}"},
    ]


@pytest.mark.parametrize("kind", [ChatOpenAI, OpenAIEmbeddings])
@pytest.mark.parametrize("place", range(5))
def test_no_pickle_holds_a_secret_and_it_is_found_again_in_this_process_alone(guarded, kind, place) -> None:
    given = {"model": "m", "base_url": guarded.base_url, **secret_places(guarded)[place]}
    model = kind(**given).with_retry(stop_after_attempt=2)
    pickled = pickle.dumps(model)
    assert KEY.encode() not in pickled and repr(model.openai_api_key).encode() not in pickled
    again = pickle.loads(pickled)
    assert again.openai_api_key == model.openai_api_key and again.default_headers == model.default_headers
    assert KEY.encode() not in pickle.dumps(again)
    assert KEY not in dumps(model) + repr(model)
    if place not in (0, 1) or kind is OpenAIEmbeddings:
        return  # a process takes its time
    said = loaded_elsewhere(pickled, OPENAI_API_KEY="sk-of-somebody-else")
    assert said.startswith("ConfigurationError") and "pickled without its secret" in said
    # Nor did that other key go anywhere.
    assert guarded.count() == 0


def test_a_key_of_the_environment_is_the_environments_of_whoever_loads_it(guarded, monkeypatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    pickled = pickle.dumps(ChatOpenAI(model="m", base_url=guarded.base_url))
    assert KEY.encode() not in pickled
    assert loaded_elsewhere(pickled, OPENAI_API_KEY=KEY).startswith("[m]")
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(ConfigurationError, match="set OPENAI_API_KEY here too"):
        pickle.loads(pickled)


def test_a_key_in_a_file_travels_as_its_path(guarded, monkeypatch, tmp_path) -> None:
    path = tmp_path / "key"
    path.touch(mode=0o600)
    path.write_text(KEY)
    for model in (ChatOpenAI(model="m", api_key=path, base_url=guarded.base_url), _of_environment(monkeypatch, path, guarded)):
        assert "key" not in repr(model.openai_api_key).replace(str(path), "")
        pickled = pickle.dumps(model)
        assert KEY.encode() not in pickled
        assert pickle.loads(pickled).invoke("x").content.startswith("[m]")
        assert loaded_elsewhere(pickled).startswith("[m]")


def _of_environment(monkeypatch: pytest.MonkeyPatch, path: Path, sim: Simulator) -> ChatOpenAI:
    monkeypatch.setenv("OPENAI_API_KEY_FILE", str(path))
    return ChatOpenAI(model="m", base_url=sim.base_url)


async def test_an_async_key_function_serves_all_ways(guarded) -> None:
    async def key() -> str:
        return KEY

    model = ChatOpenAI(model="m", api_key=key, base_url=guarded.base_url)
    assert (await model.ainvoke("x")).content.startswith("[m]")
    assert [piece async for piece in model.astream("x")]
