"""Where alerts go: one worker, queues, retries and a breaker for each sink, and no call in its way."""

from __future__ import annotations

import asyncio
import copy
import functools
import gc
import logging
import pickle
import subprocess
import sys
import threading
import weakref

import pytest
import trio

from seawall import (
    ConfigurationError,
    Monitor,
    MonitoringSystem,
    Pipeline,
    Rule,
    Timeout,
    _delivery,
    _worker,
    observe,
    remaining,
    sinks,
    testing,
)
from seawall.errors import APIConnectionError, BadRequestError

MOST = 10


def fail(monitor, times=5):
    for _ in range(times):
        monitor.record(False)


def watch(name=None, *, given=()):
    """A monitor that looks for outages and nothing else: each is one alert, and its end another."""
    never = [Rule(metric, float("inf")) for metric in ("error_rate", "retry_rate", "avg_latency")]
    return Monitor(10, name, rules=never, sinks=given)


def recover(monitor):
    for _ in range(monitor.window):
        monitor.record(True)


def lines(caplog, logger="seawall.sinks"):
    return [record.getMessage() for record in caplog.records if record.name == logger]


def settled():
    """Waits until all that can be delivered now is."""
    return _delivery.flush(30, resting=False)


class Sink:
    """A sink that can be broken, and remembers."""

    def __init__(self, broken=None):
        self.broken = broken
        self.calls = 0
        self.alerts = []
        self.threads = set()

    def __call__(self, alert):
        self.calls += 1
        self.threads.add(threading.current_thread().name)
        if self.broken is not None:
            raise self.broken
        self.alerts.append(alert)

    @property
    def kinds(self):
        return [alert.kind for alert in self.alerts]


class AsyncSink(Sink):
    """The same, asynchronous."""

    async def __call__(self, alert):
        await asyncio.sleep(0)
        Sink.__call__(self, alert)


@pytest.fixture(params=[Sink, AsyncSink])
def sink(request):
    return request.param()


@pytest.fixture(autouse=True)
def alone(caplog):
    caplog.set_level(logging.INFO, logger="seawall")
    yield
    # What hangs or is down is no other test's to wait for.
    for line in list(_delivery._lines.values()):
        line.forget()
    _delivery._lines.clear()


def test_alerts_come_in_order_once_each_and_in_no_call_s_thread(sink):
    monitor = watch(given=[sink])
    for _ in range(10):
        fail(monitor)
        recover(monitor)
    assert sinks.flush(30)
    assert sink.alerts == monitor.alerts and len(sink.alerts) == 20
    assert len(sink.threads) == 1 and threading.current_thread().name not in sink.threads


def test_a_plain_function_may_give_something_to_await():
    heard = []

    async def later(alert):
        heard.append((alert.kind, threading.current_thread().name))

    monitor = watch(given=[lambda alert: later(alert)])
    fail(monitor)
    assert sinks.flush(30) and heard == [("raised", "seawall-alerts")]


def test_sinks_are_added_and_used_as_decorators(sink):
    monitor, heard = MonitoringSystem(10), []
    assert monitor.add_sink(sink) is sink

    @monitor.add_sink
    async def function(alert):
        heard.append(alert)

    assert monitor.sinks == [sink, function]
    fail(monitor)
    assert sinks.flush(30)
    assert heard == sink.alerts == monitor.alerts


def test_a_sink_hears_only_of_incidents_that_come_to_its_level():
    everything, bad, worst = Sink(), Sink(), Sink()
    monitor = Monitor(
        10, rules=[Rule("avg_latency", 1, 2, 3, minimum=1, clear=1), Rule("outage", float("inf"))], sinks=[everything]
    )
    monitor.add_sink(bad, level="critical")
    monitor.add_sink(worst, level="emergency")
    for latencies in ([1.5] * 10 + [0.0] * 10, [1.5] + [2.5] * 35 + [1.5] * 50 + [0] * 30):
        for latency in latencies:
            monitor.record(True, latency=latency)
    assert sinks.flush(30)
    kinds = ["raised", "resolved", "raised", "escalated", "deescalated", "resolved"]
    assert everything.kinds == kinds == [alert.kind for alert in monitor.alerts]
    assert bad.kinds == ["escalated", "deescalated", "resolved"] and worst.kinds == []


