"""The open questions: how new codes are divided, what order is taken away, what is rolled up; and that each answers."""

from __future__ import annotations

import json
from datetime import datetime
from types import SimpleNamespace

import numpy as np
import pytest

from mera_core.common.errors import InputError
from mera_core.evaluation.bootstrap import Bootstrap
from mera_core.evaluation.truth import Truth, rows_of_labels
from mera_core.history.records import Patient, Visit, write_visits
from mera_core.icd.ontology import Code, Ontology
from tests.readers import shapes
from tests.tiny import CODES, icd9, tiny_engine
from training.ablate.run import Runs
from training.ablate.table import Row, Table
from training.evaluate.scored import Scored
from training.open_questions import branches, growth, order, travel

A, B = icd9("428.0", "427.31")  # circulatory
C = icd9("486")[0]  # respiratory


def test_new_codes_are_divided_by_whether_the_history_holds_their_chapter() -> None:
    # Labels 0, 1 are of chapter 0, label 2 of chapter 1. The history holds 0; the next visit 0 (recurrent), 1, 2.
    truth = Truth.from_sets([[0, 1, 2], [2]], [[0], [2]], 3)
    parts = branches.divided(truth, np.array([0, 0, 1]))
    assert parts["in_branch"].toarray().tolist() == [[0, 1, 0], [0, 0, 0]]
    assert parts["cross_branch"].toarray().tolist() == [[0, 0, 1], [0, 0, 0]]
    total = parts["in_branch"].sum() + parts["cross_branch"].sum()
    assert total == truth.new_onset.positive.sum() == 2


def scored(ranked: np.ndarray, truth: Truth) -> Scored:
    engine = tiny_engine()
    return Scored(engine, [Patient(id=str(n)) for n in range(len(ranked))], truth, ranked, ranked[:, 0] * 0, ranked)


def test_pairs_of_chapters_worked_by_hand(monkeypatch) -> None:
    monkeypatch.setattr(branches, "K", 1)
    monkeypatch.setattr(branches, "LEAST_PAIR", 2)
    # Three patients with label 0 (chapter 0) behind them; two go on with label 2 (chapter 1), one with label 1.
    truth = Truth.from_sets([[2], [2], [1]], [[0]] * 3, 3)
    chapter = np.array([0, 0, 1])
    finds = scored(np.array([[0.0, 0, 1], [0, 1, 0], [0, 1, 0]]), truth)  # finds the first and the last
    misses = scored(np.array([[0.0, 1, 0], [0, 1, 0], [0, 1, 0]]), truth)  # finds the last
    rows = branches.pairs([misses], [finds], chapter, ["heart", "lungs"], Bootstrap(3, 20))
    assert [(row["history"], row["new"], row["codes"]) for row in rows] == [("heart", "lungs", 2)]
    assert rows[0]["reference"] == 0.5 and rows[0]["difference"].value == -0.5
    new = branches.divided(truth, chapter)
    assert branches.recall(finds, new["cross_branch"], Bootstrap(3, 5)).value == 0.5
    assert branches.recall(misses, new["in_branch"], Bootstrap(3, 5)).value == 1.0


def test_branches_of_two_checkpoints(tiny_checkpoint, invented_cohort) -> None:
    models = {"one": [tiny_checkpoint], "same": [tiny_checkpoint]}
    out = branches.run(models, str(invented_cohort), "table", draws=20)
    assert out["reference"] == "one" and out["patients"] > 5
    assert out["models"][1]["minus_reference"]["cross_branch"]["value"] == 0
    assert all(row["difference"]["value"] == 0 for row in out["pairs"]["same"])
    assert json.loads(json.dumps(out)) == out
    with pytest.raises(InputError, match="same number of checkpoints"):
        branches.run({"one": [tiny_checkpoint], "two": []}, str(invented_cohort), "table")


def test_the_label_space_is_padded_with_billable_codes_of_the_books() -> None:
    ontology = Ontology.load()
    assert growth.padding(growth.SIZES[0], ontology) == []
    nine, ten = (growth.padding(size, ontology) for size in growth.SIZES[1:])
    assert len(nine) == 14_567 and 74_000 < len(ten) < 75_000
    assert {code.system for code in nine} == {"ICD9"} and {code.system for code in ten} == {"ICD10"}
    assert all(ontology.is_billable(code) for code in [*nine[:50], *ten[:50]])


