"""Keys from files and functions: when they are asked, when again, and that a key goes to its own server alone."""

from __future__ import annotations

import asyncio
import functools
import os
import threading
import warnings
from pathlib import Path

import pytest

from seawall import errors
from seawall.llm import Chat, Embeddings
from seawall.simulator import Simulator, faults

OLD, NEW = "sk-the-old-key-0123456789", "sk-the-new-key-0123456789"


@pytest.fixture
def key_file(tmp_path) -> Path:
    path = tmp_path / "key"
    path.touch(mode=0o600)
    path.write_text(f"{OLD}\n")
    return path


def asked_with(sim: Simulator) -> list[str]:
    """Which status each request had."""
    return [str(request.status) for request in sim.requests]


# --- files


def test_a_key_is_read_from_a_file_and_again_when_that_is_written(key_file) -> None:
    with Simulator(api_keys=[OLD]) as old, Simulator(api_keys=[NEW]) as new:
        first, second = (Chat("m", api_key=key_file, base_url=sim.base_url) for sim in (old, new))
        assert first.invoke("x").attempts == 1
        key_file.write_text(f"{NEW} and more".replace(" and more", ""))
        assert second.invoke("x").attempts == 1
        assert Embeddings("m", api_key=key_file, base_url=new.base_url).invoke("x").attempts == 1


def test_a_file_that_looks_the_same_is_read_again_when_its_key_was_refused(key_file) -> None:
    dated = key_file.stat().st_mtime_ns
    with Simulator(api_keys=[NEW]) as sim:
        chat = Chat("m", api_key=key_file, base_url=sim.base_url)
        key_file.write_text(f"{NEW}\n")
        os.utime(key_file, ns=(dated, dated))
        reply = chat.invoke("x")
        assert reply.attempts == 2
        assert [request.status for request in sim.requests] == [401, 200]


def test_a_key_that_is_refused_and_is_the_only_one_costs_no_second_request(key_file) -> None:
    with Simulator(api_keys=[NEW]) as sim:
        with pytest.raises(errors.AuthenticationError) as raised:
            Chat("m", api_key=key_file, base_url=sim.base_url).invoke("x")
        assert raised.value.status_code == 401 and sim.count() == 1


def test_the_environment_names_a_file_as_container_platforms_do(key_file, monkeypatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY_FILE", str(key_file))
    with Simulator(api_keys=[OLD]) as sim:
        assert Chat("m", base_url=sim.base_url).invoke("x").attempts == 1
        monkeypatch.setenv("OPENAI_API_KEY", NEW)  # that one wins
        with pytest.raises(errors.AuthenticationError):
            Chat("m", base_url=sim.base_url).invoke("x")


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "cannot be read"), ("", "is empty"), ("two keys\n", "position 3"), ("k" * 70_000, "longer than 64 KB")],
    ids=["missing", "empty", "two", "long"],
)
def test_a_file_without_a_key_is_refused_when_the_model_is_made(key_file, content, words) -> None:
    key_file.unlink() if content is None else key_file.write_text(content)
    with pytest.raises(errors.ConfigurationError, match=words) as raised:
        Chat("m", api_key=key_file)
    assert str(key_file) in str(raised.value)


def test_a_file_that_everybody_may_read_is_warned_of_once_per_place(key_file, monkeypatch) -> None:
    key_file.chmod(0o644)
    with pytest.warns(UserWarning, match="chmod 600") as said:
        Chat("m", api_key=key_file)
    assert said[0].filename == __file__
    # Where container platforms put secrets, nobody else is.
    monkeypatch.setattr("seawall._keys._MOUNTED", (f"{key_file.parent}/",))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Chat("m", api_key=key_file)


# --- functions


class Vault:
    """Gives the old key until the new one is asked for so many times."""

    def __init__(self, *keys: str) -> None:
        self.keys, self.asked = list(keys), 0

    def __call__(self) -> str:
        self.asked += 1
        return self.keys.pop(0) if len(self.keys) > 1 else self.keys[0]


