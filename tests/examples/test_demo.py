"""What `make demo` shows, and how it ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from _programs import HERE, PROGRAMS, SCENARIOS, Fleet, Run, original
from demo import beside, crashes, table, width
from seawall.simulator import Simulator

DEMO = [sys.executable, str(HERE / "demo.py")]


def test_the_table_has_a_row_for_each_program_and_scenario_with_the_servers_numbers(shown, runs):
    rows = [line.split() for line in table(list(runs.values())).splitlines()]
    counts = [row[-5] for row in rows if len(row) > 6 and "/" in row[-6]]
    assert counts == [str(len(runs[program.number, scenario.name].requests)) for program in PROGRAMS for scenario in SCENARIOS]
    assert [row for row in table(list(runs.values())).splitlines() if row not in shown.screen] == []
    assert table(list(runs.values())) in shown.screen


def test_every_run_is_reported_as_it_ends(shown):
    for program in PROGRAMS:
        assert shown.screen.count(f"  {program.file} ") == len(SCENARIOS)


def test_columns_align_under_chinese_titles():
    runs = [Run(p.file, s.name, "", exit_code=0, calls=7, seconds=p.number, requests=[]) for p in PROGRAMS for s in SCENARIOS]
    lines = [line for line in table(runs).splitlines() if line]
    assert len(lines) == len(runs) + 3
    assert {width(line) for line in lines} == {width(lines[0])}


def test_a_program_that_did_not_end_is_named_as_such():
    crashed = Run(PROGRAMS[0].file, "healthy", "", exit_code=1, requests=[])
    hung = Run(PROGRAMS[1].file, "healthy", "", exit_code=None, requests=[])
    rows = table([crashed, hung]).splitlines()
    assert rows[2].endswith("crashed")
    assert rows[4].endswith("hung")


def test_ctrl_c_stops_the_demo_and_every_program_at_once(tmp_path):
    process = subprocess.Popen(
        [*DEMO, "--folder", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        start_new_session=True,
    )
    first = next(line for line in iter(process.stdout.readline, "") if re.search(r" \d+ of +\d+ answered ", line))
    process.send_signal(signal.SIGINT)
    rest, errors = process.stdout.read(), process.stderr.read()
    process.communicate(timeout=30)
    assert "healthy" in first
    assert process.returncode == 130
    assert errors == "\nstopped, and every program with it\n"
    assert "openings" not in rest  # no table of half a run
    with pytest.raises(ProcessLookupError):  # the programs were in the demo's process group: nobody is left in it
        os.killpg(process.pid, 0)


def test_the_real_service_is_not_used_without_a_key(tmp_path):
    ended = subprocess.run(
        [*DEMO, "--live", "--folder", str(tmp_path)],
        env={**os.environ, "OPENAI_API_KEY": ""},  # set, though empty: a .env does not replace it
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert "needs your key: set OPENAI_API_KEY" in ended.stderr
    assert list(tmp_path.iterdir()) == []


def test_live_asks_the_callers_own_service_with_the_callers_key(tmp_path):
    with Simulator(api_keys=["sk-my-own"]) as service:
        ended = subprocess.run(
            [*DEMO, "--live", "--folder", str(tmp_path)],
            env={**os.environ, "OPENAI_API_KEY": "sk-my-own", "OPENAI_BASE_URL": service.base_url},
            capture_output=True,
            text=True,
            encoding="utf-8",
            check=False,
        )
        assert ended.returncode == 0, ended.stderr
        assert len(service.requests) == sum(program.calls for program in PROGRAMS)
        assert {request.fault for request in service.requests} == {"ok"}
    assert "sk-my-own" not in ended.stdout + "".join(path.read_text("utf-8") for path in Path(tmp_path).rglob("*.*"))


def test_the_originals_stand_beside_ours(tmp_path):
    said = tmp_path / "said.txt"
    said.write_text("Traceback\nAttributeError: no with_retry\n", encoding="utf-8")
    ours = [Run(p.file, s.name, "", "seawall", 0, 3, 3, 1.25, requests=[]) for p in PROGRAMS for s in SCENARIOS]
    theirs = [Run(p.file, s.name, str(said), "original", 1, 0, 3, 9.0, requests=[]) for p in PROGRAMS for s in SCENARIOS]
    theirs[0] = Run(PROGRAMS[0].file, SCENARIOS[0].name, "", "original", None, 2, 7, 300.0, requests=[])
    lines = [line for line in beside(ours + theirs).splitlines() if line]
    assert len(lines) == len(ours) + 4
    assert {width(line) for line in lines[1:]} == {width(lines[1])}
    assert lines[0].split() == ["seawall", "original"]
    assert lines[3].split()[-6:] == ["3/3", "0", "1.2", "2/7", "0", "hung"]
    assert lines[4].split()[-6:] == ["3/3", "0", "1.2", "0/3", "0", "crashed"]
    assert crashes(ours + theirs).splitlines()[0] == f"{PROGRAMS[0].file} crashes: AttributeError: no with_retry"
    assert len(crashes(ours + theirs).splitlines()) == len(PROGRAMS)


async def test_an_original_runs_on_its_own_libraries_and_crashes_where_it_does(tmp_path):
    peers = original(sys.executable)  # they are here as well: the tests need them
    assert "langchain-openai " in (peers.versions() or "")
    fleet = Fleet(SCENARIOS[:1], tmp_path, (peers,))
    fleet.cases = [case for case in fleet.cases if case[0].number in {1, 4}]
    runs = {run.program: run async for run in fleet.runs()}
    well, crashed = runs["1_circuit_breaker"], runs["4_production_rag"]
    assert (well.ended, well.answers, len(well.requests or ())) == (True, 7, 7)
    assert (crashed.ended, crashed.answers, crashed.requests) == (False, 0, [])
    assert crashed.last_line.startswith("AttributeError: 'OpenAIEmbeddings'")
    programs = [path.read_text(encoding="utf-8") for path in tmp_path.rglob("*.original.py")]
    assert len(programs) == 2 and not any("seawall" in program for program in programs)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--peers", "no-python-here"], "make demo PEERS=1 installs them"),
        (["--peers", sys.executable, "--live"], "leave --peers or"),
    ],
)
def test_originals_that_cannot_be_run_are_told_of_at_once(tmp_path, options, said):
    command = [*DEMO, *options, "--folder", str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)
    assert ended.returncode == 2
    assert said in " ".join(ended.stderr.split())
    assert list(tmp_path.iterdir()) == []
