"""Figures of the evidence as words and Markdown tables. Knows the JSON of the experiments; draws and measures nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

NAMES = {
    "recall@1": "recall@1",
    "recall@5": "recall@5",
    "recall@10": "recall@10",
    "recall@20": "recall@20",
    "recall@30": "recall@30",
    "weighted_f1_oracle": "weighted F1, oracle cut",
    "weighted_f1_cut": "weighted F1, own cut",
    "recurrent_recall@20": "recall@20, recurrent",
    "new_onset_recall@20": "recall@20, new onset",
    "cut_size_mean": "codes named a patient",
    "true_size_mean": "true codes a patient",
}
Figure = dict[str, float | None]


def percent(figure: Figure, digits: int = 1) -> str:
    """A share as per cent with its interval."""
    return _with_interval(figure, 100, digits, " %", "")


def points(figure: Figure, digits: int = 1) -> str:
    """A difference of shares in points, signed, with its interval."""
    return _with_interval(figure, 100, digits, "", "+")


def plain(figure: Figure, digits: int = 2) -> str:
    """A figure that is no share, with its interval."""
    return _with_interval(figure, 1, digits, "", "")


def _with_interval(figure: Figure, scale: float, digits: int, unit: str, sign: str) -> str:
    if figure["value"] is None:
        return "not defined"

    def number(value: float) -> str:
        text = f"{scale * value:{sign}.{digits}f}"
        return text.lstrip("+-") if float(text) == 0 else text.replace("-", "−")

    value = number(figure["value"]) + unit
    if figure["low"] is None or figure["high"] is None:
        return value
    return f"{value} ({number(figure['low'])} to {number(figure['high'])})"


def table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table, as lines."""
    return [
        "| " + " | ".join(heading) + " |",
        "|" + "---|" * len(heading),
        *("| " + " | ".join(row) + " |" for row in rows),
    ]


