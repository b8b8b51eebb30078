"""Several processes as one: real forks, real kills, and gunicorn; nothing is counted twice, and nothing is lost with its process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import fetched, parsed

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")

BEGIN = """
import gc, json, multiprocessing, os, signal, sys, time
import seawall
from seawall.telemetry import prometheus

directory = sys.argv[1]
breaker = seawall.CircuitBreaker(1, 60, name="b")

@seawall.guard(name="work")
def work():
    pass

@breaker
def fails():
    raise ValueError

def times(n):
    for _ in range(n):
        work()

def page():
    return prometheus.render()[0].decode()

def calls():
    lines = [line for line in page().splitlines() if line.startswith("seawall_calls_total")]
    return sum(float(line.split()[-1]) for line in lines if 'pipeline="work"' in line)

def processes():
    return float(next(line for line in page().splitlines() if line.startswith("seawall_processes")).split()[-1])

def until(what):
    while not what():  # another process writes a file: nothing rings
        time.sleep(0.01)
"""


@pytest.fixture
def ran(forking: str, tmp_path: Path):
    return lambda program: _ran(tmp_path, forking + BEGIN + program)


def _ran(tmp_path: Path, program: str) -> dict:
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path / "metrics")], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_forked_workers_count_from_zero_and_are_told_together(ran):
    told = ran(
        """
prometheus.start(directory)
times(5)
try: fails()
except ValueError: pass
def worker():
    times(10)
    try: fails()
    except seawall.CircuitBreakerError: pass
    prometheus._end()
codes = [forked(worker) for _ in range(3)]
print(json.dumps({"codes": codes, "calls": calls(), "processes": processes(), "files": sorted(os.listdir(directory)),
    "lines": [line for line in page().splitlines() if line.startswith("seawall_circuit")]}))
""",
    )
    assert (told["codes"], told["calls"], told["processes"]) == ([0, 0, 0], 35, 1)
    assert 'seawall_circuit_openings_total{name="b"} 1.0' in told["lines"], "one opening, not one per process"
    assert 'seawall_circuit_rejections_total{name="b"} 3.0' in told["lines"]
    assert 'seawall_circuit_state{name="b",state="open"} 1.0' in told["lines"], "of the living"


def test_a_child_of_multiprocessing_writes_what_it_counted_last(ran):
    told = ran(
        """
prometheus.start(directory)
context = multiprocessing.get_context("fork")
children = [context.Process(target=times, args=(7,)) for _ in range(4)]
[child.start() for child in children]
[child.join() for child in children]
print(json.dumps({"calls": calls()}))
""",
    )
    assert told["calls"] == 28


def test_a_worker_that_is_killed_leaves_its_counts_and_none_of_its_gauges(ran):
    told = ran(
        """
prometheus.start(directory)
times(1)
def worker():
    times(10)
    signal.pause()
children = []
for _ in range(2):
    child = os.fork()
    if not child:
        end(worker)
    children.append(child)
until(lambda: calls() == 21 and processes() == 3)
for child in children:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
alive = processes()
assert forked(lambda: times(1)) == 0  # it joins, and puts away what is left of the others
gone = os.path.exists(os.path.join(directory, "seawall-gone.json"))
print(json.dumps({"calls": calls(), "alive": alive, "gone": gone}))
""",
    )
    assert told["alive"] == 1 and told["gone"]
    assert told["calls"] in (21, 22), "of the last, which ended by os._exit, nobody can say"


def test_a_child_does_not_keep_its_parent_alive(ran):
    told = ran(
        """
prometheus.start(directory)
over, here = os.pipe()
parent = os.fork()
if not parent:
    os.close(here)
    exporter = prometheus.serve(0)
    if not os.fork():
        end(lambda: os.read(over, 1))  # until this program is over
    end(signal.pause)
until(lambda: processes() == 3)
os.kill(parent, signal.SIGKILL)
os.waitpid(parent, 0)
print(json.dumps({"processes": processes()}))
"""
    )
    assert told["processes"] == 2


def test_many_readers_while_workers_come_and_go_see_counters_that_only_grow(ran):
    told = ran(
        """
prometheus.start(directory)
reading = os.fork()
if not reading:
    def read():
        seen = 0
        while not os.path.exists(directory + "/over"):
            now = calls()
            assert now >= seen, (now, seen)
            seen = now
    end(read)
def worker():
    times(10)
    prometheus._end()
