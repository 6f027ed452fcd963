"""What hypothesis feeds each target: bytes that nearly make sense, built from the field's own words and from the corpus.

Boundary: strategies of bytes by target; runs nothing. Complements the mutations of the corpus, most of which break a bracket and
are refused at once, and `grown`, whose values are flat and small.
"""

from __future__ import annotations

import gzip
import io
import json
import warnings
import zipfile
from collections.abc import Callable

from hypothesis import strategies as st

from tests.fuzz.grown import WORDS
from tests.fuzz.targets import TARGETS

_CODES = st.one_of(
    st.sampled_from(
        ["428.0", "E8021", "I50.22", "V45.81", "ICD9:250", "icd-10 e11.9", "E80.21", "8", "00250", "42800"]
    ),
    st.from_regex(r"[A-TV-Za-z0-9]{1,4}[.,]?[0-9A-Z]{0,4}", fullmatch=True),
    st.text(max_size=12),
)


def _mostly(sound: st.SearchStrategy, odd: st.SearchStrategy) -> st.SearchStrategy:
    """One in eight is odd: an input of ten values is then read as a whole now and then."""
    return st.integers(0, 7).flatmap(lambda number: odd if number == 7 else sound)


_TIMES = _mostly(st.one_of(st.dates().map(str), st.datetimes().map(lambda time: time.isoformat())), st.text(max_size=9))
_HEADER = ("patient_id", "visit", "system", "code", "time", "position", "age", "sex", "ethnicity", "title", "")


def inputs(name: str) -> st.SearchStrategy[bytes]:
    """Inputs of the target `name`, none longer than it takes."""
    longest = TARGETS[name].longest
    made = {"codes": _typed, "pasted": _pasted, "history": _history, "fhir": _fhir, "table": _table}
    made |= {"upload": _upload, "loader": _loader}
    sound = made.get(name, _checkpoint)()
    broken = st.one_of(st.binary(max_size=min(longest, 300)), _spliced(TARGETS[name].seeds()))
    return st.booleans().flatmap(lambda asked: sound if asked else broken).map(lambda data: data[:longest])


def _spliced(seeds: list[bytes]) -> st.SearchStrategy[bytes]:
    """A seed with a piece cut out and another put in its place."""

    def splice(one: bytes, other: bytes, begin: int, size: int, at: int, length: int, odd: bytes) -> bytes:
        begin, at = begin % (len(one) + 1), at % (len(other) + 1)
        return one[:begin] + odd + other[at : at + length] + one[begin + size :]

    seed, place = st.sampled_from(seeds), st.integers(0, 4_000)
    return st.builds(splice, seed, seed, place, st.integers(0, 60), place, st.integers(0, 60), st.binary(max_size=3))


def _typed() -> st.SearchStrategy[bytes]:
    return st.builds(lambda choice, text: bytes([choice]) + text.encode("utf-8", "replace"), st.integers(0, 5), _CODES)


def _pasted() -> st.SearchStrategy[bytes]:
    words = st.one_of(_CODES, st.sampled_from(["heart failure", "diabetes", "ICD-9", "-", "*", "1.", "no known"]))
    between = st.sampled_from(["\n", " ", ", ", ";", "\t", " | ", "\r\n", "/"])
    return st.builds(
        lambda parted, parts: parted.join(parts).encode("utf-8", "replace"), between, st.lists(words, max_size=9)
    )


def _history() -> st.SearchStrategy[bytes]:
    system = _mostly(st.sampled_from(["ICD9", "ICD10"]), st.sampled_from(["icd", "", 9]))
    code = st.one_of(_CODES.filter(str.strip), st.fixed_dictionaries({"system": system, "code": _CODES}))
    age = _mostly(st.one_of(st.integers(0, 130), st.floats(0, 130)), st.one_of(st.integers(), st.floats(), st.text()))
    visit = st.fixed_dictionaries(
        {"codes": st.lists(code, max_size=5)}, optional={"time": _TIMES, "age": age, "details": _words()}
    )
    whole = st.fixed_dictionaries(
        {"visits": st.lists(visit, max_size=4)},
        optional={
            "id": _mostly(st.text(max_size=9), st.integers()),
            "sex": _mostly(st.sampled_from(["F", "M", "U"]), st.sampled_from(["female", "", 1, None])),
            "age": age,
            "details": _words(),
        },
    )
    return _mostly(whole, _nested("history")).map(_encoded)


