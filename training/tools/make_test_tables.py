"""Invented records of any size in the shape of MIMIC-IV or of MEDS, to test import and scale with.

    python -m training.tools.make_test_tables mimic4 OUT --patients 364000 --admissions 546000 --diagnoses 6400000

The shape is that of the real tables: columns, undotted codes with leading zeros, seq_num, a change from ICD-9 to ICD-10 in
October 2015 of the hidden calendar, most patients with one admission or none. The codes are drawn by chance, so nothing
can be learned from them; never measure accuracy on these tables.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import typer

from mera_core.common.errors import InputError
from mera_core.icd.ontology import Ontology

SHAPES = ("mimic4", "meds")
ADMITTED = 0.61  # share of MIMIC-IV's patients who have an admission
GROUPS = (2008, 2011, 2014, 2017, 2020)  # first years of anchor_year_group
ICD10_YEAR = 2015.75  # ICD-10-CM came into force in October 2015
_FIRST_SUBJECT, _FIRST_ADMISSION = 10_000_032, 20_000_019
_KINDS = ("EW EMER.", "URGENT", "OBSERVATION ADMIT", "SURGICAL SAME DAY ADMISSION", "ELECTIVE")
_PLACES = ("EMERGENCY ROOM", "PHYSICIAN REFERRAL", "TRANSFER FROM HOSPITAL", "WALK-IN/SELF REFERRAL")
_ENDS = ("HOME", "HOME HEALTH CARE", "SKILLED NURSING FACILITY", "REHAB", "DIED", "")
_RACES = ("WHITE", "BLACK/AFRICAN AMERICAN", "HISPANIC/LATINO - PUERTO RICAN", "ASIAN", "UNKNOWN")
_PAYERS = ("Medicare", "Private", "Medicaid", "Other")


@dataclass
class Invented:
    """Patients, admissions (sorted by patient and time) and diagnoses (sorted by admission and rank) as arrays."""

    subject: np.ndarray
    sex: np.ndarray
    anchor_age: np.ndarray
    anchor_year: np.ndarray
    group: np.ndarray
    owner: np.ndarray
    admission: np.ndarray
    admitted: np.ndarray
    discharged: np.ndarray
    choices: dict[str, np.ndarray]
    stay: np.ndarray
    rank: np.ndarray
    code: np.ndarray
    codes: list[str]
    versions: list[int]


def invent(patients: int, admissions: int, diagnoses: int, seed: int = 1) -> Invented:
    """Tables of these sizes, drawn from a seed. Raises InputError for sizes that don't go together."""
    refuse_sizes(patients, admissions, diagnoses)
    draw = np.random.default_rng(seed)
    subject = _FIRST_SUBJECT + np.sort(draw.choice(patients * 3, patients, replace=False))
    admitted_people = np.sort(draw.choice(patients, min(max(int(patients * ADMITTED), 1), admissions), replace=False))
    owner = np.sort(_with_each(draw, admitted_people, admissions))
    anchor_year = draw.integers(2110, 2200, patients)
    group = np.array(GROUPS)[draw.integers(0, len(GROUPS), patients)]
    offset = draw.integers(-2 * 365 * 1440, 6 * 365 * 1440, admissions)  # minutes around the anchor year
    began = (anchor_year[owner] - 1970).astype("datetime64[Y]").astype("datetime64[m]") + offset
    order = np.lexsort((began, owner))
    began = began[order]
    real = group[owner] + (began.astype("datetime64[D]").astype(float) / 365.2425 + 1970 - anchor_year[owner])
    codes, versions, code, stay = _diagnoses(draw, real >= ICD10_YEAR, diagnoses)
    starts = np.searchsorted(stay, np.arange(admissions))
    return Invented(
        subject=subject,
        sex=np.array(["F", "M"])[draw.integers(0, 2, patients)],
        anchor_age=np.minimum(18 + draw.integers(0, 80, patients), 91),
        anchor_year=anchor_year,
        group=group,
        owner=owner,
        admission=_FIRST_ADMISSION + draw.permutation(admissions * 2)[:admissions],
        admitted=began,
        discharged=began + (draw.exponential(4.5, admissions) * 1440).astype(np.int64),
        choices={
            "admission_type": np.array(_KINDS)[draw.integers(0, len(_KINDS), admissions)],
            "admission_location": np.array(_PLACES)[draw.integers(0, len(_PLACES), admissions)],
            "discharge_location": np.array(_ENDS)[draw.integers(0, len(_ENDS), admissions)],
            "insurance": np.array(_PAYERS)[draw.integers(0, len(_PAYERS), admissions)],
            "race": np.array(_RACES)[draw.integers(0, len(_RACES), admissions)],
        },
        stay=stay,
        rank=np.arange(len(stay)) - starts[stay] + 1,
        code=code,
        codes=codes,
        versions=versions,
    )


