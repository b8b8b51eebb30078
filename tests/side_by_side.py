"""`make test-python`: all tests, in two processes side by side, because most of them wait for something most of the time.

What the first prints is seen as it comes, what the second prints when both are done. Arguments are pytest's, for both.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
# About half of the time; the other process takes whatever is not named here.
FIRST = ("batch", "campaign", "examples", "langchain", "llm", "monitor", "sdk", "simulator")
NO_TESTS = 5


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "pytest", "-q", *arguments, *sys.argv[1:]]


def main() -> int:
    folders = [f"{HERE.name}/{name}" for name in FIRST]
    with tempfile.TemporaryFile() as kept:
        rest = command(HERE.name, *(f"--ignore={folder}" for folder in folders))
        second = subprocess.Popen(rest, cwd=HERE.parent, stdout=kept, stderr=subprocess.STDOUT)
        first = subprocess.Popen(command(*folders), cwd=HERE.parent)
        try:
            codes = {first.wait(), second.wait()}
        except KeyboardInterrupt:
            # The terminal has told both.
            codes = {first.wait(), second.wait(), 130}
        kept.seek(0)
        sys.stdout.flush()
        sys.stdout.buffer.write(kept.read())
    # With -k one of the two may find nothing to do.
    return max(codes - {NO_TESTS}, default=NO_TESTS) if codes != {0, NO_TESTS} else 0


if __name__ == "__main__":
    sys.exit(main())
