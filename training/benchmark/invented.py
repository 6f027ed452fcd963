"""Invented histories in the shape of UCI Diabetes 130, for benchmarks: nobody's data, no signal. Measures nothing."""

from __future__ import annotations

import random
from collections.abc import Sequence

from mera_core.history.records import Patient, Visit
from mera_core.icd.ontology import Code

VISITS = {2: 619, 3: 200, 4: 86, 5: 43, 6: 21, 7: 12, 8: 6, 9: 4, 12: 5, 16: 2, 24: 1, 40: 1}
"""Visits of a thousand patients with two or more: the shares counted in UCI Diabetes 130 (mean 2.8, most 40)."""
CODES_A_VISIT = (1, 2, 3, 3, 3, 3, 3, 4)
"""Codes of a visit, mean 2.8 (UCI: 2.9)."""


def patients(count: int, codes: Sequence[Code], seed: int = 1) -> list[Patient]:
    """Patients with two or more visits; a code is drawn the less often the later it stands in a drawn order (Zipf)."""
    draw = random.Random(seed)
    common = draw.sample(list(codes), len(codes))
    weights = [1 / (place + 3) for place in range(len(common))]
    made = []
    for number in range(count):
        visits, age = draw.choices([*VISITS], [*VISITS.values()])[0], draw.randint(30, 90)
        drawn = (dict.fromkeys(draw.choices(common, weights, k=draw.choice(CODES_A_VISIT))) for _ in range(visits))
        history = [Visit(list(one), age=age) for one in drawn]
        made.append(Patient(history, sex=draw.choice("FM"), age=age, id=f"invented-{number}"))
    return made
