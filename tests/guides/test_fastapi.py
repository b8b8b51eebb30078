"""The app of docs/guides/fastapi.md: statuses, deadlines, events, and a client that goes, seen from the server that is asked."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import uvicorn
from _canary import CANARY
from fastapi.testclient import TestClient

from seawall import RateLimit
from seawall.llm import Chat
from seawall.simulator import faults

QUESTION = {"text": "Why is the sea salty?"}
STATUSES = [
    (faults.status(503), 503, None),
    (faults.reset(), 503, None),
    (faults.rate_limit(retry_after=300), 503, "300"),
    (faults.html(), 502, None),
    (faults.context_window(), 413, None),
    (faults.content_filter(), 422, None),
    (faults.status(401), 500, None),
    (faults.quota(), 500, None),
]


@pytest.fixture
def client(service: Any, seawall_no_waits: None) -> Iterator[TestClient]:
    with TestClient(service.app) as made:
        yield made


def told(text: str) -> list[tuple[str, str]]:
    """Names and data of events."""
    blocks = (block.split("\n") for block in text.strip().split("\n\n"))
    return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in blocks]


def test_it_answers_whole_and_in_pieces(client, at_the_simulator):
    whole = client.post("/ask", json=QUESTION).json()
    assert (whole["model"], whole["attempts"]) == ("gpt-4o-mini", 1)
    assert "35 g of salt" in whole["answer"] and QUESTION["text"] in whole["answer"]
    streamed = client.post("/stream", json=QUESTION)
    assert streamed.headers["content-type"].startswith("text/event-stream")
    *pieces, end = told(streamed.text)
    assert {name for name, _ in pieces} == {"piece"} and end == ("end", "")
    assert QUESTION["text"] in "".join(piece for _, piece in pieces)


@pytest.mark.parametrize("path", ["/ask", "/stream"])
@pytest.mark.parametrize(("fault", "status", "wait"), STATUSES, ids=lambda value: getattr(value, "name", None))
def test_a_failure_is_a_status(client, at_the_simulator, path, fault, status, wait):
    at_the_simulator.on("*", fault)
    answer = client.post(path, json=QUESTION)
    assert (answer.status_code, answer.headers.get("retry-after")) == (status, wait)
    assert list(answer.json()) == ["error"] and "gpt" not in answer.text


@pytest.mark.parametrize("path", ["/ask", "/stream"])
def test_the_callers_deadline_is_the_requests(client, at_the_simulator, path):
    at_the_simulator.on("*", faults.hang())
    assert client.post(path, json=QUESTION, headers={"x-timeout": "0.1"}).status_code == 504
    at_the_simulator.wait_aborted(1)
    assert client.post(path, json=QUESTION, headers={"x-timeout": "61"}).status_code == 422


def test_open_circuits_answer_at_once_and_health_says_so(client, at_the_simulator):
    assert client.get("/healthz").status_code == 200
    at_the_simulator.on("*", faults.status(503))
    while client.get("/healthz").status_code == 200:
        client.post("/ask", json=QUESTION)
    sent = at_the_simulator.count()
    answer = client.post("/ask", json=QUESTION)
    assert (answer.status_code, answer.headers["retry-after"], at_the_simulator.count()) == (503, "30", sent)


def test_our_own_limit_is_a_429(client, at_the_simulator):
    limit = RateLimit(requests=1, per=60, max_queue=0)
    client.app.state.chat = Chat("m", api_key=CANARY, base_url=at_the_simulator.base_url, rate_limit=limit, max_retries=0)
    assert client.post("/ask", json=QUESTION).status_code == 200
    answer = client.post("/ask", json=QUESTION)
    assert answer.status_code == 429 and 1 <= int(answer.headers["retry-after"]) <= 62


def test_after_the_first_piece_a_failure_is_an_event(client, at_the_simulator):
    at_the_simulator.on("*", faults.cut(3, "reset"))
    streamed = client.post("/stream", json=QUESTION)
    assert streamed.status_code == 200
    assert [name for name, _ in told(streamed.text)] == ["piece", "piece", "piece", "error"]


def test_documents_that_are_down_are_none(client, at_the_simulator, service, monkeypatch):
    async def down(text):
        raise ConnectionError

    monkeypatch.setattr(service, "documents", service.documents.pipeline(down))
    assert "35 g" not in client.post("/ask", json=QUESTION).json()["answer"]


def test_numbers_and_the_dashboard_are_there(client, at_the_simulator):
    client.post("/ask", json=QUESTION)
    page = client.get("/metrics")
    assert page.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert 'seawall_calls_total{pipeline="ask",model="",endpoint="",outcome="ok"}' in page.text
    place = http.client.HTTPConnection(client.app.state.dashboard.removeprefix("http://"), timeout=10)
    place.request("GET", "/api/state")
    with place.getresponse() as state:
        assert state.status == 200
    place.close()


@contextmanager
def served(app: Any) -> Iterator[int]:
    """The port at which a real server has the app."""
    listener = socket.create_server(("127.0.0.1", 0))  # takes connections before the server does
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="on"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(30)


@pytest.mark.parametrize(
    ("path", "fault"),
    [("/ask", faults.hang()), ("/stream", faults.hang()), ("/stream", faults.stall(3))],
    ids=["whole", "before the first piece", "between two pieces"],
)
def test_a_client_that_goes_takes_its_request_with_it(service, at_the_simulator, path, fault):
    at_the_simulator.on("*", fault)
    with served(service.app) as port:
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        client.request("POST", path, json.dumps(QUESTION), {"content-type": "application/json"})
        if fault.name == "stall":
            answer = client.getresponse()
            assert answer.readline() == b"event: piece\n"
            answer.close()
        at_the_simulator.wait_for(1)
        client.close()
        at_the_simulator.wait_aborted(1)
    assert at_the_simulator.count() == 1
