"""RateLimit with a budget for each key: whose it is, in functions and in models, and what is forgotten."""

from __future__ import annotations

import asyncio
import copy
import pickle
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from _canary import CANARY

from seawall import Pipeline, RateLimit, guard, testing
from seawall.errors import ConfigurationError, ConfigurationTypeError, InternalServerError, RateLimitError, RateLimitExceededError
from seawall.llm import Chat, Embeddings
from seawall.simulator import Simulator, faults


def test_each_tenant_waits_in_a_line_of_its_own(seawall_clock: testing.clock) -> None:
    limit = RateLimit(60, per=60, burst=1, key="tenant")
    went: list[tuple[str, int, float]] = []

    @guard(rate_limit=limit)
    async def ask(n: int, tenant: str) -> None:
        went.append((tenant, n, round(seawall_clock.now - before, 2)))

    async def main() -> None:
        await asyncio.gather(*(ask(n, "acme") for n in range(3)), ask(3, tenant="umbrella"))

    before = seawall_clock.now
    asyncio.run(main())
    assert sorted(went) == [("acme", 0, 0.0), ("acme", 1, 1.02), ("acme", 2, 2.04), ("umbrella", 3, 0.0)]
    assert limit.known_keys == ["acme", "umbrella"]
    assert (limit.of("acme").available, limit.of("umbrella").available, limit.of("new").available) == (
        (0, None),
        (1, None),
        (1, None),
    )


class Service:
    def __init__(self, limit: RateLimit) -> None:
        self.ask = guard(rate_limit=limit)(self.ask)

    def ask(self, prompt: str, tenant: int | None = None) -> str:
        return prompt


def by_keyword(prompt: str, **more: Any) -> str:
    return prompt


def items(prompt: str, tenant: str = "usual") -> Iterator[str]:
    yield prompt


@pytest.mark.parametrize(
    ("key", "call", "found"),
    [
        ("tenant", lambda guarded: guarded(by_keyword)("p", tenant="a"), "a"),
        ("tenant", lambda guarded: guarded(by_keyword)("p"), ""),
        ("tenant", lambda guarded: list(guarded(items)("p")), "usual"),
        ("tenant", lambda guarded: list(guarded(items)("p", "a")), "a"),
        (lambda prompt, tenant="x": f"{tenant}!", lambda guarded: list(guarded(items)("p")), "x!"),
        (lambda *args, **kwargs: 7, lambda guarded: guarded(by_keyword)("p"), "7"),
        (lambda *args, **kwargs: None, lambda guarded: guarded(by_keyword)("p"), ""),
    ],
)
def test_how_a_key_is_found(key: Any, call: Any, found: str) -> None:
    limit = RateLimit(60, key=key)
    call(guard(rate_limit=limit))
    assert limit.known_keys == [found]


def test_methods_have_the_keys_of_their_arguments() -> None:
    limit = RateLimit(60, key="tenant")
    service = Service(limit)
    service.ask("p", 5)
    service.ask("p", tenant=6)
    service.ask("p")
    assert limit.known_keys == ["", "5", "6"]


def test_tokens_are_settled_and_servers_believed_key_by_key(seawall_clock: testing.clock) -> None:
    limit = RateLimit(requests=600, tokens=60_000, burst=100, key="model", settle=lambda answer: 900)

    class Limited(RateLimitError):
        pass

    @guard(rate_limit=limit, retry=None)
    def ask(text: str, model: str) -> str:
        if model == "c":
            raise Limited("enough", headers={"x-ratelimit-remaining-requests": "3", "retry-after": "7"})
        return text

    ask("x" * 400, "a")
    with pytest.raises(Limited):
        ask("x" * 400, "c")
    assert limit.of("a").available[1] == limit.of("b").available[1] - 900
    assert limit.of("a").paused is None and limit.of("b").paused is None
    assert limit.of("c").paused == pytest.approx(7) == limit.paused


