"""A cohort as a MEDS 0.4 dataset: data/<split>/*.parquet, and metadata/ with codes, splits and dataset.json.

Boundary: columns in, files out. The codes have the form that MIMIC-IV's converter gives them
(`DIAGNOSIS//ICD//10//I5022`, with `ICD10CM/I50.22` as parent); a diagnosis is dated at the end of its visit, as far as that
is known, since it was coded then. What MEDS has no place for stands in columns of our own, so that `readers.meds` gives
the same cohort back: hadm_id (a running number), seq_num (the rank of a diagnosis), age (years at the visit),
time_invented, and source_patient_id where ids are no numbers. See docs/data/writing.md.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mera_core.common.files import Report
from mera_core.history.columns import VisitColumns
from mera_core.icd.ontology import Code, Ontology
from mera_core.readers.meds.codes import (
    AGE_AT_LAST_VISIT,
    AGE_COLUMN,
    BIRTH,
    INVENTED_COLUMN,
    NAME_COLUMN,
    PROFILE,
    RANK_COLUMN,
    VISIT_COLUMN,
    VISIT_DETAIL,
    VISIT_END,
    VISIT_START,
)
from mera_core.writers.subjects import SPLITS, completed, dated, meds_split, subject_numbers

MEDS_VERSION = "0.4.0"
SUBJECTS_A_SHARD = 20_000
DATA = pa.schema(
    [
        ("subject_id", pa.int64()),
        ("time", pa.timestamp("us")),
        ("code", pa.string()),
        ("numeric_value", pa.float32()),
        ("text_value", pa.large_string()),
        (VISIT_COLUMN, pa.int64()),
        (RANK_COLUMN, pa.int64()),
        (AGE_COLUMN, pa.float64()),
        (INVENTED_COLUMN, pa.bool_()),
    ]
)
CODES = pa.schema([("code", pa.string()), ("description", pa.string()), ("parent_codes", pa.list_(pa.string()))])
SPLIT = pa.schema([("subject_id", pa.int64()), ("split", pa.string())])
_NO_EVENTS = dict.fromkeys(("time", "text_value", "visit", RANK_COLUMN, AGE_COLUMN, INVENTED_COLUMN), ())
_SEXES = {"F": "GENDER//F", "M": "GENDER//M"}
_DAYS_A_YEAR = 365.2425
_ONE_BIRTH = 1.1  # years within which the births that a person's ages imply must agree
_WORDS_OF_OURS = {
    VISIT_START: "A visit began",
    VISIT_END: "A visit ended, to the whole day",
    BIRTH: "Birth, as the age at the first dated visit implies it",
    AGE_AT_LAST_VISIT: "Age in years at the last visit, in the column age",
    "GENDER//F": "Female",
    "GENDER//M": "Male",
}


def is_folder(target: Path) -> bool:
    """A MEDS dataset is always a folder."""
    return True


def write(
    columns: VisitColumns,
    part: Path,
    ontology: Ontology,
    progress: Callable[[str, int, int], None],
    dataset_name: str = "MERA cohort",
    subjects_a_shard: int = SUBJECTS_A_SHARD,
) -> Report:
    """Write the dataset into the folder `part`. subjects_a_shard: people in one parquet file."""
    report = Report("meds", len(columns.ids), len(columns.person), len(columns.code))
    numbers = subject_numbers(columns.ids)
    splits = np.array([meds_split(identity) for identity in columns.ids], dtype=object)
    named = any(str(number) != identity for number, identity in zip(numbers.tolist(), columns.ids, strict=True))
    visit_number = np.arange(1, len(columns.person) + 1, dtype=np.int64)
    code_names = [_diagnosis(code) for code in columns.codes]
    met: dict[str, None] = {}
    done = unborn = 0
    for split in SPLITS.values():
        members = np.flatnonzero(splits == split)
        for shard, first in enumerate(range(0, len(members), subjects_a_shard)):
            rows = members[first : first + subjects_a_shard]
            mask = np.zeros(len(columns.ids), dtype=bool)
            mask[rows] = True
            table, no_birth = _shard(
                columns.keep_people(mask), numbers[rows], visit_number[mask[columns.person]], code_names, named
            )
            met.update(dict.fromkeys(table.column("code").unique().to_pylist()))
            path = part / "data" / split / f"{shard}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(table, path)
            unborn += no_birth
            done += len(rows)
            report.files += 1
            progress(f"data/{split}", done, len(columns.ids))
    folder = part / "metadata"
    folder.mkdir(parents=True, exist_ok=True)
    icd = dict(zip(code_names, columns.codes, strict=True))
    described = pa.Table.from_pylist([_described(name, icd.get(name), ontology) for name in met], schema=CODES)
    pq.write_table(described, folder / "codes.parquet")
    split_table = pa.table({"subject_id": numbers, "split": pa.array(splits, pa.string())}, schema=SPLIT)
    pq.write_table(split_table, folder / "subject_splits.parquet")
    (folder / "dataset.json").write_text(json.dumps(_dataset(dataset_name, named), indent=2) + "\n", encoding="utf-8")
    report.files += 3
    undated = int(np.isnat(columns.time).sum())
    if undated:
        report.remarks.append(
            f"{undated:,} visits have no date; MEDS orders by time, so they have an invented one ({INVENTED_COLUMN} is true)"
        )
    if unborn:
        report.remarks.append(f"{unborn:,} patients have no birth event: their ages or dates are unknown or disagree")
    if named:
        report.remarks.append(f"patient ids that are no numbers stand in {NAME_COLUMN}; subject_id is made of them")
    return report


def _shard(
    columns: VisitColumns, subject: np.ndarray, visit_number: np.ndarray, code_names: list[str], named: bool
) -> tuple[pa.Table, int]:
    """The events of some people, sorted by person and time, and for how many of them no birth could be given."""
    time = dated(columns.person, columns.time)
    stay = columns.visit_words.get("stay")
    end = completed(time, stay)
    stayed = np.zeros(len(time), bool) if stay is None else np.asarray(stay.is_valid())
    people, visits = np.arange(len(subject)), np.arange(len(time))
    born = _births(columns)
    sex = np.array([_SEXES.get(name, "") for name in columns.sex.to_pylist()], dtype=object)
    aged, known, undated = ~np.isnan(columns.age), ~np.isnat(born), np.isnat(columns.time)
    groups = [
        _events(people[sex != ""], sex[sex != ""]),
        _events(people[aged], AGE_AT_LAST_VISIT, age=columns.age[aged]),
    ]
    for name, texts in columns.person_words.items():
        told = np.flatnonzero(np.asarray(texts.is_valid()))
        words = texts.take(pa.array(told)).to_pylist()
        if name == "ethnicity":  # for other tools; the exact word follows
            groups.append(_events(told, np.array([f"ETHNICITY//{word}" for word in words], object)))
        groups.append(_events(told, f"{PROFILE}//{name}", text_value=words))
    groups.append(_events(people[known], BIRTH, time=born[known]))
    began = {"time": time, "visit": visits, "age": columns.visit_age, INVENTED_COLUMN: undated}
    groups.append(_events(columns.person, VISIT_START, **began))
    at = columns.visit
    diagnoses = np.array([*code_names, ""], dtype=object)[columns.code]
    coded = {"time": end[at], "visit": at, RANK_COLUMN: columns.position, INVENTED_COLUMN: undated[at]}
    groups.append(_events(columns.person[at], diagnoses, **coded))
    for name, texts in columns.visit_words.items():
        told = np.flatnonzero(np.asarray(texts.is_valid()))
        said = {"text_value": texts.take(pa.array(told)).to_pylist(), INVENTED_COLUMN: undated[told]}
        groups.append(_events(columns.person[told], f"{VISIT_DETAIL}//{name}", time=end[told], visit=told, **said))
    ended = {"time": end[stayed], "visit": visits[stayed], INVENTED_COLUMN: undated[stayed]}
    groups.append(_events(columns.person[stayed], VISIT_END, **ended))
    table = _in_order(groups, subject, visit_number)
    if named:
        table = table.append_column(NAME_COLUMN, pa.array(columns.ids, pa.string()).take(table["person"]))
    return table.drop_columns(["person"]), int((~known).sum())


def _events(person: np.ndarray, code: str | np.ndarray, **columns: Any) -> pa.Table:
    """Events of some people, a row each. code: one for all or one for each; `visit`: index into the shard's visits."""
    codes = pa.array([code] * len(person) if isinstance(code, str) else code, pa.string())
    kinds = {"person": pa.int64(), "visit": pa.int64()} | dict(zip(DATA.names, DATA.types, strict=True))
    given = {name: pa.array(values, kinds[name], from_pandas=True) for name, values in columns.items()}
    return pa.table({"person": pa.array(person, pa.int64()), "code": codes, **given})


