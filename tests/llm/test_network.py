"""The way to the server: TLS and whom it trusts, HTTP/2, proxies, redirects, compression."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import select
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trustme
from _canary import CANARY

from seawall import errors
from seawall.llm import Chat, models

HELLO = '{"choices":[{"message":{"content":"hello"},"finish_reason":"stop"}]}'


@dataclass
class Files:
    """An authority, a server's certificate and a client's, as files."""

    authority: Path
    client: Path
    client_cert: Path
    client_key: Path
    server: ssl.SSLContext = field(repr=False)
    strict_server: ssl.SSLContext = field(repr=False)
    server_cert: Path
    server_key: Path


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    server, client = authority.issue_cert("127.0.0.1", "localhost"), authority.issue_cert("me@example.org")
    contexts = []
    for _ in range(2):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.configure_cert(context)
        contexts.append(context)
    authority.configure_trust(contexts[1])
    contexts[1].verify_mode = ssl.CERT_REQUIRED
    names = ("authority", "client", "client_cert", "client_key", "server_cert", "server_key")
    paths = {name: folder / f"{name}.pem" for name in names}
    authority.cert_pem.write_to_path(paths["authority"])
    client.private_key_and_cert_chain_pem.write_to_path(paths["client"])
    client.cert_chain_pems[0].write_to_path(paths["client_cert"])
    client.private_key_pem.write_to_path(paths["client_key"])
    server.cert_chain_pems[0].write_to_path(paths["server_cert"])
    server.private_key_pem.write_to_path(paths["server_key"])
    return Files(server=contexts[0], strict_server=contexts[1], **paths)


# --- certificates


def test_a_server_of_an_unknown_authority_is_not_trusted_and_the_error_says_what_to_do(raw, chat, tls) -> None:
    server = raw(raw.answer(HELLO), tls=tls.server)
    with pytest.raises(errors.APIConnectionError, match="not trusted; ca_bundle= or SSL_CERT_FILE"):
        chat(base_url=server.base_url, max_retries=0, proxy=False).invoke("x")
    assert server.requests == []


def test_ca_bundle_names_whom_to_trust(raw, chat, tls) -> None:
    server = raw(raw.answer(HELLO), tls=tls.server)
    model = chat(base_url=server.base_url, ca_bundle=tls.authority)
    assert model.invoke("x").content == "hello"
    assert models(api_key="k", base_url=raw(raw.answer("[]"), tls=tls.server).base_url, ca_bundle=str(tls.authority)) == []
    # It stands in for the system's authorities, so another one's server is not trusted.
    other = trustme.CA()
    stranger = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    other.issue_cert("127.0.0.1").configure_cert(stranger)
    with pytest.raises(errors.APIConnectionError, match="not trusted"):
        chat(base_url=raw(raw.answer(HELLO), tls=stranger).base_url, ca_bundle=tls.authority, max_retries=0).invoke("x")


def test_a_certificate_for_another_host_is_refused(raw, chat, tls) -> None:
    elsewhere = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority = trustme.CA()
    authority.issue_cert("example.org").configure_cert(elsewhere)
    with authority.cert_pem.tempfile() as path, pytest.raises(errors.APIConnectionError, match="certificate"):
        chat(base_url=raw(raw.answer(HELLO), tls=elsewhere).base_url, ca_bundle=path, max_retries=0).invoke("x")


def test_the_environment_names_whom_to_trust(raw, program, tls) -> None:
    server = raw(raw.answer(HELLO), tls=tls.server)
    text = f"from seawall.llm import Chat\nprint(Chat('m', api_key='k', base_url={server.base_url!r}).invoke('x').content)"
    process = program(text, SSL_CERT_FILE=str(tls.authority), PATH=os.environ["PATH"])
    assert process.communicate(timeout=60) == ("hello\n", "")


def test_a_server_that_asks_who_we_are_is_told(raw, chat, tls) -> None:
    server = raw(raw.answer(HELLO), tls=tls.strict_server)
    place = {"base_url": server.base_url, "ca_bundle": tls.authority, "max_retries": 0}
    assert chat(**place, client_cert=tls.client).invoke("x").content == "hello"
    assert chat(**place, client_cert=(tls.client_cert, str(tls.client_key))).invoke("x").content == "hello"
    with pytest.raises(errors.APIConnectionError):
        chat(**place).invoke("x")


def test_files_that_cannot_be_meant_are_refused(chat, tls, tmp_path) -> None:
    empty = tmp_path / "empty.pem"
    empty.write_text("no certificate")
    secret = tmp_path / "secret.pem"
    secret.write_text("-----BEGIN PRIVATE KEY-----\nsk-very-secret\n-----END PRIVATE KEY-----\n")
    for options, words in [
        ({"ca_bundle": tmp_path / "none.pem"}, "ca_bundle .*none.pem' cannot be read: No such file"),
        ({"ca_bundle": empty}, "ca_bundle holds no certificate in PEM form"),
        ({"ca_bundle": 5}, "ca_bundle must be the path of a PEM file, not int"),
        ({"ca_bundle": True}, "ca_bundle must be the path"),
        ({"client_cert": empty}, "client_cert needs a certificate and its private key"),
        ({"client_cert": tls.client_cert}, "client_cert needs a certificate and its private key"),
        ({"client_cert": secret}, "client_cert needs"),
        ({"client_cert": (1, 2, 3)}, "client_cert must be the path of a PEM file, or the paths"),
    ]:
        with pytest.raises(errors.ConfigurationError, match=words) as raised:
            chat(**options)
        assert "very-secret" not in str(raised.value)


# --- HTTP/2


@dataclass
class Modern:
    """A server that offers HTTP/2, and whose answers say what was spoken."""

    port: int
    connections: set[Any] = field(default_factory=set)


@pytest.fixture
def modern(tls: Files) -> Iterator[Modern]:
    from hypercorn.asyncio import serve
    from hypercorn.config import Config

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = Modern(port)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        server.connections.add(scope["client"])
        asked = b""
        while True:
            event = await receive()
            asked += event.get("body", b"")
            if not event.get("more_body"):
                break
        spoken = scope["http_version"]
        if json.loads(asked).get("stream"):
            kind = b"text/event-stream"
            parts = [json.dumps({"choices": [{"delta": {"content": text}}]}) for text in ("http ", spoken)]
            body = [f"data: {part}\n\n".encode() for part in parts] + [b"data: [DONE]\n\n"]
        else:
            kind, body = b"application/json", [json.dumps({"choices": [{"message": {"content": f"http {spoken}"}}]}).encode()]
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
        for part in body:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    config = Config()
    config.bind = [f"127.0.0.1:{port}"]
    config.certfile, config.keyfile = str(tls.server_cert), str(tls.server_key)
    config.alpn_protocols = ["h2", "http/1.1"]
    config.loglevel = "CRITICAL"
    over = threading.Event()
    loop = asyncio.new_event_loop()

    async def run() -> None:
        async def end() -> None:
            await loop.run_in_executor(None, over.wait)

        with suppress(ssl.SSLError):  # asyncio's: what a client still says while the server says goodbye
            await serve(app, config, shutdown_trigger=end)

    thread = threading.Thread(target=lambda: loop.run_until_complete(run()), daemon=True)
    thread.start()
    yield server
    over.set()
    thread.join(20)
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


def test_http_2_is_spoken_where_it_is_offered_and_one_connection_serves_many(chat, modern, tls) -> None:
    # The server takes a moment to come up: attempts until then are refused.
    model = chat(base_url=f"https://127.0.0.1:{modern.port}/v1", ca_bundle=tls.authority).with_retry(
        stop_after_attempt=200, wait=0.05
    )
    assert model.invoke("x").content == "http 2"
    assert "".join(piece.content for piece in model.stream("x")) == "http 2"
    assert {reply.content for reply in model.batch(["x"] * 20)} == {"http 2"}
    assert len(modern.connections) == 1


# --- proxies


class Proxy:
    """Takes requests for anywhere and tunnels to anywhere; notes what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, str]]] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._threads.append(threading.Thread(target=self._serve, args=(client,), daemon=True))
                self._threads[-1].start()

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError), client:
            head = b""
            while b"\r\n\r\n" not in head:
                part = client.recv(65536)
                if not part:
                    return
                head += part
            first, *rest = head.split(b"\r\n\r\n")[0].decode().split("\r\n")
            self.asked.append((first, {line.split(":", 1)[0].lower(): line.split(":", 1)[1].strip() for line in rest}))
            method, target, _ = first.split(" ")
            place = target if method == "CONNECT" else target.split("/")[2]
            host, port = place.split(":")
            with socket.create_connection(("127.0.0.1" if host.endswith("invalid") else host, int(port))) as server:
                if method == "CONNECT":
                    client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                else:
                    server.sendall(head)
                ends = {client: server, server: client}
                while ready := select.select(list(ends), [], [], 20)[0]:
                    for end in ready:
                        part = end.recv(65536)
                        if not part:
                            return
                        ends[end].sendall(part)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    made = Proxy()
    yield made
    made.close()