def test_what_a_failure_says_is_left_is_left_of_its_key(seawall_clock: testing.clock) -> None:
    limit = RateLimit(requests=600, burst=100, key="model")

    @guard(rate_limit=limit, retry=None)
    def ask(model: str) -> str:
        raise InternalServerError("broken", headers={"x-ratelimit-remaining-requests": "3"})

    with pytest.raises(InternalServerError):
        ask("a")
    assert (limit.of("a").available, limit.of("b").available, limit.available) == ((3, None), (100, None), (100, None))


def test_who_cannot_make_it_is_turned_away_by_his_own_line(seawall_clock: testing.clock) -> None:
    limit = RateLimit(60, burst=1, max_queue=0, key="tenant", name="shared")
    ask = Pipeline(limit)(by_keyword)
    ask("p", tenant="a")
    with pytest.raises(RateLimitExceededError, match="shared") as refused:
        ask("p", tenant="a")
    assert refused.value.retry_after == pytest.approx(1.02, abs=0.01)
    assert ask("p", tenant="b") == "p"


def test_what_is_used_up_is_remembered_and_the_rest_forgotten(seawall_clock: testing.clock) -> None:
    limit = RateLimit(60, burst=1, max_wait=0, key="tenant", max_keys=10)
    ask = Pipeline(limit)(by_keyword)
    for n in range(1000):
        ask("p", tenant=str(n))
        seawall_clock.advance(0.5)
    assert len(limit.known_keys) <= 10
    with pytest.raises(RateLimitExceededError):
        ask("p", tenant="999")


def test_a_models_requests_have_keys_too(sim: Simulator) -> None:
    def chat(model: str, limit: RateLimit, **more: Any) -> Chat:
        return Chat(model, api_key=CANARY, base_url=sim.base_url, rate_limit=limit, max_retries=0, **more)

    by_model = RateLimit(600, per=60, key="model")
    chat("a", by_model).with_fallbacks([chat("b", by_model)]).invoke("q")
    sim.on("a", faults.status(500))
    chat("a", by_model).with_fallbacks([chat("b", by_model)]).batch(["q"] * 2)
    assert (by_model.known_keys, by_model.of("b").available[0], by_model.of("a").available[0]) == (["a", "b"], 10, 9)
    sim.clear()
    by_user = RateLimit(600, key="user")
    model = chat("a", by_user, user="x")
    model.invoke("q")
    list(model.stream("q", user="y"))
    asyncio.run(model.ainvoke("q", user="z"))
    chat("a", by_user).invoke("q")
    assert by_user.known_keys == ["", "x", "y", "z"]
    by_place = RateLimit(600, key="endpoint")
    chat("a", by_place).invoke("q")
    assert [f"http://{key}/v1" for key in by_place.known_keys] == [sim.base_url]
    own = RateLimit(600, key=lambda messages, model, metadata, **_: f"{model} {metadata['tenant']} {messages[0]['content']}")
    chat("a", own).invoke("q", metadata={"tenant": 5})
    assert own.known_keys == ["a 5 q"]
    embedded = RateLimit(600, key="model")
    Embeddings("e", api_key=CANARY, base_url=sim.base_url, rate_limit=embedded).batch(["x", "y"])
    assert embedded.known_keys == ["e"] and embedded.of("e").available[0] == 10


def test_a_models_429_pauses_its_own_key(sim: Simulator) -> None:
    limit = RateLimit(6000, per=60, key="model")
    models = {
        name: Chat(name, api_key=CANARY, base_url=sim.base_url, rate_limit=limit, max_retries=0) for name in ("full", "free")
    }
    sim.limit("full", requests_per_minute=1)
    Chat("full", api_key=CANARY, base_url=sim.base_url).invoke("q")
    with pytest.raises(RateLimitError):
        models["full"].invoke("q")
    # What a new key would have is what it was.
    assert limit.available == (120, None)
    assert models["free"].invoke("q").content
    assert (limit.of("full").paused or 0) > 20 and limit.of("free").paused is None
    # What an answer says is left of a model's limit holds for that model.
    sim.limit("free", requests_per_minute=3)
    models["free"].invoke("q")
    assert limit.of("free").available == (2, None) and limit.of("other").available == (120, None)


