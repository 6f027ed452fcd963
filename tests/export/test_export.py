"""Exports of a ranking: what spreadsheets, other programs and FHIR tools read back, and where it came from."""

from __future__ import annotations

import csv
import io
import json
import re
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pandas as pd
import pytest
from fhir.resources.R4B.bundle import Bundle
from hypothesis import given, settings
from hypothesis import strategies as st

from mera_core.common.errors import InputError
from mera_core.export.fhir import CODE_SYSTEMS, bundle, ranking_fhir
from mera_core.export.tables import (
    Provenance,
    file_stem,
    history_csv,
    history_json,
    ranking_csv,
    ranking_json,
    source_fingerprint,
    to_csv,
)
from mera_core.history.records import Note, Patient, Visit, patient_from_json
from mera_core.icd.ontology import Code, Ontology
from mera_core.ranking.ranking import NOTICE, Ranking
from mera_core.readers import read

BOOK = Ontology.load()
CODES = [Code("ICD9", code) for code in ("428.0", "401.9", "250.00", "585.9", "486", "V45.81")]
SOURCE = Provenance(
    "mera-mini 1f0c9a2b7d3e",
    {"ICD9": "ICD-9-CM version 32 (FY2015)", "ICD10": "ICD-10-CM April 2026"},
    "MERA 0123456789ab",
    datetime(2026, 11, 23, 22, 30, 15, 999, tzinfo=UTC),
    "0439ed6ad6f3",
)
PERSON = Patient(
    (
        Visit((CODES[0], "foo & <bar>", Code("ICD10", "I10")), datetime(2024, 5, 6, 7, 8)),
        Visit((CODES[0], CODES[3])),
        Visit(()),
    ),
    sex="F",
    age=72,
    id="=cmd|' /C calc'!A0",
    details={"ethnicity": "@hispanic"},
)


def ranking(calibrated: bool = False, above: int = 2) -> Ranking:
    """Six codes with falling scores and the cut after `above` of them."""
    scores = np.array([3.0, 2.0, -1.0, -2.0, -3.0, -4.0])
    cut = (scores[above - 1] + scores[above]) / 2 if above else 5.0
    share = np.exp(scores) / np.exp(scores).sum()
    probability = np.array([0.9, 0.5, 0.123456789, 0.1, 0.05, 0.0]) if calibrated else None
    notes = (Note("unread", "'foo & <bar>' is not a code.", 0, "foo & <bar>"),)
    recurrent = np.array([True, False, False, True, False, False])
    return Ranking(
        tuple(CODES), scores, float(cut), share, recurrent, SOURCE.checkpoint, "six codes", BOOK, notes, probability
    )


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


@settings(deadline=None)  # a busy machine is no fault
@given(st.lists(st.text(max_size=12), min_size=1, max_size=5))
def test_no_cell_of_a_table_begins_like_a_formula(texts):
    """Whatever the text, as the first character of a cell a reader of CSV finds none that begins a formula."""
    frame = pd.DataFrame({"=name": texts, "number": [-1.5] * len(texts)})
    lines = list(csv.reader(io.StringIO(to_csv(frame), newline="")))
    assert lines[0] == ["'=name", "number"]
    for line in lines[1:]:
        assert not line[0].lstrip(' \u00a0"').startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
        assert float(line[1]) == -1.5


def test_a_ranking_as_csv_holds_every_code_with_its_provenance():
    rows = rows_of(ranking_csv(ranking(calibrated=True), SOURCE))
    assert [row["concept"] for row in rows] == [str(code) for code in CODES]
    assert [row["rank"] for row in rows] == ["1", "2", "3", "4", "5", "6"]
    assert [row["above_cut"] for row in rows] == ["True", "True"] + ["False"] * 4
    assert [float(row["score"]) for row in rows] == [3.0, 2.0, -1.0, -2.0, -3.0, -4.0]
    assert sum(float(row["share"]) for row in rows) == pytest.approx(1)
    assert float(rows[2]["probability"]) == 0.123456789
    for row in rows:
        assert row["checkpoint"] == "mera-mini 1f0c9a2b7d3e"
        assert row["code_release"] == "ICD-9-CM version 32 (FY2015); ICD-10-CM April 2026"
        assert row["exported"] == "2026-11-23T22:30:15+00:00"
        assert row["notice"] == NOTICE


