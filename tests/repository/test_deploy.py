"""The recipes for serving MERA to others: they parse, keep what they promise, and the service's command line really serves."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mera_core.common.limits import Limits
from tests.browser.app_server import await_answer
from tests.conftest import free_port

ROOT = Path(__file__).resolve().parents[2]
RECIPES = ROOT / "docs" / "deploy"
UNIT = RECIPES / "mera.service"


def lines_of(path: Path) -> list[str]:
    """A recipe's lines without comments, continued ones joined."""
    text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    return [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]


def settings() -> list[tuple[str, str]]:
    return [tuple(line.split("=", 1)) for line in lines_of(UNIT) if not line.startswith("[")]


def one(name: str) -> str:
    (value,) = [value for key, value in settings() if key == name]
    return value


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="There is no systemd to read the unit.")
def test_systemd_finds_no_fault_with_the_unit(tmp_path):
    text = UNIT.read_text("utf-8").replace("/srv/mera/venv/bin/python", sys.executable)
    here, unit = text.replace("/srv/mera/app", str(ROOT)), tmp_path / "mera.service"
    told = []
    for content in (here, here.replace("MemoryMax=6G", "MemoryMax=much")):
        unit.write_text(content)
        command = ["systemd-analyze", "verify", "--man=no", str(unit)]
        told.append(subprocess.run(command, capture_output=True, text=True).stderr)
    assert told[0] == "" and "Invalid memory limit" in told[1]  # so that silence means something


def test_the_unit_can_write_to_memory_only_and_reach_this_machine_only():
    assert one("DynamicUser") == one("NoNewPrivileges") == one("ProtectHome") == "yes"
    assert one("ProtectSystem") == "strict"
    assert not any(
        name in ("ReadWritePaths", "StateDirectory", "CacheDirectory", "LogsDirectory") for name, _ in settings()
    )
    assert ("Environment", f"TMPDIR=/run/{one('RuntimeDirectory')}") in settings()
    assert (one("IPAddressDeny"), one("IPAddressAllow")) == ("any", "localhost")
    assert one("CapabilityBoundingSet") == ""
    assert (one("MemorySwapMax"), one("LimitCORE")) == ("0", "0") and re.fullmatch(r"\d+G", one("MemoryMax"))
    assert "--server.address 127.0.0.1" in one("ExecStart")


def test_the_command_of_the_unit_serves_this_machine_only_and_ends_when_it_is_asked_to(tmp_path):
    port = free_port()
    words = shlex.split(one("ExecStart").replace("--server.port 8501", f"--server.port {port}"))
    assert words[0].endswith("/python")
    told = [word for name, value in settings() if name == "Environment" for word in shlex.split(value)]
    environment = dict(word.split("=", 1) for word in told) | {"TMPDIR": str(tmp_path), "HOME": "/nonexistent"}
    environment["PATH"] = os.environ["PATH"]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen([sys.executable, *words[1:]], cwd=ROOT, env=environment, stdout=log, stderr=log)
        try:
            await_answer(f"http://127.0.0.1:{port}", process)
            assert _addresses(port) <= {"127.0.0.1"}
            assert _opened_stream(port, f"127.0.0.1:{port}") == 101
            assert _opened_stream(port, "evil.example.org") == 403  # a name that is not in server.allowedHosts
        finally:
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=float(one("TimeoutStopSec")))
    assert time.monotonic() - began < float(one("TimeoutStopSec"))
    assert "Traceback" not in (tmp_path / "log").read_text()


def _opened_stream(port: int, host: str) -> int:
    """The status of opening the WebSocket that a page lives on, called by a host's name."""
    head = f"GET /_stcore/stream HTTP/1.1\r\nHost: {host}\r\nOrigin: http://{host}\r\nUpgrade: websocket\r\n"
    head += "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(head.encode())
        return int(connection.recv(4096).split(b" ", 2)[1])


def _addresses(port: int) -> set[str]:
    """The addresses on which something of this machine listens at a port; empty where there is no /proc."""
    table = Path("/proc/net/tcp")
    rows = [line.split() for line in table.read_text().splitlines()[1:]] if table.exists() else []
    local = [row[1].split(":") for row in rows if row[3] == "0A" and int(row[1].split(":")[1], 16) == port]
    return {socket.inet_ntoa(bytes.fromhex(address)[::-1]) for address, _ in local}


def test_the_containerfile_keeps_to_good_practice():
    lines = lines_of(RECIPES / "Containerfile")
    bases = [line for line in lines if line.startswith("FROM ")]
    pinned = r"FROM docker\.io/library/python:3\.11\.\d+-slim-\w+( AS \w+)?$"
    assert len(bases) == 2 and all(re.match(pinned, base) for base in bases)
    assert any("pip install --require-hashes" in line and "requirements.lock" in line for line in lines)
    final = lines[lines.index(bases[1]) :]
    assert not any(line.startswith(("ADD ", "RUN ")) for line in final)  # nothing is made in what is run
    for needed in (r"USER [1-9]\d*:[1-9]\d*$", "HEALTHCHECK ", r"ENTRYPOINT \["):
        assert any(re.match(needed, line) for line in final), needed
    copies = [line.split()[1:-1] for line in final if line.startswith("COPY ") and "--from" not in line]
    copied = {word for words in copies for word in words}
    assert {"app.py", "pages", "mera_core", "sample_data", ".streamlit"} <= copied
    assert all((ROOT / word).exists() for word in copied)


def test_the_containerfile_passes_hadolint():
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, str(RECIPES / "Containerfile")], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_proxy_asks_who_is_there_and_lays_nothing_down():
    text = "\n".join(lines_of(RECIPES / "nginx.conf"))
    assert text.count("{") == text.count("}")
    assert all(line.endswith((";", "{", "}")) for line in lines_of(RECIPES / "nginx.conf"))
    app = text[text.index("location / {") :]
    assert "auth_request /oauth2/auth;" in app and "proxy_pass http://127.0.0.1:8501;" in app
    (largest,) = re.findall(r"client_max_body_size (\d+)m;", text)
    assert int(largest) * 1_000_000 == Limits().upload_bytes
    for needed in (
        "proxy_request_buffering off;", "proxy_buffering off;", "proxy_max_temp_file_size 0;", "access_log off;",
        "ssl_protocols TLSv1.2 TLSv1.3;", "proxy_set_header Upgrade $http_upgrade;", "proxy_set_header Host $host;",
    ):  # fmt: skip
        assert needed in text, needed
