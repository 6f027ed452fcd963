"""How usual a history is among those that a checkpoint learned from: a score of its codes and the patient's age and sex.

Boundary: histories in the checkpoint's terms in, one number and a note out; no network. docs/method.md, "Unlike the training
patients"; what else was tried is in docs/choices.md.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mera_core.common.errors import InputError
from mera_core.history.records import Note, Patient
from mera_core.icd.ontology import Code

FLAGGED = 0.035
"""Share of the training histories whose scores are as low as one that is flagged; more than that of new patients would be a
nuisance, and the share among unseen patients varies by some points in a thousand."""
TAIL = (0.001, 0.002, 0.005, 0.01, 0.02, FLAGGED)
"""Shares of the training histories whose highest scores are kept, to say how unusual a history is."""
LEAST_PATIENTS = 200
"""Training patients below which nothing is fitted: seven of them would be the unusual ones."""
PROFILE_WEIGHT = 0.5  # of the log share of an age band and of a sex, against standard deviations of the codes' rarity
DECADES = 10  # the last one holds everybody of 90 and over
SEXES = ("F", "M")
WHO = {
    "uci_diabetes130": "hospital stays of people with diabetes in the US, 1999 to 2008",
    "mimic3": "hospital stays with intensive care, one hospital in Boston",
    "mimic4": "stays in hospital and emergency department, one hospital in Boston",
    "eicu": "stays in intensive care in the US",
    "synpuf": "synthetic claims of Medicare patients in the US",
}
"""Whom a source holds; a manifest's own words in `data.population` come first."""
_UNREAD = ("unread", "ambiguous")


def trained_on(data: Mapping[str, Any]) -> str:
    """In words, whom a checkpoint learned from, of its manifest's `data`; "" where that is not recorded."""
    if told := data.get("population") or WHO.get(str(data.get("format"))):
        return str(told)
    patients = (data.get("parts") or {}).get("train", {}).get("patients")
    return f"{patients:,} patients of {data.get('source') or 'an unnamed source'}" if patients else ""


