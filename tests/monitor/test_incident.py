"""The document's incident, in the document's own program: part 3 of program 3 on `seawall.MonitoringSystem`, against the simulator."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import pytest
from _canary import CANARY

from seawall import Monitor, MonitoringSystem, sinks
from seawall.errors import APIStatusError
from seawall.langchain import ChatOpenAI
from seawall.llm import Chat
from seawall.simulator import faults

PROGRAM = Path(__file__).parents[2] / "examples" / "drop_in" / "3_monitoring.py"


@pytest.fixture
def program(sim, monkeypatch, capsys):
    """What part 3 of the program defines."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    monkeypatch.setenv("OPENAI_BASE_URL", sim.base_url)
    text = PROGRAM.read_text(encoding="utf-8")
    names = {"ChatOpenAI": ChatOpenAI, "MonitoringSystem": MonitoringSystem, "time": time}
    exec(text[text.index("# ===== 3.") : text.index("# ===== 4.")], names)
    return names


def test_fifty_failures_and_recovery_are_told_in_at_most_three_lines(program, sim, caplog, seawall_no_waits):
    caplog.set_level(logging.INFO, logger="seawall.monitor")
    told, delivered, failed = [], [], 0

    def lines():
        return [record for record in caplog.records if record.name == "seawall.monitor"]

    program["monitor"].add_sink(delivered.append)

    def ask(times):
        nonlocal failed
        for _ in range(times):
            try:
                program["monitored_invoke"]("什么是Python？")
            except Exception:
                failed += 1
            told.extend([failed] * (len(lines()) - len(told)))

    ask(100)
    assert told == []
    sim.on("gpt-4", faults.overloaded())
    ask(50)
    sim.clear()
    ask(100)
    assert failed == 50 and sim.count() == 100 + 3 * 50 + 100
    kinds = [record.alert_kind for record in lines()]
    assert kinds.count("raised") == kinds.count("resolved") == 1 and kinds.count("escalated") <= 1 and len(kinds) <= 3
    assert told[0] < 10, "the first before the tenth failed call"
    assert sinks.flush(30) and [alert.kind for alert in delivered] == kinds


def test_a_total_outage_is_told_before_the_tenth_failed_call_by_a_guard_too(sim, seawall_no_waits):
    monitor, told = Monitor(100), []
    monitor.on_alert(lambda alert: told.append(monitor.snapshot()["lifetime"]["errors"]))
    sim.on("gpt-4", faults.overloaded())
    from seawall import Pipeline, Retry

    guarded = Pipeline(Retry(2), monitor=monitor)(
        ChatOpenAI(model="gpt-4", api_key=CANARY, base_url=sim.base_url, max_retries=0).invoke
    )
    for _ in range(20):
        with pytest.raises(Exception, match="503|529"):
            guarded("hello")
    assert told == [5]


@pytest.mark.parametrize("how", ["sync", "async", "stream"])
async def test_calls_of_the_native_client_raise_alerts_on_its_own_threads(sim, how):
    delivered = []
    monitor = Monitor(10, sinks=[delivered.append])
    sim.on("gpt-4", faults.overloaded())
    chat = Chat("gpt-4", api_key=CANARY, base_url=sim.base_url, max_retries=0, monitor=monitor)
    for _ in range(5):
        with pytest.raises(APIStatusError):
            if how == "sync":
                chat.invoke("hello")
            elif how == "async":
                await chat.ainvoke("hello")
            else:
                list(chat.stream("hello"))
    # The call is over before its alert is told, which nobody waits for.
    while not monitor.alerts:
        pass
    while not delivered:
        sinks.flush(30)
    assert [alert.kind for alert in delivered] == ["raised"]
