"""python -m mera_core: its contracts, and one plain sentence with status 2 for whatever the user can mend."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import mera_core.__main__ as cli
from mera_core.checkpoint.folder import save_checkpoint
from mera_core.icd.ontology import Code
from sample_data import cohort_from_demo
from tests.tiny import tiny_manifest, tiny_model, tiny_vocabulary

ROOT = Path(cli.__file__).resolve().parent.parent
LABELS = tuple(sorted(Code("ICD9", code) for code in ("250", "401", "414", "427", "428", "486", "496")))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A real checkpoint, 32 wide with random weights, over seven categories."""
    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    save_checkpoint(tiny_model(LABELS, tiny_vocabulary(LABELS)), tiny_manifest(LABELS), folder)
    return folder


@pytest.fixture
def run(capsys):
    """Run the command line in this process: (status, standard output, standard error)."""

    def call(*arguments):
        capsys.readouterr()
        status = cli.main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return status, out, err

    return call


@pytest.fixture
def refused(run):
    """Run what must be refused: the one sentence it says."""

    def call(*arguments):
        status, out, err = run(*arguments)
        assert status == 2
        assert out == ""
        assert err.count("\n") == 1
        assert err.endswith((".\n", "?\n", "!\n"))
        assert "Traceback" not in err
        return err

    return call


def write(path, value):
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def history(tmp_path, *codes, **visit):
    return write(tmp_path / "h.json", {"sex": "F", "age": 72, "visits": [{"codes": list(codes), **visit}]})


# --- rank


def test_rank_prints_the_contract(run, checkpoint, tmp_path):
    path = history(tmp_path, "428.0", {"system": "ICD10", "code": "I50.22"}, "4280", time="2026-01-31")
    status, out, _ = run("rank", path, "--top", 3, "--json", "--checkpoint", checkpoint)
    assert status == 0
    result = json.loads(out)
    assert {"checkpoint", "label_level", "order", "predicted", "ranking", "notes", "notice"} <= set(result)
    assert [row["rank"] for row in result["ranking"]] == [1, 2, 3]
    assert {"system", "code", "definition", "score", "share", "above_cut", "recurrent"} <= set(result["ranking"][0])
    scores = [row["score"] for row in result["ranking"]]
    assert scores == sorted(scores, reverse=True)
    assert {note["kind"] for note in result["notes"]} == {"duplicate", "rolled_up", "mapped"}
    assert result["notice"].lower().startswith("research use, not for clinical decisions")
    assert result["checkpoint"].startswith("tiny ")


def test_rank_for_people_says_the_cut_and_the_notice(run, checkpoint, tmp_path):
    status, out, _ = run("rank", history(tmp_path, "428.0"), "--checkpoint", checkpoint)
    assert status == 0
    for code in LABELS:
        assert f" {code.code} " in out
    assert out.count("seen before") == 1
    assert "above the cut" in out
    assert "note: " in out
    assert "research use, not for clinical decisions" in out.lower()


def test_the_list_made_for_weighted_f1_is_an_option_and_says_what_it_is(run, refused, checkpoint, tmp_path):
    path = history(tmp_path, "428.0")
    status, out, _ = run("rank", path, "--order", "f1", "--json", "--checkpoint", checkpoint)
    assert status == 0 and json.loads(out)["order"] == "f1"
    assert "made for weighted F1" in run("rank", path, "--order", "f1", "--checkpoint", checkpoint)[1]
    assert "own probability" in run("rank", path, "--checkpoint", checkpoint)[1]
    assert 'order is "share"; it can be probability or f1' in refused("rank", path, "--order", "share")


def test_weights_are_held_as_the_command_says(run, refused, checkpoint, tmp_path, monkeypatch):
    from mera_core.engine import Engine

    asked, load = [], Engine.load
    monkeypatch.setattr(Engine, "load", lambda path, quantize=None: asked.append(quantize) or load(path, quantize))
    path = history(tmp_path, "428.0")
    for words in (["rank", path], ["recall", "428"]):
        status, out, _ = run(*words, "--json", "--checkpoint", checkpoint, "--quantize", "bf16")
        assert status == 0 and json.loads(out)
        said = refused(*words, "--checkpoint", checkpoint, "--quantize", "8bit")
        assert 'quantize is "8bit"; it can be None, "nf4"' in said
    assert asked == ["bf16", "8bit"] * 2


