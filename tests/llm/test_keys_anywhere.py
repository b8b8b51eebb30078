"""Whatever key is given in whatever way, and however a failing server repeats it: it is in nothing that can be seen of the failure."""

from __future__ import annotations

import base64
import html
import json
import logging
import os
import pickle
import string
import traceback
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from seawall import errors, explain
from seawall.llm import Chat
from seawall.simulator import Simulator, faults

# A beginning that stands nowhere else by chance.
KEYS = st.text(alphabet=string.ascii_letters + string.digits + string.punctuation, min_size=6, max_size=60).map("Zq7".__add__)

# How a key is given: arguments of the model, and of the call.
Given = tuple[dict[str, Any], dict[str, Any]]
WAYS: dict[str, Callable[[str], Given]] = {
    "text": lambda key: ({"api_key": key}, {}),
    "secret": lambda key: ({"api_key": SecretStr(key)}, {}),
    "function": lambda key: ({"api_key": lambda: key}, {}),
    "file": lambda key: ({"api_key": in_a_file(key)}, {}),
    "authorization": lambda key: ({"default_headers": {"Authorization": f"Bearer {key}"}}, {}),
    "x-api-key": lambda key: ({"default_headers": {"x-api-key": key}}, {}),
    "query": lambda key: ({"api_key": "k", "default_query": {"api-key": key}}, {}),
    "call's header": lambda key: ({"api_key": "k"}, {"extra_headers": {"api-key": key}}),
    "call's query": lambda key: ({"api_key": "k"}, {"extra_query": {"access_token": key}}),
}
SPELLINGS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "quoted": lambda key: quote(key, safe=""),
    "lower": lambda key: quote(key, safe="").replace("%2F", "%2f").replace("%3D", "%3d"),
    "plus": quote_plus,
    "json": lambda key: json.dumps(key)[1:-1].replace("/", "\\/"),
    "html": html.escape,
    "base64": lambda key: base64.b64encode(f"user:{key}".encode()).decode(),
    "base64url": lambda key: base64.urlsafe_b64encode(f"u:{key}:x".encode()).decode(),
}
# Where a server repeats it.
Answer = Callable[[int, str], Any]
PLACES: dict[str, Answer] = {
    "message": lambda status, said: faults.status(status, body={"error": {"message": f"wrong key {said}.", "code": "bad"}}),
    "fields": lambda status, said: faults.status(
        status, body={"error": {"message": "m", "code": said, "type": said, "param": said}, "more": [said]}
    ),
    "as it is": lambda status, said: faults.status(status, body='{"error": {"message": "' + said.replace('"', "") + '"}}'),
    "text": lambda status, said: faults.status(status, body=f"no: {said}", content_type="text/plain"),
    "html": lambda status, said: faults.status(status, body=f"<html><title>{said}</title>", content_type="text/html"),
    "header": lambda status, said: faults.status(status, headers={"x-echo": f"as {said}", "x-request-id": said}),
    "redirect": lambda _, said: faults.status(307, headers={"location": f"http://elsewhere.invalid/{quote(said)}?k={said}"}),
    "in 200": lambda _, said: faults.status(200, body={"error": {"message": said}, "choices": []}),
}
_path = Path()
_numbers = count()


def in_a_file(key: str) -> Path:
    _path.unlink(missing_ok=True)
    os.close(os.open(_path, os.O_CREAT | os.O_WRONLY, 0o600))
    _path.write_text(key)
    return _path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    global _path
    _path = tmp_path_factory.mktemp("keys") / "key"
    with Simulator() as sim:
        yield sim


def forms(key: str) -> set[str]:
    spelled = {spell(key) for name, spell in SPELLINGS.items() if not name.startswith("base64")}
    for before in range(3):
        encoded = base64.b64encode(bytes(before) + key.encode()).decode()
        core = encoded[(before * 8 + 5) // 6 : (before + len(key)) * 8 // 6]
        spelled |= {core, core.replace("+", "-").replace("/", "_")}
    return spelled


def seen(error: BaseException) -> list[str]:
    """All that can be seen of an error; its frames are those of the package."""
    story = traceback.TracebackException.from_exception(error, capture_locals=True)
    story.stack = traceback.StackSummary.from_list([frame for frame in story.stack if "/tests/" not in frame.filename])
    texts = [
        str(error),
        repr(error),
        repr(vars(error)),
        *story.format(),
        pickle.dumps(error).decode("latin-1"),
        str(explain(error)),
    ]
    texts += [repr(getattr(error, "story", "")), repr(getattr(error, "headers", "")), repr(getattr(error, "body", ""))]
    return texts + (seen(error.__cause__) if error.__cause__ else [])


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    KEYS,
    st.sampled_from(sorted(WAYS)),
    st.sampled_from(sorted(SPELLINGS)),
    st.sampled_from(sorted(PLACES)),
    st.sampled_from([400, 401, 403, 404, 422, 429, 500, 503]),
    st.booleans(),
)
@example(key="Zq7000\\r0", way="authorization", spelling="html", place="as it is", status=400, streams=False)
def test_no_failure_shows_a_key(server, caplog, key, way, spelling, place, status, streams) -> None:
    caplog.set_level(logging.DEBUG)
    caplog.clear()
    name = f"m{next(_numbers)}"
    server.on(name, PLACES[place](status, SPELLINGS[spelling](key)))
    options, more = WAYS[way](key)
    model = Chat(name, base_url=server.base_url, max_retries=1, **options).with_retry(stop_after_attempt=2, wait=0)
    try:
        list(model.stream("x", **more)) if streams else model.invoke("x", **more)
    except errors.APIError as error:
        texts = [*seen(error), repr(model), repr(vars(model)), caplog.text, repr(server.requests[-1].headers)]
    else:
        raise AssertionError("it did not fail")
    for form in forms(key):
        for text in texts:
            assert form not in text, f"{form} of {key} in {text}"
