"""What type checkers see: mypy in its strict mode and pyright accept programs, and find the mistakes in them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
MISTAKES = {
    number
    for number, line in enumerate((HERE / "refused.py").read_text(encoding="utf-8").splitlines(), 1)
    if "# mistake:" in line
}


def mypy(folder: Path, *files: Path) -> dict[str, set[int]]:
    # A cache of its own: the lint's is of another configuration.
    how = [
        "--strict",
        "--python-version",
        "3.10",
        "--config-file",
        os.devnull,
        "--cache-dir",
        str(folder / "mypy"),
        "--no-error-summary",
    ]
    ended = subprocess.run(
        [sys.executable, "-m", "mypy", *how, *map(str, files)],
        env={**os.environ, "MYPYPATH": str(ROOT / "python")},
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=240,
    )
    assert ended.returncode in {0, 1}, ended.stdout + ended.stderr
    found: dict[str, set[int]] = {}
    for name, line in re.findall(r"^([^:\n]+):(\d+)(?::\d+)*: error:", ended.stdout, re.MULTILINE):
        found.setdefault(Path(name).name, set()).add(int(line))
    return found


def pyright(folder: Path, *files: Path) -> dict[str, set[int]]:
    settings = folder / "pyrightconfig.json"
    settings.write_text(
        json.dumps(
            {
                "include": [os.path.relpath(file, folder) for file in files],
                "extraPaths": [str(ROOT / "python")],
                "typeCheckingMode": "strict",
                "pythonVersion": "3.10",
            }
        ),
        encoding="utf-8",
    )
    ended = subprocess.run(
        [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, "--project", str(settings)],
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert ended.returncode in {0, 1}, ended.stdout + ended.stderr
    found: dict[str, set[int]] = {}
    told = json.loads(ended.stdout)
    assert told["summary"]["filesAnalyzed"] == len(files)
    for one in told["generalDiagnostics"]:
        found.setdefault(Path(one["file"]).name, set()).add(one["range"]["start"]["line"] + 1)
    return found


@pytest.mark.parametrize("checker", [mypy, pyright])
def test_a_checker_accepts_programs_and_finds_every_mistake(checker, tmp_path: Path):
    assert len(MISTAKES) >= 15
    assert checker(tmp_path, HERE / "accepted.py", HERE / "refused.py") == {"refused.py": MISTAKES}


def test_the_stub_says_what_the_binary_has(tmp_path: Path):
    settings = tmp_path / "mypy.ini"
    settings.write_text("[mypy]\n", encoding="utf-8")
    how = ["--mypy-config-file", str(settings), "--allowlist", str(HERE / "stubtest.allow"), "--ignore-disjoint-bases"]
    ended = subprocess.run(
        [sys.executable, "-m", "mypy.stubtest", *how, "seawall._seawall"],
        env={**os.environ, "MYPYPATH": str(ROOT / "python")},
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        timeout=240,
    )
    assert ended.returncode == 0, f"say it in python/seawall/_seawall.pyi:\n{ended.stdout}{ended.stderr}"
