"""The key goes to the server and nowhere else."""

from __future__ import annotations

import copy
import io
import json
import logging
import os
import pickle
import traceback
from collections.abc import Callable
from typing import Any

import pytest

from seawall import errors
from seawall.llm import Chat, Embeddings
from seawall.simulator import Simulator, faults

KEY = "sk-very-secret-0123456789"
ODD = "k/\"odd\\key<&>'%+=$"
KEYS = pytest.mark.parametrize("key", [KEY, ODD], ids=["plain", "odd"])


def spelled(key: str) -> list[str]:
    """The key as it may look in a text, and its telling parts."""
    inner = json.dumps(key)[1:-1]
    return [key, inner, json.dumps(inner)[1:-1], repr(key)[1:-1], "very-secret", "odd", "key<", "key&lt"]


def shown(error: BaseException) -> str:
    """All that can be seen of an error: texts, attributes, the traceback with its local variables, its pickle."""
    story = traceback.TracebackException.from_exception(error, capture_locals=True)
    # This test's own frames hold the key; what matters are those of the package.
    own = [frame for frame in story.stack if "seawall" not in frame.filename or "tests" in frame.filename]
    story.stack = traceback.StackSummary.from_list([frame for frame in story.stack if frame not in own])
    cause = "" if error.__cause__ is None else shown(error.__cause__)
    parts = [repr(error), str(error), repr(vars(error)), "".join(story.format()), repr(pickle.dumps(error)), cause]
    return "\n".join(parts)


def assert_unseen(key: str, *texts: str) -> None:
    for text in texts:
        for form in spelled(key):
            assert form not in text, f"{form} in {text}"


@KEYS
def test_the_server_gets_it_as_it_is(key) -> None:
    with Simulator(api_keys=[key]) as sim:
        assert Chat("m", api_key=f" {key}\n", base_url=sim.base_url).invoke("x").attempts == 1


@KEYS
def test_it_is_in_no_repr_and_no_attribute(chat, key) -> None:
    model = chat(api_key=key, default_headers={"x-api-key": key, "authorization": f"Bearer {key}"}, default_query={"key": key})
    model = copy.deepcopy(model.with_retry().with_fallbacks([model]))
    seen: list[str] = [repr(model), repr(vars(model)), repr(dir(model))]
    for value in vars(model).values():
        seen += [repr(getattr(value, name)) for name in dir(value)]
    assert_unseen(key, *seen, repr(model.invoke("x").headers))


ECHOES: list[Callable[[str], Any]] = [
    lambda key: faults.status(401, f"Incorrect API key provided: {key}."),
    lambda key: faults.status(
        500, error_code=key, body={"error": {"message": "m", "code": key, "param": key, "type": f"t {key}"}}
    ),
    lambda key: faults.status(
        401, body=json.dumps({"error": {"message": f"wrong: {key}"}}).replace("<", "\\u003c").replace("/", "\\/")
    ),
    lambda key: faults.status(403, body={"detail": {"headers": {"authorization": f"Bearer {key}"}}}),
    lambda key: faults.status(502, body=f"<html><title>{key}</title>{html(key)}</html>", content_type="text/html"),
    lambda key: faults.status(400, body=f"key={percent(key)}", content_type="text/plain"),
    lambda key: faults.status(429, headers={"x-echo": f"Bearer {key}", "x-url": f"/?key={percent(key)}", "x-request-id": key}),
    lambda key: faults.status(200, body=f"no json {key}", content_type="text/plain"),
    lambda key: faults.status(200, body=json.dumps({"choices": [], "echo": key}), headers={"x-echo": key}),
    lambda key: faults.status(200, body=json.dumps({"error": {"message": key}})),
    lambda key: faults.status(307, headers={"location": f"http://elsewhere.invalid/{percent(key)}/x"}),
]


def percent(text: str) -> str:
    return "".join(f"%{ord(each):02X}" if not each.isalnum() and each not in "-_." else each for each in text)


def html(text: str) -> str:
    named = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return named.replace('"', "&quot;").replace("'", "&#x27;")


@KEYS
@pytest.mark.parametrize("echo", ECHOES, ids=range(len(ECHOES)))
def test_a_server_that_repeats_it_puts_it_in_no_error_log_or_pickle(sim, chat, caplog, key, echo) -> None:
    caplog.set_level(logging.DEBUG)
    sim.on("m", echo(key))
    model = chat(api_key=key).with_retry(stop_after_attempt=2, wait=0, before_sleep=lambda state: repr(state))
    with pytest.raises(errors.APIError) as raised:
        model.invoke("x")
    assert "[redacted]" in shown(raised.value)
    for ask in (model.invoke, lambda x: list(model.stream(x)), lambda x: model.batch([x])):
        with pytest.raises(errors.APIError) as raised:
            ask("x")
        logging.getLogger("seawall").exception("what an application logs", exc_info=raised.value)
        text = shown(raised.value)
        for part in {key, percent(key), html(key), json.dumps(key)[1:-1], json.dumps(key).replace("/", "\\/")[1:-1]}:
            assert part not in text, part
            assert part not in caplog.text, part
        assert "very-secret" not in text


