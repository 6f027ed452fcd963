"""Nobody in two parts, by one rule for every source; and nothing fitted on training patients has seen another's code."""

from __future__ import annotations

import hashlib

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mera_core.checkpoint.folder import read_manifest
from mera_core.history.records import Patient, Visit, write_visits
from mera_core.icd.ontology import Code
from mera_core.readers import read
from training.baselines import CodeFrequency, HistoryRegression
from training.baselines.neural import NeuralBaseline, NeuralSettings
from training.baselines.samples import samples
from training.common.config import RankConfig
from training.common.split import PARTS, in_parts, split_of, with_codes
from training.rank import run as rank
from training.rank.cut import LabelCounts

ONLY_IN_TEST = "V58.61"


def patients_with_a_code_of_the_test_part(count: int = 120) -> list[Patient]:
    """Everyone has 428.0 and 401.9; test patients have V58.61 as well, and nobody else has."""
    out = []
    for n in range(count):
        extra = [ONLY_IN_TEST] if split_of(str(n)) == "test" else []
        visits = [Visit([Code("ICD9", code) for code in ["428.0", *extra]]), Visit([Code("ICD9", "401.9")])]
        visits.append(Visit([Code("ICD9", code) for code in ["428.0", *extra]]))
        out.append(Patient(visits, id=str(n), sex="F", age=60))
    return out


@given(st.text(min_size=1, max_size=30))
def test_the_part_is_the_first_byte_of_the_hash_of_the_id(identity: str) -> None:
    first = hashlib.sha256(identity.encode()).digest()[0]
    expected = "test" if first < 52 else "validation" if first < 70 else "train"
    assert split_of(identity) == expected
    if first < 26:  # patients that a copy of UCI may leave out: in the test part by the same rule
        assert split_of(identity) == "test"


def test_no_patient_is_in_two_parts_and_none_is_lost() -> None:
    people = [Patient([Visit([Code("ICD9", "486")])], id=str(n)) for n in range(3000)]
    parts = in_parts(people, "table")
    ids = {name: {patient.id for patient in part} for name, part in parts.items()}
    assert sum(map(len, ids.values())) == 3000 == len(set().union(*ids.values()))
    for one in PARTS:
        for other in PARTS:
            assert one == other or not ids[one] & ids[other]
    assert abs(len(ids["test"]) / 3000 - 52 / 256) < 0.03 and abs(len(ids["validation"]) / 3000 - 18 / 256) < 0.02


def test_a_checkpoint_knows_no_code_that_only_test_patients_have(tiny_stage1, tmp_path) -> None:
    table = tmp_path / "cohort.csv"
    write_visits(patients_with_a_code_of_the_test_part(), table)
    config = RankConfig(start=str(tiny_stage1), data=str(table), format="table", passes=0.5, save_every=0)
    rank.run(config, tmp_path / "run")
    manifest = read_manifest(tmp_path / "run")
    assert Code("ICD9", "428.0") in manifest.label_space
    assert Code("ICD9", ONLY_IN_TEST) not in (*manifest.label_space, *manifest.input_codes)
    # and the test patients do have it
    test = [p for p in with_codes(read(table, "table").patients) if split_of(p.id) == "test"]
    assert test and all(Code("ICD9", ONLY_IN_TEST) in p.visits[0].codes for p in test)


def test_label_counts_change_with_no_patient_of_another_part() -> None:
    parts = in_parts(patients_with_a_code_of_the_test_part(), "table")
    counts = LabelCounts.of(parts["train"])
    assert [code.code for code in counts.labels] == ["401.9", "428.0"]
    np.testing.assert_allclose(counts.rate, (len(parts["train"]) + 0.5) / (2 * len(parts["train"]) + 1))


def test_baselines_know_no_code_that_only_test_patients_have() -> None:
    parts = in_parts(patients_with_a_code_of_the_test_part(), "table")
    labels = [Code("ICD9", code) for code in ("401.9", "428.0")]
    odd = Code("ICD9", ONLY_IN_TEST)
    assert not any(odd in visit.codes for past, target in samples(parts["train"]) for visit in (*past, target))
    network = NeuralBaseline(labels, "GRU", NeuralSettings(width=8, passes=1))
    for baseline in (CodeFrequency(labels), HistoryRegression(labels, l2=(1.0,)), network):
        baseline.fit(parts["train"], parts["validation"])
        assert odd not in getattr(baseline, "_codes", {}), baseline.name
        with_it = baseline.scores(parts["test"])
        without = [
            Patient([Visit([code for code in visit.codes if code != odd]) for visit in patient.visits], id=patient.id)
            for patient in parts["test"]
        ]
        np.testing.assert_allclose(with_it, baseline.scores(without), atol=1e-6)
