"""The wheel: holds what the checkout does, asks for what the requirements files say, and works away from the checkout."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

from tests.browser.app_server import await_answer
from tests.conftest import ROOT, free_port

EXTRAS = {"": "", "train": "-train", "ray": "-ray", "test": "-dev"}
PREDICT = """
import sys
from mera_core import Engine
from streamlit.testing.v1 import AppTest
print(Engine.load().name, sys.modules["mera_core"].__file__)
page = AppTest.from_file(sys.argv[1], default_timeout=120).switch_page("pages/1_Predict.py")
page.query_params["demo"] = "demo-heart-failure"
page.run()
print([*(each.value for each in page.subheader), *(each.value for each in page.exception)])
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", str(ROOT), "--no-deps", "--no-build-isolation", "-w", str(folder))
    (path,) = folder.glob("mera-*.whl")
    return path


@pytest.fixture(scope="module")
def site(wheel, tmp_path_factory) -> Path:
    """A folder that the wheel is installed into; beside the libraries of this environment it holds all that MERA is."""
    folder = tmp_path_factory.mktemp("installed") / "site"
    pip("install", str(wheel), "--no-deps", "--no-index", "--target", str(folder))
    return folder


def pip(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "pip", "-q", *words], check=True, timeout=300)


def away(site: Path, *command: str | Path) -> str:
    """What a command prints that runs outside the checkout."""
    done = subprocess.run(command, cwd=site.parent, env=environment(site), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def environment(site: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(site)}


def test_the_wheel_holds_the_packages_and_one_folder_for_the_app(wheel):
    folders = {"mera_core": "", "training": "", "pages": "mera_app/", "sample_data": "mera_app/"}
    expected = {
        into + path.relative_to(ROOT).as_posix()
        for name, into in folders.items()
        for path in (ROOT / name).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".lock"
    }
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert held == expected | {"mera_app/app.py", "mera_app/.streamlit/config.toml"}


def test_the_wheel_asks_for_what_the_requirements_files_pin(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        told = Parser().parsestr(archive.read(name).decode())
    assert f"## {told['Version']}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    for extra, file in EXTRAS.items():
        text = (ROOT / f"requirements{file}.txt").read_text(encoding="utf-8")
        pinned = {
            (re.sub(r"[._]", "-", name), pin) for name, pin in re.findall(r"^([^\s#=]+)==(\S+)", text, re.MULTILINE)
        }
        mark = f"; extra == '{extra}'" if extra else ""
        asked = [one.removesuffix(mark) for one in told.get_all("Requires-Dist") if one.endswith(mark)]
        assert {tuple(one.split("==")) for one in asked if ";" not in one} == pinned, extra


def test_a_patient_is_ranked_by_the_command(site):
    (site.parent / "history.json").write_text('{"visits": [{"codes": ["428.0", "250.00"]}]}')
    found = json.loads(away(site, site / "bin" / "mera", "rank", "history.json", "--top", "3", "--json"))
    assert found["checkpoint"].startswith("mera-mini ") and len(found["ranking"]) == 3
    assert "Usage: mera " in away(site, site / "bin" / "mera", "--help")
    assert "Usage: python -m training " in away(site, sys.executable, "-m", "training", "--help")


def test_the_app_answers_and_ranks_a_demo_patient(site):
    port = free_port()
    command = [site / "bin" / "mera", "app", "--port", str(port)]
    with subprocess.Popen(command, cwd=site.parent, env=environment(site), stdout=subprocess.DEVNULL) as server:
        try:
            await_answer(f"http://127.0.0.1:{port}", server)
        finally:
            server.terminate()
    engine, page = away(site, sys.executable, "-c", PREDICT, site / "mera_app" / "app.py").splitlines()
    assert engine.startswith("mera-mini ") and engine.endswith(str(site / "mera_core" / "__init__.py"))
    assert "codes predicted" in page
