"""People, visits and diagnosis entries as a reader found them -> a cohort, every entry accounted for.

Knows the ICD code set and no source format. Works on whole columns: a code text is read once however often it is met, so
that millions of entries cost seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

from mera_core.common.errors import InputError
from mera_core.history.columns import VisitColumns, words
from mera_core.history.patient import in_utc
from mera_core.icd.ontology import CATEGORY, SYSTEMS, Code, Ontology
from mera_core.readers.common.base import Cohort, ImportReport

NO_CODE = "no code recorded"
UNKNOWN = "code not in the ICD code set"
AMBIGUOUS = "code in both systems, and no system given"
HEADING = "chapter or block, which is no diagnosis"
OTHER_SYSTEM = "code names another system than its entry"
REPEATED = "row is repeated"
TWICE = "named twice in one visit"
AFTER_DEATH = "visits begin after the day of their patient's death, and are kept"
OVERLAPPING = "visits begin before an earlier one of their patient ended, and are kept"
Column: TypeAlias = Sequence[Any] | np.ndarray | pa.Array | pa.ChunkedArray
_LAST = np.iinfo(np.int32).max  # the position of an entry whose position is not recorded


@dataclass
class People:
    """n people: id (text, each once), sex 'F' | 'M' | 'U', further words (text or null), age in years, time of death.

    age is for sources that know it but not at which visit; elsewhere it is that at the last visit.
    """

    id: Column
    sex: Column
    words: Mapping[str, Column] = field(default_factory=dict)
    age: Column | None = None
    death: Column | None = None


@dataclass
class Visits:
    """m visits in any order: index into the people, time of beginning, tie-break, age in years, words, time of end.

    order: numbers or texts that settle the order of visits of one time; None: as they come.
    order_is_guess: the source has no times, and `order` is a proxy. by_order: `order` settles it alone, whatever the times.
    """

    person: Column
    time: Column | None = None
    order: Column | None = None
    age: Column | None = None
    words: Mapping[str, Column] = field(default_factory=dict)
    order_is_guess: bool = False
    by_order: bool = False
    end: Column | None = None


@dataclass
class Entries:
    """k diagnosis entries in any order: index into the visits, code as written, its system, its rank.

    system: 'ICD9', 'ICD10' or None, one for each entry or one for all. position: whole numbers, None where unknown.
    """

    visit: Column
    text: Column
    system: Column | str | None = None
    position: Column | None = None


def assemble(
    report: ImportReport,
    people: People,
    visits: Visits,
    entries: Entries,
    ontology: Ontology | None = None,
    **rules: Any,
) -> Cohort:
    """The cohort of three sets of columns.

    Codes are read by `Ontology.diagnoses` (with `rules`), each text once; what can't be read, and what a visit names twice,
    is left out with its reason; what is read otherwise than written is counted. Visits come in order of time, then `order`;
    those without codes stay. People without visits are set aside. The report's rows must hold the entries given here and
    those that the reader left out itself.
    """
    person, time = _whole(visits.person), _times(visits.time, len(visits.person))
    by_time = _order(person, np.full_like(time, "NaT") if visits.by_order else time, visits.order)
    person, time = person[by_time], time[by_time]
    _count_contradictions(report, person, time, _times(visits.end, len(time))[by_time], people)
    place = np.argsort(by_time)
    if not visits.by_order:
        report.guessed_order += _guessed(person, time, visits.order_is_guess)
    codes, book = _codes(report, entries, ontology or Ontology.load(), rules)
    visit, code, position = _within_visits(report, place[_whole(entries.visit)], codes, entries.position)
    ages = _years(visits.age, len(person))[by_time]
    columns = VisitColumns(
        ids=_texts(people.id),
        sex=words(people.sex),
        age=_years(people.age, len(people.id)),
        person=person.astype(np.int32),
        time=time,
        visit_age=ages,
        visit=visit.astype(np.int32),
        code=code.astype(np.int32),
        position=position.astype(np.int32),
        codes=tuple(book),
        person_words={name: words(values) for name, values in people.words.items()},
        visit_words={name: words(values).take(pa.array(by_time)) for name, values in visits.words.items()},
    )
    have_visits = columns.visits_a_person > 0
    report.set_aside("patients without a visit", int((~have_visits).sum()))
    columns = columns if have_visits.all() else columns.keep_people(have_visits)
    if people.age is None:
        columns = columns.with_last_ages()
    report.set_aside("visits kept without any code", int((columns.codes_a_visit == 0).sum()))
    report.count(columns)
    _remark_mixed(report, columns)
    if report.rows != report.codes + report.left_out.total():
        raise AssertionError(f"{report.format}: {report.rows} entries, {report.codes} kept, {report.left_out} left out")
    return Cohort.of(columns, report)


def _codes(
    report: ImportReport, entries: Entries, ontology: Ontology, rules: dict[str, Any]
) -> tuple[np.ndarray, list[Code]]:
    """For each entry its row in the book of codes, -1 where it is left out (and counted)."""
    texts = words(entries.text)
    names = texts.dictionary.to_pylist()
    text = texts.indices.fill_null(len(names)).to_numpy(zero_copy_only=False).astype(np.int64)
    systems, system = _systems(entries.system, len(text))
    key = text * len(systems) + system
    counts = np.bincount(key, minlength=(len(names) + 1) * len(systems))
    outcome = np.full(len(counts), -1, np.int64)
    book: dict[Code, int] = {}
    for each in np.flatnonzero(counts).tolist():
        row, within = divmod(each, len(systems))
        written = names[row].strip() if row < len(names) else ""
        code, how = _read(written, systems[within], ontology, rules)
        if code is not None:
            outcome[each] = book.setdefault(code, len(book))
            if how:
                report.read_otherwise[how] += int(counts[each])
        else:
            report.leave_out(how, int(counts[each]))
            if written:
                report.unknown_codes[written] += int(counts[each])
    return outcome[key], list(book)


def _read(written: str, system: str | None, ontology: Ontology, rules: dict[str, Any]) -> tuple[Code | None, str]:
    """The code, and how it was read otherwise than written; or None, and why."""
    if not written:
        return None, NO_CODE
    try:
        found = ontology.diagnoses(written, system, **rules)
    except InputError:
        return None, OTHER_SYSTEM
    if len(found) != 1:
        return None, AMBIGUOUS if found else UNKNOWN
    if ontology.level(found[0].code) < CATEGORY:
        return None, HEADING
    return found[0].code, found[0].how


def _systems(given: Column | str | None, size: int) -> tuple[list[str | None], np.ndarray]:
    """The distinct systems, and for each entry its index among them."""
    if given is None or isinstance(given, str):
        return [given], np.zeros(size, np.int64)
    column = words(given)
    names = column.dictionary.to_pylist()
    for name in names:
        if name and name not in SYSTEMS:
            raise AssertionError(f"a reader gave the code system {name!r}")
    indices = column.indices.fill_null(len(names)).to_numpy(zero_copy_only=False).astype(np.int64)
    return [*(name or None for name in names), None], indices


def _within_visits(
    report: ImportReport, visit: np.ndarray, code: np.ndarray, given: Column | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(visit, code, position) of the entries kept, in order, each code once a visit."""
    known = np.zeros(len(visit), bool) if given is None else ~_missing(given)
    position = np.full(len(visit), _LAST, np.int64) if given is not None else _as_they_come(visit)
    if given is not None:
        position[known] = _whole(given, known)
    read = code >= 0
    visit, code, position, known = visit[read], code[read], position[read], known[read]
    order = _sorted_by(visit, position)
    visit, code, position, known = visit[order], code[order], position[order], known[order]
    # The first of each (visit, code) stays; a further one is the same row again, or another rank of the same code.
    by_code = _sorted_by(visit, code)
    again = np.zeros(len(visit), bool)
    same = (visit[by_code][1:] == visit[by_code][:-1]) & (code[by_code][1:] == code[by_code][:-1])
    again[by_code[1:][same]] = True
    level = same & (position[by_code][1:] == position[by_code][:-1]) & known[by_code][1:]
    report.leave_out(REPEATED, int(level.sum()))
    report.leave_out(TWICE, int(same.sum() - level.sum()))
    kept = ~again
    visit, code, position, known = visit[kept], code[kept], position[kept], known[kept]
    return visit, code, position if given is None else _filled(visit, position, known)


