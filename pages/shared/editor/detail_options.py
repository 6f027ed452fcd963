"""What a clinician can say of a visit beside its codes: the facts that a checkpoint knows, as choices in plain words. No screen.

The words are in detail_words.csv; a key or value that is not there is shown as it is written.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from mera_core.history.details import AGE, UNTOLD, facts, nearest
from mera_core.history.records import Visit

SEVERAL = ("drugs",)  # keys of which a visit may have several values
NOT_READ = "not read by this model"
_WORDS: dict[tuple[str, str], str] = {}
with Path(__file__).with_name("detail_words.csv").open(encoding="utf-8", newline="") as _file:
    _WORDS.update({(row["key"], row["value"]): row["words"] for row in csv.DictReader(_file)})


def key_words(key: str) -> str:
    """What a key is called on the screen."""
    return _WORDS.get((key, "")) or key.replace("_", " ").capitalize()


def value_words(key: str, value: str) -> str:
    """What one of its values is called."""
    return _WORDS.get((key, value)) or value[:1].upper() + value[1:]


def choices(keys: Sequence[str], known: Iterable[str]) -> dict[str, dict[str, str]]:
    """Key -> value -> words of the facts that a checkpoint knows, for those of its keys that have any but age.

    Numbers stand for all up to the next one known, which are read as the same.

    >>> choices(["age", "stay"], ["stay: 1", "stay: 4", "stay: 6", "source: clinic"])
    {'stay': {'1': '1 to 3', '4': '4 to 5', '6': '6 or more'}}
    """
    values: dict[str, list[str]] = {key: [] for key in keys if key != AGE}
    for fact in known:
        key, _, value = fact.partition(": ")
        if key in values:
            values[key].append(value)
    return {key: _worded(key, found) for key, found in values.items() if found}


def _worded(key: str, values: list[str]) -> dict[str, str]:
    numbers = sorted(int(value) for value in values if value.isdecimal())
    bins = {str(low): f"{low} to {high - 1}" if high - low > 1 else str(low) for low, high in pairwise(numbers)}
    bins |= {str(last): f"{last} or more" for last in numbers[-1:]}
    words = {value: value_words(key, value) for value in values if not value.isdecimal()}
    return bins | dict(sorted(words.items(), key=lambda item: item[1].lower()))


def chosen(visit: Visit, key: str, options: Mapping[str, str]) -> list[str]:
    """The values of a visit under a key: those of the options that they are read as, else as they are written."""
    known = [f"{key}: {value}" for value in options]
    found = []
    for part in filter(None, map(str.strip, visit.details.get(key, "").split(","))):
        told = facts(Visit(details={key: part}), [key])
        read = nearest(told[0], known) if told else None
        found.append(read.removeprefix(f"{key}: ") if read else part)
    return list(dict.fromkeys(found))


def with_own(key: str, options: Mapping[str, str], values: Iterable[str]) -> dict[str, str]:
    """The options and, after them, the values of a visit that are none of them."""
    own = [value for value in values if value not in options]
    return dict(options) | {
        value: value_words(key, value) + ("" if value.lower() in UNTOLD else f" ({NOT_READ})") for value in own
    }


def left_out(visit: Visit, sequence: Mapping, known: Iterable[str]) -> list[str]:
    """Keys of the facts of a visit beyond the most that a checkpoint reads of one.

    sequence: its `SequenceConfig`, as the manifest has it. known: the facts that it knows.
    """
    known = set(known)
    read = (nearest(fact, known) for fact in facts(visit, sequence["detail_tokens"]))
    beyond = [fact for fact in dict.fromkeys(read) if fact][sequence["most_details"] :]
    return list(dict.fromkeys(fact.partition(": ")[0] for fact in beyond))
