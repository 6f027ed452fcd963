"""What tests share: no network, one thread, the ICD code set, and a tiny checkpoint of the real code."""

from __future__ import annotations

import os

# before anything imports torch or transformers; child processes of tests inherit them
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

import ipaddress
import random
import shutil
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from mera_core.history.records import Patient, Visit, write_visits
from mera_core.icd.ontology import Ontology

ROOT = Path(__file__).resolve().parent.parent

# a run of the tests that was started in the background ignores these, and so would every process that a test starts
for _number, _usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _usual)


class NetworkUseError(ConnectionError):
    """A test tried to reach a host other than this one."""


ATTEMPTS: list[str] = []
_real = {name: getattr(socket.socket, name) for name in ("connect", "connect_ex", "sendto")}
_real_getaddrinfo = socket.getaddrinfo


def is_this_host(host: str | bytes | None) -> bool:
    """Whether a host, as handed to a socket, is the loopback interface ('' and None mean any or this one)."""
    host = host.decode() if isinstance(host, bytes) else host
    if not host or host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def _refuse(host: object) -> None:
    ATTEMPTS.append(str(host))
    raise NetworkUseError(f"a test tried to reach {host}; tests must work without a network.")


def _guarded(name: str):
    real = _real[name]

    def call(self: socket.socket, *args):
        address = args[-1] if args else None  # sendto(data, [flags,] address)
        if self.family in (socket.AF_INET, socket.AF_INET6) and not is_this_host(address[0]):
            _refuse(address[0])
        return real(self, *args)

    return call


def _guarded_getaddrinfo(host, *args, **kwargs):
    if not is_this_host(host):
        _refuse(host)
    return _real_getaddrinfo(host, *args, **kwargs)


@pytest.fixture(scope="session", autouse=True)
def _loopback_only() -> Iterator[None]:
    """Sockets of this process reach the loopback interface only, for the whole run."""
    for name in _real:
        setattr(socket.socket, name, _guarded(name))
    socket.getaddrinfo = _guarded_getaddrinfo
    yield
    for name, function in _real.items():
        setattr(socket.socket, name, function)
    socket.getaddrinfo = _real_getaddrinfo


@pytest.fixture(autouse=True)
def network_attempts(_loopback_only: None) -> Iterator[list[str]]:
    """Hosts that this test tried to reach; one left in the list fails it, even where the error was caught."""
    ATTEMPTS.clear()
    yield ATTEMPTS
    hosts = sorted(set(ATTEMPTS))
    assert not hosts, f"the test tried to reach {', '.join(hosts)}"


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


@pytest.fixture(scope="session")
def ontology() -> Ontology:
    """The shipped ICD tables."""
    return Ontology.load()


COURSES = (  # invented: what comes together, and what tends to follow
    (["428.0", "427.31", "401.9"], ["428.0", "584.9", "427.31"], ["428.23", "585.9", "584.9"]),
    (["250.00", "401.9", "272.4"], ["250.40", "585.3", "401.9"], ["250.40", "585.6", "285.21"]),
    (["491.21", "305.1"], ["491.21", "518.81"], ["518.84", "491.21", "486"]),
    (["571.2", "303.90"], ["571.2", "789.59", "572.2"], ["572.2", "456.1", "571.2"]),
    (["E880.9", "820.21"], ["V54.13", "733.00"], ["V54.13", "486"]),
)


def invented_patients(count: int = 150, seed: int = 1) -> list[Patient]:
    """Invented patients of one to four visits, each on one of `COURSES`, with order and some codes varied."""
    draw, patients = random.Random(seed), []
    for number in range(count):
        course, age = draw.choice(COURSES), draw.randint(30, 85)
        visits = []
        for step in range(draw.choice((1, 2, 3, 3, 4))):
            codes = list(course[min(step, 2)])
            draw.shuffle(codes)
            if draw.random() < 0.2:
                codes.append(draw.choice(("599.0", "276.1", "V45.81")))
            visits.append(Visit(codes[: draw.randint(2, 4)], age=age + step))
        patients.append(Patient(visits, sex=draw.choice("FM"), age=visits[-1].age, id=f"invented-{seed}-{number}"))
    return patients


@pytest.fixture(scope="session")
def invented_cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A visits table (CSV) of `invented_patients`, in all three parts of the split."""
    path = tmp_path_factory.mktemp("cohort") / "invented.csv"
    write_visits(invented_patients(), path)
    return path


@pytest.fixture(scope="session")
def tiny_stage1(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stage-1 checkpoint, 32 wide, of the ICD-9-CM book; after a fiftieth of one pass it recalls little."""
    from training.common.config import MemorizeConfig
    from training.memorize import run as memorize

    config = MemorizeConfig(
        word_pieces=500,
        hidden_size=32,
        intermediate_size=64,
        layers=1,
        heads=2,
        epochs=0.02,
        batch_size=64,
        sampled_negatives=64,
        save_every=0,
    )
    folder = tmp_path_factory.mktemp("checkpoints") / "tiny-stage1"
    memorize.run(config, folder)
    return folder


@pytest.fixture(scope="session")
def tiny_checkpoint(tiny_stage1: Path, invented_cohort: Path) -> Path:
    """A checkpoint made by memorize -> rank -> save on `invented_cohort`; to damage one: `own_checkpoint`."""
    from training.common.config import RankConfig
    from training.rank import run as rank

    config = RankConfig(
        start=str(tiny_stage1),
        data=str(invented_cohort),
        format="table",
        epochs=6,
        batch_size=16,
        learning_rate=5e-3,
        rehearsal=4,
        save_every=0,
    )
    folder = tiny_stage1.with_name("tiny")
    rank.run(config, folder)
    return folder


@pytest.fixture(scope="session")
def random_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of an untrained model that ranks ten codes."""
    from torch import float32

    from mera_core.checkpoint.folder import save_checkpoint
    from tests.tiny import tiny_manifest, tiny_model

    folder = tmp_path_factory.mktemp("random") / "tiny"
    save_checkpoint(tiny_model(), tiny_manifest(), folder, float32)
    return folder


@pytest.fixture(scope="session")
def engine():
    """An engine over an untrained model that ranks ten codes."""
    from tests.tiny import tiny_engine

    return tiny_engine()


@pytest.fixture
def folder(random_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy of `random_checkpoint` that a test may damage."""
    return Path(shutil.copytree(random_checkpoint, tmp_path / "made"))


@pytest.fixture
def own_checkpoint(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy of `tiny_checkpoint` that a test may damage."""
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "tiny"))
