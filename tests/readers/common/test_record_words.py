"""The words of a profile: one vocabulary for every source, and nothing where a source says nothing."""

import pytest

from mera_core.readers.common.record_words import LISTS, RACE_CONCEPTS, UNTOLD, word


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("WHITE - OTHER EUROPEAN", "white"),
        ("BLACK/AFRICAN AMERICAN", "black"),
        ("Black or African American", "black"),
        ("HISPANIC/LATINO - PUERTO RICAN", "hispanic"),
        ("Not Hispanic or Latino", None),
        ("ASIAN - CHINESE", "asian"),
        ("Native American", "american indian"),
        ("NATIVE HAWAIIAN OR OTHER PACIFIC ISLANDER", "pacific islander"),
        ("Other/Unknown", None),
        ("UNABLE TO OBTAIN", None),
        ("MIDDLE EASTERN", "middle eastern"),
    ],
)
def test_a_race_is_called_the_same_whoever_writes_it(text, said):
    assert word("ethnicity", text) == said


def test_words_of_a_visit_are_those_of_the_lists_of_uci():
    """The bundled checkpoint is trained on UCI, so MIMIC's words must be UCI's where they mean the same."""
    source, discharge = LISTS["UCI source"], LISTS["UCI discharge"]
    assert word("admission", "EW EMER.") == "emergency"
    assert word("source", "EMERGENCY ROOM ADMIT") == word("source", "EMERGENCY ROOM") == source["7"]
    assert word("discharge", "REHAB") == word("discharge", "REHAB/DISTINCT PART HOSP") == discharge["22"]
    assert word("discharge", "SNF") == discharge["3"] and word("discharge", "DEAD/EXPIRED") == discharge["11"]
    assert word("payer", "Medicare") == "medicare"


def test_nothing_is_made_of_nothing():
    for name in ("admission", "source", "discharge", "ethnicity", "payer"):
        assert {word(name, text) for text in (*UNTOLD, " ", "unknown")} == {None}
    assert set(RACE_CONCEPTS.values()) == {"white", "black", "asian", "american indian", "pacific islander", "hispanic"}