def _in_order(groups: list[pa.Table], subject: np.ndarray, visit_number: np.ndarray) -> pa.Table:
    """All events by person and time, static ones first; those of one time in the order in which they are given."""
    table = pa.concat_tables([_events(np.zeros(0), "", **_NO_EVENTS), *groups], promote_options="default")
    time = table["time"].to_numpy().astype("datetime64[us]").astype(np.int64)  # NaT is the least
    table = table.take(pa.array(np.lexsort((time, table["person"].to_numpy()))))
    columns = {name: table[name] for name in DATA.names if name in table.column_names}
    columns["subject_id"] = pa.array(subject, pa.int64()).take(table["person"])
    columns[VISIT_COLUMN] = pa.array(visit_number, pa.int64()).take(table["visit"])
    columns["numeric_value"] = pa.nulls(len(table), pa.float32())
    columns[INVENTED_COLUMN] = table[INVENTED_COLUMN].fill_null(False)
    return pa.table(columns, schema=DATA).append_column("person", table["person"])


def _births(columns: VisitColumns) -> np.ndarray:
    """[n] the birth that a person's ages imply at their dated visits; NaT where they imply none, or several."""
    age = columns.visit_age.copy()
    last = columns.visits_of[1:] - 1
    age[last] = np.where(np.isnan(age[last]), columns.age, age[last])
    implied = columns.time - (age_days(age)).astype("timedelta64[us]")
    known = ~np.isnat(columns.time) & ~np.isnan(age)
    born = np.full(len(columns.ids), np.datetime64("NaT", "us"))
    rows = np.flatnonzero(known)
    if not len(rows):
        return born
    person, first = np.unique(columns.person[rows], return_index=True)
    values = implied[rows].astype(np.int64)
    spread = np.maximum.reduceat(values, first) - np.minimum.reduceat(values, first)
    agreed = spread <= _ONE_BIRTH * _DAYS_A_YEAR * 86_400_000_000
    born[person[agreed]] = implied[rows][first][agreed]
    return born


