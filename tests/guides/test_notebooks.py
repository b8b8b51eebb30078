"""The cells of docs/guides/notebooks.md in a real kernel, one after the other, and what its Stop does."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
from typing import Any

import nbclient
import nbformat
import pytest
from _canary import CANARY

from seawall.simulator import Simulator, faults

from .conftest import GUIDES

# What asks a person for a key is not run.
CELLS = [
    cell
    for cell in re.findall(r"^```py(?:thon)?\n(.*?)^```\n", (GUIDES / "notebooks.md").read_text(encoding="utf-8"), re.M | re.S)
    if "getpass" not in cell
]
# Each waits for ever, until it is stopped; with the requests that it has sent by then.
STOPPED = {"chat.invoke('x')": 1, "list(chat.stream('x'))": 1, "chat.batch(['x', 'y'])": 2}


def executed(cells: list[str], started: Any = None) -> list[Any]:
    """The cells as they come out."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
    client = nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3", allow_errors=started is not None)
    client.on_cell_start = lambda cell, cell_index: started and started(client, cell_index)
    client.execute()
    return notebook.cells


def test_the_cells_of_the_page():
    assert len(CELLS) > 6 and any("await " in cell for cell in CELLS)
    outputs = [output for cell in executed(CELLS) for output in cell.outputs]
    pictures = [output.data["text/html"] for output in outputs if "text/html" in output.get("data", {})]
    assert any("gpt-4o" in picture and "attempt" in picture for picture in pictures)
    assert any("calls" in picture and "Monitor" in picture for picture in pictures)


@pytest.mark.skipif(sys.platform == "win32", reason="there are no signals here")
def test_stop_ends_a_cell_and_its_requests(sim: Simulator):
    sim.on("*", faults.hang())
    begin = f"from seawall.llm import Chat\nchat = Chat('m', base_url={sim.base_url!r}, api_key={CANARY!r}, timeout=None)"
    pressing = []

    def started(client: Any, index: int) -> None:
        if index > 0:
            sent = sum(list(STOPPED.values())[:index])
            pressing.append(threading.Thread(target=press, args=(client.km.provisioner.pid, sent)))
            pressing[-1].start()

    def press(kernel: int, sent: int) -> None:
        sim.wait_for(sent)
        os.kill(kernel, signal.SIGINT)

    _, *stopped = executed([begin, *STOPPED], started)
    for thread in pressing:
        thread.join(30)
    assert [output.ename for cell in stopped for output in cell.outputs] == ["KeyboardInterrupt"] * 3
    sim.wait_aborted(4)
