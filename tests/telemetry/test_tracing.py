"""What the core says through `tracing`, in Python's log: off by default, names and numbers only."""

from __future__ import annotations

import logging

import pytest
from _canary import CANARY

import seawall
from seawall import errors
from seawall.llm import Chat
from seawall.simulator import faults
from seawall.telemetry import _delivery, tracing

from .conftest import QUICK


@pytest.fixture
def heard(caplog):
    def lines(level=0):
        _delivery.tell()
        found = [
            (record.name, record.levelno, record.getMessage())
            for record in caplog.records
            if record.name.startswith("seawall.core")
        ]
        caplog.clear()
        return found

    yield lines
    tracing(None)
    logging.getLogger("seawall.core").setLevel(logging.NOTSET)


def test_the_core_says_what_it_does(sim, heard):
    sim.on("gpt-4o", faults.status(500), times=1)
    model = Chat("gpt-4o", api_key=CANARY, base_url=sim.base_url).with_retry(wait=QUICK)
    model.invoke("unheard")
    assert heard() == []
    tracing()
    sim.on("gpt-4o", faults.status(500), times=1)
    model.invoke("my private words")
    lines = heard()
    place = sim.base_url.split("/")[2]
    assert [(name, text.split(" ")[0]) for name, _, text in lines] == [
        ("seawall.core.client", "request"),
        ("seawall.core.client", "response"),
        ("seawall.core.policy", "retry.scheduled"),
        ("seawall.core.client", "request"),
        ("seawall.core.client", "response"),
    ]
    assert f'place="{place}" model="gpt-4o"' in lines[0][2] and "status=500" in lines[1][2] and "status=200" in lines[4][2]
    assert all(level == logging.DEBUG for _, level, _ in lines)
    text = str(lines)
    assert "private" not in text and "secret" not in text
    tracing("WARNING")
    model.invoke("x")
    assert heard() == []
    tracing(None)
    model.invoke("x")
    assert heard() == []


def test_a_connection_that_fails_is_told_by_its_class(heard):
    tracing(logging.DEBUG)
    with pytest.raises(errors.APIConnectionError):
        Chat("m", api_key=CANARY, base_url="http://127.0.0.1:9/v1", max_retries=0).invoke("x")
    lines = heard()
    assert lines[1][2].startswith('no response place="127.0.0.1:9" model="m"') and 'error="APIConnectionError"' in lines[1][2]


def test_what_is_no_level_is_refused():
    for level in ("LOUD", -1, True, 3.5, 1000):
        with pytest.raises(seawall.ConfigurationError, match="level must be a level of logging"):
            tracing(level)
