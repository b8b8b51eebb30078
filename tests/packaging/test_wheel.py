"""What is given away: a source distribution that builds, and the wheel that comes of it, alone in a fresh environment."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# What the first page promises, with nothing installed but the wheel.
PROGRAM = """
import importlib.metadata, json, sys
import seawall
from seawall.llm import Chat
from seawall.simulator import Simulator, faults

@seawall.guard(retry=2, fallback=["no answer"])
def ask(question):
    raise ConnectionError

with Simulator() as api:
    api.on("gpt-4", faults.status(500), times=1)
    reply = Chat("gpt-4", api_key="sk-test", base_url=api.base_url).with_retry(stop_after_attempt=2, wait=0.01).invoke("Hello")
    told = {"attempts": len(reply.attempts), "requests": api.count()}
foreign = {n.partition(".")[0] for n in sys.modules} - set(sys.stdlib_module_names) - {"seawall"}
print(json.dumps(told | {
    "where": seawall.__file__, "answer": ask("why?"), "foreign": sorted(n for n in foreign if not n.startswith("_")),
    "version": importlib.metadata.version("seawall") == seawall.__version__, "typed": bool(seawall.__path__),
}))
"""


def run(*command: object, **how: object) -> str:
    ended = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, timeout=900, **how)
    assert ended.returncode == 0, ended.stdout[-4000:] + ended.stderr[-4000:]
    return ended.stdout


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sdist")
    run(sys.executable, "-m", "maturin", "sdist", "--out", out, cwd=ROOT)
    return next(out.glob("*.tar.gz"))


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as pip builds it from the source distribution; quickly: as tests are, with the crates that are built already."""
    out = tmp_path_factory.mktemp("wheel")
    target = os.environ.get("CARGO_TARGET_DIR", str(ROOT / "target"))
    quick = {"MATURIN_PEP517_ARGS": "--profile dev", "CARGO_TARGET_DIR": target, "VIRTUAL_ENV": sys.prefix}
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    how = ["--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", out]
    run(sys.executable, "-m", "pip", "wheel", *how, sdist, env={**os.environ, **quick, "PATH": path}, cwd=out)
    return next(out.glob("*.whl"))


def test_the_version_is_the_same_wherever_it_is_said():
    import seawall

    cargo, project = ((ROOT / name).read_text(encoding="utf-8") for name in ("Cargo.toml", "pyproject.toml"))
    said = [re.search(r'^version = "(.+)"$', text, re.MULTILINE)[1] for text in (cargo, project)]
    assert said == [seawall.__version__] * 2


def test_the_source_distribution_holds_what_it_takes_and_nothing_built(sdist: Path):
    with tarfile.open(sdist) as held:
        names = {name.partition("/")[2] for name in held.getnames()}
    assert names >= {
        "Cargo.toml",
        "Cargo.lock",
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "src/lib.rs",
        "python/seawall/py.typed",
    }
    assert [
        name for name in names if name.endswith((".so", ".pyc", ".pyd", ".whl")) or name.startswith(("target/", ".venv"))
    ] == []


def test_a_wheel_built_from_it_works_alone_in_a_fresh_environment(wheel: Path, tmp_path: Path):
    with zipfile.ZipFile(wheel) as held:
        names = held.namelist()
    assert {"seawall/py.typed", "seawall/_seawall.pyi"} <= set(names)
    assert len([name for name in names if name.endswith((".so", ".pyd"))]) == 1
    place = tmp_path / "venv"
    run(sys.executable, "-m", "venv", place)
    python = place / ("Scripts" if os.name == "nt" else "bin") / "python"
    run(python, "-m", "pip", "install", "--quiet", "--no-index", wheel)
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "OPENAI_"))}
    told = json.loads(run(python, "-I", "-c", PROGRAM, cwd=tmp_path, env=clean))
    assert Path(told.pop("where")).is_relative_to(place)
    assert told == {"answer": "no answer", "attempts": 2, "requests": 2, "foreign": [], "version": True, "typed": True}
