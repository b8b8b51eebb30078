"""Executes the notebooks and saves what they show: `make notebooks`, after a change of one of them or of what they show.

python examples/notebooks/execute.py [NOTEBOOK …]
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import nbclient
import nbformat

HERE = Path(__file__).parent
NOTEBOOKS = sorted(HERE.glob("[1-9]_*.ipynb"))


def executed(path: Path) -> Any:
    """The notebook as it comes out when it is run from the beginning in a kernel of its own, in its folder."""
    notebook = nbformat.read(path, as_version=4)
    where = {"metadata": {"path": str(HERE)}}
    client = nbclient.NotebookClient(
        notebook, timeout=120, kernel_name="python3", resources=where, coalesce_streams=True
    )
    client.execute()
    return notebook


def tidy(notebook: Any) -> Any:
    """Without what differs from run to run and from machine to machine."""
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
        cell.metadata = {}
    return notebook


def main() -> None:
    for path in [Path(name) for name in sys.argv[1:]] or NOTEBOOKS:
        nbformat.write(tidy(executed(path)), path)
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} KB")


if __name__ == "__main__":
    main()
