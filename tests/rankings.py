"""Rankings small enough to check by hand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from mera_core.icd.ontology import Code, Ontology
from mera_core.ranking.ranking import Ranking


def ranking_of(
    scores: Mapping[str | Code, float],
    cut: float = 0.0,
    recurrent: Iterable[str] = (),
    probability: Iterable[float] | None = None,
    system: str = "ICD9",
) -> Ranking:
    """A ranking of codes by the scores given; shares are the softmax of the scores."""
    by_code = {Code(system, code) if isinstance(code, str) else code: score for code, score in scores.items()}
    codes = tuple(sorted(by_code, key=lambda code: (-by_code[code], code)))
    values = np.array([by_code[code] for code in codes])
    share = np.exp(values - values.max())
    held = set(recurrent)
    return Ranking(
        codes=codes,
        scores=values,
        cut=cut,
        share=share / share.sum(),
        recurrent=np.array([code.code in held for code in codes]),
        checkpoint="hand-made",
        label_level="some codes",
        ontology=Ontology.load(),
        probability=None if probability is None else np.array(list(probability)),
    )
