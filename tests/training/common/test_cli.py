"""python -m training: its commands, its JSON, and status 2 with one plain sentence for what a user can mend."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mera_core.checkpoint.folder import read_manifest
from training import __main__ as cli

ROOT = Path(__file__).resolve().parents[3]


def call(monkeypatch, *words: object) -> int:
    """Run a command in this process; its exit status."""
    monkeypatch.setattr(sys, "argv", ["training", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        cli.main()
        raise SystemExit(0)
    return int(end.value.code or 0)


def settings(path: Path, **values) -> Path:
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def refused(capsys) -> str:
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    lines = err.strip().splitlines()
    assert len(lines) == 1, err
    return lines[0]


def test_evaluate_prints_and_writes_the_same_json(
    tiny_checkpoint, invented_cohort, tmp_path, monkeypatch, capsys
) -> None:
    words = ["evaluate", "--checkpoint", tiny_checkpoint, "--data", invented_cohort, "--format", "table", "--draws", 10]
    assert call(monkeypatch, *words, "--json", "--out", tmp_path / "figures.json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))
    assert {"metrics", "recurrent", "new_onset", "baselines"} <= set(printed)
    monkeypatch.setenv("COLUMNS", "200")
    assert call(monkeypatch, *words) == 0
    table = capsys.readouterr().out
    assert "recall@20" in table and "learned" in table and "code frequency" in table


def test_paper_mode_from_the_command_line(tiny_checkpoint, invented_cohort, monkeypatch, capsys) -> None:
    words = ["evaluate", "--checkpoint", tiny_checkpoint, "--data", invented_cohort, "--draws", 10, "--paper", "--json"]
    assert call(monkeypatch, *words) == 0
    assert json.loads(capsys.readouterr().out)["mode"] == "paper"


def test_a_cut_is_fitted_again_from_the_command_line(
    tiny_checkpoint, invented_cohort, tmp_path, monkeypatch, capsys
) -> None:
    words = ["fit-cut", tiny_checkpoint, "--data", invented_cohort, "--format", "table", "--out", tmp_path / "again"]
    assert call(monkeypatch, *words) == 0
    assert "weighted F1 of its cut on" in capsys.readouterr().out
    assert read_manifest(tmp_path / "again").method["cut"]["fitted_on"] == f"validation part of {invented_cohort.name}"


def test_rank_trains_with_overrides_and_writes_a_checkpoint(
    tiny_stage1, invented_cohort, tmp_path, monkeypatch, capsys
) -> None:
    config = settings(
        tmp_path / "rank.yaml", passes=1, batch_size=32, save_every=0, seed=1, start="nowhere", data="nothing"
    )
    words = ["rank", "--config", config, "--out", tmp_path / "out", "--start", tiny_stage1, "--data", invented_cohort]
    assert call(monkeypatch, *words, "--format", "table", "--seed", 5) == 0
    assert f"Written: {tmp_path / 'out'}" in capsys.readouterr().out
    manifest = read_manifest(tmp_path / "out")
    assert manifest.method["rank"]["seed"] == 5 and manifest.method["rank"]["passes"] == 1


RANK = ["rank", "--config", "{tmp}/empty.yaml", "--out", "{tmp}/out"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["memorize", "--config", "{tmp}/none.yaml", "--out", "{tmp}/out"], "There is no configuration file"),
        (["memorize", "--config", "{tmp}/bad.yaml", "--out", "{tmp}/out"], "sead is not a known"),
        ([*RANK], "The setting start is empty"),
        ([*RANK, "--start", "no", "--data", "{cohort}"], "There is no checkpoint folder"),
        ([*RANK, "--start", "{stage1}", "--data", "{tmp}/no.csv"], "no.csv"),
        (["evaluate", "--checkpoint", "{tmp}/no", "--data", "{cohort}"], "There is no checkpoint folder"),
        (["evaluate", "--checkpoint", "{stage1}", "--data", "{cohort}"], "was not trained to rank"),
        (["evaluate", "--checkpoint", "{tiny}", "--data", "{tmp}/no.csv"], "no.csv"),
        (["evaluate", "--checkpoint", "{tiny}", "--data", "{cohort}", "--format", "paper"], "paper"),
        (["evaluate", "--checkpoint", "{tiny}", "--data", "{cohort}", "--part", "tset"], '--part is "tset"'),
        (["evaluate", "--checkpoint", "{tiny}", "--data", "{cohort}", "--draws", "10", "--out", "{tmp}/no/x.json"], "no"),
        (["recall", "--checkpoint", "{tmp}/no"], "There is no checkpoint folder"),
        (["publish", "{tmp}/no", "{tmp}/out", "--data", "{cohort}"], "There is no checkpoint folder"),
    ],
    ids=lambda value: "" if isinstance(value, list) else value[:40],
)  # fmt: skip
def test_what_a_user_can_mend_is_one_sentence_and_status_2(
    words, message, tiny_stage1, tiny_checkpoint, invented_cohort, tmp_path, monkeypatch, capsys
) -> None:
    settings(tmp_path / "bad.yaml", sead=1)
    (tmp_path / "empty.yaml").write_text("")
    places = {"tmp": tmp_path, "cohort": invented_cohort, "stage1": tiny_stage1, "tiny": tiny_checkpoint}
    assert call(monkeypatch, *(word.format(**places) for word in words)) == 2
    assert message in refused(capsys)
    assert not (tmp_path / "out").exists()


def test_from_a_shell_too() -> None:
    command = [sys.executable, "-m", "training", "evaluate", "--checkpoint", "nowhere", "--data", "nothing"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.strip() == "There is no checkpoint folder nowhere."


@pytest.mark.parametrize("command", ["memorize", "rank", "merge", "export", "fit-cut"])
def test_no_command_writes_over_what_is_not_its_own(
    command, tiny_stage1, tiny_checkpoint, invented_cohort, tmp_path, monkeypatch, capsys
) -> None:
    own = tmp_path / "docs"
    own.mkdir()
    (own / "thesis.md").write_text("mine")
    settings(tmp_path / "rank.yaml", start=str(tiny_stage1), data=str(invented_cohort), format="table")
    settings(tmp_path / "memorize.yaml")
    words = {
        "fit-cut": [tiny_checkpoint, "--data", invented_cohort],
        "merge": [tiny_checkpoint],
        "export": [tiny_checkpoint],
    }.get(command, ["--config", tmp_path / f"{command}.yaml"])
    assert call(monkeypatch, command, *words, "--out", own) == 2
    assert f"{own} is there already and is no checkpoint" in refused(capsys)
    assert [path.read_text() for path in own.iterdir()] == ["mine"]
    if command in ("memorize", "rank", "export"):
        (tmp_path / "file").write_text("")
        assert call(monkeypatch, command, *words, "--out", tmp_path / "file" / "x" / "y") == 2
        assert "can't be written" in refused(capsys)
