"""The details of a visit in the editor, under a checkpoint that reads some, and as pure functions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mera_core.checkpoint.folder import save_checkpoint
from mera_core.export.tables import history_json
from mera_core.history.records import Patient, Visit, patient_from_json
from mera_core.model.sequence import SequenceConfig
from pages.shared.app import checkpoints
from pages.shared.editor import history_edits as edits
from pages.shared.editor.detail_options import choices, chosen, key_words, left_out, value_words, with_own
from tests.pages.apps import open_page, press, send, shown, words
from tests.tiny import icd9, tiny_manifest, tiny_model, tiny_vocabulary

PAGE = "1_Predict.py"
FACTS = ("age: 70s", "discharge: home", "discharge: hospice", "stay: 1", "stay: 4", "stay: 6", "drugs: metformin up")
FACTS += ("drugs: glipizide steady", "bed_type: icu")
KEYS = ("age", "discharge", "stay", "drugs", "bed_type", "payer")
TOLD = {"stay": "5", "drugs": "Metformin up, comet down", "ward": "7", "payer": "MC", "discharge": "Hospice"}
PATIENT = Patient((Visit(icd9("428.0"), details=TOLD), Visit(icd9("401.9"))), "F", 72)


@pytest.fixture(scope="module")
def told_folder(tmp_path_factory) -> Path:
    """A checkpoint that knows FACTS, and reads in words who referred the patient."""
    folder = tmp_path_factory.mktemp("checkpoints") / "told"
    sequence = SequenceConfig(max_tokens=256, detail_tokens=KEYS, visit_details=("referred_by",), most_details=3)
    model = tiny_model(vocabulary=tiny_vocabulary().with_details(FACTS))
    save_checkpoint(model, tiny_manifest(copy=True, sequence=sequence), folder)
    return folder


@pytest.fixture
def told(told_folder, monkeypatch) -> None:
    """The app under that checkpoint."""
    monkeypatch.setenv(checkpoints.CHECKPOINT_VARIABLE, str(told_folder))


def details(app) -> list[dict]:
    return [dict(visit.details) for visit in shown(app).patient.visits]


def test_numbers_are_offered_as_the_bins_that_the_checkpoint_reads():
    facts = [f"stay: {low}" for low in (1, 2, 4, 11)]
    bins = {"1": "1", "2": "2 to 3", "4": "4 to 10", "11": "11 or more"}
    assert choices(["stay"], facts) == {"stay": bins}
    for value, read in (("1", ["1"]), ("3", ["2"]), ("10", ["4"]), ("40", ["11"]), ("0", ["0"]), ("", [])):
        assert chosen(Visit(details={"stay": value}), "stay", bins) == read
    assert with_own("stay", bins, ["4", "0"]) == {**bins, "0": "0"}
    assert with_own("stay", bins, ["long"])["long"] == "Long (not read by this model)"


def test_keys_and_values_have_words_and_those_of_other_sources_stand_as_written():
    assert [key_words(key) for key in ("inpatient", "a1c", "bed_type")] == [
        "Stays in hospital in the year before",
        "HbA1c",
        "Bed type",
    ]
    values = [("specialty", "internalmedicine"), ("discharge", "home"), ("payer", "mc"), ("bed_type", "icu")]
    assert [value_words(*each) for each in values] == ["Internal medicine", "Home", "Medicare", "Icu"]


def test_what_is_beyond_the_most_that_is_read_of_a_visit_is_named():
    sequence = {"detail_tokens": KEYS, "most_details": 3}
    assert left_out(Visit(age=72, details={**TOLD, "bed_type": "ICU"}), sequence, FACTS) == ["drugs", "bed_type"]
    assert left_out(Visit(details=TOLD), sequence, FACTS) == []


def test_a_detail_is_set_and_taken_away_and_the_others_stay():
    edited = edits.set_detail(PATIENT, 0, "stay", "")
    assert edited.visits[0].details == {key: value for key, value in TOLD.items() if key != "stay"}
    assert edits.set_detail(edited, 0, "stay", "5") == PATIENT
    assert edits.set_detail(PATIENT, 1, "stay", "4").visits[1].details == {"stay": "4"}


def test_details_are_shown_set_changed_removed_undone_and_saved(told):
    app = open_page(PAGE, PATIENT, more_0=True)
    assert [each.label for each in app.expander if "More" in each.label] == ["More about this visit"] * 2
    fields = {each.key: each for each in app.selectbox if (each.key or "").startswith("detail_of_0_")}
    assert list(fields) == [f"detail_of_0_{key}" for key in ("discharge", "stay", "bed_type")]
    stay = fields["detail_of_0_stay"]
    assert (stay.label, stay.value, stay.options) == ("Days in hospital", "4", ["1 to 3", "4 to 5", "6 or more"])
    assert fields["detail_of_0_discharge"].value == "hospice" and fields["detail_of_0_bed_type"].value is None
    drugs = app.multiselect(key="details_wide_of_0_drugs")
    assert drugs.value == ["metformin up", "comet down"]
    assert drugs.options == ["Glipizide steady", "Metformin up", "Comet down (not read by this model)"]
    captions = [each.value.replace("\\", "") for each in app.caption]
    assert "Kept, and not read by this model: Ward: 7 · Payer: MC" in captions
    assert details(app)[0] == TOLD

    stay.set_value("1").run()
    assert details(app) == [{**TOLD, "stay": "1"}, {}]
    app.multiselect(key="details_wide_of_0_drugs").set_value(["glipizide steady", "comet down"]).run()
    assert details(app)[0] == {**TOLD, "stay": "1", "drugs": "glipizide steady, comet down"}
    app.text_input(key="detail_wide_of_0_referred_by").set_value(" a clinic ").run()
    app.selectbox(key="detail_of_0_discharge").set_value(None).run()
    assert not app.exception
    want = {"stay": "1", "drugs": "glipizide steady, comet down", "ward": "7", "payer": "MC", "referred_by": "a clinic"}
    assert details(app)[0] == want
    assert patient_from_json(json.loads(history_json(shown(app).patient))).visits == shown(app).patient.visits
    press(app, "do_Undo")
    assert app.selectbox(key="detail_of_0_discharge").value == "hospice"
    for _ in range(3):
        press(app, "do_Undo")
    assert shown(app).patient == PATIENT
    press(app, "do_Redo")
    assert details(app)[0] == {**TOLD, "stay": "1"}


def test_a_detail_changes_the_ranking_and_the_change_is_named(told):
    app = open_page(PAGE, PATIENT, more_1=True, panel="What if")
    app.selectbox(key="detail_of_1_discharge").set_value("home").run()
    assert "visit 2: discharge home" in words(app)
    press(app, "back")
    assert shown(app).patient == PATIENT


def test_details_of_a_file_are_kept_by_every_edit(told):
    app = send(open_page(PAGE), "history_files", "mine.json", history_json(PATIENT).encode(), "application/json")
    press(app, "do_Move later_0")
    assert [each.value for each in app.caption if each.value.endswith("told.")] == ["5 details told."]
    press(app, "do_Date and moving codes_1")
    press(app, "move_code")  # to a new visit
    assert details(app) == [{}, TOLD, {}]


def test_a_checkpoint_that_reads_no_details_shows_none_and_keeps_them(monkeypatch, tmp_path):
    save_checkpoint(tiny_model(), tiny_manifest(copy=True), tmp_path / "plain")
    monkeypatch.setenv(checkpoints.CHECKPOINT_VARIABLE, str(tmp_path / "plain"))
    app = open_page(PAGE, PATIENT)
    assert not [each for each in app.expander if "More" in each.label]
    press(app, "do_Move later_0")
    assert details(app) == [{}, TOLD]
