"""Writes cohort.csv, a small invented cohort: two variations of each invented demo patient.

    python -m sample_data.cohort_from_demo

Each variation is the demo patient some days earlier, up to three years older or younger (children keep
their age), sometimes without its last visit (two always stay), and without about one in six of the codes
that are not first in their visit. Drawn from a fixed seed, so that the file can be made again byte for byte.
"""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from mera_core.history.records import Patient, demo_patients, write_visits

OUT = Path(__file__).with_name("cohort.csv")
VARIATIONS = 2
EARLIEST = 40  # days; the demo dates lie at least this far behind the day their code sets came into force
ADULT = 18  # years


def variation(patient: Patient, name: str, draw: random.Random) -> Patient:
    """One invented relative of an invented patient, under another id."""
    shift = timedelta(days=draw.randint(0, EARLIEST))
    visits = patient.visits[:-1] if len(patient.visits) > 2 and draw.random() < 0.3 else patient.visits
    varied = []
    for visit in visits:
        first, *others = visit.codes
        kept = [code for code in others if draw.random() > 1 / 6]
        varied.append(replace(visit, codes=(first, *kept), time=visit.time - shift))
    age = patient.age + draw.randint(-3, 3) if patient.age >= ADULT else patient.age
    return replace(patient, visits=tuple(varied), age=age, id=name)


def cohort(seed: int = 2026) -> list[Patient]:
    """The invented cohort, in the order of the demo patients."""
    draw = random.Random(seed)
    return [
        variation(demo.patient, f"{demo.id.replace('demo', 'cohort')}-{number}", draw)
        for demo in demo_patients()
        for number in range(1, VARIATIONS + 1)
    ]


if __name__ == "__main__":
    write_visits(cohort(), OUT)
    print(f"{OUT.name}: {len(cohort())} patients")
