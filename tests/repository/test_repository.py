"""What holds of the repository as a whole: pins, safe settings, the bundled checkpoint, the way in."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import tomllib
import warnings
from pathlib import Path

import pytest

from mera_core.common.limits import Limits

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "sample_data"
CHECKPOINT = SAMPLES / "mera-mini"
SECOND = SAMPLES / "mera-icd10"
REQUIREMENTS = sorted(path.name for path in ROOT.glob("requirements*.txt"))
PINS = r"^([\w.-]+)(?:\[\w+\])?==([\w.]+)"
SKIPS = re.compile(r"importorskip|skipif\([^)]*find_spec|skip\([^)]*not installed")
MEGABYTE = 1_000_000


SCRATCH = {
    ".git",
    ".venv",
    "runs",
    "build",
    ".pytest_cache",
    ".ruff_cache",
    ".mypy_cache",
    ".hypothesis",
    "__pycache__",
}


def files() -> list[Path]:
    """Every file of the repository, as it would be committed."""
    found = []
    for folder, inner, names in os.walk(ROOT):
        inner[:] = [name for name in inner if name not in SCRATCH]
        found += [Path(folder, name) for name in names if not name.endswith(".pyc")]
    return found


def test_every_requirement_is_pinned_and_says_what_it_is_for():
    for name in REQUIREMENTS:
        lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
        packages = [line for line in lines if line and not line.startswith("#")]
        wrong = [line for line in packages if not re.fullmatch(PINS[1:] + r" +# \S.*", line)]
        assert packages and wrong == [], name


def test_the_installed_libraries_are_those_of_the_pins():
    from importlib.metadata import version

    for name in set(REQUIREMENTS) - {"requirements-fuzz.txt"}:
        for package, pin in re.findall(PINS, (ROOT / name).read_text("utf-8"), re.MULTILINE):
            assert version(package).split("+")[0] == pin, f"{package}: run make test, which installs {name}"


def test_the_app_starts_with_safe_settings():
    settings = tomllib.loads((ROOT / ".streamlit" / "config.toml").read_text(encoding="utf-8"))
    server = settings["server"]
    assert settings["browser"]["gatherUsageStats"] is server["showEmailPrompt"] is False
    assert settings["client"]["showErrorDetails"] == "none" and settings["client"]["showErrorLinks"] is False
    assert settings["logger"]["enableRich"] is False  # its tracebacks would pass by the log
    assert server["address"] == "127.0.0.1" and server["allowedHosts"]
    assert server["enableXsrfProtection"] is server["enableCORS"] is True
    assert 1_000_000 * server["maxUploadSize"] == Limits().upload_bytes  # the field promises what is taken


def test_the_bundled_checkpoints_hold_no_code():
    for folder in (CHECKPOINT, SECOND):
        assert {path.suffix for path in folder.rglob("*") if path.is_file()} == {".safetensors", ".json", ".md"}


def test_no_path_of_one_machine():
    pattern = re.compile(rb"(?<![\w.>)])/(?:home|Users|root|work|tmp|mnt|opt)/[\w.-]+")
    found = set()
    for path in files():
        content = path.read_bytes() if path.stat().st_size < MEGABYTE and path != Path(__file__) else b"\0"
        found |= {(str(path.relative_to(ROOT)), each) for each in pattern.findall(content) if b"\0" not in content}
    assert found == set()


@pytest.mark.parametrize(
    ("data", "said"), [("", "name the patient records"), ("no/such/folder", "there is nothing at")]
)
def test_make_checkpoint_says_what_it_lacks(data, said):
    done = subprocess.run(["make", "checkpoint", f"DATA={data}"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode != 0
    assert said in done.stderr


def prepare(folder: Path, program: str, what: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a copy of .ci/prepare in `folder`, with only a few tools and a pretended python3 on the PATH."""
    (folder / "bin").mkdir()
    for tool in ("dirname", "rm", "cat", "cmp", "cp", "mkdir", "id"):
        path = shutil.which(tool)
        assert path, f"this machine has no {tool}"
        (folder / "bin" / tool).symlink_to(path)
    python = folder / "bin" / "python3"
    python.write_text(f"#!/bin/sh\n{program}\n", encoding="utf-8")
    python.chmod(0o755)
    shutil.copytree(ROOT / ".ci", folder / ".ci")
    for name in REQUIREMENTS:
        shutil.copy(ROOT / name, folder / name)
    return subprocess.run(
        ["/bin/sh", str(folder / ".ci" / "prepare"), what],
        env={"PATH": str(folder / "bin")} | environment,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ('[ "$1" = --version ] && echo Python 3.10.4 || exit 1', "3.11 or newer, and 'python3' is: Python 3.10.4"),
        ('case "$*" in *version_info*) ;; --version) echo Python 3.12.1 ;; *) exit 1 ;; esac', "python3-venv"),
    ],
    ids=["too old", "no venv module"],
)
def test_an_unfit_python_is_told_in_a_sentence(program, said, tmp_path):
    done = prepare(tmp_path, program, "app")
    assert done.returncode == 1 and said in done.stderr and not (tmp_path / ".venv").exists()


