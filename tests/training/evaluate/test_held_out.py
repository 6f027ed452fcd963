"""Who is evaluated: never those a checkpoint was trained on, in whatever form their records come."""

from __future__ import annotations

from datetime import datetime

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


def years(*earliest: str) -> Patient:
    """A patient of MIMIC-IV, whose visits may have been in these years at the earliest; its dates are shifted."""
    visits = [Visit([STRANGE], datetime(2150 + at, 1, 1), details={"year": y}) for at, y in enumerate(earliest)]
    return Patient(visits, id="-".join(("p", *earliest)))


@pytest.mark.parametrize("format", ["mimic4", "table", "meds"])
@pytest.mark.parametrize("trained", ["mimic3", "table"])
def test_of_mimic4_only_admissions_after_2012_are_new_to_mimic3(trained, format) -> None:
    """Patients of 2008 to 2012 are in both, under other ids."""
    if trained == format == "table":
        return  # of the same source
    people = [years("2013", "2014"), years("2012", "2014"), years("2008"), years("2011", ""), years("2016")]
    chosen, rule = choose_part(people * 20, engine(trained), format, "auto")
    assert [p.id for p in chosen[:2]] == ["p-2013-2014", "p-2016"] and len(chosen) == 40
    assert "40 of 100 patients" in rule and "MIMIC-III and MIMIC-IV" in rule and "2008 to 2012" in rule
    assert choose_part(people, engine(trained), format, "all")[0] == people


@pytest.mark.parametrize(("trained", "format"), [("mimic3", "mimic4"), ("mimic4", "mimic3"), ("mimic4", "omop")])
def test_mimic_records_that_do_not_tell_their_year_are_refused(trained, format) -> None:
    people = [Patient([Visit([STRANGE], datetime(2150, 1, 1))] * 2, id=str(n)) for n in range(100)]
    with pytest.raises(InputError, match=r"MIMIC-III and MIMIC-IV .* 2008 to 2012, .* --part all"):
        choose_part(people, engine(trained), format, "auto")
    assert choose_part(people, engine("uci_diabetes130"), format, "auto")[0] == people


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
