"""That a run in which a test writes its key fails, wherever that is written; and that one in which none does passes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

CONFTEST = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from _canary import watched as pytest_configure
"""
HEAD = "import base64, logging, pickle, subprocess, sys, warnings\nfrom _canary import CANARY\n"
WRITTEN = {
    "printed": "print(f'as {CANARY}')",
    "to stderr": "print(CANARY, file=sys.stderr)",
    "logged": "logging.getLogger('x').warning('%s', CANARY)",
    "warned of": "warnings.warn(CANARY)",
    "in a failure": "assert 1 == CANARY",
    "in a file": "(tmp_path / 'x').write_text(CANARY)",
    "in a binary file": "(tmp_path / 'x').write_bytes(b'\\0' + CANARY.encode() + b'\\0')",
    "in base64": "print(base64.b64encode(b'user:' + CANARY.encode()).decode())",
    "in a pickle": "pickle.dumps([CANARY])",
    "by a program": "subprocess.run([sys.executable, '-c', 'import sys; print(sys.argv[1])', CANARY], capture_output=True)",
    "in the project": "open('report.html', 'w').write(CANARY)",
}


def run(folder: Path, tests: str) -> subprocess.CompletedProcess[str]:
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "test_it.py").write_text(f"{HEAD}{tests}")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(folder), str(folder)]
    # The plugins that other tests brought along take ten times as long to load as these tests to run.
    bare = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=folder, env=bare)


def test_a_run_that_writes_its_key_fails_and_says_where(tmp_path) -> None:
    tests = (f"def test_{at}(tmp_path):\n    {body}\n" for at, body in enumerate(WRITTEN.values()))
    done = run(tmp_path, "".join(tests))
    assert done.returncode == 1
    _, told = done.stdout.split("the key of this run was written")
    for at, where in enumerate(WRITTEN):
        files = {"in a file": "test_5", "in a binary file": "test_6", "in the project": "report.html"}
        assert files.get(where, f"test_it.py::test_{at}:") in told, (where, told)


def test_a_run_that_passes_else_fails_for_its_key_alone(tmp_path) -> None:
    done = run(tmp_path, "def test_it():\n    print(CANARY)\n")
    assert done.returncode == 1 and "1 passed" in done.stdout, done.stdout


def test_a_run_that_does_not_passes(tmp_path) -> None:
    done = run(tmp_path, "def test_it():\n    assert CANARY.startswith('sk-')\n")
    assert done.returncode == 0 and "was written" not in done.stdout, done.stdout