PRETENDED_PYTHON = """
case "$*" in
*"-m venv"*) mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
*"pip install"*) echo "Collecting something==1 (from -r file)"; exit "${PIP_STATUS:-0}" ;;
*playwright*|-) exit 1 ;;
--version) echo "Python 3.12.1" ;;
esac
"""


def test_requirements_are_installed_once_and_again_when_they_change(tmp_path):
    first = prepare(tmp_path, PRETENDED_PYTHON, "app")
    assert first.returncode == 0 and "== Installing the libraries" in first.stdout, first.stderr

    def again() -> str:
        command = ["/bin/sh", str(tmp_path / ".ci" / "prepare"), "app"]
        return subprocess.run(command, env={"PATH": str(tmp_path / "bin")}, capture_output=True, text=True).stdout

    assert again() == ""
    with (tmp_path / "requirements.txt").open("a") as file:
        file.write("more==1\n")
    assert again().startswith("== Installing the libraries")
    assert again() == ""


def test_a_failed_installation_is_told_and_tried_again(tmp_path):
    done = prepare(tmp_path, PRETENDED_PYTHON, "app", PIP_STATUS="1")
    assert done.returncode == 1 and "pip could not install requirements.txt" in done.stderr
    assert not (tmp_path / ".venv" / "installed-requirements.txt").exists()


def test_tests_run_without_a_browser_and_say_so(tmp_path):
    done = prepare(tmp_path, PRETENDED_PYTHON, "test")
    assert done.returncode == 0 and "No Chromium could be installed" in done.stdout, done.stderr


def test_a_withdrawn_call_of_our_own_fails_the_tests():
    for module in ("mera_core.icd.search", "training.rank.run", "pages.shared.app.layout"):
        with pytest.raises(DeprecationWarning):
            warnings.warn_explicit("gone soon", DeprecationWarning, "x.py", 1, module=module)
    with warnings.catch_warnings(record=True):
        warnings.warn_explicit("gone soon", DeprecationWarning, "x.py", 1, module="some_library")


def test_no_test_is_skipped_for_want_of_what_is_installed_for_the_tests():
    """A skip is for what a machine can't have: what is ours or in the lists of requirements has to be there."""
    texts = {
        path: path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py") if path != Path(__file__)
    }
    assert [path.name for path, text in texts.items() if SKIPS.search(text)] == []


@pytest.mark.parametrize("address", [("192.0.2.1", 80), ("example.org", 443)])
def test_tests_can_not_reach_the_network(address, network_attempts):
    with pytest.raises(ConnectionError, match=re.escape(address[0])):
        socket.create_connection(address, timeout=0.1)
    assert network_attempts == [address[0]]
    network_attempts.clear()
