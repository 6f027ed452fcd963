"""The words of a profile and a visit that all readers use, so that one patient reads the same whichever format it comes from.

Boundary: one text as a source writes it in, our word out; the texts are in record_words.csv: those of MIMIC-III and MIMIC-IV (and
of MEDS and FHIR made of them), eICU, OMOP's and HL7's names of races, and the ids of UCI's IDS_mapping.csv. What is in no list is
taken over in lower case.
"""

from __future__ import annotations

import csv
from pathlib import Path

LISTS: dict[str, dict[str, str]] = {}
"""List -> text or id of a source -> our word. Ids that mean "not available" or "unknown" are in none."""
with Path(__file__).with_name("record_words.csv").open(encoding="utf-8", newline="") as _file:
    for _row in csv.DictReader(_file):
        LISTS.setdefault(_row["list"], {})[_row["text"]] = _row["word"]
UNTOLD = LISTS["untold"]  # texts that say nothing
RACE_CONCEPTS = LISTS["OMOP race"]  # OMOP's standard concepts


def word(name: str, text: str) -> str | None:
    """Our word for what a source writes under 'admission', 'source', 'discharge', 'ethnicity' or another name.

    None where it says nothing.

    >>> word("admission", "EW EMER."), word("ethnicity", "BLACK/CAPE VERDEAN"), word("discharge", "UNK")
    ('emergency', 'black', None)
    """
    plain = " ".join(text.upper().split())
    if plain in UNTOLD:
        return None
    if name == "ethnicity":
        return _race(plain)
    return LISTS.get(name, {}).get(plain, text.strip().lower())


def _race(plain: str) -> str | None:
    """The word of the first list's text that this one begins with.

    Finer words, such as the country in "HISPANIC/LATINO - CUBAN", are not kept: no other source tells them, and a group of a
    handful is a person.
    """
    if plain.startswith(tuple(LISTS["no race"])):  # says what someone is not
        return None
    return next((said for start, said in LISTS["race"].items() if plain.startswith(start)), plain.lower())
