"""CMS DE-SynPUF: claims of invented Medicare patients, 2008 to 2010, ICD-9-CM only; a folder of samples or one claims file.

A claim is a visit: its admission date (inpatient) or first date orders it. A claim may go on in a second segment, which
has codes and no dates of its own; it is left out and counted. The beneficiary summaries give birth, sex and race.
Diagnoses are the columns ICD9_DGNS_CD_1 and on; the admitting diagnosis, a guess made at the door, is not read.
"""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa

from mera_core.common.errors import InputError
from mera_core.history.columns import words
from mera_core.icd.ontology import Ontology
from mera_core.readers.common.assemble import NO_CODE, REPEATED, Entries, People, Visits, assemble
from mera_core.readers.common.base import Cohort, ImportReport, Source
from mera_core.readers.common.delimited import Delimited, read_delimited
from mera_core.readers.common.keyed import is_empty, remark_backwards, replaced, rows_at, taken_rows, times, years

FORMAT = "synpuf"
KINDS = ("inpatient", "outpatient", "carrier")
_KEYS = ("desynpuf_id", "clm_id", "clm_from_dt")
_DIAGNOSES = tuple(f"icd9_dgns_cd_{number}" for number in range(1, 11))
_OPTIONAL = ("segment", "clm_admsn_dt", "clm_thru_dt", "clm_utlztn_day_cnt", *_DIAGNOSES)
_PERSON = ("bene_sex_ident_cd", "bene_race_cd", "bene_death_dt")
_NAME = re.compile(r"(inpatient|outpatient|carrier)_claims?|beneficiary_summary")
_SAMPLE = "de1_0_"  # how the names of CMS begin
_SEX = {"1": "M", "2": "F"}
_RACE = {"1": "white", "2": "black", "3": "other", "5": "hispanic"}


def detect(source: Source) -> str | None:
    """The reason to take the source for this format, or None."""
    claims, _ = _files(source)
    if claims:
        return "it has claims with the columns DESYNPUF_ID, CLM_ID and ICD9_DGNS_CD_1"
    return None


def expects(source: Source) -> str | None:
    """Why a source that can't be recognised is meant for this format: a file is called as the samples are."""
    return "its files are called as DE-SynPUF's are" if any(_called_so(name) for name in source.files) else None


def _called_so(name: str) -> re.Match | None:
    return _NAME.search(name) if name.startswith(_SAMPLE) else None


def read(source: Source, report: ImportReport, ontology: Ontology | None = None, claims: str = "") -> Cohort:
    """Read the claims of every sample in the folder.

    claims: which kinds, with commas between; as it stands the inpatient ones, or all where there are none of these.

    Every diagnosis cell that holds something is counted: kept, or left out with its reason; a claim without any counts
    as one entry without code. Raises InputError naming file, line and column.
    """
    found, beneficiaries = _files(source, strict=True)
    kinds = {kind for kind, _ in found}
    usual = "inpatient" if "inpatient" in kinds else ",".join(KINDS)
    asked = tuple(name.strip().lower() for name in (claims or usual).split(","))
    for name in asked:
        if name not in KINDS:
            raise InputError(f"claims must be of {', '.join(KINDS)}, not {name!r}.")
    wanted = [(kind, part) for kind, part in found if kind in asked or source.path.is_file()]
    if not wanted:
        raise InputError(f"{source.path} has no {' or '.join(asked)} claims of DE-SynPUF.")
    beside = sorted(kinds - set(asked))
    if beside and source.path.is_dir():
        report.remarks.append(f"claims that are there and were not asked for: {', '.join(beside)}")
    tables = [_distinct(read_delimited(part, (*_KEYS, _DIAGNOSES[0]), _OPTIONAL, report), report) for _, part in wanted]
    people = _People(report)
    for part in beneficiaries:
        people.add(read_delimited(part, ("desynpuf_id", "bene_birth_dt"), _PERSON, report))
    stays = [_claims(table, people, report) for table in tables]
    return _cohort(stays, people, report, ontology)


def _files(source: Source, strict: bool = False) -> tuple[list[tuple[str, Source]], list[Source]]:
    """(kind, file) of the claims, and the beneficiary summaries; told by columns, and the kind by the name.

    strict: also files that are called so and whose columns are not.
    """
    claims, beneficiaries = [], []
    paths = (
        [source.path]
        if source.path.is_file()
        else [path for name, path in sorted(source.files.items()) if name.endswith(".csv")]
    )
    for path in paths:
        part = source.within(path)
        columns = set(part.header)
        if {"desynpuf_id", "clm_id", "icd9_dgns_cd_1"} <= columns:
            match = _NAME.search(path.name.lower())
            kind = match[1] if match and match[1] else "inpatient" if "clm_admsn_dt" in columns else "outpatient"
            claims.append((kind, part))
        elif {"desynpuf_id", "bene_birth_dt"} <= columns:
            beneficiaries.append(part)
        elif strict and (match := _called_so(path.name.lower())):
            # One that is damaged is not passed over: the reading names what is wrong with it.
            if match[1]:
                claims.append((match[1], part))
            else:
                beneficiaries.append(part)
    return claims, beneficiaries


def _distinct(table: Delimited, report: ImportReport) -> Delimited:
    """The claims, each once: a row that is wholly the same as one before it is no second visit."""
    numbers = np.stack([rows_at(column) for column in table.columns.values()], axis=1)
    _, first = np.unique(numbers, axis=0, return_index=True)
    if len(first) == len(table):
        return table
    again = np.ones(len(table), bool)
    again[first] = False
    entries = int(_entries_a_row(table)[again].sum())
    report.rows += entries
    report.leave_out(REPEATED, entries)
    report.set_aside("repeated rows of claims", int(again.sum()))
    return taken_rows(table, np.sort(first))


