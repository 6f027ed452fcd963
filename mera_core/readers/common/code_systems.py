"""Names that other standards give to diagnosis code systems, and a user's map from SNOMED CT to ICD.

Boundary: names and files in, system names and codes out; knows neither FHIR resources nor MEDS tables. code_systems.csv
has the URIs of https://terminology.hl7.org, of HL7's OID registry and of MIMIC-IV on FHIR; the vocabularies are those of OMOP
and of public MEDS converters. Editions of ICD-10 other than ICD-10-CM share most of its codes, under the same names.
"""

from __future__ import annotations

import csv
import re
from functools import lru_cache
from pathlib import Path

from mera_core.common.errors import InputError
from mera_core.icd.ontology import SYSTEMS
from mera_core.readers.common.base import Source
from mera_core.readers.common.delimited import read_delimited

SNOMED = "SNOMED"
PROCEDURE = "procedure"
# Why an entry in another code system is left out.
SAME_DIAGNOSIS = "the same diagnosis in another code system"
NO_MAP, NOT_MAPPED = "SNOMED code, and no map given", "SNOMED code not in the map"
with Path(__file__).with_name("code_systems.csv").open(encoding="utf-8", newline="") as _file:
    _KNOWN = {row["uri"]: row for row in csv.DictReader(_file)}
# ICD9CM, ICD-10-CM, ICD10GM, CIM-10-FR, KCD7, ICD-10-GM-2021, MIMIC-DIAGNOSIS-ICD9 ...: letters and digits only, upper case.
_VOCABULARY = re.compile(
    r"^(?:MIMIC|MIMICIV)?(?:DIAGNOSIS|DIAGNOSES|DIAG|DX|CONDITION)?(?:(?:ICD|CIM|CIE|CID)(9|10)|KCD[5-9])"
    r"(?:CM|MC)?(?:WHO|GM|CA|AM|AU|CN|NL|SE|US|UK|DE|VN|FR|ES|BE|CH|TM|KR|DX|DIAG|DIAGNOSIS|DIAGNOSES|DIAGNOSISCODES)?"
    r"(?:20\d\d)?$"
)
_PROCEDURE_VOCABULARY = re.compile(r"ICD(9|10)(PROC|PCS|CMPROC|PX|PROCEDURE)|^(MIMIC|MIMICIV)?PROCEDURES?ICD(9|10)")
_OTHER_NAMES = dict.fromkeys(("SNOMED", "SNOMEDCT", "SNOMEDCTUS"), SNOMED)
MAP_COLUMNS = ("snomed", "system", "code")
SnomedMap = dict[str, tuple[tuple[str, str], ...]]


@lru_cache(maxsize=1024)
def system_of_uri(uri: str) -> str | None:
    """'ICD9' | 'ICD10' | SNOMED | PROCEDURE for a coding's `system`, None for any other.

    >>> system_of_uri("http://hl7.org/fhir/sid/icd-10-cm"), system_of_uri("urn:oid:2.16.840.1.113883.6.103")
    ('ICD10', 'ICD9')
    >>> [system_of_uri(f"http://mimic.mit.edu/fhir/CodeSystem/mimic-{name}-icd9") for name in ("diagnosis", "procedure")]
    ['ICD9', 'procedure']
    """
    plain = _plain(uri)
    if plain.startswith("http://snomed.info/sct/"):  # an edition or version of it
        return SNOMED
    # Elsewhere the last part of the path, or the whole of what is no URI, may name the vocabulary.
    return _KNOWN[plain]["system"] if plain in _KNOWN else system_of_vocabulary(re.split(r"[/:#]", plain)[-1])


@lru_cache(maxsize=1024)
def is_clinical_modification(uri: str) -> bool:
    """Whether a URI that means ICD10 means the American edition, which the ICD code set holds."""
    plain = _plain(uri)
    name = re.sub(r"[^a-z0-9]", "", re.split(r"[/:#]", plain)[-1])
    return _KNOWN[plain]["edition"] == "CM" if plain in _KNOWN else name.endswith("icd10cm") or "mimic" in plain


def _plain(uri: str) -> str:
    """A URI as code_systems.csv writes it: without version and query, in small letters."""
    plain = uri.strip().lower().removeprefix("urn:oid:").replace("https://", "http://", 1)
    return plain.split("|", 1)[0].split("?", 1)[0].rstrip("/")


@lru_cache(maxsize=1024)
def system_of_vocabulary(name: str) -> str | None:
    """The same for a vocabulary's name.

    >>> [system_of_vocabulary(name) for name in ("ICD10GM", "KCD7", "icd-9-cm", "ICD9Proc", "SNOMED", "ICDO3")]
    ['ICD10', 'ICD10', 'ICD9', 'procedure', 'SNOMED', None]
    """
    plain = re.sub(r"[^A-Z0-9]", "", name.upper())
    match = _VOCABULARY.match(plain)
    if match:
        return f"ICD{match[1] or 10}"
    return PROCEDURE if _PROCEDURE_VOCABULARY.search(plain) else _OTHER_NAMES.get(plain)


def icd_named(name: str) -> str | None:
    """'ICD9' | 'ICD10' for any name or URI of an edition of them, or the number alone; None for another system."""
    plain = "10" if name.strip() == "0" else name.strip()  # a claim has one digit, 0 for ICD-10
    system = system_of_uri(f"ICD{plain}" if plain.isdecimal() else plain)
    return system if system in SYSTEMS else None


def read_snomed_map(path: str | Path) -> SnomedMap:
    """A user's map: SNOMED CT code -> its ICD codes as (system, text), in the order of the file.

    A CSV file with the columns snomed, system (ICD9 or ICD10) and code; a SNOMED code may have several lines.
    Raises InputError naming the file and the missing column or the line.
    """
    where = Path(path)
    if not where.is_file():
        raise InputError(f"there is no file {where} with a map from SNOMED CT.")
    columns = read_delimited(Source(where), MAP_COLUMNS)
    lines = zip(*(columns[name].to_pylist() for name in MAP_COLUMNS), strict=True)
    found: dict[str, dict[tuple[str, str], None]] = {}
    for line, (snomed, name, code) in enumerate(lines, start=2):
        system = icd_named(name)
        if system is None:
            raise InputError(f"{where}: line {line} has system {name!r}; it must be ICD9 or ICD10.")
        if not snomed.strip().isdecimal() or not code.strip():
            raise InputError(f"{where}: line {line} needs a SNOMED CT number and an ICD code.")
        found.setdefault(snomed.strip(), {})[(system, code.strip())] = None
    if not found:
        raise InputError(f"{where} maps no code.")
    return {snomed: tuple(targets) for snomed, targets in found.items()}