def refuse_sizes(patients: int, admissions: int, diagnoses: int) -> None:
    """Raise InputError for sizes that don't go together."""
    if patients < 1 or admissions < 1 or diagnoses < admissions or diagnoses > admissions * 39:
        raise InputError(
            f"{patients:,} patients, {admissions:,} admissions and {diagnoses:,} diagnoses don't go together: there must be "
            "patients and admissions, and from 1 to 39 diagnoses an admission."
        )


def _with_each(draw: np.random.Generator, people: np.ndarray, size: int) -> np.ndarray:
    """`size` owners: each person once, the rest by chance, a few of them far more often than others."""
    weight = draw.pareto(1.5, len(people)) + 0.1
    return np.concatenate([people, draw.choice(people, size - len(people), p=weight / weight.sum())])


def _diagnoses(
    draw: np.random.Generator, newer: np.ndarray, size: int
) -> tuple[list[str], list[int], np.ndarray, np.ndarray]:
    """(codes, their versions, code of each diagnosis, admission of each), no code twice in an admission."""
    book = Ontology.load()
    texts = [[code.code.replace(".", "") for code in book.billable(system)] for system in ("ICD9", "ICD10")]
    orders = [draw.permutation(len(each)) for each in texts]  # which codes are the common ones is chance
    admissions = len(newer)
    pairs = np.zeros(0, np.int64)
    while len(pairs) < size:
        missing = size - len(pairs)
        stay = np.arange(admissions) if not len(pairs) else draw.integers(0, admissions, missing + missing // 20 + 1)
        commonness = draw.zipf(1.25, len(stay)) - 1
        code = np.where(
            newer[stay],
            orders[1][commonness % len(texts[1])] + len(texts[0]),
            orders[0][commonness % len(texts[0])],
        )
        pairs = np.concatenate([pairs, (stay.astype(np.int64) << 32) + code])
        _, first = np.unique(pairs, return_index=True)
        pairs = pairs[np.sort(first)][:size]
    stay, code = pairs >> 32, pairs & 0xFFFFFFFF
    order = np.argsort(stay, kind="stable")
    versions = [9] * len(texts[0]) + [10] * len(texts[1])
    return texts[0] + texts[1], versions, code[order], stay[order]


def write_mimic4(tables: Invented, folder: Path, packed: bool = True) -> None:
    """Write hosp/patients, hosp/admissions and hosp/diagnoses_icd as MIMIC-IV 3 has them."""
    hosp = folder / "hosp"
    hosp.mkdir(parents=True, exist_ok=True)
    size = len(tables.subject)
    _csv(
        hosp / "patients.csv",
        {
            "subject_id": tables.subject,
            "gender": tables.sex,
            "anchor_age": tables.anchor_age,
            "anchor_year": tables.anchor_year,
            "anchor_year_group": pa.array([f"{first} - {first + 2}" for first in tables.group.tolist()]),
            "dod": pa.nulls(size, pa.string()),
        },
        packed,
    )
    count = len(tables.owner)
    nothing = pa.nulls(count, pa.string())
    columns = {
        "subject_id": tables.subject[tables.owner],
        "hadm_id": tables.admission,
        "admittime": _written(tables.admitted),
        "dischtime": _written(tables.discharged),
        "deathtime": nothing,
        **{name: tables.choices[name] for name in ("admission_type", "admission_location", "discharge_location")},
        "insurance": tables.choices["insurance"],
        "language": nothing,
        "marital_status": nothing,
        "race": tables.choices["race"],
        "edregtime": nothing,
        "edouttime": nothing,
        "hospital_expire_flag": (tables.choices["discharge_location"] == "DIED").astype(np.int8),
    }
    _csv(hosp / "admissions.csv", columns, packed)
    code = pa.array(tables.code)
    columns = {
        "subject_id": tables.subject[tables.owner[tables.stay]],
        "hadm_id": tables.admission[tables.stay],
        "seq_num": tables.rank,
        "icd_code": pa.array(tables.codes).take(code),
        "icd_version": pa.array(tables.versions, pa.int8()).take(code),
    }
    _csv(hosp / "diagnoses_icd.csv", columns, packed)


def write_meds(tables: Invented, folder: Path, shards: int = 4) -> None:
    """Write data/, metadata/ as MIMIC-IV's converter does: birth, sex, admission, diagnoses (at discharge) and discharge."""
    years = (tables.anchor_year - tables.anchor_age - 1970).astype("datetime64[Y]").astype("datetime64[us]")
    people, stays, entries = np.arange(len(tables.subject)), np.arange(len(tables.owner)), tables.stay
    diagnoses = [f"DIAGNOSIS//ICD//{v}//{c}" for c, v in zip(tables.codes, tables.versions, strict=True)]
    starts = [f"HOSPITAL_ADMISSION//{kind}//{place}" for kind in _KINDS for place in _PLACES]
    ends = [f"HOSPITAL_DISCHARGE//{end or 'UNK'}" for end in _ENDS]
    book = ["MEDS_BIRTH", "GENDER//F", "GENDER//M", *starts, *ends, *diagnoses]
    kind, place, end = (
        _index_in(tables.choices[name], texts)
        for name, texts in (("admission_type", _KINDS), ("admission_location", _PLACES), ("discharge_location", _ENDS))
    )
    nowhen = np.full(len(people), np.datetime64("NaT", "us"))
    owner = np.concatenate([people, people, tables.owner, tables.owner[entries], tables.owner])
    begun, ended = tables.admitted.astype("datetime64[us]"), tables.discharged.astype("datetime64[us]")
    time = np.concatenate([nowhen, years, begun, ended[entries], ended])
    code = np.concatenate(
        [
            np.where(tables.sex == "F", 1, 2),
            np.zeros(len(people)),
            3 + kind * len(_PLACES) + place,
            3 + len(starts) + len(ends) + tables.code,
            3 + len(starts) + end,
        ]
    ).astype(np.int64)
    stay = np.concatenate([np.full(2 * len(people), -1), stays, entries, stays])
    part = np.concatenate(  # admissions are part 1
        [np.zeros(2 * len(people)), np.ones(len(stays)), np.full(len(entries), 2), np.full(len(stays), 3)]
    )
    order = np.lexsort((part, np.where(np.isnat(time), np.iinfo(np.int64).min, time.astype(np.int64)), owner))
    schema = pa.schema(
        [
            ("subject_id", pa.int64()), ("time", pa.timestamp("us")), ("code", pa.string()),
            ("numeric_value", pa.float32()), ("hadm_id", pa.int64()),
            ("race", pa.string()), ("insurance", pa.string()),
        ]
    )  # fmt: skip
    splits = np.where(people % 10 < 8, "train", np.where(people % 10 == 8, "tuning", "held_out"))
    texts = pa.array(book)
    for split in ("train", "tuning", "held_out"):
        of_split = order[splits[owner[order]] == split]
        (folder / "data" / split).mkdir(parents=True, exist_ok=True)
        for number, rows in enumerate(_whole_people(of_split, owner, shards if split == "train" else 1)):
            arrays = [
                pa.array(tables.subject[owner[rows]]),
                pa.array(time[rows]),
                texts.take(pa.array(code[rows])),
                pa.nulls(len(rows), pa.float32()),
                pa.array(tables.admission[np.maximum(stay[rows], 0)], pa.int64(), mask=stay[rows] < 0),
                *(
                    pa.array(tables.choices[name][np.maximum(stay[rows], 0)], pa.string(), mask=part[rows] != 1)
                    for name in ("race", "insurance")
                ),
            ]
            pq.write_table(pa.Table.from_arrays(arrays, schema=schema), folder / "data" / split / f"{number}.parquet")
    (folder / "metadata").mkdir(exist_ok=True)
    pq.write_table(
        pa.table({"subject_id": pa.array(tables.subject), "split": pa.array(splits)}),
        folder / "metadata" / "subject_splits.parquet",
    )
    pq.write_table(
        pa.table(
            {
                "code": texts,
                "description": pa.nulls(len(book), pa.string()),
                "parent_codes": pa.nulls(len(book), pa.list_(pa.string())),
            }
        ),
        folder / "metadata" / "codes.parquet",
    )
    about = {
        "dataset_name": "invented",
        "dataset_version": "1",
        "meds_version": "0.4.0",
        "etl_name": "make_test_tables",
    }
    (folder / "metadata" / "dataset.json").write_text(json.dumps(about, indent=2) + "\n")


def _index_in(values: np.ndarray, texts: tuple[str, ...]) -> np.ndarray:
    """For each value its place among the texts."""
    order = np.argsort(texts)
    return order[np.searchsorted(np.array(texts)[order], values)]


def _whole_people(rows: np.ndarray, owner: np.ndarray, parts: int) -> list[np.ndarray]:
    """Rows in about equal parts, no person in two."""
    cuts = (
        [int(np.searchsorted(owner[rows], owner[rows[len(rows) * at // parts]])) for at in range(1, parts)]
        if len(rows)
        else []
    )
    return [part for part in np.split(rows, cuts) if len(part)]


def _written(times: np.ndarray) -> pa.Array:
    return pa.array(times.astype("datetime64[s]")).cast(pa.string())


def _csv(path: Path, columns: dict[str, np.ndarray | pa.Array], packed: bool) -> None:
    table = pa.table({name: pa.array(values) for name, values in columns.items()})
    target = path.with_name(f"{path.name}.gz") if packed else path
    with pa.output_stream(target, compression="gzip" if packed else None) as stream:
        stream.write(",".join(table.column_names).encode() + b"\n")
        pa_csv.write_csv(table, stream, pa_csv.WriteOptions(include_header=False, quoting_style="none"))


def main(
    shape: Annotated[str, typer.Argument(help="mimic4 or meds")],
    out: Annotated[Path, typer.Argument(help="A folder to write to.")],
    patients: Annotated[int, typer.Option(min=1)] = 1_000,
    admissions: Annotated[int, typer.Option(min=1)] = 1_500,
    diagnoses: Annotated[int, typer.Option(min=1)] = 17_500,
    seed: Annotated[int, typer.Option(min=0)] = 1,
    packed: Annotated[bool, typer.Option(help="Gzip the CSV files.")] = True,
) -> None:
    """Write invented tables of the sizes asked for."""
    try:
        if shape not in SHAPES:
            raise InputError(f"there is no shape {shape!r}; there are {' and '.join(SHAPES)}.")
        refuse_sizes(patients, admissions, diagnoses)
        out.mkdir(parents=True, exist_ok=True)  # before anything is drawn, which takes minutes
        tables = invent(patients, admissions, diagnoses, seed)
        if shape == "mimic4":
            write_mimic4(tables, out, packed)
        else:
            write_meds(tables, out)
    except OSError as error:
        print(f"{out} can't be written: {error.strerror or error}.", file=sys.stderr)
        raise typer.Exit(2) from error
    except InputError as error:
        print(error, file=sys.stderr)
        raise typer.Exit(2) from error
    print(
        f"{out}: {patients:,} invented patients, {admissions:,} admissions, {diagnoses:,} diagnoses in the shape of {shape}"
    )


if __name__ == "__main__":
    typer.run(main)
