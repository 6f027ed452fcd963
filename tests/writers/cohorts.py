"""Generated cohorts for the writers: anything that patients may be, and a small one to count by hand."""

from __future__ import annotations

from datetime import datetime

from hypothesis import strategies as st

from mera_core.history.records import VISITS_TABLE_COLUMNS, Patient, Visit
from mera_core.icd.ontology import Code
from mera_core.readers import Cohort, ImportReport

CODES = [
    Code("ICD9", "428.0"),
    Code("ICD9", "E802.1"),  # written E8021 without its dot, as is the next
    Code("ICD10", "E80.21"),
    Code("ICD9", "V30.00"),
    Code("ICD9", "008"),
    Code("ICD9", "420"),
    Code("ICD10", "I50.22"),
    Code("ICD10", "S72.001A"),
    Code("ICD10", "I10"),
]
text = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=8).filter(str.strip)
names = text.filter(lambda name: name not in VISITS_TABLE_COLUMNS and not name.startswith("visit."))
ids = st.integers(0, 10**12).map(str) | text
times = st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1))
ages = st.none() | st.floats(0, 120)


@st.composite
def visits(draw: st.DrawFn, time: datetime | None, written: st.SearchStrategy) -> Visit:
    codes = draw(st.lists(written, unique=True, max_size=4))
    positions = sorted(draw(st.lists(st.integers(-2, 99), min_size=len(codes), max_size=len(codes))))
    words = draw(st.dictionaries(names, text, max_size=2))
    if draw(st.booleans()):
        words["stay"] = str(draw(st.integers(0, 400)))
    return Visit(codes, time, draw(ages), words, positions)


@st.composite
def patients(draw: st.DrawFn, identity: str, written: st.SearchStrategy = st.sampled_from(CODES)) -> Patient:
    """Dates never fall, and any of them may be missing. written: draws a code."""
    dates = sorted(draw(st.lists(times, min_size=1, max_size=4)))
    known = [time if draw(st.integers(0, 3)) else None for time in dates]
    stays = tuple(draw(visits(time, written)) for time in known)
    last = stays[-1].age
    return Patient(
        stays,
        sex=draw(st.sampled_from("FMU")),
        age=draw(ages) if last is None else last,
        id=identity,
        details=draw(st.dictionaries(names | st.just("ethnicity"), text, max_size=2)),
    )


@st.composite
def cohorts(draw: st.DrawFn) -> Cohort:
    chosen = draw(st.lists(ids, unique=True, max_size=5))
    return Cohort([draw(patients(identity)) for identity in chosen], ImportReport("generated"))


def small() -> Cohort:
    """Three patients, five visits, six codes; one visit without codes, one without a date, one id that is no number."""
    first = Patient(
        (
            Visit(CODES[:2], datetime(2010, 1, 1, 8), 70.0, {"stay": "3"}, (1, 4)),
            Visit([Code("ICD10", "I50.22")], datetime(2016, 3, 1), 76.16, {"discharge": "home"}),
            Visit([], datetime(2016, 4, 1), 76.25),
        ),
        sex="F",
        age=76.25,
        id="10",
        details={"ethnicity": "white"},
    )
    second = Patient((Visit([Code("ICD10", "I10"), Code("ICD10", "E80.21")]),), sex="M", age=45.0, id="11")
    third = Patient((Visit([Code("ICD9", "V30.00")], datetime(2011, 5, 5), 0.0),), id="the third")
    return Cohort([first, second, third], ImportReport("invented"))
