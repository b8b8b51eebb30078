"""Serving, over real sockets: what is told, to how many, under what trouble, and until when."""

from __future__ import annotations

import errno
import gc
import os
import socket
import subprocess
import sys
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import seawall
from seawall import CircuitBreaker, dashboard


def of(state, name):
    return next((breaker for breaker in state["breakers"] if breaker["name"] == name), None)


def test_breakers_are_told_as_they_are(ask):
    opens = CircuitBreaker(2, 1000, name="opens")
    rate = CircuitBreaker(name="rate", failure_rate=0.5, window=10, minimum_calls=10)
    opens.record_failure()
    for _ in range(4):
        rate.record_failure()
        rate.record_success()
    told = ask().body
    seen = of(told, "opens")
    assert (seen["state"], seen["in_a_row"], seen["in_a_row_limit"], seen["since"], seen["opens_in"]) == (
        "closed",
        1,
        2,
        None,
        None,
    )
    seen = of(told, "rate")
    assert (seen["failure_rate"], seen["failure_rate_limit"], seen["window_calls"]) == (0.5, 0.5, 8)
    opens.record_failure()
    with pytest.raises(seawall.CircuitBreakerError):
        opens.call(print)
    seen = of(fresh(ask, "opens", "open"), "opens")
    assert (seen["why"], seen["rejected"], seen["openings"]) == ("2 failures in a row", 1, 1)
    assert 900 < seen["opens_in"] <= 1000
    assert told["now"] <= seen["since"] + 60
    assert seen["rules"][0].startswith("In ")
    opens.reset()
    fresh(ask, "opens", "closed")
    with opens.isolate():
        fresh(ask, "opens", "forced_open")


def fresh(ask, name, state):
    """The state in which the breaker is in this one: what is told may be a tenth of a second old."""
    from time import monotonic

    end = monotonic() + 20
    while monotonic() < end:
        told = ask().body
        if of(told, name)["state"] == state:
            return told
    raise AssertionError(f"{name} was not seen {state}")


def test_a_breaker_is_told_with_the_name_it_gets_and_until_nobody_has_it(ask, until):
    breaker = CircuitBreaker()
    seawall.CircuitBreakerMonitor.register(breaker)
    known = until(lambda: [b for b in ask().body["breakers"] if b["name"] is None], "a breaker without a name")
    breaker(guarded_by_name)
    until(lambda: of(ask().body, "guarded_by_name"), "its name")
    assert of(ask().body, "guarded_by_name")["id"] in {each["id"] for each in known}
    del breaker
    gc.collect()
    until(lambda: of(ask().body, "guarded_by_name") is None, "its end")


def guarded_by_name():
    pass


def test_names_of_all_kinds_arrive_whole(ask, until):
    names = ["<script>alert(1)</script>", 'a"b\\c', "配置", "\u2028", "x" * 500, "\x00", "🌊"]
    kept = [CircuitBreaker(name=name) for name in names]
    until(lambda: set(names) <= {b["name"] for b in ask().body["breakers"]}, "the names")
    del kept


# The process that is asked holds the interpreter's lock until its asker has had an answer.
HOLDS = """
import ctypes, os, subprocess, sys
import seawall
kept = seawall.CircuitBreaker(name="kept")
served = seawall.dashboard.serve(0, quiet=True)
reader, writer = os.pipe()
ask = f'''
import os, urllib.request
answer = urllib.request.urlopen("{served.url}/api/state", timeout=60).read()
os.write({writer}, b"y" if b"kept" in answer else b"n")
'''
asker = subprocess.Popen([sys.executable, "-c", ask], pass_fds=[writer])
heard = ctypes.create_string_buffer(1)
ctypes.PyDLL(None).read(reader, heard, 1)  # unlike CDLL, this lets no other thread run
print(heard.value.decode())
asker.wait()
"""


def test_it_answers_while_python_holds_its_lock():
    ended = subprocess.run([sys.executable, "-c", HOLDS], capture_output=True, text=True, timeout=90, check=False)
    assert (ended.stdout.strip(), ended.stderr) == ("y", "")


def test_it_says_where_it_is(capfd, asked):
    with dashboard.serve() as running:
        assert capfd.readouterr().err == f"seawall: dashboard at {running.url}\n"
        assert running.url == f"http://127.0.0.1:{running.port}"
        assert 8809 <= running.port
        assert repr(running) == f"<Dashboard {running.url}>"
        assert asked(running).body["process"]["pid"] == os.getpid()
    assert repr(running) == f"<Dashboard {running.url}, closed>"


def test_several_without_a_port_each_find_one(asked):
    with dashboard.serve(quiet=True) as one, dashboard.serve(quiet=True, title="two") as two:
        assert one.port != two.port
        assert asked(two).body["process"]["title"] == "two"
        assert asked(one).body["process"]["id"] != asked(two).body["process"]["id"]
        two.close()
        assert asked(one).status == 200


def test_a_port_in_use_says_what_to_do(served):
    with pytest.raises(OSError, match=f"127.0.0.1:{served.port}.*Leave port out") as refused:
        dashboard.serve(served.port, quiet=True)
    assert refused.value.errno == errno.EADDRINUSE


def test_it_runs_on_when_nobody_keeps_it(asked):
    running = dashboard.serve(0, quiet=True)
    kept = type("Place", (), {"port": running.port})
    native = running._native
    del running
    gc.collect()
    assert asked(kept).status == 200
    for each in [each for each in dashboard._open if each._native is native]:
        each.close()


