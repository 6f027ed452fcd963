"""What a machine does to a program: each fault ends in a sentence, and nothing half-written stands where a file stood.

Real where this machine allows it: memory is taken away by the kernel's own limit, disks are small file systems of their own
(`unshare`, without privileges), processes are killed by signals.
"""

from __future__ import annotations

import ast
import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import pytest

import mera_core.__main__ as cli
from mera_core.checkpoint import folder as checkpoint
from mera_core.checkpoint.folder import load_checkpoint, save_checkpoint
from mera_core.common import faults
from mera_core.common.errors import InputError
from mera_core.engine import Engine
from mera_core.history.history_json import patient_from_json
from mera_core.history.records import Patient, Visit, write_visits
from mera_core.icd import tables as icd_tables
from mera_core.icd.ontology import Code, Ontology
from tests.repository.test_privacy import nodes
from tests.tiny import CODES, tiny_manifest, tiny_model

ROOT = Path(__file__).resolve().parents[2]
PATIENT = Patient([Visit(CODES[:3], age=60)])


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """A table of 20,000 rows: some seconds of nothing for a fault to fall into, and half a megabyte to write."""
    path = tmp_path_factory.mktemp("source") / "rows.csv"
    people = [Patient([Visit(["428.0", "401.9"]), Visit(["250.00", "585.9"])], id=f"p{n}") for n in range(5_000)]
    write_visits(people, path)
    return path


def run(script: str, *arguments: object, **options) -> subprocess.CompletedProcess[str]:
    """A Python script in a process of its own, from the root of the repository."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, **options)


def small_disk(script: str, *arguments: object, size: str = "96k", read_only: bool = False):
    """Run a script where the folder DISK is a file system of its own, `size` large or not to be written to."""
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode:
        pytest.skip("This machine allows no file system of one's own (unshare -rm), so the disk can't be made small.")
    setup = f'mount -t tmpfs -o size={size} tmpfs "$0"'
    setup += ' && mkdir "$0/inner" && mount -o remount,ro "$0"' if read_only else ""
    disk = arguments[0]
    shell = f'{setup} && shift && exec "$@"'
    command = ["unshare", "-rm", "sh", "-c", shell, disk, "-", sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


def one_sentence(text: str, *words: str) -> None:
    assert text.count("\n") == 1 and "Traceback" not in text, text
    for word in words:
        assert word in text, text


# --- out of memory

NO_MEMORY = """
import sys, resource
from pathlib import Path
from mera_core.engine import Engine
from mera_core.common.errors import InputError
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 12_000_000, used + 12_000_000))
try:
    Engine.load()
except InputError as error:
    print(error)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="There is no /proc to learn the memory in use from.")
def test_out_of_memory_while_a_checkpoint_is_loaded():
    done = run(NO_MEMORY)
    one_sentence(done.stdout, "can't be loaded: there is not enough memory")


def rank_raising(error: Exception, monkeypatch, folder: Path) -> int:
    def rank(*_: object):
        raise error

    monkeypatch.setattr(cli, "_engine", lambda folder, quantize: type("", (), {"rank": rank})())
    (folder / "h.json").write_text('{"visits": [{"codes": ["428.0"]}]}')
    return cli.main(["rank", str(folder / "h.json")])


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried ..."),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_out_of_memory_while_ranking(error, monkeypatch, capsys, tmp_path):
    assert rank_raising(error, monkeypatch, tmp_path) == 2
    one_sentence(capsys.readouterr().err, "There is not enough memory for this")


def test_an_error_of_our_own_is_not_taken_for_the_machines(monkeypatch, tmp_path):
    with pytest.raises(RuntimeError, match="shapes"):
        rank_raising(RuntimeError("shapes do not match"), monkeypatch, tmp_path)
    assert faults.describe_system_error(OSError(errno.ENOENT, "No such file")) is None
    assert "the disk is full" in faults.describe_system_error(OSError(errno.ENOSPC, "No space left on device"))
    assert "Too many files" in faults.describe_system_error(OSError(errno.EMFILE, ""))


# --- full disk, read-only folder