def test_a_ranking_as_json_holds_the_history_as_typed():
    result = json.loads(ranking_json(ranking(), PERSON, SOURCE))
    assert [row["code"] for row in result["ranking"]] == [code.code for code in CODES]
    assert result["predicted"] == 2
    assert patient_from_json(result["history"]) == PERSON
    assert result["provenance"] == SOURCE.to_json()
    assert result["provenance"]["trained_at"] == "0439ed6ad6f3"
    assert result["notice"] == NOTICE


def test_a_history_comes_back_as_it_was_typed(tmp_path):
    (row, *_) = rows_of(history_csv(PERSON))
    assert (row["patient_id"], row["ethnicity"]) == (
        "'=cmd|' /C calc'!A0",
        "'@hispanic",
    )  # no formula for a spreadsheet
    assert file_stem("ranking", SOURCE) == "mera-ranking-1f0c9a2b7d3e-20261123T223015Z"  # no word of the patient
    assert patient_from_json(json.loads(history_json(PERSON))) == PERSON
    path = tmp_path / "history.csv"
    path.write_text(history_csv(Patient(PERSON.visits[:2], "F", 72)), encoding="utf-8")
    cohort = read(path, "table")
    (back,) = cohort.patients
    assert back.id == "history"
    assert [visit.codes for visit in back.visits] == [(CODES[0], Code("ICD10", "I10")), (CODES[0], CODES[3])]
    assert [visit.time for visit in back.visits] == [datetime(2024, 5, 6, 7, 8), None]
    assert cohort.report.unknown_codes == {"foo & <bar>": 1}


def test_provenance_is_checked_and_in_utc():
    with pytest.raises(InputError, match="zone"):
        Provenance("mera 1", {}, "MERA 1", datetime(2026, 1, 1))
    with pytest.raises(InputError, match="checkpoint"):
        Provenance(" ", {}, "MERA 1", datetime(2026, 1, 1, tzinfo=UTC))
    east = datetime(2026, 1, 1, 2, tzinfo=timezone(timedelta(hours=5)))
    assert Provenance("mera 1", {}, "MERA 1", east).to_json()["time"] == "2025-12-31T21:00:00+00:00"


def test_provenance_of_now_names_both_code_sets():
    made = Provenance.now(
        "mera-mini abc", {"icd_release": {"ICD9": "a release of its own"}, "data": {"commit": "c0"}}, BOOK
    )
    assert made.code_release == {"ICD9": "a release of its own", "ICD10": BOOK.release("ICD10")}
    assert abs(made.time - datetime.now(UTC)) < timedelta(seconds=5)
    assert (made.software, made.trained_at, made.fingerprint) == (source_fingerprint(), "c0", "abc")
    assert re.fullmatch(r"MERA [0-9a-f]{12}", made.software)


def resources(made: dict, kind: str) -> list[dict]:
    return [entry["resource"] for entry in made["entry"] if entry["resource"]["resourceType"] == kind]


@pytest.mark.parametrize("calibrated", [False, True])
@pytest.mark.parametrize("person", [PERSON, Patient()], ids=["a history", "an empty one"])
def test_the_bundle_validates_as_fhir_r4(person, calibrated):
    text = ranking_fhir(ranking(calibrated), person, SOURCE)
    validated = Bundle.model_validate_json(text)
    assert json.loads(validated.model_dump_json())["entry"][0]["resource"]["resourceType"] == "Patient"
    assert len(validated.entry) == len(json.loads(text)["entry"])


