"""Invented records of any size in the shape of MIMIC-IV or of MEDS, to test import and scale with.

    python -m training.tools.make_test_tables mimic4 OUT --patients 364000 --admissions 546000 --diagnoses 6400000

The shape is that of the real tables: columns, undotted codes with leading zeros, seq_num, a change from ICD-9 to ICD-10 in
October 2015 of the hidden calendar, most patients with one admission or none. The codes are drawn by chance, so nothing
can be learned from them; never measure accuracy on these tables.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv as pa_csv
import typer

from mera_core.common.errors import InputError
from mera_core.icd.ontology import Ontology

ADMITTED = 0.61  # share of MIMIC-IV's patients who have an admission
GROUPS = (2008, 2011, 2014, 2017, 2020)  # first years of anchor_year_group
ICD10_YEAR = 2015.75  # ICD-10-CM came into force in October 2015
_FIRST_SUBJECT, _FIRST_ADMISSION = 10_000_032, 20_000_019
CHOICES = {
    "admission_type": ("EW EMER.", "URGENT", "OBSERVATION ADMIT", "SURGICAL SAME DAY ADMISSION", "ELECTIVE"),
    "admission_location": ("EMERGENCY ROOM", "PHYSICIAN REFERRAL", "TRANSFER FROM HOSPITAL", "WALK-IN/SELF REFERRAL"),
    "discharge_location": ("HOME", "HOME HEALTH CARE", "SKILLED NURSING FACILITY", "REHAB", "DIED", ""),
    "insurance": ("Medicare", "Private", "Medicaid", "Other"),
    "race": ("WHITE", "BLACK/AFRICAN AMERICAN", "HISPANIC/LATINO - PUERTO RICAN", "ASIAN", "UNKNOWN"),
}
MIMIC4 = {
    "patients": "subject_id gender anchor_age anchor_year anchor_year_group dod",
    "admissions": "subject_id hadm_id admittime dischtime deathtime admission_type admission_location discharge_location "
    "insurance language marital_status race edregtime edouttime hospital_expire_flag",
    "diagnoses_icd": "subject_id hadm_id seq_num icd_code icd_version",
}
MEDS = pa.schema(
    {
        "subject_id": pa.int64(), "time": pa.timestamp("us"), "code": pa.string(), "numeric_value": pa.float32(),
        "hadm_id": pa.int64(), "race": pa.string(), "insurance": pa.string(),
    }
)  # fmt: skip


class Invented(NamedTuple):
    """Patients, admissions (by patient and time) and diagnoses (by admission and rank), with MIMIC-IV's columns."""

    patients: pd.DataFrame
    admissions: pd.DataFrame
    diagnoses_icd: pd.DataFrame


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
    began = began[np.lexsort((began, owner))]
    real = group[owner] + (began.astype("datetime64[D]").astype(float) / 365.2425 + 1970 - anchor_year[owner])
    stay, code, version = _diagnoses(draw, real >= ICD10_YEAR, diagnoses)
    people = pd.DataFrame(
        {
            "subject_id": subject,
            "gender": np.array(["F", "M"])[draw.integers(0, 2, patients)],
            "anchor_age": np.minimum(18 + draw.integers(0, 80, patients), 91),
            "anchor_year": anchor_year,
            "anchor_year_group": [f"{first} - {first + 2}" for first in group],
        }
    )
    stays = pd.DataFrame(
        {
            "subject_id": subject[owner],
            "hadm_id": _FIRST_ADMISSION + draw.permutation(admissions * 2)[:admissions],
            "admittime": began.astype("datetime64[s]"),
            "dischtime": (began + (draw.exponential(4.5, admissions) * 1440).astype(np.int64)).astype("datetime64[s]"),
        }
        | {name: np.array(texts)[draw.integers(0, len(texts), admissions)] for name, texts in CHOICES.items()}
    )
    stays["hospital_expire_flag"] = (stays["discharge_location"] == "DIED").astype(np.int8)
    entries = stays[["subject_id", "hadm_id"]].take(stay).reset_index(drop=True)
    entries["seq_num"] = np.arange(diagnoses) - np.searchsorted(stay, np.arange(admissions))[stay] + 1
    return Invented(people, stays, entries.assign(icd_code=code, icd_version=version))


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