WAYS = [
    lambda model: model.invoke("x"),
    lambda model: list(model.stream("x")),
    lambda model: asyncio.run(model.ainvoke("x")),
    lambda model: model.batch(["x"])[0],
]


@pytest.mark.parametrize("way", WAYS, ids=["invoke", "stream", "ainvoke", "batch"])
@pytest.mark.parametrize("retried", [False, True], ids=["plain", "predicate"])
def test_a_function_is_asked_again_once_after_a_401_and_the_next_attempt_has_that_key(way, retried) -> None:
    vault = Vault(OLD, NEW, "sk-never-to-be-asked-for")
    with Simulator(api_keys=[NEW]) as sim:
        chat = Chat("m", api_key=vault, base_url=sim.base_url)
        if retried:  # the user's own word on what to retry is about other failures
            chat = chat.with_retry(retry_if_exception_type=lambda error: False)
        way(chat)
        assert [request.status for request in sim.requests] == [401, 200]
        assert vault.asked == 2


def test_one_call_asks_for_another_key_once_and_within_its_attempts() -> None:
    with Simulator(api_keys=["sk-nobody-has-this-one"]) as sim:
        vault = Vault(OLD, NEW, OLD, NEW)
        with pytest.raises(errors.AuthenticationError) as raised:
            Chat("m", api_key=vault, base_url=sim.base_url).with_retry(stop_after_attempt=5, wait=0).invoke("x")
        assert raised.value.attempts == 2 and sim.count() == 2 and vault.asked == 2
        vault = Vault(OLD, NEW)
        with pytest.raises(errors.AuthenticationError):
            Chat("m", api_key=vault, base_url=sim.base_url, max_retries=0).invoke("x")
        assert sim.count() == 3


def test_a_function_that_fails_when_it_is_asked_again_leaves_the_servers_answer() -> None:
    vault = Vault(OLD)

    def key() -> str:
        if vault.asked:
            raise RuntimeError("the vault is shut")
        return vault()

    with Simulator(api_keys=[NEW]) as sim, pytest.raises(errors.AuthenticationError) as raised:
        Chat("m", api_key=key, base_url=sim.base_url).invoke("x")
    assert raised.value.status_code == 401


def test_calls_at_once_wait_for_one_answer() -> None:
    begun, go_on = threading.Event(), threading.Event()
    asked = 0

    def key() -> str:
        nonlocal asked
        asked += 1
        begun.set()
        go_on.wait(30)
        return NEW

    with Simulator(api_keys=[NEW]) as sim:
        chat = Chat("m", api_key=key, base_url=sim.base_url)

        async def all_at_once() -> None:
            calls = [asyncio.ensure_future(chat.ainvoke(f"{each}")) for each in range(20)]
            await asyncio.to_thread(begun.wait, 30)
            # A call behind those that wait has its turn after them: it is not the function that it waits for.
            await Chat("m", api_key=NEW, base_url=sim.base_url).ainvoke("last")
            go_on.set()
            await asyncio.gather(*calls)

        asyncio.run(all_at_once())
        assert asked == 1 and sim.count() == 21


def test_a_hundred_refusals_at_once_ask_for_another_key_a_few_times() -> None:
    lock, asked, current = threading.Lock(), [0], [OLD]

    def key() -> str:
        with lock:
            asked[0] += 1
        return current[0]

    with Simulator(api_keys=[NEW]) as sim:
        chat = Chat("m", api_key=key, base_url=sim.base_url, max_retries=1)

        async def all_at_once() -> list[object]:
            with pytest.raises(errors.AuthenticationError):
                await chat.ainvoke("before")
            current[0] = NEW
            return await asyncio.gather(*(chat.ainvoke(f"{each}") for each in range(100)))

        assert len(asyncio.run(all_at_once())) == 100


