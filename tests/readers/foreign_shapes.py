"""Writes a list of patients as other converters and servers do: MEDS, FHIR, OMOP in SNOMED, and tables of one's own.

The counterpart of `shapes` for the formats that we write ourselves too: nothing here has our own columns or extensions.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from uuid import NAMESPACE_OID, uuid5

import pyarrow as pa
import pyarrow.parquet as pq

from mera_core.history.records import Patient, patient_to_json
from mera_core.icd.ontology import Code
from tests.readers.shapes import ranked, stays, undotted, write_csv

STAY = timedelta(minutes=30)  # shorter than the time between two visits
MIMIC_SYSTEMS = "http://mimic.mit.edu/fhir/mimic/CodeSystem/mimic-diagnosis-icd"
SEXES = {"F": "female", "M": "male", "U": "unknown"}
MAP = {"patient_id": "PID", "visit_id": "ENCOUNTER", "time": "WHEN", "system": "VERSION", "code": "DX", "sex": "SEX"}

ZONES = (None, UTC, timezone(timedelta(hours=-5)), timezone(timedelta(hours=5, minutes=30)))


def zoned(time: datetime, number: int) -> datetime:
    """The instant in the zone that falls to a visit; one of them writes none, which means UTC."""
    return time.replace(tzinfo=UTC).astimezone(ZONES[number % 4]) if ZONES[number % 4] else time


def meds(patients: list[Patient], folder: Path, named: bool = True) -> Path:
    """As MIMIC's converter writes it: diagnoses are dated at discharge; without `named` no event says its visit."""
    rows: list[tuple] = [(int(p.id), None, f"GENDER//{p.sex}", None) for p in patients if p.sex != "U"]
    for number, patient, visit in stays(patients):
        left, who = visit.time + STAY, int(patient.id)
        rows.append((who, visit.time, "HOSPITAL_ADMISSION//URGENT//UNK", number))
        codes = [f"DIAGNOSIS//ICD//{code.system.removeprefix('ICD')}//{undotted(code)}" for code in visit.codes]
        rows += [(who, left, code, number) for code in codes]
        rows.append((who, left, "HOSPITAL_DISCHARGE//HOME", number))
    kinds = {
        "subject_id": pa.int64(),
        "time": pa.timestamp("us", "America/New_York"),
        "code": pa.string(),
        "hadm_id": pa.int64(),
    }
    arrays = {name: pa.array([row[at] for row in rows], kind) for at, (name, kind) in enumerate(kinds.items())}
    if not named:
        del arrays["hadm_id"]
    path = folder / "data/train/0.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(pa.table({**arrays, "numeric_value": pa.nulls(len(rows), pa.float32())}), path)
    return folder


def fhir_of_mimic(patients: list[Patient], folder: Path) -> Path:
    """A bulk export with MIMIC's own code systems, undotted codes, resource ids that are no patient's, and times in many zones."""
    folder.mkdir(parents=True)

    def put(kind: str, resources: Iterable[dict]) -> None:
        lines = "".join(json.dumps({"resourceType": kind, **resource}) + "\n" for resource in resources)
        (folder / f"Mimic{kind}.ndjson.gz").write_bytes(gzip.compress(lines.encode()))

    people = {p.id: f"Patient/{uuid5(NAMESPACE_OID, p.id)}" for p in patients}
    named = {p.id: [{"system": "http://mimic.mit.edu/fhir/mimic/identifier/patient", "value": p.id}] for p in patients}
    put("Patient", ({"id": people[p.id][8:], "gender": SEXES[p.sex], "identifier": named[p.id]} for p in patients))
    encounters = [
        {
            "id": f"e{n}",
            "status": "finished",
            "subject": {"reference": people[p.id]},
            "period": {"start": zoned(v.time, n).isoformat(), "end": zoned(v.time + STAY, n + 1).isoformat()},
        }
        for n, p, v in stays(patients)
    ]
    conditions = [
        {
            "id": f"c{n}-{rank}",
            "subject": {"reference": people[p.id]},
            "encounter": {"reference": f"Encounter/e{n}"},
            "code": {"coding": [{"system": MIMIC_SYSTEMS + code.system[3:], "code": undotted(code)}]},
        }
        for n, p, rank, code in ranked(patients)
    ]
    put("Encounter", encounters)
    put("Condition", conditions)
    return folder


