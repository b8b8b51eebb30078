"""The notebooks run from beginning to end, and show what they were saved with."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest

from _programs import HERE

FOLDER = HERE / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("[1-9]_*.ipynb"))
# In real time (the live chart), or in an order of tasks that is the loop's own: there only the numbers may differ.
UNLIKE = {"3_monitoring": ["on average", "needed a retry"], "5_choosing_settings": [""]}
# What has to be seen at the least.
SHOWN = {
    "1_circuit_breaker": ["5 failures in a row", "turned away", "with    the breaker:  7 requests", "without the breaker: 72"],
    "2_self_healing_agent": ["After 7 requests.", "After 1 request.", "self_healed      1", "the weather is unknown today"],
    "3_monitoring": ["raised       emergency", "resolved     normal", "retried", "gpt-4o-mini"],
    "4_production_rag": ["right page first: 7 of 8", "requests: 8, seconds", "requests: 0, seconds: 0"],
    "5_choosing_settings": ["no breaker", "turned away too long"],
}
FIGURES = {"1_circuit_breaker": 1, "2_self_healing_agent": 0, "3_monitoring": 1, "4_production_rag": 1, "5_choosing_settings": 4}


@pytest.fixture(scope="module")
def execute() -> Any:
    spec = importlib.util.spec_from_file_location("execute_notebooks", FOLDER / "execute.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def lines(notebook: Any) -> list[str]:
    """What a notebook says in text, with each picture as its kind."""
    said = []
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            if output.output_type == "stream":
                assert output.name == "stdout", output.text
                said += output.text.splitlines()
            else:
                said += [*sorted(output.data), *output.data["text/plain"].splitlines()]
    return said


def compared(said: list[str], stem: str) -> list[str]:
    """Without the numbers where they may differ, the little bars of a live chart, and alerts: those are told by a thread of its own."""
    # Such a line may come between a line that is printed and its end.
    said = re.sub(r"   seawall: \[agent\] ALERT.*\n", "", "\n".join([*said, ""])).splitlines()
    loose = UNLIKE.get(stem, ())
    free = [re.sub(r" *[\d.]+", " N", line) if any(part in line for part in loose) else line for line in said]
    return [re.sub(r".*live: 240 calls.*", "live", line) for line in free]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_shows_what_it_was_saved_with(execute: Any, path: Path):
    saved = nbformat.read(path, as_version=4)
    fresh = execute.executed(path)
    assert compared(lines(fresh), path.stem) == compared(lines(saved), path.stem)
    text = "\n".join(lines(fresh))
    for words in SHOWN[path.stem]:
        assert words in text
    assert text.count("image/svg+xml") == FIGURES[path.stem]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_is_saved_is_small_and_whole_and_tells_nothing_of_the_machine(execute: Any, path: Path):
    text = path.read_text(encoding="utf-8")
    notebook = nbformat.read(path, as_version=4)
    assert len(text) < 250_000
    assert execute.tidy(nbformat.reads(text, as_version=4)) == notebook
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert set(re.findall(r"sk-\w+", text)) <= {"sk-test"}
    for word in ("site-packages", str(Path.home()), "Traceback"):
        assert word not in text


def test_there_are_five_and_each_leads_to_files_that_are_there():
    assert [path.stem for path in NOTEBOOKS] == list(SHOWN)
    for path in NOTEBOOKS:
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type == "markdown":
                for target in re.findall(r"\]\((?!https?:)([^)#]+)", cell.source):
                    assert (FOLDER / target).exists(), (path.name, target)
