"""Rebuilds `mera_core/icd/sex_age_limits.tsv` from the code lists of the Medicare Code Editor.

`python -m training.tools.make_sex_age_limits MCE_V32.txt MCE_V37.txt`; `mera_core/data/PROVENANCE.md` says what the two files
are. A node of the tree stands for all complete codes below it where every one of them is on the list.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterable
from pathlib import Path

from mera_core.icd.ontology import Code, Ontology
from mera_core.icd.sex_age_limits import TABLE

EDITS = {
    "Newborn_Only": "newborn",
    "Pediatric_Only": "pediatric",
    "Maternity_Only": "maternity",
    "Adult_Only": "adult",
    "Female_Only": "female",
    "Male_Only": "male",
}
NEWER_CODES = {  # the headings that are on the list as a whole, but for codes that are newer than it
    ("ICD10", "maternity"): ("CH15",),
    ("ICD10", "female"): ("CH15", "C56", "C79.6", "N80"),
}


def listed(path: Path, system: str, ontology: Ontology) -> dict[str, set[Code]]:
    """Limit -> the codes of a list, without codes that the release shipped does not know."""
    codes = {node.code.code.replace(".", ""): node.code for node in ontology.nodes(system)}
    found: dict[str, set[Code]] = {limit: set() for limit in EDITS.values()}
    with path.open(encoding="utf-8", newline="") as handle:
        for row in csv.DictReader(handle, delimiter="\t", quoting=csv.QUOTE_NONE):
            limit = EDITS.get(row["MCE_Edit_Type"]) if row["ICD_Code_Type"] == "D" else None
            if limit and row["ICD_Code"] in codes:
                found[limit].add(codes[row["ICD_Code"]])
    return found


def topmost(codes: Iterable[Code], ontology: Ontology) -> list[str]:
    """The fewest nodes, none of them a chapter, that hold these codes and no other complete code; in order."""
    chosen, whole = set(), set(codes)
    for code in whole:
        top = code
        for above in ontology.ancestors(code)[:-1]:
            if any(ontology.is_billable(below) and below not in whole for below in ontology.descendants(above)):
                break
            top = above
        chosen.add(top.code)
    return sorted(chosen)


def table(files: dict[str, Path]) -> str:
    """The table as text; files: code system -> list."""
    ontology, lines = Ontology.load(), ["system\tlimit\tcodes"]
    for system, path in files.items():
        for limit, codes in listed(path, system, ontology).items():
            for name in NEWER_CODES.get((system, limit), ()):
                codes |= set(filter(ontology.is_billable, ontology.descendants(Code(system, name))))
            nodes = topmost(codes, ontology)
            lines.append(f"{system}\t{limit}\t{' '.join(nodes)}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("icd9", type=Path, help="list of version 32")
    parser.add_argument("icd10", type=Path, help="list of version 37")
    given = parser.parse_args()
    TABLE.write_text(table({"ICD9": given.icd9, "ICD10": given.icd10}), encoding="utf-8")
