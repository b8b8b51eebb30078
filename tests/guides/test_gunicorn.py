"""The configuration of docs/guides/gunicorn.md with the app of the FastAPI page: two real workers."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from seawall.simulator import Simulator, faults

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")

QUESTION = json.dumps({"text": "Why is the sea salty?"})


class Service:
    """gunicorn as the page starts it, and its log."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.log: list[str] = []
        self.place = self.told(r"Listening at: http://(\S+)")
        self.metrics = self.told(r"metrics of all workers at (\S+)")

    def told(self, pattern: str) -> str:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(line)
            if found := re.search(pattern, line):
                return found[1]
        raise AssertionError("".join(self.log))

    def ask(self, path: str) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        """On a connection of its own, so that any worker may take it."""
        connection = http.client.HTTPConnection(self.place, timeout=30)
        connection.request("POST", path, QUESTION, {"content-type": "application/json"})
        return connection, connection.getresponse()

    def open_circuits(self) -> int:
        with urllib.request.urlopen(self.metrics, timeout=30) as page:
            text = page.read().decode()
        found = re.search(r'^seawall_circuit_state\{name="gpt-4o-mini",state="open"\} (\S+)', text, re.MULTILINE)
        return int(float(found[1])) if found else 0


@pytest.fixture
def service(program: Callable[[str, str], Path], at_the_simulator: Simulator, tmp_path: Path) -> Iterator[Service]:
    program("fastapi.md", "app.py")
    program("gunicorn.md", "gunicorn.conf.py")
    # On a busy machine gunicorn's own worker may wait its whole graceful_timeout for a connection that is gone.
    soon = {"GUNICORN_CMD_ARGS": "--graceful-timeout 10"}
    of_its_own = {**soon, "BIND": "127.0.0.1:0", "METRICS": str(tmp_path / "metrics"), "METRICS_PORT": "0", "HOME": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-m", "gunicorn"], cwd=tmp_path, env={**os.environ, **of_its_own}, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield Service(process)
        finally:
            process.kill()


def test_each_worker_finds_the_outage_out_and_one_page_tells_of_all(service, at_the_simulator):
    at_the_simulator.on("*", faults.status(503))
    for _ in range(2000):  # which worker takes a connection is the kernel's choice
        if service.open_circuits() == 2:
            break
        connection, answer = service.ask("/ask")
        assert answer.status == 503
        answer.close()
        connection.close()
    assert (service.open_circuits(), at_the_simulator.count("gpt-4o-mini")) == (2, 2 * 5)


def test_a_client_that_goes_cuts_its_stream_and_a_stop_lets_the_others_finish(service, at_the_simulator):
    at_the_simulator.on("*", faults.stall(3), times=1)
    at_the_simulator.on("*", faults.drip(0.01, 20), after=1)
    connection, answer = service.ask("/stream")
    assert answer.readline() == b"event: piece\n"
    answer.close()
    connection.close()
    at_the_simulator.wait_aborted(1)
    connection, answer = service.ask("/stream")
    assert answer.readline() == b"event: piece\n"
    service.process.send_signal(signal.SIGTERM)
    assert answer.read().decode().endswith('event: end\ndata: ""\n\n')
    connection.close()
    assert service.process.wait(60) == 0
    assert at_the_simulator.count() == 2
