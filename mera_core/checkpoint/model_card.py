"""A checkpoint's manifest as a model card: sections of facts, tables of figures, limits. Nothing is typed by hand.

Boundary: what `mera.json` says in, words and tables out; no screen, no files, no model. Sections and fields are those of
the CHAI Applied Model Card, v0.2 (https://mc.chai.org); a field the manifest has nothing on says so. Limits are worked
out from the manifest's own figures.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from mera_core.common.errors import InputError
from mera_core.common.formatting import with_interval
from mera_core.icd.ontology import SYSTEM_NAMES, SYSTEMS
from mera_core.ranking.calibration import Calibrations
from mera_core.ranking.population import trained_on
from mera_core.ranking.ranking import NOTICE

NOT_RECORDED = "Not recorded in the manifest."
SMALL_GROUP = 100  # patients; below, an interval is wide
_PLAIN = ("size_mean", "_slope")  # figures that are no shares
_NAMES = {
    "weighted_f1_oracle": "weighted F1, at the true number of codes",
    "weighted_f1_cut": "weighted F1, at the model's cut-off",
    "cut_precision": "precision of the predicted codes",
    "cut_recall": "recall of the predicted codes",
    "cut_size_mean": "codes predicted, a patient",
    "true_size_mean": "codes in the next visit, a patient",
    "auprc_micro": "AUPRC, all patient-code pairs",
    "auprc_macro": "AUPRC, mean over codes",
    "ece": "expected calibration error",
    "ece_frequent": "expected calibration error, codes with 50 cases or more",
    "ece_frequent_mean": "the same of each such code by itself, mean",
    "ece_frequent_max": "the same of each such code by itself, worst",
    "ece_frequent_mean_if_right": "what that mean would be if every probability were exact",
    "ece_frequent_if_right": "expected calibration error, such codes, if every probability were exact",
    "calibration_slope": "calibration slope (1 is right)",
    "brier": "Brier score",
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "f1_at_0.5": "F1 at probability 0.5",
}

Manifest = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Fact:
    """One field of the card. source: where in the manifest it stands, "" where it is recorded nowhere."""

    name: str
    value: str
    source: str = ""

    @property
    def recorded(self) -> bool:
        """Whether the manifest has anything on it."""
        return bool(self.source)


def sections(manifest: Manifest, name: str) -> dict[str, list[Fact]]:
    """Title of a section -> its facts, in the order of the CHAI card. name: of the checkpoint, with its fingerprint."""
    m, data = manifest, manifest.get("data", {})
    memorize = m.get("method", {}).get("memorize") or {}
    ranked, read, files = len(m.get("label_space", ())), len(m.get("input_codes", ())), len(m.get("files", {}))
    versions = ", ".join(f"{library} {version}" for library, version in m.get("versions", {}).items())
    base = (memorize.get("backbone") or "None: trained from random weights.") if memorize else ""
    notice = next((result["notice"] for result in evaluations(m).values() if result.get("notice")), "")
    others = [SYSTEM_NAMES[system] for system in SYSTEMS if system not in m.get("systems", ())]
    reached = (
        f"Histories in {' or '.join(others)} reach it only through the general equivalence maps." if others else ""
    )
    return {
        "Basic information": [_fact("Model name", name, "name"), *_own(m, "Developer", "Developer contact")],
        "Release": [
            _fact("Release stage", m.get("stage", ""), "stage"),
            *_own(m, "Release date"),
            _fact("Release version", name.split()[-1], "files (hash of all files' hashes)"),
            _fact("ICD releases", "; ".join(m.get("icd_release", {}).values()), "icd_release"),
            _fact("Trained by the code at commit", str(data.get("commit", "")), "data.commit"),
            _fact("Libraries", versions, "versions"),
            *_own(m, "Global availability", "Regulatory approval"),
        ],
        "Summary": [_fact("Summary", _summary(m), "systems, label_space, label_level"), *_own(m, "Keywords")],
        "Uses and directions": [
            Fact("Intended use", notice or NOTICE, "metrics.*.notice" if notice else "the notice of this software"),
            *_own(m, "Primary intended users"),
            _fact("How to use", _input_words(m.get("sequence", {})), "sequence"),
            _fact("Targeted patient population", _population(data), "data"),
            _fact("Cautioned out-of-scope settings", reached, "systems"),
        ],
        "Trust ingredients": [
            _fact(
                "Outcomes and outputs",
                ranked and f"Scores of {ranked:,} codes and of the end of the visit (the cut-off)",
                "label_space",
            ),
            _fact("Model type", _architecture(memorize, m.get("copy")), "method.memorize"),
            _fact("Foundation model", base, "method.memorize.backbone"),
            _fact("Input data source", _source(data), "data.source, data.sha256"),
            _fact("Input data type", read and f"{read:,} diagnosis codes can be read as they are", "input_codes"),
            _fact("Development data", _development(data), "data.parts, data.import"),
            _fact("Split", str(data.get("split_rule", "")), "data.split_rule"),
            *_own(m, "Bias mitigation approaches", "Ongoing maintenance"),
            _fact("Security", files and f"{files} files, each with its SHA-256, checked on loading", "files"),
            *_own(m, "Funding source", "Stakeholders consulted"),
        ],
        "Resources": _own(
            m,
            *("Evaluation references", "Clinical trial", "Peer-reviewed publications"),
            *("Reimbursement status", "Patient consent or disclosure"),
        ),
    }


def _fact(name: str, value: str | int, source: str) -> Fact:
    return Fact(name, str(value), source) if value else Fact(name, NOT_RECORDED)


def _own(manifest: Manifest, *names: str) -> list[Fact]:
    """Fields that a manifest may record under their own name, in the card of its `card` entry or at its top."""
    own = manifest.get("card") or {}
    keys = {name: name.lower().replace("-", "_").replace(" ", "_") for name in names}
    return [
        _fact(name, str(own.get(key) or manifest.get(key) or ""), f"card.{key}" if key in own else key)
        for name, key in keys.items()
    ]


def _summary(manifest: Manifest) -> str:
    books = " and ".join(SYSTEM_NAMES.get(system, system) for system in manifest.get("systems", ()))
    if not manifest.get("label_space"):
        return f"Has memorized {books}; it does not rank."
    return (
        f"Has memorized {books} and ranks {len(manifest['label_space']):,} codes for a patient's next visit: "
        f"{manifest.get('label_level') or 'level not recorded'}."
    )


def _input_words(sequence: Mapping[str, Any]) -> str:
    if not sequence:
        return ""
    details = [*sequence.get("patient_details", ()), *sequence.get("visit_details", ())]
    tokens = sequence.get("detail_tokens", ())
    known = ["sex", *details] if "age" in tokens else ["age, sex", *details]
    profile = f"{', '.join(known)} in words, then " if sequence.get("profile") else ""
    facts = f" at most {sequence.get('most_details')} of its facts ({', '.join(tokens)})" if tokens else ""
    intro = f" “{sequence['visit_intro']}”" if sequence.get("visit_intro") else ""
    told = ",".join(filter(None, (facts, intro)))
    return (
        f"Input: {profile}each earlier visit as{told + ' and' if told else ''} its codes, at most "
        f"{sequence.get('max_tokens', 0):,} tokens; what is longer is shortened, with a note."
    )


def _population(data: Mapping[str, Any]) -> str:
    """Whom the model learned from, and how many."""
    who, train = trained_on(data), data.get("parts", {}).get("train", {})
    if not train or data.get("population") or "patients of" in who:
        return who
    return f"{who[:1].upper()}{who[1:]}: {train['patients']:,} patients of {data.get('source', 'an unnamed source')}."


def _architecture(settings: Mapping[str, Any], copy: bool | None) -> str:
    if not settings.get("layers"):
        return ""
    return (
        f"Causal language model, {settings['layers']} layers, {settings['hidden_size']} wide, with one token a code; "
        f"score head {'with' if copy else 'without'} a term for codes already in the history."
    )


def _source(data: Mapping[str, Any]) -> str:
    if not data.get("source"):
        return ""
    known = f", SHA-256 {data['sha256']}" if data.get("sha256") else ""
    return f"{data['source']} ({data.get('format', 'format not recorded')}){known}"


def _development(data: Mapping[str, Any]) -> str:
    parts = [
        f"{name}: {part['patients']:,} patients, {part['with_two_visits']:,} with two visits or more"
        for name, part in data.get("parts", {}).items()
    ]
    left_out = [f"{count:,} {reason}" for reason, count in (data.get("import", {}).get("left_out") or {}).items()]
    return "; ".join(parts) + (f". Entries left out on import: {'; '.join(left_out)}." if left_out else "")


# --- figures


def evaluations(manifest: Manifest) -> dict[str, Mapping[str, Any]]:
    """Name -> result, of everything in the manifest that was measured on patients; the test part first."""
    found = {
        name: result
        for name, result in (manifest.get("metrics") or {}).items()
        if isinstance(result, Mapping) and isinstance(result.get("metrics"), Mapping)
    }
    return dict(sorted(found.items(), key=lambda item: item[0] != "test"))


def measured_on(manifest: Manifest, result: Mapping[str, Any]) -> str:
    """Whom a result was measured on, whether that is an internal or an external test, and how patients were parted."""
    data, of = manifest.get("data", {}), result.get("data", {})
    words = f"{result.get('patients', 0):,} patients, {of.get('patients', 'not said which')}"
    words += f", of {of.get('source', 'an unnamed source')}. Mode: {result.get('mode', 'not recorded')}. "
    if of.get("source") and of["source"] == data.get("source"):
        words += "Test type: internal, on patients of the training source who were held out. "
    elif of.get("source") and data.get("source"):
        words += "Test type: external, on another source than that of training. "
    return words + "Each patient's last visit is the target; in brackets, 95 % intervals over patients drawn again."


def figure_name(name: str) -> str:
    """A figure in words a reader knows."""
    if name.startswith("ece_top"):
        return f"expected calibration error, first {name.removeprefix('ece_top')} codes"
    return _NAMES.get(
        name, name.replace("_capped", ", by the most one can find,").replace("@", " at ").replace("_", " ")
    )


def interval(name: str, figure: Mapping[str, float | None] | float | None, signed: bool = False) -> str:
    """A figure with its 95 % interval; shares in per cent, differences of shares in points and signed.

    >>> interval("recall@20", {"value": 0.621, "low": 0.606, "high": 0.635})
    '62.1 % (60.6 to 63.5)'
    """
    if isinstance(figure, float):
        figure = {"value": figure}
    if not figure or figure.get("value") is None:
        return "not defined"
    if name.endswith(_PLAIN):
        return with_interval(figure, sign="+" if signed else "")
    small = abs(figure["value"]) < 0.01 and not signed
    return with_interval(figure, 100, 3 if small else 1, " points" if signed else " %", "+" if signed else "")


def main_figures(result: Mapping[str, Any]) -> pd.DataFrame:
    """A row per figure: all codes, recurrent ones, new onsets; with intervals."""
    columns = {"all codes": "metrics", "recurrent": "recurrent", "new onset": "new_onset"}
    parts = {title: result.get(part) or {} for title, part in columns.items()}
    parts["new onset"] = (result.get("new_only") or {}) | parts["new onset"]  # calibration: the same codes, taken alone
    rows = []
    for name in dict.fromkeys((*result["metrics"], *parts["recurrent"])):
        shown = {title: interval(name, part[name]) if name in part else "" for title, part in parts.items()}
        rows.append({"figure": figure_name(name), **shown})
    return pd.DataFrame(rows, columns=["figure", *columns])


def baseline_figures(result: Mapping[str, Any], names: Sequence[str] = ("recall@10", "recall@20")) -> pd.DataFrame:
    """A row per baseline: its figures, and how much the checkpoint is better, paired."""
    rows = []
    for baseline in result.get("baselines") or ():
        row, better = {"baseline": baseline["name"]}, baseline.get("ours_minus_this", {})
        for name in dict.fromkeys([*names, *better]):
            row[figure_name(name)] = interval(name, baseline["metrics"].get(name))
            row[f"this model minus it, {figure_name(name)}"] = interval(name, better.get(name), signed=True)
        rows.append(row)
    return pd.DataFrame(rows)


def event_figures(result: Mapping[str, Any]) -> pd.DataFrame:
    """Heart failure at the next visit: all patients, and those who never had it."""
    groups = {"all": "all patients", "without_history": "patients who never had it"}
    return pd.DataFrame(
        [
            {"patients": title, "n": f"{group['n']:,}", "cases": f"{group['cases']:,}"}
            | {
                figure_name(name): interval(name, group[name])
                for name in ("auroc", "auprc", "f1_at_0.5")
                if name in group
            }
            for key, title in groups.items()
            if (group := (result.get("heart_failure") or {}).get(key))
        ]
    )


def calibration_words(manifest: Manifest) -> str:
    """How probabilities were fitted; "" where the manifest holds no calibration, or one that can't be read."""
    try:
        return Calibrations.from_dict(manifest.get("calibration") or {}).in_words()
    except InputError:
        return ""