class Here:
    """A process that runs in this one."""

    exitcode = 0

    def __init__(self, target, args):
        self.start = lambda: target(*args)

    def join(self) -> None:
        pass


def test_growth_at_tiny_size_tells_training_and_cut_apart(tiny_stage1, invented_cohort, tmp_path, monkeypatch) -> None:
    """Three label spaces, the cost of training read before the cut is fitted, and nothing run twice."""
    extra = {size: list(Ontology.load().billable("ICD9")[: 40 * n]) for n, size in enumerate(growth.SIZES)}
    monkeypatch.setattr(growth, "padding", lambda size, ontology: extra[size])
    monkeypatch.setattr(growth, "untrained", lambda *args: tiny_stage1)
    monkeypatch.setattr(growth, "get_context", lambda kind: SimpleNamespace(Process=Here))
    clock, memory, train, fit = [0.0], [1e9], growth.rank.train, growth.cut
    monkeypatch.setattr(growth, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    monkeypatch.setattr(growth, "peak_memory", lambda: memory[0])

    def trained(*args) -> None:
        train(*args)
        clock[0], memory[0] = clock[0] + 5, 2e9

    def cut(setup) -> None:
        fit(setup)
        clock[0], memory[0] = clock[0] + 70, 9e9

    monkeypatch.setattr(growth.rank, "train", trained)
    monkeypatch.setattr(growth, "cut", cut)
    rank = {"epochs": 1, "batch_size": 16, "rehearsal": 0, "save_every": 0}
    table = Table((1,), {}, rank, (Row("MERA", "reference"),))
    models = Runs(table, str(invented_cohort), "table", tmp_path)
    found = growth.run(models, draws=10)
    labels = [row["labels"] for row in found["rows"]]
    assert labels == sorted(labels) and labels[2] - labels[0] > 40
    assert [row["label_space"] for row in found["rows"]] == list(growth.SIZES)
    for row in found["rows"]:
        assert row["seconds_a_step"] * row["steps"] == pytest.approx(5) and row["cut_seconds"] == pytest.approx(70)
        assert (row["peak_memory_gb"], row["peak_memory_with_cut_gb"]) == (2.0, 9.0) and row["cut_patients"] > 3
        assert 0 < row["metrics"]["recall@20"]["value"] <= 1
    clock[0] = 1e6
    assert growth.run(models, draws=10) == found  # kept, not run again


def test_precision_falls_and_recall_rises_as_the_cut_lets_more_codes_through(tiny_checkpoint, invented_cohort) -> None:
    from mera_core.engine import Engine
    from mera_core.readers import read

    people = [p for p in read(str(invented_cohort), "table").patients if len(p.visits) > 1]
    points = growth.precision_recall(Scored.of(Engine.load(tiny_checkpoint), people), points=6)
    sizes, recalls = [p["codes_a_patient"] for p in points], [p["recall"] for p in points]
    assert sizes == sorted(sizes) and recalls == sorted(recalls) and recalls[-1] > recalls[0]
    # the very shortest list may be wrong by chance; the longest is the least precise of all
    assert max(p["precision"] for p in points[:-1]) > points[-1]["precision"]


def test_code_order_holds_no_priority_and_loses_no_code() -> None:
    one = Patient([Visit([B, A, C]), Visit([C, A])], id="7", sex="M")
    sorted_one = order.in_code_order(one)
    assert [visit.codes for visit in sorted_one.visits] == [tuple(sorted([A, B, C])), tuple(sorted([A, C]))]
    assert (sorted_one.id, sorted_one.sex) == ("7", "M")


def test_recall_of_the_principal_diagnosis_by_hand() -> None:
    ranked = np.tile(-np.arange(len(CODES), dtype=float), (3, 1))  # label 0 first, for everyone
    truth = Truth.from_sets([[0], [2], [1]], [[]] * 3, len(CODES))
    principal = [CODES[0], CODES[2], Code("ICD9", "V99")]  # the last is no label: never found
    figures = order.figures_of(scored(ranked, truth), principal, Bootstrap(3, 5))
    assert figures["principal_recall@1"].value == pytest.approx(1 / 3)
    assert figures["principal_recall@5"].value == pytest.approx(2 / 3)
    assert figures["principal_reciprocal_rank"].value == pytest.approx((1 + 1 / 3 + 0) / 3)


def test_codes_are_rolled_up_to_categories_of_icd_9() -> None:
    ontology = Ontology.load()
    known = set(icd9("428", "250", "401"))
    assert travel.rolled_code(Code("ICD9", "428.23"), ontology, known) == icd9("428")
    assert travel.rolled_code(Code("ICD10", "I50.22"), ontology, known) == icd9("428")
    assert travel.rolled_code(Code("ICD9", "486"), ontology, known) == ()
    assert travel.category(Code("ICD9", "428.23"), ontology) == Code("ICD9", "428")
    people = [
        Patient([Visit(icd9("428.0", "486")), Visit((Code("ICD10", "I50.22"), *icd9("250.00", "486", "V45.81")))])
    ]
    truth = travel.truth_at(people, sorted(known), ontology)
    assert truth.positive.toarray().tolist() == [[1, 0, 1]] and truth.seen.toarray().tolist() == [[0, 0, 1]]
    assert (truth.missing.tolist(), truth.missing_seen.tolist()) == ([2], [1])


def test_a_category_scores_as_its_best_label() -> None:
    engine = tiny_engine()
    labels = engine.label_space
    ranked = np.arange(len(labels), dtype=float)[None]
    one = scored(ranked, Truth(*(rows_of_labels([[]], len(labels)),) * 2, np.zeros(1, int), np.zeros(1, int)))
    categories = travel.common_labels(engine)
    scores, _ = travel.at_categories(one, categories)
    for label, code in enumerate(categories):
        under = [n for n, fine in enumerate(labels) if fine.code.split(".")[0] == code.code]
        assert scores[0, label] == max(under)


def test_a_checkpoint_travels_and_what_can_not_be_read_says_why(tiny_checkpoint, invented_cohort, tmp_path) -> None:
    away = tmp_path / "away.csv"
    visits = [Visit([Code("ICD10", "I50.22"), Code("ICD10", "I48.0")]), Visit([Code("ICD10", "I50.22")])]
    write_visits([Patient(visits, id=str(n)) for n in range(15)], away)
    shared = [Patient([Visit(icd9("428.0"), datetime(2150, 1, day)) for day in (1, 2)], id="1")]
    sources = [
        travel.Source("home", str(invented_cohort), "table", home=True),
        travel.Source("away", str(away), "table"),
        travel.Source("nowhere", str(tmp_path / "none"), "table"),
        travel.Source("MIMIC", str(shapes.mimic3(shared, tmp_path / "mimic")), "mimic3"),
    ]
    out = travel.run(tiny_checkpoint, sources, draws=20)
    home, other, none, mimic = out["rows"]
    assert "both hold patients of 2008 to 2012" in mimic["not_run"]  # the table at home may be of MIMIC-IV
    assert home["home"] and home["patients"] > 5 and other["patients"] == 15
    assert other["true_codes_within"] == 1.0 and other["recurrent"] == 1.0  # I50.22 comes back, read as 428
    assert "none" in none["not_run"]
    copy = next(model for model in other["models"] if model["name"].startswith("copy"))
    assert copy["metrics"]["recall@10"]["value"] == 1.0
    difference = copy["mera_minus_this"]["recall@10"]["value"]
    assert difference == pytest.approx(other["models"][0]["metrics"]["recall@10"]["value"] - 1.0)
    with pytest.raises(InputError, match="must be the checkpoint's own"):
        travel.run(tiny_checkpoint, sources[1:])


def test_the_next_visit_is_never_shown_to_a_baseline() -> None:
    ontology, known = Ontology.load(), set(icd9("428", "486"))
    asked = travel.as_asked(Patient([Visit(icd9("428.0")), Visit(icd9("486"))]), ontology, known)
    assert [visit.codes for visit in asked.visits] == [icd9("428"), ()]


def test_a_source_is_written_as_name_format_and_path() -> None:
    assert travel.Source.parse("MIMIC-III demo=mimic3:some/folder") == travel.Source(
        "MIMIC-III demo", "some/folder", "mimic3"
    )
    for text in ("mimic3:some/folder", "name=mimic3", "=mimic3:x", "name=:x"):
        with pytest.raises(InputError, match="NAME=FORMAT:PATH"):
            travel.Source.parse(text)