CONVERT = """
import sys, os
from mera_core.__main__ import main
status = main(["convert", sys.argv[2], "--out", sys.argv[1] + "/" + sys.argv[3]])
print(status, sorted(os.listdir(sys.argv[1])))
"""
SAVE = """
import sys, os
from pathlib import Path
from mera_core.common.errors import InputError
from mera_core.checkpoint.folder import save_checkpoint
from tests.tiny import tiny_model, tiny_manifest
try:
    save_checkpoint(tiny_model(), tiny_manifest(), Path(sys.argv[1]) / sys.argv[2])
except InputError as error:
    print(error)
print(sorted(os.listdir(sys.argv[1])))
"""


@pytest.mark.parametrize(
    ("out", "read_only", "said", "left"),
    [(f"out.{ending}", False, "No space left on device", []) for ending in ("csv", "jsonl", "parquet")]
    + [("inner/out.csv", True, "Read-only file system", ["inner"])],
)
def test_a_table_that_the_disk_refuses(source, tmp_path, out, read_only, said, left):
    done = small_disk(CONVERT, tmp_path, source, out, size="16k", read_only=read_only)
    one_sentence(done.stderr, f"{out} can't be written: ", said)
    assert done.stdout == f"2 {left}\n"


@pytest.mark.parametrize(
    ("out", "read_only", "said", "left"),
    [("new", False, "the disk is full", []), ("inner/new", True, "may not be written to", ["inner"])],
)
def test_a_checkpoint_that_the_disk_refuses(tmp_path, out, read_only, said, left):
    told, listing = small_disk(SAVE, tmp_path, out, size="64k", read_only=read_only).stdout.splitlines()
    assert "new can't be written: " in told and said in told
    assert listing == str(left)


# --- killed while writing

SLOW_WRITE = """
import sys, time
import mera_core.history.visits_file as visits
whole = visits._told
def slow(*arguments):
    for batch in whole(*arguments):
        yield batch
        print("writing", flush=True)
        time.sleep(60)
visits._told = slow
from mera_core.__main__ import main
sys.exit(main(["convert", sys.argv[1], "--out", sys.argv[2]]))
"""