codes = [forked(worker) for _ in range(40)]
total = calls()
open(directory + "/over", "w").close()
code = os.waitstatus_to_exitcode(os.waitpid(reading, 0)[1])
codes.append(forked(worker))  # nobody reads while it puts away what is left of the others
files = sorted(name.rpartition(".")[2] for name in os.listdir(directory))
print(json.dumps({"codes": codes, "total": [total, calls()], "reader": code, "files": files}))
""",
    )
    assert set(told["codes"]) == {0} and told["total"] == [400, 410] and told["reader"] == 0
    left = [name for name in told["files"] if name in ("alive", "json")]
    assert left == ["alive", "alive", "json", "json", "json"], "of this one, of the last one, and of all that are gone in one"


def test_a_server_is_its_process_s_alone_and_the_child_may_have_its_own(ran):
    told = ran(
        """
import urllib.request
exporter = prometheus.serve(0, directory=directory)
def child():
    assert exporter.closed
    with prometheus.serve(0) as mine:
        times(1)
        assert b"seawall_processes 2.0" in urllib.request.urlopen(mine.url).read()
code = forked(child)
print(json.dumps({"code": code, "open": not exporter.closed}))
""",
    )
    assert told == {"code": 0, "open": True}


def test_prometheus_multiproc_dir_is_the_directory_where_none_is_given(tmp_path):
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "shared")}
    program = "import seawall; from seawall.telemetry import prometheus; prometheus.start(); seawall.guard(name='w')(lambda: 0)()"
    for _ in range(3):
        subprocess.run([sys.executable, "-c", program], env=environment, check=True)
    reader = "from seawall.telemetry import prometheus; print(prometheus.render()[0].decode())"
    page = subprocess.run([sys.executable, "-c", reader], env=environment, check=True, capture_output=True, text=True).stdout
    calls = {labels: value for (name, labels), value in parsed(page).items() if name == "seawall_calls_total"}
    assert list(calls.values()) == [3]


def test_files_that_are_no_numbers_are_told_of_and_break_nothing_else(ran):
    told = ran(
        """
os.makedirs(directory)
open(directory + "/seawall-1-a.alive", "w").close()
open(directory + "/seawall-1-a.json", "w").write('{"absorbed": [], "metrics": [["seawall_no_such_total", [[["x"], {"Number": 1.0}]]], '
    '["seawall_calls_total", [[["too", "few"], {"Number": 1.0}]]]]}')
open(directory + "/counter_1.db", "w").close()
prometheus.start(directory)
times(2)
print(json.dumps({"calls": calls(), "files": os.listdir(directory)}))
""",
    )
    assert told["calls"] == 2 and "counter_1.db" in told["files"] and "seawall-1-a.json" not in told["files"]


CONFIGURATION = """
bind = "127.0.0.1:0"
workers = 3
preload_app = {preload}
def when_ready(server):
    from seawall.telemetry import prometheus
    exporter = prometheus.serve(0, directory={directory!r})
    open({told!r}, "w").write(exporter.url + " " + str(server.LISTENERS[0].getsockname()[1]) + "\\n")
"""
APP = """
import os
import seawall

@seawall.guard(name="view")
def view():
    return str(os.getpid()).encode()

def app(environ, start_response):
    start_response("200 OK", [])
    return [view()]
"""


@pytest.mark.parametrize("preload", [False, True])
def test_gunicorn(tmp_path, preload):
    told = tmp_path / "told"
    os.mkfifo(told)
    configuration = CONFIGURATION.format(preload=preload, directory=str(tmp_path / "metrics"), told=str(told))
    (tmp_path / "configuration.py").write_text(configuration)
    (tmp_path / "web.py").write_text(APP)
    command = [sys.executable, "-m", "gunicorn", "-c", "configuration.py", "web:app"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL) as server:
        try:
            url, port = told.read_text().split()
            asked = 0
            workers = set()
            while len(workers) < 2 or asked < 30:
                workers.add(fetched(f"http://127.0.0.1:{port}/")[0])
                asked += 1
            os.kill(int(workers.pop()), signal.SIGTERM)  # another takes its place
            for _ in range(10):
                fetched(f"http://127.0.0.1:{port}/")
                asked += 1

            def calls():
                page = parsed(fetched(url)[0])
                return sum(
                    value
                    for (name, labels), value in page.items()
                    if name == "seawall_calls_total" and ("pipeline", "view") in labels
                )

            while calls() != asked:
                assert calls() <= asked
        finally:
            server.terminate()
