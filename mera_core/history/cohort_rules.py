"""Who belongs to an experiment: cohort rules as configuration, applied step by step, each step's count kept.

Knows cohorts as columns and the code sets; reads no file and trains nothing. The published rules are those of docs/method.md's
paper mode, in the order in which the public code of the field applies them; the honest rules keep everyone who can be used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from mera_core.common.errors import InputError
from mera_core.common.formatting import records_counted
from mera_core.history.columns import VisitColumns
from mera_core.icd.ontology import SYSTEM_NAMES, SYSTEMS, Code, Ontology

PUBLISHED_SEED = 6669


@dataclass(frozen=True)
class CohortRules:
    """Steps in the order in which they are taken; a step that is None, 0 or False is not."""

    name: str
    after_year: int | None = None
    """Keep visits whose earliest possible calendar year (the visit's word 'year') is later than this."""
    min_visits: int = 0
    """Keep patients with at least so many visits."""
    system: str | None = None
    """Translate every code into this system by the general equivalence maps."""
    translation: Literal["last", "first", "all"] = "last"
    """Of several targets the last that the map lists, as a dictionary read from it has it (so published), the first, or all.

    Targets that are one part of a combination of codes are passed over where there are others; see `targets_of`."""
    append_one: bool = False
    """Look a code that the map lacks up with a 1 behind it, as published: a guess, so that the honest rules don't."""
    drop_patients_with_empty_visit: bool = False
    """Leave out a patient with any visit without codes, as published."""
    drop_empty_visits: bool = False
    """Leave out visits without codes, and then patients with fewer than `min_visits` left."""
    sample: int | None = None
    """Draw so many patients; all where there are fewer."""
    seed: int = PUBLISHED_SEED
    """Of the draw."""

    def __post_init__(self) -> None:
        if self.drop_patients_with_empty_visit and self.drop_empty_visits:
            raise InputError(f"cohort rules {self.name!r}: an empty visit can't cost both itself and its patient.")
        if self.system is not None and self.system not in SYSTEMS:
            raise InputError(f"cohort rules {self.name!r}: there is no code system {self.system!r}.")
        if self.translation not in ("last", "first", "all"):
            raise InputError(
                f"cohort rules {self.name!r}: translation is 'last', 'first' or 'all', not {self.translation!r}."
            )
        if self.min_visits < 0 or (self.sample is not None and self.sample < 1):
            raise InputError(f"cohort rules {self.name!r}: min_visits and sample can't be negative, nor sample 0.")


PAPER_MIMIC3 = CohortRules("paper-mimic3", min_visits=2, drop_patients_with_empty_visit=True)
PAPER_MIMIC4 = CohortRules(
    "paper-mimic4",
    after_year=2012,
    min_visits=2,
    system="ICD9",
    append_one=True,
    drop_patients_with_empty_visit=True,
    sample=10_000,
)
HONEST = CohortRules("honest", min_visits=2, drop_empty_visits=True)
HONEST_ICD9, HONEST_ICD10 = (
    replace(HONEST, name=f"honest-{system.lower()}", system=system, translation="first") for system in ("ICD9", "ICD10")
)
"""The same in the codes of one system, for a checkpoint that has memorized only that."""
RULES = {rules.name: rules for rules in (HONEST, HONEST_ICD9, HONEST_ICD10, PAPER_MIMIC3, PAPER_MIMIC4)}


@dataclass(frozen=True)
class Step:
    """What one step left, and what it took away."""

    what: str
    patients: int
    visits: int
    codes: int
    patients_out: int = 0
    visits_out: int = 0
    codes_out: int = 0
    note: str = ""


@dataclass
class Flow:
    """The steps that led to a cohort, first that of the source."""

    rules: CohortRules
    steps: list[Step] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: the rules and their steps."""
        return {"rules": vars(self.rules), "steps": [vars(step) for step in self.steps]}

    def lines(self) -> list[str]:
        """The flow chart of exclusions in text."""
        lines = [f"cohort rules: {self.rules.name}"]
        for number, step in enumerate(self.steps):
            if number:
                out = records_counted(step.patients_out, step.visits_out, step.codes_out)
                lines += [
                    f"   │   {step.what}",
                    f"   ├──▶ left out: {out}" + (f" ({step.note})" if step.note else ""),
                    "   ▼",
                ]
            left = records_counted(step.patients, step.visits, step.codes)
            lines.append(f"[ {left} ]" if number else f"[ {step.what}: {left} ]")
        return lines


def apply(columns: VisitColumns, rules: CohortRules, ontology: Ontology | None = None) -> tuple[VisitColumns, Flow]:
    """The cohort that the rules leave, and the count of every step.

    Raises InputError when a rule needs a fact that the cohort doesn't have.
    """
    flow = Flow(rules, [Step("as read", *_sizes(columns))])
    for what, change in _steps(rules, ontology):
        changed = change(columns)
        after, note = changed if isinstance(changed, tuple) else (changed, "")
        left = _sizes(after)
        patients, visits, codes = (before - now for before, now in zip(_sizes(columns), left, strict=True))
        flow.steps.append(Step(what, *left, patients, visits, codes, note))
        columns = after
    return columns, flow


def _sizes(columns: VisitColumns) -> tuple[int, int, int]:
    """Patients, visits, codes."""
    return len(columns.ids), len(columns.person), len(columns.code)


def _steps(
    rules: CohortRules, ontology: Ontology | None
) -> Iterator[tuple[str, Callable[[VisitColumns], VisitColumns | tuple[VisitColumns, str]]]]:
    """What each step keeps, in words and as a change of the cohort."""
    if rules.after_year is not None:
        yield f"visits after {rules.after_year}", lambda c: c.keep_visits(_years(c) > rules.after_year)
    if rules.min_visits > 1:
        yield f"patients with at least {rules.min_visits} visits", lambda c: _with_visits(c, rules.min_visits)
    if rules.system is not None:
        what = f"codes in terms of {SYSTEM_NAMES[rules.system]}"
        yield what, lambda c: _translated(c, rules, ontology or Ontology.load())
    if rules.drop_patients_with_empty_visit:
        yield "patients all of whose visits have codes", _without_empty
    if rules.drop_empty_visits:
        yield "visits with codes", lambda c: c.keep_visits(c.codes_a_visit > 0)
        if rules.min_visits > 1:
            yield f"patients with at least {rules.min_visits} visits left", lambda c: _with_visits(c, rules.min_visits)
    if rules.sample is not None:
        what = f"{rules.sample:,} patients drawn with seed {rules.seed}"
        yield what, lambda c: _sampled(c, rules.sample, rules.seed)


def _years(columns: VisitColumns) -> np.ndarray:
    """The earliest calendar year of each visit; NaN, which is after no year, where unknown."""
    if "year" not in columns.visit_words:
        raise InputError(
            "these cohort rules ask for the calendar year of each visit ('visit.year'), which this source doesn't tell."
        )
    return np.array([float(year) if year else np.nan for year in columns.visit_words["year"].to_pylist()], float)


def _with_visits(columns: VisitColumns, least: int) -> VisitColumns:
    return columns.keep_people(columns.visits_a_person >= least)


def _without_empty(columns: VisitColumns) -> VisitColumns:
    empty = columns.codes_a_visit == 0
    return columns.keep_people(np.bincount(columns.person, weights=empty, minlength=len(columns.ids)) == 0)


def _translated(columns: VisitColumns, rules: CohortRules, ontology: Ontology) -> tuple[VisitColumns, str]:
    targets = [targets_of(code, rules.system, rules.translation, ontology, rules.append_one) for code in columns.codes]
    foreign = np.array([code.system != rules.system for code in columns.codes], bool)
    unmapped = np.array([not each for each in targets], bool)
    times = np.bincount(columns.code, minlength=len(targets)) if len(targets) else np.zeros(0, int)
    note = (
        f"{int(times[foreign & ~unmapped].sum()):,} codes translated, {int(times[unmapped].sum()):,} without a target"
    )
    return columns.with_codes(targets), note


def targets_of(
    code: Code, system: str, translation: str, ontology: Ontology, append_one: bool = False
) -> tuple[Code, ...]:
    """What a code is called in another system; () where the map has nothing.

    append_one: look a code that the map lacks up with a 1 behind it, as the public code of the field does. 'first' and
    'last' take one target, of those that are no part of a combination where there are any.
    """
    if code.system == system:
        return (code,)
    longer = f"{code.code}1" if "." in code.code else f"{code.code}.1"
    for written in (code.code, longer) if append_one else (code.code,):
        rows = ontology.maps_to(Code(code.system, written), system)
        if rows:
            break
    found = [row for row in rows if row.target is not None and row.target in ontology]
    if translation != "all":
        found = [row for row in found if not row.combination] or found
        found = found[:1] if translation == "first" else found[-1:]
    return tuple(dict.fromkeys(row.target for row in found))


def _sampled(columns: VisitColumns, size: int, seed: int) -> VisitColumns:
    if size >= len(columns.ids):
        return columns
    return columns.take_people(np.random.RandomState(seed).choice(len(columns.ids), size, replace=False))


@dataclass(frozen=True)
class PublishedSplit:
    """Sizes of the published split; the rest of the patients is for validation."""

    train: int
    test: int
    seed: int = PUBLISHED_SEED


SPLIT_MIMIC3 = PublishedSplit(train=6_000, test=1_000)
SPLIT_MIMIC4 = PublishedSplit(train=8_000, test=1_000)
PUBLISHED = {"mimic3": (PAPER_MIMIC3, SPLIT_MIMIC3), "mimic4": (PAPER_MIMIC4, SPLIT_MIMIC4)}
PUBLISHED_RULE = (
    f"the paper's: first patient of each code and the longest history in train, rest shuffled, seed {PUBLISHED_SEED}"
)


def published(columns: VisitColumns, format: str) -> tuple[VisitColumns, Flow, dict[str, list[str]]]:
    """docs/method.md's paper mode for the records of a format: the cohort that is left, its steps, and ids by part.

    Raises InputError for records of which the paper reports no split, and where too few patients are left for it.
    """
    if format not in PUBLISHED:
        raise InputError(f"The paper splits {' and '.join(PUBLISHED)} records; it has no split of {format} records.")
    rules, split = PUBLISHED[format]
    kept, flow = apply(columns, rules)
    return kept, flow, published_split(kept, split)


def published_split(columns: VisitColumns, split: PublishedSplit) -> dict[str, list[str]]:
    """Patient ids by part, as docs/method.md's paper mode has it.

    For each code the first patient that has it goes to train, then the patient with most visits; the rest is shuffled and
    fills train, then validation, then test. Where ids are whole numbers the shuffle starts from the order in which the
    public code holds them (that of a set of these numbers), so that it deals the same patients; else from sorted ids.
    Raises InputError when there are too few patients for the sizes.
    """
    patients = len(columns.ids)
    if not patients:
        raise InputError(f"the published split needs {split.train + split.test:,} patients; there are none.")
    owner = columns.person[columns.visit]
    first = np.full(len(columns.codes), patients, np.int64)
    np.minimum.at(first, columns.code, owner)
    forced = set(first[first < patients].tolist()) | {int(np.argmax(columns.visits_a_person))}
    if split.train + split.test > patients or len(forced) > split.train:
        raise InputError(
            f"the published split needs {split.train + split.test:,} patients, of whom at most {split.train:,} are the first "
            f"with some code; there are {patients:,}, of whom {len(forced):,} are."
        )
    names = columns.ids
    numbers = {int(name): name for name in names if name.isdecimal()}
    if len(numbers) == patients:
        rest = [numbers[number] for number in set(numbers).difference({int(names[row]) for row in forced})]
    else:
        rest = sorted(name for row, name in enumerate(names) if row not in forced)
    shuffled = np.arange(len(rest))
    np.random.RandomState(split.seed).shuffle(shuffled)
    dealt = [rest[row] for row in shuffled.tolist()]
    more = split.train - len(forced)
    validation = patients - split.train - split.test
    return {
        "train": [names[row] for row in sorted(forced)] + dealt[:more],
        "validation": dealt[more : more + validation],
        "test": dealt[more + validation :],
    }


def named(name: str, **changes: Any) -> CohortRules:
    """The rules of that name, with settings changed; InputError for an unknown name."""
    if name not in RULES:
        raise InputError(f"there are no cohort rules {name!r}; there are {', '.join(RULES)}.")
    return replace(RULES[name], **changes)
