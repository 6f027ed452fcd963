"""A newcomer's only guide is the README: its commands work, its links lead on, its figures were measured."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import typer

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CHECKPOINT = ROOT / "sample_data" / "mera-mini"
PLACEHOLDER = "path/to/"  # stands for data that a reader has and we do not
LONG = ("make", "source", "python -m training")  # checked without running them: minutes, or another environment


def blocks(language: str) -> list[tuple[int, str]]:
    """The fenced blocks of a language: the line where each begins, and its text."""
    found = re.finditer(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    return [(README[: m.start()].count("\n") + 1, m[2]) for m in found if m[1] == language]


def without_environment(line: str) -> tuple[dict[str, str], str]:
    """'A=1 make app' -> ({'A': '1'}, 'make app')."""
    words, environment = line.split(" "), {}
    while words and re.fullmatch(r"[A-Z_]+=\S+", words[0]):
        name, value = words.pop(0).split("=", 1)
        environment[name] = value
    return environment, " ".join(words)


def is_long(line: str) -> bool:
    return PLACEHOLDER in line or without_environment(line)[1].startswith(LONG)


def inline_commands() -> list[str]:
    """Commands within sentences: `make lint`."""
    prose = re.sub(r"^```.*?^```$", "", README, flags=re.MULTILINE | re.DOTALL)
    return [code for code in re.findall(r"`([^`\n]+)`", prose) if re.match(r"(make|python|tensorboard) ", code)]


RUN, CHECK = [], inline_commands()
for _block in blocks("bash"):
    _lines = [line for line in _block[1].splitlines() if line.strip()]
    if any(is_long(line) for line in _lines):
        CHECK += _lines
    else:
        RUN.append(_block)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory) -> Path:
    """A folder to run in that looks like the repository, so that what a command writes lands elsewhere."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "sample_data").symlink_to(ROOT / "sample_data")
    return folder


def run(command: list[str], folder: Path) -> str:
    """Standard output of a command; fails the test, with what it said, where it fails."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return done.stdout


@pytest.mark.parametrize("block", RUN, ids=lambda block: f"line {block[0]}")
def test_short_commands_run(block, workplace):
    assert run(["bash", "-euo", "pipefail", "-c", block[1]], workplace).strip()


@pytest.mark.parametrize("block", blocks("python"), ids=lambda block: f"line {block[0]}")
def test_python_runs(block, workplace):
    assert run([sys.executable, "-c", block[1]], workplace).strip()


def test_rank_prints_the_contract(workplace):
    (block,) = (block for block in RUN if "mera_core rank" in block[1])
    output = run(["bash", "-euo", "pipefail", "-c", block[1]], workplace)
    printed = json.loads(output[output.index("\n{\n") :])
    assert {"checkpoint", "label_level", "predicted", "ranking", "notes"} <= set(printed)
    assert [row["rank"] for row in printed["ranking"]] == list(range(1, 21))


@pytest.mark.parametrize("line", CHECK)
def test_long_commands_exist(line):
    environment, command = without_environment(line)
    for name in environment:
        assert any(name in path.read_text(encoding="utf-8") for path in app_sources()), f"nothing reads {name}"
    words = shlex.split(command)
    if words[0] == "make":
        check_make(words[1:])
    elif words[:2] == ["python", "-m"]:
        check_options(words[2], words[3:])
    elif words[0] == "source":
        assert words[1:] == [".venv/bin/activate"]
        assert "venv=.venv" in (ROOT / ".ci" / "prepare").read_text(encoding="utf-8")
    else:
        assert words[0] in entry_points(group="console_scripts").names
    for word in words:
        if word.startswith("training/"):
            assert (ROOT / word).exists(), f"there is no {word}"


def app_sources() -> list[Path]:
    return [ROOT / "app.py", *(ROOT / "pages").rglob("*.py")]


def check_make(words: list[str]) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in (word for word in words if "=" not in word):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"the Makefile has no target {target}"
        subprocess.run(["make", "-n", target, "DATA=."], cwd=ROOT, capture_output=True, check=True)
    for name in (word.split("=")[0] for word in words if "=" in word):
        assert f"$({name})" in makefile, f"nothing in the Makefile reads {name}"


def check_options(module: str, arguments: list[str]) -> None:
    """Parse a command line as its own program would, and call nothing."""
    commands = typer.main.get_command(import_module(f"{module}.__main__").app).commands
    assert arguments[0] in commands, f"{module} has no command {arguments[0]}"
    commands[arguments[0]].make_context(arguments[0], arguments[1:])


def test_links_pictures_and_files_that_are_named_exist():
    named = [target for target in re.findall(r"\]\(([^)]+)\)", README) if "://" not in target]
    named += re.findall(r"`((?:app\.py|[\w.-]+/[\w./-]*))`", README)
    made_by_the_reader = (".venv", "runs/")
    assert [name for name in named if not name.startswith(made_by_the_reader) and not (ROOT / name).exists()] == []


def results() -> str:
    (section,) = re.findall(r"<!-- results: begin.*?-->\n(.*?)<!-- results: end -->", README, re.DOTALL)
    return section


def measured_figures() -> set[str]:
    """Every number of the bundled checkpoint's manifest as it may be printed: as it is or as a percentage."""
    numbers: list[float] = []
    text = (CHECKPOINT / "mera.json").read_text(encoding="utf-8")
    json.loads(
        text, parse_float=lambda number: numbers.append(float(number)), parse_int=lambda n: numbers.append(int(n))
    )
    return {f"{abs(value * scale):.{places}f}" for value in numbers for scale in (1, 100) for places in range(4)}


def test_every_result_is_a_measured_one():
    figures = re.findall(r"(?<![\w.@-])\d[\d,]*\.\d+(?!\w)", results())
    assert figures, "the results section holds no figure"
    assert [figure for figure in figures if figure.replace(",", "") not in measured_figures()] == []


def test_every_tuned_baseline_is_shown_the_strongest_first():
    rows = json.loads((ROOT / "docs" / "evidence" / "baselines.json").read_text(encoding="utf-8"))["rows"]
    recalls = {row["name"]: row["test"]["metrics"]["recall@20"]["value"] for row in rows}
    strongest_first = sorted(recalls, key=recalls.get, reverse=True)
    for text in (results(), (CHECKPOINT / "README.md").read_text(encoding="utf-8")):
        text = text[max(0, text.find("hole lists")) :]  # the table of new codes, where there is one, stands before them
        shown = re.findall(r"^\| ([^|*]+) \| [\d.]+ % \([^|]*\| ([\d.]+) % \(", text, re.MULTILINE)
        shown = [(name, recall) for name, recall in shown if name in recalls]
        assert shown == [(name, f"{100 * recalls[name]:.1f}") for name in strongest_first]
