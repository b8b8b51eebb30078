"""The READMEs' programs run as they stand, and print what the READMEs say they print."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROGRAM = re.compile(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", re.MULTILINE | re.DOTALL)
READMES = ("README.md", "README.zh.md")
# What differs from run to run, on both sides.
SECONDS = re.compile(r"\d+(\.\d+)?(?= ?m?s\b)")


def programs() -> list[pytest.param]:
    found = []
    for name in READMES:
        blocks = PROGRAM.findall((ROOT / name).read_text(encoding="utf-8"))
        found += [pytest.param(*block, id=f"{name}:{number}") for number, block in enumerate(blocks, 1)]
    return found


@pytest.mark.parametrize(("program", "printed"), programs())
def test_a_readmes_program_prints_what_it_says(program: str, printed: str):
    assert printed, "each program of a README is followed by what it prints"
    hidden = {name: value for name, value in os.environ.items() if not name.startswith(("OPENAI_", "LANGSMITH_", "LANGCHAIN_"))}
    ended = subprocess.run(
        [sys.executable, "-X", "utf8", "-c", program],
        env={**hidden, "NO_PROXY": "127.0.0.1"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        timeout=60,
    )
    assert ended.returncode == 0, ended.stderr
    assert SECONDS.sub("0.0", ended.stdout) == SECONDS.sub("0.0", printed)


def test_both_readmes_have_the_same_programs():
    ours, theirs = ([program for program, _ in PROGRAM.findall((ROOT / name).read_text(encoding="utf-8"))] for name in READMES)
    assert len(ours) == len(theirs) >= 3


@pytest.mark.parametrize("name", READMES)
def test_what_a_readme_links_to_exists(name: str):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", (ROOT / name).read_text(encoding="utf-8")):
        assert (ROOT / target).exists(), target
