"""Who is evaluated: never those a checkpoint was trained on, in whatever form their records come."""

from __future__ import annotations

import pytest

from mera_core.common.errors import InputError
from mera_core.history.records import Patient, Visit
from mera_core.icd.ontology import Code
from tests.tiny import tiny_engine
from training.common.split import split_of
from training.evaluate.held_out import another_source, choose_part

KNOWN, STRANGE = Code("ICD9", "428.0"), Code("ICD9", "V54.12")


def engine(format: str | None):
    """An engine that was trained on records of a format, in which 428.0 is known and V54.12 never stood."""
    one = tiny_engine()
    assert KNOWN in one.input_codes and STRANGE not in one.input_codes
    one.manifest["data"] = {} if format is None else {"format": format}
    return one


def patients(code: Code = KNOWN, ids=range(300)) -> list[Patient]:
    return [Patient([Visit([code])] * 2, id=str(n)) for n in ids]


def parts_of(chosen: list[Patient]) -> set[str]:
    return {split_of(patient.id) for patient in chosen}


@pytest.mark.parametrize("part", ["auto", "test", "validation", "train", "all"])
def test_a_part_is_chosen_by_the_split_rule_alone(part) -> None:
    people = patients()
    chosen, rule = choose_part(people, engine("table"), "table", part)
    expected = {"auto": {"test"}, "all": {"train", "validation", "test"}}.get(part, {part})
    assert parts_of(chosen) == expected
    assert len(chosen) == sum(split_of(patient.id) in expected for patient in people)
    assert rule.split()[0] == ("test" if part == "auto" else part)


def test_records_of_training_in_another_form_are_judged_on_the_test_part() -> None:
    """UCI's records, converted to a visits table, hold the training patients, and nothing in the file says so."""
    for format in ("table", "fhir", "meds", "omop"):
        chosen, rule = choose_part(patients(), engine("uci_diabetes130"), format, "auto")
        assert parts_of(chosen) == {"test"} and rule.startswith("test part (first byte of SHA-256")
        assert f"records of the format {format} may be those of training (uci_diabetes130) in another form" in rule
        assert "--part all takes everybody" in rule
    # the other way round, and where the manifest does not say what it was trained on
    assert parts_of(choose_part(patients(), engine("table"), "mimic3", "auto")[0]) == {"test"}
    assert parts_of(choose_part(patients(), engine(None), "mimic3", "auto")[0]) == {"test"}


def test_a_format_of_another_source_tells_that_all_are_new() -> None:
    people = patients()
    chosen, rule = choose_part(people, engine("uci_diabetes130"), "mimic3", "auto")
    assert chosen == people and rule.startswith("all; the format mimic3 is that of another source than uci_diabetes130")


def test_codes_that_no_training_patient_had_tell_that_all_are_new() -> None:
    people = patients(STRANGE)
    chosen, rule = choose_part(people, engine("uci_diabetes130"), "meds", "auto")
    trained = sum(split_of(patient.id) == "train" for patient in people)
    assert chosen == people and rule.startswith(f"all; {trained} of the {trained} patients whom the split rule would")
    # a few codes that a conversion spelled anew do not
    mixed = [*patients(STRANGE, range(30)), *patients(KNOWN, range(30, 300))]
    assert another_source(mixed, engine("uci_diabetes130"), "table") == ""


@pytest.mark.parametrize("format", ["uci_diabetes130", "table"])
def test_a_file_of_patients_who_were_kept_out_is_evaluated_whole(format) -> None:
    held_out = [patient for patient in patients() if split_of(patient.id) == "test"]
    assert choose_part(held_out, engine("uci_diabetes130"), format, "auto")[0] == held_out


def test_a_part_that_does_not_exist() -> None:
    with pytest.raises(InputError, match='--part is "tset"; it can be auto, all, train, validation, test or paper'):
        choose_part([], engine("table"), "table", "tset")