def listed(words: Sequence[str]) -> str:
    """'a, b and c'."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def above(rows: Sequence[dict[str, Any]], part: str, name: str) -> str:
    """In one sentence: which models MERA is above, level with and below, by the paired interval."""
    sides: dict[str, list[str]] = {"above": [], "level with": [], "below": []}
    for row in rows:
        difference = row[part]["mera_minus_this"][name]
        sides[_side(difference)].append(row["name"])
    said = [f"{side} {listed(names)}" for side, names in sides.items() if names]
    return f"MERA is {'; '.join(said)}." if said else "no other model was run."


def significant(difference: Figure) -> bool:
    """Whether the interval leaves out 0; a difference without an interval shows nothing."""
    low, high = difference["low"], difference["high"]
    return low is not None and high is not None and (low > 0 or high < 0)


def _side(difference: Figure) -> str:
    """Where the interval of a difference lies."""
    if not significant(difference):
        return "level with"
    return "above" if difference["low"] > 0 else "below"


def questions_in_words(found: dict[str, Any]) -> tuple[int, list[str], list[str]]:
    """Number of an open question, its paragraph, and its table."""
    question = found["question"]
    for number, (words, say) in enumerate(
        (("branches", _branches), ("label space", _growth), ("order", _order), ("travel", _travel)), 1
    ):
        if words in question:
            return number, *say(found)
    raise ValueError(f"No open question is called {question!r}.")


def _branches(found: dict[str, Any]) -> tuple[list[str], list[str]]:
    reference = found["reference"]
    first, *others = found["models"]
    text = [
        f"New codes of the next visit of {found['patients']:,} test patients were divided: {found['new_codes']['in_branch']:,} "
        f"in a chapter that the history holds already, {found['new_codes']['cross_branch']:,} in a chapter that it does not. "
        f"{reference} finds {percent(first['in_branch'])} of the first and {percent(first['cross_branch'])} of the second among "
        f"its {found['k']} best.",
    ]
    for model in others:
        minus = model["minus_reference"]
        change = []
        for branch, words in (("in_branch", "within branches"), ("cross_branch", "across branches")):
            shown = points(minus[branch])
            change.append(f"{shown} points {words}" + ("" if significant(minus[branch]) else ", which settles nothing"))
        text.append(f"*{model['name']}*: {'; '.join(change)}.")
    rows = [
        [model["name"], str(model["seeds"]), percent(model["in_branch"]), percent(model["cross_branch"])]
        for model in found["models"]
    ]
    lines = table(["model", "seeds", "recall@20 in branch", "recall@20 across branches"], rows)
    for name, pairs in found["pairs"].items():
        moved = [pair for pair in pairs if significant(pair["difference"])]
        lines += [
            "",
            f"Pairs of chapters (history, new code) of {len(pairs)} with enough codes whose recall differs clearly under "
            f'"{name}": {len(moved)}; of so many, about {0.05 * len(pairs):.0f} would by chance.',
            "",
            *table(
                ["history holds", "new code in", "codes", f"recall, {reference}", "difference, points"],
                [
                    [
                        pair["history"],
                        pair["new"],
                        str(pair["codes"]),
                        f"{100 * pair['reference']:.1f} %",
                        points(pair["difference"]),
                    ]
                    for pair in (pairs[:5] + pairs[-5:] if len(pairs) > 10 else pairs)
                ],
            ),
        ]
    return text, lines


def _growth(found: dict[str, Any]) -> tuple[list[str], list[str]]:
    rows = found["rows"]
    small, large = rows[0], rows[-1]

    def of(row: dict[str, Any], name: str) -> float:
        return row["metrics"][name]["value"]

    sizes = listed([f"{row['labels']:,}" for row in rows])
    text = [
        f"The label space was padded ({found['padding']}): {sizes} labels, one model "
        f"each, {found['passes']:g} passes over the same patients, seed {found['seed']}. From {small['labels']:,} to "
        f"{large['labels']:,} labels recall@20 goes from {100 * of(small, 'recall@20'):.1f} to "
        f"{100 * of(large, 'recall@20'):.1f} %, weighted F1 of the fitted cut from {100 * of(small, 'weighted_f1_cut'):.1f} to "
        f"{100 * of(large, 'weighted_f1_cut'):.1f} %, codes named a patient from {of(small, 'cut_size_mean'):.2f} to "
        f"{of(large, 'cut_size_mean'):.2f} ({of(small, 'true_size_mean'):.2f} are true). A training step takes "
        f"{large['seconds_a_step'] / small['seconds_a_step']:.1f} times as long, and memory peaks in training at "
        f"{large['peak_memory_gb']:.1f} in place of {small['peak_memory_gb']:.1f} GB. Fitting the cut on "
        f"{large['cut_patients']:,} patients, once after training, takes {large['cut_seconds']:.0f} in place of "
        f"{small['cut_seconds']:.0f} seconds, and takes the peak to {large['peak_memory_with_cut_gb']:.1f} in place of "
        f"{small['peak_memory_with_cut_gb']:.1f} GB.",
        "Padding shows what more candidates cost; it can't show what finer coding of the same patients would do.",
    ]
    lines = table(
        [
            "label space",
            "labels",
            "recall@20",
            "weighted F1, fitted cut",
            "its precision / recall",
            "codes named",
            "codes named, plain EOV",
            "ms a ranking",
            "s a step",
            "peak memory in training, GB",
            "s to fit the cut",
            "peak memory with the cut, GB",
        ],
        [
            [
                row["label_space"],
                f"{row['labels']:,}",
                percent(row["metrics"]["recall@20"]),
                percent(row["metrics"]["weighted_f1_cut"]),
                f"{100 * of(row, 'cut_precision'):.1f} / {100 * of(row, 'cut_recall'):.1f} %",
                f"{of(row, 'cut_size_mean'):.2f}",
                f"{row['plain_eov_cut']['cut_size_mean']['value']:.2f}",
                f"{row['milliseconds_a_ranking']:.1f}",
                f"{row['seconds_a_step']:.2f}",
                f"{row['peak_memory_gb']:.1f}",
                f"{row['cut_seconds']:.0f}",
                f"{row['peak_memory_with_cut_gb']:.1f}",
            ]
            for row in rows
        ],
    )
    return text, lines


def _order(found: dict[str, Any]) -> tuple[list[str], list[str]]:
    text = [
        f"On UCI the order recorded is the order of priority: the first diagnosis is the principal one. Judged on "
        f"{found['patients']:,} test patients by whether the next visit's principal diagnosis stands high in the list. The "
        "score head's term for recurrent codes knows which code came first in the newest visit, whatever the order of the "
        "input; so each order was trained with and without that term.",
    ]
    for row in found["rows"]:
        if "minus_shuffled" in row:
            minus = row["minus_shuffled"]["principal_recall@10"]
            head = "with" if row["head_knows_first_code"] else "without"
            clear = "a clear difference" if significant(minus) else "not settled"
            text.append(
                f"*{row['order']}*, {head} the term: recall@10 of the principal diagnosis {points(minus)} points against "
                f"shuffled ({clear})."
            )
    names = ("principal_recall@1", "principal_recall@5", "principal_recall@10", "principal_recall@20", "recall@20")
    lines = table(
        ["order", "term for recurrent codes", "seeds", *(name.replace("_", " ") for name in names)],
        [
            [
                row["order"],
                "yes" if row["head_knows_first_code"] else "no",
                str(row["seeds"]),
                *(percent(row["metrics"][name]) for name in names),
            ]
            for row in found["rows"]
        ],
    )
    return text, lines


def _travel(found: dict[str, Any]) -> tuple[list[str], list[str]]:
    done = [row for row in found["rows"] if "not_run" not in row]
    text = [
        f"{found['checkpoint']}, untouched, on other sources; all codes rolled up to {found['level']}, ICD-10-CM codes by way of "
        "the equivalence maps. Code frequency and copying the past are fitted at home as well.",
    ]
    for row in done:
        if row["home"]:
            continue
        copy = next(model for model in row["models"] if model["name"].startswith("copy"))
        minus = copy["mera_minus_this"]["recall@20"]
        side = _side(minus)
        text.append(
            f"*{row['source']}* ({row['patients']:,} patients, {row['true_codes_a_visit']:.1f} codes a visit, "
            f"{100 * row['recurrent']:.0f} % of them recurrent, {100 * row['true_codes_within']:.0f} % within the label space): "
            f"recall@20 {percent(row['models'][0]['metrics']['recall@20'])}, {side} copying the past ({points(minus)} points)."
        )
    lines = table(
        ["source", "patients", "model", "recall@10", "recall@20", "weighted F1, oracle cut", "recall@20, new onset"],
        [
            [
                row["source"],
                f"{row['patients']:,}",
                model["name"],
                *(
                    percent(model["metrics"][name])
                    for name in ("recall@10", "recall@20", "weighted_f1_oracle", "new_onset_recall@20")
                ),
            ]
            for row in done
            for model in row["models"]
        ],
    )
    lines += ["", *(f"- Not run: {row['source']}: {row['not_run']}" for row in found["rows"] if "not_run" in row)]
    return text, lines