def test_rank_reads_standard_input(run, checkpoint, tmp_path, monkeypatch):
    content = history(tmp_path, "428.0").read_bytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    _, from_pipe, _ = run("rank", "-", "--json", "--checkpoint", checkpoint)
    _, from_file, _ = run("rank", tmp_path / "h.json", "--json", "--checkpoint", checkpoint)
    assert json.loads(from_pipe) == json.loads(from_file)
    assert len(json.loads(from_pipe)["ranking"]) == len(LABELS)


BAD_HISTORIES = {  # the rest of what a history may not be: tests/history/test_records.py
    "not JSON": ("{", "is not JSON"),
    "empty file": ("", "is empty"),
    "unknown code": ({"visits": [{"codes": ["428.X5"]}]}, "'428.X5' .* nearest is ICD9:428"),
    "ambiguous code": ({"visits": [{"codes": ["428.0", "E8021"]}]}, r"visits\[0\]\.codes\[1\].*ambiguous"),
    "10,000 visits": ({"visits": [{"codes": ["428.0"]}] * 10_000}, "10,000 visits .* at most 1,000"),
    "newline in a key": ({"a\nb": 1, "visits": []}, "not a known key"),
}


@pytest.mark.parametrize("fault", BAD_HISTORIES)
def test_rank_refuses_bad_histories_before_loading_a_model(refused, tmp_path, monkeypatch, fault):
    monkeypatch.setattr(cli, "_engine", lambda *_: pytest.fail("a model was loaded for a bad history"))
    content, said = BAD_HISTORIES[fault]
    message = refused("rank", write(tmp_path / "h.json", content), "--json")
    assert pd.Series([message]).str.contains(said).item(), message
    assert "h.json" in message or "visits[" in message


def test_rank_refuses_files_it_cannot_read(refused, tmp_path):
    assert "no file" in refused("rank", tmp_path / "nowhere.json")
    assert "is a folder" in refused("rank", tmp_path)
    assert "can't be read" in refused("rank", "a\0b")


def test_rank_refuses_what_is_no_checkpoint(refused, tmp_path):
    path = history(tmp_path, "428.0")
    assert "no checkpoint folder" in refused("rank", path, "--checkpoint", tmp_path / "nowhere")
    assert "mera.json" in refused("rank", path, "--checkpoint", tmp_path)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "command"),
        (["bogus"], "bogus"),
        (["rank"], "HISTORY.json"),
        (["rank", "h.json", "--top", "0"], "--top"),
        (["rank", "h.json", "--top", "many"], "--top"),
        (["rank", "h.json", "--frob"], "--frob"),
        (["recall"], "either a code or --definition"),
        (["recall", "428.0", "--definition", "x"], "either a code or --definition"),
        (["recall", "--definition", " "], "definition is empty"),
        (["recall", "428.05"], "nearest is ICD9:428.0"),
        (["recall", "E8021"], "ambiguous"),
        (["recall", "428.0", "--system", "ICD11"], "ICD11"),
        (["lookup", " "], "query is empty"),
        (["lookup", "heart", "--system", "SNOMED"], "SNOMED"),
        (["lookup", "heart", "--limit", "0"], "--limit"),
        (["convert", "nowhere.csv", "--out", "t.csv"], "nowhere.csv"),
        (["convert", str(ROOT / "README.md"), "--format", "excel", "--out", "t.csv"], "no format 'excel'"),
        (["score", "x.csv"], "--out"),
        (["score", "nowhere.csv", "--out", "t.csv"], "nowhere.csv"),
        (["score", "x.csv", "--out", "t.xlsx"], "--out must end in .parquet or .csv"),
        (["score", "x.csv", "--out", "nowhere/t.csv"], "no folder nowhere"),
        (["score", "x.csv", "--out", "t.csv", "--top", "0"], "--top"),
        (["score", "x.csv", "--out", "t.csv", "--engine", "spark"], "--engine must be local or ray"),
        (["score", "x.csv", "--out", "t.csv", "--address", "auto"], "needs --engine ray"),
        (["score", "x.csv", "--out", "t.csv", "--option", "a"], "--option must be NAME=VALUE"),
    ],
)
def test_wrong_commands_are_one_sentence(refused, arguments, said):
    assert said in refused(*arguments)


# --- recall and lookup


