"""What a code of a history can mean to somebody who looks at it: one reading, several, or none and why.

Boundary: code sets only. The model reads histories by `patient.resolve`, which agrees with this; screens, charts and
exports ask here, so that a code is never called unread on one of them and named on another.
"""

from __future__ import annotations

from mera_core.common.errors import InputError
from mera_core.icd.ontology import SYSTEM_NAMES, AmbiguousCodeError, Code, Ontology


def readings(code: Code | str, ontology: Ontology) -> tuple[tuple[Code, ...], str]:
    """The codes that a code or text can mean, and where that is not one alone, why it can't be read; else how it was read
    otherwise than written.

    >>> readings("E8021", Ontology.load())[0]
    (Code(system='ICD9', code='E802.1'), Code(system='ICD10', code='E80.21'))
    """
    try:
        found = ontology.diagnosis(code)
        return (found.code,), ontology.told(code, found)
    except AmbiguousCodeError as error:
        return error.candidates, str(error)
    except InputError as error:
        return (), str(error)


def reading(code: Code | str, ontology: Ontology) -> Code | None:
    """The one code that is meant; None where there is none, or more than one."""
    found, _ = readings(code, ontology)
    return found[0] if len(found) == 1 else None


def named(codes: tuple[Code, ...]) -> str:
    """Several codes in words: 'ICD-9-CM E802.1 or ICD-10-CM E80.21'."""
    return " or ".join(f"{SYSTEM_NAMES[code.system]} {code.code}" for code in codes)
