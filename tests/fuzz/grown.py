"""Bytes -> a JSON value that is nearly what a reader expects: known keys, known words, now and then something else.

Plain mutation spends almost all of its inputs on broken JSON. Here each byte is a choice, so that a changed byte changes the
value and not its brackets, and an engine that is guided by coverage can climb.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_ODD = (None, True, False, 0, -1, 1e308, 2**63, 3.5, "", " ", "\0", "é漢", "\u202e", "x" * 300, [], {}, "NaN", "1e9")
_SIZES = (0, 1, 2, 3, 5, 8)
_DEEPEST = 12
WORDS: dict[str, tuple[tuple[str, ...], tuple[Any, ...]]] = {
    "history": (
        ("id", "sex", "age", "details", "visits", "codes", "time", "system", "code", "title", "ethnicity"),
        (
            "428.0", "E8021", "I50.22", "ICD9", "ICD10", "ICD10:I50.22", "F", "male", 72, 131, "2026-01-31", "2999-01-01",
            "2020-01-01T00:00:00+14:00", "0001-01-01T00:00:00+14:00", "p1", "00250", "8", "V45.81", "foo",
        ),
    ),
    "fhir": (
        (
            "resourceType", "entry", "resource", "id", "fullUrl", "code", "coding", "system", "text", "subject", "reference",
            "encounter", "period", "start", "end", "birthDate", "gender", "recordedDate", "onsetDateTime", "class",
            "clinicalStatus", "verificationStatus", "category", "identifier", "value", "type", "extension", "url",
            "valueString", "contained", "hospitalization", "diagnosis", "condition", "rank", "use", "deceasedBoolean",
        ),
        (
            "Bundle", "Patient", "Encounter", "Condition", "transaction", "collection", "p1", "e1", "c1", "Patient/p1",
            "urn:uuid:p1", "Encounter/e1", "#p1", "http://hl7.org/fhir/sid/icd-10-cm", "http://hl7.org/fhir/sid/icd-9-cm",
            "http://snomed.info/sct", "I50.22", "428.0", "73211009", "2020-01-01", "2020", "2020-01", "2020-13-45",
            "2020-01-01T10:00:00Z", "female", "entered-in-error", "confirmed", "1950-02-03", "http://x?identifier=s|1",
        ),
    ),
    "config": (
        (
            "format", "name", "stage", "systems", "icd_release", "sequence", "label_space", "input_codes", "files", "copy",
            "calibration", "hidden_size", "vocab_size", "num_hidden_layers", "model_type", "auto_map", "weight_map",
            "max_tokens", "visit_details", "tokenizer_class", "added_tokens", "attn_implementation", "text_config",
            "config.json", "tokenizer.json", "model.safetensors", "../x",
        ),
        (1, 2, 4, 10**9, "rank", "ICD9", "ICD9:428.0", "ICD9:", ":", "llama", "0" * 64, "x.Y", "../x", "sdpa", "a/b"),
    ),
}  # fmt: skip


def grown(data: bytes, kind: str) -> Any:
    """The value that `data` stands for among the words of `kind`; equal bytes give equal values."""
    keys, values = WORDS[kind]
    return _value(iter(data), keys, values, 0)


def _value(choices: Iterator[int], keys: tuple[str, ...], values: tuple[Any, ...], depth: int) -> Any:
    choice = next(choices, 0)
    if choice < 90 and depth < _DEEPEST:  # an object: the root, and most of what is inside
        size = next(choices, 0) % 7
        return {keys[next(choices, 0) % len(keys)]: _value(choices, keys, values, depth + 1) for _ in range(size)}
    if choice < 140 and depth < _DEEPEST:
        size = _SIZES[next(choices, 0) % len(_SIZES)]
        return [_value(choices, keys, values, depth + 1) for _ in range(size)]
    if choice < 240:
        return values[next(choices, 0) % len(values)]
    return _ODD[choice % len(_ODD)]