def limits(manifest: Manifest) -> list[str]:
    """What a reader must know before trusting a number, worked out from the manifest; those it states itself first."""
    stated = manifest.get("limits") or (manifest.get("card") or {}).get("limits") or []
    return [*([stated] if isinstance(stated, str) else stated), *_derived_limits(manifest)]


def _derived_limits(manifest: Manifest) -> Iterator[str]:
    ranked = len(manifest.get("label_space", ()))
    if not ranked:
        yield "It was not trained to rank."
        return
    yield f"It can predict no code outside its {ranked:,} ({manifest.get('label_level') or 'level not recorded'})."
    if not manifest.get("calibration"):
        yield "Its scores are not calibrated on held-out patients, so no probability is shown for a diagnosis."
    recalled = (manifest.get("metrics") or {}).get("recall") or {}
    exact = (recalled.get("code_to_definition") or {}).get("words")
    if exact is not None:
        yield f"It recalls {100 * exact:.1f} % of the ICD definitions word for word."
    results = evaluations(manifest)
    if not results:
        yield "No figure measured on patients is recorded."
        return
    name, result = next(iter(results.items()))
    new, old = ((result.get(part) or {}).get("recall@20") for part in ("new_onset", "recurrent"))
    if new and old:
        yield (
            f"It is far better at codes that the patient had before: recall at 20 is {interval('recall', old)} for "
            f"recurrent codes and {interval('recall', new)} for new ones ({name})."
        )
    for baseline in result.get("baselines") or ():
        for key, difference in baseline.get("ours_minus_this", {}).items():
            if difference.get("low") is not None and difference["low"] <= 0:
                yield (
                    f"Not shown to be better than the baseline “{baseline['name']}” in {figure_name(key)}: difference "
                    f"{interval(key, difference, signed=True)} ({name})."
                )
    small = [f"{group['name']} ({group['n']})" for group in result.get("subgroups") or () if group["n"] < SMALL_GROUP]
    if small:
        yield f"Measured on fewer than {SMALL_GROUP} patients, so uncertain: {', '.join(small)}."
