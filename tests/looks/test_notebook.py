"""A real notebook, in a real kernel: what it shows, and a display that is brought up to date in place."""

from __future__ import annotations

from typing import Any

import nbclient
import nbformat
import pytest

CELLS = (
    # 0: the objects themselves.
    """
import seawall
monitor = seawall.Monitor(name="answers")
breaker = seawall.CircuitBreaker(1, name="api")
breaker""",
    # 1: as a `with` block; the work waits for the display, not for a time.
    """
import threading
drawn = threading.Semaphore(0)
with monitor.live(0.05) as live:
    draw = live._display.draw
    live._display.draw = lambda *args, **how: (draw(*args, **how), drawn.release())
    for number in range(3):
        monitor.record(True, latency=0.1)
        assert drawn.acquire(timeout=20)""",
    # 2 and 3: begun in one cell, ended in another.
    "live = monitor.live(0.05)",
    """
monitor.record(False)
live.stop()""",
    # 4: what goes wrong in a cell ends the display.
    """
try:
    with monitor.live():
        raise KeyError
except KeyError:
    pass
live.running""",
    "seawall.explain(breaker)",
    "seawall.circuits",
)


class Watching(nbclient.NotebookClient):
    """Keeps what the kernel sends."""

    def process_message(self, msg: Any, cell: Any, cell_index: int) -> Any:
        self.heard.append((cell_index, msg["msg_type"], msg["content"]))
        return super().process_message(msg, cell, cell_index)


@pytest.fixture(scope="module")
def run() -> tuple[Any, list[tuple[int, str, Any]]]:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source.strip()) for source in CELLS])
    client = Watching(notebook, timeout=120, kernel_name="python3")
    client.heard = []
    client.execute()
    return notebook, client.heard


def shown(notebook: Any, cell: int) -> dict[str, str]:
    (output,) = (found for found in notebook.cells[cell].outputs if "data" in found)
    return dict(output.data)


def test_objects_are_shown_as_pictures_and_as_text(run: Any):
    notebook, _ = run
    for cell, said in ((0, "Circuit breaker"), (5, "Explanation"), (6, "Circuits of this process")):
        data = shown(notebook, cell)
        assert said in data["text/html"] and "api" in data["text/plain"]


def test_a_live_display_is_brought_up_to_date_in_place(run: Any):
    notebook, heard = run
    drawn = [(kind, content) for cell, kind, content in heard if cell == 1 and "display_data" in kind]
    assert [kind for kind, _ in drawn[:1]] == ["display_data"] and {kind for kind, _ in drawn[1:]} == {"update_display_data"}
    assert len(drawn) >= 4
    assert len({content["transient"]["display_id"] for _, content in drawn}) == 1
    assert "No calls yet" in drawn[0][1]["data"]["text/html"] and "live, at" in drawn[-2][1]["data"]["text/html"]
    # What is kept in the notebook is the last state.
    data = shown(notebook, 1)
    assert "ended at" in data["text/html"] and "3 calls" in data["text/plain"]


def test_a_display_ends_from_another_cell(run: Any):
    notebook, _ = run
    assert "ended at" in shown(notebook, 2)["text/html"] and "4 calls" in shown(notebook, 2)["text/plain"]


def test_a_display_ends_with_its_block(run: Any):
    notebook, _ = run
    outputs = notebook.cells[4].outputs
    assert outputs[-1].data["text/plain"] == "False"
    assert "ended at" in outputs[0].data["text/html"]
