"""At what ages and in whom a diagnosis is plausible, by the sex and age edits of the Medicare Code Editor (CMS).

Boundary: reads `sex_age_limits.tsv` beside it; `mera_core/data/PROVENANCE.md` says where that comes from. Knows codes, a sex
and an age; nothing of patients. A limit is a hint for a reader: records hold rightful exceptions.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

from mera_core.icd.ontology import Code, Ontology

TABLE = Path(__file__).with_name("sex_age_limits.tsv")


@dataclass(frozen=True, slots=True)
class Limit:
    """Whom a diagnosis belongs to. words: as in "a diagnosis of ...". sex: 'F', 'M' or '' for both. ages: completed years."""

    words: str
    sex: str = ""
    ages: tuple[int, int] = (0, 130)

    def excludes(self, sex: str, age: float | None) -> bool:
        """Whether a person is outside of it; an unknown sex ('U') or age (None) is not."""
        return (bool(self.sex) and sex in ("F", "M") and sex != self.sex) or (
            age is not None and not self.ages[0] <= int(age) <= self.ages[1]
        )


LIMITS = {  # ages as the editor has had them since FY2020; before, maternity was 12 to 55
    "female": Limit("women and girls", sex="F"),
    "male": Limit("men and boys", sex="M"),
    "newborn": Limit("the first year of life", ages=(0, 0)),
    "pediatric": Limit("childhood (up to 17 years)", ages=(0, 17)),
    "maternity": Limit("pregnancy and birth (9 to 64 years)", ages=(9, 64)),
    "adult": Limit("adults (15 years or older)", ages=(15, 130)),
}


@cache
def _table() -> dict[Code, tuple[Limit, ...]]:
    found: dict[Code, tuple[Limit, ...]] = {}
    for line in TABLE.read_text(encoding="utf-8").splitlines()[1:]:
        system, name, codes = line.split("\t")
        for text in codes.split(" "):
            code = Code(system, text)
            found[code] = (*found.get(code, ()), LIMITS[name])
    return found


@lru_cache(maxsize=1 << 14)
def limits_of(code: Code, ontology: Ontology) -> tuple[Limit, ...]:
    """The limits of a code: its own and those of the nodes above it."""
    table = _table()
    return tuple(limit for node in (code, *ontology.ancestors(code)) for limit in table.get(node, ()))