def test_the_proxy_of_a_model_is_used_and_told_who_asks(raw, chat, proxy, tls) -> None:
    server = raw(raw.answer(HELLO))
    model = chat(base_url=f"http://api.invalid:{server.port}/v1", proxy=f"http://me:pa%20ss@{proxy.address}")
    assert model.invoke("x").content == "hello"
    first, headers = proxy.asked[0]
    assert first.startswith(f"POST http://api.invalid:{server.port}/v1/chat/completions ")
    assert headers["proxy-authorization"] == "Basic bWU6cGEgc3M="
    secure = raw(raw.answer(HELLO), tls=tls.server)
    assert chat(base_url=secure.base_url, ca_bundle=tls.authority, proxy=f"http://{proxy.address}").invoke("x").content == "hello"
    first, headers = proxy.asked[1]
    # A tunnel: the proxy sees neither the key nor the request.
    assert first == f"CONNECT 127.0.0.1:{secure.port} HTTP/1.1"
    assert "authorization" not in headers


ASK = "from seawall.llm import Chat\nprint(Chat('m', api_key='k', base_url={url!r}, max_retries=0{more}).invoke('x').content)"


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"])
def test_the_environments_proxy_is_used(raw, program, proxy, name) -> None:
    server = raw(raw.answer(HELLO))
    url = f"http://api.invalid:{server.port}/v1"
    process = program(ASK.format(url=url, more=""), **{name: f"http://{proxy.address}", "PATH": os.environ["PATH"]})
    assert process.communicate(timeout=60) == ("hello\n", "")
    assert len(proxy.asked) == 1


