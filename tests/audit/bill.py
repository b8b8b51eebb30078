"""Whether a wheel's bill of materials is that of the lock file: `python bill.py seawall-….whl`."""

from __future__ import annotations

import json
import re
import sys
import zipfile
from collections import Counter
from pathlib import Path

LOCK = Path(__file__).parents[2] / "Cargo.lock"


def locked(text: str) -> dict[tuple[str, str], str | None]:
    """Each crate of a lock file with its checksum; our own has none."""
    found = {}
    for each in text.split("[[package]]")[1:]:
        entries = dict(re.findall(r'^(\w+) = "(.*)"$', each, re.MULTILINE))
        found[entries["name"], entries["version"]] = entries.get("checksum")
    return found


def billed(wheel: Path) -> dict[tuple[str, str], str | None]:
    """Each crate of a wheel's bill, with its checksum."""
    with zipfile.ZipFile(wheel) as archive:
        name = next((each for each in archive.namelist() if re.search(r"\.dist-info/sboms/.*\.cyclonedx\.json$", each)), None)
        if name is None:
            raise SystemExit(f"{wheel.name} has no bill of materials: maturin makes one from 1.13 on")
        bill = json.loads(archive.read(name))
    assert bill["bomFormat"] == "CycloneDX"
    assert bill["metadata"]["component"]["name"] == "seawall"
    assert all(each.get("licenses") for each in bill["components"]), "a crate says no licence"
    sums = {}
    for each in bill["components"]:
        sums[each["name"], each["version"]] = next(
            (one["content"] for one in each.get("hashes", ()) if one["alg"] == "SHA-256"), None
        )
    return sums


def main(wheel: Path) -> None:
    lock, bill = locked(LOCK.read_text(encoding="utf-8")), billed(wheel)
    strange = {name: checksum for name, checksum in bill.items() if lock.get(name) != checksum or checksum is None}
    assert not strange, f"not as in Cargo.lock: {strange}"
    names = Counter(name for name, _ in bill)
    for needed in ("pyo3", "tokio", "reqwest", "rustls", "ring", "hyper", "toml"):
        assert names[needed] == 1, f"{needed} is {names[needed]} times in the bill"
    print(f"{wheel.name}: its bill of materials has {len(bill)} crates, with the checksums of Cargo.lock")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