def _diagnoses(draw: np.random.Generator, newer: np.ndarray, size: int) -> tuple:
    """(admission, code, ICD version) of each diagnosis, no code twice in an admission; `newer` admissions have ICD-10."""
    book = Ontology.load()
    texts = [[code.code.replace(".", "") for code in book.billable(system)] for system in ("ICD9", "ICD10")]
    orders = [draw.permutation(len(each)) for each in texts]  # which codes are the common ones is chance
    pairs = np.zeros(0, np.int64)
    while len(pairs) < size:
        missing = size - len(pairs)
        stay = draw.integers(0, len(newer), missing + missing // 20 + 1) if len(pairs) else np.arange(len(newer))
        commonness = draw.zipf(1.25, len(stay)) - 1
        code = np.where(
            newer[stay],
            orders[1][commonness % len(texts[1])] + len(texts[0]),
            orders[0][commonness % len(texts[0])],
        )
        pairs = np.concatenate([pairs, (stay.astype(np.int64) << 32) + code])
        _, first = np.unique(pairs, return_index=True)
        pairs = pairs[np.sort(first)][:size]
    pairs = pairs[np.argsort(pairs >> 32, kind="stable")]
    code = pairs & 0xFFFFFFFF
    return pairs >> 32, pd.array(texts[0] + texts[1], dtype="str").take(code), np.where(code < len(texts[0]), 9, 10)


def write_mimic4(tables: Invented, folder: Path, packed: bool = True) -> None:
    """Write hosp/patients, hosp/admissions and hosp/diagnoses_icd as MIMIC-IV 3 has them."""
    (folder / "hosp").mkdir(parents=True, exist_ok=True)
    for name, columns in MIMIC4.items():
        table = pa.Table.from_pandas(getattr(tables, name).reindex(columns=columns.split()), preserve_index=False)
        path = folder / "hosp" / f"{name}.csv{'.gz' if packed else ''}"
        with pa.output_stream(path, compression="gzip" if packed else None) as stream:
            stream.write(",".join(table.column_names).encode() + b"\n")
            pa_csv.write_csv(table, stream, pa_csv.WriteOptions(include_header=False, quoting_style="none"))


def write_meds(tables: Invented, folder: Path, shards: int = 4) -> None:
    """Write data/, metadata/ as MIMIC-IV's converter does: birth, sex, admission, diagnoses (at discharge) and discharge."""
    people, stays, entries = tables
    born = (people["anchor_year"] - people["anchor_age"] - 1970).to_numpy().astype("datetime64[Y]")
    began = "HOSPITAL_ADMISSION//" + stays["admission_type"] + "//" + stays["admission_location"]
    left = "HOSPITAL_DISCHARGE//" + stays["discharge_location"].replace("", "UNK")
    found = "DIAGNOSIS//ICD//" + entries["icd_version"].astype(str) + "//" + entries["icd_code"]
    key, of_stay = people[["subject_id"]], ["subject_id", "hadm_id"]
    ends = stays.set_index("hadm_id")["dischtime"].loc[entries["hadm_id"]].to_numpy()
    events = pd.concat(
        [
            key.assign(code="GENDER//" + people["gender"]),
            key.assign(code="MEDS_BIRTH", time=born.astype("datetime64[s]")),
            stays[[*of_stay, "race", "insurance"]].assign(code=began, time=stays["admittime"]),
            entries[of_stay].assign(code=found, time=ends),
            stays[of_stay].assign(code=left, time=stays["dischtime"]),
        ],
        keys=range(5),
        names=["kind", "row"],
    )
    events = events.sort_values(["subject_id", "time", "kind", "row"], na_position="first")
    events = events.reindex(columns=MEDS.names).astype({"hadm_id": "Int64"})
    place = np.arange(len(people)) % 10
    splits = key.assign(split=np.select([place < 8, place == 8], ["train", "tuning"], "held_out"))
    for split in ("train", "tuning", "held_out"):
        (folder / "data" / split).mkdir(parents=True, exist_ok=True)
        ids = splits["subject_id"][splits["split"] == split].to_numpy()
        for number, part in enumerate(np.array_split(ids, shards if split == "train" else 1)):
            path = folder / "data" / split / f"{number}.parquet"
            events[events["subject_id"].isin(part)].to_parquet(path, schema=MEDS, index=False)
    (folder / "metadata").mkdir(exist_ok=True)
    splits.to_parquet(folder / "metadata" / "subject_splits.parquet", index=False)
    codes = pd.DataFrame({"code": events["code"].unique(), "description": None, "parent_codes": None})
    schema = pa.schema({"code": pa.string(), "description": pa.string(), "parent_codes": pa.list_(pa.string())})
    codes.to_parquet(folder / "metadata" / "codes.parquet", schema=schema, index=False)
    about = {
        "dataset_name": "invented",
        "dataset_version": "1",
        "meds_version": "0.4.0",
        "etl_name": "make_test_tables",
    }
    (folder / "metadata" / "dataset.json").write_text(json.dumps(about, indent=2) + "\n")


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
        if shape not in ("mimic4", "meds"):
            raise InputError(f"there is no shape {shape!r}; there are mimic4 and meds.")
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