def age_days(age: np.ndarray) -> np.ndarray:
    """Microseconds in years of age, as whole days; 0 where unknown."""
    return np.round(np.nan_to_num(age) * _DAYS_A_YEAR).astype(np.int64) * 86_400_000_000


def _diagnosis(code: Code) -> str:
    return f"DIAGNOSIS//ICD//{code.system.removeprefix('ICD')}//{code.code.replace('.', '')}"


def _described(name: str, code: Code | None, ontology: Ontology) -> dict[str, Any]:
    """The row of an event's code in metadata/codes.parquet; code: the ICD code that it names."""
    if code is None:
        return {"code": name, "description": _WORDS_OF_OURS.get(name)}
    description = ontology.definition(code) if code in ontology else _WORDS_OF_OURS.get(name)
    return {"code": name, "description": description, "parent_codes": [f"{code.system}CM/{code.code}"]}


def _dataset(name: str, named: bool) -> dict[str, Any]:
    """metadata/dataset.json."""
    try:
        etl_version = version("mera")
    except PackageNotFoundError:  # run from a checkout
        etl_version = "0"
    return {
        "dataset_name": name,
        "dataset_version": "1",
        "etl_name": "mera_core.writers.meds",
        "etl_version": etl_version,
        "meds_version": MEDS_VERSION,
        "created_at": datetime.now(UTC).isoformat(),
        "raw_source_id_columns": [VISIT_COLUMN, *([NAME_COLUMN] if named else [])],
        "other_extension_columns": [RANK_COLUMN, AGE_COLUMN, INVENTED_COLUMN],
    }