def test_an_async_function_gives_keys_to_every_way_of_asking() -> None:
    loops = set()

    async def key() -> str:
        await asyncio.sleep(0)
        loops.add(asyncio.get_running_loop())
        return NEW

    with Simulator(api_keys=[NEW]) as sim:
        for given in (key, functools.partial(key), lambda: key()):
            chat = Chat("m", api_key=given, base_url=sim.base_url)
            for way in WAYS:
                way(chat)
    assert len(loops) == 1


def test_an_async_function_that_fails_is_the_cause() -> None:
    async def key() -> str:
        raise RuntimeError("the vault is shut")

    with Simulator() as sim, pytest.raises(errors.AuthenticationError, match="raised RuntimeError") as raised:
        Chat("m", api_key=key, base_url=sim.base_url).invoke("x")
    assert isinstance(raised.value.__cause__, RuntimeError)


# --- whom a key is sent to


@pytest.mark.parametrize(
    "status", ["301 Moved Permanently", "302 Found", "303 See Other", "307 Temporary Redirect", "308 Permanent Redirect"]
)
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_no_redirect_takes_a_key_to_another_server(raw, status, host) -> None:
    elsewhere = raw(raw.answer("{}"))
    location = f"http://{host}:{elsewhere.port}/v1/chat/completions"
    here = raw(raw.answer("{}", status=status, headers=f"location: {location}\r\n"))
    headers = {"x-api-key": NEW, "authorization": f"Bearer {NEW}", "x-mine": NEW}
    for options in ({"api_key": NEW}, {"api_key": lambda: NEW}, {"api_key": "k", "default_headers": headers}):
        chat = Chat("m", base_url=f"{here.base_url}?key={NEW}", max_retries=0, **options)
        for way in WAYS:
            with pytest.raises(errors.APIError) as raised:
                way(chat)
            assert NEW not in str(raised.value)
        with pytest.raises(errors.APIError):
            chat.invoke("x", extra_headers={"authorization": NEW}, extra_query={"token": NEW})
    assert here.requests and not elsewhere.requests


def test_a_redirect_within_the_server_keeps_the_key(raw) -> None:
    body = '{"choices": [{"message": {"content": "there"}, "finish_reason": "stop"}]}'
    server = raw(raw.answer("", status="307 Temporary Redirect", headers="location: /v2/chat\r\n"), raw.answer(body))
    assert Chat("m", api_key=NEW, base_url=server.base_url).invoke("x").content == "there"
    assert [request.headers["authorization"] for request in server.requests] == [f"Bearer {NEW}"] * 2


def test_an_alternative_elsewhere_has_its_own_key_and_no_other(raw) -> None:
    body = '{"choices": [{"message": {"content": "there"}, "finish_reason": "stop"}]}'
    first, second = raw(raw.answer("{}", status="503 Service Unavailable")), raw(raw.answer(body))
    other = Chat("o", api_key=OLD, base_url=second.base_url)
    chat = Chat("m", api_key=lambda: NEW, base_url=first.base_url, max_retries=0).with_fallbacks([other])
    assert chat.invoke("x", extra_headers={"x-api-key": NEW}, extra_query={"key": NEW}).content == "there"
    (asked,) = second.requests
    assert NEW not in repr(asked) and asked.headers["authorization"] == f"Bearer {OLD}"


def test_a_refused_key_is_no_evidence_for_a_breaker_and_is_told() -> None:
    vault = Vault(OLD, NEW)
    with Simulator(api_keys=[NEW]) as sim:
        reply = Chat("m", api_key=vault, base_url=sim.base_url).invoke("x")
        assert [attempt.status for attempt in reply.story if getattr(attempt, "status", None)] or reply.attempts == 2
        assert OLD not in repr(reply.story) and NEW not in repr(reply.story)
        sim.on("m", faults.status(200, body={"choices": []}))