@KEYS
def test_a_reply_shows_no_header_that_repeats_it(sim, chat, key) -> None:
    body = {"choices": [{"message": {"content": "hello"}, "finish_reason": "stop"}]}
    sim.on("m", faults.status(200, body=body, headers={"x-echo": f"Bearer {key}", "set-cookie": "session=1"}))
    reply = chat(api_key=key).invoke("x")
    assert reply.headers["x-echo"] == "Bearer [redacted]"
    assert "set-cookie" not in reply.headers
    assert key not in repr(pickle.dumps(reply))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"api_key": f"{KEY}\udc80"}, "api_key holds a lone surrogate"),
        ({"api_key": f"{KEY} {KEY}"}, "position 25"),
        ({"api_key": f"{KEY}é"}, "position 25"),
        ({"api_key": KEY.encode()}, "api_key must be a str, not bytes"),
        ({"api_key": [KEY]}, "api_key must be a str, not list"),
        ({"api_key": KEY, "base_url": "nonsense"}, "base_url"),
        ({"api_key": KEY, "base_url": KEY}, "not shown"),
        ({"api_key": KEY, "base_url": f"https://me:{KEY}@h/v1"}, "user name or password"),
        ({"api_key": KEY, "timeout": -1}, "timeout"),
        ({"api_key": KEY, "max_retries": -1}, "max_retries"),
        ({"api_key": "k", "default_headers": {"authorization": KEY, "x": 5}}, r"default_headers\['x'\]"),
        ({"api_key": "k", "default_headers": {"authorization": f"{KEY}\n"}}, "authorization"),
        ({"api_key": "k", "default_headers": {"authorization": f"{KEY}\udc80"}}, "authorization"),
        ({"openai_api_key": KEY}, "api_key="),
        ({"api_key": KEY, "temperature": object()}, "temperature"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_wrong_argument_shows_it_in_no_message_and_no_traceback(chat, options, words) -> None:
    for kind in (Chat, Embeddings):
        with pytest.raises((errors.ConfigurationError, TypeError), match=words) as raised:
            kind("m", **options)
        assert "very-secret" not in shown(raised.value)


def test_a_key_of_the_environment_is_not_shown_either(monkeypatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}\udc80")
    with pytest.raises(errors.ConfigurationError, match="surrogate") as raised:
        Chat("m")
    assert "very-secret" not in shown(raised.value)


@pytest.mark.parametrize(
    "wrong",
    [{}, {"extra_query": {"a": 1}}, {"extra_headers": {"authorization": KEY, "x": 5}}, {"extra_body": 5}, {"timeout": "x"}],
)
def test_what_a_call_sends_beside_its_body_is_in_no_traceback(sim, chat, wrong) -> None:
    sim.on("m", faults.status(500))
    options = {"extra_headers": {"authorization": KEY}, "extra_query": {"key": KEY}, **wrong}
    model, vectors = chat(max_retries=0), Embeddings("m", api_key="k", base_url=sim.base_url, max_retries=0)
    asks = [model.invoke, lambda x, **more: list(model.stream(x, **more)), lambda x, **more: model.batch([x], **more)]
    for ask in [*asks, vectors.invoke, lambda x, **more: vectors.batch([x], **more)]:
        with pytest.raises((errors.APIError, errors.ConfigurationError)) as raised:
            ask("x", **options)
        assert "very-secret" not in shown(raised.value)


def test_an_error_that_no_server_answers_shows_it_neither(chat) -> None:
    for base_url in ("http://127.0.0.1:1/v1?key=" + KEY, f"http://no-such-host.invalid/{KEY}"):
        with pytest.raises(errors.APIConnectionError) as raised:
            chat(api_key=KEY, base_url=base_url, max_retries=0).invoke("x")
        assert "very-secret" not in shown(raised.value)


def test_the_simulators_log_holds_no_key(sim, chat) -> None:
    chat(api_key=KEY, default_headers={"x-api-key": KEY}).invoke("x")
    headers = sim.requests[0].headers
    assert (headers["authorization"], headers["x-api-key"]) == ("Bearer ***", "***")
    assert "very-secret" not in repr(sim.requests)


def test_a_proxys_password_is_in_no_error(program) -> None:
    process = program(
        "import traceback\n"
        "from seawall.llm import Chat\n"
        "for url in ('http://api.invalid/v1', 'https://api.invalid/v1'):\n"
        "    try: Chat('m', api_key='k', base_url=url, max_retries=0).invoke('x')\n"
        "    except Exception as error: print('failed:', type(error).__name__, error, vars(error))\n",
        HTTP_PROXY="http://me:pa55word@127.0.0.1:1",
        HTTPS_PROXY="http://me:pa55word@127.0.0.1:1",
        PATH=os.environ["PATH"],
    )
    out, err = process.communicate(timeout=60)
    assert out.count("failed: APIConnectionError") == 2, err
    assert "or at the proxy" in out
    assert "pa55word" not in out + err


def test_a_traceback_to_a_stream_shows_no_key(chat) -> None:
    screen = io.StringIO()
    try:
        chat(api_key=KEY, base_url="http://127.0.0.1:1", max_retries=0).invoke("x")
    except errors.APIError as error:
        traceback.print_exception(error, file=screen)
    assert "very-secret" not in screen.getvalue()