def _as_they_come(visit: np.ndarray) -> np.ndarray:
    """1, 2, 3 ... within each visit, in the order of the entries."""
    order = np.argsort(visit, kind="stable")
    return np.argsort(order) - np.searchsorted(visit[order], visit) + 1


def _filled(visit: np.ndarray, position: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Entries without a rank stand after those with one, and go on counting from the last."""
    if known.all() or not len(visit):
        return position
    starts = np.flatnonzero(np.r_[True, visit[1:] != visit[:-1]])
    start = np.repeat(starts, np.diff(np.r_[starts, len(visit)]))
    ranked = np.add.reduceat(known.astype(np.int64), starts).repeat(np.diff(np.r_[starts, len(visit)]))
    last = np.where(ranked > 0, position[start + np.maximum(ranked - 1, 0)], 0)
    return np.where(known, position, np.minimum(last + np.arange(len(visit)) - start - ranked + 1, _LAST))


def _sorted_by(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """A stable order by two columns of numbers below 2^31, the second of which may be negative."""
    return np.argsort((first.astype(np.int64) << 32) + second, kind="stable")


def _order(person: np.ndarray, time: np.ndarray, order: Column | None) -> np.ndarray:
    late = np.where(np.isnat(time), np.iinfo(np.int64).max, time.astype(np.int64))
    if order is None:
        return np.lexsort((late, person))
    if isinstance(order, (pa.Array, pa.ChunkedArray)):
        order = order.to_pylist()
    return np.lexsort((np.unique(np.asarray(order), return_inverse=True)[1], late, person))


def _count_contradictions(
    report: ImportReport, person: np.ndarray, begun: np.ndarray, ended: np.ndarray, people: People
) -> None:
    """Count visits after a death, and those that overlap: what is kept as it is recorded, and may be a fault of the source."""
    death = _times(people.death, len(people.id)).astype("datetime64[D]")
    report.set_aside(AFTER_DEATH, int((begun.astype("datetime64[D]") > death[person]).sum()) if len(death) else 0)
    if np.isnat(ended).all():
        return
    told = np.flatnonzero(~np.isnat(begun))
    told = told[np.lexsort((begun[told], person[told]))]
    person, begun, ended = person[told], begun[told], np.fmax(ended[told], begun[told])
    moments, rank = np.unique(np.concatenate([begun, ended]), return_inverse=True)
    begin, end = person * len(moments) + rank[: len(begun)], person * len(moments) + rank[len(begun) :]
    report.set_aside(OVERLAPPING, int((begin[1:] < np.maximum.accumulate(end)[:-1]).sum()))


def _guessed(person: np.ndarray, time: np.ndarray, all_guessed: bool) -> int:
    """Visits of people with several whose order the times don't settle (same or missing time)."""
    if len(person) < 2:
        return 0
    neighbours = person[1:] == person[:-1]
    if not all_guessed:
        neighbours &= (time[1:] == time[:-1]) | np.isnat(time[1:])
    return int((np.r_[neighbours, False] | np.r_[False, neighbours]).sum())


def _remark_mixed(report: ImportReport, columns: VisitColumns) -> None:
    newer = np.array([getattr(code, "system", "") == "ICD10" for code in columns.codes], bool)
    if len(columns.code) and newer.any() and not newer.all():
        of_newer = np.bincount(columns.visit, weights=newer[columns.code], minlength=len(columns.person))
        mixed = int(((of_newer > 0) & (of_newer < columns.codes_a_visit)).sum())
        if mixed:
            report.remarks.append(
                f"{mixed:,} visits hold codes of ICD-9-CM and of ICD-10-CM; each keeps its own system"
            )


def _missing(values: Column) -> np.ndarray:
    if isinstance(values, (pa.Array, pa.ChunkedArray)):
        return np.asarray(values.is_null())
    if isinstance(values, np.ndarray):
        return np.zeros(len(values), bool)
    return np.array([value is None for value in values], bool)


def _whole(values: Column, known: np.ndarray | None = None) -> np.ndarray:
    """Whole numbers as int64; of those that `known` names where it is given."""
    if isinstance(values, (pa.Array, pa.ChunkedArray)):
        values = values.to_numpy(zero_copy_only=False) if isinstance(values, pa.Array) else values.to_numpy()
    elif not isinstance(values, np.ndarray):
        values = np.array([0 if value is None else value for value in values], dtype=np.int64)
    return (values if known is None else values[known]).astype(np.int64)


def _years(values: Column | None, size: int) -> np.ndarray:
    if values is None:
        return np.full(size, np.nan)
    if isinstance(values, (pa.Array, pa.ChunkedArray)):
        values = values.to_numpy(zero_copy_only=False) if isinstance(values, pa.Array) else values.to_numpy()
    return np.array(values, dtype=float)  # None becomes NaN


def _times(values: Column | None, size: int) -> np.ndarray:
    if values is None:
        return np.full(size, np.datetime64("NaT", "us"))
    if isinstance(values, np.ndarray):
        return values.astype("datetime64[us]")
    if isinstance(values, (pa.Array, pa.ChunkedArray)):
        return np.asarray(values.cast(pa.timestamp("us"))).astype("datetime64[us]")
    return np.array([value and in_utc(value) for value in values], dtype="datetime64[us]")


def _texts(values: Column) -> list[str]:
    if isinstance(values, (pa.Array, pa.ChunkedArray)):
        values = values.to_pylist()
    return [str(value) for value in values]