def test_https_goes_through_the_environments_tunnel(raw, program, proxy, tls) -> None:
    server = raw(raw.answer(HELLO), tls=tls.server)
    environment = {"HTTPS_PROXY": f"http://{proxy.address}", "SSL_CERT_FILE": str(tls.authority), "PATH": os.environ["PATH"]}
    process = program(ASK.format(url=server.base_url, more=""), **environment)
    assert process.communicate(timeout=60) == ("hello\n", "")
    assert proxy.asked[0][0].startswith("CONNECT ")


@pytest.mark.parametrize(("more", "environment"), [("", {"NO_PROXY": "127.0.0.1"}), (", proxy=False", {})])
def test_no_proxy_is_used_where_none_is_wanted(raw, program, proxy, more, environment) -> None:
    server = raw(raw.answer(HELLO))
    environment = {"HTTP_PROXY": f"http://{proxy.address}", "PATH": os.environ["PATH"], **environment}
    assert program(ASK.format(url=server.base_url, more=more), **environment).communicate(timeout=60) == ("hello\n", "")
    assert proxy.asked == []


def test_a_proxy_that_is_none_is_refused_and_one_that_fails_is_named_without_its_password(chat) -> None:
    for given in ("me:pa55word@host", "ftp://host", "http://", "", True, 5):
        with pytest.raises(errors.ConfigurationError, match="proxy") as raised:
            chat(proxy=given)
        assert "pa55word" not in str(raised.value)
    with pytest.raises(errors.APIConnectionError, match="or at the proxy that proxy=") as lost:
        chat(base_url="http://api.invalid/v1", proxy="http://me:pa55word@127.0.0.1:1", max_retries=0).invoke("x")
    assert "pa55word" not in f"{lost.value} {vars(lost.value)}"


def test_a_proxy_that_refuses_us_says_so(raw, chat) -> None:
    gate = raw(raw.answer("", status="407 Proxy Authentication Required"))
    with pytest.raises(errors.APIError, match="proxy"):
        chat(base_url="https://api.invalid/v1", proxy=f"http://127.0.0.1:{gate.port}", max_retries=0).invoke("x")
    with pytest.raises(errors.APIStatusError) as raised:
        chat(base_url="http://api.invalid/v1", proxy=f"http://127.0.0.1:{gate.port}", max_retries=0).invoke("x")
    assert raised.value.status_code == 407