def _fhir() -> st.SearchStrategy[bytes]:
    system = st.sampled_from([word for word in WORDS["fhir"][1] if str(word).startswith("http")])
    reference = st.fixed_dictionaries(
        {"reference": st.sampled_from(["Patient/p1", "urn:uuid:p1", "Encounter/e1", "#p1", ""])}
    )
    coded = st.fixed_dictionaries(
        {"coding": st.lists(st.fixed_dictionaries({"system": system, "code": _CODES}), max_size=3)}
    )
    resource = st.one_of(
        st.fixed_dictionaries(
            {"resourceType": st.just("Patient"), "id": st.just("p1")},
            optional={"gender": st.sampled_from(["female", "male", "x"]), "birthDate": _TIMES},
        ),
        st.fixed_dictionaries(
            {"resourceType": st.just("Encounter"), "id": st.just("e1"), "subject": reference},
            optional={"period": st.fixed_dictionaries({"start": _TIMES}, optional={"end": _TIMES})},
        ),
        st.fixed_dictionaries(
            {"resourceType": st.just("Condition"), "id": st.text(max_size=4), "subject": reference, "code": coded},
            optional={"encounter": reference, "recordedDate": _TIMES, "verificationStatus": coded},
        ),
        _nested("fhir"),
    )
    entries = st.lists(resource, max_size=6)
    bundle = entries.map(
        lambda all_: {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": r} for r in all_]}
    )
    lines = entries.map(lambda all_: b"\n" + b"\n".join(map(_encoded, all_)))
    return st.one_of(bundle.map(_encoded), lines)


def _table() -> st.SearchStrategy[bytes]:
    def cell(sound: tuple[str, ...], odd: tuple[str, ...]) -> st.SearchStrategy[str]:
        return _mostly(st.sampled_from(sound), st.sampled_from(odd))

    cells = {
        "patient_id": cell(("p1", "p2", '"p,1"', "=1"), ("", " p1", '"')),
        "visit": cell(("0", "1", "2"), ("", "x", "-1", "1.0")),
        "system": cell(("ICD9", "ICD10"), ("icd9", "", "SNOMED")),
        "code": _CODES.filter(lambda code: not set(code) & set(',"\n\r')),
        "time": _TIMES,
        "position": cell(("1", "2", ""), ("x", "1e3")),
        "age": cell(("72", "", "50.5"), ("300", "7 years", "nan")),
        "sex": cell(("F", "M", "U", ""), ("female", "1")),
    }
    extra = cell(("", "hispanic", "é"), ('"a', "\x00", "a\nb", "a,b"))
    needed = st.just(list(_HEADER[:4]))
    more = st.permutations(_HEADER[4:-1]).map(lambda names: [*_HEADER[:4], *names[:3]])
    header = _mostly(st.one_of(needed, more), st.permutations(_HEADER).map(lambda names: names[:7]))

    @st.composite
    def whole(draw: Callable) -> bytes:
        names, end = draw(header), draw(st.sampled_from(["\n", "\r\n", "\n\n"]))
        rows = [[draw(cells.get(name, extra)) for name in names] for _ in range(draw(st.integers(0, 5)))]
        last = draw(cell(("", end), (",x", '"')))
        text = end.join(",".join(row) for row in [names, *rows]) + last
        return text.encode(draw(cell(("utf-8", "utf-8-sig"), ("latin-1", "utf-16"))), "replace")

    return whole()


def _checkpoint() -> st.SearchStrategy[bytes]:
    """The number of a file of the folder, then what it is to hold."""
    content = st.one_of(_nested("config").map(_encoded), st.binary(max_size=200))
    return st.builds(lambda which, data: bytes([which]) + data, st.integers(0, 5), content)


def _upload() -> st.SearchStrategy[bytes]:
    """The number of an ending, then a file of that kind; the archives hold one or two such files."""

    def archive(files: list[bytes], names: list[str]) -> bytes:
        packed = io.BytesIO()
        with warnings.catch_warnings(), zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as into:
            warnings.simplefilter("ignore")  # of a name that comes twice
            for name, content in zip(names, files, strict=False):
                into.writestr(name, content)
        return packed.getvalue()

    names = st.lists(st.sampled_from(["t.csv", "a/t.csv", "../t.csv", "h.json", "t.csv.gz", "é.csv", "t"]), min_size=2)
    zipped = st.builds(archive, st.lists(st.one_of(_table(), _history()), max_size=2), names)
    kinds = [zipped, _table(), _table().map(lambda data: gzip.compress(data, mtime=0)), _history()]
    return st.one_of(*(kind.map(lambda data, n=number: bytes([n]) + data) for number, kind in enumerate(kinds)))


def _loader() -> st.SearchStrategy[bytes]:
    """The number of a file of the checkpoint, then the way to a value in it and what to put there; see `targets._altered`."""
    return st.builds(lambda which, way: bytes([which]) + way, st.integers(0, 5), st.binary(min_size=4, max_size=60))


def _words() -> st.SearchStrategy:
    return st.dictionaries(
        st.sampled_from(["ethnicity", "insurance", "x"]), _mostly(st.text(max_size=6), st.none()), max_size=2
    )


def _nested(kind: str) -> st.SearchStrategy:
    """Any JSON value of the words of `kind`, well-formed, to some depth."""
    keys, values = WORDS[kind]
    leaves = st.one_of(
        st.sampled_from(values), st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)
    )
    key = st.sampled_from(keys)
    return st.recursive(
        leaves,
        lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(key, inner, max_size=5)),
        max_leaves=20,
    )


def _encoded(value: object) -> bytes:
    return json.dumps(value).encode("utf-8", "replace")
