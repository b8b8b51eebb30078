"""Streams of a server that is written out by hand: what it sends when, and what becomes of its connection."""

from __future__ import annotations

import asyncio
import contextlib
import json
import select
import threading
from collections.abc import Callable, Iterator
from socket import create_server, socket
from typing import Any

import pytest

from seawall.llm import Chat

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
PATIENCE = 60


def event(content: str = "", finish_reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": {"content": content}, "finish_reason": finish_reason}
    return b"data: %s\n\n" % json.dumps({"choices": [choice]}).encode()


def is_left(client: socket) -> bool:
    """Waits until the client leaves its connection."""
    client.settimeout(PATIENCE)
    try:
        while client.recv(65536):
            pass
    except ConnectionResetError:
        pass
    except TimeoutError:
        return False
    return True


@contextlib.contextmanager
def served(chat: Callable[..., Chat], serve: Callable[[socket], None], **options: Any) -> Iterator[Chat]:
    """A model whose one request is answered by `serve`, which has ended when this is left."""

    def answer() -> None:
        with server.accept()[0] as client:
            client.recv(65536)
            client.sendall(HEAD)
            serve(client)

    with create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        yield chat(base_url=f"http://127.0.0.1:{server.getsockname()[1]}/v1", max_retries=0, **options)
        thread.join(PATIENCE)
        assert not thread.is_alive()


def read(model: Chat) -> tuple[str, Any]:
    stream, pieces = model.stream("x"), []
    reader = threading.Thread(target=lambda: pieces.extend(piece.content for piece in stream), daemon=True)
    reader.start()
    reader.join(PATIENCE)
    assert not reader.is_alive()
    return "".join(pieces), stream


def aread(model: Chat) -> tuple[str, Any]:
    async def text() -> tuple[str, Any]:
        stream = model.astream("x")
        return "".join([piece.content async for piece in stream]), stream

    return asyncio.run(asyncio.wait_for(text(), PATIENCE))


both = pytest.mark.parametrize("read", [read, aread])


@both
def test_an_answer_that_has_ended_is_whole_though_the_server_says_no_more(chat, read) -> None:
    def serve(client: socket) -> None:
        client.sendall(event("whole") + event(finish_reason="stop"))
        left.append(is_left(client))

    left: list[bool] = []
    with served(chat, serve, timeout=1.5) as model:
        text, stream = read(model)
    assert (text, [attempt.outcome for attempt in stream.attempts], left) == ("whole", ["ok"], [True])


@both
def test_a_waiting_reader_is_told_though_the_server_makes_no_pause(chat, read) -> None:
    # More than are kept for a reader: whoever was not told would wait for ever, and so would the request.
    count = 40_000

    def serve(client: socket) -> None:
        client.sendall(event("x") * count + event(finish_reason="stop"))

    with served(chat, serve) as model:
        assert read(model)[0] == "x" * count


def test_closing_a_stream_that_waits_for_its_reader_cuts_it(chat) -> None:
    def serve(client: socket) -> None:
        client.setblocking(False)
        pieces = event("x") * 1000
        # It has stopped when nothing more fits for a while.
        with contextlib.suppress(ConnectionError):
            while select.select([], [client], [], 1)[1]:
                client.send(pieces)
            stopped.set()
        left.append(is_left(client))

    stopped, left = threading.Event(), []
    with served(chat, serve) as model:
        stream = model.stream("x")
        assert next(stream).content == "x"
        assert stopped.wait(PATIENCE)
        stream.close()
        assert list(stream) == []
    assert left == [True]
