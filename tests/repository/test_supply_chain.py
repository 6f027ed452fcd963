"""What is installed is what was meant: a lock file with hashes, no index or path of one machine in it, licences that are known."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
ENTRY = re.compile(r"^([A-Za-z0-9_.-]+)==([^\s;\\]+)([^\n]*)\n((?:    --hash=\S+(?: \\)?\n)*)", re.MULTILINE)


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_requirement_is_locked_at_its_pin():
    locked = {plain(name): version for name, version, _, _ in ENTRY.findall(LOCK)}
    pins = re.findall(r"^([\w.-]+)==([\w.]+)", (ROOT / "requirements.txt").read_text("utf-8"), re.MULTILINE)
    wrong = {name: version for name, version in pins if locked.get(plain(name)) != version}
    assert len(pins) > 15 and wrong == {}, "run the command at the top of requirements.lock"


def test_every_locked_library_has_hashes_and_nothing_else_is_installed():
    entries = ENTRY.findall(LOCK)
    lines = [line for line in LOCK.splitlines() if line and not line.startswith((" ", "#"))]
    assert len(entries) == len(lines) > 50
    for name, _, _, hashes in entries:
        found = re.findall(r"--hash=sha256:([0-9a-f]{64})", hashes)
        assert found and len(found) == hashes.count("--hash="), name


def test_the_lock_names_no_index_no_path_and_its_own_command():
    assert not re.search(r"https?://|file:|--index|--find-links|--trusted|@ ", LOCK)
    assert "uv pip compile --universal" in LOCK.splitlines()[1]
    assert LOCK.splitlines()[1].removeprefix("#").strip() in (ROOT / "SECURITY.md").read_text(encoding="utf-8")


def test_pip_reads_the_lock(tmp_path):
    """pip's own parser takes every line, hashes demanded; nothing is fetched: each name is looked for in an empty folder."""
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--no-deps", "--no-index", "--require-hashes"]
    environment = {"PATH": str(Path(sys.executable).parent), "PIP_CONFIG_FILE": "/dev/null", "HOME": str(tmp_path)}
    done = subprocess.run(
        [*command, "--ignore-installed", "--find-links", str(tmp_path), "-r", str(ROOT / "requirements.lock")],
        capture_output=True, text=True, env=environment, timeout=120,
    )  # fmt: skip
    assert "No matching distribution found" in done.stderr, done.stderr
    assert "hash" not in done.stderr.lower() and "invalid" not in done.stderr.lower()


def test_the_page_of_licences_lists_every_locked_library_and_none_is_unknown():
    page = (ROOT / "docs" / "licences.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| ([\w.-]+) \| (\S+) \| (.+) \|$", page, re.MULTILINE)
    names = {plain(name): version for name, version, _ in listed if name != "library"}
    assert names == {plain(name): version for name, version, _, _ in ENTRY.findall(LOCK)}, (
        "python docs/make_licences.py"
    )
    assert [name for name, _, licence in listed if licence == "not stated"] == []
    assert not re.search(r"\b(A?GPL)", re.sub(r"LGPL|GPL-compatible", "", page))


@pytest.mark.slow
def test_no_locked_library_has_a_known_vulnerability():
    audit = [Path(sys.executable).with_name("pip-audit"), "-r", ROOT / "requirements.lock"]
    command = [*audit, "--no-deps", "--disable-pip", "--progress-spinner", "off"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    told = done.stdout + done.stderr
    if "ConnectionError" in told or "could not be audited" in told:
        pytest.skip("The database of vulnerabilities can't be reached from here.")
    assert done.returncode == 0, told