def test_recall_both_ways(run, checkpoint):
    status, out, _ = run("recall", "428", "--system", "ICD9", "--json", "--checkpoint", checkpoint)
    assert status == 0
    result = json.loads(out)
    assert {"question", "answer", "truth", "exact", "alternatives"} <= set(result)
    assert result["truth"] == "Heart failure"
    assert result["exact"] is (result["answer"] == "Heart failure")
    status, out, _ = run("recall", "--definition", "heart failure", "--json", "--checkpoint", checkpoint)
    result = json.loads(out)
    assert result["truth"] == "428"
    assert result["exact"] is (result["answer"] == "428")
    assert set(result["alternatives"][0]) == {"system", "code", "definition", "share"}
    status, out, _ = run("recall", "--definition", "no such illness", "--checkpoint", checkpoint)
    assert status == 0
    assert "neither right nor wrong" in out


def test_lookup_finds_codes_and_words(run):
    status, out, _ = run("lookup", "heart fail", "--json", "--system", "ICD9", "--limit", 5)
    assert status == 0
    found = json.loads(out)
    assert len(found) == 5
    failure = {"system": "ICD9", "code": "428.9", "definition": "Heart failure, unspecified", "billable": True}
    assert failure in json.loads(run("lookup", "heart failure", "--json", "--system", "ICD9", "--limit", 30)[1])
    assert json.loads(run("lookup", "4280", "--json", "--billable")[1])[0]["code"] == "428.0"
    assert "Congestive heart failure" in run("lookup", "428.0")[1]
    assert run("lookup", "qqqqzzzzxxxx")[:2] == (0, "nothing found.\n")


# --- convert


def test_convert_counts_what_it_leaves_out(run, tmp_path):
    source = tmp_path / "diabetic_data.csv"
    source.write_text("encounter_id,patient_nbr,diag_1,diag_2,diag_3\n1,7,428,?,428\n2,7,Q99,8,250\n")
    status, out, _ = run("convert", source, "--out", tmp_path / "t.parquet", "--json")
    assert status == 0
    report = json.loads(out)
    assert report["format"] == "uci_diabetes130"
    assert (report["patients"], report["visits"], report["codes"], report["rows"]) == (1, 2, 3, 6)
    assert report["left_out"]["named twice in one visit"] == 1 and report["unknown_codes"] == {"Q99": 1}
    _, out, _ = run("convert", source, "--out", tmp_path / "t.parquet")
    assert "left out: 1 entry: named twice in one visit" in out
    assert "unknown codes: Q99 (1)" in out


# --- score


def test_score_writes_predictions_and_says_who_is_not_in_them(run, checkpoint, tmp_path):
    out = tmp_path / "p.parquet"
    arguments = ("score", cohort_from_demo.OUT, "--format", "table", "--checkpoint", checkpoint, "--workers", 1)
    status, said, _ = run(*arguments, "--out", out, "--top", 3)
    assert status == 0
    rows = pd.read_parquet(out)
    assert list(rows.columns) == [
        "patient_id", "order_key", "rank", "system", "code", "score", "share", "probability", "above_cut", "recurrent",
        "checkpoint", "notice",
    ]  # fmt: skip
    left_out = pd.read_csv(tmp_path / "p.parquet.left_out.csv")
    assert rows["patient_id"].nunique() + len(left_out) == 34
    assert f"scored: {rows['patient_id'].nunique()} of 34 patients by tiny " in said
    assert said.strip().endswith("Research use, not for clinical decisions.")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["p.parquet", "p.parquet.left_out.csv"]
    status, said, _ = run(*arguments, "--out", tmp_path / "m.csv", "--hold-out", "--json")
    assert status == 0
    assert json.loads(said)["patients"] == 34
    assert set(pd.read_csv(tmp_path / "m.csv")["came_true"]) == {True, False}


def test_score_that_is_interrupted_says_how_to_go_on(run, checkpoint, tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("mera_core.scoring.store.Store.put", stop)
    arguments = ("score", cohort_from_demo.OUT, "--format", "table", "--checkpoint", checkpoint, "--workers", 1)
    status, out, err = run(*arguments, "--out", tmp_path / "p.csv")
    assert (status, out) == (130, "")
    assert err.splitlines()[-2:] == ["what was scored is kept: the same command goes on from here.", "stopped."]


# --- the process


def test_the_process_ends_with_the_status_and_without_a_traceback(tmp_path):
    command = [sys.executable, "-m", "mera_core", "rank", str(tmp_path / "no.json")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"there is no file {tmp_path / 'no.json'}.\n"
