"""requirements.lock -> docs/licences.md: the licence that each library states of itself. Run: python docs/make_licences.py

Reads the metadata of what is installed here; asks no network. A library that is only for another platform is listed as such.
"""

from __future__ import annotations

import re
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK, PAGE = ROOT / "requirements.lock", ROOT / "docs" / "licences.md"
HEAD = """# Licences of the libraries

MERA itself is under the Apache License 2.0 (`LICENSE`). It is distributed without its libraries; `pip` fetches them. This is
what each one in `requirements.lock` says of its own licence, written by `python docs/make_licences.py` from what is installed.
The NVIDIA libraries belong to the CUDA build of torch and are under NVIDIA's own terms; a machine without a GPU needs none of them.

| library | version | licence |
|---|---|---|
"""


def locked() -> list[tuple[str, str]]:
    """(name, version) of every library in the lock file, in its order."""
    text = LOCK.read_text(encoding="utf-8")
    return re.findall(r"^([A-Za-z0-9_.-]+)==([^\s;\\]+)", text, re.MULTILINE)


def licence_of(found: Distribution) -> str:
    """The licence in few words: its SPDX expression, else the classifiers, else the first line of the field."""
    told = found.metadata
    if expression := told.get("License-Expression"):
        return expression
    classified = [each.split(" :: ")[-1] for each in told.get_all("Classifier", []) if each.startswith("License ::")]
    classified = [each for each in classified if each != "OSI Approved"]
    if classified:
        return ", ".join(classified)
    lines = (told.get("License") or "").strip().splitlines()
    return lines[0][:80] if lines else "not stated"


def rows() -> list[str]:
    """A line of the table for each library."""
    lines = []
    for name, version in locked():
        try:
            licence = licence_of(distribution(name))
        except PackageNotFoundError:
            licence = (
                "NVIDIA's own terms" if name.startswith(("nvidia-", "cuda-")) else "for another platform; see its page"
            )
        lines.append(f"| {name} | {version} | {licence.replace('|', '/')} |")
    return lines


if __name__ == "__main__":
    PAGE.write_text(HEAD + "\n".join(rows()) + "\n", encoding="utf-8")
    print(f"written: {PAGE.relative_to(ROOT)}, {len(rows())} libraries")