def test_the_assessment_holds_the_ranking_and_what_it_rests_on():
    made = bundle(ranking(), PERSON, SOURCE, top=3)
    (assessment,) = resources(made, "RiskAssessment")
    assert assessment["status"] == "preliminary"
    codings = [prediction["outcome"]["coding"][0] for prediction in assessment["prediction"]]
    assert [(coding["system"], coding["code"]) for coding in codings] == [
        (CODE_SYSTEMS["ICD9"], code.code) for code in CODES[:3]
    ]
    risks = [prediction["qualitativeRisk"]["text"].split(":")[0] for prediction in assessment["prediction"]]
    assert risks == ["predicted", "predicted", "not predicted"]
    assert not any("probabilityDecimal" in prediction for prediction in assessment["prediction"])
    assert assessment["note"][0]["text"] == NOTICE
    conditions = resources(made, "Condition")
    assert [condition["code"].get("coding", [{}])[0].get("code") for condition in conditions] == [
        "428.0", None, "I10", "428.0", "585.9",
    ]  # fmt: skip
    assert conditions[1]["code"] == {"text": "foo & <bar>"}
    assert [condition.get("recordedDate") for condition in conditions] == ["2024-05-06"] * 3 + [None] * 2
    urls = {entry["fullUrl"] for entry in made["entry"]}
    references = re.findall(r'"reference": "([^"]+)"', json.dumps(made))
    assert set(references) <= urls
    assert len(assessment["basis"]) == len(conditions) == 5
    assert len(urls) == len(made["entry"])


def test_codes_written_as_text_are_coded_as_the_model_reads_them():
    person = Patient((Visit(("428.0", "25000", "E8021", "foo")),))
    conditions = resources(bundle(ranking(), person, SOURCE), "Condition")
    assert [condition["code"].get("coding", [{}])[0].get("code") for condition in conditions] == [
        "428.0", "250.00", None, None,
    ]  # fmt: skip
    assert conditions[0]["code"]["text"] == BOOK.definition(CODES[0])
    assert conditions[2]["code"]["text"] == "E8021 (not used: two meanings, ICD-9-CM E802.1 or ICD-10-CM E80.21)"


def test_what_has_no_place_in_the_bundle_is_said_in_a_note():
    person = Patient((Visit((CODES[0],), details={"discharge": "home"}),), details={"ethnicity": "hispanic"})
    made = bundle(ranking(), person, SOURCE)
    notes = [note["text"] for note in resources(made, "RiskAssessment")[0]["note"]]
    assert "Said of the person: ethnicity hispanic." in notes
    assert "Facts of single visits that this bundle leaves out: discharge." in notes


def test_all_predicted_codes_are_listed_even_beyond_top_and_probabilities_where_calibrated():
    (assessment,) = resources(bundle(ranking(above=4), PERSON, SOURCE, top=2), "RiskAssessment")
    assert len(assessment["prediction"]) == 4
    (assessment,) = resources(bundle(ranking(calibrated=True), PERSON, SOURCE), "RiskAssessment")
    assert [each["probabilityDecimal"] for each in assessment["prediction"]] == [90, 50, 12.3457, 10, 5, 0]  # percent
    assert "basis" not in resources(bundle(ranking(), Patient(), SOURCE), "RiskAssessment")[0]


def test_the_bundle_names_checkpoint_code_sets_time_and_notice():
    made = bundle(ranking(), PERSON, SOURCE)
    (device,) = resources(made, "Device")
    assert device["deviceName"][0]["name"] == SOURCE.checkpoint
    assert {version["value"] for version in device["version"]} == {"1f0c9a2b7d3e", "MERA 0123456789ab"}
    (provenance,) = resources(made, "Provenance")
    assert provenance["recorded"] == made["timestamp"] == "2026-11-23T22:30:15+00:00"
    assert "ICD-9-CM version 32 (FY2015)" in provenance["activity"]["text"]
    assert provenance["reason"][0]["text"] == NOTICE