def test_after_a_reset_incidents_are_new_ones_under_old_numbers():
    worst = Sink()
    monitor = Monitor(10, rules=[Rule("error_rate", float("inf"))])
    monitor.add_sink(worst, level="emergency")
    fail(monitor)
    monitor.reset()
    for latency in [3] * 10 + [0] * 10:
        monitor.record(True, latency=latency)
    assert [(alert.kind, alert.incident) for alert in monitor.alerts] == [("raised", 1), ("resolved", 1)]
    assert sinks.flush(30) and worst.kinds == ["raised"]


def test_what_is_silenced_is_not_delivered(sink):
    monitor = watch(given=[sink])
    with monitor.silence(60):
        fail(monitor)
        recover(monitor)
    fail(monitor)
    assert sinks.flush(30) and [(alert.kind, alert.incident) for alert in sink.alerts] == [("raised", 2)]


# -- failures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("broken", [ConnectionError("no"), ValueError("no"), sinks.DeliveryError("no")])
def test_a_delivery_that_fails_is_tried_again(sink, broken, seawall_no_waits, caplog):
    sink.broken = broken
    whole = sink.__call__

    class Mended(type(sink)):
        @property
        def broken(self):
            return None if self.calls >= 3 else broken

        @broken.setter
        def broken(self, value):
            pass

    mended = Mended()
    assert whole
    monitor = watch(given=[mended])
    fail(monitor)
    recover(monitor)
    assert sinks.flush(30)
    assert (mended.kinds, mended.calls) == (["raised", "resolved"], 4)
    assert lines(caplog) == [] == lines(caplog, "seawall"), "nobody has to know"


def test_a_sink_that_is_down_says_so_once_and_gets_what_it_missed(sink, caplog, seawall_clock):
    sink.broken = ConnectionError("secret")
    monitor = watch(given=[sink])
    fail(monitor)
    assert settled() and sink.calls == 5, "four attempts, and one that opened the circuit"
    for _ in range(20):
        recover(monitor)
        fail(monitor)
    assert settled() and sink.calls == 5, "it costs nothing while it is left alone"
    assert not sinks.flush(0)
    seawall_clock.advance(30)
    assert settled() and sink.calls == 6
    seawall_clock.advance(30)
    assert settled() and sink.calls == 6, "it is left alone for longer"
    name = _delivery.label(sink)
    down = f"an alert could not be delivered to {name} (ConnectionError): alerts are kept and tried again later"
    assert lines(caplog) == [down]
    sink.broken = None
    seawall_clock.advance(600)
    assert sinks.flush(30)
    assert sink.alerts == monitor.alerts
    assert lines(caplog) == [down, f"alerts are delivered to {name} again; none was lost"]
    assert lines(caplog, "seawall") == [], "what its breaker and its retries do is not told beside"


def test_what_does_not_fit_makes_way_for_what_is_newer_and_is_counted(sink, caplog, seawall_clock):
    sink.broken = ConnectionError()
    monitor = watch(given=[sink])
    fail(monitor)
    assert settled()
    for _ in range(75):
        recover(monitor)
        fail(monitor)
    assert settled()
    sink.broken = None
    seawall_clock.advance(30)
    assert sinks.flush(30)
    # The first was under way; of the 150 after it the last 100 are left.
    assert sink.alerts[1:] == monitor.alerts
    assert sink.alerts[0].incident == 1
    name = _delivery.label(sink)
    assert lines(caplog)[1:] == [
        f"more than 100 alerts wait for {name}: the oldest are dropped",
        f"alerts are delivered to {name} again; 50 were lost",
    ]


