"""Sessions where no other host can be reached: the app tries none, and no address that is asked for holds a patient's word."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
APART = ["unshare", "--map-root-user", "--net", "true"]


def possible() -> bool:
    """Whether this machine lets a user have a network of its own."""
    needed = sys.platform.startswith("linux") and shutil.which("unshare") and shutil.which("ip")
    return bool(needed) and subprocess.run(APART, capture_output=True).returncode == 0


pytestmark = pytest.mark.skipif(not possible(), reason="this machine gives nobody a network of its own (unshare --net)")


def cut_off(out: Path, *command: str) -> dict:
    done = subprocess.run(
        [sys.executable, "-m", "tests.cut_off", "--out", out, sys.executable, *command],
        cwd=ROOT, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2_000:]
    return json.loads(out.read_text())


def test_the_app_and_its_sessions_try_no_other_host(tmp_path):
    load = ["-m", "tests.load", "--sessions", "2", "--minutes", "0.1", "--think", "0.3", "--afterwards", "0"]
    found = cut_off(tmp_path / "found.json", *load)
    assert (found["tried"], found["missed"], found["hosts"]) == (0, 0, ["127.0.0.1"])
    assert found["packets"] > 500 and "/_stcore/stream" in found["addresses"]
    assert not [address for address in found["addresses"] if not address.startswith("/_stcore/")]


def test_a_command_ranks_and_recalls_without_trying_one(tmp_path):
    found = cut_off(tmp_path / "found.json", "-m", "mera_core", "recall", "428.0")
    assert (found["tried"], found["packets"]) == (0, 0)


def test_what_is_tried_is_counted(tmp_path):
    """The test of the test: a connection, and a lookup of a name."""
    connect = "try: socket.create_connection((host, 80))\n except OSError: pass"
    tries = f"import socket\nfor host in ('192.0.2.1', 'example.org'):\n {connect}"
    found = cut_off(tmp_path / "found.json", "-c", tries)
    assert found["tried"] >= 1
