"""Patients unlike those a checkpoint learned from are told so, from the fit at the end of training to the JSON of a ranking."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest

from mera_core.checkpoint.folder import load_checkpoint, read_manifest, save_checkpoint
from mera_core.cohort.scoring import CohortScoring
from mera_core.common.errors import InputError
from mera_core.engine import Engine
from mera_core.history.records import Patient, Visit
from mera_core.icd.ontology import Code, Ontology
from tests.ranking.test_population import RARE, invented
from tests.tiny import tiny_engine, tiny_manifest, tiny_model
from training.rank.population import fit_population

UCI = {"format": "uci_diabetes130"}
USUAL = Patient([Visit([Code("ICD9", "428.0"), Code("ICD9", "250.00")], age=75)], sex="F", age=75, id="a")
STRANGE = Patient([Visit([RARE], age=30)], sex="F", age=30, id="b")
DELIVERY = Patient([Visit([Code("ICD9", "428.0"), Code("ICD9", "650")], age=40)], sex="M", age=40, id="c")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A checkpoint with random weights whose manifest describes two thousand invented training patients."""
    folder = tmp_path_factory.mktemp("unlike") / "tiny"
    manifest = tiny_manifest(data=UCI)
    fit_population(tiny_engine(), manifest, invented(2000))
    save_checkpoint(tiny_model(), manifest, folder)
    return folder


@pytest.fixture(scope="module")
def engine(checkpoint) -> Engine:
    return Engine.load(checkpoint)


def kinds(engine: Engine, patient: Patient) -> list[str]:
    return [note.kind for note in engine.rank(patient).notes]


def test_the_note_travels_with_the_ranking_and_its_json(engine) -> None:
    assert kinds(engine, USUAL) == []
    (note,) = engine.rank(STRANGE).to_json(3)["notes"]
    assert note["kind"] == "unlike_training" and (note["visit"], note["code"]) == (None, "")
    assert note["message"].startswith(
        "This history is unlike those the model learned from (hospital stays of people with diabetes in the US, 1999 to 2008): "
        "only 1 in "
    )
    assert engine.trained_on.startswith("hospital stays of people with diabetes")


def test_a_code_at_odds_with_sex_or_age_stays_and_is_told(engine) -> None:
    (note,) = (note for note in engine.rank(DELIVERY).notes if note.kind == "implausible")
    assert (note.visit, note.code) == (0, "ICD9:650") and "recorded as male" in note.message
    assert engine.rank(DELIVERY).recurrent.sum() == 1  # 428.0; the tiny model does not know 650


def test_scoring_counts_the_kinds_of_notes(engine) -> None:
    scoring = CohortScoring(engine, [USUAL, STRANGE, DELIVERY], hold_out=False)
    scoring.step()
    assert scoring.notes()["unlike_training"] >= 1 and scoring.notes()["implausible"] == 1


def test_a_checkpoint_without_the_fit_loads_and_says_nothing(tmp_path) -> None:
    save_checkpoint(tiny_model(), tiny_manifest(data=UCI), tmp_path / "old")
    old = Engine.load(tmp_path / "old")
    assert old.population is None and kinds(old, STRANGE) == []


def test_a_manifest_whose_description_fits_other_codes_is_refused(checkpoint) -> None:
    model, manifest = load_checkpoint(checkpoint)
    broken = replace(manifest, population=manifest.population | {"codes": "1 2"})
    with pytest.raises(InputError, match="does not fit the checkpoint's codes"):
        Engine(model, broken, Ontology.load())


def test_a_fit_is_kept_and_is_not_made_from_the_records_of_another_source(checkpoint) -> None:
    kept = read_manifest(checkpoint)
    before = dict(kept.population)
    fit_population(tiny_engine(), kept, invented(500, seed=2))
    assert kept.population == before
    new = tiny_manifest(data=UCI)
    fit_population(tiny_engine(), new, invented(500), "mimic3")
    assert new.population == {}
    fit_population(tiny_engine(), new, invented(500), "uci_diabetes130")
    assert len(new.population["codes"].split()) == len(new.input_codes)


def test_nothing_of_a_note_reaches_a_log(engine, caplog, capsys) -> None:
    with caplog.at_level(logging.DEBUG):
        assert "unlike_training" in kinds(engine, STRANGE) and "implausible" in kinds(engine, DELIVERY)
    assert caplog.text == "" and capsys.readouterr() == ("", "")