def test_socks_proxies_are_spoken_to(raw, chat) -> None:
    server = raw(raw.answer(HELLO))
    seen: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            client, _ = listener.accept()
            with client, socket.create_connection(("127.0.0.1", server.port)) as there:
                client.recv(262)
                client.sendall(b"\x05\x00")
                seen.append(client.recv(262))
                client.sendall(b"\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x00")
                there.sendall(client.recv(65536))
                client.sendall(there.recv(65536))

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        address = f"socks5h://127.0.0.1:{listener.getsockname()[1]}"
        assert chat(base_url=f"http://api.invalid:{server.port}/v1", proxy=address).invoke("x").content == "hello"
        thread.join(10)
    assert b"api.invalid" in seen[0]


# --- redirects and compression


def test_no_key_follows_a_redirect_to_another_host_or_scheme(raw, chat) -> None:
    other = raw(raw.answer(HELLO))
    for place in (other.base_url, other.base_url.replace("127.0.0.1", "localhost")):
        moved = raw(raw.answer("", status="308 Permanent Redirect", headers=f"location: {place}/chat/completions\r\n"))
        with pytest.raises(errors.APIStatusError, match="redirected to"):
            chat(base_url=moved.base_url, default_headers={"x-api-key": "own-key"}).invoke("x")
    assert other.requests == []
    within = raw(raw.answer("", status="307 Temporary Redirect", headers="location: /v2/chat/completions\r\n"), raw.answer(HELLO))
    assert chat(base_url=within.base_url).invoke("x").content == "hello"
    assert within.requests[1].headers["authorization"] == f"Bearer {CANARY}"
    assert within.requests[1].body == within.requests[0].body


def test_gzip_is_asked_for_and_read(raw, chat) -> None:
    def zipped(text: str) -> bytes:
        return gzip.compress(text.encode())

    stream = 'data: {"choices":[{"delta":{"content":"hello"},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
    header = "content-encoding: gzip\r\n"
    server = raw(
        raw.answer(zipped(HELLO), headers=header),
        raw.answer(zipped(stream), headers=header, kind="text/event-stream"),
        raw.answer(zipped('{"error":{"message":"too fast","code":"rate_limit_exceeded"}}'), headers=header, status="429 Slow"),
    )
    model = chat(base_url=server.base_url, max_retries=0)
    assert model.invoke("x").content == "hello"
    assert [piece.content for piece in model.stream("x")] == ["hello"]
    with pytest.raises(errors.RateLimitError, match="too fast"):
        model.invoke("x")
    assert server.requests[0].headers["accept-encoding"] == "gzip"


def test_a_small_answer_that_grows_beyond_the_limit_when_unpacked_is_refused(raw, chat) -> None:
    bomb = gzip.compress(b" " * (65 << 20))
    for kind in ("application/json", "text/event-stream"):
        model = chat(base_url=raw(raw.answer(bomb, headers="content-encoding: gzip\r\n", kind=kind)).base_url, max_retries=0)
        for ask in (model.invoke, lambda text: list(model.stream(text))):
            with pytest.raises(errors.MalformedResponseError, match="max_response_bytes is the limit"):
                ask("x")


def test_a_forked_child_has_connections_of_its_own(raw, program) -> None:
    server = raw(raw.answer(HELLO))
    process = program(
        "import os, warnings\n"
        "warnings.simplefilter('ignore', DeprecationWarning)\n"  # of os.fork beside threads, since Python 3.12
        "from seawall.llm import Chat\n"
        f"chat = Chat('m', api_key=lambda: 'k', base_url={server.base_url!r}, proxy=False)\n"
        "chat.invoke('x')\n"
        "for _ in range(2):\n"
        "    child = os.fork()\n"
        "    if not child:\n"
        "        ok = [chat.invoke('x').content for _ in range(2)]\n"
        "        del chat; os._exit(ok != ['hello', 'hello'])\n"
        "    assert os.waitpid(child, 0)[1] == 0\n"
        "print(chat.invoke('x').content)\n",
        PATH=os.environ["PATH"],
    )
    assert process.communicate(timeout=60) == ("hello\n", "")
    # One each: the parent's, which is still good, and the children's.
    assert len(server._open) - 1 == 3


def test_models_of_one_way_share_its_connections(raw, tls) -> None:
    server = raw(raw.answer(HELLO), tls=tls.server)
    for _ in range(5):
        Chat("m", api_key="k", base_url=server.base_url, ca_bundle=tls.authority, proxy=False).invoke("x")
    kept = Chat("m", api_key="k", base_url=server.base_url, ca_bundle=tls.authority, proxy=False)
    before = len(server._open)
    for _ in range(5):
        Chat("m", api_key="k", base_url=server.base_url, ca_bundle=tls.authority, proxy=False).invoke("x")
    assert len(server._open) <= before + 1
    del kept
