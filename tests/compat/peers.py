"""Runs the tests of the packages that `seawall.compat` stands in for, from their own source distributions.

`python tests/compat/peers.py` downloads what is pinned here into `.peers/` (never committed, checked by its hash), puts
our module in the package's place and runs its tests unchanged. It fails if one fails or if there are not as many as
there should be.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
CACHE = HERE.parent.parent / ".peers"


class Peer(NamedTuple):
    package: str
    version: str
    sha256: str
    tests: int


PEERS = [
    Peer("circuitbreaker", "2.1.3", "1a4baee510f7bea3c91b194dcce7c07805fe96c4423ed5594b75af438531d084", 63),
]


def source(peer: Peer) -> Path:
    """The unpacked source distribution."""
    archive = CACHE / f"{peer.package}-{peer.version}.tar.gz"
    if not archive.exists():
        CACHE.mkdir(exist_ok=True)
        pinned = f"{peer.package}=={peer.version}"
        options = ["--quiet", "--no-deps", "--no-binary", ":all:", "--dest", str(CACHE)]
        subprocess.run([sys.executable, "-m", "pip", "download", *options, pinned], check=True)
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != peer.sha256:
        sys.exit(f"{archive} is not what was pinned: its SHA-256 is {found}")
    with tarfile.open(archive) as tar:
        # Unpacking filters came with security releases; what is unpacked here is pinned by its hash.
        tar.extractall(CACHE, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    return CACHE / f"{peer.package}-{peer.version}"


def passes(peer: Peer) -> bool:
    """Whether its tests pass on our module, all of them."""
    options = ["-p", "swapped", "-q", "-o", "asyncio_mode=auto", "-o", "asyncio_default_fixture_loop_scope=function"]
    env = {**os.environ, "PYTHONPATH": str(HERE), "SEAWALL_SWAPPED": peer.package}
    # From the tests' own directory: the package itself, which lies beside them, must not be found.
    ran = subprocess.run(
        [sys.executable, "-P" if sys.version_info >= (3, 11) else "-B", "-m", "pytest", *options, "."],
        cwd=source(peer) / "tests",
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    passed = re.search(r"(\d+) passed", ran.stdout)
    complete = ran.returncode == 0 and passed is not None and int(passed[1]) == peer.tests
    print(f"{peer.package} {peer.version}: {passed[1] if passed else 0} of its {peer.tests} tests pass on seawall")
    if not complete:
        print(ran.stdout, ran.stderr, sep="\n")
    return complete


if __name__ == "__main__":
    # All of them, so that one failure hides no other.
    results = [passes(peer) for peer in PEERS]
    sys.exit(not all(results))