@dataclass(frozen=True, eq=False)
class Population:
    """The training patients as far as the score needs them.

    codes: code -> how many training patients have it. ages: training patients a decade of age, [10]. sexes: women and men.
    centre, between, within: mean over histories of the mean log share of their codes, and the variances of that between
        histories and of a code within one. tail: the scores that `TAIL` of the training histories do not exceed, rising.
    Raises InputError where a number is not finite, or is missing.
    """

    codes: Mapping[Code, int]
    ages: tuple[int, ...]
    sexes: tuple[int, ...]
    centre: float = 0.0
    between: float = 0.0
    within: float = 1.0
    tail: tuple[float, ...] = ()
    _mentions: int = field(init=False, repr=False)
    _log_share: dict[Code, float] = field(init=False, repr=False)
    _unknown: float = field(init=False, repr=False)
    _age: dict[int | None, float] = field(init=False, repr=False)
    _sex: dict[int | None, float] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        counts = (*self.codes.values(), *self.ages, *self.sexes)
        numbers = np.array([self.centre, self.between, self.within, *self.tail], float)
        if (
            not self.codes
            or len(self.ages) != DECADES
            or len(self.sexes) != len(SEXES)
            or not 0 <= min(counts) <= max(counts) < 2**40
        ):
            raise InputError("The description of the training population lacks counts of codes, ages or sexes.")
        if (
            not np.isfinite(numbers).all()
            or self.between < 0
            or self.within <= 0
            or list(self.tail) != sorted(self.tail)
        ):
            raise InputError("The description of the training population holds numbers that can't be.")
        mentions = sum(self.codes.values())
        # half a mention for each code, and as rare as that is what no training patient had
        whole = mentions + 0.5 * len(self.codes)
        object.__setattr__(self, "_mentions", mentions)
        object.__setattr__(self, "_log_share", {c: math.log((n + 0.5) / whole) for c, n in self.codes.items()})
        object.__setattr__(self, "_unknown", math.log(0.5 / whole))
        object.__setattr__(self, "_age", _log_shares(self.ages))
        object.__setattr__(self, "_sex", _log_shares(self.sexes))

    @classmethod
    def fit(cls, read: Sequence[tuple[Patient, Iterable[Note]]]) -> Population | None:
        """Of training histories as `Engine.read_history` gives them; None where there are too few.

        Each one's own codes are left out of the counts that it is judged by.
        """
        described = [(_codes(history), _unread(notes), *_profile(history)) for history, notes in read if history.visits]
        if len(described) < LEAST_PATIENTS:
            return None
        codes = Counter(code for own, *_ in described for code in own)
        decades = Counter(decade for _, _, decade, _ in described)
        sexes = Counter(sex for *_, sex in described)
        plain = cls(codes, tuple(decades[n] for n in range(DECADES)), tuple(sexes[n] for n in range(len(SEXES))))
        rarity = [plain._rarity(own, unread, left_out=True) for own, unread, *_ in described]
        size = np.array([len(each) for each in rarity])
        mean = np.array([each.mean() for each in rarity])
        # one-way analysis of variance: codes within histories, histories within the population
        spread = sum(float(((each - each.mean()) ** 2).sum()) for each in rarity)
        within = max(spread / max(int(size.sum()) - len(size), 1), 1e-6)
        between = max(float(mean.var()) - within * float((1 / size).mean()), 0.0)
        fitted = cls(codes, plain.ages, plain.sexes, float(mean.mean()), between, within)
        scores = [fitted._score(each, *profile) for each, (_, _, *profile) in zip(rarity, described, strict=True)]
        tail = np.quantile(scores, TAIL, method="lower").tolist()
        return cls(codes, plain.ages, plain.sexes, fitted.centre, between, within, tuple(tail))

    def score(self, history: Patient, notes: Iterable[Note] = ()) -> float:
        """How usual a history in the checkpoint's terms is; lower is less so. notes: on what of it could not be read."""
        return self._score(self._rarity(_codes(history), _unread(notes)), *_profile(history))

    def note(self, history: Patient, notes: Iterable[Note], who: str) -> Note | None:
        """The note 'unlike_training' on a history that is unusual among those of training. who: they, in words."""
        score = self.score(history, notes)
        if not self.tail or score > self.tail[-1]:
            return None
        share = next(share for share, most in zip(TAIL, self.tail, strict=True) if score <= most)
        return Note(
            "unlike_training",
            f"This history is unlike those the model learned from{f' ({who})' if who else ''}: only 1 in "
            f"{round(1 / share):,} of them is as unusual. Read the list with care.",
        )

    def _rarity(self, codes: Sequence[Code], unread: int, left_out: bool = False) -> np.ndarray:
        """The log share of each code among all mentions of codes. left_out: without the one history that they are of."""
        if left_out:
            whole = self._mentions - len(codes) + 0.5 * len(self.codes)
            found = [math.log((self.codes[code] - 0.5) / whole) for code in codes]
        else:
            found = [self._log_share.get(code, self._unknown) for code in codes]
        return np.array([*found, *[self._unknown] * unread] or [self._unknown])

    def _score(self, rarity: np.ndarray, decade: int | None, sex: int | None) -> float:
        """z of the mean log share, and what age and sex add; one that is not known adds what it does on average."""
        z = (rarity.mean() - self.centre) / math.sqrt(self.between + self.within / len(rarity))
        return float(z + PROFILE_WEIGHT * (self._age[decade] + self._sex[sex]))

    def to_dict(self, order: Sequence[Code]) -> dict[str, Any]:
        """For the manifest. order: its input codes; the counts stand in one text, for JSON gives each number a line."""
        return {
            "codes": " ".join(str(self.codes.get(code, 0)) for code in order),
            "ages": list(self.ages),
            "sexes": list(self.sexes),
            "centre": round(self.centre, 6),
            "between": round(self.between, 6),
            "within": round(self.within, 6),
            "tail": [round(value, 6) for value in self.tail],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], order: Sequence[Code]) -> Population:
        """What `to_dict` wrote; InputError where it can't be that."""
        try:
            counts = [int(count) for count in values["codes"].split()]
            tail = tuple(map(float, values["tail"]))
            if len(counts) != len(order) or len(tail) not in (0, len(TAIL)):
                raise ValueError
            ages, sexes = (tuple(map(int, values[name])) for name in ("ages", "sexes"))
            centre, between, within = (float(values[name]) for name in ("centre", "between", "within"))
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
            raise InputError(
                "The description of the training population does not fit the checkpoint's codes."
            ) from error
        codes = {code: count for code, count in zip(order, counts, strict=True) if count}  # as `fit` saw them
        return cls(codes, ages, sexes, centre, between, within, tail)


def _codes(history: Patient) -> tuple[Code, ...]:
    return tuple(dict.fromkeys(code for visit in history.visits for code in visit.codes))


def _unread(notes: Iterable[Note]) -> int:
    """How many codes of a history could not be read."""
    return len({note.code for note in notes if note.kind in _UNREAD and note.code})


def _profile(history: Patient) -> tuple[int | None, int | None]:
    """Decade of the age at the last visit, and place of the sex in `SEXES`; None where not known."""
    age = history.visits[-1].age if history.visits and history.visits[-1].age is not None else history.age
    decade = None if age is None else min(int(age // 10), DECADES - 1)
    return decade, SEXES.index(history.sex) if history.sex in SEXES else None


def _log_shares(counts: Sequence[int]) -> dict[int | None, float]:
    """Log share of each place, half a patient added; under None their mean over the patients."""
    share = (np.array(counts) + 0.5) / (sum(counts) + 0.5 * len(counts))
    return {None: float(share @ np.log(share))} | dict(enumerate(np.log(share).tolist()))
