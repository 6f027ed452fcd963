"""What a history says of the labels it already holds: the input of the score head's term for recurrent codes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mera_core.history.records import Visit
from mera_core.icd.ontology import Code


def seen_features(visits: Sequence[Visit], index: Mapping[Code, int]) -> list[list[float]]:
    """One row per label that `visits` hold: label index, then the four 0/1 features of `network.SEEN_FEATURES`.

    Args:
        visits: the completed visits, oldest first.
        index: label index of each code of the label space; other codes are passed over.
    """
    rows: dict[int, list[float]] = {}
    for position, visit in enumerate(visits):
        newest = float(position == len(visits) - 1)
        for place, code in enumerate(visit.codes):
            label = index.get(code)
            if label is None:
                continue
            row = rows.setdefault(label, [0.0, 0.0, 0.0, 0.0])
            row[2] = max(row[2], row[1])
            row[1] = 1.0
            row[0] = newest
            row[3] = newest * (place == 0)
    return [[label, *features] for label, features in rows.items()]
