"""Prediction tables against the LabelSchema of `meds` and the PredictionSchema of meds-evaluation."""

from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from flexible_schema import Optional
from meds import LabelSchema
from sklearn.metrics import roc_auc_score

from mera_core.common.errors import InputError
from mera_core.history.records import Patient, Visit
from mera_core.icd.ontology import Code, Ontology
from mera_core.ranking.ranking import NOTICE, Ranking
from mera_core.writers.predictions import HEART_FAILURE, Sample, Task, task_of, write_predictions

LABELS = (Code("ICD10", "I10"), Code("ICD10", "I50.22"), Code("ICD9", "428.0"), Code("ICD9", "428.1"))


class PredictionSchema(LabelSchema):
    """As published in meds_evaluation/schema.py: the label schema, closed, with these two columns."""

    predicted_boolean_value: Optional(pa.bool_())
    predicted_boolean_probability: Optional(pa.float32())


def ranking(scores, cut=0.0, probability=None):
    """Scores in the order of LABELS."""
    order = np.argsort(-np.array(scores, float), kind="stable")
    return Ranking(
        tuple(LABELS[i] for i in order),
        np.array(scores, float)[order],
        cut,
        np.full(4, 0.25),
        np.zeros(4, bool),
        "tiny",
        "code",
        Ontology.load(),
        probability=None if probability is None else np.array(probability)[order],
    )


def sample(identity, time, target, scores, stay=None, **more):
    visit = Visit([Code("ICD10", "I10")], time, details={"stay": stay} if stay else {})
    return Sample(Patient((visit,), id=identity), frozenset(target), ranking(scores, **more))


SAMPLES = [
    sample("1", datetime(2020, 1, 1), [Code("ICD9", "428.0"), Code("ICD10", "I10")], [0.0, -1.0, 2.0, -3.0], stay="4"),
    sample("2", datetime(2020, 2, 1), [Code("ICD10", "I10")], [3.0, -1.0, -2.0, -1.5]),
    sample("three", datetime(2020, 3, 1), [Code("ICD10", "I50.22")], [0.0, -0.5, -2.0, -3.0]),
    sample("4", datetime(2020, 4, 1), [], [0.0, -4.0, -2.0, -3.0]),
    sample("5", None, [Code("ICD10", "I10")], [0.0, 0.0, 0.0, 0.0]),
]


def table(folder, kind, task):
    return pq.read_table(folder / kind / task / "0.parquet")


def test_the_tables_have_the_schemas_of_meds(tmp_path):
    report = write_predictions(SAMPLES, tmp_path / "out", [HEART_FAILURE, task_of(Code("ICD10", "I10"))])
    for task in ("heart_failure", "ICD10-I10"):
        LabelSchema.validate(table(tmp_path / "out", "labels", task))
        PredictionSchema.validate(table(tmp_path / "out", "predictions", task))
    codes = table(tmp_path / "out", "labels", "next_visit_codes")
    LabelSchema.validate(codes)
    assert codes.column("categorical_value").to_pylist() == [
        "ICD10CM/I10",
        "ICD9CM/428.0",
        "ICD10CM/I10",
        "ICD10CM/I50.22",
    ]
    assert report.remarks == ["1 patients have no dated last visit and are left out", NOTICE]
    assert NOTICE in (tmp_path / "out/README.md").read_text()


def test_a_task_is_true_for_codes_below_and_scored_by_its_likeliest_code(tmp_path):
    write_predictions(SAMPLES, tmp_path / "out")
    rows = table(tmp_path / "out", "predictions", "heart_failure").to_pylist()
    assert [row["boolean_value"] for row in rows] == [True, False, True, False]
    assert [row["predicted_boolean_value"] for row in rows] == [True, False, False, False]
    best = np.array([2.0, -1.0, -0.5, -2.0])  # of I50.22, 428.0 and 428.1
    probability = [row["predicted_boolean_probability"] for row in rows]
    np.testing.assert_allclose(probability, 1 / (1 + np.exp(-best)), rtol=1e-6)
    assert roc_auc_score([row["boolean_value"] for row in rows], probability) == 1.0
    assert [row["subject_id"] for row in rows][:2] == [1, 2]
    assert rows[0]["prediction_time"] == datetime(2020, 1, 5)  # the end of the visit, four days after it began


def test_calibrated_probabilities_are_taken_where_there_are_any(tmp_path):
    samples = [
        sample("1", datetime(2020, 1, 1), [], [0.0, -1.0, 2.0, -3.0], probability=[0.2, 0.1, 0.4, 0.05]),
    ]
    write_predictions(samples, tmp_path / "out")
    rows = table(tmp_path / "out", "predictions", "heart_failure").to_pylist()
    assert rows[0]["predicted_boolean_probability"] == pytest.approx(0.4)
    assert "a calibrated probability" in (tmp_path / "out/README.md").read_text()


def test_what_can_not_be_written_is_refused(tmp_path):
    with pytest.raises(InputError, match="no patient has a dated last visit"):
        write_predictions(SAMPLES[-1:], tmp_path / "out")
    with pytest.raises(InputError, match="share a name"):
        write_predictions(SAMPLES, tmp_path / "out", [HEART_FAILURE, HEART_FAILURE])
    for name in ("../x", "a/b", "..", "next_visit_codes", ""):
        with pytest.raises(InputError, match="can't be called"):
            Task(name, LABELS)
    assert list(tmp_path.iterdir()) == []
