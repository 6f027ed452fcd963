"""The FHIR writer, validated by the R4B models of fhir.resources."""

import gzip
import json

import pytest
from fhir.resources.R4B.bundle import Bundle
from fhir.resources.R4B.condition import Condition
from fhir.resources.R4B.encounter import Encounter
from fhir.resources.R4B.patient import Patient as FhirPatient
from hypothesis import HealthCheck, given, settings

from mera_core.icd.ontology import Ontology
from mera_core.readers import Cohort, ImportReport
from mera_core.writers import write
from mera_core.writers.fhir import fhir_id, resources
from tests.writers.cohorts import cohorts, small

MODELS = {"Patient": FhirPatient, "Encounter": Encounter, "Condition": Condition}


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(cohort=cohorts())
def test_every_resource_of_any_cohort_is_valid(cohort):
    for group in resources(cohort.columns, Ontology.load()):
        for resource in group:
            MODELS[resource["resourceType"]].model_validate_json(json.dumps(resource))


def test_a_bundle_is_valid_and_its_references_resolve(tmp_path):
    write(small(), tmp_path / "out.json.gz", "fhir")
    bundle = json.loads(gzip.decompress((tmp_path / "out.json.gz").read_bytes()))
    Bundle.model_validate_json(json.dumps(bundle))
    urls = {entry["fullUrl"]: entry["resource"]["resourceType"] for entry in bundle["entry"]}
    assert len(urls) == len(bundle["entry"]) == 3 + 5 + 6
    for entry in bundle["entry"]:
        resource = entry["resource"]
        if resource["resourceType"] != "Patient":
            assert urls[resource["subject"]["reference"]] == "Patient"
        if resource["resourceType"] == "Condition":
            assert urls[resource["encounter"]["reference"]] == "Encounter"


def test_a_cohort_of_nobody_is_a_bundle_without_entries(tmp_path):
    write(Cohort([], ImportReport("invented")), tmp_path / "out.json", "fhir")
    bundle = json.loads((tmp_path / "out.json").read_text())
    Bundle.model_validate_json(json.dumps(bundle))
    assert "entry" not in bundle


def test_a_bulk_folder_has_a_file_for_each_type(tmp_path):
    write(small(), tmp_path / "out", "fhir")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {f"{kind}.ndjson" for kind in MODELS}
    encounter = lines(tmp_path / "out/Encounter.ndjson")[0]
    assert encounter["status"] == "finished"
    assert encounter["class"]["code"] == "IMP"  # its length of stay is known
    assert encounter["period"] == {"start": "2010-01-01T08:00:00+00:00", "end": "2010-01-04T08:00:00+00:00"}
    assert [each["rank"] for each in encounter["diagnosis"]] == [1, 4]
    condition = lines(tmp_path / "out/Condition.ndjson")[0]
    assert condition["encounter"] == {"reference": f"Encounter/{encounter['id']}"}
    coding = {"system": "http://hl7.org/fhir/sid/icd-9-cm", "code": "428.0"}
    assert condition["code"]["coding"] == [coding | {"display": "Congestive heart failure, unspecified"}]


@pytest.mark.parametrize(("identity", "same"), [("a-1.B", True), ("x" * 64, True), ("x" * 65, False), ("a b", False)])
def test_ids_that_fhir_refuses_are_replaced(identity, same):
    assert (fhir_id(identity) == identity) is same
    assert len(fhir_id(identity)) <= 64
