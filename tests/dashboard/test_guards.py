"""Who sees the page: hosts, tokens, cookies; and what no answer is without."""

from __future__ import annotations

import logging
from http.cookies import SimpleCookie

import pytest

import seawall
from seawall import ConfigurationError, dashboard

TOKEN = "a-token-that-nobody-guesses"


@pytest.fixture
def guarded():
    with dashboard.serve(0, host="0.0.0.0", token=TOKEN, quiet=True) as running:
        yield running


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.0.0.1:{port}", "localhost:{port}", "LOCALHOST", "[::1]:{port}", "seawall.localhost:{port}", "10.1.2.3:80"],
)
def test_on_the_loopback_it_answers_to_addresses_and_to_localhost(ask, served, host):
    assert ask("/", host=host.format(port=served.port)).status == 200


@pytest.mark.parametrize(
    "host",
    [
        "rebound.example",
        "rebound.example:{port}",
        "127.0.0.1.rebound.example",
        "localhost.rebound.example",
        "",
        "[::1",
        "127.0.0.1@evil",
    ],
)
def test_a_page_elsewhere_that_had_its_name_lead_here_sees_nothing(ask, served, host):
    for path in ("/", "/api/state", "/nothing"):
        answer = ask(path, host=host.format(port=served.port))
        assert answer.status == 421
        assert b"http://127.0.0.1" in answer.raw  # what to do


@pytest.mark.parametrize(
    "head",
    [
        "GET /api/state HTTP/1.1\r\n\r\n",
        "GET /api/state HTTP/1.0\r\n\r\n",
        "GET /api/state HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: rebound.example\r\n\r\n",
        "GET http://rebound.example/api/state HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    ],
)
def test_a_request_says_one_host_and_means_it(told, served, head):
    assert told(served, head.encode()).startswith((b"HTTP/1.1 421", b"HTTP/1.0 421", b"HTTP/1.1 400"))


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "BREW"])
def test_it_only_shows(ask, method):
    for path in ("/", "/api/state"):
        answer = ask(path, method=method)
        assert (answer.status, answer.headers["allow"]) == (405, "GET")


def test_there_are_two_paths(ask):
    assert [ask(path).status for path in ("/", "/api/state", "/api", "/favicon.ico", "/../etc/passwd", "//", "/api/state/")] == [
        *(200, 200),
        *(404, 404, 404, 404, 404),
    ]


def test_no_answer_is_without_its_guards(ask, guarded, asked):
    answers = [
        ask("/"),
        ask(),
        ask("/nothing"),
        ask(method="POST"),
        ask(host="rebound.example"),
        asked(guarded, "/"),
        asked(guarded),
    ]
    answers.append(asked(guarded, f"/?token={TOKEN}"))
    for answer in answers:
        headers = answer.headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["x-frame-options"] == "DENY"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'")
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert "*" not in policy
        assert "access-control-allow-origin" not in headers


def test_without_the_token_nothing_is_seen(guarded, asked):
    page, state = asked(guarded, "/"), asked(guarded)
    assert (page.status, state.status) == (401, 401)
    assert b"<form" in page.raw
    assert b"breakers" not in page.raw + state.raw
    assert state.headers["www-authenticate"] == "Bearer"
    wrong = ["", "x", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "%00", "a" * 5000]
    assert {asked(guarded, f"/?token={each}").status for each in wrong} == {401}
    assert {asked(guarded, authorization=f"Bearer {each}").status for each in wrong} == {401}
    assert {asked(guarded, authorization=each).status for each in (TOKEN, "Bearer", f"Basic {TOKEN}", f"Bearer{TOKEN}")} == {401}
    assert {asked(guarded, cookie=f"seawall-dashboard-{guarded.port}={each}").status for each in (TOKEN, *wrong)} == {401}


def test_the_token_lets_in_by_the_header(guarded, asked):
    assert asked(guarded, authorization=f"Bearer {TOKEN}").status == 200
    assert asked(guarded, authorization=f"bearer  {TOKEN}").status == 200
    assert asked(guarded, "/", authorization=f"Bearer {TOKEN}").status == 200
    # It is proof enough, whatever name led here: behind a proxy it may be any.
    assert asked(guarded, host="dashboards.example", authorization=f"Bearer {TOKEN}").status == 200


