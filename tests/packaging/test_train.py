"""What a released wheel is guided by (docs/adr/0035) runs with nothing but seawall, and leaves out nothing that calls go through."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

TRAIN = Path(__file__).parents[2] / "benches" / "train.py"
# What programs that work do not go through, or seldom: it may be built for size.
SELDOM = {"Hedge", "Chaos"}


def test_it_runs_alone_and_says_nothing():
    done = subprocess.run([sys.executable, "-W", "error", str(TRAIN)], capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_every_policy_that_calls_go_through_is_in_it():
    table = (TRAIN.parents[1] / "src" / "policies" / "mod.rs").read_text(encoding="utf-8")
    policies = set(re.findall(r'PolicyRow \{ kind: "\w+", class: "(\w+)" \}', table))
    assert policies > SELDOM
    text = TRAIN.read_text(encoding="utf-8")
    assert {name for name in policies - SELDOM if f"seawall.{name}(" not in text} == set()
