"""python -m tests.cut_off [--out FILE] COMMAND ...: run a command where no other host can be reached, and tell what it tried.

Linux only. In a network namespace of its own there is 127.0.0.1 and nothing else: what is sent to another host has no route,
which the kernel counts, name lookups included. All that passes on 127.0.0.1 is read as well. Knows nothing of MERA.
"""

from __future__ import annotations

import argparse
import ipaddress
import json
import os
import re
import socket
import subprocess
import sys
import threading
from pathlib import Path

INSIDE = "TESTS_CUT_OFF"
_REQUEST = re.compile(rb"(?:GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS) (\S+) HTTP/1")
_ETHERNET, _IPV4, _IPV6 = 14, 0x0800, 0x86DD
_SOL_PACKET, _PACKET_STATISTICS = 263, 6


def main() -> int:
    """The command's own status; what it tried goes to --out as JSON, or to the screen."""
    parser = argparse.ArgumentParser(prog="python -m tests.cut_off", description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    asked = parser.parse_args()
    if not os.environ.get(INSIDE):
        again = ["unshare", "--map-root-user", "--net", sys.executable, "-m", "tests.cut_off", *sys.argv[1:]]
        os.execvpe(again[0], again, os.environ | {INSIDE: "1"})
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    watch = Watch()
    before = without_route()
    status = subprocess.run(asked.command).returncode
    found = {"status": status, "tried": without_route() - before} | watch.end()
    text = json.dumps(found, indent=1)
    print(text) if asked.out is None else asked.out.write_text(text)
    return status


def without_route() -> int:
    """Packets and connections so far that had nowhere to go, IPv4 and IPv6, in this process's network."""
    names, values = (line.split() for line in Path("/proc/net/snmp").read_text().splitlines() if line.startswith("Ip:"))
    four = int(values[names.index("OutNoRoutes")])
    six = dict(line.split() for line in Path("/proc/net/snmp6").read_text().splitlines())
    return four + int(six["Ip6OutNoRoutes"])


class Watch:
    """All that passes on this network's own device: between which hosts, and which addresses are asked for by HTTP."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0003))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 20)
        self._socket.bind(("lo", 0))
        self._socket.settimeout(0.2)
        self._hosts: set[str] = set()
        self._asked: set[str] = set()
        self._packets, self._over = 0, threading.Event()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def end(self) -> dict[str, object]:
        """What was seen: packets, those that were missed, hosts, and the HTTP addresses."""
        self._over.set()
        self._thread.join()
        counts = self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)
        missed = int.from_bytes(counts[4:8], sys.byteorder)
        self._socket.close()
        return {
            "packets": self._packets,
            "missed": missed,
            "hosts": sorted(self._hosts),
            "addresses": sorted(self._asked),
        }

    def _read(self) -> None:
        while True:
            try:
                packet = self._socket.recv(1 << 17)
            except TimeoutError:
                if self._over.is_set():
                    return
                continue
            self._packets += 1
            kind, body = int.from_bytes(packet[12:_ETHERNET]), packet[_ETHERNET:]
            ends = {_IPV4: (body[12:16], body[16:20]), _IPV6: (body[8:24], body[24:40])}.get(kind, ())
            self._hosts.update(str(ipaddress.ip_address(end)) for end in ends)
            self._asked.update(found.decode("latin-1") for found in _REQUEST.findall(body))


if __name__ == "__main__":
    sys.exit(main())