def test_closing_ends_it_at_once_with_whoever_is_connected(served):
    idle = socket.create_connection(("127.0.0.1", served.port), timeout=20)
    half = socket.create_connection(("127.0.0.1", served.port), timeout=20)
    half.sendall(b"GET / HTTP/1.1\r\nHo")
    served.close()
    for each in (idle, half):
        try:
            assert each.recv(1) == b""
        except ConnectionResetError:
            pass
        each.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", served.port), timeout=20)
    assert served.closed
    served.close()
    # Where it was, another can be.
    dashboard.serve(served.port, quiet=True).close()


def test_whoever_comes_is_served_whatever_others_hold_open(served, ask):
    idle = [socket.create_connection(("127.0.0.1", served.port), timeout=20) for _ in range(300)]
    for each in idle[:100]:
        each.sendall(b"GET /api/state HTTP/1.1\r\nHost: ")
    assert ask().status == 200
    # The first to come were let go for them.
    try:
        assert idle[0].recv(1) == b""
    except ConnectionResetError:
        pass
    for each in idle:
        each.close()
    assert ask().status == 200


def test_readers_that_never_read_hold_nobody_up(served, ask):
    kept = [CircuitBreaker(name=f"{i}" * 3000) for i in range(300)]  # more than sockets hold
    slow = []
    for _ in range(100):
        each = socket.socket()
        each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        each.connect(("127.0.0.1", served.port))
        each.sendall(b"GET /api/state HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        slow.append(each)
    answer = ask()
    assert len(answer.raw) > 500_000
    kept[0].record_failure()
    for each in slow:
        each.close()


def test_many_ask_at_once_and_each_gets_a_whole_answer(ask):
    answers = []
    threads = [threading.Thread(target=lambda: answers.extend(ask() for _ in range(20))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answer.status for answer in answers] == [200] * 160
    assert all(answer.body["process"]["title"] == "tests" for answer in answers)


GARBAGE = [
    b"\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"GET / HTTP/9.9\r\nHost: 127.0.0.1\r\n\r\n",
    b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + b"".join(b"X-%d: y\r\n" % i for i in range(5000)) + b"\r\n",
    b"GET / HTTP/1.1\r\nHost: \xff\xfe\r\nCookie: \x80=;;;=\r\nAuthorization: Bearer\r\n\r\n",
    b"GET /?token=%%%zz&token=%ff HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"CONNECT 127.0.0.1:1 HTTP/1.1\r\nHost: 127.0.0.1:1\r\n\r\n",
    b"GET * HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nExpect: 100-continue\r\n\r\n",
]


@pytest.mark.parametrize("data", GARBAGE, ids=range(len(GARBAGE)))
def test_garbage_is_answered_or_dropped(served, ask, told, capfd, data):
    told(served, data)
    assert ask().status == 200
    assert capfd.readouterr().err == ""  # where a panic would tell of itself


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.sampled_from([b"GET ", b"/", b" HTTP/1.1\r\n", b"Host: 127.0.0.1\r\n", b"\r\n", b"?token=", b"Cookie: ", b"%"])
        | st.binary(max_size=30)
    )
)
def test_no_bytes_end_it(served, ask, told, pieces):
    told(served, b"".join(pieces))
    assert ask("/").status == 200


FORKS = """
import socket
import seawall

served = seawall.dashboard.serve(0, quiet=True)

def refused(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=20).close()
    except ConnectionRefusedError:
        return True

def work():
    assert served.closed
    served.close()  # nothing of the parent's ends by it
    with seawall.dashboard.serve(0, quiet=True) as own:
        import json, urllib.request
        state = json.load(urllib.request.urlopen(own.url + "/api/state", timeout=20))
        assert state["process"]["pid"] == os.getpid() != first

assert forked(work) == 0
assert not served.closed
import urllib.request
assert urllib.request.urlopen(served.url, timeout=20).status == 200

# Nobody would accept in a child: what it has of the socket must not keep the place.
reader, writer = os.pipe()
begun, begins = os.pipe()
child = os.fork()
if not child:
    os.close(writer)
    end(lambda: os.write(begins, b"b") and os.read(reader, 1))
os.read(begun, 1)  # what it does first is letting the socket go
served.close()
assert refused(served.port)
os.close(writer)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_has_none_and_may_begin_its_own(forking):
    ended = subprocess.run([sys.executable, "-c", forking + FORKS], capture_output=True, text=True, timeout=90, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")


FORKS_WHILE_LOOKED_AT = """
import json, threading, urllib.request
import seawall

breakers = [seawall.CircuitBreaker(name=f"b{i}", failure_rate=0.5) for i in range(400)]
served = seawall.dashboard.serve(0, quiet=True)
over = threading.Event()

def look():
    while not over.is_set():
        assert len(json.load(urllib.request.urlopen(served.url + "/api/state", timeout=60))["breakers"]) == 400

lookers = [threading.Thread(target=look) for _ in range(2)]
for each in lookers: each.start()

def work():
    for breaker in breakers:
        breaker.record_failure()
        assert breaker.state == "closed"

codes = [forked(work) for _ in range(60)]
over.set()
for each in lookers: each.join()
assert codes == [0] * 60, codes
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_child_finds_no_breaker_held_by_whoever_looked(forking):
    ended = subprocess.run(
        [sys.executable, "-c", forking + FORKS_WHILE_LOOKED_AT], capture_output=True, text=True, timeout=180, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")
