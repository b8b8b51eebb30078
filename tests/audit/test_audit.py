"""What of `make audit` is cheap: the lock file is pinned and whole, and deny.toml is one that cargo-deny reads. No network."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from seawall.configuration import _document

ROOT = Path(__file__).parents[2]
LOCK = (ROOT / "Cargo.lock").read_text(encoding="utf-8")
PACKAGES = [dict(re.findall(r'^(\w+) = "(.*)"$', each, re.MULTILINE)) for each in LOCK.split("[[package]]")[1:]]


def deny() -> dict:
    report, root = _document.read(ROOT / "deny.toml")
    assert report.error() is None
    return _document.plain(root)


def test_every_crate_is_pinned_and_from_the_registry():
    assert len(PACKAGES) > 100
    for each in PACKAGES:
        if each["name"] != "seawall":
            assert each["source"] == "registry+https://github.com/rust-lang/crates.io-index", each["name"]
            assert re.fullmatch(r"[0-9a-f]{64}", each["checksum"]), each["name"]


def test_what_is_not_wanted_is_not_in_the_lock_file():
    banned = {each["crate"] for each in deny()["bans"]["deny"] if "wrappers" not in each}
    assert banned >= {"openssl-sys", "native-tls", "aws-lc-sys"}
    assert banned.isdisjoint(each["name"] for each in PACKAGES)


def test_each_exception_and_ban_has_a_reason():
    assert all(each["reason"] for each in (*deny()["bans"]["deny"], *deny()["bans"]["features"]))
    assert deny()["advisories"]["ignore"] == [] and deny()["sources"]["unknown-git"] == "deny"


@pytest.mark.skipif(shutil.which("cargo") is None, reason="no cargo here")
def test_the_lock_file_is_that_of_the_manifest():
    asked = ["cargo", "metadata", "--locked", "--offline", "--no-deps", "--format-version", "1"]
    done = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not (ROOT / "target/tools/bin/cargo-deny").exists(), reason="make audit installs cargo-deny")
def test_licences_bans_and_sources_are_right():
    asked = ["target/tools/bin/cargo-deny", "--offline", "check", "--hide-inclusion-graph", "licenses", "bans", "sources"]
    done = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_wheels_have_a_bill_of_materials():
    _, root = _document.read(ROOT / "pyproject.toml")
    assert _document.plain(root)["tool"]["maturin"]["sbom"] == {"rust": True}