def test_an_alert_that_cannot_be_delivered_stands_in_no_others_way(sink, seawall_no_waits, caplog):
    whole, name = [], _delivery.label(sink)

    def picky(alert):
        if alert.kind == "raised":
            raise KeyError("secret")
        whole.append(alert.kind)

    monitor = watch(given=[picky])
    fail(monitor)
    recover(monitor)
    assert sinks.flush(30)
    assert whole == ["resolved"] and name
    (first, second) = lines(caplog)
    assert first.endswith("picky (KeyError): that alert is lost") and second.endswith("picky again; 1 were lost")


@pytest.mark.parametrize("error", [BadRequestError("secret", status_code=400), APIConnectionError("secret")])
def test_what_is_no_use_trying_again_is_not(error, caplog, seawall_no_waits):
    sink = Sink(error)
    monitor = watch(given=[sink])
    fail(monitor)
    assert settled()
    assert sink.calls == (1 if isinstance(error, BadRequestError) else 5)
    said = (
        "BadRequestError 400): that alert is lost"
        if sink.calls == 1
        else "APIConnectionError): alerts are kept and tried again later"
    )
    assert len(lines(caplog)) == 1 and lines(caplog)[0].endswith(said)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(), StopIteration(), asyncio.CancelledError()])
def test_whatever_a_sink_raises_the_worker_lives(sink, error, seawall_no_waits):
    sink.broken = error
    monitor, well = watch(given=[sink]), Sink()
    monitor.add_sink(well)
    fail(monitor)
    recover(monitor)
    assert settled()
    assert well.kinds == ["raised", "resolved"] and sink.alerts == []


def test_a_sink_that_hangs_holds_up_no_other_and_no_call(caplog):
    hangs, goes_on, well = threading.Event(), threading.Event(), Sink()

    def stuck(alert):
        hangs.set()
        goes_on.wait(60)

    async def waits(alert):
        await asyncio.Event().wait()

    monitor = watch(given=[stuck, waits, well])
    for _ in range(10):
        fail(monitor)
        recover(monitor)
    assert hangs.wait(30)
    while len(well.alerts) < 20:
        assert not sinks.flush(0.05)
    goes_on.set()


def test_a_blocking_sink_that_outlasts_its_time_is_not_run_again(seawall_no_waits, monkeypatch):
    monkeypatch.setattr(_delivery, "LIMIT", 0.02)
    calls, goes_on = [], threading.Event()

    def slow(alert):
        calls.append(alert.kind)
        goes_on.wait(30)

    monitor = watch(given=[slow])
    fail(monitor)
    line = _delivery.line(slow)
    while not line.is_resting:
        sinks.flush(0.05)
    goes_on.set()
    # The attempts waited for the one call, and so does the next.
    assert calls == ["raised"] and line._jobs.qsize() == 0


def test_deliveries_are_no_calls_of_the_program(sink, seawall_no_waits, seawall_events):
    sink.broken = ConnectionError()
    with observe() as everything:
        fail(watch(given=[sink]))
        assert settled()
        sink.broken = None
        fail(watch(given=[sink, Sink()]))
        assert settled()
    assert everything.snapshot()["total"] == 0 and everything.alerts == []
    assert seawall_events == []


# -- where alerts come from ------------------------------------------------------------------------------------------


def test_alerts_come_from_threads_asyncio_and_trio(sink):
    async def in_asyncio():
        fail(watch("asyncio", given=[sink]))

    async def in_trio():
        fail(watch("trio", given=[sink]))

    thread = threading.Thread(target=lambda: fail(watch("thread", given=[sink])))
    thread.start()
    asyncio.run(in_asyncio())
    trio.run(in_trio)
    thread.join()
    assert sinks.flush(30) and {alert.name for alert in sink.alerts} == {"asyncio", "trio", "thread"}


async def test_a_sink_may_cause_alerts_and_flush_does_not_wait_for_itself():
    inner, heard = watch(), []

    @inner.add_sink
    async def second(alert):
        heard.append(alert.kind)

    async def first(alert):
        fail(inner)
        heard.append(sinks.flush(60))

    fail(watch(given=[first]))
    assert await asyncio.to_thread(sinks.flush, 30)
    assert heard == [False, "raised"]


