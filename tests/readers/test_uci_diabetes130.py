"""The UCI reader: order, codes, words of a visit, and the split rule."""

import doctest
import hashlib

import pytest

from mera_core.common.errors import InputError
from mera_core.history import history_json as history
from mera_core.icd.ontology import Code
from mera_core.readers import read, uci_diabetes130
from mera_core.readers.uci_diabetes130 import _READ, uci_split

# Two encounters of one patient in the columns of the real file (values invented), the later one first.
LATER = {
    "encounter_id": "149190", "patient_nbr": "55629189", "race": "AfricanAmerican", "gender": "Female",
    "age": "[70-80)", "weight": "[75-100)", "admission_type_id": "1", "discharge_disposition_id": "22",
    "admission_source_id": "7", "time_in_hospital": "3", "payer_code": "MC",
    "medical_specialty": "Nephrology",
    "num_lab_procedures": "59", "num_procedures": "0", "num_medications": "18", "number_outpatient": "0",
    "number_emergency": "1", "number_inpatient": "2", "diag_1": "8", "diag_2": "250.83", "diag_3": "008",
    "number_diagnoses": "9", "max_glu_serum": ">200", "A1Cresult": "Norm",
    "metformin": "Steady", "insulin": "Up",
    "glipizide": "Down", "change": "Ch", "diabetesMed": "Yes", "readmitted": "<30",
}  # fmt: skip
EARLIER = {
    **LATER, "encounter_id": "99999", "age": "[60-70)", "gender": "Unknown/Invalid", "race": "?",
    "admission_type_id": "6", "discharge_disposition_id": "18", "admission_source_id": "9", "payer_code": "?",
    "medical_specialty": "?", "diag_1": "?", "diag_2": "38", "diag_3": "V27", "max_glu_serum": "None",
    "A1Cresult": "None", "metformin": "No", "glipizide": "No", "insulin": "No", "diabetesMed": "No",
    "readmitted": ">30",
}  # fmt: skip


def write(path, *rows):
    lines = [",".join(rows[0])] + [",".join(row.values()) for row in rows]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def cohort(tmp_path):
    return read(write(tmp_path / "diabetic_data.csv", LATER, EARLIER))


def test_encounters_are_ordered_by_number_not_by_text(cohort):
    (patient,) = cohort.patients
    assert patient.id == "55629189"
    assert [visit.age for visit in patient.visits] == [65.0, 75.0]
    assert (patient.age, patient.sex, patient.details) == (75.0, "F", {"ethnicity": "black"})


def test_codes_keep_their_order_and_position_and_get_their_zeros_back(cohort):
    first, second = cohort.patients[0].visits
    assert first.codes == (Code("ICD9", "038"), Code("ICD9", "V27"))
    assert first.positions == (2, 3)
    assert second.codes == (Code("ICD9", "008"), Code("ICD9", "250.83"))
    assert second.positions == ()


def test_every_diagnosis_cell_is_counted(cohort, tmp_path):
    assert cohort.report.left_out == {"no diagnosis in the column": 1, "named twice in one visit": 1}
    assert cohort.report.rows == 6 == cohort.report.codes + 2
    odd = read(write(tmp_path / "odd.csv", {**LATER, "diag_1": "?", "diag_2": "Q99", "diag_3": "Q99"}))
    assert odd.report.unknown_codes == {"Q99": 2}
    assert odd.report.left_out == {"no diagnosis in the column": 1, "code not in the ICD code set": 2}
    assert odd.report.aside == {"visits kept without any code": 1}
    assert [visit.codes for visit in odd.patients[0].visits] == [()]


def test_words_of_a_visit_only_where_known(cohort):
    first, second = cohort.patients[0].visits
    counts = {"stay": "3", "inpatient": "2", "emergency": "1", "outpatient": "0", "diagnoses": "9", "procedures": "0"}
    tested = {"medications": "18", "labs": "59", "a1c": "normal", "glucose": "above 200", "insulin": "up"}
    assert second.details == counts | tested | {
        "admission": "emergency", "source": "emergency room", "discharge": "rehabilitation", "specialty": "Nephrology",
        "diabetes_medication": "yes", "payer": "MC", "drugs": "metformin steady, glipizide down",
    }  # fmt: skip
    unknown = {"admission", "source", "discharge", "specialty", "a1c", "glucose", "payer", "drugs"}
    assert not unknown & set(first.details)
    assert (first.details["insulin"], first.details["diabetes_medication"]) == ("no", "no")


def test_a_negative_length_of_stay_is_told_and_not_kept(tmp_path):
    cohort = read(write(tmp_path / "a.csv", EARLIER, {**LATER, "time_in_hospital": "-3"}))
    assert [visit.details.get("stay") for visit in cohort.patients[0].visits] == ["3", None]
    assert cohort.report.remarks == [
        "1 encounters end before they begin (first: a.csv, line 3, column 'time_in_hospital'); they are kept, the length "
        "of stay is not"
    ]


def test_readmission_is_the_future_and_never_read(cohort, tmp_path):
    other = read(write(tmp_path / "other.csv", {**LATER, "readmitted": "NO"}, {**EARLIER, "readmitted": "<30"}))
    assert other.patients == cohort.patients
    assert "readmitted" not in _READ


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"patient_nbr": "?"}, "line 3, column 'patient_nbr': there is no patient_nbr"),
        ({"encounter_id": "x1"}, "line 3, column 'encounter_id': there is no whole number"),
        ({"encounter_id": "149190"}, "line 3, column 'encounter_id': this encounter_id is repeated"),
    ],
)
def test_broken_numbers_are_told(tmp_path, change, said):
    with pytest.raises(InputError, match=said):
        read(write(tmp_path / "a.csv", LATER, {**EARLIER, **change}))


def test_a_row_that_stands_twice_counts_once(cohort, tmp_path):
    again = read(write(tmp_path / "twice.csv", LATER, EARLIER, LATER))
    assert again.patients == cohort.patients
    assert again.report.rows == 9 == again.report.codes + again.report.left_out.total()
    assert again.report.left_out["row is repeated"] == 3
    assert again.report.guessed_order == 2  # there are no dates


def test_split_follows_the_first_byte():
    seen = set()
    for number in range(3_000):
        byte = int(hashlib.sha256(str(number).encode()).hexdigest()[:2], 16)
        seen.add(byte)
        assert uci_split(str(number)) == ("test" if byte < 52 else "validation" if byte < 70 else "train")
    assert {0, 25, 26, 51, 52, 69, 70, 255} <= seen


def test_docstring_examples_hold():
    for module in (uci_diabetes130, history):
        failed, tried = doctest.testmod(module)
        assert tried > 0
        assert failed == 0