def fhir_of_synthea(patients: list[Patient], folder: Path) -> Path:
    """A Bundle a patient in fhir/, in SNOMED alone; the map back to ICD is written beside the folder, as map.csv."""
    (folder / "fhir").mkdir(parents=True)
    numbers, visits = _snomed(patients), stays(patients)
    known = ((number, code.system, code.code) for code, number in numbers.items())
    write_csv(folder.parent / "map.csv", "snomed system code", known)
    for patient in patients:
        person = f"urn:uuid:p{patient.id}"
        entries = [(person, {"resourceType": "Patient", "id": patient.id, "gender": SEXES[patient.sex]})]
        for number, visit in ((n, v) for n, p, v in visits if p is patient):
            met = f"urn:uuid:e{number}"
            began = zoned(visit.time, number)
            period = {"start": began.isoformat(), "end": (began + STAY).isoformat()}
            about = {"id": f"e{number}", "status": "finished", "subject": {"reference": person}, "period": period}
            entries.append((met, {"resourceType": "Encounter", **about}))
            for rank, code in enumerate(visit.codes):
                coding = {"system": "http://snomed.info/sct", "code": str(numbers[code])}
                said = {"subject": {"reference": person}, "encounter": {"reference": met}, "code": {"coding": [coding]}}
                entries.append((f"urn:uuid:c{number}-{rank}", {"resourceType": "Condition", **said}))
        bundle = {"resourceType": "Bundle", "type": "transaction"}
        bundle["entry"] = [{"fullUrl": url, "resource": resource} for url, resource in entries]
        (folder / "fhir" / f"{patient.id}.json").write_text(json.dumps(bundle, indent=1))
    return folder


def omop_in_snomed(patients: list[Patient], folder: Path) -> Path:
    """Standard concepts alone, and a vocabulary in which each ICD code maps to one of them."""
    snomed, sexes = _snomed(patients), {"M": 8507, "F": 8532, "U": 0}
    concepts = [
        (number + shift, name, text, "x")
        for code, number in snomed.items()
        for shift, name, text in ((0, "SNOMED", f"{number}"), (5_000, f"{code.system}CM", code.code))
    ]
    times = {n: zoned(v.time, n) for n, _, v in stays(patients)}
    tables: dict[str, tuple[str, list[tuple]]] = {
        "person": ("person_id gender_concept_id year_of_birth", [(p.id, sexes[p.sex], 1950) for p in patients]),
        "visit_occurrence": (
            "visit_occurrence_id person_id visit_start_date visit_start_datetime",
            [(n, p.id, times[n].date(), times[n]) for n, p, _ in stays(patients)],
        ),
        "condition_occurrence": (
            "person_id condition_concept_id visit_occurrence_id",
            [(p.id, snomed[code], f"{n}.0") for n, p, _, code in ranked(patients)],
        ),
        "concept": ("concept_id vocabulary_id concept_code concept_name", concepts),
        "concept_relationship": (
            "concept_id_1 concept_id_2 relationship_id",
            [(number + 5_000, number, "Maps to") for number in snomed.values()],
        ),
    }
    for name, (columns, rows) in tables.items():
        write_csv(folder / f"{name}.csv", columns, rows)
    return folder


def own_table(patients: list[Patient], folder: Path, suffix: str) -> Path:
    """One row a diagnosis in columns of other names (MAP); a visit without any has a row without a code."""
    columns = ("PID", "ENCOUNTER", "WHEN", "VERSION", "DX", "SEX", "WARD")
    rows = [
        (
            int(p.id),
            f"v{n}",
            zoned(v.time, n),
            code and code.system[3:],
            code and code.code,
            SEXES[p.sex],
            "not asked for",
        )
        for n, p, v in stays(patients)
        for code in v.codes or (None,)
    ]
    folder.mkdir(parents=True)
    path = folder / f"mine{suffix}"
    if suffix == ".json":
        path.write_text(json.dumps([dict(zip(columns, row, strict=True)) for row in rows], default=datetime.isoformat))
    elif suffix == ".parquet":
        kinds = {"VERSION": pa.string(), "DX": pa.string(), "WHEN": pa.timestamp("us", "America/New_York")}
        cells = zip(columns, zip(*rows, strict=True), strict=True)
        pq.write_table(pa.table({name: pa.array(values, kinds.get(name)) for name, values in cells}), path)
    else:
        write_csv(path, " ".join(columns), rows)
        path.write_text(path.read_text().replace(",", ";"))
    return path


def histories(patients: list[Patient], folder: Path) -> Path:
    """A list of HISTORY.json; it can't hold a patient without any code."""
    listed = [patient_to_json(p) for p in patients]
    for number, visit in enumerate(visit for history in listed for visit in history["visits"]):
        visit["time"] = zoned(datetime.fromisoformat(visit["time"]), number).isoformat()
    folder.mkdir(parents=True)
    (folder / "HISTORY.json").write_text(json.dumps(listed))
    return folder / "HISTORY.json"


def _snomed(patients: list[Patient]) -> dict[Code, int]:
    """A number of its own for each code."""
    return {code: 1_000_000 + at for at, code in enumerate(sorted({code for *_, code in ranked(patients)}))}
