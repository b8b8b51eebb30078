"""Takes the pictures of what a notebook shows: runs a real notebook, and photographs it on light and on dark.

    python docs/pictures/notebook.py [folder]

It needs `nbclient` and `ipykernel` (in the group `dev`), and Chromium or Chrome: on the path, or named by CHROMIUM.
"""

from __future__ import annotations

import html
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--force-device-scale-factor=1"),
)
WIDTH = 860
CELLS = (
    """
import random, seawall
from seawall.llm import Chat
from seawall.simulator import Simulator, faults

sim = Simulator(); sim.start()
sim.on("gpt-4o", faults.overloaded(latency=0.15))
sim.on("gpt-4o-mini", faults.reply("The tide turns at four.", latency=0.3))
sim.outage("gpt-4.1", start=0, until=3600)
settings = dict(api_key="sk-test", base_url=sim.base_url)
""",
    """
model = Chat("gpt-4o", **settings).with_retry(wait=0.2).with_fallbacks([Chat("gpt-4o-mini", **settings)])
model.invoke("When does the tide turn?")
""",
    """
@seawall.guard("prod", name="ask", fallback=["Please try again later."], monitor=seawall.Monitor(name="answers"))
def ask(question): ...

ask.pipeline
""",
    """
monitor = seawall.Monitor(name="answers")
with monitor.live():
    dice = random.Random(4)
    for number in range(80):
        failed = 40 < number < 52 and dice.random() < 0.7
        retries = 2 if failed else dice.choice([0] * 12 + [1])
        latency = dice.lognormvariate(-0.8, 0.5) * (3 if failed else 1)
        error = "ServiceUnavailable" if failed else None
        monitor.record(not failed, retries=retries, latency=latency, error=error, model="gpt-4o")
""",
    """
breaker = seawall.CircuitBreaker(3, name="search")
for _ in range(3):
    breaker.record_failure(ConnectionError())
breaker
""",
    """
try:
    Chat("gpt-4.1", **settings).with_retry(wait=0.2).with_fallbacks([Chat("gpt-4o", **settings)]).invoke("Hello?")
except seawall.errors.APIError as error:
    story = seawall.explain(error)
story
""",
)
THEMES = {"light": ("#ffffff", "#1f2328", "#f4f5f7"), "dark": ("#111418", "#e3e6ea", "#1b1f25")}


def browser() -> str | None:
    """Chromium or Chrome, if there is one."""
    named = os.environ.get("CHROMIUM")
    return named or next((found for name in BROWSERS if (found := shutil.which(name))), None)


def run(program: str, *arguments: str) -> str:
    """What the browser prints."""
    with tempfile.TemporaryDirectory() as profile:
        command = [program, *FLAGS, f"--user-data-dir={profile}", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout


def executed() -> Any:
    """The notebook, run."""
    import nbclient
    import nbformat

    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source.strip()) for source in CELLS])
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    return notebook


def page(notebook: Any, theme: str) -> str:
    """The notebook as a page, in the colours of a theme."""
    ground, ink, code = THEMES[theme]
    cells = []
    for cell in notebook.cells:
        shown = [output.data["text/html"] for output in cell.outputs if "text/html" in output.get("data", {})]
        cells.append(f"<pre>{html.escape(cell.source)}</pre>{''.join(shown)}")
    style = (
        f"html{{color-scheme:{theme}}}body{{background:{ground};color:{ink};margin:16px;font:14px sans-serif}}"
        f"pre{{background:{code};padding:8px 12px;border-radius:4px;font:12px/1.5 monospace;white-space:pre-wrap;margin:14px 0 6px}}"
    )
    return f'<!doctype html><html lang="en"><meta charset="utf-8"><title>0</title><style>{style}</style>{"".join(cells)}'


def photograph(program: str, document: str, target: Path) -> None:
    """A picture of the whole document."""
    measure = "<script>document.title = document.documentElement.scrollHeight</script>"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "page.html")
        file.write_text(document + measure, encoding="utf-8")
        size = re.search(r"<title>(\d+)</title>", run(program, f"--window-size={WIDTH},600", "--dump-dom", file.as_uri()))
        height = int(size[1]) if size else 2000
        run(program, f"--window-size={WIDTH},{height}", f"--screenshot={target}", file.as_uri())


def main(folder: Path) -> None:
    program = browser()
    if program is None:
        sys.exit("no Chromium and no Chrome was found: install one, or name one by CHROMIUM=/path/to/it")
    folder.mkdir(parents=True, exist_ok=True)
    notebook = executed()
    for theme in THEMES:
        target = folder / f"notebook-{theme}.png"
        photograph(program, page(notebook, theme), target)
        print(target)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
