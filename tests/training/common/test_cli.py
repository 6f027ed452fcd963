"""python -m training: its commands, its JSON, and status 2 with one plain sentence for what a user can mend."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import yaml

from mera_core.checkpoint.folder import read_manifest
from training import __main__ as cli


@pytest.fixture
def call(monkeypatch, capsys):
    """Runs a command in this process: its standard output, or, where it refuses with status 2, its one sentence."""

    def run(*words: object) -> str:
        monkeypatch.setattr(sys, "argv", ["training", *map(str, words)])
        try:
            cli.main()
        except SystemExit as end:
            assert end.code == 2
            out, err = capsys.readouterr()
            assert out == "" and len(err.strip().splitlines()) == 1 and "Traceback" not in err
            return err
        return capsys.readouterr().out

    return run


def settings(path: Path, **values) -> Path:
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def test_evaluate_prints_and_writes_the_same_json_each_time(
    tiny_checkpoint, invented_cohort, tmp_path, monkeypatch, call
) -> None:
    words = ["evaluate", "--checkpoint", tiny_checkpoint, "--data", invented_cohort, "--draws", 20]
    words += ["--against", tiny_checkpoint]
    first, second = (call(*words, "--json", "--out", tmp_path / name) for name in ("first.json", "second.json"))
    assert first == second == (tmp_path / "first.json").read_text() == (tmp_path / "second.json").read_text()
    assert {"metrics", "recurrent", "new_onset", "baselines", "against"} <= set(json.loads(first))
    monkeypatch.setenv("COLUMNS", "200")
    table = call(*words)
    assert "recall@20" in table and "learned" in table and "code frequency" in table
    assert json.loads(call(*words, "--paper", "--json"))["mode"] == "paper"


def test_a_cut_is_fitted_again_from_the_command_line(tiny_checkpoint, invented_cohort, tmp_path, call) -> None:
    words = ["fit-cut", tiny_checkpoint, "--data", invented_cohort, "--format", "table", "--out", tmp_path / "again"]
    assert "weighted F1 of its cut on" in call(*words)
    assert read_manifest(tmp_path / "again").method["cut"]["fitted_on"] == f"validation part of {invented_cohort.name}"


def test_rank_trains_with_overrides_and_writes_a_checkpoint(tiny_stage1, invented_cohort, tmp_path, call) -> None:
    values = {"epochs": 1, "batch_size": 32, "save_every": 0, "seed": 1, "start": "nowhere", "data": "nothing"}
    config, out = settings(tmp_path / "rank.yaml", **values), tmp_path / "out"
    words = ["rank", "--config", config, "--out", out, "--start", tiny_stage1, "--data", invented_cohort]
    assert f"Written: {out}" in call(*words, "--format", "table", "--seed", 5)
    manifest = read_manifest(out)
    assert manifest.method["rank"]["seed"] == 5 and manifest.method["rank"]["epochs"] == 1


def test_a_question_is_answered_into_its_file(tiny_checkpoint, invented_cohort, tmp_path, call) -> None:
    out = tmp_path / "question-4.json"
    words = ["question", 4, "--data", invented_cohort, "--format", "table", "--checkpoint", tiny_checkpoint]
    assert call(*words, "--source", f"again=table:{invented_cohort}", "--out", out).strip() == f"Written: {out}"
    rows = json.loads(out.read_text())["rows"]
    assert [row["source"] for row in rows] == ["home", "again"] and rows[1]["patients"] > rows[0]["patients"] > 5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("memorize --config {tmp}/none.yaml --out {tmp}/out", "There is no configuration file"),
        ("memorize --config {tmp}/bad.yaml --out {tmp}/out", "sead is not a known"),
        ("rank --config {tmp}/empty.yaml --out {tmp}/out", "The setting start is empty"),
        ("rank --config {tmp}/empty.yaml --out {tmp}/out --start no --data {cohort}", "no checkpoint folder"),
        ("rank --config {tmp}/empty.yaml --out {tmp}/out --start {stage1} --data {tmp}/no.csv", "no.csv"),
        ("evaluate --checkpoint {tmp}/no --data {cohort}", "There is no checkpoint folder"),
        ("evaluate --checkpoint {stage1} --data {cohort}", "was not trained to rank"),
        ("evaluate --checkpoint {tiny} --data {tmp}/no.csv", "no.csv"),
        ("evaluate --checkpoint {tiny} --data {cohort} --format paper", "paper"),
        ("evaluate --checkpoint {tiny} --data {cohort} --part tset", '--part is "tset"'),
        ("evaluate --checkpoint {tiny} --data {cohort} --part paper", "no split of table records"),
        ("evaluate --checkpoint {tiny} --data {cohort} --draws 5", "Invalid value for '--draws'"),
        ("evaluate --checkpoint {tiny} --data {cohort} --out {tmp}/no/x.json", "There is no folder"),
        ("evaluate --data {cohort}", "Missing option '--checkpoint'."),
        ("recall --checkpoint {tmp}/no", "There is no checkpoint folder"),
        ("publish {tmp}/no {tmp}/out --data {cohort}", "There is no checkpoint folder"),
        ("baselines --checkpoint {tiny} --data {cohort} --seeds one,two", 'not "one,two"'),
        ("baselines --checkpoint {tiny} --data {cohort} --only oracle --out {tmp}/out", "no baseline oracle"),
        ("ablate --data {cohort} --only red --runs {tmp}/runs --out {tmp}/out", "has no row red"),
        ("ablate --data {cohort} --config none.yaml", "none.yaml can't be read as a table of ablations"),
        ("question 4 --data {cohort} --source somewhere --out {tmp}/out", "NAME=FORMAT:PATH"),
        ("question 7 --data {cohort}", "Invalid value for 'number'"),
        ("report --checkpoint {tiny} --folder {tmp}/runs", "publish it first"),
    ],
)
def test_what_a_user_can_mend_is_one_sentence_and_status_2(
    words, message, tiny_stage1, tiny_checkpoint, invented_cohort, tmp_path, call
) -> None:
    settings(tmp_path / "bad.yaml", sead=1)
    (tmp_path / "empty.yaml").write_text("")
    places = {"tmp": tmp_path, "cohort": invented_cohort, "stage1": tiny_stage1, "tiny": tiny_checkpoint}
    assert message in call(*(word.format(**places) for word in words.split()))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["memorize", "rank", "merge", "export", "fit-cut"])
def test_no_command_writes_over_what_is_not_its_own(
    command, tiny_stage1, tiny_checkpoint, invented_cohort, tmp_path, call
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
    assert f"{own} is there already and is no checkpoint" in call(command, *words, "--out", own)
    assert [path.read_text() for path in own.iterdir()] == ["mine"]
    if command in ("memorize", "rank", "export"):
        (tmp_path / "file").write_text("")
        assert "can't be written" in call(command, *words, "--out", tmp_path / "file" / "x" / "y")