def test_time_limits_of_the_call_are_not_those_of_the_delivery(sink):
    left = []

    async def looks(alert):
        left.append(remaining())

    monitor = watch(given=[looks])

    @Pipeline(Timeout(5))
    async def calls():
        assert remaining() < 5
        fail(monitor)

    asyncio.run(calls())
    assert sinks.flush(30) and 5 < left[0] <= 10


def test_from_many_threads_nothing_is_lost_and_nothing_comes_twice(sink):
    barrier, monitors = threading.Barrier(8), [watch(str(number), given=[sink]) for number in range(8)]

    def hammer(monitor):
        barrier.wait()
        for _ in range(MOST // 2):
            fail(monitor)
            recover(monitor)

    threads = [threading.Thread(target=hammer, args=(monitor,)) for monitor in monitors]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sinks.flush(30)
    for monitor in monitors:
        assert [alert for alert in sink.alerts if alert.name == monitor.name] == monitor.alerts
    assert len(sink.alerts) == 8 * MOST


@pytest.mark.parametrize("is_broken", [False, True])
def test_a_sink_that_nobody_uses_any_more_is_let_go(is_broken):
    class Lonely(Sink):
        pass

    sink = Lonely(BadRequestError("no", status_code=400) if is_broken else None)
    monitor = sink.monitor = watch(given=[sink])  # as where one object has both
    fail(monitor)
    assert sinks.flush(30) and sink.calls == 1
    (thread,) = [thread for thread in threading.enumerate() if thread.name.startswith("seawall ") and "Lonely" in thread.name]
    gone = weakref.ref(sink)
    del sink, monitor
    for _ in range(3):  # the worker's task is at its end: let its loop turn
        turned = threading.Event()
        _worker.soon(turned.set)
        assert turned.wait(30)
    # The sink's thread says that it is done before it lets the sink go, and nothing rings when it has.
    for _ in range(600):
        gc.collect()
        thread.join(0.05)
        if not thread.is_alive():
            break
    assert not thread.is_alive() and gone() is None


def test_a_copied_monitor_tells_the_same_functions():
    monitor = watch(given=[ring_the_bell])
    monitor.add_sink(sinks.LogSink(), level="critical")
    for twin in (copy.copy(monitor), copy.deepcopy(monitor), pickle.loads(pickle.dumps(monitor))):
        assert twin.sinks[0] is ring_the_bell and isinstance(twin.sinks[1], sinks.LogSink)
        assert [outlet.level for outlet in twin.__getstate__()["callbacks"]] == ["warning", "critical"]


def ring_the_bell(alert):
    """A sink that pickles."""


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"sinks": print}, "sinks must be a list of sinks, not print"),
        ({"sinks": "log"}, "sinks must be a list of sinks, not 'log' \\(str\\)"),
        ({"sinks": 7}, "sinks must be a list of sinks"),
        ({"sinks": ["log"]}, "sink must be one of seawall.sinks or a function of an alert, not 'log' \\(str\\)"),
        ({"sinks": [sinks.LogSink]}, "sink must be made by a call, as in LogSink\\(…\\)"),
        ({"sink": print, "level": "error"}, "level must be one of warning, critical, emergency, not 'error'"),
        ({"sink": print, "level": "normal"}, "level must be one of warning"),
        ({"sink": print, "level": 3}, "level must be one of warning"),
    ],
)
def test_what_is_no_sink_is_refused(given, says):
    with pytest.raises(ConfigurationError, match=says):
        Monitor(**given) if "sinks" in given else Monitor().add_sink(**given)


def test_a_generator_is_no_sink():
    def generator(alert):
        yield alert

    with pytest.raises(ConfigurationError, match="not a generator"):
        Monitor(sinks=[generator])


