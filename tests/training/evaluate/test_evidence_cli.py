"""The commands of the evidence: what they refuse, in one sentence and with status 2, and what they write."""

from __future__ import annotations

import json
import sys

import pytest

from training import __main__ as cli


def call(monkeypatch, capsys, *words) -> tuple[int, str, str]:
    """Status, standard output and standard error of `python -m training WORDS`."""
    monkeypatch.setattr(sys, "argv", ["training", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
        raise SystemExit(0)
    said = capsys.readouterr()
    return ended.value.code or 0, said.out, said.err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("baselines", "--checkpoint", "CKPT", "--data", "DATA", "--seeds", "one,two"), 'not "one,two"'),
        (
            ("baselines", "--checkpoint", "CKPT", "--data", "DATA", "--only", "oracle", "--out", "OUT"),
            "no baseline oracle",
        ),
        (("baselines", "--checkpoint", "CKPT", "--data", "DATA", "--out", "none/x.json"), "There is no folder"),
        (("ablate", "--data", "DATA", "--only", "red", "--runs", "RUNS", "--out", "OUT"), "has no row red"),
        (("ablate", "--data", "DATA", "--config", "none.yaml"), "none.yaml can't be read as a table of ablations"),
        (("question", "4", "--data", "DATA", "--source", "somewhere", "--out", "OUT"), "NAME=FORMAT:PATH"),
        (("evaluate", "--checkpoint", "CKPT", "--data", "DATA", "--part", "paper"), "no split of table records"),
        (("report", "--checkpoint", "CKPT", "--folder", "RUNS"), "publish it first"),
        (("evaluate", "--checkpoint", "CKPT", "--data", "DATA", "--draws", "5"), "Invalid value for '--draws'"),
        (("question", "7", "--data", "DATA"), "Invalid value for 'number'"),
        (("evaluate", "--data", "DATA"), "Missing option '--checkpoint'."),
    ],
)
def test_bad_input_is_one_sentence_and_status_2(
    words, sentence, tiny_checkpoint, invented_cohort, tmp_path, monkeypatch, capsys
) -> None:
    places = {"CKPT": tiny_checkpoint, "DATA": invented_cohort, "RUNS": tmp_path / "runs", "OUT": tmp_path / "out.json"}
    status, out, err = call(monkeypatch, capsys, *(places.get(word, word) for word in words))
    assert status == 2 and sentence in err and "Traceback" not in err and len(err.strip().splitlines()) == 1
    assert out == "" and not (tmp_path / "out.json").exists()


def test_evaluate_twice_writes_the_same_bytes(tiny_checkpoint, invented_cohort, tmp_path, monkeypatch, capsys) -> None:
    arguments = ["evaluate", "--checkpoint", tiny_checkpoint, "--data", invented_cohort, "--format", "table"]
    arguments += ["--draws", 20, "--against", tiny_checkpoint, "--json", "--out"]
    written = []
    for name in ("first.json", "second.json"):
        status, out, _ = call(monkeypatch, capsys, *arguments, tmp_path / name)
        assert status == 0 and json.loads(out) == json.loads((tmp_path / name).read_text())
        written.append((tmp_path / name).read_bytes())
    assert written[0] == written[1]


def test_a_question_is_answered_into_its_file(tiny_checkpoint, invented_cohort, tmp_path, monkeypatch, capsys) -> None:
    out = tmp_path / "question-4.json"
    arguments = ["question", 4, "--data", invented_cohort, "--format", "table", "--checkpoint", tiny_checkpoint]
    status, said, _ = call(monkeypatch, capsys, *arguments, "--source", f"again=table:{invented_cohort}", "--out", out)
    assert status == 0 and said.strip() == f"Written: {out}"
    rows = json.loads(out.read_text())["rows"]
    assert [row["source"] for row in rows] == ["home", "again"] and rows[1]["patients"] > rows[0]["patients"] > 5