def _entries_a_row(table: Delimited) -> np.ndarray:
    """Diagnosis cells that hold something; a claim without any counts as one entry without code."""
    told = [~is_empty(table[name]) for name in _DIAGNOSES if name in table]
    return np.maximum(np.sum(told, axis=0), 1)


class _People:
    """Everyone named by a claim, in that order, and what the summaries of any year say of them."""

    def __init__(self, report: ImportReport) -> None:
        self.row: dict[str, int] = {}
        self.told: dict[str, tuple[np.datetime64, str, str]] = {}
        self.died: dict[str, np.datetime64] = {}
        self.report = report

    def add(self, table: Delimited) -> None:
        ids = table["desynpuf_id"].to_pylist()
        sexes = replaced(table.get("bene_sex_ident_cd"), _SEX.get).to_pylist()
        races = replaced(table.get("bene_race_cd"), _RACE.get).to_pylist()
        for identity, birth, sex, race in zip(ids, times(table, "bene_birth_dt"), sexes, races, strict=True):
            self.told.setdefault(identity, (birth, sex or "U", race or ""))
        died = times(table, "bene_death_dt")
        self.died |= {ids[row]: died[row] for row in np.flatnonzero(~np.isnat(died)).tolist()}

    def rows(self, ids: pa.DictionaryArray) -> np.ndarray:
        distinct = [self.row.setdefault(identity, len(self.row)) for identity in ids.dictionary.to_pylist()]
        return np.array(distinct, np.int64)[rows_at(ids)]


def _claims(table: Delimited, people: _People, report: ImportReport) -> dict[str, np.ndarray | list]:
    """Visits and entries of one file."""
    ids = table["desynpuf_id"]
    if is_empty(ids).any():
        raise table.fault(int(np.argmax(is_empty(ids))), "desynpuf_id", "there is no patient")
    segment = table.get("segment")
    first = np.isin(rows_at(segment), [i for i, text in enumerate(segment.dictionary.to_pylist()) if text in ("", "1")])
    admitted, began = times(table, "clm_admsn_dt"), times(table, "clm_from_dt")
    began = np.where(np.isnat(admitted), began, admitted)
    births = np.array([people.told.get(name, (np.datetime64("NaT", "us"),))[0] for name in ids.dictionary.to_pylist()])
    age = years(births.astype("datetime64[us]")[rows_at(ids)], began)
    faults = {"wrong segment": ~first, "no date": np.isnat(began), "visit before birth": age < 0}
    cells = [name for name in _DIAGNOSES if name in table]
    told = np.stack([~is_empty(table[name]) for name in cells])
    size = _entries_a_row(table)
    report.rows += int(size.sum())
    sound = np.ones(len(table), bool)
    for reason, mask in faults.items():
        report.leave_out(reason, int(size[mask & sound].sum()))
        report.set_aside(f"claims: {reason}", int((mask & sound).sum()))
        sound &= ~mask
    report.leave_out(NO_CODE, int((sound & ~told.any(axis=0)).sum()))
    place = np.cumsum(sound) - 1
    visit, text, position = [], [], []
    for number, name in enumerate(cells, start=1):
        kept = told[number - 1] & sound
        visit.append(place[kept])
        text.append(table[name].filter(pa.array(kept)).cast(pa.string()))
        position.append(np.full(int(kept.sum()), number))
    mask = pa.array(sound)
    ended = times(table, "clm_thru_dt")
    remark_backwards(report, "claims", sound & (ended < began), table, "clm_thru_dt", rest="")
    return {
        "person": people.rows(ids.filter(mask)),
        "time": began[sound],
        "end": ended[sound],
        "age": np.round(age[sound], 2),
        "order": table["clm_id"].filter(mask).to_pylist(),
        "stay": replaced(table.get("clm_utlztn_day_cnt"), lambda days: days.lstrip("0") or days[:1])
        .filter(mask)
        .to_pylist(),
        "visit": np.concatenate(visit),
        "text": pa.chunked_array(text, pa.string()),
        "position": np.concatenate(position),
    }


def _cohort(stays: list[dict], people: _People, report: ImportReport, ontology: Ontology | None) -> Cohort:
    starts = np.cumsum([0, *(len(stay["person"]) for stay in stays)])
    names = list(people.row)
    unknown = sum(name not in people.told for name in names)
    if unknown:
        report.remarks.append(
            f"{unknown:,} patients with claims are in no beneficiary summary: age, sex and race unknown"
        )
    nothing = (None, "U", "")
    return assemble(
        report,
        People(
            names,
            [people.told.get(name, nothing)[1] for name in names],
            {"ethnicity": words([people.told.get(name, nothing)[2] for name in names])},
            death=np.array([people.died.get(name, "NaT") for name in names], "datetime64[us]"),
        ),
        Visits(
            np.concatenate([stay["person"] for stay in stays]),
            np.concatenate([stay["time"] for stay in stays]),
            [claim for stay in stays for claim in stay["order"]],
            np.concatenate([stay["age"] for stay in stays]),
            {"stay": [days for stay in stays for days in stay["stay"]]},
            end=np.concatenate([stay["end"] for stay in stays]),
        ),
        Entries(
            np.concatenate([stay["visit"] + start for stay, start in zip(stays, starts, strict=False)]),
            pa.chunked_array([chunk for stay in stays for chunk in stay["text"].chunks], pa.string()),
            "ICD9",
            np.concatenate([stay["position"] for stay in stays]),
        ),
        ontology,
    )