def killed_while_writing(source: Path, out: Path, number: signal.Signals) -> int:
    command = [sys.executable, "-c", SLOW_WRITE, str(source), str(out)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "writing\n"
        process.send_signal(number)
        process.communicate(timeout=60)
        return process.returncode


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_killed_mid_write_leaves_the_old_file_whole(source, tmp_path, ending):
    out = tmp_path / f"out.{ending}"
    out.write_text("the old file")
    assert killed_while_writing(source, out, signal.SIGKILL) == -signal.SIGKILL
    assert out.read_text() == "the old file"
    assert cli.main(["convert", str(source), "--out", str(out)]) == 0
    assert out.stat().st_size > 10_000


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_reader_that_is_asked_to_end_leaves_nothing_behind(source, tmp_path, number):
    out = tmp_path / "out.csv"
    assert killed_while_writing(source, out, number) == 130
    assert list(tmp_path.iterdir()) == []


READ_SLOWLY = """
import sys, time
from pathlib import Path
import pages.shared.widgets.upload as upload
def stuck(*_):
    print("reading", flush=True)
    time.sleep(60)
upload.read = stuck
from tests.uploads import Sent
upload.read_uploads([Sent("sentinel.csv", "patient_id,visit,system,code\\n")])
"""


def test_a_readers_process_that_is_killed_leaves_its_upload_in_its_own_temporary_folder_only(tmp_path):
    """Which the service's recipe puts in memory and removes with it (PrivateTmp, docs/deploy.md)."""
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", READ_SLOWLY]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout.readline() == "reading\n"
        (left,) = tmp_path.iterdir()
        assert left.name.startswith("mera-upload-") and left.stat().st_mode & 0o077 == 0
        process.kill()
        process.communicate(timeout=60)


STOPPED_BETWEEN_RENAMES = """
import os, sys
from pathlib import Path
from mera_core.checkpoint.folder import save_checkpoint
from tests.tiny import tiny_model, tiny_manifest
rename = Path.rename
def once(self, target):
    rename(self, target)
    os._exit(9)
Path.rename = once
save_checkpoint(tiny_model(seed=5), tiny_manifest(), Path(sys.argv[1]))
"""


def test_killed_between_the_two_renames_of_a_checkpoint_the_old_one_is_there(folder):
    before = {path.name: checkpoint.sha256(path) for path in folder.iterdir()}
    assert run(STOPPED_BETWEEN_RENAMES, folder).returncode == 9
    with pytest.raises(
        InputError, match=r"There is no checkpoint folder .*; .*\.old holds the one that was being replaced"
    ):
        load_checkpoint(folder)
    old = folder.with_name(folder.name + ".old")
    assert {path.name: checkpoint.sha256(path) for path in old.iterdir()} == before
    save_checkpoint(tiny_model(seed=5), tiny_manifest(), folder)
    load_checkpoint(folder)
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


# --- the model's folder while it is served


def test_the_folder_is_replaced_and_removed_while_serving(folder):
    engine = Engine.load(folder)
    before = engine.rank(PATIENT)
    save_checkpoint(tiny_model(seed=5), tiny_manifest(), folder)
    again = engine.rank(PATIENT)
    assert (again.codes, again.checkpoint) == (before.codes, before.checkpoint)
    assert (again.scores == before.scores).all()
    other = Engine.load(folder)
    assert other.name != engine.name
    assert (other.rank(PATIENT).scores != before.scores).any()
    shutil.rmtree(folder)
    assert (engine.rank(PATIENT).scores == before.scores).all()


CUT_IN_PLACE = """
import os, sys
from pathlib import Path
from mera_core.engine import Engine
from tests.common.test_faults import PATIENT
engine = Engine.load(sys.argv[1])
before = engine.rank(PATIENT).scores
for path in Path(sys.argv[1]).glob("*.safetensors"):
    os.truncate(path, 0)
print(bool((engine.rank(PATIENT).scores == before).all()))
"""


def test_weights_that_are_cut_in_place_while_serving_do_no_harm(folder):
    """A map of the file in memory would end the process here (SIGBUS)."""
    done = run(CUT_IN_PLACE, folder)
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr


# --- corrupted caches and tables


@pytest.mark.parametrize("content", [b"", b"no gzip", None], ids=["empty", "altered", "missing"])
def test_a_damaged_code_set_is_one_sentence(content, tmp_path, monkeypatch):
    shutil.copytree(ROOT / "mera_core" / "data", tmp_path / "data")
    table = tmp_path / "data" / "icd9.columns.gz"
    table.unlink()
    if content is not None:
        table.write_bytes(content)
    monkeypatch.setattr(icd_tables, "_DATA", tmp_path / "data")
    icd_tables.tree.cache_clear()
    with pytest.raises(InputError, match=r"The ICD table icd9\.columns\.gz is missing or damaged"):
        Ontology.load().definition(Code("ICD9", "428.0"))
    monkeypatch.undo()
    assert Ontology.load().definition(Code("ICD9", "428.0"))


# --- clocks


def test_a_clock_that_was_set_back_is_named_in_the_refusal():
    with pytest.raises(
        InputError, match=r"visits\[0\]\.time is 2026-01-31, which is in the future of this machine's clock"
    ):
        patient_from_json({"visits": [{"codes": ["428.0"], "time": "2026-01-31"}]}, datetime(1970, 1, 1))


def test_no_duration_is_taken_from_a_clock_that_can_jump():
    """Read from the source: what measures time uses `monotonic` or `perf_counter`."""
    calls = [path for path, node in nodes(ast.Call) if ast.unparse(node.func) == "time.time"]
    calls += [p for p, node in nodes(ast.BinOp) if isinstance(node.op, ast.Sub) and "now(" in ast.unparse(node)]
    assert calls == []


def test_a_clock_that_jumps_changes_no_ranking(folder, monkeypatch):
    engine = Engine.load(folder)
    before = engine.rank(PATIENT)
    monkeypatch.setattr(time, "time", lambda: 0.0)
    after = engine.rank(PATIENT)
    monkeypatch.setattr(time, "time", lambda: 1e11)
    assert after.to_json(5) == before.to_json(5) == engine.rank(PATIENT).to_json(5)
