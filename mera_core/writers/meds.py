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
    _write_metadata(part, columns, code_names, met, numbers, splits, named, dataset_name, ontology)
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
    rows = _Rows()
    sex = np.array([_SEXES.get(name, "") for name in columns.sex.to_pylist()], dtype=object)
    rows.add(people[sex != ""], code=sex[sex != ""])
    aged = ~np.isnan(columns.age)
    rows.add(people[aged], code=AGE_AT_LAST_VISIT, age=columns.age[aged])
    for name, texts in columns.person_words.items():
        told = np.flatnonzero(np.asarray(texts.is_valid()))
        if name == "ethnicity":  # for other tools; the exact word follows
            rows.add(
                told, code=np.array([f"ETHNICITY//{word}" for word in texts.take(pa.array(told)).to_pylist()], object)
            )
        rows.add(told, code=f"{PROFILE}//{name}", text=texts.take(pa.array(told)))
    known = ~np.isnat(born)
    rows.add(people[known], time=born[known], code=BIRTH)
    undated = np.isnat(columns.time)
    rows.add(columns.person, time, VISIT_START, visit=visits, age=columns.visit_age, invented=undated)
    rank = columns.position
    diagnoses = np.array(code_names, dtype=object)[columns.code] if len(code_names) else np.empty(0, object)
    at = columns.visit
    rows.add(columns.person[at], end[at], diagnoses, visit=at, rank=rank, invented=undated[at])
    for name, texts in columns.visit_words.items():
        told = np.flatnonzero(np.asarray(texts.is_valid()))
        words = texts.take(pa.array(told))
        rows.add(columns.person[told], end[told], f"{VISIT_DETAIL}//{name}", words, visit=told, invented=undated[told])
    rows.add(columns.person[stayed], end[stayed], VISIT_END, visit=visits[stayed], invented=undated[stayed])
    table = rows.table(subject, visit_number)
    if named:
        names = pa.array(columns.ids, pa.string()).take(table.column("person"))
        table = table.append_column(NAME_COLUMN, names)
    return table.drop_columns(["person"]), int((~known).sum())


class _Rows:
    """Groups of events of one kind, gathered into one table."""

    def __init__(self) -> None:
        self._groups: list[dict[str, pa.Array]] = []

    def add(
        self,
        person: np.ndarray,
        time: np.ndarray | None = None,
        code: str | np.ndarray = "",
        text: pa.Array | None = None,
        visit: np.ndarray | None = None,
        rank: np.ndarray | None = None,
        age: np.ndarray | None = None,
        invented: np.ndarray | None = None,
    ) -> None:
        """Events of some people. code, text: one for all or one for each. visit: index into the shard's visits."""
        size = len(person)
        self._groups.append(
            {
                "person": pa.array(person, pa.int64()),
                "time": pa.nulls(size, pa.timestamp("us")) if time is None else pa.array(time, pa.timestamp("us")),
                "code": pa.array([code] * size if isinstance(code, str) else code, pa.string()),
                "text_value": pa.nulls(size, pa.large_string()) if text is None else text.cast(pa.large_string()),
                "visit": pa.nulls(size, pa.int64()) if visit is None else pa.array(visit, pa.int64()),
                RANK_COLUMN: pa.nulls(size, pa.int64()) if rank is None else pa.array(rank, pa.int64()),
                AGE_COLUMN: pa.nulls(size, pa.float64())
                if age is None
                else pa.array(age, pa.float64(), from_pandas=True),
                INVENTED_COLUMN: pa.array(np.zeros(size, bool) if invented is None else invented),
            }
        )

    def table(self, subject: np.ndarray, visit_number: np.ndarray) -> pa.Table:
        """All events by person and time, static ones first; those of one time in the order they were added."""
        table = pa.concat_tables([pa.table(group) for group in self._groups])
        person = table.column("person").to_numpy()
        time = table.column("time").to_numpy().astype("datetime64[us]").astype(np.int64)  # NaT is the least
        table = table.take(pa.array(np.lexsort((time, person))))
        person = table.column("person").to_numpy()
        visit = table.column("visit")
        numbers = pa.array(visit_number, pa.int64()).take(visit) if len(visit_number) else visit
        return pa.table(
            {
                "subject_id": pa.array(subject[person] if len(subject) else person, pa.int64()),
                "time": table.column("time"),
                "code": table.column("code"),
                "numeric_value": pa.nulls(len(table), pa.float32()),
                "text_value": table.column("text_value"),
                VISIT_COLUMN: numbers,
                **{name: table.column(name) for name in (RANK_COLUMN, AGE_COLUMN, INVENTED_COLUMN)},
            },
            schema=DATA,
        ).append_column("person", table.column("person"))


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


def _write_metadata(
    part: Path,
    columns: VisitColumns,
    code_names: list[str],
    met: dict[str, None],
    numbers: np.ndarray,
    splits: np.ndarray,
    named: bool,
    dataset_name: str,
    ontology: Ontology,
) -> None:
    folder = part / "metadata"
    folder.mkdir(parents=True, exist_ok=True)
    icd = dict(zip(code_names, columns.codes, strict=True))
    described = []
    for name in met:
        code = icd.get(name)
        known = code is not None and code in ontology
        described.append(
            {
                "code": name,
                "description": ontology.definition(code) if known else _WORDS_OF_OURS.get(name),
                "parent_codes": None if code is None else [f"{code.system}CM/{code.code}"],
            }
        )
    pq.write_table(pa.Table.from_pylist(described, schema=CODES), folder / "codes.parquet")
    pq.write_table(
        pa.table({"subject_id": numbers, "split": pa.array(splits, pa.string())}, schema=SPLIT),
        folder / "subject_splits.parquet",
    )
    try:
        etl_version = version("mera")
    except PackageNotFoundError:  # run from a checkout
        etl_version = "0"
    told = {
        "dataset_name": dataset_name,
        "dataset_version": "1",
        "etl_name": "mera_core.writers.meds",
        "etl_version": etl_version,
        "meds_version": MEDS_VERSION,
        "created_at": datetime.now(UTC).isoformat(),
        "raw_source_id_columns": [VISIT_COLUMN, *([NAME_COLUMN] if named else [])],
        "other_extension_columns": [RANK_COLUMN, AGE_COLUMN, INVENTED_COLUMN],
    }
    (folder / "dataset.json").write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