def test_a_sink_is_named_without_what_it_was_made_with(caplog, seawall_no_waits):
    def post(token, alert):
        raise ConnectionError(token)

    monitor = watch(given=[functools.partial(post, "t0ken")])
    fail(monitor)
    assert settled()
    assert "to partial (ConnectionError)" in caplog.text and "t0ken" not in caplog.text


def test_in_a_tests_time_a_delivery_has_as_long_as_it_takes():
    begun, goes_on, calls = threading.Event(), threading.Event(), []

    async def slow(alert):
        calls.append(alert.kind)
        asyncio.get_running_loop().call_soon(begun.set)  # once it waits
        await asyncio.to_thread(goes_on.wait, 30)

    with testing.clock() as clock:
        fail(watch(given=[slow]))
        assert begun.wait(30)
        clock.advance(3600)
        goes_on.set()
        assert sinks.flush(30) and calls == ["raised"]


# -- processes -------------------------------------------------------------------------------------------------------


def run(program, **kwargs):
    return subprocess.run(
        [sys.executable, "-X", "dev", "-c", program], capture_output=True, text=True, timeout=120, check=False, **kwargs
    )


EXITING = r"""
import seawall, sys, threading, asyncio
from seawall import _delivery

_delivery.AT_EXIT = SECONDS  # the machine may be busy

async def later(alert):
    await asyncio.sleep(0)
    sys.stdout.write(f"async {alert.kind}\n")

def plain(alert):
    sys.stdout.write(f"plain {alert.kind}\n")

def hangs(alert):
    threading.Event().wait()

def broken(alert):
    raise ConnectionError

monitor = seawall.Monitor(10, sinks=[later, plain, seawall.sinks.LogSink(), SINKS])
for _ in range(5):
    monitor.record(False)
"""


@pytest.mark.parametrize(
    ("more", "seconds", "ending"),
    [
        ("", 60, ""),
        ("", 60, "sys.exit(0)"),
        ("", 60, "threading.Thread(target=seawall.sinks.flush).start()"),
        ("hangs", 20, ""),
        ("broken", 60, "sys.exit(0)"),
    ],
)
def test_at_the_end_of_a_program_alerts_get_a_moment(more, seconds, ending):
    done = run(EXITING.replace("SINKS", more).replace("SECONDS", str(seconds)) + ending)
    assert done.returncode == 0
    assert sorted(done.stdout.splitlines()) == ["async raised", "plain raised"], done.stderr
    shown = [line for line in done.stderr.splitlines() if line and "ALERT" not in line]
    assert shown == [] or (more == "broken" and len(shown) == 1), done.stderr


def test_a_forked_child_has_an_empty_queue_and_a_worker_of_its_own(forking):
    program = (
        forking
        + """
import seawall, threading
from seawall import sinks, _delivery

def sink(alert):
    if os.getpid() == first:
        raise ConnectionError
    print("child", alert.name, alert.kind, flush=True)

parent = seawall.Monitor(10, "parent", sinks=[sink])
for _ in range(5):
    parent.record(False)
with seawall.testing.no_waits():
    assert _delivery.flush(60, resting=False)
for _ in range(10):
    parent.record(True)
assert _delivery.pending() > 1

def work():
    assert _delivery.pending() == 0
    own = seawall.Monitor(10, "own", sinks=[lambda alert: sink(alert)])
    for monitor in (own,):
        for _ in range(5):
            monitor.record(False)
    assert sinks.flush(30)

for _ in range(3):
    assert forked(work) == 0
assert _delivery.pending() > 1
print("well")
os._exit(0)
"""
    )
    done = run(program)
    assert done.stdout == "child own raised\n" * 3 + "well\n", done.stderr


def test_whoever_needs_no_sinks_loads_none():
    program = "import seawall, sys; m = seawall.Monitor(); [m.record(False) for _ in range(9)]; print([n for n in ('asyncio', 'seawall.sinks', 'seawall._worker') if n in sys.modules])"
    assert run(program).stdout == "[]\n"
