"""The words of a profile and a visit that all readers use, so that one patient reads the same whichever format it comes from.

Boundary: one text as a source writes it in, our word out; knows no table. The texts are those of MIMIC-III and MIMIC-IV (and of
MEDS and FHIR made of them), eICU, OMOP's and HL7's names of races. What is in no list is taken over in lower case.
"""

from __future__ import annotations

UNTOLD = frozenset(  # texts that say nothing
    (
        "", "?", "0", "UNK", "UNKNOWN", "NULL", "NONE", "NAN", "NA", "NODX",
        "** INFO NOT AVAILABLE **", "INFORMATION NOT AVAILABLE", "UNKNOWN/NOT SPECIFIED", "UNKNOWN (DEFAULT)",
        "UNABLE TO OBTAIN", "PATIENT DECLINED TO ANSWER", "PATIENT REFUSED", "OTHER/UNKNOWN", "ASKED BUT NO ANSWER",
        "ASKED BUT UNKNOWN", "NO MATCHING CONCEPT",
    )
)  # fmt: skip
_ADMISSION = {
    "EW EMER.": "emergency",
    "DIRECT EMER.": "emergency",
    "SURGICAL SAME DAY ADMISSION": "elective",
    "EU OBSERVATION": "observation",
    "OBSERVATION ADMIT": "observation",
    "DIRECT OBSERVATION": "observation",
    "AMBULATORY OBSERVATION": "observation",
}
_SOURCE = {
    "EMERGENCY ROOM ADMIT": "emergency room",
    "EMERGENCY DEPARTMENT": "emergency room",
    "OTHER HOSPITAL": "transfer from hospital",
    "TRANSFER FROM HOSP/EXTRAM": "transfer from hospital",
    "TRANSFER FROM SKILLED NUR": "transfer from skilled nursing facility",
    "TRANSFER FROM OTHER HEALT": "transfer from other facility",
    "PHYS REFERRAL/NORMAL DELI": "physician referral",
    "CLINIC REFERRAL/PREMATURE": "clinic referral",
    "HMO REFERRAL/SICK": "insurer referral",
    "TRSF WITHIN THIS FACILITY": "transfer within hospital",
    "AMBULATORY SURGERY TRANSFER": "transfer from ambulatory surgery center",
    "INTERNAL TRANSFER TO OR FROM PSYCH": "transfer within hospital",
}
_DISCHARGE = {
    "SHORT TERM HOSPITAL": "transfer to hospital",
    "ACUTE HOSPITAL": "transfer to hospital",
    "OTHER HOSPITAL": "transfer to hospital",
    "DISC-TRAN CANCER/CHLDRN H": "transfer to hospital",
    "DISC-TRAN TO FEDERAL HC": "transfer to federal health care facility",
    "DISCH-TRAN TO PSYCH HOSP": "psychiatric hospital",
    "PSYCH FACILITY": "psychiatric hospital",
    "SNF": "skilled nursing facility",
    "SNF-MEDICAID ONLY CERTIF": "nursing facility",
    "NURSING HOME": "nursing facility",
    "ICF": "intermediate care facility",
    "REHAB": "rehabilitation",
    "REHAB/DISTINCT PART HOSP": "rehabilitation",
    "LONG TERM CARE HOSPITAL": "long-term care hospital",
    "CHRONIC/LONG TERM ACUTE CARE": "long-term care hospital",
    "HOME WITH HOME IV PROVIDR": "home health care",
    "HOSPICE-HOME": "hospice",
    "HOSPICE-MEDICAL FACILITY": "hospice",
    "LEFT AGAINST MEDICAL ADVI": "left against advice",
    "AGAINST ADVICE": "left against advice",
    "DEAD/EXPIRED": "died",
    "DEATH": "died",
    "OTHER FACILITY": "transfer to other facility",
    "HEALTHCARE FACILITY": "transfer to other facility",
}
RACE_CONCEPTS = {  # OMOP's standard concepts
    "8527": "white",
    "8516": "black",
    "8515": "asian",
    "8657": "american indian",
    "8557": "pacific islander",
    "38003563": "hispanic",
}
_NAMES = {"admission": _ADMISSION, "source": _SOURCE, "discharge": _DISCHARGE}
# A text that begins so says this. Finer words, such as the country in "HISPANIC/LATINO - CUBAN", are not kept: no other
# source tells them, and a group of a handful is a person.
_RACES = (
    ("HISPANIC", "hispanic"),
    ("WHITE", "white"),
    ("CAUCASIAN", "white"),
    ("BLACK", "black"),
    ("AFRICAN AMERICAN", "black"),
    ("AFRICANAMERICAN", "black"),
    ("ASIAN", "asian"),
    ("AMERICAN INDIAN", "american indian"),
    ("NATIVE AMERICAN", "american indian"),
    ("ALASKA NATIVE", "american indian"),
    ("NATIVE HAWAIIAN", "pacific islander"),
    ("PACIFIC ISLANDER", "pacific islander"),
    ("MULTI", "multiple"),
    ("OTHER", "other"),
)
_NO_RACE = ("NOT HISPANIC", "NON-HISPANIC", "NON HISPANIC")  # says what someone is not


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
    return _NAMES.get(name, {}).get(plain, text.strip().lower())


def _race(plain: str) -> str | None:
    if plain.startswith(_NO_RACE):
        return None
    return next((said for start, said in _RACES if plain.startswith(start)), plain.lower())