def test_a_batch_asks_for_no_key_before_it_has_an_input(sim: Simulator) -> None:
    asked: list[Any] = []

    def key(messages: Any, **_: Any) -> str:
        asked.append(messages)
        return "one"

    model = Chat("a", api_key=CANARY, base_url=sim.base_url, rate_limit=RateLimit(60_000, key=key))
    model.batch(["q"], patience=5)
    assert asked == [[{"role": "user", "content": "q"}]]


def test_one_key_of_it_is_a_limit_as_any_other(seawall_clock: testing.clock) -> None:
    limit = RateLimit(60, burst=1, key="tenant", max_wait=0, name="shared")
    Pipeline(limit.of("a"))(by_keyword)("p")
    with pytest.raises(RateLimitExceededError):
        Pipeline(limit)(by_keyword)("p", tenant="a")
    assert repr(limit) == "<RateLimit(requests=60, per=60, burst=1, max_wait=0, key='tenant', name='shared'): 1 keys, 0 waiting>"
    assert repr(limit.of("a")).startswith(
        "<RateLimit(requests=60, per=60, burst=1, max_wait=0, name='shared') of 'a': 0 requests may"
    )
    assert (limit.key, limit.max_keys, RateLimit(1).key, RateLimit(1).max_keys) == ("tenant", 10_000, None, None)
    assert "for each tenant" in limit._repr_html_() and "requests left now" in limit.of("a")._repr_html_()


def test_it_is_one_wherever_it_goes() -> None:
    limit = RateLimit(60, key="tenant", max_keys=5)
    assert copy.deepcopy(limit) is limit and pickle.loads(pickle.dumps(limit)) is limit
    one = limit.of("a")
    pickled = pickle.dumps(one)
    del one
    Pipeline(pickle.loads(pickled))(by_keyword)("p")
    assert limit.of("a").available == (0, None)
    program = (
        "import pickle, sys; limit = pickle.loads(sys.stdin.buffer.read())\n"
        "print(limit.key, limit.max_keys, limit.of('b').available)"
    )
    told = subprocess.run([sys.executable, "-c", program], input=pickle.dumps(limit), capture_output=True, check=True)
    assert told.stdout.decode().split("\n")[0] == "tenant 5 (1, None)"


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({"key": 5}, ConfigurationTypeError, 'key must be "model", "endpoint", the name of an argument, or a function, not 5'),
        ({"key": ""}, ConfigurationTypeError, "key must be"),
        ({"key": asyncio.sleep}, ConfigurationError, "key"),
        ({"max_keys": 5}, ConfigurationError, "give key=, too"),
        ({"key": "a", "max_keys": 0}, ConfigurationError, "max_keys must be a whole number"),
    ],
)
def test_what_makes_no_key_is_refused(arguments: dict[str, Any], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        RateLimit(60, **arguments)


def test_a_call_without_a_key_that_is_one_is_refused(sim: Simulator) -> None:
    @guard(rate_limit=RateLimit(60, key="tenant"))
    def plain(prompt: str) -> str:
        raise AssertionError("it is not called")

    with pytest.raises(ConfigurationError, match=r"plain has none such \(it has prompt\)"):
        plain("p")
    for wrong in (1.5, b"a", object(), True):
        limit = RateLimit(60, key=lambda *_, wrong=wrong, **__: wrong)
        with pytest.raises(ConfigurationTypeError, match="the key of a RateLimit must be a text, a whole number or None"):
            Pipeline(limit)(by_keyword)("p")
    model = Chat("a", api_key=CANARY, base_url=sim.base_url, rate_limit=RateLimit(60, key=lambda messages, **_: 1 / 0))
    with pytest.raises(ZeroDivisionError):
        model.invoke("q")
    with pytest.raises(ConfigurationError, match="make it with key="):
        RateLimit(60).of("a")
    assert sim.count() == 0
