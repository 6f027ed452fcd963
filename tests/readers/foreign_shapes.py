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

from mera_core.history.records import Patient, Visit, patient_to_json
from mera_core.icd.ontology import Code
from tests.readers.shapes import Rows, stays, undotted, write_csv

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
    put(
        "Encounter",
        (
            {
                "id": f"e{n}",
                "status": "finished",
                "subject": {"reference": people[p.id]},
                "period": {"start": zoned(v.time, n).isoformat(), "end": zoned(v.time + STAY, n + 1).isoformat()},
            }
            for n, p, v in stays(patients)
        ),
    )
    put(
        "Condition",
        (
            {
                "id": f"c{n}-{rank}",
                "subject": {"reference": people[p.id]},
                "encounter": {"reference": f"Encounter/e{n}"},
                "code": {"coding": [{"system": MIMIC_SYSTEMS + code.system[3:], "code": undotted(code)}]},
            }
            for n, p, v in stays(patients)
            for rank, code in enumerate(v.codes)
        ),
    )
    return folder


def fhir_of_synthea(patients: list[Patient], folder: Path) -> Path:
    """A Bundle a patient in fhir/, in SNOMED alone; the map back to ICD is written beside the folder, as map.csv."""
    (folder / "fhir").mkdir(parents=True)
    write_csv(
        folder.parent / "map.csv",
        [{"snomed": number, "system": code.system, "code": code.code} for code, number in _snomed(patients).items()],
        "snomed system code",
    )
    numbers, visits = _snomed(patients), stays(patients)
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
    snomed = _snomed(patients)
    sexes = {"M": 8507, "F": 8532, "U": 0}
    tables: dict[str, tuple[Rows, str]] = {
        "person": (
            [{"person_id": p.id, "gender_concept_id": sexes[p.sex], "year_of_birth": 1950} for p in patients],
            "person_id gender_concept_id year_of_birth",
        ),
        "visit_occurrence": (
            [
                {
                    "visit_occurrence_id": n,
                    "person_id": p.id,
                    "visit_start_date": zoned(v.time, n).date(),
                    "visit_start_datetime": zoned(v.time, n),
                }
                for n, p, v in stays(patients)
            ],
            "visit_occurrence_id person_id visit_start_date visit_start_datetime",
        ),
        "condition_occurrence": (
            [
                {"person_id": p.id, "condition_concept_id": snomed[code], "visit_occurrence_id": f"{n}.0"}
                for n, p, v in stays(patients)
                for code in v.codes
            ],
            "person_id condition_concept_id visit_occurrence_id",
        ),
        "concept": (
            [
                {"concept_id": number + shift, "vocabulary_id": name, "concept_code": text, "concept_name": "x"}
                for code, number in snomed.items()
                for shift, name, text in ((0, "SNOMED", f"{number}"), (5_000, f"{code.system}CM", code.code))
            ],
            "concept_id vocabulary_id concept_code concept_name",
        ),
        "concept_relationship": (
            [
                {"concept_id_1": number + 5_000, "concept_id_2": number, "relationship_id": "Maps to"}
                for number in snomed.values()
            ],
            "concept_id_1 concept_id_2 relationship_id",
        ),
    }
    for name, (rows, columns) in tables.items():
        write_csv(folder / f"{name}.csv", rows, columns)
    return folder


def own_table(patients: list[Patient], folder: Path, suffix: str) -> Path:
    """One row a diagnosis in columns of other names (MAP); a visit without any has a row without a code."""
    rows: Rows = [
        {
            "PID": int(p.id),
            "ENCOUNTER": f"v{n}",
            "WHEN": zoned(v.time, n),
            "VERSION": code.system.removeprefix("ICD") if code else None,
            "DX": code.code if code else None,
            "SEX": SEXES[p.sex],
            "WARD": "not asked for",
        }
        for n, p, v in stays(patients)
        for code in v.codes or (None,)
    ]
    folder.mkdir(parents=True)
    path = folder / f"mine{suffix}"
    if suffix == ".json":
        path.write_text(json.dumps([row | {"WHEN": row["WHEN"].isoformat()} for row in rows], indent=1))
    elif suffix == ".parquet":
        kinds = {"VERSION": pa.string(), "DX": pa.string(), "WHEN": pa.timestamp("us", "America/New_York")}
        pq.write_table(pa.table({k: pa.array([row[k] for row in rows], kinds.get(k)) for k in rows[0]}), path)
    else:
        write_csv(path, rows, " ".join(rows[0]))
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
    visits: list[Visit] = [visit for patient in patients for visit in patient.visits]
    return {code: 1_000_000 + at for at, code in enumerate(sorted({code for visit in visits for code in visit.codes}))}
