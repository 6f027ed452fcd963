"""SECURITY.md promises nothing that no test shows: each row of its table names tests, and each test is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
TABLE = PAGE[PAGE.index("| threat | defence | tests |") :].split("\n\n")[0]
ROWS = [line.strip("|").split("|") for line in TABLE.splitlines()[2:]]


def cases_in(path: str) -> set[str]:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0].strip()[:40])
def test_every_threat_has_a_defence_and_tests_that_exist(row):
    threat, defence, named = (cell.strip() for cell in row)
    found = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", named)
    assert threat and defence and found
    missing = [f"{path}::{name}" for path, name in found if name not in cases_in(path)]
    assert missing == [] and len(ROWS) >= 25


def test_the_commands_of_the_page_name_what_exists():
    assert (ROOT / "tests" / "fuzz" / "__main__.py").is_file() and (ROOT / "requirements-fuzz.txt").is_file()
    for link in re.findall(r"\]\(([\w./-]+)(?:#\w+)?\)", PAGE):
        assert (ROOT / link).exists(), link
