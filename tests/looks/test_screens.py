"""In a real browser: nothing of a picture runs, and the script that takes the pictures of the documentation works."""

from __future__ import annotations

import importlib.util
import struct
from pathlib import Path
from typing import Any

import pytest

import seawall
from _things import everything
from seawall.simulator import Simulator

SCRIPT = Path(__file__).parents[2] / "docs" / "pictures" / "notebook.py"


@pytest.fixture(scope="module")
def camera() -> Any:
    spec = importlib.util.spec_from_file_location("notebook_pictures", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if module.browser() is None:
        pytest.skip("there is no Chromium and no Chrome here")
    return module


def test_nothing_runs_in_a_browser(camera: Any, tmp_path: Path):
    with Simulator() as sim, pytest.warns(seawall.PipelineOrderWarning):
        pictures = "".join(thing._repr_html_() for thing in everything(sim).values())
    page = tmp_path / "page.html"
    # What would run says so in the title; and a thing that is too wide for a narrow cell shows in the last number.
    heard = "<script>window.alert = () => { document.title = 'it ran' }</script>"
    wide = "<script>document.title += ' ' + document.body.scrollWidth</script>"
    page.write_text(f"<!doctype html><meta charset='utf-8'><title>quiet</title>{heard}{pictures}{wide}", encoding="utf-8")
    seen = camera.run(camera.browser(), "--window-size=600,800", "--dump-dom", page.as_uri())
    assert "<title>quiet" in seen and "it ran" not in seen.split("</title>")[0]
    width = int(seen.split("<title>quiet ")[1].split("<")[0])
    assert width <= 600


# Rules that JupyterLab and nbconvert have for whatever a cell shows.
JUPYTER = "dl{width:100%;overflow:hidden} dt{font-weight:bold;float:left;width:20%} dd{float:left;width:80%}"


def test_what_notebooks_do_to_lists_leaves_figures_on_one_line(camera: Any, tmp_path: Path):
    picture = seawall.CircuitBreaker(failure_rate=0.5, window=20, name="search")._repr_html_()
    page = tmp_path / "page.html"
    measure = "[...document.querySelectorAll('dt, dd')].map(each => each.offsetHeight)"
    script = f"<script>document.title = Math.max(...{measure})</script>"
    page.write_text(f"<!doctype html><meta charset='utf-8'><style>{JUPYTER}</style>{picture}{script}", encoding="utf-8")
    seen = camera.run(camera.browser(), "--window-size=900,800", "--dump-dom", page.as_uri())
    assert 0 < int(seen.split("<title>")[1].split("<")[0]) < 30


def test_the_pictures_of_the_documentation_can_be_taken(camera: Any, tmp_path: Path):
    camera.main(tmp_path)
    sizes = {}
    for theme in ("light", "dark"):
        picture = (tmp_path / f"notebook-{theme}.png").read_bytes()
        assert picture.startswith(b"\x89PNG")
        sizes[theme] = struct.unpack(">II", picture[16:24])
    assert sizes["light"] == sizes["dark"] and sizes["light"][0] == camera.WIDTH and sizes["light"][1] > 1000


def test_both_pictures_are_in_the_documentation():
    assert {path.name for path in SCRIPT.parent.glob("notebook-*.png")} == {"notebook-light.png", "notebook-dark.png"}