def test_the_token_is_said_once_in_the_address_and_a_cookie_after_that(guarded, asked):
    answer = asked(guarded, f"/?token={TOKEN}")
    assert (answer.status, answer.headers["location"], answer.raw) == (303, "./", b"")
    cookie = SimpleCookie(answer.headers["set-cookie"])[f"seawall-dashboard-{guarded.port}"]
    assert (cookie["httponly"], cookie["samesite"], cookie["path"]) == (True, "Lax", "/")
    assert TOKEN not in answer.headers["set-cookie"]
    sent = f"other=1; seawall-dashboard-{guarded.port}={cookie.value}; last=2"
    assert [asked(guarded, path, cookie=sent).status for path in ("/", "/api/state")] == [200, 200]
    assert asked(guarded, cookie=f"seawall-dashboard-1={cookie.value}").status == 401
    # With the state it would stay in the address.
    assert asked(guarded, f"/api/state?token={TOKEN}").status == 401


def test_a_cookie_holds_for_the_next_process_with_the_same_token_and_for_no_other_token(guarded, asked):
    cookie = asked(guarded, f"/?token={TOKEN}").headers["set-cookie"].partition(";")[0]
    port = guarded.port
    guarded.close()
    with dashboard.serve(port, host="0.0.0.0", token=TOKEN, quiet=True) as again:
        assert asked(again, cookie=cookie).status == 200
    with dashboard.serve(port, host="0.0.0.0", quiet=True) as other:
        assert asked(other, cookie=cookie).status == 401


def test_beyond_the_loopback_there_is_always_a_token(asked):
    with dashboard.serve(0, host="0.0.0.0", quiet=True) as one, dashboard.serve(0, host="0.0.0.0", quiet=True) as two:
        assert one.token and two.token and one.token != two.token
        assert len(one.token) >= 32
        assert asked(one).status == 401
        assert asked(one, authorization=f"Bearer {one.token}").status == 200
        assert one.url == f"http://127.0.0.1:{one.port}"
    with dashboard.serve(0, quiet=True) as local:
        assert local.token is None


def test_on_the_loopback_a_token_may_be_asked_for(asked):
    with dashboard.serve(0, token=TOKEN, quiet=True) as local:
        assert asked(local).status == 401
        assert asked(local, authorization=f"Bearer {TOKEN}").status == 200


def test_the_token_is_neither_shown_nor_logged(capfd, caplog):
    caplog.set_level(logging.DEBUG)
    with dashboard.serve(0, host="0.0.0.0", token=TOKEN) as running:
        shown = f"{running!r} {running} {running.url} {vars(running)}"
        native = repr(running._native)
    told = capfd.readouterr()
    for text in (shown, native, told.out, told.err, caplog.text):
        assert TOKEN not in text
    assert f"http://127.0.0.1:{running.port}/?token=…" in told.err
    with pytest.raises(ConfigurationError) as refused:
        dashboard.serve(0, token="short-secret", quiet=True)
    assert "16 characters" in str(refused.value)
    assert "short-secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"port": -1}, "port"),
        ({"port": 65536}, "port"),
        ({"port": "8809"}, "port"),
        ({"port": True}, "port"),
        ({"host": ""}, "host"),
        ({"host": None}, "host"),
        ({"host": 1}, "host"),
        ({"token": b"bytes"}, "token"),
        ({"token": "too short"}, "token"),
        ({"title": 1}, "title"),
        ({"quiet": "yes"}, "quiet"),
    ],
)
def test_what_cannot_be_meant_is_refused(arguments, named):
    with pytest.raises(ConfigurationError, match=f"^{named} must"):
        seawall.dashboard.serve(**{"port": 0, "quiet": True} | arguments)


def test_a_host_that_is_none_of_this_machine_is_refused_with_its_name():
    with pytest.raises(OSError, match="192.0.2.1"):
        dashboard.serve(0, host="192.0.2.1", quiet=True)
